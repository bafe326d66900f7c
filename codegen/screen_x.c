/* x for a screen: in the order of its columns, in 8 bits per run of 32, with what its bounds need: ‖x‖ and ‖x - x̂‖ of
 * every run.
 */
#include "codegen/screen.h"

#include "runtime/sampler.h"

#include <math.h>
#include <stddef.h>

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
    int64_t runs = job->at.runs, quads = job->at.quads * RT_SCREEN_QUAD;
    struct {
        LLVMValueRef *pointer;
        int64_t bytes;
    } parts[] = {{&x->columns, runs * RUN * 4},
                 {&x->q, (runs + 1) * RUN},
                 {&x->spread, (runs + 1) * RUN * SCREEN_LANES},
                 {&x->step, (runs + 1) * 4},
                 {&x->centre, (runs + 1) * 4},
                 {&x->length, runs * 4},
                 {&x->coarse, quads},
                 {&x->fine, quads},
                 {&x->unit, 4},
                 {&x->excess, 4},
                 {&x->extra, 4},
                 {&x->kept, 8},
                 {&x->kept_row, (job->rows / SCREEN_LANES + 1) * 4},
                 {&x->bound, job->rows * 4},
                 {&x->heap, sizeof(rt_candidates)},
                 {&x->found, sizeof(rt_candidates)},
                 {&x->heap_score, RT_SAMPLE_MOST_REACH * 4},
                 {&x->heap_id, RT_SAMPLE_MOST_REACH * 4},
                 {&x->found_id, job->rows * 4}};
    int64_t at = 0;
    for (size_t i = 0; i < GM_COUNT(parts); i++) {
        if (base) *parts[i].pointer = cg_at(c, c->i8, base, cg_i64(c, at));
        at += (parts[i].bytes + 63) / 64 * 64;
    }
    if (base) x->supposed = cg_at(c, c->i8, x->heap, cg_i64(c, offsetof(rt_candidates, supposed)));
    return at;
}

static int64_t bytes_of_rows(const screen_job *job) {
    screen_x x;
    return job->x_rows * lay_out(NULL, job, NULL, &x);
}

int64_t screen_scratch(const screen_job *job) {
    return bytes_of_rows(job) + (job->listed ? (job->rows / RT_LIKELY_BLOCK + 1) * (int64_t)sizeof(int32_t) : 0);
}

/* The blocks with likely ids, in scratch, and how many groups are in them: of the last one of all there may be fewer
 * than of others, or none. */
static void find_likely(cg *c, screen_job *job) {
    const int64_t each = RT_LIKELY_BLOCK / RT_SCREEN_ROWS, last = (job->rows - 1) / RT_LIKELY_BLOCK,
                  missing = (last + 1) * each - job->at.groups;
    LLVMValueRef args[] = {c->code.args[job->tokens], c->code.args[job->position], cg_i64(c, job->rows),
                           c->code.args[job->usual], job->blocks},
                 none = cg_i64(c, 0);
    LLVMValueRef count = cg_host_call(c, "rt_likely_blocks", c->i64, args, 5),
                 place = cg_max(c, none, cg_sub(c, count, cg_i64(c, 1)));
    LLVMValueRef block = cg_load(c, c->i32, cg_at(c, c->i32, job->blocks, place), 4),
                 some = LLVMBuildICmp(c->b, LLVMIntSGT, count, none, "");
    job->ends = LLVMBuildAnd(c->b, some, LLVMBuildICmp(c->b, LLVMIntEQ, block, cg_i32(c, (int)last), ""), "");
    job->groups =
        cg_sub(c, cg_mul(c, count, cg_i64(c, each)), LLVMBuildSelect(c->b, job->ends, cg_i64(c, missing), none, ""));
}

