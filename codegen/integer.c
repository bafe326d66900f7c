/* scaled_matmul: integer matrix-matrix products of compiled code.
 *
 * Rows of W come as they are stored, a panel at a time: two vectors' worth of rows (2 · lanes), widened, rounded to integers with a
 * scale for each row and group of columns, and interleaved so that a vector holds the same two columns of `lanes` rows. A tile of rows
 * of x is multiplied with the panel: the two columns of x in all lanes, one multiply-add of 16-bit pairs (pmaddwd) for each vector of
 * the panel, i32 sums. A group's sums are exact; they join in f32 with the group's scale. Nothing of W is kept, so no second copy of
 * the weights exists; a panel stays in the first- or second-level cache while all of x goes by (the blocking of Goto and van de Geijn,
 * "Anatomy of high-performance matrix multiplication").
 */
#include "codegen/cg.h"

#include <string.h>

enum {
    VECTORS = 2,                           /* of a panel, side by side */
    MAX_LANES = 16,
    TALL_16_REGISTERS = 6, TALL_32 = 12,   /* rows of x in a tile: its sums and the panel's vectors fill the registers */
    GROUP = IR_SCALE_GROUP,
    BLOCK = 2048,                          /* columns at a time */
    ROW_MULTIPLE = VECTORS * MAX_LANES, COLUMN_MULTIPLE = 2 * MAX_LANES
};

typedef struct integer_job {
    rt_dtype dtype, x_dtype;
    int64_t columns, bits;
    int w, x, x_rows, x_stride, scales, out, out_stride, low, high; /* kernel arguments */
} integer_job;

/* The thread's scratch: floats of one row and group, codes of the panel's rows in one group, the panel, its scales, a tile of sums. */
typedef struct places {
    LLVMValueRef floats, codes, panel, scales, sums;
} places;

static int64_t panel_rows(const cg *c) {
    return VECTORS * c->lanes;
}

static int tall(const cg *c) {
    return c->lanes == MAX_LANES ? TALL_32 : TALL_16_REGISTERS;
}

/* Bytes of scratch; with `base`, also where things lie. */
static int64_t lay_out(cg *c, LLVMValueRef base, places *out) {
    int64_t rows = panel_rows(c), at = 0;
    struct {
        LLVMValueRef *place;
        int64_t bytes;
    } parts[] = {{&out->panel, rows * BLOCK * 2}, {&out->codes, rows * GROUP * 2}, {&out->floats, GROUP * 4},
                 {&out->scales, rows * (BLOCK / GROUP) * 4}, {&out->sums, rows * tall(c) * 4}};
    for (size_t i = 0; i < GM_COUNT(parts); at += parts[i++].bytes)
        if (base) *parts[i].place = cg_at(c, c->i8, base, cg_i64(c, at));
    return at;
}

static LLVMTypeRef vector(cg *c, LLVMTypeRef element) {
    return LLVMVectorType(element, (unsigned)c->lanes);
}

/* ---- packing ---- */

typedef struct pack_job {
    rt_dtype dtype;
    int64_t bits;
    int w, row_bytes, columns, place[5]; /* kernel arguments; place: of `places`, in its order */
} pack_job;

static LLVMValueRef magnitude(cg *c, LLVMValueRef x) {
    LLVMValueRef bits = LLVMBuildBitCast(c->b, x, vector(c, c->i32), "");
    return LLVMBuildAnd(c->b, bits, cg_splat(c, cg_i32(c, 0x7FFFFFFF), c->lanes), "");
}

/* The largest magnitude of `columns` floats. Magnitudes compare like their bits, and NaN counts as more than infinity. */
static LLVMValueRef emit_largest(cg *c, LLVMValueRef floats, LLVMValueRef columns) {
    float least = IR_SCALE_LEAST;
    uint32_t bits;
    memcpy(&bits, &least, sizeof bits);
    LLVMValueRef most = cg_variable(c, vector(c, c->i32), cg_splat(c, cg_i32(c, bits), c->lanes));
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), columns, c->lanes);
    LLVMValueRef x = magnitude(c, cg_load(c, vector(c, c->f32), cg_at(c, c->f32, floats, loop.index), 4));
    LLVMBuildStore(c->b, cg_max(c, x, LLVMBuildLoad2(c->b, vector(c, c->i32), most, "")), most);
    cg_loop_end(c, &loop);
    LLVMValueRef lanes = LLVMBuildLoad2(c->b, vector(c, c->i32), most, "");
    return LLVMBuildBitCast(c->b, cg_intrinsic(c, "llvm.vector.reduce.smax", LLVMTypeOf(lanes), &lanes, 1), c->f32, "");
}

