/* Gemma 1, 2 and 3 as naive IR: one block builder driven by the configuration.
 *
 * Naive on purpose, as a first JAX version would be: separate Q, K and V projections, attention as nested maps over
 * queries, heads and a singleton query axis, everything recomputed in every layer. Each improvement is a pass that can
 * be seen in a dump and switched off. Shapes: T tokens, h hidden, H query heads, KV key/value heads, G = H/KV, D head
 * dimension, S cache capacity, I the MLP's inner size, V vocabulary, L layers.
 *
 * Sources: Gemma Team 2024a (Gemma), 2024b (Gemma 2), 2025 (Gemma 3); RMSNorm: Zhang & Sennrich 2019; rotary
 * embeddings: Su et al. 2021; GeGLU: Shazeer 2020; grouped-query attention: Ainslie et al. 2023.
 */
#include "frontend/gemma.h"

#include "ir/build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct lowering {
    const fe_config *config;
    const rt_weights *weights;
    ir_builder b;
    ir_dim t, s, r; /* the symbols T, S and R */
    ir_value *position, *k_cache, *v_cache;
} lowering;

/* ---- small pieces ---- */

/* What dumps call a weight: "q_proj" for "layers.0.self_attn.q_proj.weight", "q_proj_bias" for its bias. */
static const char *weight_hint(lowering *l, const char *name) {
    const char *end = strrchr(name, '.'), *start = end;
    while (start > name && start[-1] != '.') start--;
    return gm_arena_printf(&l->b.module->arena, "%.*s%s", (int)(end - start), start,
                           strcmp(end, ".bias") == 0 ? "_bias" : "");
}

static ir_value *weight(lowering *l, const char *name, int rank, int64_t rows, int64_t columns) {
    const rt_tensor *tensor = l->weights ? rt_weights_find(l->weights, name) : NULL;
    int64_t dims[2] = {rows, columns};
    ir_type type = ir_tensor(tensor ? tensor->dtype : l->config->storage, rank, dims);
    return ir_named(ir_weight(&l->b, name, type), weight_hint(l, name));
}

static ir_value *layer_weight(lowering *l, int64_t layer, const char *suffix, int rank, int64_t rows, int64_t columns) {
    char name[128];
    snprintf(name, sizeof name, "layers.%lld.%s", (long long)layer, suffix);
    return weight(l, name, rank, rows, columns);
}

static ir_value *as_f32(lowering *l, ir_value *x) {
    return x->type.dtype == RT_F32 ? x : ir_convert(&l->b, x, RT_F32);
}

static ir_value *op2(lowering *l, ir_op op, ir_value *x, ir_value *y) {
    return ir_binary(&l->b, op, x, y);
}

static ir_value *times(lowering *l, ir_value *x, double factor) {
    return op2(l, IR_MUL, x, ir_const_float(&l->b, factor));
}

static ir_value *reshape(lowering *l, ir_value *x, int rank, ir_dim a, ir_dim b, ir_dim c, ir_dim d) {
    return ir_reshape(&l->b, x, rank, (ir_dim[]){a, b, c, d});
}

/* "input_normed" for a weight called "input_layernorm", "q_normed" for "q_norm". */
static const char *normed_hint(lowering *l, const char *norm) {
    const char *layer = strstr(norm, "layernorm"), *end = layer ? layer : strstr(norm, "norm");
    return gm_arena_printf(&l->b.module->arena, "%.*snormed", (int)(end - norm), norm);
}

/* x·rsqrt(mean(x²) + eps)·w over the last axis. */
static ir_value *rms_norm(lowering *l, ir_value *x, ir_value *stored) {
    int axis = x->type.rank - 1;
    ir_value *sum = ir_reduce(&l->b, IR_REDUCE_SUM, op2(l, IR_MUL, x, x), axis);
    ir_value *mean = op2(l, IR_DIV, sum, ir_const_float(&l->b, (double)x->type.dim[axis]));
    ir_value *shifted = op2(l, IR_ADD, mean, ir_const_float(&l->b, l->config->norm_eps));
    ir_value *normed = op2(l, IR_MUL, x, ir_unary(&l->b, IR_RSQRT, shifted));
    ir_value *w = as_f32(l, stored);
    if (l->config->norm_plus_one) w = op2(l, IR_ADD, w, ir_const_float(&l->b, 1.0));
    return ir_named(op2(l, IR_MUL, normed, w), normed_hint(l, stored->hint));
}

static ir_value *layer_norm(lowering *l, ir_value *x, int64_t layer, const char *name) {
    int64_t width = x->type.dim[x->type.rank - 1];
    return rms_norm(l, x, layer_weight(l, layer, name, 1, width, 0));
}

