/* batch_attention: turn the maps over queries and heads into batched operations, as vmap does.
 *
 *   %y = map {extent = N} (%i) {               ->   %s = einsum %q, %k {spec = "ad,sd->as"} : f32[N,S]
 *     %r = index %q, %i {axis = 0} : f32[D]         %y = exp %s : f32[N,S]
 *     %s = einsum %r, %k {spec = "d,sd->s"}
 *     %e = exp %s
 *     yield %e } : f32[N,S]
 *
 * A value that depends on the map's variable gets a leading axis of the map's extent (a number or a symbol); the others
 * are computed once, before. One rule per class of operation says what its batched form is; the variable itself becomes
 * an iota, and `index %x, %i` of a value from outside is x with that axis moved to the front. Only maps that contain an
 * einsum are worth it; maps are taken innermost first, in rounds.
 *
 * All or nothing: a map stays as it is when one operation in it has no batched form: regions that did not batch away,
 * calls, effects, dim; an index or window that starts elsewhere in every element; matmul or gather with a batched
 * matrix; a concat or an update of batched with unbatched values; a yield that does not depend on the variable; rank
 * above IR_MAX_RANK. Every element is computed by the same operations from the same numbers: bit-exact where einsum
 * adds in the same order. Leaves transposes and reshapes for fold to absorb.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

typedef struct batching {
    ir_value *variable; /* of the map, in the old module */
    ir_dim extent;
    bool *batched; /* by old value id; of the current map */
    int changed;   /* maps batched in this round */
} batching;

static bool is_batched(const batching *t, const ir_value *value) {
    return t->batched[value->id];
}

static int batched_count(const batching *t, const ir_inst *inst) {
    int count = 0;
    for (int i = 0; i < inst->operand_count; i++) count += is_batched(t, inst->operands[i]);
    return count;
}

/* ---- can it be batched ---- */

/* index %x, %i where x comes from outside and its axis has at least the map's extent. */
static bool is_element(const batching *t, const ir_inst *inst) {
    const ir_value *x = inst->operands[0];
    if (inst->op != IR_INDEX || inst->operands[1] != t->variable || is_batched(t, x)) return false;
    ir_dim dim = x->type.dim[ir_attr_int(inst, IR_ATTR_AXIS, 0)];
    return dim == t->extent || (!ir_dim_is_symbol(dim) && !ir_dim_is_symbol(t->extent) && dim > t->extent);
}

static bool only_first_batched(const batching *t, const ir_inst *inst) {
    return is_batched(t, inst->operands[0]) && batched_count(t, inst) == 1;
}

static bool has_rule(const batching *t, const ir_inst *inst) {
    if (inst->result_count != 1 || inst->results[0]->type.rank >= IR_MAX_RANK) return false;
    switch (inst->op) {
    case IR_REDUCE_SUM:
    case IR_REDUCE_MAX:
    case IR_ARGMAX:
    case IR_RESHAPE:
    case IR_TRANSPOSE:
    case IR_SLICE: return true;
    case IR_EINSUM: return inst->operands[0]->type.rank < IR_MAX_RANK && inst->operands[1]->type.rank < IR_MAX_RANK;
    case IR_MATMUL:
    case IR_WINDOW: return only_first_batched(t, inst);
    case IR_INDEX: return is_element(t, inst) || only_first_batched(t, inst);
    case IR_GATHER: return !is_batched(t, inst->operands[0]);
    case IR_CONCAT: return batched_count(t, inst) == inst->operand_count;
    case IR_UPDATE:
        return !ir_attr_int(inst, IR_ATTR_RING, 0) && is_batched(t, inst->operands[0]) &&
               is_batched(t, inst->operands[1]) && batched_count(t, inst) == 2;
    default: return ir_op_of(inst->op)->class == IR_CLASS_ELEM;
    }
}

