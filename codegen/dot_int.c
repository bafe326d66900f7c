/* Rows of stored codes times x in integers, for targets whose vectors hold sixteen int16.
 *
 * A run of 32 columns of x is held in 15 bits: x = step · q, |q| <= 16383, step = max|x| / 16383. A row's codes become
 * int16, pairs of products are summed in 32 bits (vpmaddwd; with VNNI LLVM makes it vpdpwssd), and a run's sums are
 * converted once and added with weight scale · step. No sum overflows: an int16 is code · factor, at most 2^15 in
 * magnitude, and a lane sums four, 4 · 2^15 · 16383 < 2^31. So the product is that with step · q, minima too, and each
 * column of x is off by at most 2^-15 of the run's largest |x|.
 *
 * Int16 lie so that unpacking costs least: the order of a type says which columns are multiplied with which vector. In
 * both orders the lower half of a vector belongs to columns 0-15 of the run, so that each half may have its own scale.
 */
#include "codegen/decode.h"

#include <math.h>

enum { RUN = CG_PIECE, INT16S = 16, LANES = 8, QUAD = 4, CHAINS = 2, MOST = 16383 };
#define LEAST_STEP                                                                                                     \
    0x1p-100 /* of a run: its inverse is finite, and products with it and a scale stay normal for any usual scale */

typedef enum int16_order {
    EVEN_ODD, /* columns 0, 2 … 30, then 1, 3 … 31 */
    UNPACKED, /* 0-7 and 16-23, then 8-15 and 24-31: as vpunpck leaves them */
} int16_order;

typedef struct int_type {
    int16_order order;
    double factor; /* of the int16 */
    /* The int16 of run `sub` of a block. */
    void (*int16)(cg *c, LLVMValueRef block, int sub, LLVMValueRef *out);
    /* Lane i and lane 4 + i: the scales of both halves of run 4·quad + i. NULL: one f16 at the block's start. */
    LLVMValueRef (*scales)(cg *c, LLVMValueRef block, int quad);
    /* The eight minima of a block of 256, or NULL. */
    LLVMValueRef (*minima)(cg *c, LLVMValueRef block);
} int_type;

/* ---- vectors ---- */

static LLVMTypeRef vector_of(LLVMTypeRef element, int count) {
    return LLVMVectorType(element, (unsigned)count);
}

static LLVMValueRef splat_byte(cg *c, unsigned value) {
    return cg_splat(c, LLVMConstInt(c->i8, value, 0), RUN);
}

static LLVMValueRef splat_int16(cg *c, unsigned value) {
    return cg_splat(c, LLVMConstInt(c->i16, value, 0), INT16S);
}

static LLVMValueRef pick(cg *c, LLVMValueRef a, LLVMValueRef b, const uint8_t *lanes, int count) {
    LLVMValueRef mask[RUN];
    for (int i = 0; i < count; i++) mask[i] = cg_i32(c, lanes[i]);
    return LLVMBuildShuffleVector(c->b, a, b ? b : LLVMGetPoison(LLVMTypeOf(a)), LLVMConstVector(mask, (unsigned)count),
                                  "");
}

static LLVMValueRef load_vector(cg *c, LLVMTypeRef element, int count, LLVMValueRef block, int64_t offset) {
    return cg_load(c, vector_of(element, count), byte_at(c, block, offset), 1);
}

static LLVMValueRef as_bytes(cg *c, LLVMValueRef v) {
    return LLVMBuildBitCast(c->b, v, vector_of(c->i8, RUN), "");
}

static LLVMValueRef as_int16(cg *c, LLVMValueRef v) {
    return LLVMBuildBitCast(c->b, v, vector_of(c->i16, INT16S), "");
}

static LLVMValueRef both(cg *c, LLVMValueRef v, LLVMValueRef mask) {
    return LLVMBuildAnd(c->b, v, mask, "");
}

/* The f16 at an offset of the block in every lane. By the whole vector: a scalar conversion would wait for what its
 * register held. */
static LLVMValueRef splat_half(cg *c, LLVMValueRef block, int64_t offset) {
    LLVMValueRef bits = cg_splat(c, cg_load(c, c->i16, byte_at(c, block, offset), 1), LANES);
    return LLVMBuildFPExt(c->b, LLVMBuildBitCast(c->b, bits, vector_of(c->f16, LANES), ""), vector_of(c->f32, LANES),
                          "");
}

