/* Screens: the bounds of every row in double precision; the screened argmax against argmax of the product, index for
 * index, for every type that can be screened, several --target-cpu, and tables and inputs made to break it. */
#include "codegen/codegen.h"
#include "frontend/gir_run.h"
#include "runtime/derive.h"
#include "runtime/screen.h"
#include "tests/unit/model_files.h"
#include "tests/unit/random_values.h"
#include "tests/unit/run_text.h"
#include "tests/unit/screen_text.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECONDS = 240, ROWS = 333, RUN = 32, GROUP = 16, MAX_COLUMNS = 768 };

static const char *const cpus[] = {NULL, "haswell", "x86-64", "skylake-avx512", CG_STAND_IN_CPU};
static const rt_dtype types[] = {RT_F32, RT_F16, RT_BF16, RT_Q8_0, RT_Q6_K};

/* ---- random rows ---- */

static void put_element(rt_dtype dtype, uint8_t *row, int64_t i, float value) {
    uint16_t half = dtype == RT_F16 ? rt_f32_to_f16(value) : rt_f32_to_bf16(value);
    if (dtype == RT_F32) memcpy(row + 4 * i, &value, 4);
    else memcpy(row + 2 * i, &half, 2);
}

static bool is_plain(rt_dtype dtype) {
    return rt_dtype_of(dtype)->block_elems == 1;
}

/* One row with values of about `size`; of block types, size is the f16 scale of the blocks. */
static void fill_row(rt_dtype dtype, uint8_t *row, int64_t columns, float size) {
    const rt_dtype_info *info = rt_dtype_of(dtype);
    size_t bytes = rt_dtype_bytes(dtype, (size_t)columns);
    if (is_plain(dtype)) {
        for (int64_t i = 0; i < columns; i++) put_element(dtype, row, i, random_float(-1, 1) * size);
        return;
    }
    for (size_t i = 0; i < bytes; i++) row[i] = (uint8_t)next_random();
    for (size_t at = dtype == RT_Q6_K ? 208 : 0; at < bytes; at += (size_t)info->block_bytes) {
        uint16_t scale = rt_f32_to_f16(size);
        memcpy(row + at, &scale, 2);
    }
}

/* ---- the bound ---- */

enum { MAX_SCREENED = MAX_COLUMNS + RUN };

/* The screen of one group; order, planes of codes, units, bounds and scales lie one after the other. */
typedef struct view {
    const uint8_t *screen;
    int64_t columns, runs;
} view;

static view view_of(const uint8_t *screen, int64_t columns) {
    return (view){screen, columns, columns / RUN + 1};
}

static int column_of(const view *s, int64_t i) {
    return s->screen[2 * i] | s->screen[2 * i + 1] << 8;
}

static const uint8_t *codes_of(const view *s) {
    return s->screen + s->runs * RUN * 2;
}

/* Byte i of the four or eight quads of a row's run is byte i % 4 of quad i / 4. */
static int byte_at(const view *s, int64_t run, int i, int row) {
    int plane = i / 8, quad = i % 8 / 4;
    return codes_of(s)[((plane * s->runs + run) * 2 + quad) * 4 * GROUP + row * 4 + i % 4];
}

static int code_at(const view *s, int64_t column, int row) {
    int64_t run = column / RUN;
    int i = (int)(column % RUN);
    return byte_at(s, run, i % 16, row) >> i / 16 * 4 & 15;
}

static const uint8_t *head_of(const view *s) {
    return codes_of(s) + 2 * s->runs * GROUP * 8;
}

/* which: 1 of its bounds. */
static double unit_of(const view *s, int which, int row) {
    const uint8_t *at = head_of(s) + 2 * (which * GROUP + row);
    return (double)rt_bf16_to_f32((uint16_t)(at[0] | at[1] << 8));
}

/* Of a run of columns. */
static int bound_of(const view *s, int64_t run, int row) {
    return head_of(s)[2 * 2 * GROUP + (run / 4 * GROUP + row) * 4 + run % 4];
}

static int scale_of(const view *s, int64_t run, int row) {
    int64_t quads = (s->runs - 1 + 3) / 4;
    return head_of(s)[2 * 2 * GROUP + quads * GROUP * 4 + run * GROUP + row];
}

/* v[columns + 32]: what the screen says of a row, in its order. */
static void read_row(const view *s, int row, double *v) {
    for (int64_t i = 0; i < s->columns + RUN; i++)
        v[i] = unit_of(s, 0, row) * scale_of(s, i / RUN, row) * (code_at(s, i, row) - 8);
}

/* The least bound of a run of a row, w, of which the screen says v with a scale; `taken`: what it is off is the next
 * run. */
