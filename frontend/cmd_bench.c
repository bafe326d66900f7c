/* gemmac bench: tokens per second of prefill (pp) and of decoding (tg), named and measured as
 * llama-bench does: fixed random ids, greedy, one warm-up run, then the repetitions. */
#include "frontend/commands.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { DEFAULT_PROMPT = 512, DEFAULT_PREDICT = 64, DEFAULT_REPETITIONS = 5 };

typedef struct bench_row {
    char name[48];
    double mean, std;
    const char *unit;
} bench_row;

typedef struct bench {
    fe_engine engine;
    int64_t repetitions, depth;
    int32_t *ids;      /* random, as many as the longest test takes */
    int32_t *produced; /* likewise */
    bench_row *rows;
    size_t row_count;
} bench;

/* ---- measuring ---- */

static void add_row(bench *b, const char *name, const double *samples, int64_t count,
                    const char *unit) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) sum += samples[i];
    double mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++) squares += (samples[i] - mean) * (samples[i] - mean);
    bench_row *row = &b->rows[b->row_count++];
    *row = (bench_row){
        .mean = mean, .unit = unit, .std = count > 1 ? sqrt(squares / (double)(count - 1)) : 0};
    snprintf(row->name, sizeof row->name, "%s", name);
}

static gm_status time_prefill(bench *b, int64_t tokens, gm_diag *diag, double *out) {
    rt_session *session = b->engine.session;
    rt_session_reset(session);
    if (b->depth) GM_TRY(rt_session_prefill(session, b->ids, b->depth, diag));
    double start = gm_now();
    GM_TRY(rt_session_prefill(session, b->ids + b->depth, tokens, diag));
    *out = gm_now() - start;
    return GM_OK;
}

static gm_status time_decode(bench *b, int64_t tokens, gm_diag *diag, double *out) {
    rt_session *session = b->engine.session;
    rt_sampling greedy = {.top_p = 1, .repeat_penalty = 1};
    int64_t count;
    rt_stop stop;
    rt_session_reset(session);
    GM_TRY(rt_session_prefill(session, b->ids, b->depth ? b->depth : 1, diag));
    double start = gm_now();
    GM_TRY(rt_session_generate(session, &greedy, NULL, 0, tokens, NULL, NULL, b->produced, &count,
                               &stop, diag));
    *out = gm_now() - start;
    if (count == tokens) return GM_OK;
    return gm_fail(diag, GM_INTERNAL, "%lld tokens generated, expected %lld", (long long)count,
                   (long long)tokens);
}

typedef gm_status bench_fn(bench *b, int64_t tokens, gm_diag *diag, double *out);

static gm_status run_test(bench *b, const char *kind, int64_t tokens, bench_fn *test,
                          double *samples, gm_diag *diag) {
    char name[48], at[24] = "";
    if (tokens == 0) return GM_OK;
    if (b->depth) snprintf(at, sizeof at, " @ d%lld", (long long)b->depth);
    snprintf(name, sizeof name, "%s%lld%s", kind, (long long)tokens, at);
    for (int64_t i = -1; i < b->repetitions; i++) {
        double seconds;
        GM_TRY(test(b, tokens, diag, &seconds));
        if (i >= 0) samples[i] = (double)tokens / seconds;
    }
    add_row(b, name, samples, b->repetitions, "tok/s");
    return GM_OK;
}

static gm_status run_tests(bench *b, const cmd_ints *prompts, const cmd_ints *predicts,
                           gm_diag *diag) {
    double *samples = malloc(sizeof *samples * (size_t)b->repetitions);
    GM_ASSERT(samples);
    gm_status status = GM_OK;
    for (size_t i = 0; i < prompts->count && status == GM_OK; i++)
        status = run_test(b, "pp", prompts->data[i], time_prefill, samples, diag);
    for (size_t i = 0; i < predicts->count && status == GM_OK; i++)
        status = run_test(b, "tg", predicts->data[i], time_decode, samples, diag);
    free(samples);
    return status;
}

/* ---- the command ---- */

