/* Screens: a 4-bit copy of a weight matrix with bounds that say how far a product with it may be off. Reading the copy is enough to
 * rule out almost every row of an argmax(W·x), and most rows where a choice is among the largest; codegen/screen.c and screen_sample.c
 * compute the others. Half of it, the upper two bits of each code, is a sketch that is enough for a guess (codegen/sketch.c).
 *
 * A screen has type S4: runs of 32 elements of a row, each with a scale d (bf16, >= 0 or NaN), a bound c (u8) and a code of 0 to 15 per
 * element; v = d·(code - 8). Sixteen rows form a group, so that vector lanes are rows and no sum crosses lanes. The matrix lies in two planes,
 * all of the upper one before the lower one; for each 128 columns of a group there are
 *
 *   upper  bf16 d[4][16]       for each run, of each row
 *          u8 high[8][16][4]   code / 4: for sixteen columns, of each row columns 4j to 4j + 3 in bits 2j and 2j + 1 of the four bytes
 *   lower  u8 c[4][16]
 *          u8 low[8][16][4]    code % 4, likewise
 *
 * Rows after the last whole group have no screen (their bytes are zero): nothing is known of them, and they are always computed.
 * For every x (f32, below RT_SCREEN_MAX_X) and every other row of W:
 *
 *   kernel(w, x)  <=  estimate(v, x) + Σ over runs of d·(c/64·‖x‖ + max(0, ‖x - x̂‖ - RT_SCREEN_X_ERROR·‖x‖)·RT_SCREEN_MAX_STEPS) + RT_SCREEN_LEAST
 *
 * kernel is the compiled matrix-vector product (codegen/matmul.c); estimate is the compiled product of codegen/screen.c with x̂, which
 * is x in 8 bits. c/64 covers, in steps of d, the distance ‖w - v‖ (Cauchy-Schwarz), RT_SCREEN_X_ERROR·‖v‖ for x̂, and what both
 * kernels may round. A run that no c describes (not finite, or huge) has d = NaN, by which no row is ever ruled out. */
#ifndef GM_RUNTIME_SCREEN_H
#define GM_RUNTIME_SCREEN_H

#include "runtime/dtype.h"

enum {
    RT_SCREEN_MAX_COLUMNS = 1 << 16,
    RT_SCREEN_RUN = 32,
    RT_SCREEN_BLOCK = 128,
    RT_SCREEN_ROWS = 16,
    RT_SCREEN_UPPER = (RT_SCREEN_BLOCK / RT_SCREEN_RUN * 2 + RT_SCREEN_BLOCK / 4) * RT_SCREEN_ROWS, /* bytes of a block of a group */
    RT_SCREEN_LOWER = (RT_SCREEN_BLOCK / RT_SCREEN_RUN + RT_SCREEN_BLOCK / 4) * RT_SCREEN_ROWS,
};
#define RT_SCREEN_MAX_X 0x1p40f
#define RT_SCREEN_LEAST 0x1p-80f
#define RT_SCREEN_X_ERROR 0.008f   /* a usual ‖x - x̂‖/‖x‖ */
#define RT_SCREEN_MAX_STEPS 45.26f /* ‖v‖ is at most d·8·√32 */

/* Types whose products the bound covers and that are worth it: above 6 bits an element, value = scale · code. */
bool rt_can_screen(rt_dtype dtype);

/* The screen of RT_SCREEN_ROWS rows of `columns` (a multiple of 128) elements of a type that can be screened: its RT_SCREEN_UPPER and
 * RT_SCREEN_LOWER bytes for each 128 columns. row: scratch of as many floats. */
void rt_screen_group(rt_dtype dtype, const void *src, size_t columns, float *row, uint8_t *upper, uint8_t *lower);

#endif
