/* Answers of gemmac serve, in the JSON of OpenAI's completions and chat completions, whole or as a stream of events: so
 * many choices for each prompt, one after the other. */
#include "frontend/cmd_serve.h"

#include <errno.h>
#include <string.h>
#include <time.h>

const char serve_json_type[] = "application/json";

/* An answer in the making. */
typedef struct exchange {
    server *s;
    fe_http_request *http;
    serve_request request;
    int64_t index;      /* of the choice in the making; of it are: */
    cmd_answer answer;  /* what is said */
    gm_string echo;     /* of the prompt, until it is told */
    serve_told told;    /* log probabilities */
    gm_string choices;  /* those before it, of an answer in one piece */
    int64_t read, said; /* tokens of all prompts, of all choices that are made */
    int64_t made;       /* when, Unix time */
    bool begun;         /* its stream */
} exchange;

/* ---- JSON ---- */

/* {"error":{…}, left open. */
static void write_error(int status, const char *message, gm_string *out) {
    gm_string_printf(out, "{\"error\":{\"message\":");
    cmd_json_text(out, message, strlen(message));
    gm_string_printf(out, ",\"type\":\"%s\",\"code\":%d}",
                     status == SERVE_FAILED ? "server_error" : "invalid_request_error", status);
}

void serve_answer_error(fe_http_request *http, int status, const char *message) {
    gm_string out = {0};
    write_error(status, message, &out);
    gm_string_printf(&out, "}\n");
    fe_http_answer(http, status, serve_json_type, &out);
    gm_string_free(&out);
}

/* {"id":…,"object":…,"created":…,"model":…,"choices":[ */
static void write_head(const exchange *e, bool piece, gm_string *out) {
    const char *object = !e->request.chat ? "text_completion" : piece ? "chat.completion.chunk" : "chat.completion";
    gm_string_printf(
        out, "{\"id\":\"%s-%llu\",\"object\":\"%s\",\"created\":%lld,\"model\":", e->request.chat ? "chatcmpl" : "cmpl",
        (unsigned long long)e->s->requests, object, (long long)e->made);
    cmd_json_text(out, e->s->model, strlen(e->s->model));
    gm_string_printf(out, ",\"choices\":[");
}

/* A JSON string, behind the prompt if that is still to be told. */
static void write_text(exchange *e, const char *text, size_t bytes, gm_string *out) {
    gm_string_append(&e->echo, text, bytes);
    cmd_json_text(out, e->echo.data ? e->echo.data : "", e->echo.length);
    gm_string_free(&e->echo);
}

/* One choice. text: NULL for none; reason: NULL while there is more to come. */
static void write_choice(exchange *e, bool piece, const char *text, size_t bytes, const char *reason, gm_string *out) {
    gm_string_printf(out, "{\"index\":%lld,", (long long)e->index);
    if (e->request.scores) serve_write_logprobs(&e->s->engine, e->request.chat, &e->answer.scored, &e->told, out);
    if (e->request.chat) gm_string_printf(out, piece ? "\"delta\":{" : "\"message\":{\"role\":\"assistant\",");
    if (text) {
        gm_string_printf(out, e->request.chat ? "\"content\":" : "\"text\":");
        write_text(e, text, bytes, out);
    }
    gm_string_printf(out, "%s%s\"finish_reason\":", e->request.chat ? "}" : "", e->request.chat || text ? "," : "");
    gm_string_printf(out, reason ? "\"%s\"}" : "null}", reason);
}

static void write_usage(const exchange *e, gm_string *out) {
    gm_string_printf(out, "\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld}",
                     (long long)e->read, (long long)e->said, (long long)(e->read + e->said));
}

/* OpenAI's words: the end of the text or of the turn is a "stop" like any other. */
static const char *reason_of(const exchange *e) {
    return strcmp(cmd_answer_reason(&e->answer), "length") == 0 ? "length" : "stop";
}

/* ---- streams ---- */

/* As far as its choices. */
static gm_string event_of(const exchange *e) {
    gm_string out = {0};
    gm_string_printf(&out, "data: ");
    write_head(e, true, &out);
    return out;
}

/* Ends the event, and frees it. False: the client is gone. */
static bool send_event(exchange *e, gm_string *event) {
    gm_string_printf(event, "}\n\n");
    bool there = fe_http_write(e->http, event->data, event->length);
    gm_string_free(event);
    return there;
}

