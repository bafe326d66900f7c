/* attention for one token (decode): each thread takes query heads; scores by vector dot products, or where the keys of a column are
 * neighbours by a vector of keys at once; then an exponential pass, then the weighted sum of V in blocks of columns held in registers.
 */
#include "codegen/attention.h"

enum { COLUMN_BLOCK = 8, KEY_VECTORS = 4 };

/* The address of V's or K's row in `slot`, of kv head `kv`. */
static LLVMValueRef row_of(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv) {
    return cg_at(c, cg_type(c, cache->dtype), c->code.args[cache->data], attention_offset(c, slot, cache->stride[0], kv, cache->stride[1], kv, 0));
}

static LLVMValueRef scale_of(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv) {
    LLVMValueRef at = attention_offset(c, slot, cache->scale_stride[0], kv, cache->scale_stride[1], kv, 0);
    return cg_load(c, c->f32, cg_at(c, c->f32, c->code.args[cache->scale], at), 4);
}

/* ---- scores ---- */

static LLVMValueRef dot(cg *c, const attention_job *job, LLVMValueRef q, LLVMValueRef k) {
    LLVMValueRef acc[4];
    int64_t vectors = job->d / c->lanes, used = vectors < 4 ? vectors : 4;
    for (int64_t i = 0; i < vectors; i++) {
        LLVMValueRef at = cg_i64(c, i * c->lanes);
        LLVMValueRef x = attention_load(c, RT_F32, q, at, c->lanes), y = attention_load(c, job->k.dtype, k, at, c->lanes);
        acc[i % 4] = i < 4 ? LLVMBuildFMul(c->b, x, y, "") : cg_fma(c, x, y, acc[i % 4]);
    }
    for (int64_t i = 1; i < used; i++) acc[0] = LLVMBuildFAdd(c->b, acc[0], acc[i], "");
    LLVMValueRef sum = vectors ? cg_sum_lanes(c, acc[0]) : cg_f32(c, 0);
    for (int64_t i = vectors * c->lanes; i < job->d; i++) {
        LLVMValueRef at = cg_i64(c, i);
        sum = cg_fma(c, attention_load(c, RT_F32, q, at, 1), attention_load(c, job->k.dtype, k, at, 1), sum);
    }
    return sum;
}

static void score_rows(cg *c, const attention_job *job, const attention_runs *run, LLVMValueRef q, LLVMValueRef kv, LLVMValueRef scores) {
    cg_loop key = cg_loop_begin(c, cg_i64(c, 0), run->count, 1);
    LLVMValueRef slot = cg_add(c, run->slot, key.index), s = dot(c, job, q, row_of(c, &job->k, slot, kv));
    if (job->k.scale >= 0) s = LLVMBuildFMul(c->b, s, scale_of(c, &job->k, slot, kv), "");
    cg_store(c, s, cg_at(c, c->f32, scores, cg_add(c, run->first, key.index)), 4);
    cg_loop_end(c, &key);
}

/* scores[first + from …) for `count` vectors of `width` keys: the sum over the columns of q times the column of K. */
static void score_vectors(cg *c, const attention_job *job, const attention_runs *run, LLVMValueRef from, int count, int width, LLVMValueRef q,
                          LLVMValueRef kv, LLVMValueRef scores) {
    LLVMTypeRef type = width == 1 ? c->f32 : LLVMVectorType(c->f32, (unsigned)width);
    LLVMValueRef acc[KEY_VECTORS], slot = cg_add(c, run->slot, from);
    for (int i = 0; i < count; i++) acc[i] = cg_variable(c, type, LLVMConstNull(type));
    LLVMValueRef keys = row_of(c, &job->k, slot, kv);
    cg_loop column = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), 1);
    LLVMValueRef x = attention_load(c, RT_F32, q, column.index, 1), at = cg_mul(c, column.index, cg_i64(c, job->k.stride[2]));
    if (width > 1) x = cg_splat(c, x, width);
    for (int i = 0; i < count; i++) {
        LLVMValueRef k = attention_load(c, job->k.dtype, keys, cg_add(c, at, cg_i64(c, i * width)), width);
        LLVMBuildStore(c->b, cg_fma(c, x, k, LLVMBuildLoad2(c->b, type, acc[i], "")), acc[i]);
    }
    cg_loop_end(c, &column);
    for (int i = 0; i < count; i++) {
        LLVMValueRef done = cg_add(c, from, cg_i64(c, i * width)), s = LLVMBuildLoad2(c->b, type, acc[i], "");
        cg_store(c, s, cg_at(c, c->f32, scores, cg_add(c, run->first, done)), 4);
    }
}

static void scale_scores(cg *c, const attention_job *job, const attention_runs *run, LLVMValueRef kv, LLVMValueRef scores) {
    cg_loop key = cg_loop_begin(c, cg_i64(c, 0), run->count, 1);
    LLVMValueRef at = cg_at(c, c->f32, scores, cg_add(c, run->first, key.index)), scale = scale_of(c, &job->k, cg_add(c, run->slot, key.index), kv);
    cg_store(c, LLVMBuildFMul(c->b, cg_load(c, c->f32, at, 4), scale, ""), at, 4);
    cg_loop_end(c, &key);
}

