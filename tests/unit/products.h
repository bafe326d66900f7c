/* What tests of products with stored weights share: x with edges, and how near a product must be to a sum in double. */
#ifndef GM_TESTS_PRODUCTS_H
#define GM_TESTS_PRODUCTS_H

#include "tests/unit/kernels.h"

/* x of the products of edges: one row each. */
enum { OUTLIER, ZEROS, SUBNORMAL, EQUAL, LARGE, FEW, NOT_A_NUMBER, EDGES };

/* Of x in int16 beside rows as they are stored, and beside interleaved ones. */
enum { WORDS_MOST = 16383, INTERLEAVED_MOST = 16256 };

static inline ir_array random_x(int64_t rows, int64_t columns, gm_arena *arena) {
    ir_array x = {
        .dtype = RT_F32, .rank = 2, .dim = {rows, columns}, .data = GM_NEW_ARRAY(arena, float, rows *columns)};
    for (int64_t i = 0; i < rows * columns; i++) ((float *)x.data)[i] = random_float(-1, 1);
    return x;
}

/* Columns that matter lie in the first run and in the last. */
static inline void fill_edge(int edge, float *x, int64_t columns) {
    for (int64_t k = 0; k < columns; k++) {
        float value = random_float(-1, 1);
        if (edge == ZEROS || edge == FEW) value = 0;
        else if (edge == SUBNORMAL) value *= 0x1p-130f;
        else if (edge == EQUAL) value = 0.7f;
        else if (edge == LARGE) value *= 1e30f;
        x[k] = value;
    }
    if (edge == OUTLIER) x[columns - 3] = -1e3f;
    if (edge == FEW) x[0] = 1, x[columns - 1] = -0x1p-90f;
    if (edge == NOT_A_NUMBER) x[columns - 1] = NAN;
}

static inline ir_array edge_x(int64_t columns, gm_arena *arena) {
    ir_array x = {
        .dtype = RT_F32, .rank = 2, .dim = {EDGES, columns}, .data = GM_NEW_ARRAY(arena, float, EDGES *columns)};
    for (int edge = 0; edge < EDGES; edge++) fill_edge(edge, (float *)x.data + edge * columns, columns);
    return x;
}

/* Where x does not change its sign, a minimum can cancel most of scale · code: both are rounded, and neither is larger
 * than twice the largest |w| among 32 columns but where every code is large. */
static inline double terms_size(const float *row, const float *x, int64_t columns) {
    double size = 0;
    for (int64_t run = 0; run + 32 <= columns; run += 32) {
        double most = 0, sum = 0;
        for (int64_t k = run; k < run + 32; k++) most = fmax(most, fabs((double)row[k])), sum += fabs((double)x[k]);
        size += 2 * most * sum;
    }
    return size;
}

/* What holding x in int16 may cost (codegen/dot_int.c, dot_rows.c): x is a whole number of steps of its run of 32, a
 * step being max|x|/steps but 2^-100 at least, so that each column is off by half a step, 0.502 with the rounding of
 * its inverse; and a step times a scale, being rounded to 2^-150 at worst, times sums that are below 32·2^15·2^14 in a
 * run. */
static inline double words_cost(const float *row, const float *x, int64_t columns, int steps) {
    double cost = (double)columns * 0x1p-121;
    for (int64_t run = 0; run < columns; run += 32) {
        double most = 0, weights = 0;
        for (int64_t k = run; k < run + 32; k++) most = fmax(most, fabs((double)x[k])), weights += fabs((double)row[k]);
        cost += 0.502 * weights * fmax(most * (1 + 0x1p-18) / steps, 0x1p-100);
    }
    return cost;
}

/* y = w·x, x in int16 of so many steps; 0: in floats. Infinite weights are beyond the contract: a kernel may sum the
 * codes before it multiplies by a huge scale. */
static inline void check_dot(const rt_tensor *w, const float *row, const float *x, float y, const char *what,
                             int steps) {
    double sum = 0, size = 0, most = 0;
    bool infinite = false, nan = false;
    for (int64_t k = 0; k < w->dim[1]; k++) {
        sum += (double)row[k] * (double)x[k];
        size += fabs((double)row[k] * (double)x[k]);
        infinite |= isinf(row[k]) != 0;
        nan |= isnan(row[k]) || isnan(x[k]);
    }
    if (infinite) return;
    if (strstr(what, "edges")) size = fmax(size, terms_size(row, x, w->dim[1]));
    /* below normal numbers each term is rounded to 2^-149 */
    most = type_of(w->dtype)->tolerance * size + (double)w->dim[1] * 0x1p-148;
    if (steps) most += words_cost(row, x, w->dim[1], steps);
    bool near = nan ? isnan(y) != 0 : fabs((double)y - sum) <= most;
    ck_assert_msg(near, "%s, %s, %lld columns: %.9g instead of %.9g, off by %.3g of the sum of magnitudes", what,
                  rt_dtype_of(w->dtype)->text, (long long)w->dim[1], (double)y, sum, fabs((double)y - sum) / size);
}

#endif
