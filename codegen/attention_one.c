/* attention for one token (decode). The keys are shared out to the threads, so that few kv heads keep all of them busy,
 * and a row of K or V is read once for all query heads that share it:
 *
 *   1. the scores of the thread's keys, a tile of keys and heads in registers at a time;
 *   2. e^(score - top) with the thread's own top, and their sum;
 *   3. the weighted sum of the thread's rows of V, a tile of rows and heads at a time;
 *   4. after a barrier, the parts of all threads joined: with M the largest top and w = e^(top - M),
 *      out = Σ w·sum / Σ w·total.
 *
 * Where the keys of a column of K are neighbours ([KV,D,S]), scores are a weighted sum of K's columns, as in 3. Over
 * caches of i8, 1 and 3 may be done in integers (attention_one_int16.c).
 */
#include "codegen/attention.h"

#include <float.h>

enum { HEAD_TILE = 4, MAX_TILE = 16, LEAST_KEYS = 16, COLUMN_KEYS = 512, LINE = 64 /* bytes of a cache's line */ };

/* Keys (or rows) of a tile: with HEAD_TILE heads they fill about half of the registers. */
static int tile_rows(const cg *c, const attention_job *job) {
    int heads = job->group < HEAD_TILE ? (int)job->group : HEAD_TILE, tile = c->lanes == 16 ? MAX_TILE : MAX_TILE / 2;
    return tile / heads;
}

/* Vectors that a step along rows of so many columns takes: a line of memory, where it divides them, so that each is
 * asked for once. */
static int vectors_of_line(const cg *c, rt_dtype dtype, int64_t columns) {
    int vectors = LINE / (c->lanes * (int)rt_dtype_bytes(dtype, 1));
    return vectors > 1 && columns % (vectors * c->lanes) == 0 ? vectors : 1;
}

static LLVMTypeRef floats(cg *c, int width) {
    return width == 1 ? c->f32 : LLVMVectorType(c->f32, (unsigned)width);
}

static LLVMValueRef splat(cg *c, LLVMValueRef x, int width) {
    return width == 1 ? x : cg_splat(c, x, width);
}

LLVMValueRef attention_row_of(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv) {
    return cg_at(c, cg_type(c, cache->dtype), c->code.args[cache->data],
                 attention_offset(c, slot, cache->stride[0], kv, cache->stride[1], kv, 0));
}

LLVMValueRef attention_query_of(cg *c, const attention_job *job, LLVMValueRef kv, LLVMValueRef g) {
    LLVMValueRef at = attention_offset(c, kv, job->q_stride[1], g, job->q_stride[2], kv, 0);
    return cg_at(c, cg_type(c, job->q_dtype), c->code.args[job->q], at);
}

LLVMValueRef attention_score_of(cg *c, const attention_job *job, const attention_part *p, LLVMValueRef kv, int64_t g,
                                LLVMValueRef key) {
    LLVMValueRef at = attention_offset(c, kv, job->group * p->most, cg_i64(c, g), p->most, key, 1);
    return cg_at(c, c->f32, p->scores, at);
}

/* Where rows lie one after the other, lines are asked for in the order of memory, a tile ahead at least: what a core
 * may wait for at a time is few lines, and what the cache fetches by itself beyond those is what comes next. Else what
 * comes c->ahead in each row. */
void attention_prefetch(cg *c, const attention_cache *cache, int64_t d, LLVMValueRef row, int rows,
                        LLVMValueRef column) {
    int64_t bytes = (int64_t)rt_dtype_bytes(cache->dtype, 1), tile = rows * d * bytes;
    bool dense = cache->stride[0] == d;
    LLVMValueRef from = cg_at(c, c->i8, row, cg_mul(c, column, cg_i64(c, dense ? bytes * rows : bytes)));
    for (int j = 0; j < rows; j++) {
        int64_t more = dense ? j * LINE + (c->ahead > tile ? c->ahead : tile) : j * cache->stride[0] * bytes + c->ahead;
        cg_prefetch(c, cg_at(c, c->i8, from, cg_i64(c, more)));
    }
}