LLVMValueRef screen_scratch_begin(cg *c, screen_job *job) {
    LLVMValueRef scratch = cg_scratch(c, screen_scratch(job));
    job->blocks = cg_at(c, c->i8, scratch, cg_i64(c, bytes_of_rows(job)));
    job->groups = cg_i64(c, job->at.groups);
    if (job->listed) find_likely(c, job);
    return scratch;
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

double screen_carry(const cg *c) {
    return c->vnni ? 1.0 / 16 : 0;
}

bool screen_spreads(const cg *c) {
    return !c->vnni && c->lanes >= SCREEN_LANES;
}

/* x - by·y. */
static LLVMValueRef less(cg *c, LLVMValueRef x, LLVMValueRef by, LLVMValueRef y) {
    return cg_fma(c, LLVMBuildFNeg(c->b, by, ""), y, x);
}

/* The nearest integers to x/step are stored as bytes; x becomes what they leave. Returns them as floats. */
static LLVMValueRef store_bytes(cg *c, LLVMValueRef *x, LLVMValueRef step, LLVMValueRef inverse, LLVMValueRef to) {
    LLVMValueRef big = splat_f32(c, 0x1.8p23); /* beside it a float has no fraction */
    LLVMValueRef q = LLVMBuildFSub(c->b, cg_fma(c, *x, inverse, big), big, "");
    LLVMValueRef bytes =
        LLVMBuildTrunc(c->b, LLVMBuildFPToSI(c->b, q, ints(c), ""), LLVMVectorType(c->i8, (unsigned)c->lanes), "");
    cg_store(c, bytes, to, 1);
    *x = less(c, *x, step, q);
    return q;
}

/* A run of x, `parts` vectors, or what one left: x becomes x - x̂. most: the largest magnitude that q stands for; at:
 * which run of q it is. */
static void store_q(cg *c, const screen_job *job, const screen_x *out, LLVMValueRef *x, LLVMValueRef most,
                    LLVMValueRef at) {
    const double carry = screen_carry(c), unit = carry > 0 ? carry : 1;
    int half = RUN / c->lanes / 2;
    LLVMValueRef least = cg_f32(c, 0x1p-88), to = cg_at(c, c->i8, out->q, cg_mul(c, at, cg_i64(c, RUN))), total = NULL;
    /* Half a step of the carry is none of x. */
    LLVMValueRef step = LLVMBuildFMul(c->b, most, cg_f32(c, (1 + 0x1p-19) / (127 - carry / 2)), "");
    step = LLVMBuildSelect(c->b, LLVMBuildFCmp(c->b, LLVMRealOGT, step, least, ""), step, least, "");
    LLVMValueRef steps = cg_splat(c, step, c->lanes),
                 inverse = cg_splat(c, LLVMBuildFDiv(c->b, cg_f32(c, 1), step, ""), c->lanes);
    for (int p = 0; p < half; p++) {
        LLVMValueRef q =
            store_bytes(c, &x[half + p], steps, inverse, cg_at(c, c->i8, to, cg_i64(c, (half + p) * c->lanes)));
        if (carry > 0) x[p] = less(c, x[p], LLVMBuildFMul(c->b, steps, splat_f32(c, carry), ""), q);
        LLVMValueRef low = store_bytes(c, &x[p], steps, inverse, cg_at(c, c->i8, to, cg_i64(c, p * c->lanes)));
        LLVMValueRef both = cg_fma(c, q, splat_f32(c, 1 + carry), low);
        total = total ? LLVMBuildFAdd(c->b, total, both, "") : both;
    }
    cg_store(c, LLVMBuildFMul(c->b, step, cg_f32(c, unit), ""), cg_at(c, c->f32, out->step, at), 4);
    LLVMValueRef sum = LLVMBuildFMul(c->b, cg_sum_lanes(c, total), cg_f32(c, -8), "");
    cg_store(c, LLVMBuildFMul(c->b, sum, step, ""), cg_at(c, c->f32, out->centre, at), 4);
}

/* The largest magnitude that q of a run must stand for: of x, and where something is carried of the lower columns
 * without it. */
static LLVMValueRef largest_of(cg *c, const screen_job *job, LLVMValueRef const *x) {
    LLVMValueRef kept[8], carry = splat_f32(c, screen_carry(c));
    int half = RUN / c->lanes / 2;
    for (int p = 0; p < half; p++) kept[p] = less(c, x[p], carry, x[half + p]), kept[half + p] = x[half + p];
    return LLVMBuildBitCast(c->b, largest_bits(c, kept, 2 * half), c->f32, "");
}

/* (off - error·length)·steps, at least 0. off: of roundings and of squares below normal numbers some is lost: hence
 * 1e-5, 1e-6·length and 2^-71. */
static LLVMValueRef excess_of(cg *c, LLVMValueRef off, LLVMValueRef length, double error, double steps) {
    LLVMValueRef excess = cg_fma(c, off, cg_f32(c, (1 + 1e-5) * steps), cg_f32(c, 0x1p-71 * steps)),
                 zero = cg_f32(c, 0);
    excess = cg_fma(c, length, cg_f32(c, (1e-6 - error) * steps), excess);
    return LLVMBuildSelect(c->b, LLVMBuildFCmp(c->b, LLVMRealOGT, excess, zero, ""), excess, zero, "");
}

static void add_excess(cg *c, const screen_x *out, LLVMValueRef const *x, LLVMValueRef length, double error,
                       int most_scale) {
    LLVMValueRef more =
        excess_of(c, length_of(c, x, RUN / c->lanes), length, error, (double)RT_SCREEN_MAX_STEPS * most_scale);
    cg_store(c, LLVMBuildFAdd(c->b, cg_load(c, c->f32, out->excess, 4), more, ""), out->excess, 4);
}

/* Run `index` of the screen; one of x that is out of range counts as zero and makes every bound infinite. The first
 * run, whose codes weigh most, has what its bytes left in bytes too, and the second is of the same columns. */
static void store_run(cg *c, const screen_job *job, const screen_x *out, LLVMValueRef index, bool first) {
    int parts = RUN / c->lanes;
    LLVMValueRef x[8] = {0}, column = cg_mul(c, index, cg_i64(c, RUN)), zero = cg_f32(c, 0);
    for (int p = 0; p < parts; p++)
        x[p] = cg_load(c, floats(c), cg_at(c, c->f32, out->columns, cg_add(c, column, cg_i64(c, p * c->lanes))), 4);
    LLVMValueRef most = largest_of(c, job, x),
                 fits = LLVMBuildFCmp(c->b, LLVMRealOLT, most, cg_f32(c, RT_SCREEN_MAX_X), "");
    cg_store(c, LLVMBuildSelect(c->b, fits, cg_load(c, c->f32, out->extra, 4), cg_f32(c, INFINITY), ""), out->extra, 4);
    for (int p = 0; p < parts; p++) x[p] = LLVMBuildSelect(c->b, fits, x[p], LLVMConstNull(floats(c)), "");
    LLVMValueRef length = length_of(c, x, parts);
    store_q(c, job, out, x, LLVMBuildSelect(c->b, fits, most, zero, ""), index);
    if (first) {
        /* of the second run, whose x̂ this is */
        add_excess(c, out, x, length, (double)RT_SCREEN_X_ERROR, RT_SCREEN_MOST_REST_SCALE);
        store_q(c, job, out, x, largest_of(c, job, x), cg_i64(c, job->at.runs));
        add_excess(c, out, x, length, (double)RT_SCREEN_TOP_X_ERROR, RT_SCREEN_MOST_SCALE);
    } else {
        add_excess(c, out, x, length, (double)RT_SCREEN_X_ERROR, RT_SCREEN_MOST_SCALE);
    }
    length = cg_fma(c, length, cg_f32(c, 1 + 1e-5), cg_f32(c, 0x1p-70)); /* squares below normal numbers again */
    cg_store(c, length, cg_at(c, c->f32, out->length, first ? index : cg_sub(c, index, cg_i64(c, 1))), 4);
}

/* Bytes of the second run: the first's. */
static void repeat_run(cg *c, const screen_x *out) {
    LLVMTypeRef bytes = LLVMVectorType(c->i8, RUN);
    cg_store(c, cg_load(c, bytes, out->q, 1), cg_at(c, c->i8, out->q, cg_i64(c, RUN)), 1);
    LLVMValueRef const of[] = {out->step, out->centre};
    for (size_t i = 0; i < GM_COUNT(of); i++)
        cg_store(c, cg_load(c, c->f32, of[i], 4), cg_at(c, c->f32, of[i], cg_i64(c, 1)), 4);
}

/* A number that is no column's, in a damaged file, becomes the last one's. */
static void arrange_columns(cg *c, const screen_job *job, const screen_x *out) {
    LLVMValueRef *args = c->code.args;
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->at.runs * RUN), 1);
    LLVMValueRef of =
        LLVMBuildZExt(c->b, cg_load(c, c->i16, cg_at(c, c->i16, args[job->screen], loop.index), 2), c->i64, "");
    of = cg_min(c, of, cg_i64(c, job->dot.columns - 1));
    cg_store(c, cg_load(c, c->f32, cg_at(c, c->f32, args[job->dot.x], of), 4),
             cg_at(c, c->f32, out->columns, loop.index), 4);
    cg_loop_end(c, &loop);
}

