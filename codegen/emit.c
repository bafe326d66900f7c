/* Modules, functions and the dispatch of instructions by class.
 *
 * Each IR function becomes an internal LLVM function
 *   gm.NAME(frame, thread, threads, arena, symbols…, parameters…, result pointers…)
 * and an entry gm_entry.NAME of type rt_entry around it. Parameters of rank 0 are passed in registers.
 */
#include "codegen/cg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cg_slot *cg_slot_of(cg *c, const ir_value *value) {
    return &c->slots[value->id];
}

LLVMValueRef cg_dim(cg *c, ir_dim dim) {
    if (!ir_dim_is_symbol(dim)) return cg_i64(c, dim);
    LLVMValueRef symbol = c->code.symbol[ir_dim_symbol_of(dim)];
    GM_ASSERT(symbol && "symbol without a value");
    return symbol;
}

bool cg_place_result(cg *c, const ir_inst *inst, int i) {
    const ir_attr *offset = ir_attr_find(inst, IR_ATTR_OFFSET);
    GM_ASSERT(offset && (size_t)i < offset->n && "module has not been planned");
    if (offset->ints[i] < 0) return false;
    const ir_value *value = inst->results[i];
    int64_t bytes = (int64_t)rt_dtype_bytes(value->type.dtype, (size_t)ir_type_max_elems(c->module, &value->type));
    *cg_slot_of(c, value) = (cg_slot){.base = cg_at(c, c->i8, c->arena_base, cg_i64(c, offset->ints[i])),
                                      .layout = ir_layout_dense(c->module, &value->type),
                                      .extent = {CG_ARENA, offset->ints[i], offset->ints[i] + bytes}};
    return true;
}

/* ---- functions ---- */

static int function_types(cg *c, const ir_func *func, LLVMTypeRef *types) {
    const ir_region *body = func->body;
    int n = 0;
    types[n++] = c->ptr;
    types[n++] = c->i32;
    types[n++] = c->i32;
    types[n++] = c->ptr;
    for (int i = 0; i < c->module->symbol_count; i++) types[n++] = c->i64;
    for (int i = 0; i < body->param_count; i++)
        types[n++] = body->params[i]->type.rank ? c->ptr : cg_reg_type(c, body->params[i]->type.dtype);
    for (int i = 0; i < body->yield_count; i++) types[n++] = c->ptr;
    return n;
}

LLVMValueRef cg_function_of(cg *c, const ir_func *func, LLVMTypeRef *out_type) {
    LLVMTypeRef types[CG_MAX_PARAMS];
    int count = function_types(c, func, types);
    LLVMTypeRef type = LLVMFunctionType(c->void_t, types, (unsigned)count, 0);
    char *name = gm_arena_printf(&c->arena, "gm.%s", func->name);
    LLVMValueRef fn = LLVMGetNamedFunction(c->llvm, name);
    if (!fn) {
        fn = LLVMAddFunction(c->llvm, name, type);
        LLVMSetLinkage(fn, LLVMInternalLinkage);
        cg_add_attribute(c, fn, (unsigned)LLVMAttributeFunctionIndex, "noinline");
    }
    *out_type = type;
    return fn;
}

/* A returned value goes to the memory the caller gave, unless it is there already. */
static void emit_return(cg *c, unsigned first_result) {
    const ir_region *body = c->func->body;
    for (int i = 0; i < body->yield_count; i++) {
        const ir_value *value = body->yields[i];
        const cg_slot *slot = cg_slot_of(c, value);
        LLVMValueRef pointer = LLVMGetParam(c->code.fn, first_result + (unsigned)i);
        if (value->type.rank == 0) {
            LLVMBuildStore(c->b, slot->reg, pointer);
            continue;
        }
        int alias = c->func->alias ? c->func->alias[i] : -1;
        const cg_slot *home = alias >= 0 ? cg_slot_of(c, body->params[alias]) : NULL;
        if (home && home->base == slot->base && memcmp(&home->layout, &slot->layout, sizeof slot->layout) == 0)
            continue;
        cg_slot out = {.base = pointer,
                       .layout = ir_layout_dense(c->module, &value->type),
                       .extent = {CG_RESULT + i, 0, INT64_MAX}};
        if (home) out = *home;
        cg_emit_copy(c, &value->type, slot, &out);
    }
    cg_settle(c);
    LLVMBuildRetVoid(c->b);
}

