/* Plans: sizes against the configuration, costs against a profile's way of counting, and the planned peak memory
 * against that of a process that runs. */
#include "frontend/plan.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const char model_path[] = GM_TEST_DATA "/gguf/gemma3-tiny-f32.gguf";
static const char config_path[] = GM_TEST_DATA "/tiny/gemma3-tiny/config.json";

static fe_plan make_plan(const char *path, const fe_options *options, int64_t prompt, int64_t predict) {
    gm_diag diag = {0};
    fe_plan plan;
    ck_assert_msg(fe_plan_make(path, options, prompt, predict, false, &diag, &plan) == GM_OK, "%s", diag.message);
    return plan;
}

START_TEST(sizes_are_those_of_the_configuration) {
    gm_diag diag = {0};
    fe_model model;
    fe_options options = {.threads = 2, .context = 64, .chunk = 16, .precision = FE_PRECISION_F32};
    fe_plan plan = make_plan(model_path, &options, 20, 4);
    ck_assert_int_eq(fe_model_open(model_path, false, &diag, &model), GM_OK);
    int64_t elems = 0, bytes = 0, matrices = 0;
    for (size_t i = 0; i < model.weights.count; i++) {
        const rt_tensor *tensor = &model.weights.tensors[i];
        int64_t n = 1;
        for (int d = 0; d < tensor->rank; d++) n *= tensor->dim[d];
        elems += n;
        bytes += (int64_t)tensor->bytes;
        if (tensor->rank == 2 && strncmp(tensor->name, "layers.", 7) == 0) matrices += n;
    }
    const fe_config *c = &model.config;
    ck_assert_int_eq(plan.parameters, elems);
    ck_assert_int_eq(plan.weight_bytes, bytes);
    ck_assert_int_eq(plan.cache_token_bytes, 2 * 4 * c->layers * c->kv_heads * c->head_dim);
    ck_assert_int_eq(plan.cache_bytes, 64 * plan.cache_token_bytes);
    ck_assert_int_eq(plan.threads, 2);
    ck_assert(plan.packed_bytes <= 4 * (matrices + c->vocab * c->hidden));
    ck_assert(plan.arena_bytes > 0 && plan.scratch_bytes > 0);
    /* Two operations for every element of a matrix, the head's too, are the least; reading all weights likewise. */
    ck_assert(plan.decode.flop >= 2.0 * (double)(matrices + c->vocab * c->hidden) &&
              plan.decode.read >= (double)bytes * 0.95);
    ck_assert(plan.prefill.flop >= 2.0 * (double)matrices && plan.prefill.flop < plan.decode.flop);
    ck_assert(plan.prefill.read < plan.decode.read);
    fe_model_close(&model);
}
END_TEST

START_TEST(a_configuration_is_enough) {
    fe_options options = {.threads = 2, .context = 64, .precision = FE_PRECISION_F32, .no_weights = true};
    fe_plan with = make_plan(GM_TEST_DATA "/tiny/gemma3-tiny",
                             &(fe_options){.threads = 2, .context = 64, .precision = FE_PRECISION_F32}, 20, 4);
    fe_plan without = make_plan(config_path, &options, 20, 4);
    ck_assert_int_eq(with.parameters, without.parameters);
    ck_assert_int_eq(with.cache_bytes, without.cache_bytes);
    ck_assert_double_eq(with.decode.flop, without.decode.flop);
    ck_assert_double_eq(with.prefill.flop, without.prefill.flop);
}
END_TEST

START_TEST(other_caches_and_a_loop_over_layers) {
    fe_options options = {.threads = 2, .context = 64, .chunk = 16, .precision = FE_PRECISION_F32};
    fe_plan plain = make_plan(model_path, &options, 20, 4);
    gm_diag diag = {0};
    fe_model model;
    ck_assert_int_eq(fe_model_open(model_path, true, &diag, &model), GM_OK);
    const fe_config *c = &model.config;
    int64_t local = 0, layer_token = 2 * 4 * c->kv_heads * c->head_dim;
    for (int64_t i = 0; i < c->layers; i++) local += c->local[i];
    options.with = "roll_layers";
    fe_plan rolled = make_plan(model_path, &options, 20, 4);
    ck_assert(rolled.parameters == plain.parameters && rolled.weight_bytes == plain.weight_bytes);
    ck_assert_double_eq(rolled.decode.flop, plain.decode.flop);
    options.with = NULL;
    options.skip = "last_row";
    fe_plan whole = make_plan(model_path, &options, 20, 4);
    ck_assert(plain.prefill.flop < whole.prefill.flop);
    ck_assert_double_eq(rolled.prefill.flop, whole.prefill.flop); /* in a loop all layers are alike, the last one too */
    options.skip = NULL;
    options.with = "kv_ring,kv_k_transposed";
    fe_plan ring = make_plan(model_path, &options, 20, 4);
    ck_assert_int_eq(ring.cache_bytes, layer_token * (64 * (c->layers - local) + (c->window - 1 + 33) * local));
    ck_assert_int_eq(ring.cache_token_bytes, plain.cache_token_bytes); /* while it fills */
    options.with = "kv_int8";
    fe_plan eight = make_plan(model_path, &options, 20, 4);
    ck_assert_int_eq(eight.cache_token_bytes,
                     2 * (c->layers - local) * c->kv_heads * (c->head_dim + 4) + local * layer_token);
    ck_assert(eight.decode.read < plain.decode.read);
    fe_model_close(&model);
}
END_TEST

