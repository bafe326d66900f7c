/* Small arithmetic, loops and branches that every emitter uses. */
#include "codegen/cg.h"

#include <stdio.h>
#include <string.h>

LLVMTypeRef cg_type(cg *c, rt_dtype dtype) {
    switch (dtype) {
    case RT_F32: return c->f32;
    case RT_I32: return c->i32;
    case RT_I64: return c->i64;
    case RT_F16:
    case RT_BF16:
    case RT_I16: return c->i16;
    default: return c->i8; /* bool, i8, stored blocks by the byte */
    }
}

LLVMTypeRef cg_reg_type(cg *c, rt_dtype dtype) {
    return dtype == RT_BOOL ? c->i1 : cg_type(c, dtype);
}

LLVMValueRef cg_widen(cg *c, LLVMValueRef x) {
    return LLVMBuildSExt(c->b, x, c->i64, "");
}

LLVMValueRef cg_i64(cg *c, int64_t value) {
    return LLVMConstInt(c->i64, (unsigned long long)value, 1);
}

LLVMValueRef cg_i32(cg *c, int64_t value) {
    return LLVMConstInt(c->i32, (unsigned long long)value, 1);
}

LLVMValueRef cg_f32(cg *c, double value) {
    return LLVMConstReal(c->f32, value);
}

LLVMValueRef cg_add(cg *c, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildAdd(c->b, x, y, "");
}

LLVMValueRef cg_sub(cg *c, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildSub(c->b, x, y, "");
}

LLVMValueRef cg_mul(cg *c, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildMul(c->b, x, y, "");
}

LLVMValueRef cg_min(cg *c, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntSLT, x, y, ""), x, y, "");
}

LLVMValueRef cg_max(cg *c, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntSGT, x, y, ""), x, y, "");
}

LLVMValueRef cg_at(cg *c, LLVMTypeRef type, LLVMValueRef pointer, LLVMValueRef index) {
    return LLVMBuildGEP2(c->b, type, pointer, &index, 1, "");
}

LLVMValueRef cg_load(cg *c, LLVMTypeRef type, LLVMValueRef pointer, int align) {
    LLVMValueRef value = LLVMBuildLoad2(c->b, type, pointer, "");
    LLVMSetAlignment(value, (unsigned)align);
    return value;
}

void cg_store(cg *c, LLVMValueRef value, LLVMValueRef pointer, int align) {
    LLVMSetAlignment(LLVMBuildStore(c->b, value, pointer), (unsigned)align);
}

LLVMValueRef cg_intrinsic(cg *c, const char *name, LLVMTypeRef overload, LLVMValueRef *args, int count) {
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    GM_ASSERT(id);
    LLVMValueRef fn = LLVMGetIntrinsicDeclaration(c->llvm, id, &overload, overload != NULL);
    LLVMTypeRef type = LLVMIntrinsicGetType(c->context, id, &overload, overload != NULL);
    return LLVMBuildCall2(c->b, type, fn, args, (unsigned)count, "");
}

LLVMValueRef cg_intrinsic2(cg *c, const char *name, LLVMTypeRef result, LLVMValueRef a, LLVMValueRef b) {
    return cg_host_call(c, name, result, (LLVMValueRef[]){a, b}, 2);
}

void cg_value_barrier(cg *c, LLVMValueRef *v, int count) {
    LLVMTypeRef types[CG_PASSED];
    gm_string constraints = {0};
    GM_ASSERT(count > 0 && count <= CG_PASSED);
    for (int i = 0; i < count; i++) types[i] = LLVMTypeOf(v[i]), gm_string_printf(&constraints, "=x,");
    for (int i = 0; i < count; i++) gm_string_printf(&constraints, i ? ",%d" : "%d", i);
    LLVMTypeRef passed = count == 1 ? types[0] : LLVMStructTypeInContext(c->context, types, (unsigned)count, 0),
                fn = LLVMFunctionType(passed, types, (unsigned)count, 0);
    LLVMValueRef code =
        LLVMGetInlineAsm(fn, "", 0, constraints.data, constraints.length, 1, 0, LLVMInlineAsmDialectATT, 0);
    LLVMValueRef result = LLVMBuildCall2(c->b, fn, code, v, (unsigned)count, "");
    for (int i = 0; i < count; i++) v[i] = count == 1 ? result : LLVMBuildExtractValue(c->b, result, (unsigned)i, "");
    gm_string_free(&constraints);
}

/* near: 3, into every cache, … 0. */
static void prefetch(cg *c, LLVMValueRef pointer, unsigned near) {
    LLVMValueRef args[] = {pointer, cg_i32(c, 0), cg_i32(c, near), cg_i32(c, 1)}; /* to read, data */
    cg_intrinsic(c, "llvm.prefetch", c->ptr, args, GM_COUNT(args));
}

void cg_prefetch(cg *c, LLVMValueRef pointer) {
    prefetch(c, pointer, 3);
}

void cg_prefetch_second(cg *c, LLVMValueRef pointer) {
    prefetch(c, pointer, 2);
}

