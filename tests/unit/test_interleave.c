/* Interleaved rows: every value is the stored one to the bit; compiled products with them are near a sum in double on
 * several --target-cpu, those of several rows of x the same as of each alone; and integer products are those with the
 * stored rows, to the bit, or as near as rotated codes beside the middle of two allow. */
#include "runtime/derive.h"
#include "runtime/interleave.h"
#include "runtime/rotate.h"
#include "tests/unit/products.h"
#include "tests/unit/suite.h"

#include <stdio.h>

enum { ROWS = 48, MORE_ROWS = 16, SECONDS = 240, WIDTHS = 3, PRODUCTS = 3 };

static const rt_dtype stored_types[] = {RT_Q4_0, RT_Q5_0, RT_Q8_0, RT_Q4_K, RT_Q5_K, RT_Q6_K};

static int64_t width_of(rt_dtype dtype, int i) {
    static const int blocks[WIDTHS] = {1, 3, 8};
    return blocks[i] * rt_dtype_of(dtype)->block_elems;
}

static const rt_tensor *derived(rt_weights *weights, const rt_tensor *w) {
    gm_diag diag = {0};
    const char *name = rt_derived_name(&weights->arena, RT_DERIVED_ROWS, w->name);
    ck_assert_msg(rt_derive(weights, name, RT_DERIVED_KEPT, NULL, &diag) == GM_OK, "%s", diag.message);
    return rt_weights_find(weights, name);
}

/* ---- values ---- */

START_TEST(values_are_those_stored) {
    rt_dtype dtype = stored_types[_i];
    gm_arena arena = {0};
    state = (uint64_t)_i + 1;
    for (int i = 0; i < WIDTHS; i++) {
        rt_weights weights = {0};
        rt_tensor w = *make_weight(&weights, "w", dtype, ROWS, width_of(dtype, i));
        const rt_tensor *rows = derived(&weights, &w);
        float *found = GM_NEW_ARRAY(&arena, float, w.dim[1]);
        ck_assert_int_eq(rows->dtype, rt_interleaved_type(dtype));
        for (int64_t row = 0; row < ROWS; row++) {
            const float *want = widened_row(&w, row, &arena);
            rt_deinterleave_row(rows->dtype, rows->data, (size_t)row, (size_t)w.dim[1], found);
            for (int64_t k = 0; k < w.dim[1]; k++)
                ck_assert_msg(memcmp(&found[k], &want[k], sizeof *want) == 0 || (isnan(found[k]) && isnan(want[k])),
                              "%s, row %d: element %d is %.9g instead of %.9g", rt_dtype_of(dtype)->text, (int)row,
                              (int)k, (double)found[k], (double)want[k]);
        }
        rt_weights_close(&weights);
    }
    gm_arena_free(&arena);
}
END_TEST

/* Whoever takes a slice of rows, and of however many there are. */
START_TEST(threads_derive_the_same) {
    static const int64_t rows[] = {16, 272, 1040, 50016};
    gm_diag diag = {0};
    rt_team *team;
    ck_assert_int_eq(rt_team_open(3, &diag, &team), GM_OK);
    for (size_t i = 0; i < GM_COUNT(rows); i++)
        for (rt_derived kind = RT_DERIVED_ROWS; kind < RT_DERIVED_COUNT; kind++) {
            const rt_tensor *made[2];
            rt_weights weights[2] = {{.count = 0}, {.count = 0}};
            for (int j = 0; j < 2; j++) {
                state = i + 5;
                const rt_tensor *w = make_weight(&weights[j], "w", RT_Q5_0, rows[i], 128);
                const char *name = rt_derived_name(&weights[j].arena, kind, w->name);
                ck_assert_int_eq(rt_derive(&weights[j], name, RT_DERIVED_KEPT, j ? team : NULL, &diag), GM_OK);
                made[j] = rt_weights_find(&weights[j], name);
            }
            ck_assert_uint_eq(made[0]->bytes, made[1]->bytes);
            ck_assert_msg(memcmp(made[0]->data, made[1]->data, made[0]->bytes) == 0, "%d rows", (int)rows[i]);
            for (int j = 0; j < 2; j++) rt_weights_close(&weights[j]);
        }
    rt_team_close(team);
}
END_TEST

