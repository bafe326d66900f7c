/* The ten published models from their config.json alone: geometry, layers, rotary bases, and the IR that they lower
 * to. */
#include <math.h>

#include "frontend/gemma.h"
#include "model_files.h"
#include "tests/unit/suite.h"

#define SCALED ",\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},\"sliding_window\":1024"
#define VISION "\"vision_config\":{\"hidden_size\":1152,\"num_hidden_layers\":27}"

/* As the hub has them; Gemma 3 4B, 12B and 27B leave most keys out. */
static const struct published {
    const char *name, *text;
    int64_t hidden, ffn, layers, heads, kv_heads, head_dim, scalar, window, vocab, context;
    int64_t global_layers;
    double theta, factor, local_theta, attention_cap, final_cap;
    int64_t parameters;
} models[] = {
    {"gemma-2b",
     "{\"architectures\":[\"GemmaForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":2,\"eos_token_id\":1,\"head_"
     "dim\":256,"
     "\"hidden_act\":\"gelu\",\"hidden_size\":2048,\"intermediate_size\":16384,\"max_position_embeddings\":8192,"
     "\"model_type\":\"gemma\","
     "\"num_attention_heads\":8,\"num_hidden_layers\":18,\"num_key_value_heads\":1,\"pad_token_id\":0,\"rms_norm_eps\":"
     "1e-06,"
     "\"rope_scaling\":null,\"rope_theta\":10000.0,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,\"vocab_size\":"
     "256000}",
     2048, 16384, 18, 8, 1, 256, 256, 0, 256000, 8192, 18, 1e4, 1, 1e4, 0, 0, 2506172416},
    {"gemma-7b",
     "{\"model_type\":\"gemma\",\"hidden_act\":\"gelu\",\"hidden_activation\":null,\"hidden_size\":3072,\"intermediate_"
     "size\":24576,"
     "\"num_attention_heads\":16,\"num_hidden_layers\":28,\"num_key_value_heads\":16,\"torch_dtype\":\"bfloat16\"}",
     3072, 24576, 28, 16, 16, 256, 256, 0, 256000, 8192, 28, 1e4, 1, 1e4, 0, 0, 8537680896},
    {"gemma-2-2b",
     "{\"model_type\":\"gemma2\",\"attn_logit_softcapping\":50.0,\"cache_implementation\":\"hybrid\",\"final_logit_"
     "softcapping\":30.0,"
     "\"head_dim\":256,\"hidden_act\":\"gelu_pytorch_tanh\",\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_"
     "size\":2304,"
     "\"intermediate_size\":9216,\"num_attention_heads\":8,\"num_hidden_layers\":26,\"num_key_value_heads\":4,"
     "\"query_pre_attn_scalar\":256,\"sliding_window\":4096,\"torch_dtype\":\"float32\"}",
     2304, 9216, 26, 8, 4, 256, 256, 4096, 256000, 8192, 13, 1e4, 1, 1e4, 50, 30, 2614341888},
    {"gemma-2-9b",
     "{\"model_type\":\"gemma2\",\"hidden_size\":3584,\"intermediate_size\":14336,\"num_attention_heads\":16,\"num_"
     "hidden_layers\":42,"
     "\"num_key_value_heads\":8,\"sliding_window_size\":4096,\"torch_dtype\":\"float32\"}",
     3584, 14336, 42, 16, 8, 256, 256, 4096, 256000, 8192, 21, 1e4, 1, 1e4, 50, 30, 9241705984},
    {"gemma-2-27b",
     "{\"model_type\":\"gemma2\",\"head_dim\":128,\"hidden_size\":4608,\"intermediate_size\":36864,\"num_attention_"
     "heads\":32,"
     "\"num_hidden_layers\":46,\"num_key_value_heads\":16,\"query_pre_attn_scalar\":144,\"torch_dtype\":\"float32\"}",
     4608, 36864, 46, 32, 16, 128, 144, 4096, 256000, 8192, 23, 1e4, 1, 1e4, 50, 30, 27227128320},
    {"gemma-3-270m",
     "{\"_sliding_window_pattern\":6,\"attn_logit_softcapping\":null,\"final_logit_softcapping\":null,\"head_dim\":256,"
     "\"hidden_size\":640,"
     "\"intermediate_size\":2048,\"layer_types\":["
     "\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\","
     "\"full_attention\","
     "\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\","
     "\"full_attention\","
     "\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\","
     "\"full_attention\"],"
     "\"max_position_embeddings\":32768,\"model_type\":\"gemma3_text\",\"num_attention_heads\":4,\"num_hidden_layers\":"
     "18,"
     "\"num_key_value_heads\":1,\"query_pre_attn_scalar\":256,\"rope_local_base_freq\":10000.0,\"rope_scaling\":null,"
     "\"rope_theta\":1000000.0,\"sliding_window\":512,\"torch_dtype\":\"bfloat16\",\"use_bidirectional_attention\":"
     "false,"
     "\"vocab_size\":262144}",
     640, 2048, 18, 4, 1, 256, 256, 512, 262144, 32768, 3, 1e6, 1, 1e4, 0, 0, 268098176},
    {"gemma-3-1b",
     "{\"model_type\":\"gemma3_text\",\"hidden_size\":1152,\"intermediate_size\":6912,\"max_position_embeddings\":"
     "32768,"
     "\"num_attention_heads\":4,\"num_hidden_layers\":26,\"num_key_value_heads\":1,\"sliding_window\":512,\"sliding_"
     "window_pattern\":6,"
     "\"rope_theta\":1000000,\"rope_local_base_freq\":10000,\"eos_token_id\":[1,106],\"vocab_size\":262144}",
     1152, 6912, 26, 4, 1, 256, 256, 512, 262144, 32768, 4, 1e6, 1, 1e4, 0, 0, 999885952},
    {"gemma-3-4b",
     "{\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"eos_token_id\":[1,106],\"image_token_index\":262144,"
     "\"model_type\":\"gemma3\","
     "\"text_config\":{\"hidden_size\":2560,\"intermediate_size\":10240,\"model_type\":\"gemma3_text\",\"num_hidden_"
     "layers\":34" SCALED "},"
     "\"torch_dtype\":\"bfloat16\"," VISION "}",
     2560, 10240, 34, 8, 4, 256, 256, 1024, 262208, 131072, 5, 1e6, 8, 1e4, 0, 0, 3880263168},
    {"gemma-3-12b",
     "{\"eos_token_id\":[1,106],\"model_type\":\"gemma3\",\"text_config\":{\"hidden_size\":3840,\"intermediate_size\":"
     "15360,"
     "\"model_type\":\"gemma3_text\",\"num_attention_heads\":16,\"num_hidden_layers\":48,\"num_key_value_heads\":"
     "8" SCALED "},"
     "\"torch_dtype\":\"bfloat16\"," VISION "}",
     3840, 15360, 48, 16, 8, 256, 256, 1024, 262208, 131072, 8, 1e6, 8, 1e4, 0, 0, 11766034176},
    {"gemma-3-27b",
     "{\"eos_token_id\":[1,106],\"model_type\":\"gemma3\",\"text_config\":{\"head_dim\":128,\"hidden_size\":5376,"
     "\"intermediate_size\":21504,\"model_type\":\"gemma3_text\",\"num_attention_heads\":32,\"num_hidden_layers\":62,"
     "\"num_key_value_heads\":16,\"query_pre_attn_scalar\":168" SCALED "},\"torch_dtype\":\"bfloat16\"," VISION "}",
     5376, 21504, 62, 32, 16, 128, 168, 1024, 262208, 131072, 10, 1e6, 8, 1e4, 0, 0, 27009346304},
};

