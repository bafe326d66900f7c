/* gemmac inspect: what a model is: architecture, layers, tensors with types and sizes, vocabulary, and every setting
 * that its files leave out. */
#include "frontend/commands.h"
#include "frontend/gmx.h"

#include "runtime/derive.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A list of facts, shown as "name  value" lines or as the members of a JSON object. */
typedef struct report {
    gm_string out;
    bool json;
    int count;
} report;

static void name_fact(report *r, const char *name) {
    if (r->json) gm_string_printf(&r->out, "%s\"%s\":", r->count ? "," : r->out.length ? "" : "{", name);
    else gm_string_printf(&r->out, "%-22s ", name);
    r->count++;
}

static void end_fact(report *r) {
    if (!r->json) gm_string_append(&r->out, "\n", 1);
}

static void add_int(report *r, const char *name, int64_t value) {
    name_fact(r, name);
    gm_string_printf(&r->out, "%lld", (long long)value);
    end_fact(r);
}

static void add_real(report *r, const char *name, double value) {
    name_fact(r, name);
    cmd_json_real(&r->out, value);
    end_fact(r);
}

static void add_bool(report *r, const char *name, bool value) {
    name_fact(r, name);
    gm_string_printf(&r->out, value ? "true" : "false");
    end_fact(r);
}

static void add_text(report *r, const char *name, const char *value) {
    name_fact(r, name);
    if (r->json) cmd_json_text(&r->out, value, strlen(value));
    else gm_string_printf(&r->out, "%s", value);
    end_fact(r);
}

/* Something that need not be given: null, or in words. */
static void add_optional(report *r, const char *name, const char *value, const char *otherwise) {
    if (value || !r->json) {
        add_text(r, name, value ? value : otherwise);
        return;
    }
    name_fact(r, name);
    gm_string_printf(&r->out, "null");
}

static void add_bytes(report *r, const char *name, size_t value) {
    name_fact(r, name);
    gm_string_printf(&r->out, r->json ? "%zu" : "%zu (%.1f MB)", value, (double)value / 1e6);
    end_fact(r);
}

/* A heading in text, the start of an object or list in JSON. */
static void begin(report *r, const char *name, const char *opening) {
    if (r->json) name_fact(r, name);
    gm_string_printf(&r->out, r->json ? "%s" : "\n%s\n", r->json ? opening : name);
    r->count = 0;
}

static void end(report *r, const char *closing) {
    if (r->json) gm_string_printf(&r->out, "%s", closing);
    r->count = 1;
}

/* ---- configuration ---- */

static void add_sizes(report *r, const fe_config *c) {
    add_int(r, "generation", c->generation);
    add_int(r, "vocab", c->vocab);
    add_int(r, "hidden", c->hidden);
    add_int(r, "ffn", c->ffn);
    add_int(r, "heads", c->heads);
    add_int(r, "kv_heads", c->kv_heads);
    add_int(r, "head_dim", c->head_dim);
    add_int(r, "context", c->context);
    add_real(r, "norm_eps", c->norm_eps);
    add_real(r, "attention_scale", c->attention_scale);
    add_real(r, "attention_cap", c->attention_cap);
    add_real(r, "final_cap", c->final_cap);
    add_real(r, "rope_theta", c->rope_global.theta);
    add_real(r, "rope_factor", c->rope_global.factor);
    add_real(r, "rope_local_theta", c->rope_local.theta);
    add_real(r, "rope_local_factor", c->rope_local.factor);
    add_bool(r, "tied", c->tied);
    add_bool(r, "attention_bias", c->attention_bias);
    add_bool(r, "norm_plus_one", c->norm_plus_one);
    add_bool(r, "gelu_erf", c->gelu_erf);
}

/* A letter per layer: local or global. */
static void add_layers(report *r, const fe_config *c) {
    char kinds[FE_MAX_LAYERS + 1];
    int64_t local = 0;
    for (int64_t i = 0; i < c->layers; i++) {
        kinds[i] = c->local[i] ? 'l' : 'g';
        local += c->local[i];
    }
    kinds[c->layers] = '\0';
    add_int(r, "layers", c->layers);
    add_int(r, "layers_local", local);
    add_int(r, "layers_global", c->layers - local);
    add_text(r, "layer_kinds", kinds);
    add_int(r, "window", c->window);
}

static void add_generation(report *r, const fe_model *model) {
    const fe_defaults *d = &model->defaults;
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"temperature", d->temperature},
                   {"top_k", d->top_k < 0 ? NAN : (double)d->top_k},
                   {"top_p", d->top_p},
                   {"min_p", d->min_p},
                   {"repeat_penalty", d->repeat_penalty}};
    add_int(r, "bos", model->config.bos);
    name_fact(r, "stops");
    cmd_json_ids(&r->out, model->config.stops, (size_t)model->config.stop_count);
    end_fact(r);
    for (size_t i = 0; i < GM_COUNT(numbers); i++)
        if (!isnan(numbers[i].value)) add_real(r, numbers[i].name, numbers[i].value);
}

