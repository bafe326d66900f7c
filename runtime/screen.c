/* Screens: order the columns; quantise groups of rows to 4 bits, measure the distance, bound it. */
#include "runtime/screen.h"
#include "runtime/lanes.h"

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
    NO_UNIT = 0x7FC00000, /* NaN */
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

/* ---- one run of eight rows ---- */

/* Lanes are rows. */
typedef rt_floats8 floats;
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

/* yes where a comparison held, else no. */
GM_INLINE ints choose(ints held, ints yes, ints no) {
    return (yes & held) | (no & ~held);
}

GM_INLINE floats to_floats(ints value) {
    return __builtin_convertvector(value, floats);
}

/* Of numbers from 0 to 2^31: the next integer that is no less. */
GM_INLINE ints ceiling(floats value) {
    ints whole = __builtin_convertvector(value, ints);
    return whole - (to_floats(whole) < value); /* -1 where it holds */
}

/* value, or the next larger one of bf16. */
GM_INLINE floats round_up(floats value) {
    return (floats)(((ints)value + 0xFFFF) & (int32_t)0xFFFF0000);
}

/* 1/d, and 0 for 0. */
GM_INLINE floats inverse_of(floats d) {
    return (floats)((ints)(1 / d) & (d > 0));
}

/* The largest magnitude of `count` values of each row, `step` floats from one to the next: infinity or NaN when one is
 * not finite. */
GM_INLINE floats largest(const float *w, int64_t count, int64_t step) {
    ints most = {0};
    for (int64_t i = 0; i < count; i++) {
        ints bits = (ints)rt_load_floats8(w + i * step) & 0x7FFFFFFF;
        most = choose(bits > most, bits, most);
    }
    return (floats)most;
}

/* The least unit of which scales up to LARGEST_SCALE put every value within 7.5 steps of zero. */
GM_INLINE floats unit_for(floats most) {
    floats least = most / (7.5f * LARGEST_SCALE), floor = (floats){0} + LEAST_UNIT;
    return round_up((floats)choose(least < floor, (ints)floor, (ints)least));
}

/* The least scale that does so, or nearly: the last may lack a rounding. */
GM_INLINE ints scale_for(floats most, floats unit) {
    ints scale = ceiling(most / 7.5f / unit), last = (ints){0} + LARGEST_SCALE;
    scale -= (most > 0) & (scale < 1);
    return choose(scale < last, scale, last);
}

/* Terms of a sum of RUN squares: those of columns LANES apart come together. */
GM_INLINE floats length_of(const floats *s) {
    floats squares = ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
    for (int i = 0; i < LANES; i++) squares[i] = sqrtf(squares[i]);
    return squares;
}

/* Lengths in units of d: of w - v, of w, of v. */
typedef struct lengths {
    floats off, w, v;
} lengths;