/* Marks what depends on the variable; false when an operation has no rule. */
static bool mark_body(batching *t, const ir_region *body, uint32_t value_count) {
    bool sums = false;
    memset(t->batched, 0, sizeof *t->batched * value_count);
    t->batched[t->variable->id] = true;
    for (int i = 0; i < body->inst_count; i++) {
        const ir_inst *inst = body->insts[i];
        if (inst->region_count || inst->op == IR_CALL || ir_has_effect(inst)) return false;
        sums |= inst->op == IR_EINSUM;
        if (!batched_count(t, inst)) continue;
        if (!has_rule(t, inst)) return false;
        t->batched[inst->results[0]->id] = true;
    }
    for (int i = 0; i < body->yield_count; i++)
        if (!is_batched(t, body->yields[i])) return false;
    return sums;
}

/* ---- the rules ---- */

/* The new value of an operand; the variable becomes its iota on first use. */
static ir_value *operand(ir_rewrite *rw, const batching *t, const ir_value *old) {
    if (old == t->variable && !rw->map[old->id]) ir_rewrite_map(rw, old, ir_iota(&rw->b, 1, &t->extent, 0));
    return ir_rewrite_get(rw, old);
}

static ir_type with_extent(const batching *t, const ir_type *type) {
    ir_type out = {.dtype = type->dtype, .rank = type->rank + 1};
    out.dim[0] = t->extent;
    memcpy(out.dim + 1, type->dim, sizeof *type->dim * (size_t)type->rank);
    return out;
}

/* A batched operand of rank k of an element-wise operation of rank r: [N, 1 × (r-k), …], so that broadcasting stays
 * aligned. */
static ir_value *aligned(ir_rewrite *rw, const batching *t, const ir_value *old, int rank) {
    ir_value *x = operand(rw, t, old);
    int missing = rank - old->type.rank;
    if (!is_batched(t, old) || missing == 0) return x;
    ir_dim dims[IR_MAX_RANK] = {t->extent};
    for (int i = 0; i < missing; i++) dims[1 + i] = 1;
    memcpy(dims + 1 + missing, old->type.dim, sizeof *dims * (size_t)old->type.rank);
    return ir_reshape(&rw->b, x, rank + 1, dims);
}

static ir_value *batch_elem(ir_rewrite *rw, const batching *t, const ir_inst *inst) {
    ir_value *operands[3];
    for (int i = 0; i < inst->operand_count; i++)
        operands[i] = aligned(rw, t, inst->operands[i], inst->results[0]->type.rank);
    ir_type type = with_extent(t, &inst->results[0]->type);
    return ir_emit1(&rw->b, inst->op, operands, inst->operand_count, inst->attrs, inst->attr_count, &type);
}

/* The batched operands and the result get a letter that the spec does not use. */
static ir_value *batch_einsum(ir_rewrite *rw, const batching *t, const ir_inst *inst) {
    ir_einsum_spec spec = ir_einsum_spec_of(inst);
    char letter[2] = "a", *batched;
    while (strchr(ir_attr_string(inst, IR_ATTR_SPEC), letter[0])) letter[0]++;
    GM_ASSERT(letter[0] <= 'z');
    batched = gm_arena_printf(&rw->out->arena, "%s%s,%s%s->%s%s", is_batched(t, inst->operands[0]) ? letter : "",
                              spec.operand[0], is_batched(t, inst->operands[1]) ? letter : "", spec.operand[1], letter,
                              spec.result);
    ir_value *y = operand(rw, t, inst->operands[1]), *x = operand(rw, t, inst->operands[0]);
    return ir_einsum(&rw->b, batched, x, y);
}

/* Element i of x along an axis, for all i: that axis in front, cut to the map's extent. */
static ir_value *all_elements(ir_rewrite *rw, const batching *t, const ir_inst *inst) {
    ir_value *x = operand(rw, t, inst->operands[0]);
    int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
    if (x->type.dim[axis] != t->extent) x = ir_slice(&rw->b, x, axis, 0, t->extent);
    if (axis == 0) return x;
    int64_t perm[IR_MAX_RANK] = {axis};
    for (int i = 1; i < x->type.rank; i++) perm[i] = i <= axis ? i - 1 : i;
    return ir_transpose(&rw->b, x, perm);
}

