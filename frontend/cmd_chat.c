/* gemmac chat: a conversation, a line of standard input for each message of the user. The whole of it is put into
 * Gemma's template each time, and of its ids those that the session holds already are not read again. */
#include "frontend/chat.h"
#include "frontend/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct chat {
    fe_engine engine;
    const cmd_options *options;
    gm_arena arena; /* messages */
    fe_message *messages;
    size_t count, capacity;
    rt_ids held; /* in the session */
    int32_t stop_ids[RT_MAX_STOPS];
    cmd_stops stops;
    bool people; /* at a terminal */
} chat;

/* ---- messages ---- */

static void say(chat *c, const char *role, const char *content, size_t length) {
    if (c->count == c->capacity) {
        c->capacity = c->capacity ? 2 * c->capacity : 16;
        fe_message *grown = GM_NEW_ARRAY(&c->arena, fe_message, c->capacity);
        if (c->count) memcpy(grown, c->messages, sizeof *grown * c->count);
        c->messages = grown;
    }
    char *text = gm_arena_strndup(&c->arena, content ? content : "", length);
    for (size_t i = 0; i < length; i++)
        if (!text[i]) text[i] = ' '; /* a byte of an answer: it would end the text */
    c->messages[c->count++] = (fe_message){role, text};
}

static bool is_users_turn(const chat *c) {
    return !c->count || strcmp(c->messages[c->count - 1].role, "user") != 0;
}

/* The next line of standard input that says something; *more: there is one. */
static gm_status hear(chat *c, gm_diag *diag, bool *more) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length = 0;
    do {
        if (c->people) fputs("> ", stdout);
        fflush(stdout);
        length = getline(&line, &capacity, stdin);
        if (length > 0 && line[length - 1] == '\n') line[--length] = '\0';
    } while (length == 0);
    *more = length > 0;
    gm_status status = GM_OK;
    if (*more && strlen(line) != (size_t)length)
        status =
            gm_fail(diag, GM_INVALID, "standard input: expected lines of text, found a NUL in message %zu", c->count);
    else if (*more) say(c, "user", line, (size_t)length);
    else if (ferror(stdin)) status = gm_fail(diag, GM_IO, "standard input: cannot read");
    free(line);
    return status;
}

/* ---- answers ---- */

static gm_status answer_last(chat *c, gm_diag *diag) {
    const cmd_options *options = c->options;
    cmd_answer answer = cmd_answer_new(&c->engine, options);
    int64_t held = 0;
    gm_status status = cmd_chat_encode(&c->engine, c->messages, c->count, diag, &answer.prompt);
    if (status == GM_OK) status = cmd_held_keep(&c->held, c->engine.session, &answer.prompt, diag, &held);
    if (status == GM_OK)
        status = cmd_answer_run(&answer, options, held, cmd_int_or(options, FLAG_CHAT_PREDICT, options->predict, -1),
                                &c->stops, diag);
    if (status == GM_OK) {
        say(c, "assistant", answer.text.data, answer.text.length);
        if (!answer.show) cmd_answer_json(&answer);
        else cmd_answer_newline(&answer);
        if (options->time) cmd_answer_speed(&answer, held);
        cmd_held_take(&c->held, &answer);
    }
    cmd_answer_free(&answer);
    return status;
}

/* ---- the command ---- */

static gm_status run(chat *c, gm_diag *diag) {
    const fe_model *model = &c->engine.model;
    if (!c->engine.tokenizer) return gm_fail(diag, GM_INVALID, "%s: comes without a tokenizer", model->path);
    if (c->options->messages)
        GM_TRY(fe_chat_read(model->config.generation, c->options->messages, &c->arena, diag, &c->messages, &c->count));
    c->capacity = c->count;
    GM_TRY(cmd_chat_stops(model, diag, c->stop_ids, &c->stops));
    bool more = true;
    while (more) {
        if (is_users_turn(c)) GM_TRY(hear(c, diag, &more));
        if (more) GM_TRY(answer_last(c, diag));
    }
    if (c->people) putchar('\n');
    return GM_OK;
}

gm_status cmd_chat(const cmd_options *options, gm_diag *diag) {
    chat c = {.options = options,
              .people = options->format == CMD_TEXT && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    GM_TRY(cmd_engine_open_for_answers(options, diag, &c.engine));
    gm_status status = run(&c, diag);
    rt_ids_free(&c.held);
    gm_arena_free(&c.arena);
    fe_engine_close(&c.engine);
    return status;
}