/* Every int16 shifted right; negative: left. */
static LLVMValueRef shifted(cg *c, LLVMValueRef v, int by) {
    v = as_int16(c, v);
    if (by > 0) return LLVMBuildLShr(c->b, v, splat_int16(c, (unsigned)by), "");
    return by ? LLVMBuildShl(c->b, v, splat_int16(c, (unsigned)-by), "") : v;
}

/* 256 · each of 32 signed bytes, even ones first. */
static void bytes_to_int16(cg *c, LLVMValueRef bytes, LLVMValueRef *out) {
    out[0] = shifted(c, bytes, -8);
    out[1] = both(c, as_int16(c, bytes), splat_int16(c, 0xFF00));
}

/* ---- blocks of 32 ---- */

static void int16_q8_0(cg *c, LLVMValueRef block, int sub, LLVMValueRef *out) {
    bytes_to_int16(c, load_vector(c, c->i8, RUN, block, 2), out);
}

/* 16 · the nibbles of 16 bytes: low ones in the lower half. */
static LLVMValueRef high_nibbles(cg *c, LLVMValueRef block, int64_t offset) {
    LLVMValueRef bytes = load_vector(c, c->i32, 4, block, offset), shift[LANES];
    for (int i = 0; i < LANES; i++) shift[i] = cg_i32(c, i < 4 ? 4 : 0);
    bytes = pick(c, bytes, NULL, (const uint8_t[]){0, 1, 2, 3, 0, 1, 2, 3}, LANES);
    bytes = LLVMBuildShl(c->b, bytes, LLVMConstVector(shift, LANES), "");
    return both(c, as_bytes(c, bytes), splat_byte(c, 0xF0));
}

static void int16_q4_0(cg *c, LLVMValueRef block, int sub, LLVMValueRef *out) {
    bytes_to_int16(c, LLVMBuildXor(c->b, high_nibbles(c, block, 2), splat_byte(c, 0x80), ""), out);
}

/* Byte i: all ones when bit i of the 32 at `offset` is 0. */
static LLVMValueRef clear_bits(cg *c, LLVMValueRef block, int64_t offset) {
    LLVMValueRef word = cg_splat(c, cg_load(c, c->i32, byte_at(c, block, offset), 1), LANES), bit[RUN];
    uint8_t lanes[RUN];
    for (int i = 0; i < RUN; i++) lanes[i] = (uint8_t)((i & 16) + i / 8), bit[i] = LLVMConstInt(c->i8, 1u << i % 8, 0);
    LLVMValueRef bits = both(c, pick(c, as_bytes(c, word), NULL, lanes, RUN), LLVMConstVector(bit, RUN));
    LLVMValueRef clear = LLVMBuildICmp(c->b, LLVMIntEQ, bits, LLVMConstNull(LLVMTypeOf(bits)), "");
    return LLVMBuildSExt(c->b, clear, LLVMTypeOf(bits), "");
}

/* 16 · (nibble + 16 · bit - 16): the int16 of byte 16 · nibble below a byte that is 0 or -1. */
static void int16_q5_0(cg *c, LLVMValueRef block, int sub, LLVMValueRef *out) {
    LLVMValueRef low = high_nibbles(c, block, 6), high = clear_bits(c, block, 2);
    for (int h = 0; h < 2; h++) {
        uint8_t lanes[RUN];
        for (int i = 0; i < RUN; i++) lanes[i] = (uint8_t)((i & 16) + 8 * h + i % 16 / 2 + (i % 2 ? RUN : 0));
        out[h] = as_int16(c, pick(c, low, high, lanes, RUN));
    }
}

/* ---- blocks of 256 ---- */

/* The nibbles of 64 columns lie in 32 bytes: low ones are those of the even run, whose int16 are a sixteenth of the odd
 * run's. */
static void int16_q4_k(cg *c, LLVMValueRef block, int sub, LLVMValueRef *out) {
    LLVMValueRef bytes = load_vector(c, c->i8, RUN, block, 16 + 32 * (sub / 2)),
                 mask = splat_int16(c, sub % 2 ? 0xF0 : 0x0F);
    for (int h = 0; h < 2; h++) out[h] = both(c, shifted(c, bytes, 8 * h), mask);
}