/* ---- the rows of a cache in the order in which they lie ---- */

/* Loops over rows from … to of the run, t->rows of them at a time. */
static void open_rows(cg *c, attention_row_tiles *t, LLVMValueRef from, LLVMValueRef to) {
    bool head_major = t->cache->stride[1] > t->cache->stride[0];
    LLVMValueRef heads = cg_i64(c, t->job->kv_heads), one = cg_i64(c, 1);
    t->outer = cg_loop_begin(c, cg_i64(c, 0), head_major ? heads : one, 1);
    t->keys = cg_loop_begin(c, from, to, t->rows);
    t->heads = cg_loop_begin(c, t->outer.index, head_major ? cg_add(c, t->outer.index, one) : heads, 1);
    t->slot = cg_add(c, t->run->slot, t->keys.index);
    t->key = cg_add(c, t->run->first, t->keys.index);
    t->left = cg_sub(c, t->run->count, t->keys.index);
    t->kv = t->heads.index;
}

attention_row_tiles attention_row_tiles_begin(cg *c, const attention_job *job, const attention_cache *cache,
                                              const attention_runs *run, int rows, int last) {
    attention_row_tiles t = {.rows = rows, .job = job, .cache = cache, .run = run, .last = last};
    t.whole = attention_whole(c, run->count, rows);
    open_rows(c, &t, cg_i64(c, 0), t.whole);
    return t;
}

bool attention_row_tiles_next(cg *c, attention_row_tiles *t) {
    cg_loop_end(c, &t->heads);
    cg_loop_end(c, &t->keys);
    cg_loop_end(c, &t->outer);
    if (t->last == 0) return false;
    t->rows = t->last;
    t->last = 0;
    open_rows(c, t, t->whole, t->run->count);
    return true;
}

/* ---- scores of rows ---- */

typedef struct tile {
    int keys, heads;
    LLVMValueRef slot, kv; /* of the first key */
    LLVMValueRef k[MAX_TILE], q[HEAD_TILE];
} tile;

/* Elements of the tile's key j. */
static LLVMValueRef key_at(cg *c, const attention_job *job, const tile *t, int j, LLVMValueRef column, int width) {
    LLVMValueRef k = attention_load(c, job->k.dtype, t->k[j], column, width);
    if (job->k.scale < 0) return k;
    LLVMValueRef scale =
        cg_load(c, c->f32, attention_scale(c, &job->k, cg_add(c, t->slot, cg_i64(c, j)), t->kv, column), 4);
    return LLVMBuildFMul(c->b, k, splat(c, scale, width), "");
}

/* sum[j, g] += K[j]·q[g] over the columns from … to, `width` of them at a time. */
static void dot_tile(cg *c, const attention_job *job, const tile *t, int64_t from, int64_t to, int width,
                     LLVMValueRef *sum) {
    if (from == to) return;
    LLVMTypeRef type = floats(c, width);
    LLVMValueRef acc[MAX_TILE], q[HEAD_TILE];
    int vectors = width > 1 ? vectors_of_line(c, job->k.dtype, to - from) : 1;
    for (int i = 0; i < t->keys * t->heads; i++) acc[i] = cg_variable(c, type, LLVMConstNull(type));
    cg_loop line = cg_loop_begin(c, cg_i64(c, from), cg_i64(c, to), vectors * width);
    if (width > 1) attention_prefetch(c, &job->k, job->d, t->k[0], t->keys, line.index);
    for (int v = 0; v < vectors; v++) {
        LLVMValueRef column = cg_add(c, line.index, cg_i64(c, v * width));
        for (int g = 0; g < t->heads; g++) q[g] = attention_load(c, job->q_dtype, t->q[g], column, width);
        for (int j = 0; j < t->keys; j++) {
            LLVMValueRef k = key_at(c, job, t, j, column, width);
            for (int g = 0; g < t->heads; g++) {
                LLVMValueRef at = acc[j * t->heads + g];
                LLVMBuildStore(c->b, cg_fma(c, q[g], k, LLVMBuildLoad2(c->b, type, at, "")), at);
            }
        }
    }
    cg_loop_end(c, &line);
    for (int i = 0; i < t->keys * t->heads; i++) {
        LLVMValueRef s = LLVMBuildLoad2(c->b, type, acc[i], "");
        if (width > 1) s = cg_sum_lanes(c, s);
        sum[i] = LLVMBuildFAdd(c->b, sum[i], s, "");
    }
}

