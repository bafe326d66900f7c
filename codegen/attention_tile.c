/* Attention of many tokens: a tile of rows times a panel of keys, and the packing of K and V into panels.
 *
 * Both products of attention, q·Kᵀ and weights·V, have the form C[rows, width] = or += A[rows, depth]·B, where B[depth,
 * width] lies dense and `width` is two vectors (K: 16 keys side by side; V: 16 columns, with the keys as depth). A tile
 * of C stays in registers while the depth goes by; one compiled kernel serves both.
 */
#include "codegen/attention.h"
#include "codegen/integer.h"

enum { VECTORS = 2, TALL = 6, TALL_32_REGISTERS = 12, MAX_LANES = 16, UNROLL = 2 };

int64_t attention_tile_width(const cg *c) {
    return VECTORS * c->lanes;
}

int64_t attention_tile_rows(const cg *c) {
    return c->lanes == MAX_LANES ? TALL_32_REGISTERS : TALL;
}

/* ---- the product ---- */

typedef struct tile_job {
    bool add, int16;
    int64_t a_stride, out_stride; /* constants, so that one register addresses all rows */
    int64_t group;
    int a, rows, b, depth, out, row_scales, column_scales, low, high; /* kernel arguments */
} tile_job;

static LLVMValueRef vector_at(cg *c, LLVMValueRef row, int v) {
    return cg_at(c, c->f32, row, cg_i64(c, (int64_t)v * c->lanes));
}

typedef struct tile {
    LLVMTypeRef type;                             /* of a vector of sums, and of b */
    LLVMValueRef acc[TALL_32_REGISTERS][VECTORS]; /* variables */
} tile;

static void begin_tile(cg *c, const tile_job *job, const tile *t, LLVMValueRef out) {
    bool before = job->add && !job->int16;
    for (int r = 0; r < attention_tile_rows(c); r++)
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef row = cg_at(c, c->f32, out, cg_i64(c, r * job->out_stride));
            LLVMBuildStore(c->b, before ? cg_load(c, t->type, vector_at(c, row, v), 4) : LLVMConstNull(t->type),
                           t->acc[r][v]);
        }
}

/* The part of the depth where some row of the tile, whose first one is `first`, is not zero. */
static void depth_of(cg *c, const tile_job *job, LLVMValueRef first, LLVMValueRef *from, LLVMValueRef *to) {
    LLVMValueRef *args = c->code.args, group = cg_i64(c, job->group), keys = cg_i64(c, job->int16 ? 2 : 1);
    LLVMValueRef last = cg_add(c, first, cg_i64(c, attention_tile_rows(c) - 1));
    *from = cg_i64(c, 0), *to = args[job->depth];
    if (!job->add) return;
    LLVMValueRef low = cg_add(c, args[job->low], LLVMBuildUDiv(c->b, first, group, "")),
                 high = cg_add(c, args[job->high], LLVMBuildUDiv(c->b, last, group, ""));
    *from = LLVMBuildUDiv(c->b, cg_max(c, low, cg_i64(c, 0)), keys, "");
    *to = cg_min(c, *to, LLVMBuildUDiv(c->b, cg_add(c, high, cg_sub(c, keys, cg_i64(c, 1))), keys, ""));
}

static void sum_tile(cg *c, const tile_job *job, const tile *t, LLVMValueRef first, LLVMValueRef a) {
    LLVMTypeRef element = job->int16 ? c->i32 : c->f32;
    LLVMValueRef *args = c->code.args, b[VECTORS], from, to;
    depth_of(c, job, first, &from, &to);
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    LLVMValueRef line = cg_at(c, element, args[job->b], cg_mul(c, loop.index, cg_i64(c, attention_tile_width(c))));
    for (int v = 0; v < VECTORS; v++) b[v] = cg_load(c, t->type, vector_at(c, line, v), 4);
    for (int r = 0; r < attention_tile_rows(c); r++) {
        LLVMValueRef row = cg_at(c, element, a, cg_i64(c, r * job->a_stride));
        LLVMValueRef x = cg_spread(c, cg_load(c, element, cg_at(c, element, row, loop.index), 4));
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef old = LLVMBuildLoad2(c->b, t->type, t->acc[r][v], "");
            LLVMBuildStore(c->b, job->int16 ? cg_add_pairs(c, old, x, b[v]) : cg_fma(c, x, b[v], old), t->acc[r][v]);
        }
    }
    cg_loop_end_unrolled(c, &loop, UNROLL);
}