static double check_run(const char *what, int64_t columns, const double *w, const double *v, double unit, int scale,
                        bool taken) {
    double off = 0, length = 0, copy = 0, most = 0, d = unit * scale;
    for (int i = 0; i < RUN; i++) {
        off += (w[i] - v[i]) * (w[i] - v[i]);
        length += w[i] * w[i];
        copy += v[i] * v[i];
        most = fabs(w[i]) > most ? fabs(w[i]) : most;
    }
    double terms = ((double)columns / 8 + 32) * 0x1p-23, steps = ((double)columns / 32 + 22) * 0x1p-23 * 131;
    ck_assert_msg(d >= 0 && sqrt(copy) <= d * (double)RT_SCREEN_MAX_STEPS && (length == 0 || sqrt(off) <= d * 2.83),
                  "%s: off by %.9g steps", what, sqrt(off) / d);
    ck_assert_msg(d <= most / 7.5 + unit * 1.001, "%s: a scale of %.9g units for %.9g", what, d / unit, most / unit);
    double x_error = (double)(taken ? RT_SCREEN_TOP_X_ERROR : RT_SCREEN_X_ERROR);
    return length == 0
               ? 0
               : (taken ? 0 : sqrt(off)) + x_error * sqrt(copy) + terms * (sqrt(length) + sqrt(copy)) + d * steps;
}

/* All runs of a row, w as it is stored. */
static void check_row(const char *what, const view *s, const float *w, int row) {
    double v[MAX_SCREENED], arranged[MAX_SCREENED], least[MAX_SCREENED / RUN] = {0}, spare[MAX_SCREENED / RUN] = {0},
                                                                         largest = 0;
    double unit = unit_of(s, 0, row), most = 0;
    bool describable = true;
    for (int64_t i = 0; i < s->columns; i++) describable &= fabsf(w[i]) <= 0x1p60f;
    ck_assert_msg(isnan(unit) == !describable, "%s: unit %g", what, unit);
    if (!describable) return;
    for (int64_t i = 0; i < s->columns; i++) most = fabs((double)w[i]) > most ? fabs((double)w[i]) : most;
    ck_assert_msg(unit <= most / 7.5 / 255 * (1 + 0x1p-7) || unit == 0x1p-80, "%s: a unit of %g", what, unit);
    read_row(s, row, v);
    for (int64_t i = 0; i < s->columns + RUN; i++)
        arranged[i] = i / RUN == 1 ? arranged[i - RUN] - v[i - RUN] : (double)w[column_of(s, i)];
    for (int64_t i = 0; i < s->runs; i++) {
        int scale = scale_of(s, i, row);
        least[i ? i - 1 : 0] += check_run(what, s->columns, arranged + i * RUN, v + i * RUN, unit, scale, i == 0);
        spare[i ? i - 1 : 0] += unit * scale * 1.1e-4; /* for roundings of the bound itself */
        ck_assert_msg(i != 1 || scale <= RT_SCREEN_MOST_REST_SCALE, "%s: the rest has the scale %d", what, scale);
    }
    for (int64_t i = 0; i < s->runs - 1; i++) largest = least[i] + spare[i] > largest ? least[i] + spare[i] : largest;
    for (int64_t i = 0; i < s->runs - 1; i++) {
        double step = unit_of(s, 1, row), bound = step * bound_of(s, i, row);
        ck_assert_msg(bound >= least[i], "%s: bound %d is %.9g, less than %.9g", what, (int)i, bound, least[i]);
        ck_assert_msg(bound <= least[i] * 1.001 + spare[i] + step * 1.001 && bound_of(s, i, row) <= 127,
                      "%s: bound %d is %.9g, much more than %.9g", what, (int)i, bound, least[i]);
        ck_assert_msg(step <= largest / 126 * (1 + 0x1p-7), "%s: bounds in %.9g", what, step);
    }
}

/* The screen of a group of rows. */
static view screen_rows(rt_dtype dtype, const uint8_t *rows, int64_t columns, uint8_t *screen) {
    rt_screened matrix = {dtype, GROUP, columns, rows};
    float scratch[MAX_COLUMNS * GROUP];
    memset(screen, 0, (size_t)rt_screen_layout(GROUP, columns).bytes);
    rt_screen_order(&matrix, scratch, screen);
    rt_screen_group(&matrix, 0, scratch, screen);
    return view_of(screen, columns);
}

/* A group of zero rows but for this one, somewhere among them. */
static void check_rows(const char *what, rt_dtype dtype, const uint8_t *row, int64_t columns) {
    static uint8_t rows[4 * MAX_COLUMNS * GROUP], screen[2 * MAX_COLUMNS * GROUP];
    float w[MAX_COLUMNS];
    size_t bytes = rt_dtype_bytes(dtype, (size_t)columns), place = next_random() % GROUP;
    memset(rows, 0, GROUP * bytes);
    memcpy(rows + place * bytes, row, bytes);
    view s = screen_rows(dtype, rows, columns, screen);
    rt_dequantize_row(dtype, row, w, (size_t)columns);
    check_row(what, &s, w, (int)place);
    for (int r = 0; r < GROUP; r++)
        for (int64_t i = 0; i < s.runs && r != (int)place; i++)
            ck_assert_msg(scale_of(&s, i, r) == 0, "%s: row %d beside row %zu is not zero", what, r, place);
}

