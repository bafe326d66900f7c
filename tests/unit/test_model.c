/* Opening a MODEL: folders, manifests, and the tensors a configuration asks for. */
#include <math.h>
#include <sys/stat.h>

#include "model_files.h"
#include "tests/unit/suite.h"

/* ---- a small model in the temporary folder ---- */

static small_tensor tensors[SMALL_COUNT + 4];
static size_t tensor_count;

static void reset(void) {
    memcpy(tensors, small_safetensors, sizeof small_safetensors);
    tensor_count = SMALL_COUNT;
}

static void write_weights(const char *name) {
    gm_string file = {0};
    put_safetensors(&file, tensors, tensor_count);
    temp_write(name, file.data, file.length);
    gm_string_free(&file);
}

static void write_folder(void) {
    temp_text("config.json", SMALL_CONFIG);
    write_weights("model.safetensors");
}

static void write_gguf(const char *name) {
    gm_string keys = {0}, file = {0};
    int count = put_small_keys(&keys, "gemma");
    put_gguf(&file, &keys, count, small_gguf, SMALL_COUNT);
    temp_write(name, file.data, file.length);
    gm_string_free(&keys);
    gm_string_free(&file);
}

static void setup(void) {
    temp_make();
    reset();
}

/* ---- shapes ---- */

START_TEST(folder) {
    write_folder();
    fe_model model = expect_open(temp_folder, false);
    ck_assert_str_eq(model.architecture, "gemma");
    ck_assert_str_eq(model.path, temp_folder);
    ck_assert_uint_eq(model.weights.count, SMALL_COUNT);
    ck_assert(model.config.tied && model.vocab.count == 0 && isnan(model.defaults.temperature));
    fe_model_close(&model);
    model = expect_open(temp_file("config.json"), false);
    ck_assert_uint_eq(model.weights.count, SMALL_COUNT);
    fe_model_close(&model);
    unlink(temp_file("model.safetensors"));
    expect_open_failure(temp_folder, GM_IO, "expected model.safetensors or model.safetensors.index.json");
    model = expect_open(temp_folder, true);
    ck_assert_uint_eq(model.weights.count, 0);
    fe_model_close(&model);
    unlink(temp_file("config.json"));
    expect_open_failure(temp_folder, GM_IO, "expected config.json in the folder");
    expect_open_failure(temp_file("none"), GM_IO, "none: No such file");
    expect_open_failure(temp_text("x.bin", "abc"), GM_FORMAT, "x.bin: expected a GGUF file");
    expect_open_failure(temp_text("empty", ""), GM_FORMAT, "empty: expected a GGUF file");
    expect_open_failure(temp_text("x.json", "{}"), GM_FORMAT, "x.json: expected key \"model_type\"");
}
END_TEST

START_TEST(tiny_folders) {
    static const struct {
        const char *name, *tensor;
        size_t count;
        rt_dtype dtype;
    } models[] = {
        {"gemma1-gqa", "layers.2.mlp.up_proj.weight", 29, RT_BF16},
        {"gemma1-tiny", "layers.3.self_attn.o_proj.weight", 38, RT_F32},
        {"gemma2-tiny", "layers.0.pre_feedforward_layernorm.weight", 46, RT_F32},
        {"gemma3-tiny", "layers.11.self_attn.q_norm.weight", 158, RT_F32},
        {"gemma3-tiny-bf16", "layers.7.mlp.down_proj.weight", 106, RT_BF16},
        {"gemma3-multimodal-tiny", "layers.6.self_attn.k_norm.weight", 93, RT_BF16},
    };
    for (size_t i = 0; i < GM_COUNT(models); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/tiny/%s", GM_TEST_DATA, models[i].name);
        fe_model model = expect_open(path, false);
        const rt_tensor *tensor = rt_weights_find(&model.weights, models[i].tensor);
        ck_assert_uint_eq(model.weights.count, models[i].count);
        ck_assert(tensor && tensor->dtype == models[i].dtype && tensor->data);
        ck_assert(model.config.norm_plus_one && model.config.tied);
        fe_model_close(&model);
    }
}
END_TEST

