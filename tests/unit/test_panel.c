/* Kept panels: their codes and scales are those of each stored row rotated and rounded alone, to the bit; what cannot
 * be kept is refused; pages in a file come back after they were let go of. */
#include "runtime/derive.h"
#include "runtime/panel.h"
#include "runtime/release.h"
#include "runtime/rotate.h"
#include "tests/unit/products.h"
#include "tests/unit/suite.h"

enum { ROWS = 48, WIDTHS = 4 };

static const rt_dtype stored_types[] = {RT_F32, RT_BF16, RT_Q5_0, RT_Q8_0, RT_Q4_K, RT_Q6_K, RT_IQ4_XS};
/* one, three and nine runs of a rotation; the last of two scales */
static const int64_t widths[WIDTHS] = {256, 768, 2048, 2304};

static const rt_tensor *panels_of(rt_weights *weights, const rt_tensor *w, rt_derived_use use) {
    gm_diag diag = {0};
    const char *name = rt_derived_name(&weights->arena, RT_DERIVED_PANELS, w->name);
    ck_assert_msg(rt_derive(weights, name, use, NULL, &diag) == GM_OK, "%s", diag.message);
    return rt_weights_find(weights, name);
}

/* The largest magnitude as scales take it; NaN when there is one. */
static float largest(const float *x, int64_t count) {
    float most = RT_SCALE_LEAST;
    for (int64_t i = 0; i < count && !isnan(most); i++)
        if (!(fabsf(x[i]) <= most)) most = fabsf(x[i]);
    return most;
}

static void check_row(const rt_tensor *w, const rt_tensor *panels, int64_t row, gm_arena *arena) {
    int64_t columns = w->dim[1];
    float *want = widened_row(w, row, arena), *codes = GM_NEW_ARRAY(arena, float, columns),
          *scales = GM_NEW_ARRAY(arena, float, columns);
    rt_rotate_row(want, columns);
    rt_panel_row(panels->data, row, columns, codes, scales);
    for (int64_t from = 0; from < columns; from += RT_PANEL_RUN) {
        int64_t count = columns - from < RT_PANEL_RUN ? columns - from : RT_PANEL_RUN;
        float most = largest(want + from, count), scale = most / 127, inverse = 127 / most;
        ck_assert(memcmp(&scales[from / RT_PANEL_RUN], &scale, sizeof scale) == 0 || isnan(scale));
        for (int64_t k = from; k < from + count && isfinite(most); k++)
            ck_assert_msg(codes[k] == rintf(want[k] * inverse), "%s, row %d, column %d: %g instead of %g",
                          rt_dtype_of(w->dtype)->text, (int)row, (int)k, (double)codes[k],
                          (double)rintf(want[k] * inverse));
    }
}

START_TEST(rows_are_rotated_and_rounded) {
    gm_arena arena = {0};
    state = (uint64_t)_i + 1;
    for (int i = 0; i < WIDTHS; i++) {
        rt_weights weights = {0};
        rt_tensor w = *make_weight(&weights, "w", stored_types[_i], ROWS, widths[i]);
        const rt_tensor *panels = panels_of(&weights, &w, RT_DERIVED_KEPT);
        ck_assert(panels->dtype == RT_I8_P16 &&
                  panels->bytes == (size_t)(ROWS * widths[i] / RT_PANEL_BLOCK * (RT_PANEL_BLOCK + 4)));
        for (int64_t row = 0; row < ROWS; row++) check_row(&w, panels, row, &arena);
        rt_weights_close(&weights);
    }
    gm_arena_free(&arena);
}
END_TEST

START_TEST(rows_side_by_side_are_as_alone) {
    enum { COLUMNS = 640, EACH = 16 };
    static float rows[COLUMNS * EACH], one[COLUMNS];
    state = 7;
    for (int i = 0; i < COLUMNS * EACH; i++) rows[i] = random_float(-1, 1);
    static float turned[COLUMNS * EACH];
    memcpy(turned, rows, sizeof rows);
    rt_rotate_rows(turned, COLUMNS, EACH);
    for (int r = 0; r < EACH; r++) {
        for (int k = 0; k < COLUMNS; k++) one[k] = rows[k * EACH + r];
        rt_rotate_row(one, COLUMNS);
        for (int k = 0; k < COLUMNS; k++) ck_assert(memcmp(&one[k], &turned[k * EACH + r], sizeof *one) == 0);
    }
}
END_TEST

START_TEST(pages_come_back) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    state = 3;
    rt_tensor w = *make_weight(&weights, "w", RT_Q8_0, ROWS, 2048);
    const rt_tensor *panels = panels_of(&weights, &w, RT_DERIVED_LET_GO);
    if (rt_weights_is_mapped(&weights, panels))
        rt_release_pages(panels->data, (const char *)panels->data + panels->bytes);
    for (int64_t row = 0; row < ROWS; row++) check_row(&w, panels, row, &arena);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

START_TEST(without_a_folder_they_are_in_memory) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    const char *before = getenv("TMPDIR");
    setenv("TMPDIR", "/nowhere/at/all", 1);
    rt_tensor w = *make_weight(&weights, "w", RT_F32, ROWS, 256);
    const rt_tensor *panels = panels_of(&weights, &w, RT_DERIVED_LET_GO);
    ck_assert(!rt_weights_is_mapped(&weights, panels));
    for (int64_t row = 0; row < ROWS; row++) check_row(&w, panels, row, &arena);
    if (before) setenv("TMPDIR", before, 1);
    else unsetenv("TMPDIR");
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

START_TEST(what_cannot_be_kept_is_refused) {
    static const struct {
        const char *name;
        rt_dtype dtype;
        int64_t rows, columns;
    } bad[] = {{"odd", RT_Q8_0, 17, 128}, {"short", RT_Q5_0, 16, 64}, {"few", RT_Q8_0, 8, 128}};
    rt_weights weights = {0};
    rt_tensor none;
    gm_diag diag = {0};
    for (size_t i = 0; i < GM_COUNT(bad); i++) {
        make_weight(&weights, bad[i].name, bad[i].dtype, bad[i].rows, bad[i].columns);
        const char *name = rt_derived_name(&weights.arena, RT_DERIVED_PANELS, bad[i].name);
        ck_assert_int_eq(rt_derive(&weights, name, RT_DERIVED_KEPT, NULL, &diag), GM_FORMAT);
        ck_assert(!rt_derived_shape(name, rt_weights_find(&weights, bad[i].name), &none));
    }
    ck_assert(rt_is_panels("w:p16") && !rt_is_panels("w:r16") && rt_derived_source("w:p16") == 1);
    rt_weights_close(&weights);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("panel");
    TCase *tcase = tcase_create("kept panels");
    tcase_add_loop_test(tcase, rows_are_rotated_and_rounded, 0, (int)GM_COUNT(stored_types));
    tcase_add_test(tcase, rows_side_by_side_are_as_alone);
    tcase_add_test(tcase, pages_come_back);
    tcase_add_test(tcase, without_a_folder_they_are_in_memory);
    tcase_add_test(tcase, what_cannot_be_kept_is_refused);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
