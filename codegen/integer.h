/* What packing and multiplying of integer products share. Internal to codegen/. */
#ifndef GM_CODEGEN_INTEGER_H
#define GM_CODEGEN_INTEGER_H

#include "codegen/cg.h"

enum {
    INTEGER_VECTORS = 2, /* of a panel, side by side */
    INTEGER_RUN = IR_SCALE_RUN,
    INTEGER_COLUMN_MULTIPLE = 32,
    INTEGER_MOST_TALL = 12, /* rows of x in a tile */
    INTEGER_SLACK = 64      /* columns: packing writes whole multiples of so many, the units of a 512-bit vector */
};

/* What a kernel of an integer product bakes in. */
typedef struct integer_kind {
    rt_dtype w, x;         /* stored type of W; i8, i16 or bf16: what a unit holds */
    int64_t bits, columns; /* bits: 0 when W stays as it is stored; 16 of bf16, which has no scales */
    bool rotate;
    int64_t max_rows; /* of x */
    int tall;         /* rows of x in a tile */
} integer_kind;

/* The codes of W as stored: unsigned, code - least. */
static inline bool integer_as_stored(const integer_kind *kind) {
    return kind->bits == 0;
}

/* Is W multiplied in its stored codes without VNNI? Sums are then formed in int16, and the scales of a row become
 * integers: multiples of a unit that the row has (integer_codes.c). */
static inline bool integer_in_parts(const cg *c, const integer_kind *kind) {
    return integer_as_stored(kind) && !c->vnni;
}

/* Where the panel lies: in the thread's scratch, or where it is kept. */
typedef struct integer_places {
    LLVMValueRef floats; /* of one row; of interleaved rows f32[columns][lanes] as cg_rotate_place has them */
    /* of the panel's rows, one after the other: integer_codes_stride; interleaved rows need none */
    LLVMValueRef codes;
    LLVMValueRef panel;  /* interleaved */
    LLVMValueRef scales; /* f32[groups][rows]; integer_in_parts: i32, parts of the row's unit, twice in int16 */
    LLVMValueRef units;  /* integer_in_parts: f32[rows] */
    LLVMValueRef minima; /* of W as stored: f32[groups][rows], in units if there are, what is to be added for Σx */
    LLVMValueRef next;   /* integer_prefetches: what to prefetch: the panel that likely comes next, or its rows */
    /* integer_prefetches_rows, while rows are packed: where they end, and the distance from there to the rows of
     * `next`, for prefetching past the end; else NULL */
    LLVMValueRef end, jump;
} integer_places;

/* Rows of W in a panel. */
int64_t integer_panel_rows(const cg *c);
/* Columns in a unit of 32 bits. */
int integer_unit_of(rt_dtype x);
/* The largest part that a scale of W as it is stored can be of its row's unit. */
enum { INTEGER_LARGEST_PART = 32767 };
/* Are products summed in tile registers? Int16 are then split in three planes of bytes (integer_tiles.c). */
bool integer_in_tiles(const cg *c, const integer_kind *kind);
/* Are codes of W stored as w + 128? */
bool integer_offset_w(const cg *c, const integer_kind *kind);
/* Are kept panels of W (runtime/panel.h) multiplied where they lie? Else integer_pack copies them into the form that
 * the target multiplies. */
bool integer_in_place(const cg *c, const integer_kind *kind);
/* Is the next panel prefetched while this one is packed or multiplied? Kept panels that are multiplied in place are,
 * and interleaved rows that are packed in their stored codes (integer_prefetches_rows). */
bool integer_prefetches(const cg *c, const integer_kind *kind);
bool integer_prefetches_rows(const integer_kind *kind);
/* Bytes of so many columns of a group of interleaved rows. */
int64_t integer_columns_bytes(const integer_kind *kind, int64_t columns);
/* Columns of a block: all of them, or as many as are packed at a time. */
int64_t integer_block_of(const integer_kind *kind);
/* Columns of W that share a scale. */
int64_t integer_group_of(const integer_kind *kind);

/* ---- integer_pack.c ---- */

/* f32: the largest magnitude of floats, at least RT_SCALE_LEAST. NaN counts as more than infinity, since magnitudes are
 * compared by their bits. integer_largest: of floats[columns]. The others go vector by vector: _begin makes a variable,
 * _add takes a vector into it, _end reduces it. _add also takes a scalar into a scalar variable. */
