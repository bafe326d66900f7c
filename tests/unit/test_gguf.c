/* GGUF files: container checks, metadata, vocabulary, spoilt bytes. */
#include <math.h>

#include "model_files.h"
#include "tests/unit/suite.h"

#define GOOD "gguf/gemma3-tiny-q8_0.gguf"

/* ---- a good file with bytes changed ---- */

static size_t offset_of(const gm_string *file, const char *text) {
    const char *at = memmem(file->data, file->length, text, strlen(text));
    ck_assert_msg(at != NULL, "no \"%s\"", text);
    return (size_t)(at - file->data);
}

/* Replace the text, of the same length, at its first place. */
static void rename_text(gm_string *file, const char *from, const char *to) {
    ck_assert_uint_eq(strlen(from), strlen(to));
    memcpy(file->data + offset_of(file, from), to, strlen(to));
}

/* Overwrite `bytes` bytes, `skip` bytes after the end of the text's first place. */
static void poke(gm_string *file, const char *text, size_t skip, uint64_t value, size_t bytes) {
    char *at = file->data + offset_of(file, text) + strlen(text) + skip;
    for (size_t i = 0; i < bytes; i++) at[i] = (char)(value >> 8 * i);
}

static const char *write_gguf(const gm_string *file) {
    return temp_write("m.gguf", file->data, file->length);
}

typedef struct poke_case {
    const char *what, *text; /* NULL: `skip` counts from the start of the file */
    size_t skip;
    uint64_t value;
    size_t bytes;
    gm_status status;
    const char *message;
} poke_case;

