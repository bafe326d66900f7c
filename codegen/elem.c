/* Element-wise operations as LLVM values: exact where the interpreter is exact, polynomials for exp and tanh.
 *
 * exp: Cody-Waite reduction x = n·ln2 + r and a degree-7 polynomial for e^r (after Cephes, S. Moshier); tanh: a
 * quotient of two polynomials. Errors are a few ulp; ir/tol.def has the bound. The code is branch-free so that the loop
 * around it vectorises.
 */
#include "codegen/cg.h"

#include <math.h>
#include <stdio.h>

enum { EXPONENT_BIAS = 127 };

static LLVMValueRef fp(cg *c, LLVMOpcode op, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildBinOp(c->b, op, x, y, "");
}

static LLVMValueRef fcmp(cg *c, LLVMRealPredicate predicate, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildFCmp(c->b, predicate, x, y, "");
}

/* An i32 of the shape of x, which may be a vector. */
static LLVMValueRef i32_like(cg *c, LLVMValueRef x, int value) {
    return cg_like(c, x, cg_i32(c, value));
}

static LLVMTypeRef type_like(LLVMTypeRef type, LLVMValueRef x) {
    return LLVMGetTypeKind(LLVMTypeOf(x)) == LLVMVectorTypeKind ? LLVMVectorType(type, LLVMGetVectorSize(LLVMTypeOf(x)))
                                                                : type;
}

static LLVMValueRef polynomial(cg *c, LLVMValueRef x, const double *coefficients, int count) {
    LLVMValueRef sum = cg_like(c, x, cg_f32(c, coefficients[0]));
    for (int i = 1; i < count; i++) sum = cg_fma(c, sum, x, cg_like(c, x, cg_f32(c, coefficients[i])));
    return sum;
}

/* x within [low, high]; NaN stays. */
static LLVMValueRef clamp(cg *c, LLVMValueRef x, double low, double high) {
    LLVMValueRef bottom = cg_f32(c, low), top = cg_f32(c, high);
    x = LLVMBuildSelect(c->b, fcmp(c, LLVMRealOLT, x, bottom), bottom, x, "");
    return LLVMBuildSelect(c->b, fcmp(c, LLVMRealOGT, x, top), top, x, "");
}

/* x = n·ln2 + r: returns e^r, and n as an integer. */
static LLVMValueRef exp_reduced(cg *c, LLVMValueRef x, LLVMValueRef *n) {
    static const double p[] = {1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3,
                               4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1};
    LLVMValueRef magic = cg_f32(c, RT_ROUNDER);
    LLVMValueRef shifted = cg_fma(c, x, cg_f32(c, 1.44269504088896341), magic), whole = fp(c, LLVMFSub, shifted, magic);
    LLVMValueRef r = cg_fma(c, whole, cg_f32(c, -0.693359375), x);
    r = cg_fma(c, whole, cg_f32(c, 2.12194440e-4), r);
    *n = LLVMBuildSub(c->b, LLVMBuildBitCast(c->b, shifted, c->i32, ""), cg_i32(c, 0x4B400000), "");
    return cg_fma(c, polynomial(c, r, p, 6), fp(c, LLVMFMul, r, r), fp(c, LLVMFAdd, r, cg_f32(c, 1.0)));
}

/* 2^n of a normal number. */
static LLVMValueRef power_of_2(cg *c, LLVMValueRef n) {
    return LLVMBuildBitCast(
        c->b, LLVMBuildShl(c->b, LLVMBuildAdd(c->b, n, cg_i32(c, EXPONENT_BIAS), ""), cg_i32(c, 23), ""), c->f32, "");
}

static LLVMValueRef emit_exp(cg *c, LLVMValueRef x) {
    LLVMValueRef n, y = exp_reduced(c, clamp(c, x, -104.0, 88.8), &n); /* e^x of the ends comes out as 0 and infinity */
    /* 2^n in two factors, so that results near the ends of the range come out right. */
    LLVMValueRef half = LLVMBuildAShr(c->b, n, cg_i32(c, 1), ""), rest = LLVMBuildSub(c->b, n, half, "");
    return fp(c, LLVMFMul, fp(c, LLVMFMul, y, power_of_2(c, half)), power_of_2(c, rest));
}

