/* Compiled kernels on stored weights, for every FLOAT and QUANT type and several --target-cpu: gather gives the bits of
 * rt_dequantize_row; products, compiled and of oneDNN, are near a sum in double. */
#include "tests/unit/products.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <stdio.h>

enum { ROWS = 19, X_ROWS = 7, SECONDS = 240, MAX_WIDTHS = 5 };

/* Does impl "gemv_int16" hold x so, where vectors have eight floats? Else it is gemv. */
static bool in_int16(rt_dtype dtype) {
    return dtype == RT_Q4_0 || dtype == RT_Q5_0 || dtype == RT_Q8_0 || dtype == RT_Q4_K || dtype == RT_Q5_K ||
           dtype == RT_Q6_K;
}

START_TEST(table_is_complete) {
    for (int i = 0; i < RT_DTYPE_COUNT; i++) {
        const rt_dtype_info *info = rt_dtype_of((rt_dtype)i);
        bool stored = info->class == RT_CLASS_FLOAT || info->class == RT_CLASS_QUANT;
        ck_assert_msg(stored == (type_of((rt_dtype)i) != NULL), "%s", info->text);
    }
}
END_TEST

/* ---- comparison ---- */

static void check_gather(const rt_tensor *w, const int32_t *ids, const ir_array *got, gm_arena *arena) {
    for (int i = 0; i < X_ROWS; i++) {
        const float *want = widened_row(w, ids[i], arena), *row = (const float *)got->data + i * w->dim[1];
        for (int64_t k = 0; k < w->dim[1]; k++) {
            bool same = memcmp(&want[k], &row[k], sizeof *row) == 0 || (isnan(want[k]) && isnan(row[k]));
            ck_assert_msg(same, "gather of %lld columns, row %d: element %lld is %.9g instead of %.9g",
                          (long long)w->dim[1], ids[i], (long long)k, (double)row[k], (double)want[k]);
        }
    }
}

/* got[rows, …]: columns first … of the result are those of w. */
static void check_product(const char *cpu, const rt_tensor *w, const float *x, int64_t rows, const ir_array *got,
                          int64_t first, int64_t stride, const char *what) {
    gm_arena arena = {0};
    bool narrow = cpu && strcmp(cpu, "x86-64") == 0,
         int16 = in_int16(w->dtype) && !narrow && strncmp(what, "gemv_int16", 10) == 0;
    for (int64_t n = 0; n < w->dim[0]; n++) {
        const float *row = widened_row(w, n, &arena);
        for (int64_t m = 0; m < rows; m++)
            check_dot(w, row, x + m * w->dim[1], ((const float *)got->data)[m * stride + first + n], what,
                      int16 ? WORDS_MOST : 0);
    }
    gm_arena_free(&arena);
}

/* ---- one type: every kernel in one function ---- */

/* Columns to test: 1, 2, 5 and 9 blocks; of plain types also a number that no vector divides. */
static int widths_of(rt_dtype dtype, int64_t *widths) {
    static const int blocks[] = {1, 2, 5, 9};
    int64_t unit = rt_dtype_of(dtype)->block_elems;
    int count = 0;
    for (size_t i = 0; i < GM_COUNT(blocks); i++) widths[count++] = blocks[i] * (unit == 1 ? 32 : unit);
    if (unit == 1) widths[count++] = 33;
    return count;
}

static const struct product {
    const char *name, *impl;
    int64_t rows;
} products[] = {{"gemv", "gemv", 1},
                {"gemv of 3 rows", "gemv", 3},
                {"gemv of edges", "gemv", EDGES},
                {"gemv_int16", "gemv_int16", 1},
                {"gemv_int16 of 3 rows", "gemv_int16", 3},
                {"gemv_int16 of edges", "gemv_int16", EDGES},
                {"packed", "packed", X_ROWS},
                {"stream", "stream", X_ROWS}};
enum { PRODUCTS = GM_COUNT(products), PER_WIDTH = PRODUCTS + 1 };

/* Parameters: ids, then x of each number of rows of each width; results: of each width the gather, then the
 * products. */
static void write_function(const char *type, const int64_t *widths, int count, gm_string *out) {
    gm_string_printf(out, "func @f(%%ids: i32[%d]", X_ROWS);
    for (int i = 0; i < count; i++)
        for (int p = 0; p < PRODUCTS; p++)
            gm_string_printf(out, ", %%x%d_%d: f32[%d,%d]", i, p, (int)products[p].rows, (int)widths[i]);
    gm_string_printf(out, ") -> (");
    for (int i = 0; i < count; i++) {
        gm_string_printf(out, "%sf32[%d,%d]", i ? ", " : "", X_ROWS, (int)widths[i]);
        for (int p = 0; p < PRODUCTS; p++) gm_string_printf(out, ", f32[%d,%d]", (int)products[p].rows, ROWS);
    }
    gm_string_printf(out, ") {\n");
    for (int i = 0; i < count; i++) {
        gm_string_printf(out, "  %%w%d = weight {name = \"w%d\"} : %s[%d,%d]\n", i, i, type, ROWS, (int)widths[i]);
        gm_string_printf(out, "  %%g%d = gather %%w%d, %%ids : f32[%d,%d]\n", i, i, X_ROWS, (int)widths[i]);
        for (int p = 0; p < PRODUCTS; p++)
            gm_string_printf(out, "  %%y%d_%d = matmul %%x%d_%d, %%w%d {impl = \"%s\"} : f32[%d,%d]\n", i, p, i, p, i,
                             products[p].impl, (int)products[p].rows, ROWS);
    }
    gm_string_printf(out, "  return ");
    for (int i = 0; i < count; i++) {
        gm_string_printf(out, "%s%%g%d", i ? ", " : "", i);
        for (int p = 0; p < PRODUCTS; p++) gm_string_printf(out, ", %%y%d_%d", i, p);
    }
    gm_string_printf(out, "\n}\n");
}

