/* Choosing among ways to compute a product by how long they take: the pass obeys what it is told, and what was measured
 * stays with the artefact. No test depends on a time. */
#include <math.h>

#include "frontend/gmx_impl.h"
#include "frontend/measure.h"
#include "ir/decisions.h"
#include "model_files.h"
#include "tests/unit/passed_text.h"
#include "tests/unit/suite.h"

#define GGUF GM_TEST_DATA "/gguf/gemma3-tiny-q8_0.gguf"

/* ---- the pass ---- */

static const char *const products =
    "symbol T max 576\n"
    "func @f(%x: f32[T,64], %one: f32[1,64]) -> (f32[T,96], f32[T,32], f32[1,96], f32[T,40], f32[T,96]) {\n"
    "  %a = weight {name = \"a\"} : f32[64,64]\n"
    "  %b = weight {name = \"b\"} : q8_0[32,64]\n"
    "  %c = weight {name = \"c\"} : f32[40,64]\n"
    "  %u = matmul %x, %a, %b : f32[T,96]\n"
    "  %v = matmul %x, %b : f32[T,32]\n"
    "  %w = matmul %one, %a, %b : f32[1,96]\n"
    "  %r = matmul %x, %c : f32[T,40]\n"
    "  %u.1 = matmul %x, %a, %b : f32[T,96]\n"
    "  return %u, %v, %w, %r, %u.1\n"
    "}\n";

/* Answers of the stand-in for a clock, by words of a candidate; asked counts the questions. */
typedef struct answers {
    struct {
        const char *what, *choice;
        double seconds;
    } known[8];
    int asked;
    gm_status status;
    char last[96]; /* what was asked about last */
} answers;

static gm_status answer(void *user, const ir_module *module, pass_candidate *candidates, size_t count, gm_diag *diag) {
    answers *a = user;
    for (size_t i = 0; i < count; i++) {
        a->asked++;
        snprintf(a->last, sizeof a->last, "%s", candidates[i].what);
        ck_assert_int_eq(candidates[i].product->op, IR_MATMUL);
        for (size_t k = 0; k < GM_COUNT(a->known) && a->known[k].what; k++)
            if (strstr(candidates[i].what, a->known[k].what) && strcmp(candidates[i].choice, a->known[k].choice) == 0)
                candidates[i].seconds = a->known[k].seconds;
    }
    return a->status == GM_OK ? GM_OK : gm_fail(diag, a->status, "no clock");
}

/* The text after the passes of `list`; the decisions go to *out when it is not NULL. */
static gm_string chosen(const char *text, pass_precision precision, const char *list, answers *a, ir_decisions *out) {
    gm_string printed = {0};
    pass_options options = {.context = 1024,
                            .chunk = 576,
                            .rows = 32,
                            .precision = precision,
                            .decisions = out,
                            .measure = answer,
                            .measure_user = a};
    ir_module *after = passed_text(text, &options, list);
    ir_print_module(after, &printed);
    ir_module_free(after);
    return printed;
}

static int times(const char *text, const char *part) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, part)); at++) count++;
    return count;
}

#define BOTH "f32[64,64] q8_0[32,64]"

START_TEST(fastest_is_chosen) {
    answers a = {.known = {{BOTH, "integer", 3e-3},
                           {BOTH, "integer, tile 4", 1e-3},
                           {BOTH, "integer, tile 8", 2e-3},
                           {"f32[576,64] q8_0", "integer", 1e-3},
                           {"f32[576,64] q8_0", "integer, tile 4", 2e-3},
                           {"f32[576,64] q8_0", "integer, tile 8", 3e-3}}};
    ir_decisions decisions = {.items = NULL};
    gm_string out = chosen(products, PASS_INT16, "choose_matmul", &a, &decisions);
    ck_assert_int_eq(a.asked, 6); /* two shapes of three ways: products that are alike are asked about once */
    ck_assert_int_eq(times(out.data, "impl = \"integer\", tile = 4"), 2);
    ck_assert_int_eq(times(out.data, "impl = \"integer\"}"), 1);
    ck_assert_int_eq(times(out.data, "impl = \"gemv\""), 1);   /* few rows: more or less exact, so no alternative */
    ck_assert_int_eq(times(out.data, "impl = \"stream\""), 1); /* not of whole panels */
    bool told = false;
    for (size_t i = 0; i < decisions.count; i++)
        told |=
            strcmp(decisions.items[i].choice, "integer, tile 4") == 0 && decisions.items[i].count == 2 &&
            strcmp(decisions.items[i].reason, "measured 1 ms of one thread; integer 3 ms; integer, tile 8 2 ms") == 0;
    ck_assert(told);
    ir_decisions_free(&decisions);
    gm_string_free(&out);
    out = chosen(products, PASS_INT16, "choose_matmul,lower_precision", &a, NULL);
    ck_assert_int_eq(times(out.data, "{bits = 12, tile = 4}"), 2);
    gm_string_free(&out);
}
END_TEST

