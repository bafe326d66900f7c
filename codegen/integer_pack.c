/* Panels of W for integer products (integer.c): rows widened from the type they are stored in, perhaps rotated, rounded
 * to integers with a scale for each row and group of columns, and put side by side so that a vector holds the same unit
 * of columns of all its rows.
 */
#include "codegen/integer.h"
#include "runtime/interleave.h"

#include <string.h>

enum { MAX_LANES = 16, VECTORS = INTEGER_VECTORS };

int64_t integer_codes_stride(const integer_kind *kind) {
    return integer_block_of(kind) + INTEGER_SLACK; /* not a power of two, for the sake of the caches */
}

typedef struct pack_job {
    integer_kind kind;
    int w, row, row_bytes, columns; /* kernel arguments, and those of places */
    int floats, codes, panel, scales, units, minima, end, jump;
} pack_job;

LLVMValueRef integer_largest_begin(cg *c) {
    float least = RT_SCALE_LEAST;
    uint32_t bits;
    memcpy(&bits, &least, sizeof bits);
    return cg_variable(c, cg_vector(c, c->i32), cg_spread(c, cg_i32(c, bits)));
}

/* i32, or as many as x has lanes. */
static LLVMTypeRef whole_like(cg *c, LLVMValueRef x) {
    LLVMTypeRef type = LLVMTypeOf(x);
    return LLVMGetTypeKind(type) == LLVMVectorTypeKind ? LLVMVectorType(c->i32, LLVMGetVectorSize(type)) : c->i32;
}

LLVMValueRef integer_magnitude(cg *c, LLVMValueRef x) {
    return LLVMBuildAnd(c->b, LLVMBuildBitCast(c->b, x, whole_like(c, x), ""), cg_like(c, x, cg_i32(c, 0x7FFFFFFF)),
                        "");
}

LLVMValueRef integer_largest_lane(cg *c, LLVMValueRef magnitudes) {
    return LLVMBuildBitCast(c->b, cg_intrinsic(c, "llvm.vector.reduce.smax", LLVMTypeOf(magnitudes), &magnitudes, 1),
                            c->f32, "");
}

void integer_largest_add(cg *c, LLVMValueRef most, LLVMValueRef x) {
    LLVMValueRef size = integer_magnitude(c, x);
    LLVMBuildStore(c->b, cg_max(c, size, LLVMBuildLoad2(c->b, LLVMTypeOf(size), most, "")), most);
}

LLVMValueRef integer_largest_end(cg *c, LLVMValueRef most) {
    return integer_largest_lane(c, LLVMBuildLoad2(c->b, cg_vector(c, c->i32), most, ""));
}

LLVMValueRef integer_largest(cg *c, LLVMValueRef floats, LLVMValueRef columns) {
    LLVMValueRef most = integer_largest_begin(c);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), columns, c->lanes);
    integer_largest_add(c, most, cg_load(c, cg_vector(c, c->f32), cg_at(c, c->f32, floats, loop.index), 4));
    cg_loop_end(c, &loop);
    return integer_largest_end(c, most);
}

LLVMValueRef integer_nearest(cg *c, LLVMValueRef x, LLVMValueRef inverse) {
    bool each = LLVMGetTypeKind(LLVMTypeOf(inverse)) == LLVMVectorTypeKind;
    LLVMValueRef factor = each ? inverse : cg_like(c, x, inverse), rounder = cg_like(c, x, cg_f32(c, RT_ROUNDER));
    return LLVMBuildBitCast(c->b, LLVMBuildFAdd(c->b, LLVMBuildFMul(c->b, x, factor, ""), rounder, ""),
                            whole_like(c, x), "");
}

LLVMValueRef integer_pair(cg *c, LLVMValueRef low, LLVMValueRef high) {
    LLVMValueRef below = LLVMBuildAnd(c->b, low, cg_like(c, low, cg_i32(c, 0xFFFF)), "");
    return LLVMBuildOr(c->b, below, LLVMBuildShl(c->b, high, cg_like(c, high, cg_i32(c, 16)), ""), "");
}

void integer_round(cg *c, rt_dtype type, LLVMValueRef floats, LLVMValueRef columns, LLVMValueRef inverse, int offset,
                   LLVMValueRef codes) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), columns, c->lanes);
    LLVMValueRef whole =
        integer_nearest(c, cg_load(c, cg_vector(c, c->f32), cg_at(c, c->f32, floats, loop.index), 4), inverse);
    if (offset) whole = cg_add(c, whole, cg_spread(c, cg_i32(c, offset)));
    cg_store(c, LLVMBuildTrunc(c->b, whole, cg_vector(c, cg_type(c, type)), ""),
             cg_at(c, cg_type(c, type), codes, loop.index), 1);
    cg_loop_end(c, &loop);
}