static void open_function(cg *c, LLVMValueRef fn) {
    c->code = (cg_code){
        .fn = fn, .frame = LLVMGetParam(fn, 0), .thread = LLVMGetParam(fn, 1), .threads = LLVMGetParam(fn, 2)};
    c->arena_base = LLVMGetParam(fn, 3);
    LLVMPositionBuilderAtEnd(c->b, LLVMAppendBasicBlockInContext(c->context, fn, "entry"));
    LLVMBasicBlockRef start = LLVMAppendBasicBlockInContext(c->context, fn, "start");
    LLVMBuildBr(c->b, start);
    LLVMPositionBuilderAtEnd(c->b, start);
}

static void emit_function(cg *c, const ir_func *func) {
    LLVMTypeRef type;
    LLVMValueRef fn = cg_function_of(c, func, &type);
    c->func = func;
    c->slots = calloc(func->value_count + 1, sizeof *c->slots);
    GM_ASSERT(c->slots);
    memset(&c->hazards, 0, sizeof c->hazards);
    open_function(c, fn);
    unsigned n = 4;
    for (int i = 0; i < c->module->symbol_count; i++) c->code.symbol[i] = LLVMGetParam(fn, n++);
    for (int i = 0; i < func->body->param_count; i++, n++) {
        const ir_value *param = func->body->params[i];
        if (param->type.rank == 0) cg_slot_of(c, param)->reg = LLVMGetParam(fn, n);
        else
            *cg_slot_of(c, param) = (cg_slot){.base = LLVMGetParam(fn, n),
                                              .layout = ir_layout_dense(c->module, &param->type),
                                              .extent = {CG_PARAMETER + i, 0, INT64_MAX}};
    }
    cg_emit_region(c, func->body);
    if (c->status == GM_OK) emit_return(c, n);
    free(c->slots);
    c->slots = NULL;
}

/* ---- entries ---- */

static LLVMValueRef table_entry(cg *c, LLVMValueRef table, int i, LLVMTypeRef type) {
    return LLVMBuildLoad2(c->b, type, cg_at(c, type, table, cg_i64(c, i)), "");
}

/* Scalars come through pointers: each thread reads them; thread 0 writes the results, the others write to a slot of
 * their own. */
static void emit_entry(cg *c, const ir_func *func) {
    LLVMTypeRef types[] = {c->ptr, c->i32, c->i32, c->ptr, c->ptr, c->ptr}, type;
    char *name = gm_arena_printf(&c->arena, "gm_entry.%s", func->name);
    LLVMValueRef entry = LLVMAddFunction(c->llvm, name, LLVMFunctionType(c->void_t, types, 6, 0));
    LLVMValueRef fn = cg_function_of(c, func, &type), args[CG_MAX_PARAMS];
    open_function(c, entry);
    LLVMValueRef in = LLVMGetParam(entry, 3), out = LLVMGetParam(entry, 4), dims = LLVMGetParam(entry, 5);
    LLVMValueRef first = LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), "");
    int n = 0;
    for (unsigned i = 0; i < 3; i++) args[n++] = LLVMGetParam(entry, i);
    args[n++] = cg_frame_field(c, offsetof(rt_frame, arena), c->ptr);
    for (int i = 0; i < c->module->symbol_count; i++) args[n++] = table_entry(c, dims, i, c->i64);
    for (int i = 0; i < func->body->param_count; i++) {
        const ir_type *param = &func->body->params[i]->type;
        LLVMValueRef pointer = table_entry(c, in, i, c->ptr);
        args[n++] = param->rank
                        ? pointer
                        : cg_from_memory(c, param->dtype, LLVMBuildLoad2(c->b, cg_type(c, param->dtype), pointer, ""));
    }
    for (int i = 0; i < func->body->yield_count; i++) {
        const ir_type *result = &func->body->yields[i]->type;
        LLVMValueRef pointer = table_entry(c, out, i, c->ptr);
        args[n++] = result->rank ? pointer : LLVMBuildSelect(c->b, first, pointer, cg_variable(c, c->i64, NULL), "");
    }
    LLVMBuildCall2(c->b, type, fn, args, (unsigned)n, "");
    LLVMBuildRetVoid(c->b);
}

