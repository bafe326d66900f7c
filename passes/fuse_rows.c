/* fuse_rows: chains of element-wise operations, row reductions and rotations become one loop nest.
 *
 *   %s = mul %x, %x                                %y = fuse %x, %w (%a, %b) {
 *   %t = reduce_sum %s {axis = last}        ->       %s = mul %a, %a ; %t = reduce_sum %s
 *   %r = rsqrt %t ; %n = mul %x, %r                  %r = rsqrt %t ; %n = mul %a, %r
 *   %v = convert %w ; %y = mul %n, %v                %v = convert %b ; %y = mul %n, %v ; yield %y }
 *
 * A group has one row space [d0, …, N], to which the shapes of its members broadcast. A member is
 *   - a whole row [d0, …, N] or one number per row [d0, …, 1];
 *   - a reduction of whole rows along the last axis, a whole row with its halves swapped, or a rotated row;
 *   - a smaller value ([N] under [T, N]) that is cheap and read only within the group: it is recomputed in every row.
 * A reduction and a swap recompute their operand, so neither joins a group where the operand depends on exp, tanh or
 * the like. A rotation computes its operand once and stores the rotated row; it may join such a group, unless the
 * costly value has another reader too, which would compute it a second time.
 *
 * Operations are taken in order. One joins an open group that it reads, else one of its own row space, else it begins a
 * group. If it reads further open groups, one of them is merged in where the rules allow; the others are closed. So no
 * open group reads another. The nest stands where the last member stood: what lies between members and does not read
 * them comes before it. An operation that reads a member without joining closes the group. Regions, calls, effects, dim
 * and update close all groups: nothing moves past them.
 *
 * Rank-0 values stay outside, in registers. Constants of one value, and iotas with the extent of the space along their
 * axis, are copied into the body; everything else from outside is an operand. A group of one stays as it is. Bit-exact:
 * the same operations on the same numbers (compiled reductions sum in an order of their own, with or without a group).
 * Ends with dce, for constants and iotas that only groups read.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

/* Limits of a group, below those of a compiled loop nest (MAX_INPUTS and MAX_OUTPUTS of codegen/rows.c). */
enum { MAX_MEMBERS = 64, MAX_OPERANDS = 24, MAX_RESULTS = 12, NO_GROUP = -1 };

typedef struct row_group {
    const ir_inst *members[MAX_MEMBERS]; /* in order */
    int count;
    ir_type space; /* only the extents count */
    bool open;
} row_group;

typedef struct grouping {
    const uint32_t *uses; /* by value id */
    row_group *groups;
    int count, capacity;
    int *group_of; /* by value id */
} grouping;

/* ---- shapes ---- */

/* Extent of axis `i` of `space` in a type aligned to it. */
static ir_dim aligned_dim(const ir_type *type, const ir_type *space, int i) {
    int at = i - (space->rank - type->rank);
    return at < 0 ? 1 : type->dim[at];
}

static bool broadcasts_to(const ir_type *type, const ir_type *space) {
    for (int i = 0; i < type->rank - space->rank; i++)
        if (type->dim[i] != 1) return false;
    for (int i = 0; i < space->rank; i++) {
        ir_dim dim = aligned_dim(type, space, i);
        if (dim != 1 && dim != space->dim[i]) return false;
    }
    return true;
}

/* Every row of the space once. */
static bool has_all_rows(const ir_type *type, const ir_type *space) {
    for (int i = 0; i + 1 < space->rank; i++)
        if (aligned_dim(type, space, i) != space->dim[i]) return false;
    return broadcasts_to(type, space);
}

static bool same_space(const ir_type *a, const ir_type *b) {
    return a->rank && b->rank && broadcasts_to(a, b) && broadcasts_to(b, a);
}

/* ---- candidates ---- */

static bool is_reduce(const ir_inst *inst) {
    return inst->op == IR_REDUCE_SUM || inst->op == IR_REDUCE_MAX;
}