static void int16_q5_k(cg *c, LLVMValueRef block, int sub, LLVMValueRef *out) {
    LLVMValueRef low = load_vector(c, c->i8, RUN, block, 48 + 32 * (sub / 2)),
                 high = load_vector(c, c->i8, RUN, block, 16);
    low = both(c, as_bytes(c, shifted(c, low, sub % 2 ? 4 : 0)), splat_byte(c, 0x0F));
    high = both(c, as_bytes(c, shifted(c, high, sub - 4)), splat_byte(c, 0x10));
    bytes_to_int16(c, LLVMBuildOr(c->b, low, high, ""), out);
}

static void int16_q6_k(cg *c, LLVMValueRef block, int sub, LLVMValueRef *out) {
    int g = sub / 4, j = sub % 4;
    LLVMValueRef low = load_vector(c, c->i8, RUN, block, 64 * g + 32 * (j & 1)),
                 high = load_vector(c, c->i8, RUN, block, 128 + 32 * g);
    low = both(c, as_bytes(c, shifted(c, low, j < 2 ? 0 : 4)), splat_byte(c, 0x0F));
    high = both(c, as_bytes(c, shifted(c, high, 2 * j - 4)), splat_byte(c, 0x30));
    bytes_to_int16(c, cg_sub(c, LLVMBuildOr(c->b, low, high, ""), splat_byte(c, 32)), out);
}

static LLVMValueRef to_floats(cg *c, LLVMValueRef bytes, bool is_signed) {
    LLVMTypeRef wide = vector_of(c->i32, LANES);
    bytes = is_signed ? LLVMBuildSExt(c->b, bytes, wide, "") : LLVMBuildZExt(c->b, bytes, wide, "");
    return LLVMBuildSIToFP(c->b, bytes, vector_of(c->f32, LANES), "");
}

/* Bytes: eight 6-bit scales, then eight minima, from the 12 bytes at offset 4. */
static LLVMValueRef k_bytes(cg *c, LLVMValueRef block) {
    LLVMTypeRef pair = vector_of(c->i32, 2);
    LLVMValueRef shift = LLVMConstVector((LLVMValueRef[]){cg_i32(c, 0), cg_i32(c, 4)}, 2),
                 two = cg_splat(c, cg_i32(c, 2), 2);
    LLVMValueRef first = cg_load(c, pair, byte_at(c, block, 4), 1),
                 rest = cg_splat(c, cg_load(c, c->i32, byte_at(c, block, 12), 1), 2);
    LLVMValueRef low = both(c, first, cg_splat(c, cg_i32(c, 0x3F3F3F3F), 2));
    LLVMValueRef high = both(c, LLVMBuildLShr(c->b, rest, shift, ""), cg_splat(c, cg_i32(c, 0x0F0F0F0F), 2));
    LLVMValueRef top = both(c, LLVMBuildLShr(c->b, first, two, ""), cg_splat(c, cg_i32(c, 0x30303030), 2));
    LLVMValueRef all = pick(c, low, LLVMBuildOr(c->b, high, top, ""), (const uint8_t[]){0, 2, 1, 3}, 4);
    return LLVMBuildBitCast(c->b, all, vector_of(c->i8, 16), "");
}

static LLVMValueRef k_scales(cg *c, LLVMValueRef block, int quad) {
    uint8_t lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = (uint8_t)(4 * quad + i % 4);
    return mul_f(c, to_floats(c, pick(c, k_bytes(c, block), NULL, lanes, LANES), false), splat_half(c, block, 0));
}

static LLVMValueRef scales_q4_k(cg *c, LLVMValueRef block, int quad) {
    LLVMValueRef unit[LANES];
    for (int i = 0; i < LANES; i++) unit[i] = cg_f32(c, i % 2 ? 1.0 / 16 : 1);
    return mul_f(c, k_scales(c, block, quad), LLVMConstVector(unit, LANES));
}

static LLVMValueRef k_minima(cg *c, LLVMValueRef block) {
    LLVMValueRef bytes = pick(c, k_bytes(c, block), NULL, (const uint8_t[]){8, 9, 10, 11, 12, 13, 14, 15}, LANES);
    return mul_f(c, to_floats(c, bytes, false), splat_half(c, block, 2));
}

static LLVMValueRef scales_q6_k(cg *c, LLVMValueRef block, int quad) {
    uint8_t lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = (uint8_t)(8 * quad + 2 * (i % 4) + i / 4);
    LLVMValueRef bytes = pick(c, load_vector(c, c->i8, 16, block, 192), NULL, lanes, LANES);
    return mul_f(c, to_floats(c, bytes, true), splat_half(c, block, 208));
}

/* ---- the types ---- */

