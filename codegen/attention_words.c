/* Attention of many tokens in integers: q, keys, weights and values as words of 16 bits, each row of them with its own scale.
 *
 * The tiles are those of attention_tile.c, with two products of words summed in a lane at a time (vpdpwssd, pmaddwd) where the form in
 * floats has one. Codes are as wide as the sums of 32 bits allow: 2896 steps to either side for 256 columns, 4095 for the weights of a
 * panel. A key's scale depends on that key alone and a weight's on its query's keys of the panel, so what a row sums does not depend on
 * the block it is in. The scale of a value is in the weights.
 */
#include "codegen/attention.h"
#include "codegen/integer.h"

#include <math.h>

enum { WORDS = 2 /* to a unit of 32 bits */ };

bool attention_in_words(const cg *c, const attention_job *job) {
    int64_t multiple = WORDS * c->lanes;
    return job->words && job->k.stride[2] == 1 && job->v.stride[2] == 1 && job->d % multiple == 0;
}

/* The largest code of both factors, for sums of `depth` products. */
static double largest_code(int64_t depth) {
    double most = floor(sqrt(2147483647.0 / (double)depth));
    return most < 32767 ? most : 32767;
}

/* x as codes, in the low 16 bits of each lane: adding 1.5·2^23 leaves the integer there. */
static LLVMValueRef rounded(cg *c, LLVMValueRef x, LLVMValueRef inverse) {
    LLVMTypeRef type = LLVMTypeOf(x);
    bool one = LLVMGetTypeKind(type) != LLVMVectorTypeKind;
    int width = one ? 1 : (int)LLVMGetVectorSize(type);
    LLVMValueRef rounder = cg_f32(c, 12582912.0);
    if (!one) rounder = cg_splat(c, rounder, width), inverse = cg_splat(c, inverse, width);
    LLVMTypeRef whole = one ? c->i32 : LLVMVectorType(c->i32, (unsigned)width);
    return LLVMBuildBitCast(c->b, LLVMBuildFAdd(c->b, LLVMBuildFMul(c->b, x, inverse, ""), rounder, ""), whole, "");
}

/* What a row with this largest magnitude is multiplied by to become codes up to `code`. Rows of zeros stay so; NaN and infinity are in
 * the scale. */
static LLVMValueRef inverse_of(cg *c, LLVMValueRef most, double code) {
    LLVMValueRef some = LLVMBuildFCmp(c->b, LLVMRealOGT, most, cg_f32(c, IR_SCALE_LEAST), "");
    return LLVMBuildSelect(c->b, some, LLVMBuildFDiv(c->b, cg_f32(c, code), most, ""), cg_f32(c, 0), "");
}

/* A row to be rounded: of a cache, or floats. */
typedef struct row {
    const attention_cache *cache; /* NULL: floats */
    LLVMValueRef slot, kv, floats;
} row;

static LLVMValueRef load(cg *c, const row *r, LLVMValueRef column, int width) {
    if (r->cache) return attention_element(c, r->cache, r->slot, r->kv, column, width);
    return cg_load(c, LLVMVectorType(c->f32, (unsigned)width), cg_at(c, c->f32, r->floats, column), 4);
}

/* The largest magnitude in a row, by whole vectors. */
static LLVMValueRef largest(cg *c, const row *r, int64_t d) {
    LLVMTypeRef bits = vector(c, c->i32);
    LLVMValueRef most = cg_variable(c, bits, NULL), magnitude = splat(c, cg_i32(c, 0x7FFFFFFF));
    LLVMBuildStore(c->b, LLVMConstNull(bits), most);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, d), c->lanes);
    LLVMValueRef x = LLVMBuildAnd(c->b, LLVMBuildBitCast(c->b, load(c, r, loop.index, c->lanes), bits, ""), magnitude, "");
    LLVMBuildStore(c->b, cg_max(c, x, LLVMBuildLoad2(c->b, bits, most, "")), most);
    cg_loop_end_unrolled(c, &loop, 4);
    LLVMValueRef all = LLVMBuildLoad2(c->b, bits, most, "");
    return LLVMBuildBitCast(c->b, cg_intrinsic(c, "llvm.vector.reduce.smax", bits, &all, 1), c->f32, "");
}

