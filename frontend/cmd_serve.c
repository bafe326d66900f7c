/* gemmac serve: answers over HTTP, in the JSON of OpenAI's completions and chat completions, whole or as a stream of
 * events. One after the other: there is one session, which keeps what the next prompt begins with. */
#include "frontend/cmd_serve.h"
#include "frontend/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char json_type[] = "application/json", event_type[] = "text/event-stream";
enum { OK = 200, BAD_REQUEST = 400, NOT_FOUND = 404, BAD_METHOD = 405, SERVER_ERROR = 500, DEFAULT_PORT = 8080 };

typedef struct server {
    fe_engine engine;
    const cmd_options *options;
    fe_http *http;
    const char *model; /* its name */
    rt_ids held;       /* in the session */
    int32_t stop_ids[RT_MAX_STOPS];
    cmd_stops chat_stops; /* count 0: the vocabulary has no turns */
    uint64_t answers;
} server;

/* An answer in the making. */
typedef struct exchange {
    server *s;
    fe_http_request *http;
    serve_request request;
    cmd_answer answer;
    gm_string echo;  /* of the prompt, until it is told */
    serve_told told; /* log probabilities */
    int64_t made;    /* when, Unix time */
    bool begun;      /* its stream */
} exchange;

/* ---- JSON ---- */

/* {"error":{…}, left open. */
static void write_error(int status, const char *message, gm_string *out) {
    gm_string_printf(out, "{\"error\":{\"message\":");
    cmd_json_text(out, message, strlen(message));
    gm_string_printf(out, ",\"type\":\"%s\",\"code\":%d}",
                     status == SERVER_ERROR ? "server_error" : "invalid_request_error", status);
}

static void answer_error(fe_http_request *http, int status, const char *message) {
    gm_string out = {0};
    write_error(status, message, &out);
    gm_string_printf(&out, "}\n");
    fe_http_answer(http, status, json_type, &out);
    gm_string_free(&out);
}

/* {"id":…,"object":…,"created":…,"model":…,"choices":[ */
static void write_head(const exchange *e, bool piece, gm_string *out) {
    const char *object = !e->request.chat ? "text_completion" : piece ? "chat.completion.chunk" : "chat.completion";
    gm_string_printf(
        out, "{\"id\":\"%s-%llu\",\"object\":\"%s\",\"created\":%lld,\"model\":", e->request.chat ? "chatcmpl" : "cmpl",
        (unsigned long long)e->s->answers, object, (long long)e->made);
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
    gm_string_printf(out, "{\"index\":0,");
    if (e->request.scores) serve_write_logprobs(&e->s->engine, e->request.chat, &e->answer.scored, &e->told, out);
    if (e->request.chat) gm_string_printf(out, piece ? "\"delta\":{" : "\"message\":{\"role\":\"assistant\",");
    if (text) {
        gm_string_printf(out, e->request.chat ? "\"content\":" : "\"text\":");
        write_text(e, text, bytes, out);
    }
    gm_string_printf(out, "%s%s\"finish_reason\":", e->request.chat ? "}" : "", e->request.chat || text ? "," : "");
    gm_string_printf(out, reason ? "\"%s\"}" : "null}", reason);
}

