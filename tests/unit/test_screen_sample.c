/* screened_sample: on one token after the other, on rows together and among likely ids the sampler's choice from the
 * compiled product of all rows, for several types, several --target-cpu, tables and inputs that are hard to screen, and
 * settings with and without a reach. */
#include "codegen/codegen.h"
#include "runtime/abi.h"
#include "runtime/derive.h"
#include "runtime/screen.h"
#include "tests/unit/random_values.h"
#include "tests/unit/run_text.h"
#include "tests/unit/screen_text.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECONDS = 240, ROWS = 2077, COLUMNS = 128, POSITIONS = 2, APART = 40 };

static const char *const cpus[] = {NULL, "haswell", "x86-64", "skylake-avx512", CG_STAND_IN_CPU};
static const rt_dtype types[] = {RT_F32, RT_BF16, RT_Q8_0};

/* ---- tables ---- */

/* NEAR: nearly equal. PEAKS: some rows far above the others. ODD: infinite, huge, zero and NaN too. LOWERED: random,
 * see lower_rows. */
typedef enum table_kind { RANDOM, EQUAL, NEAR, PEAKS, ODD, LOWERED, TABLES } table_kind;

/* Values of about `size`; of blocks it is the scale. */
static void fill_row(rt_dtype dtype, uint8_t *row, float size) {
    for (int i = 0; i < COLUMNS && dtype != RT_Q8_0; i++) {
        float value = random_float(-1, 1) * size;
        uint16_t half = rt_f32_to_bf16(value);
        if (dtype == RT_F32) memcpy(row + 4 * i, &value, 4);
        else memcpy(row + 2 * i, &half, 2);
    }
    size_t block = (size_t)rt_dtype_of(RT_Q8_0)->block_bytes;
    for (size_t i = 0; i < COLUMNS / 32 && dtype == RT_Q8_0; i++) {
        uint16_t scale = rt_f32_to_f16(size / 127);
        memcpy(row + i * block, &scale, 2);
        for (size_t k = 2; k < block; k++) row[i * block + k] = (uint8_t)(next_random() % 255 - 127);
    }
}

static void make_rows(rt_dtype dtype, table_kind kind, uint8_t *data) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0, 1e30f, 1e-30f, 30, 1};
    size_t bytes = rt_dtype_bytes(dtype, COLUMNS);
    for (size_t r = 0; r < ROWS; r++) {
        uint8_t *row = data + r * bytes;
        if (r && (kind == EQUAL || kind == NEAR)) memcpy(row, data, bytes);
        else
            fill_row(dtype, row,
                     kind == ODD                                ? odd[next_random() % GM_COUNT(odd)]
                     : kind == PEAKS && next_random() % 20 == 0 ? 2
                                                                : 0.3f);
        if (kind == NEAR && r % 5) row[2 * (next_random() % (bytes / 2))] ^= 1;
    }
}

static void add_table(rt_weights *weights, const char *name, rt_dtype dtype, table_kind kind) {
    gm_diag diag = {0};
    size_t bytes = rt_dtype_bytes(dtype, COLUMNS) * ROWS;
    uint8_t *data = gm_arena_alloc(&weights->arena, bytes);
    make_rows(dtype, kind, data);
    rt_tensor tensor = {.name = name, .dtype = dtype, .rank = 2, .dim = {ROWS, COLUMNS}, .data = data, .bytes = bytes};
    ck_assert_int_eq(rt_weights_add(weights, "test", &tensor, &diag), GM_OK);
    ck_assert_msg(rt_derive(weights, rt_derived_name(&weights->arena, RT_DERIVED_SCREEN, name), RT_DERIVED_KEPT, NULL,
                            &diag) == GM_OK,
                  "%s", diag.message);
}

/* ---- inputs and settings ---- */

enum { INPUTS = 9 };

static void make_x(int kind, float *x) {
    static const float sizes[] = {1, 10, 0, 1e-30f, 1e30f, 1e-42f};
    for (int i = 0; i < COLUMNS; i++) x[i] = kind < (int)GM_COUNT(sizes) ? random_float(-1, 1) * sizes[kind] : 1;
    if (kind == 7) x[next_random() % COLUMNS] = NAN;
    if (kind == 8) x[next_random() % COLUMNS] = INFINITY;
}

/* temperature, top_k, top_p, min_p, penalty, its tokens */
static const float settings[][6] = {
    {1, 64, 0.95f, 0, 1, 0},       {1, 1, 1, 0, 1, 0},         {1000, 256, 1, 0, 1, 0},     {1e30f, 40, 1, 0, 1, 0},
    {0.7f, 40, 0.5f, 0.05f, 1, 0}, {1e-3f, 5, 1, 0, 1, 0},     {1e-40f, 3, 1, 0, 1, 0},     {3, 255, 0.999f, 0, 1, 0},
    {100, 7, 1, 0, 1, 0},          {1, 0, 0.9f, 0.001f, 1, 0}, {1, 64, 1, 0, 1.3f, 16},     {0, 64, 1, 0, 1, 0},
    {0, 64, 1, 0, 1.1f, 64},       {2, 256, 1, 0, 30, 64},     {1, 5, 0.9f, 0, 1.5f, 1000}, {1, 64, 1, 0, 0.7f, 16},
};

