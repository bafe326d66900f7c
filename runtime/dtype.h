/* Element types and their bytes: the table is dtype.def. */
#ifndef GM_RUNTIME_DTYPE_H
#define GM_RUNTIME_DTYPE_H

#include "runtime/base.h"

#include <string.h>

typedef enum rt_dtype {
#define DTYPE(name, text, ggml, elems, bytes, class) RT_##name,
#include "runtime/dtype.def"
#undef DTYPE
    RT_DTYPE_COUNT
} rt_dtype;

typedef enum rt_dtype_class {
    RT_CLASS_FLOAT,
    RT_CLASS_INT,
    RT_CLASS_BOOL,
    RT_CLASS_QUANT,
    RT_CLASS_SCREEN,
    RT_CLASS_INTERLEAVED,
    RT_CLASS_PANELS
} rt_dtype_class;

typedef struct rt_dtype_info {
    const char *text;
    int ggml_id;
    int block_elems; /* elements per block; 1 for plain types */
    int block_bytes;
    rt_dtype_class class;
} rt_dtype_info;

const rt_dtype_info *rt_dtype_of(rt_dtype dtype);
/* False when no type has this name / this ggml number. */
bool rt_dtype_parse(const char *text, size_t length, rt_dtype *out);
bool rt_dtype_from_ggml(uint32_t ggml_id, rt_dtype *out);

/* Of weights only: QUANT, SCREEN, INTERLEAVED or PANELS. */
bool rt_is_storage(rt_dtype dtype);

/* Small codes: each of `run` consecutive elements is scale · code - minimum, least <= code <= most. */
typedef struct rt_codes {
    int least, most, run;
    bool minima; /* else they are 0 */
} rt_codes;
/* NULL: the type has no codes, none that six bits hold, or scales without a common measure (mxfp4). */
const rt_codes *rt_codes_of(rt_dtype dtype);

/* What the largest magnitude of numbers that share a scale counts as at least. */
#define RT_SCALE_LEAST 1e-30f

/* Bytes of `elems` consecutive elements; elems must be a multiple of the block. */
size_t rt_dtype_bytes(rt_dtype dtype, size_t elems);

/* dst[0..elems) = the values of a row of `elems` elements stored at src (no alignment assumed) in any
 * FLOAT or QUANT type, widened exactly to f32 in the order of arithmetic of the ggml reference. This
 * defines what stored weights mean; compiled kernels are tested against it. */
void rt_dequantize_row(rt_dtype dtype, const void *src, float *dst, size_t elems);

/* 1.5·2^23: adding it to a float below 2^22 leaves the nearest integer in the low bits. */
#define RT_ROUNDER 12582912.0f
/* The bits of a float, and back. */
static inline uint32_t rt_float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float rt_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Without branches, so that a loop of it becomes vectors. A signalling NaN becomes quiet, as hardware makes it. */
static inline float rt_f16_to_f32(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, magnitude = bits & 0x7FFF, wide = magnitude << 13;
    uint32_t normal = wide + (112u << 23), subnormal = rt_float_bits((float)(int32_t)magnitude * 0x1p-24f),
             special = wide | 0x7F800000 | (uint32_t)(magnitude > 0x7C00) << 22;
    uint32_t is_small = 0 - (uint32_t)(magnitude < 0x400), is_special = 0 - (uint32_t)(magnitude >= 0x7C00);
    uint32_t finite = (subnormal & is_small) | (normal & ~is_small);
    return rt_float_of_bits(sign | (special & is_special) | (finite & ~is_special));
}

static inline float rt_bf16_to_f32(uint16_t bits) {
    return rt_float_of_bits((uint32_t)bits << 16);
}

/* Round to nearest even; NaN stays a quiet NaN. */
uint16_t rt_f32_to_bf16(float value);
uint16_t rt_f32_to_f16(float value);

#endif