static void score_tile(cg *c, const attention_job *job, const attention_part *p, LLVMValueRef slot, LLVMValueRef key,
                       LLVMValueRef kv, int keys) {
    int64_t vectors = job->d / c->lanes * c->lanes;
    for (int64_t first = 0; first < job->group; first += HEAD_TILE) {
        tile t = {.keys = keys,
                  .heads = job->group - first < HEAD_TILE ? (int)(job->group - first) : HEAD_TILE,
                  .slot = slot,
                  .kv = kv};
        LLVMValueRef sum[MAX_TILE];
        for (int i = 0; i < t.keys * t.heads; i++) sum[i] = cg_f32(c, 0);
        for (int j = 0; j < keys; j++) t.k[j] = attention_row_of(c, &job->k, cg_add(c, slot, cg_i64(c, j)), kv);
        for (int g = 0; g < t.heads; g++) t.q[g] = attention_query_of(c, job, kv, cg_i64(c, first + g));
        dot_tile(c, job, &t, 0, vectors, c->lanes, sum);
        dot_tile(c, job, &t, vectors, job->d, 1, sum);
        for (int j = 0; j < keys; j++)
            for (int g = 0; g < t.heads; g++)
                cg_store(c, sum[j * t.heads + g],
                         attention_score_of(c, job, p, kv, first + g, cg_add(c, key, cg_i64(c, j))), 4);
    }
}

static void score_rows(cg *c, const attention_job *job, const attention_part *p, const attention_runs *run) {
    attention_row_tiles t = attention_row_tiles_begin(c, job, &job->k, run, tile_rows(c, job), 1);
    do score_tile(c, job, p, t.slot, t.key, t.kv, t.rows);
    while (attention_row_tiles_next(c, &t));
}

/* ---- weighted sums of rows ---- */

/* out[g, x] += Σ_i weight[g, i]·row[i, x] for all heads of a kv head */
typedef struct row_sum {
    rt_dtype dtype, weight_dtype;
    LLVMValueRef rows, weights, out, width;
    int64_t row_stride, weight_stride, out_stride; /* elements from row to row, from head to head */
    const attention_cache *cache;                  /* that the rows, of d columns, are of; NULL: they are its columns */
    int64_t d;
    int64_t ahead;       /* of columns: elements from one to what will be read after it */
    int vectors;         /* of a step along the rows */
    LLVMValueRef scales; /* of the first row, NULL: none */
    /* columns that share one, elements from row to row and from run to run */
    int64_t run, scale_row, scale_run;
    /* run 0: each column has one, for all rows; elements from column to column */
    int64_t scale_column;
} row_sum;

/* `width` floats, `stride` apart. */
static LLVMValueRef gather(cg *c, LLVMValueRef base, LLVMValueRef index, int64_t stride, int width) {
    if (stride == 1 || width == 1) return attention_load(c, RT_F32, base, cg_mul(c, index, cg_i64(c, stride)), width);
    LLVMValueRef x = LLVMGetPoison(floats(c, width));
    for (int i = 0; i < width; i++) {
        LLVMValueRef at = cg_mul(c, cg_add(c, index, cg_i64(c, i)), cg_i64(c, stride));
        x = LLVMBuildInsertElement(c->b, x, attention_load(c, RT_F32, base, at, 1), cg_i32(c, i), "");
    }
    return x;
}

