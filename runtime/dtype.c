/* The table of element types and the conversions between 16-bit floats and f32. */
#include "runtime/dtype.h"
#include "runtime/interleave.h"

#include <string.h>

static const rt_dtype_info infos[RT_DTYPE_COUNT] = {
#define DTYPE(name, text, ggml, elems, bytes, class) [RT_##name] = {text, ggml, elems, bytes, RT_CLASS_##class},
#include "runtime/dtype.def"
#undef DTYPE
};

const rt_dtype_info *rt_dtype_of(rt_dtype dtype) {
    GM_ASSERT((unsigned)dtype < RT_DTYPE_COUNT);
    return &infos[dtype];
}

bool rt_is_storage(rt_dtype dtype) {
    rt_dtype_class class = rt_dtype_of(dtype)->class;
    return class == RT_CLASS_QUANT || class == RT_CLASS_SCREEN || class == RT_CLASS_INTERLEAVED ||
           class == RT_CLASS_PANELS;
}

const rt_codes *rt_codes_of(rt_dtype dtype) {
    static const rt_codes all[RT_DTYPE_COUNT] = {
        [RT_Q4_0] = {-8, 7, 32, false},  [RT_Q4_1] = {0, 15, 32, true},   [RT_Q5_0] = {-16, 15, 32, false},
        [RT_Q5_1] = {0, 31, 32, true},   [RT_Q2_K] = {0, 3, 16, true},    [RT_Q3_K] = {-4, 3, 16, false},
        [RT_Q4_K] = {0, 15, 32, true},   [RT_Q5_K] = {0, 31, 32, true},   [RT_Q6_K] = {-32, 31, 16, false},
        [RT_TQ1_0] = {-1, 1, 32, false}, [RT_TQ2_0] = {-1, 1, 32, false}, [RT_NVFP4] = {-12, 12, 16, false},
    };
    GM_ASSERT((unsigned)dtype < RT_DTYPE_COUNT);
    if (rt_interleaved_of(dtype)) dtype = rt_interleaved_of(dtype)->stored;
    return all[dtype].run ? &all[dtype] : NULL;
}

bool rt_dtype_parse(const char *text, size_t length, rt_dtype *out) {
    for (int i = 0; i < RT_DTYPE_COUNT; i++) {
        if (strlen(infos[i].text) != length || memcmp(infos[i].text, text, length) != 0) continue;
        *out = (rt_dtype)i;
        return true;
    }
    return false;
}

bool rt_dtype_from_ggml(uint32_t ggml_id, rt_dtype *out) {
    for (int i = 0; i < RT_DTYPE_COUNT; i++) {
        if (infos[i].ggml_id < 0 || (uint32_t)infos[i].ggml_id != ggml_id) continue;
        *out = (rt_dtype)i;
        return true;
    }
    return false;
}

size_t rt_dtype_bytes(rt_dtype dtype, size_t elems) {
    const rt_dtype_info *info = rt_dtype_of(dtype);
    size_t bytes = 0;
    GM_ASSERT(elems % (size_t)info->block_elems == 0);
    GM_ASSERT(gm_mul_size(elems / (size_t)info->block_elems, (size_t)info->block_bytes, &bytes));
    return bytes;
}

/* ---- 16-bit floats ---- */

uint16_t rt_f32_to_bf16(float value) {
    uint32_t bits = rt_float_bits(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* bits >> shift, rounded to nearest, ties to even; shift >= 1. */
static uint32_t shift_round(uint32_t bits, uint32_t shift) {
    uint32_t kept = bits >> shift, rest = bits & ((1u << shift) - 1), half = 1u << (shift - 1);
    return kept + (rest > half || (rest == half && (kept & 1)));
}

uint16_t rt_f32_to_f16(float value) {
    uint32_t bits = rt_float_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (magnitude >> 13 & 0x3FF));
    if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* rounds to 2^16 or more */
    if (magnitude >= 0x38800000) /* normal: rounding may carry into the exponent, rightly */
        return (uint16_t)(sign | shift_round(magnitude - 0x38000000, 13));
    if (magnitude < 0x33000000) return (uint16_t)sign; /* below half the least subnormal */
    uint32_t shift = 126 - (magnitude >> 23);          /* 14..24: the unit becomes 2^-24 */
    return (uint16_t)(sign | shift_round((magnitude & 0x7FFFFF) | 0x800000, shift));
}
