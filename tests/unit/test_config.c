/* config.json and generation_config.json: published files, old and new spellings, every refusal. */
#include <math.h>

#include "model_files.h"
#include "tests/unit/suite.h"

/* ---- reading ---- */

static gm_status read_text(const char *text, gm_diag *diag, fe_model *model) {
    cJSON *root;
    *model = (fe_model){0};
    ck_assert_msg(fe_json_parse(text, strlen(text), "config.json", diag, &root) == GM_OK, "%s: %s", text,
                  diag->message);
    gm_status status = fe_config_from_json(root, "config.json", diag, model);
    cJSON_Delete(root);
    return status;
}

static fe_config read_good(const char *text) {
    gm_diag diag = {.quiet = true};
    fe_model model;
    ck_assert_msg(read_text(text, &diag, &model) == GM_OK, "%s: %s", text, diag.message);
    fe_config config = model.config;
    fe_model_close(&model);
    return config;
}

static void read_bad(const char *text, gm_status wanted, const char *message) {
    gm_diag diag = {.quiet = true};
    fe_model model;
    gm_status status = read_text(text, &diag, &model);
    expect_failure(text, status, &diag, wanted, message);
    ck_assert_msg(strncmp(diag.message, "config.json: ", 13) == 0, "%s", diag.message);
    fe_model_close(&model);
}

/* ---- published files ---- */

static void check_sizes(const fe_config *c, int64_t hidden, int64_t ffn, int64_t layers, int64_t heads,
                        int64_t kv_heads, int64_t head_dim, int64_t vocab) {
    ck_assert(c->hidden == hidden && c->ffn == ffn && c->layers == layers && c->heads == heads);
    ck_assert(c->kv_heads == kv_heads && c->head_dim == head_dim && c->vocab == vocab);
    ck_assert(c->tied && c->norm_plus_one && !c->attention_bias && !c->gelu_erf && c->norm_eps == 1e-6);
    ck_assert(c->bos == 2 && c->stops[0] == 1);
}

START_TEST(all_defaults) {
    fe_config c = read_good("{\"model_type\":\"gemma\"}");
    check_sizes(&c, 3072, 24576, 28, 16, 16, 256, 256000);
    ck_assert(c.generation == FE_GEMMA1 && c.window == 0 && c.context == 8192 && !c.local[0]);
    ck_assert(c.attention_cap == 0 && c.final_cap == 0 && c.attention_scale == 0.0625);
    ck_assert(c.rope_global.theta == 1e4 && c.rope_global.factor == 1 && c.storage == RT_F32);
    c = read_good("{\"model_type\":\"gemma2\"}");
    check_sizes(&c, 2304, 9216, 26, 8, 4, 256, 256000);
    ck_assert(c.window == 4096 && c.local[0] && !c.local[1] && c.attention_scale == 0.0625);
    ck_assert(c.attention_cap == 50 && c.final_cap == 30 && c.rope_local.theta == 1e4);
    c = read_good("{\"model_type\":\"gemma3_text\"}");
    check_sizes(&c, 2304, 9216, 26, 8, 4, 256, 262208);
    ck_assert(c.window == 4096 && c.context == 131072 && c.attention_cap == 0 && c.final_cap == 0);
    ck_assert(c.rope_global.theta == 1e6 && c.rope_local.theta == 1e4);
}
END_TEST

START_TEST(gemma2_27b) {
    fe_config c = read_good("{\"model_type\":\"gemma2\",\"hidden_size\":4608,\"intermediate_size\":36864,"
                            "\"num_hidden_layers\":46,\"num_attention_heads\":32,\"num_key_value_heads\":16,\"head_"
                            "dim\":128,"
                            "\"query_pre_attn_scalar\":144,\"hidden_act\":\"relu\",\"sliding_window_pattern\":5}");
    check_sizes(&c, 4608, 36864, 46, 32, 16, 128, 256000);
    ck_assert_double_eq_tol(c.attention_scale, 1 / 12.0, 1e-15);
    ck_assert(c.local[44] && !c.local[45]); /* the pattern key is Gemma 3's */
}
END_TEST

