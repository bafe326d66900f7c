/* The tensors a configuration asks for: their names, shapes and types, from tensors.def. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "frontend/model_impl.h"
#include "runtime/derive.h"

typedef enum tensor_scope { MODEL, LAYER } tensor_scope;
typedef enum tensor_size { NONE, VOCAB, HIDDEN, FFN, QUERIES, KEYS, HEAD } tensor_size;
typedef enum tensor_when { ALWAYS, BIAS, UNTIED } tensor_when;

typedef struct tensor_row {
    tensor_scope scope;
    const char *name, *gguf;
    tensor_size rows, columns;
    int first, last; /* generations */
    tensor_when when;
} tensor_row;

static const tensor_row table[] = {
#define TENSOR(scope, name, gguf, rows, columns, first, last, when)                                                    \
    {scope, name, gguf, rows, columns, first, last, when},
#include "frontend/tensors.def"
#undef TENSOR
};

/* ---- names ---- */

/* Whether the configuration knows the name at all; a head may turn out to be tied later. */
static bool is_named(const tensor_row *row, const fe_config *config) {
    int generation = (int)config->generation;
    if (generation < row->first || generation > row->last) return false;
    return row->when != BIAS || config->attention_bias;
}

static bool is_needed(const tensor_row *row, const fe_config *config) {
    return is_named(row, config) && (row->when != UNTIED || !config->tied);
}

/* "<prefix>N.<rest>" with N < layers, without leading zeros: N and rest. */
static bool split_layer(const char *name, const char *prefix, int64_t layers, int64_t *out_layer,
                        const char **out_rest) {
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0) return false;
    const char *at = name + length, *digits = at;
    int64_t layer = 0;
    for (; *at >= '0' && *at <= '9' && at - digits < 6; at++) layer = 10 * layer + (*at - '0');
    if (at == digits || (*digits == '0' && at - digits > 1) || *at != '.' || layer >= layers) return false;
    *out_layer = layer;
    *out_rest = at + 1;
    return true;
}

static const tensor_row *find_row(const fe_config *config, const char *name, bool gguf, int64_t *out_layer) {
    const char *rest = name;
    bool in_layer = split_layer(name, gguf ? "blk." : "layers.", config->layers, out_layer, &rest);
    for (size_t i = 0; i < GM_COUNT(table); i++) {
        const tensor_row *row = &table[i];
        if ((row->scope == LAYER) != in_layer || !is_named(row, config)) continue;
        if (strcmp(rest, gguf ? row->gguf : row->name) == 0) return row;
    }
    return NULL;
}

static void write_name(const tensor_row *row, int64_t layer, char *out, size_t out_bytes) {
    if (row->scope == LAYER) snprintf(out, out_bytes, "layers.%" PRId64 ".%s", layer, row->name);
    else snprintf(out, out_bytes, "%s", row->name);
}

bool fe_tensor_from_gguf(const fe_config *config, const char *name, char *out, size_t out_bytes) {
    int64_t layer = 0;
    const tensor_row *row = find_row(config, name, true, &layer);
    if (row) write_name(row, layer, out, out_bytes);
    return row != NULL;
}

static bool is_known(const fe_config *config, const char *name) {
    int64_t layer;
    const tensor_row *row = find_row(config, name, false, &layer);
    return row && is_needed(row, config);
}

/* ---- the head ---- */

static bool same_tensor(const rt_tensor *a, const rt_tensor *b) {
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0 && a->data && b->data &&
           memcmp(a->data, b->data, a->bytes) == 0;
}

gm_status fe_settle_head(fe_model *model, gm_diag *diag) {
    rt_weights *weights = &model->weights;
    const rt_tensor *head = rt_weights_find(weights, "lm_head.weight");
    const rt_tensor *embedding = rt_weights_find(weights, "embed_tokens.weight");
    if (!head || !model->config.tied) return GM_OK;
    if (!embedding) {
        rt_tensor renamed = *head;
        renamed.name = "embed_tokens.weight";
        rt_weights_drop(weights, "lm_head.weight");
        return rt_weights_add(weights, model->path, &renamed, diag);
    }
    if (same_tensor(head, embedding)) rt_weights_drop(weights, "lm_head.weight");
    else model->config.tied = false;
    return GM_OK;
}

/* ---- shapes and values ---- */

static int64_t size_of(const fe_config *config, tensor_size size) {
    switch (size) {
    case VOCAB: return config->vocab;
    case HIDDEN: return config->hidden;
    case FFN: return config->ffn;
    case QUERIES: return config->heads * config->head_dim;
    case KEYS: return config->kv_heads * config->head_dim;
    case HEAD: return config->head_dim;
    case NONE: break;
    }
    return 0;
}

static const char *shape_text(char *out, size_t bytes, int rank, const int64_t *dim) {
    size_t at = (size_t)snprintf(out, bytes, "[");
    for (int i = 0; i < rank && at < bytes; i++)
        at += (size_t)snprintf(out + at, bytes - at, "%s%" PRId64, i ? "," : "", dim[i]);
    if (at < bytes) snprintf(out + at, bytes - at, "]");
    return out;
}

/* The file that holds the tensor, as far as that is known. */
static const char *path_of(const fe_model *model, const rt_tensor *tensor) {
    const char *path = rt_weights_path(&model->weights, tensor);
    return path ? path : model->path;
}

