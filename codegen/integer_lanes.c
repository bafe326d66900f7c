/* Panels of W from interleaved rows (runtime/interleave.h): lanes are rows from the first load to the last store, so
 * that a rotation needs no shuffles, a row's largest magnitude nothing across lanes, and a panel no transposition.
 * Codes and scales are those that integer_pack.c and integer_codes.c make of the rows as they are stored, to the bit;
 * but rotated rows are summed in whole numbers as long as they have one scale, which is exact, so that a code beside
 * the middle of two may be the other one.
 */
#include "codegen/integer.h"
#include "codegen/lanes.h"

enum { RUN = INTEGER_RUN, UNITS = LANES_UNITS, UNIT = RT_INTERLEAVED_UNIT, HALVES = LANES_HALVES, UNROLL = 4 };

/* A vector of the panel's rows. */
typedef struct stripe {
    const integer_kind *kind;
    const integer_places *at;
    LLVMValueRef v, part; /* i64: which of the panel, which of the group */
    LLVMValueRef most;    /* variable, of W as stored: f32[lanes], the largest magnitudes of scales */
} stripe;

/* The stripe's place in item `index` of those that have an element for each row of the panel. */
static LLVMValueRef place_of(cg *c, const stripe *s, LLVMTypeRef type, LLVMValueRef items, LLVMValueRef index) {
    return cg_at(c, type, items,
                 cg_add(c, cg_mul(c, index, cg_i64(c, integer_panel_rows(c))), cg_mul(c, s->v, cg_i64(c, c->lanes))));
}

/* f32[lanes] number `index` of the scratch. */
static LLVMValueRef floats_at(cg *c, const stripe *s, LLVMValueRef index) {
    return cg_rotate_place(c, s->at->floats, index);
}

static LLVMValueRef as_lanes(cg *c, LLVMValueRef unit) {
    return LLVMBuildBitCast(c->b, unit, cg_vector(c, c->i32), "");
}

/* Run `number` of a block, which begins at column `column`. */
typedef void (*run_fn)(cg *c, const stripe *s, LLVMValueRef block, LLVMValueRef number, LLVMValueRef column);

/* A panel's rows are too short for a CPU's prefetcher to follow, and those that lie behind them are another thread's:
 * those of the next panel may be asked for at their end. */
static void prefetch_ahead(cg *c, const stripe *s, LLVMValueRef run) {
    LLVMValueRef from = cg_at(c, c->i8, run, cg_i64(c, c->ahead));
    if (s->at->end) {
        LLVMValueRef inside = LLVMBuildICmp(c->b, LLVMIntULT, from, s->at->end, "");
        from = cg_at(c, c->i8, from, LLVMBuildSelect(c->b, inside, cg_i64(c, 0), s->at->jump, ""));
    }
    cg_prefetch_lines(c, from, rt_interleaved_layout(s->kind->w).run_bytes);
}

static void each_run(cg *c, const stripe *s, LLVMValueRef group, LLVMValueRef columns, run_fn emit) {
    const rt_dtype_info *info = rt_dtype_of(s->kind->w);
    LLVMValueRef elems = cg_i64(c, info->block_elems), bytes = cg_i64(c, RT_INTERLEAVED_ROWS * info->block_bytes);
    cg_loop blocks = cg_loop_begin(c, cg_i64(c, 0), LLVMBuildUDiv(c->b, columns, elems, ""), 1);
    LLVMValueRef block = cg_at(c, c->i8, group, cg_mul(c, blocks.index, bytes)), first = cg_mul(c, blocks.index, elems);
    cg_loop runs = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, info->block_elems / RUN), 1);
    prefetch_ahead(c, s, lanes_run(c, s->kind->w, block, runs.index));
    emit(c, s, block, runs.index, cg_add(c, first, cg_mul(c, runs.index, cg_i64(c, RUN))));
    cg_loop_end(c, &runs);
    cg_loop_end(c, &blocks);
}

/* ---- rounded to `bits` bits ---- */

/* The codes of column `i` of a unit as floats. */
static LLVMValueRef column_of(cg *c, LLVMValueRef unit, int i) {
    LLVMValueRef code = LLVMBuildLShr(c->b, as_lanes(c, unit), cg_spread(c, cg_i32(c, 8 * i)), "");
    return LLVMBuildSIToFP(c->b, LLVMBuildAnd(c->b, code, cg_spread(c, cg_i32(c, 255)), ""), cg_vector(c, c->f32), "");
}