/* An event with one choice. */
static bool send_piece(exchange *e, const char *text, size_t bytes, const char *reason) {
    gm_string event = event_of(e);
    write_choice(e, true, text, bytes, reason, &event);
    gm_string_printf(&event, "]");
    return send_event(e, &event);
}

static int show_in_stream(void *user, const char *text, size_t bytes) {
    return send_piece(user, text, bytes, NULL) ? 0 : EPIPE;
}

static bool is_awaited(const exchange *e) {
    return fe_http_write(e->http, "", 0);
}

/* Nothing is shown of an answer in one piece; but nobody may be waiting for it any more. */
static int show_nothing(void *user, const char *text, size_t bytes) {
    return is_awaited(user) ? 0 : EPIPE;
}

static void begin_stream(exchange *e) {
    e->begun = true;
    fe_http_begin(e->http, SERVE_OK, "text/event-stream");
}

/* Of a chat the role comes first. */
static void begin_choice(exchange *e) {
    if (!e->request.chat) return;
    gm_string event = event_of(e);
    gm_string_printf(&event,
                     "{\"index\":%lld,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]",
                     (long long)e->index);
    send_event(e, &event);
}

static void end_stream(exchange *e) {
    static const char done[] = "data: [DONE]\n\n";
    if (e->request.usage) {
        gm_string event = event_of(e);
        gm_string_printf(&event, "],");
        write_usage(e, &event);
        send_event(e, &event);
    }
    fe_http_write(e->http, done, strlen(done));
    fe_http_end(e->http);
}

/* ---- answers ---- */

/* The ids of a text or of a chat, too; checked. */
static gm_status read_prompt(exchange *e, serve_prompt *prompt, gm_diag *diag) {
    const serve_request *request = &e->request;
    const server *s = e->s;
    rt_ids *ids = &prompt->ids;
    if (!s->engine.tokenizer && !ids->count)
        return gm_fail(diag, GM_INVALID, "the model comes without a tokenizer: expected token ids");
    if (request->chat && !s->chat_stops.count)
        return gm_fail(diag, GM_INVALID, "the vocabulary has no %s: expected a model for chat", RT_END_OF_TURN);
    if (request->chat) GM_TRY(cmd_chat_encode(&s->engine, request->messages, request->count, diag, ids));
    else if (prompt->text) cmd_encode(&s->engine, s->options, prompt->text, strlen(prompt->text), ids);
    for (size_t i = 0; i < ids->count; i++)
        if (ids->data[i] >= s->engine.model.config.vocab)
            return gm_fail(diag, GM_INVALID, "prompt: id %d is outside the vocabulary", ids->data[i]);
    if (!ids->count) return gm_fail(diag, GM_INVALID, "the prompt is empty: expected at least one token");
    e->read += (int64_t)ids->count;
    int64_t context = rt_session_context(s->engine.session);
    if ((int64_t)ids->count <= context) return GM_OK;
    return gm_fail(diag, GM_INVALID, "the prompt has %zu tokens, expected at most the context of %lld", ids->count,
                   (long long)context);
}

static void set_echo(exchange *e, const serve_prompt *prompt) {
    if (!e->request.echo) return;
    if (prompt->text) gm_string_append(&e->echo, prompt->text, strlen(prompt->text));
    else if (e->s->engine.tokenizer)
        rt_decode(e->s->engine.tokenizer, prompt->ids.data, prompt->ids.count, true, &e->echo);
}

/* A choice that continues the prompt. */
static void set_answer(exchange *e, const serve_prompt *prompt, const cmd_options *options) {
    cmd_answer *a = &e->answer;
    *a = cmd_answer_new(&e->s->engine, options);
    a->show = e->request.stream ? show_in_stream : show_nothing;
    a->show_user = e;
    a->scores = e->request.scores;
    a->echoes = a->scores && e->request.echo;
    a->scored.top = (int)e->request.top;
    a->biases = e->request.biases;
    a->bias_count = e->request.bias_count;
    e->told = (serve_told){0};
    for (size_t i = 0; i < prompt->ids.count; i++) rt_ids_push(&a->prompt, prompt->ids.data[i]);
    set_echo(e, prompt);
}

