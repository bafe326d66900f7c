/* gemmac bench: tokens per second of prefill (pp) and of decoding (tg), named and measured as llama-bench does: fixed
 * random ids, or a text's, greedy unless a temperature is given. But it goes in rounds, each of which runs every test
 * once, so that what a machine does from one minute to the next weighs on all of them alike; the first round is for
 * warming up. */
#include "frontend/commands.h"
#include "frontend/stats.h"
#include "runtime/abi.h"

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
    rt_sampling sampling;
    int64_t repetitions;
    int32_t *ids;      /* random, as many as the longest test takes */
    int32_t *produced; /* likewise */
    int64_t held;      /* so many of the ids are in the session's caches, whatever its length */
    bench_row *rows;
    size_t row_count;
} bench;

/* ---- measuring ---- */

static void add_row(bench *b, const char *name, const double *samples, int64_t count, const char *unit) {
    bench_row *row = &b->rows[b->row_count++];
    *row = (bench_row){.mean = fe_mean(samples, count), .std = fe_std(samples, count), .unit = unit};
    snprintf(row->name, sizeof row->name, "%s", name);
}

/* A session that holds the first `depth` ids, which are computed only where they are not there yet. */
static gm_status hold(bench *b, int64_t depth, gm_diag *diag) {
    rt_session *session = b->engine.session;
    if (!rt_session_seeks(session)) {
        rt_session_reset(session);
        b->held = 0;
    } else {
        GM_TRY(rt_session_seek(session, depth < b->held ? depth : b->held, diag));
    }
    if (b->held >= depth) return GM_OK;
    GM_TRY(rt_session_prefill(session, b->ids + b->held, depth - b->held, diag));
    b->held = depth;
    return GM_OK;
}

/* Ids [from, to) into the caches again, as far as they were held: other tokens have taken their
 * places. */
static gm_status restore(bench *b, int64_t from, int64_t to, gm_diag *diag) {
    int64_t end = to < b->held ? to : b->held;
    if (from >= end) return GM_OK;
    if (!rt_session_seeks(b->engine.session)) return GM_OK; /* hold will begin anew */
    GM_TRY(rt_session_seek(b->engine.session, from, diag));
    return rt_session_prefill(b->engine.session, b->ids + from, end - from, diag);
}

static gm_status time_prefill(bench *b, int64_t tokens, int64_t depth, gm_diag *diag, double *out) {
    GM_TRY(hold(b, depth, diag));
    double start = gm_now();
    GM_TRY(rt_session_prefill(b->engine.session, b->ids + depth, tokens, diag));
    *out = gm_now() - start;
    if (depth + tokens > b->held) b->held = depth + tokens;
    return GM_OK;
}

static gm_status time_decode(bench *b, int64_t tokens, int64_t depth, gm_diag *diag, double *out) {
    rt_session *session = b->engine.session;
    int64_t count, first = depth ? depth : 1;
    rt_stop stop;
    GM_TRY(hold(b, first - 1, diag));
    GM_TRY(rt_session_prefill(session, b->ids + first - 1, 1, diag)); /* what is generated follows its last token */
    if (first > b->held) b->held = first;
    double start = gm_now();
    GM_TRY(rt_session_generate(session, &b->sampling, NULL, 0, tokens, NULL, NULL, b->produced, &count, &stop, diag));
    *out = gm_now() - start;
    if (count != tokens)
        return gm_fail(diag, GM_INTERNAL, "%lld tokens generated, expected %lld", (long long)count, (long long)tokens);
    return restore(b, first, first + tokens + RT_MAX_ROLLBACK, diag); /* drafts may have been written behind them */
}

typedef gm_status bench_fn(bench *b, int64_t tokens, int64_t depth, gm_diag *diag, double *out);

typedef struct bench_test {
    const char *kind;
    bench_fn *run;
    int64_t tokens, depth;
    double *samples; /* tok/s of each round */
} bench_test;

static gm_status run_round(bench *b, bench_test *tests, size_t count, int64_t round, gm_diag *diag) {
    for (size_t i = 0; i < count; i++) {
        double seconds;
        GM_TRY(tests[i].run(b, tests[i].tokens, tests[i].depth, diag, &seconds));
        if (round >= 0) tests[i].samples[round] = (double)tests[i].tokens / seconds;
    }
    return GM_OK;
}

static gm_status run_tests(bench *b, bench_test *tests, size_t count, gm_diag *diag) {
    double *samples = malloc(sizeof *samples * (size_t)b->repetitions * (count + 1));
    GM_ASSERT(samples);
    gm_status status = GM_OK;
    for (size_t i = 0; i < count; i++) tests[i].samples = samples + (size_t)b->repetitions * i;
    for (int64_t i = -1; i < b->repetitions && status == GM_OK; i++) status = run_round(b, tests, count, i, diag);
    for (size_t i = 0; i < count && status == GM_OK; i++) {
        char name[48], at[24] = "";
        if (tests[i].depth) snprintf(at, sizeof at, " @ d%lld", (long long)tests[i].depth);
        snprintf(name, sizeof name, "%s%lld%s", tests[i].kind, (long long)tests[i].tokens, at);
        add_row(b, name, tests[i].samples, b->repetitions, "tok/s");
    }
    free(samples);
    return status;
}