/* first: row of the tile's first. */
static void end_tile(cg *c, const tile_job *job, const tile *t, LLVMValueRef first, LLVMValueRef out) {
    LLVMTypeRef floats = cg_vector(c, c->f32);
    LLVMValueRef *args = c->code.args, column[VECTORS] = {0};
    for (int v = 0; v < VECTORS && job->int16 && !job->add; v++)
        column[v] = cg_load(c, floats, vector_at(c, args[job->column_scales], v), 4);
    for (int r = 0; r < attention_tile_rows(c); r++) {
        LLVMValueRef row = cg_at(c, c->f32, out, cg_i64(c, r * job->out_stride)), scale = NULL;
        if (job->int16)
            scale = cg_spread(
                c, cg_load(c, c->f32, cg_at(c, c->f32, args[job->row_scales], cg_add(c, first, cg_i64(c, r))), 4));
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef y = LLVMBuildLoad2(c->b, t->type, t->acc[r][v], ""), place = vector_at(c, row, v);
            if (job->int16) y = LLVMBuildSIToFP(c->b, y, floats, "");
            if (job->int16 && job->add) y = cg_fma(c, y, scale, cg_load(c, floats, place, 4));
            else if (job->int16) y = LLVMBuildFMul(c->b, LLVMBuildFMul(c->b, y, scale, ""), column[v], "");
            cg_store(c, y, place, 4);
        }
    }
}

static void emit_tiles(cg *c, void *user) {
    const tile_job *job = user;
    int64_t tall = attention_tile_rows(c);
    LLVMTypeRef element = job->int16 ? c->i32 : c->f32;
    tile t = {.type = cg_vector(c, element)};
    for (int r = 0; r < tall; r++)
        for (int v = 0; v < VECTORS; v++) t.acc[r][v] = cg_variable(c, t.type, NULL);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), c->code.args[job->rows], tall);
    LLVMValueRef out = cg_at(c, c->f32, c->code.args[job->out], cg_mul(c, loop.index, cg_i64(c, job->out_stride)));
    begin_tile(c, job, &t, out);
    sum_tile(c, job, &t, loop.index,
             cg_at(c, element, c->code.args[job->a], cg_mul(c, loop.index, cg_i64(c, job->a_stride))));
    end_tile(c, job, &t, loop.index, out);
    cg_loop_end(c, &loop);
}

void attention_multiply(cg *c, const attention_product *p) {
    tile_job job = {
        .add = p->add, .int16 = p->int16, .a_stride = p->a_stride, .out_stride = p->out_stride, .group = p->group};
    cg_kernel kernel = {.count = 0};
    job.a = cg_kernel_arg(&kernel, p->a);
    job.rows = cg_kernel_arg(&kernel, p->rows);
    job.b = cg_kernel_arg(&kernel, p->b);
    job.depth = cg_kernel_arg(&kernel, p->depth);
    job.out = cg_kernel_arg(&kernel, p->out);
    if (p->int16) job.row_scales = cg_kernel_arg(&kernel, p->row_scales);
    if (p->int16 && !p->add) job.column_scales = cg_kernel_arg(&kernel, p->column_scales);
    if (p->add) job.low = cg_kernel_arg(&kernel, p->low), job.high = cg_kernel_arg(&kernel, p->high);
    gm_string_printf(&kernel.key, "attention_tile %d %d %lld %lld %lld", p->add, p->int16, (long long)p->a_stride,
                     (long long)p->out_stride, (long long)p->group);
    cg_kernel_call(c, &kernel, "attention_tile", emit_tiles, &job);
}

/* ---- packing ---- */

LLVMValueRef attention_element(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv,
                               LLVMValueRef column, int width) {
    LLVMValueRef at = attention_offset(c, slot, cache->stride[0], kv, cache->stride[1], column, cache->stride[2]);
    LLVMValueRef x = attention_load(c, cache->dtype, c->code.args[cache->data], at, width);
    if (cache->scale < 0) return x;
    LLVMValueRef scale = cg_load(c, c->f32, attention_scale(c, cache, slot, kv, column), 4);
    return LLVMBuildFMul(c->b, x, width > 1 ? cg_splat(c, scale, width) : scale, "");
}

/* Columns of `lanes` keys from `key` on, or units of them, `elements` each, through squares; the last square begins
 * earlier where these are not a multiple. */
