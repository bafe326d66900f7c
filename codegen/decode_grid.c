/* Blocks whose codes number the entries of a grid: IQ1, IQ2 and IQ3. Layouts: runtime/quant.c; codebooks:
 * runtime/grid.def.
 *
 * A grid becomes a constant of the module, each entry the bytes of its elements: 64 bits for eight of them, 32 for
 * four. A piece of 32 elements is then four or eight loads, whose bytes are negated or shifted all at once. Every scale
 * is an odd number of small steps; levels, scales and d are short enough for all products to be exact.
 */
#include "codegen/decode.h"
#include "runtime/grid.h"

#include <stdio.h>

enum { MAX_ENTRIES = 8 };

/* ---- scalars ---- */

static LLVMValueRef bits_at(cg *c, LLVMValueRef x, int from, int64_t mask) {
    LLVMTypeRef type = LLVMTypeOf(x);
    if (from) x = LLVMBuildLShr(c->b, x, LLVMConstInt(type, (unsigned)from, 0), "");
    return LLVMBuildAnd(c->b, x, LLVMConstInt(type, (unsigned long long)mask, 0), "");
}

static LLVMValueRef shift_up(cg *c, LLVMValueRef x, int by) {
    return by ? LLVMBuildShl(c->b, x, LLVMConstInt(LLVMTypeOf(x), (unsigned)by, 0), "") : x;
}

static LLVMValueRef either(cg *c, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildOr(c->b, x, y, "");
}

static LLVMValueRef load_u16(cg *c, LLVMValueRef block, int64_t offset) {
    return LLVMBuildZExt(c->b, cg_load(c, c->i16, byte_at(c, block, offset), 1), c->i32, "");
}

static LLVMValueRef load_u32(cg *c, LLVMValueRef block, int64_t offset) {
    return cg_load(c, c->i32, byte_at(c, block, offset), 1);
}

/* d · (2·code + 1) · step */
static LLVMValueRef odd_scale(cg *c, LLVMValueRef d, LLVMValueRef code, double step) {
    LLVMValueRef odd = either(c, shift_up(c, code, 1), cg_i32(c, 1));
    return mul_f(c, mul_f(c, d, int_to_float(c, odd)), cg_f32(c, step));
}

/* ---- the grid ---- */

/* The constant of a grid, with values `times` what they are; one in a module. */
static LLVMValueRef grid_constant(cg *c, rt_grid_id id, int times) {
    const rt_grid *grid = rt_grid_of(id);
    char name[32];
    snprintf(name, sizeof name, "grid_%s", grid->text);
    LLVMValueRef found = LLVMGetNamedGlobal(c->llvm, name);
    if (found) return found;
    LLVMTypeRef word = grid->elems == 8 ? c->i64 : c->i32;
    LLVMValueRef *entries = GM_NEW_ARRAY(&c->arena, LLVMValueRef, grid->count);
    for (int e = 0; e < grid->count; e++) {
        int8_t value[8];
        uint64_t bytes = 0;
        rt_grid_entry(grid, e, value);
        for (int i = 0; i < grid->elems; i++) bytes |= (uint64_t)(uint8_t)(value[i] * times) << 8 * i;
        entries[e] = LLVMConstInt(word, bytes, 0);
    }
    LLVMValueRef table = LLVMAddGlobal(c->llvm, LLVMArrayType2(word, (uint64_t)grid->count), name);
    LLVMSetInitializer(table, LLVMConstArray2(word, entries, (uint64_t)grid->count));
    LLVMSetLinkage(table, LLVMInternalLinkage);
    LLVMSetGlobalConstant(table, 1);
    LLVMSetAlignment(table, 64);
    return table;
}

/* The bytes of a piece whose entries have these numbers: four, or eight of a grid of four elements. */
static LLVMValueRef look_up(cg *c, rt_grid_id id, int times, LLVMValueRef const *number) {
    int count = CG_PIECE / rt_grid_of(id)->elems;
    LLVMTypeRef word = count == 4 ? c->i64 : c->i32;
    LLVMValueRef table = grid_constant(c, id, times), all = LLVMGetPoison(LLVMVectorType(word, (unsigned)count));
    for (int i = 0; i < count; i++) {
        LLVMValueRef at = cg_at(c, word, table, LLVMBuildZExt(c->b, number[i], c->i64, ""));
        all = LLVMBuildInsertElement(c->b, all, cg_load(c, word, at, count == 4 ? 8 : 4), cg_i32(c, i), "");
    }
    return LLVMBuildBitCast(c->b, all, LLVMVectorType(c->i8, CG_PIECE), "");
}

