/* scaled_matmul, and gated_matmul of it: integer matrix-matrix products of compiled code.
 *
 * Rows of W come as they are stored, a panel at a time: two vectors' worth of rows, packed (integer_pack.c) so that a
 * vector holds the same unit of columns, 32 bits, of all its rows: two columns of 16 bits, or four of 8. A tile of rows
 * of x is multiplied with the panel: a unit of x in all lanes, a sum of products in each lane of i32. A group's sums
 * are exact; they join in f32 with the group's scale. Nothing of W is kept, so no second copy of the weights exists,
 * unless keep_panels has made the panels before (runtime/panel.h): those are multiplied where they lie. A panel stays
 * in the first- or second-level cache while all of x goes by (the blocking of Goto and van de Geijn, "Anatomy of
 * high-performance matrix multiplication").
 *
 * With VNNI units of 16 bits are multiplied by vpdpwssd and of 8 bits by vpdpbusd, whose first operand is unsigned: w +
 * 128, so that a row's sums begin with -128 · Σx. Without VNNI, by pmaddwd: bytes become two units of 16 bits, the even
 * columns and the odd ones. With tile registers (AMX) integer_tiles.c multiplies instead, if integer_in_tiles.
 *
 * Rows that lie interleaved are packed with lanes as rows (integer_lanes.c). W as it is stored (no bits) is packed by
 * integer_codes.c and multiplied by integer_stored.c, a group of columns at a time.
 */
#include "codegen/integer.h"
#include "runtime/interleave.h"

#include <string.h>

enum {
    VECTORS = INTEGER_VECTORS,
    /* rows of x in a tile: its sums and the panel's vectors fill the registers */
    TALL_16_REGISTERS = 6,
    TALL_32 = INTEGER_MOST_TALL,
    TALL_STORED = 6, /* the same, of sums as integers and as floats */
    BLOCK = 2048,    /* columns at a time, but for rows that are rotated whole */
    UNROLL = 2,      /* units, to spread the cost of addresses */
    ROW_MULTIPLE = 32
};

typedef struct integer_job {
    integer_kind kind;
    integer_panels panels;
    int64_t x_stride, half; /* half: bytes of scratch, of a gate */
    int scales;             /* a kernel argument */
} integer_job;

/* The thread's scratch. */
typedef struct places {
    integer_places pack;
    integer_sums x;                            /* starts beside codes made here: -128 · Σx */
    LLVMValueRef sums;                         /* f32[tall][rows] of a tile */
    LLVMValueRef x_planes, panel_planes;       /* of int16 in tiles */
    LLVMValueRef halves[INTEGER_GATE_WEIGHTS]; /* integer_panels_half */
} places;

int64_t integer_panel_rows(const cg *c) {
    return VECTORS * c->lanes;
}

static int tall_of(const cg *c, const ir_inst *inst) {
    bool stored = !ir_attr_int(inst, IR_ATTR_BITS, 0);
    return (int)ir_attr_int(inst, IR_ATTR_TILE, stored ? TALL_STORED : c->lanes == 16 ? TALL_32 : TALL_16_REGISTERS);
}

int integer_unit_of(rt_dtype x) {
    return x == RT_I8 ? 4 : 2;
}

bool integer_offset_w(const cg *c, const integer_kind *kind) {
    return kind->x == RT_I8 && c->vnni && !integer_in_tiles(c, kind);
}

bool integer_in_place(const cg *c, const integer_kind *kind) {
    return kind->w == RT_I8_P16 && integer_offset_w(c, kind);
}

/* Not where W is rounded: that takes longer than reading it, so prefetching would gain nothing. */
bool integer_prefetches_rows(const integer_kind *kind) {
    return integer_as_stored(kind) && rt_interleaved_of(kind->w);
}

bool integer_prefetches(const cg *c, const integer_kind *kind) {
    return integer_in_place(c, kind) || integer_prefetches_rows(kind);
}

int64_t integer_columns_bytes(const integer_kind *kind, int64_t columns) {
    return (int64_t)rt_dtype_bytes(kind->w, (size_t)(columns * RT_INTERLEAVED_ROWS));
}

int64_t integer_block_of(const integer_kind *kind) {
    return kind->rotate || kind->columns < BLOCK ? kind->columns : BLOCK;
}

static int64_t groups_of(const integer_kind *kind, int64_t columns) {
    int64_t group = integer_group_of(kind);
    return (columns + group - 1) / group;
}