void cg_prefetch_lines(cg *c, LLVMValueRef from, int64_t bytes) {
    for (int64_t line = 0; line < bytes; line += 64) cg_prefetch(c, cg_at(c, c->i8, from, cg_i64(c, line)));
}

void cg_prefetch_ahead(cg *c, LLVMValueRef from, int64_t bytes) {
    cg_prefetch_lines(c, cg_at(c, c->i8, from, cg_i64(c, c->ahead)), bytes);
}

LLVMValueRef cg_fma(cg *c, LLVMValueRef x, LLVMValueRef y, LLVMValueRef z) {
    return cg_intrinsic(c, "llvm.fma", LLVMTypeOf(x), (LLVMValueRef[]){x, y, z}, 3);
}

LLVMValueRef cg_splat(cg *c, LLVMValueRef scalar, int lanes) {
    LLVMTypeRef type = LLVMVectorType(LLVMTypeOf(scalar), (unsigned)lanes);
    LLVMValueRef one = LLVMBuildInsertElement(c->b, LLVMGetPoison(type), scalar, cg_i32(c, 0), "");
    LLVMValueRef mask = LLVMConstNull(LLVMVectorType(c->i32, (unsigned)lanes));
    return LLVMBuildShuffleVector(c->b, one, LLVMGetPoison(type), mask, "");
}

LLVMValueRef cg_like(cg *c, LLVMValueRef x, LLVMValueRef scalar) {
    LLVMTypeRef type = LLVMTypeOf(x);
    return LLVMGetTypeKind(type) == LLVMVectorTypeKind ? cg_splat(c, scalar, (int)LLVMGetVectorSize(type)) : scalar;
}

/* Halving tree: the same order on every target width. */
LLVMValueRef cg_sum_lanes(cg *c, LLVMValueRef vector) {
    unsigned lanes = LLVMGetVectorSize(LLVMTypeOf(vector));
    LLVMValueRef poison = LLVMGetPoison(LLVMTypeOf(vector)), mask[64];
    for (unsigned half = lanes / 2; half; half /= 2) {
        for (unsigned i = 0; i < lanes; i++) mask[i] = i < half ? cg_i32(c, i + half) : LLVMGetPoison(c->i32);
        LLVMValueRef upper = LLVMBuildShuffleVector(c->b, vector, poison, LLVMConstVector(mask, lanes), "");
        vector = LLVMBuildFAdd(c->b, vector, upper, "");
    }
    return LLVMBuildExtractElement(c->b, vector, cg_i32(c, 0), "");
}

LLVMValueRef cg_sum_whole(cg *c, LLVMValueRef vector) {
    LLVMTypeRef wide = LLVMVectorType(c->i32, LLVMGetVectorSize(LLVMTypeOf(vector)));
    vector = LLVMBuildSExt(c->b, vector, wide, "");
    return cg_intrinsic(c, "llvm.vector.reduce.add", wide, &vector, 1);
}

LLVMValueRef cg_variable(cg *c, LLVMTypeRef type, LLVMValueRef init) {
    LLVMBasicBlockRef here = LLVMGetInsertBlock(c->b), entry = LLVMGetEntryBasicBlock(c->code.fn);
    LLVMValueRef first = LLVMGetFirstInstruction(entry);
    if (first) LLVMPositionBuilderBefore(c->b, first);
    else LLVMPositionBuilderAtEnd(c->b, entry);
    LLVMValueRef slot = LLVMBuildAlloca(c->b, type, "");
    LLVMPositionBuilderAtEnd(c->b, here);
    if (init) LLVMBuildStore(c->b, init, slot);
    return slot;
}

LLVMValueRef cg_frame_field(cg *c, size_t offset, LLVMTypeRef type) {
    return LLVMBuildLoad2(c->b, type, cg_at(c, c->i8, c->code.frame, cg_i64(c, (int64_t)offset)), "");
}

void cg_reserve_scratch(cg *c, int64_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (c->program->scratch_bytes < bytes) c->program->scratch_bytes = bytes;
}

LLVMValueRef cg_scratch(cg *c, int64_t bytes) {
    cg_reserve_scratch(c, bytes);
    LLVMValueRef base = cg_frame_field(c, offsetof(rt_frame, scratch), c->ptr);
    LLVMValueRef stride = cg_frame_field(c, offsetof(rt_frame, scratch_stride), c->i64);
    LLVMValueRef thread = cg_widen(c, c->code.thread);
    return cg_at(c, c->i8, base, cg_mul(c, stride, thread));
}

LLVMValueRef cg_leading_rows(cg *c, const ir_type *type) {
    LLVMValueRef rows = cg_i64(c, 1);
    for (int i = 0; i + 1 < type->rank; i++) rows = cg_mul(c, rows, cg_dim(c, type->dim[i]));
    return rows;
}

LLVMValueRef cg_host_call(cg *c, const char *name, LLVMTypeRef result, LLVMValueRef *args, int count) {
    LLVMTypeRef types[16];
    GM_ASSERT(count <= (int)GM_COUNT(types));
    for (int i = 0; i < count; i++) types[i] = LLVMTypeOf(args[i]);
    LLVMTypeRef type = LLVMFunctionType(result, types, (unsigned)count, 0);
    LLVMValueRef fn = LLVMGetNamedFunction(c->llvm, name);
    if (!fn) fn = LLVMAddFunction(c->llvm, name, type);
    return LLVMBuildCall2(c->b, type, fn, args, (unsigned)count, "");
}

