/* Screens of groups of rows: quantise to 4 bits, measure the distance, bound it. */
#include "runtime/screen.h"

#include <math.h>
#include <string.h>

enum { RUN = RT_SCREEN_RUN, BLOCK = RT_SCREEN_BLOCK, RUNS = BLOCK / RUN, ROWS = RT_SCREEN_ROWS, LANES = 8, BOUND_UNITS = 64 };
#define HUGE_WEIGHT 0x1p60f /* products of anything below with x below RT_SCREEN_MAX_X stay finite */
#define LEAST_SCALE 0x1p-80f

bool rt_can_screen(rt_dtype dtype) {
    return dtype == RT_F32 || dtype == RT_F16 || dtype == RT_BF16 || dtype == RT_Q8_0 || dtype == RT_Q6_K;
}

/* ---- one run ---- */

/* Compiled twice, also for CPUs with AVX2: the same operations on the same eight lanes, so the same bytes. */
#define EACH_CPU __attribute__((target_clones("avx2", "default")))
#define INLINE static inline __attribute__((always_inline)) /* into both */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef int32_t half_ints __attribute__((vector_size(2 * LANES)));
typedef uint8_t half_bytes __attribute__((vector_size(LANES / 2)));

/* The largest magnitude, as bits: those of infinity or more when a value is not finite. */
INLINE int32_t largest(const float *w) {
    ints lanes = {0};
    int32_t most = 0;
    for (int i = 0; i < RUN; i += LANES) {
        ints bits;
        memcpy(&bits, w + i, sizeof bits);
        bits &= 0x7FFFFFFF;
        ints larger = bits > lanes;
        lanes = (bits & larger) | (lanes & ~larger);
    }
    for (int i = 0; i < LANES; i++) most = lanes[i] > most ? lanes[i] : most;
    return most;
}

/* Bits of the least bf16 scale that puts every value within 7.5 steps of zero. */
static uint32_t scale_for(float most) {
    float d = most / 7.5f;
    if (d < LEAST_SCALE) d = LEAST_SCALE;
    return (bits_of(d) + 0xFFFF) & 0xFFFF0000;
}

INLINE float length_of(const floats *squares) {
    floats s = *squares;
    return sqrtf(((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])));
}

/* Lengths in units of d: of w - v, of w, of v. */
typedef struct lengths {
    float off, w, v;
} lengths;

/* codes = the nearest of 0 … 15 to w/d + 8; every |w/d| is at most 7.5. */
INLINE lengths quantise(const float *w, float d, ints *codes) {
    float inverse = 1 / d;
    floats off = {0}, in = {0}, out = {0};
    for (int i = 0; i < RUN / LANES; i++) {
        floats steps;
        memcpy(&steps, w + i * LANES, sizeof steps);
        steps *= inverse;
        ints code = __builtin_convertvector(steps + 8.5f, ints);
        code += code > 15; /* -1 where it is 16 */
        floats v = __builtin_convertvector(code - 8, floats), more = steps - v;
        codes[i] = code;
        off += more * more;
        in += steps * steps;
        out += v * v;
    }
    return (lengths){length_of(&off), length_of(&in), length_of(&out)};
}

/* What rounding may add to a product of `columns` terms. */
typedef struct slack {
    float terms; /* of ‖w‖‖x‖ and of ‖v‖‖x‖: the kernel's sums have at most columns/8 + 20 roundings in a row */
    float steps; /* of d‖x‖: the estimate sums 15·√32 steps and takes 8·√32 off, with columns/32 + 16 roundings in a row */
} slack;

static slack slack_of(size_t columns) {
    return (slack){((float)columns / 8 + 32) * 0x1p-23f, ((float)columns / 32 + 16) * 0x1p-23f * 131};
}

/* Where run `run` of row `row` of a group goes: its scale and bound, and its codes for sixteen columns, of which the others follow. */
typedef struct place {
    uint8_t *scale, *bound, *high, *low;
} place;

INLINE place place_of(uint8_t *upper, uint8_t *lower, size_t run, size_t row) {
    size_t block = run / RUNS, part = run % RUNS, at = part * ROWS + row, codes = part * RUN / 4 * ROWS + row * 4;
    upper += block * RT_SCREEN_UPPER, lower += block * RT_SCREEN_LOWER;
    return (place){upper + 2 * at, lower + at, upper + 2 * RUNS * ROWS + codes, lower + RUNS * ROWS + codes};
}

/* Two bits of the codes of sixteen columns. */
INLINE void pack_bits(const ints *codes, int shift, uint8_t *to) {
    half_ints four[4], bits = {0};
    memcpy(four, codes, sizeof four);
    for (int j = 0; j < 4; j++) bits |= (four[j] >> shift & 3) << (2 * j);
    half_bytes bytes = __builtin_convertvector(bits, half_bytes);
    memcpy(to, &bytes, sizeof bytes);
}

INLINE void screen_run(const float *w, slack more, place to) {
    int32_t most = largest(w);
    ints codes[RUN / LANES];
    uint32_t scale = 0x7FC00000;
    float most_value, d, bound = 255;
    for (int i = 0; i < RUN / LANES; i++) codes[i] = (ints){0} + 8;
    memcpy(&most_value, &most, sizeof most_value);
    if (most == 0) {
        scale = 0, bound = 0;
    } else if (most <= (int32_t)bits_of(HUGE_WEIGHT)) {
        scale = scale_for(most_value);
        memcpy(&d, &scale, sizeof d);
        lengths l = quantise(w, d, codes);
        bound = l.off * (1 + more.terms) + RT_SCREEN_X_ERROR * l.v + more.terms * (l.w + l.v) + more.steps + 1e-4f; /* the last for this sum */
        bound = ceilf(bound * BOUND_UNITS);
        GM_ASSERT(bound <= 255); /* ‖w - v‖ is at most 2.83 steps, ‖v‖ 45.3 */
    }
    to.scale[0] = (uint8_t)(scale >> 16), to.scale[1] = (uint8_t)(scale >> 24), *to.bound = (uint8_t)bound;
    for (int i = 0; i < RUN / LANES; i += 2) {
        pack_bits(codes + i, 2, to.high + i / 2 * ROWS * 4);
        pack_bits(codes + i, 0, to.low + i / 2 * ROWS * 4);
    }
}

EACH_CPU void rt_screen_group(rt_dtype dtype, const void *src, size_t columns, float *row, uint8_t *upper, uint8_t *lower) {
    slack more = slack_of(columns);
    size_t row_bytes = rt_dtype_bytes(dtype, columns);
    GM_ASSERT(rt_can_screen(dtype) && columns % BLOCK == 0 && columns <= RT_SCREEN_MAX_COLUMNS);
    for (size_t r = 0; r < ROWS; r++) {
        rt_dequantize_row(dtype, (const uint8_t *)src + r * row_bytes, row, columns);
        for (size_t i = 0; i < columns / RUN; i++) screen_run(row + RUN * i, more, place_of(upper, lower, i, r));
    }
}