static bool has_starts(const cg *c, const integer_kind *kind) {
    return integer_as_stored(kind) ? integer_stored_starts(kind) : integer_offset_w(c, kind);
}

static bool has_minima(const integer_kind *kind) {
    return integer_as_stored(kind) && rt_codes_of(kind->w)->minima;
}

/* Bytes of scratch; with `base`, also where things lie: what is read by whole vectors at multiples of their size. */
static int64_t lay_out(cg *c, const integer_job *job, LLVMValueRef base, places *out) {
    const integer_kind *kind = &job->kind;
    int64_t rows = integer_panel_rows(c), block = integer_block_of(kind), groups = groups_of(kind, block), at = 0;
    int64_t whole = (block + INTEGER_SLACK - 1) / INTEGER_SLACK * INTEGER_SLACK;
    int64_t of_x = kind->max_rows * groups_of(kind, kind->columns), code_bytes = 4 / integer_unit_of(kind->x);
    bool kept = kind->w == RT_I8_P16, lanes = rt_interleaved_of(kind->w), tiles = integer_in_tiles(c, kind),
         made = !integer_in_place(c, kind);
    integer_tiles_space space =
        tiles ? integer_tiles_bytes(c, kind) : (integer_tiles_space){.sums = rows * kind->tall * 4};
    integer_places *pack = &out->pack;
    struct {
        LLVMValueRef *place;
        int64_t bytes;
    } parts[] = {{&pack->panel, made ? rows * whole * code_bytes : 0},
                 {&pack->codes, lanes || kept ? 0 : rows * integer_codes_stride(kind) * code_bytes},
                 {&pack->floats, kept    ? 0
                                 : lanes ? (block + block / CG_ROTATE_BLOCK) * 4 * c->lanes
                                         : block * 4},
                 {&pack->scales, made ? rows * groups * 4 : 0},
                 {&pack->units, integer_in_parts(c, kind) ? rows * 4 : 0},
                 {&pack->minima, has_minima(kind) ? rows * groups * 4 : 0},
                 {&out->sums, space.sums},
                 {&out->x_planes, space.x},
                 {&out->panel_planes, space.panel},
                 {&out->halves[0], job->half},
                 {&out->halves[1], job->half},
                 {&out->x.starts, has_starts(c, kind) ? of_x * 4 : 0},
                 {&out->x.sums, has_minima(kind) ? of_x * 4 : 0}};
    for (size_t i = 0; i < GM_COUNT(parts); at += parts[i++].bytes)
        if (base) *parts[i].place = cg_at(c, c->i8, base, cg_i64(c, at));
    return at;
}

/* ---- multiplying ---- */

typedef struct tile_job {
    const integer_kind *kind;
    int64_t x_stride; /* a constant, so that one register addresses all rows */
    bool adds;        /* to what is there: not the first block of columns */
    /* kernel arguments */
    int x, x_rows, scales, out, out_stride, columns, panel, panel_scales, units, minima, starts, x_sums, sums, next;
} tile_job;

/* The even bytes of every int16, sign-extended, or the odd ones. */
static LLVMValueRef half_int16(cg *c, LLVMValueRef x, bool odd) {
    LLVMTypeRef int16s = LLVMVectorType(c->i16, 2 * (unsigned)c->lanes);
    LLVMValueRef eight = cg_splat(c, LLVMConstInt(c->i16, 8, 0), 2 * c->lanes),
                 both = LLVMBuildBitCast(c->b, x, int16s, "");
    if (!odd) both = LLVMBuildShl(c->b, both, eight, "");
    return LLVMBuildAShr(c->b, both, eight, "");
}

typedef struct tile {
    int rows;
    LLVMValueRef first;                 /* row of x */
    LLVMValueRef row[TALL_32];          /* their first elements */
    LLVMValueRef acc[TALL_32][VECTORS]; /* variables: i32 sums of a group */
} tile;

/* A unit of columns as the multiplier takes it: one vector, or of bytes that are multiplied as int16 the even and the
 * odd. */
typedef struct operand {
    LLVMValueRef part[2];
} operand;

static operand operand_of(cg *c, const integer_kind *kind, LLVMValueRef unit) {
    if (kind->x == RT_I16 || integer_offset_w(c, kind)) return (operand){{unit, NULL}};
    return (operand){{half_int16(c, unit, false), half_int16(c, unit, true)}};
}