/* codes[columns] = round(floats · inverse): adding 1.5·2^23 leaves the integer in the low bits. */
static void emit_rounded(cg *c, LLVMValueRef floats, LLVMValueRef columns, LLVMValueRef inverse, LLVMValueRef codes) {
    LLVMValueRef factor = cg_splat(c, inverse, c->lanes), rounder = cg_splat(c, cg_f32(c, 12582912.0), c->lanes);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), columns, c->lanes);
    LLVMValueRef x = cg_load(c, vector(c, c->f32), cg_at(c, c->f32, floats, loop.index), 4);
    LLVMValueRef sum = LLVMBuildFAdd(c->b, LLVMBuildFMul(c->b, x, factor, ""), rounder, "");
    LLVMValueRef whole = LLVMBuildTrunc(c->b, LLVMBuildBitCast(c->b, sum, vector(c, c->i32), ""), vector(c, c->i16), "");
    cg_store(c, whole, cg_at(c, c->i16, codes, loop.index), 2);
    cg_loop_end(c, &loop);
}

static LLVMValueRef shuffle(cg *c, LLVMValueRef a, LLVMValueRef b, const unsigned *lane, unsigned count) {
    LLVMValueRef mask[MAX_LANES];
    for (unsigned i = 0; i < count; i++) mask[i] = cg_i32(c, lane[i]);
    return LLVMBuildShuffleVector(c->b, a, b, LLVMConstVector(mask, count), "");
}

/* In each run of four lanes: `width` lanes of a and of b in turn, from the run's lower or upper half. */
static LLVMValueRef unpack(cg *c, LLVMValueRef a, LLVMValueRef b, int width, bool upper) {
    unsigned lane[MAX_LANES];
    for (int i = 0; i < c->lanes; i++) {
        int run = i / 4 * 4, within = i % 4, piece = within / width;
        lane[i] = (unsigned)(run + (upper ? 2 : 0) + piece / 2 * width + within % width + (piece % 2 ? c->lanes : 0));
    }
    return shuffle(c, a, b, lane, (unsigned)c->lanes);
}

/* Run `run` of each of the vectors, one after the other. */
static LLVMValueRef gather_runs(cg *c, LLVMValueRef *vectors, int count, int run) {
    unsigned lane[MAX_LANES];
    if (count == 1) {
        for (int i = 0; i < 4; i++) lane[i] = (unsigned)(4 * run + i);
        return shuffle(c, vectors[0], LLVMGetPoison(LLVMTypeOf(vectors[0])), lane, 4);
    }
    LLVMValueRef low = gather_runs(c, vectors, count / 2, run), high = gather_runs(c, vectors + count / 2, count / 2, run);
    for (int i = 0; i < 4 * count; i++) lane[i] = (unsigned)i;
    return shuffle(c, low, high, lane, (unsigned)(4 * count));
}

/* v[lanes] as the rows of a matrix become its columns: 4×4 in each run of four lanes, then the runs change places. */
static void transpose(cg *c, LLVMValueRef *v) {
    LLVMValueRef turned[4][MAX_LANES / 4];
    for (int g = 0; g < c->lanes / 4; g++) {
        LLVMValueRef *r = &v[4 * g];
        LLVMValueRef a = unpack(c, r[0], r[1], 1, false), b = unpack(c, r[2], r[3], 1, false);
        LLVMValueRef d = unpack(c, r[0], r[1], 1, true), e = unpack(c, r[2], r[3], 1, true);
        turned[0][g] = unpack(c, a, b, 2, false);
        turned[1][g] = unpack(c, a, b, 2, true);
        turned[2][g] = unpack(c, d, e, 2, false);
        turned[3][g] = unpack(c, d, e, 2, true);
    }
    for (int i = 0; i < c->lanes; i++) v[i] = c->lanes == 4 ? turned[i][0] : gather_runs(c, turned[i % 4], c->lanes / 4, i / 4);
}