/* Elements of row i. */
static LLVMValueRef row_at(cg *c, const row_sum *s, int i, LLVMValueRef column, int width) {
    LLVMValueRef x = attention_load(c, s->dtype, s->rows, cg_add(c, cg_i64(c, i * s->row_stride), column), width);
    if (!s->scales) return x;
    if (s->run == 0) return LLVMBuildFMul(c->b, x, gather(c, s->scales, column, s->scale_column, width), "");
    LLVMValueRef run = LLVMBuildUDiv(c->b, column, cg_i64(c, s->run), "");
    LLVMValueRef at = cg_add(c, cg_i64(c, i * s->scale_row), cg_mul(c, run, cg_i64(c, s->scale_run)));
    return LLVMBuildFMul(c->b, x, splat(c, attention_load(c, RT_F32, s->scales, at, 1), width), "");
}

static void add_columns(cg *c, const row_sum *s, int rows, int heads, LLVMValueRef *weight, LLVMValueRef out,
                        LLVMValueRef from, LLVMValueRef to, int width) {
    LLVMValueRef row[MAX_TILE], w[MAX_TILE];
    int vectors = width > 1 ? s->vectors : 1;
    for (int i = 0; i < rows * heads; i++) w[i] = splat(c, weight[i], width);
    cg_loop line = cg_loop_begin(c, from, to, vectors * width);
    if (width > 1 && s->cache) attention_prefetch(c, s->cache, s->d, s->rows, rows, line.index);
    for (int i = 0; i < rows && width > 1 && !s->cache; i++)
        cg_prefetch(
            c, cg_at(c, cg_type(c, s->dtype), s->rows, cg_add(c, line.index, cg_i64(c, i * s->row_stride + s->ahead))));
    for (int v = 0; v < vectors; v++) {
        LLVMValueRef column = cg_add(c, line.index, cg_i64(c, v * width));
        for (int i = 0; i < rows; i++) row[i] = row_at(c, s, i, column, width);
        for (int g = 0; g < heads; g++) {
            LLVMValueRef at = cg_at(c, c->f32, out, cg_add(c, cg_i64(c, g * s->out_stride), column));
            LLVMValueRef sum = cg_load(c, floats(c, width), at, 4);
            for (int i = 0; i < rows; i++) sum = cg_fma(c, w[i * heads + g], row[i], sum);
            cg_store(c, sum, at, 4);
        }
    }
    cg_loop_end(c, &line);
}

/* The first `rows` rows, of which s->rows and s->weights point to the first. */
static void add_rows(cg *c, const attention_job *job, const row_sum *s, int rows) {
    LLVMValueRef end = attention_whole(c, s->width, c->lanes);
    for (int64_t first = 0; first < job->group; first += HEAD_TILE) {
        int heads = job->group - first < HEAD_TILE ? (int)(job->group - first) : HEAD_TILE;
        LLVMValueRef weight[MAX_TILE], out = cg_at(c, c->f32, s->out, cg_i64(c, first * s->out_stride));
        for (int i = 0; i < rows; i++)
            for (int g = 0; g < heads; g++)
                weight[i * heads + g] =
                    attention_load(c, s->weight_dtype, s->weights, cg_i64(c, (first + g) * s->weight_stride + i), 1);
        add_columns(c, s, rows, heads, weight, out, cg_i64(c, 0), end, c->lanes);
        add_columns(c, s, rows, heads, weight, out, end, s->width, 1);
    }
}