/* Not known, or hardly faster: as the rule says. */
START_TEST(rules_hold_unless_told_better) {
    const double doubtful[] = {0, NAN, -1, 0.97e-3};
    for (size_t i = 0; i < GM_COUNT(doubtful); i++) {
        answers a = {.known = {{BOTH, "integer", 1e-3},
                               {BOTH, "integer, tile 4", doubtful[i]},
                               {BOTH, "integer, tile 8", 0.99e-3}}};
        gm_string out = chosen(products, PASS_INT16, "choose_matmul", &a, NULL);
        ck_assert_int_eq(times(out.data, "tile"), 0);
        ck_assert_int_eq(times(out.data, "impl = \"integer\""), 3);
        gm_string_free(&out);
    }
}
END_TEST

START_TEST(copies_of_f32) {
    answers a = {.known = {{BOTH, "stream", 2e-3},
                           {BOTH, "packed", 1e-3},
                           {"f32[40,64]", "stream", 1e-3},
                           {"f32[40,64]", "packed", 2e-3}}};
    gm_string out = chosen(products, PASS_F32, "choose_matmul", &a, NULL);
    ck_assert_int_eq(a.asked, 6); /* three shapes; few rows are not asked about */
    ck_assert_int_eq(times(out.data, "impl = \"packed\""), 2);
    ck_assert_int_eq(times(out.data, "impl = \"stream\""), 2);
    ck_assert_int_eq(times(out.data, "impl = \"gemv\""), 1);
    gm_string_free(&out);
}
END_TEST

/* What would not be the same arithmetic is never a candidate, nor a copy that is too large. */
START_TEST(not_legal_not_asked) {
    answers a = {.asked = 0};
    gm_string out = chosen(products, PASS_BF16, "choose_matmul", &a, NULL);
    ck_assert_int_eq(a.asked, 0);
    gm_string_free(&out);
    const char *large = "symbol T max 576\nfunc @f(%x: f32[T,1024]) -> (f32[T,40960]) {\n  %w = weight {name = \"w\"} "
                        ": bf16[40960,1024]\n"
                        "  %y = matmul %x, %w : f32[T,40960]\n  return %y\n}\n";
    out = chosen(large, PASS_F32, "choose_matmul", &a, NULL);
    ck_assert_int_eq(a.asked, 0);
    ck_assert_int_eq(times(out.data, "impl = \"stream\""), 1);
    gm_string_free(&out);
    const char *there = "func @f(%x: f32[64,64]) -> (f32[64,64]) {\n  %w = weight {name = \"w\"} : f32[64,64]\n"
                        "  %y = matmul %x, %w {impl = \"stream\"} : f32[64,64]\n  return %y\n}\n";
    out = chosen(there, PASS_INT16, "choose_matmul", &a, NULL);
    ck_assert_int_eq(a.asked, 0);
    gm_string_free(&out);
}
END_TEST

START_TEST(failing_clock_is_reported) {
    answers a = {.status = GM_UNSUPPORTED};
    gm_diag diag = {.quiet = true};
    ir_module *module = NULL, *after = NULL;
    pass_options options = {
        .context = 1024, .chunk = 576, .rows = 32, .precision = PASS_INT16, .measure = answer, .measure_user = &a};
    pass_pipeline_request request = {.options = &options, .list = "choose_matmul"};
    ck_assert_int_eq(ir_parse(products, strlen(products), "test", &diag, &module), GM_OK);
    ck_assert_int_eq(pass_run(&request, module, &diag, &after), GM_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(diag.message, "no clock"));
}
END_TEST

/* ---- measuring, and artefacts ---- */

static const fe_options measured = {.threads = 2, .context = 96, .precision = FE_PRECISION_INT16, .measure = true};

static void make(const fe_options *options, const char *model, const char *out) {
    gm_diag diag = {.quiet = true};
    ck_assert_msg(fe_compile(model, options, out, &diag) == GM_OK, "%s", diag.message);
}

/* How many decisions of choose_matmul rest on measurements when `path` is opened so, and whether its own code runs
 * without asking. */