LLVMValueRef integer_largest(cg *c, LLVMValueRef floats, LLVMValueRef columns);
LLVMValueRef integer_largest_begin(cg *c);
void integer_largest_add(cg *c, LLVMValueRef most, LLVMValueRef x);
LLVMValueRef integer_largest_end(cg *c, LLVMValueRef most);
/* i32: magnitudes as they are compared; of floats or vectors. */
LLVMValueRef integer_magnitude(cg *c, LLVMValueRef x);
/* f32: the largest lane of magnitudes. */
LLVMValueRef integer_largest_lane(cg *c, LLVMValueRef magnitudes);
/* The integers nearest to x · inverse, in the low bits of each lane: adding 1.5·2^23 leaves them there. x: a float or
 * any vector of them; inverse: as many, or one. */
LLVMValueRef integer_nearest(cg *c, LLVMValueRef x, LLVMValueRef inverse);
/* i32: the low int16 of `low`, and above them those of `high`; scalars or vectors. */
LLVMValueRef integer_pair(cg *c, LLVMValueRef low, LLVMValueRef high);
/* codes[columns] of a type = the integers nearest to floats · inverse, plus `offset`. */
void integer_round(cg *c, rt_dtype type, LLVMValueRef floats, LLVMValueRef columns, LLVMValueRef inverse, int offset,
                   LLVMValueRef codes);

/* Lanes of two floats each, rounded to bf16, to the nearest even: those of `low` in the lower halves. */
LLVMValueRef integer_halves(cg *c, LLVMValueRef low, LLVMValueRef high);

/* Elements from one row of codes to the next. */
int64_t integer_codes_stride(const integer_kind *kind);
/* Where the panel is that begins at `row` of the kept panels at w. */
integer_places integer_kept(cg *c, const integer_kind *kind, LLVMValueRef w, LLVMValueRef row);
/* Where row `row` of the matrix at w begins; of interleaved rows, the first of a group. */
LLVMValueRef integer_row_at(cg *c, const integer_kind *kind, LLVMValueRef w, LLVMValueRef row);
/* Elements of 32 bits from the first vector of a kept panel's unit, or of its scales, to vector v. */
int64_t integer_kept_vector(const cg *c, const integer_kind *kind, int v);
/* Fill at->panel and at->scales with a block of columns of a panel's rows, from `row` of the matrix at w and from
 * column `first` on. Returns how many columns that are: integer_block_of, or what is left. */
int64_t integer_pack(cg *c, const integer_kind *kind, const integer_places *at, LLVMValueRef w, LLVMValueRef row,
                     int64_t first);

/* ---- integer_panels.c ---- */

enum { INTEGER_GATE_WEIGHTS = 2 };

/* What of a product's kernel does not depend on how a panel is multiplied. */
typedef struct integer_panels {
    int weights; /* INTEGER_GATE_WEIGHTS: with a gate */
    rt_dtype out_dtype;
    /* kernel arguments; panels first..last of the instruction's are those of w */
    int w[INTEGER_GATE_WEIGHTS], x, x_rows, out, out_stride, hand, first, last;
} integer_panels;

/* For the weights from operand `which` on, as many as share a panel: adds their arguments to `kernel`, and what they
 * bake in to its key. hand: from cg_deal. origin: the first column of the result that they make. */
integer_panels integer_panels_of(cg *c, const ir_inst *inst, int which, LLVMValueRef hand, int64_t origin,
                                 cg_kernel *kernel);
/* How many weights share a panel: INTEGER_GATE_WEIGHTS for gated_matmul, else 1. */
int integer_panels_together(const ir_inst *inst);
/* Bytes of scratch of each weight's products with at most so many rows of x, f32[rows of x][rows of the panel]; 0
 * without a gate. */
int64_t integer_panels_half(const cg *c, const ir_inst *inst, int64_t max_rows);
/* Emit the panels that come to this thread, each packed to `pack` a block of columns at a time. multiply: columns
 * first… of the packed panel, times those of all rows of x, to f32 at out; from the second block on they are added to
 * what is there. */
typedef void (*integer_block_fn)(cg *c, void *user, const integer_places *panel, int64_t first, int64_t columns,
                                 LLVMValueRef out, LLVMValueRef out_stride);
typedef struct integer_work {
    const integer_panels *panels;
    const integer_kind *kind;
    const integer_places *pack;
    LLVMValueRef const *halves; /* integer_panels_half */
    integer_block_fn multiply;
    void *user;
} integer_work;
void integer_emit_panels(cg *c, const integer_work *work);

