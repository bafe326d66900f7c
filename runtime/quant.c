/* What stored weights mean: every block format of dtype.def widened to f32.
 *
 * One function per format, written as the ggml reference computes it: the same products and sums,
 * in the same order, each rounded to f32 (hence -ffp-contract=off). Scales d, m, dmin are f16
 * unless a format says otherwise.
 * These are definitions, not kernels: compiled code has its own and is tested against them.
 */
#include <math.h>
#include <string.h>

#include "runtime/blocks.h"
#include "runtime/grid.h"

/* ---- plain types ---- */

static void rows_F32(const uint8_t *src, float *dst, size_t elems) {
    memcpy(dst, src, elems * sizeof *dst);
}

static void rows_F16(const uint8_t *src, float *dst, size_t elems) {
    for (size_t i = 0; i < elems; i++) dst[i] = block_f16(src + 2 * i);
}

static void rows_BF16(const uint8_t *src, float *dst, size_t elems) {
    for (size_t i = 0; i < elems; i++) dst[i] = rt_bf16_to_f32(block_u16(src + 2 * i));
}

/* ---- blocks of 32 ---- */

static void block_Q4_0(const uint8_t *src, float *dst) { /* d, nibbles[16] */
    uint8_t codes[32];
    float d = block_f16(src);
    block_nibbles(src + 2, codes);
    for (int i = 0; i < 32; i++) dst[i] = d * (float)(codes[i] - 8);
}

static void block_Q4_1(const uint8_t *src, float *dst) { /* d, m, nibbles[16] */
    uint8_t codes[32];
    float d = block_f16(src), m = block_f16(src + 2);
    block_nibbles(src + 4, codes);
    for (int i = 0; i < 32; i++) dst[i] = d * (float)codes[i] + m;
}

static void block_Q5_0(const uint8_t *src, float *dst) { /* d, u32 fifth bits, nibbles[16] */
    uint8_t codes[32];
    float d = block_f16(src);
    block_nibbles(src + 6, codes);
    block_fifth_bits(block_u32(src + 2), codes);
    for (int i = 0; i < 32; i++) dst[i] = d * (float)(codes[i] - 16);
}

static void block_Q5_1(const uint8_t *src, float *dst) { /* d, m, u32 fifth bits, nibbles[16] */
    uint8_t codes[32];
    float d = block_f16(src), m = block_f16(src + 2);
    block_nibbles(src + 8, codes);
    block_fifth_bits(block_u32(src + 4), codes);
    for (int i = 0; i < 32; i++) dst[i] = d * (float)codes[i] + m;
}

static void block_Q8_0(const uint8_t *src, float *dst) { /* d, i8[32] */
    float d = block_f16(src);
    for (int i = 0; i < 32; i++) dst[i] = d * (float)(int8_t)src[2 + i];
}

/* ---- blocks of 256: element i lies in half g, quarter j of it, at place l of 32 ---- */

static inline void block_k(const uint8_t *src, const uint8_t *low, const uint8_t *high, float *dst) {
    float d = block_f16(src), dmin = block_f16(src + 2);
    for (int s = 0; s < 8; s++) {
        int scale, minimum;
        uint8_t codes[32];
        block_scale_min(src + 4, s, &scale, &minimum);
        block_k_codes(low, high, s, codes);
        float step = d * (float)scale, offset = dmin * (float)minimum;
        for (int l = 0; l < 32; l++) dst[32 * s + l] = step * (float)codes[l] - offset;
    }
}

static void block_Q4_K(const uint8_t *src, float *dst) { /* d, dmin, scales[12], nibbles[128] */
    block_k(src, src + 16, NULL, dst);
}

static void block_Q5_K(const uint8_t *src, float *dst) { /* d, dmin, scales[12], high[32], low[128] */
    block_k(src, src + 48, src + 16, dst);
}

static void block_Q6_K(const uint8_t *src, float *dst) { /* low[128], high[64], i8 scales[16], d */
    const uint8_t *scales = src + 192;
    float d = block_f16(src + 208);
    for (int s = 0; s < 8; s++) {
        uint8_t codes[32];
        block_q6_codes(src, src + 128, s, codes);
        for (int h = 0; h < 2; h++) {
            float step = d * (float)(int8_t)scales[2 * s + h];
            for (int l = 16 * h; l < 16 * (h + 1); l++) dst[32 * s + l] = step * (float)(codes[l] - 32);
        }
    }
}

