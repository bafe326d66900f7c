/* Screens: a 4-bit copy v of a weight matrix W, with bounds on how far a product with v may be from the product with W.
 * Reading the copy is enough to rule out almost every row of an argmax(W·x), and most rows when the choice is among the
 * k largest; codegen/screen.c computes the other rows in full.
 *
 * A row of the screen consists of runs of 32 elements. A run has a scale s (u8) and a code from 0 to 15 per element; a
 * row has a unit u (bf16, >= 0 or NaN): v = u·s·(code - 8). Where x is large, W usually is too, so some columns count
 * more than others: the first run has the 32 columns with the largest sums of squares, the second run has the same
 * columns once more, with what the first leaves of them (w - v), and the other columns follow in their order. K columns
 * of W make K/32 + 1 runs. Sixteen rows form a group, so that vector lanes are rows and no sum crosses lanes. The type
 * is S4:
 *
 *   u16 order[runs][32]                   for each column of the screen, the column of W that it holds
 *   u8 codes[2][groups][runs][2][16][4]   a row has sixteen bytes in a run, eight in either plane, four together; byte
 *                                         i holds column i in its lower nibble and column 16 + i in its upper one
 *   heads[groups], each of                in whole lines of 64 bytes
 *     bf16 units[2][16]                   u, and the unit z of the bounds
 *     u8 bounds[quads][16][4]             a bound for each 32 columns of W (one for the first two runs together), in
 *                                         quads of four; 0 after the last
 *     u8 scales[runs][16]
 *
 * The screen's tensor has 32 columns more than W, and some more rows. Rows of W after the last whole group have no
 * screen: nothing is known of them, and they are always computed. There are two planes because a CPU reads two streams
 * at once faster than a single one with unpacking in between.
 *
 * x̂ is x in 8 bits with a step for each run; the first run has 8 bits more. For every x (f32, below about
 * RT_SCREEN_MAX_X) and every row that has a screen:
 *
 *   |kernel(w, x) - estimate(v, x̂)|  <=  Σ (z·bound·‖x‖ + u·excess(x)) + RT_SCREEN_LEAST
 *
 * where the sum is over sets of 32 columns of W, and ‖x‖ is the length of x in a set. kernel is the compiled
 * matrix-vector product (codegen/matmul.c), estimate the compiled product of codegen/screen_estimate.c. z·bound covers
 * ‖w - v‖ (Cauchy-Schwarz; nothing for the first run, whose remainder the second run holds), RT_SCREEN_X_ERROR·‖v‖ for
 * the rounding of x (RT_SCREEN_TOP_X_ERROR·‖v‖ in the first run), and the roundings of both kernels. excess is how far
 * ‖x - x̂‖ exceeds these fractions of ‖x‖, times the largest ‖v‖/u that is possible. A row that scales cannot describe
 * (not finite, or huge) has the unit NaN and is never ruled out. */
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
/* Can rows of this many columns be screened, and are they long enough that the 32 columns more hardly matter? */
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
/* Group `group` of a screen whose order is there, into bytes that were zero. scratch: RT_SCREEN_ROWS floats for each
 * column. */
void rt_screen_group(const rt_screened *matrix, int64_t group, float *scratch, uint8_t *screen);

#endif
