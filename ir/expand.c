/* What each FUSED op means: the primitives it stands for. */
#include "ir/interp_internal.h"

#include <math.h>

/* f32 of any float dtype, or of integers [S,KV,D] and scales [S,KV,R] for D/R columns each. */
static ir_value *widen(ir_builder *b, ir_value *x, ir_value *scales) {
    ir_value *wide = x->type.dtype == RT_F32 ? x : ir_convert(b, x, RT_F32);
    if (!scales) return wide;
    const ir_dim *d = x->type.dim, runs = scales->type.dim[2];
    wide = ir_reshape(b, wide, 4, (ir_dim[]){d[0], d[1], runs, d[2] / runs});
    wide = ir_binary(b, IR_MUL, wide, ir_reshape(b, scales, 4, (ir_dim[]){d[0], d[1], runs, 1}));
    return ir_reshape(b, wide, 3, d);
}

/* How long before `last` [T,1,1,1] the key in each slot was: slot j of a ring holds the latest key j, j + S, … */
static ir_value *age_of_keys(ir_builder *b, ir_value *last, ir_dim slots, bool ring) {
    ir_value *age = ir_binary(b, IR_SUB, last, ir_iota(b, 1, &slots, 0)); /* [T,1,1,S] */
    if (!ring) return age;
    ir_value *size = ir_const_int(b, slots);
    age = ir_binary(b, IR_ADD, age, size);
    return ir_binary(b, IR_SUB, age, ir_binary(b, IR_MUL, ir_binary(b, IR_DIV, age, size), size));
}

/* Which key each row t may see: [T,1,1,S] of bool. */
static ir_value *visible_keys(ir_builder *b, const ir_inst *inst, ir_dim rows, ir_dim slots, ir_value *position) {
    int64_t window = ir_attr_int(inst, IR_ATTR_WINDOW, 0);
    bool ring = ir_attr_int(inst, IR_ATTR_RING, 0);
    ir_value *t = ir_iota(b, 4, (ir_dim[]){rows, 1, 1, 1}, 0);
    ir_value *last = ir_binary(b, IR_ADD, t, position); /* [T,1,1,1] */
    ir_value *age = age_of_keys(b, last, slots, ring);
    ir_value *visible = ring ? ir_binary(b, IR_LE, age, last) : ir_binary(b, IR_LE, ir_const_int(b, 0), age);
    if (window <= 0) return visible;
    return ir_binary(b, IR_AND, visible, ir_binary(b, IR_LT, age, ir_const_int(b, window)));
}

/* Over the last axis. */
static ir_value *softmax(ir_builder *b, ir_value *x) {
    int axis = x->type.rank - 1;
    ir_value *shifted = ir_binary(b, IR_SUB, x, ir_reduce(b, IR_REDUCE_MAX, x, axis));
    ir_value *e = ir_unary(b, IR_EXP, shifted);
    return ir_binary(b, IR_DIV, e, ir_reduce(b, IR_REDUCE_SUM, e, axis));
}

static ir_value *expand_ATTENTION(ir_builder *b, const ir_inst *inst, ir_value *const *operands) {
    bool scaled = inst->operand_count == 6;
    ir_value *q = widen(b, operands[0], NULL);                        /* [T,KV,G,D] */
    ir_value *k = widen(b, operands[1], scaled ? operands[4] : NULL); /* [S,KV,D] */
    ir_value *v = widen(b, operands[2], scaled ? operands[5] : NULL); /* [S,KV,D] */
    double scale = ir_attr_float(inst, IR_ATTR_SCALE, 1), cap = ir_attr_float(inst, IR_ATTR_CAP, 0);
    ir_value *scores = ir_einsum(b, "tkgd,skd->tkgs", q, k); /* [T,KV,G,S] */
    scores = ir_binary(b, IR_MUL, scores, ir_const_float(b, scale));
    if (cap > 0) scores = ir_soft_cap(b, scores, cap);
    ir_value *visible = visible_keys(b, inst, q->type.dim[0], k->type.dim[0], operands[3]);
    scores = ir_select(b, visible, scores, ir_const_float(b, -INFINITY));
    ir_value *y = ir_einsum(b, "tkgs,skd->tkgd", softmax(b, scores), v);
    return inst->results[0]->type.dtype == RT_F32 ? y : ir_convert(b, y, inst->results[0]->type.dtype);
}