static LLVMValueRef add_products(cg *c, const integer_kind *kind, LLVMValueRef acc, operand x, operand w) {
    if (integer_offset_w(c, kind)) return cg_add_quads(c, acc, w.part[0], x.part[0]);
    acc = cg_add_pairs(c, acc, x.part[0], w.part[0]);
    return x.part[1] ? cg_add_pairs(c, acc, x.part[1], w.part[1]) : acc;
}

/* Elements of 32 bits from the first vector of the panel's unit, or of its scales, to vector v. */
static int64_t vector_of(const cg *c, const tile_job *job, int v) {
    return integer_in_place(c, job->kind) ? integer_kept_vector(c, job->kind, v) : v * c->lanes;
}

/* panel: the kernel's argument. */
static LLVMValueRef unit_at(cg *c, const tile_job *job, int panel, LLVMValueRef unit, int v) {
    int64_t apart = integer_in_place(c, job->kind) ? RT_PANEL_ROWS : integer_panel_rows(c);
    return cg_at(c, c->i32, c->code.args[panel],
                 cg_add(c, cg_mul(c, unit, cg_i64(c, apart)), cg_i64(c, vector_of(c, job, v))));
}

static LLVMValueRef scales_at(cg *c, const tile_job *job, LLVMValueRef group, int v) {
    int64_t apart = integer_in_place(c, job->kind) ? integer_group_of(job->kind) / RT_PANEL_BLOCK * RT_PANEL_ROWS
                                                   : integer_panel_rows(c);
    return cg_at(c, c->f32, c->code.args[job->panel_scales],
                 cg_add(c, cg_mul(c, group, cg_i64(c, apart)), cg_i64(c, vector_of(c, job, v))));
}

/* A unit of the panel that will likely come next: a few rows of x are multiplied as fast as panels are read. With many,
 * the units are there after the first tile, and asking again costs nothing beside their products. */
static void prefetch_next_unit(cg *c, const tile_job *job, LLVMValueRef unit) {
    for (int v = 0; v < VECTORS; v++)
        if (v * c->lanes % RT_PANEL_ROWS == 0) cg_prefetch_second(c, unit_at(c, job, job->next, unit, v));
}

/* The same of a group's scales, which lie behind the units as units do. */
static void prefetch_next_scales(cg *c, const tile_job *job, LLVMValueRef group) {
    LLVMValueRef blocks = cg_mul(c, group, cg_i64(c, integer_group_of(job->kind) / RT_PANEL_BLOCK));
    prefetch_next_unit(c, job, cg_add(c, cg_i64(c, job->kind->columns / 4), blocks));
}

/* Units [from, to) of the columns. One at a time, unrolled late: LLVM reassociates the sums of several, which takes
 * more registers than there are. */
static void emit_products(cg *c, const tile_job *job, const tile *t, LLVMValueRef from, LLVMValueRef to) {
    cg_loop units = cg_loop_begin(c, from, to, 1);
    operand w[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        w[v] =
            operand_of(c, job->kind, cg_load(c, cg_vector(c, c->i32), unit_at(c, job, job->panel, units.index, v), 4));
    if (integer_in_place(c, job->kind)) prefetch_next_unit(c, job, units.index);
    for (int r = 0; r < t->rows; r++) {
        LLVMValueRef unit = cg_spread(c, cg_load(c, c->i32, cg_at(c, c->i32, t->row[r], units.index), 1));
        operand x = operand_of(c, job->kind, unit);
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef old = LLVMBuildLoad2(c->b, cg_vector(c, c->i32), t->acc[r][v], "");
            LLVMBuildStore(c->b, add_products(c, job->kind, old, x, w[v]), t->acc[r][v]);
        }
    }
    cg_loop_end_unrolled(c, &units, UNROLL);
}

/* Is a row's sum that of one group? */
static bool is_one_group(const integer_kind *kind) {
    return !integer_as_stored(kind) && kind->columns <= integer_group_of(kind) &&
           kind->columns <= integer_block_of(kind);
}

static LLVMValueRef sum_place(cg *c, const tile_job *job, int r, int v) {
    return cg_at(c, c->f32, c->code.args[job->sums], cg_i64(c, r * integer_panel_rows(c) + v * c->lanes));
}

