/* A GGUF file as a model: metadata -> configuration, tensor names -> canonical names, vocabulary.
 *
 * The format leaves much of Gemma unsaid; what is missing gets the architecture's value: the bases
 * and the pattern of local layers, Gemma 2's caps and window, and the scale of attention. Norm
 * weights are stored as 1 + w.
 */
#include "frontend/gguf_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "frontend/model_impl.h"

enum { MAX_SHARDS = 99999 };

typedef struct reader {
    const gguf_file *file;
    const char *architecture;
    fe_config *config;
    fe_defaulted *defaulted;
    gm_diag *diag;
    char key[128]; /* scratch: the last key made by key_of */
} reader;

static const char *key_of(reader *in, const char *name) {
    snprintf(in->key, sizeof in->key, "%s.%s", in->architecture, name);
    return in->key;
}

/* A key that may be missing: *out stays, and the default is noted. */
static gm_status optional_int(reader *in, const char *name, int64_t min, int64_t max, int64_t *out) {
    GM_TRY(gguf_int(in->file, key_of(in, name), false, min, max, out));
    if (!gguf_find(in->file, in->key)) fe_note_default(in->defaulted, in->key, "%lld", (long long)*out);
    return GM_OK;
}

static gm_status optional_float(reader *in, const char *name, double *out) {
    GM_TRY(gguf_float(in->file, key_of(in, name), false, out));
    if (!gguf_find(in->file, in->key)) fe_note_default(in->defaulted, in->key, "%.9g", *out);
    return GM_OK;
}

/* ---- architecture ---- */

static gm_status read_architecture(const gguf_file *file, fe_model *model) {
    static const struct {
        const char *name;
        fe_generation generation;
    } known[] = {{"gemma", FE_GEMMA1}, {"gemma2", FE_GEMMA2}, {"gemma3", FE_GEMMA3}};
    const char *text = "";
    size_t length = 0;
    GM_TRY(gguf_string(file, "general.architecture", true, &text, &length));
    for (size_t i = 0; i < GM_COUNT(known); i++) {
        if (strlen(known[i].name) != length || memcmp(known[i].name, text, length) != 0) continue;
        model->config.generation = known[i].generation;
        model->architecture = strdup(known[i].name);
        if (!model->architecture) gm_abort(__FILE__, __LINE__, "out of memory");
        return GM_OK;
    }
    return gm_fail(file->diag, GM_UNSUPPORTED,
                   "%s: key \"general.architecture\": expected gemma, gemma2 or gemma3, found "
                   "\"%.*s\"",
                   file->path, length < 80 ? (int)length : 80, text);
}

/* ---- sizes ---- */

static gm_status read_sizes(reader *in) {
    fe_config *c = in->config;
    const struct {
        const char *key;
        int64_t max, *out;
    } required[] = {
        {"context_length", FE_MAX_CONTEXT, &c->context},  {"embedding_length", FE_MAX_SIZE, &c->hidden},
        {"block_count", FE_MAX_LAYERS, &c->layers},       {"feed_forward_length", FE_MAX_SIZE, &c->ffn},
        {"attention.head_count", FE_MAX_SIZE, &c->heads},
    };
    for (size_t i = 0; i < GM_COUNT(required); i++)
        GM_TRY(gguf_int(in->file, key_of(in, required[i].key), true, 1, required[i].max, required[i].out));
    c->kv_heads = c->heads;
    c->head_dim = c->hidden / c->heads;
    GM_TRY(optional_int(in, "attention.head_count_kv", 1, FE_MAX_SIZE, &c->kv_heads));
    GM_TRY(optional_int(in, "attention.key_length", 1, FE_MAX_HEAD_DIM, &c->head_dim));
    int64_t value_length = c->head_dim;
    GM_TRY(optional_int(in, "attention.value_length", c->head_dim, c->head_dim, &value_length));
    GM_TRY(gguf_float(in->file, key_of(in, "attention.layer_norm_rms_epsilon"), true, &c->norm_eps));
    if (!(c->norm_eps > 0))
        return gm_fail(in->diag, GM_FORMAT, "%s: key \"%s\": expected a positive number", in->file->path, in->key);
    return GM_OK;
}

