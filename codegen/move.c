/* Sources, views and movement: what gives a value its slot without arithmetic. */
#include "codegen/cg.h"

#include <stdlib.h>
#include <string.h>

/* ---- sources ---- */

LLVMValueRef cg_const_element(cg *c, rt_dtype dtype, const ir_attr *attr) {
    if (dtype == RT_F32) return LLVMConstReal(c->f32, attr->f);
    if (dtype == RT_BF16) return LLVMConstInt(c->i16, rt_f32_to_bf16((float)attr->f), 0);
    if (dtype == RT_F16) return LLVMConstInt(c->i16, rt_f32_to_f16((float)attr->f), 0);
    return LLVMConstInt(cg_type(c, dtype), (unsigned long long)attr->i, 1);
}

static LLVMValueRef const_global(cg *c, LLVMValueRef value) {
    LLVMValueRef global = LLVMAddGlobal(c->llvm, LLVMTypeOf(value), "const");
    LLVMSetInitializer(global, value);
    LLVMSetGlobalConstant(global, 1);
    LLVMSetLinkage(global, LLVMInternalLinkage);
    LLVMSetAlignment(global, 64);
    return global;
}

/* Of a list of values; those of integers were found to be whole (ir/infer.c). */
static ir_attr element_of(rt_dtype dtype, double value) {
    bool fraction = rt_dtype_of(dtype)->class == RT_CLASS_FLOAT;
    return fraction ? (ir_attr){.f = value} : (ir_attr){.f = value, .i = (int64_t)value};
}

static LLVMValueRef const_list(cg *c, rt_dtype dtype, const ir_attr *list) {
    LLVMValueRef *elements = calloc(list->n + 1, sizeof *elements);
    GM_ASSERT(elements);
    for (size_t i = 0; i < list->n; i++) {
        ir_attr element = element_of(dtype, list->floats[i]);
        elements[i] = cg_const_element(c, dtype, &element);
    }
    LLVMValueRef array = LLVMConstArray2(cg_type(c, dtype), elements, list->n);
    free(elements);
    return array;
}

/* A splat is one stored element with strides of 0. */
static void emit_const(cg *c, const ir_inst *inst) {
    const ir_type *type = &inst->results[0]->type;
    const ir_attr *list = ir_attr_find(inst, IR_ATTR_VALUES), *value = ir_attr_find(inst, IR_ATTR_VALUE);
    cg_slot *slot = cg_slot_of(c, inst->results[0]);
    *slot = (cg_slot){.extent = {.object = CG_UNTRACKED}};
    if (type->rank == 0) {
        ir_attr first = list ? element_of(type->dtype, list->floats[0]) : (ir_attr){0};
        LLVMValueRef element = cg_const_element(c, type->dtype, list ? &first : value);
        slot->reg =
            type->dtype == RT_BOOL ? LLVMConstInt(c->i1, (unsigned long long)(list ? first.i : value->i), 0) : element;
        return;
    }
    if (list) slot->layout = ir_layout_dense(c->module, type);
    slot->base = const_global(c, list ? const_list(c, type->dtype, list) : cg_const_element(c, type->dtype, value));
}

int cg_weight_number(cg_program *program, const char *name) {
    for (int i = 0; i < program->weight_count; i++)
        if (strcmp(program->weight_names[i], name) == 0) return i;
    GM_ASSERT(program->weight_count < CG_MAX_WEIGHTS);
    program->weight_names[program->weight_count] = strdup(name);
    return program->weight_count++;
}

/* Which entry of the program's table; of a layer's weight looked up in a list of them. */
static LLVMValueRef weight_number(cg *c, const ir_inst *inst) {
    int64_t count = ir_stored_count(inst);
    char text[IR_NAME_BYTES];
    LLVMValueRef *numbers = calloc((size_t)count, sizeof *numbers);
    GM_ASSERT(numbers);
    for (int64_t i = 0; i < count; i++)
        numbers[i] = cg_i64(c, cg_weight_number(c->program, ir_stored_name(inst, i, text)));
    LLVMValueRef number = numbers[0];
    if (inst->op == IR_LAYER_WEIGHT) {
        LLVMValueRef list = const_global(c, LLVMConstArray2(c->i64, numbers, (uint64_t)count));
        number = LLVMBuildLoad2(c->b, c->i64,
                                cg_at(c, c->i64, list, cg_widen(c, cg_slot_of(c, inst->operands[0])->reg)), "");
    }
    free(numbers);
    return number;
}

static void emit_weight(cg *c, const ir_inst *inst) {
    LLVMValueRef table = cg_frame_field(c, offsetof(rt_frame, weights), c->ptr);
    LLVMValueRef base = LLVMBuildLoad2(c->b, c->ptr, cg_at(c, c->ptr, table, weight_number(c, inst)), "");
    *cg_slot_of(c, inst->results[0]) = (cg_slot){.base = base,
                                                 .layout = ir_layout_dense(c->module, &inst->results[0]->type),
                                                 .extent = {.object = CG_UNTRACKED}};
}

void cg_emit_source(cg *c, const ir_inst *inst) {
    if (inst->op == IR_CONST) emit_const(c, inst);
    else if (ir_stored_count(inst)) emit_weight(c, inst);
    else {
        GM_ASSERT(cg_place_result(c, inst, 0));
        cg_emit_rows(c, inst);
    }
}

/* ---- views ---- */

