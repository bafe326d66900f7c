/* gemmac inspect: what a model is: architecture, configuration, tensor types, vocabulary. */
#include "frontend/commands.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* One flat list of facts, shown as "name  value" lines or as the members of a JSON object. */
typedef struct report {
    gm_string out;
    bool json;
    int count;
} report;

static void name_fact(report *r, const char *name) {
    if (r->json)
        gm_string_printf(&r->out, "%s\"%s\":", r->count ? "," : "{", name);
    else
        gm_string_printf(&r->out, "%-22s", name);
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
    if (r->json)
        cmd_json_text(&r->out, value, strlen(value));
    else
        gm_string_printf(&r->out, "%s", value);
    end_fact(r);
}

static void add_config(report *r, const fe_config *c) {
    add_int(r, "generation", c->generation);
    add_int(r, "vocab", c->vocab);
    add_int(r, "hidden", c->hidden);
    add_int(r, "ffn", c->ffn);
    add_int(r, "layers", c->layers);
    add_int(r, "heads", c->heads);
    add_int(r, "kv_heads", c->kv_heads);
    add_int(r, "head_dim", c->head_dim);
    add_int(r, "context", c->context);
    add_int(r, "window", c->window);
    add_real(r, "norm_eps", c->norm_eps);
    add_real(r, "attention_scale", c->attention_scale);
    add_real(r, "attention_cap", c->attention_cap);
    add_real(r, "final_cap", c->final_cap);
    add_real(r, "rope_theta", c->rope_global.theta);
    add_real(r, "rope_factor", c->rope_global.factor);
    add_real(r, "rope_local_theta", c->rope_local.theta);
    add_bool(r, "tied", c->tied);
    add_bool(r, "attention_bias", c->attention_bias);
    add_bool(r, "gelu_erf", c->gelu_erf);
}

/* "local local … global" by first letter, and the ids that end generation. */
static void add_lists(report *r, const fe_config *c) {
    char kinds[FE_MAX_LAYERS + 1];
    for (int64_t i = 0; i < c->layers; i++) kinds[i] = c->local[i] ? 'l' : 'g';
    kinds[c->layers] = '\0';
    add_text(r, "layer_kinds", kinds);
    add_int(r, "bos", c->bos);
    name_fact(r, "stops");
    cmd_json_ids(&r->out, c->stops, (size_t)c->stop_count);
    end_fact(r);
}

static void add_tensors(report *r, const rt_weights *weights) {
    size_t bytes[RT_DTYPE_COUNT] = {0}, count[RT_DTYPE_COUNT] = {0}, total = 0, shown = 0;
    for (size_t i = 0; i < weights->count; i++) {
        bytes[weights->tensors[i].dtype] += weights->tensors[i].bytes;
        count[weights->tensors[i].dtype]++;
        total += weights->tensors[i].bytes;
    }
    add_int(r, "tensors", (int64_t)weights->count);
    add_int(r, "tensor_bytes", (int64_t)total);
    if (r->json) name_fact(r, "types");
    if (r->json) gm_string_append(&r->out, "{", 1);
    for (int t = 0; t < RT_DTYPE_COUNT; t++) {
        if (!count[t]) continue;
        gm_string_printf(&r->out,
                         r->json ? "%s\"%s\":{\"tensors\":%zu,\"bytes\":%zu}"
                                 : "%s  %-20s%zu tensors, %zu bytes\n",
                         r->json && shown++ ? "," : "", rt_dtype_of((rt_dtype)t)->text, count[t],
                         bytes[t]);
    }
    if (r->json) gm_string_append(&r->out, "}", 1);
}

static void add_vocab(report *r, const rt_vocab *vocab) {
    size_t count[RT_PIECE_BYTE + 1] = {0};
    for (size_t i = 0; i < vocab->count; i++)
        if (vocab->pieces[i].type <= RT_PIECE_BYTE) count[vocab->pieces[i].type]++;
    add_int(r, "pieces", (int64_t)vocab->count);
    if (!vocab->count) return;
    add_int(r, "pieces_user", (int64_t)count[RT_PIECE_USER]);
    add_int(r, "pieces_control", (int64_t)count[RT_PIECE_CONTROL]);
    add_int(r, "pieces_byte", (int64_t)count[RT_PIECE_BYTE]);
    add_int(r, "merges", (int64_t)vocab->merge_count);
    add_int(r, "end_of_turn", vocab->end_of_turn);
    add_bool(r, "add_bos", vocab->add_bos);
}

gm_status cmd_inspect(const cmd_options *options, gm_diag *diag) {
    cmd_vocab opened;
    report r = {.json = options->format == CMD_JSON};
    GM_TRY(cmd_vocab_open(options, !options->no_weights, diag, &opened));
    const fe_model *model = &opened.engine.model;
    add_text(&r, "architecture", model->architecture ? model->architecture : "");
    add_config(&r, &model->config);
    add_lists(&r, &model->config);
    add_tensors(&r, &model->weights);
    add_vocab(&r, &model->vocab);
    if (r.json) gm_string_printf(&r.out, "}\n");
    fwrite(r.out.data, 1, r.out.length, stdout);
    gm_string_free(&r.out);
    cmd_vocab_close(&opened);
    return GM_OK;
}