static ir_value *expand_GATED_MATMUL(ir_builder *b, const ir_inst *inst, ir_value *const *operands) {
    ir_op product = inst->operand_count == 4 ? IR_SCALED_MATMUL : IR_MATMUL;
    ir_value *both = ir_emit1(b, product, operands, inst->operand_count, inst->attrs, inst->attr_count, NULL);
    int axis = both->type.rank - 1;
    int64_t n = inst->results[0]->type.dim[axis];
    ir_value *up = ir_slice(b, both, axis, n, n), *gate = ir_slice(b, both, axis, 0, n);
    ir_value *y = ir_binary(b, IR_MUL, ir_gelu(b, gate), up);
    return inst->results[0]->type.dtype == RT_F32 ? y : ir_convert(b, y, inst->results[0]->type.dtype);
}

/* What is chosen among. */
static ir_value *screened_logits(ir_builder *b, const ir_inst *inst, ir_value *const *operands) {
    return ir_soft_cap(b, ir_matmul(b, operands[0], &operands[1], 1), ir_attr_float(inst, IR_ATTR_CAP, 0));
}

/* The choice by operands of the inst, whose other attributes are its own. */
static ir_value *choose(ir_builder *b, ir_op op, const ir_inst *inst, ir_value *const *operands, int count) {
    const ir_attr *usual = ir_attr_find(inst, IR_ATTR_USUAL);
    return ir_emit1(b, op, operands, count, usual, usual != NULL, NULL);
}

static ir_value *expand_SCREENED_ARGMAX(ir_builder *b, const ir_inst *inst, ir_value *const *operands) {
    return ir_reduce(b, IR_ARGMAX, screened_logits(b, inst, operands), 1);
}

static ir_value *expand_SCREENED_GUESS(ir_builder *b, const ir_inst *inst, ir_value *const *operands) {
    ir_value *choice[] = {screened_logits(b, inst, operands), operands[3], operands[4]};
    return choose(b, IR_GUESS, inst, choice, 3);
}

static ir_value *expand_SCREENED_SAMPLE(ir_builder *b, const ir_inst *inst, ir_value *const *operands) {
    ir_value *choice[] = {screened_logits(b, inst, operands), operands[3], operands[4], operands[5], operands[6]};
    return choose(b, IR_SAMPLE, inst, choice, 5);
}

typedef ir_value *expand_fn(ir_builder *b, const ir_inst *inst, ir_value *const *operands);

#define EXPAND_SOURCE(name)   NULL
#define EXPAND_ELEM(name)     NULL
#define EXPAND_REDUCE(name)   NULL
#define EXPAND_CONTRACT(name) NULL
#define EXPAND_MOVE(name)     NULL
#define EXPAND_SHAPE(name)    NULL
#define EXPAND_CONTROL(name)  NULL
#define EXPAND_EFFECT(name)   NULL
#define EXPAND_FUSED(name)    expand_##name

static expand_fn *const table[] = {
#define OP(name, text, operands, results, regions, class) EXPAND_##class(name),
#include "ir/ops.def"
#undef OP
};

ir_value *ir_expand_inst(ir_builder *b, const ir_inst *inst, ir_value *const *operands) {
    GM_ASSERT(table[inst->op]);
    return table[inst->op](b, inst, operands);
}

static bool expand_hook(ir_rewrite *rewrite, const ir_inst *inst) {
    if (!table[inst->op]) return false;
    ir_rewrite_map(rewrite, inst->results[0], ir_expand_inst(&rewrite->b, inst, ir_rewrite_operands(rewrite, inst, 0)));
    return true;
}

ir_module *ir_expand_fused(const ir_module *module) {
    return ir_rewrite_module(module, expand_hook, NULL);
}
