/* The rotation: it is the matrix that runtime/rotate.h describes, that matrix is orthogonal, and compiled rows are
 * interpreted rows for several --target-cpu. */
#include "tests/unit/kernels.h"
#include "tests/unit/suite.h"

#include <stdlib.h>

enum { SECONDS = 120, ROWS = 9 /* more than RT_FEW_ROWS */, WIDEST = 32768, COLUMNS = 600, SAMPLE = 96 };

/* Runs of 8 to 32768, one to 27 of them. 640, 1152, 2048, 6912 and 10240 are widths of Gemma's products. */
static const int64_t widths[] = {8, 24, 640, 1152, 2048, 6912, 10240, WIDEST};

static double sign_of(int64_t column) {
    return rt_rotate_sign(column) ? -1 : 1;
}

/* Element (row, column) of the matrix. */
static double element(int64_t columns, int64_t row, int64_t column) {
    int64_t n = rt_rotate_run(columns), runs = columns / n;
    double within = (__builtin_popcountll((uint64_t)(row % n) & (uint64_t)(column % n)) % 2 ? -1 : 1) / sqrt((double)n);
    double across = runs == 1 ? 1 : (row / n == column / n) - 2 / (double)runs;
    return across * within * sign_of(column);
}

static float *turned_unit(int64_t columns, int64_t column, float *row) {
    memset(row, 0, sizeof *row * (size_t)columns);
    row[column] = 1;
    rt_rotate_row(row, columns);
    return row;
}

/* Columns of the matrix, all of a small one. A unit vector meets four roundings: of the scale, of the share of the sum,
 * of its product and of the difference, each of a value of at most 1/√n; all else adds zeros. */
START_TEST(is_the_matrix_described) {
    int64_t columns = widths[_i];
    double most = 4 * 0x1p-24 / sqrt((double)rt_rotate_run(columns));
    float *row = malloc(sizeof *row * (size_t)columns);
    for (int64_t column = 0; column < columns; column += columns / COLUMNS + 1) {
        turned_unit(columns, column, row);
        for (int64_t i = 0; i < columns; i++) {
            double want = element(columns, i, column);
            ck_assert_msg(fabs((double)row[i] - want) <= most, "%lld columns: (%lld, %lld) is %.9g instead of %.9g",
                          (long long)columns, (long long)i, (long long)column, (double)row[i], want);
        }
    }
    free(row);
}
END_TEST

/* Scalar products of its columns: of neighbours, of columns at the same place of different runs, of columns far apart.
 * An element is off by at most 4·2^-24/√n, and the magnitudes of a column sum to less than 3·√n. */
START_TEST(columns_are_orthonormal) {
    int64_t columns = widths[_i], n = rt_rotate_run(columns), at[SAMPLE];
    double most = 2 * 4 * 0x1p-24 * 3;
    int count = columns < SAMPLE ? (int)columns : SAMPLE;
    float *rows = malloc(sizeof *rows * (size_t)(columns * count));
    state = (uint64_t)columns;
    for (int i = 0; i < count; i++) {
        at[i] = columns < SAMPLE || i < SAMPLE / 3 ? i
                : i < 2 * SAMPLE / 3               ? (i * n + i / 2) % columns
                                                   : (int64_t)(next_random() % (uint64_t)columns);
        turned_unit(columns, at[i], rows + i * columns);
    }
    for (int i = 0; i < count; i++)
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t k = 0; k < columns; k++) sum += (double)rows[i * columns + k] * (double)rows[j * columns + k];
            ck_assert_msg(fabs(sum - (at[i] == at[j])) <= most,
                          "%lld columns: the product of columns %lld and %lld is %.9g", (long long)columns,
                          (long long)at[i], (long long)at[j], sum);
        }
    free(rows);
}
END_TEST

/* About as many signs of each kind, and no period: neither halves nor neighbours agree. Five standard deviations. */
START_TEST(signs_are_stirred) {
    enum { SIGNS = 8192 };
    static const int distances[] = {1, 2, 8, 128, 256, 2048};
    double sum = 0;
    for (int64_t i = 0; i < SIGNS; i++) sum += sign_of(i);
    ck_assert_double_le(fabs(sum), 5 * sqrt(SIGNS));
    for (size_t d = 0; d < GM_COUNT(distances); d++) {
        double together = 0;
        for (int64_t i = 0; i < SIGNS; i++) together += sign_of(i) * sign_of(i + distances[d]);
        ck_assert_msg(fabs(together) <= 5 * sqrt(SIGNS), "signs at distance %d agree by %g", distances[d], together);
    }
}
END_TEST