/* ---- tensors ---- */

static size_t elements(const rt_tensor *tensor) {
    size_t count = 1;
    for (int i = 0; i < tensor->rank; i++) count *= (size_t)tensor->dim[i];
    return count;
}

static void append_shape(gm_string *out, const rt_tensor *tensor) {
    for (int i = 0; i < tensor->rank; i++) gm_string_printf(out, "%s%lld", i ? "," : "[", (long long)tensor->dim[i]);
    gm_string_append(out, "]", 1);
}

/* Tensors and bytes per stored type. */
typedef struct tally {
    size_t tensors[RT_DTYPE_COUNT], bytes[RT_DTYPE_COUNT], count, total, parameters;
} tally;

static void tally_add(tally *sum, const rt_tensor *tensor) {
    sum->tensors[tensor->dtype]++;
    sum->bytes[tensor->dtype] += tensor->bytes;
    sum->count++;
    sum->total += tensor->bytes;
    if (!rt_derived_source(tensor->name)) sum->parameters += elements(tensor);
}

static void add_types(report *r, const tally *sum) {
    size_t shown = 0;
    if (r->json) begin(r, "types", "{");
    for (int t = 0; t < RT_DTYPE_COUNT; t++) {
        if (!sum->tensors[t]) continue;
        gm_string_printf(&r->out,
                         r->json ? "%s\"%s\":{\"tensors\":%zu,\"bytes\":%zu}" : "%s  %-20s %zu tensors, %zu bytes\n",
                         r->json && shown++ ? "," : "", rt_dtype_of((rt_dtype)t)->text, sum->tensors[t], sum->bytes[t]);
    }
    if (r->json) end(r, "}");
}

/* "layers.N.rest" -> "layers.*.rest". */
static void write_kind(const char *name, char *out, size_t bytes) {
    const char *dot = strncmp(name, "layers.", 7) == 0 ? strchr(name + 7, '.') : NULL;
    if (dot) snprintf(out, bytes, "layers.*%s", dot);
    else snprintf(out, bytes, "%s", name);
}

/* All tensors of one kind, which have one shape, on a line; the kind's first tensor is number `first`. */
static void list_kind(report *r, const rt_weights *weights, size_t first, const char *kind) {
    tally sum = {0};
    char other[128];
    for (size_t i = first; i < weights->count; i++) {
        write_kind(weights->tensors[i].name, other, sizeof other);
        if (strcmp(kind, other) == 0) tally_add(&sum, &weights->tensors[i]);
    }
    gm_string shape = {0};
    append_shape(&shape, &weights->tensors[first]);
    gm_string_printf(&r->out, "  %-46s %3zu × %-15s %12zu bytes  ", kind, sum.count, shape.data, sum.total);
    gm_string_free(&shape);
    for (int t = 0, shown = 0; t < RT_DTYPE_COUNT; t++)
        if (sum.tensors[t] == sum.count) gm_string_printf(&r->out, "%s", rt_dtype_of((rt_dtype)t)->text);
        else if (sum.tensors[t])
            gm_string_printf(&r->out, "%s%zu %s", shown++ ? ", " : "", sum.tensors[t], rt_dtype_of((rt_dtype)t)->text);
    gm_string_append(&r->out, "\n", 1);
}

static void list_tensors_text(report *r, const rt_weights *weights) {
    char kind[128], other[128];
    for (size_t i = 0; i < weights->count; i++) {
        bool seen = false;
        write_kind(weights->tensors[i].name, kind, sizeof kind);
        for (size_t k = 0; k < i && !seen; k++) {
            write_kind(weights->tensors[k].name, other, sizeof other);
            seen = strcmp(kind, other) == 0;
        }
        if (!seen) list_kind(r, weights, i, kind);
    }
}

static void list_tensors_json(report *r, const rt_weights *weights) {
    for (size_t i = 0; i < weights->count; i++) {
        const rt_tensor *tensor = &weights->tensors[i];
        gm_string_printf(&r->out, "%s{\"name\":\"%s\",\"type\":\"%s\",\"shape\":", i ? "," : "", tensor->name,
                         rt_dtype_of(tensor->dtype)->text);
        append_shape(&r->out, tensor);
        gm_string_printf(&r->out, ",\"bytes\":%zu}", tensor->bytes);
    }
}

static void add_tensors(report *r, const rt_weights *weights) {
    tally sum = {0};
    for (size_t i = 0; i < weights->count; i++) tally_add(&sum, &weights->tensors[i]);
    add_int(r, "parameters", (int64_t)sum.parameters);
    add_int(r, "tensors", (int64_t)sum.count);
    add_bytes(r, "tensor_bytes", sum.total);
    add_types(r, &sum);
}

