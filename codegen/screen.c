/* screened_argmax: argmax of W·x that reads the screen of W (runtime/screen.h) and of W itself only the rows that can win.
 *
 * Every thread, for its share of the rows: an estimate and an upper bound of each row's score from the screen, then the exact
 * score of the row it estimates highest. The largest of the threads' scores is beaten only by rows whose bound reaches it: their
 * exact scores are computed, by the row code of the matrix-vector kernel, so that every bit is that of the full product.
 *
 * x is held in 8 bits per run of 32, x ≈ step·q, so that a run's estimate is an integer sum, d·step·Σ (nibble - 8)·q. Scales and
 * bounds of the four runs of a block are handled in four lanes. A comparison that decides to skip a row is false for NaN, so that a
 * row with NaN is never skipped.
 */
#include "codegen/cg.h"

#include "runtime/screen.h"

#include <math.h>
#include <string.h>

enum { CHAINS = 2, UNROLL = 2, RUN = RT_SCREEN_RUN, RUNS = 4, SHOWN = 2 /* shared word: a thread's first score */ };

typedef struct screen_job {
    cg_dot dot;
    int64_t rows, blocks; /* blocks of a row */
    int screen, out;      /* kernel arguments */
    int lanes;            /* of integer sums */
    /* scratch of this thread */
    LLVMValueRef q;       /* i8[K] */
    LLVMValueRef step;    /* f32[runs] */
    LLVMValueRef centre;  /* f32[runs]: -8·step·Σq */
    LLVMValueRef length;  /* f32[runs]: at least ‖x‖/64 */
    LLVMValueRef excess;  /* f32[runs]: what the bound adds for ‖x - step·q‖ */
    LLVMValueRef bound;   /* f32[rows]: of this thread's rows, from its first */
    LLVMValueRef extra;   /* f32, added to every bound: inf when x is out of range */
} screen_job;

static LLVMTypeRef floats(cg *c) {
    return LLVMVectorType(c->f32, (unsigned)c->lanes);
}

static LLVMTypeRef ints(cg *c) {
    return LLVMVectorType(c->i32, (unsigned)c->lanes);
}

static LLVMTypeRef four_floats(cg *c) {
    return LLVMVectorType(c->f32, RUNS);
}

static LLVMValueRef splat_f32(cg *c, double value) {
    return cg_splat(c, cg_f32(c, value), c->lanes);
}

/* Where things lie in the scratch; returns its size. base NULL: only the size. */
static int64_t lay_out(cg *c, screen_job *job, LLVMValueRef base) {
    int64_t runs = job->blocks * RUNS;
    struct {
        LLVMValueRef *pointer;
        int64_t bytes;
    } parts[] = {{&job->q, runs * RUN},       {&job->step, runs * 4},   {&job->centre, runs * 4},
                 {&job->length, runs * 4}, {&job->excess, runs * 4}, {&job->bound, job->rows * 4}};
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
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->blocks * RUNS), 1);
    emit_x_run(c, job, loop.index, extra);
    cg_loop_end(c, &loop);
    job->extra = LLVMBuildLoad2(c->b, c->f32, extra, "");
}

/* ---- integer sums ---- */

static LLVMValueRef some_lanes(cg *c, LLVMValueRef a, LLVMValueRef b, unsigned first, unsigned count) {
    LLVMValueRef lane[32];
    for (unsigned i = 0; i < count; i++) lane[i] = cg_i32(c, first + i);
    return LLVMBuildShuffleVector(c->b, a, b ? b : LLVMGetPoison(LLVMTypeOf(a)), LLVMConstVector(lane, count), "");
}

/* Σ nibble·q of a run in lanes: eight where bytes can be multiplied in pairs, else four from 16-bit words. Below 2^16. */
static LLVMValueRef run_sums(cg *c, const screen_job *job, LLVMValueRef nibbles, LLVMValueRef q) {
    LLVMTypeRef sums = LLVMVectorType(c->i32, (unsigned)job->lanes), words = LLVMVectorType(c->i16, (unsigned)job->lanes * 2);
    LLVMValueRef bytes = cg_load(c, LLVMVectorType(c->i8, 16), nibbles, 1), four = cg_splat(c, LLVMConstInt(c->i8, 4, 0), 16), sum = NULL;
    LLVMValueRef codes = some_lanes(c, bytes, LLVMBuildLShr(c->b, bytes, four, ""), 0, RUN);
    codes = LLVMBuildAnd(c->b, codes, cg_splat(c, LLVMConstInt(c->i8, 15, 0), RUN), "");
    LLVMValueRef x = cg_load(c, LLVMVectorType(c->i8, RUN), q, 1);
    if (job->lanes == 8) {
        LLVMValueRef ones = cg_splat(c, LLVMConstInt(c->i16, 1, 0), 16);
        return cg_intrinsic2(c, "llvm.x86.avx2.pmadd.wd", sums, cg_intrinsic2(c, "llvm.x86.avx2.pmadd.ub.sw", words, codes, x), ones);
    }
    for (unsigned at = 0; at < RUN; at += 8) {
        LLVMValueRef a = LLVMBuildZExt(c->b, some_lanes(c, codes, NULL, at, 8), words, ""), b = LLVMBuildSExt(c->b, some_lanes(c, x, NULL, at, 8), words, "");
        LLVMValueRef products = cg_intrinsic2(c, "llvm.x86.sse2.pmadd.wd", sums, a, b);
        sum = sum ? cg_add(c, sum, products) : products;
    }
    return sum;
}