/* sums += the run's rows of V, by their weights */
static void weigh_rows(cg *c, const attention_job *job, const attention_part *p, const attention_runs *run) {
    row_sum s = {.dtype = job->v.dtype,
                 .weight_dtype = RT_F32,
                 .row_stride = job->v.stride[0],
                 .weight_stride = p->most,
                 .out_stride = job->d,
                 .width = cg_i64(c, job->d),
                 .cache = &job->v,
                 .d = job->d};
    s.vectors = vectors_of_line(c, job->v.dtype, job->d);
    attention_row_tiles t = attention_row_tiles_begin(c, job, &job->v, run, tile_rows(c, job), 1);
    do {
        s.rows = attention_row_of(c, &job->v, t.slot, t.kv);
        if (job->v.scale >= 0) {
            s.scales = attention_scale(c, &job->v, t.slot, t.kv, cg_i64(c, 0));
            s.run = job->v.run, s.scale_row = job->v.scale_stride[0], s.scale_run = job->v.scale_stride[2];
        }
        s.weights = attention_score_of(c, job, p, t.kv, 0, t.key);
        s.out = cg_at(c, c->f32, p->sums, cg_mul(c, t.kv, cg_i64(c, job->group * job->d)));
        add_rows(c, job, &s, t.rows);
    } while (attention_row_tiles_next(c, &t));
}

/* The scores, zero before, += the columns of a K of [KV,D,S] by q, a block of keys that stays in the cache at a
 * time. */
static void score_columns(cg *c, const attention_job *job, const attention_part *p, const attention_runs *run) {
    int rows = tile_rows(c, job);
    while (job->k.scale >= 0 && job->k.run % rows) rows--; /* which share their scales */
    cg_loop head = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->kv_heads), 1);
    cg_loop block = cg_loop_begin(c, cg_i64(c, 0), run->count, COLUMN_KEYS);
    LLVMValueRef kv = head.index, keys = attention_row_of(c, &job->k, cg_add(c, run->slot, block.index), kv),
                 query = attention_query_of(c, job, kv, cg_i64(c, 0));
    row_sum s = {.dtype = job->k.dtype,
                 .weight_dtype = job->q_dtype,
                 .row_stride = job->k.stride[2],
                 .weight_stride = job->q_stride[2],
                 .out_stride = p->most,
                 .vectors = 1,
                 .scale_column = job->k.scale_stride[0]};
    s.ahead = 2 * rows * s.row_stride;
    s.out = attention_score_of(c, job, p, kv, 0, cg_add(c, run->first, block.index));
    s.width = cg_min(c, cg_i64(c, COLUMN_KEYS), cg_sub(c, run->count, block.index));
    for (int64_t from = 0, to = job->d / rows * rows, step = rows; step; from = to, to = job->d, step = step > 1) {
        cg_loop column = cg_loop_begin(c, cg_i64(c, from), cg_i64(c, to), step);
        s.rows = cg_at(c, cg_type(c, job->k.dtype), keys, cg_mul(c, column.index, cg_i64(c, s.row_stride)));
        s.weights = cg_at(c, cg_type(c, job->q_dtype), query, column.index);
        if (job->k.scale >= 0)
            s.scales = attention_scale(c, &job->k, cg_add(c, run->slot, block.index), kv, column.index);
        add_rows(c, job, &s, (int)step);
        cg_loop_end(c, &column);
    }
    cg_loop_end(c, &block);
    cg_loop_end(c, &head);
}

/* ---- a thread's part ---- */

static void score_part(cg *c, const attention_job *job, const attention_part *p) {
    bool by_row = job->k.stride[2] == 1 || job->d == 1;
    if (attention_one_in_int16(job)) {
        attention_one_int16_score(c, job, p);
        return;
    }
    if (!by_row) {
        cg_loop head = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, p->heads), 1);
        attention_zero(c, cg_at(c, c->f32, p->scores, cg_mul(c, head.index, cg_i64(c, p->most))), p->keys);
        cg_loop_end(c, &head);
    }
    attention_runs run = attention_runs_begin(c, job, p->low, p->keys, 0);
    if (by_row) score_rows(c, job, p, &run);
    else score_columns(c, job, p, &run);
    attention_runs_end(c, &run);
}