/* The codes of a group, `columns` of them in each row, as pairs of columns side by side for all rows. */
static void emit_interleaved(cg *c, LLVMValueRef codes, LLVMValueRef columns, LLVMValueRef panel) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), LLVMBuildLShr(c->b, columns, cg_i64(c, 1), ""), c->lanes);
    for (int part = 0; part < VECTORS; part++) {
        LLVMValueRef v[MAX_LANES];
        for (int i = 0; i < c->lanes; i++) {
            LLVMValueRef at = cg_add(c, cg_i64(c, (part * c->lanes + i) * (GROUP / 2)), loop.index);
            v[i] = cg_load(c, vector(c, c->i32), cg_at(c, c->i32, codes, at), 4);
        }
        transpose(c, v);
        for (int i = 0; i < c->lanes; i++) {
            LLVMValueRef pair = cg_add(c, loop.index, cg_i64(c, i));
            LLVMValueRef at = cg_add(c, cg_mul(c, pair, cg_i64(c, panel_rows(c))), cg_i64(c, part * c->lanes));
            cg_store(c, v[i], cg_at(c, c->i32, panel, at), 4);
        }
    }
    cg_loop_end(c, &loop);
}

static void emit_pack(cg *c, void *user) {
    const pack_job *job = user;
    LLVMValueRef *args = c->code.args, levels = cg_f32(c, (double)((1 << (job->bits - 1)) - 1));
    LLVMValueRef floats = args[job->place[0]], codes = args[job->place[1]];
    int64_t group_bytes = (int64_t)rt_dtype_bytes(job->dtype, GROUP);
    cg_loop groups = cg_loop_begin(c, cg_i64(c, 0), args[job->columns], GROUP);
    LLVMValueRef columns = cg_min(c, cg_sub(c, args[job->columns], groups.index), cg_i64(c, GROUP));
    LLVMValueRef group = LLVMBuildUDiv(c->b, groups.index, cg_i64(c, GROUP), ""), first = cg_mul(c, group, cg_i64(c, panel_rows(c)));
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, panel_rows(c)), 1);
    LLVMValueRef row = cg_at(c, c->i8, args[job->w], cg_add(c, cg_mul(c, rows.index, args[job->row_bytes]), cg_mul(c, group, cg_i64(c, group_bytes))));
    cg_emit_decoded_row(c, job->dtype, columns, row, floats);
    LLVMValueRef most = emit_largest(c, floats, columns);
    cg_store(c, LLVMBuildFDiv(c->b, most, levels, ""), cg_at(c, c->f32, args[job->place[3]], cg_add(c, first, rows.index)), 4);
    LLVMValueRef inverse = LLVMBuildFDiv(c->b, levels, most, "");
    emit_rounded(c, floats, columns, inverse, cg_at(c, c->i16, codes, cg_mul(c, rows.index, cg_i64(c, GROUP))));
    cg_loop_end(c, &rows);
    emit_interleaved(c, codes, columns, cg_at(c, c->i32, args[job->place[2]], cg_mul(c, first, cg_i64(c, GROUP / 2))));
    cg_loop_end(c, &groups);
}

/* ---- multiplying ---- */

typedef struct tile_job {
    rt_dtype x_dtype;
    int x, x_rows, x_stride, scales, out, out_stride, columns, more, panel, panel_scales, sums; /* kernel arguments */
} tile_job;

static LLVMValueRef multiply_pairs(cg *c, LLVMValueRef a, LLVMValueRef b) {
    const char *name = c->lanes == 16 ? "llvm.x86.avx512.pmaddw.d.512" : c->lanes == 8 ? "llvm.x86.avx2.pmadd.wd" : "llvm.x86.sse2.pmadd.wd";
    LLVMTypeRef words = LLVMVectorType(c->i16, 2 * (unsigned)c->lanes);
    return cg_intrinsic2(c, name, vector(c, c->i32), LLVMBuildBitCast(c->b, a, words, ""), LLVMBuildBitCast(c->b, b, words, ""));
}

/* Two consecutive columns of a row of x in 32 bits. */
static LLVMValueRef load_pair(cg *c, const tile_job *job, LLVMValueRef row, LLVMValueRef pair) {
    if (job->x_dtype == RT_I16) return cg_load(c, c->i32, cg_at(c, c->i32, row, pair), 2);
    LLVMValueRef bytes = cg_load(c, LLVMVectorType(c->i8, 2), cg_at(c, c->i16, row, pair), 1);
    return LLVMBuildBitCast(c->b, LLVMBuildSExt(c->b, bytes, LLVMVectorType(c->i16, 2), ""), c->i32, "");
}

typedef struct tile {
    int rows;
    LLVMValueRef first;                           /* row of x */
    LLVMValueRef row[TALL_32];                    /* their first elements */
    LLVMValueRef acc[TALL_32][VECTORS];           /* variables: i32 sums of a group */
} tile;