START_TEST(gemma3_270m) {
    fe_config c = read_good("{\"_sliding_window_pattern\":9,\"architectures\":[\"Gemma3ForCausalLM\"],\"attention_"
                            "bias\":false,"
                            "\"attention_dropout\":0.0,\"attn_logit_softcapping\":null,\"bos_token_id\":2,\"eos_token_"
                            "id\":1,"
                            "\"final_logit_softcapping\":null,\"head_dim\":256,\"hidden_activation\":\"gelu_pytorch_"
                            "tanh\","
                            "\"hidden_size\":640,\"initializer_range\":0.02,\"intermediate_size\":2048,"
                            "\"max_position_embeddings\":32768,\"model_type\":\"gemma3_text\",\"num_attention_heads\":"
                            "4,"
                            "\"num_hidden_layers\":18,\"num_key_value_heads\":1,\"pad_token_id\":0,"
                            "\"query_pre_attn_scalar\":256,\"rms_norm_eps\":1e-06,\"rope_local_base_freq\":10000.0,"
                            "\"rope_scaling\":null,\"rope_theta\":1000000.0,\"sliding_window\":512,\"torch_dtype\":"
                            "\"bfloat16\","
                            "\"use_bidirectional_attention\":false,\"use_cache\":true,\"vocab_size\":262144}");
    check_sizes(&c, 640, 2048, 18, 4, 1, 256, 262144);
    ck_assert(c.window == 512 && c.context == 32768 && c.storage == RT_BF16);
    for (int i = 0; i < 18; i++) ck_assert(c.local[i] == (i != 5 && i != 11 && i != 17));
    ck_assert(c.stop_count == 1 && c.rope_global.factor == 1);
}
END_TEST

START_TEST(gemma3_27b) {
    fe_config c = read_good("{\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"boi_token_index\":255999,"
                            "\"eoi_token_index\":256000,\"eos_token_id\":[1,106],\"image_token_index\":262144,"
                            "\"mm_tokens_per_image\":256,\"model_type\":\"gemma3\",\"text_config\":{\"head_dim\":128,"
                            "\"hidden_size\":5376,\"intermediate_size\":21504,\"model_type\":\"gemma3_text\","
                            "\"num_attention_heads\":32,\"num_hidden_layers\":62,\"num_key_value_heads\":16,"
                            "\"query_pre_attn_scalar\":168,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
                            "\"sliding_window\":1024,\"final_logit_softcapping\":30.0},\"torch_dtype\":\"bfloat16\","
                            "\"vision_config\":{\"hidden_size\":1152}}");
    check_sizes(&c, 5376, 21504, 62, 32, 16, 128, 262208);
    ck_assert(c.window == 1024 && c.storage == RT_BF16 && c.final_cap == 0);
    ck_assert(c.rope_global.theta == 1e6 && c.rope_global.factor == 8 && c.rope_local.factor == 1);
    ck_assert(c.stop_count == 2 && c.stops[1] == 106 && c.local[60] && c.local[61] && !c.local[59]);
    ck_assert_double_eq_tol(c.attention_scale, 1 / sqrt(168), 1e-15);
}
END_TEST

/* ---- spellings ---- */

/* The same model as new, old and very old versions of the library wrote it. */
START_TEST(spellings) {
    static const char *const models[] = {
        "gemma1-gqa",  "gemma1-mha",       "gemma1-tiny",           "gemma2-tiny", "gemma3-multimodal-tiny",
        "gemma3-tiny", "gemma3-tiny-bf16", "gemma3-tiny-ropescaled"};
    static const char *const names[] = {"config.json", "config.legacy.json", "config.mid2025.json"};
    for (size_t i = 0; i < GM_COUNT(models); i++) {
        fe_config first = {0};
        int read = 0;
        for (size_t k = 0; k < GM_COUNT(names); k++) {
            char path[512];
            snprintf(path, sizeof path, "%s/tiny/%s/%s", GM_TEST_DATA, models[i], names[k]);
            if (access(path, R_OK) != 0) continue;
            fe_model model = expect_open(path, true);
            fe_config c = model.config;
            c.storage = RT_F32;
            c.stop_count = 0;
            memset(c.stops, 0, sizeof c.stops);
            if (read++ == 0) first = c;
            ck_assert_msg(memcmp(&first, &c, sizeof c) == 0, "%s differs", path);
            fe_model_close(&model);
        }
        ck_assert_int_ge(read, 2);
    }
}
END_TEST

