/* screened_argmax: argmax of W·x that reads the screen of W (runtime/screen.h) and of W itself only the rows that can win.
 *
 * Every thread, for its slabs of rows: an estimate and an upper bound of each row's score from the screen, then the exact score of
 * the row it estimates highest. The largest of the threads' scores is beaten only by rows whose bound reaches it: their exact scores
 * are computed, by the row code of the matrix-vector kernel, so that every bit is that of the full product. Slabs are dealt out in
 * turn, because the rows that can win lie close together: usual tokens have low numbers.
 *
 * x is held in 8 bits per run of 32, x ≈ step·q, so that a run's estimate is an integer sum, d·(step·Σ nibble·q - 8·step·Σq), of
 * eight rows at once. Several rows of x are gone through slab by slab, so that the screen is read once for them. A comparison that
 * decides to skip a row is false for NaN, so that a row with NaN is never skipped.
 */
#include "codegen/cg.h"

#include "runtime/screen.h"

#include <math.h>
#include <string.h>

enum {
    RUN = RT_SCREEN_RUN,
    BLOCK = RT_SCREEN_BLOCK,
    ROWS = RT_SCREEN_ROWS,
    LANES = 8,
    PARTS = ROWS / LANES,
    SLAB = 64, /* groups of rows */
    SHOWN = 2, /* shared word: a thread's first score */
};

typedef struct screen_job {
    cg_dot dot;
    int64_t rows, runs; /* runs of a row */
    int screen, out;    /* kernel arguments */
    int64_t x_rows;     /* of x */
    /* scratch of this thread, for one row of x */
    LLVMValueRef q;       /* i8[K] */
    LLVMValueRef step;    /* f32[runs] */
    LLVMValueRef centre;  /* f32[runs]: -8·step·Σq */
    LLVMValueRef length;  /* f32[runs]: at least ‖x‖/64 */
    LLVMValueRef excess;  /* f32[runs]: what the bound adds for ‖x - step·q‖ */
    LLVMValueRef bound;   /* f32[rows]: of this thread's rows */
    LLVMValueRef extra;   /* f32, added to every bound: inf when x is out of range */
    LLVMValueRef top;     /* f32[LANES]: the largest estimates */
    LLVMValueRef where;   /* i32[LANES]: their rows */
} screen_job;

static LLVMTypeRef floats(cg *c) {
    return LLVMVectorType(c->f32, (unsigned)c->lanes);
}

static LLVMTypeRef ints(cg *c) {
    return LLVMVectorType(c->i32, (unsigned)c->lanes);
}

static LLVMValueRef splat_f32(cg *c, double value) {
    return cg_splat(c, cg_f32(c, value), c->lanes);
}

/* Where things of a row of x lie in the scratch; returns their size. base NULL: only the size. */
static int64_t lay_out(cg *c, screen_job *job, LLVMValueRef base) {
    int64_t runs = job->runs;
    struct {
        LLVMValueRef *pointer;
        int64_t bytes;
    } parts[] = {{&job->q, runs * RUN},       {&job->step, runs * 4},   {&job->centre, runs * 4},
                 {&job->length, runs * 4}, {&job->excess, runs * 4}, {&job->bound, job->rows * 4},
                 {&job->extra, 4},         {&job->top, LANES * 4},   {&job->where, LANES * 4}};
    int64_t at = 0;
    for (size_t i = 0; i < GM_COUNT(parts); i++) {
        if (base) *parts[i].pointer = cg_at(c, c->i8, base, cg_i64(c, at));
        at += (parts[i].bytes + 63) / 64 * 64;
    }
    return at;
}

/* ---- x ---- */

/* Largest magnitude as bits of a float: infinity's or more when it is not finite. */
static LLVMValueRef largest_bits(cg *c, LLVMValueRef const *x, int parts) {
    LLVMValueRef most = NULL, mask = cg_splat(c, cg_i32(c, 0x7FFFFFFF), c->lanes);
    for (int p = 0; p < parts; p++) {
        LLVMValueRef bits = LLVMBuildAnd(c->b, LLVMBuildBitCast(c->b, x[p], ints(c), ""), mask, "");
        most = most ? LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntSGT, bits, most, ""), bits, most, "") : bits;
    }
    return cg_intrinsic(c, "llvm.vector.reduce.smax", ints(c), &most, 1);
}