START_TEST(what_cannot_be_interleaved_is_refused) {
    static const struct {
        const char *name;
        rt_dtype dtype;
        int64_t rows, columns;
    } bad[] = {
        {"odd", RT_Q8_0, 17, 64}, {"few", RT_Q5_0, 8, 64}, {"other", RT_Q4_1, 16, 64}, {"floats", RT_F32, 16, 64}};
    rt_weights weights = {0};
    gm_diag diag = {0};
    rt_tensor none;
    for (size_t i = 0; i < GM_COUNT(bad); i++) {
        make_weight(&weights, bad[i].name, bad[i].dtype, bad[i].rows, bad[i].columns);
        const char *name = rt_derived_name(&weights.arena, RT_DERIVED_ROWS, bad[i].name);
        ck_assert_int_eq(rt_derive(&weights, name, RT_DERIVED_KEPT, NULL, &diag), GM_FORMAT);
        ck_assert(!rt_derived_shape(name, rt_weights_find(&weights, bad[i].name), &none));
    }
    ck_assert_int_eq(rt_derive(&weights, "none:r16", RT_DERIVED_KEPT, NULL, &diag), GM_FORMAT);
    ck_assert(rt_derived_source("w:r16") == 1 && !rt_derived_source("w") && !rt_derived_source(":r16") &&
              !rt_is_screen("w:r16") && rt_is_screen("w:s4"));
    rt_weights_close(&weights);
}
END_TEST

/* ---- products ---- */

enum { SEVERAL = 1 };
static const int row_counts[PRODUCTS] = {1, [SEVERAL] = 3, EDGES};

/* Parameters: x of each number of rows of each width; results: their products with w and v, and of the last row of each
 * alone. */
static void write_function(const char *type, rt_dtype dtype, gm_string *out) {
    gm_string params = {0}, types_text = {0}, body = {0}, returned = {0};
    int all = ROWS + MORE_ROWS;
    for (int i = 0; i < WIDTHS; i++) {
        int columns = (int)width_of(dtype, i);
        gm_string_printf(&body,
                         "  %%w%d = weight {name = \"w%d:r16\"} : %s_r16[%d,%d]\n  %%v%d = weight {name = \"v%d:r16\"} "
                         ": %s_r16[%d,%d]\n",
                         i, i, type, ROWS, columns, i, i, type, MORE_ROWS, columns);
        for (int p = 0; p < PRODUCTS; p++) {
            const char *comma = i || p ? ", " : "";
            int rows = row_counts[p];
            gm_string_printf(&params, "%s%%x%d_%d: f32[%d,%d]", comma, i, p, rows, columns);
            gm_string_printf(&types_text, "%sf32[%d,%d], f32[1,%d]", comma, rows, all, all);
            gm_string_printf(&returned, "%s%%y%d_%d, %%z%d_%d", comma, i, p, i, p);
            gm_string_printf(&body, "  %%y%d_%d = matmul %%x%d_%d, %%w%d, %%v%d {impl = \"gemv_int16\"} : f32[%d,%d]\n",
                             i, p, i, p, i, i, rows, all);
            gm_string_printf(&body, "  %%l%d_%d = slice %%x%d_%d {axis = 0, start = %d, size = 1} : f32[1,%d]\n", i, p,
                             i, p, rows - 1, columns);
            gm_string_printf(&body, "  %%z%d_%d = matmul %%l%d_%d, %%w%d, %%v%d {impl = \"gemv_int16\"} : f32[1,%d]\n",
                             i, p, i, p, i, i, all);
        }
    }
    gm_string_printf(out, "func @f(%s) -> (%s) {\n%s  return %s\n}\n", params.data, types_text.data, body.data,
                     returned.data);
    gm_string_free(&params);
    gm_string_free(&types_text);
    gm_string_free(&body);
    gm_string_free(&returned);
}

static void check_rows(const rt_tensor *w, const ir_array *x, const ir_array *y, const ir_array *last, int64_t first,
                       bool edges) {
    int64_t stride = ROWS + MORE_ROWS, rows = x->dim[0];
    const float *out = y->data;
    gm_arena arena = {0};
    for (int64_t n = 0; n < w->dim[0]; n++) {
        const float *row = widened_row(w, n, &arena), alone = ((const float *)last->data)[first + n];
        for (int64_t m = 0; m < rows; m++)
            check_dot(w, row, (const float *)x->data + m * w->dim[1], out[m * stride + first + n],
                      edges ? "rows of edges" : "rows", INTERLEAVED_MOST);
        ck_assert(memcmp(&out[(rows - 1) * stride + first + n], &alone, sizeof alone) == 0);
    }
    gm_arena_free(&arena);
}

