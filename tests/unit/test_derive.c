/* Lists of weights that are derived: on threads while the caller goes on, or at the end, they become what each alone
 * does, and whoever asked is told of them in order; a list with one that cannot be made makes none. */
#include "runtime/derive.h"
#include "tests/unit/products.h"
#include "tests/unit/suite.h"

enum { MATRICES = 24 };

/* Matrices of several sizes, the first by far the largest, and the names of what is derived from them. */
static void make_matrices(rt_weights *weights, const char **names) {
    static const int64_t rows[] = {4096, 16, 272, 1040};
    state = 11;
    for (int i = 0; i < MATRICES; i++) {
        const char *name = gm_arena_printf(&weights->arena, "w%d", i);
        make_weight(weights, name, RT_Q8_0, rows[i % 4], i ? 128 : 1024);
        names[i] = rt_derived_name(&weights->arena, i % 3, name);
    }
}

typedef struct told {
    size_t count;
    const char *names[MATRICES];
} told;

static void tell(void *user, const rt_tensor *made) {
    told *t = user;
    ck_assert_uint_lt(t->count, MATRICES);
    ck_assert(made->data && made->bytes);
    t->names[t->count++] = made->name;
}

static void check_same(const rt_weights *weights, const rt_weights *alone, const char *const *names) {
    for (int i = 0; i < MATRICES; i++) {
        const rt_tensor *made = rt_weights_find(weights, names[i]), *want = rt_weights_find(alone, names[i]);
        ck_assert_msg(made && want, "%s", names[i]);
        ck_assert_int_eq(made->dtype, want->dtype);
        ck_assert_uint_eq(made->bytes, want->bytes);
        ck_assert_msg(memcmp(made->data, want->data, want->bytes) == 0, "%s differs", names[i]);
    }
}

/* threads 0: without a team. The second name is there before. */
static void derive_list(int threads, rt_derived_use use) {
    const char *names[MATRICES];
    rt_weights weights = {0}, alone = {0};
    rt_team *team = NULL;
    rt_deriving *deriving;
    gm_diag diag = {0};
    told list = {0};
    make_matrices(&alone, names);
    for (int i = 0; i < MATRICES; i++)
        ck_assert_int_eq(rt_derive(&alone, names[i], RT_DERIVED_KEPT, NULL, &diag), GM_OK);
    make_matrices(&weights, names);
    if (threads) ck_assert_int_eq(rt_team_open(threads, &diag, &team), GM_OK);
    ck_assert_int_eq(rt_derive(&weights, names[1], use, team, &diag), GM_OK);
    ck_assert_int_eq(rt_derive_begin(&weights, names, MATRICES, use, tell, &list, team, &diag, &deriving), GM_OK);
    ck_assert_int_eq(rt_derive_end(deriving, &diag), GM_OK);
    ck_assert_uint_eq(list.count, MATRICES - 1);
    for (size_t i = 0; i < list.count; i++) ck_assert_str_eq(list.names[i], names[i ? i + 1 : 0]);
    check_same(&weights, &alone, names);
    rt_team_close(team);
    rt_weights_close(&weights);
    rt_weights_close(&alone);
}

START_TEST(lists_are_derived) {
    static const rt_derived_use uses[] = {RT_DERIVED_WRITTEN, RT_DERIVED_KEPT, RT_DERIVED_LET_GO};
    for (size_t i = 0; i < GM_COUNT(uses); i++)
        for (int threads = 0; threads <= 5; threads++) derive_list(threads, uses[i]);
}
END_TEST

START_TEST(nothing_is_told_of_a_bad_list) {
    rt_weights weights = {0};
    gm_diag diag = {0};
    told list = {0};
    rt_deriving *deriving;
    make_weight(&weights, "good", RT_Q8_0, 64, 128);
    make_weight(&weights, "odd", RT_Q8_0, 17, 128);
    const char *const bad[][2] = {{"good:s4", "odd:r16"}, {"good:r16", "none:r16"}};
    for (size_t i = 0; i < GM_COUNT(bad); i++) {
        ck_assert_int_eq(rt_derive_begin(&weights, bad[i], 2, RT_DERIVED_KEPT, tell, &list, NULL, &diag, &deriving),
                         GM_FORMAT);
        ck_assert(!deriving && !rt_weights_find(&weights, bad[i][0]));
    }
    ck_assert_uint_eq(list.count, 0);
    ck_assert_int_eq(rt_derive_begin(&weights, NULL, 0, RT_DERIVED_KEPT, tell, &list, NULL, &diag, &deriving), GM_OK);
    ck_assert_int_eq(rt_derive_end(deriving, &diag), GM_OK);
    rt_weights_close(&weights);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("derive");
    TCase *tcase = tcase_create("derive");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, lists_are_derived);
    tcase_add_test(tcase, nothing_is_told_of_a_bad_list);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