START_TEST(bound_holds) {
    static const float sizes[] = {0, 0x1p-149f, 1e-40f, 1e-30f, 1e-8f, 0x1p-24f, 1e-3f,
                                  1, 7.5f,      1000,   65504,  1e30f, INFINITY, NAN};
    rt_dtype dtype = types[_i];
    uint8_t row[4 * MAX_COLUMNS];
    char what[64];
    state = 5;
    for (size_t s = 0; s < GM_COUNT(sizes); s++)
        for (int round = 0; round < 40; round++) {
            fill_row(dtype, row, MAX_COLUMNS, sizes[s]);
            snprintf(what, sizeof what, "%s of %g", rt_dtype_of(dtype)->text, (double)sizes[s]);
            check_rows(what, dtype, row, MAX_COLUMNS);
        }
}
END_TEST

/* No row tells on another: some are zeros, tiny or large beside some that are not finite. */
START_TEST(rows_do_not_mix) {
    enum { COLUMNS = 160 };
    static const float sizes[] = {0, 1e-40f, 1e-8f, 1, INFINITY, 1000, NAN, 1e30f};
    float w[GROUP][COLUMNS];
    static uint8_t screen[4 * COLUMNS * GROUP];
    char what[32];
    state = 10;
    for (int round = 0; round < 50; round++) {
        for (int r = 0; r < GROUP; r++)
            fill_row(RT_F32, (uint8_t *)w[r], COLUMNS, sizes[next_random() % GM_COUNT(sizes)]);
        view s = screen_rows(RT_F32, (const uint8_t *)w, COLUMNS, screen);
        for (int r = 0; r < GROUP; r++) {
            snprintf(what, sizeof what, "row %d of round %d", r, round);
            check_row(what, &s, w[r], r);
        }
    }
}
END_TEST

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The first run is of the columns with the largest squares, the second of the same ones, and every other column follows
 * in its place. */
START_TEST(columns_are_ordered) {
    enum { COLUMNS = 384 };
    static float w[GROUP * COLUMNS];
    static uint8_t screen[2 * COLUMNS * GROUP];
    double sums[COLUMNS] = {0}, sorted[COLUMNS];
    bool seen[COLUMNS] = {0};
    state = 8;
    for (int i = 0; i < GROUP * COLUMNS; i++) w[i] = random_float(-1, 1) * (float)(1 + i % COLUMNS * 37 % 101);
    w[5] = INFINITY, w[COLUMNS + 6] = NAN; /* count for nothing */
    for (int i = 0; i < GROUP * COLUMNS; i++) sums[i % COLUMNS] += isfinite(w[i]) ? (double)w[i] * (double)w[i] : 0;
    memcpy(sorted, sums, sizeof sums);
    qsort(sorted, COLUMNS, sizeof *sorted, descending);
    view s = screen_rows(RT_F32, (const uint8_t *)w, COLUMNS, screen);
    for (int i = 0; i < COLUMNS + RUN; i++) {
        int column = column_of(&s, i);
        ck_assert_int_lt(column, COLUMNS);
        if (i < RUN) ck_assert_msg(sums[column] >= sorted[RUN - 1], "column %d is none of the largest", column);
        if (i / RUN == 1) ck_assert_int_eq(column, column_of(&s, i - RUN));
        else ck_assert_msg(!seen[column], "column %d twice", column);
        if (i > 2 * RUN) ck_assert_int_gt(column, column_of(&s, i - 1));
        seen[column] = true;
    }
}
END_TEST

/* Runs on the edges of the 16 levels: halves between them, one large value, few distinct values, one that is not
 * finite. */
START_TEST(bound_holds_on_edges) {
    static const float odd[] = {INFINITY, -INFINITY, NAN, FLT_MAX, 0x1p60f, 0x1.000002p60f, -0x1p60f};
    enum { COLUMNS = 128 };
    float w[COLUMNS];
    state = 6;
    for (int i = 0; i < COLUMNS; i++) w[i] = (float)(i % 16) - 7.5f;
    check_rows("halves", RT_F32, (const uint8_t *)w, COLUMNS);
    for (int scale = -140; scale < 60; scale++) {
        for (int i = 0; i < COLUMNS; i++) w[i] = ldexpf((float)((int)(next_random() % 31) - 15) / 2, scale);
        check_rows("half steps", RT_F32, (const uint8_t *)w, COLUMNS);
        for (int i = 0; i < COLUMNS; i++)
            w[i] = ldexpf(i % RUN == scale % 16 + 15 ? 1 : random_float(-1e-3f, 1e-3f), scale);
        check_rows("one large value", RT_F32, (const uint8_t *)w, COLUMNS);
        for (int i = 0; i < COLUMNS; i++) w[i] = ldexpf(i % 2 ? 1 : -1, scale);
        check_rows("two values", RT_F32, (const uint8_t *)w, COLUMNS);
    }
    for (size_t o = 0; o < GM_COUNT(odd); o++) {
        for (int i = 0; i < COLUMNS; i++) w[i] = random_float(-1, 1);
        w[o * 17] = odd[o];
        check_rows("not finite or huge", RT_F32, (const uint8_t *)w, COLUMNS);
    }
}
END_TEST

/* ---- tables ---- */

typedef enum table_kind { RANDOM, EQUAL, NEAR, EDGES, DOMINANT, TABLES } table_kind;

static void copy_row(uint8_t *data, size_t bytes, int64_t to, int64_t from) {
    if (to != from) memcpy(data + (size_t)to * bytes, data + (size_t)from * bytes, bytes);
}

