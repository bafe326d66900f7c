/* interleave_rows: weights of integer products, and of those in tiles, are read with sixteen rows side by side.
 *
 *   %w = weight {name = "w"} : q5_0[N,K]                  ->   %w = weight {name = "w:r16"} : q5_0_r16[N,K]
 *   %y = matmul %x, %w {impl = "gemv_int16"}                   %y = matmul %x, %w {impl = "gemv_int16"}
 *   the same with impl "tiles"
 *   %y = scaled_matmul %q, %s, %w {…}                          %y = scaled_matmul %q, %s, %w {…}
 *
 * Fires where every use of a weight in the function is one of these products, the type has an interleaved one
 * (runtime/interleave.h), and N is a multiple of sixteen. The values of W are the same to the bit; sums of matmul may
 * come in another order. Needs choose_matmul and lower_precision. The interleaved copy is derived from w, which nothing
 * reads where all functions take the copy.
 */
#include "passes/derived.h"

static int first_weight(const ir_inst *inst) {
    if (inst->op == IR_SCALED_MATMUL) return 2;
    bool takes = ir_attr_is(inst, IR_ATTR_IMPL, "gemv_int16") || ir_attr_is(inst, IR_ATTR_IMPL, "tiles");
    return inst->op == IR_MATMUL && takes ? 1 : inst->operand_count;
}

gm_status pass_interleave_rows(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    static const derived_pass pass = {"interleave_rows",
                                      "each of its products is of integers or in tiles: 16 rows side by side need "
                                      "nothing across lanes, and are unpacked at once",
                                      RT_DERIVED_ROWS, first_weight};
    *out = derived_take(&pass, options, in);
    return GM_OK;
}
