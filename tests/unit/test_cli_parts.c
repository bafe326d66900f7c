/* Parts of the command line that need no model: stop strings, perplexity and divergence, quantiles.
 */
#include "frontend/perplexity.h"
#include "frontend/stop_match.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- stop strings ---- */

/* Feed text in pieces of `step` bytes; the text that comes out is in *out. */
static bool match_in_pieces(const char *const *stops, size_t count, const char *text, size_t step, gm_string *out) {
    fe_stop_match match = {.stops = stops, .count = count};
    size_t length = strlen(text);
    bool stopped = false;
    for (size_t i = 0; i < length && !stopped; i += step)
        stopped = fe_stop_match_push(&match, text + i, length - i < step ? length - i : step, out);
    if (!stopped) fe_stop_match_finish(&match, out);
    ck_assert_ptr_null(match.held.data);
    gm_string_append(out, "", 0);
    return stopped;
}

static void expect(const char *const *stops, size_t count, const char *text, bool stops_there, const char *before) {
    for (size_t step = 1; step <= strlen(text) + 1; step++) {
        gm_string out = {0};
        bool stopped = match_in_pieces(stops, count, text, step, &out);
        ck_assert_int_eq(stopped, stops_there);
        ck_assert_str_eq(out.data, before);
        gm_string_free(&out);
    }
}

START_TEST(stop_is_found_in_any_pieces) {
    const char *one[] = {"END"}, *two[] = {"abcd", "bc"}, *nested[] = {"\n", "x\n"};
    expect(one, 1, "some textENDand more", true, "some text");
    expect(one, 1, "ENENDx", true, "EN");
    expect(one, 1, "nothing EN", false, "nothing EN");
    expect(one, 1, "", false, "");
    expect(two, 2, "1abcd", true, "1a"); /* the one that is complete first */
    expect(two, 2, "1abd", false, "1abd");
    expect(nested, 2, "yx\nz", true, "y"); /* the longest of those that end together */
    expect(NULL, 0, "free", false, "free");
}
END_TEST

START_TEST(stop_in_the_middle_of_a_repetition) {
    const char *stops[] = {"aab"}, *japanese[] = {"。\n"};
    expect(stops, 1, "aaab!", true, "a");
    expect(stops, 1, "aaaac", false, "aaaac");
    expect(japanese, 1, "はい。いいえ。\n次", true, "はい。いいえ");
}
END_TEST

START_TEST(text_comes_out_as_soon_as_it_is_certain) {
    const char *stops[] = {"User:"};
    fe_stop_match match = {.stops = stops, .count = 1};
    gm_string out = {0};
    ck_assert(!fe_stop_match_push(&match, "Hello Us", 8, &out));
    ck_assert_str_eq(out.data, "Hello ");
    ck_assert(!fe_stop_match_push(&match, "ain", 3, &out));
    ck_assert_str_eq(out.data, "Hello Usain");
    ck_assert(fe_stop_match_push(&match, "User: x", 7, &out));
    ck_assert_str_eq(out.data, "Hello Usain");
    gm_string_free(&out);
}
END_TEST

START_TEST(text_may_hold_zero_bytes) {
    const char *stops[] = {"ab"};
    fe_stop_match match = {.stops = stops, .count = 1};
    gm_string out = {0};
    ck_assert(!fe_stop_match_push(&match, "a\0b", 3, &out));
    fe_stop_match_finish(&match, &out);
    ck_assert_uint_eq(out.length, 3);
    ck_assert_mem_eq(out.data, "a\0b", 3);
    gm_string_free(&out);
}
END_TEST

/* ---- rows of logits ---- */

START_TEST(nll_of_a_row) {
    const float even[] = {3, 3, 3, 3}, large[] = {0, 1000, 990}, small[] = {-1e4f, -1e4f};
    ck_assert_double_eq_tol(fe_row_nll(even, 4, 2), log(4), 1e-12);
    ck_assert_double_eq_tol(fe_row_nll(large, 3, 1), log1p(exp(-10)), 1e-12);
    ck_assert_double_eq_tol(fe_row_nll(large, 3, 0), 1000 + log1p(exp(-10)), 1e-9);
    ck_assert_double_eq_tol(fe_row_nll(small, 2, 0), log(2), 1e-12);
}
END_TEST

START_TEST(divergence_of_two_rows) {
    /* p = softmax(ln 1, ln 2, ln 1), q = softmax(0, 0, 0): KL = 1/4 ln(3/4) · 2 + 1/2 ln(3/2) */
    const float p[] = {0, 0.693147180559945f, 0}, q[] = {5, 5, 5}, shifted[] = {100, 100.693147f, 100};
    fe_divergence d = fe_row_divergence(p, q, 3);
    ck_assert_double_eq_tol(d.kl, 0.5 * log(0.75) + 0.5 * log(1.5), 1e-7);
    ck_assert(!d.same_top);
    d = fe_row_divergence(p, shifted, 3);
    ck_assert_double_eq_tol(d.kl, 0, 1e-9);
    ck_assert(d.kl >= 0 && d.same_top);
}
END_TEST

START_TEST(quantiles_interpolate) {
    double values[] = {4, 1, 3, 2, 5}, one[] = {7};
    ck_assert_double_eq(fe_quantile(values, 5, 0), 1);
    ck_assert_double_eq(fe_quantile(values, 5, 0.5), 3);
    ck_assert_double_eq_tol(fe_quantile(values, 5, 0.99), 4.96, 1e-12);
    ck_assert_double_eq(fe_quantile(values, 5, 1), 5);
    ck_assert_double_eq(fe_quantile(one, 1, 0.99), 7);
    ck_assert(isnan(fe_quantile(values, 0, 0.5)));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cli_parts");
    TCase *stop = tcase_create("stop_match"), *rows = tcase_create("perplexity");
    tcase_add_test(stop, stop_is_found_in_any_pieces);
    tcase_add_test(stop, stop_in_the_middle_of_a_repetition);
    tcase_add_test(stop, text_comes_out_as_soon_as_it_is_certain);
    tcase_add_test(stop, text_may_hold_zero_bytes);
    tcase_add_test(rows, nll_of_a_row);
    tcase_add_test(rows, divergence_of_two_rows);
    tcase_add_test(rows, quantiles_interpolate);
    suite_add_tcase(suite, stop);
    suite_add_tcase(suite, rows);
    return suite_run(suite);
}
