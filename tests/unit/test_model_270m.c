/* Gemma 3 270M (the Q4_K_M file) against reference outputs. Runs when GEMMAC_270M names the file, which tests/check.sh
 * sees to. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/perplexity.h"
#include "tests/model/golden.h"
#include "tests/unit/suite.h"

enum { SECONDS = 900, WHY = 1600, CHUNK = 512, BOS = 2, SCREENED = 32 };
static const double LOGIT_TOLERANCE = 1e-3, NLL_TOLERANCE = 1e-3; /* nats, mean over the positions */

static const char *model;

static void open_engine(fe_precision precision, fe_engine *out) {
    fe_options options = {.precision = precision};
    gm_diag diag = {.quiet = true};
    ck_assert_msg(fe_engine_open(model, &options, &diag, out) == GM_OK, "%s", diag.message);
}

static void open_golden(const char *name, golden_file *out) {
    char path[600];
    snprintf(path, sizeof path, "%s/real270m/%s", GM_TEST_DATA, name);
    ck_assert(golden_open(path, out));
}

/* ---- the f32 plan ---- */

typedef struct prompt_run {
    const golden_file *golden;
    const char *prompt;
    const int32_t *ids;
    int64_t count, vocab, scored; /* scored: tokens before the present call */
    golden_error logit, nll;
} prompt_run;

/* The stored logits of one kind, at the given ids (NULL: all). */
static void compare_last(prompt_run *run, const float *logits, const char *kind, const int32_t *at) {
    int64_t count = 0;
    const float *want = golden_tensor(run->golden, kind, run->prompt, &count);
    for (int64_t i = 0; want && i < count; i++) {
        int64_t id = at ? at[i] : i;
        golden_compare(&run->logit, run->count - 1, id, (double)logits[id], (double)want[i]);
    }
}

static void compare_row(prompt_run *run, int64_t row, const float *logits) {
    const float *nll = golden_tensor(run->golden, "nll", run->prompt, NULL);
    if (row + 1 < run->count) {
        golden_compare(&run->nll, row, run->ids[row + 1], fe_row_nll(logits, run->vocab, run->ids[row + 1]),
                       (double)nll[row]);
        return;
    }
    const float *sum = golden_tensor(run->golden, "logsumexp", run->prompt, NULL);
    golden_compare(&run->nll, row, 0, fe_row_nll(logits, run->vocab, 0) + (double)logits[0], (double)sum[0]);
    compare_last(run, logits, "sample_logits", golden_tensor(run->golden, "sample_ids", NULL, NULL));
    compare_last(run, logits, "top50_val", golden_tensor(run->golden, "top50_ids", run->prompt, NULL));
    compare_last(run, logits, "full_logits", NULL);
}

static bool compare_rows(void *user, int64_t first, int64_t rows, const float *logits) {
    prompt_run *run = user;
    for (int64_t row = 0; row < rows; row++) compare_row(run, run->scored + first + row, logits + row * run->vocab);
    return true;
}

/* Scored in one go; then all but the last token in a prefill; then generated from. */
static bool check_prompt(rt_session *session, const golden_file *golden, const char *prompt, char *why) {
    prompt_run run = {.golden = golden, .prompt = prompt, .vocab = rt_session_vocab(session)};
    gm_diag diag = {.quiet = true};
    run.ids = golden_tensor(golden, "ids", prompt, &run.count);
    rt_session_reset(session);
    gm_status status = rt_session_score(session, run.ids, run.count, compare_rows, &run, &diag);
    rt_session_reset(session);
    run.scored = run.count - 1;
    if (status == GM_OK && run.scored) status = rt_session_prefill(session, run.ids, run.scored, &diag);
    if (status == GM_OK) status = rt_session_score(session, run.ids + run.scored, 1, compare_rows, &run, &diag);
    if (status != GM_OK) return snprintf(why, WHY, "%.1000s", diag.message), false;
    printf("%-10s logits within %.1e, nll within %.1e\n", prompt, run.logit.worst, run.nll.worst);
    if (!(run.logit.worst <= LOGIT_TOLERANCE))
        return snprintf(why, WHY, "logit %lld is %.7g instead of %.7g", (long long)run.logit.column, run.logit.got,
                        run.logit.want),
               false;
    if (!(run.nll.worst <= NLL_TOLERANCE))
        return snprintf(why, WHY, "nll after token %lld is %.7g instead of %.7g", (long long)run.nll.row, run.nll.got,
                        run.nll.want),
               false;
    return golden_generate(session, golden, prompt, 1, run.logit.worst, why, WHY) &&
           golden_generate(session, golden, prompt, 2, run.logit.worst, why, WHY);
}