static LLVMValueRef length_of(cg *c, LLVMValueRef const *x, int parts) {
    LLVMValueRef sum = LLVMBuildFMul(c->b, x[0], x[0], "");
    for (int p = 1; p < parts; p++) sum = cg_fma(c, x[p], x[p], sum);
    sum = cg_sum_lanes(c, sum);
    return cg_intrinsic(c, "llvm.sqrt", c->f32, &sum, 1);
}

/* x[p] becomes x - step·q; q = x/step to the nearest is stored as bytes. Returns Σq. */
static LLVMValueRef store_bytes(cg *c, LLVMValueRef *x, int parts, LLVMValueRef step, LLVMValueRef to) {
    LLVMValueRef big = splat_f32(c, 0x1.8p23), total = NULL; /* beside it a float has no fraction */
    LLVMValueRef inverse = cg_splat(c, LLVMBuildFDiv(c->b, cg_f32(c, 1), step, ""), c->lanes);
    LLVMValueRef minus = cg_splat(c, LLVMBuildFNeg(c->b, step, ""), c->lanes);
    for (int p = 0; p < parts; p++) {
        LLVMValueRef q = LLVMBuildFSub(c->b, cg_fma(c, x[p], inverse, big), big, "");
        LLVMValueRef bytes = LLVMBuildTrunc(c->b, LLVMBuildFPToSI(c->b, q, ints(c), ""), LLVMVectorType(c->i8, (unsigned)c->lanes), "");
        cg_store(c, bytes, cg_at(c, c->i8, to, cg_i64(c, p * c->lanes)), 1);
        x[p] = cg_fma(c, minus, q, x[p]);
        total = total ? LLVMBuildFAdd(c->b, total, q, "") : q;
    }
    return cg_sum_lanes(c, total);
}

/* (‖x - step·q‖ - RT_SCREEN_X_ERROR·‖x‖)·RT_SCREEN_MAX_STEPS, at least 0. Squares below normal numbers are lost: hence 2^-71. */
static LLVMValueRef excess_of(cg *c, LLVMValueRef off, LLVMValueRef length) {
    const double steps = (double)RT_SCREEN_MAX_STEPS;
    LLVMValueRef excess = cg_fma(c, off, cg_f32(c, (1 + 1e-5) * steps), cg_f32(c, 0x1p-71 * steps));
    excess = cg_fma(c, length, cg_f32(c, (1e-6 - (double)RT_SCREEN_X_ERROR) * steps), excess);
    LLVMValueRef zero = cg_f32(c, 0);
    return LLVMBuildSelect(c->b, LLVMBuildFCmp(c->b, LLVMRealOGT, excess, zero, ""), excess, zero, "");
}

