/* Interleaved weights: the codes and scales of a stored matrix, sixteen rows side by side, so that the lanes of a
 * vector are rows: a matrix-vector product needs no sum across lanes, and unpacking serves sixteen rows at a time.
 * Nothing is rounded: every value is the stored one, to the bit.
 *
 * A type …_R16 is made of one of ggml's block formats. Rows come in groups of RT_INTERLEAVED_ROWS; a group is one block
 * of columns after the other (block_elems of dtype.def), and a block of a group is
 *
 *   f16 d[16]                of each row
 *   f16 m[16]                of types with minima
 *   u8  scales[…][16]        of types with scales: for each 32 columns, u8; of Q6_K for each 16, i8
 *   u8  minima[…][16]        of types with minima: for each 32 columns
 *   then for each run of 32 columns
 *     u8 low[4][16][4]       the low four bits of codes: in byte c of [u][row] those of columns 4u + c and, above them,
 *                            16 + 4u + c
 *     u8 high[H][16][4]      H = bits - 4 more bits of each: in byte c of [h][row], for the units u = h·8/H … of four
 *                            columns one after the other from bit 0, those of column 4u + c
 *   or, of types of 8 bits, u8 codes[8][16][4]: column 4u + c in byte c of [u][row].
 *
 * value = d · scale · (code - bias) - m · minimum, as rt_dequantize_row multiplies it; codes are unsigned. */
#ifndef GM_RUNTIME_INTERLEAVE_H
#define GM_RUNTIME_INTERLEAVE_H

#include "runtime/dtype.h"

enum {
    RT_INTERLEAVED_ROWS = 16,
    RT_INTERLEAVED_RUN = 32,
    RT_INTERLEAVED_UNIT = 4,
    RT_INTERLEAVED_VECTOR = RT_INTERLEAVED_ROWS * RT_INTERLEAVED_UNIT
};

typedef struct rt_interleaved {
    rt_dtype stored;
    int bits, bias; /* of codes */
    int scale_run;  /* columns that share a scale: 32 (u8) or 16 (i8); 0: d is the scale of the block */
    bool minima;
} rt_interleaved;

/* NULL: not such a type. */
const rt_interleaved *rt_interleaved_of(rt_dtype dtype);
/* The interleaved type of a stored one; RT_DTYPE_COUNT: there is none. */
rt_dtype rt_interleaved_type(rt_dtype stored);

/* Where the parts of a block of a group begin, in bytes. */
typedef struct rt_interleaved_places {
    int minimum_factor, scales, minima, runs; /* of parts that a type does not have: where they would be */
    int run_bytes, high;                      /* of a run; high: from its start */
} rt_interleaved_places;
rt_interleaved_places rt_interleaved_layout(rt_dtype dtype);

/* dst = the group of RT_INTERLEAVED_ROWS rows that lie one after the other at src in type `stored`, each of `columns`
 * elements, a multiple of the block. dst has rt_dtype_bytes of the interleaved type for all their elements. */
void rt_interleave_group(rt_dtype stored, const void *src, size_t columns, void *dst);

/* dst[0..columns) = row `row` of an interleaved matrix at src, to the bit what rt_dequantize_row makes of the stored
 * one. */
void rt_deinterleave_row(rt_dtype dtype, const void *src, size_t row, size_t columns, float *dst);

#endif