static bool is_candidate(const ir_inst *inst) {
    if (is_reduce(inst)) return ir_attr_int(inst, IR_ATTR_AXIS, 0) == inst->operands[0]->type.rank - 1;
    bool moves = inst->op == IR_SWAP_HALVES || inst->op == IR_ROTATE;
    return moves || (ir_op_of(inst->op)->class == IR_CLASS_ELEM && inst->results[0]->type.rank > 0);
}

static bool is_costly(ir_op op) {
    switch (op) {
    case IR_EXP:
    case IR_LOG:
    case IR_TANH:
    case IR_ERF:
    case IR_SIN:
    case IR_COS: return true;
    default: return false;
    }
}

/* The space of the loop nest that the instruction alone would be. */
static const ir_type *own_space(const ir_inst *inst) {
    return is_reduce(inst) ? &inst->operands[0]->type : &inst->results[0]->type;
}

/* Nothing may move past it. */
static bool is_fence(const ir_inst *inst) {
    ir_class class = ir_op_of(inst->op)->class;
    return class == IR_CLASS_CONTROL || class == IR_CLASS_EFFECT || inst->op == IR_UPDATE;
}

/* Copied into the bodies that read it. */
static bool is_copied(const ir_value *value, const ir_type *space) {
    if (!value->def || (value->def->op != IR_CONST && value->def->op != IR_IOTA)) return false;
    if (value->def->op == IR_CONST) return ir_attr_find(value->def, IR_ATTR_VALUE) != NULL;
    int axis = (int)ir_attr_int(value->def, IR_ATTR_AXIS, 0), at = axis + space->rank - value->type.rank;
    return at >= 0 && value->type.dim[axis] == space->dim[at];
}

/* ---- groups ---- */

static bool is_member(const grouping *g, const ir_value *value, int at) {
    return at != NO_GROUP && g->group_of[value->id] == at;
}

/* How many distinct values the instructions read that neither groups `at` and `other` make nor the body copies; counts
 * no further than MAX_OPERANDS + 1. */
static int count_operands(const grouping *g, const ir_inst *const *insts, int count, int at, int other,
                          const ir_type *space) {
    const ir_value *seen[MAX_OPERANDS + 1];
    int seen_count = 0;
    for (int i = 0; i < count; i++)
        for (int k = 0; k < insts[i]->operand_count; k++) {
            const ir_value *x = insts[i]->operands[k];
            bool known = is_member(g, x, at) || is_member(g, x, other) || is_copied(x, space);
            for (int s = 0; s < seen_count && !known; s++) known = seen[s] == x;
            if (!known && seen_count <= MAX_OPERANDS) seen[seen_count++] = x;
        }
    return seen_count;
}

static uint32_t uses_by(const ir_value *value, const ir_inst *const *insts, int count) {
    uint32_t uses = 0;
    for (int i = 0; i < count; i++)
        for (int k = 0; k < insts[i]->operand_count; k++) uses += insts[i]->operands[k] == value;
    return uses;
}

/* How many of the instructions' results have readers other than these instructions. */
static int count_results(const grouping *g, const ir_inst *const *insts, int count) {
    int results = 0;
    for (int i = 0; i < count; i++) {
        const ir_value *value = insts[i]->results[0];
        results += uses_by(value, insts, count) != g->uses[value->id];
    }
    return results;
}

/* needed[i]: insts[i] is insts[rotation], or its operand is recomputed from insts[i]. Other rotations are not, nor what
 * only they are made from: their rows are stored. */
static void mark_needed(const ir_inst *const *insts, int rotation, bool *needed) {
    for (int i = rotation; i >= 0; i--) {
        needed[i] = i == rotation;
        for (int j = i + 1; j <= rotation && !needed[i] && insts[i]->op != IR_ROTATE; j++)
            for (int k = 0; k < insts[j]->operand_count; k++)
                needed[i] |= needed[j] && insts[j]->operands[k] == insts[i]->results[0];
    }
}

