/* W as it is stored, packed for integer products (integer_stored.c): its own codes as unsigned bytes, and its scales
 * and minima.
 *
 * With VNNI these stay floats. Without, the scales of a row become integers of 16 bits, parts of a unit of the row's
 * own, so that a group's sums are scaled as they are summed (vpmaddwd): the largest is 32767 units, as a rule, the
 * others are off by at most half a unit. Minima are in units too: where one is by far larger than all scales, as in
 * rows of equal elements, the unit is 2^-31 of it, so that sums with minima stay in range. A group's sums stay in
 * int16: products of |code| up to 16 with 127 of sixteen columns, or of 32 with eight. So a group has 32 columns, or
 * half as many for larger codes.
 */
#include "codegen/integer.h"

enum { LARGEST = INTEGER_LARGEST_PART, INT16_LANES = 2 };

int64_t integer_group_of(const integer_kind *kind) {
    if (!integer_as_stored(kind)) return ir_scale_group(kind->x, kind->rotate);
    const rt_codes *codes = rt_codes_of(kind->w);
    return cg_int16_hold(codes, codes->run) ? codes->run : INTEGER_RUN / 2;
}

LLVMValueRef integer_beside_scales(cg *c, LLVMValueRef minimum) {
    return LLVMBuildFMul(c->b, minimum, cg_like(c, minimum, cg_f32(c, 0x1p-16)), "");
}

typedef struct stored_row {
    const integer_kind *kind;
    const integer_places *at;
    LLVMValueRef codes, number; /* its first code; the row's number in the panel */
    LLVMValueRef most;          /* variable: the largest magnitude of a scale, or of a minimum beside them */
} stored_row;

/* 32 columns, number `run` of the row. */
static void emit_run(cg *c, const stored_row *row, LLVMValueRef block, int sub, LLVMValueRef run) {
    const rt_codes *range = rt_codes_of(row->kind->w);
    int64_t group = integer_group_of(row->kind);
    bool parts = integer_in_parts(c, row->kind);
    cg_codes codes;
    cg_decode(c, row->kind->w, block, sub, &codes);
    for (int p = 0; p < INTEGER_RUN / c->lanes; p++) {
        LLVMValueRef code = LLVMBuildFPToSI(c->b, codes.part[p], cg_vector(c, c->i32), "");
        code = LLVMBuildTrunc(c->b, cg_sub(c, code, cg_spread(c, cg_i32(c, range->least))), cg_vector(c, c->i8), "");
        LLVMValueRef column = cg_add(c, cg_mul(c, run, cg_i64(c, INTEGER_RUN)), cg_i64(c, p * c->lanes));
        cg_store(c, code, cg_at(c, c->i8, row->codes, column), 1);
    }
    for (int i = 0; i < INTEGER_RUN / group; i++) {
        LLVMValueRef number = cg_add(c, cg_mul(c, run, cg_i64(c, INTEGER_RUN / group)), cg_i64(c, i));
        int half = group == INTEGER_RUN ? 0 : i;
        LLVMValueRef place = cg_add(c, cg_mul(c, number, cg_i64(c, integer_panel_rows(c))), row->number);
        if (parts) integer_largest_add(c, row->most, codes.scale[half]);
        cg_store(c, codes.scale[half],
                 parts ? cg_at(c, c->f32, row->at->floats, number) : cg_at(c, c->f32, row->at->scales, place), 4);
        if (!range->minima) continue;
        if (parts) integer_largest_add(c, row->most, integer_beside_scales(c, codes.minus[half]));
        cg_store(c, LLVMBuildFNeg(c->b, codes.minus[half], ""), cg_at(c, c->f32, row->at->minima, place), 4);
    }
}