/* Run `index` of x; one out of range counts as zero and makes every bound infinite. */
static void emit_x_run(cg *c, screen_job *job, LLVMValueRef index, LLVMValueRef extra) {
    int parts = RUN / c->lanes;
    LLVMValueRef x[8], column = cg_mul(c, index, cg_i64(c, RUN)), zero = LLVMConstNull(floats(c));
    for (int p = 0; p < parts; p++) x[p] = cg_load(c, floats(c), cg_at(c, c->f32, c->code.args[job->dot.x], cg_add(c, column, cg_i64(c, p * c->lanes))), 4);
    LLVMValueRef most = LLVMBuildBitCast(c->b, largest_bits(c, x, parts), c->f32, "");
    LLVMValueRef fits = LLVMBuildFCmp(c->b, LLVMRealOLT, most, cg_f32(c, RT_SCREEN_MAX_X), "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, fits, LLVMBuildLoad2(c->b, c->f32, extra, ""), cg_f32(c, INFINITY), ""), extra);
    for (int p = 0; p < parts; p++) x[p] = LLVMBuildSelect(c->b, fits, x[p], zero, "");
    LLVMValueRef least = cg_f32(c, 0x1p-88), step = LLVMBuildFMul(c->b, most, cg_f32(c, (1 + 0x1p-19) / 127), "");
    step = LLVMBuildSelect(c->b, LLVMBuildAnd(c->b, fits, LLVMBuildFCmp(c->b, LLVMRealOGT, step, least, ""), ""), step, least, "");
    LLVMValueRef length = length_of(c, x, parts), total = store_bytes(c, x, parts, step, cg_at(c, c->i8, job->q, column));
    cg_store(c, step, cg_at(c, c->f32, job->step, index), 4);
    cg_store(c, LLVMBuildFMul(c->b, LLVMBuildFMul(c->b, total, cg_f32(c, -8), ""), step, ""), cg_at(c, c->f32, job->centre, index), 4);
    cg_store(c, excess_of(c, length_of(c, x, parts), length), cg_at(c, c->f32, job->excess, index), 4);
    length = cg_fma(c, length, cg_f32(c, (1 + 1e-5) / 64), cg_f32(c, 0x1p-76)); /* squares below normal numbers again */
    cg_store(c, length, cg_at(c, c->f32, job->length, index), 4);
}

static void emit_x(cg *c, screen_job *job) {
    LLVMValueRef extra = cg_variable(c, c->f32, cg_f32(c, RT_SCREEN_LEAST));
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->runs), 1);
    emit_x_run(c, job, loop.index, extra);
    cg_loop_end(c, &loop);
    cg_store(c, LLVMBuildLoad2(c->b, c->f32, extra, ""), job->extra, 4);
    cg_store(c, cg_splat(c, cg_f32(c, -INFINITY), LANES), job->top, 4);
    cg_store(c, LLVMConstAllOnes(LLVMVectorType(c->i32, LANES)), job->where, 4);
}

/* ---- integer sums of eight rows: lanes are rows, of four columns each ---- */

static LLVMTypeRef eight(LLVMTypeRef type, int each) {
    return LLVMVectorType(type, (unsigned)(LANES * each));
}

/* Sums of neighbours. */
static LLVMValueRef add_neighbours(cg *c, LLVMValueRef v) {
    LLVMValueRef even[2 * LANES], odd[2 * LANES], none = LLVMGetPoison(LLVMTypeOf(v));
    unsigned count = LLVMGetVectorSize(LLVMTypeOf(v)) / 2;
    for (unsigned i = 0; i < count; i++) even[i] = cg_i32(c, 2 * i), odd[i] = cg_i32(c, 2 * i + 1);
    return cg_add(c, LLVMBuildShuffleVector(c->b, v, none, LLVMConstVector(even, count), ""),
                  LLVMBuildShuffleVector(c->b, v, none, LLVMConstVector(odd, count), ""));
}

/* Σ code·q of pairs of columns: at most 2·15·127 in magnitude. */
static LLVMValueRef pair_sums(cg *c, LLVMValueRef codes, LLVMValueRef q) {
    if (c->lanes >= LANES) return cg_intrinsic2(c, "llvm.x86.avx2.pmadd.ub.sw", eight(c->i16, 2), codes, q);
    return add_neighbours(c, cg_mul(c, LLVMBuildZExt(c->b, codes, eight(c->i16, 4), ""), LLVMBuildSExt(c->b, q, eight(c->i16, 4), "")));
}

/* The sum of a row's two pairs. */
static LLVMValueRef row_sums(cg *c, LLVMValueRef pairs) {
    LLVMValueRef ones = cg_splat(c, LLVMConstInt(c->i16, 1, 0), 2 * LANES);
    if (c->lanes >= LANES) return cg_intrinsic2(c, "llvm.x86.avx2.pmadd.wd", eight(c->i32, 1), pairs, ones);
    return add_neighbours(c, LLVMBuildSExt(c->b, pairs, eight(c->i32, 2), ""));
}