/* Is costly work for the operand of insts[rotation] done again for something else? */
static bool rotates_costly(const grouping *g, const ir_inst *const *insts, const bool *costly, int rotation) {
    bool needed[MAX_MEMBERS];
    mark_needed(insts, rotation, needed);
    for (int i = 0; i < rotation; i++) {
        uint32_t uses = 0;
        if (!needed[i] || !costly[i]) continue;
        for (int j = i + 1; j <= rotation; j++) uses += needed[j] ? uses_by(insts[i]->results[0], insts + j, 1) : 0;
        if (uses != g->uses[insts[i]->results[0]->id]) return true;
    }
    return false;
}

/* Would costly work be done twice: by a reduction or a swap, which recompute their operand, or by a rotation, if the
 * costly value has another reader too? Readers of a rotated row load it from memory. */
static bool repeats_costly(const grouping *g, const ir_inst *const *insts, int count) {
    bool costly[MAX_MEMBERS];
    for (int i = 0; i < count; i++) {
        costly[i] = is_costly(insts[i]->op);
        for (int j = 0; j < i && !costly[i] && insts[i]->op != IR_ROTATE; j++)
            for (int k = 0; k < insts[i]->operand_count; k++)
                costly[i] |= costly[j] && insts[i]->operands[k] == insts[j]->results[0];
        if ((is_reduce(insts[i]) || insts[i]->op == IR_SWAP_HALVES) && costly[i]) return true;
        if (insts[i]->op == IR_ROTATE && rotates_costly(g, insts, costly, i)) return true;
    }
    return false;
}

/* Is every member either there in all rows of the space, or cheap and read only within? Are reductions and rotations
 * still of whole rows? */
static bool fits(const grouping *g, const ir_inst *const *insts, int count, const ir_type *space) {
    for (int i = 0; i < count; i++) {
        const ir_value *value = insts[i]->results[0];
        if (!broadcasts_to(own_space(insts[i]), space)) return false;
        bool whole = is_reduce(insts[i]) || insts[i]->op == IR_ROTATE;
        if (whole && !same_space(own_space(insts[i]), space)) return false;
        if (has_all_rows(&value->type, space)) continue;
        if (is_costly(insts[i]->op) || uses_by(value, insts, count) != g->uses[value->id]) return false;
    }
    return !repeats_costly(g, insts, count);
}

/* The members of two groups (either may be NO_GROUP) and inst, in order; 0: too many. */
static int gather_members(const grouping *g, int a, int b, const ir_inst *inst, const ir_inst **out) {
    int count_a = a == NO_GROUP ? 0 : g->groups[a].count, count_b = b == NO_GROUP ? 0 : g->groups[b].count;
    if (count_a + count_b + 1 > MAX_MEMBERS) return 0;
    int i = 0, j = 0, count = 0;
    while (i < count_a || j < count_b) {
        const ir_inst *x = i < count_a ? g->groups[a].members[i] : NULL,
                      *y = j < count_b ? g->groups[b].members[j] : NULL;
        bool first = !y || (x && x->results[0]->id < y->results[0]->id); /* ids ascend in a region */
        out[count++] = first ? x : y;
        if (first) i++;
        else j++;
    }
    out[count++] = inst;
    return count;
}

static const ir_type *larger(const ir_type *a, const ir_type *b) {
    return broadcasts_to(a, b) ? b : a;
}

/* Could groups a and b (NO_GROUP: only a) and inst be one nest? */
static bool may_join(const grouping *g, int a, int b, const ir_inst *inst, ir_type *out_space) {
    const ir_inst *members[MAX_MEMBERS];
    int count = gather_members(g, a, b, inst, members);
    const ir_type *space = larger(&g->groups[a].space, own_space(inst));
    if (b != NO_GROUP) space = larger(space, &g->groups[b].space);
    *out_space = *space;
    return count && fits(g, members, count, space) && count_results(g, members, count) <= MAX_RESULTS &&
           count_operands(g, members, count, a, b, space) <= MAX_OPERANDS;
}

