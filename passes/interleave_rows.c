/* interleave_rows: weights of integer products, and of those in tiles, are read with sixteen rows side by side.
 *
 *   %w = weight {name = "w"} : q5_0[N,K]                  ->   %w = weight {name = "w:r16"} : q5_0_r16[N,K]
 *   %y = matmul %x, %w {impl = "words"}                        %y = matmul %x, %w {impl = "words"}
 *   the same with impl "tiles"
 *   %y = scaled_matmul %q, %s, %w {…}                          %y = scaled_matmul %q, %s, %w {…}
 *
 * Fires where every use of a weight in the function is one of these products, the type has an interleaved one (runtime/interleave.h), and N is
 * a multiple of sixteen. The values of W are the same to the bit; sums of matmul may come in another order. Needs choose_matmul and
 * lower_precision. The interleaved copy is derived from w, which nothing reads where all functions take the copy.
 */
#include "passes/derived.h"
#include "passes/passes.h"

#include "runtime/interleave.h"

typedef struct state {
    const pass_options *options;
    derived_uses uses; /* as a weight of a product in words or of integers */
} state;

static int first_weight(const ir_inst *inst) {
    if (inst->op == IR_SCALED_MATMUL) return 2;
    bool takes = ir_attr_is(inst, IR_ATTR_IMPL, "words") || ir_attr_is(inst, IR_ATTR_IMPL, "tiles");
    return inst->op == IR_MATMUL && takes ? 1 : inst->operand_count;
}

static bool interleave(ir_rewrite *rw, const ir_inst *inst) {
    const state *s = rw->user;
    rt_dtype type = derived_type(rw, inst, &s->uses, RT_DERIVED_ROWS);
    if (type == RT_DTYPE_COUNT) return false;
    derived_clone(rw, inst, RT_DERIVED_ROWS, type);
    ir_decide(s->options->decisions, "interleave_rows", rw->in, rw->in_func, inst, rt_dtype_of(type)->text,
              "each of its products is of integers or in tiles: %d rows side by side need nothing across lanes, and are unpacked at once", RT_INTERLEAVED_ROWS);
    return true;
}

gm_status pass_interleave_rows(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    state s = {.options = options};
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        s.uses = derived_count(in->funcs[i], first_weight);
        ir_clone_func(in, in->funcs[i], *out, in->funcs[i]->name, NULL, interleave, &s);
        derived_free(&s.uses);
    }
    return GM_OK;
}