/* ---- local layers ---- */

static gm_status read_pattern(reader *in) {
    fe_config *c = in->config;
    const gguf_value *value = gguf_find(in->file, key_of(in, "attention.sliding_window_pattern"));
    int64_t period = c->generation == FE_GEMMA2 ? 2 : 6, local = 0;
    if (!value || !value->is_array) {
        GM_TRY(optional_int(in, "attention.sliding_window_pattern", 1, FE_MAX_LAYERS, &period));
        fe_config_set_period(c, period);
        return GM_OK;
    }
    if (value->type != GGUF_BOOL || value->count < (uint64_t)c->layers)
        return gm_fail(in->diag, GM_FORMAT, "%s: key \"%s\": expected an integer or %lld bools, one per layer",
                       in->file->path, in->key, (long long)c->layers);
    for (int64_t i = 0; i < c->layers; i++) {
        gguf_element(value, (uint64_t)i, &local);
        c->local[i] = local != 0;
    }
    return GM_OK;
}

static gm_status read_window(reader *in) {
    fe_config *c = in->config;
    if (c->generation == FE_GEMMA1) return GM_OK;
    c->window = 4096;
    if (c->generation == FE_GEMMA3)
        GM_TRY(gguf_int(in->file, key_of(in, "attention.sliding_window"), true, 1, FE_MAX_CONTEXT, &c->window));
    else GM_TRY(optional_int(in, "attention.sliding_window", 1, FE_MAX_CONTEXT, &c->window));
    GM_TRY(read_pattern(in));
    fe_config_settle_window(c);
    return GM_OK;
}

/* ---- rotary embedding ---- */

/* rope.scaling.factor counts unless the type says none; rope.scale_linear is its older name. */
static gm_status read_rope_factor(reader *in, double *factor) {
    const char *type = "linear";
    size_t length = 6;
    GM_TRY(gguf_string(in->file, key_of(in, "rope.scaling.type"), false, &type, &length));
    bool none = length == 4 && memcmp(type, "none", 4) == 0;
    if (!none && !(length == 6 && memcmp(type, "linear", 6) == 0))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: key \"%s\": expected none or linear, found \"%.*s\"",
                       in->file->path, in->key, length < 80 ? (int)length : 80, type);
    *factor = 0;
    static const char *const keys[] = {"rope.scale_linear", "rope.scaling.factor"};
    for (size_t i = 0; i < GM_COUNT(keys); i++) {
        GM_TRY(gguf_float(in->file, key_of(in, keys[i]), false, factor));
        if (*factor < 0)
            return gm_fail(in->diag, GM_FORMAT, "%s: key \"%s\": expected a positive number", in->file->path, in->key);
    }
    if (*factor == 0 && !none) fe_note_default(in->defaulted, in->key, "1");
    if (none || *factor == 0) *factor = 1;
    return GM_OK;
}

static gm_status read_rope(reader *in) {
    fe_config *c = in->config;
    bool dual = c->generation == FE_GEMMA3;
    c->rope_global = (fe_rope){.theta = 10000, .factor = 1};
    if (dual) GM_TRY(gguf_float(in->file, key_of(in, "rope.freq_base"), true, &c->rope_global.theta));
    else GM_TRY(optional_float(in, "rope.freq_base", &c->rope_global.theta));
    GM_TRY(read_rope_factor(in, &c->rope_global.factor));
    c->rope_local = c->rope_global;
    if (dual) {
        c->rope_local = (fe_rope){.theta = 10000, .factor = 1};
        GM_TRY(optional_float(in, "rope.freq_base_swa", &c->rope_local.theta));
    }
    if (!(c->rope_global.theta > 0) || !(c->rope_local.theta > 0))
        return gm_fail(in->diag, GM_FORMAT, "%s: key \"%s\": expected a positive number", in->file->path,
                       key_of(in, c->rope_global.theta > 0 ? "rope.freq_base_swa" : "rope.freq_base"));
    return GM_OK;
}

/* ---- scores and logits ---- */

