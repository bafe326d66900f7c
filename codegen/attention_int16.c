/* Attention of many tokens in integers: q, keys, weights and values as int16, each row with its own scale.
 *
 * The tiles are those of attention_tile.c, with two products of int16 summed in a lane at a time (vpdpwssd, pmaddwd)
 * where the form in floats has one. Codes are as wide as the sums of 32 bits allow: 2896 steps to either side for 256
 * columns, 4095 for the weights of a panel. A key's scale depends on that key alone and a weight's on its query's keys
 * of the panel, so what a row sums does not depend on the block it is in. The scale of a value is in the weights.
 */
#include "codegen/attention.h"
#include "codegen/integer.h"

#include <math.h>

enum { PAIR = 2 /* of int16, a unit of 32 bits */ };

bool attention_in_int16(const cg *c, const attention_job *job) {
    int64_t multiple = PAIR * c->lanes;
    return job->int16 && !attention_in_tiles(c, job) && job->k.stride[2] == 1 && job->v.stride[2] == 1 &&
           job->d % multiple == 0;
}

/* The largest code of both factors, for sums of `depth` products. */
static double largest_code(int64_t depth) {
    double most = floor(sqrt(2147483647.0 / (double)depth));
    return most < 32767 ? most : 32767;
}

/* What floats with this largest magnitude are multiplied by to become codes up to `code`, and what a code stands
 * for. */
static LLVMValueRef inverse_of(cg *c, LLVMValueRef most, double code) {
    return LLVMBuildFDiv(c->b, cg_f32(c, code), most, "");
}

static LLVMValueRef scale_of(cg *c, LLVMValueRef most, double code) {
    return LLVMBuildFDiv(c->b, most, cg_f32(c, code), "");
}

/* ---- rows of q ---- */

void attention_round_row(cg *c, const attention_job *job, rt_dtype dtype, double code, LLVMValueRef from,
                         LLVMValueRef to, LLVMValueRef scale) {
    LLVMValueRef d = cg_i64(c, job->d), variable = integer_largest_begin(c);
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), d, c->lanes);
    integer_largest_add(c, variable, attention_load(c, dtype, from, columns.index, c->lanes));
    cg_loop_end(c, &columns);
    LLVMValueRef most = integer_largest_end(c, variable), inverse = inverse_of(c, most, code);
    cg_store(c, scale_of(c, most, code), scale, 4);
    columns = cg_loop_begin(c, cg_i64(c, 0), d, c->lanes);
    LLVMValueRef whole = integer_nearest(c, attention_load(c, dtype, from, columns.index, c->lanes), inverse);
    cg_store(c, LLVMBuildTrunc(c->b, whole, cg_vector(c, c->i16), ""), cg_at(c, c->i16, to, columns.index), 2);
    cg_loop_end(c, &columns);
}

void attention_int16_row(cg *c, const attention_job *job, LLVMValueRef from, LLVMValueRef to, LLVMValueRef scale) {
    attention_round_row(c, job, RT_F32, largest_code(job->d), from, to, scale);
}

/* ---- panels ---- */

static void scale_keys(cg *c, const attention_job *job, const attention_cache *cache, const attention_panel *p,
                       double code, const attention_scales *to) {
    cg_loop keys = cg_loop_begin(c, cg_i64(c, 0), p->count, 1);
    LLVMValueRef slot = cg_add(c, p->slot, keys.index), variable = integer_largest_begin(c);
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), c->lanes);
    integer_largest_add(c, variable, attention_element(c, cache, slot, p->kv, columns.index, c->lanes));
    cg_loop_end_unrolled(c, &columns, 4);
    LLVMValueRef most = integer_largest_end(c, variable);
    cg_store(c, inverse_of(c, most, code), cg_at(c, c->f32, to->inverses, keys.index), 4);
    cg_store(c, scale_of(c, most, code), cg_at(c, c->f32, to->scales, keys.index), 4);
    cg_loop_end(c, &keys);
}

void attention_int16_scale_k(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *to) {
    scale_keys(c, job, &job->k, p, largest_code(job->d), to);
}

LLVMValueRef attention_int16_units(cg *c, const attention_job *job, const attention_panel *p,
                                   const attention_scales *scales, LLVMValueRef number, LLVMValueRef unit) {
    int width = PAIR * c->lanes;
    LLVMValueRef column = cg_mul(c, unit, cg_i64(c, PAIR)),
                 inverse = cg_load(c, c->f32, cg_at(c, c->f32, scales->inverses, number), 4);
    LLVMValueRef whole =
        integer_nearest(c, attention_element(c, &job->k, cg_add(c, p->slot, number), p->kv, column, width), inverse);
    return LLVMBuildBitCast(c->b, LLVMBuildTrunc(c->b, whole, LLVMVectorType(c->i16, (unsigned)width), ""),
                            cg_vector(c, c->i32), "");
}