/* The least change of one element: plain types by their last bit, blocks by one code. */
static void nudge(rt_dtype dtype, uint8_t *row, size_t bytes) {
    size_t unit = (size_t)rt_dtype_of(dtype)->block_bytes, at = next_random() % (bytes / unit) * unit;
    if (is_plain(dtype)) row[at] ^= 1;
    else row[at + (dtype == RT_Q6_K ? next_random() % 128 : 2 + next_random() % 32)] ^= 1;
}

static void make_rows(rt_dtype dtype, table_kind kind, uint8_t *data, int64_t columns) {
    static const float edges[] = {0, 0x1p-24f, 6e-8f, 65504, INFINITY, NAN, 1e-4f, 1e25f};
    size_t bytes = rt_dtype_bytes(dtype, (size_t)columns);
    for (int64_t r = 0; r < ROWS; r++) {
        uint8_t *row = data + (size_t)r * bytes;
        fill_row(dtype, row, columns, kind == EDGES && r % 3 == 0 ? edges[r / 3 % (int64_t)GM_COUNT(edges)] : 0.01f);
        if (kind == EQUAL || kind == NEAR) copy_row(data, bytes, r, 0);
        if (kind == NEAR && r % 5) nudge(dtype, row, bytes);
        if (kind == DOMINANT && is_plain(dtype)) put_element(dtype, row, r % columns, random_float(-500, 500));
        if (kind == DOMINANT && !is_plain(dtype)) fill_row(dtype, row, rt_dtype_of(dtype)->block_elems, 20);
        if (kind == DOMINANT && r % 7 == 6) copy_row(data, bytes, r, r - 3);
    }
}

/* A weight of data[rows, columns], and its screen. */
static void add_screened(rt_weights *weights, const char *name, rt_dtype dtype, int64_t rows, int64_t columns,
                         const void *data) {
    gm_diag diag = {0};
    rt_tensor tensor = {.name = name,
                        .dtype = dtype,
                        .rank = 2,
                        .dim = {rows, columns},
                        .data = data,
                        .bytes = rt_dtype_bytes(dtype, (size_t)columns) * (size_t)rows};
    ck_assert_int_eq(rt_weights_add(weights, "test", &tensor, &diag), GM_OK);
    ck_assert_msg(rt_derive(weights, rt_derived_name(&weights->arena, RT_DERIVED_SCREEN, name), RT_DERIVED_KEPT, NULL,
                            &diag) == GM_OK,
                  "%s", diag.message);
}

static const rt_tensor *add_table(rt_weights *weights, const char *name, rt_dtype dtype, table_kind kind,
                                  int64_t columns) {
    uint8_t *data = gm_arena_alloc(&weights->arena, rt_dtype_bytes(dtype, (size_t)columns) * ROWS);
    make_rows(dtype, kind, data, columns);
    add_screened(weights, name, dtype, ROWS, columns, data);
    return rt_weights_find(weights, name);
}

/* ---- inputs ---- */

enum { INPUTS = 22 };

/* like: a row of the table, which x may resemble. */
static void make_x(int kind, float *x, int64_t columns, const float *like) {
    static const float sizes[] = {1, 0, 1e-30f, 0x1p-149f, 1e30f, 0x1p40f, 0x1.fffffep39f, FLT_MAX};
    float size = kind < (int)GM_COUNT(sizes) ? sizes[kind] : 1;
    int64_t some = (int64_t)next_random() % columns;
    for (int64_t i = 0; i < columns; i++) x[i] = random_float(-1, 1) * size;
    for (int64_t i = 0; i < columns && kind >= 8 && kind < 14; i++) {
        if (kind == 8) x[i] = next_random() % 2 ? 1 : -1;
        if (kind == 9) x[i] = 1;
        if (kind == 10) x[i] = i == some;
        if (kind == 11) x[i] = i / RUN == some / RUN ? x[i] * 1000 : x[i] * 1e-3f;
        if (kind == 12 && isfinite(like[i])) x[i] = like[i];
        if (kind == 13 && isfinite(like[i])) x[i] = -like[i];
    }
    if (kind == 5 || kind == 6) x[some] = size;
    if (kind == 14) x[some] = 1e4f;
    if (kind == 15) x[some] = NAN;
    if (kind == 16) x[some] = INFINITY;
    if (kind == 17) x[some] = -INFINITY, x[0] = NAN;
    if (kind == 18) x[some] = 1e20f;
    if (kind == 19) x[some] = 1e-44f;
    for (int64_t i = 0; i < columns && kind == 20; i++) x[i] = ldexpf(x[i], (int)(next_random() % 60) - 30);
    for (int64_t i = 0; i < columns && kind == 21; i++) x[i] = ldexpf(x[i], (int)(next_random() % 250) - 140);
}

/* ---- one type ---- */

enum { WIDTHS = 2, PER_TYPE = TABLES * WIDTHS };

static int64_t width_of(rt_dtype dtype, int i) {
    return (int64_t)(dtype == RT_Q6_K ? 256 : 128) * (i ? 3 : 1);
}