/* What the sums of a group begin with. From here on the next panel's scales are on their way. */
static void emit_starts(cg *c, const tile_job *job, const tile *t, LLVMValueRef group) {
    if (integer_in_place(c, job->kind)) prefetch_next_scales(c, job, group);
    for (int r = 0; r < t->rows; r++) {
        LLVMValueRef start = LLVMConstNull(cg_vector(c, c->i32)), *args = c->code.args;
        if (has_starts(c, job->kind)) {
            LLVMValueRef row =
                cg_mul(c, cg_add(c, t->first, cg_i64(c, r)), cg_i64(c, groups_of(job->kind, job->kind->columns)));
            start = cg_spread(c, cg_load(c, c->i32, cg_at(c, c->i32, args[job->starts], cg_add(c, row, group)), 4));
        }
        for (int v = 0; v < VECTORS; v++) LLVMBuildStore(c->b, start, t->acc[r][v]);
    }
}

/* The sums of a group, with its scales, to those of the tile. group: its number. */
static void emit_scaled(cg *c, const tile_job *job, const tile *t, LLVMValueRef group) {
    LLVMTypeRef floats = cg_vector(c, c->f32);
    for (int v = 0; v < VECTORS; v++) {
        LLVMValueRef scale = cg_load(c, floats, scales_at(c, job, group, v), 4);
        for (int r = 0; r < t->rows; r++) {
            LLVMValueRef whole =
                LLVMBuildSIToFP(c->b, LLVMBuildLoad2(c->b, cg_vector(c, c->i32), t->acc[r][v], ""), floats, "");
            LLVMValueRef place = sum_place(c, job, r, v);
            whole = is_one_group(job->kind) ? LLVMBuildFMul(c->b, whole, scale, "")
                                            : cg_fma(c, whole, scale, cg_load(c, floats, place, 4));
            cg_store(c, whole, place, 4);
        }
    }
}

static LLVMValueRef row_of(cg *c, LLVMTypeRef type, LLVMValueRef from, LLVMValueRef row, int64_t stride,
                           LLVMValueRef at) {
    return cg_at(c, type, from, cg_add(c, cg_mul(c, row, cg_i64(c, stride)), at));
}

/* The products of a group with W as stored, in its row's units if it has some, to the sums of the tile. unit: the
 * group's first. */
static void emit_stored(cg *c, const tile_job *job, const tile *t, LLVMValueRef group, LLVMValueRef unit) {
    LLVMValueRef *args = c->code.args;
    int64_t columns = job->kind->columns, runs = columns / INTEGER_RUN, groups = groups_of(job->kind, columns),
            rows = integer_panel_rows(c);
    LLVMValueRef of_panel = cg_mul(c, group, cg_i64(c, rows)),
                 run = LLVMBuildUDiv(c->b, group, cg_i64(c, groups / runs), "");
    integer_group g = {.rows = t->rows,
                       .columns = integer_group_of(job->kind),
                       .x_stride = job->x_stride,
                       .scale_stride = runs,
                       .sum_stride = groups};
    g.x = cg_at(c, c->i32, t->row[0], unit);
    g.w = cg_at(c, c->i32, args[job->panel], cg_mul(c, unit, cg_i64(c, rows)));
    g.scales = cg_at(c, c->i32, args[job->panel_scales], of_panel);
    g.scale = row_of(c, c->f32, args[job->scales], t->first, runs, run);
    g.sums = args[job->sums];
    if (has_starts(c, job->kind)) g.start = row_of(c, c->i32, args[job->starts], t->first, groups, group);
    if (has_minima(job->kind)) g.minima = cg_at(c, c->f32, args[job->minima], of_panel);
    if (has_minima(job->kind)) g.x_sum = row_of(c, c->f32, args[job->x_sums], t->first, groups, group);
    integer_emit_stored_group(c, &g);
}

/* While the first tile is multiplied, prefetches, group by group, the rows that the next panel will likely be packed
 * from: packing mostly waits for memory, which multiplying leaves idle. */
static void prefetch_next_rows(cg *c, const tile_job *job, const tile *t, LLVMValueRef group) {
    int64_t bytes = integer_columns_bytes(job->kind, integer_group_of(job->kind)),
            apart = integer_columns_bytes(job->kind, job->kind->columns);
    LLVMValueRef from = cg_at(c, c->i8, c->code.args[job->next], cg_mul(c, group, cg_i64(c, bytes)));
    cg_loop once = cg_loop_begin(c, t->first, cg_i64(c, 1), 1);
    for (int64_t i = 0; i < integer_panel_rows(c) / RT_INTERLEAVED_ROWS; i++)
        cg_prefetch_lines(c, cg_at(c, c->i8, from, cg_i64(c, i * apart)), bytes);
    cg_loop_end(c, &once);
}

