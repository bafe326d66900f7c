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

/* Codes are written and read sixteen at a time, so that what is read was written in one piece. */
typedef uint8_t block_octets __attribute__((vector_size(16)));
typedef uint64_t block_words __attribute__((vector_size(16)));

/* 32 codes: the low nibbles of the 16 bytes are the first half. */
static inline void block_nibbles(const uint8_t *bytes, uint8_t *codes) {
    block_octets pairs, low, high;
    memcpy(&pairs, bytes, sizeof pairs);
    low = pairs & 15;
    high = pairs >> 4;
    memcpy(codes, &low, sizeof low);
    memcpy(codes + 16, &high, sizeof high);
}

/* Bit i becomes the fifth of code i of 32. */
static inline void block_fifth_bits(uint32_t bits, uint8_t *codes) {
    const block_octets place = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint64_t ones = UINT64_C(0x0101010101010101);
    for (int i = 0; i < 32; i += 16) {
        block_words copies = {(bits >> i & 255) * ones, (bits >> (i + 8) & 255) * ones};
        block_octets sixteen;
        memcpy(&sixteen, codes + i, sizeof sixteen);
        sixteen |= (block_octets)(((block_octets)copies & place) != 0) & 16;
        memcpy(codes + i, &sixteen, sizeof sixteen);
    }
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

/* The 32 codes of sub-block s (of 8) of Q4_K (high NULL) or Q5_K. */
static inline void block_k_codes(const uint8_t *low, const uint8_t *high, int s, uint8_t *codes) {
    for (int i = 0; i < 32; i++) codes[i] = low[32 * (s / 2) + i] >> 4 * (s % 2) & 15;
    for (int i = 0; i < 32 && high; i++) codes[i] |= (uint8_t)(block_bit(high[i], s) << 4);
}

/* The 32 codes, 0 to 63, of part s (of 8) of Q6_K. */
static inline void block_q6_codes(const uint8_t *low, const uint8_t *high, int s, uint8_t *codes) {
    int g = s / 4, j = s % 4;
    low += 64 * g + 32 * (j & 1);
    for (int i = 0; i < 32; i++)
        codes[i] = (uint8_t)((low[i] >> 4 * (j / 2) & 15) | (high[32 * g + i] >> 2 * j & 3) << 4);
}

#endif