enum { TOGETHER = 3, USUAL = 640 };

/* %NAME: %from [rows, ROWS] soft-capped, or as it is. */
static void write_capped(gm_string *out, const char *name, const char *from, int rows, int cap) {
    if (cap == 0) {
        gm_string_printf(out, "    %%%s = reshape %%%s : f32[%d,%d]\n", name, from, rows, ROWS);
        return;
    }
    gm_string_printf(out,
                     "    %%%s.d = div %%%s, %%cap : f32[%d,%d]\n    %%%s.t = tanh %%%s.d : f32[%d,%d]\n    %%%s = mul "
                     "%%%s.t, %%cap : f32[%d,%d]\n",
                     name, from, rows, ROWS, name, name, rows, ROWS, name, name, rows, ROWS);
}

/* %differ.NAME: in how many of `rows` rows screened_sample and sample of table t differ, which have these operands and
 * attributes. */
static void write_compared(gm_string *out, int t, const char *name, int rows, const char *x, const char *y,
                           const char *screened, const char *full) {
    static const char more[] = "%tokens, %p, %o, %seed";
    gm_string_printf(out, "        %%%s.a = screened_sample %s, %%w%d, %%s%d, %s%s : i32[%d,1]\n", name, x, t, t, more,
                     screened, rows);
    gm_string_printf(
        out, "        %%%s.b = sample %s, %s%s : i32[%d,1]\n        %%%s.same = eq %%%s.a, %%%s.b : bool[%d,1]\n", name,
        y, more, full, rows, name, name, name, rows);
    gm_string_printf(
        out, "        %%%s.miss = not %%%s.same : bool[%d,1]\n        %%%s.each = convert %%%s.miss : i32[%d,1]\n",
        name, name, rows, name, name, rows);
    gm_string_printf(
        out,
        "        %%%s.sum = reduce_sum %%%s.each {axis = 0} : i32[1,1]\n        %%differ.%s = reshape %%%s.sum : i32\n",
        name, name, name, name);
}

/* For each table how often choices differ, for each input and those behind it: [INPUTS]. */
static void write_function(rt_dtype dtype, int cap, gm_string *out) {
    const char *type = rt_dtype_of(dtype)->text;
    char plain[40] = "", usual[40], likely[60];
    if (cap) snprintf(plain, sizeof plain, " {cap = %d}", cap);
    snprintf(usual, sizeof usual, " {usual = %d}", USUAL);
    snprintf(likely, sizeof likely, " {cap = %d, usual = %d}", cap, USUAL);
    gm_string list = {0};
    gm_string_printf(out, "func @f(%%tokens: i32[64], %%seed: i64, %%all: f32[%d,%d], %%settings: f32[%zu,8]) -> (",
                     INPUTS, COLUMNS, GM_COUNT(settings));
    for (int t = 0; t < TABLES; t++) gm_string_printf(out, "%si32[%d]", t ? ", " : "", INPUTS);
    gm_string_printf(out,
                     ") {\n  %%zero = const {value = 0} : i32\n  %%last = const {value = %d} : i32\n  %%apart = const "
                     "{value = %d} : i32\n  %%cap = const {value = %d} : f32\n  %%none = const {value = 0} : i32[%d]\n",
                     INPUTS - TOGETHER, APART, cap, INPUTS);
    gm_string_printf(out,
                     "  %%inputs = const {value = %d} : i32\n  %%count = const {value = %zu} : i32\n  %%positions = "
                     "const {value = %d} : i32\n",
                     INPUTS, GM_COUNT(settings), POSITIONS);
    for (int t = 0; t < TABLES; t++) {
        char weight[8], screen[8];
        snprintf(weight, sizeof weight, "w%d", t);
        snprintf(screen, sizeof screen, "s%d", t);
        gm_string_printf(out, "  %%%s = weight {name = \"%s\"} : %s[%d,%d]\n", weight, weight, type, ROWS, COLUMNS);
        write_screen(out, screen, weight, ROWS, COLUMNS);
        gm_string_printf(out, "  %%r%d = scan %%inputs, %%none (%%i: i32, %%counts: i32[%d]) {\n", t, INPUTS);
        gm_string_printf(out,
                         "    %%x = window %%all, %%i {axis = 0, size = 1} : f32[1,%d]\n    %%z = matmul %%x, %%w%d "
                         "{impl = \"gemv\"} : f32[1,%d]\n",
                         COLUMNS, t, ROWS);
        gm_string_printf(out,
                         "    %%first = min %%i, %%last : i32\n    %%xs = window %%all, %%first {axis = 0, size = %d} "
                         ": f32[%d,%d]\n",
                         TOGETHER, TOGETHER, COLUMNS);
        gm_string_printf(out, "    %%zs = matmul %%xs, %%w%d {impl = \"gemv\"} : f32[%d,%d]\n", t, TOGETHER, ROWS);
        write_capped(out, "y", "z", 1, cap);
        write_capped(out, "ys", "zs", TOGETHER, cap);
        gm_string_printf(out, "    %%n = scan %%count, %%zero (%%k: i32, %%c: i32) {\n      %%o = index %%settings, "
                              "%%k {axis = 0} : f32[8]\n");
        gm_string_printf(
            out,
            "      %%m = scan %%positions, %%c (%%i.p: i32, %%d: i32) {\n        %%p = mul %%i.p, %%apart : i32\n");
        write_compared(out, t, "one", 1, "%x", "%y", plain, "");
        write_compared(out, t, "rows", TOGETHER, "%xs", "%ys", plain, "");
        write_compared(out, t, "likely", 1, "%x", "%y", likely, usual);
        gm_string_printf(out, "        %%e = add %%d, %%differ.one : i32\n        %%f = add %%e, %%differ.rows : i32\n "
                              "       %%g = add %%f, %%differ.likely : i32\n        yield %%g\n");
        gm_string_printf(out,
                         "      } : i32\n      yield %%m\n    } : i32\n    %%v = reshape %%n : i32[1]\n    %%next = "
                         "update %%counts, %%v, %%i : i32[%d]\n    yield %%next\n",
                         INPUTS);
        gm_string_printf(out, "  } : i32[%d]\n", INPUTS);
        gm_string_printf(&list, "%s%%r%d", t ? ", " : "", t);
    }
    gm_string_printf(out, "  return %s\n}\n", list.data);
    gm_string_free(&list);
}

