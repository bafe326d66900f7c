/* Unpacking interleaved rows: see lanes.h. */
#include "codegen/lanes.h"
#include "codegen/decode.h"

enum {
    RUN = RT_INTERLEAVED_RUN,
    UNIT = RT_INTERLEAVED_UNIT,
    UNITS = LANES_UNITS,
    ROWS = RT_INTERLEAVED_ROWS,
    HALVES = LANES_HALVES
};

/* Vector p of what begins at `offset` and has `bytes` for each row. */
static LLVMValueRef part_at(cg *c, LLVMValueRef from, int64_t offset, LLVMValueRef p, int64_t bytes) {
    return cg_at(c, c->i8, from, cg_add(c, cg_i64(c, offset), cg_mul(c, p, cg_i64(c, bytes * c->lanes))));
}

/* ---- codes ---- */

LLVMValueRef lanes_run(cg *c, rt_dtype dtype, LLVMValueRef block, LLVMValueRef number) {
    rt_interleaved_places at = rt_interleaved_layout(dtype);
    return cg_at(c, c->i8, block, cg_add(c, cg_mul(c, number, cg_i64(c, at.run_bytes)), cg_i64(c, at.runs)));
}

static LLVMValueRef load_codes(cg *c, LLVMValueRef run, int64_t offset, LLVMValueRef p) {
    return cg_load(c, LLVMVectorType(c->i8, UNIT * (unsigned)c->lanes), part_at(c, run, offset, p, UNIT), 1);
}

static LLVMValueRef masked(cg *c, LLVMValueRef bytes, int mask) {
    return LLVMBuildAnd(c->b, bytes, cg_splat(c, LLVMConstInt(c->i8, (unsigned)mask, 0), UNIT * c->lanes), "");
}

/* Bytes shifted left by `by`, right when it is negative, as the int16 that they lie in: to be masked. */
static LLVMValueRef shifted(cg *c, LLVMValueRef bytes, int by) {
    LLVMTypeRef int16s = LLVMVectorType(c->i16, UNIT / 2 * (unsigned)c->lanes);
    LLVMValueRef amount = cg_splat(c, LLVMConstInt(c->i16, (unsigned)(by < 0 ? -by : by), 0), UNIT / 2 * c->lanes),
                 v = LLVMBuildBitCast(c->b, bytes, int16s, "");
    if (by == 0) return bytes;
    v = by < 0 ? LLVMBuildLShr(c->b, v, amount, "") : LLVMBuildShl(c->b, v, amount, "");
    return LLVMBuildBitCast(c->b, v, LLVMTypeOf(bytes), "");
}

LLVMValueRef lanes_unit(cg *c, rt_dtype dtype, LLVMValueRef run, int u, LLVMValueRef p) {
    int bits = rt_interleaved_of(dtype)->bits, planes = bits - 4, half = UNITS / 2;
    if (bits == 8) return load_codes(c, run, u * RT_INTERLEAVED_VECTOR, p);
    LLVMValueRef low = load_codes(c, run, u % half * RT_INTERLEAVED_VECTOR, p);
    low = masked(c, shifted(c, low, u < half ? 0 : -4), 15);
    if (!planes) return low;
    int units = UNITS / planes;
    LLVMValueRef high = load_codes(c, run, rt_interleaved_layout(dtype).high + u / units * RT_INTERLEAVED_VECTOR, p);
    high = masked(c, shifted(c, high, 4 - planes * (u % units)), ((1 << planes) - 1) << 4);
    return LLVMBuildOr(c->b, low, high, "");
}

/* ---- scales ---- */

/* f16 of the rows in vector p, from `offset` of a block on. */
static LLVMValueRef load_factors(cg *c, LLVMValueRef block, int64_t offset, LLVMValueRef p) {
    LLVMValueRef halves = cg_load(c, cg_vector(c, c->f16), part_at(c, block, offset, p, 2), 2);
    return LLVMBuildFPExt(c->b, halves, cg_vector(c, c->f32), "");
}

/* Bytes of the rows in vector p: number `index` of those that begin at `offset` of a block. */
static LLVMValueRef load_bytes(cg *c, LLVMValueRef block, int64_t offset, LLVMValueRef index, LLVMValueRef p,
                               bool is_signed) {
    LLVMValueRef from = cg_at(c, c->i8, block, cg_mul(c, index, cg_i64(c, ROWS)));
    LLVMValueRef bytes = cg_load(c, cg_vector(c, c->i8), part_at(c, from, offset, p, 1), 1);
    return to_float(c, is_signed ? LLVMBuildSExt(c->b, bytes, cg_vector(c, c->i32), "")
                                 : LLVMBuildZExt(c->b, bytes, cg_vector(c, c->i32), ""));
}

void lanes_scales(cg *c, rt_dtype dtype, LLVMValueRef block, LLVMValueRef number, LLVMValueRef p, LLVMValueRef *out) {
    const rt_interleaved *type = rt_interleaved_of(dtype);
    int64_t offset = rt_interleaved_layout(dtype).scales;
    out[0] = out[1] = load_factors(c, block, 0, p);
    if (type->scale_run == RUN) out[0] = out[1] = mul_f(c, load_bytes(c, block, offset, number, p, false), out[0]);
    for (int h = 0; h < HALVES && type->scale_run == RUN / HALVES; h++) {
        LLVMValueRef index = cg_add(c, cg_mul(c, number, cg_i64(c, HALVES)), cg_i64(c, h));
        out[h] = mul_f(c, load_bytes(c, block, offset, index, p, true), out[h]);
    }
}

LLVMValueRef lanes_minimum(cg *c, rt_dtype dtype, LLVMValueRef block, LLVMValueRef number, LLVMValueRef p) {
    rt_interleaved_places at = rt_interleaved_layout(dtype);
    return mul_f(c, load_factors(c, block, at.minimum_factor, p), load_bytes(c, block, at.minima, number, p, false));
}
