/* lower_precision: round both sides of the matrix-matrix products to bf16 when the plan says so.
 *
 *   %y = matmul %x, %w {impl = "packed"}   ->   %b = convert %x : bf16;  %y = matmul %b, %w {impl = "packed"}
 *
 * The weights of such a product are rounded when they are packed; sums stay f32, and so do the residual stream and the
 * matrix-vector kernels of decode. Not exact: bench/ and `gemmac perplexity --kl-base f32` say what it costs. An x that the
 * products of a region share is converted once. Does nothing under the f32 plan.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <string.h>

/* The last conversion made; values that other regions made may not be visible. */
typedef struct lowering {
    const ir_value *x;
    const ir_region *region;
    ir_value *rounded;
} lowering;

static ir_value *rounded_of(ir_rewrite *rw, const ir_value *x) {
    lowering *last = rw->user;
    if (last->x != x || last->region != rw->b.region)
        *last = (lowering){x, rw->b.region, ir_convert(&rw->b, ir_rewrite_get(rw, x), RT_BF16)};
    return last->rounded;
}

static bool lower(ir_rewrite *rw, const ir_inst *inst) {
    const char *impl = inst->op == IR_MATMUL ? ir_attr_string(inst, IR_ATTR_IMPL) : NULL;
    if (!impl || strcmp(impl, "packed") || inst->operands[0]->type.dtype != RT_F32) return false;
    ir_value *operands[17];
    GM_ASSERT(inst->operand_count <= (int)GM_COUNT(operands));
    for (int i = 1; i < inst->operand_count; i++) operands[i] = ir_rewrite_get(rw, inst->operands[i]);
    operands[0] = rounded_of(rw, inst->operands[0]);
    ir_inst *copy = ir_emit(&rw->b, IR_MATMUL, operands, inst->operand_count, inst->attrs, inst->attr_count, NULL, 0, NULL, 1);
    ir_rewrite_map(rw, inst->results[0], copy->results[0]);
    return true;
}

gm_status pass_lower_precision(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    lowering last = {NULL, NULL, NULL};
    *out = ir_rewrite_module(in, options->bf16 ? lower : NULL, &last);
    return GM_OK;
}