/* y = n + f: a polynomial for 2^f on [-1/2, 1/2], fitted to the least relative error (2e-9), times 2^n, whose exponent
 * y leaves in the low bits of what rounds it. */
LLVMValueRef cg_exp2_weight(cg *c, LLVMValueRef y) {
    static const double p[] = {
        1.5353361385e-4, 1.3398874623e-3, 9.6184373615e-3, 5.5503324706e-2, 2.4022647914e-1, 6.9314720286e-1, 1.0};
    LLVMValueRef magic = cg_like(c, y, cg_f32(c, RT_ROUNDER + EXPONENT_BIAS)), shifted = fp(c, LLVMFAdd, y, magic);
    LLVMValueRef f = fp(c, LLVMFSub, y, fp(c, LLVMFSub, shifted, magic)),
                 small = fcmp(c, LLVMRealOLT, y, cg_like(c, y, cg_f32(c, -125.0)));
    LLVMTypeRef floats = LLVMTypeOf(y), ints = type_like(c->i32, y);
    LLVMValueRef exponent = LLVMBuildShl(c->b, LLVMBuildBitCast(c->b, shifted, ints, ""), i32_like(c, y, 23), "");
    LLVMValueRef power = fp(c, LLVMFMul, polynomial(c, f, p, 7), LLVMBuildBitCast(c->b, exponent, floats, ""));
    return LLVMBuildSelect(c->b, small, LLVMConstNull(floats), power, "");
}

/* x·p(x²)/q(x²), fitted to the least relative error (2e-8) on [-9.01, 9.01]; tanh of what lies beyond rounds to ±1. */
LLVMValueRef cg_tanh(cg *c, LLVMValueRef x) {
    static const double p[] = {1.3336744750e-8, 2.0596197282e-5, 3.4948063584e-3, 1.3380367650e-1, 9.9999997925e-1};
    static const double q[] = {7.7692400184e-7, 3.2843555678e-4, 2.5874008906e-2, 4.6713683071e-1, 1.0};
    x = clamp(c, x, -9.01, 9.01);
    LLVMValueRef square = fp(c, LLVMFMul, x, x);
    LLVMValueRef y = fp(c, LLVMFDiv, fp(c, LLVMFMul, x, polynomial(c, square, p, 5)), polynomial(c, square, q, 5));
    return clamp(c, y, -1.0, 1.0);
}

/* ---- memory and register forms ---- */

LLVMValueRef cg_from_memory(cg *c, rt_dtype dtype, LLVMValueRef value) {
    return dtype == RT_BOOL ? LLVMBuildICmp(c->b, LLVMIntNE, value, LLVMConstInt(c->i8, 0, 0), "") : value;
}

LLVMValueRef cg_to_memory(cg *c, rt_dtype dtype, LLVMValueRef value) {
    return dtype == RT_BOOL ? LLVMBuildZExt(c->b, value, c->i8, "") : value;
}

LLVMValueRef cg_to_f32(cg *c, rt_dtype from, LLVMValueRef x) {
    switch (from) {
    case RT_F32: return x;
    case RT_F16: return LLVMBuildFPExt(c->b, LLVMBuildBitCast(c->b, x, c->f16, ""), c->f32, "");
    case RT_BF16:
        return LLVMBuildBitCast(c->b, LLVMBuildShl(c->b, LLVMBuildZExt(c->b, x, c->i32, ""), cg_i32(c, 16), ""), c->f32,
                                "");
    case RT_BOOL: return LLVMBuildUIToFP(c->b, x, c->f32, "");
    default: return LLVMBuildSIToFP(c->b, x, c->f32, "");
    }
}

/* Round to nearest even; NaN becomes a quiet NaN. CPUs with tile registers have an instruction for it, which takes
 * numbers below normal ones for 0. */
