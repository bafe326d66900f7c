/* Regions as machine-code control flow: map, scan, while, if, call, dim.
 *
 * Every thread runs the same branches: conditions and trip counts are registers computed from memory that a barrier has
 * settled. A region starts and ends with nothing pending, so that hazards need not be followed across edges.
 */
#include "codegen/cg.h"

#include <stdlib.h>
#include <string.h>

/* A region's scalars travel in variables (which become registers), its tensors in planned memory. */
typedef struct carry {
    bool scalar;
    LLVMTypeRef type;
    LLVMValueRef variable;
    cg_slot slot;
} carry;

static void bind_param(cg *c, const ir_value *param, const carry *from) {
    cg_slot *slot = cg_slot_of(c, param);
    *slot = from->slot;
    if (from->scalar) slot->reg = LLVMBuildLoad2(c->b, from->type, from->variable, "");
}

static carry carry_scalar(cg *c, const ir_value *value, LLVMValueRef init) {
    LLVMTypeRef type = cg_reg_type(c, value->type.dtype);
    return (carry){.scalar = true, .type = type, .variable = cg_variable(c, type, init)};
}

/* The carry of result i: its own memory filled from the initial value, or the initial value's memory. */
static carry carry_open(cg *c, const ir_inst *inst, int i, const ir_value *init) {
    if (init->type.rank == 0) return carry_scalar(c, init, cg_slot_of(c, init)->reg);
    if (!cg_place_result(c, inst, i)) return (carry){.slot = *cg_slot_of(c, init)};
    cg_slot *slot = cg_slot_of(c, inst->results[i]);
    cg_emit_copy(c, &init->type, cg_slot_of(c, init), slot);
    return (carry){.slot = *slot};
}

/* The yield is this carry's memory already. */
static bool at_home(const cg_slot *yield, const carry *home, const ir_type *type) {
    bool same = yield->base == home->slot.base;
    for (int i = 0; i < type->rank; i++)
        same &= type->dim[i] == 1 || yield->layout.stride[i] == home->slot.layout.stride[i];
    return same;
}

/* Where carry i waits while others are copied; false when it need not. */
static bool waiting_slot(cg *c, const ir_inst *inst, int i, cg_slot *out) {
    const ir_attr *offset = ir_attr_find(inst, IR_ATTR_OFFSET);
    int64_t at = offset->ints[inst->result_count + i];
    if (at < 0) return false;
    const ir_type *type = &inst->results[i]->type;
    int64_t bytes = (int64_t)rt_dtype_bytes(type->dtype, (size_t)ir_type_max_elems(c->module, type));
    *out = (cg_slot){.base = cg_at(c, c->i8, c->arena_base, cg_i64(c, at)),
                     .layout = ir_layout_dense(c->module, type),
                     .extent = {CG_ARENA, at, at + bytes}};
    return true;
}

static void carry_next(cg *c, const ir_inst *inst, ir_value *const *yields, carry *carries, int count) {
    if (c->status != GM_OK) return;
    cg_slot *waiting = calloc((size_t)count + 1, sizeof *waiting);
    GM_ASSERT(waiting);
    for (int i = 0; i < count; i++) {
        if (carries[i].scalar || !waiting_slot(c, inst, i, &waiting[i])) continue;
        cg_emit_copy(c, &yields[i]->type, cg_slot_of(c, yields[i]), &waiting[i]);
    }
    for (int i = 0; i < count; i++) {
        const cg_slot *yield = waiting[i].base ? &waiting[i] : cg_slot_of(c, yields[i]);
        if (carries[i].scalar || at_home(yield, &carries[i], &yields[i]->type)) continue;
        cg_emit_copy(c, &yields[i]->type, yield, &carries[i].slot);
    }
    for (int i = 0; i < count; i++)
        if (carries[i].scalar) LLVMBuildStore(c->b, cg_slot_of(c, yields[i])->reg, carries[i].variable);
    free(waiting);
    cg_settle(c);
}

static void bind_results(cg *c, const ir_inst *inst, const carry *carries) {
    for (int i = 0; i < inst->result_count; i++) bind_param(c, inst->results[i], &carries[i]);
}