/* The row's scales as parts of its unit, its minima in units. */
static void emit_scales(cg *c, const stored_row *row, LLVMValueRef columns) {
    LLVMValueRef most = LLVMBuildLoad2(c->b, c->f32, row->most, ""),
                 groups = LLVMBuildUDiv(c->b, columns, cg_i64(c, integer_group_of(row->kind)), "");
    LLVMValueRef inverse = LLVMBuildFDiv(c->b, cg_f32(c, LARGEST), most, "");
    cg_store(c, LLVMBuildFDiv(c->b, most, cg_f32(c, LARGEST), ""), cg_at(c, c->f32, row->at->units, row->number), 4);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), groups, 1);
    LLVMValueRef part =
        integer_nearest(c, cg_load(c, c->f32, cg_at(c, c->f32, row->at->floats, loop.index), 4), inverse);
    LLVMValueRef place = cg_add(c, cg_mul(c, loop.index, cg_i64(c, integer_panel_rows(c))), row->number);
    cg_store(c, integer_pair(c, part, part), cg_at(c, c->i32, row->at->scales, place), 4);
    if (rt_codes_of(row->kind->w)->minima) {
        LLVMValueRef minimum = cg_at(c, c->f32, row->at->minima, place);
        cg_store(c, LLVMBuildFMul(c->b, cg_load(c, c->f32, minimum, 4), inverse, ""), minimum, 4);
    }
    cg_loop_end(c, &loop);
}

void integer_emit_stored_row(cg *c, const integer_kind *kind, const integer_places *at, LLVMValueRef bytes,
                             LLVMValueRef number, LLVMValueRef columns) {
    stored_row row = {.kind = kind, .at = at, .number = number, .most = cg_variable(c, c->f32, NULL)};
    row.codes = cg_at(c, c->i8, at->codes, cg_mul(c, number, cg_i64(c, integer_codes_stride(kind))));
    LLVMBuildStore(c->b, cg_f32(c, RT_SCALE_LEAST), row.most);
    const rt_dtype_info *info = rt_dtype_of(kind->w);
    int runs = info->block_elems / INTEGER_RUN;
    cg_loop blocks = cg_loop_begin(c, cg_i64(c, 0), LLVMBuildUDiv(c->b, columns, cg_i64(c, info->block_elems), ""), 1);
    LLVMValueRef block = cg_at(c, c->i8, bytes, cg_mul(c, blocks.index, cg_i64(c, info->block_bytes)));
    for (int i = 0; i < runs; i++)
        emit_run(c, &row, block, i, cg_add(c, cg_mul(c, blocks.index, cg_i64(c, runs)), cg_i64(c, i)));
    cg_loop_end(c, &blocks);
    if (integer_in_parts(c, kind)) emit_scales(c, &row, columns);
}

/* ---- sums of x: what all codes of a group share is multiplied with them ---- */

bool integer_stored_starts(const integer_kind *kind) {
    return rt_codes_of(kind->w)->least != 0;
}

void integer_emit_stored_sums(cg *c, const integer_kind *kind, const integer_sums *at, LLVMValueRef x,
                              LLVMValueRef scales, LLVMValueRef runs) {
    const rt_codes *codes = rt_codes_of(kind->w);
    int64_t group = integer_group_of(kind), groups = INTEGER_RUN / group;
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), runs, 1);
    for (int i = 0; i < groups; i++) {
        LLVMValueRef number = cg_add(c, cg_mul(c, loop.index, cg_i64(c, groups)), cg_i64(c, i)),
                     from = cg_mul(c, number, cg_i64(c, group));
        LLVMValueRef sums =
            cg_word_sums(c, cg_load(c, LLVMVectorType(c->i8, (unsigned)group), cg_at(c, c->i8, x, from), 1));
        if (codes->least) {
            LLVMValueRef less =
                cg_splat(c, LLVMConstInt(c->i16, (unsigned long long)codes->least & 0xFFFF, 0), INT16_LANES);
            LLVMValueRef start = integer_in_parts(c, kind) ? cg_mul(c, sums, less)
                                                           : cg_mul(c, cg_sum_whole(c, sums), cg_i32(c, codes->least));
            cg_store(c, start, cg_at(c, c->i32, at->starts, number), 4);
        }
        if (!codes->minima) continue;
        LLVMValueRef sum = LLVMBuildFMul(c->b, LLVMBuildSIToFP(c->b, cg_sum_whole(c, sums), c->f32, ""),
                                         cg_load(c, c->f32, cg_at(c, c->f32, scales, loop.index), 4), "");
        cg_store(c, sum, cg_at(c, c->f32, at->sums, number), 4);
    }
    cg_loop_end(c, &loop);
}