void attention_int16_pack_v(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *scales,
                            LLVMValueRef to, int64_t most) {
    int64_t width = attention_tile_width(c);
    LLVMValueRef last = cg_sub(c, p->count, cg_i64(c, 1));
    scale_keys(c, job, &job->v, p, largest_code(most), scales);
    cg_loop keys = cg_loop_begin(c, cg_i64(c, 0), p->count, PAIR);
    LLVMValueRef line =
        cg_at(c, c->i32, to, cg_mul(c, LLVMBuildUDiv(c->b, keys.index, cg_i64(c, PAIR), ""), cg_i64(c, width)));
    LLVMValueRef number[PAIR] = {keys.index, cg_min(c, cg_add(c, keys.index, cg_i64(c, 1)), last)}, code[PAIR],
                 inverse[PAIR];
    for (int i = 0; i < PAIR; i++) inverse[i] = cg_load(c, c->f32, cg_at(c, c->f32, scales->inverses, number[i]), 4);
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), c->lanes);
    for (int i = 0; i < PAIR; i++)
        code[i] = integer_nearest(
            c, attention_element(c, &job->v, cg_add(c, p->slot, number[i]), p->kv, columns.index, c->lanes),
            inverse[i]);
    LLVMValueRef unit = integer_pair(c, code[0], code[1]);
    LLVMValueRef part = LLVMBuildUDiv(c->b, columns.index, cg_i64(c, width), ""),
                 within = LLVMBuildURem(c->b, columns.index, cg_i64(c, width), "");
    cg_store(c, unit, cg_at(c, c->i32, line, cg_add(c, cg_mul(c, part, cg_i64(c, most / PAIR * width)), within)), 4);
    cg_loop_end(c, &columns);
    cg_loop_end(c, &keys);
}

/* ---- weights ---- */

typedef struct weighing {
    const attention_rows *rows;
    LLVMValueRef values;                                              /* f32[keys] */
    LLVMValueRef most[ATTENTION_TOGETHER], total[ATTENTION_TOGETHER]; /* variables */
} weighing;

/* As floats weights take the place of scores. */
static void put_weights(cg *c, void *user, int i, LLVMValueRef index, LLVMValueRef weights, LLVMValueRef seen) {
    const weighing *to = user;
    LLVMTypeRef floats = cg_vector(c, c->f32);
    LLVMValueRef w = LLVMBuildFMul(c->b, weights, cg_load(c, floats, cg_at(c, c->f32, to->values, index), 4), "");
    w = LLVMBuildSelect(c->b, seen, w, LLVMConstNull(floats), "");
    cg_store(c, w, attention_score_at(c, to->rows, i, index), 4);
    attention_vector_top(c, to->most[i], w);
    attention_vector_add(c, to->total[i], w);
}

void attention_int16_weigh(cg *c, const attention_job *job, const attention_rows *rows, LLVMValueRef values,
                           LLVMValueRef to, LLVMValueRef scale, LLVMValueRef *top, LLVMValueRef *sum) {
    double code = largest_code(rows->keys);
    weighing w = {.rows = rows, .values = values};
    for (int i = 0; i < rows->count; i++)
        w.most[i] = attention_vector(c, RT_SCALE_LEAST), w.total[i] = attention_vector(c, 0);
    attention_weigh(c, job, rows, top, put_weights, &w, sum);
    for (int i = 0; i < rows->count; i++) {
        LLVMValueRef most = attention_vector_largest(c, w.most[i]);
        /* NaN where a value was none or infinite */
        LLVMValueRef lost = LLVMBuildFMul(c->b, attention_vector_sum(c, w.total[i]), cg_f32(c, 0), "");
        cg_store(c, LLVMBuildFAdd(c->b, scale_of(c, most, code), lost, ""), cg_at(c, c->f32, scale, cg_i64(c, i)), 4);
        LLVMValueRef codes = cg_at(c, c->i16, to, cg_add(c, rows->from, cg_i64(c, i * rows->keys)));
        integer_round(c, RT_I16, attention_score_at(c, rows, i, rows->from), cg_sub(c, rows->to, rows->from),
                      inverse_of(c, most, code), 0, codes);
    }
}