static void emit_scan(cg *c, const ir_inst *inst) {
    int count = inst->result_count;
    carry *carries = calloc((size_t)count + 1, sizeof *carries);
    const ir_region *body = inst->regions[0];
    LLVMValueRef trips = cg_widen(c, cg_slot_of(c, inst->operands[0])->reg);
    for (int i = 0; i < count; i++) carries[i] = carry_open(c, inst, i, inst->operands[i + 1]);
    cg_settle(c);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), trips, 1);
    cg_slot_of(c, body->params[0])->reg = LLVMBuildTrunc(c->b, loop.index, c->i32, "");
    for (int i = 0; i < count; i++) bind_param(c, body->params[i + 1], &carries[i]);
    cg_emit_region(c, body);
    carry_next(c, inst, body->yields, carries, count);
    cg_loop_end(c, &loop);
    bind_results(c, inst, carries);
    free(carries);
}

static void emit_while(cg *c, const ir_inst *inst) {
    int count = inst->result_count;
    carry *carries = calloc((size_t)count + 1, sizeof *carries);
    const ir_region *test = inst->regions[0], *body = inst->regions[1];
    for (int i = 0; i < count; i++) carries[i] = carry_open(c, inst, i, inst->operands[i]);
    cg_settle(c);
    LLVMBasicBlockRef head = LLVMAppendBasicBlockInContext(c->context, c->code.fn, "while");
    LLVMBasicBlockRef inside = LLVMAppendBasicBlockInContext(c->context, c->code.fn, "do");
    LLVMBasicBlockRef exit = LLVMAppendBasicBlockInContext(c->context, c->code.fn, "done");
    LLVMBuildBr(c->b, head);
    LLVMPositionBuilderAtEnd(c->b, head);
    for (int i = 0; i < count; i++) bind_param(c, test->params[i], &carries[i]);
    cg_emit_region(c, test);
    if (c->status != GM_OK) {
        free(carries);
        return;
    }
    cg_settle(c);
    LLVMBuildCondBr(c->b, cg_slot_of(c, test->yields[0])->reg, inside, exit);
    LLVMPositionBuilderAtEnd(c->b, inside);
    for (int i = 0; i < count; i++) bind_param(c, body->params[i], &carries[i]);
    cg_emit_region(c, body);
    carry_next(c, inst, body->yields, carries, count);
    LLVMBuildBr(c->b, head);
    LLVMPositionBuilderAtEnd(c->b, exit);
    bind_results(c, inst, carries);
    free(carries);
}

static void emit_arm(cg *c, const ir_inst *inst, const ir_region *arm, carry *results) {
    cg_emit_region(c, arm);
    if (c->status != GM_OK) return;
    for (int i = 0; i < inst->result_count; i++) {
        const cg_slot *yield = cg_slot_of(c, arm->yields[i]);
        if (results[i].scalar) LLVMBuildStore(c->b, yield->reg, results[i].variable);
        else cg_emit_copy(c, &inst->results[i]->type, yield, &results[i].slot);
    }
    cg_settle(c);
}

static void emit_if(cg *c, const ir_inst *inst) {
    carry *results = calloc((size_t)inst->result_count + 1, sizeof *results);
    for (int i = 0; i < inst->result_count; i++) {
        if (inst->results[i]->type.rank == 0) results[i] = carry_scalar(c, inst->results[i], NULL);
        else if (cg_place_result(c, inst, i)) results[i].slot = *cg_slot_of(c, inst->results[i]);
    }
    cg_settle(c);
    cg_branch branch = cg_if(c, cg_slot_of(c, inst->operands[0])->reg);
    emit_arm(c, inst, inst->regions[0], results);
    cg_else(c, &branch);
    emit_arm(c, inst, inst->regions[1], results);
    cg_end_if(c, &branch);
    bind_results(c, inst, results);
    free(results);
}

/* One iteration's yield into row `index` of the stacked result. */
static void stack_yield(cg *c, const ir_value *yield, const ir_value *result, LLVMValueRef index) {
    const cg_slot *from = cg_slot_of(c, yield);
    cg_slot row = *cg_slot_of(c, result);
    LLVMTypeRef type = cg_type(c, yield->type.dtype);
    row.base = cg_at(c, type, row.base, cg_mul(c, index, cg_i64(c, row.layout.stride[0])));
    memmove(row.layout.stride, row.layout.stride + 1, sizeof row.layout.stride - sizeof row.layout.stride[0]);
    if (yield->type.rank) {
        cg_emit_copy(c, &yield->type, from, &row);
        return;
    }
    const cg_slot *write = &row;
    cg_access(c, NULL, 0, &write, 1);
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    LLVMBuildStore(c->b, cg_to_memory(c, yield->type.dtype, from->reg), row.base);
    cg_end_if(c, &first);
}

