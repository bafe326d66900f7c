/* The vocabulary inside a GGUF file. Piece texts stay where they are, in the mapping: the reader
 * touches each of the 262144 lengths once and copies no string. */
#include "frontend/gguf_impl.h"
#include "frontend/template.h"

#include <math.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

static gm_status find_array(const gguf_file *file, const char *key, const gguf_value **out) {
    *out = gguf_find(file, key);
    if (*out && (*out)->is_array) return GM_OK;
    return gm_fail(file->diag, GM_FORMAT, "%s: key \"%s\": expected an array", file->path, key);
}

/* ---- settings ---- */

/* Gemma's tokenizer never puts a space before a text, so a file that is silent about it means
 * false. */
static gm_status check_settings(const gguf_file *file) {
    const char *model = "";
    size_t length = 0;
    bool prefix = false;
    GM_TRY(gguf_string(file, KEY("model"), true, &model, &length));
    if (length != 5 || memcmp(model, "llama", 5) != 0)
        return gm_fail(file->diag, GM_UNSUPPORTED, "%s: key \"" KEY("model") "\": expected \"llama\", found \"%.*s\"",
                       file->path, length < 80 ? (int)length : 80, model);
    GM_TRY(gguf_bool(file, KEY("add_space_prefix"), &prefix));
    if (prefix)
        return gm_fail(file->diag, GM_UNSUPPORTED, "%s: key \"" KEY("add_space_prefix") "\": expected false",
                       file->path);
    return GM_OK;
}

static gm_status read_id(const gguf_file *file, const char *key, const rt_vocab *vocab, int32_t *out) {
    int64_t id = -1;
    GM_TRY(gguf_int(file, key, false, 0, (int64_t)vocab->count - 1, &id));
    *out = (int32_t)id;
    return GM_OK;
}

static gm_status read_ids(const gguf_file *file, rt_vocab *vocab) {
    GM_TRY(read_id(file, KEY("bos_token_id"), vocab, &vocab->bos));
    GM_TRY(read_id(file, KEY("eos_token_id"), vocab, &vocab->eos));
    GM_TRY(read_id(file, KEY("unknown_token_id"), vocab, &vocab->unk));
    GM_TRY(read_id(file, KEY("padding_token_id"), vocab, &vocab->pad));
    vocab->add_bos = true;
    GM_TRY(gguf_bool(file, KEY("add_bos_token"), &vocab->add_bos));
    GM_TRY(gguf_bool(file, KEY("add_eos_token"), &vocab->add_eos));
    if ((vocab->add_bos && vocab->bos < 0) || (vocab->add_eos && vocab->eos < 0))
        return gm_fail(file->diag, GM_FORMAT, "%s: expected key \"%s\"", file->path,
                       vocab->bos < 0 ? KEY("bos_token_id") : KEY("eos_token_id"));
    return GM_OK;
}

/* ---- pieces ---- */

static gm_status read_pieces(const gguf_file *file, rt_vocab *vocab) {
    const gguf_value *tokens = NULL, *scores = NULL, *types = NULL;
    GM_TRY(find_array(file, KEY("tokens"), &tokens));
    GM_TRY(find_array(file, KEY("scores"), &scores));
    GM_TRY(find_array(file, KEY("token_type"), &types));
    if (tokens->type != GGUF_STRING || scores->type != GGUF_F32 || (types->type != GGUF_I32 && types->type != GGUF_U32))
        return gm_fail(file->diag, GM_FORMAT,
                       "%s: expected arrays of string, f32 and i32 in \"" KEY("tokens") "\", \"" KEY(
                           "scores") "\" and \"" KEY("token_type") "\"",
                       file->path);
    if (tokens->count == 0 || tokens->count > INT32_MAX || scores->count != tokens->count ||
        types->count != tokens->count)
        return gm_fail(file->diag, GM_FORMAT,
                       "%s: expected as many \"" KEY("scores") "\" (%llu) and \"" KEY(
                           "token_type") "\" (%llu) as \"" KEY("tokens") "\" (%llu)",
                       file->path, (unsigned long long)scores->count, (unsigned long long)types->count,
                       (unsigned long long)tokens->count);
    vocab->count = (size_t)tokens->count;
    vocab->pieces = GM_NEW_ARRAY(&vocab->arena, rt_piece, vocab->count);
    const uint8_t *text = tokens->data;
    for (size_t id = 0; id < vocab->count; id++) {
        rt_piece *piece = &vocab->pieces[id];
        uint64_t length, type = gguf_load(types->data + 4 * id, 4);
        memcpy(&length, text, sizeof length); /* checked when the array was read */
        memcpy(&piece->score, scores->data + 4 * id, sizeof piece->score);
        piece->text = (const char *)text + 8;
        piece->length = (uint32_t)length;
        piece->type = (rt_piece_type)type;
        text += 8 + length;
        if (type < RT_PIECE_NORMAL || type > RT_PIECE_BYTE || !isfinite(piece->score))
            return gm_fail(file->diag, GM_FORMAT,
                           "%s: token %zu: expected a type 1 to 6 and a finite score, found %d and %g", file->path, id,
                           (int32_t)type, (double)piece->score);
        if (length > RT_MAX_PIECE_BYTES)
            return gm_fail(file->diag, GM_UNSUPPORTED, "%s: token %zu: expected at most %d bytes, found %llu",
                           file->path, id, RT_MAX_PIECE_BYTES, (unsigned long long)length);
    }
    return GM_OK;
}

/* Converters mark <s> and </s> as control pieces by their spelling; in Gemma they are the HTML
 * tags, unless the file itself uses them as a special id. */
static void restore_tags(rt_vocab *vocab) {
    for (size_t i = 0; i < vocab->count; i++) {
        rt_piece *piece = &vocab->pieces[i];
        int32_t id = (int32_t)i;
        if (piece->type != RT_PIECE_CONTROL || piece->length > 4) continue;
        if (!rt_piece_is(piece, "<s>") && !rt_piece_is(piece, "</s>")) continue;
        if (id != vocab->bos && id != vocab->eos && id != vocab->pad && id != vocab->unk) piece->type = RT_PIECE_USER;
    }
}

/* Of a chat template, if there is one. */
static gm_status read_template(const gguf_file *file, rt_vocab *vocab) {
    const char *text = "";
    size_t length = 0;
    GM_TRY(gguf_string(file, "tokenizer.chat_template", false, &text, &length));
    vocab->other_turns = fe_template_is_other(text, length);
    return GM_OK;
}

gm_status gguf_read_vocab(const gguf_file *file, rt_vocab *vocab) {
    GM_TRY(check_settings(file));
    GM_TRY(read_pieces(file, vocab));
    GM_TRY(read_ids(file, vocab));
    GM_TRY(read_template(file, vocab));
    restore_tags(vocab);
    vocab->end_of_turn = rt_vocab_find(vocab, RT_END_OF_TURN);
    return GM_OK;
}