static gm_status read_caps(reader *in) {
    fe_config *c = in->config;
    if (c->generation == FE_GEMMA1) return GM_OK;
    if (c->generation == FE_GEMMA2) c->attention_cap = 50, c->final_cap = 30;
    GM_TRY(optional_float(in, "final_logit_softcapping", &c->final_cap));
    GM_TRY(optional_float(in, "attn_logit_softcapping", &c->attention_cap));
    if (c->attention_cap < 0 || c->final_cap < 0)
        return gm_fail(in->diag, GM_FORMAT, "%s: logit soft caps: expected no negative number", in->file->path);
    if (c->generation == FE_GEMMA3 && c->attention_cap != 0)
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: key \"%s\": expected none in Gemma 3, found %g", in->file->path,
                       in->key, c->attention_cap);
    return GM_OK;
}

/* 1/sqrt(head size), but hidden / heads in the two 27B models; no key tells. */
static void set_attention_scale(reader *in) {
    fe_config *c = in->config;
    bool is_27b = (c->generation == FE_GEMMA2 && c->layers == 46) || (c->generation == FE_GEMMA3 && c->layers == 62);
    double scalar = is_27b ? (double)c->hidden / (double)c->heads : (double)c->head_dim;
    c->attention_scale = 1 / sqrt(scalar);
    fe_note_default(in->defaulted, "query_pre_attn_scalar", "%.9g", scalar);
}

static gm_status read_config(const gguf_file *file, fe_model *model) {
    fe_config *c = &model->config;
    reader in = {.file = file, .config = c, .defaulted = &model->defaulted, .diag = file->diag};
    *c = (fe_config){.bos = -1};
    GM_TRY(read_architecture(file, model));
    in.architecture = model->architecture;
    GM_TRY(read_sizes(&in));
    GM_TRY(read_window(&in));
    GM_TRY(read_rope(&in));
    GM_TRY(read_caps(&in));
    set_attention_scale(&in);
    c->tied = true; /* until the tensors tell otherwise */
    return fe_config_check(c, file->path, file->diag);
}

/* ---- vocabulary ---- */

static gm_status read_vocab(const gguf_file *file, fe_model *model) {
    fe_config *c = &model->config;
    if (!gguf_find(file, "tokenizer.ggml.model")) return GM_OK;
    GM_TRY(gguf_read_vocab(file, &model->vocab));
    c->bos = model->vocab.bos;
    const struct {
        const char *key;
        bool value;
    } flags[] = {{"tokenizer.ggml.add_bos_token", true},
                 {"tokenizer.ggml.add_eos_token", false},
                 {"tokenizer.ggml.add_space_prefix", false}};
    for (size_t i = 0; i < GM_COUNT(flags); i++)
        if (!gguf_find(file, flags[i].key))
            fe_note_default(&model->defaulted, flags[i].key, flags[i].value ? "true" : "false");
    int64_t end_of_turn = -1, last = (int64_t)model->vocab.count - 1;
    GM_TRY(gguf_int(file, "tokenizer.ggml.eot_token_id", false, 0, last, &end_of_turn));
    if (model->vocab.eos >= 0) GM_TRY(fe_config_add_stop(c, model->vocab.eos, file->path, file->diag));
    if (end_of_turn >= 0) GM_TRY(fe_config_add_stop(c, (int32_t)end_of_turn, file->path, file->diag));
    return GM_OK;
}

/* ---- tensors ---- */

static gm_status add_tensors(const gguf_file *file, fe_model *model) {
    for (size_t i = 0; i < file->info_count; i++) {
        const gguf_info *info = &file->infos[i];
        char name[128];
        if (!fe_tensor_from_gguf(&model->config, info->name, name, sizeof name))
            return gm_fail(file->diag, GM_FORMAT, "%s: tensor \"%s\": expected only the tensors of %s with %lld layers",
                           file->path, info->name, model->architecture, (long long)model->config.layers);
        rt_tensor tensor = info->tensor;
        tensor.name = name;
        GM_TRY(rt_weights_add(&model->weights, file->path, &tensor, file->diag));
    }
    return GM_OK;
}