/* Norms and biases: one infinite or NaN element would spoil every output. */
static gm_status check_finite(const fe_model *model, const rt_tensor *tensor, gm_diag *diag) {
    enum { CHUNK = 256 };
    float values[CHUNK];
    size_t bytes = (size_t)rt_dtype_of(tensor->dtype)->block_bytes;
    for (int64_t start = 0; tensor->data && start < tensor->dim[0]; start += CHUNK) {
        int64_t left = tensor->dim[0] - start, count = left < CHUNK ? left : CHUNK;
        rt_dequantize_row(tensor->dtype, (const char *)tensor->data + (size_t)start * bytes, values, (size_t)count);
        for (int64_t i = 0; i < count; i++)
            if (!isfinite(values[i]))
                return gm_fail(diag, GM_FORMAT, "%s: tensor \"%s\": expected finite values, found %g at %" PRId64,
                               path_of(model, tensor), tensor->name, (double)values[i], start + i);
    }
    return GM_OK;
}

static gm_status check_tensor(const fe_model *model, const tensor_row *row, int64_t layer, gm_diag *diag) {
    char name[128], expected[128], found[128];
    int64_t dim[2] = {size_of(&model->config, row->rows), size_of(&model->config, row->columns)};
    int rank = row->columns == NONE ? 1 : 2;
    write_name(row, layer, name, sizeof name);
    shape_text(expected, sizeof expected, rank, dim);
    const rt_tensor *tensor = rt_weights_find(&model->weights, name);
    if (!tensor)
        return gm_fail(diag, GM_FORMAT, "%s: tensor \"%s\": expected shape %s, found no such tensor", model->path, name,
                       expected);
    if (tensor->rank != rank || memcmp(tensor->dim, dim, (size_t)rank * sizeof dim[0]) != 0)
        return gm_fail(diag, GM_FORMAT, "%s: tensor \"%s\": expected shape %s, found %s", path_of(model, tensor), name,
                       expected, shape_text(found, sizeof found, tensor->rank, tensor->dim));
    const rt_dtype_info *info = rt_dtype_of(tensor->dtype);
    if (info->class != RT_CLASS_FLOAT && (rank == 1 || info->class != RT_CLASS_QUANT))
        return gm_fail(diag, GM_UNSUPPORTED, "%s: tensor \"%s\": expected type %s, found %s", path_of(model, tensor),
                       name, rank == 1 ? "f32, f16 or bf16" : "f32, f16, bf16 or a quantised one", info->text);
    return rank == 1 ? check_finite(model, tensor, diag) : GM_OK;
}

static gm_status check_leftover(const fe_model *model, gm_diag *diag) {
    for (size_t i = 0; i < model->weights.count; i++) {
        const char *name = model->weights.tensors[i].name;
        if (!is_known(&model->config, name) && !rt_is_derived(&model->weights, &model->weights.tensors[i]))
            return gm_fail(diag, GM_FORMAT, "%s: tensor \"%.200s\": expected no such tensor in %s",
                           path_of(model, &model->weights.tensors[i]), name, model->architecture);
    }
    return GM_OK;
}

/* ---- the vocabulary ---- */

/* Rows that an embedding may have beyond the last piece: they pad it to a round number. */
enum { MAX_PADDING = 1024 };

/* A tokenizer that belongs to another model has another number of pieces, or other special ids. */
static gm_status check_vocab(const fe_model *model, gm_diag *diag) {
    const fe_config *config = &model->config;
    const rt_vocab *vocab = &model->vocab;
    int64_t count = (int64_t)vocab->count;
    if (count == 0) return GM_OK;
    if (count > config->vocab)
        return gm_fail(diag, GM_FORMAT,
                       "%s: tokenizer: expected at most the %" PRId64
                       " pieces the embedding has rows for, found %" PRId64,
                       model->path, config->vocab, count);
    if (config->vocab - count > MAX_PADDING)
        return gm_fail(diag, GM_FORMAT,
                       "%s: tokenizer: expected as many pieces as the embedding has rows (%" PRId64
                       ", of which at most %d pad it), found %" PRId64,
                       model->path, config->vocab, MAX_PADDING, count);
    if (config->bos >= 0 && vocab->bos >= 0 && config->bos != vocab->bos)
        return gm_fail(diag, GM_FORMAT, "%s: tokenizer: expected <bos> to be %d, as in the configuration, found %d",
                       model->path, config->bos, vocab->bos);
    for (int i = 0; i < config->stop_count; i++)
        if (config->stops[i] >= count)
            return gm_fail(diag, GM_FORMAT,
                           "%s: tokenizer: expected a piece for id %d, which ends generation, found "
                           "%" PRId64 " pieces",
                           model->path, config->stops[i], count);
    return GM_OK;
}

/* ---- the whole ---- */

gm_status fe_model_check(const fe_model *model, gm_diag *diag) {
    const fe_config *config = &model->config;
    GM_TRY(check_vocab(model, diag));
    if (model->weights.count == 0) return GM_OK; /* opened without weights */
    for (size_t i = 0; i < GM_COUNT(table); i++) {
        const tensor_row *row = &table[i];
        int64_t copies = row->scope == LAYER ? config->layers : 1;
        for (int64_t layer = 0; layer < copies && is_needed(row, config); layer++)
            GM_TRY(check_tensor(model, row, layer, diag));
    }
    return check_leftover(model, diag);
}
