/* Screens: order the columns; quantise groups of rows to 4 bits, measure the distance, bound it. */
#include "runtime/screen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RUN = RT_SCREEN_RUN, ROWS = RT_SCREEN_ROWS, LANES = 8, BOUND_UNITS = 64, LARGEST_SCALE = 255, SAMPLED_ROWS = 512 };
#define HUGE_WEIGHT 0x1p60f /* products of anything below with x below RT_SCREEN_MAX_X stay finite */
#define LEAST_UNIT 0x1p-80f

bool rt_can_screen(rt_dtype dtype) {
    return dtype == RT_F32 || dtype == RT_F16 || dtype == RT_BF16 || dtype == RT_Q8_0 || dtype == RT_Q6_K;
}

bool rt_can_screen_columns(int64_t columns) {
    return columns % RUN == 0 && columns >= RT_SCREEN_LEAST_COLUMNS && columns <= RT_SCREEN_MAX_COLUMNS;
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

/* The largest magnitude of `count` values: infinity or NaN when one is not finite. */
INLINE float largest(const float *w, int64_t count) {
    ints lanes = {0};
    int32_t most = 0;
    float value;
    for (int64_t i = 0; i < count; i += LANES) {
        ints bits;
        memcpy(&bits, w + i, sizeof bits);
        bits &= 0x7FFFFFFF;
        ints larger = bits > lanes;
        lanes = (bits & larger) | (lanes & ~larger);
    }
    for (int i = 0; i < LANES; i++) most = lanes[i] > most ? lanes[i] : most;
    memcpy(&value, &most, sizeof value);
    return value;
}

/* The least unit of which scales up to LARGEST_SCALE put every value within 7.5 steps of zero; NaN when none does. */
static float unit_for(float most) {
    float least = most / (7.5f * LARGEST_SCALE);
    if (!(most <= HUGE_WEIGHT)) return NAN;
    uint32_t bits = (bits_of(least < LEAST_UNIT ? LEAST_UNIT : least) + 0xFFFF) & 0xFFFF0000;
    memcpy(&least, &bits, sizeof least);
    return least;
}

/* The least scale that does so, or nearly: the last may lack a rounding. */
static int scale_for(float most, float unit) {
    float scale = ceilf(most / 7.5f / unit);
    return scale < 1 ? most > 0 : scale < LARGEST_SCALE ? (int)scale : LARGEST_SCALE;
}

INLINE float length_of(const floats *squares) {
    floats s = *squares;
    return sqrtf(((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])));
}

/* Lengths in units of d: of w - v, of w, of v. */
typedef struct lengths {
    float off, w, v;
} lengths;

/* codes = the nearest of 0 … 15 to w/d + 8; every |w/d| is at most 7.5 and a rounding. */
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
    float steps; /* of d‖x‖: the estimate sums 15·√32 steps and takes 8·√32 off, with columns/32 + 18 roundings in a row */
} slack;

static slack slack_of(size_t columns) {
    return (slack){((float)columns / 8 + 32) * 0x1p-23f, ((float)columns / 32 + 18) * 0x1p-23f * 131};
}

/* Where a run of a row goes: its scale and bound, and its codes for sixteen columns, of which the others follow. */
typedef struct place {
    uint8_t *scale, *bound, *high, *low;
} place;

/* run: counted from the first of group 0 on. */
INLINE place place_of(const rt_screen_places *at, uint8_t *screen, int64_t run, int64_t row) {
    uint8_t *scales = screen + at->scales + run * RT_SCREEN_SCALES;
    int64_t codes = run * RT_SCREEN_CODES + row * 4;
    return (place){scales + row, scales + ROWS + row, screen + at->upper + codes, screen + at->lower + codes};
}

/* Two bits of the codes of sixteen columns. */
INLINE void pack_bits(const ints *codes, int shift, uint8_t *to) {
    half_ints four[4], bits = {0};
    memcpy(four, codes, sizeof four);
    for (int j = 0; j < 4; j++) bits |= (four[j] >> shift & 3) << (2 * j);
    half_bytes bytes = __builtin_convertvector(bits, half_bytes);
    memcpy(to, &bytes, sizeof bytes);
}

/* rest: NULL, or what becomes of w when v is taken from it, so that nothing of it is off. unit: not NaN. */
INLINE void screen_run(const float *w, float unit, slack more, place to, float *rest) {
    int scale = scale_for(largest(w, RUN), unit);
    float d = unit * (float)scale, bound = 0;
    ints codes[RUN / LANES];
    for (int i = 0; i < RUN / LANES; i++) codes[i] = (ints){0} + 8;
    if (scale) {
        lengths l = quantise(w, d, codes);
        bound = (rest ? 0 : l.off * (1 + more.terms)) + RT_SCREEN_X_ERROR * l.v + more.terms * (l.w + l.v) + more.steps + 1e-4f; /* the last for this sum */
        bound = ceilf(bound * BOUND_UNITS);
        GM_ASSERT(bound <= 255); /* ‖w - v‖ is at most 2.83 steps, ‖v‖ 45.3 */
    }
    *to.scale = (uint8_t)scale, *to.bound = (uint8_t)bound;
    for (int i = 0; i < RUN / LANES; i += 2) {
        pack_bits(codes + i, 2, to.high + i / 2 * ROWS * 4);
        pack_bits(codes + i, 0, to.low + i / 2 * ROWS * 4);
    }
    /* Exact: v has 8 + 8 + 4 bits, and w is no less than half of d where v is not zero, so that their difference has no lower bits. */
    for (int i = 0; rest && i < RUN; i++) rest[i] = w[i] - d * (float)(codes[i / LANES][i % LANES] - 8);
}

