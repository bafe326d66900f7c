/* Files for the tests of the readers: a temporary folder, bytes in it, and small models made from
 * nothing. */
#ifndef GM_TESTS_MODEL_FILES_H
#define GM_TESTS_MODEL_FILES_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/json.h"
#include "frontend/model.h"

/* ---- files ---- */

static char temp_folder[256];
static char temp_path[512]; /* the last path made by temp_file */

static inline void temp_make(void) {
    const char *root = getenv("TMPDIR");
    snprintf(temp_folder, sizeof temp_folder, "%s/gemmac-test-XXXXXX", root ? root : P_tmpdir);
    ck_assert_ptr_nonnull(mkdtemp(temp_folder));
}

static inline void temp_remove(void) {
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", temp_folder);
    ck_assert_int_eq(system(command), 0);
}

static inline const char *temp_file(const char *name) {
    snprintf(temp_path, sizeof temp_path, "%s/%s", temp_folder, name);
    return temp_path;
}

static inline const char *temp_write(const char *name, const void *data, size_t bytes) {
    FILE *file = fopen(temp_file(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
    return temp_path;
}

static inline const char *temp_text(const char *name, const char *text) {
    return temp_write(name, text, strlen(text));
}

static inline gm_string read_data(const char *name) {
    gm_diag diag = {0};
    char path[512];
    gm_string out = {0};
    snprintf(path, sizeof path, "%s/%s", GM_TEST_DATA, name);
    ck_assert_msg(fe_read_file(path, 1 << 24, &diag, &out.data, &out.length) == GM_OK, "%s", diag.message);
    out.capacity = out.length + 1;
    return out;
}

/* ---- expectations ---- */

/* The whole class of failure: the code, one line, the file and what was expected. */
static inline void expect_failure(const char *what, gm_status status, const gm_diag *diag, gm_status wanted,
                                  const char *text) {
    ck_assert_msg(status == wanted, "%s: status %d, message %s", what, status, diag->message);
    ck_assert_msg(strstr(diag->message, text) != NULL, "%s: \"%s\" is not in: %s", what, text, diag->message);
    ck_assert_msg(!strchr(diag->message, '\n'), "%s: more than one line: %s", what, diag->message);
}

static inline void expect_open_failure(const char *path, gm_status wanted, const char *text) {
    gm_diag diag = {.quiet = true};
    fe_model model;
    expect_failure(path, fe_model_open(path, false, &diag, &model), &diag, wanted, text);
    ck_assert_ptr_null(model.path);
    ck_assert_ptr_null(model.weights.tensors);
    ck_assert_ptr_null(model.vocab.pieces);
}

static inline fe_model expect_open(const char *path, bool no_weights) {
    gm_diag diag = {.quiet = true};
    fe_model model;
    gm_status status = fe_model_open(path, no_weights, &diag, &model);
    ck_assert_msg(status == GM_OK, "%s: %s", path, diag.message);
    return model;
}

/* ---- bytes ---- */

static inline void put(gm_string *out, uint64_t value, int bytes) {
    char data[8];
    for (int i = 0; i < bytes; i++) data[i] = (char)(value >> 8 * i);
    gm_string_append(out, data, (size_t)bytes);
}

static inline void put_float(gm_string *out, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(out, bits, 4);
}

static inline void put_text(gm_string *out, const char *text) {
    put(out, strlen(text), 8);
    gm_string_append(out, text, strlen(text));
}

/* ---- a Gemma of one layer: vocabulary 8, hidden 4, heads 2 of size 2, MLP 6 ---- */

typedef struct small_tensor {
    const char *name;
    int64_t rows, columns; /* columns 0: a vector */
    float value;           /* of every element */
} small_tensor;

static const small_tensor small_gguf[] = {
    {"token_embd.weight", 8, 4, 0.5f},     {"output_norm.weight", 4, 0, 1},      {"blk.0.attn_norm.weight", 4, 0, 1},
    {"blk.0.attn_q.weight", 4, 4, 0.25f},  {"blk.0.attn_k.weight", 2, 4, 0.25f}, {"blk.0.attn_v.weight", 2, 4, 0.25f},
    {"blk.0.attn_output.weight", 4, 4, 1}, {"blk.0.ffn_norm.weight", 4, 0, 1},   {"blk.0.ffn_gate.weight", 6, 4, 1},
    {"blk.0.ffn_up.weight", 6, 4, 1},      {"blk.0.ffn_down.weight", 4, 6, 1},
};

static const small_tensor small_safetensors[] = {
    {"model.embed_tokens.weight", 8, 4, 0.5f},
    {"model.norm.weight", 4, 0, 1},
    {"model.layers.0.input_layernorm.weight", 4, 0, 1},
    {"model.layers.0.self_attn.q_proj.weight", 4, 4, 0.25f},
    {"model.layers.0.self_attn.k_proj.weight", 2, 4, 0.25f},
    {"model.layers.0.self_attn.v_proj.weight", 2, 4, 0.25f},
    {"model.layers.0.self_attn.o_proj.weight", 4, 4, 1},
    {"model.layers.0.post_attention_layernorm.weight", 4, 0, 1},
    {"model.layers.0.mlp.gate_proj.weight", 6, 4, 1},
    {"model.layers.0.mlp.up_proj.weight", 6, 4, 1},
    {"model.layers.0.mlp.down_proj.weight", 4, 6, 1},
};

enum { SMALL_COUNT = GM_COUNT(small_gguf) };

#define SMALL_CONFIG                                                                                                   \
    "{\"model_type\":\"gemma\",\"vocab_size\":8,\"hidden_size\":4,\"intermediate_size\":6,"                            \
    "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":2}"

static inline int64_t small_elems(const small_tensor *tensor) {
    return tensor->rows * (tensor->columns ? tensor->columns : 1);
}

/* One F32 safetensors file of these tensors. */
static inline void put_safetensors(gm_string *out, const small_tensor *tensors, size_t count) {
    gm_string header = {0};
    long long at = 0;
    for (size_t i = 0; i < count; i++) {
        const small_tensor *t = &tensors[i];
        long long end = at + 4 * (long long)small_elems(t);
        gm_string_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%lld", i ? "," : "{", t->name,
                         (long long)t->rows);
        if (t->columns) gm_string_printf(&header, ",%lld", (long long)t->columns);
        gm_string_printf(&header, "],\"data_offsets\":[%lld,%lld]}", at, end);
        at = end;
    }
    gm_string_printf(&header, "}");
    while (header.length % 8) gm_string_printf(&header, " ");
    put(out, header.length, 8);
    gm_string_append(out, header.data, header.length);
    for (size_t i = 0; i < count; i++)
        for (int64_t k = 0; k < small_elems(&tensors[i]); k++) put_float(out, tensors[i].value);
    gm_string_free(&header);
}

static inline void put_key(gm_string *out, const char *key, uint32_t type) {
    put_text(out, key);
    put(out, type, 4);
}

static inline void put_key_u32(gm_string *out, const char *key, uint32_t value) {
    put_key(out, key, 4);
    put(out, value, 4);
}

/* The metadata of the model above, as `architecture`; returns the number of keys. */
static inline int put_small_keys(gm_string *out, const char *architecture) {
    static const struct {
        const char *name;
        uint32_t value;
    } sizes[] = {
        {"context_length", 16},      {"embedding_length", 4},       {"block_count", 1},
        {"feed_forward_length", 6},  {"attention.head_count", 2},   {"attention.head_count_kv", 1},
        {"attention.key_length", 2}, {"attention.value_length", 2},
    };
    char key[96];
    put_key(out, "general.architecture", 8);
    put_text(out, architecture);
    for (size_t i = 0; i < GM_COUNT(sizes); i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, sizes[i].name);
        put_key_u32(out, key, sizes[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    put_key(out, key, 6);
    put_float(out, 1e-6f);
    return (int)GM_COUNT(sizes) + 2;
}

/* A GGUF file: `keys` encoded metadata values, then F32 tensors at the default alignment. */
static inline void put_gguf(gm_string *out, const gm_string *metadata, int keys, const small_tensor *tensors,
                            size_t count) {
    uint64_t at = 0;
    gm_string_append(out, "GGUF", 4);
    put(out, 3, 4);
    put(out, count, 8);
    put(out, (uint64_t)keys, 8);
    gm_string_append(out, metadata->data, metadata->length);
    for (size_t i = 0; i < count; i++) {
        const small_tensor *t = &tensors[i];
        put_text(out, t->name);
        put(out, t->columns ? 2 : 1, 4);
        if (t->columns) put(out, (uint64_t)t->columns, 8);
        put(out, (uint64_t)t->rows, 8);
        put(out, 0, 4);
        put(out, at, 8);
        at = (at + 4 * (uint64_t)small_elems(t) + 31) & ~(uint64_t)31;
    }
    for (size_t i = 0; i < count; i++) {
        while (out->length % 32) put(out, 0, 1);
        for (int64_t k = 0; k < small_elems(&tensors[i]); k++) put_float(out, tensors[i].value);
    }
}

#endif
