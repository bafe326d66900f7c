/* Screens: a 4-bit copy of a weight matrix with bounds that say how far a product with it may be off. Reading the copy
 * is enough to rule out almost every row of an argmax(W·x), and most rows where a choice is among the largest;
 * codegen/screen.c computes the others.
 *
 * It has runs of 32 elements of a row, each with a scale s (u8) and a code of 0 to 15 per element; a row has a unit u
 * (bf16, >= 0 or NaN); v = u·s·(code - 8). Some columns count more than others: where x is large, so usually is W. So
 * the first run of a row is that of the 32 columns whose squares have the largest sum, the second what the first leaves
 * of them, w - v, and the others follow in their order. Sixteen rows form a group, so that vector lanes are rows and no
 * sum crosses lanes. It is of type S4:
 *
 *   u16 order[runs][32]                   the column of W that a column of the screen is of
 *   u8 codes[2][groups][runs][2][16][4]   in each plane eight of a row's sixteen bytes, four together; byte i: of
 *                                         columns i and 16 + i, in the lower and upper nibble
 *   heads[groups] of                      in whole lines of 64 bytes
 *     bf16 units[2][16]                   u, and the unit z of the bounds
 *     u8 bounds[quads][16][4]             of four runs of columns, the first two runs having one bound; 0 behind the
 *                                         last
 *     u8 scales[runs][16]
 *
 * Its tensor has 32 columns and some rows more than W. Rows after the last whole group have no screen: nothing is known
 * of them, and they are always computed. Two planes, because a CPU reads more streams at once faster than one that has
 * to be taken apart in between.
 *
 * x̂ is x in 8 bits with a step for each run, for the first run in twice 8 bits. For every x (f32, below about
 * RT_SCREEN_MAX_X) and every other row:
 *
 *   |kernel(w, x) - estimate(v, x̂)|  <=  Σ over runs of columns of (z·bound·‖x‖ + u·excess(x)) + RT_SCREEN_LEAST
 *
 * kernel is the compiled matrix-vector product (codegen/matmul.c), estimate the compiled product of
 * codegen/screen_estimate.c. A bound covers the distance ‖w - v‖ (Cauchy-Schwarz; none of the first run, whose
 * distances the second one holds), RT_SCREEN_X_ERROR·‖v‖ for x̂, RT_SCREEN_TOP_X_ERROR·‖v‖ in the first run, and what
 * both kernels may round; excess, how far ‖x - x̂‖ is beyond these errors of ‖x‖, times the largest ‖v‖/u that there
 * is. A row that no scales describe (not finite, or huge) has the unit NaN, by which it is never ruled out. */
#ifndef GM_RUNTIME_SCREEN_H
#define GM_RUNTIME_SCREEN_H

#include "runtime/dtype.h"

enum {
    RT_SCREEN_LEAST_COLUMNS = 128,
    RT_SCREEN_MAX_COLUMNS = 1 << 16,
    RT_SCREEN_RUN = 32,
    RT_SCREEN_ROWS = 16,
    RT_SCREEN_QUAD = 4,                                                  /* bytes of a row that lie together */
    RT_SCREEN_LOADS = 2,                                                 /* of all rows' quads, in a plane of a run */
    RT_SCREEN_CODES = RT_SCREEN_LOADS * RT_SCREEN_QUAD * RT_SCREEN_ROWS, /* bytes of a plane of a run of a group */
    RT_SCREEN_MOST_BOUND = 127,
    RT_SCREEN_MOST_SCALE = 255,
    RT_SCREEN_MOST_REST_SCALE = 18, /* of a second run */
};
#define RT_SCREEN_MAX_X       0x1p40f
#define RT_SCREEN_LEAST       0x1p-80f
#define RT_SCREEN_X_ERROR     0.008f   /* a usual ‖x - x̂‖/‖x‖ */
#define RT_SCREEN_TOP_X_ERROR 0x1p-13f /* above every ‖x - x̂‖/‖x‖ of the first run */
#define RT_SCREEN_MAX_STEPS   45.26f   /* ‖v‖ is at most u·s·8·√32 */

/* Types whose products the bound covers and that are worth it: above 6 bits an element, value = scale · code. */
bool rt_can_screen(rt_dtype dtype);
/* Rows of so many columns can be screened, and 32 columns more are not much beside them. */
bool rt_can_screen_columns(int64_t columns);

/* Where things lie in the screen of a matrix [rows, columns], and how many groups and runs of a row there are. */
typedef struct rt_screen_places {
    int64_t groups, runs;
    int64_t quads;          /* of bounds */
    int64_t codes, plane;   /* where the first plane begins, and its bytes */
    int64_t heads, head;    /* where the first group's head begins, after all codes, and bytes of one */
    int64_t bounds, scales; /* from the beginning of a head, after the units */
    int64_t bytes;
} rt_screen_places;
rt_screen_places rt_screen_layout(int64_t rows, int64_t columns);

/* The shape of its tensor, dim[2]. */
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