/* Lengths as two digits, with a unit that takes the longest. Those behind the last one meet bounds of 0. */
static void store_digits(cg *c, const screen_job *job, const screen_x *out) {
    enum { MOST = 127 << SCREEN_DIGIT };
    const double own = 1 + 8 * 0x1p-23; /* roundings of the bound's own few operations */
    LLVMValueRef most = cg_variable(c, c->f32, cg_f32(c, 0)), runs = cg_i64(c, job->at.runs - 1);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), runs, 1);
    LLVMValueRef length = cg_load(c, c->f32, cg_at(c, c->f32, out->length, loop.index), 4),
                 old = LLVMBuildLoad2(c->b, c->f32, most, "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, LLVMBuildFCmp(c->b, LLVMRealOGT, length, old, ""), length, old, ""),
                   most);
    cg_loop_end(c, &loop);
    LLVMValueRef unit = LLVMBuildFMul(c->b, LLVMBuildLoad2(c->b, c->f32, most, ""), cg_f32(c, 1.0 / MOST), "");
    cg_store(c, LLVMBuildFMul(c->b, unit, cg_f32(c, own), ""), out->unit, 4);
    LLVMValueRef inverse = LLVMBuildFDiv(c->b, cg_f32(c, 1), unit, "");
    loop = cg_loop_begin(c, cg_i64(c, 0), runs, 1);
    length = LLVMBuildFMul(c->b, cg_load(c, c->f32, cg_at(c, c->f32, out->length, loop.index), 4), inverse, "");
    LLVMValueRef whole = cg_add(c, LLVMBuildFPToSI(c->b, length, c->i32, ""), cg_i32(c, 1)); /* at most MOST + 1 */
    cg_store(c, LLVMBuildTrunc(c->b, LLVMBuildLShr(c->b, whole, cg_i32(c, SCREEN_DIGIT), ""), c->i8, ""),
             cg_at(c, c->i8, out->coarse, loop.index), 1);
    LLVMValueRef fine = LLVMBuildAnd(c->b, whole, cg_i32(c, (1 << SCREEN_DIGIT) - 1), "");
    cg_store(c, LLVMBuildTrunc(c->b, fine, c->i8, ""), cg_at(c, c->i8, out->fine, loop.index), 1);
    cg_loop_end(c, &loop);
}

/* Each four bytes of q in all lanes of a vector. */
static void spread_q(cg *c, const screen_job *job, const screen_x *out) {
    cg_loop fours = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, (job->at.runs + 1) * RUN / 4), 1);
    LLVMValueRef four = cg_load(c, c->i32, cg_at(c, c->i32, out->q, fours.index), 4);
    cg_store(c, cg_splat(c, four, SCREEN_LANES), cg_at(c, screen_eight(c->i32, 1), out->spread, fours.index), 4);
    cg_loop_end(c, &fours);
}

void screen_store_x(cg *c, const screen_job *job, const screen_x *x) {
    cg_store(c, cg_f32(c, RT_SCREEN_LEAST), x->extra, 4);
    cg_store(c, cg_f32(c, 0), x->excess, 4);
    arrange_columns(c, job, x);
    store_run(c, job, x, cg_i64(c, 0), true);
    repeat_run(c, x);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 2), cg_i64(c, job->at.runs), 1);
    store_run(c, job, x, loop.index, false);
    cg_loop_end(c, &loop);
    store_digits(c, job, x);
    if (screen_spreads(c)) spread_q(c, job, x);
}