/* Parameters: INPUTS of each width; results: screened and full choice for each table and input. */
static void write_function(rt_dtype dtype, gm_string *out) {
    gm_string list = {0};
    char name[16], weight[16];
    gm_string_printf(out, "func @f(");
    for (int i = 0; i < WIDTHS * INPUTS; i++)
        gm_string_printf(out, "%s%%x%d_%d: f32[1,%d]", i ? ", " : "", i / INPUTS, i % INPUTS,
                         (int)width_of(dtype, i / INPUTS));
    gm_string_printf(out, ") -> (");
    for (int i = 0; i < PER_TYPE; i++) gm_string_printf(out, "%si32[1,%d], i32[1,%d]", i ? ", " : "", INPUTS, INPUTS);
    gm_string_printf(out, ") {\n");
    for (int t = 0; t < PER_TYPE; t++) {
        int width = t % WIDTHS, k = (int)width_of(dtype, width);
        gm_string_printf(out, "  %%w%d = weight {name = \"w%d\"} : %s[%d,%d]\n", t, t, rt_dtype_of(dtype)->text, ROWS,
                         k);
        snprintf(name, sizeof name, "s%d", t);
        snprintf(weight, sizeof weight, "w%d", t);
        write_screen(out, name, weight, ROWS, k);
        for (int i = 0; i < INPUTS; i++) {
            gm_string_printf(out, "  %%a%d_%d = screened_argmax %%x%d_%d, %%w%d, %%s%d : i32[1,1]\n", t, i, width, i, t,
                             t);
            gm_string_printf(out, "  %%y%d_%d = matmul %%x%d_%d, %%w%d {impl = \"gemv\"} : f32[1,%d]\n", t, i, width, i,
                             t, ROWS);
            gm_string_printf(out, "  %%b%d_%d = argmax %%y%d_%d : i32[1,1]\n", t, i, t, i);
        }
        for (int which = 0; which < 2; which++) {
            gm_string_printf(out, "  %%%c%d = concat ", which ? 'q' : 'p', t);
            for (int i = 0; i < INPUTS; i++)
                gm_string_printf(out, "%s%%%c%d_%d", i ? ", " : "", which ? 'b' : 'a', t, i);
            gm_string_printf(out, " {axis = 1} : i32[1,%d]\n", INPUTS);
        }
        gm_string_printf(&list, "%s%%p%d, %%q%d", t ? ", " : "", t, t);
    }
    gm_string_printf(out, "  return %s\n}\n", list.data);
    gm_string_free(&list);
}

static ir_array row_of(gm_arena *arena, int64_t columns) {
    return (ir_array){.dtype = RT_F32, .rank = 2, .dim = {1, columns}, .data = GM_NEW_ARRAY(arena, float, columns)};
}