/* Four columns of x for every row. */
static LLVMValueRef load_columns(cg *c, const screen_job *job, LLVMValueRef column) {
    LLVMValueRef four = cg_load(c, c->i32, cg_at(c, c->i8, job->q, column), 4);
    return LLVMBuildBitCast(c->b, cg_splat(c, four, LANES), eight(c->i8, 4), "");
}

/* sums[part] = Σ nibble·q over the run at `nibbles`, which begins at column `first`. Below 2^15 in the pairs, 2^16 in the end. */
static void run_sums(cg *c, const screen_job *job, LLVMValueRef nibbles, LLVMValueRef first, LLVMValueRef *sums) {
    LLVMValueRef four = cg_splat(c, LLVMConstInt(c->i16, 4, 0), 2 * LANES), mask = cg_splat(c, LLVMConstInt(c->i8, 15, 0), 4 * LANES);
    for (int piece = 0; piece < RUN / 8; piece++) {
        cg_prefetch(c, cg_at(c, c->i8, nibbles, cg_i64(c, 4 * ROWS * piece + CG_AHEAD)));
        LLVMValueRef column = cg_add(c, first, cg_i64(c, 8 * piece));
        LLVMValueRef q[2] = {load_columns(c, job, column), load_columns(c, job, cg_add(c, column, cg_i64(c, 4)))};
        for (int p = 0; p < PARTS; p++) {
            LLVMValueRef words = cg_load(c, eight(c->i16, 2), cg_at(c, c->i8, nibbles, cg_i64(c, 4 * ROWS * piece + 4 * LANES * p)), 1);
            LLVMValueRef low = LLVMBuildBitCast(c->b, words, eight(c->i8, 4), "");
            LLVMValueRef high = LLVMBuildBitCast(c->b, LLVMBuildLShr(c->b, words, four, ""), eight(c->i8, 4), "");
            LLVMValueRef sum = pair_sums(c, LLVMBuildAnd(c->b, low, mask, ""), q[0]);
            sum = cg_add(c, sum, pair_sums(c, LLVMBuildAnd(c->b, high, mask, ""), q[1]));
            sums[p] = piece ? cg_add(c, sums[p], sum) : sum;
        }
    }
    for (int p = 0; p < PARTS; p++) sums[p] = row_sums(c, sums[p]);
}

/* ---- estimates ---- */

typedef struct estimate {
    LLVMValueRef sum[PARTS], bound[PARTS]; /* variables, of eight rows: Σ d·step·Σ (nibble - 8)·q, and how far it may be off */
    LLVMValueRef top, where;               /* variables: in each lane the largest estimate, and its row */
} estimate;

static LLVMValueRef splat_of(cg *c, LLVMValueRef base, LLVMValueRef run) {
    return cg_splat(c, cg_load(c, c->f32, cg_at(c, c->f32, base, run), 4), LANES);
}

/* Run `part` and rows of part p in a section of the block, which begins at `start` and has a `type` per row, as i32. */
static LLVMValueRef load_section(cg *c, LLVMTypeRef type, LLVMValueRef block, int64_t start, LLVMValueRef part, int p) {
    LLVMValueRef first = cg_add(c, cg_mul(c, part, cg_i64(c, ROWS)), cg_i64(c, LANES * p));
    LLVMValueRef stored = cg_load(c, eight(type, 1), cg_at(c, type, cg_at(c, c->i8, block, cg_i64(c, start)), first), 1);
    return LLVMBuildZExt(c->b, stored, eight(c->i32, 1), "");
}