/* Pairs [from, to) of the columns. One at a time: sums of several would be reassociated, which takes more registers than there are. */
static void emit_products(cg *c, const tile_job *job, const tile *t, LLVMValueRef from, LLVMValueRef to) {
    cg_loop pairs = cg_loop_begin(c, from, to, 1);
    LLVMValueRef w[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        LLVMValueRef at = cg_add(c, cg_mul(c, pairs.index, cg_i64(c, panel_rows(c))), cg_i64(c, v * c->lanes));
        w[v] = cg_load(c, vector(c, c->i32), cg_at(c, c->i32, c->code.args[job->panel], at), 4);
    }
    for (int r = 0; r < t->rows; r++) {
        LLVMValueRef x = cg_splat(c, load_pair(c, job, t->row[r], pairs.index), c->lanes);
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef old = LLVMBuildLoad2(c->b, vector(c, c->i32), t->acc[r][v], "");
            LLVMBuildStore(c->b, cg_add(c, old, multiply_pairs(c, x, w[v])), t->acc[r][v]);
        }
    }
    cg_loop_end(c, &pairs);
}

static LLVMValueRef sum_place(cg *c, const tile_job *job, int r, int v) {
    return cg_at(c, c->f32, c->code.args[job->sums], cg_i64(c, r * panel_rows(c) + v * c->lanes));
}

/* Every group's products, with its scales, into the tile's sums. */
static void emit_groups(cg *c, const tile_job *job, const tile *t) {
    LLVMTypeRef floats = vector(c, c->f32);
    for (int r = 0; r < t->rows; r++)
        for (int v = 0; v < VECTORS; v++) cg_store(c, LLVMConstNull(floats), sum_place(c, job, r, v), 4);
    LLVMValueRef pairs = LLVMBuildLShr(c->b, c->code.args[job->columns], cg_i64(c, 1), "");
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), pairs, GROUP / 2);
    for (int r = 0; r < t->rows; r++)
        for (int v = 0; v < VECTORS; v++) LLVMBuildStore(c->b, LLVMConstNull(vector(c, c->i32)), t->acc[r][v]);
    emit_products(c, job, t, loop.index, cg_min(c, cg_add(c, loop.index, cg_i64(c, GROUP / 2)), pairs));
    LLVMValueRef scales = cg_mul(c, LLVMBuildUDiv(c->b, loop.index, cg_i64(c, GROUP / 2), ""), cg_i64(c, panel_rows(c)));
    for (int r = 0; r < t->rows; r++) {
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef whole = LLVMBuildSIToFP(c->b, LLVMBuildLoad2(c->b, vector(c, c->i32), t->acc[r][v], ""), floats, "");
            LLVMValueRef scale = cg_load(c, floats, cg_at(c, c->f32, c->code.args[job->panel_scales], cg_add(c, scales, cg_i64(c, v * c->lanes))), 4);
            LLVMValueRef place = sum_place(c, job, r, v);
            cg_store(c, cg_fma(c, whole, scale, cg_load(c, floats, place, 4)), place, 4);
        }
    }
    cg_loop_end(c, &loop);
}

static void emit_tile(cg *c, const tile_job *job, tile *t) {
    LLVMValueRef *args = c->code.args;
    LLVMTypeRef floats = vector(c, c->f32), x_type = job->x_dtype == RT_I16 ? c->i16 : c->i8;
    for (int r = 0; r < t->rows; r++)
        t->row[r] = cg_at(c, x_type, args[job->x], cg_mul(c, cg_add(c, t->first, cg_i64(c, r)), args[job->x_stride]));
    emit_groups(c, job, t);
    for (int r = 0; r < t->rows; r++) {
        LLVMValueRef row = cg_add(c, t->first, cg_i64(c, r));
        LLVMValueRef scale = cg_splat(c, cg_load(c, c->f32, cg_at(c, c->f32, args[job->scales], row), 4), c->lanes);
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef at = cg_add(c, cg_mul(c, row, args[job->out_stride]), cg_i64(c, v * c->lanes));
            LLVMValueRef place = cg_at(c, c->f32, args[job->out], at), y = cg_load(c, floats, sum_place(c, job, r, v), 4);
            LLVMValueRef before = LLVMBuildSelect(c->b, args[job->more], cg_load(c, floats, place, 4), LLVMConstNull(floats), "");
            cg_store(c, cg_fma(c, y, scale, before), place, 4);
        }
    }
}

