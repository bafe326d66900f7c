/* Interleaved rows of W times x in integers: the lanes of a vector are rows of W, so nothing is summed across lanes and
 * one unpacking of a vector's codes serves them all.
 *
 * A run of 32 columns of x is held in 15 bits: x = step · q, |q| <= 16256, step = max|x| / 16256. Codes of W are
 * unsigned, so that sums begin with -bias · Σq; a run's are converted once and added with scale · step. q comes in two
 * parts, each summed for itself, in one of the forms below. In every form a run's sums are exact and the same: a code
 * is below 2^8, and 32 · 2^8 · 16256 < 2^31.
 */
#include "codegen/decode.h"
#include "codegen/lanes.h"

enum {
    RUN = CG_PIECE,
    UNITS = LANES_UNITS,
    ROWS = RT_INTERLEAVED_ROWS,
    MOST = 127 * 128,
    DIGIT = 7,
    HALVES = LANES_HALVES,
    PARTS = 2
};
_Static_assert((int)RUN == (int)RT_INTERLEAVED_RUN, "pieces are runs");

typedef enum sum_form {
    /* q = 128·high + low as signed bytes; products of four columns are summed in 32 bits at once (vpdpbusd) */
    QUADS,
    INT8_PAIRS,  /* the same bytes; products of two columns in int16 (vpmaddubsw), where int16 hold a whole sum */
    INT16_PAIRS, /* the even columns and the odd ones as int16; products of two columns in 32 bits (vpmaddwd) */
} sum_form;

/* A row of x. A run has one sum, or two where its halves have scales of their own or int16 would not hold more. */
typedef struct rows_x {
    LLVMValueRef parts; /* i32[runs][PARTS][UNITS]: q of four columns in two parts */
    /* i32[runs][HALVES][PARTS]: what the lanes of a part of a sum begin with, -bias · Σ of the part in i32 or in each
     * of two int16; only of sums that there are, where there is a bias */
    LLVMValueRef starts;
    LLVMValueRef steps, sums; /* f32[runs]; sums: step · Σq, beside minima */
} rows_x;

enum { BYTES_PER_RUN = PARTS * UNITS * 4 + HALVES * PARTS * 4 + 2 * 4 };

static sum_form form_of(const cg *c, const rt_interleaved *type) {
    if (c->vnni) return QUADS;
    return c->lanes >= 8 && cg_int16_hold(rt_codes_of(type->stored), RUN / HALVES) ? INT8_PAIRS : INT16_PAIRS;
}

static int sums_of(const cg *c, const rt_interleaved *type) {
    bool in_int16 = form_of(c, type) == INT8_PAIRS;
    return type->scale_run == RUN / HALVES || (in_int16 && !cg_int16_hold(rt_codes_of(type->stored), RUN)) ? HALVES : 1;
}

static LLVMTypeRef floats_of(cg *c) {
    return cg_vector(c, c->f32);
}

/* ---- x ---- */

int64_t cg_rows_x_bytes(int64_t columns) {
    return columns / RUN * BYTES_PER_RUN;
}