/* ---- instructions ---- */

static void emit_sample(cg *c, const ir_inst *inst) {
    const cg_slot *reads[3] = {cg_slot_of(c, inst->operands[0]), cg_slot_of(c, inst->operands[1]),
                               cg_slot_of(c, inst->operands[3])},
                  *write = cg_slot_of(c, inst->results[0]);
    const ir_type *logits = &inst->operands[0]->type;
    cg_access(c, reads, 3, &write, 1);
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    LLVMValueRef args[] = {c->code.frame,
                           reads[0]->base,
                           cg_dim(c, logits->dim[0]),
                           cg_dim(c, logits->dim[1]),
                           reads[1]->base,
                           cg_slot_of(c, inst->operands[2])->reg,
                           reads[2]->base,
                           cg_slot_of(c, inst->operands[4])->reg,
                           cg_i64(c, ir_attr_int(inst, IR_ATTR_USUAL, -1)),
                           write->base};
    cg_host_call(c, "rt_sample_call", c->void_t, args, 10);
    cg_end_if(c, &first);
}

static void emit_guess(cg *c, const ir_inst *inst) {
    const cg_slot *reads[] = {cg_slot_of(c, inst->operands[0]), cg_slot_of(c, inst->operands[1])},
                  *write = cg_slot_of(c, inst->results[0]);
    cg_access(c, reads, 2, &write, 1);
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    LLVMValueRef args[] = {reads[0]->base, cg_dim(c, inst->operands[0]->type.dim[1]), reads[1]->base,
                           cg_slot_of(c, inst->operands[2])->reg, cg_i64(c, ir_attr_int(inst, IR_ATTR_USUAL, 0))};
    cg_store(c, cg_host_call(c, "rt_guess", c->i32, args, 5), write->base, 4);
    cg_end_if(c, &first);
}

/* ring[written mod capacity] = token; written += 1, released to the reader. */
static void emit_emit(cg *c, const ir_inst *inst) {
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    LLVMValueRef ring = cg_frame_field(c, offsetof(rt_frame, ring), c->ptr);
    LLVMValueRef count = cg_at(c, c->i8, ring, cg_i64(c, offsetof(rt_ring, written)));
    LLVMValueRef written = cg_load(c, c->i64, count, 8);
    LLVMValueRef slot = LLVMBuildAnd(c->b, written, cg_i64(c, RT_RING_CAPACITY - 1), "");
    LLVMValueRef tokens = cg_at(c, c->i8, ring, cg_i64(c, offsetof(rt_ring, token)));
    cg_store(c, cg_slot_of(c, inst->operands[0])->reg, cg_at(c, c->i32, tokens, slot), 4);
    LLVMValueRef store = LLVMBuildStore(c->b, cg_add(c, written, cg_i64(c, 1)), count);
    LLVMSetOrdering(store, LLVMAtomicOrderingRelease);
    LLVMSetAlignment(store, 8);
    cg_end_if(c, &first);
}

static void emit_elem(cg *c, const ir_inst *inst) {
    if (inst->results[0]->type.rank) {
        GM_ASSERT(cg_place_result(c, inst, 0));
        cg_emit_rows(c, inst);
        return;
    }
    LLVMValueRef operands[4];
    for (int i = 0; i < inst->operand_count; i++) operands[i] = cg_slot_of(c, inst->operands[i])->reg;
    cg_slot_of(c, inst->results[0])->reg = cg_elem(c, inst, operands);
}

