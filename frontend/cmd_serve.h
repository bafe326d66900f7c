/* What the parts of gemmac serve share. Internal to frontend/cmd_serve*.c. */
#ifndef GM_FRONTEND_CMD_SERVE_H
#define GM_FRONTEND_CMD_SERVE_H

#include "frontend/chat.h"
#include "frontend/commands.h"

/* What a client asks for. */
typedef struct serve_request {
    bool chat, stream, usage; /* usage: also at the end of a stream */
    bool scores, echo;        /* log probabilities are wanted; the prompt is to be said too */
    int64_t top;              /* so many of the likeliest tokens beside each, up to FE_LIKELY_MOST */
    fe_message *messages;     /* chat */
    size_t count;
    const char *prompt; /* else; NULL: ids */
    rt_ids ids;
    /* the server's, with what the client says of sampling, of the most tokens and of texts that end an answer */
    cmd_options options;
} serve_request;

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

#endif
