/* Log probabilities and the likeliest tokens (frontend/likely.c), beside sorting and softmax in long doubles. */
#include "frontend/likely.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

enum { VOCAB = 300 };

static void fill(float *logits, uint32_t state) {
    for (int i = 0; i < VOCAB; i++) {
        state = state * 1664525u + 1013904223u;
        logits[i] = (float)((int)(state >> 24) - 128) / 8; /* many are equal */
    }
}

/* How many ids come before it: those with larger logits, and lower ones with as large a logit. */
static int rank_of(const float *logits, int32_t id) {
    int rank = 0;
    for (int i = 0; i < VOCAB; i++) rank += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
    return rank;
}

static double logprob_of(const float *logits, int32_t id) {
    long double sum = 0;
    for (int i = 0; i < VOCAB; i++) sum += expl((long double)logits[i]);
    return (double)((long double)logits[id] - logl(sum));
}

START_TEST(likeliest_are_sorted) {
    static const int tops[] = {0, 1, 5, FE_LIKELY_MOST};
    float logits[VOCAB];
    for (size_t t = 0; t < GM_COUNT(tops); t++) {
        fe_likelies list = {.top = tops[t]};
        for (uint32_t token = 0; token < 40; token++) {
            int32_t id = (int32_t)(token * 7 % VOCAB);
            fill(logits, token);
            ck_assert_uint_eq(fe_likelies_grow(&list, 1), token);
            fe_likelies_set(&list, token, logits, VOCAB, id);
            const fe_likely *entry = fe_likelies_at(&list, token);
            ck_assert_int_eq(entry[0].id, id);
            for (int i = 0; i <= list.top; i++)
                ck_assert_double_eq_tol(entry[i].logprob, logprob_of(logits, entry[i].id), 1e-12);
            for (int i = 1; i <= list.top; i++) ck_assert_int_eq(rank_of(logits, entry[i].id), i - 1);
        }
        ck_assert_uint_eq(list.count, 40);
        fe_likelies_free(&list);
    }
}
END_TEST

/* To the bit, as clients compare them. */
START_TEST(a_token_is_its_entry_among_the_likeliest) {
    float logits[VOCAB];
    fe_likelies list = {.top = 3};
    fill(logits, 9);
    fe_likelies_grow(&list, 1);
    fe_likelies_set(&list, 0, logits, VOCAB, 5);
    int32_t best = fe_likelies_at(&list, 0)[1].id;
    fe_likelies_set(&list, 0, logits, VOCAB, best);
    ck_assert(fe_likelies_at(&list, 0)[0].logprob == fe_likelies_at(&list, 0)[1].logprob);
    fe_likelies_free(&list);
}
END_TEST

START_TEST(nothing_is_known_of_a_first_token) {
    fe_likelies list = {.top = 2};
    float logits[VOCAB];
    fill(logits, 1);
    ck_assert_uint_eq(fe_likelies_grow(&list, 3), 0);
    fe_likelies_set_first(&list, 0, 2);
    fe_likelies_set(&list, 1, logits, VOCAB, 4);
    fe_likelies_set(&list, 2, logits, VOCAB, 6);
    ck_assert_uint_eq(fe_likelies_grow(&list, 1), 3);
    fe_likelies_set(&list, 3, logits, VOCAB, 8);
    ck_assert_int_eq(fe_likelies_at(&list, 0)->id, 2);
    ck_assert(isnan(fe_likelies_at(&list, 0)->logprob));
    for (size_t i = 1; i < 4; i++) ck_assert_int_eq(fe_likelies_at(&list, i)->id, (int)(2 + 2 * i));
    fe_likelies_free(&list);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("likely");
    TCase *tests = tcase_create("log probabilities");
    tcase_add_test(tests, likeliest_are_sorted);
    tcase_add_test(tests, a_token_is_its_entry_among_the_likeliest);
    tcase_add_test(tests, nothing_is_known_of_a_first_token);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