static LLVMValueRef to_bf16(cg *c, LLVMValueRef x) {
    if (c->tiles && !c->emulated)
        return LLVMBuildBitCast(c->b, LLVMBuildFPTrunc(c->b, x, type_like(LLVMBFloatTypeInContext(c->context), x), ""),
                                type_like(c->i16, x), "");
    LLVMValueRef bits = LLVMBuildBitCast(c->b, x, type_like(c->i32, x), ""), width = i32_like(c, x, 16);
    LLVMValueRef upper = LLVMBuildLShr(c->b, bits, width, "");
    LLVMValueRef odd = LLVMBuildAnd(c->b, upper, i32_like(c, x, 1), "");
    LLVMValueRef rounded = LLVMBuildLShr(
        c->b, LLVMBuildAdd(c->b, LLVMBuildAdd(c->b, bits, i32_like(c, x, 0x7FFF), ""), odd, ""), width, "");
    LLVMValueRef quiet = LLVMBuildOr(c->b, upper, i32_like(c, x, 0x40), "");
    LLVMValueRef both = LLVMBuildSelect(c->b, fcmp(c, LLVMRealUNO, x, x), quiet, rounded, "");
    return LLVMBuildTrunc(c->b, both, type_like(c->i16, x), "");
}

/* To the nearest integer towards 0 within [low, high]; NaN becomes 0. What llvm.fptosi.sat gives, in operations that
 * vectorise. */
static LLVMValueRef to_small_int(cg *c, LLVMTypeRef type, LLVMValueRef x, double low, double high) {
    x = clamp(c, x, low, high);
    x = LLVMBuildSelect(c->b, fcmp(c, LLVMRealUNO, x, x), cg_f32(c, 0.0), x, "");
    return LLVMBuildTrunc(c->b, LLVMBuildFPToSI(c->b, x, c->i32, ""), type, "");
}

LLVMValueRef cg_from_f32(cg *c, rt_dtype to, LLVMValueRef x) {
    switch (to) {
    case RT_F32: return x;
    case RT_F16: return LLVMBuildBitCast(c->b, LLVMBuildFPTrunc(c->b, x, c->f16, ""), c->i16, "");
    case RT_BF16: return to_bf16(c, x);
    case RT_BOOL: return fcmp(c, LLVMRealUNE, x, cg_f32(c, 0.0));
    case RT_I8: return to_small_int(c, c->i8, x, INT8_MIN, INT8_MAX);
    case RT_I16: return to_small_int(c, c->i16, x, INT16_MIN, INT16_MAX);
    default: {
        LLVMTypeRef to_type = cg_reg_type(c, to), from_type = c->f32, overloads[] = {to_type, from_type};
        unsigned id = LLVMLookupIntrinsicID("llvm.fptosi.sat", 15);
        LLVMValueRef fn = LLVMGetIntrinsicDeclaration(c->llvm, id, overloads, 2);
        return LLVMBuildCall2(c->b, LLVMIntrinsicGetType(c->context, id, overloads, 2), fn, &x, 1, "");
    }
    }
}

static LLVMValueRef convert(cg *c, rt_dtype from, rt_dtype to, LLVMValueRef x) {
    rt_dtype_class a = rt_dtype_of(from)->class, b = rt_dtype_of(to)->class;
    if (from == to) return x;
    if (a == RT_CLASS_FLOAT || b == RT_CLASS_FLOAT) return cg_from_f32(c, to, cg_to_f32(c, from, x));
    if (to == RT_BOOL) return LLVMBuildICmp(c->b, LLVMIntNE, x, LLVMConstInt(cg_reg_type(c, from), 0, 0), "");
    return LLVMBuildIntCast2(c->b, x, cg_reg_type(c, to), from != RT_BOOL, "");
}

/* ---- dispatch ---- */

static LLVMValueRef libm(cg *c, const char *name, LLVMValueRef x) {
    return cg_host_call(c, name, c->f32, &x, 1);
}

static _Noreturn void no_case(const ir_inst *inst, const char *of) {
    char why[96];
    snprintf(why, sizeof why, "%s has no case for %s here", ir_op_of(inst->op)->text, of);
    gm_abort(__FILE__, __LINE__, why);
}

