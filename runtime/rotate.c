/* The rotation of a row: see rotate.h. Compiled code has its own (codegen/rotate.c). */
#include "runtime/rotate.h"
#include "runtime/base.h"

#include <math.h>

enum { MIRRORED = 16 };

int64_t rt_rotate_run(int64_t columns) {
    return columns & -columns;
}

/* The finaliser of MurmurHash3 (Appleby): every bit of the column's number stirs the sign. */
uint32_t rt_rotate_sign(int64_t column) {
    uint32_t h = (uint32_t)column + 1;
    h = (h ^ h >> 16) * 0x85EBCA6Bu;
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    return (h ^ h >> 16) & 0x80000000u;
}

/* One stage: sums and differences of what lies `half` apart. */
GM_INLINE void transform_stage(float *run, int64_t floats, int64_t half) {
    for (int64_t first = 0; first < floats; first += 2 * half) {
        float *low = run + first, *high = low + half;
        for (int64_t i = 0; i < half; i++) {
            float a = low[i], b = high[i];
            low[i] = a + b;
            high[i] = a - b;
        }
    }
}

/* That stage and the next, to the bit as one after the other, on numbers that are loaded and stored once. */
GM_INLINE void transform_stages(float *run, int64_t floats, int64_t half) {
    for (int64_t first = 0; first < floats; first += 4 * half) {
        float *x = run + first, *y = x + half, *z = y + half, *w = z + half;
        for (int64_t i = 0; i < half; i++) {
            float a = x[i] + y[i], b = x[i] - y[i], c = z[i] + w[i], d = z[i] - w[i];
            x[i] = a + c;
            y[i] = b + d;
            z[i] = a - c;
            w[i] = b - d;
        }
    }
}

/* Hadamard transform of n columns, a power of two, not scaled; `each` floats to a column. */
GM_INLINE void transform(float *run, int64_t n, int64_t each) {
    int64_t half = each, floats = n * each;
    for (; 2 * half < floats; half *= 4) transform_stages(run, floats, half);
    if (half < floats) transform_stage(run, floats, half);
}

/* Adds `share` of the sum over all runs to each number at a place, `width` places side by side. */
GM_INLINE void mirror(float *rows, int64_t runs, int64_t run, int64_t width, float share) {
    for (int64_t i = 0; i < run; i += width) {
        float sum[MIRRORED] = {0};
        for (int64_t r = 0; r < runs; r++)
            for (int64_t j = 0; j < width; j++) sum[j] += rows[r * run + i + j];
        for (int64_t r = 0; r < runs; r++) {
            float *at = rows + r * run + i;
#pragma omp simd /* gcc takes fmaf apart else */
            for (int64_t j = 0; j < width; j++) at[j] = fmaf(share, sum[j], at[j]);
        }
    }
}

GM_EACH_CPU static void rotate_rows(float *rows, int64_t columns, int64_t each) {
    int64_t n = rt_rotate_run(columns), runs = columns / n, run = n * each;
    float scale = (float)(1 / sqrt((double)n)), share = -2.0f / (float)runs;
    for (int64_t k = 0; k < columns; k++) {
        float factor = rt_rotate_sign(k) ? -scale : scale;
        for (int64_t i = k * each; i < (k + 1) * each; i++) rows[i] *= factor;
    }
    for (int64_t r = 0; r < runs; r++) transform(rows + r * run, n, each);
    if (runs > 1 && run % MIRRORED == 0) mirror(rows, runs, run, MIRRORED, share);
    else if (runs > 1) mirror(rows, runs, run, 1, share);
}

void rt_rotate_rows(float *rows, int64_t columns, int64_t each) {
    rotate_rows(rows, columns, each);
}

void rt_rotate_row(float *row, int64_t columns) {
    rt_rotate_rows(row, columns, 1);
}
