/* Reading stored blocks: 32 consecutive elements as float vectors with their scales. Layouts: the ggml block formats.
 * value = scale · code - minus; the codes are small integers, exact in f32. One row of `decoders` per type.
 */
#include "codegen/decode.h"

/* ---- pieces ---- */

static LLVMValueRef splat_i32(cg *c, int64_t value) {
    return cg_splat(c, cg_i32(c, value), c->lanes);
}

/* `lanes` bytes widened to i32, unsigned. */
static LLVMValueRef load_bytes(cg *c, LLVMValueRef block, int64_t offset) {
    LLVMValueRef bytes = cg_load(c, cg_vector(c, c->i8), byte_at(c, block, offset), 1);
    return LLVMBuildZExt(c->b, bytes, cg_vector(c, c->i32), "");
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

static void one_minus(cg_codes *out, LLVMValueRef minus) {
    out->minus[0] = out->minus[1] = minus;
}

/* ---- plain types ---- */

static void decode_f32(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++)
        out->part[p] = cg_load(c, cg_vector(c, c->f32), byte_at(c, block, 4 * p * c->lanes), 4);
}

static void decode_f16(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef half = cg_load(c, cg_vector(c, c->f16), byte_at(c, block, 2 * p * c->lanes), 2);
        out->part[p] = LLVMBuildFPExt(c->b, half, cg_vector(c, c->f32), "");
    }
}

static void decode_bf16(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef bits = cg_load(c, cg_vector(c, c->i16), byte_at(c, block, 2 * p * c->lanes), 2);
        bits = shift_left(c, LLVMBuildZExt(c->b, bits, cg_vector(c, c->i32), ""), 16);
        out->part[p] = LLVMBuildBitCast(c->b, bits, cg_vector(c, c->f32), "");
    }
}

/* ---- blocks of 32 ---- */

static void decode_q8_0(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef bytes = cg_load(c, cg_vector(c, c->i8), byte_at(c, block, 2 + p * c->lanes), 1);
        out->part[p] = to_float(c, LLVMBuildSExt(c->b, bytes, cg_vector(c, c->i32), ""));
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
    one_minus(out, LLVMBuildFNeg(c->b, load_half(c, block, 2), ""));
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
    one_minus(out, LLVMBuildFNeg(c->b, load_half(c, block, 2), ""));
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
    one_minus(out, mul_f(c, load_half(c, block, 2), int_to_float(c, minimum)));
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

/* The 2-bit codes of sub-block `sub`, four of which share 32 bytes. */
static LLVMValueRef two_bits(cg *c, LLVMValueRef block, int64_t offset, int sub, int p) {
    LLVMValueRef bytes = load_bytes(c, block, offset + 32 * (sub / 4) + p * c->lanes);
    return op_and(c, shift_right(c, bytes, 2 * (sub % 4)), 3);
}

static void decode_q2_k(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) out->part[p] = to_float(c, two_bits(c, block, 16, sub, p));
    for (int h = 0; h < 2; h++) {
        LLVMValueRef both = scalar_byte(c, block, 2 * sub + h);
        LLVMValueRef scale = LLVMBuildAnd(c->b, both, cg_i32(c, 15), ""),
                     minimum = LLVMBuildLShr(c->b, both, cg_i32(c, 4), "");
        out->scale[h] = mul_f(c, load_half(c, block, 80), int_to_float(c, scale));
        out->minus[h] = mul_f(c, load_half(c, block, 82), int_to_float(c, minimum));
    }
}

/* d · (6-bit scale - 32) of 16 elements: four low bits of scale k from one of 8 bytes, two high ones from one of 4. */
static LLVMValueRef q3_scale(cg *c, LLVMValueRef block, int k) {
    LLVMValueRef low = scalar_byte(c, block, 96 + k % 8), high = scalar_byte(c, block, 104 + k % 4);
    low = k < 8 ? LLVMBuildAnd(c->b, low, cg_i32(c, 15), "") : LLVMBuildLShr(c->b, low, cg_i32(c, 4), "");
    high = LLVMBuildAnd(c->b, LLVMBuildLShr(c->b, high, cg_i32(c, 2 * (k / 4)), ""), cg_i32(c, 3), "");
    LLVMValueRef scale = LLVMBuildOr(c->b, low, LLVMBuildShl(c->b, high, cg_i32(c, 4), ""), "");
    return mul_f(c, load_half(c, block, 108), int_to_float(c, cg_sub(c, scale, cg_i32(c, 32))));
}

static void decode_q3_k(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++) {
        LLVMValueRef third = op_and(c, shift_right(c, load_bytes(c, block, p * c->lanes), sub), 1);
        LLVMValueRef code = LLVMBuildOr(c->b, two_bits(c, block, 32, sub, p), shift_left(c, third, 2), "");
        out->part[p] = to_float(c, cg_sub(c, code, splat_i32(c, 4)));
    }
    for (int h = 0; h < 2; h++) out->scale[h] = q3_scale(c, block, 2 * sub + h);
}

/* ---- by 16 bytes: codes that number the values of a table, and ternary digits ---- */

