/* Screens: order the columns; quantise groups of rows to 4 bits, measure the distance, bound it. */
#include "runtime/screen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    RUN = RT_SCREEN_RUN,
    ROWS = RT_SCREEN_ROWS,
    QUAD = RT_SCREEN_QUAD,
    LINE = 64,
    LANES = 8,
    LARGEST_SCALE = RT_SCREEN_MOST_SCALE,
    SAMPLED_ROWS = 512
};
#define HUGE_WEIGHT 0x1p60f /* products of anything below with x below RT_SCREEN_MAX_X stay finite */
#define LEAST_UNIT  0x1p-80f

bool rt_can_screen(rt_dtype dtype) {
    return dtype == RT_F32 || dtype == RT_F16 || dtype == RT_BF16 || dtype == RT_Q8_0 || dtype == RT_Q6_K;
}

bool rt_can_screen_columns(int64_t columns) {
    return columns % RUN == 0 && columns >= RT_SCREEN_LEAST_COLUMNS && columns <= RT_SCREEN_MAX_COLUMNS;
}

/* ---- one run ---- */

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

/* The largest magnitude of `count` values: infinity or NaN when one is not finite. */
GM_INLINE float largest(const float *w, int64_t count) {
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

/* value, or the next larger one of bf16. */
static float round_up(float value) {
    uint32_t bits = (rt_float_bits(value) + 0xFFFF) & 0xFFFF0000;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The least unit of which scales up to LARGEST_SCALE put every value within 7.5 steps of zero; NaN when none does. */
static float unit_for(float most) {
    float least = most / (7.5f * LARGEST_SCALE);
    return most <= HUGE_WEIGHT ? round_up(least < LEAST_UNIT ? LEAST_UNIT : least) : NAN;
}

/* The least scale that does so, or nearly: the last may lack a rounding. */
static int scale_for(float most, float unit) {
    float scale = ceilf(most / 7.5f / unit);
    return scale < 1 ? most > 0 : scale < LARGEST_SCALE ? (int)scale : LARGEST_SCALE;
}

GM_INLINE float length_of(const floats *squares) {
    floats s = *squares;
    return sqrtf(((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])));
}

/* Lengths in units of d: of w - v, of w, of v. */
typedef struct lengths {
    float off, w, v;
} lengths;

/* codes = the nearest of 0 … 15 to w/d + 8; every |w/d| is at most 7.5 and a rounding. */
GM_INLINE lengths quantise(const float *w, float d, ints *codes) {
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
    /* of d‖x‖: the estimate sums 15·√32 steps and takes 8·√32 off, with columns/32 + 22 roundings in a row */
    float steps;
} slack;

static slack slack_of(size_t columns) {
    return (slack){((float)columns / 8 + 32) * 0x1p-23f, ((float)columns / 32 + 22) * 0x1p-23f * 131};
}

/* A run of a row: its scale, how far a product with it may be off per ‖x‖ (not where it is a first run: what v leaves),
 * and codes. */
typedef struct run {
    int scale;
    float bound;
    ints codes[RUN / LANES];
} run;

/* rest: NULL, or what becomes of w when v is taken from it, so that nothing of it is off. unit: not NaN. */
GM_INLINE run screen_run(const float *w, float unit, slack more, float *rest) {
    run r = {.scale = scale_for(largest(w, RUN), unit)};
    float d = unit * (float)r.scale;
    for (int i = 0; i < RUN / LANES; i++) r.codes[i] = (ints){0} + 8;
    if (r.scale) {
        lengths l = quantise(w, d, r.codes);
        float off = rest ? RT_SCREEN_TOP_X_ERROR * l.v : l.off * (1 + more.terms) + RT_SCREEN_X_ERROR * l.v;
        r.bound = d * (off + more.terms * (l.w + l.v) + more.steps + 1e-4f); /* the last for this sum */
    }
    /* Exact: v has 8 + 8 + 4 bits, and w is no less than half of d where v is not zero, so that their difference has no
     * lower bits. */
    for (int i = 0; rest && i < RUN; i++) rest[i] = w[i] - d * (float)(r.codes[i / LANES][i % LANES] - 8);
    return r;
}

GM_INLINE void put_bytes(ints codes, uint8_t *to) {
    bytes eight = __builtin_convertvector(codes, bytes);
    for (int i = 0; i < LANES; i += QUAD) memcpy(to + i * ROWS, (const uint8_t *)&eight + i, QUAD);
}

/* Column i in the lower nibble of a byte, 16 + i in the upper one. to: of this row in the run. */
GM_INLINE void put_nibbles(const ints *codes, uint8_t *to, int64_t plane) {
    for (int i = 0; i < 2; i++) put_bytes(codes[i] | codes[2 + i] << 4, to + i * plane);
}

/* ---- a matrix ---- */

static int64_t whole_lines(int64_t size) {
    return (size + LINE - 1) / LINE * LINE;
}

rt_screen_places rt_screen_layout(int64_t rows, int64_t columns) {
    rt_screen_places at = {.groups = rows / ROWS, .runs = columns / RUN + 1};
    at.quads = (at.runs - 1 + QUAD - 1) / QUAD;
    at.codes = whole_lines(at.runs * RUN * (int64_t)sizeof(uint16_t));
    at.plane = at.groups * at.runs * RT_SCREEN_CODES;
    at.heads = at.codes + 2 * at.plane;
    at.bounds = 2 * ROWS * (int64_t)sizeof(uint16_t);
    at.scales = at.bounds + at.quads * QUAD * ROWS;
    at.head = whole_lines(at.scales + at.runs * ROWS);
    at.bytes = at.heads + at.groups * at.head;
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

/* Row `row` of the group with the head at `head`. unit: 0 its own, 1 that of its bounds. */
static void put_unit(uint8_t *head, int unit, int row, float value) {
    uint16_t stored = (uint16_t)(rt_float_bits(value) >> 16);
    memcpy(head + (unit * ROWS + row) * (int64_t)sizeof stored, &stored, sizeof stored);
}

/* found: one after the other, those of the runs of columns. */
GM_INLINE void put_bounds(const rt_screen_places *at, uint8_t *head, int row, const float *found) {
    int64_t count = at->runs - 1;
    float most = largest(found, count + (LANES - count % LANES) % LANES),
          unit = round_up(most / (RT_SCREEN_MOST_BOUND - 0.1f)), inverse = 1 / unit * (1 + 2e-6f);
    put_unit(head, 1, row, unit);
    for (int64_t i = 0; i < count && most > 0; i++)
        head[at->bounds + (i / QUAD * ROWS + row) * QUAD + i % QUAD] = (uint8_t)ceilf(found[i] * inverse);
}

/* Row `row` of a group; w: its values. */
GM_INLINE void screen_row(const rt_screen_places *at, const float *w, slack more, int64_t group, int row,
                          uint8_t *screen) {
    float unit = unit_for(largest(w, (at->runs - 1) * RUN)), values[RUN], rest[RUN],
          bounds[RT_SCREEN_MAX_COLUMNS / RUN + LANES];
    uint16_t order[RUN];
    uint8_t *head = screen + at->heads + group * at->head;
    memset(bounds, 0, sizeof *bounds * (size_t)(at->runs + LANES - 1));
    put_unit(head, 0, row, unit);
    for (int64_t i = 0; i < at->runs && unit == unit; i++) {
        memcpy(order, screen + (size_t)i * sizeof order, sizeof order);
        for (int j = 0; j < RUN; j++) values[j] = i == 1 ? rest[j] : w[order[j]];
        run r = screen_run(values, unit, more, i ? NULL : rest);
        uint8_t *codes = screen + at->codes + (group * at->runs + i) * RT_SCREEN_CODES + row * QUAD;
        GM_ASSERT(i != 1 || r.scale <= RT_SCREEN_MOST_REST_SCALE);
        head[at->scales + i * ROWS + row] = (uint8_t)r.scale;
        bounds[i ? i - 1 : 0] += r.bound;
        put_nibbles(r.codes, codes, at->plane);
    }
    if (unit == unit) put_bounds(at, head, row, bounds);
}

GM_EACH_CPU static void screen_group(const rt_screened *matrix, int64_t group, float *row, uint8_t *screen) {
    rt_screen_places at = rt_screen_layout(matrix->rows, matrix->columns);
    slack more = slack_of((size_t)matrix->columns);
    for (int r = 0; r < ROWS; r++) {
        rt_dequantize_row(matrix->dtype, row_of(matrix, group * ROWS + r), row, (size_t)matrix->columns);
        screen_row(&at, row, more, group, r, screen);
    }
}

void rt_screen_group(const rt_screened *matrix, int64_t group, float *row, uint8_t *screen) {
    screen_group(matrix, group, row, screen);
}
