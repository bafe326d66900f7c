/* Making kept panels, sixteen rows side by side, and reading them back: see panel.h. Compiled code multiplies them
 * (codegen/integer.c). */
#include "runtime/panel.h"
#include "runtime/lanes.h"
#include "runtime/rotate.h"

#include <string.h>

enum { ROWS = RT_PANEL_ROWS, UNIT = 4, LEVELS = 127 };

/* The largest magnitudes, by their bits: NaN counts as more than infinity. */
GM_EACH_CPU static void largest_of(const float *x, int64_t columns, uint32_t *most) {
    for (int r = 0; r < ROWS; r++) most[r] = rt_float_bits(RT_SCALE_LEAST);
    for (int64_t k = 0; k < columns; k++)
        for (int r = 0; r < ROWS; r++) {
            uint32_t magnitude = rt_float_bits(x[k * ROWS + r]) & 0x7FFFFFFF;
            most[r] = magnitude > most[r] ? magnitude : most[r];
        }
}

GM_EACH_CPU static void round_unit(const float *x, const float *inverse, uint8_t *codes) {
    for (int r = 0; r < ROWS; r++) {
        uint32_t unit = 0;
        for (int c = 0; c < UNIT; c++)
            unit |= ((rt_float_bits(x[c * ROWS + r] * inverse[r] + RT_ROUNDER) + RT_PANEL_OFFSET) & 255) << (8 * c);
        memcpy(codes + r * UNIT, &unit, sizeof unit); /* little-endian */
    }
}

static void round_run(const float *x, int64_t columns, uint8_t *codes, float *scales) {
    uint32_t most[ROWS];
    float inverse[ROWS];
    largest_of(x, columns, most);
    for (int r = 0; r < ROWS; r++) inverse[r] = LEVELS / rt_float_of_bits(most[r]);
    for (int64_t k = 0; k < columns; k += UNIT) round_unit(x + k * ROWS, inverse, codes + k * ROWS);
    for (int64_t block = 0; block < columns / RT_PANEL_BLOCK; block++)
        for (int r = 0; r < ROWS; r++) scales[block * ROWS + r] = rt_float_of_bits(most[r]) / LEVELS;
}

/* Where the scales of a group begin. */
static size_t scales_of(int64_t columns) {
    return (size_t)columns * ROWS;
}

void rt_panel_group(rt_dtype stored, const void *src, int64_t columns, float *x, void *dst) {
    GM_ASSERT(columns % RT_PANEL_BLOCK == 0);
    float *scales = (float *)((uint8_t *)dst + scales_of(columns));
    rt_dequantize_lanes(stored, src, columns, x);
    rt_rotate_rows(x, columns, ROWS);
    for (int64_t from = 0; from < columns; from += RT_PANEL_RUN) {
        int64_t count = columns - from < RT_PANEL_RUN ? columns - from : RT_PANEL_RUN;
        round_run(x + from * ROWS, count, (uint8_t *)dst + from * ROWS, scales + from / RT_PANEL_BLOCK * ROWS);
    }
}

void rt_panel_row(const void *src, int64_t row, int64_t columns, float *codes, float *scales) {
    size_t group_bytes = rt_dtype_bytes(RT_I8_P16, (size_t)columns * ROWS);
    const uint8_t *group = (const uint8_t *)src + (size_t)(row / ROWS) * group_bytes, *at = group + row % ROWS * UNIT;
    for (int64_t k = 0; k < columns; k++) codes[k] = (float)(at[k / UNIT * UNIT * ROWS + k % UNIT] - RT_PANEL_OFFSET);
    for (int64_t from = 0; from < columns; from += RT_PANEL_RUN)
        memcpy(scales++,
               group + scales_of(columns) + (size_t)(from / RT_PANEL_BLOCK * ROWS + row % ROWS) * sizeof *scales,
               sizeof *scales);
}
