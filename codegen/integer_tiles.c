/* Integer products in tile registers: 32 rows of x by a panel of 32 rows of W at a time, 64 columns of bytes in each
 * step.
 *
 * The units of a packed panel lie as tiles take them. Int16 are split in two digits, v = 64·high + low, and multiplied
 * by three products of bytes instead of four (Karatsuba): of the high digits, of the low ones, and of the sums of both,
 * which fit a byte as well, since x has at most 13 bits and W 12. A group's sums in i32 are those of the int16, to the
 * bit. So x and W have three planes each.
 */
#include "codegen/integer.h"

enum {
    SIDE = CG_TILE_ROWS,
    STEP = CG_TILE_BYTES,
    HALVES = 2, /* of a panel: tiles side by side */
    PANEL = HALVES * SIDE,
    LINE = PANEL * 4, /* rows of W; bytes of a unit of all of them */
    PLANES = 3,
    DIGIT = 6,
    MOST_BITS = 12,
    TALL = 2 /* tiles of x at a time, of bytes */
};

/* Which registers hold what. */
typedef struct roles {
    int tall, planes; /* sums[tall][halves] of bytes, [planes][halves] of int16, from register 0 on */
    int x, w;
} roles;

static int planes_of(const integer_kind *kind) {
    return kind->x == RT_I16 ? PLANES : 1;
}

/* tall: tiles of x in a block. */
static roles roles_of(const integer_kind *kind, int tall) {
    int sums = HALVES * (kind->x == RT_I16 ? PLANES : TALL);
    return (roles){.tall = tall, .planes = planes_of(kind), .x = sums, .w = kind->x == RT_I16 ? sums + 1 : sums + TALL};
}

bool integer_in_tiles(const cg *c, const integer_kind *kind) {
    bool fits = kind->x == RT_I8 || kind->bits <= MOST_BITS;
    return c->tiles && !integer_as_stored(kind) && kind->columns % STEP == 0 && fits;
}

int integer_tiles_rows(const integer_kind *kind) {
    return (kind->x == RT_I8 ? TALL : 1) * SIDE;
}

int64_t integer_tiles_x_stride(const integer_kind *kind) {
    return PLANES * kind->columns + STEP; /* not a power of two, for the sake of the caches */
}

integer_tiles_space integer_tiles_bytes(const cg *c, const integer_kind *kind) {
    bool int16s = kind->x == RT_I16;
    GM_ASSERT(integer_panel_rows(c) == PANEL);
    return (integer_tiles_space){.panel = int16s ? PLANES * integer_block_of(kind) * PANEL : 0,
                                 .x = int16s ? kind->max_rows * integer_tiles_x_stride(kind) : 0,
                                 .sums = planes_of(kind) * TALL * SIDE * LINE};
}

/* ---- planes ---- */

/* Of int16, as int16: the high digit, the low one, and their sum. */
static void split(cg *c, LLVMValueRef int16s, LLVMValueRef *plane) {
    int count = (int)LLVMGetVectorSize(LLVMTypeOf(int16s));
    LLVMValueRef digit = cg_splat(c, LLVMConstInt(c->i16, DIGIT, 0), count),
                 half = cg_splat(c, LLVMConstInt(c->i16, 1 << (DIGIT - 1), 0), count);
    plane[0] = LLVMBuildAShr(c->b, cg_add(c, int16s, half), digit, "");
    plane[1] = cg_sub(c, int16s, LLVMBuildShl(c->b, plane[0], digit, ""));
    plane[2] = cg_add(c, plane[0], plane[1]);
}

void integer_emit_x_planes(cg *c, const integer_kind *kind, LLVMValueRef x, int64_t stride, LLVMValueRef rows,
                           LLVMValueRef to) {
    int count = 2 * c->lanes;
    cg_loop row = cg_loop_begin(c, cg_i64(c, 0), rows, 1);
    LLVMValueRef from = cg_at(c, c->i16, x, cg_mul(c, row.index, cg_i64(c, stride)));
    LLVMValueRef line = cg_at(c, c->i8, to, cg_mul(c, row.index, cg_i64(c, integer_tiles_x_stride(kind)))),
                 plane[PLANES];
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, kind->columns), count);
    split(c, cg_load(c, LLVMVectorType(c->i16, (unsigned)count), cg_at(c, c->i16, from, columns.index), 1), plane);
    for (int p = 0; p < PLANES; p++) {
        LLVMValueRef bytes = LLVMBuildTrunc(c->b, plane[p], LLVMVectorType(c->i8, (unsigned)count), "");
        cg_store(c, bytes, cg_at(c, c->i8, line, cg_add(c, columns.index, cg_i64(c, p * kind->columns))), 1);
    }
    cg_loop_end(c, &columns);
    cg_loop_end(c, &row);
}