static void block_Q2_K(const uint8_t *src, float *dst) { /* scales[16], codes[64], d, dmin */
    const uint8_t *scales = src, *codes = src + 16;
    float d = block_f16(src + 80), dmin = block_f16(src + 82);
    for (int i = 0; i < 256; i++) {
        int g = i / 128, j = i % 128 / 32, l = i % 32, scale = scales[i / 16];
        float step = d * (float)(scale & 15), offset = dmin * (float)(scale >> 4);
        dst[i] = step * (float)(codes[32 * g + l] >> 2 * j & 3) - offset;
    }
}

static void block_Q3_K(const uint8_t *src, float *dst) { /* high[32], codes[64], scales[12], d */
    const uint8_t *high = src, *codes = src + 32, *packed = src + 96;
    float d = block_f16(src + 108);
    for (int i = 0; i < 256; i++) {
        int g = i / 128, j = i % 128 / 32, l = i % 32, k = i / 16;
        int scale = (k < 8 ? packed[k] & 15 : packed[k - 8] >> 4) | (packed[8 + k % 4] >> 2 * (k / 4) & 3) << 4;
        int code = (codes[32 * g + l] >> 2 * j & 3) - (block_bit(high[l], 4 * g + j) ? 0 : 4);
        dst[i] = d * (float)(scale - 32) * (float)code;
    }
}

/* ---- codes that number the values of a small table ---- */

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void block_IQ4_NL(const uint8_t *src, float *dst) { /* d, nibbles[16] */
    uint8_t codes[32];
    float d = block_f16(src);
    block_nibbles(src + 2, codes);
    for (int i = 0; i < 32; i++) dst[i] = d * (float)iq4_values[codes[i]];
}

static void block_IQ4_XS(const uint8_t *src, float *dst) { /* d, u16 high, low[4], nibbles[128] */
    float d = block_f16(src);
    uint32_t high = block_u16(src + 2);
    for (int s = 0; s < 8; s++) {
        int scale = (src[4 + s / 2] >> 4 * (s % 2) & 15) | (int)(high >> 2 * s & 3) << 4;
        float step = d * (float)(scale - 32);
        uint8_t codes[32];
        block_nibbles(src + 8 + 16 * s, codes);
        for (int l = 0; l < 32; l++) dst[32 * s + l] = step * (float)iq4_values[codes[l]];
    }
}

/* E2M1 in half units. */
static const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void block_MXFP4(const uint8_t *src, float *dst) { /* u8 exponent, nibbles[16] */
    uint8_t codes[32];
    float d = ldexpf(1.0f, src[0] - 128); /* twice E2M1's unit, hence 128 */
    block_nibbles(src + 1, codes);
    for (int i = 0; i < 32; i++) dst[i] = d * (float)fp4_values[codes[i]];
}

/* Half of an E4M3 number without its sign: 3 bits of mantissa, exponent bias 7. NaN stands for 0. */
static float half_e4m3(uint8_t code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if (code == 0x7F) return 0;
    return exponent ? ldexpf((float)(8 + mantissa), exponent - 11) : ldexpf((float)mantissa, -10);
}

/* E4M3 scales[4], nibbles[32]: of the 8 bytes of a scale the low nibbles come first */
static void block_NVFP4(const uint8_t *src, float *dst) {
    for (int g = 0; g < 4; g++) {
        float d = half_e4m3(src[g]);
        for (int i = 0; i < 16; i++) {
            int byte = src[4 + 8 * g + i % 8];
            dst[16 * g + i] = d * (float)fp4_values[i < 8 ? byte & 15 : byte >> 4];
        }
    }
}

/* ---- codes that number the entries of a grid ---- */

/* Seven stored signs and the eighth, which makes their number even. */
static int even_signs(uint32_t seven) {
    int parity = __builtin_parity(seven & 127);
    return (int)(seven & 127) | parity << 7;
}