/* x·Wᵀ (+ bias), one layer's projection called `name`. hint: what dumps call the result. */
static ir_value *project(lowering *l, ir_value *x, int64_t layer, const char *name, int64_t rows, bool bias,
                         const char *hint) {
    char suffix[64];
    snprintf(suffix, sizeof suffix, "%s.weight", name);
    ir_value *w = layer_weight(l, layer, suffix, 2, rows, x->type.dim[x->type.rank - 1]);
    ir_value *y = ir_matmul(&l->b, x, &w, 1);
    if (!bias) return ir_named(y, hint);
    snprintf(suffix, sizeof suffix, "%s.bias", name);
    return ir_named(op2(l, IR_ADD, y, as_f32(l, layer_weight(l, layer, suffix, 1, rows, 0))), hint);
}

/* ---- rotary embedding ---- */

/* 1 / theta^(2j/D) / factor in f32, as the reference computes it. */
static ir_value *inverse_frequencies(lowering *l, const fe_rope *rope) {
    double values[1024];
    int64_t half = l->config->head_dim / 2;
    GM_ASSERT(half <= (int64_t)GM_COUNT(values));
    for (int64_t j = 0; j < half; j++) {
        float exponent = (float)(2 * j) / (float)l->config->head_dim;
        float inverse = 1.0f / powf((float)rope->theta, exponent);
        values[j] = (double)(inverse / (float)rope->factor);
    }
    return ir_const_floats(&l->b, values, half);
}

/* Rotate the pairs (j, j + D/2) of x [T, heads, D] by position · frequency. */
static ir_value *rotate(lowering *l, ir_value *x, const fe_rope *rope) {
    ir_builder *b = &l->b;
    int64_t half = l->config->head_dim / 2;
    ir_value *p = op2(l, IR_ADD, ir_iota(b, 1, &l->t, 0), l->position);    /* [T] */
    ir_value *pf = reshape(l, ir_convert(b, p, RT_F32), 3, l->t, 1, 1, 0); /* [T,1,1] */
    ir_value *angle = op2(l, IR_MUL, pf, inverse_frequencies(l, rope));    /* [T,1,D/2] */
    ir_value *cosine = ir_named(ir_unary(b, IR_COS, angle), "cos"), *sine = ir_named(ir_unary(b, IR_SIN, angle), "sin");
    ir_value *x1 = ir_slice(b, x, 2, 0, half), *x2 = ir_slice(b, x, 2, half, half); /* [T,heads,D/2] */
    ir_value *s2 = op2(l, IR_MUL, x2, sine), *c1 = op2(l, IR_MUL, x1, cosine), *y1 = op2(l, IR_SUB, c1, s2);
    ir_value *s1 = op2(l, IR_MUL, x1, sine), *c2 = op2(l, IR_MUL, x2, cosine), *y2 = op2(l, IR_ADD, c2, s1);
    return ir_concat(b, (ir_value *[]){y1, y2}, 2, 2);
}

/* ---- attention ---- */

/* One query q [D] over all keys K [S,D] and values V [S,D]; seen [S] tells the visible ones. */
static ir_value *attend(lowering *l, ir_value *q, ir_value *keys, ir_value *values, ir_value *seen) {
    ir_builder *b = &l->b;
    ir_value *scores = times(l, ir_einsum(b, "d,sd->s", q, keys), l->config->attention_scale);
    scores = ir_soft_cap(&l->b, scores, l->config->attention_cap);
    scores = ir_named(ir_select(b, seen, scores, ir_const_float(b, -INFINITY)), "scores");
    ir_value *shifted = op2(l, IR_SUB, scores, ir_reduce(b, IR_REDUCE_MAX, scores, 0));
    ir_value *weights = ir_unary(b, IR_EXP, shifted);
    ir_value *total = ir_reduce(b, IR_REDUCE_SUM, weights, 0);
    return ir_einsum(b, "s,sd->d", ir_named(op2(l, IR_DIV, weights, total), "probs"), values);
}

typedef struct open_map {
    ir_region *outer, *body;
    ir_value *index;
} open_map;

static open_map map_begin(lowering *l, const char *index) {
    open_map map = {.outer = l->b.region, .body = ir_region_new(&l->b)};
    map.index = ir_param(&l->b, map.body, ir_scalar(RT_I32), index);
    l->b.region = map.body;
    return map;
}