#define KEY(name) "gemma3." name
static const poke_case pokes[] = {
    {"magic", NULL, 0, 'g', 1, GM_FORMAT, "m.gguf: expected"},
    {"version 1", NULL, 4, 1, 4, GM_UNSUPPORTED, "expected GGUF version 2 or 3, found 1"},
    {"version 4", NULL, 4, 4, 4, GM_UNSUPPORTED, "version 2 or 3, found 4"},
    {"byte order", NULL, 4, 3u << 24, 4, GM_UNSUPPORTED, "expected a little-endian file"},
    {"tensor count", NULL, 8, UINT64_MAX, 8, GM_FORMAT, "as many tensors as fit the file"},
    {"key count", NULL, 16, 1ull << 62, 8, GM_FORMAT, "as many metadata values as fit"},
    {"one key more", NULL, 16, 29, 8, GM_FORMAT, "m.gguf: "},
    {"key length", NULL, 24, UINT64_MAX, 8, GM_FORMAT, "byte 24: expected a key, found a string"},
    {"empty key", NULL, 24, 0, 8, GM_FORMAT, "byte 24: expected a key of 1 to"},
    {"value type", "general.architecture", 0, 13, 4, GM_FORMAT, "expected a value type 0 to 12, found 13"},
    {"string", "general.architecture", 4, 1ull << 40, 8, GM_FORMAT, "expected a string value"},
    {"array type", "tokenizer.ggml.tokens", 4, 77, 4, GM_FORMAT, "an element type 0 to 12, found 77"},
    {"array of arrays", "tokenizer.ggml.tokens", 4, 9, 4, GM_UNSUPPORTED, "no array of arrays"},
    {"array count", "tokenizer.ggml.scores", 8, 1ull << 62, 8, GM_FORMAT, "an array that fits the file"},
    {"string in array", "tokenizer.ggml.tokens", 16, 1ull << 33, 8, GM_FORMAT, "a string of the array"},
    {"array count of elements", "tokenizer.ggml.scores", 8, 1ull << 16, 8, GM_FORMAT, "an array that fits the file"},
    {"fewer scores", "tokenizer.ggml.scores", 8, 287, 8, GM_FORMAT, "m.gguf: "},
    {"kind of a size", KEY("block_count"), 0, 6, 4, GM_FORMAT, "block_count\": expected an integer"},
    {"no layers", KEY("block_count"), 4, 0, 4, GM_FORMAT, "block_count\": expected 1 to 256, found 0"},
    {"too many layers", KEY("block_count"), 4, 257, 4, GM_FORMAT, "expected 1 to 256, found 257"},
    {"layer too few", KEY("block_count"), 4, 11, 4, GM_FORMAT,
     "tensor \"blk.11.attn_norm.weight\": expected only the tensors of gemma3 with 11 layers"},
    {"layer too many", KEY("block_count"), 4, 13, 4, GM_FORMAT,
     "tensor \"layers.12.input_layernorm.weight\": expected shape [32], found no such tensor"},
    {"heads", KEY("attention.head_count"), 4, 3, 4, GM_FORMAT, "attention heads: expected a multiple"},
    {"odd head size", KEY("attention.value_length"), 4, 15, 4, GM_FORMAT, "expected 16, found 15"},
    {"hidden size", KEY("embedding_length"), 4, 64, 4, GM_FORMAT,
     "tensor \"embed_tokens.weight\": expected shape [288,64], found [288,32]"},
    {"eps NaN", KEY("attention.layer_norm_rms_epsilon"), 4, 0x7FC00000, 4, GM_FORMAT,
     "rms_epsilon\": expected a finite float"},
    {"eps 0", KEY("attention.layer_norm_rms_epsilon"), 4, 0, 4, GM_FORMAT, "a positive number"},
    {"window 0", KEY("attention.sliding_window"), 4, 0, 4, GM_FORMAT, "sliding_window\": expected 1 to"},
    {"theta", KEY("rope.freq_base"), 4, 0x80000000, 4, GM_FORMAT, "freq_base\": expected a positive"},
    {"bos", "tokenizer.ggml.bos_token_id", 4, 288, 4, GM_FORMAT, "expected 0 to 287, found 288"},
    {"add_bos", "tokenizer.ggml.add_bos_token", 0, 0, 4, GM_FORMAT, "add_bos_token\": expected a bool"},
    {"prefix", "tokenizer.ggml.add_space_prefix", 4, 1, 1, GM_UNSUPPORTED, "prefix\": expected false"},
    {"piece type", "tokenizer.ggml.token_type", 16, 7, 4, GM_FORMAT, "token 0: expected a type 1 to 6"},
    {"score", "tokenizer.ggml.scores", 20, 0x7F800000, 4, GM_FORMAT, "token 1: expected a type"},
    {"rank 0", "token_embd.weight", 0, 0, 4, GM_FORMAT, "expected 1 to 4 dimensions, found 0"},
    {"rank 5", "token_embd.weight", 0, 5, 4, GM_FORMAT, "expected 1 to 4 dimensions, found 5"},
    {"dimension 0", "token_embd.weight", 4, 0, 8, GM_FORMAT, "dimensions of at least 1"},
    {"dimension", "token_embd.weight", 4, UINT64_MAX, 8, GM_FORMAT, "fewer than 2^63 elements"},
    {"product", "token_embd.weight", 4, 1ull << 57, 8, GM_FORMAT, "fewer than 2^63 elements"},
    {"columns", "token_embd.weight", 4, 33, 8, GM_FORMAT, "rows of a multiple of 32 elements"},
    {"rows", "token_embd.weight", 12, 289, 8, GM_FORMAT, "attn_norm.weight\": expected offset 9856"},
    {"removed type", "token_embd.weight", 20, 4, 4, GM_UNSUPPORTED, "type unknown (4)"},
    {"known type", "token_embd.weight", 20, 15, 4, GM_UNSUPPORTED, "type Q8_K (15) is not supported"},
    {"integers", "blk.0.attn_q.weight", 20, 24, 4, GM_FORMAT, "expected offset"},
    {"offset", "token_embd.weight", 24, 32, 8, GM_FORMAT, "expected offset 0, found 32"},
    {"overlap", "blk.0.attn_norm.weight", 16, 0, 8, GM_FORMAT, "expected offset 9792, found 0"},
    {"far offset", "output_norm.weight", 16, 1ull << 63, 8, GM_FORMAT, "expected offset"},
};

START_TEST(poked) {
    for (size_t i = 0; i < GM_COUNT(pokes); i++) {
        const poke_case *c = &pokes[i];
        gm_string file = read_data(GOOD);
        if (c->text) {
            poke(&file, c->text, c->skip, c->value, c->bytes);
        } else {
            for (size_t k = 0; k < c->bytes; k++) file.data[c->skip + k] = (char)(c->value >> 8 * k);
        }
        gm_diag diag = {.quiet = true};
        fe_model model;
        gm_status status = fe_model_open(write_gguf(&file), false, &diag, &model);
        expect_failure(c->what, status, &diag, c->status, c->message);
        gm_string_free(&file);
    }
}
END_TEST