START_TEST(same_choice) {
    rt_dtype dtype = types[(size_t)_i / GM_COUNT(cpus)];
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_string text = {0};
    ir_array args[WIDTHS * INPUTS], results[2 * PER_TYPE];
    char name[PER_TYPE][8];
    state = (uint64_t)_i + 1;
    for (int t = 0; t < PER_TYPE; t++) {
        snprintf(name[t], sizeof name[t], "w%d", t);
        add_table(&weights, name[t], dtype, (table_kind)(t / WIDTHS), width_of(dtype, t % WIDTHS));
    }
    for (int i = 0; i < WIDTHS * INPUTS; i++) {
        int64_t columns = width_of(dtype, i / INPUTS);
        const rt_tensor *random = rt_weights_find(&weights, name[RANDOM * WIDTHS + i / INPUTS]);
        float like[MAX_COLUMNS];
        rt_dequantize_row(dtype, (const uint8_t *)random->data + 71 * rt_dtype_bytes(dtype, (size_t)columns), like,
                          (size_t)columns);
        args[i] = row_of(&arena, columns);
        make_x(i % INPUTS, args[i].data, columns, like);
    }
    write_function(dtype, &text);
    if (run_text(cpus[(size_t)_i % GM_COUNT(cpus)], &text, &weights, args, WIDTHS * INPUTS, &arena, results))
        for (int t = 0; t < PER_TYPE; t++)
            for (int i = 0; i < INPUTS; i++) {
                int32_t got = ((const int32_t *)results[2 * t].data)[i],
                        want = ((const int32_t *)results[2 * t + 1].data)[i];
                ck_assert_msg(got == want, "%s, table %d of %d columns, input %d: row %d instead of %d",
                              rt_dtype_of(dtype)->text, t / WIDTHS, (int)width_of(dtype, t % WIDTHS), i, got, want);
            }
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* Rows that cannot win are not read: here they have become larger than the winner since the screen was made. The second
 * is the other thread's best, which is always read. */
START_TEST(losers_are_not_read) {
    enum { SECOND = 10, WINNER = 205, COLUMNS = 384 };
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_string text = {0};
    ir_array x = row_of(&arena, COLUMNS), result;
    state = 9;
    float *w = (float *)(uintptr_t)add_table(&weights, "w", RT_F32, RANDOM, COLUMNS)->data;
    rt_weights_drop(&weights, "w:s4");
    make_x(0, x.data, COLUMNS, NULL);
    memcpy(w + WINNER * COLUMNS, x.data, COLUMNS * sizeof(float));
    for (int i = 0; i < COLUMNS; i++) w[SECOND * COLUMNS + i] = ((float *)x.data)[i] / 2;
    gm_diag diag = {0};
    ck_assert_int_eq(rt_derive(&weights, "w:s4", RT_DERIVED_KEPT, NULL, &diag), GM_OK);
    for (int64_t r = 0; r < ROWS / GROUP * GROUP; r++) /* the others have no screen */
        for (int64_t i = 0; i < COLUMNS && r != WINNER && r != SECOND; i++)
            w[r * COLUMNS + i] = 10 * ((float *)x.data)[i];
    gm_string_printf(&text, "func @f(%%x: f32[1,%d]) -> (i32[1,1]) {\n  %%w = weight {name = \"w\"} : f32[%d,%d]\n",
                     COLUMNS, ROWS, COLUMNS);
    write_screen(&text, "s", "w", ROWS, COLUMNS);
    gm_string_printf(&text, "  %%a = screened_argmax %%x, %%w, %%s : i32[1,1]\n  return %%a\n}\n");
    if (run_text(cpus[_i], &text, &weights, &x, 1, &arena, &result))
        ck_assert_int_eq(*(const int32_t *)result.data, WINNER);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* x points where the screen of the better row is off, so that its score is about all that its bound allows; those of
 * the others are just below. */
enum { PAIRS = 48, PAIR_COLUMNS = 256 };

static void make_pair(rt_weights *weights, const char *name, float *x) {
    float *w = (float *)gm_arena_alloc(&weights->arena, GROUP * PAIR_COLUMNS * sizeof *w), *better = w + PAIR_COLUMNS;
    static uint8_t screen[2 * PAIR_COLUMNS * GROUP];
    double score = 0, square = 0, v[PAIR_COLUMNS + RUN];
    memset(w, 0, GROUP * PAIR_COLUMNS * sizeof *w);
    for (int i = 0; i < PAIR_COLUMNS; i++) better[i] = random_float(-1, 1);
    /* The first run's columns whatever the other rows become: so that the screen of this one stays as it is. */
    for (int i = 0; i < RUN; i++) better[i * 7] = copysignf(3, better[i * 7]);
    view s = screen_rows(RT_F32, (const uint8_t *)w, PAIR_COLUMNS, screen);
    read_row(&s, 1, v);
    for (int i = 0; i < PAIR_COLUMNS; i++) x[i] = better[i];
    for (int i = 0; i < PAIR_COLUMNS + RUN; i++) x[column_of(&s, i)] -= (float)v[i];
    for (int i = 0; i < PAIR_COLUMNS; i++) {
        score += (double)better[i] * (double)x[i];
        square += (double)x[i] * (double)x[i];
    }
    for (int i = 0; i < GROUP * PAIR_COLUMNS; i++)
        if (i / PAIR_COLUMNS != 1) w[i] = (float)((score - 0.01 * fabs(score)) / square * (double)x[i % PAIR_COLUMNS]);
    add_screened(weights, name, RT_F32, GROUP, PAIR_COLUMNS, w);
    view made = view_of(rt_weights_find(weights, rt_derived_name(&weights->arena, RT_DERIVED_SCREEN, name))->data,
                        PAIR_COLUMNS);
    double again[PAIR_COLUMNS + RUN];
    read_row(&made, 1, again);
    ck_assert_mem_eq(again, v, sizeof v);
}

/* The choices for each row of x[i] by the rows of weight "wi" [rows, columns], for all i: *result [rows of x, count].
 * False: see run_text. */
static bool run_choices(const char *cpu, const rt_weights *weights, const ir_array *x, int count, int64_t rows,
                        gm_arena *arena, ir_array *result) {
    gm_string text = {0}, body = {0}, list = {0};
    int x_rows = (int)x->dim[0], columns = (int)x->dim[1];
    char name[8], screen[8];
    gm_string_printf(&text, "func @f(");
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "w%d", i);
        snprintf(screen, sizeof screen, "s%d", i);
        gm_string_printf(&text, "%s%%x%d: f32[%d,%d]", i ? ", " : "", i, x_rows, columns);
        gm_string_printf(&body, "  %%%s = weight {name = \"%s\"} : f32[%d,%d]\n", name, name, (int)rows, columns);
        write_screen(&body, screen, name, rows, columns);
        gm_string_printf(&body, "  %%a%d = screened_argmax %%x%d, %%%s, %%%s : i32[%d,1]\n", i, i, name, screen,
                         x_rows);
        gm_string_printf(&list, "%s%%a%d", i ? ", " : "", i);
    }
    gm_string_printf(&text, ") -> (i32[%d,%d]) {\n%s  %%all = concat %s {axis = 1} : i32[%d,%d]\n  return %%all\n}\n",
                     x_rows, count, body.data, list.data, x_rows, count);
    gm_string_free(&body);
    gm_string_free(&list);
    return run_text(cpu, &text, weights, x, count, arena, result);
}