static void add_tests(bench_test *tests, size_t *count, const char *kind, bench_fn *run, const cmd_ints *tokens,
                      int64_t depth) {
    for (size_t i = 0; i < tokens->count; i++)
        if (tokens->data[i])
            tests[(*count)++] = (bench_test){.kind = kind, .run = run, .tokens = tokens->data[i], .depth = depth};
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

/* The ids of -f FILE, over and over: what a screened head costs depends on what is predicted, and of random ids hardly
 * anything can be. */
static gm_status read_ids(bench *b, const cmd_options *options, int64_t count, gm_diag *diag) {
    rt_ids text = {0};
    gm_status status = cmd_text_ids(&b->engine, options, diag, &text);
    if (status == GM_OK && !text.count) status = gm_fail(diag, GM_INVALID, "%s: has no tokens", options->file);
    for (int64_t i = 0; status == GM_OK && i < count; i++) b->ids[i] = text.data[i % (int64_t)text.count];
    rt_ids_free(&text);
    return status;
}

/* Greedy, or what generation does at that temperature; every time with the same seed. */
static rt_sampling sampling_of(const cmd_options *options, const fe_defaults *defaults) {
    if (!(options->temperature > 0)) return (rt_sampling){.top_p = 1, .repeat_penalty = 1};
    rt_sampling sampling = cmd_sampling(options, defaults);
    sampling.temperature = (float)options->temperature;
    sampling.seed = cmd_given(options, FLAG_BENCH_SEED) ? (uint64_t)options->seed : 42;
    return sampling;
}

static gm_status check_sampling(const cmd_options *options, gm_diag *diag) {
    bool settings = options->given & (CMD_SAMPLER_FLAGS | CMD_FLAG(BENCH_SEED));
    if (options->temperature > 0 || !settings) return GM_OK;
    return gm_fail(diag, GM_INVALID,
                   "bench is greedy without a --temp above 0, so other settings of the sampler say nothing");
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
            gm_string_printf(&out, "%-16s %12.4g %12.3g  %s\n", row->name, row->mean, row->std, row->unit);
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

static cmd_ints list_or(const cmd_options *options, cmd_flag flag, const cmd_ints *given, int64_t *otherwise) {
    return cmd_given(options, flag) ? *given : (cmd_ints){.data = otherwise, .count = 1};
}

gm_status cmd_bench(const cmd_options *options, gm_diag *diag) {
    int64_t prompt = DEFAULT_PROMPT, predict = DEFAULT_PREDICT, none = 0;
    cmd_ints prompts = list_or(options, FLAG_BENCH_PROMPT, &options->bench_prompt, &prompt);
    cmd_ints predicts = list_or(options, FLAG_BENCH_PREDICT, &options->bench_predict, &predict);
    cmd_ints depths = list_or(options, FLAG_DEPTH, &options->depths, &none);
    bench b = {.repetitions = cmd_int_or(options, FLAG_REPETITIONS, options->repetitions, DEFAULT_REPETITIONS)};
    int64_t decoded = longest(&predicts) + 1; /* decoding starts after one token at least */
    int64_t room = longest(&depths) + (longest(&prompts) > decoded ? longest(&prompts) : decoded);
    GM_TRY(check_sampling(options, diag));
    fe_options engine_options = cmd_engine_options(options);
    engine_options.no_text = !options->file;
    engine_options.only_run = true;
    engine_options.least_context = room;
    if (engine_options.context && engine_options.context < room)
        return gm_fail(diag, GM_INVALID, "-c %lld: the tests need a context of at least %lld",
                       (long long)engine_options.context, (long long)room);
    GM_TRY(cmd_engine_open(options, &engine_options, diag, &b.engine));
    b.sampling = sampling_of(options, &b.engine.model.defaults);
    b.ids = malloc(sizeof *b.ids * (size_t)room);
    b.produced = malloc(sizeof *b.produced * (size_t)room);
    size_t count = 0, all = (prompts.count + predicts.count) * depths.count;
    b.rows = malloc(sizeof *b.rows * (all + 3));
    bench_test *tests = malloc(sizeof *tests * (all + 1));
    GM_ASSERT(b.ids && b.produced && b.rows && tests);
    for (size_t i = 0; i < depths.count; i++) {
        add_tests(tests, &count, "pp", time_prefill, &prompts, depths.data[i]);
        add_tests(tests, &count, "tg", time_decode, &predicts, depths.data[i]);
    }
    gm_status status = GM_OK;
    if (options->file) status = read_ids(&b, options, room, diag);
    else fill_ids(&b, room);
    if (status == GM_OK) status = run_tests(&b, tests, count, diag);
    add_row(&b, "load", &b.engine.load_s, 1, "s");
    add_row(&b, "compile", &b.engine.compile_s, 1, "s");
    double peak = peak_memory();
    add_row(&b, "peak memory", &peak, 1, "MB");
    if (status == GM_OK) print_rows(&b, options);
    free(b.ids);
    free(b.produced);
    free(b.rows);
    free(tests);
    fe_engine_close(&b.engine);
    return status;
}
