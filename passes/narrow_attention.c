/* narrow_attention: attention in tile registers reads its queries in bf16, and writes bf16 for a product that rounds to
 * it.
 *
 *   %q = reshape %x : f32[T,KV,G,D]                        %b = convert %x : bf16 ; %q = reshape %b : bf16[T,KV,G,D]
 *   %y = attention %q, … {impl = "tiles"} : f32       ->   %y = attention %q, … {impl = "tiles"} : bf16
 *   %r = reshape %y : f32[T,N] ; %b = convert %r : bf16    %b = reshape %y : bf16[T,N]
 *
 * with or without the reshapes; the second half only where nothing else reads %y. Only where compiled code has tile
 * registers for it: keys and values of bf16, or of i8 with scales, that lie by rows of whole tiles. There q is rounded
 * to bf16 on the way into the tiles anyway: the same operations on the same numbers, but half of the bytes between
 * them, and no loop of its own for either rounding. Needs choose_matmul and lower_precision. Ends with dce for reshapes
 * that nobody reads any more.
 */
#include "passes/match.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>

enum { PAIRS = 32 /* columns that the depth of a tile holds */ };

typedef struct state {
    const ir_func *func; /* that the tables are of */
    /* by value id: attention reads it, maybe in another shape; attention makes it, in bf16 from now on */
    bool *queries, *narrowed;
    ir_value **rounded; /* by value id: queries in bf16 */
    bool found;
} state;

/* ---- what there is ---- */

/* What x shows in another shape. */
static const ir_value *unshaped(const ir_value *x) {
    const ir_inst *reshape = match_made_by(x, IR_RESHAPE);
    return reshape ? reshape->operands[0] : x;
}

/* Do the columns of a row lie side by side? */
static bool by_rows(const ir_value *cache) {
    const ir_inst *turned = match_made_by(cache, IR_TRANSPOSE);
    return !turned || ir_attr_find(turned, IR_ATTR_PERM)->ints[2] == 2;
}

static bool in_tiles(const ir_inst *inst) {
    if (!inst || inst->op != IR_ATTENTION || !ir_attr_is(inst, IR_ATTR_IMPL, "tiles") ||
        inst->operands[0]->type.dtype != RT_F32)
        return false;
    const ir_value *k = inst->operands[1], *v = inst->operands[2];
    return (k->type.dtype == RT_BF16 || k->type.dtype == RT_I8) && by_rows(k) && by_rows(v) &&
           k->type.dim[2] % PAIRS == 0;
}

/* The attention that x shows and that nothing else reads; NULL: none. */
static const ir_inst *attention_of(const ir_rewrite *rw, const ir_value *x) {
    const ir_value *y = unshaped(x);
    bool alone = rw->uses[x->id] == 1 && rw->uses[y->id] == 1;
    return alone && in_tiles(y->def) ? y->def : NULL;
}

static bool holds(const ir_region *region, const ir_inst *inst) {
    for (int i = 0; i < region->inst_count; i++)
        if (region->insts[i] == inst) return true;
    return false;
}

static void note_region(const ir_rewrite *rw, state *s, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        for (int r = 0; r < inst->region_count; r++) note_region(rw, s, inst->regions[r]);
        if (in_tiles(inst)) s->queries[unshaped(inst->operands[0])->id] = true;
        bool rounds = inst->op == IR_CONVERT && inst->results[0]->type.dtype == RT_BF16;
        const ir_inst *attention = rounds ? attention_of(rw, inst->operands[0]) : NULL;
        if (attention && holds(region, attention)) s->narrowed[attention->results[0]->id] = true;
    }
}

static void open_tables(const ir_rewrite *rw, state *s) {
    size_t values = rw->in_func->value_count + 1;
    free(s->queries);
    free(s->narrowed);
    free(s->rounded);
    s->func = rw->in_func;
    s->queries = calloc(values, sizeof *s->queries);
    s->narrowed = calloc(values, sizeof *s->narrowed);
    s->rounded = calloc(values, sizeof *s->rounded);
    GM_ASSERT(s->queries && s->narrowed && s->rounded);
    note_region(rw, s, rw->in_func->body);
}

/* ---- rewriting ---- */

/* Right behind what makes the numbers, so that it can be done in the same loop; what no instruction of one result has
 * made, where it is read. */
static ir_value *queries_of(ir_rewrite *rw, const ir_value *q) {
    const state *s = rw->user;
    const ir_value *x = unshaped(q);
    ir_value *narrow = s->rounded[x->id] ? s->rounded[x->id] : ir_convert(&rw->b, ir_rewrite_get(rw, x), RT_BF16);
    return x == q ? narrow : ir_reshape(&rw->b, narrow, q->type.rank, q->type.dim);
}

static void attend(ir_rewrite *rw, const ir_inst *inst) {
    state *s = rw->user;
    s->found = true;
    ir_value **operands = ir_rewrite_operands(rw, inst, 0);
    ir_type type = inst->results[0]->type;
    if (s->narrowed[inst->results[0]->id]) type.dtype = RT_BF16;
    operands[0] = queries_of(rw, inst->operands[0]);
    ir_rewrite_map(rw, inst->results[0],
                   ir_emit1(&rw->b, IR_ATTENTION, operands, inst->operand_count, inst->attrs, inst->attr_count, &type));
}

static bool narrow(ir_rewrite *rw, const ir_inst *inst) {
    state *s = rw->user;
    if (s->func != rw->in_func) open_tables(rw, s);
    const ir_value *result = inst->result_count == 1 ? inst->results[0] : NULL;
    if (in_tiles(inst)) attend(rw, inst);
    else if (inst->op == IR_RESHAPE && s->narrowed[inst->operands[0]->id])
        ir_rewrite_map(rw, result,
                       ir_reshape(&rw->b, ir_rewrite_get(rw, inst->operands[0]), result->type.rank, result->type.dim));
    else if (inst->op == IR_CONVERT && s->narrowed[unshaped(inst->operands[0])->id])
        ir_rewrite_map(rw, result, ir_rewrite_get(rw, inst->operands[0]));
    else if (result && s->queries[result->id]) {
        ir_rewrite_clone(rw, inst);
        s->rounded[result->id] = ir_convert(&rw->b, ir_rewrite_get(rw, result), RT_BF16);
    } else return false;
    return true;
}

gm_status pass_narrow_attention(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    state s = {.func = NULL};
    ir_module *narrowed = ir_rewrite_module(in, narrow, &s);
    free(s.queries);
    free(s.narrowed);
    free(s.rounded);
    return pass_sweep(s.found, options, narrowed, diag, out);
}
