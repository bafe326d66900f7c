/* config.json of Gemma 1, 2 and 3 -> fe_config.
 *
 * Published files are sparse, so every key has its generation's default: the table below. Spellings
 * of all ages are read: rope_theta/rope_scaling/rope_local_base_freq and rope_parameters,
 * torch_dtype and dtype, sliding_window_pattern and layer_types, and a multimodal wrapper's
 * text_config.
 */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/config_impl.h"

typedef enum key_kind {
    INT,   /* at least 1 */
    FLOAT, /* positive */
    CAP,   /* positive, or null: none */
    BOOL,
    FALSE, /* null or false; true is not supported */
} key_kind;

#define NO NAN /* the generation does not read the key */
static const struct key {
    const char *name;
    key_kind kind;
    size_t offset;
    double max;
    double defaults[3]; /* Gemma 1, 2, 3 */
} keys[] = {
#define AT(field) offsetof(config_draft, field)
    {"vocab_size", INT, AT(c.vocab), FE_MAX_SIZE, {256000, 256000, 262208}},
    {"hidden_size", INT, AT(c.hidden), FE_MAX_SIZE, {3072, 2304, 2304}},
    {"intermediate_size", INT, AT(c.ffn), FE_MAX_SIZE, {24576, 9216, 9216}},
    {"num_hidden_layers", INT, AT(c.layers), FE_MAX_LAYERS, {28, 26, 26}},
    {"num_attention_heads", INT, AT(c.heads), FE_MAX_SIZE, {16, 8, 8}},
    {"num_key_value_heads", INT, AT(c.kv_heads), FE_MAX_SIZE, {16, 4, 4}},
    {"head_dim", INT, AT(c.head_dim), FE_MAX_HEAD_DIM, {256, 256, 256}},
    {"max_position_embeddings", INT, AT(c.context), FE_MAX_CONTEXT, {8192, 8192, 131072}},
    {"rms_norm_eps", FLOAT, AT(c.norm_eps), 1, {1e-6, 1e-6, 1e-6}},
    {"attention_bias", BOOL, AT(c.attention_bias), 0, {0, 0, 0}},
    {"query_pre_attn_scalar", INT, AT(attention_scalar), FE_MAX_SIZE, {NO, 256, 256}},
    {"sliding_window", INT, AT(c.window), FE_MAX_CONTEXT, {NO, 4096, 4096}},
    {"sliding_window_pattern", INT, AT(period), FE_MAX_LAYERS, {NO, NO, 6}},
    {"attn_logit_softcapping", CAP, AT(c.attention_cap), 1e9, {NO, 50, 0}},
    {"final_logit_softcapping", CAP, AT(c.final_cap), 1e9, {NO, 30, 0}},
    {"rope_theta", FLOAT, AT(theta), 1e12, {10000, 10000, 1e6}},
    {"rope_local_base_freq", FLOAT, AT(local_theta), 1e12, {NO, NO, 10000}},
    {"use_bidirectional_attention", FALSE, AT(bidirectional), 0, {0, 0, 0}},
#undef AT
};
#undef NO

/* ---- messages ---- */

static const char *describe(const cJSON *item, char *out, size_t bytes) {
    int64_t integer;
    if (fe_json_int(item, INT64_MIN, INT64_MAX, &integer)) snprintf(out, bytes, "%lld", (long long)integer);
    else if (cJSON_IsNumber(item) && fabs(item->valuedouble) < 1e15 && item->valuedouble == floor(item->valuedouble))
        snprintf(out, bytes, "%.1f", item->valuedouble); /* 168.0 is no integer */
    else if (cJSON_IsNumber(item)) snprintf(out, bytes, "%.17g", item->valuedouble);
    else if (cJSON_IsString(item)) snprintf(out, bytes, "\"%.60s\"", item->valuestring);
    else
        snprintf(out, bytes, "%s",
                 !item                 ? "nothing"
                 : cJSON_IsNull(item)  ? "null"
                 : cJSON_IsBool(item)  ? (cJSON_IsTrue(item) ? "true" : "false")
                 : cJSON_IsArray(item) ? "an array"
                                       : "an object");
    return out;
}

gm_status config_refuse(const config_reader *in, gm_status code, const char *key, const char *expected,
                        const cJSON *found) {
    char text[96];
    bool outer = found && found == fe_json_get(in->root, key);
    return gm_fail(in->diag, code, "%s: key \"%s%s\": expected %s, found %s", in->path, outer ? "" : in->scope, key,
                   expected, describe(found, text, sizeof text));
}

void config_note(config_reader *in, const char *key, const char *format, ...) {
    char name[96], value[128];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    snprintf(name, sizeof name, "%s%s", in->scope, key);
    fe_note_default(&in->defaulted, name, "%s", value);
}