START_TEST(renamed) {
    static const struct {
        const char *from, *to;
        gm_status status;
        const char *message;
    } cases[] = {
        {"general.name", "general.type", GM_FORMAT, "key \"general.type\": expected only one"},
        {"general.architecture", "general.architektur_", GM_FORMAT, "expected key \"general.architecture\""},
        {"gemma3.context_length", "gemma3.context_lengtx", GM_FORMAT, "expected key \"gemma3.context_length\""},
        {"gemma3.rope.freq_base", "gemma3.rope.freq_bas_", GM_FORMAT, "expected key \"gemma3.rope.freq_base\""},
        {"tokenizer.ggml.scores", "tokenizer.ggml.scorex", GM_FORMAT, "scores\": expected an array"},
        {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.bos_token_xx", GM_FORMAT, "expected key \"tokenizer.ggml.bos"},
        {"blk.1.ffn_up.weight", "blk.0.ffn_up.weight", GM_FORMAT,
         "tensor \"layers.0.mlp.up_proj.weight\": expected only one"},
        {"blk.1.ffn_up.weight", "blk.1.ffn_ux.weight", GM_FORMAT, "tensor \"blk.1.ffn_ux.weight\": expected only"},
        {"blk.1.ffn_up.weight", "blk.01.fn_up.weight", GM_FORMAT, "expected only the tensors of gemma3"},
        {"output_norm.weight", "output.norm.weight", GM_FORMAT, "expected only the tensors"},
        {"token_embd.weight", "token_embx.weight", GM_FORMAT,
         "tensor \"token_embx.weight\": expected only the tensors of gemma3"},
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        gm_string file = read_data(GOOD);
        rename_text(&file, cases[i].from, cases[i].to);
        expect_open_failure(write_gguf(&file), cases[i].status, cases[i].message);
        gm_string_free(&file);
    }
    gm_string file = read_data(GOOD);
    memcpy(file.data + offset_of(&file, "general.architecture") + 32, "gemmx3", 6);
    expect_open_failure(write_gguf(&file), GM_UNSUPPORTED, "expected gemma, gemma2 or gemma3, found \"gemmx3\"");
    gm_string_free(&file);
}
END_TEST

START_TEST(truncated) {
    gm_string file = read_data(GOOD);
    size_t whole = file.length;
    for (size_t bytes = 0; bytes < whole; bytes += bytes < 600 ? 7 : 997) {
        file.length = bytes;
        expect_open_failure(write_gguf(&file), GM_FORMAT, "m.gguf: ");
    }
    gm_string_free(&file);
}
END_TEST

START_TEST(not_finite) {
    gm_string file = read_data("gguf/gemma3-tiny-f32.gguf");
    memset(file.data + file.length - 4, 0xFF, 4); /* output_norm comes last */
    expect_open_failure(write_gguf(&file), GM_FORMAT, "tensor \"norm.weight\": expected finite values");
    gm_string_free(&file);
}
END_TEST

/* ---- what a good file becomes ---- */

