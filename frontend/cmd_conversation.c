/* What commands share that answer one prompt after the other: of what the session holds of the last one nothing is read
 * again; and conversations. */
#include "frontend/chat.h"
#include "frontend/commands.h"

/* ---- what is held ---- */

gm_status cmd_held_keep(const rt_ids *held, rt_session *session, const rt_ids *prompt, gm_diag *diag, int64_t *out) {
    size_t same = 0;
    while (same < held->count && same + 1 < prompt->count && held->data[same] == prompt->data[same]) same++;
    *out = rt_session_seeks(session) ? (int64_t)same : 0;
    if (*out) return rt_session_seek(session, *out, diag);
    rt_session_reset(session);
    return GM_OK;
}

void cmd_held_take(rt_ids *held, cmd_answer *answer) {
    rt_ids_free(held);
    *held = answer->prompt;
    answer->prompt = (rt_ids){0};
    for (int64_t i = 0; i < answer->count; i++) rt_ids_push(held, answer->ids[i]);
}

/* ---- conversations ---- */

void cmd_warn_turns(const fe_model *model, const gm_diag *diag) {
    if (model->vocab.other_turns)
        gm_warn(diag, "%s: its own chat template is not used: turns are written as Gemma's, <start_of_turn>…%s",
                model->path, RT_END_OF_TURN);
}

gm_status cmd_chat_stops(const fe_model *model, gm_diag *diag, int32_t *ids, cmd_stops *out) {
    int32_t turn = model->vocab.end_of_turn;
    bool there = false;
    if (turn < 0)
        return gm_fail(diag, GM_UNSUPPORTED,
                       "%s: the vocabulary has no piece %s: expected one that Gemma's chat template can end turns with",
                       model->path, RT_END_OF_TURN);
    cmd_warn_turns(model, diag);
    *out = (cmd_stops){ids, model->config.stop_count};
    for (int i = 0; i < model->config.stop_count; i++) {
        ids[i] = model->config.stops[i];
        there |= ids[i] == turn;
    }
    if (there) return GM_OK;
    if (out->count == RT_MAX_STOPS)
        return gm_fail(diag, GM_UNSUPPORTED, "%s: %d ids end generation, expected one less beside the end of a turn",
                       model->path, RT_MAX_STOPS);
    ids[out->count++] = turn;
    return GM_OK;
}

gm_status cmd_chat_encode(const fe_engine *engine, const fe_message *messages, size_t count, gm_diag *diag,
                          rt_ids *out) {
    gm_string text = {0};
    gm_status status = fe_chat_render(engine->model.config.generation, messages, count, true, diag, &text);
    if (status == GM_OK && text.length >= RT_MAX_TEXT_BYTES)
        status = gm_fail(diag, GM_INVALID, "the conversation has %zu bytes, expected less than %d", text.length,
                         RT_MAX_TEXT_BYTES);
    /* the template writes <bos> itself */
    if (status == GM_OK) rt_encode(engine->tokenizer, text.data, text.length, true, out);
    gm_string_free(&text);
    return status;
}
