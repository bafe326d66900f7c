/* Compiled scaled_matmul against the interpreter, for every FLOAT and QUANT type and several --target-cpu: all heights of tiles, more
 * columns than one block, x and W at their extremes. */
#include "tests/unit/kernels.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <stdio.h>

enum { SECONDS = 240, BITS = 12, LEVELS = 2047, X_LARGEST = 4095, GROUP = IR_SCALE_GROUP, BLOCK = 2048, NARROW = 32, WIDE = 96 };

/* Rows of x: together they fill tiles of every height that a kernel has. The last is the largest. */
static const int heights[] = {1, 2, 5, 6, 7, 13, 40};
enum { HEIGHTS = GM_COUNT(heights), TALLEST = 40 };

/* ---- x ---- */

/* Rows of x that are not random, and one whose scale is zero: they come first, so that small products have them. */
enum { ALL_LARGEST, ALL_LEAST, SIGNS, NO_SCALE_ROW, ZEROS, RANDOM_ROWS };

typedef struct integers {
    ir_array codes, scales;
} integers;

static int64_t code_of(int64_t row, int64_t column, int64_t largest) {
    switch (row) {
    case ALL_LARGEST: return largest;
    case ALL_LEAST: return -largest;
    case SIGNS: return column % 2 ? largest : -largest;
    case ZEROS: return 0;
    default: return (int64_t)(next_random() % (uint32_t)(2 * largest + 1)) - largest;
    }
}

static integers make_x(rt_dtype dtype, int64_t rows, int64_t columns, gm_arena *arena) {
    integers x = {{.dtype = dtype, .rank = 2, .dim = {rows, columns}, .data = gm_arena_alloc(arena, (size_t)(rows * columns) * 2)},
                  {.dtype = RT_F32, .rank = 2, .dim = {rows, 1}, .data = GM_NEW_ARRAY(arena, float, rows)}};
    int64_t largest = dtype == RT_I8 ? 127 : X_LARGEST;
    for (int64_t i = 0; i < rows * columns; i++) {
        int64_t code = code_of(i / columns, i % columns, largest);
        if (dtype == RT_I8) ((int8_t *)x.codes.data)[i] = (int8_t)code;
        else ((int16_t *)x.codes.data)[i] = (int16_t)code;
    }
    for (int64_t row = 0; row < rows; row++) ((float *)x.scales.data)[row] = row == NO_SCALE_ROW ? 0 : random_float(1e-4f, 1e-3f);
    return x;
}

static double x_at(const integers *x, int64_t row, int64_t column) {
    int64_t i = row * x->codes.dim[1] + column;
    int code = x->codes.dtype == RT_I8 ? ((const int8_t *)x->codes.data)[i] : ((const int16_t *)x->codes.data)[i];
    return (double)code * (double)((const float *)x->scales.data)[row];
}

/* The arguments of a call with the first `rows` of x. */
static void take_rows(const integers *x, int64_t rows, ir_array *out) {
    out[0] = x->codes;
    out[1] = x->scales;
    out[0].dim[0] = out[1].dim[0] = rows;
}

/* ---- the function ---- */

typedef struct weights_list {
    const rt_tensor *w[GM_COUNT(types)];
    int count;
} weights_list;

static int64_t all_rows(const weights_list *list) {
    int64_t rows = 0;
    for (int i = 0; i < list->count; i++) rows += list->w[i]->dim[0];
    return rows;
}

/* @f: the product of all weights with each number of rows of x. */
static void write_function(const weights_list *list, rt_dtype x, const int *rows, int count, gm_string *out) {
    int columns = (int)list->w[0]->dim[1], total = (int)all_rows(list);
    gm_string_printf(out, "func @f(");
    for (int i = 0; i < count; i++)
        gm_string_printf(out, "%s%%x%d: %s[%d,%d], %%s%d: f32[%d,1]", i ? ", " : "", i, rt_dtype_of(x)->text, rows[i], columns, i, rows[i]);
    gm_string_printf(out, ") -> (");
    for (int i = 0; i < count; i++) gm_string_printf(out, "%sf32[%d,%d]", i ? ", " : "", rows[i], total);
    gm_string_printf(out, ") {\n");
    for (int i = 0; i < list->count; i++)
        gm_string_printf(out, "  %%w%d = weight {name = \"%s\"} : %s[%d,%d]\n", i, list->w[i]->name, rt_dtype_of(list->w[i]->dtype)->text,
                         (int)list->w[i]->dim[0], columns);
    for (int i = 0; i < count; i++) {
        gm_string_printf(out, "  %%y%d = scaled_matmul %%x%d, %%s%d", i, i, i);
        for (int k = 0; k < list->count; k++) gm_string_printf(out, ", %%w%d", k);
        gm_string_printf(out, " {bits = %d} : f32[%d,%d]\n", BITS, rows[i], total);
    }
    gm_string_printf(out, "  return ");
    for (int i = 0; i < count; i++) gm_string_printf(out, "%s%%y%d", i ? ", " : "", i);
    gm_string_printf(out, "\n}\n");
}

