/* Rows widened a piece at a time, which is turned while it lies in the first-level cache. */
#include "runtime/lanes.h"

enum { PIECE = 256 /* columns: whole blocks of any type */, SIDE = 8 };

/* A square of 8 x 8 turned, in pairs, fours and halves. row: from one of its rows to the next, in floats; x: one of its
 * columns, the next RT_LANES floats on. */
GM_INLINE void turn(const float *rows, int64_t row, float *x) {
    rt_floats8 a[SIDE], b[SIDE];
    for (int i = 0; i < SIDE; i++) a[i] = rt_load_floats8(rows + i * row);
    for (int i = 0; i < SIDE; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < SIDE; i++) {
        int from = i / 4 * 4 + i % 4 / 2;
        if (i % 2) a[i] = __builtin_shufflevector(b[from], b[from + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        else a[i] = __builtin_shufflevector(b[from], b[from + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    }
    for (int i = 0; i < SIDE / 2; i++) {
        b[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        b[i + 4] = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    for (int i = 0; i < SIDE; i++) *(rt_floats8_at *)(x + i * RT_LANES) = b[i];
}

GM_EACH_CPU static void turn_piece(float (*rows)[PIECE], int64_t columns, float *x) {
    for (int64_t k = 0; k < columns; k += SIDE)
        for (int r = 0; r < RT_LANES; r += SIDE) turn(&rows[r][k], PIECE, x + k * RT_LANES + r);
}

void rt_dequantize_lanes(rt_dtype stored, const void *src, int64_t columns, float *x) {
    GM_ASSERT(columns % SIDE == 0);
    float rows[RT_LANES][PIECE];
    size_t row_bytes = rt_dtype_bytes(stored, (size_t)columns);
    for (int64_t k = 0; k < columns; k += PIECE) {
        int64_t count = columns - k < PIECE ? columns - k : PIECE;
        const uint8_t *at = (const uint8_t *)src + rt_dtype_bytes(stored, (size_t)k);
        for (size_t r = 0; r < RT_LANES; r++) rt_dequantize_row(stored, at + r * row_bytes, rows[r], (size_t)count);
        turn_piece(rows, count, x + k * RT_LANES);
    }
}
