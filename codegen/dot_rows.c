/* Interleaved rows of W times x in integers: the lanes of a vector are rows of W, so nothing is summed across lanes and one unpacking of a
 * vector's codes serves them all.
 *
 * A run of 32 columns of x is held in 15 bits: x = step · q, |q| <= 16256, step = max|x| / 16256. Codes of W are unsigned, so that a run's
 * sums begin with -bias · Σq; they are converted once and added with scale · step. With VNNI q is two signed bytes, q = 128·high + low,
 * and four columns of four bytes are multiplied at once (vpdpbusd); without, the even and the odd columns are multiplied as words (vpmaddwd).
 * Either way the sums are exact and the same: a code is below 2^8, and 32 · 2^8 · 16256 < 2^31.
 */
#include "codegen/decode.h"
#include "codegen/lanes.h"

enum { RUN = CG_PIECE, UNITS = LANES_UNITS, ROWS = RT_INTERLEAVED_ROWS, MOST = 127 * 128, DIGIT = 7, HALVES = LANES_HALVES, PARTS = 2 };
_Static_assert((int)RUN == (int)RT_INTERLEAVED_RUN, "pieces are runs");

/* A row of x. For each unit of four columns q comes in two parts of 32 bits: with VNNI its high bytes and its low ones, else the even columns
 * and the odd ones as words. */
typedef struct rows_x {
    LLVMValueRef parts;  /* i32[runs][PARTS][UNITS] */
    LLVMValueRef starts; /* i32[runs][HALVES]: -bias · Σq of the first and of the other sixteen columns */
    LLVMValueRef steps, sums; /* f32[runs]; sums: step · Σq */
} rows_x;

enum { BYTES_PER_RUN = PARTS * UNITS * 4 + HALVES * 4 + 2 * 4 };

static LLVMTypeRef floats_of(cg *c) {
    return vector(c, c->f32);
}

static LLVMValueRef splat(cg *c, LLVMValueRef x) {
    return cg_splat(c, x, c->lanes);
}

/* ---- x ---- */

int64_t cg_rows_x_bytes(int64_t columns) {
    return columns / RUN * BYTES_PER_RUN;
}

static rows_x x_row(cg *c, const cg_dot *dot, LLVMValueRef runs, LLVMValueRef row) {
    rows_x x = {.parts = cg_at(c, c->i8, dot->integers, cg_mul(c, cg_mul(c, runs, cg_i64(c, BYTES_PER_RUN)), row))};
    x.starts = cg_at(c, c->i32, x.parts, cg_mul(c, runs, cg_i64(c, PARTS * UNITS)));
    x.steps = cg_at(c, c->i32, x.starts, cg_mul(c, runs, cg_i64(c, HALVES)));
    x.sums = cg_at(c, c->f32, x.steps, runs);
    return x;
}

static LLVMValueRef wide_splat(cg *c, int value) {
    return cg_splat(c, cg_i32(c, value), RUN);
}

static LLVMValueRef some_of(cg *c, LLVMValueRef v, int first, int step, int count) {
    LLVMValueRef mask[RUN];
    for (int i = 0; i < count; i++) mask[i] = cg_i32(c, first + i * step);
    return LLVMBuildShuffleVector(c->b, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(mask, (unsigned)count), "");
}

static LLVMValueRef narrowed(cg *c, LLVMValueRef v, LLVMTypeRef element) {
    return LLVMBuildTrunc(c->b, v, LLVMVectorType(element, LLVMGetVectorSize(LLVMTypeOf(v))), "");
}

/* q[32] in its parts. */
static void store_parts(cg *c, LLVMValueRef q, LLVMValueRef to) {
    LLVMValueRef part[PARTS];
    if (c->dot_bytes) { /* the low digit is the nearest to zero */
        LLVMValueRef half = wide_splat(c, 1 << (DIGIT - 1)), digit = wide_splat(c, DIGIT);
        LLVMValueRef high = LLVMBuildAShr(c->b, cg_add(c, q, half), digit, "");
        part[0] = narrowed(c, high, c->i8);
        part[1] = narrowed(c, cg_sub(c, q, LLVMBuildShl(c->b, high, digit, "")), c->i8);
    } else
        for (int i = 0; i < PARTS; i++) part[i] = narrowed(c, some_of(c, q, i, PARTS, RUN / PARTS), c->i16);
    for (int i = 0; i < PARTS; i++) cg_store(c, part[i], cg_at(c, c->i32, to, cg_i64(c, i * UNITS)), 4);
}

static LLVMValueRef sum_of(cg *c, LLVMValueRef v) {
    return cg_intrinsic(c, "llvm.vector.reduce.add", LLVMTypeOf(v), &v, 1);
}

