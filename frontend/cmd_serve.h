/* What the parts of gemmac serve share. Internal to frontend/cmd_serve*.c. */
#ifndef GM_FRONTEND_CMD_SERVE_H
#define GM_FRONTEND_CMD_SERVE_H

#include "frontend/chat.h"
#include "frontend/commands.h"
#include "frontend/http.h"
#include "runtime/sampler.h"

/* What is to be continued. */
typedef struct serve_prompt {
    const char *text; /* NULL: the ids that a client gave, or a chat */
    rt_ids ids;
} serve_prompt;

/* What a client asks for: `choices` answers to each of the prompts. */
typedef struct serve_request {
    bool chat, stream, usage; /* usage: also at the end of a stream */
    bool scores, echo;        /* log probabilities are wanted; the prompt is to be said too */
    int64_t top;              /* so many of the likeliest tokens beside each, up to FE_LIKELY_MOST */
    fe_message *messages;     /* chat: they become the ids of its one prompt */
    size_t count;
    serve_prompt *prompts;
    size_t prompt_count;
    int64_t choices; /* 1 … SERVE_MOST_CHOICES */
    rt_bias *biases; /* [bias_count], on ids that no vocabulary needs to have */
    int64_t bias_count;
    /* the server's, with what the client says of sampling, of the most tokens and of texts that end an answer */
    cmd_options options;
} serve_request;

enum { SERVE_MOST_CHOICES = 128 };

/* From the JSON of OpenAI's API: /v1/chat/completions or /v1/completions. What is allocated lies in `arena`, but ids.
 * GM_INVALID, GM_FORMAT: with a line that names the key. Keys that would change nothing are let pass, those that ask
 * for what gemmac does not do are refused. */
gm_status serve_request_read(const gm_string *body, bool chat, fe_generation generation, const cmd_options *options,
                             gm_arena *arena, gm_diag *diag, serve_request *out);
void serve_request_free(serve_request *request);

/* What a client knows of an answer's tokens: how many, and how many characters these are. */
typedef struct serve_told {
    size_t tokens, characters;
} serve_told;
/* "logprobs":…, of the tokens that are not told yet. */
void serve_write_logprobs(const fe_engine *engine, bool chat, const fe_likelies *list, serve_told *told,
                          gm_string *out);

/* ---- the server ---- */

typedef struct server {
    fe_engine engine;
    const cmd_options *options;
    fe_http *http;
    const char *model; /* its name */
    rt_ids held;       /* in the session */
    int32_t stop_ids[RT_MAX_STOPS];
    cmd_stops chat_stops; /* count 0: the vocabulary has no turns */
    uint64_t requests;
} server;

/* Answer it, chat: /v1/chat/completions, else /v1/completions. */
void serve_complete(server *s, fe_http_request *http, bool chat);
/* {"error":…} */
void serve_answer_error(fe_http_request *http, int status, const char *message);
/* The statuses in use. */
enum { SERVE_OK = 200, SERVE_BAD_REQUEST = 400, SERVE_NOT_FOUND = 404, SERVE_BAD_METHOD = 405, SERVE_FAILED = 500 };
extern const char serve_json_type[];

#endif
