/* choose_matmul: say how each matmul will run, in its `impl` attribute.
 *
 *   gemv    compiled matrix-vector kernel on the stored blocks: at most GEMV_ROWS rows of x, so reading W is the cost
 *   packed  oneDNN on weights packed once at load: the matrix-matrix steps of prefill
 *   stream  oneDNN on slices of W widened on the fly: weights too large to keep a second, packed copy (the head)
 *
 * An impl that is there already is left alone. Changes no value beyond the order of sums.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <string.h>

enum { GEMV_ROWS = 4, PACKED_MAX_ELEMS = 64 * 1024 * 1024 };

static const char *impl_of(const ir_inst *inst) {
    const ir_type *x = &inst->operands[0]->type, *y = &inst->results[0]->type;
    int64_t rows = 1;
    for (int i = 0; i + 1 < x->rank; i++) {
        if (ir_dim_is_symbol(x->dim[i])) rows = INT32_MAX;
        else rows *= x->dim[i];
    }
    if (rows <= GEMV_ROWS) return "gemv";
    int64_t elems = y->dim[y->rank - 1] * x->dim[x->rank - 1];
    return elems <= PACKED_MAX_ELEMS ? "packed" : "stream";
}

static bool choose(ir_rewrite *rw, const ir_inst *inst) {
    if (inst->op != IR_MATMUL || ir_attr_find(inst, IR_ATTR_IMPL)) return false;
    ir_inst copy = *inst;
    ir_attr attrs[8];
    GM_ASSERT(inst->attr_count < (int)GM_COUNT(attrs));
    if (inst->attr_count) memcpy(attrs, inst->attrs, sizeof *attrs * (size_t)inst->attr_count);
    attrs[copy.attr_count++] = ir_attr_make_string(IR_ATTR_IMPL, impl_of(inst));
    copy.attrs = attrs;
    ir_rewrite_clone(rw, &copy);
    return true;
}

gm_status pass_choose_matmul(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_rewrite_module(in, choose, NULL);
    return GM_OK;
}