static const int_type int_types[RT_DTYPE_COUNT] = {
    [RT_Q4_0] = {EVEN_ODD, 16 * 256, int16_q4_0, NULL, NULL},
    [RT_Q5_0] = {UNPACKED, 16, int16_q5_0, NULL, NULL},
    [RT_Q8_0] = {EVEN_ODD, 256, int16_q8_0, NULL, NULL},
    [RT_Q4_K] = {EVEN_ODD, 1, int16_q4_k, scales_q4_k, k_minima},
    [RT_Q5_K] = {EVEN_ODD, 256, int16_q5_k, k_scales, k_minima},
    [RT_Q6_K] = {EVEN_ODD, 256, int16_q6_k, scales_q6_k, NULL},
};

bool cg_can_dot_int(const cg *c, rt_dtype dtype) {
    return c->lanes >= LANES && int_types[dtype].int16;
}

/* ---- x ---- */

/* Columns of a run in the order of the int16. */
static void columns_of(int16_order order, uint8_t *columns) {
    for (int i = 0; i < RUN; i++)
        columns[i] = (uint8_t)(order == EVEN_ODD ? 2 * (i % INT16S) + i / INT16S
                                                 : 8 * (i / INT16S) + i % 8 + (i & 8 ? INT16S : 0));
}

LLVMValueRef cg_int_step(cg *c, int most_code, LLVMValueRef *x) {
    LLVMTypeRef ints = vector_of(c->i32, RUN);
    LLVMValueRef bits = both(c, LLVMBuildBitCast(c->b, *x, ints, ""), cg_splat(c, cg_i32(c, 0x7FFFFFFF), RUN));
    LLVMValueRef most = cg_intrinsic(c, "llvm.vector.reduce.smax", ints, &bits, 1), least = cg_f32(c, LEAST_STEP);
    LLVMValueRef finite = LLVMBuildICmp(c->b, LLVMIntSLT, most, cg_i32(c, 0x7F800000), "");
    LLVMValueRef step = mul_f(c, LLVMBuildBitCast(c->b, most, c->f32, ""), cg_f32(c, (1 + 0x1p-19) / most_code));
    step = LLVMBuildSelect(c->b, LLVMBuildFCmp(c->b, LLVMRealOGT, step, least, ""), step, least, "");
    *x = LLVMBuildSelect(c->b, finite, *x, LLVMConstNull(LLVMTypeOf(*x)), "");
    return LLVMBuildSelect(c->b, finite, step, cg_f32(c, NAN), "");
}

LLVMValueRef cg_int_codes(cg *c, LLVMValueRef x, LLVMValueRef step) {
    LLVMValueRef inverse = cg_splat(c, LLVMBuildFDiv(c->b, cg_f32(c, 1), step, ""), RUN),
                 big = cg_splat(c, cg_f32(c, 0x1.8p23), RUN);
    LLVMValueRef q = LLVMBuildFSub(c->b, cg_fma(c, x, inverse, big), big, ""); /* beside big a float has no fraction */
    return LLVMBuildFPToSI(c->b, q, vector_of(c->i32, RUN), "");
}

/* int16[32] = x / step to the nearest. Returns their sum. */
static LLVMValueRef store_int16(cg *c, int16_order order, LLVMValueRef x, LLVMValueRef step, LLVMValueRef to) {
    uint8_t columns[RUN];
    LLVMValueRef q = cg_int_codes(c, x, step);
    columns_of(order, columns);
    cg_store(c, pick(c, LLVMBuildTrunc(c->b, q, vector_of(c->i16, RUN), ""), NULL, columns, RUN), to, 1);
    return int_to_float(c, cg_sum_whole(c, q));
}

int64_t cg_int_x_bytes(int64_t columns) {
    return columns * 2 + columns / RUN * 8;
}

/* A row of x in integers: q, what a unit of code · q stands for in each run, and what a unit of the run's minimum
 * does. */
typedef struct int_x {
    LLVMValueRef int16, steps, sums;
} int_x;

LLVMValueRef cg_dot_runs(cg *c, const cg_dot *dot) {
    return cg_mul(c, c->code.args[dot->units], cg_i64(c, cg_unit_elems(dot->dtype) / RUN));
}