static void emit_map(cg *c, const ir_inst *inst) {
    const ir_region *body = inst->regions[0];
    for (int i = 0; i < inst->result_count; i++) GM_ASSERT(cg_place_result(c, inst, i));
    cg_settle(c);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_dim(c, ir_attr_int(inst, IR_ATTR_EXTENT, 0)), 1);
    cg_slot_of(c, body->params[0])->reg = LLVMBuildTrunc(c->b, loop.index, c->i32, "");
    cg_emit_region(c, body);
    for (int i = 0; c->status == GM_OK && i < inst->result_count; i++)
        stack_yield(c, body->yields[i], inst->results[i], loop.index);
    cg_settle(c);
    cg_loop_end(c, &loop);
}

/* ---- calls ---- */

static LLVMValueRef symbol_for_call(cg *c, const ir_inst *inst, const ir_func *callee, int symbol) {
    for (int i = 0; i < inst->operand_count; i++) {
        const ir_type *param = &callee->body->params[i]->type;
        for (int d = 0; d < param->rank; d++)
            if (ir_dim_is_symbol(param->dim[d]) && ir_dim_symbol_of(param->dim[d]) == symbol)
                return cg_dim(c, inst->operands[i]->type.dim[d]);
    }
    return c->code.symbol[symbol] ? c->code.symbol[symbol] : cg_i64(c, 0);
}

static void emit_call(cg *c, const ir_inst *inst) {
    const ir_func *callee = ir_func_find(c->module, ir_attr_string(inst, IR_ATTR_CALLEE));
    const ir_attr *offset = ir_attr_find(inst, IR_ATTR_OFFSET);
    LLVMTypeRef type;
    LLVMValueRef fn = cg_function_of(c, callee, &type), args[CG_MAX_PARAMS];
    int n = 0;
    cg_settle(c);
    args[n++] = c->code.frame;
    args[n++] = c->code.thread;
    args[n++] = c->code.threads;
    args[n++] = cg_at(c, c->i8, c->arena_base, cg_i64(c, offset->ints[inst->result_count]));
    for (int i = 0; i < c->module->symbol_count; i++) args[n++] = symbol_for_call(c, inst, callee, i);
    for (int i = 0; i < inst->operand_count; i++) {
        const ir_value *operand = inst->operands[i];
        const cg_slot *slot = cg_slot_of(c, operand);
        if (operand->type.rank && !ir_layout_is_dense(c->module, &operand->type, &slot->layout)) {
            cg_unsupported(c, inst, "a strided view as an argument");
            return;
        }
        args[n++] = operand->type.rank ? slot->base : slot->reg;
    }
    carry *results = calloc((size_t)inst->result_count + 1, sizeof *results);
    for (int i = 0; i < inst->result_count; i++) {
        const ir_value *result = inst->results[i];
        int alias = callee->alias ? callee->alias[i] : -1;
        if (result->type.rank == 0) results[i] = carry_scalar(c, result, NULL);
        else if (cg_place_result(c, inst, i)) results[i].slot = *cg_slot_of(c, result);
        else results[i].slot = *cg_slot_of(c, inst->operands[alias]);
        args[n++] = results[i].scalar ? results[i].variable : results[i].slot.base;
    }
    LLVMBuildCall2(c->b, type, fn, args, (unsigned)n, "");
    bind_results(c, inst, results);
    free(results);
}

static void emit_dim(cg *c, const ir_inst *inst) {
    int symbol = ir_symbol_find(c->module, ir_attr_string(inst, IR_ATTR_SYMBOL));
    c->code.symbol[symbol] = cg_widen(c, cg_slot_of(c, inst->operands[0])->reg);
}

void cg_emit_control(cg *c, const ir_inst *inst) {
    switch (inst->op) {
    case IR_MAP: emit_map(c, inst); return;
    case IR_SCAN: emit_scan(c, inst); return;
    case IR_WHILE: emit_while(c, inst); return;
    case IR_IF: emit_if(c, inst); return;
    case IR_CALL: emit_call(c, inst); return;
    case IR_DIM: emit_dim(c, inst); return;
    default: GM_UNREACHABLE("not a control op");
    }
}