static fe_model open_published(const struct published *m) {
    return expect_open(temp_text("config.json", m->text), true);
}

START_TEST(geometry) {
    const struct published *m = &models[_i];
    fe_model model = open_published(m);
    const fe_config *c = &model.config;
    int64_t global = 0;
    for (int64_t i = 0; i < c->layers; i++) global += !c->local[i];
    ck_assert(c->hidden == m->hidden && c->ffn == m->ffn && c->layers == m->layers && c->heads == m->heads);
    ck_assert(c->kv_heads == m->kv_heads && c->head_dim == m->head_dim && c->vocab == m->vocab &&
              c->context == m->context);
    ck_assert(c->window == m->window && global == m->global_layers && c->tied && !c->gelu_erf && c->norm_eps == 1e-6);
    ck_assert(c->rope_global.theta == m->theta && c->rope_global.factor == m->factor);
    ck_assert(c->rope_local.theta == m->local_theta && c->rope_local.factor == 1);
    ck_assert(c->attention_cap == m->attention_cap && c->final_cap == m->final_cap);
    ck_assert_double_eq(c->attention_scale, 1 / sqrt((double)m->scalar));
    fe_model_close(&model);
}
END_TEST

/* Elements of the weights below a region; the embedding, which the head reads again, counts once. */
static int64_t count_region(const ir_region *region, bool *seen_embedding) {
    int64_t total = 0;
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        for (int r = 0; r < inst->region_count; r++) total += count_region(inst->regions[r], seen_embedding);
        if (inst->op != IR_WEIGHT) continue;
        bool embedding = strcmp(ir_attr_string(inst, IR_ATTR_NAME), "embed_tokens.weight") == 0;
        if (embedding && *seen_embedding) continue;
        *seen_embedding |= embedding;
        const ir_type *type = &inst->results[0]->type;
        total += type->dim[0] * (type->rank == 2 ? type->dim[1] : 1);
    }
    return total;
}