static void values_of(cg *c, const stripe *s, LLVMValueRef block, LLVMValueRef number, LLVMValueRef *x) {
    rt_dtype dtype = s->kind->w;
    LLVMValueRef run = lanes_run(c, dtype, block, number), scales[HALVES], less[HALVES], minimum = NULL, unit = NULL;
    lanes_scales(c, dtype, block, number, s->part, scales);
    if (rt_interleaved_of(dtype)->minima) minimum = lanes_minimum(c, dtype, block, number, s->part);
    for (int h = 0; h < HALVES; h++)
        less[h] = LLVMBuildFMul(c->b, scales[h], cg_spread(c, cg_f32(c, -rt_interleaved_of(dtype)->bias)), "");
    for (int i = 0; i < RUN; i++) {
        int half = i / (RUN / HALVES);
        if (i % UNIT == 0) unit = lanes_unit(c, dtype, run, i / UNIT, s->part);
        x[i] = column_of(c, unit, i % UNIT);
        if (minimum) x[i] = LLVMBuildFSub(c->b, LLVMBuildFMul(c->b, x[i], scales[half], ""), minimum, "");
        /* a bias is a power of two: rounded once, as the difference times the scale is */
        else x[i] = cg_fma(c, x[i], scales[half], less[half]);
    }
}

/* A run's values. */
static void widen_run(cg *c, const stripe *s, LLVMValueRef block, LLVMValueRef number, LLVMValueRef column) {
    LLVMValueRef x[RUN];
    values_of(c, s, block, number, x);
    for (int i = 0; i < RUN; i++) cg_store(c, x[i], floats_at(c, s, cg_add(c, column, cg_i64(c, i))), 4);
}

/* A run's values as bf16, straight to the panel. */
static void halve_run(cg *c, const stripe *s, LLVMValueRef block, LLVMValueRef number, LLVMValueRef column) {
    LLVMValueRef x[RUN], first = LLVMBuildUDiv(c->b, column, cg_i64(c, 2), "");
    values_of(c, s, block, number, x);
    for (int i = 0; i < RUN; i += 2)
        cg_store(c, integer_halves(c, x[i], x[i + 1]),
                 place_of(c, s, c->i32, s->at->panel, cg_add(c, first, cg_i64(c, i / 2))), 4);
}

/* A run's values with the first steps of their rotation: those within halves in whole numbers, since a half has one
 * scale; then one step with the scales. */
static void rotate_run(cg *c, const stripe *s, LLVMValueRef block, LLVMValueRef number, LLVMValueRef column) {
    enum { HALF = CG_ROTATE_CODES, HALF_UNITS = UNITS / HALVES };
    rt_dtype dtype = s->kind->w;
    const rt_interleaved *type = rt_interleaved_of(dtype);
    LLVMTypeRef floats = cg_vector(c, c->f32);
    LLVMValueRef run = lanes_run(c, dtype, block, number), scales[HALVES], x[HALVES][HALF], units[UNITS];
    LLVMValueRef length = cg_spread(c, cg_f32(c, cg_rotate_scale(s->kind->columns)));
    LLVMValueRef less = type->minima ? LLVMBuildFMul(c->b, lanes_minimum(c, dtype, block, number, s->part),
                                                     LLVMBuildFNeg(c->b, length, ""), "")
                                     : NULL;
    lanes_scales(c, dtype, block, number, s->part, scales);
    for (int u = 0; u < UNITS; u++) units[u] = lanes_unit(c, dtype, run, u, s->part);
    for (int h = 0; h < HALVES; h++) {
        scales[h] = LLVMBuildFMul(c->b, scales[h], length, "");
        cg_rotate_codes(c, s->kind->columns, cg_add(c, column, cg_i64(c, h * HALF)), units + h * HALF_UNITS, type->bias,
                        x[h]);
    }
    for (int i = 0; i < RUN; i++) {
        LLVMValueRef one = LLVMBuildSIToFP(c->b, x[0][i % HALF], floats, ""),
                     other = LLVMBuildSIToFP(c->b, x[1][i % HALF], floats, "");
        other = LLVMBuildFMul(c->b, other, scales[1], "");
        LLVMValueRef y = cg_fma(c, one, scales[0], i < HALF ? other : LLVMBuildFNeg(c->b, other, ""));
        if (less) y = cg_fma(c, less, cg_rotate_ones(c, s->kind->columns, column, i), y);
        cg_store(c, y, floats_at(c, s, cg_add(c, column, cg_i64(c, i))), 4);
    }
}