static ir_value *map_end(lowering *l, open_map *map, ir_dim extent, ir_value *result) {
    ir_yield(&l->b, &result, 1);
    l->b.region = map->outer;
    ir_attr attr = ir_attr_make_int(IR_ATTR_EXTENT, extent);
    return ir_emit(&l->b, IR_MAP, NULL, 0, &attr, 1, &map->body, 1, NULL, 1)->results[0];
}

/* The keys that the query at position p sees: j <= p and, on local layers, p - j < window. */
static ir_value *visible_keys(lowering *l, ir_value *p, bool local) {
    ir_builder *b = &l->b;
    ir_value *j = ir_iota(b, 1, &l->s, 0);
    ir_value *seen = op2(l, IR_LE, j, p);
    if (!local) return ir_named(seen, "seen");
    ir_value *window = ir_const_int(b, l->config->window), *near = op2(l, IR_LT, op2(l, IR_SUB, p, j), window);
    return ir_named(op2(l, IR_AND, seen, near), "seen");
}

/* Attention of q [T,KV,G,D] over one layer's cache: maps over tokens, kv heads, the group and the singleton axis. */
static ir_value *attention_maps(lowering *l, ir_value *q, ir_value *keys, ir_value *values, bool local) {
    ir_builder *b = &l->b;
    const fe_config *c = l->config;
    open_map token = map_begin(l, "t");
    ir_value *q_token = ir_index(b, q, token.index, 0); /* [KV,G,D] */
    ir_value *seen = visible_keys(l, op2(l, IR_ADD, l->position, token.index), local);
    open_map head = map_begin(l, "h");
    ir_value *q_head = ir_index(b, q_token, head.index, 0); /* [G,D] */
    ir_value *k_head = ir_index(b, keys, head.index, 1);    /* [S,D] */
    ir_value *v_head = ir_index(b, values, head.index, 1);  /* [S,D] */
    open_map member = map_begin(l, "g");
    ir_value *q_row = reshape(l, ir_index(b, q_head, member.index, 0), 2, 1, c->head_dim, 0, 0); /* [1,D] */
    open_map single = map_begin(l, "u");
    ir_value *o = attend(l, ir_index(b, q_row, single.index, 0), k_head, v_head, seen);
    o = map_end(l, &single, 1, o);                                                           /* [1,D] */
    o = map_end(l, &member, c->heads / c->kv_heads, reshape(l, o, 1, c->head_dim, 0, 0, 0)); /* [G,D] */
    o = map_end(l, &head, c->kv_heads, o);                                                   /* [KV,G,D] */
    return ir_named(map_end(l, &token, l->t, o), "attention");                               /* [T,KV,G,D] */
}

/* Write x [T,KV,D] into `cache` at (layer, position); returns the new cache. */
static ir_value *cache_write(lowering *l, ir_value *cache, ir_value *x, ir_value *layer) {
    const fe_config *c = l->config;
    ir_value *row = reshape(l, x, 4, 1, l->t, c->kv_heads, c->head_dim);
    return ir_update(&l->b, cache, row, (ir_value *[]){layer, l->position}, 2);
}

static ir_value *attention(lowering *l, ir_value *x, int64_t i) {
    const fe_config *c = l->config;
    const fe_rope *rope = c->local[i] ? &c->rope_local : &c->rope_global;
    int64_t d = c->head_dim;
    ir_value *q = project(l, x, i, "self_attn.q_proj", c->heads * d, c->attention_bias, "q");
    ir_value *k = project(l, x, i, "self_attn.k_proj", c->kv_heads * d, c->attention_bias, "k");
    ir_value *v = project(l, x, i, "self_attn.v_proj", c->kv_heads * d, c->attention_bias, "v");
    q = reshape(l, q, 3, l->t, c->heads, d, 0);
    k = reshape(l, k, 3, l->t, c->kv_heads, d, 0);
    v = reshape(l, v, 3, l->t, c->kv_heads, d, 0);
    if (c->generation >= FE_GEMMA3) {
        q = layer_norm(l, q, i, "self_attn.q_norm.weight");
        k = layer_norm(l, k, i, "self_attn.k_norm.weight");
    }
    q = ir_named(rotate(l, q, rope), "q_rope");
    k = ir_named(rotate(l, k, rope), "k_rope");
    ir_value *layer = ir_const_int(&l->b, i);
    l->k_cache = ir_named(cache_write(l, l->k_cache, k, layer), "kc");
    l->v_cache = ir_named(cache_write(l, l->v_cache, v, layer), "vc");
    ir_value *keys = ir_named(ir_index(&l->b, l->k_cache, layer, 0), "keys");     /* [S,KV,D] */
    ir_value *values = ir_named(ir_index(&l->b, l->v_cache, layer, 0), "values"); /* [S,KV,D] */
    q = reshape(l, q, 4, l->t, c->kv_heads, c->heads / c->kv_heads, d);
    ir_value *o = attention_maps(l, q, keys, values, c->local[i]);
    o = ir_named(reshape(l, o, 2, l->t, c->heads * d, 0, 0), "attended");
    return project(l, o, i, "self_attn.o_proj", c->hidden, c->attention_bias, "o");
}

