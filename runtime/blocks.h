/* Fields of ggml's block formats. Internal to runtime/. */
#ifndef GM_RUNTIME_BLOCKS_H
#define GM_RUNTIME_BLOCKS_H

#include "runtime/dtype.h"

static inline uint16_t block_u16(const uint8_t *src) {
    return (uint16_t)(src[0] | src[1] << 8);
}

static inline uint32_t block_u32(const uint8_t *src) {
    return (uint32_t)block_u16(src) | (uint32_t)block_u16(src + 2) << 16;
}

static inline float block_f16(const uint8_t *src) {
    return rt_f16_to_f32(block_u16(src));
}

/* Element i of 32 nibbles: the low nibbles of the 16 bytes are the first half. */
static inline int block_nibble(const uint8_t *bytes, int i) {
    return i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4;
}

static inline int block_bit(uint32_t bits, int i) {
    return (int)(bits >> i & 1);
}

/* Scale and minimum of sub-block s (of 8) of Q4_K and Q5_K, 6 bits each, packed in 12 bytes. */
static inline void block_scale_min(const uint8_t *packed, int s, int *scale, int *minimum) {
    if (s < 4) {
        *scale = packed[s] & 63;
        *minimum = packed[s + 4] & 63;
    } else {
        *scale = (packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4;
        *minimum = packed[s + 4] >> 4 | (packed[s] >> 6) << 4;
    }
}

/* Code i of Q4_K (high NULL) or Q5_K, of 256. */
static inline int block_k_code(const uint8_t *low, const uint8_t *high, int i) {
    int s = i / 32, l = i % 32, code = low[32 * (s / 2) + l] >> 4 * (s % 2) & 15;
    return high ? code | block_bit(high[l], s) << 4 : code;
}

/* Code i of Q6_K, of 256: 0 to 63. */
static inline int block_q6_code(const uint8_t *low, const uint8_t *high, int i) {
    int g = i / 128, j = i % 128 / 32, l = i % 32;
    return (low[64 * g + 32 * (j & 1) + l] >> 4 * (j / 2) & 15) | (high[32 * g + l] >> 2 * j & 3) << 4;
}

#endif