static ir_value *batch_transpose(ir_rewrite *rw, const batching *t, const ir_inst *inst) {
    const ir_attr *old = ir_attr_find(inst, IR_ATTR_PERM);
    int64_t perm[IR_MAX_RANK] = {0};
    for (size_t i = 0; i < old->n; i++) perm[i + 1] = old->ints[i] + 1;
    return ir_transpose(&rw->b, operand(rw, t, inst->operands[0]), perm);
}

static ir_value *batch_update(ir_rewrite *rw, const batching *t, const ir_inst *inst) {
    ir_value *starts[IR_MAX_RANK] = {ir_const_int(&rw->b, 0)};
    int count = inst->operand_count - 2;
    for (int i = 0; i < count; i++) starts[i + 1] = operand(rw, t, inst->operands[i + 2]);
    ir_value *v = operand(rw, t, inst->operands[1]), *x = operand(rw, t, inst->operands[0]);
    return ir_update(&rw->b, x, v, starts, count + 1);
}

/* The same operation on the batched operands, its axis one further. */
static ir_value *batch_axis(ir_rewrite *rw, const batching *t, const ir_inst *inst) {
    ir_value **operands = GM_NEW_ARRAY(&rw->out->arena, ir_value *, inst->operand_count + 1);
    ir_attr attrs[IR_ATTR_COUNT];
    for (int i = 0; i < inst->operand_count; i++) operands[i] = operand(rw, t, inst->operands[i]);
    for (int i = 0; i < inst->attr_count; i++) {
        attrs[i] = inst->attrs[i];
        if (attrs[i].key == IR_ATTR_AXIS) attrs[i].i++;
    }
    ir_type type = with_extent(t, &inst->results[0]->type);
    return ir_emit1(&rw->b, inst->op, operands, inst->operand_count, attrs, inst->attr_count, &type);
}

static ir_value *batch(ir_rewrite *rw, const batching *t, const ir_inst *inst) {
    if (is_element(t, inst)) return all_elements(rw, t, inst);
    if (ir_op_of(inst->op)->class == IR_CLASS_ELEM) return batch_elem(rw, t, inst);
    if (inst->op == IR_EINSUM) return batch_einsum(rw, t, inst);
    if (inst->op == IR_TRANSPOSE) return batch_transpose(rw, t, inst);
    if (inst->op == IR_UPDATE) return batch_update(rw, t, inst);
    return batch_axis(rw, t, inst); /* reductions, reshape, slice, concat, index, window, matmul, gather */
}

/* ---- the pass ---- */

static bool batch_map(ir_rewrite *rw, const ir_inst *inst) {
    batching *t = rw->user;
    if (inst->op != IR_MAP) return false;
    const ir_region *body = inst->regions[0];
    t->variable = body->params[0];
    t->extent = ir_attr_find(inst, IR_ATTR_EXTENT)->i;
    if (!mark_body(t, body, rw->in_func->value_count)) return false;
    for (int i = 0; i < body->inst_count; i++) {
        const ir_inst *child = body->insts[i];
        if (batched_count(t, child)) ir_rewrite_map(rw, child->results[0], batch(rw, t, child));
        else ir_rewrite_clone(rw, child);
    }
    for (int i = 0; i < body->yield_count; i++) ir_rewrite_map(rw, inst->results[i], operand(rw, t, body->yields[i]));
    t->changed++;
    return true;
}

/* One round: the maps that hold no other map. Returns how many were batched. */
static int run_round(const ir_module *in, ir_module **out) {
    int changed = 0;
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        batching t = {.batched = calloc(in->funcs[i]->value_count + 1, sizeof *t.batched)};
        GM_ASSERT(t.batched);
        ir_clone_func(in, in->funcs[i], *out, in->funcs[i]->name, NULL, batch_map, &t);
        free(t.batched);
        changed += t.changed;
    }
    return changed;
}

gm_status pass_batch_attention(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    const ir_module *from = in;
    for (int changed = 1; changed; from = *out) {
        changed = run_round(from, out);
        if (from != in) ir_module_free((ir_module *)from);
    }
    return GM_OK;
}
