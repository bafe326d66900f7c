/* Log probabilities in the answers of gemmac serve, in the forms of OpenAI's API: lists side by side for a text, an
 * object for each token of a chat. */
#include "frontend/cmd_serve.h"

#include <math.h>

/* ---- one token ---- */

/* The byte of a piece that is none of UTF-8 by itself, else -1. */
static int lone_byte(const fe_engine *engine, int32_t id) {
    const rt_vocab *vocab = &engine->model.vocab;
    bool byte = rt_is_id(id, vocab->count) && vocab->pieces[id].type == RT_PIECE_BYTE;
    int value = byte ? rt_piece_byte(&vocab->pieces[id]) : -1;
    return value < 0x80 ? -1 : value;
}

/* What it adds to the text; control: also of a control piece. Its number without a tokenizer. */
static gm_string text_of(const fe_engine *engine, int32_t id, bool control) {
    gm_string text = {0};
    int byte = lone_byte(engine, id);
    if (!engine->tokenizer) gm_string_printf(&text, "%d", id);
    else if (byte >= 0) gm_string_append(&text, &(char){(char)byte}, 1);
    else rt_decode(engine->tokenizer, &id, 1, !control, &text);
    return text;
}

/* "bytes:\xe2" where it is no text by itself. */
static void write_token(const fe_engine *engine, int32_t id, gm_string *out) {
    int byte = lone_byte(engine, id);
    if (byte >= 0) {
        gm_string_printf(out, "\"bytes:\\\\x%02x\"", (unsigned)byte);
        return;
    }
    gm_string text = text_of(engine, id, true);
    cmd_json_text(out, text.data ? text.data : "", text.length);
    gm_string_free(&text);
}

static size_t characters_of(const fe_engine *engine, int32_t id) {
    gm_string text = text_of(engine, id, false);
    size_t count = 0;
    for (size_t i = 0; i < text.length; i++) count += ((unsigned char)text.data[i] & 0xC0) != 0x80;
    gm_string_free(&text);
    return count;
}

/* ---- of a chat ---- */

/* {"token":…,"logprob":…,"bytes":[…], left open. */
static void write_likely(const fe_engine *engine, const fe_likely *likely, gm_string *out) {
    gm_string text = text_of(engine, likely->id, true);
    gm_string_printf(out, "{\"token\":");
    write_token(engine, likely->id, out);
    cmd_json_field(out, "logprob", likely->logprob);
    gm_string_printf(out, ",\"bytes\":[");
    for (size_t i = 0; i < text.length; i++) gm_string_printf(out, "%s%d", i ? "," : "", (unsigned char)text.data[i]);
    gm_string_printf(out, "]");
    gm_string_free(&text);
}

static void write_chat(const fe_engine *engine, const fe_likelies *list, size_t from, gm_string *out) {
    gm_string_printf(out, "{\"content\":[");
    for (size_t i = from; i < list->count; i++) {
        const fe_likely *token = fe_likelies_at(list, i);
        gm_string_printf(out, i > from ? "," : "");
        write_likely(engine, token, out);
        gm_string_printf(out, ",\"top_logprobs\":[");
        for (int k = 1; k <= list->top; k++) {
            gm_string_printf(out, k > 1 ? "," : "");
            write_likely(engine, &token[k], out);
            gm_string_printf(out, "}");
        }
        gm_string_printf(out, "]}");
    }
    gm_string_printf(out, "]}");
}

/* ---- of a text ---- */

static void write_name(const fe_engine *engine, const fe_likelies *list, size_t token, gm_string *out) {
    write_token(engine, fe_likelies_at(list, token)->id, out);
}

static void write_logprob(const fe_engine *engine, const fe_likelies *list, size_t token, gm_string *out) {
    cmd_json_real(out, fe_likelies_at(list, token)->logprob);
}

/* An object of tokens with their log probabilities; null where nothing is known. */
static void write_top(const fe_engine *engine, const fe_likelies *list, size_t token, gm_string *out) {
    const fe_likely *entry = fe_likelies_at(list, token);
    if (!list->top || isnan(entry->logprob)) {
        gm_string_printf(out, "null");
        return;
    }
    for (int k = 1; k <= list->top; k++) {
        gm_string_printf(out, k > 1 ? "," : "{");
        write_token(engine, entry[k].id, out);
        gm_string_printf(out, ":");
        cmd_json_real(out, entry[k].logprob);
    }
    gm_string_printf(out, "}");
}

static void write_lists(const fe_engine *engine, const fe_likelies *list, serve_told *told, gm_string *out) {
    static const struct {
        const char *name;
        void (*write)(const fe_engine *engine, const fe_likelies *list, size_t token, gm_string *out);
    } lists[] = {{"tokens", write_name}, {"token_logprobs", write_logprob}, {"top_logprobs", write_top}};
    for (size_t n = 0; n < GM_COUNT(lists); n++) {
        gm_string_printf(out, "%s\"%s\":[", n ? "" : "{", lists[n].name);
        for (size_t i = told->tokens; i < list->count; i++) {
            gm_string_printf(out, i > told->tokens ? "," : "");
            lists[n].write(engine, list, i, out);
        }
        gm_string_printf(out, "],");
    }
    gm_string_printf(out, "\"text_offset\":[");
    for (size_t i = told->tokens; i < list->count; i++) {
        gm_string_printf(out, "%s%zu", i > told->tokens ? "," : "", told->characters);
        told->characters += characters_of(engine, fe_likelies_at(list, i)->id);
    }
    gm_string_printf(out, "]}");
}

void serve_write_logprobs(const fe_engine *engine, bool chat, const fe_likelies *list, serve_told *told,
                          gm_string *out) {
    gm_string_printf(out, "\"logprobs\":");
    if (chat) write_chat(engine, list, told->tokens, out);
    else write_lists(engine, list, told, out);
    gm_string_printf(out, ",");
    told->tokens = list->count;
}