START_TEST(f32_agrees_with_the_reference) {
    fe_engine engine;
    golden_file golden;
    char why[WHY];
    int failed = 0;
    open_golden("golden.safetensors", &golden);
    open_engine(FE_PRECISION_F32, &engine);
    for (int i = 0; i < golden.prompt_count; i++) {
        if (check_prompt(engine.session, &golden, golden.prompts[i], why)) continue;
        failed++;
        fprintf(stderr, "prompt %s: %s\n", golden.prompts[i], why);
    }
    ck_assert_int_gt(golden.prompt_count, 0);
    ck_assert_msg(!failed, "%d of %d prompts differ from the reference", failed, golden.prompt_count);
    fe_engine_close(&engine);
    golden_close(&golden);
}
END_TEST

/* ---- the screened head ---- */

/* Greedy, as usual, and from more tokens. */
static const rt_sampling samplings[] = {
    {.repeat_penalty = 1},
    {.temperature = 1, .top_k = 64, .top_p = 0.95f, .repeat_penalty = 1, .seed = 1},
    {.temperature = 1.5f, .top_k = 200, .top_p = 1, .repeat_penalty = 1, .seed = 2}};

/* Tokens after the prompt; how many there are. */
static int64_t tokens_of(rt_session *session, const rt_sampling *sampling, const golden_file *golden,
                         const char *prompt, int32_t *out) {
    gm_diag diag = {.quiet = true};
    int64_t count = 0, generated = 0;
    rt_stop stop;
    const int32_t *ids = golden_tensor(golden, "ids", prompt, &count);
    rt_session_reset(session);
    ck_assert_msg(rt_session_prefill(session, ids, count, &diag) == GM_OK, "%s", diag.message);
    ck_assert_msg(
        rt_session_generate(session, sampling, NULL, 0, SCREENED, NULL, NULL, out, &generated, &stop, &diag) == GM_OK,
        "%s", diag.message);
    return generated;
}

/* Every token of every prompt is the same with both engines, which are closed. */
static void expect_same_tokens(fe_engine *one, fe_engine *other) {
    golden_file golden;
    open_golden("golden.safetensors", &golden);
    for (int i = 0; i < golden.prompt_count * (int)GM_COUNT(samplings); i++) {
        const rt_sampling *sampling = &samplings[i % (int)GM_COUNT(samplings)];
        const char *prompt = golden.prompts[i / (int)GM_COUNT(samplings)];
        int32_t got[SCREENED], want[SCREENED];
        ck_assert_int_eq(tokens_of(one->session, sampling, &golden, prompt, got), SCREENED);
        ck_assert_int_eq(tokens_of(other->session, sampling, &golden, prompt, want), SCREENED);
        for (int t = 0; t < SCREENED; t++)
            ck_assert_msg(got[t] == want[t], "%s, seed %d, token %d: %d instead of %d", prompt, (int)sampling->seed, t,
                          got[t], want[t]);
    }
    fe_engine_close(one);
    fe_engine_close(other);
    golden_close(&golden);
}

/* Every token of every prompt is the one that the whole product gives. */
START_TEST(screened_head_changes_no_token) {
    fe_engine screened, full;
    gm_diag diag = {.quiet = true};
    const fe_options skip = {.skip = "screen_head"};
    open_engine(FE_PRECISION_AUTO, &screened);
    ck_assert_msg(fe_engine_open(model, &skip, &diag, &full) == GM_OK, "%s", diag.message);
    ck_assert(ir_func_find(screened.module, "head.R1.argmax") && !ir_func_find(full.module, "head.R1.argmax"));
    ck_assert(ir_func_find(screened.module, "head.R1.sample") && !ir_func_find(full.module, "head.R1.sample"));
    expect_same_tokens(&screened, &full);
}
END_TEST

/* ---- drafts ---- */