static ir_array interpret(const weights_list *list, const rt_weights *weights, const integers *x, gm_arena *arena) {
    gm_string text = {0};
    gm_diag diag = {0};
    ir_module *module = NULL;
    ir_array args[2], y;
    int rows = (int)x->codes.dim[0];
    take_rows(x, rows, args);
    write_function(list, x->codes.dtype, &rows, 1, &text);
    ck_assert_msg(ir_parse(text.data, text.length, "test", &diag, &module) == GM_OK, "%s", diag.message);
    ir_interp_env env = {.weights = weights};
    ck_assert_msg(ir_interp(module, "f", &env, args, 2, arena, &y, &diag) == GM_OK, "%s", diag.message);
    ir_module_free(module);
    gm_string_free(&text);
    return y;
}

/* ---- comparison ---- */

/* Σ|w·x| of each element of the product: what a sum in f32 is off by in proportion. */
static double *magnitudes(const weights_list *list, const integers *x, gm_arena *arena) {
    int64_t rows = x->codes.dim[0], total = all_rows(list), column = 0;
    double *sizes = GM_NEW_ARRAY(arena, double, rows * total);
    memset(sizes, 0, sizeof *sizes * (size_t)(rows * total));
    for (int i = 0; i < list->count; i++) {
        for (int64_t n = 0; n < list->w[i]->dim[0]; n++, column++) {
            const float *w = widened_row(list->w[i], n, arena);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t k = 0; k < x->codes.dim[1]; k++) sizes[r * total + column] += fabs((double)w[k] * x_at(x, r, k));
        }
    }
    return sizes;
}

/* The first rows of `want`. The tolerance is that of the other kernels; below normal numbers each group is rounded to 2^-149. */
static void check_rows(const weights_list *list, const ir_array *want, const double *sizes, const ir_array *got, const char *cpu) {
    int64_t total = got->dim[1], first = 0;
    for (int i = 0; i < list->count; first += list->w[i++]->dim[0]) {
        for (int64_t at = 0; at < got->dim[0] * list->w[i]->dim[0]; at++) {
            int64_t row = at / list->w[i]->dim[0], n = at % list->w[i]->dim[0], index = row * total + first + n;
            float a = ((const float *)want->data)[index], b = ((const float *)got->data)[index];
            double most = type_of(list->w[i]->dtype)->tolerance * sizes[index] + (double)list->w[i]->dim[1] * 0x1p-148;
            bool near = isnan(a) ? isnan(b) != 0 : a == b || fabs((double)a - (double)b) <= most;
            ck_assert_msg(near, "%s, %s, %lld columns, %lld rows of x: row %lld of x, row %lld of W is %.9g instead of %.9g, off by %.3g of the sum of magnitudes",
                          rt_dtype_of(list->w[i]->dtype)->text, cpu ? cpu : "host", (long long)list->w[i]->dim[1], (long long)got->dim[0],
                          (long long)row, (long long)n, (double)b, (double)a, fabs((double)a - (double)b) / sizes[index]);
        }
    }
}

static void check_product(const weights_list *list, const rt_weights *weights, rt_dtype dtype, gm_arena *arena) {
    integers x = make_x(dtype, TALLEST, list->w[0]->dim[1], arena);
    ir_array want = interpret(list, weights, &x, arena);
    const double *sizes = magnitudes(list, &x, arena);
    for (size_t c = 0; c < GM_COUNT(cpus); c++) {
        ir_array args[2 * HEIGHTS], got[HEIGHTS];
        gm_string text = {0};
        for (int i = 0; i < HEIGHTS; i++) take_rows(&x, heights[i], &args[2 * i]);
        write_function(list, dtype, heights, HEIGHTS, &text);
        if (!run_text(cpus[c], &text, weights, args, 2 * HEIGHTS, arena, got)) continue;
        for (int i = 0; i < HEIGHTS; i++) check_rows(list, &want, sizes, &got[i], cpus[c]);
    }
}