static gm_status run(exchange *e, const cmd_options *options, gm_diag *diag) {
    server *s = e->s;
    cmd_stops stops =
        e->request.chat ? s->chat_stops : (cmd_stops){s->engine.model.config.stops, s->engine.model.config.stop_count};
    int64_t held = 0;
    if (e->answer.echoes) rt_ids_free(&s->held);
    GM_TRY(cmd_held_keep(&s->held, s->engine.session, &e->answer.prompt, diag, &held));
    gm_status status = cmd_answer_run(&e->answer, options, held,
                                      cmd_int_or(options, FLAG_CHAT_PREDICT, options->predict, -1), &stops, diag);
    if (status == GM_OK && options->time) cmd_answer_speed(&e->answer, held);
    return e->answer.failed ? GM_OK : status; /* a client that is gone is no failure */
}

static void keep_choice(exchange *e) {
    const gm_string *text = &e->answer.text;
    gm_string_printf(&e->choices, e->index ? "," : "");
    write_choice(e, false, text->data ? text->data : "", text->length, reason_of(e), &e->choices);
}

static gm_status make_choice(exchange *e, const serve_prompt *prompt, const cmd_options *options, gm_diag *diag) {
    set_answer(e, prompt, options);
    if (e->request.stream) begin_choice(e);
    gm_status status = run(e, options, diag);
    if (status == GM_OK) cmd_held_take(&e->s->held, &e->answer);
    else rt_ids_free(&e->s->held);
    if (status == GM_OK && e->request.stream) send_piece(e, e->request.chat ? NULL : "", 0, reason_of(e));
    else if (status == GM_OK) keep_choice(e);
    e->said += e->answer.count;
    e->index++;
    cmd_answer_free(&e->answer);
    gm_string_free(&e->echo);
    return status;
}

/* All choices of the first prompt, then those of the next, while somebody waits for them. With a seed of the client's
 * the choices of one prompt have seeds one after the other. */
static gm_status make_choices(exchange *e, gm_diag *diag) {
    const serve_request *request = &e->request;
    for (size_t p = 0; p < request->prompt_count; p++) {
        cmd_options options = request->options;
        for (int64_t i = 0; i < request->choices && is_awaited(e); i++) {
            GM_TRY(make_choice(e, &request->prompts[p], &options, diag));
            if (options.seed >= 0) options.seed++;
        }
    }
    return GM_OK;
}

static void answer_whole(exchange *e) {
    gm_string out = {0};
    write_head(e, false, &out);
    gm_string_append(&out, e->choices.data, e->choices.length);
    gm_string_printf(&out, "],");
    write_usage(e, &out);
    gm_string_printf(&out, "}\n");
    fe_http_answer(e->http, SERVE_OK, serve_json_type, &out);
    gm_string_free(&out);
}

/* The status was not told yet, unless a stream has begun: then it ends with an event that says it. */
static void answer_failure(exchange *e, int code, const gm_diag *diag) {
    if (!e->begun) {
        serve_answer_error(e->http, code, diag->message);
        return;
    }
    gm_string event = {0};
    gm_string_printf(&event, "data: ");
    write_error(code, diag->message, &event);
    send_event(e, &event);
    fe_http_end(e->http);
}

static gm_status read_request(exchange *e, bool chat, gm_arena *arena, gm_diag *diag) {
    GM_TRY(serve_request_read(&e->http->body, chat, e->s->engine.model.config.generation, e->s->options, arena, diag,
                              &e->request));
    for (size_t i = 0; i < e->request.prompt_count; i++) GM_TRY(read_prompt(e, &e->request.prompts[i], diag));
    return GM_OK;
}

void serve_complete(server *s, fe_http_request *http, bool chat) {
    gm_arena arena = {0};
    gm_diag diag = {0};
    exchange e = {.s = s, .http = http, .made = (int64_t)time(NULL)};
    s->requests++;
    gm_status status = read_request(&e, chat, &arena, &diag);
    bool started = status == GM_OK;
    if (started && e.request.stream) begin_stream(&e);
    if (started) status = make_choices(&e, &diag);
    if (status != GM_OK) answer_failure(&e, started ? SERVE_FAILED : SERVE_BAD_REQUEST, &diag);
    else if (e.request.stream) end_stream(&e);
    else answer_whole(&e);
    gm_string_free(&e.choices);
    serve_request_free(&e.request);
    gm_arena_free(&arena);
}