/* ---- integer_lanes.c: interleaved rows ---- */

/* Vector v of the panel's rows, which are those of vector `part` of the group at `group`. */
void integer_emit_lanes(cg *c, const integer_kind *kind, const integer_places *at, LLVMValueRef group,
                        LLVMValueRef part, LLVMValueRef v, LLVMValueRef columns);

/* ---- integer_codes.c: W as it is stored ---- */

/* minimum·2^-16, for integer_largest_add: what a minimum counts for in the maximum, over a row's scales and minima, of
 * which the row's unit is 1/32767. So a large minimum makes the unit large enough that sums with minima stay in range,
 * and a NaN makes the row NaN. f32 or a vector of rows. */
LLVMValueRef integer_beside_scales(cg *c, LLVMValueRef minimum);
/* One row of W, its number in the panel: its codes, scales, minima and unit to their places. */
void integer_emit_stored_row(cg *c, const integer_kind *kind, const integer_places *at, LLVMValueRef bytes,
                             LLVMValueRef number, LLVMValueRef columns);

/* Sums of x over the groups of W's columns, in the thread's scratch. */
typedef struct integer_sums {
    /* i32[rows of x][groups]: what the sums of products begin with (integer_in_parts: each of two int16), so that codes
     * of W may be unsigned */
    LLVMValueRef starts;
    LLVMValueRef sums; /* f32[rows of x][groups]: Σx, for minima */
} integer_sums;

/* Do the sums of products begin with other than 0? */
bool integer_stored_starts(const integer_kind *kind);
/* The sums of one row of x, of `runs` runs of 32 columns with their scales. */
void integer_emit_stored_sums(cg *c, const integer_kind *kind, const integer_sums *at, LLVMValueRef x,
                              LLVMValueRef scales, LLVMValueRef runs);

/* ---- integer_tiles.c ---- */

/* Bytes of scratch: of W's panel beside the one that is packed, 0 when that is multiplied as it is; of x, the same; and
 * of sums. */
typedef struct integer_tiles_space {
    int64_t panel, x, sums;
} integer_tiles_space;
integer_tiles_space integer_tiles_bytes(const cg *c, const integer_kind *kind);

/* All rows of x times a panel: pointers to the first element of each. */
typedef struct integer_tiles {
    const integer_kind *kind;
    bool adds;                         /* to what is there: not the first block of columns */
    int64_t x_stride;                  /* bytes */
    LLVMValueRef x, panel, sums;       /* codes, of int16 their planes; scratch */
    LLVMValueRef x_rows, columns;      /* i64; columns: of this block */
    LLVMValueRef scales, panel_scales; /* f32[rows of x]; f32[groups][rows of the panel] */
    LLVMValueRef out, out_stride;      /* f32; i64, elements */
} integer_tiles;
void integer_emit_tiles(cg *c, const integer_tiles *tiles);
/* Rows of x in a block. */
int integer_tiles_rows(const integer_kind *kind);
/* Int16 to planes of bytes: of x[rows, columns], in rows of integer_tiles_x_stride bytes; of a packed panel. */
int64_t integer_tiles_x_stride(const integer_kind *kind);
void integer_emit_x_planes(cg *c, const integer_kind *kind, LLVMValueRef x, int64_t stride, LLVMValueRef rows,
                           LLVMValueRef to);
void integer_emit_panel_planes(cg *c, const integer_kind *kind, LLVMValueRef panel, int64_t columns, LLVMValueRef to);

/* ---- integer_stored.c ---- */

/* A group of columns of a panel and a tile of x: pointers to the first element of each. */
typedef struct integer_group {
    int rows; /* of x */
    /* the stride in bytes, those below in elements, from one row of x to the next */
    int64_t columns, x_stride;
    int64_t scale_stride, sum_stride;
    LLVMValueRef x, w;                /* codes; w: units of all rows of the panel */
    LLVMValueRef scales, minima;      /* of W's rows; minima: NULL for none */
    LLVMValueRef scale, start, x_sum; /* of x; start: NULL for 0 */
    LLVMValueRef sums;                /* f32[rows of x][rows of the panel], in W's units if it has some */
} integer_group;
/* sums += w·x, scaled */
void integer_emit_stored_group(cg *c, const integer_group *group);
/* Does integer_emit_stored_group emit inline assembly? Only for AVX2 without VNNI. */
bool integer_stored_in_text(const cg *c);

#endif
