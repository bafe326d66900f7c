/* lower_precision: round both sides of the matrix-matrix products as the plan says.
 *
 *   bf16   %y = matmul %x, %w {impl = "packed"}    ->   %b = convert %x : bf16;  %y = matmul %b, %w {impl = "packed"}
 *   int16  %y = matmul %x, %w {impl = "integer"}   ->   %q, %s = %x as integers of 13 bits in i16, with a scale for each row
 *                                                       %y = scaled_matmul %q, %s, %w {bits = 12}
 *
 * The weights are rounded to bf16 when they are packed, to integers on their way through the cache; sums stay f32 (integer ones are
 * exact within a group), and so do the residual stream and the matrix-vector kernels of decode. Not exact: `gemmac perplexity
 * --kl-base f32` says what it costs. An x that the products of a region share is rounded once. Does nothing under the f32 plan.
 */
#include "passes/passes.h"
#include "passes/quantise.h"
#include "ir/rewrite.h"

#include <string.h>

/* 256 products of x with w stay below 2^31 (scaled_matmul sums as many in i32). */
enum { X_LARGEST = 4095, W_BITS = 12 };

/* The last rounding made; values that other regions made may not be visible. */
typedef struct lowering {
    const ir_value *x;
    const ir_region *region;
    quantised rounded; /* bf16: no scale */
} lowering;

static quantised rounded_of(ir_rewrite *rw, const ir_value *x, bool integer) {
    lowering *last = rw->user;
    if (last->x == x && last->region == rw->b.region) return last->rounded;
    ir_value *value = ir_rewrite_get(rw, x);
    *last = (lowering){x, rw->b.region, {.codes = NULL}};
    if (integer) last->rounded = quantise_rows(&rw->b, value, X_LARGEST, RT_I16);
    else last->rounded.codes = ir_convert(&rw->b, value, RT_BF16);
    return last->rounded;
}

static ir_value *integer_product(ir_rewrite *rw, ir_value **operands, int count) {
    ir_attr bits = ir_attr_make_int(IR_ATTR_BITS, W_BITS);
    return ir_emit1(&rw->b, IR_SCALED_MATMUL, operands, count, &bits, 1, NULL);
}

static bool lower(ir_rewrite *rw, const ir_inst *inst) {
    const char *impl = inst->op == IR_MATMUL ? ir_attr_string(inst, IR_ATTR_IMPL) : NULL;
    bool integer = impl && strcmp(impl, "integer") == 0, packed = impl && strcmp(impl, "packed") == 0;
    if ((!integer && !packed) || inst->operands[0]->type.dtype != RT_F32) return false;
    ir_value *operands[18];
    int count = 0;
    GM_ASSERT(inst->operand_count < (int)GM_COUNT(operands));
    quantised x = rounded_of(rw, inst->operands[0], integer);
    operands[count++] = x.codes;
    if (integer) operands[count++] = x.scale;
    for (int i = 1; i < inst->operand_count; i++) operands[count++] = ir_rewrite_get(rw, inst->operands[i]);
    ir_value *y = integer ? integer_product(rw, operands, count)
                          : ir_emit1(&rw->b, IR_MATMUL, operands, count, inst->attrs, inst->attr_count, NULL);
    ir_rewrite_map(rw, inst->results[0], y);
    return true;
}

gm_status pass_lower_precision(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    lowering last = {NULL, NULL, {NULL, NULL}};
    *out = ir_rewrite_module(in, options->precision == PASS_F32 ? NULL : lower, &last);
    return GM_OK;
}