static void fill_ids(bench *b, int64_t count) {
    uint64_t state = 42;
    int64_t vocab = rt_session_vocab(b->engine.session);
    int32_t bos = b->engine.model.config.bos;
    for (int64_t i = 0; i < count; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        b->ids[i] = (int32_t)((int64_t)(state >> 33) % vocab);
    }
    if (bos >= 0 && bos < vocab) b->ids[0] = bos;
}

/* The most memory this process had in use, mapped files included, in MB of 10^6 bytes. */
static double peak_memory(void) {
    struct rusage usage;
    GM_ASSERT(getrusage(RUSAGE_SELF, &usage) == 0);
    return (double)usage.ru_maxrss * 1024 / 1e6;
}

static void print_rows(const bench *b, const cmd_options *options) {
    gm_string out = {0};
    bool json = options->format == CMD_JSON;
    gm_string_printf(&out, json ? "[" : "test                     mean          std  unit\n");
    for (size_t i = 0; i < b->row_count; i++) {
        const bench_row *row = &b->rows[i];
        if (!json) {
            gm_string_printf(&out, "%-16s %12.4g %12.3g  %s\n", row->name, row->mean, row->std,
                             row->unit);
            continue;
        }
        gm_string_printf(&out, "%s\n{\"test\":\"%s\",\"mean\":", i ? "," : "", row->name);
        cmd_json_real(&out, row->mean);
        gm_string_printf(&out, ",\"std\":");
        cmd_json_real(&out, row->std);
        gm_string_printf(&out, ",\"unit\":\"%s\"}", row->unit);
    }
    if (json) gm_string_printf(&out, "\n]\n");
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
}

static int64_t longest(const cmd_ints *list) {
    int64_t most = 0;
    for (size_t i = 0; i < list->count; i++)
        if (list->data[i] > most) most = list->data[i];
    return most;
}

static cmd_ints list_or(const cmd_options *options, cmd_flag flag, const cmd_ints *given,
                        int64_t *otherwise) {
    return cmd_given(options, flag) ? *given : (cmd_ints){.data = otherwise, .count = 1};
}

gm_status cmd_bench(const cmd_options *options, gm_diag *diag) {
    int64_t prompt = DEFAULT_PROMPT, predict = DEFAULT_PREDICT;
    cmd_ints prompts = list_or(options, FLAG_BENCH_PROMPT, &options->bench_prompt, &prompt);
    cmd_ints predicts = list_or(options, FLAG_BENCH_PREDICT, &options->bench_predict, &predict);
    bench b = {.depth = options->depth,
               .repetitions = cmd_int_or(options, FLAG_REPETITIONS, options->repetitions,
                                         DEFAULT_REPETITIONS)};
    int64_t most = longest(&prompts) > longest(&predicts) ? longest(&prompts) : longest(&predicts);
    int64_t room = most + b.depth + 1; /* decoding starts after one token at least */
    fe_options engine_options = cmd_engine_options(options);
    engine_options.no_text = true;
    if (engine_options.context == 0) engine_options.context = room;
    if (engine_options.context < room)
        return gm_fail(diag, GM_INVALID, "-c %lld: the tests need a context of at least %lld",
                       (long long)engine_options.context, (long long)room);
    GM_TRY(cmd_engine_open(options, &engine_options, diag, &b.engine));
    b.ids = malloc(sizeof *b.ids * (size_t)room);
    b.produced = malloc(sizeof *b.produced * (size_t)room);
    b.rows = malloc(sizeof *b.rows * (prompts.count + predicts.count + 3));
    GM_ASSERT(b.ids && b.produced && b.rows);
    fill_ids(&b, room);
    gm_status status = run_tests(&b, &prompts, &predicts, diag);
    add_row(&b, "load", &b.engine.load_s, 1, "s");
    add_row(&b, "compile", &b.engine.compile_s, 1, "s");
    double peak = peak_memory();
    add_row(&b, "peak memory", &peak, 1, "MB");
    if (status == GM_OK) print_rows(&b, options);
    free(b.ids);
    free(b.produced);
    free(b.rows);
    fe_engine_close(&b.engine);
    return status;
}