/* ---- rows of q ---- */

void attention_words_row(cg *c, const attention_job *job, LLVMValueRef from, LLVMValueRef to, LLVMValueRef scale) {
    double code = largest_code(job->d);
    row r = {.floats = from};
    LLVMValueRef most = largest(c, &r, job->d), inverse = inverse_of(c, most, code);
    cg_store(c, LLVMBuildFDiv(c->b, most, cg_f32(c, code), ""), scale, 4);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), c->lanes);
    LLVMValueRef whole = rounded(c, load(c, &r, loop.index, c->lanes), inverse);
    cg_store(c, LLVMBuildTrunc(c->b, whole, vector(c, c->i16), ""), cg_at(c, c->i16, to, loop.index), 2);
    cg_loop_end(c, &loop);
}

/* ---- panels ---- */

/* inverses[i], scales[i] of the panel's keys. */
static void scale_keys(cg *c, const attention_job *job, const attention_cache *cache, const attention_panel *p, double code, const attention_scales *to) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), p->count, 1);
    row r = {.cache = cache, .slot = cg_add(c, p->slot, loop.index), .kv = p->kv};
    LLVMValueRef most = largest(c, &r, job->d);
    cg_store(c, inverse_of(c, most, code), cg_at(c, c->f32, to->inverses, loop.index), 4);
    cg_store(c, LLVMBuildFDiv(c->b, most, cg_f32(c, code), ""), cg_at(c, c->f32, to->scales, loop.index), 4);
    cg_loop_end(c, &loop);
}

/* `lanes` keys from `first` on, through squares of units. */
static void pack_squares(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *scales, LLVMValueRef first, LLVMValueRef to) {
    LLVMValueRef last = cg_sub(c, p->count, cg_i64(c, 1)), v[16];
    int width = WORDS * c->lanes;
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d / WORDS), c->lanes);
    for (int i = 0; i < c->lanes; i++) { /* those past the end are a key again: nobody sees them */
        LLVMValueRef number = cg_min(c, cg_add(c, first, cg_i64(c, i)), last), column = cg_mul(c, loop.index, cg_i64(c, WORDS));
        LLVMValueRef x = attention_element(c, &job->k, cg_add(c, p->slot, number), p->kv, column, width);
        LLVMValueRef whole = rounded(c, x, cg_load(c, c->f32, cg_at(c, c->f32, scales->inverses, number), 4));
        v[i] = LLVMBuildBitCast(c->b, LLVMBuildTrunc(c->b, whole, LLVMVectorType(c->i16, (unsigned)width), ""), vector(c, c->i32), "");
    }
    cg_transpose(c, v);
    for (int i = 0; i < c->lanes; i++) {
        LLVMValueRef line = cg_mul(c, cg_add(c, loop.index, cg_i64(c, i)), cg_i64(c, attention_tile_width(c)));
        cg_store(c, v[i], cg_at(c, c->i32, to, line), 4);
    }
    cg_loop_end(c, &loop);
}

void attention_words_pack_k(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *scales, LLVMValueRef to) {
    int64_t width = attention_tile_width(c);
    scale_keys(c, job, &job->k, p, largest_code(job->d), scales);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), p->count, width);
    LLVMValueRef lines = cg_at(c, c->i32, to, cg_mul(c, loop.index, cg_i64(c, job->d / WORDS)));
    for (int64_t v = 0; v < width; v += c->lanes)
        pack_squares(c, job, p, scales, cg_add(c, loop.index, cg_i64(c, v)), cg_at(c, c->i32, lines, cg_i64(c, v)));
    cg_loop_end(c, &loop);
}