static rows_x x_row(cg *c, const cg_dot *dot, LLVMValueRef runs, LLVMValueRef row) {
    rows_x x = {.parts = cg_at(c, c->i8, dot->integers, cg_mul(c, cg_mul(c, runs, cg_i64(c, BYTES_PER_RUN)), row))};
    x.starts = cg_at(c, c->i32, x.parts, cg_mul(c, runs, cg_i64(c, PARTS * UNITS)));
    x.steps = cg_at(c, c->i32, x.starts, cg_mul(c, runs, cg_i64(c, HALVES * PARTS)));
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
static void split(cg *c, sum_form form, LLVMValueRef q, LLVMValueRef *part) {
    if (form == INT16_PAIRS) {
        for (int i = 0; i < PARTS; i++) part[i] = narrowed(c, some_of(c, q, i, PARTS, RUN / PARTS), c->i16);
        return;
    }
    /* the low digit is the nearest to zero */
    LLVMValueRef half = wide_splat(c, 1 << (DIGIT - 1)), digit = wide_splat(c, DIGIT);
    LLVMValueRef high = LLVMBuildAShr(c->b, cg_add(c, q, half), digit, "");
    part[0] = narrowed(c, high, c->i8);
    part[1] = narrowed(c, cg_sub(c, q, LLVMBuildShl(c->b, high, digit, "")), c->i8);
}

/* What the lanes of a sum begin with, of the part's elements that they are multiplied with. */
static LLVMValueRef start_of(cg *c, sum_form form, LLVMValueRef part, int bias) {
    if (form != INT8_PAIRS) return cg_mul(c, cg_sum_whole(c, part), cg_i32(c, -bias));
    LLVMValueRef less = LLVMConstInt(c->i16, (unsigned long long)-bias & 0xFFFF, 0);
    return cg_mul(c, cg_word_sums(c, part), cg_splat(c, less, 2));
}

/* Where the parts' starts of sum h of a run are. */
static LLVMValueRef starts_at(cg *c, const rows_x *x, LLVMValueRef run, int h, int part) {
    return cg_at(c, c->i32, x->starts,
                 cg_add(c, cg_mul(c, run, cg_i64(c, HALVES * PARTS)), cg_i64(c, h * PARTS + part)));
}

static void store_run(cg *c, const cg_dot *dot, LLVMValueRef x, const rows_x *to, LLVMValueRef run) {
    const rt_interleaved *type = rt_interleaved_of(dot->dtype);
    LLVMValueRef step = cg_int_step(c, MOST, &x), q = cg_int_codes(c, x, step), part[PARTS];
    sum_form form = form_of(c, type);
    int sums = sums_of(c, type);
    split(c, form, q, part);
    for (int i = 0; i < PARTS; i++) {
        int count = (int)LLVMGetVectorSize(LLVMTypeOf(part[i])) / sums;
        cg_store(c, part[i],
                 cg_at(c, c->i32, to->parts, cg_add(c, cg_mul(c, run, cg_i64(c, PARTS * UNITS)), cg_i64(c, i * UNITS))),
                 4);
        for (int h = 0; h < sums && type->bias; h++)
            cg_store(c, start_of(c, form, some_of(c, part[i], h * count, 1, count), type->bias),
                     starts_at(c, to, run, h, i), 4);
    }
    cg_store(c, step, cg_at(c, c->f32, to->steps, run), 4);
    if (type->minima)
        cg_store(c, mul_f(c, step, int_to_float(c, cg_sum_whole(c, q))), cg_at(c, c->f32, to->sums, run), 4);
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

/* The lanes that are summed in. */
static LLVMTypeRef sums_type(cg *c, sum_form form) {
    return form == INT8_PAIRS ? LLVMVectorType(c->i16, 2 * (unsigned)c->lanes) : cg_vector(c, c->i32);
}

/* sum += codes of a unit · part `i` of q. */
static LLVMValueRef add_unit(cg *c, sum_form form, LLVMValueRef sum, LLVMValueRef codes, int i, LLVMValueRef q) {
    if (form == QUADS) return cg_add_quads(c, sum, codes, q);
    if (form == INT8_PAIRS) return cg_add(c, sum, cg_byte_pairs(c, codes, q));
    LLVMTypeRef int16s = LLVMVectorType(c->i16, 2 * (unsigned)c->lanes);
    LLVMValueRef w = LLVMBuildBitCast(c->b, codes, int16s, ""),
                 with = cg_splat(c, LLVMConstInt(c->i16, i ? 8 : 0xFF, 0), 2 * c->lanes);
    return cg_add_pairs(c, sum, i ? LLVMBuildLShr(c->b, w, with, "") : LLVMBuildAnd(c->b, w, with, ""), q);
}

/* i32[lanes] of the sums of both parts. */
static LLVMValueRef join(cg *c, sum_form form, LLVMValueRef const *sum) {
    LLVMValueRef high = sum[0], low = sum[1];
    if (form == QUADS) high = LLVMBuildShl(c->b, high, cg_spread(c, cg_i32(c, DIGIT)), "");
    if (form == INT8_PAIRS) {
        LLVMValueRef none = LLVMConstNull(cg_vector(c, c->i32)), unit = LLVMConstInt(c->i16, 1 << DIGIT, 0),
                     one = LLVMConstInt(c->i16, 1, 0);
        high = cg_add_pairs(c, none, high, cg_splat(c, unit, 2 * c->lanes));
        low = cg_add_pairs(c, none, low, cg_splat(c, one, 2 * c->lanes));
    }
    return cg_add(c, high, low);
}

/* Run `number` of a block, `run` of the row, for `count` vectors of rows from `p` on. */
typedef struct run_at {
    LLVMValueRef block, bytes, number, run;
    int p, count;
} run_at;

/* Σ code · q of sum h of a run: sums[row of x][vector]. Each q that is loaded serves all vectors. */
static void sum_units(cg *c, const group *g, const run_at *at, int h, LLVMValueRef sums[RT_FEW_ROWS][CG_ROWS_VECTORS]) {
    const rt_interleaved *type = rt_interleaved_of(g->dot->dtype);
    sum_form form = form_of(c, type);
    int units = UNITS / sums_of(c, type), rows = g->dot->rows;
    LLVMValueRef part[RT_FEW_ROWS][CG_ROWS_VECTORS][PARTS];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < PARTS; i++) {
            LLVMValueRef start = LLVMConstNull(sums_type(c, form));
            if (type->bias) start = cg_spread(c, cg_load(c, c->i32, starts_at(c, &g->x[r], at->run, h, i), 4));
            for (int p = 0; p < at->count; p++) part[r][p][i] = LLVMBuildBitCast(c->b, start, sums_type(c, form), "");
        }
    for (int u = h * units; u < (h + 1) * units; u++) {
        LLVMValueRef codes[CG_ROWS_VECTORS];
        for (int p = 0; p < at->count; p++) codes[p] = lanes_unit(c, g->dot->dtype, at->bytes, u, cg_i64(c, at->p + p));
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < PARTS; i++) {
                LLVMValueRef place = cg_add(c, cg_mul(c, at->run, cg_i64(c, PARTS * UNITS)), cg_i64(c, i * UNITS + u));
                LLVMValueRef q = cg_spread(c, cg_load(c, c->i32, cg_at(c, c->i32, g->x[r].parts, place), 4));
                for (int p = 0; p < at->count; p++) part[r][p][i] = add_unit(c, form, part[r][p][i], codes[p], i, q);
            }
        /* Else LLVM goes through the vectors one after the other, and keeps in memory what each q was spread to. */
        if (at->count > 1) cg_value_barrier(c, part[0][0], at->count * PARTS);
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < at->count; p++) sums[r][p] = join(c, form, part[r][p]);
}