/* ---- random weights ---- */

/* Two weights of one type, of 1 and 3 or more panels, so that the threads' shares begin within one. */
static void check_width(rt_dtype dtype, int64_t columns) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    make_weight(&weights, "narrow", dtype, NARROW, columns);
    make_weight(&weights, "wide", dtype, WIDE, columns);
    weights_list list = {{rt_weights_find(&weights, "narrow"), rt_weights_find(&weights, "wide")}, 2};
    check_product(&list, &weights, RT_I16, &arena);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}

/* Less than a group of columns, whole groups, groups and a rest, more than a block. */
START_TEST(each_type) {
    static const int64_t widths[] = {32, GROUP, 2 * GROUP + 96, BLOCK + GROUP + 32};
    rt_dtype dtype = types[_i].dtype;
    int64_t unit = rt_dtype_of(dtype)->block_elems;
    state = (uint64_t)_i + 1;
    for (size_t i = 0; i < GM_COUNT(widths); i++) {
        int64_t columns = (widths[i] + unit - 1) / unit * unit;
        if (i == 0 || columns != (widths[i - 1] + unit - 1) / unit * unit) check_width(dtype, columns);
    }
}
END_TEST

/* Weights of many types in one product, x of either type. */
START_TEST(mixed_types) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    weights_list list = {.count = GM_COUNT(types)};
    char name[GM_COUNT(types)][8];
    state = 77;
    for (int i = 0; i < list.count; i++) {
        snprintf(name[i], sizeof name[i], "w%d", i);
        make_weight(&weights, name[i], types[i].dtype, NARROW * (1 + i % 2), 2 * GROUP);
    }
    for (int i = 0; i < list.count; i++) list.w[i] = rt_weights_find(&weights, name[i]);
    check_product(&list, &weights, _i ? RT_I16 : RT_I8, &arena);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* ---- the bound of the integer sums ---- */

/* Every weight of row n is ±(n+1), so that all codes are ±LEVELS: with equal signs, with those of row SIGNS of x, and with neither. */
static float extreme(int64_t row, int64_t column) {
    float size = (float)(row + 1);
    bool minus = row % 3 == 1 ? column % 2 == 0 : row % 3 == 2 && column / GROUP % 2;
    return minus ? -size : size;
}

/* A group of the largest products is 256 · 2047 · 4095 < 2^31: the sums, known in closed form, must have their size and sign. */
START_TEST(sums_do_not_overflow) {
    enum { COLUMNS = BLOCK + 3 * GROUP };
    ck_assert_int_lt((int64_t)GROUP * LEVELS * X_LARGEST, INT64_C(1) << 31);
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_diag diag = {0};
    float *data = GM_NEW_ARRAY(&arena, float, NARROW * COLUMNS);
    for (int64_t i = 0; i < NARROW * COLUMNS; i++) data[i] = extreme(i / COLUMNS, i % COLUMNS);
    rt_tensor tensor = {.name = "w", .dtype = RT_F32, .rank = 2, .dim = {NARROW, COLUMNS}, .data = data, .bytes = sizeof *data * NARROW * COLUMNS};
    ck_assert(rt_weights_add(&weights, "test", &tensor, &diag) == GM_OK);
    weights_list list = {{rt_weights_find(&weights, "w")}, 1};
    integers x = make_x(RT_I16, TALLEST, COLUMNS, &arena);
    ir_array y = interpret(&list, &weights, &x, &arena);
    for (int n = 0; n < NARROW; n++) {
        int groups = n % 3 == 0 ? COLUMNS / GROUP : n % 3 == 2 ? 1 : 0; /* of ALL_LARGEST: signs of columns cancel, those of groups but one */
        double scale = (double)((const float *)x.scales.data)[ALL_LARGEST], want = scale * X_LARGEST * GROUP * groups * (n + 1);
        ck_assert_double_eq_tol((double)((const float *)y.data)[ALL_LARGEST * NARROW + n], want, 1e-6 * scale * X_LARGEST * COLUMNS * (n + 1));
    }
    check_product(&list, &weights, RT_I16, &arena);
    check_product(&list, &weights, RT_I8, &arena);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("integer");
    TCase *tcase = tcase_create("scaled_matmul");
    tcase_set_timeout(tcase, SECONDS);
    tcase_add_loop_test(tcase, each_type, 0, (int)GM_COUNT(types));
    tcase_add_loop_test(tcase, mixed_types, 0, 2);
    tcase_add_test(tcase, sums_do_not_overflow);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