static int new_group(grouping *g, const ir_inst *inst) {
    if (g->count == g->capacity) {
        g->capacity = g->capacity ? 2 * g->capacity : 64;
        g->groups = realloc(g->groups, sizeof *g->groups * (size_t)g->capacity);
        GM_ASSERT(g->groups);
    }
    g->groups[g->count] = (row_group){.members = {inst}, .count = 1, .space = *own_space(inst), .open = true};
    g->group_of[inst->results[0]->id] = g->count;
    return g->count++;
}

static void join(grouping *g, int a, int b, const ir_inst *inst, const ir_type *space) {
    const ir_inst *members[MAX_MEMBERS];
    int count = gather_members(g, a, b, inst, members);
    memcpy(g->groups[a].members, members, sizeof *members * (size_t)count);
    g->groups[a].count = count;
    g->groups[a].space = *space;
    for (int i = 0; i < count; i++) g->group_of[members[i]->results[0]->id] = a;
    if (b != NO_GROUP) g->groups[b].open = false, g->groups[b].count = 0;
}

/* ---- finding groups ---- */

static bool reads(const grouping *g, const ir_inst *inst, int at) {
    for (int i = 0; i < inst->operand_count; i++)
        if (is_member(g, inst->operands[i], at)) return true;
    return false;
}

static void close_read(grouping *g, const ir_inst *inst, int first, bool all) {
    for (int at = first; at < g->count; at++)
        if (all || reads(g, inst, at)) g->groups[at].open = false;
}

/* The open group to join: one that inst reads (the largest space), else one of its space. */
static int choose_group(const grouping *g, const ir_inst *inst, int first) {
    int best = NO_GROUP;
    ir_type space;
    for (int at = first; at < g->count; at++) {
        if (!g->groups[at].open || !reads(g, inst, at) || !may_join(g, at, NO_GROUP, inst, &space)) continue;
        if (best == NO_GROUP || broadcasts_to(&g->groups[best].space, &g->groups[at].space)) best = at;
    }
    for (int at = first; at < g->count && best == NO_GROUP; at++)
        if (g->groups[at].open && same_space(&g->groups[at].space, own_space(inst)) &&
            may_join(g, at, NO_GROUP, inst, &space))
            best = at;
    return best;
}

/* inst joins `at`, with one more open group that it reads where that is possible; the others are closed. */
static void add_to(grouping *g, int at, const ir_inst *inst, int first) {
    int other = NO_GROUP;
    ir_type space;
    for (int i = first; i < g->count && other == NO_GROUP; i++)
        if (i != at && g->groups[i].open && reads(g, inst, i) && may_join(g, at, i, inst, &space)) other = i;
    for (int i = first; i < g->count; i++)
        if (i != at && i != other && reads(g, inst, i)) g->groups[i].open = false;
    GM_ASSERT(may_join(g, at, other, inst, &space));
    join(g, at, other, inst, &space);
}

static void group_region(grouping *g, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++)
        for (int r = 0; region->insts[i]->op != IR_FUSE && r < region->insts[i]->region_count; r++)
            group_region(g, region->insts[i]->regions[r]);
    int first = g->count;
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        if (!is_candidate(inst)) {
            close_read(g, inst, first, is_fence(inst));
            continue;
        }
        int at = choose_group(g, inst, first);
        if (at != NO_GROUP) {
            add_to(g, at, inst, first);
            continue;
        }
        close_read(g, inst, first, false);
        new_group(g, inst);
    }
}

/* ---- building ---- */

typedef struct fusing {
    ir_rewrite *rw;
    const row_group *group;
    ir_region *body;
    const ir_value *operands[MAX_OPERANDS]; /* old values */
    ir_value *outside[MAX_OPERANDS];        /* what they are now */
    const ir_value *copied[4 * MAX_MEMBERS];
    ir_value *copied_outside[4 * MAX_MEMBERS];
    int operand_count, copied_count;
} fusing;

static bool made_inside(const row_group *group, const ir_value *value) {
    for (int i = 0; i < group->count; i++)
        if (group->members[i]->results[0] == value) return true;
    return false;
}