/* A float that a run of x has, in every lane. */
static LLVMValueRef of_run(cg *c, const run_at *at, LLVMValueRef floats) {
    return cg_spread(c, cg_load(c, c->f32, cg_at(c, c->f32, floats, at->run), 4));
}

static void accumulate(cg *c, LLVMValueRef a, LLVMValueRef b, LLVMValueRef acc) {
    LLVMBuildStore(c->b, cg_fma(c, a, b, LLVMBuildLoad2(c->b, floats_of(c), acc, "")), acc);
}

static void add_vectors(cg *c, const group *g, const run_at *at) {
    const rt_interleaved *type = rt_interleaved_of(g->dot->dtype);
    LLVMValueRef scales[CG_ROWS_VECTORS][HALVES], sums[HALVES][RT_FEW_ROWS][CG_ROWS_VECTORS];
    int count = sums_of(c, type);
    bool one_scale = type->scale_run != RUN / HALVES;
    for (int p = 0; p < at->count; p++)
        lanes_scales(c, g->dot->dtype, at->block, at->number, cg_i64(c, at->p + p), scales[p]);
    for (int h = 0; h < count; h++) sum_units(c, g, at, h, sums[h]);
    for (int p = 0; p < at->count; p++)
        for (int r = 0; r < g->dot->rows; r++) {
            if (one_scale && count == HALVES) sums[0][r][p] = cg_add(c, sums[0][r][p], sums[1][r][p]);
            for (int h = 0; h < (one_scale ? 1 : HALVES); h++) {
                LLVMValueRef scale = mul_f(c, scales[p][h], of_run(c, at, g->x[r].steps));
                accumulate(c, LLVMBuildSIToFP(c->b, sums[h][r][p], floats_of(c), ""), scale, g->acc[r][at->p + p]);
            }
        }
    for (int p = 0; p < at->count && type->minima; p++) {
        LLVMValueRef less =
            LLVMBuildFNeg(c->b, lanes_minimum(c, g->dot->dtype, at->block, at->number, cg_i64(c, at->p + p)), "");
        for (int r = 0; r < g->dot->rows; r++) accumulate(c, less, of_run(c, at, g->x[r].sums), g->acc[r][at->p + p]);
    }
}