/* ---- estimates ---- */

typedef struct estimate {
    LLVMValueRef sum[CHAINS];   /* variables: lanes of Σ d·step·Σ nibble·q */
    LLVMValueRef centre, bound; /* variables of four lanes: Σ d·centre, and how far the sum may be off */
} estimate;

static LLVMValueRef load_four(cg *c, LLVMValueRef base, LLVMValueRef index) {
    return cg_load(c, four_floats(c), cg_at(c, four_floats(c), base, index), 4);
}

/* Four numbers of 1 or 2 bytes at an offset of the block, as i32. */
static LLVMValueRef widen_four(cg *c, LLVMTypeRef type, LLVMValueRef block, int64_t offset) {
    LLVMValueRef stored = cg_load(c, LLVMVectorType(type, RUNS), cg_at(c, c->i8, block, cg_i64(c, offset)), 1);
    return LLVMBuildZExt(c->b, stored, LLVMVectorType(c->i32, RUNS), "");
}

static void emit_block(cg *c, const screen_job *job, const estimate *e, LLVMValueRef row, LLVMValueRef index) {
    LLVMTypeRef lanes = LLVMVectorType(c->f32, (unsigned)job->lanes);
    LLVMValueRef block = cg_at(c, c->i8, row, cg_mul(c, index, cg_i64(c, CG_S4_BYTES)));
    LLVMValueRef bits = LLVMBuildShl(c->b, widen_four(c, c->i16, block, 0), cg_splat(c, cg_i32(c, 16), RUNS), "");
    LLVMValueRef d = LLVMBuildBitCast(c->b, bits, four_floats(c), "");
    LLVMValueRef bound = LLVMBuildSIToFP(c->b, widen_four(c, c->i8, block, CG_S4_BOUNDS), four_floats(c), "");
    bound = cg_fma(c, bound, load_four(c, job->length, index), load_four(c, job->excess, index));
    LLVMBuildStore(c->b, cg_fma(c, d, bound, LLVMBuildLoad2(c->b, four_floats(c), e->bound, "")), e->bound);
    LLVMBuildStore(c->b, cg_fma(c, d, load_four(c, job->centre, index), LLVMBuildLoad2(c->b, four_floats(c), e->centre, "")), e->centre);
    LLVMValueRef units = LLVMBuildFMul(c->b, d, load_four(c, job->step, index), "");
    for (int i = 0; i < RUNS; i++) {
        LLVMValueRef q = cg_at(c, c->i8, job->q, cg_add(c, cg_mul(c, index, cg_i64(c, CG_S4_ELEMS)), cg_i64(c, i * RUN)));
        LLVMValueRef sums = run_sums(c, job, cg_at(c, c->i8, block, cg_i64(c, CG_S4_NIBBLES + i * RUN / 2)), q);
        LLVMValueRef unit = cg_splat(c, LLVMBuildExtractElement(c->b, units, cg_i32(c, i), ""), job->lanes), old = e->sum[i % CHAINS];
        LLVMBuildStore(c->b, cg_fma(c, unit, LLVMBuildSIToFP(c->b, sums, lanes, ""), LLVMBuildLoad2(c->b, lanes, old, "")), old);
    }
}

/* The estimate of row `index`; *out_bound: what its score cannot exceed. */
static LLVMValueRef emit_estimate(cg *c, const screen_job *job, const estimate *e, LLVMValueRef index, LLVMValueRef *out_bound) {
    LLVMTypeRef lanes = LLVMVectorType(c->f32, (unsigned)job->lanes);
    LLVMValueRef row = cg_at(c, c->i8, c->code.args[job->screen], cg_mul(c, index, cg_i64(c, job->blocks * CG_S4_BYTES)));
    int64_t whole = job->blocks / UNROLL * UNROLL;
    for (int i = 0; i < CHAINS; i++) LLVMBuildStore(c->b, LLVMConstNull(lanes), e->sum[i]);
    LLVMBuildStore(c->b, LLVMConstNull(four_floats(c)), e->centre);
    LLVMBuildStore(c->b, LLVMConstNull(four_floats(c)), e->bound);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, whole), UNROLL);
    for (int i = 0; i < UNROLL; i++) emit_block(c, job, e, row, cg_add(c, loop.index, cg_i64(c, i)));
    cg_loop_end(c, &loop);
    for (int64_t i = whole; i < job->blocks; i++) emit_block(c, job, e, row, cg_i64(c, i));
    LLVMValueRef total = LLVMBuildLoad2(c->b, lanes, e->sum[0], "");
    for (int i = 1; i < CHAINS; i++) total = LLVMBuildFAdd(c->b, total, LLVMBuildLoad2(c->b, lanes, e->sum[i], ""), "");
    if (job->lanes == 8) total = LLVMBuildFAdd(c->b, some_lanes(c, total, NULL, 0, 4), some_lanes(c, total, NULL, 4, 4), "");
    LLVMValueRef sum = cg_sum_lanes(c, LLVMBuildFAdd(c->b, total, LLVMBuildLoad2(c->b, four_floats(c), e->centre, ""), ""));
    LLVMValueRef off = cg_sum_lanes(c, LLVMBuildLoad2(c->b, four_floats(c), e->bound, ""));
    *out_bound = LLVMBuildFAdd(c->b, LLVMBuildFAdd(c->b, sum, off, ""), job->extra, "");
    return sum;
}