static LLVMTypeRef bytes16(cg *c) {
    return LLVMVectorType(c->i8, 16);
}

static LLVMValueRef splat_i8(cg *c, int value) {
    return cg_splat(c, LLVMConstInt(c->i8, (unsigned char)value, 0), 16);
}

static LLVMValueRef load_16(cg *c, LLVMValueRef block, int64_t offset) {
    return cg_load(c, bytes16(c), byte_at(c, block, offset), 1);
}

/* table[code] in each of 16 lanes. Where a register can be permuted by another, that is one instruction. */
static LLVMValueRef look_up(cg *c, const int8_t *table, LLVMValueRef codes) {
    LLVMValueRef level[16];
    if (c->lanes >= 8) {
        for (int i = 0; i < 16; i++) level[i] = LLVMConstInt(c->i8, (unsigned char)table[i], 0);
        LLVMTypeRef type = LLVMFunctionType(bytes16(c), (LLVMTypeRef[]){bytes16(c), bytes16(c)}, 2, 0);
        const char *name = "llvm.x86.ssse3.pshuf.b.128";
        LLVMValueRef permute = LLVMGetNamedFunction(c->llvm, name);
        if (!permute) permute = LLVMAddFunction(c->llvm, name, type);
        return LLVMBuildCall2(c->b, type, permute, (LLVMValueRef[]){LLVMConstVector(level, 16), codes}, 2, "");
    }
    for (int i = 0; i < 16; i++) level[i] = splat_i8(c, table[i]);
    for (int bit = 0; bit < 4; bit++) { /* halve the candidates by each bit of the codes */
        LLVMValueRef set = LLVMBuildAnd(c->b, codes, splat_i8(c, 1 << bit), "");
        set = LLVMBuildICmp(c->b, LLVMIntNE, set, splat_i8(c, 0), "");
        for (int i = 0; i < 8 >> bit; i++) level[i] = LLVMBuildSelect(c->b, set, level[2 * i + 1], level[2 * i], "");
    }
    return level[0];
}

static void table_nibbles(cg *c, const int8_t *table, LLVMValueRef block, int64_t offset, cg_codes *out) {
    LLVMValueRef bytes = load_16(c, block, offset);
    bytes_to_float(c, look_up(c, table, LLVMBuildAnd(c->b, bytes, splat_i8(c, 15), "")), 0, out);
    bytes_to_float(c, look_up(c, table, LLVMBuildLShr(c->b, bytes, splat_i8(c, 4), "")), 16, out);
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}; /* E2M1 in half units */

static void decode_iq4_nl(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    table_nibbles(c, iq4_values, block, 2, out);
    one_scale(out, load_half(c, block, 0));
}

static void decode_iq4_xs(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef low = LLVMBuildLShr(c->b, scalar_byte(c, block, 4 + sub / 2), cg_i32(c, 4 * (sub % 2)), "");
    LLVMValueRef high = LLVMBuildLShr(c->b, scalar_byte(c, block, 2 + sub / 4), cg_i32(c, 2 * (sub % 4)), "");
    low = LLVMBuildAnd(c->b, low, cg_i32(c, 15), "");
    high = LLVMBuildShl(c->b, LLVMBuildAnd(c->b, high, cg_i32(c, 3), ""), cg_i32(c, 4), "");
    LLVMValueRef scale = cg_sub(c, LLVMBuildOr(c->b, low, high, ""), cg_i32(c, 32));
    table_nibbles(c, iq4_values, block, 8 + 16 * sub, out);
    one_scale(out, mul_f(c, load_half(c, block, 0), int_to_float(c, scale)));
}

/* Scale 2^(e - 128): the bits of a normal float but for e = 0 and 1. */
static void decode_mxfp4(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef e = scalar_byte(c, block, 0), one = cg_i32(c, 1);
    LLVMValueRef normal = LLVMBuildShl(c->b, cg_sub(c, e, one), cg_i32(c, 23), "");
    LLVMValueRef subnormal = LLVMBuildShl(c->b, cg_i32(c, 1 << 21), e, "");
    LLVMValueRef bits = LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntUGT, e, one, ""), normal, subnormal, "");
    table_nibbles(c, fp4_values, block, 1, out);
    one_scale(out, LLVMBuildBitCast(c->b, bits, c->f32, ""));
}

/* Half of the E4M3 number in a byte, whose sign does not count: the same bits are an f16 with another exponent bias.
 * The code of NaN stands for 0. */
static LLVMValueRef half_e4m3(cg *c, LLVMValueRef block, int64_t offset) {
    LLVMValueRef code = cg_load(c, c->i8, byte_at(c, block, offset), 1), seven = LLVMConstInt(c->i8, 0x7F, 0);
    LLVMValueRef bits = LLVMBuildZExt(c->b, LLVMBuildAnd(c->b, code, seven, ""), c->i16, "");
    bits = LLVMBuildShl(c->b, bits, LLVMConstInt(c->i16, 7, 0), "");
    LLVMValueRef value = LLVMBuildFPExt(c->b, LLVMBuildBitCast(c->b, bits, c->f16, ""), c->f32, "");
    value = mul_f(c, value, cg_f32(c, 128)); /* 2^(15 - 7), and half of it */
    return LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntEQ, code, seven, ""), cg_f32(c, 0), value, "");
}