/* To bf16 in the lower half of each lane. */
static LLVMValueRef round_half(cg *c, LLVMValueRef x) {
    return LLVMBuildZExt(c->b, cg_from_f32(c, RT_BF16, x), cg_vector(c, c->i32), "");
}

/* One instruction rounds two vectors, one after the other, on every CPU with tile registers; a shuffle brings their
 * lanes together. */
LLVMValueRef integer_halves(cg *c, LLVMValueRef low, LLVMValueRef high) {
    if (!c->tiles || c->emulated) {
        LLVMValueRef upper = LLVMBuildShl(c->b, round_half(c, high), cg_spread(c, cg_i32(c, 16)), "");
        return LLVMBuildOr(c->b, upper, round_half(c, low), "");
    }
    LLVMValueRef mask[2 * MAX_LANES];
    GM_ASSERT(c->lanes == MAX_LANES);
    LLVMValueRef both = cg_intrinsic(c, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", NULL, (LLVMValueRef[]){high, low}, 2);
    both = LLVMBuildBitCast(c->b, both, LLVMVectorType(c->i16, 2 * MAX_LANES), "");
    for (int i = 0; i < 2 * MAX_LANES; i++) mask[i] = cg_i32(c, i / 2 + i % 2 * MAX_LANES);
    both = LLVMBuildShuffleVector(c->b, both, both, LLVMConstVector(mask, 2 * MAX_LANES), "");
    return LLVMBuildBitCast(c->b, both, cg_vector(c, c->i32), "");
}

static void store_halves(cg *c, LLVMValueRef floats, LLVMValueRef columns, LLVMValueRef codes) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), columns, c->lanes);
    LLVMValueRef bits =
        cg_from_f32(c, RT_BF16, cg_load(c, cg_vector(c, c->f32), cg_at(c, c->f32, floats, loop.index), 4));
    cg_store(c, bits, cg_at(c, c->i16, codes, loop.index), 1);
    cg_loop_end(c, &loop);
}

/* The rows' codes, `units` of 32 bits each and `stride` of them from row to row, as units side by side of all rows. */
static void emit_interleaved(cg *c, LLVMValueRef codes, LLVMValueRef stride, LLVMValueRef units, LLVMValueRef panel) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), units, c->lanes);
    for (int part = 0; part < VECTORS; part++) {
        LLVMValueRef v[MAX_LANES];
        for (int i = 0; i < c->lanes; i++) {
            LLVMValueRef at = cg_add(c, cg_mul(c, cg_i64(c, part * c->lanes + i), stride), loop.index);
            v[i] = cg_load(c, cg_vector(c, c->i32), cg_at(c, c->i32, codes, at), 2);
        }
        cg_transpose(c, v);
        for (int i = 0; i < c->lanes; i++) {
            LLVMValueRef unit = cg_add(c, loop.index, cg_i64(c, i));
            LLVMValueRef at = cg_add(c, cg_mul(c, unit, cg_i64(c, integer_panel_rows(c))), cg_i64(c, part * c->lanes));
            cg_store(c, v[i], cg_at(c, c->i32, panel, at), 4);
        }
    }
    cg_loop_end(c, &loop);
}

/* Row `row` of the panel, which lies widened, as codes and scales. */
static void emit_codes(cg *c, const pack_job *job, LLVMValueRef row) {
    LLVMValueRef *args = c->code.args, levels = cg_f32(c, (double)((1 << (job->kind.bits - 1)) - 1));
    LLVMTypeRef type = cg_type(c, job->kind.x);
    LLVMValueRef codes = cg_at(c, type, args[job->codes], cg_mul(c, row, cg_i64(c, integer_codes_stride(&job->kind))));
    int64_t group = integer_group_of(&job->kind);
    if (job->kind.x == RT_BF16) {
        store_halves(c, args[job->floats], args[job->columns], codes);
        return;
    }
    cg_loop groups = cg_loop_begin(c, cg_i64(c, 0), args[job->columns], group);
    LLVMValueRef columns = cg_min(c, cg_sub(c, args[job->columns], groups.index), cg_i64(c, group));
    LLVMValueRef floats = cg_at(c, c->f32, args[job->floats], groups.index), most = integer_largest(c, floats, columns);
    LLVMValueRef inverse = LLVMBuildFDiv(c->b, levels, most, "");
    integer_round(c, job->kind.x, floats, columns, inverse, integer_offset_w(c, &job->kind) ? 128 : 0,
                  cg_at(c, type, codes, groups.index));
    LLVMValueRef at = cg_add(
        c, cg_mul(c, LLVMBuildUDiv(c->b, groups.index, cg_i64(c, group), ""), cg_i64(c, integer_panel_rows(c))), row);
    cg_store(c, LLVMBuildFDiv(c->b, most, levels, ""), cg_at(c, c->f32, args[job->scales], at), 4);
    cg_loop_end(c, &groups);
}