/* The naive IR verifies, prints and parses back, and asks for exactly the published number of parameters. */
START_TEST(lowering) {
    fe_model model = open_published(&models[_i]);
    ir_module *module = fe_gemma_build(&model.config, NULL), *again = NULL;
    gm_diag diag = {0};
    gm_string text = {0}, second = {0};
    bool seen = false;
    int64_t parameters = 0;
    ck_assert_msg(ir_verify(module, "lower", &diag) == GM_OK, "%s", diag.message);
    for (int f = 0; f < module->func_count; f++) parameters += count_region(module->funcs[f]->body, &seen);
    ck_assert_int_eq(parameters, models[_i].parameters);
    ir_print_module(module, &text);
    ck_assert_msg(ir_parse(text.data, text.length, "dump", &diag, &again) == GM_OK, "%s", diag.message);
    ir_print_module(again, &second);
    ck_assert_str_eq(text.data, second.data);
    gm_string_free(&text);
    gm_string_free(&second);
    ir_module_free(module);
    ir_module_free(again);
    fe_model_close(&model);
}
END_TEST

/* ---- what was defaulted ---- */

static const char *defaulted(const fe_model *model, const char *key) {
    for (size_t i = 0; i < model->defaulted.count; i++)
        if (strcmp(model->defaulted.items[i].key, key) == 0) return model->defaulted.items[i].value;
    return NULL;
}

START_TEST(defaulted_keys) {
    static const char *const wanted[][2] = {
        {"vocab_size", "262208"},
        {"num_attention_heads", "8"},
        {"num_key_value_heads", "4"},
        {"head_dim", "256"},
        {"max_position_embeddings", "131072"},
        {"rms_norm_eps", "1e-06"},
        {"attention_bias", "false"},
        {"query_pre_attn_scalar", "256"},
        {"attn_logit_softcapping", "null"},
        {"final_logit_softcapping", "null"},
        {"use_bidirectional_attention", "false"},
        {"rope_theta", "1000000"},
        {"rope_local_base_freq", "10000"},
        {"sliding_window_pattern", "6"},
        {"hidden_activation", "\"gelu_pytorch_tanh\""},
        {"tie_word_embeddings", "true"},
        {"bos_token_id", "2"},
    };
    fe_model model = open_published(&models[7]); /* 4B, the sparsest */
    for (size_t i = 0; i < GM_COUNT(wanted); i++) {
        char key[96];
        snprintf(key, sizeof key, "text_config.%s", wanted[i][0]);
        ck_assert_ptr_nonnull(defaulted(&model, key));
        ck_assert_str_eq(defaulted(&model, key), wanted[i][1]);
    }
    ck_assert_uint_eq(model.defaulted.count, GM_COUNT(wanted)); /* not eos, dtype, sizes, window, scaling */
    fe_model_close(&model);
    model = open_published(&models[5]); /* 270M gives all that its loader can */
    ck_assert_ptr_null(defaulted(&model, "sliding_window_pattern"));
    ck_assert_ptr_null(defaulted(&model, "rope_theta"));
    ck_assert_ptr_null(defaulted(&model, "final_logit_softcapping"));
    ck_assert_str_eq(defaulted(&model, "rms_norm_eps"), "1e-06");
    fe_model_close(&model);
    model = open_published(&models[3]);
    ck_assert_str_eq(defaulted(&model, "layer_types"), "\"every 2nd layer global\"");
    ck_assert_str_eq(defaulted(&model, "attn_logit_softcapping"), "50");
    fe_model_close(&model);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("published");
    TCase *tcase = tcase_create("published");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, temp_make, temp_remove);
    tcase_add_loop_test(tcase, geometry, 0, (int)GM_COUNT(models));
    tcase_add_loop_test(tcase, lowering, 0, (int)GM_COUNT(models));
    tcase_add_test(tcase, defaulted_keys);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