/* ---- the table ---- */

static gm_status read_key(config_reader *in, const struct key *key, const cJSON *item, double *value) {
    char expected[96];
    bool number = cJSON_IsNumber(item);
    double found = number ? item->valuedouble : 0;
    int64_t integer;
    switch (key->kind) {
    case INT:
        if (fe_json_int(item, 1, (int64_t)key->max, &integer)) break;
        snprintf(expected, sizeof expected, "an integer 1 to %.0f", key->max);
        return config_refuse(in, GM_FORMAT, key->name, expected, item);
    case FLOAT:
        if (number && found > 0 && found <= key->max) break;
        snprintf(expected, sizeof expected, "a positive number up to %g", key->max);
        return config_refuse(in, GM_FORMAT, key->name, expected, item);
    case CAP:
        if (cJSON_IsNull(item) || (number && found > 0 && found <= key->max)) break;
        return config_refuse(in, GM_FORMAT, key->name, "a positive number or null", item);
    case BOOL:
        found = cJSON_IsTrue(item);
        if (cJSON_IsBool(item)) break;
        return config_refuse(in, GM_FORMAT, key->name, "true or false", item);
    case FALSE:
        if (cJSON_IsNull(item) || cJSON_IsFalse(item)) break;
        return config_refuse(in, GM_UNSUPPORTED, key->name, "null or false", item);
    }
    *value = found;
    return GM_OK;
}

/* The bases of the rotary embedding and the pattern of local layers may stand under other keys, too: who
 * reads those tells whether they are defaulted. */
static void note_key(config_reader *in, const struct key *key, double value) {
    if (key->offset == offsetof(config_draft, theta) || key->offset == offsetof(config_draft, local_theta) ||
        key->offset == offsetof(config_draft, period))
        return;
    if (key->kind == BOOL || key->kind == FALSE) config_note(in, key->name, value != 0 ? "true" : "false");
    else if (key->kind == CAP && value == 0) config_note(in, key->name, "null");
    else config_note(in, key->name, "%.9g", value);
}

static gm_status read_keys(config_reader *in) {
    for (size_t i = 0; i < GM_COUNT(keys); i++) {
        double value = keys[i].defaults[in->draft.c.generation - FE_GEMMA1];
        if (isnan(value)) continue;
        const cJSON *item = fe_json_get(in->text, keys[i].name);
        if (item) GM_TRY(read_key(in, &keys[i], item, &value));
        else note_key(in, &keys[i], value);
        char *out = (char *)&in->draft + keys[i].offset;
        if (keys[i].kind == INT) *(int64_t *)(void *)out = (int64_t)value;
        else if (keys[i].kind == FLOAT || keys[i].kind == CAP) *(double *)(void *)out = value;
        else *(bool *)out = value != 0;
    }
    return GM_OK;
}

/* ---- layers ---- */

void fe_config_set_period(fe_config *config, int64_t period) {
    for (int64_t i = 0; i < config->layers; i++) config->local[i] = (i + 1) % period != 0;
}

void fe_config_settle_window(fe_config *config) {
    for (int64_t i = 0; i < config->layers; i++)
        if (config->local[i]) return;
    config->window = 0;
}

static gm_status read_layers(config_reader *in) {
    fe_config *c = &in->draft.c;
    if (c->generation == FE_GEMMA1) return GM_OK;
    fe_config_set_period(c, c->generation == FE_GEMMA2 ? 2 : in->draft.period);
    const cJSON *types = fe_json_get(in->text, "layer_types"), *item;
    int64_t count = 0;
    if (fe_json_is_none(types) && c->generation == FE_GEMMA2)
        config_note(in, "layer_types", "\"every 2nd layer global\"");
    else if (fe_json_is_none(types) && !fe_json_get(in->text, "sliding_window_pattern"))
        config_note(in, "sliding_window_pattern", "%lld", (long long)in->draft.period);
    if (!fe_json_is_none(types)) {
        if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != c->layers) {
            char expected[64];
            snprintf(expected, sizeof expected, "a list of %lld strings", (long long)c->layers);
            return config_refuse(in, GM_FORMAT, "layer_types", expected, types);
        }
        cJSON_ArrayForEach(item, types) {
            bool text = cJSON_IsString(item);
            bool local = text && strcmp(item->valuestring, "sliding_attention") == 0;
            if (!local && !(text && strcmp(item->valuestring, "full_attention") == 0))
                return config_refuse(in, GM_UNSUPPORTED, "layer_types", "\"sliding_attention\" or \"full_attention\"",
                                     item);
            c->local[count++] = local;
        }
    }
    fe_config_settle_window(c);
    return GM_OK;
}