static int decided(const char *path, fe_options options) {
    gm_diag diag = {.quiet = true};
    ir_decisions decisions = {.items = NULL};
    fe_engine engine;
    int count = 0;
    options.decisions = &decisions;
    options.no_weights = true;
    ck_assert_msg(fe_engine_open(path, &options, &diag, &engine) == GM_OK, "%s", diag.message);
    for (size_t i = 0; i < decisions.count; i++) count += strncmp(decisions.items[i].reason, "measured ", 9) == 0;
    fe_engine_close(&engine);
    ir_decisions_free(&decisions);
    return count;
}

static bool runs_warm(const char *path, const fe_options *options) {
    gm_diag diag = {.quiet = true};
    fe_engine engine;
    ck_assert_msg(fe_engine_open(path, options, &diag, &engine) == GM_OK, "%s", diag.message);
    bool warm = engine.warm;
    fe_engine_close(&engine);
    return warm;
}

START_TEST(measurements_stay_with_the_artefact) {
    char path[512], again[512], plain[512];
    const fe_options none = {.threads = 2};
    fe_options usual = measured;
    usual.measure = false;
    snprintf(path, sizeof path, "%s", temp_file("a.gmx"));
    snprintf(again, sizeof again, "%s", temp_file("b.gmx"));
    snprintf(plain, sizeof plain, "%s", temp_file("c.gmx"));
    make(&measured, GGUF, path);
    make(&none, path, again);
    make(&usual, GGUF, plain);
    fe_model a = expect_open(path, true), b = expect_open(again, true), c = expect_open(plain, true);
    const fe_gmx_key *key = &a.gmx->key;
    ck_assert_uint_gt(key->measured_count, 0);
    ck_assert_uint_eq(key->measured_count % 3, 0);
    ck_assert_uint_eq(b.gmx->key.measured_count, key->measured_count);
    for (size_t i = 0; i < key->measured_count; i++) {
        ck_assert(key->measured[i].seconds > 0 && isfinite(key->measured[i].seconds));
        ck_assert(key->measured[i].seconds == b.gmx->key.measured[i].seconds);
        ck_assert_str_eq(key->measured[i].what, b.gmx->key.measured[i].what);
        ck_assert_str_eq(key->measured[i].choice, b.gmx->key.measured[i].choice);
        ck_assert_ptr_nonnull(strstr(key->measured[i].what, "int16 f32[96,"));
    }
    ck_assert_uint_eq(c.gmx->key.measured_count, 0);
    fe_model_close(&a);
    fe_model_close(&b);
    fe_model_close(&c);
    ck_assert(runs_warm(path, &none) && runs_warm(path, &measured) && runs_warm(plain, &none) &&
              !runs_warm(plain, &measured));
}
END_TEST

/* They are used again where the artefact is compiled again for the same target, and for no other. */
START_TEST(measurements_hold_for_their_target) {
    char path[512];
    const fe_options none = {.threads = 2}, other = {.threads = 2, .target_cpu = "x86-64-v2"},
                     exact = {.threads = 2, .precision = FE_PRECISION_F32};
    snprintf(path, sizeof path, "%s", temp_file("a.gmx"));
    make(&measured, GGUF, path);
    ck_assert_int_gt(decided(path, none), 0);
    ck_assert_int_eq(decided(path, other), 0);
    ck_assert_int_eq(decided(path, exact), 0); /* nothing is known of that plan, and nothing is measured unasked */
    ck_assert_int_eq(decided(GGUF, none), 0);
}
END_TEST

START_TEST(measuring_needs_weights) {
    fe_options options = measured;
    gm_diag diag = {.quiet = true};
    fe_engine engine;
    options.no_weights = true;
    ck_assert_int_eq(fe_engine_open(GGUF, &options, &diag, &engine), GM_INVALID);
    ck_assert_ptr_nonnull(strstr(diag.message, "needs the weights"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("measure");
    TCase *pass = tcase_create("pass"), *kept = tcase_create("kept");
    tcase_add_test(pass, fastest_is_chosen);
    tcase_add_test(pass, rules_hold_unless_told_better);
    tcase_add_test(pass, copies_of_f32);
    tcase_add_test(pass, not_legal_not_asked);
    tcase_add_test(pass, failing_clock_is_reported);
    tcase_add_checked_fixture(kept, temp_make, temp_remove);
    tcase_set_timeout(kept, 300);
    tcase_add_test(kept, measurements_stay_with_the_artefact);
    tcase_add_test(kept, measurements_hold_for_their_target);
    tcase_add_test(kept, measuring_needs_weights);
    suite_add_tcase(suite, pass);
    suite_add_tcase(suite, kept);
    return suite_run(suite);
}
