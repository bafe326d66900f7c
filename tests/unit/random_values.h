/* Random numbers of the kernel tests: repeatable from `state`. */
#ifndef GM_TESTS_RANDOM_VALUES_H
#define GM_TESTS_RANDOM_VALUES_H

#include <stdint.h>

static uint64_t state;

static inline uint32_t next_random(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static inline float random_float(float low, float high) {
    return low + (high - low) * (float)(next_random() & 0xFFFFFF) / 0x1p24f;
}

#endif