/* Elements from the operand's first to the view's first. */
static LLVMValueRef view_offset(cg *c, const ir_inst *inst, const cg_slot *x) {
    if (inst->op == IR_RESHAPE || inst->op == IR_TRANSPOSE) return cg_i64(c, 0);
    int64_t stride = x->layout.stride[ir_attr_int(inst, IR_ATTR_AXIS, 0)];
    if (inst->op == IR_SLICE) return cg_i64(c, stride * ir_attr_int(inst, IR_ATTR_START, 0));
    return cg_mul(c, cg_widen(c, cg_slot_of(c, inst->operands[1])->reg), cg_i64(c, stride));
}

static LLVMValueRef load_scalar(cg *c, const cg_slot *slot, rt_dtype dtype) {
    cg_access(c, &slot, 1, NULL, 0);
    return cg_from_memory(c, dtype, LLVMBuildLoad2(c->b, cg_type(c, dtype), slot->base, ""));
}

static void store_scalar(cg *c, const cg_slot *slot, rt_dtype dtype, LLVMValueRef value) {
    cg_access(c, NULL, 0, &slot, 1);
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    LLVMBuildStore(c->b, cg_to_memory(c, dtype, value), slot->base);
    cg_end_if(c, &first);
}

/* A symbol below its bound leaves gaps unless it is the leading extent. */
static bool gaps(const ir_type *type) {
    for (int i = 1; i < type->rank; i++)
        if (ir_dim_is_symbol(type->dim[i])) return true;
    return false;
}

static void emit_view(cg *c, const ir_inst *inst) {
    const ir_value *x = inst->operands[0], *y = inst->results[0];
    cg_slot *in = cg_slot_of(c, x), *out = cg_slot_of(c, y), view = *in;
    rt_dtype dtype = x->type.dtype;
    if (x->type.rank == 0) {
        if (y->type.rank == 0) *out = *in;
        else if (cg_place_result(c, inst, 0)) store_scalar(c, out, dtype, in->reg);
        return;
    }
    view.base = cg_at(c, cg_type(c, dtype), in->base, view_offset(c, inst, in));
    if (y->type.rank == 0) {
        out->reg = load_scalar(c, &view, dtype);
        return;
    }
    if (!cg_place_result(c, inst, 0)) {
        bool seen = ir_layout_view(c->module, inst, &in->layout, &view.layout);
        GM_ASSERT(seen && "the planner took this for a view");
        *out = view;
        return;
    }
    if (gaps(&x->type) || gaps(&y->type)) {
        cg_unsupported(c, inst, "moving a symbol away from the leading extent");
        return;
    }
    cg_slot dense = *out;
    dense.layout = ir_layout_dense(c->module, &x->type);
    cg_emit_copy(c, &x->type, in, &dense);
}

/* ---- concat, update ---- */

static void emit_concat(cg *c, const ir_inst *inst) {
    int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
    int64_t start = 0;
    GM_ASSERT(cg_place_result(c, inst, 0));
    for (int i = 0; i < inst->operand_count; i++) {
        const ir_value *x = inst->operands[i];
        cg_slot part = *cg_slot_of(c, inst->results[0]);
        part.base = cg_at(c, cg_type(c, x->type.dtype), part.base, cg_i64(c, start * part.layout.stride[axis]));
        /* The parts are disjoint: only the first has to wait for earlier users of this memory, none for another
         * part. */
        if (i > 0) part.extent.object = CG_UNTRACKED;
        cg_emit_copy(c, &x->type, cg_slot_of(c, x), &part);
        start += x->type.dim[axis];
    }
    /* A barrier between two parts has forgotten the first. */
    cg_wrote(c, cg_slot_of(c, inst->results[0]));
}

static void emit_update(cg *c, const ir_inst *inst) {
    const ir_value *x = inst->operands[0], *v = inst->operands[1];
    cg_slot *out = cg_slot_of(c, inst->results[0]);
    if (cg_place_result(c, inst, 0)) cg_emit_copy(c, &x->type, cg_slot_of(c, x), out);
    else *out = *cg_slot_of(c, x);
    cg_slot part = *out;
    cg_ring ring = {.axis = ir_attr_int(inst, IR_ATTR_RING, 0) ? inst->operand_count - 3 : -1};
    LLVMValueRef offset = cg_i64(c, 0);
    for (int i = 2; i < inst->operand_count; i++) {
        LLVMValueRef start = cg_widen(c, cg_slot_of(c, inst->operands[i])->reg);
        if (i - 2 == ring.axis) {
            ring.slots = x->type.dim[ring.axis];
            ring.start = LLVMBuildURem(c->b, start, cg_i64(c, ring.slots), "");
            continue;
        }
        offset = cg_add(c, offset, cg_mul(c, start, cg_i64(c, out->layout.stride[i - 2])));
    }
    part.base = cg_at(c, cg_type(c, x->type.dtype), out->base, offset);
    cg_emit_ring_copy(c, &v->type, cg_slot_of(c, v), &part, ring.axis >= 0 ? &ring : NULL);
}

void cg_emit_move(cg *c, const ir_inst *inst) {
    if (ir_op_of(inst->op)->class == IR_CLASS_SHAPE) emit_view(c, inst);
    else if (inst->op == IR_CONCAT) emit_concat(c, inst);
    else if (inst->op == IR_UPDATE) emit_update(c, inst);
    else GM_UNREACHABLE("not a movement op");
}