static void store_run(cg *c, const cg_dot *dot, LLVMValueRef x, const rows_x *to, LLVMValueRef run) {
    const rt_interleaved *type = rt_interleaved_of(dot->dtype);
    LLVMValueRef step = cg_int_step(c, MOST, &x), q = cg_int_codes(c, x, step), total = NULL;
    store_parts(c, q, cg_at(c, c->i32, to->parts, cg_mul(c, run, cg_i64(c, PARTS * UNITS))));
    for (int h = 0; h < HALVES; h++) {
        LLVMValueRef sum = sum_of(c, some_of(c, q, h * RUN / HALVES, 1, RUN / HALVES));
        LLVMValueRef at = cg_add(c, cg_mul(c, run, cg_i64(c, HALVES)), cg_i64(c, h));
        cg_store(c, cg_mul(c, sum, cg_i32(c, -type->bias)), cg_at(c, c->i32, to->starts, at), 4);
        total = total ? cg_add(c, total, sum) : sum;
    }
    cg_store(c, step, cg_at(c, c->f32, to->steps, run), 4);
    cg_store(c, mul_f(c, step, int_to_float(c, total)), cg_at(c, c->f32, to->sums, run), 4);
}

void cg_rows_x(cg *c, cg_dot *dot, LLVMValueRef scratch) {
    LLVMValueRef runs = cg_dot_runs(c, dot);
    dot->integers = scratch;
    cg_loop row = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, dot->rows), 1);
    LLVMValueRef from = cg_at(c, c->f32, c->code.args[dot->x], cg_mul(c, row.index, cg_i64(c, dot->x_stride)));
    rows_x to = x_row(c, dot, runs, row.index);
    cg_loop run = cg_loop_begin(c, cg_i64(c, 0), runs, 1);
    LLVMValueRef column = cg_mul(c, run.index, cg_i64(c, RUN));
    store_run(c, dot, cg_load(c, LLVMVectorType(c->f32, RUN), cg_at(c, c->f32, from, column), 4), &to, run.index);
    cg_loop_end(c, &run);
    cg_loop_end(c, &row);
}

/* ---- sums ---- */

typedef struct group {
    const cg_dot *dot;
    rows_x x[RT_FEW_ROWS];
    LLVMValueRef acc[RT_FEW_ROWS][CG_ROWS_VECTORS]; /* variables */
} group;

/* Σ code · q over units first, … of a run, `count` of them, beginning with `start`. */
static LLVMValueRef sum_units(cg *c, LLVMValueRef const *codes, LLVMValueRef parts, int first, int count, LLVMValueRef start) {
    LLVMTypeRef words = LLVMVectorType(c->i16, 2 * (unsigned)c->lanes);
    LLVMValueRef sum[PARTS] = {LLVMConstNull(LLVMTypeOf(start)), start}, eight = cg_splat(c, LLVMConstInt(c->i16, 8, 0), 2 * c->lanes);
    for (int u = first; u < first + count; u++) {
        LLVMValueRef x[PARTS], w = LLVMBuildBitCast(c->b, codes[u], words, "");
        for (int i = 0; i < PARTS; i++) x[i] = splat(c, cg_load(c, c->i32, cg_at(c, c->i32, parts, cg_i64(c, i * UNITS + u)), 4));
        if (c->dot_bytes) {
            for (int i = 0; i < PARTS; i++) sum[i] = cg_add_quads(c, sum[i], codes[u], x[i]);
            continue;
        }
        LLVMValueRef low = cg_splat(c, LLVMConstInt(c->i16, 0xFF, 0), 2 * c->lanes);
        sum[0] = cg_add_pairs(c, sum[0], LLVMBuildAnd(c->b, w, low, ""), x[0]);
        sum[1] = cg_add_pairs(c, sum[1], LLVMBuildLShr(c->b, w, eight, ""), x[1]);
    }
    if (c->dot_bytes) sum[0] = LLVMBuildShl(c->b, sum[0], splat(c, cg_i32(c, DIGIT)), "");
    return cg_add(c, sum[0], sum[1]);
}

static LLVMValueRef start_of(cg *c, const rows_x *x, LLVMValueRef run, int half) {
    LLVMValueRef at = cg_add(c, cg_mul(c, run, cg_i64(c, HALVES)), cg_i64(c, half));
    return cg_load(c, c->i32, cg_at(c, c->i32, x->starts, at), 4);
}

