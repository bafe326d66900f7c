/* What a model says to a prompt: tokens become text, text passes the stop strings, and what is certain is shown as it
 * comes. */
#include "frontend/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tokens to text ---- */

/* Text that is certain: show it and keep it. */
static void deliver(cmd_answer *a, const gm_string *text) {
    gm_string_append(&a->text, text->data, text->length);
    if (a->show && text->length) a->failed = a->show(a->show_user, text->data, text->length);
}

static int show_on_output(void *user, const char *text, size_t bytes) {
    errno = 0;
    if (fwrite(text, 1, bytes, stdout) == bytes && fflush(stdout) == 0) return 0;
    return errno ? errno : EIO;
}

static bool on_token(void *user, int32_t token, const float *logits) {
    cmd_answer *a = user;
    gm_string piece = {0}, certain = {0};
    if (logits)
        fe_likelies_set(&a->scored, fe_likelies_grow(&a->scored, 1), logits, rt_session_vocab(a->engine->session),
                        token);
    if (!a->engine->tokenizer) {
        if (a->show) gm_string_printf(&certain, "%s%d", a->text.length ? " " : "", token);
    } else {
        rt_stream_push(a->engine->tokenizer, &a->stream, token, &piece);
        a->stopped = fe_stop_match_push(&a->match, piece.data, piece.length, &certain);
    }
    deliver(a, &certain);
    gm_string_free(&piece);
    gm_string_free(&certain);
    return !a->stopped && !a->failed;
}

/* No more tokens: what was held back comes out, unless a stop string ended the text. */
static void finish_text(cmd_answer *a) {
    gm_string piece = {0}, certain = {0};
    if (a->engine->tokenizer) rt_stream_finish(a->engine->tokenizer, &a->stream, &piece);
    if (!a->stopped) a->stopped = fe_stop_match_push(&a->match, piece.data, piece.length, &certain);
    if (!a->stopped) fe_stop_match_finish(&a->match, &certain);
    deliver(a, &certain);
    gm_string_free(&piece);
    gm_string_free(&certain);
}

/* ---- the run ---- */

cmd_answer cmd_answer_new(fe_engine *engine, const cmd_options *options) {
    return (cmd_answer){.engine = engine,
                        .show = options->format == CMD_TEXT ? show_on_output : NULL,
                        .match = {.stops = options->stops.data, .count = options->stops.count}};
}

/* Row i are the logits behind token first + i of the prompt: what they say of the next. */
static bool score_prompt(void *user, int64_t first, int64_t rows, const float *logits) {
    cmd_answer *a = user;
    int64_t vocab = rt_session_vocab(a->engine->session), last = (int64_t)a->prompt.count - 1 - first;
    if (rows > last) rows = last;
#pragma omp parallel for schedule(dynamic) num_threads(rt_session_threads(a->engine->session))
    for (int64_t i = 0; i < rows; i++)
        fe_likelies_set(&a->scored, (size_t)(first + i + 1), logits + i * vocab, vocab, a->prompt.data[first + i + 1]);
    return true;
}

/* The ids of the sequence so far that begin the prompt too need not be read again. */
static gm_status prefill(cmd_answer *a, int64_t held, gm_diag *diag) {
    double start = gm_now();
    const int32_t *ids = a->prompt.data + held;
    int64_t count = (int64_t)a->prompt.count - held;
    if (a->echoes) {
        GM_ASSERT(!held && !a->scored.count);
        fe_likelies_set_first(&a->scored, fe_likelies_grow(&a->scored, a->prompt.count), ids[0]);
        GM_TRY(rt_session_score(a->engine->session, ids, count, score_prompt, a, diag));
    } else GM_TRY(rt_session_prefill(a->engine->session, ids, count, diag));
    a->prefill_s = gm_now() - start;
    return GM_OK;
}

gm_status cmd_answer_run(cmd_answer *a, const cmd_options *options, int64_t held, int64_t wanted,
                         const cmd_stops *stops, gm_diag *diag) {
    rt_session *session = a->engine->session;
    GM_TRY(cmd_prompt_fits(a->engine, &a->prompt, diag));
    int64_t room = rt_session_context(session) - (int64_t)a->prompt.count,
            max = wanted < 0 || wanted > room ? room : wanted;
    a->ids = malloc(sizeof *a->ids * (size_t)(max + 1));
    if (!a->ids) return gm_fail(diag, GM_NOMEM, "out of memory for %lld ids", (long long)max);
    a->sampling = cmd_sampling(options, &a->engine->model.defaults);
    a->sampling.logits = a->scores;
    a->sampling.biases = a->biases;
    a->sampling.bias_count = a->bias_count;
    if (rt_sampling_screens(&a->sampling, rt_session_vocab(session)))
        GM_TRY(fe_engine_screens(a->engine, (int)options->threads, diag));
    GM_TRY(prefill(a, held, diag));
    double start = gm_now();
    if (max > 0)
        GM_TRY(rt_session_generate(session, &a->sampling, stops->ids, stops->count, max, on_token, a, a->ids, &a->count,
                                   &a->reason, diag));
    a->generate_s = gm_now() - start;
    if (!a->failed) finish_text(a);
    return a->failed ? gm_fail(diag, GM_IO, "standard output: cannot write: %s", strerror(a->failed)) : GM_OK;
}

void cmd_answer_free(cmd_answer *a) {
    gm_string_free(&a->text);
    gm_string_free(&a->match.held);
    gm_string_free(&a->stream.pending);
    rt_ids_free(&a->prompt);
    fe_likelies_free(&a->scored);
    free(a->ids);
}

/* ---- output ---- */

const char *cmd_answer_reason(const cmd_answer *a) {
    return a->stopped ? "stop" : a->reason == RT_STOP_EOS ? "eos" : "length";
}

void cmd_answer_json(const cmd_answer *a) {
    gm_string out = {0};
    gm_string_printf(&out, "{\"prompt_ids\":");
    cmd_json_ids(&out, a->prompt.data, a->prompt.count);
    gm_string_printf(&out, ",\"ids\":");
    cmd_json_ids(&out, a->ids, (size_t)a->count);
    gm_string_printf(&out, ",\"text\":");
    cmd_json_text(&out, a->text.data, a->text.length);
    gm_string_printf(&out, ",\"stop\":\"%s\",\"prefill_s\":%.6f,\"generate_s\":%.6f}\n", cmd_answer_reason(a),
                     a->prefill_s, a->generate_s);
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
}

void cmd_answer_newline(const cmd_answer *a) {
    if (!a->text.length || a->text.data[a->text.length - 1] != '\n') putchar('\n');
    fflush(stdout);
}

void cmd_answer_speed(const cmd_answer *a, int64_t held) {
    int64_t read = (int64_t)a->prompt.count - held;
    fprintf(stderr, "prefill %lld tokens %.1f tok/s, decode %lld tokens %.1f tok/s, stop: %s", (long long)read,
            a->prefill_s > 0 ? (double)read / a->prefill_s : 0, (long long)a->count,
            a->generate_s > 0 ? (double)a->count / a->generate_s : 0, cmd_answer_reason(a));
    if (a->sampling.temperature > 0) fprintf(stderr, ", seed: %llu", (unsigned long long)a->sampling.seed);
    fputc('\n', stderr);
}