/* Run `part` of block `index` of a group's row, whose bytes are at `block`. */
static void emit_run(cg *c, const screen_job *job, const estimate *e, LLVMValueRef block, LLVMValueRef index, LLVMValueRef part) {
    enum { SCALES = 0, BOUNDS = BLOCK / RUN * ROWS * 2, NIBBLES = BOUNDS + BLOCK / RUN * ROWS };
    LLVMValueRef run = cg_add(c, cg_mul(c, index, cg_i64(c, BLOCK / RUN)), part);
    LLVMValueRef sums[PARTS], step = splat_of(c, job->step, run), centre = splat_of(c, job->centre, run);
    LLVMValueRef length = splat_of(c, job->length, run), excess = splat_of(c, job->excess, run);
    LLVMValueRef nibbles = cg_add(c, cg_mul(c, part, cg_i64(c, RUN * ROWS / 2)), cg_i64(c, NIBBLES));
    run_sums(c, job, cg_at(c, c->i8, block, nibbles), cg_mul(c, run, cg_i64(c, RUN)), sums);
    for (int p = 0; p < PARTS; p++) {
        LLVMTypeRef floats = eight(c->f32, 1);
        LLVMValueRef bits = LLVMBuildShl(c->b, load_section(c, c->i16, block, SCALES, part, p), cg_splat(c, cg_i32(c, 16), LANES), "");
        LLVMValueRef d = LLVMBuildBitCast(c->b, bits, floats, "");
        LLVMValueRef bound = LLVMBuildSIToFP(c->b, load_section(c, c->i8, block, BOUNDS, part, p), floats, "");
        LLVMValueRef sum = cg_fma(c, LLVMBuildSIToFP(c->b, sums[p], floats, ""), step, centre);
        bound = cg_fma(c, bound, length, excess);
        LLVMBuildStore(c->b, cg_fma(c, d, sum, LLVMBuildLoad2(c->b, floats, e->sum[p], "")), e->sum[p]);
        LLVMBuildStore(c->b, cg_fma(c, d, bound, LLVMBuildLoad2(c->b, floats, e->bound[p], "")), e->bound[p]);
    }
}

/* Keep in each lane of top and where what is larger. */
static void challenge_lanes(cg *c, const estimate *e, LLVMValueRef sum, LLVMValueRef row) {
    LLVMValueRef lane[LANES], top = LLVMBuildLoad2(c->b, eight(c->f32, 1), e->top, ""), where = LLVMBuildLoad2(c->b, eight(c->i32, 1), e->where, "");
    for (int i = 0; i < LANES; i++) lane[i] = cg_i32(c, i);
    LLVMValueRef index = cg_add(c, cg_splat(c, LLVMBuildTrunc(c->b, row, c->i32, ""), LANES), LLVMConstVector(lane, LANES));
    LLVMValueRef wins = LLVMBuildFCmp(c->b, LLVMRealOGT, sum, top, "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, wins, sum, top, ""), e->top);
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, wins, index, where, ""), e->where);
}

/* Estimates and bounds of the rows of group `index`. A bound's own sum may lose a rounding per run. */
static void emit_group(cg *c, const screen_job *job, const estimate *e, LLVMValueRef index) {
    LLVMTypeRef floats = eight(c->f32, 1);
    int64_t bytes = rt_dtype_of(RT_S4)->block_bytes * ROWS, blocks = job->runs * RUN / BLOCK;
    LLVMValueRef group = cg_at(c, c->i8, c->code.args[job->screen], cg_mul(c, index, cg_i64(c, bytes * blocks)));
    LLVMValueRef up = cg_splat(c, cg_f32(c, 1 + (double)(job->runs + 8) * 0x1p-23), LANES), extra = cg_splat(c, cg_load(c, c->f32, job->extra, 4), LANES);
    for (int p = 0; p < PARTS; p++) {
        LLVMBuildStore(c->b, LLVMConstNull(floats), e->sum[p]);
        LLVMBuildStore(c->b, LLVMConstNull(floats), e->bound[p]);
    }
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, blocks), 1);
    LLVMValueRef block = cg_at(c, c->i8, group, cg_mul(c, loop.index, cg_i64(c, bytes)));
    cg_loop runs = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, BLOCK / RUN), 1);
    emit_run(c, job, e, block, loop.index, runs.index);
    cg_loop_end(c, &runs);
    cg_loop_end(c, &loop);
    for (int p = 0; p < PARTS; p++) {
        LLVMValueRef row = cg_add(c, cg_mul(c, index, cg_i64(c, ROWS)), cg_i64(c, LANES * p)), sum = LLVMBuildLoad2(c->b, floats, e->sum[p], "");
        LLVMValueRef bound = cg_fma(c, LLVMBuildLoad2(c->b, floats, e->bound[p], ""), up, sum);
        cg_store(c, LLVMBuildFAdd(c->b, bound, extra, ""), cg_at(c, c->f32, job->bound, row), 4);
        challenge_lanes(c, e, sum, row);
    }
}