/* A scale has 8 bytes: their low nibbles, then their high ones. */
static void decode_nvfp4(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef bytes = load_16(c, block, 4 + 16 * sub), lane[16];
    LLVMValueRef low = look_up(c, fp4_values, LLVMBuildAnd(c->b, bytes, splat_i8(c, 15), ""));
    LLVMValueRef high = look_up(c, fp4_values, LLVMBuildLShr(c->b, bytes, splat_i8(c, 4), ""));
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < 16; i++) lane[i] = cg_i32(c, 8 * h + (i < 8 ? i : i + 8));
        bytes_to_float(c, LLVMBuildShuffleVector(c->b, low, high, LLVMConstVector(lane, 16), ""), 16 * h, out);
        out->scale[h] = half_e4m3(c, block, 2 * sub + h);
    }
}

/* The bytes that hold 16 ternary digits, times 3^place so that the wanted digit is the first. Places 0-4 of 32 bytes
 * and of 16 bytes, then places 0-3 of 4 bytes. */
static LLVMValueRef ternary_bytes(cg *c, LLVMValueRef block, int sixteen) {
    static const int power[5] = {1, 3, 9, 27, 81};
    LLVMValueRef lane[16], four;
    if (sixteen < 10)
        return LLVMBuildMul(c->b, load_16(c, block, 16 * (sixteen % 2)), splat_i8(c, power[sixteen / 2]), "");
    if (sixteen < 15) return LLVMBuildMul(c->b, load_16(c, block, 32), splat_i8(c, power[sixteen - 10]), "");
    four = cg_load(c, LLVMVectorType(c->i8, 4), byte_at(c, block, 48), 1);
    for (int i = 0; i < 16; i++) lane[i] = cg_i32(c, i % 4);
    four = LLVMBuildShuffleVector(c->b, four, LLVMGetPoison(LLVMTypeOf(four)), LLVMConstVector(lane, 16), "");
    for (int i = 0; i < 16; i++) lane[i] = LLVMConstInt(c->i8, (unsigned)power[i / 4], 0);
    return LLVMBuildMul(c->b, four, LLVMConstVector(lane, 16), "");
}

static void decode_tq1_0(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMTypeRef int16s = LLVMVectorType(c->i16, 16);
    for (int h = 0; h < 2; h++) {
        LLVMValueRef wide = LLVMBuildZExt(c->b, ternary_bytes(c, block, 2 * sub + h), int16s, "");
        wide = LLVMBuildMul(c->b, wide, cg_splat(c, LLVMConstInt(c->i16, 3, 0), 16), "");
        wide = LLVMBuildLShr(c->b, wide, cg_splat(c, LLVMConstInt(c->i16, 8, 0), 16), "");
        bytes_to_float(c, cg_sub(c, LLVMBuildTrunc(c->b, wide, bytes16(c), ""), splat_i8(c, 1)), 16 * h, out);
    }
    one_scale(out, load_half(c, block, 52));
}

static void decode_tq2_0(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    for (int p = 0; p < parts(c); p++)
        out->part[p] = to_float(c, cg_sub(c, two_bits(c, block, 0, sub, p), splat_i32(c, 1)));
    one_scale(out, load_half(c, block, 64));
}

static const decode_fn decoders[RT_DTYPE_COUNT] = {
    [RT_F32] = decode_f32,         [RT_F16] = decode_f16,       [RT_BF16] = decode_bf16,
    [RT_Q4_0] = decode_q4_0,       [RT_Q4_1] = decode_q4_1,     [RT_Q5_0] = decode_q5_0,
    [RT_Q5_1] = decode_q5_1,       [RT_Q8_0] = decode_q8_0,     [RT_Q4_K] = decode_q4_k,
    [RT_Q5_K] = decode_q5_k,       [RT_Q6_K] = decode_q6_k,     [RT_Q2_K] = decode_q2_k,
    [RT_Q3_K] = decode_q3_k,       [RT_IQ1_S] = decode_iq1_s,   [RT_IQ1_M] = decode_iq1_m,
    [RT_IQ2_XXS] = decode_iq2_xxs, [RT_IQ2_XS] = decode_iq2_xs, [RT_IQ2_S] = decode_iq2_s,
    [RT_IQ3_XXS] = decode_iq3_xxs, [RT_IQ3_S] = decode_iq3_s,   [RT_IQ4_NL] = decode_iq4_nl,
    [RT_IQ4_XS] = decode_iq4_xs,   [RT_TQ1_0] = decode_tq1_0,   [RT_TQ2_0] = decode_tq2_0,
    [RT_MXFP4] = decode_mxfp4,     [RT_NVFP4] = decode_nvfp4,
};

bool cg_can_decode(rt_dtype dtype) {
    return decoders[dtype] != NULL;
}

void cg_decode(cg *c, rt_dtype dtype, LLVMValueRef block, int sub, cg_codes *out) {
    *out = (cg_codes){.scale = {NULL}};
    decoders[dtype](c, block, sub, out);
}