static LLVMValueRef load_floats(cg *c, const stripe *s, LLVMValueRef column) {
    return cg_load(c, cg_vector(c, c->f32), floats_at(c, s, column), 4);
}

/* A unit of `count` columns from `column` on: 32 bits of each row. */
static LLVMValueRef round_unit(cg *c, const stripe *s, LLVMValueRef column, int count, LLVMValueRef inverse) {
    LLVMValueRef unit = NULL, mask = cg_spread(c, cg_i32(c, (1 << 32 / count) - 1));
    for (int i = 0; i < count; i++) {
        LLVMValueRef whole = integer_nearest(c, load_floats(c, s, cg_add(c, column, cg_i64(c, i))), inverse);
        if (integer_offset_w(c, s->kind)) whole = cg_add(c, whole, cg_spread(c, cg_i32(c, 128)));
        whole = LLVMBuildShl(c->b, LLVMBuildAnd(c->b, whole, mask, ""), cg_spread(c, cg_i32(c, 32 / count * i)), "");
        unit = unit ? LLVMBuildOr(c->b, unit, whole, "") : whole;
    }
    return unit;
}

static void add_largest(cg *c, LLVMValueRef x, void *most) {
    integer_largest_add(c, most, x);
}

/* The largest magnitudes of columns [from, to), in a variable. */
static LLVMValueRef largest_of(cg *c, const stripe *s, LLVMValueRef from, LLVMValueRef to) {
    LLVMValueRef most = integer_largest_begin(c);
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    integer_largest_add(c, most, load_floats(c, s, loop.index));
    cg_loop_end_unrolled(c, &loop, UNROLL);
    return most;
}

/* The codes and the scales of columns [from, to), a group; most: a variable of their largest magnitudes. */
static void round_group(cg *c, const stripe *s, LLVMValueRef from, LLVMValueRef to, LLVMValueRef most) {
    LLVMValueRef levels = cg_spread(c, cg_f32(c, (double)((1 << (s->kind->bits - 1)) - 1)));
    int count = integer_unit_of(s->kind->x);
    most = LLVMBuildBitCast(c->b, LLVMBuildLoad2(c->b, cg_vector(c, c->i32), most, ""), cg_vector(c, c->f32), "");
    LLVMValueRef inverse = LLVMBuildFDiv(c->b, levels, most, ""),
                 group = LLVMBuildUDiv(c->b, from, cg_i64(c, integer_group_of(s->kind)), "");
    cg_store(c, LLVMBuildFDiv(c->b, most, levels, ""), place_of(c, s, c->f32, s->at->scales, group), 4);
    cg_loop units = cg_loop_begin(c, from, to, count);
    LLVMValueRef number = LLVMBuildUDiv(c->b, units.index, cg_i64(c, count), "");
    cg_store(c, round_unit(c, s, units.index, count, inverse), place_of(c, s, c->i32, s->at->panel, number), 4);
    cg_loop_end_unrolled(c, &units, UNROLL);
}

/* The values of all columns; rotated, when that is asked for. Returns what round_group needs if a row is one group,
 * else NULL. */
static LLVMValueRef emit_values(cg *c, const stripe *s, LLVMValueRef group, LLVMValueRef columns) {
    bool once = s->kind->columns <= integer_group_of(s->kind);
    LLVMValueRef most = once && s->kind->rotate ? integer_largest_begin(c) : NULL;
    each_run(c, s, group, columns, s->kind->rotate ? rotate_run : widen_run);
    if (s->kind->rotate) cg_rotate_rows(c, s->kind->columns, s->at->floats, RUN, most ? add_largest : NULL, most);
    return most;
}

