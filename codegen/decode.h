/* Shared by the decoders of stored blocks (decode.c, decode_grid.c): a decoder is a row of `decoders`. Internal to
 * codegen/. */
#ifndef GM_CODEGEN_DECODE_H
#define GM_CODEGEN_DECODE_H

#include "codegen/cg.h"

/* *out = elements 32·sub … of the block at `block`; scales and minima it leaves alone are none. */
typedef void (*decode_fn)(cg *c, LLVMValueRef block, int sub, cg_codes *out);

/* ---- decode_grid.c ---- */

void decode_iq1_s(cg *c, LLVMValueRef block, int sub, cg_codes *out);
void decode_iq1_m(cg *c, LLVMValueRef block, int sub, cg_codes *out);
void decode_iq2_xxs(cg *c, LLVMValueRef block, int sub, cg_codes *out);
void decode_iq2_xs(cg *c, LLVMValueRef block, int sub, cg_codes *out);
void decode_iq2_s(cg *c, LLVMValueRef block, int sub, cg_codes *out);
void decode_iq3_xxs(cg *c, LLVMValueRef block, int sub, cg_codes *out);
void decode_iq3_s(cg *c, LLVMValueRef block, int sub, cg_codes *out);

/* ---- pieces ---- */

static inline int parts(const cg *c) {
    return CG_PIECE / c->lanes;
}

static inline LLVMValueRef byte_at(cg *c, LLVMValueRef block, int64_t offset) {
    return cg_at(c, c->i8, block, cg_i64(c, offset));
}

static inline LLVMValueRef load_half(cg *c, LLVMValueRef block, int64_t offset) {
    LLVMValueRef half = cg_load(c, c->f16, byte_at(c, block, offset), 1);
    return LLVMBuildFPExt(c->b, half, c->f32, "");
}

static inline LLVMValueRef scalar_byte(cg *c, LLVMValueRef block, int64_t offset) {
    return LLVMBuildZExt(c->b, cg_load(c, c->i8, byte_at(c, block, offset), 1), c->i32, "");
}

static inline LLVMValueRef to_float(cg *c, LLVMValueRef codes) {
    return LLVMBuildSIToFP(c->b, codes, cg_vector(c, c->f32), "");
}

static inline LLVMValueRef mul_f(cg *c, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildFMul(c->b, x, y, "");
}

static inline LLVMValueRef int_to_float(cg *c, LLVMValueRef x) {
    return LLVMBuildSIToFP(c->b, x, c->f32, "");
}

static inline void one_scale(cg_codes *out, LLVMValueRef scale) {
    out->scale[0] = out->scale[1] = scale;
}

/* Signed bytes as the floats of elements first…: as many as the vector has. */
static inline void bytes_to_float(cg *c, LLVMValueRef bytes, int first, cg_codes *out) {
    LLVMValueRef lane[16], none = LLVMGetPoison(LLVMTypeOf(bytes));
    int count = (int)LLVMGetVectorSize(LLVMTypeOf(bytes));
    for (int start = 0; start < count; start += c->lanes) {
        for (int i = 0; i < c->lanes; i++) lane[i] = cg_i32(c, start + i);
        LLVMValueRef part = LLVMBuildShuffleVector(c->b, bytes, none, LLVMConstVector(lane, (unsigned)c->lanes), "");
        out->part[(first + start) / c->lanes] = to_float(c, LLVMBuildSExt(c->b, part, cg_vector(c, c->i32), ""));
    }
}

#endif