static bool already_in(const fusing *f, const ir_value *value) {
    for (int i = 0; i < f->operand_count; i++)
        if (f->operands[i] == value) return true;
    for (int i = 0; i < f->copied_count; i++)
        if (f->copied[i] == value) return true;
    return false;
}

/* Make the operands of a member visible in the body. */
static void bring_in(fusing *f, const ir_inst *member) {
    ir_rewrite *rw = f->rw;
    for (int i = 0; i < member->operand_count; i++) {
        const ir_value *x = member->operands[i];
        if (made_inside(f->group, x) || already_in(f, x)) continue;
        ir_value *outside = ir_rewrite_get(rw, x);
        if (is_copied(x, &f->group->space)) {
            f->copied[f->copied_count] = x;
            f->copied_outside[f->copied_count++] = outside;
            ir_rewrite_clone(rw, x->def);
            continue;
        }
        GM_ASSERT(f->operand_count < MAX_OPERANDS);
        f->operands[f->operand_count] = x;
        f->outside[f->operand_count++] = outside;
        rw->map[x->id] = ir_param(&rw->b, f->body, x->type, NULL);
    }
}

static void emit_group(ir_rewrite *rw, const row_group *group) {
    fusing f = {.rw = rw, .group = group, .body = ir_region_new(&rw->b)};
    ir_region *outer = rw->b.region;
    const ir_inst *const *members = group->members;
    const ir_value *leaving[MAX_MEMBERS];
    ir_value *yields[MAX_MEMBERS];
    int count = 0;
    rw->b.region = f.body;
    for (int i = 0; i < group->count; i++) {
        bring_in(&f, members[i]);
        ir_rewrite_clone(rw, members[i]);
    }
    for (int i = 0; i < group->count; i++) {
        const ir_value *value = members[i]->results[0];
        if (uses_by(value, members, group->count) == rw->uses[value->id]) continue;
        leaving[count] = value;
        yields[count++] = ir_rewrite_get(rw, value);
    }
    ir_yield(&rw->b, yields, count);
    rw->b.region = outer;
    for (int i = 0; i < f.operand_count; i++) rw->map[f.operands[i]->id] = f.outside[i];
    for (int i = 0; i < f.copied_count; i++) rw->map[f.copied[i]->id] = f.copied_outside[i];
    for (int i = 0; i < group->count; i++) rw->map[members[i]->results[0]->id] = NULL;
    ir_inst *fuse = ir_emit(&rw->b, IR_FUSE, f.outside, f.operand_count, NULL, 0, &f.body, 1, NULL, count);
    for (int i = 0; i < count; i++) {
        ir_rewrite_map(rw, leaving[i], fuse->results[i]);
        yields[i]->hint = NULL; /* the name goes with the result */
    }
}

static bool fuse(ir_rewrite *rw, const ir_inst *inst) {
    const grouping *g = rw->user;
    if (inst->result_count != 1 || g->group_of[inst->results[0]->id] == NO_GROUP) return false;
    const row_group *group = &g->groups[g->group_of[inst->results[0]->id]];
    if (group->count < 2) return false;
    if (group->members[group->count - 1] == inst) emit_group(rw, group);
    return true;
}

static bool fuse_func(const ir_module *in, const ir_func *func, ir_module *out) {
    uint32_t *uses = ir_count_uses(func);
    grouping g = {.uses = uses, .group_of = malloc(sizeof *g.group_of * (func->value_count + 1))};
    GM_ASSERT(g.group_of);
    for (uint32_t i = 0; i < func->value_count; i++) g.group_of[i] = NO_GROUP;
    group_region(&g, func->body);
    ir_clone_func(in, func, out, func->name, NULL, fuse, &g);
    bool found = false;
    for (int i = 0; i < g.count; i++) found |= g.groups[i].count > 1;
    free(g.groups);
    free(g.group_of);
    free(uses);
    return found;
}

gm_status pass_fuse_rows(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    bool found = false;
    ir_module *fused = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) found |= fuse_func(in, in->funcs[i], fused);
    return pass_sweep(found, options, fused, diag, out);
}