START_TEST(scores_at_their_bounds) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    ir_array args[PAIRS], result;
    state = 21 + (uint64_t)_i;
    for (int i = 0; i < PAIRS; i++) {
        args[i] = row_of(&arena, PAIR_COLUMNS);
        make_pair(&weights, gm_arena_printf(&arena, "w%d", i), args[i].data);
    }
    if (run_choices(cpus[_i], &weights, args, PAIRS, GROUP, &arena, &result))
        for (int i = 0; i < PAIRS; i++) ck_assert_msg(((const int32_t *)result.data)[i] == 1, "pair %d", i);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* The row that is estimated highest scores much less, though no less than its margin allows, and the largest could not
 * reach what it was supposed to: it was changed, along x, after the screen was made. The other rows of x are any one
 * and the negative of the first. */
enum {
    TRIALS = 12,
    TRIAL_COLUMNS = 384,
    TRIAL_X = 3,
    TRIAL_ROWS = 3333 /* several slabs, for both threads */,
    HIGHEST = 1203,
    LARGEST = 1500
};

static double product(const float *w, const float *x) {
    double sum = 0;
    for (int i = 0; i < TRIAL_COLUMNS; i++) sum += (double)w[i] * (double)x[i];
    return sum;
}

/* The row changes along x, so that this is its score. */
static void set_score(float *w, const float *x, double score) {
    double c = (score - product(w, x)) / product(x, x);
    for (int i = 0; i < TRIAL_COLUMNS; i++) w[i] += (float)(c * (double)x[i]);
}

/* How far a score of row HIGHEST may be off, of a matrix whose other rows are zero. */
static double margin_of(const float *w, const float *x) {
    static uint8_t screen[2 * TRIAL_COLUMNS * GROUP];
    view s = screen_rows(RT_F32, (const uint8_t *)(w + HIGHEST / GROUP * GROUP * TRIAL_COLUMNS), TRIAL_COLUMNS, screen);
    double margin = 0;
    for (int64_t run = 1; run < s.runs; run++) {
        double square = 0;
        for (int i = 0; i < RUN; i++) square += pow((double)x[column_of(&s, run * RUN + i)], 2);
        margin += unit_of(&s, 1, HIGHEST % GROUP) * bound_of(&s, run - 1, HIGHEST % GROUP) * sqrt(square);
    }
    return margin;
}

static void make_trial(rt_weights *weights, const char *name, float *x, int *largest) {
    float *w = (float *)gm_arena_alloc(&weights->arena, TRIAL_ROWS * TRIAL_COLUMNS * sizeof *w),
          *highest = w + HIGHEST * TRIAL_COLUMNS;
    memset(w, 0, TRIAL_ROWS * TRIAL_COLUMNS * sizeof *w);
    for (int i = 0; i < TRIAL_COLUMNS; i++) highest[i] = random_float(-1, 1);
    for (int i = 0; i < 2 * TRIAL_COLUMNS; i++) x[i] = random_float(-1, 1);
    for (int i = 0; i < TRIAL_COLUMNS; i++) x[2 * TRIAL_COLUMNS + i] = -x[i];
    double margin = margin_of(w, x);
    set_score(highest, x, 0.7 * margin);
    set_score(w + LARGEST * TRIAL_COLUMNS, x, 0.25 * margin);
    add_screened(weights, name, RT_F32, TRIAL_ROWS, TRIAL_COLUMNS, w);
    set_score(highest, x, 0.1 * margin);
    for (int r = 0; r < TRIAL_X; r++) {
        double most = -INFINITY;
        for (int i = 0; i < TRIAL_ROWS; i++) {
            double score = product(w + i * TRIAL_COLUMNS, x + r * TRIAL_COLUMNS);
            if (score > most) most = score, largest[r] = i;
        }
    }
    ck_assert_int_eq(largest[0], LARGEST);
}

START_TEST(scores_below_their_estimates) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    ir_array args[TRIALS], result;
    int largest[TRIALS][TRIAL_X];
    state = 31 + (uint64_t)_i;
    for (int i = 0; i < TRIALS; i++) {
        args[i] = row_of(&arena, TRIAL_X * TRIAL_COLUMNS);
        args[i].dim[0] = TRIAL_X, args[i].dim[1] = TRIAL_COLUMNS;
        make_trial(&weights, gm_arena_printf(&arena, "w%d", i), args[i].data, largest[i]);
    }
    if (run_choices(cpus[_i], &weights, args, TRIALS, TRIAL_ROWS, &arena, &result))
        for (int i = 0; i < TRIALS * TRIAL_X; i++) {
            int got = ((const int32_t *)result.data)[i], want = largest[i % TRIALS][i / TRIALS];
            ck_assert_msg(got == want, "trial %d, row %d of x: %d instead of %d", i % TRIALS, i / TRIALS, got, want);
        }
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* ---- deriving ---- */