/* Rows [first, …) in tiles of `rows`, as many as are whole; returns the row after them. */
static LLVMValueRef emit_tiles(cg *c, const tile_job *job, LLVMValueRef first, int rows) {
    tile t = {.rows = rows};
    LLVMValueRef left = cg_sub(c, c->code.args[job->x_rows], first), size = cg_i64(c, rows);
    LLVMValueRef end = cg_add(c, first, cg_mul(c, LLVMBuildUDiv(c->b, left, size, ""), size));
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) t.acc[r][v] = cg_variable(c, vector(c, c->i32), NULL);
    cg_loop loop = cg_loop_begin(c, first, end, rows);
    t.first = loop.index;
    emit_tile(c, job, &t);
    cg_loop_end(c, &loop);
    return end;
}

static void emit_multiply(cg *c, void *user) {
    const tile_job *job = user;
    LLVMValueRef first = cg_i64(c, 0);
    for (int rows = tall(c); rows; rows /= rows == 3 ? 3 : 2) first = emit_tiles(c, job, first, rows);
}

/* ---- the instruction ---- */

static void call_pack(cg *c, const integer_job *job, const places *at, LLVMValueRef w, LLVMValueRef row_bytes, LLVMValueRef columns) {
    pack_job pack = {.dtype = job->dtype, .bits = job->bits};
    cg_kernel kernel = {.count = 0};
    const LLVMValueRef place[] = {at->floats, at->codes, at->panel, at->scales};
    pack.w = cg_kernel_arg(&kernel, w);
    pack.row_bytes = cg_kernel_arg(&kernel, row_bytes);
    pack.columns = cg_kernel_arg(&kernel, columns);
    for (size_t i = 0; i < GM_COUNT(place); i++) pack.place[i] = cg_kernel_arg(&kernel, place[i]);
    gm_string_printf(&kernel.key, "integer_pack %s %lld", rt_dtype_of(job->dtype)->text, (long long)job->bits);
    char name[40] = "integer_pack_";
    strcat(name, rt_dtype_of(job->dtype)->text);
    cg_kernel_call(c, &kernel, name, emit_pack, &pack);
}

static void call_multiply(cg *c, const integer_job *job, const places *at, LLVMValueRef x, LLVMValueRef columns, LLVMValueRef out, LLVMValueRef more) {
    tile_job tiles = {.x_dtype = job->x_dtype};
    cg_kernel kernel = {.count = 0};
    LLVMValueRef *args = c->code.args;
    tiles.x = cg_kernel_arg(&kernel, x);
    tiles.x_rows = cg_kernel_arg(&kernel, args[job->x_rows]);
    tiles.x_stride = cg_kernel_arg(&kernel, args[job->x_stride]);
    tiles.scales = cg_kernel_arg(&kernel, args[job->scales]);
    tiles.out = cg_kernel_arg(&kernel, out);
    tiles.out_stride = cg_kernel_arg(&kernel, args[job->out_stride]);
    tiles.columns = cg_kernel_arg(&kernel, columns);
    tiles.more = cg_kernel_arg(&kernel, more);
    tiles.panel = cg_kernel_arg(&kernel, at->panel);
    tiles.panel_scales = cg_kernel_arg(&kernel, at->scales);
    tiles.sums = cg_kernel_arg(&kernel, at->sums);
    gm_string_printf(&kernel.key, "integer_multiply %s", rt_dtype_of(job->x_dtype)->text);
    cg_kernel_call(c, &kernel, "integer_multiply", emit_multiply, &tiles);
}

/* This thread's rows of one weight, a panel at a time. */
static void emit_integer(cg *c, void *user) {
    const integer_job *job = user;
    LLVMValueRef *args = c->code.args, row_bytes = cg_i64(c, (int64_t)rt_dtype_bytes(job->dtype, (size_t)job->columns));
    int64_t group_bytes = (int64_t)rt_dtype_bytes(job->dtype, GROUP);
    places at;
    lay_out(c, cg_scratch(c, lay_out(c, NULL, &at)), &at);
    cg_loop panels = cg_loop_begin(c, args[job->low], args[job->high], panel_rows(c));
    cg_loop blocks = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->columns), BLOCK);
    LLVMValueRef columns = cg_min(c, cg_sub(c, cg_i64(c, job->columns), blocks.index), cg_i64(c, BLOCK));
    LLVMValueRef start = cg_mul(c, LLVMBuildUDiv(c->b, blocks.index, cg_i64(c, GROUP), ""), cg_i64(c, group_bytes));
    LLVMValueRef w = cg_at(c, c->i8, args[job->w], cg_add(c, cg_mul(c, panels.index, row_bytes), start));
    LLVMValueRef x = cg_at(c, job->x_dtype == RT_I16 ? c->i16 : c->i8, args[job->x], blocks.index);
    LLVMValueRef more = LLVMBuildICmp(c->b, LLVMIntSGT, blocks.index, cg_i64(c, 0), "");
    call_pack(c, job, &at, w, row_bytes, columns);
    call_multiply(c, job, &at, x, columns, cg_at(c, c->f32, args[job->out], panels.index), more);
    cg_loop_end(c, &blocks);
    cg_loop_end(c, &panels);
}

