/* fold: evaluate constants, compose views, drop identities.
 *
 *   %c = add %two, %three                 ->  %c = const {value = 5}        (constants of one value, any shape)
 *   %y = mul %x, %one                     ->  %x
 *   %y = reshape (reshape %x)             ->  %y = reshape %x
 *   %s = einsum %q, (transpose %k)        ->  %s = einsum %q, %k            (letters exchanged)
 *
 * A rule is a row: the operation at the root and a function that returns what stands for it. Every rule keeps the type
 * and removes an operation, a level of views or rank; so rounds over the module end. Element-wise constants are
 * evaluated by the interpreter, which defines them. The views' rules are in fold_views.c.
 *
 * Bit-exact, and only exact identities are in the table: x + 0 is not one (-0 + 0 is 0), x + -0 is; x·0, x - x and NaN
 * results stay. Symbols are never taken for numbers: an extent T is not 1. What loses its last use here is left to dce.
 */
#include "passes/fold.h"
#include "passes/passes.h"
#include "ir/interp.h"
#include "ir/rewrite.h"

#include <math.h>
#include <string.h>

const ir_attr *fold_splat(const ir_value *x) {
    return x->def && x->def->op == IR_CONST ? ir_attr_find(x->def, IR_ATTR_VALUE) : NULL;
}

ir_value *fold_make_splat(ir_builder *b, const ir_attr *value, const ir_type *type) {
    return ir_emit1(b, IR_CONST, NULL, 0, value, 1, type);
}

static bool is_float(rt_dtype dtype) {
    return rt_dtype_of(dtype)->class == RT_CLASS_FLOAT;
}

/* ---- evaluation ---- */

/* The instruction on one element each, as a function without parameters. */
static ir_module *scalar_module(const ir_inst *inst, ir_value *const *x) {
    ir_module *module = ir_module_new();
    ir_builder b;
    ir_value *operands[3];
    ir_func_new(&b, module, "value");
    for (int i = 0; i < inst->operand_count; i++) {
        ir_type type = ir_scalar(x[i]->type.dtype);
        operands[i] = fold_make_splat(&b, fold_splat(x[i]), &type);
    }
    ir_type type = ir_scalar(inst->results[0]->type.dtype);
    ir_value *result = ir_emit1(&b, inst->op, operands, inst->operand_count, inst->attrs, inst->attr_count, &type);
    ir_yield(&b, &result, 1);
    return module;
}

static bool read_scalar(const ir_array *array, ir_attr *out) {
    *out = (ir_attr){.key = IR_ATTR_VALUE};
    switch (array->dtype) {
    case RT_F32: out->f = (double)*(const float *)array->data; break;
    case RT_F16: out->f = (double)rt_f16_to_f32(*(const uint16_t *)array->data); break;
    case RT_BF16: out->f = (double)rt_bf16_to_f32(*(const uint16_t *)array->data); break;
    case RT_I64: out->i = *(const int64_t *)array->data; break;
    case RT_I32: out->i = *(const int32_t *)array->data; break;
    case RT_I16: out->i = *(const int16_t *)array->data; break;
    case RT_I8: out->i = *(const int8_t *)array->data; break;
    case RT_BOOL: out->i = *(const uint8_t *)array->data; break;
    default: return false;
    }
    return !isnan(out->f);
}

static ir_value *evaluate(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    for (int i = 0; i < inst->operand_count; i++)
        if (!fold_splat(x[i])) return NULL;
    ir_module *module = scalar_module(inst, x);
    gm_arena arena = {0};
    gm_diag diag = {0};
    ir_interp_env env = {.weights = NULL};
    ir_array result;
    ir_attr value;
    ir_value *folded = NULL;
    if (ir_interp(module, "value", &env, NULL, 0, &arena, &result, &diag) == GM_OK && read_scalar(&result, &value))
        folded = fold_make_splat(b, &value, &inst->results[0]->type);
    gm_arena_free(&arena);
    ir_module_free(module);
    return folded;
}

/* ---- identities ---- */