static void emit_rounded(cg *c, const stripe *s, LLVMValueRef group, LLVMValueRef columns) {
    LLVMValueRef most = emit_values(c, s, group, columns);
    cg_loop groups = cg_loop_begin(c, cg_i64(c, 0), columns, integer_group_of(s->kind));
    LLVMValueRef to = cg_min(c, columns, cg_add(c, groups.index, cg_i64(c, integer_group_of(s->kind))));
    round_group(c, s, groups.index, to, most ? most : largest_of(c, s, groups.index, to));
    cg_loop_end(c, &groups);
}

/* ---- as stored ---- */

/* A run's codes, as they are, and its scales and minima; scales that become parts to the scratch, minima beside them
 * not yet in units. */
static void keep_run(cg *c, const stripe *s, LLVMValueRef block, LLVMValueRef number, LLVMValueRef column) {
    rt_dtype dtype = s->kind->w;
    int64_t groups = RUN / integer_group_of(s->kind);
    bool parts = integer_in_parts(c, s->kind);
    LLVMValueRef run = lanes_run(c, dtype, block, number), scales[HALVES],
                 first = LLVMBuildUDiv(c->b, column, cg_i64(c, RUN), "");
    for (int u = 0; u < UNITS; u++) {
        LLVMValueRef unit = cg_add(c, cg_mul(c, first, cg_i64(c, UNITS)), cg_i64(c, u));
        cg_store(c, as_lanes(c, lanes_unit(c, dtype, run, u, s->part)), place_of(c, s, c->i32, s->at->panel, unit), 4);
    }
    lanes_scales(c, dtype, block, number, s->part, scales);
    for (int64_t i = 0; i < groups; i++) {
        LLVMValueRef group = cg_add(c, cg_mul(c, first, cg_i64(c, groups)), cg_i64(c, i));
        if (parts) integer_largest_add(c, s->most, scales[i]);
        cg_store(c, scales[i], parts ? floats_at(c, s, group) : place_of(c, s, c->f32, s->at->scales, group), 4);
        if (!rt_interleaved_of(dtype)->minima) continue;
        LLVMValueRef minimum = LLVMBuildFNeg(c->b, lanes_minimum(c, dtype, block, number, s->part), "");
        if (parts) integer_largest_add(c, s->most, integer_beside_scales(c, minimum));
        cg_store(c, minimum, place_of(c, s, c->f32, s->at->minima, group), 4);
    }
}

/* Scales as parts of the rows' units, minima in units. */
static void emit_parts(cg *c, const stripe *s, LLVMValueRef columns) {
    LLVMTypeRef floats = cg_vector(c, c->f32);
    LLVMValueRef most = LLVMBuildLoad2(c->b, floats, s->most, ""),
                 largest = cg_spread(c, cg_f32(c, INTEGER_LARGEST_PART));
    LLVMValueRef inverse = LLVMBuildFDiv(c->b, largest, most, "");
    cg_store(c, LLVMBuildFDiv(c->b, most, largest, ""), place_of(c, s, c->f32, s->at->units, cg_i64(c, 0)), 4);
    cg_loop loop =
        cg_loop_begin(c, cg_i64(c, 0), LLVMBuildUDiv(c->b, columns, cg_i64(c, integer_group_of(s->kind)), ""), 1);
    LLVMValueRef part = integer_nearest(c, load_floats(c, s, loop.index), inverse);
    cg_store(c, integer_pair(c, part, part), place_of(c, s, c->i32, s->at->scales, loop.index), 4);
    if (rt_interleaved_of(s->kind->w)->minima) {
        LLVMValueRef place = place_of(c, s, c->f32, s->at->minima, loop.index);
        cg_store(c, LLVMBuildFMul(c->b, cg_load(c, floats, place, 4), inverse, ""), place, 4);
    }
    cg_loop_end(c, &loop);
}

void integer_emit_lanes(cg *c, const integer_kind *kind, const integer_places *at, LLVMValueRef group,
                        LLVMValueRef part, LLVMValueRef v, LLVMValueRef columns) {
    stripe s = {.kind = kind, .at = at, .part = part, .v = v};
    if (kind->x == RT_BF16) {
        each_run(c, &s, group, columns, halve_run);
        return;
    }
    if (!integer_as_stored(kind)) {
        emit_rounded(c, &s, group, columns);
        return;
    }
    s.most = integer_largest_begin(c);
    each_run(c, &s, group, columns, keep_run);
    if (integer_in_parts(c, kind)) emit_parts(c, &s, columns);
}