/* ---- rows of x ---- */

/* A loop over the rows of x, in which job->dot.x and what lies in the scratch are those of the row. */
typedef struct x_loop {
    cg_loop loop;
    LLVMValueRef x; /* the first row */
} x_loop;

static x_loop x_begin(cg *c, screen_job *job, LLVMValueRef scratch) {
    x_loop x = {.loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->x_rows), 1), .x = c->code.args[job->dot.x]};
    lay_out(c, job, cg_at(c, c->i8, scratch, cg_mul(c, x.loop.index, cg_i64(c, lay_out(c, job, NULL)))));
    c->code.args[job->dot.x] = cg_at(c, c->f32, x.x, cg_mul(c, x.loop.index, cg_i64(c, job->dot.columns)));
    return x;
}

static void x_end(cg *c, const screen_job *job, x_loop *x) {
    cg_loop_end(c, &x->loop);
    c->code.args[job->dot.x] = x->x;
}

/* ---- this thread's groups ---- */

static cg_loop slabs_begin(cg *c, const screen_job *job) {
    LLVMValueRef thread = cg_widen(c, c->code.thread), threads = cg_widen(c, c->code.threads);
    int64_t slabs = (job->rows / ROWS + SLAB - 1) / SLAB;
    LLVMValueRef left = cg_sub(c, cg_add(c, cg_i64(c, slabs - 1), threads), thread);
    return cg_loop_begin(c, cg_i64(c, 0), LLVMBuildSDiv(c->b, left, threads, ""), 1);
}

static cg_loop groups_begin(cg *c, const screen_job *job, const cg_loop *slabs) {
    LLVMValueRef thread = cg_widen(c, c->code.thread), threads = cg_widen(c, c->code.threads);
    LLVMValueRef first = cg_mul(c, cg_add(c, cg_mul(c, slabs->index, threads), thread), cg_i64(c, SLAB));
    return cg_loop_begin(c, first, cg_min(c, cg_add(c, first, cg_i64(c, SLAB)), cg_i64(c, job->rows / ROWS)), 1);
}

/* Bounds of this thread's rows for every row of x, and the largest estimates. A slab stays in the cache from one row of x to the next. */
static void emit_estimates(cg *c, screen_job *job, LLVMValueRef scratch) {
    LLVMTypeRef floats = eight(c->f32, 1), ints = eight(c->i32, 1);
    estimate e = {.top = cg_variable(c, floats, NULL), .where = cg_variable(c, ints, NULL)};
    for (int p = 0; p < PARTS; p++) e.sum[p] = cg_variable(c, floats, NULL), e.bound[p] = cg_variable(c, floats, NULL);
    cg_loop slabs = slabs_begin(c, job);
    x_loop x = x_begin(c, job, scratch);
    LLVMBuildStore(c->b, cg_load(c, floats, job->top, 4), e.top);
    LLVMBuildStore(c->b, cg_load(c, ints, job->where, 4), e.where);
    cg_loop groups = groups_begin(c, job, &slabs);
    emit_group(c, job, &e, groups.index);
    cg_loop_end(c, &groups);
    cg_store(c, LLVMBuildLoad2(c->b, floats, e.top, ""), job->top, 4);
    cg_store(c, LLVMBuildLoad2(c->b, ints, e.where, ""), job->where, 4);
    x_end(c, job, &x);
    cg_loop_end(c, &slabs);
}