/* Interleaved rows, a vector of them at a time. */
static void emit_lanes(cg *c, const pack_job *job, const integer_places *at) {
    LLVMValueRef *args = c->code.args, rows = cg_i64(c, RT_INTERLEAVED_ROWS);
    cg_loop v = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, VECTORS), 1);
    LLVMValueRef row = cg_add(c, args[job->row], cg_mul(c, v.index, cg_i64(c, c->lanes))),
                 within = LLVMBuildURem(c->b, row, rows, "");
    LLVMValueRef group = cg_at(c, c->i8, args[job->w], cg_mul(c, cg_sub(c, row, within), args[job->row_bytes]));
    integer_emit_lanes(c, &job->kind, at, group, LLVMBuildUDiv(c->b, within, cg_i64(c, c->lanes), ""), v.index,
                       args[job->columns]);
    cg_loop_end(c, &v);
}

/* ---- kept panels ---- */

integer_places integer_kept(cg *c, const integer_kind *kind, LLVMValueRef w, LLVMValueRef row) {
    /* kernel arguments */
    LLVMValueRef bytes = cg_i64(c, (int64_t)rt_dtype_bytes(kind->w, (size_t)kind->columns)),
                 none = LLVMConstNull(c->ptr);
    LLVMValueRef within = LLVMBuildURem(c->b, row, cg_i64(c, RT_PANEL_ROWS), ""),
                 group = cg_at(c, c->i8, w, cg_mul(c, cg_sub(c, row, within), bytes));
    LLVMValueRef panel = cg_at(c, c->i32, group, within); /* units and scales have four bytes for each row */
    LLVMValueRef scales = cg_at(c, c->i8, panel, cg_i64(c, RT_PANEL_ROWS * kind->columns));
    return (integer_places){
        .floats = none, .codes = none, .panel = panel, .scales = scales, .units = none, .minima = none, .next = none};
}

int64_t integer_kept_vector(const cg *c, const integer_kind *kind, int v) {
    int64_t group = (int64_t)rt_dtype_bytes(kind->w, (size_t)(RT_PANEL_ROWS * kind->columns)) / 4, row = v * c->lanes;
    return row / RT_PANEL_ROWS * group + row % RT_PANEL_ROWS;
}

/* From where they are kept to where they are multiplied, there as signed bytes. */
static void emit_kept(cg *c, const pack_job *job) {
    const integer_kind *kind = &job->kind;
    LLVMValueRef *args = c->code.args, rows = cg_i64(c, integer_panel_rows(c)),
                 signs = cg_spread(c, cg_i32(c, 0x80808080));
    integer_places from = integer_kept(c, kind, args[job->w], args[job->row]);
    cg_loop units = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, kind->columns / 4), 1);
    for (int v = 0; v < VECTORS; v++) {
        LLVMValueRef at =
            cg_add(c, cg_mul(c, units.index, cg_i64(c, RT_PANEL_ROWS)), cg_i64(c, integer_kept_vector(c, kind, v)));
        LLVMValueRef unit = cg_load(c, cg_vector(c, c->i32), cg_at(c, c->i32, from.panel, at), 4);
        LLVMValueRef to = cg_add(c, cg_mul(c, units.index, rows), cg_i64(c, v * c->lanes));
        cg_store(c, LLVMBuildXor(c->b, unit, signs, ""), cg_at(c, c->i32, args[job->panel], to), 4);
    }
    cg_loop_end(c, &units);
    for (int64_t group = 0, size = integer_group_of(kind); group * size < kind->columns; group++)
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef at =
                cg_i64(c, group * size / RT_PANEL_BLOCK * RT_PANEL_ROWS + integer_kept_vector(c, kind, v));
            LLVMValueRef scales = cg_load(c, cg_vector(c, c->f32), cg_at(c, c->f32, from.scales, at), 4);
            cg_store(c, scales,
                     cg_at(c, c->f32, args[job->scales], cg_i64(c, group * integer_panel_rows(c) + v * c->lanes)), 4);
        }
}