START_TEST(wrong_tensors) {
    static const struct {
        size_t at;
        small_tensor tensor;
        const char *message;
    } cases[] = {
        {0,
         {"model.embed_tokens.weight", 7, 4, 1},
         "tensor \"embed_tokens.weight\": expected shape [8,4], found [7,4]"},
        {1, {"model.norm.weight", 4, 1, 1}, "tensor \"norm.weight\": expected shape [4], found [4,1]"},
        {1, {"model.norm.bias", 4, 0, 1}, "tensor \"norm.weight\": expected shape [4], found no such tensor"},
        {1, {"model.norm.weight", 4, 0, NAN}, "tensor \"norm.weight\": expected finite values"},
        {2,
         {"model.layers.0.input_layernorm.weight", 4, 0, INFINITY},
         "tensor \"layers.0.input_layernorm.weight\": expected finite values, found inf at 0"},
        {3,
         {"model.layers.0.self_attn.q_proj.weight", 4, 5, 1},
         "tensor \"layers.0.self_attn.q_proj.weight\": expected shape [4,4], found [4,5]"},
        {4, {"model.layers.0.self_attn.k_proj.weight", 4, 4, 1}, "expected shape [2,4], found [4,4]"},
        {10, {"model.layers.0.mlp.down_proj.weight", 6, 4, 1}, "expected shape [4,6], found [6,4]"},
        {10,
         {"model.layers.1.mlp.down_proj.weight", 4, 6, 1},
         "tensor \"layers.0.mlp.down_proj.weight\": expected shape [4,6], found no such tensor"},
        {SMALL_COUNT,
         {"model.layers.1.mlp.down_proj.weight", 4, 6, 1},
         "tensor \"layers.1.mlp.down_proj.weight\": expected no such tensor in gemma"},
        {SMALL_COUNT, {"model.layers.0.self_attn.q_norm.weight", 2, 0, 1}, "q_norm.weight\": expected no such tensor"},
        {SMALL_COUNT, {"model.layers.0.self_attn.q_proj.bias", 4, 0, 1}, "q_proj.bias\": expected no such tensor"},
        {SMALL_COUNT, {"score.weight", 1, 0, 1}, "tensor \"score.weight\": expected no such tensor"},
        {SMALL_COUNT, {"lm_head.weight", 8, 5, 1}, "tensor \"lm_head.weight\": expected shape [8,4], found [8,5]"},
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        reset();
        tensors[cases[i].at] = cases[i].tensor;
        if (cases[i].at == SMALL_COUNT) tensor_count++;
        write_folder();
        expect_open_failure(temp_folder, GM_FORMAT, cases[i].message);
    }
}
END_TEST