START_TEST(longer_runs_cost_more) {
    fe_options options = {.threads = 2, .context = 64, .precision = FE_PRECISION_F32};
    fe_plan a = make_plan(model_path, &options, 8, 4), b = make_plan(model_path, &options, 32, 4),
            all = make_plan(model_path, &options, 500, 500);
    ck_assert(b.decode.flop > a.decode.flop && b.decode.read > a.decode.read);
    ck_assert(b.run.bytes >= a.run.bytes && a.full.bytes >= a.run.bytes);
    ck_assert_int_eq(all.prompt, 64);
    ck_assert_int_eq(all.predict, 0);
    ck_assert_int_eq(all.run.bytes, all.full.bytes);
}
END_TEST

/* ---- peak memory; with the address sanitizer it depends on what has been freed ---- */

#ifndef __SANITIZE_ADDRESS__

/* The largest resident memory of a process that does `work`, in bytes. */
static int64_t peak_of(void (*work)(void *user), void *user) {
    struct rusage usage;
    int state;
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        work(user);
        _exit(0);
    }
    ck_assert_int_eq(wait4(child, &state, 0, &usage), child);
    ck_assert_int_eq(state, 0);
    return (int64_t)usage.ru_maxrss * 1024;
}

typedef struct run {
    const char *path;
    fe_options options;
    int64_t prompt, predict;
    int to; /* where the planned peak is written */
} run;

static void run_model(void *user) {
    const run *r = user;
    gm_diag diag = {0};
    fe_engine engine;
    rt_sampling sampling = {.temperature = 1, .top_k = 64, .top_p = 0.95f, .repeat_penalty = 1};
    int32_t *ids = calloc((size_t)(r->prompt + r->predict), sizeof *ids);
    int64_t count;
    rt_stop stop;
    if (!ids || fe_engine_open(r->path, &r->options, &diag, &engine) != GM_OK) _exit(1);
    for (int64_t i = 0; i < r->prompt; i++) ids[i] = (int32_t)(i * 7919 % engine.model.config.vocab);
    if (rt_session_prefill(engine.session, ids, r->prompt, &diag) != GM_OK) _exit(1);
    if (rt_session_generate(engine.session, &sampling, NULL, 0, r->predict, NULL, NULL, ids, &count, &stop, &diag) !=
        GM_OK)
        _exit(1);
}

static void plan_model(void *user) {
    const run *r = user;
    gm_diag diag = {0};
    fe_plan plan;
    if (fe_plan_make(r->path, &r->options, r->prompt, r->predict, false, &diag, &plan) != GM_OK) _exit(1);
    if (write(r->to, &plan.run.bytes, sizeof plan.run.bytes) != sizeof plan.run.bytes) _exit(1);
}

/* How far threads that compile overlap is chance: the least of some processes each counts. */
enum { TRIES = 3 };

static void compare_peaks(const char *path, int64_t context, int64_t prompt, int64_t predict) {
    int ends[2];
    int64_t planned = 0;
    ck_assert_int_eq(pipe(ends), 0);
    run r = {path, {.threads = 2, .context = context, .precision = FE_PRECISION_F32}, prompt, predict, ends[1]};
    int64_t measured = 0;
    for (int i = 0; i < TRIES; i++) {
        int64_t found, peak;
        peak_of(plan_model, &r);
        ck_assert_int_eq(read(ends[0], &found, sizeof found), sizeof found);
        peak = peak_of(run_model, &r);
        if (!i || found < planned) planned = found;
        if (!i || peak < measured) measured = peak;
    }
    close(ends[0]);
    close(ends[1]);
    ck_assert_msg(planned > measured * 0.95 && planned < measured * 1.05,
                  "%lld + %lld tokens: %.1f MB planned, %.1f measured", (long long)prompt, (long long)predict,
                  (double)planned / 1e6, (double)measured / 1e6);
}

START_TEST(peak_memory_is_within_five_percent) {
    compare_peaks(model_path, 64, 20, 8);
    const char *model = getenv("GEMMAC_270M");
    if (!model || !*model) return;
    compare_peaks(model, 1024, 20, 8);
    compare_peaks(model, 1024, 600, 8);
}
END_TEST
#endif

int main(void) {
    Suite *suite = suite_create("plan");
    TCase *tests = tcase_create("plan");
    tcase_set_timeout(tests, 900);
    tcase_add_test(tests, sizes_are_those_of_the_configuration);
    tcase_add_test(tests, a_configuration_is_enough);
    tcase_add_test(tests, other_caches_and_a_loop_over_layers);
    tcase_add_test(tests, longer_runs_cost_more);
#ifndef __SANITIZE_ADDRESS__
    tcase_add_test(tests, peak_memory_is_within_five_percent);
#endif
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
