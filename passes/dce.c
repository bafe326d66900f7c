/* dce: drop what nobody uses.
 *
 *   %y = exp %x                                        (gone when %y is unused)
 *   %a, %b = scan %n, %x, %y (…) { … yield %p, %q }    ->  %a = scan %n, %x (…) { … yield %p }
 *
 * The second line when %b is unused and nothing that is kept inside the loop reads its carry. Results of map, if and
 * fuse (with the operands of fuse that only they needed) go the same way.
 *
 * Kept whatever their uses: EFFECT operations, dim, instructions that contain one, and calls of functions that reach an
 * EFFECT. An effect may end the uses of nothing, so a loop without a result stays when it emits. Functions stay: the
 * host may call any of them. Bit-exact.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

typedef struct liveness {
    const ir_module *module;
    bool *live; /* by value id */
} liveness;

/* ---- what must stay ---- */

static bool region_reaches_effect(const ir_module *module, const ir_region *region);

static bool must_stay(const ir_module *module, const ir_inst *inst) {
    if (ir_has_effect(inst)) return true;
    if (inst->op == IR_CALL) {
        const ir_func *callee = ir_func_find(module, ir_attr_string(inst, IR_ATTR_CALLEE));
        return region_reaches_effect(module, callee->body);
    }
    for (int i = 0; i < inst->region_count; i++)
        if (region_reaches_effect(module, inst->regions[i])) return true;
    return false;
}

/* A dim ends with its function, so it does not count here. */
static bool region_reaches_effect(const ir_module *module, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        if (inst->op != IR_DIM && inst->region_count == 0 && must_stay(module, inst)) return true;
        for (int j = 0; j < inst->region_count; j++)
            if (region_reaches_effect(module, inst->regions[j])) return true;
    }
    return false;
}

/* ---- marking, backwards ---- */

static void mark_region(liveness *l, const ir_region *region);

static bool any_live(const liveness *l, ir_value *const *values, int count) {
    for (int i = 0; i < count; i++)
        if (l->live[values[i]->id]) return true;
    return false;
}

static bool is_live(const liveness *l, const ir_inst *inst) {
    return any_live(l, inst->results, inst->result_count) || must_stay(l->module, inst);
}

static int first_carry(const ir_inst *inst) {
    return inst->op == IR_SCAN ? 1 : 0;
}

/* A carry lives when its result does or when any region reads it; reading one may need another, so to a fixed point.
 * The results' own marks say which carries are kept. */
static void mark_loop(liveness *l, const ir_inst *inst) {
    int first = first_carry(inst);
    const ir_region *body = inst->regions[inst->region_count - 1];
    for (bool more = true; more;) {
        more = false;
        for (int k = 0; k < inst->result_count; k++)
            if (l->live[inst->results[k]->id]) l->live[body->yields[k]->id] = true;
        if (inst->op == IR_WHILE) l->live[inst->regions[0]->yields[0]->id] = true;
        for (int r = 0; r < inst->region_count; r++) mark_region(l, inst->regions[r]);
        for (int k = 0; k < inst->result_count; k++) {
            bool read = false;
            for (int r = 0; r < inst->region_count; r++) read |= l->live[inst->regions[r]->params[first + k]->id];
            if (!read || l->live[inst->results[k]->id]) continue;
            l->live[inst->results[k]->id] = more = true;
        }
    }
    if (first) l->live[inst->operands[0]->id] = true;
    for (int k = 0; k < inst->result_count; k++)
        if (l->live[inst->results[k]->id]) l->live[inst->operands[first + k]->id] = true;
}

/* map, if, fuse: the yields of the results that live. */
static void mark_body(liveness *l, const ir_inst *inst) {
    for (int r = 0; r < inst->region_count; r++) {
        const ir_region *region = inst->regions[r];
        for (int k = 0; k < inst->result_count; k++)
            if (l->live[inst->results[k]->id]) l->live[region->yields[k]->id] = true;
        mark_region(l, region);
    }
    for (int i = 0; i < inst->operand_count; i++)
        if (inst->op != IR_FUSE || l->live[inst->regions[0]->params[i]->id]) l->live[inst->operands[i]->id] = true;
}

static void mark_region(liveness *l, const ir_region *region) {
    for (int i = region->inst_count; i-- > 0;) {
        const ir_inst *inst = region->insts[i];
        if (!is_live(l, inst)) continue;
        if (inst->op == IR_SCAN || inst->op == IR_WHILE) mark_loop(l, inst);
        else mark_body(l, inst);
    }
}

/* ---- rebuilding ---- */

/* A copy of `from` with the parameters keep[] says (from `first` on; those before stay) and the yields of live
 * results. */
