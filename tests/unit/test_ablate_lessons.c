/* What `gemmac ablate --format md` says beneath its table: a lesson per row, and whether the report's finding carries
 * over. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/ablate.h"
#include "tests/unit/suite.h"

static const char *const names[] = {
#define LESSON(row, report_percent, reason) row,
#include "frontend/ablate_lessons.def"
#undef LESSON
};

/* The text for one row whose total moved by percent ± half, against some base. */
static gm_string told(const char *name, double percent, double half) {
    fe_ablate_row row = {.name = name, .meaning = "what it is"};
    fe_ablate_result result = {.row = &row, .base = "some-base"};
    gm_string out = {0};
    result.effect = (fe_effect){percent, percent - half, percent + half, fabs(percent) <= half};
    fe_ablate_lessons(&result, 1, &out);
    return out;
}

static void expect_told(const char *name, double percent, double half, const char *part) {
    gm_string out = told(name, percent, half);
    ck_assert_msg(out.data && strstr(out.data, part), "%s %g: expected \"%s\", found %s", name, percent, part,
                  out.data ? out.data : "nothing");
    gm_string_free(&out);
}

START_TEST(every_lesson_is_of_a_row) {
    gm_arena arena = {0};
    int count;
    const fe_ablate_row *rows = fe_ablate_rows(&arena, &count);
    for (size_t i = 0; i < GM_COUNT(names); i++) {
        bool found = false;
        for (int k = 0; k < count; k++) found |= strcmp(rows[k].name, names[i]) == 0;
        ck_assert_msg(found, "no row is called %s", names[i]);
    }
    gm_arena_free(&arena);
}
END_TEST

START_TEST(figures_decide_what_carries_over) {
    expect_told("prefill-scan", -70, 5, "*carries over.*"); /* the report: -76.60 % */
    expect_told("prefill-scan", -39, 5, "*carries over.*");
    expect_told("prefill-scan", -10, 5, "*carries over in part: smaller here.*");
    expect_told("prefill-scan", -3, 5, "*does not carry over: no effect beyond the noise.*");
    expect_told("prefill-scan", 12, 5, "*does not carry over: the opposite here.*");
    expect_told("prefill-scan", -10, INFINITY, "*one run decides nothing.*");
    expect_told("prefill-scan", -10, 5, "-10.00 % [-15.00, -5.00] here, -76.60 % in the report");
}
END_TEST

START_TEST(rows_beyond_the_report) {
    expect_told("full", -10, 5, "[-15.00, -5.00] here. *a gain.*");
    expect_told("full", 10, 5, "*a loss.*");
    expect_told("full", 1, 5, "*no effect beyond the noise.*");
}
END_TEST

START_TEST(rows_without_a_lesson_are_left_out) {
    gm_string out = told("without-fold", -10, 5);
    ck_assert_uint_eq(out.length, 0);
    gm_string_free(&out);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ablate lessons");
    TCase *tcase = tcase_create("lessons");
    tcase_add_test(tcase, every_lesson_is_of_a_row);
    tcase_add_test(tcase, figures_decide_what_carries_over);
    tcase_add_test(tcase, rows_beyond_the_report);
    tcase_add_test(tcase, rows_without_a_lesson_are_left_out);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