/* The products of all groups into the tile's sums. */
static void emit_groups(cg *c, const tile_job *job, const tile *t) {
    int64_t unit = integer_unit_of(job->kind->x), of_group = integer_group_of(job->kind) / unit;
    if (is_one_group(job->kind)) {
        emit_starts(c, job, t, cg_i64(c, 0));
        emit_products(c, job, t, cg_i64(c, 0), cg_i64(c, job->kind->columns / unit));
        emit_scaled(c, job, t, cg_i64(c, 0));
        return;
    }
    for (int r = 0; r < t->rows; r++)
        for (int v = 0; v < VECTORS; v++) cg_store(c, LLVMConstNull(cg_vector(c, c->f32)), sum_place(c, job, r, v), 4);
    LLVMValueRef units = LLVMBuildUDiv(c->b, c->code.args[job->columns], cg_i64(c, unit), "");
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), units, of_group);
    LLVMValueRef group = LLVMBuildUDiv(c->b, loop.index, cg_i64(c, of_group), "");
    if (integer_as_stored(job->kind)) {
        if (integer_prefetches_rows(job->kind)) prefetch_next_rows(c, job, t, group);
        emit_stored(c, job, t, group, loop.index);
    } else {
        emit_starts(c, job, t, group);
        emit_products(c, job, t, loop.index, cg_min(c, cg_add(c, loop.index, cg_i64(c, of_group)), units));
        emit_scaled(c, job, t, group);
    }
    cg_loop_end(c, &loop);
}

static void emit_tile(cg *c, const tile_job *job, tile *t) {
    LLVMValueRef *args = c->code.args;
    LLVMTypeRef floats = cg_vector(c, c->f32), x_type = cg_type(c, job->kind->x);
    for (int r = 0; r < t->rows; r++)
        t->row[r] =
            cg_at(c, x_type, args[job->x], cg_mul(c, cg_add(c, t->first, cg_i64(c, r)), cg_i64(c, job->x_stride)));
    emit_groups(c, job, t);
    for (int r = 0; r < t->rows; r++) {
        LLVMValueRef row = cg_add(c, t->first, cg_i64(c, r));
        LLVMValueRef scale = integer_as_stored(job->kind)
                                 ? NULL
                                 : cg_spread(c, cg_load(c, c->f32, cg_at(c, c->f32, args[job->scales], row), 4));
        for (int v = 0; v < VECTORS; v++) {
            if (integer_in_parts(c, job->kind))
                scale = cg_load(c, floats, cg_at(c, c->f32, args[job->units], cg_i64(c, v * c->lanes)), 4);
            LLVMValueRef at = cg_add(c, cg_mul(c, row, args[job->out_stride]), cg_i64(c, v * c->lanes));
            LLVMValueRef place = cg_at(c, c->f32, args[job->out], at),
                         y = cg_load(c, floats, sum_place(c, job, r, v), 4);
            if (!scale) y = job->adds ? LLVMBuildFAdd(c->b, y, cg_load(c, floats, place, 4), "") : y;
            else y = job->adds ? cg_fma(c, y, scale, cg_load(c, floats, place, 4)) : LLVMBuildFMul(c->b, y, scale, "");
            cg_store(c, y, place, 4);
        }
    }
}

/* Rows [first, …) in tiles of `rows`, as many as are whole; returns the row after them. */
static LLVMValueRef emit_tiles(cg *c, const tile_job *job, LLVMValueRef first, int rows) {
    tile t = {.rows = rows};
    LLVMValueRef left = cg_sub(c, c->code.args[job->x_rows], first), size = cg_i64(c, rows);
    LLVMValueRef end = cg_add(c, first, cg_mul(c, LLVMBuildUDiv(c->b, left, size, ""), size));
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) t.acc[r][v] = cg_variable(c, cg_vector(c, c->i32), NULL);
    cg_loop loop = cg_loop_begin(c, first, end, rows);
    t.first = loop.index;
    emit_tile(c, job, &t);
    cg_loop_end(c, &loop);
    return end;
}

