/* What tests of compiled kernels share: a random weight of every FLOAT and QUANT type, with edges; a bound of rotated
 * values; running a text for a CPU. */
#ifndef GM_TESTS_KERNELS_H
#define GM_TESTS_KERNELS_H

#include "codegen/codegen.h"
#include "frontend/gir_run.h"
#include "runtime/rotate.h"
#include "tests/unit/random_values.h"
#include "tests/unit/run_text.h"

#include <check.h>
#include <math.h>
#include <string.h>

static const char *const cpus[] = {NULL, "haswell", "x86-64", "skylake-avx512", CG_STAND_IN_CPU};

/* Rows 4 … 9 of every weight are not random. */
enum { FIRST_EDGE = 4, ALL_ZERO = FIRST_EDGE, ALL_ONES, NO_SCALE, TINY_SCALE, ONLY_MINIMA, SOME_NAN, EDGES_END };

/* How far a product may be off, of Σ|w·x|, and where a block's scales are: f16 but for IQ1_M, MXFP4 and NVFP4
 * (put_scales). MXFP4's scale is a byte, an exponent: its blocks differ by powers of two, so that a few of them make
 * the whole sum. */
static const struct kernel_type {
    rt_dtype dtype;
    double tolerance;
    int scale_count, offset[4];
} types[] = {
    {RT_F32, 1e-6, 0, {0}},       {RT_F16, 1e-6, 0, {0}},    {RT_BF16, 1e-6, 0, {0}},    {RT_Q4_0, 1e-6, 1, {0}},
    {RT_Q4_1, 1e-6, 2, {0, 2}},   {RT_Q5_0, 1e-6, 1, {0}},   {RT_Q5_1, 1e-6, 2, {0, 2}}, {RT_Q8_0, 1e-6, 1, {0}},
    {RT_Q2_K, 1e-6, 2, {80, 82}}, {RT_Q3_K, 1e-6, 1, {108}}, {RT_Q4_K, 1e-6, 2, {0, 2}}, {RT_Q5_K, 1e-6, 2, {0, 2}},
    {RT_Q6_K, 1e-6, 1, {208}},    {RT_IQ4_NL, 1e-6, 1, {0}}, {RT_IQ4_XS, 1e-6, 1, {0}},  {RT_MXFP4, 2e-6, 1, {0}},
    {RT_TQ1_0, 1e-6, 1, {52}},    {RT_TQ2_0, 1e-6, 1, {64}}, {RT_IQ1_S, 1e-6, 1, {0}},   {RT_IQ1_M, 1e-6, 1, {48}},
    {RT_IQ2_XXS, 1e-6, 1, {0}},   {RT_IQ2_XS, 1e-6, 1, {0}}, {RT_IQ2_S, 1e-6, 1, {0}},   {RT_IQ3_XXS, 1e-6, 1, {0}},
    {RT_IQ3_S, 1e-6, 1, {0}},     {RT_NVFP4, 1e-6, 1, {0}},
};

static inline const struct kernel_type *type_of(rt_dtype dtype) {
    for (size_t i = 0; i < GM_COUNT(types); i++)
        if (types[i].dtype == dtype) return &types[i];
    return NULL;
}

static inline void put_u16(uint8_t *at, uint16_t bits) {
    memcpy(at, &bits, sizeof bits);
}

static inline void fill_element(rt_dtype dtype, uint8_t *at, int row) {
    float value = row == NO_SCALE ? 0 : random_float(-0.5f, 0.5f);
    uint32_t bits = 1; /* of the least subnormal */
    if (dtype == RT_F16) put_u16(at, row == TINY_SCALE ? 1 : rt_f32_to_f16(value));
    else if (dtype == RT_BF16) put_u16(at, row == TINY_SCALE ? 1 : rt_f32_to_bf16(value));
    else memcpy(at, row == TINY_SCALE ? (void *)&bits : (void *)&value, sizeof value);
}