static int_x x_row(cg *c, const cg_dot *dot, LLVMValueRef runs, LLVMValueRef row) {
    int_x x = {.int16 =
                   cg_at(c, c->i8, dot->integers, cg_mul(c, cg_mul(c, runs, cg_i64(c, cg_int_x_bytes(RUN))), row))};
    x.steps = cg_at(c, c->i8, x.int16, cg_mul(c, runs, cg_i64(c, RUN * 2)));
    x.sums = cg_at(c, c->f32, x.steps, runs);
    return x;
}

void cg_int_x(cg *c, cg_dot *dot, LLVMValueRef scratch) {
    const int_type *type = &int_types[dot->dtype];
    LLVMValueRef runs = cg_dot_runs(c, dot);
    dot->integers = scratch;
    cg_loop row = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, dot->rows), 1);
    LLVMValueRef from = cg_at(c, c->f32, c->code.args[dot->x], cg_mul(c, row.index, cg_i64(c, dot->x_stride)));
    int_x to = x_row(c, dot, runs, row.index);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), runs, 1);
    LLVMValueRef column = cg_mul(c, loop.index, cg_i64(c, RUN));
    LLVMValueRef x = cg_load(c, vector_of(c->f32, RUN), cg_at(c, c->f32, from, column), 4),
                 step = cg_int_step(c, MOST, &x);
    LLVMValueRef sum = store_int16(c, type->order, x, step, cg_at(c, c->i16, to.int16, column));
    cg_store(c, mul_f(c, step, cg_f32(c, 1 / type->factor)), cg_at(c, c->f32, to.steps, loop.index), 4);
    if (type->minima) cg_store(c, mul_f(c, step, sum), cg_at(c, c->f32, to.sums, loop.index), 4);
    cg_loop_end(c, &loop);
    cg_loop_end(c, &row);
}

/* ---- a row ---- */

typedef struct int_row {
    const cg_dot *dot;
    const int_type *type;
    int block_bytes, block_runs;
    LLVMValueRef bytes; /* the row's first */
    int_x x[RT_FEW_ROWS];
    LLVMValueRef acc[RT_FEW_ROWS][CHAINS]; /* variables */
} int_row;

/* The f16 scales of `blocks` blocks from the start of each, in both halves. */
static LLVMValueRef block_scales(cg *c, const int_row *row, LLVMValueRef block, int blocks) {
    if (blocks == 1) return splat_half(c, block, 0);
    LLVMValueRef all = LLVMConstNull(vector_of(c->i16, LANES));
    for (int i = 0; i < QUAD; i++) {
        LLVMValueRef one = cg_load(c, c->i16, byte_at(c, block, i * row->block_bytes), 1);
        all = LLVMBuildInsertElement(c->b, all, one, cg_i32(c, i), "");
    }
    all = pick(c, all, NULL, (const uint8_t[]){0, 1, 2, 3, 0, 1, 2, 3}, LANES);
    return LLVMBuildFPExt(c->b, LLVMBuildBitCast(c->b, all, vector_of(c->f16, LANES), ""), vector_of(c->f32, LANES),
                          "");
}

/* The steps of `runs` runs, in both halves. */
static LLVMValueRef run_steps(cg *c, const int_x *x, LLVMValueRef run, int runs) {
    LLVMValueRef at = cg_at(c, c->f32, x->steps, run);
    if (runs == 1) return cg_splat(c, cg_load(c, c->f32, at, 4), LANES);
    return pick(c, cg_load(c, vector_of(c->f32, QUAD), at, 4), NULL, (const uint8_t[]){0, 1, 2, 3, 0, 1, 2, 3}, LANES);
}

/* Of every row of x: *acc += Σ code · q, times lane i (upper half: 4 + i) of its scales. */
static void add_run(cg *c, const int_row *row, LLVMValueRef block, int sub, LLVMValueRef run,
                    LLVMValueRef const *scales, int i, int chain) {
    LLVMTypeRef sums = vector_of(c->i32, LANES), floats = vector_of(c->f32, LANES);
    LLVMValueRef int16s[2];
    uint8_t lanes[LANES];
    row->type->int16(c, block, sub, int16s);
    for (int k = 0; k < LANES; k++) lanes[k] = (uint8_t)(i + (k & 4));
    for (int r = 0; r < row->dot->rows; r++) {
        LLVMValueRef sum = NULL, acc = row->acc[r][chain];
        for (int h = 0; h < 2; h++) {
            LLVMValueRef at = cg_add(c, cg_mul(c, run, cg_i64(c, 2)), cg_i64(c, h));
            LLVMValueRef q =
                cg_load(c, vector_of(c->i16, INT16S), cg_at(c, vector_of(c->i16, INT16S), row->x[r].int16, at), 1);
            LLVMValueRef products = cg_intrinsic2(c, "llvm.x86.avx2.pmadd.wd", sums, int16s[h], q);
            sum = sum ? cg_add(c, sum, products) : products;
        }
        LLVMValueRef scale = pick(c, scales[r], NULL, lanes, LANES), old = LLVMBuildLoad2(c->b, floats, acc, "");
        LLVMBuildStore(c->b, cg_fma(c, LLVMBuildSIToFP(c->b, sum, floats, ""), scale, old), acc);
    }
}

