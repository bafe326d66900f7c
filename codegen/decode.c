/* Reading stored blocks: 32 consecutive elements as float vectors with their scales. Layouts: the ggml block formats.
 * value = scale · code - minus; the codes are small integers, exact in f32. One row of `decoders` per type.
 */
#include "codegen/cg.h"

typedef void (*decode_fn)(cg *c, LLVMValueRef block, int sub, cg_codes *out);

/* ---- pieces ---- */

static int parts(const cg *c) {
    return 32 / c->lanes;
}

static LLVMTypeRef vector(cg *c, LLVMTypeRef element) {
    return LLVMVectorType(element, (unsigned)c->lanes);
}

static LLVMValueRef splat_i32(cg *c, int64_t value) {
    return cg_splat(c, cg_i32(c, value), c->lanes);
}

static LLVMValueRef byte_at(cg *c, LLVMValueRef block, int64_t offset) {
    return cg_at(c, c->i8, block, cg_i64(c, offset));
}

static LLVMValueRef load_half(cg *c, LLVMValueRef block, int64_t offset) {
    LLVMValueRef half = cg_load(c, c->f16, byte_at(c, block, offset), 1);
    return LLVMBuildFPExt(c->b, half, c->f32, "");
}

/* `lanes` bytes widened to i32, unsigned. */
static LLVMValueRef load_bytes(cg *c, LLVMValueRef block, int64_t offset) {
    LLVMValueRef bytes = cg_load(c, vector(c, c->i8), byte_at(c, block, offset), 1);
    return LLVMBuildZExt(c->b, bytes, vector(c, c->i32), "");
}

static LLVMValueRef scalar_byte(cg *c, LLVMValueRef block, int64_t offset) {
    return LLVMBuildZExt(c->b, cg_load(c, c->i8, byte_at(c, block, offset), 1), c->i32, "");
}

static LLVMValueRef op_and(cg *c, LLVMValueRef x, int64_t mask) {
    return LLVMBuildAnd(c->b, x, splat_i32(c, mask), "");
}

static LLVMValueRef shift_right(cg *c, LLVMValueRef x, int64_t by) {
    return by ? LLVMBuildLShr(c->b, x, splat_i32(c, by), "") : x;
}

static LLVMValueRef shift_left(cg *c, LLVMValueRef x, int64_t by) {
    return by ? LLVMBuildShl(c->b, x, splat_i32(c, by), "") : x;
}

static LLVMValueRef to_float(cg *c, LLVMValueRef codes) {
    return LLVMBuildSIToFP(c->b, codes, vector(c, c->f32), "");
}

static LLVMValueRef mul_f(cg *c, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildFMul(c->b, x, y, "");
}

static LLVMValueRef int_to_float(cg *c, LLVMValueRef x) {
    return LLVMBuildSIToFP(c->b, x, c->f32, "");
}

static void one_scale(cg_codes *out, LLVMValueRef scale) {
    out->scale[0] = out->scale[1] = scale;
}

/* ---- plain types ---- */

static void decode_f32(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) out->part[p] = cg_load(c, vector(c, c->f32), byte_at(c, block, 4 * p * c->lanes), 4);
}

static void decode_f16(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef half = cg_load(c, vector(c, c->f16), byte_at(c, block, 2 * p * c->lanes), 2);
        out->part[p] = LLVMBuildFPExt(c->b, half, vector(c, c->f32), "");
    }
}

static void decode_bf16(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef bits = cg_load(c, vector(c, c->i16), byte_at(c, block, 2 * p * c->lanes), 2);
        bits = shift_left(c, LLVMBuildZExt(c->b, bits, vector(c, c->i32), ""), 16);
        out->part[p] = LLVMBuildBitCast(c->b, bits, vector(c, c->f32), "");
    }
}

/* ---- blocks of 32 ---- */

static void decode_q8_0(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef bytes = cg_load(c, vector(c, c->i8), byte_at(c, block, 2 + p * c->lanes), 1);
        out->part[p] = to_float(c, LLVMBuildSExt(c->b, bytes, vector(c, c->i32), ""));
    }
    one_scale(out, load_half(c, block, 0));
}

/* The 4-bit codes of elements p·lanes…: low nibbles of 16 bytes, then high ones. */
static LLVMValueRef nibbles(cg *c, LLVMValueRef block, int64_t offset, int p) {
    int first = p * c->lanes;
    LLVMValueRef bytes = load_bytes(c, block, offset + first % 16);
    return first < 16 ? op_and(c, bytes, 15) : shift_right(c, bytes, 4);
}

/* Bit i of a 32-bit word as 16 in lane i. */
static LLVMValueRef fifth_bits(cg *c, LLVMValueRef block, int64_t offset, int p) {
    LLVMValueRef word = cg_splat(c, cg_load(c, c->i32, byte_at(c, block, offset), 1), c->lanes), lane[32];
    for (int i = 0; i < c->lanes; i++) lane[i] = cg_i32(c, p * c->lanes + i);
    LLVMValueRef bits = LLVMBuildLShr(c->b, word, LLVMConstVector(lane, (unsigned)c->lanes), "");
    return shift_left(c, op_and(c, bits, 1), 4);
}

static void decode_q4_0(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) out->part[p] = to_float(c, cg_sub(c, nibbles(c, block, 2, p), splat_i32(c, 8)));
    one_scale(out, load_half(c, block, 0));
}