/* codes = the nearest of 0 … 15 to w/d + 8; every |w/d| is at most 7.5 and a rounding. Where d is 0, w is too. */
GM_INLINE lengths quantise(const floats *w, floats d, ints *codes) {
    floats inverse = inverse_of(d), off[LANES], in[LANES], out[LANES];
    for (int j = 0; j < LANES; j++) {
        off[j] = in[j] = out[j] = (floats){0};
        for (int i = j; i < RUN; i += LANES) {
            floats steps = w[i] * inverse;
            ints code = __builtin_convertvector(steps + 8.5f, ints);
            code += code > 15; /* -1 where it is 16 */
            floats v = to_floats(code - 8), more = steps - v;
            codes[i] = code;
            off[j] += more * more;
            in[j] += steps * steps;
            out[j] += v * v;
        }
    }
    return (lengths){length_of(off), length_of(in), length_of(out)};
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

/* A run: its scale, how far a product with it may be off per ‖x‖ (not where it is a first run: what v leaves), and
 * codes. */
typedef struct run {
    ints scale;
    floats bound;
    ints codes[RUN];
} run;

/* rest: NULL, or what becomes of w when v is taken from it, so that nothing of it is off. */
GM_INLINE void screen_run(const floats *w, floats unit, slack more, floats *rest, run *r) {
    r->scale = scale_for(largest((const float *)w, RUN, LANES), unit);
    floats d = unit * to_floats(r->scale);
    lengths l = quantise(w, d, r->codes);
    floats off = rest ? RT_SCREEN_TOP_X_ERROR * l.v : l.off * (1 + more.terms) + RT_SCREEN_X_ERROR * l.v;
    r->bound = d * (off + more.terms * (l.w + l.v) + more.steps + 1e-4f); /* the last for this sum */
    /* Exact: v has 8 + 8 + 4 bits, and w is no less than half of d where v is not zero, so that their difference has no
     * lower bits. */
    for (int i = 0; rest && i < RUN; i++) rest[i] = w[i] - d * to_floats(r->codes[i] - 8);
}

/* A byte of each row, ROWS apart from those of the next. */
GM_INLINE void put_bytes(ints values, uint8_t *to) {
    bytes eight = __builtin_convertvector(values, bytes);
    memcpy(to, &eight, sizeof eight);
}

/* Column i in the lower nibble of a byte, 16 + i in the upper one. known: 0 for rows that are to have none; to: of
 * the first row, in the run. */
GM_INLINE void put_nibbles(const ints *codes, ints known, uint8_t *to, int64_t plane) {
    for (int q = 0; q < RUN / 2 / QUAD; q++) {
        ints quad = {0};
        for (int c = 0; c < QUAD; c++) {
            int i = q * QUAD + c;
            quad |= codes[i] << (8 * c) | codes[RUN / 2 + i] << (8 * c + 4);
        }
        quad &= known;
        memcpy(to + q / RT_SCREEN_LOADS * plane + q % RT_SCREEN_LOADS * QUAD * ROWS, &quad, sizeof quad);
    }
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

/* Rows from `row` on of the group with the head at `head`. unit: 0 their own, 1 those of their bounds. */
GM_INLINE void put_units(uint8_t *head, int unit, int row, floats values) {
    halves stored = __builtin_convertvector((ints)values >> 16, halves);
    memcpy(head + (unit * ROWS + row) * (int64_t)sizeof stored[0], &stored, sizeof stored);
}

/* found: one after the other, those of the runs of columns. */
GM_INLINE void put_bounds(const rt_screen_places *at, uint8_t *head, int row, const floats *found) {
    int64_t count = at->runs - 1;
    floats unit = round_up(largest((const float *)found, count, LANES) / (RT_SCREEN_MOST_BOUND - 0.1f)),
           inverse = inverse_of(unit) * (1 + 2e-6f);
    put_units(head, 1, row, unit);
    for (int64_t q = 0; q < at->quads; q++) {
        ints quad = {0};
        for (int64_t c = 0; c < QUAD && q * QUAD + c < count; c++)
            quad |= ceiling(found[q * QUAD + c] * inverse) << (8 * c);
        memcpy(head + at->bounds + (q * ROWS + row) * QUAD, &quad, sizeof quad);
    }
}

/* x: values of LANES rows of a group, from row `row` on, ROWS floats from one column to the next. Rows that no unit
 * describes become zeros. Theirs is NaN. */
GM_INLINE floats units_of(float *x, int64_t columns, ints *known) {
    floats most = largest(x, columns, ROWS);
    *known = most <= (floats){0} + HUGE_WEIGHT;
    for (int i = 0; i < LANES; i++)
        for (int64_t k = 0; k < columns && !(*known)[i]; k++) x[k * ROWS + i] = 0;
    return unit_for((floats)((ints)most & *known));
}

GM_INLINE void screen_rows(const rt_screen_places *at, float *x, slack more, int64_t group, int row, uint8_t *screen) {
    ints known;
    floats unit = units_of(x, (at->runs - 1) * RUN, &known), values[RUN], rest[RUN],
           bounds[RT_SCREEN_MAX_COLUMNS / RUN];
    uint16_t order[RUN];
    uint8_t *head = screen + at->heads + group * at->head;
    put_units(head, 0, row, (floats)choose(known, (ints)unit, (ints){0} + NO_UNIT));
    for (int64_t i = 0; i < at->runs; i++) {
        run r;
        memcpy(order, screen + (size_t)i * sizeof order, sizeof order);
        for (int j = 0; j < RUN && i != 1; j++) values[j] = rt_load_floats8(x + order[j] * ROWS);
        screen_run(i == 1 ? rest : values, unit, more, i ? NULL : rest, &r);
        for (int j = 0; j < LANES && i == 1; j++) GM_ASSERT(r.scale[j] <= RT_SCREEN_MOST_REST_SCALE);
        put_bytes(r.scale, head + at->scales + i * ROWS + row);
        put_nibbles(r.codes, known, screen + at->codes + (group * at->runs + i) * RT_SCREEN_CODES + row * QUAD,
                    at->plane);
        bounds[i ? i - 1 : 0] = i == 1 ? bounds[0] + r.bound : r.bound;
    }
    put_bounds(at, head, row, bounds);
}

GM_EACH_CPU static void screen_group(const rt_screened *matrix, int64_t group, float *x, uint8_t *screen) {
    rt_screen_places at = rt_screen_layout(matrix->rows, matrix->columns);
    slack more = slack_of((size_t)matrix->columns);
    for (int row = 0; row < ROWS; row += LANES) screen_rows(&at, x + row, more, group, row, screen);
}

void rt_screen_group(const rt_screened *matrix, int64_t group, float *scratch, uint8_t *screen) {
    rt_dequantize_lanes(matrix->dtype, row_of(matrix, group * ROWS), matrix->columns, scratch);
    screen_group(matrix, group, scratch, screen);
}