/* `blocks` blocks from number `index`: one of 256, or one or four of 32. */
static void add_blocks(cg *c, const int_row *row, LLVMValueRef index, int blocks) {
    LLVMTypeRef floats = vector_of(c->f32, LANES);
    LLVMValueRef first = cg_at(c, c->i8, row->bytes, cg_mul(c, index, cg_i64(c, row->block_bytes)));
    LLVMValueRef run = cg_mul(c, index, cg_i64(c, row->block_runs)), scales[RT_FEW_ROWS] = {NULL};
    int runs = blocks * row->block_runs, rows = row->dot->rows;
    cg_prefetch_ahead(c, first, blocks * row->block_bytes);
    for (int i = 0; i < runs; i++) {
        LLVMValueRef at = cg_add(c, run, cg_i64(c, i)),
                     block = byte_at(c, first, i / row->block_runs * row->block_bytes);
        if (i % QUAD == 0) {
            LLVMValueRef stored =
                row->type->scales ? row->type->scales(c, first, i / QUAD) : block_scales(c, row, first, blocks);
            for (int r = 0; r < rows; r++) scales[r] = mul_f(c, stored, run_steps(c, &row->x[r], at, runs));
        }
        add_run(c, row, block, i % row->block_runs, at, scales, i % QUAD, i % CHAINS);
    }
    if (!row->type->minima) return;
    LLVMValueRef minus = LLVMBuildFNeg(c->b, row->type->minima(c, first), "");
    for (int r = 0; r < rows; r++) {
        LLVMValueRef sums = cg_load(c, floats, cg_at(c, c->f32, row->x[r].sums, run), 4),
                     old = LLVMBuildLoad2(c->b, floats, row->acc[r][0], "");
        LLVMBuildStore(c->b, cg_fma(c, minus, sums, old), row->acc[r][0]);
    }
}

void cg_int_row(cg *c, const cg_dot *dot, LLVMValueRef index, LLVMValueRef *out) {
    const rt_dtype_info *info = rt_dtype_of(dot->dtype);
    LLVMTypeRef floats = vector_of(c->f32, LANES);
    int_row row = {.dot = dot,
                   .type = &int_types[dot->dtype],
                   .block_bytes = info->block_bytes,
                   .block_runs = info->block_elems / RUN};
    LLVMValueRef blocks = c->code.args[dot->units], whole = blocks, runs = cg_dot_runs(c, dot);
    int together = row.block_runs == 1 ? QUAD : 1;
    row.bytes = cg_at(c, c->i8, c->code.args[dot->w], cg_mul(c, index, cg_mul(c, blocks, cg_i64(c, row.block_bytes))));
    for (int r = 0; r < dot->rows; r++) {
        row.x[r] = x_row(c, dot, runs, cg_i64(c, r));
        for (int i = 0; i < CHAINS; i++) row.acc[r][i] = cg_variable(c, floats, LLVMConstNull(floats));
    }
    if (together > 1) whole = cg_mul(c, LLVMBuildUDiv(c->b, blocks, cg_i64(c, together), ""), cg_i64(c, together));
    cg_loop many = cg_loop_begin(c, cg_i64(c, 0), whole, together);
    add_blocks(c, &row, many.index, together);
    cg_loop_end(c, &many);
    if (together > 1) {
        cg_loop rest = cg_loop_begin(c, whole, blocks, 1);
        add_blocks(c, &row, rest.index, 1);
        cg_loop_end(c, &rest);
    }
    for (int r = 0; r < dot->rows; r++) {
        LLVMValueRef total = NULL;
        for (int i = 0; i < CHAINS; i++) {
            LLVMValueRef part = LLVMBuildLoad2(c->b, floats, row.acc[r][i], "");
            total = total ? LLVMBuildFAdd(c->b, total, part, "") : part;
        }
        out[r] = cg_sum_lanes(c, total);
    }
}
