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
#include "passes/passes.h"
#include "ir/rewrite.h"

#include "runtime/derive.h"
#include "runtime/interleave.h"

#include <stdlib.h>
#include <string.h>

typedef struct state {
    const pass_options *options;
    uint32_t *products; /* by value id: uses as a weight of a product in words or of integers */
} state;

/* The first operand that is a weight of such a product; past the last: none is. */
static int first_weight(const ir_inst *inst) {
    if (inst->op == IR_SCALED_MATMUL) return 2;
    bool takes = ir_attr_is(inst, IR_ATTR_IMPL, "words") || ir_attr_is(inst, IR_ATTR_IMPL, "tiles");
    return inst->op == IR_MATMUL && takes ? 1 : inst->operand_count;
}

static void count_products(const ir_inst *inst, void *user) {
    state *s = user;
    for (int i = first_weight(inst); i < inst->operand_count; i++) s->products[inst->operands[i]->id]++;
}

static void decide(const ir_rewrite *rw, const ir_inst *inst, rt_dtype type) {
    const state *s = rw->user;
    ir_decide(s->options->decisions, "interleave_rows", rw->in, rw->in_func, inst, rt_dtype_of(type)->text,
              "each of its products is of integers or in tiles: %d rows side by side need nothing across lanes, and are unpacked at once", RT_INTERLEAVED_ROWS);
}

static bool interleave(ir_rewrite *rw, const ir_inst *inst) {
    const state *s = rw->user;
    const ir_value *w = inst->result_count ? inst->results[0] : NULL;
    if (!ir_stored_count(inst) || w->type.rank != 2 || !s->products[w->id] || s->products[w->id] != rw->uses[w->id]) return false;
    const char *name = rt_derived_name(&rw->out->arena, RT_DERIVED_ROWS, ir_attr_string(inst, IR_ATTR_NAME));
    rt_tensor derived;
    if (!rt_derived_shape(name, &(rt_tensor){.dtype = w->type.dtype, .rank = 2, .dim = {w->type.dim[0], w->type.dim[1]}}, &derived)) return false;
    ir_inst copy = *inst;
    ir_attr attrs[8];
    ir_value result = *w;
    ir_value *results[] = {&result};
    GM_ASSERT(inst->attr_count <= (int)GM_COUNT(attrs));
    memcpy(attrs, inst->attrs, sizeof *attrs * (size_t)inst->attr_count);
    for (int i = 0; i < inst->attr_count; i++)
        if (attrs[i].key == IR_ATTR_NAME) attrs[i].s = name;
    result.type.dtype = derived.dtype;
    copy.attrs = attrs;
    copy.results = results;
    ir_rewrite_clone(rw, &copy);
    decide(rw, inst, derived.dtype);
    return true;
}

gm_status pass_interleave_rows(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    state s = {.options = options};
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        s.products = calloc((size_t)in->funcs[i]->value_count + 1, sizeof *s.products);
        GM_ASSERT(s.products);
        ir_visit(in->funcs[i]->body, count_products, &s);
        ir_clone_func(in, in->funcs[i], *out, in->funcs[i]->name, NULL, interleave, &s);
        free(s.products);
    }
    return GM_OK;
}
