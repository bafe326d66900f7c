/* Kept panels: what a rotated product of 8-bit integers makes of a matrix, so that it is made once and not for each
 * chunk of a prompt.
 *
 * Each row is rotated (runtime/rotate.h) and rounded to 8 bits, with a scale for each RT_PANEL_RUN columns: their
 * largest magnitude / 127, RT_SCALE_LEAST counting as one. Rows come in groups of RT_PANEL_ROWS. A group of K columns,
 * K a multiple of RT_PANEL_BLOCK, is
 *
 *   u8  codes[K/4][16][4]    in byte c of [u][row] that of column 4u + c, plus 128: what vpdpbusd takes as its unsigned
 *                            side
 *   f32 scales[K/128][16]    of each block of columns and row: those of a run are alike */
#ifndef GM_RUNTIME_PANEL_H
#define GM_RUNTIME_PANEL_H

#include "runtime/dtype.h"

enum {
    RT_PANEL_ROWS = 16,
    RT_PANEL_BLOCK = 128,
    RT_PANEL_RUN = 2048,
    RT_PANEL_OFFSET = 128,
    RT_PANEL_SCRATCH = RT_PANEL_ROWS + 1
};

/* The group at dst from RT_PANEL_ROWS rows of `columns` elements of a FLOAT or QUANT type, which lie one after the
 * other at src. scratch: RT_PANEL_SCRATCH floats for each column. */
void rt_panel_group(rt_dtype stored, const void *src, int64_t columns, float *scratch, void *dst);
/* codes[0..columns) = the codes of row `row` of the groups at src, less their offset; scales[0..runs of columns) its
 * scales. */
void rt_panel_row(const void *src, int64_t row, int64_t columns, float *codes, float *scales);

#endif