void cg_unsupported(cg *c, const ir_inst *inst, const char *what) {
    if (c->status != GM_OK) return;
    c->status = gm_fail(c->diag, GM_UNSUPPORTED, "@%s: %s: compiled code does not support %s", c->func->name,
                        ir_op_of(inst->op)->text, what);
}

/* ---- control flow ---- */

static LLVMBasicBlockRef block_new(cg *c) {
    return LLVMAppendBasicBlockInContext(c->context, c->code.fn, "");
}

cg_loop cg_loop_begin(cg *c, LLVMValueRef from, LLVMValueRef to, int64_t step) {
    cg_loop loop = {.head = block_new(c), .body = block_new(c), .exit = block_new(c), .step = cg_i64(c, step)};
    LLVMBasicBlockRef before = LLVMGetInsertBlock(c->b);
    LLVMBuildBr(c->b, loop.head);
    LLVMPositionBuilderAtEnd(c->b, loop.head);
    loop.index = LLVMBuildPhi(c->b, c->i64, "");
    LLVMAddIncoming(loop.index, &from, &before, 1);
    LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntSLT, loop.index, to, ""), loop.body, loop.exit);
    LLVMPositionBuilderAtEnd(c->b, loop.body);
    return loop;
}

/* !{self, !{"llvm.loop.unroll.count", i32 times}} */
static LLVMMetadataRef unroll_metadata(cg *c, int times) {
    static const char key[] = "llvm.loop.unroll.count";
    LLVMMetadataRef pair[] = {LLVMMDStringInContext2(c->context, key, sizeof key - 1),
                              LLVMValueAsMetadata(cg_i32(c, times))};
    LLVMMetadataRef parts[] = {LLVMTemporaryMDNode(c->context, NULL, 0), LLVMMDNodeInContext2(c->context, pair, 2)};
    LLVMMetadataRef node = LLVMMDNodeInContext2(c->context, parts, 2);
    LLVMMetadataReplaceAllUsesWith(parts[0], node);
    return node;
}

void cg_loop_end_unrolled(cg *c, cg_loop *loop, int times) {
    LLVMBasicBlockRef latch = LLVMGetInsertBlock(c->b);
    cg_loop_end(c, loop);
    unsigned kind = LLVMGetMDKindIDInContext(c->context, "llvm.loop", 9);
    LLVMSetMetadata(LLVMGetBasicBlockTerminator(latch), kind,
                    LLVMMetadataAsValue(c->context, unroll_metadata(c, times)));
}

void cg_loop_end(cg *c, cg_loop *loop) {
    LLVMValueRef next = LLVMBuildNSWAdd(c->b, loop->index, loop->step, "");
    LLVMBasicBlockRef latch = LLVMGetInsertBlock(c->b);
    LLVMAddIncoming(loop->index, &next, &latch, 1);
    LLVMBuildBr(c->b, loop->head);
    LLVMPositionBuilderAtEnd(c->b, loop->exit);
}

cg_branch cg_if(cg *c, LLVMValueRef condition) {
    cg_branch branch = {block_new(c), NULL};
    LLVMBasicBlockRef then = block_new(c);
    branch.join = block_new(c);
    LLVMBuildCondBr(c->b, condition, then, branch.otherwise);
    LLVMPositionBuilderAtEnd(c->b, then);
    return branch;
}

void cg_else(cg *c, cg_branch *branch) {
    LLVMBuildBr(c->b, branch->join);
    LLVMPositionBuilderAtEnd(c->b, branch->otherwise);
    branch->otherwise = NULL;
}

void cg_end_if(cg *c, cg_branch *branch) {
    LLVMBuildBr(c->b, branch->join);
    if (branch->otherwise) {
        LLVMPositionBuilderAtEnd(c->b, branch->otherwise);
        LLVMBuildBr(c->b, branch->join);
    }
    LLVMPositionBuilderAtEnd(c->b, branch->join);
}

void cg_share(cg *c, LLVMValueRef count, int64_t grain, LLVMValueRef *from, LLVMValueRef *to) {
    LLVMValueRef thread = cg_widen(c, c->code.thread);
    LLVMValueRef threads = cg_widen(c, c->code.threads);
    LLVMValueRef g = cg_i64(c, grain), round = cg_i64(c, grain - 1);
    LLVMValueRef units = LLVMBuildSDiv(c->b, cg_add(c, count, round), g, "");
    LLVMValueRef next = cg_add(c, thread, cg_i64(c, 1));
    *from = cg_min(c, count, cg_mul(c, g, LLVMBuildSDiv(c->b, cg_mul(c, units, thread), threads, "")));
    *to = cg_min(c, count, cg_mul(c, g, LLVMBuildSDiv(c->b, cg_mul(c, units, next), threads, "")));
}