static void decode_q4_1(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) out->part[p] = to_float(c, nibbles(c, block, 4, p));
    one_scale(out, load_half(c, block, 0));
    out->minus = LLVMBuildFNeg(c->b, load_half(c, block, 2), "");
}

static void decode_q5_0(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef code = LLVMBuildOr(c->b, nibbles(c, block, 6, p), fifth_bits(c, block, 2, p), "");
        out->part[p] = to_float(c, cg_sub(c, code, splat_i32(c, 16)));
    }
    one_scale(out, load_half(c, block, 0));
}

static void decode_q5_1(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++)
        out->part[p] = to_float(c, LLVMBuildOr(c->b, nibbles(c, block, 8, p), fifth_bits(c, block, 4, p), ""));
    one_scale(out, load_half(c, block, 0));
    out->minus = LLVMBuildFNeg(c->b, load_half(c, block, 2), "");
}

/* ---- superblocks of 256 ---- */

/* The 6-bit scale and minimum of sub-block `sub`, packed in 12 bytes at offset 4. */
static void k_scales(cg *c, LLVMValueRef block, int sub, LLVMValueRef *scale, LLVMValueRef *minimum) {
    LLVMValueRef low = cg_i32(c, 15), six = cg_i32(c, 63), four = cg_i32(c, 4), two = cg_i32(c, 6);
    if (sub < 4) {
        *scale = LLVMBuildAnd(c->b, scalar_byte(c, block, 4 + sub), six, "");
        *minimum = LLVMBuildAnd(c->b, scalar_byte(c, block, 4 + sub + 4), six, "");
        return;
    }
    LLVMValueRef both = scalar_byte(c, block, 4 + sub + 4);
    LLVMValueRef high_scale = LLVMBuildLShr(c->b, scalar_byte(c, block, 4 + sub - 4), two, "");
    LLVMValueRef high_minimum = LLVMBuildLShr(c->b, scalar_byte(c, block, 4 + sub), two, "");
    *scale = LLVMBuildOr(c->b, LLVMBuildAnd(c->b, both, low, ""), LLVMBuildShl(c->b, high_scale, four, ""), "");
    *minimum = LLVMBuildOr(c->b, LLVMBuildLShr(c->b, both, four, ""), LLVMBuildShl(c->b, high_minimum, four, ""), "");
}

static void k_affine(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef scale, minimum;
    k_scales(c, block, sub, &scale, &minimum);
    one_scale(out, mul_f(c, load_half(c, block, 0), int_to_float(c, scale)));
    out->minus = mul_f(c, load_half(c, block, 2), int_to_float(c, minimum));
}

static LLVMValueRef k_nibbles(cg *c, LLVMValueRef block, int64_t offset, int sub, int p) {
    LLVMValueRef bytes = load_bytes(c, block, offset + 32 * (sub / 2) + p * c->lanes);
    return sub % 2 ? shift_right(c, bytes, 4) : op_and(c, bytes, 15);
}

static void decode_q4_k(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) out->part[p] = to_float(c, k_nibbles(c, block, 16, sub, p));
    k_affine(c, block, sub, out);
}

static void decode_q5_k(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef high = op_and(c, shift_right(c, load_bytes(c, block, 16 + p * c->lanes), sub), 1);
        out->part[p] = to_float(c, LLVMBuildOr(c->b, k_nibbles(c, block, 48, sub, p), shift_left(c, high, 4), ""));
    }
    k_affine(c, block, sub, out);
}

static LLVMValueRef q6_scale(cg *c, LLVMValueRef block, int k) {
    LLVMValueRef stored = cg_load(c, c->i8, byte_at(c, block, 192 + k), 1);
    return mul_f(c, load_half(c, block, 208), int_to_float(c, LLVMBuildSExt(c->b, stored, c->i32, "")));
}

static void decode_q6_k(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    int g = sub / 4, j = sub % 4;
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef low = load_bytes(c, block, 64 * g + 32 * (j & 1) + p * c->lanes);
        low = j < 2 ? op_and(c, low, 15) : shift_right(c, low, 4);
        LLVMValueRef high = op_and(c, shift_right(c, load_bytes(c, block, 128 + 32 * g + p * c->lanes), 2 * j), 3);
        LLVMValueRef code = LLVMBuildOr(c->b, low, shift_left(c, high, 4), "");
        out->part[p] = to_float(c, cg_sub(c, code, splat_i32(c, 32)));
    }
    out->scale[0] = q6_scale(c, block, 2 * sub);
    out->scale[1] = q6_scale(c, block, 2 * sub + 1);
}

static const decode_fn decoders[RT_DTYPE_COUNT] = {
    [RT_F32] = decode_f32,   [RT_F16] = decode_f16,   [RT_BF16] = decode_bf16, [RT_Q4_0] = decode_q4_0,
    [RT_Q4_1] = decode_q4_1, [RT_Q5_0] = decode_q5_0, [RT_Q5_1] = decode_q5_1, [RT_Q8_0] = decode_q8_0,
    [RT_Q4_K] = decode_q4_k, [RT_Q5_K] = decode_q5_k, [RT_Q6_K] = decode_q6_k,
};

bool cg_can_decode(rt_dtype dtype) {
    return decoders[dtype] != NULL;
}

void cg_decode(cg *c, rt_dtype dtype, LLVMValueRef block, int sub, cg_codes *out) {
    *out = (cg_codes){.minus = NULL};
    decoders[dtype](c, block, sub, out);
}