/* dst[0..elems) = an entry of the grid, negated where the lowest bits of `signs` are set. */
static void signed_entry(rt_grid_id id, int entry, float d, int signs, float *dst) {
    const rt_grid *grid = rt_grid_of(id);
    int8_t value[8];
    rt_grid_entry(grid, entry, value);
    for (int i = 0; i < grid->elems; i++) dst[i] = d * (float)(signs >> i & 1 ? -value[i] : value[i]);
}

/* d, eight times entries[4] and a u32 of 4 × 7 signs and a 4-bit scale */
static void block_IQ2_XXS(const uint8_t *src, float *dst) {
    for (int s = 0; s < 8; s++) {
        const uint8_t *entries = src + 2 + 8 * s;
        uint32_t signs = block_u32(entries + 4);
        float d = block_f16(src) * (0.5f + (float)(signs >> 28)) * 0.25f;
        for (int g = 0; g < 4; g++)
            signed_entry(RT_GRID_IQ2_XXS, entries[g], d, even_signs(signs >> 7 * g), dst + 32 * s + 8 * g);
    }
}

/* Scale of elements 16·k…, of the 2-bit formats with 4 bits of scale for 16 elements. */
static float iq2_scale(const uint8_t *src, const uint8_t *scales, int k) {
    return block_f16(src) * (0.5f + (float)(scales[k / 2] >> 4 * (k % 2) & 15)) * 0.25f;
}

/* d, u16[32] of 9-bit entry and 7 signs, scales[8] */
static void block_IQ2_XS(const uint8_t *src, float *dst) {
    for (int g = 0; g < 32; g++) {
        uint32_t code = block_u16(src + 2 + 2 * g);
        signed_entry(RT_GRID_IQ2_XS, code & 511, iq2_scale(src, src + 66, g / 2), even_signs(code >> 9), dst + 8 * g);
    }
}

/* d, low[32], signs[32], high[8], scales[8] */
static void block_IQ2_S(const uint8_t *src, float *dst) {
    const uint8_t *low = src + 2, *signs = src + 34, *high = src + 66;
    for (int g = 0; g < 32; g++) {
        int entry = low[g] | (high[g / 4] >> 2 * (g % 4) & 3) << 8;
        signed_entry(RT_GRID_IQ2_S, entry, iq2_scale(src, src + 74, g / 2), signs[g], dst + 8 * g);
    }
}

/* d, entries[64], u32[8] as of IQ2_XXS */
static void block_IQ3_XXS(const uint8_t *src, float *dst) {
    for (int s = 0; s < 8; s++) {
        uint32_t signs = block_u32(src + 66 + 4 * s);
        float d = block_f16(src) * (0.5f + (float)(signs >> 28)) * 0.5f;
        for (int g = 0; g < 8; g++) {
            int eight = even_signs(signs >> 7 * (g / 2));
            signed_entry(RT_GRID_IQ3_XXS, src[2 + 8 * s + g], d, eight >> 4 * (g % 2), dst + 32 * s + 4 * g);
        }
    }
}

/* d, low[64], high[8], signs[32], scales[4] */
static void block_IQ3_S(const uint8_t *src, float *dst) {
    const uint8_t *low = src + 2, *high = src + 66, *signs = src + 74, *scales = src + 106;
    for (int g = 0; g < 64; g++) {
        int s = g / 8, entry = low[g] | block_bit(high[s], g % 8) << 8;
        float d = block_f16(src) * (float)(1 + 2 * (scales[s / 2] >> 4 * (s % 2) & 15));
        signed_entry(RT_GRID_IQ3_S, entry, d, signs[g / 2] >> 4 * (g % 2), dst + 4 * g);
    }
}

/* Eight elements d · (level ± 1/8). code: 11 bits of entry, then one that is set for minus. */
static void shifted_entry(int code, float d, float *dst) {
    float shift = code >> 11 & 1 ? -0.125f : 0.125f;
    int8_t level[8];
    rt_grid_entry(rt_grid_of(RT_GRID_IQ1_S), code & 2047, level);
    for (int i = 0; i < 8; i++) dst[i] = d * ((float)level[i] + shift);
}