/* The low bytes of two units of two int16: a unit of four bytes. */
static LLVMValueRef join_units(cg *c, LLVMValueRef first, LLVMValueRef second) {
    LLVMValueRef units[] = {LLVMBuildBitCast(c->b, first, cg_vector(c, c->i32), ""),
                            LLVMBuildBitCast(c->b, second, cg_vector(c, c->i32), "")};
    for (int i = 0; i < 2; i++) {
        LLVMValueRef low = LLVMBuildAnd(c->b, units[i], cg_spread(c, cg_i32(c, 0xFF)), "");
        LLVMValueRef high = LLVMBuildAnd(c->b, LLVMBuildLShr(c->b, units[i], cg_spread(c, cg_i32(c, 8)), ""),
                                         cg_spread(c, cg_i32(c, 0xFF00)), "");
        units[i] = LLVMBuildOr(c->b, low, high, "");
    }
    return LLVMBuildOr(c->b, units[0], LLVMBuildShl(c->b, units[1], cg_spread(c, cg_i32(c, 16)), ""), "");
}

void integer_emit_panel_planes(cg *c, const integer_kind *kind, LLVMValueRef panel, int64_t columns, LLVMValueRef to) {
    LLVMTypeRef int16s = LLVMVectorType(c->i16, 2 * (unsigned)c->lanes);
    GM_ASSERT(kind->x == RT_I16);
    cg_loop units = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, columns / 4), 1);
    for (int h = 0; h < HALVES; h++) {
        LLVMValueRef plane[2][PLANES], within = cg_i64(c, h * SIDE);
        for (int i = 0; i < 2; i++) {
            LLVMValueRef at =
                cg_mul(c, cg_add(c, cg_mul(c, units.index, cg_i64(c, 2)), cg_i64(c, i)), cg_i64(c, PANEL));
            split(c, cg_load(c, int16s, cg_at(c, c->i32, panel, cg_add(c, at, within)), 4), plane[i]);
        }
        for (int p = 0; p < PLANES; p++) {
            LLVMValueRef at = cg_add(c, cg_mul(c, units.index, cg_i64(c, PANEL)),
                                     cg_add(c, within, cg_i64(c, p * columns / 4 * PANEL)));
            cg_store(c, join_units(c, plane[0][p], plane[1][p]), cg_at(c, c->i32, to, at), 4);
        }
    }
    cg_loop_end(c, &units);
}

/* ---- multiplying ---- */

/* Rows of x from `first` on, `rows` of them, in `r.tall` tiles. */
typedef struct block {
    roles r;
    LLVMValueRef first, rows;
} block;

static LLVMValueRef x_at(cg *c, const integer_tiles *t, const block *b, int tile, int plane, LLVMValueRef column) {
    LLVMValueRef row = cg_mul(c, cg_add(c, b->first, cg_i64(c, tile * SIDE)), cg_i64(c, t->x_stride));
    return cg_at(c, c->i8, t->x, cg_add(c, row, cg_add(c, column, cg_i64(c, plane * t->kind->columns))));
}

static LLVMValueRef w_at(cg *c, const integer_tiles *t, int half, int plane, LLVMValueRef column) {
    LLVMValueRef before = cg_mul(c, cg_add(c, column, cg_mul(c, t->columns, cg_i64(c, plane))), cg_i64(c, PANEL));
    return cg_at(c, c->i8, t->panel, cg_add(c, before, cg_i64(c, half * STEP)));
}

/* The products of 64 columns. A block has several tiles of x or several planes. */
static void add_step(cg *c, const integer_tiles *t, const block *b, LLVMValueRef column) {
    for (int p = 0; p < b->r.planes; p++) {
        bool once = b->r.planes > 1; /* then one register serves both halves in turn */
        for (int x = 0; x < b->r.tall; x++) {
            cg_tile_load(c, b->r.x + x, x_at(c, t, b, x, p, column), cg_i64(c, t->x_stride));
            for (int h = 0; h < HALVES; h++) {
                int w = b->r.w + (once ? 0 : h);
                if (x == 0) cg_tile_load(c, w, w_at(c, t, h, p, column), cg_i64(c, LINE));
                cg_tile_add_bytes(c, (p + x) * HALVES + h, b->r.x + x, w);
            }
        }
    }
}

/* Where the sums of a plane begin: i32[rows of x][rows of the panel]. */
static LLVMValueRef sums_at(cg *c, const integer_tiles *t, int plane) {
    return cg_at(c, c->i8, t->sums, cg_i64(c, plane * TALL * SIDE * LINE));
}

/* The sums of columns [from, to). */
static void sum_columns(cg *c, const integer_tiles *t, const block *b, LLVMValueRef from, LLVMValueRef to) {
    int count = b->r.tall * b->r.planes;
    for (int i = 0; i < count * HALVES; i++) cg_tile_zero(c, i);
    cg_loop steps = cg_loop_begin(c, from, to, STEP);
    add_step(c, t, b, steps.index);
    cg_loop_end(c, &steps);
    for (int i = 0; i < count; i++)
        for (int h = 0; h < HALVES; h++) {
            int64_t at = (b->r.planes > 1 ? 0 : i * SIDE * LINE) + h * STEP;
            cg_tile_store(c, i * HALVES + h, cg_at(c, c->i8, sums_at(c, t, b->r.planes > 1 ? i : 0), cg_i64(c, at)),
                          cg_i64(c, LINE));
        }
}