START_TEST(tiny_files) {
    fe_model model = expect_open(GM_TEST_DATA "/gguf/gemma3-tiny-rope8-mix.gguf", false);
    const fe_config *c = &model.config;
    ck_assert_int_eq(c->generation, FE_GEMMA3);
    ck_assert(c->vocab == 288 && c->hidden == 32 && c->layers == 12 && c->window == 5);
    ck_assert(c->rope_global.theta == 1e6 && c->rope_global.factor == 8);
    ck_assert(c->rope_local.theta == 1e4 && c->rope_local.factor == 1);
    ck_assert(c->local[0] && c->local[4] && !c->local[5] && c->local[6] && !c->local[11]);
    ck_assert(c->tied && !c->norm_plus_one && c->attention_scale == 0.25 && c->attention_cap == 0);
    ck_assert(c->stop_count == 1 && c->stops[0] == 1 && c->bos == 2);
    const rt_tensor *up = rt_weights_find(&model.weights, "layers.3.mlp.up_proj.weight");
    ck_assert(up && up->dtype == RT_Q5_0 && up->dim[0] == 32 && up->bytes == 32 * 22);
    fe_model_close(&model);

    model = expect_open(GM_TEST_DATA "/gguf/gemma2-tiny-q8_0.gguf", false);
    ck_assert(model.config.attention_cap == 5 && model.config.final_cap == 12.5);
    ck_assert(model.config.local[0] && !model.config.local[1] && model.config.window == 8);
    ck_assert(model.config.rope_local.theta == 1e4);
    fe_model_close(&model);

    model = expect_open(GM_TEST_DATA "/gguf/gemma1-tiny-q4_0.gguf", true);
    ck_assert(model.config.window == 0 && !model.config.local[0]);
    ck_assert_ptr_nonnull(rt_weights_find(&model.weights, "layers.0.post_attention_layernorm.weight"));
    ck_assert_ptr_null(rt_weights_find(&model.weights, "embed_tokens.weight")->data);
    ck_assert_uint_eq(model.vocab.count, 288);
    ck_assert_mem_eq(model.vocab.pieces[2].text, "<bos>", 5);
    fe_model_close(&model);
}
END_TEST

/* ---- files made here ---- */

static fe_model open_made(const gm_string *keys, int count, const small_tensor *tensors, size_t tensor_count) {
    gm_string file = {0};
    put_gguf(&file, keys, count, tensors, tensor_count);
    fe_model model = expect_open(write_gguf(&file), false);
    gm_string_free(&file);
    return model;
}

static void refuse_made(const gm_string *keys, int count, gm_status status, const char *message) {
    gm_string file = {0};
    put_gguf(&file, keys, count, small_gguf, SMALL_COUNT);
    expect_open_failure(write_gguf(&file), status, message);
    gm_string_free(&file);
}

START_TEST(defaults) {
    gm_string keys = {0};
    int count = put_small_keys(&keys, "gemma");
    fe_model model = open_made(&keys, count, small_gguf, SMALL_COUNT);
    ck_assert(model.config.rope_global.theta == 1e4 && model.config.attention_cap == 0);
    ck_assert(model.config.vocab == 8 && model.vocab.count == 0 && model.config.stop_count == 0);
    ck_assert_double_eq_tol(model.config.attention_scale, 1 / sqrt(2), 1e-15);
    fe_model_close(&model);
    size_t length = keys.length;
    put_key(&keys, "gemma.rope.scaling.factor", 6);
    put_float(&keys, 8);
    model = open_made(&keys, count + 1, small_gguf, SMALL_COUNT);
    ck_assert(model.config.rope_global.factor == 8);
    fe_model_close(&model);
    put_key(&keys, "gemma.rope.scaling.type", 8);
    put_text(&keys, "none");
    model = open_made(&keys, count + 2, small_gguf, SMALL_COUNT);
    ck_assert(model.config.rope_global.factor == 1);
    fe_model_close(&model);
    keys.length = length;
    put_key(&keys, "gemma.rope.scaling.type", 8);
    put_text(&keys, "yarn");
    refuse_made(&keys, count + 1, GM_UNSUPPORTED, "expected none or linear, found \"yarn\"");
    gm_string_free(&keys);
}
END_TEST

/* A size may be given for each layer, if it is the same for all. */
START_TEST(sizes_of_layers) {
    gm_string keys = {0};
    int count = put_small_keys(&keys, "gemma");
    rename_text(&keys, "gemma.attention.head_count_kv", "gemma.attention.head_count_xx");
    put_key(&keys, "gemma.attention.head_count_kv", 9);
    put(&keys, 4, 4);
    put(&keys, 2, 8);
    put(&keys, 1, 4);
    put(&keys, 1, 4);
    fe_model model = open_made(&keys, count + 1, small_gguf, SMALL_COUNT);
    ck_assert_int_eq(model.config.kv_heads, 1);
    fe_model_close(&model);
    keys.data[keys.length - 4] = 2;
    refuse_made(&keys, count + 1, GM_FORMAT, "head_count_kv\": expected an integer for all layers");
    gm_string_free(&keys);
}
END_TEST