/* Every token of every prompt is the one that comes without drafts. */
START_TEST(drafts_change_no_token) {
    fe_engine drafts, plain;
    gm_diag diag = {.quiet = true};
    const fe_options with = {.with = "draft_lookup"};
    open_engine(FE_PRECISION_AUTO, &plain);
    ck_assert_msg(fe_engine_open(model, &with, &diag, &drafts) == GM_OK, "%s", diag.message);
    ck_assert(ir_func_find(drafts.module, "forward.T6") && ir_func_find(drafts.module, "head.R6.argmax"));
    expect_same_tokens(&drafts, &plain);
}
END_TEST

/* ---- the other plans ---- */

/* kl: the largest mean divergence from the f32 plan, nats; auto is one of the others. */
static const struct plan_limit {
    const char *name;
    fe_precision precision;
    double kl;
} plans[] = {{"auto", FE_PRECISION_AUTO, 2.7e-3},
             {"bf16", FE_PRECISION_BF16, 2.7e-3},
             {"int16", FE_PRECISION_INT16, 2e-4},
             {"int8", FE_PRECISION_INT8, 2.7e-3},
             {"block8", FE_PRECISION_BLOCK8, 2.7e-3}};

/* The same program as auto, which is checked in its place. */
static bool is_auto(const struct plan_limit *plan) {
    return plan->precision != FE_PRECISION_AUTO && fe_pass_precision(plan->precision, NULL, NULL, false) ==
                                                       fe_pass_precision(FE_PRECISION_AUTO, NULL, NULL, false);
}

static void check_plan(const struct plan_limit *limit, fe_engine *base, const int32_t *ids) {
    fe_engine plan;
    fe_perplexity result;
    gm_diag diag = {.quiet = true};
    open_engine(limit->precision, &plan);
    ck_assert_msg(fe_perplexity_run(plan.session, base->session, ids, CHUNK, CHUNK, BOS, &diag, &result) == GM_OK, "%s",
                  diag.message);
    printf("plan %s: mean KL %.2e, largest %.2e, same choice %.2f %%\n", limit->name, result.kl_mean, result.kl_max,
           100 * result.top1);
    ck_assert_msg(result.kl_mean <= limit->kl, "plan %s: mean KL is %.3g, more than %.3g", limit->name, result.kl_mean,
                  limit->kl);
    fe_engine_close(&plan);
}

START_TEST(plans_are_close_to_f32) {
    fe_engine base;
    golden_file golden;
    fe_perplexity exact;
    int64_t count = 0;
    gm_diag diag = {.quiet = true};
    open_golden("perplexity.safetensors", &golden);
    const int32_t *ids = golden_tensor(&golden, "ids", NULL, &count);
    const float *nll = golden_tensor(&golden, "nll.512", NULL, NULL);
    ck_assert(ids && nll && count >= CHUNK);
    double want = 0;
    for (int i = 0; i < CHUNK - 1; i++) want += (double)nll[i] / (CHUNK - 1);
    open_engine(FE_PRECISION_F32, &base);
    ck_assert_msg(fe_perplexity_run(base.session, NULL, ids, CHUNK, CHUNK, BOS, &diag, &exact) == GM_OK, "%s",
                  diag.message);
    ck_assert_msg(fabs(exact.nll - want) <= NLL_TOLERANCE, "mean nll in f32 is %.6f instead of %.6f", exact.nll, want);
    for (size_t i = 0; i < GM_COUNT(plans); i++)
        if (!is_auto(&plans[i])) check_plan(&plans[i], &base, ids);
    fe_engine_close(&base);
    golden_close(&golden);
}
END_TEST

int main(void) {
    model = getenv("GEMMAC_270M");
    if (!model || !*model) {
        puts("skipped: GEMMAC_270M does not name the file of Gemma 3 270M");
        return 0;
    }
    Suite *suite = suite_create("model_270m");
    TCase *tcase = tcase_create("plans");
    tcase_set_timeout(tcase, SECONDS);
    tcase_add_test(tcase, f32_agrees_with_the_reference);
    tcase_add_test(tcase, screened_head_changes_no_token);
    tcase_add_test(tcase, drafts_change_no_token);
    tcase_add_test(tcase, plans_are_close_to_f32);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