/* Sixteen whole sums. */
static LLVMValueRef whole_sums(cg *c, const integer_tiles *t, const block *b, LLVMValueRef at) {
    LLVMValueRef part[PLANES], digit = cg_spread(c, cg_i32(c, DIGIT));
    for (int p = 0; p < b->r.planes; p++)
        part[p] = cg_load(c, cg_vector(c, c->i32), cg_at(c, c->i32, sums_at(c, t, p), at), 4);
    if (b->r.planes == 1) return part[0];
    LLVMValueRef both = cg_sub(c, part[2], cg_add(c, part[0], part[1])), high = LLVMBuildShl(c->b, part[0], digit, "");
    return cg_add(c, LLVMBuildShl(c->b, cg_add(c, high, both), digit, ""), part[1]);
}

/* out = or += the sums of columns from `column` on, scaled. */
static void write_sums(cg *c, const integer_tiles *t, const block *b, LLVMValueRef column) {
    LLVMTypeRef floats = cg_vector(c, c->f32);
    LLVMValueRef of_w[HALVES], group = LLVMBuildUDiv(c->b, column, cg_i64(c, integer_group_of(t->kind)), "");
    bool once = !t->adds && t->kind->columns <= integer_group_of(t->kind);
    LLVMValueRef first = LLVMBuildICmp(c->b, LLVMIntEQ, column, cg_i64(c, 0), "");
    for (int h = 0; h < HALVES; h++) {
        LLVMValueRef at = cg_add(c, cg_mul(c, group, cg_i64(c, PANEL)), cg_i64(c, h * SIDE));
        of_w[h] = cg_load(c, floats, cg_at(c, c->f32, t->panel_scales, at), 4);
    }
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), b->rows, 1);
    LLVMValueRef row = cg_add(c, b->first, rows.index),
                 of_x = cg_spread(c, cg_load(c, c->f32, cg_at(c, c->f32, t->scales, row), 4));
    for (int h = 0; h < HALVES; h++) {
        LLVMValueRef at = cg_add(c, cg_mul(c, rows.index, cg_i64(c, PANEL)), cg_i64(c, h * SIDE));
        LLVMValueRef y = LLVMBuildSIToFP(c->b, whole_sums(c, t, b, at), floats, "");
        LLVMValueRef place = cg_at(c, c->f32, t->out, cg_add(c, cg_mul(c, row, t->out_stride), cg_i64(c, h * SIDE)));
        y = LLVMBuildFMul(c->b, y, of_w[h], "");
        if (once) y = LLVMBuildFMul(c->b, y, of_x, "");
        else {
            LLVMValueRef before = cg_load(c, floats, place, 4);
            if (!t->adds) before = LLVMBuildSelect(c->b, first, LLVMConstNull(floats), before, "");
            y = cg_fma(c, y, of_x, before);
        }
        cg_store(c, y, place, 4);
    }
    cg_loop_end_unrolled(c, &rows, 2);
}

/* Columns [from, to) of all rows of x. */
typedef struct pass {
    LLVMValueRef from, to;
} pass;

static void emit_block(cg *c, const integer_tiles *t, const block *b, const pass *of) {
    sum_columns(c, t, b, of->from, of->to);
    write_sums(c, t, b, of->from);
}

/* Blocks of `tall` whole tiles from row `first` on; returns the row after them. */
static LLVMValueRef emit_whole(cg *c, const integer_tiles *t, const pass *of, LLVMValueRef first, int tall) {
    LLVMValueRef size = cg_i64(c, tall * SIDE),
                 end = cg_add(c, first, cg_mul(c, LLVMBuildUDiv(c->b, cg_sub(c, t->x_rows, first), size, ""), size));
    cg_loop loop = cg_loop_begin(c, first, end, tall * SIDE);
    emit_block(c, t, &(block){.r = roles_of(t->kind, tall), .first = loop.index, .rows = size}, of);
    cg_loop_end(c, &loop);
    return end;
}

static void emit_rows(cg *c, const integer_tiles *t, const pass *of) {
    LLVMValueRef first = cg_i64(c, 0);
    cg_tiles_configure(c, cg_i64(c, SIDE), 0);
    for (int tall = integer_tiles_rows(t->kind) / SIDE; tall; tall--) first = emit_whole(c, t, of, first, tall);
    cg_loop rest = cg_loop_begin(c, first, t->x_rows, SIDE); /* of one tile at most */
    block last = {.r = roles_of(t->kind, 1), .first = rest.index, .rows = cg_sub(c, t->x_rows, rest.index)};
    unsigned sums = (1u << last.r.planes * HALVES) - 1;
    cg_tiles_configure(c, last.rows, sums | 1u << last.r.x);
    emit_block(c, t, &last, of);
    cg_loop_end(c, &rest);
}

void integer_emit_tiles(cg *c, const integer_tiles *t) {
    int64_t columns = integer_group_of(t->kind);
    cg_loop passes = cg_loop_begin(c, cg_i64(c, 0), t->columns, columns);
    emit_rows(c, t, &(pass){passes.index, cg_min(c, cg_add(c, passes.index, cg_i64(c, columns)), t->columns)});
    cg_loop_end(c, &passes);
    cg_tiles_release(c);
}