static void emit_multiply(cg *c, void *user) {
    const tile_job *job = user;
    LLVMValueRef first = cg_i64(c, 0), *args = c->code.args;
    if (integer_in_tiles(c, job->kind)) {
        integer_tiles tiles = {.kind = job->kind,
                               .adds = job->adds,
                               .x_stride = job->x_stride,
                               .columns = args[job->columns],
                               .x = args[job->x],
                               .panel = args[job->panel],
                               .sums = args[job->sums],
                               .x_rows = args[job->x_rows],
                               .scales = args[job->scales],
                               .panel_scales = args[job->panel_scales],
                               .out = args[job->out],
                               .out_stride = args[job->out_stride]};
        integer_emit_tiles(c, &tiles);
        return;
    }
    /* Whole tiles, then ever lower ones for the rows that are left: of 12, 4, 2 and 1 rows, or of 6, 2 and 1. */
    for (int rows = job->kind->tall; rows; rows /= rows % 3 ? 2 : 3) first = emit_tiles(c, job, first, rows);
}

/* ---- the instruction ---- */

static bool takes_planes(const cg *c, const integer_kind *kind) {
    return kind->x == RT_I16 && integer_in_tiles(c, kind);
}

/* A job and its scratch. */
typedef struct working {
    const integer_job *job;
    const places *at;
} working;

static void call_multiply(cg *c, void *user, const integer_places *pack, int64_t first, int64_t columns,
                          LLVMValueRef out, LLVMValueRef out_stride) {
    const integer_job *job = ((const working *)user)->job;
    const places *at = ((const working *)user)->at;
    tile_job tiles = {.kind = &job->kind, .x_stride = job->x_stride, .adds = first > 0};
    LLVMValueRef x = cg_at(c, cg_type(c, job->kind.x), c->code.args[job->panels.x], cg_i64(c, first)),
                 panel = pack->panel;
    if (takes_planes(c, &job->kind)) {
        integer_emit_panel_planes(c, &job->kind, panel, columns, at->panel_planes);
        x = cg_at(c, c->i8, at->x_planes, cg_i64(c, first)), panel = at->panel_planes;
        tiles.x_stride = integer_tiles_x_stride(&job->kind);
    }
    cg_kernel kernel = {.count = 0};
    LLVMValueRef *args = c->code.args, group = cg_i64(c, first / integer_group_of(&job->kind));
    LLVMValueRef run = cg_i64(c, integer_as_stored(&job->kind) ? first / INTEGER_RUN : 0);
    tiles.x = cg_kernel_arg(&kernel, x);
    tiles.x_rows = cg_kernel_arg(&kernel, args[job->panels.x_rows]);
    tiles.scales = cg_kernel_arg(&kernel, cg_at(c, c->f32, args[job->scales], run));
    tiles.out = cg_kernel_arg(&kernel, out);
    tiles.out_stride = cg_kernel_arg(&kernel, out_stride);
    tiles.columns = cg_kernel_arg(&kernel, cg_i64(c, columns));
    tiles.panel = cg_kernel_arg(&kernel, panel);
    tiles.panel_scales = cg_kernel_arg(&kernel, pack->scales);
    tiles.units = cg_kernel_arg(&kernel, pack->units);
    tiles.minima = cg_kernel_arg(&kernel, pack->minima);
    tiles.starts = cg_kernel_arg(&kernel, cg_at(c, c->i32, at->x.starts, group));
    tiles.x_sums = cg_kernel_arg(&kernel, cg_at(c, c->f32, at->x.sums, group));
    tiles.sums = cg_kernel_arg(&kernel, at->sums);
    if (integer_prefetches(c, &job->kind)) tiles.next = cg_kernel_arg(&kernel, pack->next);
    gm_string_printf(&kernel.key, "integer_multiply %s %lld %lld %d %d %lld %d", rt_dtype_of(job->kind.x)->text,
                     (long long)job->x_stride, (long long)job->kind.columns, job->kind.tall, tiles.adds,
                     (long long)integer_group_of(&job->kind), integer_in_place(c, &job->kind));
    if (integer_prefetches_rows(&job->kind))
        gm_string_printf(&kernel.key, " next %lld", (long long)integer_columns_bytes(&job->kind, job->kind.columns));
    if (integer_as_stored(&job->kind))
        gm_string_printf(&kernel.key, " %d %d", has_starts(c, &job->kind), has_minima(&job->kind));
    cg_kernel_call(c, &kernel, "integer_multiply", emit_multiply, &tiles);
}