/* acc += the products of a run with row x, whose halves have scales. */
static void add_run(cg *c, const rt_interleaved *type, LLVMValueRef const *codes, const rows_x *x, LLVMValueRef run, LLVMValueRef const *scales, LLVMValueRef acc) {
    LLVMValueRef parts = cg_at(c, c->i32, x->parts, cg_mul(c, run, cg_i64(c, PARTS * UNITS))), step = splat(c, cg_load(c, c->f32, cg_at(c, c->f32, x->steps, run), 4));
    LLVMValueRef total = LLVMBuildLoad2(c->b, floats_of(c), acc, "");
    int sums = type->scale_run == RUN / HALVES ? HALVES : 1;
    for (int h = 0; h < sums; h++) {
        LLVMValueRef start = cg_i32(c, 0);
        for (int k = sums == 1 ? 0 : h; type->bias && k <= (sums == 1 ? 1 : h); k++) start = cg_add(c, start, start_of(c, x, run, k));
        LLVMValueRef sum = sum_units(c, codes, parts, h * UNITS / sums, UNITS / sums, splat(c, start));
        total = cg_fma(c, LLVMBuildSIToFP(c->b, sum, floats_of(c), ""), mul_f(c, scales[h], step), total);
    }
    LLVMBuildStore(c->b, total, acc);
}

static void add_minima(cg *c, const group *g, LLVMValueRef block, LLVMValueRef number, LLVMValueRef run, int p) {
    LLVMValueRef minimum = LLVMBuildFNeg(c->b, lanes_minimum(c, g->dot->dtype, block, number, cg_i64(c, p)), "");
    for (int r = 0; r < g->dot->rows; r++) {
        LLVMValueRef sum = splat(c, cg_load(c, c->f32, cg_at(c, c->f32, g->x[r].sums, run), 4)), old = LLVMBuildLoad2(c->b, floats_of(c), g->acc[r][p], "");
        LLVMBuildStore(c->b, cg_fma(c, minimum, sum, old), g->acc[r][p]);
    }
}

/* Run `number` of a block, `run` of the row. */
static void emit_run(cg *c, const group *g, LLVMValueRef block, LLVMValueRef number, LLVMValueRef run) {
    const rt_interleaved *type = rt_interleaved_of(g->dot->dtype);
    LLVMValueRef bytes = lanes_run(c, g->dot->dtype, block, number);
    cg_prefetch_ahead(c, bytes, rt_interleaved_layout(g->dot->dtype).run_bytes);
    for (int p = 0; p < ROWS / c->lanes; p++) {
        LLVMValueRef codes[UNITS], scales[HALVES];
        for (int u = 0; u < UNITS; u++) codes[u] = lanes_unit(c, g->dot->dtype, bytes, u, cg_i64(c, p));
        lanes_scales(c, g->dot->dtype, block, number, cg_i64(c, p), scales);
        for (int r = 0; r < g->dot->rows; r++) add_run(c, type, codes, &g->x[r], run, scales, g->acc[r][p]);
        if (type->minima) add_minima(c, g, block, number, run, p);
    }
}

void cg_rows_group(cg *c, const cg_dot *dot, LLVMValueRef index, LLVMValueRef (*out)[CG_ROWS_VECTORS]) {
    const rt_dtype_info *info = rt_dtype_of(dot->dtype);
    LLVMValueRef blocks = c->code.args[dot->units], runs = cg_dot_runs(c, dot), block_bytes = cg_i64(c, ROWS * info->block_bytes), block_runs = cg_i64(c, info->block_elems / RUN);
    LLVMValueRef start = cg_at(c, c->i8, c->code.args[dot->w], cg_mul(c, index, cg_mul(c, blocks, block_bytes)));
    group g = {.dot = dot};
    for (int r = 0; r < dot->rows; r++) {
        g.x[r] = x_row(c, dot, runs, cg_i64(c, r));
        for (int p = 0; p < ROWS / c->lanes; p++) g.acc[r][p] = cg_variable(c, floats_of(c), LLVMConstNull(floats_of(c)));
    }
    cg_loop block = cg_loop_begin(c, cg_i64(c, 0), blocks, 1);
    LLVMValueRef bytes = cg_at(c, c->i8, start, cg_mul(c, block.index, block_bytes)), run = cg_mul(c, block.index, block_runs);
    cg_loop number = cg_loop_begin(c, cg_i64(c, 0), block_runs, 1);
    emit_run(c, &g, bytes, number.index, cg_add(c, run, number.index));
    cg_loop_end(c, &number);
    cg_loop_end(c, &block);
    for (int r = 0; r < dot->rows; r++)
        for (int p = 0; p < ROWS / c->lanes; p++) out[r][p] = LLVMBuildLoad2(c->b, floats_of(c), g.acc[r][p], "");
}