/* Byte g of a 32-bit word in all eight bytes of group g. */
static LLVMValueRef by_eights(cg *c, LLVMValueRef word) {
    LLVMValueRef bytes = LLVMBuildBitCast(c->b, word, LLVMVectorType(c->i8, 4), ""), lane[CG_PIECE];
    for (int i = 0; i < CG_PIECE; i++) lane[i] = cg_i32(c, i / 8);
    return LLVMBuildShuffleVector(c->b, bytes, LLVMGetPoison(LLVMTypeOf(bytes)), LLVMConstVector(lane, CG_PIECE), "");
}

/* ---- signs ---- */

/* Each byte's eighth bit, which makes the number of its bits even, from the other seven. */
static LLVMValueRef even_bytes(cg *c, LLVMValueRef sevens) {
    LLVMValueRef folded = sevens; /* the lowest bit of a byte only ever meets bits of the same byte */
    for (int by = 4; by; by /= 2)
        folded = LLVMBuildXor(c->b, folded, LLVMBuildLShr(c->b, folded, cg_i32(c, by), ""), "");
    return either(c, sevens, shift_up(c, bits_at(c, folded, 0, 0x01010101), 7));
}

/* The bytes of a piece, negated where a bit of `signs` is set, as codes. */
static void negate_into(cg *c, LLVMValueRef bytes, LLVMValueRef signs, cg_codes *out) {
    LLVMValueRef bit[CG_PIECE], zero = LLVMConstNull(LLVMTypeOf(bytes));
    for (int i = 0; i < CG_PIECE; i++) bit[i] = LLVMConstInt(c->i8, 1u << i % 8, 0);
    LLVMValueRef set = LLVMBuildAnd(c->b, by_eights(c, signs), LLVMConstVector(bit, CG_PIECE), "");
    set = LLVMBuildICmp(c->b, LLVMIntNE, set, zero, "");
    bytes_to_float(c, LLVMBuildSelect(c->b, set, LLVMBuildNeg(c->b, bytes, ""), bytes, ""), 0, out);
}

/* A 32-bit word of four times seven signs, then a scale: the signs. */
static LLVMValueRef packed_signs(cg *c, LLVMValueRef word) {
    LLVMValueRef signs = cg_i32(c, 0);
    for (int g = 0; g < 4; g++) signs = either(c, signs, shift_up(c, bits_at(c, word, 7 * g, 127), 8 * g));
    return even_bytes(c, signs);
}

/* ---- two and three bits ---- */

void decode_iq2_xxs(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef number[MAX_ENTRIES], word = load_u32(c, block, 2 + 8 * sub + 4);
    for (int g = 0; g < 4; g++) number[g] = scalar_byte(c, block, 2 + 8 * sub + g);
    negate_into(c, look_up(c, RT_GRID_IQ2_XXS, 1, number), packed_signs(c, word), out);
    one_scale(out, odd_scale(c, load_half(c, block, 0), bits_at(c, word, 28, 15), 0.125));
}

/* Two 4-bit scales in one byte. */
static void iq2_scales(cg *c, LLVMValueRef block, int64_t offset, cg_codes *out) {
    LLVMValueRef both = scalar_byte(c, block, offset);
    for (int h = 0; h < 2; h++)
        out->scale[h] = odd_scale(c, load_half(c, block, 0), bits_at(c, both, 4 * h, 15), 0.125);
}

void decode_iq2_xs(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef number[MAX_ENTRIES], signs = cg_i32(c, 0);
    for (int g = 0; g < 4; g++) {
        LLVMValueRef code = load_u16(c, block, 2 + 8 * sub + 2 * g);
        number[g] = bits_at(c, code, 0, 511);
        signs = either(c, signs, shift_up(c, bits_at(c, code, 9, 127), 8 * g));
    }
    negate_into(c, look_up(c, RT_GRID_IQ2_XS, 1, number), even_bytes(c, signs), out);
    iq2_scales(c, block, 66 + sub, out);
}

void decode_iq2_s(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef number[MAX_ENTRIES], high = scalar_byte(c, block, 66 + sub);
    for (int g = 0; g < 4; g++)
        number[g] = either(c, scalar_byte(c, block, 2 + 4 * sub + g), shift_up(c, bits_at(c, high, 2 * g, 3), 8));
    negate_into(c, look_up(c, RT_GRID_IQ2_S, 1, number), load_u32(c, block, 34 + 4 * sub), out);
    iq2_scales(c, block, 74 + sub, out);
}