/* From a mapped file on three threads the same as from memory on one; the file's tensor stays readable. */
START_TEST(derived_from_a_mapped_file) {
    enum { COLUMNS = 256, COUNT = 2500 };
    size_t bytes = sizeof(float) * COLUMNS * COUNT, mapped_bytes;
    const uint8_t *mapped;
    gm_diag diag = {0};
    rt_weights weights = {0};
    rt_team *team;
    float *values = malloc(bytes);
    state = 11;
    fill_row(RT_F32, (uint8_t *)values, COLUMNS * COUNT, 1);
    temp_make();
    const char *path = temp_write("values", values, bytes);
    ck_assert_int_eq(rt_weights_map(&weights, path, &diag, &mapped, &mapped_bytes), GM_OK);
    temp_remove();
    rt_tensor file =
                  {.name = "file", .dtype = RT_F32, .rank = 2, .dim = {COUNT, COLUMNS}, .data = mapped, .bytes = bytes},
              memory = file;
    memory.name = "memory", memory.data = values;
    ck_assert(rt_weights_add(&weights, path, &file, &diag) == GM_OK &&
              rt_weights_add(&weights, path, &memory, &diag) == GM_OK);
    ck_assert(rt_weights_is_mapped(&weights, rt_weights_find(&weights, "file")) &&
              !rt_weights_is_mapped(&weights, rt_weights_find(&weights, "memory")));
    ck_assert_int_eq(rt_team_open(3, &diag, &team), GM_OK);
    ck_assert_int_eq(rt_derive(&weights, "file:s4", RT_DERIVED_KEPT, team, &diag), GM_OK);
    ck_assert_int_eq(rt_derive(&weights, "memory:s4", RT_DERIVED_KEPT, NULL, &diag), GM_OK);
    const rt_tensor *a = rt_weights_find(&weights, "file:s4"), *b = rt_weights_find(&weights, "memory:s4");
    int64_t dim[2];
    rt_screen_shape(COUNT, COLUMNS, dim);
    ck_assert(a->dtype == RT_S4 && a->dim[0] == dim[0] && a->dim[1] == dim[1] &&
              a->bytes == (size_t)(dim[0] * dim[1]) * 18 / 32);
    ck_assert(a->bytes >= (size_t)rt_screen_layout(COUNT, COLUMNS).bytes &&
              a->bytes < (size_t)rt_screen_layout(COUNT, COLUMNS).bytes + 9 * 18);
    ck_assert_mem_eq(a->data, b->data, a->bytes);
    ck_assert_mem_eq(mapped, values, bytes);
    ck_assert_int_eq(rt_derive(&weights, "file:s4", RT_DERIVED_KEPT, team, &diag), GM_OK); /* is there already */
    ck_assert_ptr_eq(rt_weights_find(&weights, "file:s4")->data, a->data);
    rt_team_close(team);
    rt_weights_close(&weights);
    free(values);
}
END_TEST

START_TEST(what_cannot_be_derived) {
    float values[384] = {0};
    gm_diag diag = {.quiet = true};
    rt_weights weights = {0};
    rt_tensor odd = {
        .name = "odd", .dtype = RT_F32, .rank = 2, .dim = {2, 176}, .data = values, .bytes = sizeof values};
    rt_tensor vector = {
        .name = "vector", .dtype = RT_F32, .rank = 1, .dim = {384}, .data = values, .bytes = sizeof values};
    rt_tensor small = {.name = "small", .dtype = RT_Q4_0, .rank = 2, .dim = {2, 128}, .data = values, .bytes = 144};
    ck_assert(rt_weights_add(&weights, "x", &odd, &diag) == GM_OK &&
              rt_weights_add(&weights, "x", &vector, &diag) == GM_OK &&
              rt_weights_add(&weights, "x", &small, &diag) == GM_OK);
    ck_assert_int_eq(rt_derive(&weights, "none:s4", RT_DERIVED_KEPT, NULL, &diag), GM_FORMAT);
    ck_assert_msg(strstr(diag.message, "\"none\" is missing"), "%s", diag.message);
    static const char *const names[] = {"odd:s4", "vector:s4", "small:s4"};
    for (size_t i = 0; i < GM_COUNT(names); i++) {
        diag = (gm_diag){.quiet = true};
        ck_assert_int_eq(rt_derive(&weights, names[i], RT_DERIVED_KEPT, NULL, &diag), GM_FORMAT);
        ck_assert_msg(strstr(diag.message, "cannot become a screen"), "%s", diag.message);
    }
    ck_assert(rt_derived_source("w:s4") == 1 && !rt_derived_source("w") && !rt_derived_source(":s4") &&
              !rt_derived_source("w:s4x"));
    rt_weights_close(&weights);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("screen");
    TCase *tcase = tcase_create("screen");
    tcase_set_timeout(tcase, SECONDS);
    tcase_add_loop_test(tcase, bound_holds, 0, (int)GM_COUNT(types));
    tcase_add_test(tcase, bound_holds_on_edges);
    tcase_add_test(tcase, rows_do_not_mix);
    tcase_add_test(tcase, columns_are_ordered);
    tcase_add_loop_test(tcase, same_choice, 0, (int)(GM_COUNT(types) * GM_COUNT(cpus)));
    tcase_add_loop_test(tcase, scores_at_their_bounds, 0, (int)GM_COUNT(cpus));
    tcase_add_loop_test(tcase, scores_below_their_estimates, 0, (int)GM_COUNT(cpus));
    tcase_add_loop_test(tcase, losers_are_not_read, 0, (int)GM_COUNT(cpus));
    tcase_add_test(tcase, derived_from_a_mapped_file);
    tcase_add_test(tcase, what_cannot_be_derived);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