/* d, low[32], u16[8] of 4 × 3 high bits, 3-bit scale, sign of the shift */
static void block_IQ1_S(const uint8_t *src, float *dst) {
    for (int g = 0; g < 32; g++) {
        int rest = block_u16(src + 34 + 2 * (g / 4)), high = rest >> 3 * (g % 4) & 7;
        float d = block_f16(src) * (float)(2 * (rest >> 12 & 7) + 1);
        shifted_entry(src[2 + g] | high << 8 | (rest >> 15) << 11, d, dst + 8 * g);
    }
}

/* low[32], nibbles[16] of 3 high bits and sign, u16[4] of 4 × 3-bit scales and 4 bits of d */
static void block_IQ1_M(const uint8_t *src, float *dst) {
    const uint8_t *scales = src + 48;
    int bits = 0;
    for (int q = 0; q < 4; q++) bits |= block_u16(scales + 2 * q) >> 12 << 4 * q;
    for (int g = 0; g < 32; g++) {
        int scale = block_u16(scales + 2 * (g / 8)) >> 3 * (g / 2 % 4) & 7;
        int high = src[32 + g / 2] >> 4 * (g % 2) & 15;
        float d = rt_f16_to_f32((uint16_t)bits) * (float)(2 * scale + 1);
        shifted_entry(src[g] | high << 8, d, dst + 8 * g);
    }
}

/* ---- ternary ---- */

/* Digit p of a byte that holds a number below 3^5, scaled to fill it. */
static int ternary_digit(uint8_t byte, int p) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    return (uint8_t)(byte * power[p]) * 3 >> 8;
}

static void block_TQ1_0(const uint8_t *src, float *dst) { /* digits[48], last digits[4], d */
    float d = block_f16(src + 52);
    for (int i = 0; i < 256; i++) {
        int digit;
        if (i < 160) digit = ternary_digit(src[i % 32], i / 32);
        else if (i < 240) digit = ternary_digit(src[32 + (i - 160) % 16], (i - 160) / 16);
        else digit = ternary_digit(src[48 + (i - 240) % 4], (i - 240) / 4);
        dst[i] = d * (float)(digit - 1);
    }
}

static void block_TQ2_0(const uint8_t *src, float *dst) { /* codes[64], d */
    float d = block_f16(src + 64);
    for (int i = 0; i < 256; i++) {
        int g = i / 128, j = i % 128 / 32, l = i % 32;
        dst[i] = d * (float)((src[32 * g + l] >> 2 * j & 3) - 1);
    }
}

/* ---- dispatch: a row of dtype.def without its function does not compile ---- */

#define ROWS_FLOAT(name, elems, bytes)
#define ROWS_INT(name, elems, bytes)
#define ROWS_BOOL(name, elems, bytes)
#define ROWS_SCREEN(name, elems, bytes)
#define ROWS_INTERLEAVED(name, elems, bytes)
#define ROWS_PANELS(name, elems, bytes)
#define ROWS_QUANT(name, elems, bytes)                                                                                 \
    static void rows_##name(const uint8_t *src, float *dst, size_t count) {                                            \
        for (size_t i = 0; i < count / (elems); i++) block_##name(src + i * (bytes), dst + i * (elems));               \
    }
#define DTYPE(name, text, ggml, elems, bytes, class) ROWS_##class(name, elems, bytes)
#include "runtime/dtype.def"
#undef DTYPE

typedef void (*rows_function)(const uint8_t *src, float *dst, size_t elems);

#define ENTRY_FLOAT(name)       rows_##name
#define ENTRY_INT(name)         NULL
#define ENTRY_BOOL(name)        NULL
#define ENTRY_SCREEN(name)      NULL
#define ENTRY_INTERLEAVED(name) NULL
#define ENTRY_PANELS(name)      NULL
#define ENTRY_QUANT(name)       rows_##name
static const rows_function rows_of[RT_DTYPE_COUNT] = {
#define DTYPE(name, text, ggml, elems, bytes, class) [RT_##name] = ENTRY_##class(name),
#include "runtime/dtype.def"
#undef DTYPE
};

void rt_dequantize_row(rt_dtype dtype, const void *src, float *dst, size_t elems) {
    GM_ASSERT(elems % (size_t)rt_dtype_of(dtype)->block_elems == 0);
    GM_ASSERT(rows_of[dtype]);
    rows_of[dtype](src, dst, elems);
}