/* ---- MLP and layers ---- */

/* In its tanh form, or the exact one: 0.5·x·(1 + erf(x/√2)). */
static ir_value *gelu(lowering *l, ir_value *x) {
    if (!l->config->gelu_erf) return ir_gelu(&l->b, x);
    ir_value *gate = ir_unary(&l->b, IR_ERF, times(l, x, 0.70710678118654752));
    ir_value *factor = op2(l, IR_ADD, gate, ir_const_float(&l->b, 1.0)), *half = times(l, x, 0.5);
    return op2(l, IR_MUL, half, factor);
}

static ir_value *mlp(lowering *l, ir_value *x, int64_t i) {
    const fe_config *c = l->config;
    ir_value *gate = project(l, x, i, "mlp.gate_proj", c->ffn, false, "gate");
    ir_value *up = project(l, x, i, "mlp.up_proj", c->ffn, false, "up");
    ir_value *gated = ir_named(op2(l, IR_MUL, gelu(l, gate), up), "gated");
    return project(l, gated, i, "mlp.down_proj", c->hidden, false, "down");
}

/* Pre-norm blocks; Gemma 2 and 3 also norm each branch's output before it joins the residual stream. */
static ir_value *layer(lowering *l, ir_value *x, int64_t i) {
    bool post = l->config->generation >= FE_GEMMA2;
    ir_value *a = attention(l, layer_norm(l, x, i, "input_layernorm.weight"), i);
    if (post) a = layer_norm(l, a, i, "post_attention_layernorm.weight");
    x = ir_named(op2(l, IR_ADD, x, a), "residual");
    const char *before_mlp = post ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight";
    ir_value *f = mlp(l, layer_norm(l, x, i, before_mlp), i);
    if (post) f = layer_norm(l, f, i, "post_feedforward_layernorm.weight");
    return ir_named(op2(l, IR_ADD, x, f), "x");
}

static void build_forward(lowering *l, ir_module *module) {
    const fe_config *c = l->config;
    ir_func_new(&l->b, module, "forward");
    ir_region *body = l->b.region;
    ir_type cache = ir_tensor(RT_F32, 4, (ir_dim[]){c->layers, l->s, c->kv_heads, c->head_dim});
    ir_value *ids = ir_param(&l->b, body, ir_tensor(RT_I32, 1, &l->t), "ids");
    l->position = ir_param(&l->b, body, ir_scalar(RT_I32), "position");
    l->k_cache = ir_param(&l->b, body, cache, "kc");
    l->v_cache = ir_param(&l->b, body, cache, "vc");
    ir_value *x = ir_gather(&l->b, weight(l, "embed_tokens.weight", 2, c->vocab, c->hidden), ids);
    x = ir_named(times(l, x, sqrtf((float)c->hidden)), "x");
    for (int64_t i = 0; i < c->layers; i++) x = layer(l, x, i);
    ir_yield(&l->b, (ir_value *[]){x, l->k_cache, l->v_cache}, 3);
}

static void build_head(lowering *l, ir_module *module) {
    const fe_config *c = l->config;
    ir_func_new(&l->b, module, "head");
    ir_value *x = ir_param(&l->b, l->b.region, ir_tensor(RT_F32, 2, (ir_dim[]){l->r, c->hidden}), "x");
    ir_value *normed = rms_norm(l, x, weight(l, "norm.weight", 1, c->hidden, 0));
    ir_value *w = weight(l, c->tied ? "embed_tokens.weight" : "lm_head.weight", 2, c->vocab, c->hidden);
    ir_value *logits = ir_soft_cap(&l->b, ir_matmul(&l->b, normed, &w, 1), c->final_cap);
    ir_yield(&l->b, (ir_value *[]){ir_named(logits, "logits")}, 1);
}

ir_module *fe_gemma_build(const fe_config *config, const rt_weights *weights) {
    ir_module *module = ir_module_new();
    lowering l = {.config = config, .weights = weights};
    l.t = ir_dim_symbol(ir_symbol_intern(module, "T", 0));
    l.s = ir_dim_symbol(ir_symbol_intern(module, "S", config->context));
    l.r = ir_dim_symbol(ir_symbol_intern(module, "R", 0));
    build_forward(&l, module);
    build_head(&l, module);
    return module;
}