/* Scales of parts of a block of 256. */
static bool is_part_scale(rt_dtype dtype, int byte) {
    return dtype == RT_Q6_K ? byte >= 192 : (dtype == RT_Q4_K || dtype == RT_Q5_K) && byte < 16;
}

/* Two rows whose codes are all as small or as large as their bits can be: with x that is all equal the largest sums of
 * high digits that there are. */
static void put_extremes(const rt_tensor *w) {
    enum { LEAST = EDGES_END, MOST };
    int block = rt_dtype_of(w->dtype)->block_bytes;
    size_t bytes = rt_dtype_bytes(w->dtype, (size_t)w->dim[1]);
    for (int row = LEAST; row <= MOST; row++)
        for (size_t i = 0; i < bytes; i++) {
            uint8_t *at = (uint8_t *)w->data + (size_t)row * bytes + i;
            int byte = (int)(i % (size_t)block);
            if (!is_part_scale(w->dtype, byte))
                *at = (uint8_t)((row == LEAST ? 0 : 0xFF) ^ (w->dtype == RT_Q8_0 ? 0x80 : 0));
            if (byte == block - 1) put_scales(type_of(w->dtype), at - byte, row);
        }
}

START_TEST(products) {
    rt_dtype dtype = stored_types[(size_t)_i / GM_COUNT(cpus)];
    const char *cpu = cpus[(size_t)_i % GM_COUNT(cpus)];
    rt_weights weights = {0};
    rt_tensor w[WIDTHS][2];
    gm_arena arena = {0};
    gm_string text = {0};
    ir_array x[WIDTHS * PRODUCTS], results[2 * WIDTHS * PRODUCTS];
    state = (uint64_t)_i + 1;
    for (int i = 0; i < WIDTHS; i++) {
        for (int part = 0; part < 2; part++) {
            const char *name = gm_arena_printf(&weights.arena, "%c%d", part ? 'v' : 'w', i);
            w[i][part] = *make_weight(&weights, name, dtype, part ? MORE_ROWS : ROWS, width_of(dtype, i));
            put_extremes(&w[i][part]);
            derived(&weights, &w[i][part]);
        }
        for (int p = 0; p < PRODUCTS; p++)
            x[i * PRODUCTS + p] = row_counts[p] == EDGES ? edge_x(width_of(dtype, i), &arena)
                                                         : random_x(row_counts[p], width_of(dtype, i), &arena);
        /* a row of those that are few enough to go together */
        fill_edge(EQUAL, (float *)x[i * PRODUCTS + SEVERAL].data, width_of(dtype, i));
    }
    write_function(rt_dtype_of(dtype)->text, dtype, &text);
    if (run_text(cpu, &text, &weights, x, WIDTHS * PRODUCTS, &arena, results))
        for (int i = 0; i < WIDTHS * PRODUCTS; i++)
            for (int part = 0; part < 2; part++)
                check_rows(&w[i / PRODUCTS][part], &x[i], &results[2 * i], &results[2 * i + 1], part ? ROWS : 0,
                           row_counts[i % PRODUCTS] == EDGES);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* ---- integer products ---- */

/* What scaled_matmul does with W, and widths in blocks: of types whose block is 32 columns, and of the others. */
static const struct {
    const char *x, *attrs;
    int bits_of_x, scale_columns; /* 0: one scale a row */
    int blocks[2];
} treatments[] = {
    {"i8", " {bits = 8, rotate = 1}", 7, 0, {20, 3}},
    {"i8", " {bits = 8, rotate = 1}", 7, 0, {72, 9}},
    {"i16", " {bits = 12}", 12, 0, {11, 2}},
    {"i16", " {bits = 12}", 12, 0, {72, 9}},
    {"i16", " {bits = 12, rotate = 1}", 12, 0, {20, 3}},
    {"i8", "", 7, IR_SCALE_RUN, {11, 2}},
    {"i8", "", 7, IR_SCALE_RUN, {72, 9}},
};
enum {
    TREATMENTS = GM_COUNT(treatments),
    X_ROWS = 7,
    PANEL_ROWS = 32,
    MORE_PANEL_ROWS = 96,
    ALL_ROWS = PANEL_ROWS + MORE_PANEL_ROWS,
    MAX_PANEL_COLUMNS = 2304
};

static int64_t columns_of(rt_dtype dtype, int t) {
    int block = rt_dtype_of(dtype)->block_elems;
    return (int64_t)treatments[t].blocks[block != 32] * block;
}

/* Columns of x that share a scale. */
static int64_t shared_by(int t, int64_t columns) {
    return treatments[t].scale_columns ? treatments[t].scale_columns : columns;
}

static bool takes(rt_dtype dtype, int t) {
    return treatments[t].attrs[0] || rt_codes_of(dtype);
}

static ir_array integer_x(int t, int64_t columns, gm_arena *arena) {
    bool bytes = treatments[t].bits_of_x == 7;
    int largest = (1 << treatments[t].bits_of_x) - 1;
    ir_array x = {.dtype = bytes ? RT_I8 : RT_I16,
                  .rank = 2,
                  .dim = {X_ROWS, columns},
                  .data = gm_arena_alloc(arena, (size_t)(X_ROWS * columns) * 2)};
    for (int64_t i = 0; i < X_ROWS * columns; i++) {
        int code = (int)(next_random() % (uint32_t)(2 * largest + 1)) - largest;
        if (bytes) ((int8_t *)x.data)[i] = (int8_t)code;
        else ((int16_t *)x.data)[i] = (int16_t)code;
    }
    return x;
}

static ir_array scales_of_x(int t, int64_t columns, gm_arena *arena) {
    int64_t scales = columns / shared_by(t, columns);
    ir_array s = {
        .dtype = RT_F32, .rank = 2, .dim = {X_ROWS, scales}, .data = GM_NEW_ARRAY(arena, float, X_ROWS *scales)};
    for (int64_t i = 0; i < X_ROWS * scales; i++) ((float *)s.data)[i] = random_float(1e-4f, 1e-3f);
    return s;
}

/* Products of each treatment with the weights as stored, then with those interleaved. */
static void write_integer_function(rt_dtype dtype, gm_string *out) {
    gm_string params = {0}, types_text = {0}, body = {0}, returned = {0};
    const char *type = rt_dtype_of(dtype)->text, *comma = "";
    for (int t = 0; t < TREATMENTS; t++) {
        int columns = (int)columns_of(dtype, t), scales = columns / (int)shared_by(t, columns);
        if (!takes(dtype, t)) continue;
        gm_string_printf(&params, "%s%%x%d: %s[%d,%d], %%s%d: f32[%d,%d]", comma, t, treatments[t].x, X_ROWS, columns,
                         t, X_ROWS, scales);
        for (int lanes = 0; lanes < 2; lanes++) {
            const char *name = lanes ? ":r16" : "", *suffix = lanes ? "_r16" : "";
            int id = 2 * t + lanes;
            gm_string_printf(&body, "  %%w%d = weight {name = \"w%d%s\"} : %s%s[%d,%d]\n", id, t, name, type, suffix,
                             PANEL_ROWS, columns);
            gm_string_printf(&body, "  %%v%d = weight {name = \"v%d%s\"} : %s%s[%d,%d]\n", id, t, name, type, suffix,
                             MORE_PANEL_ROWS, columns);
            gm_string_printf(&body, "  %%y%d = scaled_matmul %%x%d, %%s%d, %%w%d, %%v%d%s : f32[%d,%d]\n", id, t, t, id,
                             id, treatments[t].attrs, X_ROWS, ALL_ROWS);
            gm_string_printf(&returned, "%s%%y%d", lanes ? ", " : comma, id);
            gm_string_printf(&types_text, "%sf32[%d,%d]", lanes ? ", " : comma, X_ROWS, ALL_ROWS);
        }
        comma = ", ";
    }
    gm_string_printf(out, "func @f(%s) -> (%s) {\n%s  return %s\n}\n", params.data, types_text.data, body.data,
                     returned.data);
    gm_string_free(&params);
    gm_string_free(&types_text);
    gm_string_free(&body);
    gm_string_free(&returned);
}

/* By how much a product with row `row` of W may be off when DOUBTFUL of a rotated row's codes lie beside the middle of
 * two, relative to the scale of x, and with it the rounding of all else; 0 where rows are not rotated. */
static double doubt_of(const rt_weights *weights, int t, int row) {
    enum { DOUBTFUL = 2 };
    char name[8];
    snprintf(name, sizeof name, "%c%d", row < PANEL_ROWS ? 'w' : 'v', t);
    const rt_tensor *w = rt_weights_find(weights, name);
    float turned[MAX_PANEL_COLUMNS];
    double most = 0, sum = 0, x = (1 << treatments[t].bits_of_x) - 1;
    if (!strstr(treatments[t].attrs, "rotate")) return 0;
    size_t columns = (size_t)w->dim[1], at = (size_t)(row < PANEL_ROWS ? row : row - PANEL_ROWS);
    ck_assert_uint_le(columns, MAX_PANEL_COLUMNS);
    rt_dequantize_row(w->dtype, (const uint8_t *)w->data + at * rt_dtype_bytes(w->dtype, columns), turned, columns);
    rt_rotate_row(turned, (int64_t)columns);
    for (size_t i = 0; i < columns; i++) {
        most = fmax(most, fabs((double)turned[i]));
        sum += fabs((double)turned[i]);
    }
    double levels = strstr(treatments[t].attrs, "bits = 8") ? 127 : 2047;
    return x * (DOUBTFUL * most / levels + 1e-6 * sum);
}

static void check_same(const ir_array *stored, const ir_array *lanes, const ir_array *scales, const rt_weights *weights,
                       rt_dtype dtype, int t, const char *cpu) {
    const float *want = stored->data, *got = lanes->data;
    double doubt[ALL_ROWS];
    for (int i = 0; i < ALL_ROWS; i++) doubt[i] = doubt_of(weights, t, i);
    for (int i = 0; i < X_ROWS * ALL_ROWS; i++) {
        double most = doubt[i % ALL_ROWS] * (double)((const float *)scales->data)[i / ALL_ROWS * scales->dim[1]];
        bool same = memcmp(&want[i], &got[i], sizeof *want) == 0 || (isnan(want[i]) && isnan(got[i])) ||
                    fabs((double)want[i] - (double)got[i]) <= most;
        ck_assert_msg(same, "%s%s, %s: row %d of x, row %d of W: %.9g instead of %.9g", rt_dtype_of(dtype)->text,
                      treatments[t].attrs, cpu ? cpu : "host", i / ALL_ROWS, i % ALL_ROWS, (double)got[i],
                      (double)want[i]);
    }
}

START_TEST(integer_products) {
    rt_dtype dtype = stored_types[(size_t)_i / GM_COUNT(cpus)];
    const char *cpu = cpus[(size_t)_i % GM_COUNT(cpus)];
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_string text = {0};
    ir_array args[2 * TREATMENTS], results[2 * TREATMENTS];
    int count = 0;
    state = (uint64_t)_i + 301;
    for (int t = 0; t < TREATMENTS; t++) {
        if (!takes(dtype, t)) continue;
        for (int part = 0; part < 2; part++) {
            rt_tensor w = *make_weight(&weights, gm_arena_printf(&weights.arena, "%c%d", part ? 'v' : 'w', t), dtype,
                                       part ? MORE_PANEL_ROWS : PANEL_ROWS, columns_of(dtype, t));
            derived(&weights, &w);
        }
        args[count++] = integer_x(t, columns_of(dtype, t), &arena);
        args[count++] = scales_of_x(t, columns_of(dtype, t), &arena);
    }
    write_integer_function(dtype, &text);
    if (run_text(cpu, &text, &weights, args, count, &arena, results))
        for (int t = 0, at = 0; t < TREATMENTS; t++)
            if (takes(dtype, t))
                check_same(&results[at], &results[at + 1], &args[at + 1], &weights, dtype, t, cpu), at += 2;
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("interleave");
    TCase *tcase = tcase_create("interleaved rows");
    tcase_set_timeout(tcase, SECONDS);
    tcase_add_loop_test(tcase, values_are_those_stored, 0, (int)GM_COUNT(stored_types));
    tcase_add_test(tcase, threads_derive_the_same);
    tcase_add_test(tcase, what_cannot_be_interleaved_is_refused);
    tcase_add_loop_test(tcase, products, 0, (int)(GM_COUNT(stored_types) * GM_COUNT(cpus)));
    tcase_add_loop_test(tcase, integer_products, 0, (int)(GM_COUNT(stored_types) * GM_COUNT(cpus)));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