/* The scales of a block of random bytes. */
static inline void put_scales(const struct kernel_type *type, uint8_t *at, int row) {
    bool zero = row == NO_SCALE, tiny = row == TINY_SCALE;
    for (int i = 0; i < type->scale_count; i++) {
        uint8_t *scale = at + type->offset[i];
        uint16_t half = rt_f32_to_f16(random_float(-0.01f, 0.01f));
        if (zero || tiny) half = tiny;
        /* as blocks of equal elements are stored */
        if (row == ONLY_MINIMA && type->scale_count > 1) half = i ? rt_f32_to_f16(random_float(-6e4f, 6e4f)) : 0;
        if (row == SOME_NAN && next_random() % 3 == 0) half = 0x7E00;
        if (type->dtype == RT_MXFP4) at[0] = zero ? 0 : tiny ? 1 : (uint8_t)(115 + next_random() % 16);
        else if (type->dtype == RT_NVFP4) /* all codes of a scale, but in two rows */
            for (int k = 0; k < 4; k++) at[k] = zero || tiny ? (uint8_t)(tiny + k % 2 * 0x80) : at[k];
        else if (type->dtype == RT_IQ1_M) /* in the highest four bits of each sixteen */
            for (int k = 0; k < 4; k++)
                scale[2 * k + 1] = (uint8_t)((scale[2 * k + 1] & 15) | (half >> 4 * k & 15) << 4);
        else put_u16(scale, half);
    }
}

static inline void fill_block(const struct kernel_type *type, uint8_t *at, int row) {
    int bytes = rt_dtype_of(type->dtype)->block_bytes;
    if (row == ALL_ZERO || row == ALL_ONES) {
        memset(at, row == ALL_ZERO ? 0 : 0xFF, (size_t)bytes);
        return;
    }
    if (!type->scale_count) {
        fill_element(type->dtype, at, row);
        return;
    }
    for (int i = 0; i < bytes; i++) at[i] = (uint8_t)next_random();
    put_scales(type, at, row);
}

static inline const rt_tensor *make_weight(rt_weights *weights, const char *name, rt_dtype dtype, int64_t rows,
                                           int64_t columns) {
    gm_diag diag = {0};
    size_t row_bytes = rt_dtype_bytes(dtype, (size_t)columns), block = (size_t)rt_dtype_of(dtype)->block_bytes;
    uint8_t *data = gm_arena_alloc(&weights->arena, row_bytes * (size_t)rows);
    for (int64_t row = 0; row < rows; row++)
        for (size_t at = 0; at < row_bytes; at += block)
            fill_block(type_of(dtype), data + (size_t)row * row_bytes + at, (int)row);
    rt_tensor tensor = {.name = name,
                        .dtype = dtype,
                        .rank = 2,
                        .dim = {rows, columns},
                        .data = data,
                        .bytes = row_bytes * (size_t)rows};
    ck_assert(rt_weights_add(weights, "test", &tensor, &diag) == GM_OK);
    return rt_weights_find(weights, name);
}

static inline float *widened_row(const rt_tensor *w, int64_t row, gm_arena *arena) {
    float *values = GM_NEW_ARRAY(arena, float, w->dim[1]);
    size_t bytes = rt_dtype_bytes(w->dtype, (size_t)w->dim[1]);
    rt_dequantize_row(w->dtype, (const uint8_t *)w->data + bytes * (size_t)row, values, (size_t)w->dim[1]);
    return values;
}

/* Σ|R·w| of the elements of each run of a row that is rotated (runtime/rotate.h): what sums in f32 may be off by in
 * proportion. */
static inline void rotated_magnitudes(const float *row, int64_t columns, double *out) {
    int64_t n = rt_rotate_run(columns), runs = columns / n;
    double all = 0;
    for (int64_t r = 0; r < runs; r++) {
        out[r] = 0;
        for (int64_t i = 0; i < n; i++) out[r] += fabs((double)row[r * n + i]) / sqrt((double)n);
        all += out[r];
    }
    for (int64_t r = 0; runs > 1 && r < runs; r++)
        out[r] = fabs(1 - 2 / (double)runs) * out[r] + 2 / (double)runs * (all - out[r]);
}

/* Of these: how far apart compiled and interpreted rotated values lie at most. */
#define ROTATED_TOLERANCE 0x1p-22

#endif