/* ---- single keys ---- */

/* "gelu" in a Gemma 1 file means the tanh form, too: its first files were mislabelled. */
static gm_status read_activation(config_reader *in) {
    bool first = in->draft.c.generation == FE_GEMMA1;
    const char *key = first ? "hidden_act" : "hidden_activation";
    const cJSON *item = fe_json_get(in->text, key);
    if (!item) {
        config_note(in, key, "\"gelu_pytorch_tanh\"");
        return GM_OK;
    }
    bool exact = cJSON_IsString(item) && strcmp(item->valuestring, "gelu") == 0;
    if (!exact && !(cJSON_IsString(item) && strcmp(item->valuestring, "gelu_pytorch_tanh") == 0))
        return config_refuse(in, GM_UNSUPPORTED, key, "\"gelu_pytorch_tanh\" or \"gelu\"", item);
    in->draft.c.gelu_erf = exact && !first;
    return GM_OK;
}

/* A key of the text configuration or else of the wrapper. */
static const cJSON *get_outer(const config_reader *in, const char *key) {
    const cJSON *item = fe_json_get(in->text, key);
    return fe_json_is_none(item) ? fe_json_get(in->root, key) : item;
}

static gm_status read_dtype(config_reader *in) {
    static const struct {
        const char *name;
        rt_dtype dtype;
    } known[] = {{"float32", RT_F32}, {"float16", RT_F16}, {"bfloat16", RT_BF16}};
    const char *key = fe_json_is_none(get_outer(in, "dtype")) ? "torch_dtype" : "dtype";
    const cJSON *item = get_outer(in, key);
    in->draft.c.storage = RT_F32;
    if (fe_json_is_none(item)) {
        config_note(in, "dtype", "\"float32\"");
        return GM_OK;
    }
    for (size_t i = 0; i < GM_COUNT(known); i++) {
        if (!cJSON_IsString(item) || strcmp(item->valuestring, known[i].name) != 0) continue;
        in->draft.c.storage = known[i].dtype;
        return GM_OK;
    }
    return config_refuse(in, GM_UNSUPPORTED, key, "\"float32\", \"float16\" or \"bfloat16\"", item);
}

static gm_status read_tied(config_reader *in) {
    const cJSON *outer = fe_json_get(in->root, "tie_word_embeddings"); /* the wrapper's counts, as in the reference */
    const cJSON *item = outer ? outer : fe_json_get(in->text, "tie_word_embeddings");
    in->draft.c.tied = !item || cJSON_IsTrue(item);
    if (!item) config_note(in, "tie_word_embeddings", "true");
    if (!item || cJSON_IsBool(item)) return GM_OK;
    return config_refuse(in, GM_FORMAT, "tie_word_embeddings", "true or false", item);
}

static gm_status read_token(config_reader *in, const char *key, int32_t preset, int32_t *out) {
    const cJSON *item = fe_json_get(in->text, key);
    int64_t id = preset;
    *out = -1;
    if (cJSON_IsNull(item)) return GM_OK;
    if (!item) config_note(in, key, "%d", preset);
    if (item ? !fe_json_int(item, 0, in->draft.c.vocab - 1, &id) : preset >= in->draft.c.vocab)
        return config_refuse(in, GM_FORMAT, key, "a token id below vocab_size, or null", item);
    *out = (int32_t)id;
    return GM_OK;
}

gm_status fe_config_add_stop(fe_config *config, int32_t id, const char *path, gm_diag *diag) {
    for (int i = 0; i < config->stop_count; i++)
        if (config->stops[i] == id) return GM_OK;
    if (config->stop_count == RT_MAX_STOPS)
        return gm_fail(diag, GM_INVALID, "%s: expected at most %d different stop ids", path, RT_MAX_STOPS);
    config->stops[config->stop_count++] = id;
    return GM_OK;
}

static gm_status read_tokens(config_reader *in) {
    fe_config *c = &in->draft.c;
    const cJSON *inner = fe_json_get(in->text, "eos_token_id"), *outer = fe_json_get(in->root, "eos_token_id");
    GM_TRY(read_token(in, "bos_token_id", 2, &c->bos));
    if (!inner && c->vocab > 1) {
        if (!outer) config_note(in, "eos_token_id", "1");
        GM_TRY(fe_config_add_stop(c, 1, in->path, in->diag));
    }
    char scoped[64];
    snprintf(scoped, sizeof scoped, "%seos_token_id", in->scope);
    GM_TRY(fe_stops_from_json(inner, in->path, scoped, in->diag, c));
    return fe_stops_from_json(outer, in->path, "eos_token_id", in->diag, c);
}

/* ---- the whole ---- */

