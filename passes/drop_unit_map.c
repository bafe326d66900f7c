/* drop_unit_map: a map over one element is its body.
 *
 *   %y = map {extent = 1} (%i: i32) { … yield %a }   ->   %i = const {value = 0} ; … ; %y = reshape %a : [1, …]
 *
 * Legal for every body that does not rename a dimension: a `dim` in it would reach beyond the map, so such a map stays.
 * Only the number 1 counts as one element, not a symbol that may be 1. Bit-exact.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

static bool names_dimension(const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++)
        if (region->insts[i]->op == IR_DIM) return true;
    return false;
}

static bool drop(ir_rewrite *rw, const ir_inst *inst) {
    if (inst->op != IR_MAP || ir_attr_int(inst, IR_ATTR_EXTENT, 0) != 1 || names_dimension(inst->regions[0]))
        return false;
    const ir_region *body = inst->regions[0];
    ir_value *zero = ir_const_int(&rw->b, 0);
    ir_rewrite_map(rw, body->params[0], zero);
    zero->hint = NULL; /* it may soon stand for other zeros too */
    ir_rewrite_region_into(rw, body);
    for (int i = 0; i < body->yield_count; i++) {
        const ir_type *type = &inst->results[i]->type;
        ir_value *element = ir_rewrite_get(rw, body->yields[i]);
        ir_rewrite_map(rw, inst->results[i], ir_reshape(&rw->b, element, type->rank, type->dim));
    }
    return true;
}

gm_status pass_drop_unit_map(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_rewrite_module(in, drop, NULL);
    return GM_OK;
}
