/* Screens: a 4-bit copy of a weight matrix with bounds that say how far a product with it may be off. Reading the copy is enough to
 * rule out almost every row of an argmax(W·x), and most rows where a choice is among the largest; codegen/screen.c and screen_sample.c
 * compute the others. Half of it, the upper two bits of each code, is a sketch that is enough for a guess (codegen/sketch.c).
 *
 * A screen has type S4: runs of 32 elements of a row, each with a scale s (u8), a bound c (u8) and a code of 0 to 15 per element; a row has
 * a unit u (bf16, >= 0 or NaN); v = u·s·(code - 8). Some columns count more than others: where x is large, so usually is W. So the first run
 * of a row is that of the 32 columns whose squares have the largest sum, the second what the first leaves of them, w - v, and the others
 * follow in their order. Sixteen rows form a group, so that vector lanes are rows and no sum crosses lanes. There are
 *
 *   u16 order[runs][32]                 the column of W that a column of the screen is of
 *   u8 upper[groups][runs][2][16][4]    code / 4: for sixteen columns, of each row columns 4j to 4j + 3 in bits 2j and 2j + 1 of the four bytes
 *   u8 lower[groups][runs][2][16][4]    code % 4, likewise
 *   u8 scales[groups][runs]             s[16], c[16]
 *   bf16 units[groups][16]
 *
 * in a tensor of 32 columns and some rows more than W.
 * Rows after the last whole group have no screen: nothing is known of them, and they are always computed.
 * For every x (f32, below RT_SCREEN_MAX_X) and every other row of W:
 *
 *   kernel(w, x)  <=  estimate(v, x) + Σ over runs of u·s·(c/64·‖x‖ + max(0, ‖x - x̂‖ - RT_SCREEN_X_ERROR·‖x‖)·RT_SCREEN_MAX_STEPS) + RT_SCREEN_LEAST
 *
 * kernel is the compiled matrix-vector product (codegen/matmul.c); estimate is the compiled product of codegen/screen.c with x̂, which
 * is x in 8 bits. c/64 covers, in steps of u·s, the distance ‖w - v‖ (Cauchy-Schwarz; none of the first run, whose distances the second one
 * holds), RT_SCREEN_X_ERROR·‖v‖ for x̂, and what both kernels may round. A row that no scales describe (not finite, or huge) has the unit NaN,
 * by which it is never ruled out. */
#ifndef GM_RUNTIME_SCREEN_H
#define GM_RUNTIME_SCREEN_H

#include "runtime/dtype.h"

enum {
    RT_SCREEN_LEAST_COLUMNS = 128,
    RT_SCREEN_MAX_COLUMNS = 1 << 16,
    RT_SCREEN_RUN = 32,
    RT_SCREEN_ROWS = 16,
    RT_SCREEN_PIECE = 16,                                 /* columns whose codes lie together */
    RT_SCREEN_CODES = RT_SCREEN_RUN / 4 * RT_SCREEN_ROWS, /* bytes of a run of a group, in either plane */
    RT_SCREEN_SCALES = (1 + 1) * RT_SCREEN_ROWS,          /* and of its scales and bounds */
};
#define RT_SCREEN_MAX_X 0x1p40f
#define RT_SCREEN_LEAST 0x1p-80f
#define RT_SCREEN_X_ERROR 0.008f   /* a usual ‖x - x̂‖/‖x‖ */
#define RT_SCREEN_MAX_STEPS 45.26f /* ‖v‖ is at most u·s·8·√32 */

/* Types whose products the bound covers and that are worth it: above 6 bits an element, value = scale · code. */
bool rt_can_screen(rt_dtype dtype);
/* Rows of so many columns can be screened, and 32 columns more are not much beside them. */
bool rt_can_screen_columns(int64_t columns);

/* Where things lie in the screen of a matrix [rows, columns], and how many groups and runs of a row there are. */
typedef struct rt_screen_places {
    int64_t groups, runs;
    int64_t upper, lower, scales, units, bytes; /* offsets; the order comes first */
} rt_screen_places;
rt_screen_places rt_screen_layout(int64_t rows, int64_t columns);

/* The shape of a screen's tensor, dim[2]. */
void rt_screen_shape(int64_t rows, int64_t columns, int64_t *dim);

/* What is screened: a matrix of a type and of columns that can be. */
typedef struct rt_screened {
    rt_dtype dtype;
    int64_t rows, columns;
    const uint8_t *data;
} rt_screened;

/* The order of its columns, which a screen begins with. row: scratch of as many floats as there are columns. */
void rt_screen_order(const rt_screened *matrix, float *row, uint8_t *screen);
/* Group `group` of a screen whose order is there, into bytes that were zero. row: scratch as above. */
void rt_screen_group(const rt_screened *matrix, int64_t group, float *row, uint8_t *screen);

#endif
