/* x for a screen: in the order of its columns, in 8 bits per run of 32, x ≈ step·q, with what its bounds need: ‖x‖ and ‖x - step·q‖ of every run.
 */
#include "codegen/screen.h"

#include "runtime/sampler.h"

#include <math.h>

enum { RUN = RT_SCREEN_RUN };

static LLVMTypeRef floats(cg *c) {
    return LLVMVectorType(c->f32, (unsigned)c->lanes);
}

static LLVMTypeRef ints(cg *c) {
    return LLVMVectorType(c->i32, (unsigned)c->lanes);
}

static LLVMValueRef splat_f32(cg *c, double value) {
    return cg_splat(c, cg_f32(c, value), c->lanes);
}

/* ---- scratch ---- */

/* Where things of a row of x lie, from base on; returns their size. base NULL: only the size. */
static int64_t lay_out(cg *c, const screen_job *job, LLVMValueRef base, screen_x *x) {
    int64_t runs = job->at.runs, vector = SCREEN_LANES * 4;
    struct {
        LLVMValueRef *pointer;
        int64_t bytes;
    } parts[] = {{&x->columns, runs * RUN * 4}, {&x->q, runs * RUN}, {&x->step, runs * 4}, {&x->centre, runs * 4}, {&x->length, runs * 4},
                 {&x->excess, runs * 4}, {&x->extra, 4}, {&x->bound, job->rows * 4}, {&x->top, vector}, {&x->where, vector},
                 {&x->tops, job->sketch ? screen_slabs(job) * vector : 0},
                 {&x->heap, job->collects ? (int64_t)sizeof(rt_candidates) : 0}, {&x->found, job->collects ? (int64_t)sizeof(rt_candidates) : 0},
                 {&x->heap_score, job->collects ? RT_SAMPLE_MOST_REACH * 4 : 0}, {&x->heap_id, job->collects ? RT_SAMPLE_MOST_REACH * 4 : 0},
                 {&x->found_id, job->collects ? job->rows * 4 : 0}};
    int64_t at = 0;
    for (size_t i = 0; i < GM_COUNT(parts); i++) {
        if (base) *parts[i].pointer = cg_at(c, c->i8, base, cg_i64(c, at));
        at += (parts[i].bytes + 63) / 64 * 64;
    }
    return at;
}

int64_t screen_scratch(const screen_job *job) {
    screen_x x;
    return job->x_rows * lay_out(NULL, job, NULL, &x);
}

screen_x screen_x_at(cg *c, const screen_job *job, LLVMValueRef scratch, LLVMValueRef index) {
    screen_x x;
    lay_out(c, job, cg_at(c, c->i8, scratch, cg_mul(c, index, cg_i64(c, lay_out(NULL, job, NULL, &x)))), &x);
    return x;
}

/* ---- a run ---- */

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
static void store_run(cg *c, const screen_job *job, const screen_x *out, LLVMValueRef index, LLVMValueRef extra) {
    const double zero_code = job->sketch ? -6.5 : -8, code_step = job->sketch ? 4 : 1;
    int parts = RUN / c->lanes;
    LLVMValueRef x[8], column = cg_mul(c, index, cg_i64(c, RUN)), zero = LLVMConstNull(floats(c));
    for (int p = 0; p < parts; p++) x[p] = cg_load(c, floats(c), cg_at(c, c->f32, out->columns, cg_add(c, column, cg_i64(c, p * c->lanes))), 4);
    LLVMValueRef most = LLVMBuildBitCast(c->b, largest_bits(c, x, parts), c->f32, "");
    LLVMValueRef fits = LLVMBuildFCmp(c->b, LLVMRealOLT, most, cg_f32(c, RT_SCREEN_MAX_X), "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, fits, LLVMBuildLoad2(c->b, c->f32, extra, ""), cg_f32(c, INFINITY), ""), extra);
    for (int p = 0; p < parts; p++) x[p] = LLVMBuildSelect(c->b, fits, x[p], zero, "");
    LLVMValueRef least = cg_f32(c, 0x1p-88), step = LLVMBuildFMul(c->b, most, cg_f32(c, (1 + 0x1p-19) / 127), "");
    step = LLVMBuildSelect(c->b, LLVMBuildAnd(c->b, fits, LLVMBuildFCmp(c->b, LLVMRealOGT, step, least, ""), ""), step, least, "");
    LLVMValueRef length = length_of(c, x, parts), total = store_bytes(c, x, parts, step, cg_at(c, c->i8, out->q, column));
    cg_store(c, LLVMBuildFMul(c->b, step, cg_f32(c, code_step), ""), cg_at(c, c->f32, out->step, index), 4);
    cg_store(c, LLVMBuildFMul(c->b, LLVMBuildFMul(c->b, total, cg_f32(c, zero_code), ""), step, ""), cg_at(c, c->f32, out->centre, index), 4);
    cg_store(c, excess_of(c, length_of(c, x, parts), length), cg_at(c, c->f32, out->excess, index), 4);
    length = cg_fma(c, length, cg_f32(c, (1 + 1e-5) / 64), cg_f32(c, 0x1p-76)); /* squares below normal numbers again */
    cg_store(c, length, cg_at(c, c->f32, out->length, index), 4);
}

/* A number that is no column's, in a damaged file, becomes the last one's. */
static void arrange_columns(cg *c, const screen_job *job, const screen_x *out) {
    LLVMValueRef *args = c->code.args;
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->at.runs * RUN), 1);
    LLVMValueRef of = LLVMBuildZExt(c->b, cg_load(c, c->i16, cg_at(c, c->i16, args[job->screen], loop.index), 2), c->i64, "");
    of = cg_min(c, of, cg_i64(c, job->dot.columns - 1));
    cg_store(c, cg_load(c, c->f32, cg_at(c, c->f32, args[job->dot.x], of), 4), cg_at(c, c->f32, out->columns, loop.index), 4);
    cg_loop_end(c, &loop);
}

void screen_store_x(cg *c, const screen_job *job, const screen_x *x) {
    LLVMValueRef extra = cg_variable(c, c->f32, cg_f32(c, RT_SCREEN_LEAST));
    arrange_columns(c, job, x);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->at.runs), 1);
    store_run(c, job, x, loop.index, extra);
    cg_loop_end(c, &loop);
    cg_store(c, LLVMBuildLoad2(c->b, c->f32, extra, ""), x->extra, 4);
}