void decode_iq3_xxs(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef number[MAX_ENTRIES], word = load_u32(c, block, 66 + 4 * sub);
    for (int g = 0; g < 8; g++) number[g] = scalar_byte(c, block, 2 + 8 * sub + g);
    negate_into(c, look_up(c, RT_GRID_IQ3_XXS, 1, number), packed_signs(c, word), out);
    one_scale(out, odd_scale(c, load_half(c, block, 0), bits_at(c, word, 28, 15), 0.25));
}

void decode_iq3_s(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef number[MAX_ENTRIES], high = scalar_byte(c, block, 66 + sub),
                                      scales = scalar_byte(c, block, 106 + sub / 2);
    for (int g = 0; g < 8; g++)
        number[g] = either(c, scalar_byte(c, block, 2 + 8 * sub + g), shift_up(c, bits_at(c, high, g, 1), 8));
    negate_into(c, look_up(c, RT_GRID_IQ3_S, 1, number), load_u32(c, block, 74 + 4 * sub), out);
    one_scale(out, odd_scale(c, load_half(c, block, 0), bits_at(c, scales, 4 * (sub % 2), 15), 1));
}

/* ---- one bit: elements d · (level ± 1/8), in eighths of d ---- */

/* low: where the entries' low bytes are; high: their upper three bits; minus: bit 8·g is set where group g is shifted
 * down. */
static void iq1_codes(cg *c, LLVMValueRef block, int64_t low, LLVMValueRef const *high, LLVMValueRef minus,
                      cg_codes *out) {
    LLVMValueRef number[MAX_ENTRIES];
    for (int g = 0; g < 4; g++) number[g] = either(c, scalar_byte(c, block, low + g), shift_up(c, high[g], 8));
    /* a byte of 1 or, as 255, -1 each */
    LLVMValueRef ones = cg_add(c, cg_i32(c, 0x01010101), cg_mul(c, minus, cg_i32(c, 0xFE)));
    bytes_to_float(c, cg_add(c, look_up(c, RT_GRID_IQ1_S, 8, number), by_eights(c, ones)), 0, out);
}

void decode_iq1_s(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef rest = load_u16(c, block, 34 + 2 * sub), high[4];
    for (int g = 0; g < 4; g++) high[g] = bits_at(c, rest, 3 * g, 7);
    iq1_codes(c, block, 2 + 4 * sub, high, cg_mul(c, bits_at(c, rest, 15, 1), cg_i32(c, 0x01010101)), out);
    one_scale(out, odd_scale(c, load_half(c, block, 0), bits_at(c, rest, 12, 7), 0.125));
}

/* d in four times four bits, on top of each sixteen. */
static LLVMValueRef iq1_m_d(cg *c, LLVMValueRef scales) {
    LLVMValueRef bits = LLVMConstNull(c->i64);
    for (int q = 0; q < 4; q++) bits = either(c, bits, bits_at(c, scales, 12 + 12 * q, 15 << 4 * q));
    LLVMValueRef half = LLVMBuildBitCast(c->b, LLVMBuildTrunc(c->b, bits, c->i16, ""), c->f16, "");
    return LLVMBuildFPExt(c->b, half, c->f32, "");
}

void decode_iq1_m(cg *c, LLVMValueRef block, int sub, cg_codes *out) {
    LLVMValueRef nibbles = load_u16(c, block, 32 + 2 * sub), high[4], minus = cg_i32(c, 0);
    for (int g = 0; g < 4; g++) {
        high[g] = bits_at(c, nibbles, 4 * g, 7);
        minus = either(c, minus, shift_up(c, bits_at(c, nibbles, 4 * g + 3, 1), 8 * g));
    }
    iq1_codes(c, block, 4 * sub, high, minus, out);
    LLVMValueRef scales = cg_load(c, c->i64, byte_at(c, block, 48), 1), d = iq1_m_d(c, scales);
    for (int h = 0; h < 2; h++) {
        LLVMValueRef code = bits_at(c, scales, 16 * (sub / 2) + 6 * (sub % 2) + 3 * h, 7);
        out->scale[h] = odd_scale(c, d, LLVMBuildTrunc(c->b, code, c->i32, ""), 0.125);
    }
}