void attention_words_pack_v(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *scales, LLVMValueRef to, int64_t most) {
    int64_t width = attention_tile_width(c);
    LLVMValueRef low = splat(c, cg_i32(c, 0xFFFF)), sixteen = splat(c, cg_i32(c, 16)), last = cg_sub(c, p->count, cg_i64(c, 1));
    scale_keys(c, job, &job->v, p, largest_code(most), scales);
    cg_loop keys = cg_loop_begin(c, cg_i64(c, 0), p->count, WORDS);
    LLVMValueRef line = cg_at(c, c->i32, to, cg_mul(c, LLVMBuildUDiv(c->b, keys.index, cg_i64(c, WORDS), ""), cg_i64(c, width)));
    LLVMValueRef number[WORDS] = {keys.index, cg_min(c, cg_add(c, keys.index, cg_i64(c, 1)), last)}, word[WORDS], inverse[WORDS];
    for (int i = 0; i < WORDS; i++) inverse[i] = cg_load(c, c->f32, cg_at(c, c->f32, scales->inverses, number[i]), 4);
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), c->lanes);
    for (int i = 0; i < WORDS; i++)
        word[i] = rounded(c, attention_element(c, &job->v, cg_add(c, p->slot, number[i]), p->kv, columns.index, c->lanes), inverse[i]);
    LLVMValueRef unit = LLVMBuildOr(c->b, LLVMBuildAnd(c->b, word[0], low, ""), LLVMBuildShl(c->b, word[1], sixteen, ""), "");
    LLVMValueRef part = LLVMBuildUDiv(c->b, columns.index, cg_i64(c, width), ""), within = LLVMBuildURem(c->b, columns.index, cg_i64(c, width), "");
    cg_store(c, unit, cg_at(c, c->i32, line, cg_add(c, cg_mul(c, part, cg_i64(c, most / WORDS * width)), within)), 4);
    cg_loop_end(c, &columns);
    cg_loop_end(c, &keys);
}

/* ---- weights ---- */

void attention_words_weights(cg *c, LLVMValueRef weights, LLVMValueRef values, LLVMValueRef low, LLVMValueRef high, int64_t keys, LLVMValueRef to, LLVMValueRef scale) {
    double code = largest_code(keys);
    LLVMValueRef most = cg_variable(c, c->f32, NULL), total = cg_variable(c, c->f32, NULL);
    LLVMBuildStore(c->b, cg_f32(c, 0), most);
    LLVMBuildStore(c->b, cg_f32(c, 0), total);
    cg_loop scan = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, keys), 1);
    LLVMValueRef at = cg_at(c, c->f32, weights, scan.index);
    LLVMValueRef w = LLVMBuildFMul(c->b, cg_load(c, c->f32, at, 4), cg_load(c, c->f32, cg_at(c, c->f32, values, scan.index), 4), "");
    LLVMValueRef after = LLVMBuildICmp(c->b, LLVMIntSGE, scan.index, low, ""), before = LLVMBuildICmp(c->b, LLVMIntSLT, scan.index, high, "");
    w = LLVMBuildSelect(c->b, LLVMBuildAnd(c->b, after, before, ""), w, cg_f32(c, 0), "");
    cg_store(c, w, at, 4);
    LLVMBuildStore(c->b, attention_larger(c, w, LLVMBuildLoad2(c->b, c->f32, most, "")), most);
    LLVMValueRef sum = LLVMBuildFAdd(c->b, LLVMBuildLoad2(c->b, c->f32, total, ""), w, "");
    LLVMSetFastMathFlags(sum, LLVMFastMathAllowReassoc | LLVMFastMathNoSignedZeros);
    LLVMBuildStore(c->b, sum, total);
    cg_loop_end(c, &scan);
    LLVMValueRef top = LLVMBuildLoad2(c->b, c->f32, most, ""), inverse = inverse_of(c, top, code);
    LLVMValueRef lost = LLVMBuildFMul(c->b, LLVMBuildLoad2(c->b, c->f32, total, ""), cg_f32(c, 0), ""); /* NaN where a value was none or infinite */
    cg_store(c, LLVMBuildFAdd(c->b, LLVMBuildFDiv(c->b, top, cg_f32(c, code), ""), lost, ""), scale, 4);
    cg_loop round = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, keys), 1);
    LLVMValueRef whole = rounded(c, cg_load(c, c->f32, cg_at(c, c->f32, weights, round.index), 4), inverse);
    cg_store(c, LLVMBuildTrunc(c->b, whole, c->i16, ""), cg_at(c, c->i16, to, round.index), 2);
    cg_loop_end(c, &round);
}