/* ---- a matrix ---- */

rt_screen_places rt_screen_layout(int64_t rows, int64_t columns) {
    rt_screen_places at = {.groups = rows / ROWS, .runs = columns / RUN + 1};
    at.upper = at.runs * RUN * (int64_t)sizeof(uint16_t);
    at.lower = at.upper + at.groups * at.runs * RT_SCREEN_CODES;
    at.scales = at.lower + at.groups * at.runs * RT_SCREEN_CODES;
    at.units = at.scales + at.groups * at.runs * RT_SCREEN_SCALES;
    at.bytes = at.units + at.groups * ROWS * (int64_t)sizeof(uint16_t);
    return at;
}

void rt_screen_shape(int64_t rows, int64_t columns, int64_t *dim) {
    rt_screen_places at = rt_screen_layout(rows, columns);
    int64_t row = (int64_t)rt_dtype_bytes(RT_S4, (size_t)(at.runs * RUN));
    dim[0] = (at.bytes + row - 1) / row;
    dim[1] = at.runs * RUN;
}

static const uint8_t *row_of(const rt_screened *matrix, int64_t row) {
    return matrix->data + (size_t)row * rt_dtype_bytes(matrix->dtype, (size_t)matrix->columns);
}

/* Sums of squares of each column, of rows at equal distances; what is not finite or huge counts as nothing. */
static void sum_squares(const rt_screened *matrix, float *row, double *sums) {
    int64_t step = matrix->rows / SAMPLED_ROWS + 1;
    for (int64_t i = 0; i < matrix->columns; i++) sums[i] = 0;
    for (int64_t r = 0; r < matrix->rows; r += step) {
        rt_dequantize_row(matrix->dtype, row_of(matrix, r), row, (size_t)matrix->columns);
        for (int64_t i = 0; i < matrix->columns; i++)
            if (fabsf(row[i]) <= HUGE_WEIGHT) sums[i] += (double)row[i] * (double)row[i];
    }
}

static void put_order(uint8_t *screen, int64_t column, int64_t of) {
    uint16_t value = (uint16_t)of;
    memcpy(screen + column * (int64_t)sizeof value, &value, sizeof value);
}

void rt_screen_order(const rt_screened *matrix, float *row, uint8_t *screen) {
    enum { TAKEN = -1 };
    int64_t columns = matrix->columns, next = 2 * RUN;
    GM_ASSERT(rt_can_screen(matrix->dtype) && rt_can_screen_columns(columns));
    double *sums = malloc(sizeof *sums * (size_t)columns);
    GM_ASSERT(sums);
    sum_squares(matrix, row, sums);
    for (int i = 0; i < RUN; i++) {
        int64_t most = 0;
        for (int64_t j = 1; j < columns; j++) most = sums[j] > sums[most] ? j : most;
        put_order(screen, i, most);
        put_order(screen, RUN + i, most);
        sums[most] = TAKEN;
    }
    for (int64_t j = 0; j < columns; j++)
        if (sums[j] > TAKEN) put_order(screen, next++, j);
    free(sums);
}

/* Row `row` of the screen; w: its values. */
INLINE void screen_row(const rt_screen_places *at, const float *w, int64_t columns, int64_t row, uint8_t *screen) {
    slack more = slack_of((size_t)columns);
    float unit = unit_for(largest(w, columns)), run[RUN], rest[RUN];
    uint16_t stored = (uint16_t)(bits_of(unit) >> 16), order[RUN];
    memcpy(screen + at->units + row * (int64_t)sizeof stored, &stored, sizeof stored);
    for (int64_t i = 0; i < at->runs && unit == unit; i++) {
        memcpy(order, screen + (size_t)i * sizeof order, sizeof order);
        for (int j = 0; j < RUN; j++) run[j] = i == 1 ? rest[j] : w[order[j]];
        screen_run(run, unit, more, place_of(at, screen, row / ROWS * at->runs + i, row % ROWS), i ? NULL : rest);
    }
}

EACH_CPU void rt_screen_group(const rt_screened *matrix, int64_t group, float *row, uint8_t *screen) {
    rt_screen_places at = rt_screen_layout(matrix->rows, matrix->columns);
    for (int64_t r = group * ROWS; r < (group + 1) * ROWS; r++) {
        rt_dequantize_row(matrix->dtype, row_of(matrix, r), row, (size_t)matrix->columns);
        screen_row(&at, row, matrix->columns, r, screen);
    }
}