/* starts[rows of x][groups] = -128 · Σx of each group. */
static void emit_x_sums(cg *c, const integer_job *job, LLVMValueRef starts) {
    LLVMValueRef *args = c->code.args, columns = cg_i64(c, job->kind.columns),
                 at = cg_variable(c, c->i64, cg_i64(c, 0));
    LLVMTypeRef integers = cg_vector(c, c->i32);
    int64_t group = integer_group_of(&job->kind);
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), args[job->panels.x_rows], 1);
    cg_loop groups = cg_loop_begin(c, cg_i64(c, 0), columns, group);
    LLVMValueRef end = cg_min(c, cg_add(c, groups.index, cg_i64(c, group)), columns),
                 sum = cg_variable(c, integers, LLVMConstNull(integers));
    cg_loop loop = cg_loop_begin(c, groups.index, end, c->lanes);
    LLVMValueRef place =
        cg_at(c, c->i8, args[job->panels.x], cg_add(c, cg_mul(c, rows.index, cg_i64(c, job->x_stride)), loop.index));
    LLVMValueRef x = LLVMBuildSExt(c->b, cg_load(c, cg_vector(c, c->i8), place, 1), integers, "");
    LLVMBuildStore(c->b, cg_add(c, LLVMBuildLoad2(c->b, integers, sum, ""), x), sum);
    cg_loop_end(c, &loop);
    LLVMValueRef all = LLVMBuildLoad2(c->b, integers, sum, ""), number = LLVMBuildLoad2(c->b, c->i64, at, "");
    LLVMValueRef total = cg_sum_whole(c, all);
    cg_store(c, cg_mul(c, total, cg_i32(c, -128)), cg_at(c, c->i32, starts, number), 4);
    LLVMBuildStore(c->b, cg_add(c, number, cg_i64(c, 1)), at);
    cg_loop_end(c, &groups);
    cg_loop_end(c, &rows);
}

static void emit_stored_sums(cg *c, const integer_job *job, const integer_sums *at) {
    LLVMValueRef *args = c->code.args;
    int64_t runs = job->kind.columns / INTEGER_RUN, groups = groups_of(&job->kind, job->kind.columns);
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), args[job->panels.x_rows], 1);
    LLVMValueRef first = cg_mul(c, rows.index, cg_i64(c, groups)), run = cg_mul(c, rows.index, cg_i64(c, runs));
    integer_sums to = {cg_at(c, c->i32, at->starts, first), cg_at(c, c->f32, at->sums, first)};
    LLVMValueRef x = cg_at(c, c->i8, args[job->panels.x], cg_mul(c, rows.index, cg_i64(c, job->x_stride)));
    integer_emit_stored_sums(c, &job->kind, &to, x, cg_at(c, c->f32, args[job->scales], run), cg_i64(c, runs));
    cg_loop_end(c, &rows);
}

static void emit_integer(cg *c, void *user) {
    const integer_job *job = user;
    const integer_kind *kind = &job->kind;
    LLVMValueRef *args = c->code.args;
    places at;
    lay_out(c, job, cg_scratch(c, lay_out(c, job, NULL, &at)), &at);
    if (integer_as_stored(kind)) emit_stored_sums(c, job, &at.x);
    else if (integer_offset_w(c, kind)) emit_x_sums(c, job, at.x.starts);
    else if (takes_planes(c, kind))
        integer_emit_x_planes(c, kind, args[job->panels.x], job->x_stride, args[job->panels.x_rows], at.x_planes);
    integer_emit_panels(c,
                        &(integer_work){&job->panels, kind, &at.pack, at.halves, call_multiply, &(working){job, &at}});
}

/* which: operand, a W. */
static integer_kind kind_of(const cg *c, const ir_inst *inst, int which) {
    const ir_type *x = &inst->operands[0]->type;
    int64_t columns = x->dim[x->rank - 1];
    return (integer_kind){.w = inst->operands[which]->type.dtype,
                          .x = x->dtype,
                          .bits = ir_attr_int(inst, IR_ATTR_BITS, 0),
                          .columns = columns,
                          .rotate = ir_attr_int(inst, IR_ATTR_ROTATE, 0),
                          .max_rows = ir_type_max_rows(c->module, x),
                          .tall = tall_of(c, inst)};
}

