/* The rotation of a row: see rotate.h. Compiled code has its own (codegen/rotate.c). */
#include "runtime/rotate.h"
#include "runtime/base.h"

#include <math.h>

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

/* Hadamard transform of n columns, a power of two, not scaled; `each` floats to a column. */
GM_INLINE void transform(float *run, int64_t n, int64_t each) {
    for (int64_t half = each; half < n * each; half *= 2)
        for (int64_t first = 0; first < n * each; first += 2 * half) {
            float *low = run + first, *high = low + half;
            for (int64_t i = 0; i < half; i++) {
                float a = low[i], b = high[i];
                low[i] = a + b;
                high[i] = a - b;
            }
        }
}

GM_EACH_CPU void rt_rotate_rows(float *rows, int64_t columns, int64_t each) {
    int64_t n = rt_rotate_run(columns), runs = columns / n, run = n * each;
    float scale = (float)(1 / sqrt((double)n)), share = -2.0f / (float)runs;
    for (int64_t k = 0; k < columns; k++) {
        float factor = rt_rotate_sign(k) ? -scale : scale;
        for (int64_t i = k * each; i < (k + 1) * each; i++) rows[i] *= factor;
    }
    for (int64_t r = 0; r < runs; r++) transform(rows + r * run, n, each);
    for (int64_t i = 0; runs > 1 && i < run; i++) {
        float sum = 0;
        for (int64_t r = 0; r < runs; r++) sum += rows[r * run + i];
        for (int64_t r = 0; r < runs; r++) rows[r * run + i] = fmaf(share, sum, rows[r * run + i]);
    }
}

void rt_rotate_row(float *row, int64_t columns) {
    rt_rotate_rows(row, columns, 1);
}