/* The 27B models scale scores by hidden / heads, which no key tells: here 4 / 1, heads being of size 2. */
static double scale_of_layers(const char *architecture, int layers) {
    static const small_tensor each[] = {
        {"attn_norm", 4, 0, 1},     {"attn_q", 2, 4, 1},
        {"attn_k", 2, 4, 1},        {"attn_v", 2, 4, 1},
        {"attn_output", 4, 2, 1},   {"ffn_norm", 4, 0, 1},
        {"ffn_gate", 6, 4, 1},      {"ffn_up", 6, 4, 1},
        {"ffn_down", 4, 6, 1},      {"post_attention_norm", 4, 0, 1},
        {"post_ffw_norm", 4, 0, 1}, {"attn_q_norm", 2, 0, 1},
        {"attn_k_norm", 2, 0, 1},
    };
    enum { MOST_LAYERS = 62 };
    static small_tensor tensors[2 + MOST_LAYERS * GM_COUNT(each)];
    static char names[2 + MOST_LAYERS * GM_COUNT(each)][48];
    bool third = strcmp(architecture, "gemma3") == 0;
    size_t kinds = GM_COUNT(each) - (third ? 0 : 2), tensor_count = 2;
    memcpy(tensors, small_gguf, 2 * sizeof *tensors);
    for (int layer = 0; layer < layers; layer++)
        for (size_t i = 0; i < kinds; i++, tensor_count++) {
            snprintf(names[tensor_count], sizeof *names, "blk.%d.%s.weight", layer, each[i].name);
            tensors[tensor_count] = each[i];
            tensors[tensor_count].name = names[tensor_count];
        }
    gm_string keys = {0};
    int count = put_small_keys(&keys, architecture);
    poke(&keys, ".block_count", 4, (uint64_t)layers, 4);
    poke(&keys, ".attention.head_count", 4, 1, 4);
    char key[64];
    snprintf(key, sizeof key, "%s.attention.sliding_window", architecture);
    put_key_u32(&keys, key, 3);
    snprintf(key, sizeof key, "%s.rope.freq_base", architecture);
    put_key(&keys, key, 6);
    put_float(&keys, 1e6f);
    fe_model model = open_made(&keys, count + 2, tensors, tensor_count);
    double scale = model.config.attention_scale;
    fe_model_close(&model);
    gm_string_free(&keys);
    return scale;
}

START_TEST(scales_of_27b) {
    ck_assert_double_eq_tol(scale_of_layers("gemma3", 62), 1 / sqrt(4), 1e-15);
    ck_assert_double_eq_tol(scale_of_layers("gemma3", 61), 1 / sqrt(2), 1e-15);
    ck_assert_double_eq_tol(scale_of_layers("gemma2", 46), 1 / sqrt(4), 1e-15);
    ck_assert_double_eq_tol(scale_of_layers("gemma2", 45), 1 / sqrt(2), 1e-15);
}
END_TEST

START_TEST(odd_keys) {
    gm_string keys = {0};
    int count = put_small_keys(&keys, "gemma");
    size_t length = keys.length;
    put_key_u32(&keys, "general.alignment", 48);
    refuse_made(&keys, count + 1, GM_FORMAT, "alignment\": expected a power of two of type u32");
    keys.length = length;
    put_key(&keys, "general.alignment", 10);
    put(&keys, 32, 8);
    refuse_made(&keys, count + 1, GM_FORMAT, "alignment\": expected a power of two of type u32");
    keys.length = length;
    put_key_u32(&keys, "general.alignment", 64);
    refuse_made(&keys, count + 1, GM_FORMAT, "expected offset 192, found 160");
    keys.length = length;
    put_key_u32(&keys, "gemma.rope type", 64);
    refuse_made(&keys, count + 1, GM_FORMAT, "expected a key of 1 to 65535 ASCII letters");
    keys.length = length;
    put_key_u32(&keys, "split.count", 2);
    refuse_made(&keys, count + 1, GM_INVALID, "expected a name like model-00001-of-00002.gguf");
    gm_string_free(&keys);
}
END_TEST