START_TEST(biases) {
    static const char *const names[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    char text[512], stored[4][96];
    snprintf(text, sizeof text, "%.*s,\"attention_bias\":true}", (int)strlen(SMALL_CONFIG) - 1, SMALL_CONFIG);
    temp_text("config.json", text);
    write_weights("model.safetensors");
    expect_open_failure(temp_folder, GM_FORMAT, "tensor \"layers.0.self_attn.q_proj.bias\": expected shape [4]");
    for (int i = 0; i < 4; i++) {
        snprintf(stored[i], sizeof stored[i], "model.layers.0.self_attn.%s.bias", names[i]);
        tensors[tensor_count++] = (small_tensor){stored[i], i % 3 ? 2 : 4, 0, 0.5f};
    }
    write_weights("model.safetensors");
    fe_model model = expect_open(temp_folder, false);
    ck_assert_ptr_nonnull(rt_weights_find(&model.weights, "layers.0.self_attn.o_proj.bias"));
    fe_model_close(&model);
}
END_TEST

/* ---- head ---- */

START_TEST(heads) {
    tensors[tensor_count++] = (small_tensor){"lm_head.weight", 8, 4, 0.5f};
    write_folder();
    fe_model model = expect_open(temp_folder, false);
    ck_assert(model.config.tied); /* the same values as the embedding */
    ck_assert_ptr_null(rt_weights_find(&model.weights, "lm_head.weight"));
    fe_model_close(&model);
    tensors[SMALL_COUNT].value = 2;
    write_folder();
    model = expect_open(temp_folder, false);
    ck_assert(!model.config.tied);
    ck_assert_ptr_nonnull(rt_weights_find(&model.weights, "lm_head.weight"));
    fe_model_close(&model);
    tensors[0] = tensors[SMALL_COUNT]; /* the head alone is the embedding, too */
    tensor_count--;
    write_folder();
    model = expect_open(temp_folder, false);
    ck_assert(model.config.tied && model.weights.count == SMALL_COUNT);
    ck_assert_float_eq(*(const float *)rt_weights_find(&model.weights, "embed_tokens.weight")->data, 2);
    fe_model_close(&model);
    char text[512];
    reset();
    write_folder();
    snprintf(text, sizeof text, "%.*s,\"tie_word_embeddings\":false}", (int)strlen(SMALL_CONFIG) - 1, SMALL_CONFIG);
    temp_text("config.json", text);
    expect_open_failure(temp_folder, GM_FORMAT, "tensor \"lm_head.weight\": expected shape [8,4], found no such");
}
END_TEST

/* ---- manifests ---- */

START_TEST(manifests) {
    write_weights("weights.safetensors");
    write_gguf("weights.gguf");
    ck_assert_int_eq(mkdir(temp_file("sub"), 0700), 0);
    temp_text("sub/arch.json", SMALL_CONFIG);
    write_weights("sub/model.safetensors");
    temp_text("sub/generation_config.json", "{\"top_k\":5,\"top_p\":0.5}");
    static const struct {
        const char *text;
        bool norm_plus_one;
        int64_t top_k;
    } good[] = {
        {"{\"architecture\":" SMALL_CONFIG ",\"weights\":\"weights.safetensors\"}", true, -1},
        {"{\"architecture\":\"sub/arch.json\",\"weights\":[\"weights.safetensors\"]}", true, 5},
        {"{\"architecture\":\"sub/arch.json\"}", true, 5},
        {"{\"architecture\":\"sub/arch.json\",\"generation\":{\"top_k\":7}}", true, 7},
        {"{\"weights\":\"weights.gguf\"}", false, -1},
        {"{\"weights\":\"weights.gguf\",\"architecture\":" SMALL_CONFIG "}", false, -1},
    };
    for (size_t i = 0; i < GM_COUNT(good); i++) {
        fe_model model = expect_open(temp_text("model.json", good[i].text), false);
        ck_assert_uint_eq(model.weights.count, SMALL_COUNT);
        ck_assert_int_eq(model.config.norm_plus_one, good[i].norm_plus_one);
        ck_assert_int_eq(model.defaults.top_k, good[i].top_k);
        fe_model_close(&model);
    }
    fe_model model = expect_open(
        temp_text("model.json", "{\"weights\":\"weights.gguf\",\"generation\":{\"temperature\":0.5,\"top_p\":1,"
                                "\"min_p\":0,\"repeat_penalty\":1.5,\"eos_token_id\":[3,4]}}"),
        false);
    ck_assert(model.defaults.temperature == 0.5 && model.defaults.repeat_penalty == 1.5);
    ck_assert(model.config.stop_count == 2 && model.config.stops[1] == 4);
    fe_model_close(&model);
}
END_TEST

START_TEST(manifest_parts) {
    char text[1024];
    write_weights("weights.safetensors");
    /* The vocabulary of a GGUF file of another place, with weights that are not GGUF. */
    snprintf(text, sizeof text,
             "{\"architecture\":\"%s/tiny/gemma3-tiny/config.json\",\"tokenizer\":"
             "\"%s/gguf/gemma3-tiny-f32.gguf\"}",
             GM_TEST_DATA, GM_TEST_DATA);
    fe_model model = expect_open(temp_text("model.json", text), false);
    ck_assert(model.vocab.count == 288 && model.vocab.bos == 2 && model.config.norm_plus_one);
    ck_assert_mem_eq(model.vocab.pieces[0].text, "<pad>", 5);
    fe_model_close(&model);
    /* Gemma 2's scale of attention is not in its GGUF files. */
    snprintf(text, sizeof text,
             "{\"architecture\":\"%s/tiny/gemma2-tiny/config.json\",\"weights\":"
             "\"%s/gguf/gemma2-tiny-f32.gguf\"}",
             GM_TEST_DATA, GM_TEST_DATA);
    model = expect_open(temp_text("model.json", text), false);
    ck_assert_double_eq_tol(model.config.attention_scale, 1 / sqrt(24), 1e-15);
    ck_assert(!model.config.norm_plus_one && model.vocab.count == 288);
    fe_model_close(&model);
}
END_TEST

START_TEST(bad_manifests) {
    static const struct {
        const char *text;
        gm_status status;
        const char *message;
    } cases[] = {
        {"{\"weights\":\"weights.gguf\",\"wieghts\":1}", GM_FORMAT,
         "model.json: key \"wieghts\": expected architecture, weights, tokenizer or generation"},
        {"{\"weights\":3}", GM_FORMAT, "key \"weights\": expected a path or a list of paths"},
        {"{\"weights\":[]}", GM_FORMAT, "key \"weights\": expected a path or a list of paths"},
        {"{\"weights\":[\"weights.gguf\",1]}", GM_FORMAT, "key \"weights\""},
        {"{\"weights\":\"weights.safetensors\"}", GM_FORMAT, "expected key \"architecture\""},
        {"{\"weights\":\"none.gguf\"}", GM_IO, "none.gguf: No such file"},
        {"{\"architecture\":3}", GM_FORMAT, "key \"architecture\": expected an object or the path"},
        {"{\"architecture\":\"none.json\"}", GM_IO, "none.json: No such file"},
        {"{\"architecture\":" SMALL_CONFIG "}", GM_IO, "expected model.safetensors or"},
        {"{\"architecture\":" SMALL_CONFIG ",\"weights\":\"none.st\"}", GM_IO, "none.st: No such file"},
        {"{\"architecture\":{\"model_type\":\"llama\"},\"weights\":\"weights.safetensors\"}", GM_UNSUPPORTED,
         "model.json: key \"model_type\": expected"},
        {"{\"architecture\":{\"model_type\":\"gemma2\"},\"weights\":\"weights.gguf\"}", GM_INVALID,
         "expected a configuration of gemma, like the weights"},
        {"{\"weights\":\"weights.gguf\",\"tokenizer\":1}", GM_FORMAT, "key \"tokenizer\": expected a path"},
        {"{\"weights\":\"weights.gguf\",\"tokenizer\":\"none.json\"}", GM_IO, "none.json: No such file"},
        {"{\"weights\":\"weights.gguf\",\"tokenizer\":\"weights.gguf\"}", GM_FORMAT,
         "weights.gguf: expected key \"tokenizer.ggml.model\""},
        {"{\"weights\":\"weights.gguf\",\"generation\":[]}", GM_FORMAT, "key \"generation\": expected an object"},
        {"{\"weights\":\"weights.gguf\",\"generation\":{\"topk\":1}}", GM_FORMAT,
         "key \"generation.topk\": expected temperature, top_k"},
        {"{\"weights\":\"weights.gguf\",\"generation\":{\"top_p\":2}}", GM_FORMAT,
         "key \"generation.top_p\": expected a number 0 to 1"},
        {"{\"weights\":\"weights.gguf\",\"generation\":{\"eos_token_id\":8}}", GM_FORMAT,
         "expected a token id below 8"},
        {"{\"weights\":\"weights.gguf\",\"weights\":\"weights.gguf\"}", GM_FORMAT,
         "expected key \"weights\" only once"},
    };
    write_weights("weights.safetensors");
    write_gguf("weights.gguf");
    for (size_t i = 0; i < GM_COUNT(cases); i++)
        expect_open_failure(temp_text("model.json", cases[i].text), cases[i].status, cases[i].message);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("model");
    TCase *tcase = tcase_create("model");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, temp_remove);
    tcase_add_test(tcase, folder);
    tcase_add_test(tcase, tiny_folders);
    tcase_add_test(tcase, wrong_tensors);
    tcase_add_test(tcase, biases);
    tcase_add_test(tcase, heads);
    tcase_add_test(tcase, manifests);
    tcase_add_test(tcase, manifest_parts);
    tcase_add_test(tcase, bad_manifests);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