/* Every third row changes along x, after its screen was made: it scores less than is supposed, by about half of what
 * its bound leaves. So rows are estimated again, and those that are chosen are often among those that were not kept at
 * first. */
static void lower_rows(const rt_weights *weights, const char *name, const float *x) {
    /* margins are 0.24 for each run of 32 columns: a step of 0.3 / 7.5, and x of about 3.3 */
    const double lost = 0.12 * COLUMNS / RT_SCREEN_RUN;
    float *w = (float *)(uintptr_t)rt_weights_find(weights, name)->data;
    double square = 0;
    for (int i = 0; i < COLUMNS; i++) square += (double)x[i] * (double)x[i];
    for (int r = 0; r < ROWS; r += 3)
        for (int i = 0; i < COLUMNS; i++) w[r * COLUMNS + i] -= (float)(lost / square * (double)x[i]);
}

START_TEST(same_tokens) {
    rt_dtype dtype = types[(size_t)_i / GM_COUNT(cpus)];
    const char *cpu = cpus[(size_t)_i % GM_COUNT(cpus)];
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_string text = {0};
    int32_t tokens[64];
    int64_t seed = _i;
    float x[INPUTS][COLUMNS], options[GM_COUNT(settings)][8] = {0};
    static const char *const names[TABLES] = {"w0", "w1", "w2", "w3", "w4", "w5"};
    ir_array args[] = {{.dtype = RT_I32, .rank = 1, .dim = {64}, .data = tokens},
                       {.dtype = RT_I64, .data = &seed},
                       {.dtype = RT_F32, .rank = 2, .dim = {INPUTS, COLUMNS}, .data = x},
                       {.dtype = RT_F32, .rank = 2, .dim = {GM_COUNT(settings), 8}, .data = options}},
             results[TABLES];
    state = (uint64_t)_i + 1;
    for (int t = 0; t < TABLES; t++) add_table(&weights, names[t], dtype, (table_kind)t);
    for (int i = 0; i < 64; i++) tokens[i] = (int32_t)(next_random() % ROWS);
    for (int i = 0; i < INPUTS; i++) make_x(i, x[i]);
    if (dtype == RT_F32) lower_rows(&weights, names[LOWERED], x[0]);
    for (size_t k = 0; k < GM_COUNT(settings); k++) memcpy(options[k], settings[k], sizeof settings[k]);
    write_function(dtype, (_i % (int)GM_COUNT(cpus) + _i / (int)GM_COUNT(cpus)) % 2 ? 3 : 0, &text);
    if (run_text(cpu, &text, &weights, args, 4, &arena, results))
        for (int i = 0; i < TABLES * INPUTS; i++) {
            int32_t missed = ((const int32_t *)results[i / INPUTS].data)[i % INPUTS];
            ck_assert_msg(missed == 0, "%s, table %d, input %d: %d tokens differ", rt_dtype_of(dtype)->text, i / INPUTS,
                          i % INPUTS, missed);
        }
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* Rows that cannot count are not read: here they have become larger than all others since the screen was made. */
START_TEST(others_are_not_read) {
    enum { COUNTED = 100 };
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_string text = {0};
    float x[COLUMNS];
    int32_t tokens[1] = {0};
    int64_t seed = 1;
    gm_diag diag = {0};
    float *w = (float *)gm_arena_alloc(&weights.arena, sizeof(float) * ROWS * COLUMNS);
    ir_array args[] = {{.dtype = RT_F32, .rank = 2, .dim = {1, COLUMNS}, .data = x},
                       {.dtype = RT_I32, .rank = 1, .dim = {1}, .data = tokens},
                       {.dtype = RT_I64, .data = &seed}},
             result;
    state = 7;
    for (int i = 0; i < COLUMNS; i++) x[i] = random_float(-1, 1);
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < COLUMNS; i++)
            w[r * COLUMNS + i] = r % 20 == 3 && r / 20 < COUNTED ? x[i] : random_float(-0.1f, 0.1f);
    rt_tensor tensor = {.name = "w",
                        .dtype = RT_F32,
                        .rank = 2,
                        .dim = {ROWS, COLUMNS},
                        .data = w,
                        .bytes = sizeof(float) * ROWS * COLUMNS};
    ck_assert_int_eq(rt_weights_add(&weights, "test", &tensor, &diag), GM_OK);
    ck_assert_int_eq(rt_derive(&weights, "w:s4", RT_DERIVED_KEPT, NULL, &diag), GM_OK);
    for (int r = 0; r < ROWS / RT_SCREEN_ROWS * RT_SCREEN_ROWS; r++) /* the others have no screen */
        for (int i = 0; i < COLUMNS && !(r % 20 == 3 && r / 20 < COUNTED); i++) w[r * COLUMNS + i] = 10 * x[i];
    gm_string_printf(&text,
                     "func @f(%%x: f32[1,%d], %%tokens: i32[1], %%seed: i64) -> (i32[1,1]) {\n  %%w = weight {name = "
                     "\"w\"} : f32[%d,%d]\n",
                     COLUMNS, ROWS, COLUMNS);
    write_screen(&text, "s", "w", ROWS, COLUMNS);
    gm_string_printf(&text, "  %%o = const {values = [1, 20, 1, 0, 1, 0, 0, 0]} : f32[8]\n");
    gm_string_printf(&text, "  %%zero = const {value = 0} : i32\n  %%t = screened_sample %%x, %%w, %%s, %%tokens, "
                            "%%zero, %%o, %%seed : i32[1,1]\n  return %%t\n}\n");
    if (run_text(cpus[_i], &text, &weights, args, 3, &arena, &result))
        ck_assert_int_eq(*(const int32_t *)result.data % 20, 3);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* What lies below an uncapped floor is below the floor once it is capped, though not exactly; what lies a little above
 * is not. */
START_TEST(caps_are_undone) {
    static const double caps[] = {0.01, 1, 30, 50, 1e6};
    state = 3;
    for (int i = 0; i < 20000; i++) {
        double cap = caps[i % (int)GM_COUNT(caps)], bent = 2 * (double)next_random() / 18446744073709551616.0 - 1;
        if (i % 7 == 0) bent *= 1e-9;
        float floor = (float)(cap * bent), x = rt_candidates_uncapped(floor, (float)cap),
              below = nextafterf(x, -INFINITY);
        double capped = cap * tanh((double)below / cap), above = cap * tanh((x + fabs((double)x) * 1e-3) / cap);
        if (isfinite(x))
            ck_assert_msg(capped + fabs(capped) * 0x1p-20 < (double)floor, "%a, cap %g: %a", (double)floor, cap,
                          (double)x);
        if (fabs(bent) > 1e-6 && fabs(bent) < 0.99)
            ck_assert_msg(above > (double)floor, "%a, cap %g: %a", (double)floor, cap, (double)x);
    }
    ck_assert(rt_candidates_uncapped(-INFINITY, 30) == -INFINITY && rt_candidates_uncapped(-30, 30) == -INFINITY);
    ck_assert(rt_candidates_uncapped(30, 30) < 300);
    ck_assert(isnan(rt_candidates_uncapped(NAN, 30)));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("screen_sample");
    TCase *tcase = tcase_create("screen_sample");
    tcase_set_timeout(tcase, SECONDS);
    tcase_add_loop_test(tcase, same_tokens, 0, (int)(GM_COUNT(types) * GM_COUNT(cpus)));
    tcase_add_loop_test(tcase, others_are_not_read, 0, (int)GM_COUNT(cpus));
    tcase_add_test(tcase, caps_are_undone);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