/* Gemma 3: the pattern as a number and as one bool per layer, the cap that is refused. */
START_TEST(pattern_and_caps) {
    static const small_tensor extra[] = {
        {"blk.0.attn_q_norm.weight", 2, 0, 1},
        {"blk.0.attn_k_norm.weight", 2, 0, 1},
        {"blk.0.post_attention_norm.weight", 4, 0, 1},
        {"blk.0.post_ffw_norm.weight", 4, 0, 1},
    };
    small_tensor tensors[SMALL_COUNT + 4];
    memcpy(tensors, small_gguf, sizeof small_gguf);
    memcpy(tensors + SMALL_COUNT, extra, sizeof extra);
    gm_string keys = {0};
    int count = put_small_keys(&keys, "gemma3");
    put_key_u32(&keys, "gemma3.attention.sliding_window", 3);
    put_key(&keys, "gemma3.rope.freq_base", 6);
    put_float(&keys, 1e6f);
    count += 2;
    size_t length = keys.length;
    fe_model model = open_made(&keys, count, tensors, GM_COUNT(tensors));
    ck_assert(model.config.local[0] && model.config.window == 3);
    fe_model_close(&model);
    put_key_u32(&keys, "gemma3.attention.sliding_window_pattern", 1);
    model = open_made(&keys, count + 1, tensors, GM_COUNT(tensors));
    ck_assert(!model.config.local[0] && model.config.window == 0);
    fe_model_close(&model);
    keys.length = length;
    put_key(&keys, "gemma3.attention.sliding_window_pattern", 9);
    put(&keys, 7, 4);
    put(&keys, 1, 8);
    put(&keys, 0, 1);
    model = open_made(&keys, count + 1, tensors, GM_COUNT(tensors));
    ck_assert(!model.config.local[0] && model.config.window == 0);
    fe_model_close(&model);
    keys.data[keys.length - 9] = 0; /* of none of the layers */
    keys.length--;
    refuse_made(&keys, count + 1, GM_FORMAT, "sliding_window_pattern\": expected an integer or 1 bools");
    keys.length = length;
    put_key(&keys, "gemma3.attn_logit_softcapping", 6);
    put_float(&keys, 50);
    refuse_made(&keys, count + 1, GM_UNSUPPORTED, "attn_logit_softcapping\": expected none in Gemma 3");
    keys.length = length;
    refuse_made(&keys, count, GM_FORMAT, "tensor \"layers.0.self_attn.q_norm.weight\": expected shape [2]");
    gm_string_free(&keys);
}
END_TEST

START_TEST(head) {
    gm_string keys = {0};
    small_tensor tensors[SMALL_COUNT + 1];
    int count = put_small_keys(&keys, "gemma");
    memcpy(tensors, small_gguf, sizeof small_gguf);
    tensors[SMALL_COUNT] = (small_tensor){"output.weight", 8, 4, 0.5f};
    fe_model model = open_made(&keys, count, tensors, GM_COUNT(tensors));
    ck_assert(model.config.tied); /* the same values */
    ck_assert_ptr_null(rt_weights_find(&model.weights, "lm_head.weight"));
    fe_model_close(&model);
    tensors[SMALL_COUNT].value = 0.25f;
    model = open_made(&keys, count, tensors, GM_COUNT(tensors));
    ck_assert(!model.config.tied);
    ck_assert_ptr_nonnull(rt_weights_find(&model.weights, "lm_head.weight"));
    fe_model_close(&model);
    gm_string_free(&keys);
}
END_TEST

static void put_vocab(gm_string *keys, const char *const *texts, const int *types, size_t count) {
    put_key(keys, "tokenizer.ggml.model", 8);
    put_text(keys, "llama");
    put_key(keys, "tokenizer.ggml.tokens", 9);
    put(keys, 8, 4);
    put(keys, count, 8);
    for (size_t i = 0; i < count; i++) put_text(keys, texts[i]);
    put_key(keys, "tokenizer.ggml.scores", 9);
    put(keys, 6, 4);
    put(keys, count, 8);
    for (size_t i = 0; i < count; i++) put_float(keys, -(float)i);
    put_key(keys, "tokenizer.ggml.token_type", 9);
    put(keys, 5, 4);
    put(keys, count, 8);
    for (size_t i = 0; i < count; i++) put(keys, (uint64_t)types[i], 4);
    put_key_u32(keys, "tokenizer.ggml.bos_token_id", 0);
    put_key_u32(keys, "tokenizer.ggml.eos_token_id", 1);
    put_key_u32(keys, "tokenizer.ggml.eot_token_id", 2);
}