static fe_config with(const char *type, const char *keys) {
    char text[1024];
    snprintf(text, sizeof text, "{\"model_type\":\"%s\",%s}", type, keys);
    return read_good(text);
}

static void check_rope(const char *type, const char *keys, double theta, double factor, double local_theta,
                       double local_factor) {
    fe_config c = with(type, keys);
    ck_assert_msg(c.rope_global.theta == theta && c.rope_global.factor == factor && c.rope_local.theta == local_theta &&
                      c.rope_local.factor == local_factor,
                  "%s: %g / %g, %g / %g", keys, c.rope_global.theta, c.rope_global.factor, c.rope_local.theta,
                  c.rope_local.factor);
}

START_TEST(ropes) {
    check_rope("gemma", "\"rope_theta\":5000", 5000, 1, 5000, 1);
    check_rope("gemma2", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", 1e4, 2, 1e4, 2);
    check_rope("gemma2", "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4,\"rope_theta\":7}", 7, 4, 7, 4);
    check_rope("gemma2", "\"rope_parameters\":{\"rope_type\":\"default\"},\"rope_theta\":3", 3, 1, 3, 1);
    check_rope("gemma3_text", "\"rope_theta\":5,\"rope_local_base_freq\":6", 5, 1, 6, 1);
    check_rope("gemma3_text", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":8}", 1e6, 8, 1e4, 1);
    check_rope("gemma3_text", "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8}}", 1e6,
               8, 1e4, 1);
    check_rope("gemma3_text",
               "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":5},\"sliding_attention\":"
               "{\"rope_theta\":6,\"rope_type\":\"linear\",\"factor\":2}}",
               5, 1, 6, 2);
    /* A set for all layers is not read in Gemma 3, as in the reference. */
    check_rope("gemma3_text", "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":8,\"rope_theta\":5}", 1e6, 1,
               1e4, 1);
    check_rope("gemma3_text",
               "\"rope_theta\":7,\"rope_parameters\":{\"rope_type\":\"yarn\","
               "\"sliding_attention\":{\"rope_theta\":6}}",
               7, 1, 6, 1);
    check_rope("gemma3_text", "\"rope_parameters\":null,\"rope_scaling\":null", 1e6, 1, 1e4, 1);
}
END_TEST

START_TEST(layer_rules) {
    fe_config c = with("gemma3_text", "\"num_hidden_layers\":5,\"sliding_window_pattern\":3");
    ck_assert(c.local[0] && c.local[1] && !c.local[2] && c.local[4]);
    c = with("gemma3_text", "\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\",\"sliding_attention\"],"
                            "\"sliding_window\":7");
    ck_assert(!c.local[0] && c.local[1] && c.window == 7);
    c = with("gemma2", "\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\",\"full_attention\"]");
    ck_assert(!c.local[0] && !c.local[1] && c.window == 0);
    c = with("gemma2", "\"layer_types\":null");
    ck_assert(c.local[0] && !c.local[1]);
    c = with("gemma", "\"layer_types\":[1,2],\"sliding_window\":3");
    ck_assert(!c.local[0] && c.window == 0);
}
END_TEST

