/* gemmac serve: answers over HTTP, in the JSON of OpenAI's completions and chat completions. One after the other: there
 * is one session, which keeps what the next prompt begins with. */
#include "frontend/cmd_serve.h"

#include <stdio.h>
#include <string.h>

enum { DEFAULT_PORT = 8080 };

/* ---- paths ---- */

static void answer_chat(server *s, fe_http_request *http) {
    serve_complete(s, http, true);
}

static void answer_text(server *s, fe_http_request *http) {
    serve_complete(s, http, false);
}

static void answer_health(const server *s, fe_http_request *http) {
    gm_string out = {0};
    gm_string_printf(&out, "{\"status\":\"ok\"}\n");
    fe_http_answer(http, SERVE_OK, serve_json_type, &out);
    gm_string_free(&out);
}

static void answer_models(const server *s, fe_http_request *http) {
    gm_string out = {0};
    gm_string_printf(&out, "{\"object\":\"list\",\"data\":[{\"id\":");
    cmd_json_text(&out, s->model, strlen(s->model));
    gm_string_printf(&out, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"gemmac\"}]}\n");
    fe_http_answer(http, SERVE_OK, serve_json_type, &out);
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
    else if (other) serve_answer_error(http, SERVE_BAD_METHOD, "the path takes another method");
    else
        serve_answer_error(http, SERVE_NOT_FOUND,
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