/* K of [KV,D,S]: blocks of vectors of keys, then single vectors, then single keys. */
static void score_columns(cg *c, const attention_job *job, const attention_runs *run, LLVMValueRef q, LLVMValueRef kv, LLVMValueRef scores) {
    const int widths[] = {c->lanes, c->lanes, 1}, counts[] = {KEY_VECTORS, 1, 1};
    LLVMValueRef from = cg_i64(c, 0);
    for (int i = 0; i < 3; i++) {
        int64_t step = (int64_t)widths[i] * counts[i];
        LLVMValueRef to = LLVMBuildSDiv(c->b, run->count, cg_i64(c, step), "");
        to = cg_mul(c, to, cg_i64(c, step));
        cg_loop block = cg_loop_begin(c, from, to, step);
        score_vectors(c, job, run, block.index, counts[i], widths[i], q, kv, scores);
        cg_loop_end(c, &block);
        from = to;
    }
    if (job->k.scale >= 0) scale_scores(c, job, run, kv, scores);
}

/* ---- the weighted sum ---- */

/* out[from, from + count·width) = factor · Σ_j weight[j]·V[j], `width` floats to a register. */
static void weigh_columns(cg *c, const attention_job *job, LLVMValueRef weights, LLVMValueRef low, LLVMValueRef keys, LLVMValueRef kv,
                          LLVMValueRef factor, LLVMValueRef out, int64_t from, int64_t count, int width) {
    LLVMTypeRef type = width == 1 ? c->f32 : LLVMVectorType(c->f32, (unsigned)width);
    LLVMValueRef acc[COLUMN_BLOCK];
    for (int64_t i = 0; i < count; i++) acc[i] = cg_variable(c, type, LLVMConstNull(type));
    attention_runs run = attention_runs_begin(c, job, low, keys, 0);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), run.count, 1);
    LLVMValueRef slot = cg_add(c, run.slot, loop.index), row = row_of(c, &job->v, slot, kv);
    LLVMValueRef p = cg_load(c, c->f32, cg_at(c, c->f32, weights, cg_add(c, run.first, loop.index)), 4);
    if (job->v.scale >= 0) p = LLVMBuildFMul(c->b, p, scale_of(c, &job->v, slot, kv), "");
    if (width > 1) p = cg_splat(c, p, width);
    for (int64_t i = 0; i < count; i++) {
        LLVMValueRef v = attention_load(c, job->v.dtype, row, cg_i64(c, from + i * width), width);
        LLVMBuildStore(c->b, cg_fma(c, p, v, LLVMBuildLoad2(c->b, type, acc[i], "")), acc[i]);
    }
    cg_loop_end(c, &loop);
    attention_runs_end(c, &run);
    if (width > 1) factor = cg_splat(c, factor, width);
    for (int64_t i = 0; i < count; i++) {
        LLVMValueRef sum = LLVMBuildFMul(c->b, LLVMBuildLoad2(c->b, type, acc[i], ""), factor, "");
        cg_store(c, sum, cg_at(c, c->f32, out, cg_i64(c, from + i * width)), 4);
    }
}

static void weigh_values(cg *c, const attention_job *job, LLVMValueRef weights, LLVMValueRef low, LLVMValueRef keys, LLVMValueRef kv,
                         LLVMValueRef factor, LLVMValueRef out) {
    int64_t vectors = job->d / c->lanes;
    for (int64_t i = 0; i < vectors; i += COLUMN_BLOCK) {
        int64_t count = vectors - i < COLUMN_BLOCK ? vectors - i : COLUMN_BLOCK;
        weigh_columns(c, job, weights, low, keys, kv, factor, out, i * c->lanes, count, c->lanes);
    }
    for (int64_t i = vectors * c->lanes; i < job->d; i += COLUMN_BLOCK) {
        int64_t count = job->d - i < COLUMN_BLOCK ? job->d - i : COLUMN_BLOCK;
        weigh_columns(c, job, weights, low, keys, kv, factor, out, i, count, 1);
    }
}

/* ---- a head ---- */

static void emit_head(cg *c, const attention_job *job, LLVMValueRef number, LLVMValueRef low, LLVMValueRef keys, LLVMValueRef scores) {
    LLVMValueRef group = cg_i64(c, job->group), zero = cg_i64(c, 0);
    LLVMValueRef kv = LLVMBuildUDiv(c->b, number, group, ""), g = LLVMBuildURem(c->b, number, group, "");
    LLVMValueRef q = cg_at(c, c->f32, c->code.args[job->q], attention_offset(c, zero, 0, kv, job->q_stride[1], g, job->q_stride[2]));
    LLVMValueRef out = cg_at(c, c->f32, c->code.args[job->out], attention_offset(c, zero, 0, kv, job->out_stride[1], g, job->out_stride[2]));
    attention_runs run = attention_runs_begin(c, job, low, keys, 0);
    if (job->k.stride[2] == 1 || job->d == 1) score_rows(c, job, &run, q, kv, scores);
    else score_columns(c, job, &run, q, kv, scores);
    attention_runs_end(c, &run);
    LLVMValueRef factor = attention_softmax(c, job, scores, zero, keys);
    weigh_values(c, job, scores, low, keys, kv, factor, out);
}

void attention_one(cg *c, const attention_job *job) {
    LLVMValueRef scores = cg_scratch(c, attention_most_keys(job) * 4), from, to;
    LLVMValueRef position = cg_widen(c, c->code.args[job->position]);
    LLVMValueRef low = attention_first_key(c, job, position), keys = cg_sub(c, cg_add(c, position, cg_i64(c, 1)), low);
    cg_share(c, cg_i64(c, job->kv_heads * job->group), 1, &from, &to);
    cg_loop head = cg_loop_begin(c, from, to, 1);
    emit_head(c, job, head.index, low, keys, scores);
    cg_loop_end(c, &head);
}