START_TEST(single_keys) {
    ck_assert(!with("gemma", "\"hidden_act\":\"gelu\",\"hidden_activation\":null").gelu_erf);
    ck_assert(!with("gemma2", "\"hidden_act\":\"gelu\"").gelu_erf);
    ck_assert(with("gemma2", "\"hidden_activation\":\"gelu\"").gelu_erf);
    ck_assert(with("gemma2", "\"final_logit_softcapping\":null").final_cap == 0);
    ck_assert(with("gemma3_text", "\"final_logit_softcapping\":12.5").final_cap == 12.5);
    ck_assert(with("gemma", "\"torch_dtype\":\"float16\"").storage == RT_F16);
    ck_assert(with("gemma", "\"dtype\":\"bfloat16\",\"torch_dtype\":\"float32\"").storage == RT_BF16);
    ck_assert(!with("gemma", "\"tie_word_embeddings\":false").tied);
    ck_assert(with("gemma3", "\"text_config\":{\"tie_word_embeddings\":false},\"tie_word_embeddings\":true").tied);
    ck_assert(!with("gemma3", "\"text_config\":{\"tie_word_embeddings\":false}").tied);
    /* beside the text part's, which is 1 unless it says otherwise */
    fe_config outer = with("gemma3", "\"text_config\":{},\"eos_token_id\":106");
    ck_assert(outer.stop_count == 2 && outer.stops[0] == 1 && outer.stops[1] == 106);
    ck_assert(with("gemma", "\"attention_bias\":true").attention_bias);
    ck_assert(with("gemma2", "\"rope_theta\":10000,\"final_logit_softcapping\":30").final_cap == 30);
    fe_config c = with("gemma", "\"eos_token_id\":[107,1,107],\"bos_token_id\":null,\"pad_token_id\":-1");
    ck_assert(c.stop_count == 2 && c.stops[0] == 107 && c.stops[1] == 1 && c.bos == -1);
    ck_assert_int_eq(with("gemma", "\"eos_token_id\":null").stop_count, 0);
}
END_TEST

/* ---- refusals ---- */