static void emit_computed(cg *c, const ir_inst *inst) {
    for (int i = 0; i < inst->result_count; i++) cg_place_result(c, inst, i);
    switch (inst->op) {
    case IR_MATMUL: cg_emit_matmul(c, inst); return;
    case IR_SCALED_MATMUL: cg_emit_scaled_matmul(c, inst); return;
    case IR_GATED_MATMUL:
        if (inst->operand_count == 4) cg_emit_scaled_matmul(c, inst);
        else cg_emit_matmul(c, inst);
        return;
    case IR_EINSUM: cg_emit_einsum(c, inst); return;
    case IR_GATHER: cg_emit_gather(c, inst); return;
    case IR_ATTENTION: cg_emit_attention(c, inst); return;
    case IR_ARGMAX: cg_emit_argmax(c, inst); return;
    case IR_GUESS: emit_guess(c, inst); return;
    case IR_SAMPLE: emit_sample(c, inst); return;
    case IR_SCREENED_ARGMAX:
    case IR_SCREENED_GUESS:
    case IR_SCREENED_SAMPLE: cg_emit_screened(c, inst); return;
    default: cg_emit_rows(c, inst); return;
    }
}

/* For --check: give the trace all results that are scalars or dense tensors, between two barriers; tensors that are
 * constants or weights (CG_UNTRACKED) are left out. */
static void emit_trace(cg *c, const ir_inst *inst) {
    int64_t number = cg_trace_number(c->module, inst);
    if (number < 0 || !inst->result_count) return;
    cg_barrier(c);
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    for (int i = 0; i < inst->result_count; i++) {
        const ir_value *value = inst->results[i];
        const cg_slot *slot = cg_slot_of(c, value);
        LLVMValueRef data = slot->base;
        ir_layout dense = ir_layout_dense(c->module, &value->type);
        bool plain = slot->extent.object >= 0;
        for (int d = 0; d < value->type.rank; d++)
            plain &= value->type.dim[d] == 1 || slot->layout.stride[d] == dense.stride[d];
        if (value->type.rank == 0) {
            data = cg_variable(c, cg_type(c, value->type.dtype), NULL);
            LLVMBuildStore(c->b, cg_to_memory(c, value->type.dtype, slot->reg), data);
        } else if (!plain) continue;
        LLVMValueRef elems = cg_i64(c, 1);
        for (int d = 0; d < value->type.rank; d++) elems = cg_mul(c, elems, cg_dim(c, value->type.dim[d]));
        LLVMValueRef args[] = {c->code.frame, cg_i64(c, number), cg_i64(c, i), elems, data};
        cg_host_call(c, "rt_trace_call", c->void_t, args, 5);
    }
    cg_end_if(c, &first);
    cg_barrier(c);
}

static void emit_by_class(cg *c, const ir_inst *inst) {
    switch (ir_op_of(inst->op)->class) {
    case IR_CLASS_SOURCE: cg_emit_source(c, inst); break;
    case IR_CLASS_ELEM: emit_elem(c, inst); break;
    case IR_CLASS_SHAPE: cg_emit_move(c, inst); break;
    case IR_CLASS_EFFECT: emit_emit(c, inst); break;
    case IR_CLASS_MOVE:
        if (inst->op == IR_GATHER || inst->op == IR_SWAP_HALVES) emit_computed(c, inst);
        else cg_emit_move(c, inst);
        break;
    case IR_CLASS_CONTROL:
        if (inst->op == IR_FUSE) emit_computed(c, inst);
        else cg_emit_control(c, inst);
        break;
    case IR_CLASS_REDUCE:
    case IR_CLASS_CONTRACT:
    case IR_CLASS_FUSED: emit_computed(c, inst); break;
    }
}

static void emit_inst(cg *c, const ir_inst *inst) {
    const ir_inst *outer = c->inst;
    c->inst = inst;
    c->timing.parts = 0;
    emit_by_class(c, inst);
    cg_profile_end(c);
    c->inst = outer;
    if (c->options->trace && c->status == GM_OK) emit_trace(c, inst);
}

/* Symbols bound inside a region end with it. */
void cg_emit_region(cg *c, const ir_region *region) {
    LLVMValueRef symbols[IR_MAX_SYMBOLS];
    memcpy(symbols, c->code.symbol, sizeof symbols);
    for (int i = 0; i < region->inst_count && c->status == GM_OK; i++) emit_inst(c, region->insts[i]);
    memcpy(c->code.symbol, symbols, sizeof symbols);
}

gm_status cg_emit_module(cg *c) {
    for (int i = 0; i < c->module->func_count && c->status == GM_OK; i++) {
        emit_function(c, c->module->funcs[i]);
        if (c->status == GM_OK) emit_entry(c, c->module->funcs[i]);
    }
    return c->status;
}