/* The row estimated highest. */
static void emit_guess(cg *c, const screen_job *job, cg_best *guess) {
    LLVMValueRef top = cg_load(c, eight(c->f32, 1), job->top, 4), where = cg_load(c, eight(c->i32, 1), job->where, 4);
    LLVMBuildStore(c->b, cg_f32(c, -INFINITY), guess->value);
    LLVMBuildStore(c->b, cg_i32(c, -1), guess->index);
    for (int i = 0; i < LANES; i++)
        cg_best_challenge(c, guess, LLVMBuildExtractElement(c->b, top, cg_i32(c, i), ""), LLVMBuildExtractElement(c->b, where, cg_i32(c, i), ""));
}

/* ---- scores ---- */

/* best.value when that is larger. */
static LLVMValueRef larger(cg *c, LLVMValueRef value, LLVMValueRef than) {
    return LLVMBuildSelect(c->b, LLVMBuildFCmp(c->b, LLVMRealOGT, value, than, ""), value, than, "");
}

/* The largest of the threads' scores of their guesses. */
static LLVMValueRef emit_threshold(cg *c, const screen_job *job, const cg_best *guess) {
    LLVMValueRef index = LLVMBuildLoad2(c->b, c->i32, guess->index, ""), score = cg_variable(c, c->f32, cg_f32(c, -INFINITY));
    cg_branch any = cg_if(c, LLVMBuildICmp(c->b, LLVMIntSGE, index, cg_i32(c, 0), ""));
    LLVMBuildStore(c->b, cg_dot_row(c, &job->dot, cg_widen(c, index)), score);
    cg_end_if(c, &any);
    cg_store(c, LLVMBuildLoad2(c->b, c->f32, score, ""), cg_shared_word(c, c->code.thread, SHOWN), 4);
    cg_wait(c, -1);
    LLVMBuildStore(c->b, cg_f32(c, -INFINITY), score);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_widen(c, c->code.threads), 1);
    LLVMValueRef shown = cg_load(c, c->f32, cg_shared_word(c, LLVMBuildTrunc(c->b, loop.index, c->i32, ""), SHOWN), 4);
    LLVMBuildStore(c->b, larger(c, shown, LLVMBuildLoad2(c->b, c->f32, score, "")), score);
    cg_loop_end(c, &loop);
    return LLVMBuildLoad2(c->b, c->f32, score, "");
}

static void challenge_row(cg *c, const screen_job *job, LLVMValueRef row, cg_best *best) {
    cg_best_challenge(c, best, cg_dot_row(c, &job->dot, row), LLVMBuildTrunc(c->b, row, c->i32, ""));
}

/* Those of LANES rows from `first` whose bounds reach both the threshold and the best score so far. */
static void emit_some_survivors(cg *c, const screen_job *job, LLVMValueRef first, LLVMValueRef threshold, cg_best *best) {
    LLVMValueRef bounds = cg_load(c, eight(c->f32, 1), cg_at(c, c->f32, job->bound, first), 4);
    LLVMValueRef reach = LLVMBuildFCmp(c->b, LLVMRealUGE, bounds, cg_splat(c, threshold, LANES), "");
    LLVMValueRef lanes = LLVMBuildBitCast(c->b, reach, LLVMIntTypeInContext(c->context, LANES), "");
    cg_branch any = cg_if(c, LLVMBuildICmp(c->b, LLVMIntNE, lanes, LLVMConstNull(LLVMTypeOf(lanes)), ""));
    cg_loop loop = cg_loop_begin(c, first, cg_add(c, first, cg_i64(c, LANES)), 1);
    LLVMValueRef bound = cg_load(c, c->f32, cg_at(c, c->f32, job->bound, loop.index), 4);
    LLVMValueRef limit = larger(c, LLVMBuildLoad2(c->b, c->f32, best->value, ""), threshold);
    cg_branch survives = cg_if(c, LLVMBuildFCmp(c->b, LLVMRealUGE, bound, limit, ""));
    challenge_row(c, job, loop.index, best);
    cg_end_if(c, &survives);
    cg_loop_end(c, &loop);
    cg_end_if(c, &any);
}