static void call_integer(cg *c, const ir_inst *inst, integer_job *job, int which, LLVMValueRef const *share, LLVMValueRef origin) {
    const ir_value *w = inst->operands[which];
    cg_kernel kernel = {.count = 0};
    int64_t x_stride, out_stride;
    const cg_slot *x = cg_slot_of(c, inst->operands[0]), *out = cg_slot_of(c, inst->results[0]);
    GM_ASSERT(ir_layout_matrix(&inst->operands[0]->type, &x->layout, &x_stride));
    GM_ASSERT(ir_layout_matrix(&inst->results[0]->type, &out->layout, &out_stride));
    LLVMValueRef rows = cg_i64(c, 1), zero = cg_i64(c, 0);
    for (int i = 0; i + 1 < inst->operands[0]->type.rank; i++) rows = cg_mul(c, rows, cg_dim(c, inst->operands[0]->type.dim[i]));
    job->dtype = w->type.dtype;
    job->w = cg_kernel_arg(&kernel, cg_slot_of(c, w)->base);
    job->x = cg_kernel_arg(&kernel, x->base);
    job->x_rows = cg_kernel_arg(&kernel, rows);
    job->x_stride = cg_kernel_arg(&kernel, cg_i64(c, x_stride));
    job->scales = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[1])->base);
    job->out = cg_kernel_arg(&kernel, cg_at(c, c->f32, out->base, origin));
    job->out_stride = cg_kernel_arg(&kernel, cg_i64(c, out_stride));
    job->low = cg_kernel_arg(&kernel, cg_max(c, cg_sub(c, share[0], origin), zero));
    job->high = cg_kernel_arg(&kernel, cg_min(c, cg_sub(c, share[1], origin), cg_i64(c, w->type.dim[0])));
    gm_string_printf(&kernel.key, "integer %s %s %lld %lld", rt_dtype_of(job->dtype)->text, rt_dtype_of(job->x_dtype)->text,
                     (long long)job->columns, (long long)job->bits);
    char name[40] = "integer_";
    strcat(name, rt_dtype_of(job->dtype)->text);
    cg_kernel_call(c, &kernel, name, emit_integer, job);
}

bool cg_integer_takes(const ir_type *w) {
    return w->dim[0] % ROW_MULTIPLE == 0 && w->dim[1] % COLUMN_MULTIPLE == 0 && cg_can_widen(w);
}

void cg_emit_scaled_matmul(cg *c, const ir_inst *inst) {
    const ir_type *x = &inst->operands[0]->type, *y = &inst->results[0]->type;
    const cg_slot *reads[] = {cg_slot_of(c, inst->operands[0]), cg_slot_of(c, inst->operands[1])}, *write = cg_slot_of(c, inst->results[0]);
    integer_job job = {.x_dtype = x->dtype, .columns = x->dim[x->rank - 1], .bits = ir_attr_int(inst, IR_ATTR_BITS, 0)};
    for (int i = 2; i < inst->operand_count; i++) {
        if (cg_integer_takes(&inst->operands[i]->type)) continue;
        cg_unsupported(c, inst, "weights of this storage type, or not of whole panels");
        return;
    }
    cg_access(c, reads, 2, &write, 1);
    places at;
    cg_reserve_scratch(c, lay_out(c, NULL, &at));
    LLVMValueRef share[2];
    cg_share(c, cg_i64(c, y->dim[y->rank - 1]), ROW_MULTIPLE, &share[0], &share[1]);
    int64_t start = 0;
    for (int i = 2; i < inst->operand_count; i++) {
        call_integer(c, inst, &job, i, share, cg_i64(c, start));
        start += inst->operands[i]->type.dim[0];
    }
}
