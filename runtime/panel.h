/* Kept panels: what a rotated product of 8-bit integers makes of a matrix, so that it is made once and not for each
 * chunk of a prompt.
 *
 * Each row is rotated (runtime/rotate.h) and rounded to 8 bits, with a scale for each RT_PANEL_RUN columns: their
 * largest magnitude, or RT_SCALE_LEAST if that is larger, / 127. Rows come in groups of RT_PANEL_ROWS. A group of K
 * columns, K a multiple of RT_PANEL_BLOCK, is
 *
 *   u8  codes[K/4][16][4]    byte c of [u][row]: the code of column 4u + c, plus 128: vpdpbusd takes it unsigned
 *   f32 scales[K/128][16]    a scale for each block of columns and row; all blocks of a run have the same */
#ifndef GM_RUNTIME_PANEL_H
#define GM_RUNTIME_PANEL_H

#include "runtime/dtype.h"

enum { RT_PANEL_ROWS = 16, RT_PANEL_BLOCK = 128, RT_PANEL_RUN = 2048, RT_PANEL_OFFSET = 128 };

/* The group at dst from RT_PANEL_ROWS rows of `columns` elements of a FLOAT or QUANT type, which lie one after the
 * other at src. x: scratch, RT_PANEL_ROWS floats for each column. */
void rt_panel_group(rt_dtype stored, const void *src, int64_t columns, float *x, void *dst);
/* codes[0..columns) = the codes of row `row` of the groups at src, without the offset of 128; scales = its scales, one
 * for each RT_PANEL_RUN columns or part of them. */
void rt_panel_row(const void *src, int64_t row, int64_t columns, float *codes, float *scales);

#endif
