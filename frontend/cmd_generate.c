/* gemmac generate: continue a prompt, as text while it comes or as one JSON object. */
#include "frontend/commands.h"
#include "frontend/stop_match.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A generation under way: tokens become text, text passes the stop strings. */
typedef struct generation {
    fe_engine *engine;
    bool streaming; /* print what is certain at once */
    rt_stream stream;
    fe_stop_match match;
    gm_string text; /* all of it */
    bool stopped;   /* a stop string came */
    int failed;     /* errno of standard output, 0: none */
    rt_ids prompt;
    int32_t *ids;
    int64_t count;
    rt_stop reason;
    double prefill_s, generate_s;
} generation;

/* ---- tokens to text ---- */

/* Text that is certain: show it and keep it. */
static void deliver(generation *g, const gm_string *text) {
    gm_string_append(&g->text, text->data, text->length);
    if (!g->streaming || !text->length) return;
    errno = 0;
    if (fwrite(text->data, 1, text->length, stdout) != text->length || fflush(stdout) != 0) g->failed = errno ? errno : EIO;
}

static bool on_token(void *user, int32_t token) {
    generation *g = user;
    gm_string piece = {0}, certain = {0};
    if (!g->engine->tokenizer) {
        if (g->streaming) gm_string_printf(&certain, "%s%d", g->text.length ? " " : "", token);
    } else {
        rt_stream_push(g->engine->tokenizer, &g->stream, token, &piece);
        g->stopped = fe_stop_match_push(&g->match, piece.data, piece.length, &certain);
    }
    deliver(g, &certain);
    gm_string_free(&piece);
    gm_string_free(&certain);
    return !g->stopped && !g->failed;
}

/* No more tokens: what was held back comes out, unless a stop string ended the text. */
static void finish_text(generation *g) {
    gm_string piece = {0}, certain = {0};
    if (g->engine->tokenizer) rt_stream_finish(g->engine->tokenizer, &g->stream, &piece);
    if (!g->stopped) g->stopped = fe_stop_match_push(&g->match, piece.data, piece.length, &certain);
    if (!g->stopped) fe_stop_match_finish(&g->match, &certain);
    deliver(g, &certain);
    gm_string_free(&piece);
    gm_string_free(&certain);
}

/* ---- the run ---- */

static gm_status check_room(const generation *g, gm_diag *diag) {
    int64_t context = rt_session_context(g->engine->session);
    if ((int64_t)g->prompt.count <= context) return GM_OK;
    return gm_fail(diag, GM_INVALID,
                   "%s: the prompt has %zu tokens, expected at most the context of %lld (see -c)",
                   g->engine->model.path, g->prompt.count, (long long)context);
}

static gm_status run(generation *g, const cmd_options *options, gm_diag *diag) {
    rt_session *session = g->engine->session;
    const fe_config *config = &g->engine->model.config;
    GM_TRY(check_room(g, diag));
    int64_t room = rt_session_context(session) - (int64_t)g->prompt.count;
    int64_t wanted = cmd_int_or(options, FLAG_PREDICT, options->predict, 128);
    int64_t max = wanted < 0 || wanted > room ? room : wanted;
    g->ids = malloc(sizeof *g->ids * (size_t)(max + 1));
    if (!g->ids) return gm_fail(diag, GM_NOMEM, "out of memory for %lld ids", (long long)max);

    rt_sampling sampling = cmd_sampling(options, &g->engine->model.defaults);
    if (rt_sampling_screens(&sampling, rt_session_vocab(session))) GM_TRY(fe_engine_screens(g->engine, (int)options->threads, diag));
    double start = gm_now();
    GM_TRY(rt_session_prefill(session, g->prompt.data, (int64_t)g->prompt.count, diag));
    g->prefill_s = gm_now() - start;
    start = gm_now();
    if (max > 0)
        GM_TRY(rt_session_generate(session, &sampling, config->stops,
                                   options->ignore_eos ? 0 : config->stop_count, max, on_token, g,
                                   g->ids, &g->count, &g->reason, diag));
    g->generate_s = gm_now() - start;
    if (!g->failed) finish_text(g);
    return g->failed ? gm_fail(diag, GM_IO, "standard output: cannot write: %s", strerror(g->failed)) : GM_OK;
}

/* ---- output ---- */

static const char *reason_text(const generation *g) {
    return g->stopped ? "stop" : g->reason == RT_STOP_EOS ? "eos" : "length";
}

static void print_json(const generation *g) {
    gm_string out = {0};
    gm_string_printf(&out, "{\"prompt_ids\":");
    cmd_json_ids(&out, g->prompt.data, g->prompt.count);
    gm_string_printf(&out, ",\"ids\":");
    cmd_json_ids(&out, g->ids, (size_t)g->count);
    gm_string_printf(&out, ",\"text\":");
    cmd_json_text(&out, g->text.data, g->text.length);
    gm_string_printf(&out, ",\"stop\":\"%s\",\"prefill_s\":%.6f,\"generate_s\":%.6f}\n",
                     reason_text(g), g->prefill_s, g->generate_s);
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
}

static void print_end(const generation *g) {
    if (!g->text.length || g->text.data[g->text.length - 1] != '\n') putchar('\n');
    fflush(stdout);
    double prefill = (double)g->prompt.count, decode = (double)g->count;
    fprintf(stderr, "prefill %zu tokens %.1f tok/s, decode %lld tokens %.1f tok/s, stop: %s\n",
            g->prompt.count, g->prefill_s > 0 ? prefill / g->prefill_s : 0, (long long)g->count,
            g->generate_s > 0 ? decode / g->generate_s : 0, reason_text(g));
}

gm_status cmd_generate(const cmd_options *options, gm_diag *diag) {
    fe_engine engine;
    fe_options engine_options = cmd_engine_options(options);
    engine_options.only_run = true;
    engine_options.no_screens = true; /* what it needs is made when it is known to be */
    GM_TRY(cmd_prompt_given(options, diag));
    GM_TRY(cmd_engine_open(options, &engine_options, diag, &engine));
    generation g = {.engine = &engine,
                    .streaming = options->format == CMD_TEXT,
                    .match = {.stops = options->stops.data, .count = options->stops.count}};
    gm_status status = GM_OK;
    if (options->stops.count && !engine.tokenizer)
        status = gm_fail(diag, GM_INVALID, "%s: comes without a tokenizer, so --stop has no text",
                         engine.model.path);
    if (status == GM_OK) status = cmd_prompt(&engine, options, diag, &g.prompt);
    if (status == GM_OK) status = run(&g, options, diag);
    if (status == GM_OK && g.streaming) print_end(&g);
    if (status == GM_OK && !g.streaming) print_json(&g);
    gm_string_free(&g.text);
    gm_string_free(&g.match.held);
    gm_string_free(&g.stream.pending);
    rt_ids_free(&g.prompt);
    free(g.ids);
    fe_engine_close(&engine);
    return status;
}
