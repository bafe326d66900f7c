/* gemmac tokenize, detokenize and render: text to ids, ids to text, chat messages to both. */
#include "frontend/chat.h"
#include "frontend/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gm_status need_tokenizer(const fe_engine *engine, gm_diag *diag) {
    if (engine->tokenizer) return GM_OK;
    return gm_fail(diag, GM_INVALID, "%s: comes without a tokenizer", engine->model.path);
}

/* ---- tokenize ---- */

static void print_ids(const fe_engine *engine, const cmd_options *options, const rt_ids *ids) {
    gm_string out = {0};
    if (options->format == CMD_JSON) {
        gm_string_printf(&out, "{\"ids\":");
        cmd_json_ids(&out, ids->data, ids->count);
        gm_string_printf(&out, "}\n");
    }
    for (size_t i = 0; i < ids->count && options->format == CMD_TEXT; i++) {
        const rt_piece *piece = &engine->model.vocab.pieces[ids->data[i]];
        gm_string_printf(&out, "%7d ", ids->data[i]);
        cmd_json_text(&out, piece->text, piece->length);
        gm_string_append(&out, "\n", 1);
    }
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
}

gm_status cmd_tokenize(const cmd_options *options, gm_diag *diag) {
    fe_engine engine;
    gm_string text = {0};
    rt_ids ids = {0};
    if (options->prompt && options->file)
        return gm_fail(diag, GM_INVALID, "the text is given twice: expected one of -p and -f");
    GM_TRY(cmd_vocab_open(options, false, diag, &engine));
    gm_status status = need_tokenizer(&engine, diag);
    if (status == GM_OK && options->prompt) gm_string_append(&text, options->prompt, strlen(options->prompt));
    else if (status == GM_OK) status = cmd_read_text(options->file ? options->file : "-", diag, &text);
    if (status == GM_OK) {
        cmd_encode(&engine, options, text.data, text.length, &ids);
        /* of a whole text; a prompt goes on */
        if (engine.model.vocab.add_eos && !options->no_bos) rt_ids_push(&ids, engine.model.vocab.eos);
        print_ids(&engine, options, &ids);
    }
    rt_ids_free(&ids);
    gm_string_free(&text);
    fe_engine_close(&engine);
    return status;
}

/* ---- detokenize ---- */

gm_status cmd_detokenize(const cmd_options *options, gm_diag *diag) {
    fe_engine engine;
    gm_string text = {0}, out = {0};
    rt_ids ids = {0};
    if (!cmd_given(options, FLAG_IDS)) return gm_fail(diag, GM_INVALID, "no ids given: expected --ids LIST");
    GM_TRY(cmd_vocab_open(options, false, diag, &engine));
    gm_status status = need_tokenizer(&engine, diag);
    if (status == GM_OK) status = cmd_ids(options, (int64_t)engine.model.vocab.count, diag, &ids);
    if (status == GM_OK) {
        rt_decode(engine.tokenizer, ids.data, ids.count, options->skip_special, &text);
        if (options->format == CMD_JSON) {
            gm_string_printf(&out, "{\"text\":");
            cmd_json_text(&out, text.data, text.length);
            gm_string_printf(&out, "}");
        } else gm_string_append(&out, text.data, text.length);
        gm_string_append(&out, "\n", 1);
        fwrite(out.data, 1, out.length, stdout);
    }
    rt_ids_free(&ids);
    gm_string_free(&text);
    gm_string_free(&out);
    fe_engine_close(&engine);
    return status;
}

/* ---- render ---- */

static void print_rendered(const fe_engine *engine, const cmd_options *options, const gm_string *text) {
    rt_ids ids = {0};
    gm_string out = {0};
    if (options->format == CMD_TEXT) {
        fwrite(text->data, 1, text->length, stdout);
        return;
    }
    gm_string_printf(&out, "{\"text\":");
    cmd_json_text(&out, text->data, text->length);
    if (engine->tokenizer) { /* the template writes <bos> itself */
        rt_encode(engine->tokenizer, text->data, text->length, true, &ids);
        gm_string_printf(&out, ",\"ids\":");
        cmd_json_ids(&out, ids.data, ids.count);
    }
    gm_string_printf(&out, "}\n");
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
    rt_ids_free(&ids);
}

gm_status cmd_render(const cmd_options *options, gm_diag *diag) {
    fe_engine engine;
    gm_string text = {0};
    if (!options->messages) return gm_fail(diag, GM_INVALID, "no messages given: expected --messages FILE.json");
    GM_TRY(cmd_vocab_open(options, false, diag, &engine));
    gm_status status = fe_chat_render_file(engine.model.config.generation, options->messages,
                                           !options->no_generation_prompt, diag, &text);
    if (status == GM_OK) cmd_warn_turns(&engine.model, diag);
    if (status == GM_OK) print_rendered(&engine, options, &text);
    gm_string_free(&text);
    fe_engine_close(&engine);
    return status;
}