static LLVMValueRef float_op(cg *c, const ir_inst *inst, LLVMValueRef *x) {
    switch (inst->op) {
    case IR_NEG: return LLVMBuildFNeg(c->b, x[0], "");
    case IR_EXP: return emit_exp(c, x[0]);
    case IR_LOG: return libm(c, "logf", x[0]);
    case IR_TANH: return cg_tanh(c, x[0]);
    case IR_ERF: return libm(c, "erff", x[0]);
    case IR_SIN: return libm(c, "sinf", x[0]);
    case IR_COS: return libm(c, "cosf", x[0]);
    case IR_SQRT: return cg_intrinsic(c, "llvm.sqrt", c->f32, x, 1);
    case IR_RSQRT: return fp(c, LLVMFDiv, cg_f32(c, 1.0), cg_intrinsic(c, "llvm.sqrt", c->f32, x, 1));
    case IR_ADD: return fp(c, LLVMFAdd, x[0], x[1]);
    case IR_SUB: return fp(c, LLVMFSub, x[0], x[1]);
    case IR_MUL: return fp(c, LLVMFMul, x[0], x[1]);
    case IR_DIV: return fp(c, LLVMFDiv, x[0], x[1]);
    case IR_MAX: return cg_intrinsic(c, "llvm.maxnum", c->f32, x, 2);
    case IR_MIN: return cg_intrinsic(c, "llvm.minnum", c->f32, x, 2);
    case IR_LT: return fcmp(c, LLVMRealOLT, x[0], x[1]);
    case IR_LE: return fcmp(c, LLVMRealOLE, x[0], x[1]);
    case IR_EQ: return fcmp(c, LLVMRealOEQ, x[0], x[1]);
    default: no_case(inst, "floats");
    }
}

/* Truncating; a zero divisor gives 0, as does the overflow of INT_MIN / -1 (its wrapped value). */
static LLVMValueRef int_divide(cg *c, LLVMValueRef x, LLVMValueRef y) {
    LLVMTypeRef type = LLVMTypeOf(x);
    LLVMValueRef zero = LLVMConstInt(type, 0, 0), one = LLVMConstInt(type, 1, 0), minus = LLVMConstAllOnes(type);
    LLVMValueRef is_zero = LLVMBuildICmp(c->b, LLVMIntEQ, y, zero, ""),
                 is_minus = LLVMBuildICmp(c->b, LLVMIntEQ, y, minus, "");
    LLVMValueRef safe = LLVMBuildSelect(c->b, LLVMBuildOr(c->b, is_zero, is_minus, ""), one, y, "");
    LLVMValueRef quotient = LLVMBuildSDiv(c->b, x, safe, "");
    quotient = LLVMBuildSelect(c->b, is_minus, LLVMBuildNeg(c->b, x, ""), quotient, "");
    return LLVMBuildSelect(c->b, is_zero, zero, quotient, "");
}

static LLVMValueRef int_op(cg *c, const ir_inst *inst, LLVMValueRef *x) {
    switch (inst->op) {
    case IR_NEG: return LLVMBuildNeg(c->b, x[0], "");
    case IR_NOT: return LLVMBuildNot(c->b, x[0], "");
    case IR_ADD: return cg_add(c, x[0], x[1]);
    case IR_SUB: return cg_sub(c, x[0], x[1]);
    case IR_MUL: return cg_mul(c, x[0], x[1]);
    case IR_DIV: return int_divide(c, x[0], x[1]);
    case IR_MAX: return cg_max(c, x[0], x[1]);
    case IR_MIN: return cg_min(c, x[0], x[1]);
    case IR_AND: return LLVMBuildAnd(c->b, x[0], x[1], "");
    case IR_OR: return LLVMBuildOr(c->b, x[0], x[1], "");
    case IR_LT: return LLVMBuildICmp(c->b, LLVMIntSLT, x[0], x[1], "");
    case IR_LE: return LLVMBuildICmp(c->b, LLVMIntSLE, x[0], x[1], "");
    case IR_EQ: return LLVMBuildICmp(c->b, LLVMIntEQ, x[0], x[1], "");
    default: no_case(inst, "integers");
    }
}

LLVMValueRef cg_elem(cg *c, const ir_inst *inst, LLVMValueRef *x) {
    rt_dtype dtype = inst->operands[0]->type.dtype;
    if (inst->op == IR_SELECT) return LLVMBuildSelect(c->b, x[0], x[1], x[2], "");
    if (inst->op == IR_CONVERT) return convert(c, dtype, inst->results[0]->type.dtype, x[0]);
    return dtype == RT_F32 ? float_op(c, inst, x) : int_op(c, inst, x);
}
