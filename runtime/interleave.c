/* Interleaving of stored blocks, and back. Packing only: compiled code has its own reader (codegen/dot_rows.c). */
#include "runtime/interleave.h"
#include "runtime/blocks.h"

#include <string.h>

enum {
    ROWS = RT_INTERLEAVED_ROWS,
    RUN = RT_INTERLEAVED_RUN,
    UNIT = RT_INTERLEAVED_UNIT,
    VECTOR = RT_INTERLEAVED_VECTOR,
    UNITS = RUN / UNIT,
    MAX_BLOCK = 256
};

/* A block of one row, taken apart. */
typedef struct parts {
    uint16_t d, m; /* f16 */
    uint8_t scales[MAX_BLOCK / 16], minima[MAX_BLOCK / 32], codes[MAX_BLOCK];
} parts;

static const rt_interleaved all[RT_DTYPE_COUNT] = {
    [RT_Q4_0_R16] = {RT_Q4_0, 4, 8, 0, false},   [RT_Q5_0_R16] = {RT_Q5_0, 5, 16, 0, false},
    [RT_Q8_0_R16] = {RT_Q8_0, 8, 128, 0, false}, [RT_Q4_K_R16] = {RT_Q4_K, 4, 0, 32, true},
    [RT_Q5_K_R16] = {RT_Q5_K, 5, 0, 32, true},   [RT_Q6_K_R16] = {RT_Q6_K, 6, 32, 16, false},
};

const rt_interleaved *rt_interleaved_of(rt_dtype dtype) {
    GM_ASSERT((unsigned)dtype < RT_DTYPE_COUNT);
    return all[dtype].bits ? &all[dtype] : NULL;
}

rt_dtype rt_interleaved_type(rt_dtype stored) {
    for (int i = 0; i < RT_DTYPE_COUNT; i++)
        if (all[i].bits && all[i].stored == stored) return (rt_dtype)i;
    return RT_DTYPE_COUNT;
}

rt_interleaved_places rt_interleaved_layout(rt_dtype dtype) {
    const rt_interleaved *type = rt_interleaved_of(dtype);
    int block = rt_dtype_of(dtype)->block_elems, low = type->bits == 8 ? UNITS * VECTOR : UNITS / 2 * VECTOR;
    rt_interleaved_places at = {.minimum_factor = 2 * ROWS, .high = low};
    at.scales = at.minimum_factor + (type->minima ? 2 * ROWS : 0);
    at.minima = at.scales + (type->scale_run ? block / type->scale_run * ROWS : 0);
    at.runs = at.minima + (type->minima ? block / RUN * ROWS : 0);
    at.run_bytes = low + (type->bits == 8 ? 0 : (type->bits - 4) * VECTOR);
    GM_ASSERT(at.runs + block / RUN * at.run_bytes == ROWS * rt_dtype_of(dtype)->block_bytes);
    return at;
}

/* ---- taking a stored block apart ---- */

GM_INLINE void take_Q4_0(const uint8_t *src, parts *out) {
    out->d = block_u16(src);
    block_nibbles(src + 2, out->codes);
}

GM_INLINE void take_Q5_0(const uint8_t *src, parts *out) {
    out->d = block_u16(src);
    block_nibbles(src + 6, out->codes);
    block_fifth_bits(block_u32(src + 2), out->codes);
}

GM_INLINE void take_Q8_0(const uint8_t *src, parts *out) {
    out->d = block_u16(src);
    for (int i = 0; i < 32; i++) out->codes[i] = src[2 + i] ^ 0x80;
}

GM_INLINE void take_k(const uint8_t *src, const uint8_t *low, const uint8_t *high, parts *out) {
    out->d = block_u16(src);
    out->m = block_u16(src + 2);
    for (int s = 0; s < 8; s++) {
        int scale, minimum;
        block_scale_min(src + 4, s, &scale, &minimum);
        out->scales[s] = (uint8_t)scale;
        out->minima[s] = (uint8_t)minimum;
        block_k_codes(low, high, s, out->codes + 32 * s);
    }
}

GM_INLINE void take_Q6_K(const uint8_t *src, parts *out) {
    out->d = block_u16(src + 208);
    memcpy(out->scales, src + 192, 16);
    for (int s = 0; s < 8; s++) block_q6_codes(src, src + 128, s, out->codes + 32 * s);
}

GM_INLINE void take(rt_dtype stored, const uint8_t *src, parts *out) {
    switch (stored) {
    case RT_Q4_0: take_Q4_0(src, out); return;
    case RT_Q5_0: take_Q5_0(src, out); return;
    case RT_Q8_0: take_Q8_0(src, out); return;
    case RT_Q4_K: take_k(src, src + 16, NULL, out); return;
    case RT_Q5_K: take_k(src, src + 48, src + 16, out); return;
    case RT_Q6_K: take_Q6_K(src, out); return;
    default: GM_ASSERT(!"a type that is interleaved");
    }
}

/* ---- sixteen rows ---- */

/* units of four bytes, each to its vector of the run. */
GM_INLINE void put_units(const uint8_t *bytes, int units, uint8_t *run) {
    for (int u = 0; u < units; u++) memcpy(run + u * VECTOR, bytes + u * UNIT, UNIT);
}

