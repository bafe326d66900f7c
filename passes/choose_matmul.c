/* choose_matmul: say how each matmul will run, in its `impl` attribute.
 *
 *   gemv    compiled matrix-vector kernel on the stored blocks: at most RT_FEW_ROWS rows of x, so reading W is the cost. Each
 *           row as if it were alone, to the bit: drafted tokens are verified so
 *   words   the same with x in 15 bits for each 32 columns, where the target and the type of W have it (codegen/dot_int.c): every plan
 *           but f32. Not for products that a function returns: those are logits, which near ties and the rows of a screened head want
 *           as they are
 *   stream  slices of W widened by compiled code and multiplied in f32 by oneDNN: no second copy of the weights
 *   packed  oneDNN on weights rounded to bf16 and packed once at load: the bf16 plan, as long as the copies stay small
 *   integer compiled integer products: the int16 and int8 plans, for at least INTEGER_ROWS rows of x, since W is rounded on the way
 *
 * The copies are small when one product has at most PACKED_MAX_ELEMS elements (the head has more) and all together at most
 * PACKED_MAX_TOTAL; products beyond are streamed. An impl that is there already is left alone. Changes no value beyond the order of
 * sums and, by words, the last bits of x.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include "runtime/abi.h"

#include <string.h>

#define PACKED_MAX_ELEMS ((int64_t)64 << 20)
#define PACKED_MAX_TOTAL ((int64_t)2 << 30)
enum { INTEGER_ROWS = 64 };
/* W in whole panels on every target (codegen/integer.c). */
enum { INTEGER_W_ROWS = 32, INTEGER_W_COLUMNS = 32 };

typedef struct choice {
    const pass_options *options;
    int64_t packed; /* elements so far */
} choice;

/* An impl, noted with its reason. */
#define CHOOSE(impl, ...) (ir_decide(state->options->decisions, "choose_matmul", module, func, inst, impl, __VA_ARGS__), impl)

static bool integer_takes(const ir_inst *inst) {
    if (inst->operands[0]->type.dtype != RT_F32) return false;
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_type *w = &inst->operands[i]->type;
        if (w->dim[0] % INTEGER_W_ROWS || w->dim[1] % INTEGER_W_COLUMNS) return false;
    }
    return true;
}

/* Most rows of x that this module can ask for. */
static int64_t most_rows(const ir_module *module, const ir_type *x) {
    return ir_type_max_elems(module, x) / x->dim[x->rank - 1];
}

static bool is_returned(const ir_func *func, const ir_value *value) {
    for (int i = 0; i < func->body->yield_count; i++)
        if (func->body->yields[i] == value) return true;
    return false;
}

#define FEW "rows of x: %lld, at most %d: reading W is the cost"

static const char *impl_of(const ir_module *module, const ir_func *func, choice *state, const ir_inst *inst) {
    const ir_type *x = &inst->operands[0]->type, *y = &inst->results[0]->type;
    const char *plan = pass_precision_text(state->options->precision);
    int64_t rows = 1;
    for (int i = 0; i + 1 < x->rank; i++) {
        if (ir_dim_is_symbol(x->dim[i])) rows = INT32_MAX;
        else rows *= x->dim[i];
    }
    if (rows <= RT_FEW_ROWS && state->options->precision == PASS_F32) return CHOOSE("gemv", FEW ", the f32 plan leaves x as it is", (long long)rows, RT_FEW_ROWS);
    if (rows <= RT_FEW_ROWS && is_returned(func, inst->results[0])) return CHOOSE("gemv", FEW ", a product that is returned leaves x as it is", (long long)rows, RT_FEW_ROWS);
    if (rows <= RT_FEW_ROWS) return CHOOSE("words", FEW ", plan %s takes x in 15 bits for each 32 columns", (long long)rows, RT_FEW_ROWS, plan);
    bool integer = state->options->precision == PASS_INT16 || state->options->precision == PASS_INT8;
    int64_t most = most_rows(module, x), elems = y->dim[y->rank - 1] * x->dim[x->rank - 1], left = PACKED_MAX_TOTAL - state->packed;
    if (integer && most >= INTEGER_ROWS && integer_takes(inst))
        return CHOOSE("integer", "plan %s; rows of x: up to %lld, at least %d: they pay for rounding W on the way", plan, (long long)most, INTEGER_ROWS);
    if (integer && most < INTEGER_ROWS) return CHOOSE("stream", "rows of x: up to %lld, fewer than %d: they do not pay for rounding W", (long long)most, INTEGER_ROWS);
    if (integer) return CHOOSE("stream", "x is not f32, or W not of whole panels of %d rows and %d columns", INTEGER_W_ROWS, INTEGER_W_COLUMNS);
    if (state->options->precision != PASS_BF16) return CHOOSE("stream", "plan %s: W is widened a slice at a time", plan);
    if (elems > PACKED_MAX_ELEMS || elems > left)
        return CHOOSE("stream", "W has %lld elements: a copy in bf16 may have %lld", (long long)elems, (long long)(left < PACKED_MAX_ELEMS ? left : PACKED_MAX_ELEMS));
    state->packed += elems;
    return CHOOSE("packed", "plan bf16, W has %lld elements: a copy in bf16 may have %lld", (long long)elems, (long long)(left < PACKED_MAX_ELEMS ? left : PACKED_MAX_ELEMS));
}

static bool choose(ir_rewrite *rw, const ir_inst *inst) {
    if (inst->op != IR_MATMUL || ir_attr_find(inst, IR_ATTR_IMPL)) return false;
    ir_inst copy = *inst;
    ir_attr attrs[8];
    GM_ASSERT(inst->attr_count < (int)GM_COUNT(attrs));
    if (inst->attr_count) memcpy(attrs, inst->attrs, sizeof *attrs * (size_t)inst->attr_count);
    attrs[copy.attr_count++] = ir_attr_make_string(IR_ATTR_IMPL, impl_of(rw->in, rw->in_func, rw->user, inst));
    copy.attrs = attrs;
    ir_rewrite_clone(rw, &copy);
    return true;
}

gm_status pass_choose_matmul(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    choice state = {.options = options};
    *out = ir_rewrite_module(in, choose, &state);
    return GM_OK;
}
