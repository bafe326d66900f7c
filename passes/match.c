/* How values are made: see match.h. */
#include "passes/match.h"

const ir_inst *match_made_by(const ir_value *x, ir_op op) {
    return x->def && x->def->op == op ? x->def : NULL;
}

const ir_value *match_beside(const ir_value *x, ir_op op, const ir_value *other) {
    const ir_inst *inst = match_made_by(x, op);
    for (int i = 0; inst && i < 2; i++)
        if (inst->operands[i] == other) return inst->operands[1 - i];
    return NULL;
}

const ir_value *match_half(const ir_value *x, int which) {
    const ir_inst *slice = match_made_by(x, IR_SLICE);
    const ir_value *from = slice ? slice->operands[0] : NULL;
    int last = x->type.rank - 1;
    if (!from || ir_attr_int(slice, IR_ATTR_AXIS, 0) != last || from->type.dim[last] != 2 * x->type.dim[last])
        return NULL;
    return ir_attr_int(slice, IR_ATTR_START, 0) == which * x->type.dim[last] ? from : NULL;
}

bool match_number(const ir_value *x, double *number) {
    const ir_inst *inst = match_made_by(x, IR_CONST);
    const ir_attr *value = inst && x->type.dtype == RT_F32 ? ir_attr_find(inst, IR_ATTR_VALUE) : NULL;
    if (value) *number = value->f;
    return value != NULL;
}

bool match_index(const ir_value *x, int64_t *number) {
    const ir_inst *inst = match_made_by(x, IR_CONST);
    const ir_attr *value =
        inst && x->type.rank == 0 && x->type.dtype == RT_I32 ? ir_attr_find(inst, IR_ATTR_VALUE) : NULL;
    if (value) *number = value->i;
    return value != NULL;
}