/* Scores of all rows that can win; the last thread takes those that have no screen. */
static void emit_survivors(cg *c, const screen_job *job, LLVMValueRef threshold, cg_best *best) {
    cg_loop slabs = slabs_begin(c, job), groups = groups_begin(c, job, &slabs);
    cg_loop parts = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, PARTS), 1);
    LLVMValueRef part = cg_add(c, cg_mul(c, groups.index, cg_i64(c, PARTS)), parts.index);
    emit_some_survivors(c, job, cg_mul(c, part, cg_i64(c, LANES)), threshold, best);
    cg_loop_end(c, &parts);
    cg_loop_end(c, &groups);
    cg_loop_end(c, &slabs);
    LLVMValueRef last = LLVMBuildICmp(c->b, LLVMIntEQ, cg_add(c, cg_widen(c, c->code.thread), cg_i64(c, 1)), cg_widen(c, c->code.threads), "");
    LLVMValueRef rows = cg_i64(c, job->rows), from = LLVMBuildSelect(c->b, last, cg_i64(c, job->rows / ROWS * ROWS), rows, "");
    cg_loop rest = cg_loop_begin(c, from, rows, 1);
    challenge_row(c, job, rest.index, best);
    cg_loop_end(c, &rest);
}

static void emit_screened(cg *c, void *user) {
    screen_job *job = user;
    LLVMValueRef scratch = cg_scratch(c, job->x_rows * lay_out(c, job, NULL));
    cg_best guess = cg_best_new(c), best = cg_best_new(c);
    x_loop x = x_begin(c, job, scratch);
    emit_x(c, job);
    x_end(c, job, &x);
    emit_estimates(c, job, scratch);
    x = x_begin(c, job, scratch);
    cg_dot_begin(c, &job->dot);
    emit_guess(c, job, &guess);
    LLVMBuildStore(c->b, cg_f32(c, -INFINITY), best.value);
    LLVMBuildStore(c->b, cg_i32(c, -1), best.index);
    emit_survivors(c, job, emit_threshold(c, job, &guess), &best);
    cg_best_join(c, &best, cg_at(c, c->i32, c->code.args[job->out], x.loop.index));
    if (job->x_rows > 1) cg_wait(c, -1); /* the shared words are written again */
    x_end(c, job, &x);
}

void cg_emit_screened_argmax(cg *c, const ir_inst *inst) {
    const ir_type *w = &inst->operands[1]->type;
    const cg_slot *x = cg_slot_of(c, inst->operands[0]), *out = cg_slot_of(c, inst->results[0]);
    screen_job job = {.dot = {.dtype = w->dtype, .columns = w->dim[1], .rows = 1}, .rows = w->dim[0], .runs = w->dim[1] / RUN,
                      .x_rows = inst->operands[0]->type.dim[0]};
    cg_kernel kernel = {.count = 0};
    if (!ir_layout_is_dense(c->module, &inst->operands[0]->type, &x->layout)) {
        cg_unsupported(c, inst, "a strided x");
        return;
    }
    cg_access(c, &x, 1, &out, 1);
    cg_dot_args(c, &job.dot, &kernel, cg_slot_of(c, inst->operands[1])->base, x->base);
    job.screen = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[2])->base);
    job.out = cg_kernel_arg(&kernel, out->base);
    cg_reserve_scratch(c, job.x_rows * lay_out(c, &job, NULL));
    gm_string_printf(&kernel.key, "screened_argmax %s %lld %lld %lld", rt_dtype_of(w->dtype)->text, (long long)w->dim[0], (long long)w->dim[1],
                     (long long)job.x_rows);
    cg_kernel_call(c, &kernel, "screened_argmax", emit_screened, &job);
    cg_barrier(c); /* the shared words may be written again */
}