START_TEST(vocabulary) {
    static const char *const texts[] = {"<bos>", "</s>", "<end_of_turn>", "<s>", "</s>", "  ", "\xE2\x96\x81",
                                        "a",     "b"};
    static const int types[] = {3, 3, 3, 3, 3, 4, 1, 1, 1};
    gm_string keys = {0};
    int count = put_small_keys(&keys, "gemma");
    size_t length = keys.length;
    put_vocab(&keys, texts, types, 8);
    fe_model model = open_made(&keys, count + 7, small_gguf, SMALL_COUNT);
    const rt_vocab *vocab = &model.vocab;
    ck_assert(vocab->count == 8 && vocab->add_bos && !vocab->add_eos && !vocab->json_rules);
    ck_assert(vocab->bos == 0 && vocab->eos == 1 && vocab->unk == -1 && vocab->pad == -1);
    ck_assert_int_eq(vocab->end_of_turn, 2);
    ck_assert(model.config.stop_count == 2 && model.config.stops[0] == 1 && model.config.stops[1] == 2);
    ck_assert_int_eq(vocab->pieces[1].type, RT_PIECE_CONTROL); /* the file's own eos */
    ck_assert_int_eq(vocab->pieces[3].type, RT_PIECE_USER);    /* HTML tags */
    ck_assert_int_eq(vocab->pieces[4].type, RT_PIECE_USER);
    ck_assert(vocab->pieces[7].length == 1 && vocab->pieces[7].score == -7);
    fe_model_close(&model);
    keys.length = length;
    put_vocab(&keys, texts, types, 9);
    refuse_made(&keys, count + 7, GM_FORMAT, "tokenizer: expected at most the 8 pieces");
    gm_string_free(&keys);
}
END_TEST

/* ---- mutations ---- */

static void mutate(gm_string *file, size_t header, int rounds, uint64_t state) {
    for (int i = 0; i < rounds; i++) {
        gm_diag diag = {.quiet = true};
        fe_model model;
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t at = (size_t)(state >> 33) % header;
        char old = file->data[at];
        file->data[at] = (char)(i % 2 ? old ^ (1 << (state >> 29 & 7)) : (int)(state >> 21 & 255));
        if (fe_model_open(write_gguf(file), false, &diag, &model) == GM_OK) fe_model_close(&model);
        else ck_assert_msg(strstr(diag.message, "m.gguf: ") != NULL, "%s", diag.message);
        file->data[at] = old;
    }
}

START_TEST(mutated) {
    static const char *const texts[] = {"<bos>", "</s>", "<end_of_turn>", "a"};
    static const int types[] = {3, 3, 3, 1};
    gm_string keys = {0}, small = {0}, tiny = read_data(GOOD);
    int count = put_small_keys(&keys, "gemma");
    put_vocab(&keys, texts, types, 4);
    put_gguf(&small, &keys, count + 7, small_gguf, SMALL_COUNT);
    mutate(&small, small.length, 3000, 1);
    mutate(&tiny, 1100, 500, 2); /* metadata */
    mutate(&tiny, offset_of(&tiny, "output_norm") + 40, 1000, 3);
    gm_string_free(&keys);
    gm_string_free(&small);
    gm_string_free(&tiny);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gguf");
    TCase *tcase = tcase_create("gguf");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, temp_make, temp_remove);
    tcase_add_test(tcase, poked);
    tcase_add_test(tcase, renamed);
    tcase_add_test(tcase, truncated);
    tcase_add_test(tcase, not_finite);
    tcase_add_test(tcase, tiny_files);
    tcase_add_test(tcase, defaults);
    tcase_add_test(tcase, sizes_of_layers);
    tcase_add_test(tcase, scales_of_27b);
    tcase_add_test(tcase, odd_keys);
    tcase_add_test(tcase, pattern_and_caps);
    tcase_add_test(tcase, head);
    tcase_add_test(tcase, vocabulary);
    tcase_add_test(tcase, mutated);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