/* Of one row, at its place in a run: four bytes of each vector. */
GM_INLINE void put_run(const rt_interleaved *type, const uint8_t *codes, uint8_t *run, int high) {
    int planes = type->bits - 4;
    uint8_t low[RUN / 2];
    if (type->bits == 8) {
        put_units(codes, UNITS, run);
        return;
    }
    for (int i = 0; i < RUN / 2; i++) low[i] = (uint8_t)((codes[i] & 15) | (codes[i + RUN / 2] & 15) << 4);
    put_units(low, UNITS / 2, run);
    for (int h = 0; h < planes; h++) {
        uint32_t bits = 0, mask = 0x01010101u * ((1u << planes) - 1); /* of four codes: none leaves its byte */
        int units = UNITS / planes;
        for (int u = 0; u < units; u++) {
            uint32_t four;
            memcpy(&four, codes + (h * units + u) * UNIT, sizeof four);
            bits |= (four >> 4 & mask) << (planes * u);
        }
        memcpy(run + high + h * VECTOR, &bits, UNIT);
    }
}

GM_INLINE void put_u16(uint8_t *to, uint16_t value) {
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

GM_INLINE void put_row(const rt_interleaved *type, const rt_interleaved_places *at, int columns, const parts *from,
                       int row, uint8_t *block) {
    int scales = type->scale_run ? columns / type->scale_run : 0;
    put_u16(block + 2 * row, from->d);
    if (type->minima) put_u16(block + at->minimum_factor + 2 * row, from->m);
    for (int i = 0; i < scales; i++) block[at->scales + i * ROWS + row] = from->scales[i];
    for (int i = 0; type->minima && i < columns / RUN; i++) block[at->minima + i * ROWS + row] = from->minima[i];
    for (int i = 0; i < columns / RUN; i++)
        put_run(type, from->codes + i * RUN, block + at->runs + i * at->run_bytes + row * UNIT, at->high);
}

/* dtype: a constant, for which loops are unrolled. */
GM_INLINE void interleave(rt_dtype dtype, const uint8_t *src, size_t columns, uint8_t *dst) {
    rt_dtype stored = all[dtype].stored;
    const rt_dtype_info *from = rt_dtype_of(stored), *to = rt_dtype_of(dtype);
    rt_interleaved_places at = rt_interleaved_layout(dtype);
    size_t row_bytes = rt_dtype_bytes(stored, columns), blocks = columns / (size_t)from->block_elems;
    for (size_t b = 0; b < blocks; b++)
        for (int row = 0; row < ROWS; row++) {
            parts one;
            take(stored, src + (size_t)row * row_bytes + b * (size_t)from->block_bytes, &one);
            put_row(&all[dtype], &at, to->block_elems, &one, row, dst + b * ROWS * (size_t)to->block_bytes);
        }
}

GM_EACH_CPU static void interleave_group(rt_dtype stored, const void *src, size_t columns, void *dst) {
    switch (stored) {
    case RT_Q4_0: interleave(RT_Q4_0_R16, src, columns, dst); return;
    case RT_Q5_0: interleave(RT_Q5_0_R16, src, columns, dst); return;
    case RT_Q8_0: interleave(RT_Q8_0_R16, src, columns, dst); return;
    case RT_Q4_K: interleave(RT_Q4_K_R16, src, columns, dst); return;
    case RT_Q5_K: interleave(RT_Q5_K_R16, src, columns, dst); return;
    case RT_Q6_K: interleave(RT_Q6_K_R16, src, columns, dst); return;
    default: GM_ASSERT(!"a type that is interleaved");
    }
}

void rt_interleave_group(rt_dtype stored, const void *src, size_t columns, void *dst) {
    interleave_group(stored, src, columns, dst);
}

/* ---- back ---- */

static int code_at(const rt_interleaved *type, const uint8_t *run, int high, int i) {
    if (type->bits == 8) return run[i / UNIT * VECTOR + i % UNIT];
    int planes = type->bits - 4, u = i / UNIT, units = planes ? UNITS / planes : 1, half = i % (RUN / 2);
    int code = run[half / UNIT * VECTOR + half % UNIT] >> (i < RUN / 2 ? 0 : 4) & 15;
    if (planes)
        code |= (run[high + u / units * VECTOR + i % UNIT] >> (planes * (u % units)) & ((1 << planes) - 1)) << 4;
    return code;
}

static void deinterleave_block(rt_dtype dtype, const uint8_t *block, int row, float *dst) {
    const rt_interleaved *type = rt_interleaved_of(dtype);
    rt_interleaved_places at = rt_interleaved_layout(dtype);
    float d = block_f16(block + 2 * row), m = type->minima ? block_f16(block + at.minimum_factor + 2 * row) : 0;
    for (int i = 0; i < rt_dtype_of(dtype)->block_elems; i++) {
        float code = (float)(code_at(type, block + at.runs + i / RUN * at.run_bytes + row * UNIT, at.high, i % RUN) -
                             type->bias),
              scale = d;
        if (type->scale_run) {
            uint8_t byte = block[at.scales + i / type->scale_run * ROWS + row];
            scale = d * (type->scale_run == 16 ? (float)(int8_t)byte : (float)byte);
        }
        dst[i] = scale * code;
        if (type->minima) dst[i] -= m * (float)block[at.minima + i / RUN * ROWS + row];
    }
}

void rt_deinterleave_row(rt_dtype dtype, const void *src, size_t row, size_t columns, float *dst) {
    const rt_dtype_info *info = rt_dtype_of(dtype);
    size_t blocks = columns / (size_t)info->block_elems, block_bytes = ROWS * (size_t)info->block_bytes;
    const uint8_t *group = (const uint8_t *)src + row / ROWS * blocks * block_bytes;
    for (size_t b = 0; b < blocks; b++)
        deinterleave_block(dtype, group + b * block_bytes, (int)(row % ROWS), dst + b * (size_t)info->block_elems);
}
