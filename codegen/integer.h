/* What packing and multiplying of integer products share. Internal to codegen/. */
#ifndef GM_CODEGEN_INTEGER_H
#define GM_CODEGEN_INTEGER_H

#include "codegen/cg.h"

enum {
    INTEGER_VECTORS = 2,       /* of a panel, side by side */
    INTEGER_GROUP = IR_SCALE_GROUP,
    INTEGER_COLUMN_MULTIPLE = 32,
    INTEGER_SLACK = 64         /* columns: packing writes whole multiples of so many, the units of a 512-bit vector */
};

/* What a kernel of an integer product bakes in. */
typedef struct integer_kind {
    rt_dtype w, x; /* stored type of W; i8 or i16: what a unit holds */
    int64_t bits, columns;
    bool rotate;
    int64_t max_rows; /* of x */
    int tall;         /* rows of x in a tile */
} integer_kind;

/* Where the panel is made, in the thread's scratch. */
typedef struct integer_places {
    LLVMValueRef floats; /* of one row */
    LLVMValueRef codes;  /* of the panel's rows, one after the other: integer_codes_stride */
    LLVMValueRef panel;  /* interleaved */
    LLVMValueRef scales; /* f32[groups][rows] */
} integer_places;

/* Rows of W in a panel. */
int64_t integer_panel_rows(const cg *c);
/* Columns in a unit of 32 bits. */
int integer_unit_of(rt_dtype x);
/* Are codes of W stored as w + 128? */
bool integer_offset_w(const cg *c, rt_dtype x);
/* Columns of a block: all of them, or as many as are packed at a time. */
int64_t integer_block_of(const integer_kind *kind);

static inline LLVMTypeRef vector(cg *c, LLVMTypeRef element) {
    return LLVMVectorType(element, (unsigned)c->lanes);
}

static inline LLVMValueRef splat(cg *c, LLVMValueRef x) {
    return cg_splat(c, x, c->lanes);
}

/* ---- integer_pack.c ---- */

/* Elements from one row of codes to the next. */
int64_t integer_codes_stride(const integer_kind *kind);
/* Fill at->panel and at->scales with `columns` columns of a panel's rows, which lie row_bytes apart from w on. */
void integer_pack(cg *c, const integer_kind *kind, const integer_places *at, LLVMValueRef w, LLVMValueRef row_bytes, LLVMValueRef columns);

#endif
