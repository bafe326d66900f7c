/* What --precision auto comes to, by the target and by the weights (frontend/precision.c). */
#include "frontend/driver.h"
#include "frontend/gmx.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdio.h>

enum { HEAD_ROWS = 4096, ROWS = 256, COLUMNS = 512 };

/* A head in q8_0 of 2.2 MB, and matrices of 135 kB as panels. */
static void make(rt_weights *weights, int count, rt_dtype dtype) {
    gm_diag diag = {0};
    rt_tensor head = {.name = "embed_tokens.weight", .dtype = RT_Q8_0, .rank = 2, .dim = {HEAD_ROWS, COLUMNS}};
    rt_tensor norm = {.name = "norm.weight", .dtype = RT_F32, .rank = 1, .dim = {COLUMNS}};
    *weights = (rt_weights){0};
    ck_assert_int_eq(rt_weights_add(weights, "here", &head, &diag), GM_OK);
    ck_assert_int_eq(rt_weights_add(weights, "here", &norm, &diag), GM_OK);
    for (int i = 0; i < count; i++) {
        char name[40];
        snprintf(name, sizeof name, "layers.%d.mlp.up_proj.weight", i);
        rt_tensor tensor = {.name = name, .dtype = dtype, .rank = 2, .dim = {ROWS, COLUMNS}};
        ck_assert_int_eq(rt_weights_add(weights, "here", &tensor, &diag), GM_OK);
    }
}

START_TEST(auto_is_int8_where_panels_are_kept) {
    static const struct {
        int count;
        rt_dtype dtype;
        pass_precision opened, artefact;
    } cases[] = {{16, RT_Q4_K, PASS_INT8, PASS_INT8},     /* panels smaller than the head */
                 {32, RT_Q4_K, PASS_BLOCK8, PASS_INT8},   /* smaller than all that is stored */
                 {64, RT_Q4_K, PASS_BLOCK8, PASS_INT8},   /* 8.7 MB of panels beside 7 MB, less than a third more */
                 {96, RT_Q4_K, PASS_BLOCK8, PASS_BLOCK8}, /* 13 MB beside 9.3 */
                 {64, RT_BF16, PASS_INT8, PASS_INT8},     /* no small codes */
                 {64, RT_Q8_0, PASS_INT8, PASS_INT8}};
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        fe_model model = {0};
        make(&model.weights, cases[i].count, cases[i].dtype);
        ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "znver4", &model, false), cases[i].opened);
        ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "znver4", &model, true), cases[i].artefact);
        ck_assert_int_eq(fe_pass_precision(FE_PRECISION_INT8, "znver4", &model, false), PASS_INT8);
        rt_weights_close(&model.weights);
    }
}
END_TEST

START_TEST(auto_follows_the_target) {
    fe_model none = {0};
    ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "haswell", NULL, false), PASS_BLOCK8);
    ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "alderlake", NULL, false), PASS_INT8);
    ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "znver4", &none, false), PASS_INT8);
    ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "sapphirerapids", NULL, false), PASS_BF16);
}
END_TEST

/* Whatever the weights say: it may hold no panels because keep_panels was skipped. */
START_TEST(an_artefact_stays_what_it_is) {
    fe_gmx gmx = {.key = {.plan = "int8"}};
    fe_model model = {.gmx = &gmx};
    make(&model.weights, 64, RT_Q4_K);
    ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "znver4", &model, false), PASS_INT8);
    gmx.key.plan = "block8";
    ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "znver4", &model, true), PASS_BLOCK8);
    ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "sapphirerapids", &model, true), PASS_BF16);
    gmx.key.plan = "bf16"; /* of another CPU */
    ck_assert_int_eq(fe_pass_precision(FE_PRECISION_AUTO, "znver4", &model, false), PASS_BLOCK8);
    rt_weights_close(&model.weights);
}
END_TEST

START_TEST(texts_are_read_back) {
    static const pass_precision all[] = {PASS_F32, PASS_BF16, PASS_INT16, PASS_INT8, PASS_BLOCK8};
    for (size_t i = 0; i < GM_COUNT(all); i++) ck_assert_int_eq(pass_precision_of(pass_precision_text(all[i])), all[i]);
    ck_assert_int_eq(pass_precision_of("int4"), PASS_F32);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("precision");
    TCase *tests = tcase_create("auto");
    tcase_add_test(tests, auto_is_int8_where_panels_are_kept);
    tcase_add_test(tests, auto_follows_the_target);
    tcase_add_test(tests, an_artefact_stays_what_it_is);
    tcase_add_test(tests, texts_are_read_back);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