/* Bounds of rows [from, to); the row estimated highest in *guess. */
static void emit_estimates(cg *c, const screen_job *job, LLVMValueRef from, LLVMValueRef to, cg_best *guess) {
    estimate e = {.centre = cg_variable(c, four_floats(c), NULL), .bound = cg_variable(c, four_floats(c), NULL)};
    for (int i = 0; i < CHAINS; i++) e.sum[i] = cg_variable(c, LLVMVectorType(c->f32, (unsigned)job->lanes), NULL);
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    LLVMValueRef bound, sum = emit_estimate(c, job, &e, loop.index, &bound);
    cg_store(c, bound, cg_at(c, c->f32, job->bound, cg_sub(c, loop.index, from)), 4);
    cg_best_challenge(c, guess, sum, LLVMBuildTrunc(c->b, loop.index, c->i32, ""));
    cg_loop_end(c, &loop);
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

/* The rows whose bounds reach both the threshold and the best score so far. */
static void emit_survivors(cg *c, const screen_job *job, LLVMValueRef from, LLVMValueRef to, LLVMValueRef threshold, cg_best *best) {
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    LLVMValueRef bound = cg_load(c, c->f32, cg_at(c, c->f32, job->bound, cg_sub(c, loop.index, from)), 4);
    LLVMValueRef limit = larger(c, LLVMBuildLoad2(c->b, c->f32, best->value, ""), threshold);
    cg_branch survives = cg_if(c, LLVMBuildFCmp(c->b, LLVMRealUGE, bound, limit, ""));
    cg_best_challenge(c, best, cg_dot_row(c, &job->dot, loop.index), LLVMBuildTrunc(c->b, loop.index, c->i32, ""));
    cg_end_if(c, &survives);
    cg_loop_end(c, &loop);
}

static void emit_screened(cg *c, void *user) {
    screen_job *job = user;
    LLVMValueRef from, to;
    lay_out(c, job, cg_scratch(c, lay_out(c, job, NULL)));
    cg_dot_begin(c, &job->dot);
    emit_x(c, job);
    cg_share(c, cg_i64(c, job->rows), 16, &from, &to);
    cg_best guess = cg_best_new(c), best = cg_best_new(c);
    emit_estimates(c, job, from, to, &guess);
    emit_survivors(c, job, from, to, emit_threshold(c, job, &guess), &best);
    cg_best_join(c, &best, c->code.args[job->out]);
}

void cg_emit_screened_argmax(cg *c, const ir_inst *inst) {
    const ir_type *w = &inst->operands[1]->type;
    const cg_slot *x = cg_slot_of(c, inst->operands[0]), *out = cg_slot_of(c, inst->results[0]);
    screen_job job = {.dot = {.dtype = w->dtype, .columns = w->dim[1]}, .rows = w->dim[0], .blocks = w->dim[1] / CG_S4_ELEMS,
                      .lanes = c->lanes == 4 ? 4 : 8};
    cg_kernel kernel = {.count = 0};
    if (!ir_layout_is_dense(c->module, &inst->operands[0]->type, &x->layout)) {
        cg_unsupported(c, inst, "a strided x");
        return;
    }
    cg_access(c, &x, 1, &out, 1);
    cg_dot_args(c, &job.dot, &kernel, cg_slot_of(c, inst->operands[1])->base, x->base);
    job.screen = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[2])->base);
    job.out = cg_kernel_arg(&kernel, out->base);
    cg_reserve_scratch(c, lay_out(c, &job, NULL));
    gm_string_printf(&kernel.key, "screened_argmax %s %lld %lld", rt_dtype_of(w->dtype)->text, (long long)w->dim[0], (long long)w->dim[1]);
    cg_kernel_call(c, &kernel, "screened_argmax", emit_screened, &job);
    cg_barrier(c); /* the shared words may be written again */
}