/* ---- tokenizer ---- */

static void add_vocab(report *r, const rt_vocab *vocab) {
    size_t count[RT_PIECE_BYTE + 1] = {0};
    for (size_t i = 0; i < vocab->count; i++)
        if (vocab->pieces[i].type <= RT_PIECE_BYTE) count[vocab->pieces[i].type]++;
    add_text(r, "tokenizer", !vocab->count ? "none" : vocab->json_rules ? "tokenizer.json" : "sentencepiece");
    add_int(r, "pieces", (int64_t)vocab->count);
    if (!vocab->count) return;
    add_int(r, "pieces_user", (int64_t)count[RT_PIECE_USER]);
    add_int(r, "pieces_control", (int64_t)count[RT_PIECE_CONTROL]);
    add_int(r, "pieces_byte", (int64_t)count[RT_PIECE_BYTE]);
    add_int(r, "merges", (int64_t)vocab->merge_count);
    add_int(r, "end_of_turn", vocab->end_of_turn);
    add_bool(r, "add_bos", vocab->add_bos);
    add_bool(r, "add_eos", vocab->add_eos);
    add_bool(r, "other_turns", vocab->other_turns);
}

/* ---- the whole ---- */

/* A line for each measurement, or an object. */
static void add_measured(report *r, const fe_gmx_key *key) {
    if (r->json) begin(r, "measured", "[");
    for (size_t i = 0; i < key->measured_count; i++) {
        const fe_measurement *m = &key->measured[i];
        if (!r->json) {
            gm_string_printf(&r->out, "%-22s %s: %s, %.3g ms\n", "measured", m->what, m->choice, 1e3 * m->seconds);
            continue;
        }
        gm_string_printf(&r->out, "%s{\"what\":", i ? "," : "");
        cmd_json_text(&r->out, m->what, strlen(m->what));
        gm_string_printf(&r->out, ",\"choice\":");
        cmd_json_text(&r->out, m->choice, strlen(m->choice));
        gm_string_printf(&r->out, ",\"seconds\":");
        cmd_json_real(&r->out, m->seconds);
        gm_string_printf(&r->out, "}");
    }
    if (r->json) end(r, "]");
}

static void add_compiled(report *r, const fe_gmx_key *key) {
    begin(r, "compiled", "{");
    add_text(r, "gemmac", key->gemmac);
    add_text(r, "target", key->target);
    add_optional(r, "target_cpu", key->target_cpu, "the host");
    add_text(r, "precision", fe_precision_text(key->precision));
    add_text(r, "plan", key->plan);
    const char *wide = pass_default_wide(pass_precision_of(key->plan));
    add_optional(r, "wide", key->wide, *wide ? wide : "none");
    add_optional(r, "passes", key->passes, "the pipeline");
    add_optional(r, "skip", key->skip, "none");
    add_optional(r, "with", key->with, "none");
    add_int(r, "ctx_size", key->context);
    add_int(r, "chunk", key->chunk);
    add_measured(r, key);
    end(r, "}");
}

static void add_defaulted(report *r, const fe_defaulted *list) {
    begin(r, "defaulted", "{");
    for (size_t i = 0; i < list->count; i++) {
        if (r->json) name_fact(r, list->items[i].key);
        else gm_string_printf(&r->out, "  %-44s ", list->items[i].key);
        gm_string_printf(&r->out, "%s", list->items[i].value);
        end_fact(r);
    }
    if (!r->json && !list->count) gm_string_printf(&r->out, "  nothing\n");
    end(r, "}");
}

static void add_model(report *r, const fe_model *model) {
    add_text(r, "architecture", model->architecture ? model->architecture : "");
    add_sizes(r, &model->config);
    add_layers(r, &model->config);
    add_generation(r, model);
    add_tensors(r, &model->weights);
    add_vocab(r, &model->vocab);
    if (model->gmx) add_compiled(r, &model->gmx->key);
    add_defaulted(r, &model->defaulted);
    if (!r->json && !model->weights.count) return;
    begin(r, r->json ? "tensor_list" : "tensors", "[");
    if (r->json) list_tensors_json(r, &model->weights);
    else list_tensors_text(r, &model->weights);
    end(r, "]");
}

gm_status cmd_inspect(const cmd_options *options, gm_diag *diag) {
    fe_engine opened;
    report r = {.json = options->format == CMD_JSON};
    GM_TRY(cmd_vocab_open(options, !options->no_weights, diag, &opened));
    add_model(&r, &opened.model);
    if (r.json) gm_string_printf(&r.out, "}\n");
    fwrite(r.out.data, 1, r.out.length, stdout);
    gm_string_free(&r.out);
    fe_engine_close(&opened);
    return GM_OK;
}