/* With one row of x all vectors of a group go together; with several, one vector of W fills the registers. */
static void emit_run(cg *c, const group *g, LLVMValueRef block, LLVMValueRef number, LLVMValueRef run) {
    run_at at = {.block = block, .bytes = lanes_run(c, g->dot->dtype, block, number), .number = number, .run = run};
    at.count = g->dot->rows == 1 ? ROWS / c->lanes : 1;
    cg_prefetch_ahead(c, at.bytes, rt_interleaved_layout(g->dot->dtype).run_bytes);
    for (; at.p < ROWS / c->lanes; at.p += at.count) add_vectors(c, g, &at);
}

void cg_rows_group(cg *c, const cg_dot *dot, LLVMValueRef index, LLVMValueRef (*out)[CG_ROWS_VECTORS]) {
    const rt_dtype_info *info = rt_dtype_of(dot->dtype);
    LLVMValueRef blocks = c->code.args[dot->units], runs = cg_dot_runs(c, dot),
                 block_bytes = cg_i64(c, ROWS * info->block_bytes), block_runs = cg_i64(c, info->block_elems / RUN);
    LLVMValueRef start = cg_at(c, c->i8, c->code.args[dot->w], cg_mul(c, index, cg_mul(c, blocks, block_bytes)));
    group g = {.dot = dot};
    for (int r = 0; r < dot->rows; r++) {
        g.x[r] = x_row(c, dot, runs, cg_i64(c, r));
        for (int p = 0; p < ROWS / c->lanes; p++)
            g.acc[r][p] = cg_variable(c, floats_of(c), LLVMConstNull(floats_of(c)));
    }
    cg_loop block = cg_loop_begin(c, cg_i64(c, 0), blocks, 1);
    LLVMValueRef bytes = cg_at(c, c->i8, start, cg_mul(c, block.index, block_bytes)),
                 run = cg_mul(c, block.index, block_runs);
    cg_loop number = cg_loop_begin(c, cg_i64(c, 0), block_runs, 1);
    emit_run(c, &g, bytes, number.index, cg_add(c, run, number.index));
    cg_loop_end(c, &number);
    cg_loop_end(c, &block);
    for (int r = 0; r < dot->rows; r++)
        for (int p = 0; p < ROWS / c->lanes; p++) out[r][p] = LLVMBuildLoad2(c->b, floats_of(c), g.acc[r][p], "");
}