/* Is x the constant `number` (with its sign, for floats)? */
static bool is_number(const ir_value *x, double number) {
    const ir_attr *value = fold_splat(x);
    if (!value) return false;
    if (!is_float(x->type.dtype)) return value->i == (int64_t)number;
    return value->f == number && signbit(value->f) == signbit(number);
}

/* The operand, where it has the result's type. */
static ir_value *keep(const ir_inst *inst, ir_value *x) {
    return ir_type_equal(&x->type, &inst->results[0]->type) ? x : NULL;
}

static ir_value *add_zero(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    double zero = is_float(x[0]->type.dtype) ? -0.0 : 0;
    if (is_number(x[1], zero) && keep(inst, x[0])) return x[0];
    return is_number(x[0], zero) ? keep(inst, x[1]) : NULL;
}

static ir_value *sub_zero(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    return is_number(x[1], 0) ? keep(inst, x[0]) : NULL;
}

static ir_value *mul_one(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    if (is_number(x[1], 1) && keep(inst, x[0])) return x[0];
    return is_number(x[0], 1) ? keep(inst, x[1]) : NULL;
}

static ir_value *div_one(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    return is_number(x[1], 1) ? keep(inst, x[0]) : NULL;
}

/* and: true keeps the other, false decides; or: exchanged. */
static ir_value *logic_const(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    bool deciding = inst->op == IR_OR;
    for (int i = 0; i < 2; i++) {
        const ir_attr *value = fold_splat(x[i]);
        if (!value) continue;
        if ((value->i != 0) == deciding) return fold_make_splat(b, value, &inst->results[0]->type);
        if (keep(inst, x[1 - i])) return x[1 - i];
    }
    return NULL;
}

static ir_value *select_known(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_attr *condition = fold_splat(x[0]);
    if (x[1] == x[2]) return keep(inst, x[1]);
    return condition ? keep(inst, condition->i ? x[1] : x[2]) : NULL;
}

static ir_value *convert_same(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    return keep(inst, x[0]);
}

/* neg neg, not not */
static ir_value *undo_twice(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    return x[0]->def && x[0]->def->op == inst->op ? x[0]->def->operands[0] : NULL;
}

static const fold_row elem_rows[] = {
    {IR_ADD, add_zero},        {IR_SUB, sub_zero},         {IR_MUL, mul_one},    {IR_DIV, div_one},
    {IR_AND, logic_const},     {IR_OR, logic_const},       {IR_NEG, undo_twice}, {IR_NOT, undo_twice},
    {IR_SELECT, select_known}, {IR_CONVERT, convert_same},
};

/* ---- the pass ---- */

static ir_value *apply_rows(const fold_row *rows, int count, ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    for (int i = 0; i < count; i++) {
        if (rows[i].op != inst->op) continue;
        ir_value *folded = rows[i].rule(b, inst, x);
        if (folded) return folded;
    }
    return NULL;
}

static ir_value *fold_inst(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    ir_value *folded = apply_rows(elem_rows, GM_COUNT(elem_rows), b, inst, x);
    if (!folded && ir_op_of(inst->op)->class == IR_CLASS_ELEM) folded = evaluate(b, inst, x);
    return folded ? folded : apply_rows(fold_view_rows, fold_view_count, b, inst, x);
}

static bool fold_hook(ir_rewrite *rw, const ir_inst *inst) {
    if (inst->result_count != 1 || inst->region_count || !rw->uses[inst->results[0]->id]) return false;
    ir_value *folded = fold_inst(&rw->b, inst, ir_rewrite_operands(rw, inst, 0));
    if (!folded) return false;
    GM_ASSERT(ir_type_equal(&folded->type, &inst->results[0]->type));
    ir_rewrite_map(rw, inst->results[0], folded);
    *(bool *)rw->user = true;
    return true;
}

gm_status pass_fold(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    const ir_module *from = in;
    for (bool changed = true; changed; from = *out) {
        changed = false;
        *out = ir_rewrite_module(from, fold_hook, &changed);
        if (from != in) ir_module_free((ir_module *)from);
    }
    return GM_OK;
}
