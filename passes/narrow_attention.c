/* narrow_attention: attention in tile registers reads its queries in bf16, and writes bf16 for a product that rounds to it.
 *
 *   %q = reshape %x : f32[T,KV,G,D]                        %b = convert %x : bf16 ; %q = reshape %b : bf16[T,KV,G,D]
 *   %y = attention %q, … {impl = "tiles"} : f32       ->   %y = attention %q, … {impl = "tiles"} : bf16
 *   %r = reshape %y : f32[T,N] ; %b = convert %r : bf16    %b = reshape %y : bf16[T,N]
 *
 * with or without the reshapes; the second half only where nothing else reads %y. There q is rounded to bf16 on the way into the
 * tiles anyway: the same operations on the same numbers, but half of the bytes between them, and no loop of its own for either rounding.
 * Needs choose_matmul and lower_precision. Ends with dce for what nobody reads any more.
 */
#include "passes/match.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>

typedef struct state {
    const ir_func *func; /* that the tables are of */
    bool *queries;       /* by value id: attention reads it, maybe in another shape */
    ir_value **rounded;  /* by value id: those in bf16 */
    int found;
} state;

static bool in_tiles(const ir_inst *inst) {
    return inst && inst->op == IR_ATTENTION && ir_attr_is(inst, IR_ATTR_IMPL, "tiles") && inst->operands[0]->type.dtype == RT_F32;
}

/* What x shows in another shape. */
static const ir_value *unshaped(const ir_value *x) {
    const ir_inst *reshape = match_made_by(x, IR_RESHAPE);
    return reshape ? reshape->operands[0] : x;
}

static void note(const ir_inst *inst, void *user) {
    state *s = user;
    if (in_tiles(inst)) s->queries[unshaped(inst->operands[0])->id] = true;
}

static void open_tables(state *s, const ir_func *func) {
    free(s->queries);
    free(s->rounded);
    s->func = func;
    s->queries = calloc(func->value_count + 1, sizeof *s->queries);
    s->rounded = calloc(func->value_count + 1, sizeof *s->rounded);
    GM_ASSERT(s->queries && s->rounded);
    ir_visit(func->body, note, s);
}

/* Rounds right behind what makes the numbers, so that it can be done in the same loop. */
static bool round_result(ir_rewrite *rw, const ir_inst *inst) {
    state *s = rw->user;
    const ir_value *x = inst->result_count == 1 ? inst->results[0] : NULL;
    if (!x || !s->queries[x->id]) return false;
    ir_rewrite_clone(rw, inst);
    s->rounded[x->id] = ir_convert(&rw->b, ir_rewrite_get(rw, x), RT_BF16);
    return true;
}

/* What no instruction of one result has made is rounded where it is read. */
static ir_value *queries_of(ir_rewrite *rw, const ir_value *q) {
    const state *s = rw->user;
    const ir_value *x = unshaped(q);
    ir_value *narrow = s->rounded[x->id] ? s->rounded[x->id] : ir_convert(&rw->b, ir_rewrite_get(rw, x), RT_BF16);
    return x == q ? narrow : ir_reshape(&rw->b, narrow, q->type.rank, q->type.dim);
}

static ir_value *attend(ir_rewrite *rw, const ir_inst *inst, rt_dtype dtype) {
    ir_value *operands[6] = {queries_of(rw, inst->operands[0])};
    ir_type type = inst->results[0]->type;
    type.dtype = dtype;
    for (int i = 1; i < inst->operand_count; i++) operands[i] = ir_rewrite_get(rw, inst->operands[i]);
    return ir_emit1(&rw->b, IR_ATTENTION, operands, inst->operand_count, inst->attrs, inst->attr_count, &type);
}

/* The attention that x shows and that nothing else reads; NULL: none. */
static const ir_inst *attention_of(const ir_rewrite *rw, const ir_value *x) {
    const ir_value *y = unshaped(x);
    bool alone = rw->uses[x->id] == 1 && rw->uses[y->id] == 1;
    return alone && in_tiles(y->def) ? y->def : NULL;
}

static bool narrow(ir_rewrite *rw, const ir_inst *inst) {
    state *s = rw->user;
    if (s->func != rw->in_func) open_tables(s, rw->in_func);
    bool converts = inst->op == IR_CONVERT && inst->results[0]->type.dtype == RT_BF16;
    const ir_inst *attention = converts ? attention_of(rw, inst->operands[0]) : in_tiles(inst) ? inst : NULL;
    if (!attention) return round_result(rw, inst);
    ir_value *y = attend(rw, attention, converts ? RT_BF16 : RT_F32);
    const ir_type *type = &inst->results[0]->type;
    bool reshaped = converts && unshaped(inst->operands[0]) != inst->operands[0];
    ir_rewrite_map(rw, inst->results[0], reshaped ? ir_reshape(&rw->b, y, type->rank, type->dim) : y);
    s->found++;
    return true;
}

gm_status pass_narrow_attention(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    state s = {.func = NULL};
    ir_module *narrowed = ir_rewrite_module(in, narrow, &s);
    *out = narrowed;
    free(s.queries);
    free(s.rounded);
    if (!s.found) return GM_OK;
    gm_status status = pass_dce(options, narrowed, diag, out);
    ir_module_free(narrowed);
    return status;
}