static gm_status add_shard(const char *path, int64_t number, int64_t count, gm_diag *diag, fe_model *model) {
    gguf_file file;
    gm_status status = gguf_open(&file, path, &model->weights, diag);
    int64_t value;
    if (status == GM_OK) status = gguf_int(&file, "split.no", true, number, number, &value);
    if (status == GM_OK) status = gguf_int(&file, "split.count", true, count, count, &value);
    if (status == GM_OK) status = add_tensors(&file, model);
    gguf_close(&file);
    return status;
}

/* A model in several files is opened by its first: <prefix>-00001-of-<count>.gguf, which has all
 * keys. */
static gm_status add_shards(const gguf_file *file, fe_model *model) {
    int64_t number, count = 1;
    char ending[64];
    GM_TRY(gguf_int(file, "split.count", false, 0, MAX_SHARDS, &count));
    if (count <= 1) return GM_OK;
    size_t length = strlen(file->path);
    int size = snprintf(ending, sizeof ending, "-00001-of-%05d.gguf", (int)count);
    if (length < (size_t)size || strcmp(file->path + length - size, ending) != 0)
        return gm_fail(file->diag, GM_INVALID, "%s: first of %lld files: expected a name like model%s", file->path,
                       (long long)count, ending);
    gm_string path = {0};
    gm_status status = GM_OK;
    for (number = 1; number < count && status == GM_OK; number++) {
        path.length = 0;
        gm_string_append(&path, file->path, length - (size_t)size);
        gm_string_printf(&path, "-%05d-of-%05d.gguf", (int)number + 1, (int)count);
        status = add_shard(path.data, number, count, file->diag, model);
    }
    gm_string_free(&path);
    int64_t tensors = (int64_t)model->weights.count, ignored;
    if (status == GM_OK) status = gguf_int(file, "split.tensors.count", false, tensors, tensors, &ignored);
    return status;
}

/* The number of rows is only in the embedding, which any file of a split model may hold; without one,
 * output.weight stands in for it. */
static gm_status set_vocab(const gguf_file *file, fe_model *model) {
    static const char *const names[] = {"embed_tokens.weight", "lm_head.weight"};
    const rt_tensor *table = NULL;
    for (size_t i = 0; i < GM_COUNT(names) && !table; i++) table = rt_weights_find(&model->weights, names[i]);
    fe_config *c = &model->config;
    c->vocab = table && table->rank == 2 ? table->dim[0] : 0;
    if (c->vocab < 1 || c->vocab > FE_MAX_SIZE)
        return gm_fail(file->diag, GM_FORMAT, "%s: tensor \"token_embd.weight\": expected shape [vocabulary,%lld]",
                       file->path, (long long)c->hidden);
    c->storage = table->dtype;
    return GM_OK;
}

/* ---- the whole ---- */

static gm_status check_first(const gguf_file *file) {
    int64_t number = 0;
    GM_TRY(gguf_int(file, "split.no", false, 0, MAX_SHARDS, &number));
    if (number == 0) return GM_OK;
    return gm_fail(file->diag, GM_INVALID, "%s: expected the first file of a split model, found number %lld",
                   file->path, (long long)number + 1);
}

static gm_status read_model(const gguf_file *file, fe_model *model) {
    GM_TRY(check_first(file));
    GM_TRY(read_config(file, model));
    GM_TRY(read_vocab(file, model));
    GM_TRY(add_tensors(file, model));
    GM_TRY(add_shards(file, model));
    GM_TRY(set_vocab(file, model));
    return fe_settle_head(model, file->diag);
}

gm_status fe_gguf_open(const char *path, bool no_weights, gm_diag *diag, fe_model *model) {
    gguf_file file;
    gm_status status = gguf_open(&file, path, &model->weights, diag);
    if (status == GM_OK) status = read_model(&file, model);
    gguf_close(&file);
    for (size_t i = 0; i < model->weights.count && no_weights; i++) model->weights.tensors[i].data = NULL;
    return status;
}

gm_status fe_gguf_open_vocab(const char *path, gm_diag *diag, fe_model *model) {
    gguf_file file;
    gm_status status = gguf_open(&file, path, &model->weights, diag);
    if (status == GM_OK) status = gguf_read_vocab(&file, &model->vocab);
    gguf_close(&file);
    return status;
}