static void softmax_part(cg *c, const attention_job *job, const attention_part *p) {
    cg_loop head = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, p->heads), 1);
    LLVMValueRef scores = cg_at(c, c->f32, p->scores, cg_mul(c, head.index, cg_i64(c, p->most)));
    attention_sum sum = attention_softmax(c, job, scores, cg_i64(c, 0), p->keys);
    cg_store(c, sum.top, cg_at(c, c->f32, p->top, head.index), 4);
    cg_store(c, sum.total, cg_at(c, c->f32, p->total, head.index), 4);
    cg_loop_end(c, &head);
}

static void weigh_part(cg *c, const attention_job *job, const attention_part *p) {
    attention_zero(c, p->sums, cg_i64(c, p->heads * job->d));
    if (attention_one_in_int16(job)) {
        attention_one_int16_weigh(c, job, p);
        return;
    }
    attention_runs run = attention_runs_begin(c, job, p->low, p->keys, 0);
    weigh_rows(c, job, p, &run);
    attention_runs_end(c, &run);
}

/* ---- the parts joined ---- */

static LLVMValueRef largest_top(cg *c, const attention_part *p, LLVMValueRef head) {
    LLVMValueRef largest = cg_variable(c, c->f32, cg_f32(c, -FLT_MAX));
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), p->count, 1);
    LLVMValueRef top = cg_load(c, c->f32, attention_of_thread(c, cg_at(c, c->f32, p->top, head), loop.index), 4);
    LLVMValueRef old = LLVMBuildLoad2(c->b, c->f32, largest, "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, LLVMBuildFCmp(c->b, LLVMRealOGT, top, old, ""), top, old, ""), largest);
    cg_loop_end(c, &loop);
    return LLVMBuildLoad2(c->b, c->f32, largest, "");
}

/* weights[t] = e^(top - M) of part t, in place of the scores; returns 1 / Σ weight·total. */
static LLVMValueRef weigh_parts(cg *c, const attention_part *p, LLVMValueRef head) {
    LLVMValueRef largest = largest_top(c, p, head), all = cg_variable(c, c->f32, cg_f32(c, 0));
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), p->count, 1);
    LLVMValueRef top = cg_load(c, c->f32, attention_of_thread(c, cg_at(c, c->f32, p->top, head), loop.index), 4);
    LLVMValueRef total = cg_load(c, c->f32, attention_of_thread(c, cg_at(c, c->f32, p->total, head), loop.index), 4);
    LLVMValueRef weight = attention_weight(c, ATTENTION_LOG2_E, top, largest);
    cg_store(c, weight, cg_at(c, c->f32, p->scores, loop.index), 4);
    LLVMBuildStore(c->b, cg_fma(c, weight, total, LLVMBuildLoad2(c->b, c->f32, all, "")), all);
    cg_loop_end(c, &loop);
    return LLVMBuildFDiv(c->b, cg_f32(c, 1.0), LLVMBuildLoad2(c->b, c->f32, all, ""), "");
}

/* out = factor · Σ weight·sums, columns from … to. */
static void join_columns(cg *c, const attention_job *job, const attention_part *p, LLVMValueRef sums,
                         LLVMValueRef factor, LLVMValueRef out, int64_t from, int64_t to, int width) {
    LLVMTypeRef type = floats(c, width);
    LLVMValueRef sum = cg_variable(c, type, NULL);
    cg_loop column = cg_loop_begin(c, cg_i64(c, from), cg_i64(c, to), width);
    LLVMBuildStore(c->b, LLVMConstNull(type), sum);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), p->count, 1);
    LLVMValueRef weight = splat(c, attention_load(c, RT_F32, p->scores, loop.index, 1), width);
    LLVMValueRef x = attention_load(c, RT_F32, attention_of_thread(c, sums, loop.index), column.index, width);
    LLVMBuildStore(c->b, cg_fma(c, weight, x, LLVMBuildLoad2(c->b, type, sum, "")), sum);
    cg_loop_end(c, &loop);
    LLVMValueRef y = LLVMBuildFMul(c->b, LLVMBuildLoad2(c->b, type, sum, ""), splat(c, factor, width), "");
    attention_store(c, job->out_dtype, y, out, column.index);
    cg_loop_end(c, &column);
}

