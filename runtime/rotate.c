/* The rotation of a row: see rotate.h. Compiled code has its own (codegen/rotate.c). */
#include "runtime/rotate.h"

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

/* Hadamard transform of run[n], n a power of two, not scaled. */
static void transform(float *run, int64_t n) {
    for (int64_t half = 1; half < n; half *= 2)
        for (int64_t i = 0; i < n; i++) {
            if (i & half) continue;
            float a = run[i], b = run[i + half];
            run[i] = a + b;
            run[i + half] = a - b;
        }
}

void rt_rotate_row(float *row, int64_t columns) {
    int64_t n = rt_rotate_run(columns), runs = columns / n;
    float scale = (float)(1 / sqrt((double)n)), share = -2.0f / (float)runs;
    for (int64_t i = 0; i < columns; i++) row[i] = rt_rotate_sign(i) ? -(row[i] * scale) : row[i] * scale;
    for (int64_t r = 0; r < runs; r++) transform(row + r * n, n);
    if (runs == 1) return;
    for (int64_t i = 0; i < n; i++) {
        float sum = 0;
        for (int64_t r = 0; r < runs; r++) sum += row[r * n + i];
        for (int64_t r = 0; r < runs; r++) row[r * n + i] = fmaf(share, sum, row[r * n + i]);
    }
}