static void call_integer(cg *c, const ir_inst *inst, integer_job *job, int which, LLVMValueRef hand, int64_t origin) {
    cg_kernel kernel = {.count = 0};
    GM_ASSERT(ir_layout_matrix(&inst->operands[0]->type, &cg_slot_of(c, inst->operands[0])->layout, &job->x_stride));
    job->panels = integer_panels_of(c, inst, which, hand, origin, &kernel);
    job->scales = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[1])->base);
    gm_string_printf(&kernel.key, "integer %s %s %lld %lld %lld %d %lld %d", rt_dtype_of(job->kind.w)->text,
                     rt_dtype_of(job->kind.x)->text, (long long)job->kind.columns, (long long)job->x_stride,
                     (long long)job->kind.bits, job->kind.rotate, (long long)job->kind.max_rows, job->kind.tall);
    char name[40] = "integer_";
    strcat(name, rt_dtype_of(job->kind.w)->text);
    cg_kernel_call(c, &kernel, name, emit_integer, job);
}

static bool takes(const cg *c, const ir_inst *inst, const ir_type *w) {
    bool rotate = ir_attr_int(inst, IR_ATTR_ROTATE, 0),
         readable = w->dtype == RT_I8_P16 || rt_interleaved_of(w->dtype) || cg_can_widen(w);
    if (!ir_attr_int(inst, IR_ATTR_BITS, 0) && !rt_codes_of(w->dtype)) return false;
    return w->dim[0] % ROW_MULTIPLE == 0 && w->dim[1] % INTEGER_COLUMN_MULTIPLE == 0 && readable &&
           (!rotate || cg_can_rotate(c, w->dim[1]));
}

static void note(const cg *c, const ir_inst *inst) {
    rt_dtype x = inst->operands[0]->type.dtype;
    integer_kind kind = kind_of(c, inst, 2);
    bool stored = integer_as_stored(&kind);
    int rows = tall_of(c, inst);
    const char *of = "tiles",
               *how = c->vnni ? "integer, two int16s a sum (vpdpwssd)" : "integer, two int16s a sum (pmaddwd)";
    const char *why = x == RT_I8 ? "the target does not sum products of bytes" : "x is i16";
    if (stored && c->vnni) how = "integer, four bytes a sum (vpdpbusd)", why = "W as it is stored";
    else if (stored)
        how = integer_stored_in_text(c) ? "integer, four bytes in two int16s (vpmaddubsw)"
                                        : "integer, four bytes in two int16s",
        why = "W as it is stored";
    else if (integer_in_tiles(c, &kind)) {
        how = x == RT_I8 ? "integer, tiles of bytes (tdpbssd)" : "integer, three planes of tiles of bytes (tdpbssd)",
        why = "the target has tile registers";
        of = "blocks", rows = integer_tiles_rows(&kind);
    } else if (integer_offset_w(c, &kind))
        how = "integer, four bytes a sum (vpdpbusd)", why = "x is i8 and the target sums products of bytes";
    ir_decide(c->options->decisions, "code", c->module, c->func, inst, how, "%s; %s of %d rows by %lld columns", why,
              of, rows, (long long)integer_panel_rows(c));
}

void cg_emit_scaled_matmul(cg *c, const ir_inst *inst) {
    const cg_slot *reads[2 + IR_MAX_WEIGHTS], *writes[] = {cg_slot_of(c, inst->results[0]), &cg_dealt};
    for (int i = 0; i < inst->operand_count; i++) reads[i] = cg_slot_of(c, inst->operands[i]); /* W may be computed */
    for (int i = 2; i < inst->operand_count; i++) {
        bool like = inst->op != IR_GATED_MATMUL || inst->operands[i]->type.dtype == inst->operands[2]->type.dtype;
        if (like && takes(c, inst, &inst->operands[i]->type)) continue;
        cg_unsupported(c, inst, "weights of this storage type, or not of whole panels");
        return;
    }
    int64_t stride;
    if (!ir_layout_matrix(&inst->operands[0]->type, &reads[0]->layout, &stride) ||
        !ir_layout_matrix(&inst->results[0]->type, &writes[0]->layout, &stride)) {
        cg_unsupported(c, inst, "rows of x at varying distances");
        return;
    }
    note(c, inst);
    cg_access(c, reads, inst->operand_count, writes, 2);
    LLVMValueRef hand = cg_deal(c);
    int64_t start = 0;
    for (int i = 2; i < inst->operand_count; i += integer_panels_together(inst)) {
        integer_job job = {.kind = kind_of(c, inst, i)};
        places at;
        job.half = integer_panels_half(c, inst, job.kind.max_rows);
        cg_reserve_scratch(c, lay_out(c, &job, NULL, &at));
        call_integer(c, inst, &job, i, hand, start);
        start += inst->operands[i]->type.dim[0];
    }
}