/* ---- compiled ---- */

/* Rows of different sizes, one of zeros, and one with NaN: it may touch nothing beside it. */
static ir_array make_rows(int64_t columns, gm_arena *arena) {
    ir_array x = {
        .dtype = RT_F32, .rank = 2, .dim = {ROWS, columns}, .data = GM_NEW_ARRAY(arena, float, ROWS *columns)};
    static const float sizes[ROWS] = {1, 1e-20f, 0, 1e20f, 1, 2, 3, 4, 1};
    for (int64_t i = 0; i < ROWS * columns; i++) ((float *)x.data)[i] = sizes[i / columns] * random_float(-1, 1);
    ((float *)x.data)[ROWS * columns - 3] = NAN;
    return x;
}

/* A rotation alone, and in a loop nest of an operand and of what is computed there, each with two signs changed. */
static const char *const bodies[] = {
    "  %%y = rotate %%x : f32[%1$d,%2$d]\n",
    "  %%y = fuse %%x (%%a: f32[%1$d,%2$d]) {\n    %%t = rotate %%a : f32[%1$d,%2$d]\n    %%n = neg %%t : "
    "f32[%1$d,%2$d]\n    %%z = neg %%n : f32[%1$d,%2$d]\n    yield %%z\n  } : f32[%1$d,%2$d]\n",
    "  %%y = fuse %%x (%%a: f32[%1$d,%2$d]) {\n    %%n = neg %%a : f32[%1$d,%2$d]\n    %%z = neg %%n : "
    "f32[%1$d,%2$d]\n    %%t = rotate %%z : f32[%1$d,%2$d]\n    yield %%t\n  } : f32[%1$d,%2$d]\n",
};

static void check_rows(const ir_array *x, const ir_array *got, const char *cpu) {
    int64_t columns = x->dim[1];
    for (int64_t r = 0; r < ROWS; r++) {
        float want[WIDEST];
        double sizes[WIDEST];
        const float *from = (const float *)x->data + r * columns, *y = (const float *)got->data + r * columns;
        memcpy(want, from, sizeof *want * (size_t)columns);
        rt_rotate_row(want, columns);
        rotated_magnitudes(from, columns, sizes);
        for (int64_t i = 0; i < columns; i++) {
            double off = fabs((double)want[i] - (double)y[i]);
            bool near = isnan(want[i])
                            ? isnan(y[i]) != 0
                            : want[i] == y[i] || off <= ROTATED_TOLERANCE * sizes[i / rt_rotate_run(columns)];
            ck_assert_msg(near, "%s, %lld columns: (%lld, %lld) is %.9g instead of %.9g", cpu ? cpu : "host",
                          (long long)columns, (long long)r, (long long)i, (double)y[i], (double)want[i]);
        }
    }
}

/* Runs shorter than a vector are not compiled: those of 8 in none of 16 lanes. */
START_TEST(compiled_rows_are_interpreted_rows) {
    gm_arena arena = {0};
    rt_weights weights = {0};
    state = (uint64_t)_i + 1;
    ir_array x = make_rows(widths[_i], &arena);
    for (size_t i = 0; i < GM_COUNT(cpus) * GM_COUNT(bodies); i++) {
        const char *cpu = cpus[i / GM_COUNT(bodies)], *body = bodies[i % GM_COUNT(bodies)];
        ir_array got;
        gm_string text = {0};
        bool may_be_wide = !cpu || (strcmp(cpu, "haswell") != 0 && strcmp(cpu, "x86-64") != 0);
        if (may_be_wide && rt_rotate_run(widths[_i]) < 16) continue;
        gm_string_printf(&text, "func @f(%%x: f32[%d,%d]) -> (f32[%d,%d]) {\n", ROWS, (int)widths[_i], ROWS,
                         (int)widths[_i]);
        gm_string_printf(&text, body, ROWS, (int)widths[_i]);
        gm_string_printf(&text, "  return %%y\n}\n");
        if (run_text(cpu, &text, &weights, &x, 1, &arena, &got)) check_rows(&x, &got, cpu);
    }
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("rotate");
    TCase *tests = tcase_create("rotate");
    tcase_set_timeout(tests, SECONDS);
    tcase_add_loop_test(tests, is_the_matrix_described, 0, (int)GM_COUNT(widths));
    tcase_add_loop_test(tests, columns_are_orthonormal, 0, (int)GM_COUNT(widths));
    tcase_add_test(tests, signs_are_stirred);
    tcase_add_loop_test(tests, compiled_rows_are_interpreted_rows, 0, (int)GM_COUNT(widths));
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