static void emit_pack(cg *c, void *user) {
    const pack_job *job = user;
    LLVMValueRef *args = c->code.args, floats = args[job->floats];
    integer_places at = {.floats = floats,
                         .codes = args[job->codes],
                         .panel = args[job->panel],
                         .scales = args[job->scales],
                         .units = args[job->units],
                         .minima = args[job->minima]};
    if (job->kind.w == RT_I8_P16) {
        emit_kept(c, job);
        return;
    }
    if (rt_interleaved_of(job->kind.w)) {
        if (integer_prefetches_rows(&job->kind)) at.end = args[job->end], at.jump = args[job->jump];
        emit_lanes(c, job, &at);
        return;
    }
    int64_t unit = integer_unit_of(job->kind.x);
    LLVMValueRef units = LLVMBuildUDiv(c->b, args[job->columns], cg_i64(c, unit), "");
    if (job->kind.x == job->kind.w) { /* bf16 as it is stored */
        LLVMValueRef first = cg_at(c, c->i8, args[job->w], cg_mul(c, args[job->row], args[job->row_bytes]));
        emit_interleaved(c, first, LLVMBuildUDiv(c->b, args[job->row_bytes], cg_i64(c, 4), ""), units,
                         args[job->panel]);
        return;
    }
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, integer_panel_rows(c)), 1);
    LLVMValueRef row =
        cg_at(c, c->i8, args[job->w], cg_mul(c, cg_add(c, args[job->row], rows.index), args[job->row_bytes]));
    if (integer_as_stored(&job->kind)) integer_emit_stored_row(c, &job->kind, &at, row, rows.index, args[job->columns]);
    else {
        cg_emit_decoded_row(c, job->kind.w, args[job->columns], row, floats);
        if (job->kind.rotate) cg_emit_rotated_row(c, job->kind.columns, floats, floats);
        emit_codes(c, job, rows.index);
    }
    cg_loop_end(c, &rows);
    emit_interleaved(c, args[job->codes], cg_i64(c, integer_codes_stride(&job->kind) / unit), units, args[job->panel]);
}

LLVMValueRef integer_row_at(cg *c, const integer_kind *kind, LLVMValueRef w, LLVMValueRef row) {
    return cg_at(c, c->i8, w, cg_mul(c, row, cg_i64(c, (int64_t)rt_dtype_bytes(kind->w, (size_t)kind->columns))));
}

int64_t integer_pack(cg *c, const integer_kind *kind, const integer_places *at, LLVMValueRef w, LLVMValueRef row,
                     int64_t first) {
    int64_t left = kind->columns - first, columns = left < integer_block_of(kind) ? left : integer_block_of(kind);
    int64_t start = rt_interleaved_of(kind->w) ? integer_columns_bytes(kind, first)
                                               : (int64_t)rt_dtype_bytes(kind->w, (size_t)first);
    pack_job pack = {.kind = *kind};
    cg_kernel kernel = {.count = 0};
    pack.w = cg_kernel_arg(&kernel, cg_at(c, c->i8, w, cg_i64(c, start)));
    pack.row = cg_kernel_arg(&kernel, row);
    pack.row_bytes = cg_kernel_arg(&kernel, cg_i64(c, (int64_t)rt_dtype_bytes(kind->w, (size_t)kind->columns)));
    pack.columns = cg_kernel_arg(&kernel, cg_i64(c, columns));
    pack.floats = cg_kernel_arg(&kernel, at->floats);
    pack.codes = cg_kernel_arg(&kernel, at->codes);
    pack.panel = cg_kernel_arg(&kernel, at->panel);
    pack.scales = cg_kernel_arg(&kernel, at->scales);
    pack.units = cg_kernel_arg(&kernel, at->units);
    pack.minima = cg_kernel_arg(&kernel, at->minima);
    if (integer_prefetches_rows(kind)) {
        LLVMValueRef end = integer_row_at(c, kind, w, cg_add(c, row, cg_i64(c, integer_panel_rows(c))));
        pack.end = cg_kernel_arg(&kernel, end);
        pack.jump = cg_kernel_arg(&kernel, LLVMBuildPtrDiff2(c->b, c->i8, at->next, end, ""));
    }
    gm_string_printf(&kernel.key, "integer_pack %s %s %lld %lld %lld", rt_dtype_of(kind->w)->text,
                     rt_dtype_of(kind->x)->text, (long long)kind->bits, (long long)integer_codes_stride(kind),
                     kind->rotate ? (long long)kind->columns : 0);
    char name[40] = "integer_pack_";
    strcat(name, rt_dtype_of(kind->w)->text);
    cg_kernel_call(c, &kernel, name, emit_pack, &pack);
    return columns;
}