static void pack_squares(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *scales,
                         int64_t elements, LLVMValueRef key, LLVMValueRef to) {
    LLVMValueRef last = cg_sub(c, p->count, cg_i64(c, 1)), v[MAX_LANES];
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, elements), c->lanes);
    LLVMValueRef column = cg_min(c, loop.index, cg_i64(c, elements - c->lanes));
    for (int i = 0; i < c->lanes; i++) { /* those past the end are a key again: nobody sees them */
        LLVMValueRef number = cg_min(c, cg_add(c, key, cg_i64(c, i)), last);
        v[i] = scales ? attention_int16_units(c, job, p, scales, number, column)
               : attention_in_tiles(c, job)
                   ? attention_tiles_units(c, job, p, number, column)
                   : attention_element(c, &job->k, cg_add(c, p->slot, number), p->kv, column, c->lanes);
    }
    cg_transpose(c, v);
    for (int i = 0; i < c->lanes; i++) {
        LLVMValueRef line = cg_mul(c, cg_add(c, column, cg_i64(c, i)), cg_i64(c, attention_tile_width(c)));
        cg_store(c, v[i], cg_at(c, c->f32, to, line), 4);
    }
    cg_loop_end(c, &loop);
}

/* The same an element at a time: K by column, where neighbours in a line are neighbours in memory, and short rows. */
static void pack_lines(cg *c, const attention_job *job, const attention_panel *p, LLVMValueRef first, LLVMValueRef to) {
    LLVMValueRef width = cg_i64(c, attention_tile_width(c)), keys = cg_min(c, width, cg_sub(c, p->count, first));
    cg_loop column = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), 1);
    LLVMValueRef line = cg_at(c, c->f32, to, cg_mul(c, column.index, width));
    cg_loop key = cg_loop_begin(c, cg_i64(c, 0), keys, 1);
    LLVMValueRef slot = cg_add(c, p->slot, cg_add(c, first, key.index));
    cg_store(c, attention_element(c, &job->k, slot, p->kv, column.index, 1), cg_at(c, c->f32, line, key.index), 4);
    cg_loop_end(c, &key);
    cg_loop_end(c, &column);
}

void attention_pack_k(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *scales,
                      LLVMValueRef to) {
    int64_t width = attention_tile_width(c), elements = scales || attention_in_tiles(c, job) ? job->d / 2 : job->d;
    if (scales) attention_int16_scale_k(c, job, p, scales);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), p->count, width);
    LLVMValueRef lines = cg_at(c, c->f32, to, cg_mul(c, loop.index, cg_i64(c, elements)));
    if (job->k.stride[2] == 1 && job->d >= c->lanes)
        for (int v = 0; v < VECTORS; v++)
            pack_squares(c, job, p, scales, elements, cg_add(c, loop.index, cg_i64(c, (int64_t)v * c->lanes)),
                         vector_at(c, lines, v));
    else pack_lines(c, job, p, loop.index, lines);
    cg_loop_end(c, &loop);
}

void attention_pack_v(cg *c, const attention_job *job, const attention_panel *p, LLVMValueRef to, int64_t most) {
    int64_t width = attention_tile_width(c), whole = job->d / c->lanes * c->lanes;
    cg_loop keys = cg_loop_begin(c, cg_i64(c, 0), p->count, 1);
    LLVMValueRef slot = cg_add(c, p->slot, keys.index),
                 line = cg_at(c, c->f32, to, cg_mul(c, keys.index, cg_i64(c, width)));
    for (int vectors = 1; vectors >= 0; vectors--) { /* whole vectors, then what is left of the row */
        cg_loop columns = cg_loop_begin(c, cg_i64(c, vectors ? 0 : whole), cg_i64(c, vectors ? whole : job->d),
                                        vectors ? c->lanes : 1);
        LLVMValueRef part = LLVMBuildUDiv(c->b, columns.index, cg_i64(c, width), ""),
                     within = LLVMBuildURem(c->b, columns.index, cg_i64(c, width), "");
        LLVMValueRef at = cg_at(c, c->f32, line, cg_add(c, cg_mul(c, part, cg_i64(c, most * width)), within));
        cg_store(c, attention_element(c, &job->v, slot, p->kv, columns.index, vectors ? c->lanes : 1), at, 4);
        cg_loop_end(c, &columns);
    }
    cg_loop_end(c, &keys);
}