static ir_region *copy_region(ir_rewrite *rw, const ir_region *from, int first, const bool *keep,
                              const bool *keep_yield) {
    ir_builder *b = &rw->b;
    ir_region *to = ir_region_new(b), *outer = b->region;
    b->region = to;
    for (int i = 0; i < from->param_count; i++) {
        const ir_value *old = from->params[i];
        if (i < first || keep[i - first]) ir_rewrite_map(rw, old, ir_param(b, to, old->type, old->hint));
    }
    ir_rewrite_region_into(rw, from);
    ir_value **yields = GM_NEW_ARRAY(&rw->out->arena, ir_value *, from->yield_count + 1);
    int count = 0;
    for (int i = 0; i < from->yield_count; i++)
        if (!keep_yield || keep_yield[i]) yields[count++] = ir_rewrite_get(rw, from->yields[i]);
    ir_yield(b, yields, count);
    b->region = outer;
    return to;
}

/* Which results of the instruction stay; false when all do. */
static bool find_kept(const liveness *l, const ir_inst *inst, bool *keep) {
    bool dropped = false;
    for (int k = 0; k < inst->result_count; k++) {
        keep[k] = l->live[inst->results[k]->id];
        dropped |= !keep[k];
    }
    return dropped;
}

/* Which operands go: a dead carry's start value, a dead fuse parameter. */
static bool operand_stays(const liveness *l, const ir_inst *inst, const bool *keep, int i) {
    if (inst->op == IR_FUSE) return l->live[inst->regions[0]->params[i]->id];
    if (inst->op != IR_SCAN && inst->op != IR_WHILE) return true;
    return i < first_carry(inst) || keep[i - first_carry(inst)];
}

static void rebuild(ir_rewrite *rw, const liveness *l, const ir_inst *inst, const bool *keep) {
    gm_arena *arena = &rw->out->arena;
    ir_value **operands = GM_NEW_ARRAY(arena, ir_value *, inst->operand_count + 1);
    ir_type *types = GM_NEW_ARRAY(arena, ir_type, inst->result_count + 1);
    bool *keep_params = GM_NEW_ARRAY(arena, bool, inst->operand_count + inst->result_count + 1);
    int operand_count = 0, result_count = 0, first = 0;
    for (int i = 0; i < inst->operand_count; i++) {
        bool stays = operand_stays(l, inst, keep, i);
        if (stays) operands[operand_count++] = ir_rewrite_get(rw, inst->operands[i]);
        if (inst->op == IR_FUSE) keep_params[i] = stays;
    }
    if (inst->op != IR_FUSE) memcpy(keep_params, keep, sizeof *keep * (size_t)inst->result_count);
    if (inst->op == IR_SCAN || inst->op == IR_MAP) first = 1;
    ir_region *regions[2];
    for (int r = 0; r < inst->region_count; r++) {
        bool test = inst->op == IR_WHILE && r == 0;
        regions[r] = copy_region(rw, inst->regions[r], first, keep_params, test ? NULL : keep);
    }
    for (int k = 0; k < inst->result_count; k++)
        if (keep[k]) types[result_count++] = inst->results[k]->type;
    ir_inst *copy = ir_emit(&rw->b, inst->op, operands, operand_count, inst->attrs, inst->attr_count, regions,
                            inst->region_count, types, result_count);
    for (int k = 0, at = 0; k < inst->result_count; k++)
        if (keep[k]) ir_rewrite_map(rw, inst->results[k], copy->results[at++]);
}

static bool drop_dead(ir_rewrite *rw, const ir_inst *inst) {
    const liveness *l = rw->user;
    if (!is_live(l, inst)) return true;
    if (inst->region_count == 0) return false;
    bool *keep = GM_NEW_ARRAY(&rw->out->arena, bool, inst->result_count + 1);
    bool dropped = find_kept(l, inst, keep);
    for (int i = 0; inst->op == IR_FUSE && i < inst->operand_count; i++)
        dropped |= !l->live[inst->regions[0]->params[i]->id];
    if (!dropped) return false;
    rebuild(rw, l, inst, keep);
    return true;
}

gm_status pass_dce(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        const ir_func *func = in->funcs[i];
        liveness l = {in, calloc(func->value_count + 1, sizeof *l.live)};
        GM_ASSERT(l.live);
        for (int k = 0; k < func->body->yield_count; k++) l.live[func->body->yields[k]->id] = true;
        mark_region(&l, func->body);
        ir_clone_func(in, func, *out, func->name, NULL, drop_dead, &l);
        free(l.live);
    }
    return GM_OK;
}

gm_status pass_sweep(bool found, const pass_options *options, ir_module *made, gm_diag *diag, ir_module **out) {
    *out = made;
    if (!found) return GM_OK;
    gm_status status = pass_dce(options, made, diag, out);
    ir_module_free(made);
    return status;
}