START_TEST(refused_keys) {
    static const struct {
        const char *type, *keys;
        gm_status status;
        const char *message;
    } cases[] = {
        {"gemma", "\"hidden_size\":null", GM_FORMAT,
         "key \"hidden_size\": expected an integer 1 to 16777216, found null"},
        {"gemma", "\"hidden_size\":168.0", GM_FORMAT,
         "key \"hidden_size\": expected an integer 1 to 16777216, found 168.0"},
        {"gemma2", "\"query_pre_attn_scalar\":144.0", GM_FORMAT, "found 144.0"},
        {"gemma", "\"num_hidden_layers\":1e1", GM_FORMAT, "found 10.0"},
        {"gemma", "\"bos_token_id\":2.0", GM_FORMAT, "key \"bos_token_id\""},
        {"gemma", "\"eos_token_id\":[1,106.0]", GM_FORMAT, "key \"eos_token_id\""},
        {"gemma3_text", "\"sliding_window_pattern\":6.0", GM_FORMAT, "found 6.0"},
        {"gemma", "\"hidden_size\":168.5", GM_FORMAT,
         "key \"hidden_size\": expected an integer 1 to 16777216, found 168.5"},
        {"gemma", "\"hidden_size\":\"8\"", GM_FORMAT, "found \"8\""},
        {"gemma", "\"hidden_size\":0", GM_FORMAT, "found 0"},
        {"gemma", "\"hidden_size\":-4", GM_FORMAT, "found -4"},
        {"gemma", "\"hidden_size\":1e300", GM_FORMAT, "found 1.0000000000000001e+300"},
        {"gemma", "\"hidden_size\":true", GM_FORMAT, "found true"},
        {"gemma", "\"hidden_size\":[8]", GM_FORMAT, "found an array"},
        {"gemma", "\"num_hidden_layers\":257", GM_FORMAT, "expected an integer 1 to 256"},
        {"gemma", "\"head_dim\":15", GM_FORMAT, "head size: expected an even number"},
        {"gemma", "\"head_dim\":4096", GM_FORMAT, "expected an integer 1 to 2048"},
        {"gemma", "\"num_key_value_heads\":3", GM_FORMAT, "expected a multiple of the key/value heads"},
        {"gemma2", "\"hidden_size\":2305", GM_FORMAT, "hidden size: expected a multiple of the attention heads"},
        {"gemma", "\"rms_norm_eps\":0", GM_FORMAT, "key \"rms_norm_eps\": expected a positive number"},
        {"gemma", "\"rms_norm_eps\":\"1e-6\"", GM_FORMAT, "found \"1e-6\""},
        {"gemma", "\"attention_bias\":0", GM_FORMAT, "key \"attention_bias\": expected true or false, found 0"},
        {"gemma", "\"tie_word_embeddings\":1", GM_FORMAT, "key \"tie_word_embeddings\": expected true or false"},
        {"gemma", "\"hidden_act\":\"silu\"", GM_UNSUPPORTED,
         "key \"hidden_act\": expected \"gelu_pytorch_tanh\" or \"gelu\", found \"silu\""},
        {"gemma2", "\"hidden_activation\":null", GM_UNSUPPORTED, "found null"},
        {"gemma2", "\"query_pre_attn_scalar\":null", GM_FORMAT, "key \"query_pre_attn_scalar\""},
        {"gemma2", "\"sliding_window\":0", GM_FORMAT, "key \"sliding_window\""},
        {"gemma2", "\"final_logit_softcapping\":0", GM_FORMAT, "expected a positive number or null, found 0"},
        {"gemma3_text", "\"attn_logit_softcapping\":50", GM_UNSUPPORTED, "expected null in Gemma 3, found 50"},
        {"gemma3_text", "\"use_bidirectional_attention\":true", GM_UNSUPPORTED,
         "key \"use_bidirectional_attention\": expected null or false, found true"},
        {"gemma", "\"use_bidirectional_attention\":\"all\"", GM_UNSUPPORTED, "found \"all\""},
        {"gemma3_text", "\"sliding_window_pattern\":0", GM_FORMAT, "key \"sliding_window_pattern\""},
        {"gemma3_text", "\"layer_types\":[\"full_attention\"]", GM_FORMAT,
         "key \"layer_types\": expected a list of 26 strings, found an array"},
        {"gemma3_text", "\"num_hidden_layers\":1,\"layer_types\":[\"chunked\"]", GM_UNSUPPORTED, "found \"chunked\""},
        {"gemma3_text", "\"num_hidden_layers\":1,\"layer_types\":[1]", GM_UNSUPPORTED, "found 1"},
        {"gemma", "\"quantization_config\":{\"bits\":4}", GM_UNSUPPORTED,
         "key \"quantization_config\": expected null (plain weights), found an object"},
        {"gemma", "\"dtype\":\"float8\"", GM_UNSUPPORTED, "key \"dtype\""},
        {"gemma", "\"torch_dtype\":3", GM_UNSUPPORTED, "key \"torch_dtype\""},
        {"gemma", "\"bos_token_id\":256000", GM_FORMAT, "key \"bos_token_id\": expected a token id below vocab_size"},
        {"gemma", "\"eos_token_id\":[1,1.5]", GM_FORMAT, "key \"eos_token_id\": expected a token id below 256000"},
        {"gemma", "\"eos_token_id\":\"1\"", GM_FORMAT, "key \"eos_token_id\""},
        {"gemma", "\"eos_token_id\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", GM_INVALID,
         "at most 16 different stop ids"},
        {"gemma", "\"rope_theta\":-1", GM_FORMAT, "key \"rope_theta\""},
        {"gemma2", "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8}", GM_UNSUPPORTED,
         "key \"rope_scaling.rope_type\": expected \"default\" or \"linear\", found \"yarn\""},
        {"gemma2", "\"rope_scaling\":{\"type\":\"dynamic\"}", GM_UNSUPPORTED, "key \"rope_scaling.type\""},
        {"gemma2", "\"rope_scaling\":{\"type\":\"linear\"}", GM_FORMAT,
         "key \"rope_scaling.factor\": expected a positive number up to 1e6, found nothing"},
        {"gemma2", "\"rope_scaling\":8", GM_FORMAT, "key \"rope_scaling\": expected an object, found 8"},
        {"gemma2", "\"rope_parameters\":{\"rope_theta\":0}", GM_FORMAT, "key \"rope_parameters.rope_theta\""},
        {"gemma2", "\"rope_parameters\":{\"partial_rotary_factor\":0.25}", GM_UNSUPPORTED,
         "partial_rotary_factor\": expected 1, found 0.25"},
        {"gemma3_text", "\"rope_parameters\":{\"chunked_attention\":{}}", GM_UNSUPPORTED,
         "key \"rope_parameters.chunked_attention\": expected only \"full_attention\""},
        {"gemma2", "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\"}}", GM_UNSUPPORTED,
         "key \"rope_parameters.full_attention\": expected one set for all layers"},
        {"gemma3_text", "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"proportional\"}}", GM_UNSUPPORTED,
         "key \"rope_parameters.full_attention.rope_type\""},
        {"gemma3_text", "\"rope_parameters\":{\"sliding_attention\":3}", GM_FORMAT,
         "key \"rope_parameters.sliding_attention\": expected an object"},
        {"gemma4_text", "\"a\":0", GM_UNSUPPORTED,
         "key \"model_type\": expected \"gemma\", \"gemma2\", \"gemma3_text\" or \"gemma3\", found "
         "\"gemma4_text\""},
        {"gemma3", "\"a\":0", GM_FORMAT, "key \"text_config\": expected an object, found nothing"},
        {"gemma3", "\"text_config\":{\"model_type\":\"llama\"}", GM_UNSUPPORTED,
         "key \"text_config.model_type\": expected \"gemma3_text\""},
        {"gemma3", "\"text_config\":{\"head_dim\":null}", GM_FORMAT,
         "key \"text_config.head_dim\": expected an integer"},
        {"gemma3", "\"text_config\":{},\"quantization_config\":{}", GM_UNSUPPORTED, "quantization_config"},
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        char text[1024];
        snprintf(text, sizeof text, "{\"model_type\":\"%s\",%s}", cases[i].type, cases[i].keys);
        read_bad(text, cases[i].status, cases[i].message);
    }
    read_bad("{}", GM_UNSUPPORTED, "key \"model_type\": expected \"gemma\"");
    read_bad("{\"model_type\":3}", GM_UNSUPPORTED, "found 3");
    read_bad("[]", GM_FORMAT, "expected an object");
}
END_TEST