static void write_usage(const exchange *e, int64_t prompt, gm_string *out) {
    gm_string_printf(out, "\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld}",
                     (long long)prompt, (long long)e->answer.count, (long long)(prompt + e->answer.count));
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

/* Nothing is shown of an answer in one piece; but nobody may be waiting for it any more. */
static int show_nothing(void *user, const char *text, size_t bytes) {
    return fe_http_write(((exchange *)user)->http, "", 0) ? 0 : EPIPE;
}

static void end_stream(exchange *e, int64_t prompt) {
    static const char done[] = "data: [DONE]\n\n";
    send_piece(e, e->request.chat ? NULL : "", 0, reason_of(e));
    if (e->request.usage) {
        gm_string event = event_of(e);
        gm_string_printf(&event, "],");
        write_usage(e, prompt, &event);
        send_event(e, &event);
    }
    fe_http_write(e->http, done, strlen(done));
    fe_http_end(e->http);
}

/* ---- answers ---- */

static void begin_echo(exchange *e) {
    const serve_request *request = &e->request;
    const rt_ids *ids = &request->ids;
    if (!request->echo) return;
    if (request->prompt) gm_string_append(&e->echo, request->prompt, strlen(request->prompt));
    else if (e->s->engine.tokenizer) rt_decode(e->s->engine.tokenizer, ids->data, ids->count, true, &e->echo);
}

static gm_status read_prompt(exchange *e, gm_diag *diag) {
    const serve_request *request = &e->request;
    const server *s = e->s;
    if (!s->engine.tokenizer && !request->ids.count)
        return gm_fail(diag, GM_INVALID, "the model comes without a tokenizer: expected token ids");
    if (request->chat && !s->chat_stops.count)
        return gm_fail(diag, GM_INVALID, "the vocabulary has no %s: expected a model for chat", RT_END_OF_TURN);
    if (request->chat) GM_TRY(cmd_chat_encode(&s->engine, request->messages, request->count, diag, &e->answer.prompt));
    else if (request->prompt)
        cmd_encode(&s->engine, s->options, request->prompt, strlen(request->prompt), &e->answer.prompt);
    for (size_t i = 0; i < request->ids.count; i++) {
        if (request->ids.data[i] >= s->engine.model.config.vocab)
            return gm_fail(diag, GM_INVALID, "prompt: id %d is outside the vocabulary", request->ids.data[i]);
        rt_ids_push(&e->answer.prompt, request->ids.data[i]);
    }
    if (!e->answer.prompt.count) return gm_fail(diag, GM_INVALID, "the prompt is empty: expected at least one token");
    int64_t context = rt_session_context(s->engine.session);
    if ((int64_t)e->answer.prompt.count <= context) return GM_OK;
    return gm_fail(diag, GM_INVALID, "the prompt has %zu tokens, expected at most the context of %lld",
                   e->answer.prompt.count, (long long)context);
}

static void begin_stream(exchange *e) {
    e->answer.show = show_in_stream;
    e->begun = true;
    fe_http_begin(e->http, OK, event_type);
    if (!e->request.chat) return;
    gm_string event = event_of(e);
    gm_string_printf(&event,
                     "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]");
    send_event(e, &event);
}

static gm_status run(exchange *e, gm_diag *diag) {
    server *s = e->s;
    const cmd_options *options = &e->request.options;
    cmd_stops stops =
        e->request.chat ? s->chat_stops : (cmd_stops){s->engine.model.config.stops, s->engine.model.config.stop_count};
    int64_t held = 0;
    e->answer.scores = e->request.scores;
    e->answer.echoes = e->request.scores && e->request.echo;
    e->answer.scored.top = (int)e->request.top;
    if (e->answer.echoes) rt_ids_free(&s->held);
    begin_echo(e);
    GM_TRY(cmd_held_keep(&s->held, s->engine.session, &e->answer.prompt, diag, &held));
    if (e->request.stream) begin_stream(e);
    gm_status status = cmd_answer_run(&e->answer, options, held,
                                      cmd_int_or(options, FLAG_CHAT_PREDICT, options->predict, -1), &stops, diag);
    if (status == GM_OK && options->time) cmd_answer_speed(&e->answer, held);
    return e->answer.failed ? GM_OK : status; /* a client that is gone is no failure */
}

static void answer_whole(exchange *e, int64_t prompt) {
    gm_string out = {0};
    write_head(e, false, &out);
    write_choice(e, false, e->answer.text.data ? e->answer.text.data : "", e->answer.text.length, reason_of(e), &out);
    gm_string_printf(&out, "],");
    write_usage(e, prompt, &out);
    gm_string_printf(&out, "}\n");
    fe_http_answer(e->http, OK, json_type, &out);
    gm_string_free(&out);
}

/* The status was not told yet, unless a stream has begun: then it ends with an event that says it. started: the request
 * was all right. */
static void answer_failure(exchange *e, bool started, const gm_diag *diag) {
    if (!e->begun) {
        answer_error(e->http, started ? SERVER_ERROR : BAD_REQUEST, diag->message);
        return;
    }
    gm_string event = {0};
    gm_string_printf(&event, "data: ");
    write_error(SERVER_ERROR, diag->message, &event);
    send_event(e, &event);
    fe_http_end(e->http);
}

static void complete(server *s, fe_http_request *http, bool chat) {
    gm_arena arena = {0};
    gm_diag diag = {0};
    exchange e = {.s = s, .http = http, .made = (int64_t)time(NULL)};
    s->answers++;
    gm_status status =
        serve_request_read(&http->body, chat, s->engine.model.config.generation, s->options, &arena, &diag, &e.request);
    e.answer = cmd_answer_new(&s->engine, &e.request.options);
    e.answer.show = show_nothing;
    e.answer.show_user = &e;
    if (status == GM_OK) status = read_prompt(&e, &diag);
    bool started = status == GM_OK;
    int64_t prompt = (int64_t)e.answer.prompt.count;
    if (started) status = run(&e, &diag);
    if (status == GM_OK) cmd_held_take(&s->held, &e.answer);
    else if (started) rt_ids_free(&s->held);
    if (status != GM_OK) answer_failure(&e, started, &diag);
    else if (e.request.stream) end_stream(&e, prompt);
    else answer_whole(&e, prompt);
    cmd_answer_free(&e.answer);
    gm_string_free(&e.echo);
    serve_request_free(&e.request);
    gm_arena_free(&arena);
}

/* ---- paths ---- */

static void answer_chat(server *s, fe_http_request *http) {
    complete(s, http, true);
}

static void answer_text(server *s, fe_http_request *http) {
    complete(s, http, false);
}

static void answer_health(const server *s, fe_http_request *http) {
    gm_string out = {0};
    gm_string_printf(&out, "{\"status\":\"ok\"}\n");
    fe_http_answer(http, OK, json_type, &out);
    gm_string_free(&out);
}

static void answer_models(const server *s, fe_http_request *http) {
    gm_string out = {0};
    gm_string_printf(&out, "{\"object\":\"list\",\"data\":[{\"id\":");
    cmd_json_text(&out, s->model, strlen(s->model));
    gm_string_printf(&out, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"gemmac\"}]}\n");
    fe_http_answer(http, OK, json_type, &out);
    gm_string_free(&out);
}

static const struct path {
    const char *method, *path;
    void (*answer)(server *s, fe_http_request *http);      /* when it is its turn; NULL: */
    void (*quick)(const server *s, fe_http_request *http); /* at once, by any thread */
} paths[] = {
    {"POST", "/v1/chat/completions", answer_chat, NULL},
    {"POST", "/v1/completions", answer_text, NULL},
    {"GET", "/v1/models", NULL, answer_models},
    {"GET", "/health", NULL, answer_health},
};

/* NULL: there is none; *other: but one for another method. */
static const struct path *find_path(const fe_http_request *http, bool *other) {
    *other = false;
    for (size_t i = 0; i < GM_COUNT(paths); i++) {
        if (strcmp(http->path, paths[i].path) != 0) continue;
        if (strcmp(http->method, paths[i].method) == 0) return &paths[i];
        *other = true;
    }
    return NULL;
}

static bool answer_quickly(void *user, fe_http_request *http) {
    bool other;
    const struct path *path = find_path(http, &other);
    if (path && path->answer) return false;
    if (path) path->quick(user, http);
    else if (other) answer_error(http, BAD_METHOD, "the path takes another method");
    else
        answer_error(http, NOT_FOUND,
                     "no such path: expected /v1/chat/completions, /v1/completions, /v1/models or /health");
    return true;
}

static void answer(server *s, fe_http_request *http) {
    bool other;
    find_path(http, &other)->answer(s, http);
}

/* ---- the command ---- */

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* Until the process ends. */
static gm_status serve(server *s, gm_diag *diag) {
    const char *host = s->options->host ? s->options->host : "127.0.0.1";
    if (s->engine.model.vocab.end_of_turn >= 0)
        GM_TRY(cmd_chat_stops(&s->engine.model, diag, s->stop_ids, &s->chat_stops));
    GM_TRY(fe_http_open(host, (int)cmd_int_or(s->options, FLAG_PORT, s->options->port, DEFAULT_PORT), answer_quickly, s,
                        diag, &s->http));
    bool colons = strchr(host, ':'); /* of IPv6 */
    fprintf(stderr, "listening at http://%s%s%s:%d\n", colons ? "[" : "", host, colons ? "]" : "",
            fe_http_port(s->http));
    for (;;) answer(s, fe_http_next(s->http));
}

gm_status cmd_serve(const cmd_options *options, gm_diag *diag) {
    server s = {.options = options};
    GM_TRY(cmd_engine_open_for_answers(options, diag, &s.engine));
    s.model = name_of(s.engine.model.path);
    gm_status status = serve(&s, diag);
    fe_engine_close(&s.engine);
    return status;
}