/* The generation, and for the multimodal wrapper the configuration of its text part. */
static gm_status read_model_type(config_reader *in, const char **out_type) {
    static const struct {
        const char *name;
        fe_generation generation;
    } known[] = {
        {"gemma", FE_GEMMA1},
        {"gemma2", FE_GEMMA2},
        {"gemma3_text", FE_GEMMA3},
        {"gemma3", FE_GEMMA3},
    };
    const cJSON *type = fe_json_get(in->root, "model_type");
    for (size_t i = 0; i < GM_COUNT(known) && cJSON_IsString(type); i++) {
        if (strcmp(type->valuestring, known[i].name) != 0) continue;
        in->draft.c.generation = known[i].generation;
        *out_type = known[i].name;
        if (strcmp(known[i].name, "gemma3") != 0) return GM_OK;
        const cJSON *text = fe_json_get(in->root, "text_config"), *inner = fe_json_get(text, "model_type");
        if (!cJSON_IsObject(text)) return config_refuse(in, GM_FORMAT, "text_config", "an object", text);
        in->text = text;
        in->scope = "text_config.";
        if (!inner || (cJSON_IsString(inner) && strcmp(inner->valuestring, "gemma3_text") == 0)) return GM_OK;
        return config_refuse(in, GM_UNSUPPORTED, "model_type", "\"gemma3_text\"", inner);
    }
    return config_refuse(in, GM_UNSUPPORTED, "model_type", "\"gemma\", \"gemma2\", \"gemma3_text\" or \"gemma3\"",
                         type);
}

static gm_status refuse_unsupported(config_reader *in) {
    const cJSON *quantization = get_outer(in, "quantization_config");
    if (!fe_json_is_none(quantization))
        return config_refuse(in, GM_UNSUPPORTED, "quantization_config", "null (plain weights)", quantization);
    fe_config *c = &in->draft.c;
    if (c->generation == FE_GEMMA3 && c->attention_cap != 0)
        return config_refuse(in, GM_UNSUPPORTED, "attn_logit_softcapping", "null in Gemma 3",
                             fe_json_get(in->text, "attn_logit_softcapping"));
    if (in->text != in->root && c->final_cap != 0) {
        gm_warn(in->diag, "%s: key \"%sfinal_logit_softcapping\": not used by the multimodal model", in->path,
                in->scope);
        c->final_cap = 0;
    }
    return GM_OK;
}

gm_status fe_config_check(const fe_config *c, const char *path, gm_diag *diag) {
    const char *problem = NULL;
    if (c->heads % c->kv_heads) problem = "attention heads: expected a multiple of the key/value heads";
    else if (c->head_dim % 2) problem = "head size: expected an even number";
    else if (c->generation != FE_GEMMA1 && c->hidden % c->heads)
        problem = "hidden size: expected a multiple of the attention heads";
    if (!problem) return GM_OK;
    return gm_fail(diag, GM_FORMAT, "%s: %s, found hidden size %lld, %lld heads, %lld key/value heads, head size %lld",
                   path, problem, (long long)c->hidden, (long long)c->heads, (long long)c->kv_heads,
                   (long long)c->head_dim);
}

static gm_status read_all(config_reader *in, const char **out_type) {
    fe_config *c = &in->draft.c;
    GM_TRY(read_model_type(in, out_type));
    GM_TRY(read_keys(in));
    GM_TRY(refuse_unsupported(in));
    GM_TRY(config_read_rope(in));
    GM_TRY(read_layers(in));
    GM_TRY(read_activation(in));
    GM_TRY(read_dtype(in));
    GM_TRY(read_tied(in));
    GM_TRY(read_tokens(in));
    GM_TRY(fe_config_check(c, in->path, in->diag));
    int64_t scalar = c->generation == FE_GEMMA1 ? c->head_dim : in->draft.attention_scalar;
    c->attention_scale = 1 / sqrt((double)scalar);
    c->norm_plus_one = true;
    return GM_OK;
}

gm_status fe_config_from_json(const cJSON *root, const char *path, gm_diag *diag, fe_model *model) {
    config_reader in = {.path = path, .scope = "", .diag = diag, .root = root, .text = root};
    const char *type = "";
    if (!cJSON_IsObject(root)) return gm_fail(diag, GM_FORMAT, "%s: expected an object", path);
    gm_status status = read_all(&in, &type);
    if (status != GM_OK) {
        fe_defaulted_free(&in.defaulted);
        return status;
    }
    fe_defaulted_free(&model->defaulted);
    model->defaulted = in.defaulted;
    model->config = in.draft.c;
    free(model->architecture);
    model->architecture = strdup(type);
    return model->architecture ? GM_OK : gm_fail(diag, GM_NOMEM, "%s: out of memory", path);
}