/* ---- generation_config.json ---- */

static void write_generation(const char *generation) {
    temp_text("config.json", SMALL_CONFIG);
    temp_text("generation_config.json", generation);
}

START_TEST(generation) {
    write_generation("{\"eos_token_id\":[1,7],\"temperature\":0.5,\"top_k\":64,\"top_p\":0.95,\"min_p\":0.1,"
                     "\"repetition_penalty\":1.25,\"do_sample\":true,\"cache_implementation\":\"hybrid\"}");
    fe_model model = expect_open(temp_folder, true);
    const fe_defaults *d = &model.defaults;
    ck_assert(d->temperature == 0.5 && d->top_k == 64 && d->top_p == 0.95 && d->min_p == 0.1);
    ck_assert(d->repeat_penalty == 1.25 && model.config.stop_count == 2 && model.config.stops[1] == 7);
    fe_model_close(&model);
    write_generation("{\"do_sample\":false,\"top_k\":null}");
    model = expect_open(temp_folder, true);
    ck_assert(model.defaults.temperature == 0 && model.defaults.top_k == -1 && isnan(model.defaults.top_p));
    fe_model_close(&model);
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[]", "generation_config.json: expected an object"},
        {"{\"top_p\":2}", "generation_config.json: key \"top_p\": expected a number 0 to 1"},
        {"{\"temperature\":\"hot\"}", "key \"temperature\": expected a number"},
        {"{\"temperature\":-1}", "key \"temperature\": expected a number"},
        {"{\"top_k\":2.5}", "key \"top_k\": expected an integer"},
        {"{\"repetition_penalty\":0}", "key \"repetition_penalty\""},
        {"{\"eos_token_id\":8}", "key \"eos_token_id\": expected a token id below 8"},
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        gm_diag diag = {.quiet = true};
        write_generation(cases[i].text);
        gm_status status = fe_model_open(temp_folder, true, &diag, &model);
        expect_failure(cases[i].text, status, &diag, GM_FORMAT, cases[i].message);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("config");
    TCase *tcase = tcase_create("config");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, temp_make, temp_remove);
    tcase_add_test(tcase, all_defaults);
    tcase_add_test(tcase, gemma2_27b);
    tcase_add_test(tcase, gemma3_270m);
    tcase_add_test(tcase, gemma3_27b);
    tcase_add_test(tcase, spellings);
    tcase_add_test(tcase, ropes);
    tcase_add_test(tcase, layer_rules);
    tcase_add_test(tcase, single_keys);
    tcase_add_test(tcase, refused_keys);
    tcase_add_test(tcase, generation);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