START_TEST(each_type) {
    rt_dtype dtype = types[(size_t)_i / GM_COUNT(cpus)].dtype;
    const char *cpu = cpus[(size_t)_i % GM_COUNT(cpus)];
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_string text = {0};
    int64_t widths[MAX_WIDTHS];
    int count = widths_of(dtype, widths), arg_count = 1;
    int32_t ids[X_ROWS] = {TINY_SCALE, ALL_ONES, ALL_ZERO, NO_SCALE, ROWS - 1, 0, 11};
    const rt_tensor *w[MAX_WIDTHS];
    ir_array args[1 + MAX_WIDTHS * PRODUCTS] = {{.dtype = RT_I32, .rank = 1, .dim = {X_ROWS}, .data = ids}};
    ir_array results[MAX_WIDTHS * PER_WIDTH];
    char name[MAX_WIDTHS][8];
    state = (uint64_t)_i + 1;
    for (int i = 0; i < count; i++) {
        snprintf(name[i], sizeof name[i], "w%d", i);
        make_weight(&weights, name[i], dtype, ROWS, widths[i]);
        for (int p = 0; p < PRODUCTS; p++)
            args[arg_count++] = strstr(products[p].name, "edges") ? edge_x(widths[i], &arena)
                                                                  : random_x(products[p].rows, widths[i], &arena);
    }
    for (int i = 0; i < count; i++) w[i] = rt_weights_find(&weights, name[i]);
    write_function(rt_dtype_of(dtype)->text, widths, count, &text);
    if (run_text(cpu, &text, &weights, args, arg_count, &arena, results)) {
        for (int i = 0; i < count; i++) {
            check_gather(w[i], ids, &results[i * PER_WIDTH], &arena);
            for (int p = 0; p < PRODUCTS; p++)
                check_product(cpu, w[i], args[1 + i * PRODUCTS + p].data, products[p].rows,
                              &results[i * PER_WIDTH + 1 + p], 0, ROWS, products[p].name);
        }
    }
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* ---- several types in one product ---- */

enum { MIXED_COLUMNS = 1280 };

/* Rows of weight i: odd, so that neither threads nor vectors divide them. */
static int mixed_rows(int i) {
    return 9 + 2 * (i % 3);
}

/* The product of `rows` rows with weights of types from … from+count-1. */
static void check_mixed(const char *cpu, const char *impl, int64_t rows, int from, int count) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_string text = {0}, list = {0};
    int64_t total = 0;
    char name[GM_COUNT(types)][8];
    ir_array x = random_x(rows, MIXED_COLUMNS, &arena), y;
    for (int i = 0; i < count; i++) total += mixed_rows(i);
    gm_string_printf(&text, "func @f(%%x: f32[%d,%d]) -> (f32[%d,%d]) {\n", (int)rows, MIXED_COLUMNS, (int)rows,
                     (int)total);
    for (int i = 0; i < count; i++) {
        rt_dtype dtype = types[from + i].dtype;
        snprintf(name[i], sizeof name[i], "w%d", i);
        make_weight(&weights, name[i], dtype, mixed_rows(i), MIXED_COLUMNS);
        gm_string_printf(&text, "  %%w%d = weight {name = \"w%d\"} : %s[%d,%d]\n", i, i, rt_dtype_of(dtype)->text,
                         mixed_rows(i), MIXED_COLUMNS);
        gm_string_printf(&list, ", %%w%d", i);
    }
    gm_string_printf(&text, "  %%y = matmul %%x%s {impl = \"%s\"} : f32[%d,%d]\n  return %%y\n}\n", list.data, impl,
                     (int)rows, (int)total);
    if (run_text(cpu, &text, &weights, &x, 1, &arena, &y))
        for (int64_t i = 0, first = 0; i < count; first += mixed_rows((int)i++))
            check_product(cpu, rt_weights_find(&weights, name[i]), x.data, rows, &y, first, total, impl);
    gm_string_free(&list);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}

START_TEST(mixed_types) {
    const char *cpu = cpus[_i];
    state = 77;
    check_mixed(cpu, "gemv", 1, 0, GM_COUNT(types));
    check_mixed(cpu, "gemv", 3, 4, 9);
    check_mixed(cpu, "gemv_int16", 1, 0, GM_COUNT(types));
    check_mixed(cpu, "gemv_int16", 3, 4, 9);
    check_mixed(cpu, "packed", X_ROWS, 7, 3);
    check_mixed(cpu, "stream", X_ROWS, 12, 3);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("kernels");
    TCase *tcase = tcase_create("stored weights");
    tcase_set_timeout(tcase, SECONDS);
    tcase_add_test(tcase, table_is_complete);
    tcase_add_loop_test(tcase, each_type, 0, (int)(GM_COUNT(types) * GM_COUNT(cpus)));
    tcase_add_loop_test(tcase, mixed_types, 0, (int)GM_COUNT(cpus));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