static void join_parts(cg *c, const attention_job *job, const attention_part *p) {
    LLVMValueRef from, to, group = cg_i64(c, job->group);
    int64_t vectors = job->d / c->lanes * c->lanes;
    cg_share(c, cg_i64(c, p->heads), 1, &from, &to);
    cg_loop head = cg_loop_begin(c, from, to, 1);
    LLVMValueRef kv = LLVMBuildUDiv(c->b, head.index, group, ""), g = LLVMBuildURem(c->b, head.index, group, "");
    LLVMValueRef out = cg_at(c, cg_type(c, job->out_dtype), c->code.args[job->out],
                             attention_offset(c, kv, job->out_stride[1], g, job->out_stride[2], kv, 0));
    LLVMValueRef sums = cg_at(c, c->f32, p->sums, cg_mul(c, head.index, cg_i64(c, job->d))),
                 factor = weigh_parts(c, p, head.index);
    join_columns(c, job, p, sums, factor, out, 0, vectors, c->lanes);
    join_columns(c, job, p, sums, factor, out, vectors, job->d, 1);
    cg_loop_end(c, &head);
}

/* ---- the kernel ---- */

static void open_part(cg *c, const attention_job *job, attention_part *p) {
    p->heads = job->kv_heads * job->group;
    p->most = (attention_most_keys(job) + 15) / 16 * 16;
    int64_t scores = p->heads * p->most * 4, sums = p->heads * job->d * 4,
            numbers = (p->heads * 4 + LINE - 1) / LINE * LINE;
    p->scores = cg_scratch(c, scores + sums + 2 * numbers +
                                  (attention_one_in_int16(job) ? attention_one_int16_bytes(c, job) : 0));
    p->sums = cg_at(c, c->i8, p->scores, cg_i64(c, scores));
    p->top = cg_at(c, c->i8, p->sums, cg_i64(c, sums));
    p->total = cg_at(c, c->i8, p->top, cg_i64(c, numbers));
    p->int16 = cg_at(c, c->i8, p->total, cg_i64(c, numbers));
    LLVMValueRef position = cg_widen(c, c->code.args[job->position]), low = attention_first_key(c, job, position);
    LLVMValueRef keys = cg_sub(c, cg_add(c, position, cg_i64(c, 1)), low), threads = cg_widen(c, c->code.threads),
                 one = cg_i64(c, 1);
    LLVMValueRef each = LLVMBuildUDiv(c->b, cg_sub(c, cg_add(c, keys, threads), one), threads, "");
    each = cg_max(c, each, cg_i64(c, LEAST_KEYS));
    p->count = LLVMBuildUDiv(c->b, cg_sub(c, cg_add(c, keys, each), one), each, "");
    LLVMValueRef from = cg_min(c, keys, cg_mul(c, each, cg_widen(c, c->code.thread)));
    p->low = cg_add(c, low, from);
    p->keys = cg_min(c, each, cg_sub(c, keys, from));
}

void attention_one_text(const cg *c, const attention_job *job, gm_string *out) {
    int64_t heads = job->group < HEAD_TILE ? job->group : HEAD_TILE;
    gm_string_printf(out, "every thread takes at least %d keys, ", LEAST_KEYS);
    if (attention_one_in_int16(job)) attention_one_int16_text(c, job, out);
    else gm_string_printf(out, "in tiles of %d keys by %lld heads", tile_rows(c, job), (long long)heads);
}

void attention_one(cg *c, const attention_job *job) {
    attention_part p;
    open_part(c, job, &p);
    cg_branch any = cg_if(c, LLVMBuildICmp(c->b, LLVMIntSGT, p.keys, cg_i64(c, 0), ""));
    score_part(c, job, &p);
    softmax_part(c, job, &p);
    weigh_part(c, job, &p);
    cg_end_if(c, &any);
    cg_wait(c, -1);
    join_parts(c, job, &p);
}
