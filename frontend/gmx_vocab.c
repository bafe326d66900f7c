/* The vocabulary section of an artefact.
 *
 * Eight 32-bit numbers: pieces, merges, bos, eos, unk, pad, end_of_turn, flags; then arrays: 32-bit lengths and f32
 * scores of the pieces, the merges (left, right, result), a byte per piece: its type, 3 bits up whether it lies apart,
 * and 4 bits up how it matches; then the texts one after the other. A section of zero bytes is no vocabulary.
 */
#include "frontend/gmx_impl.h"

#include <math.h>
#include <string.h>

enum { ADD_BOS = 1, ADD_EOS = 2, JSON_RULES = 4, HAS_MERGES = 8, OTHER_TURNS = 16, ALL_FLAGS = 31 };

typedef struct vocab_head {
    uint32_t pieces, merges;
    int32_t bos, eos, unk, pad, end_of_turn;
    uint32_t flags;
} vocab_head;

void gmx_vocab_write(const rt_vocab *vocab, gm_string *out) {
    if (!vocab->count) return;
    vocab_head head = {(uint32_t)vocab->count,
                       (uint32_t)vocab->merge_count,
                       vocab->bos,
                       vocab->eos,
                       vocab->unk,
                       vocab->pad,
                       vocab->end_of_turn,
                       0};
    head.flags = (vocab->add_bos ? ADD_BOS : 0) | (vocab->add_eos ? ADD_EOS : 0) |
                 (vocab->json_rules ? JSON_RULES : 0) | (vocab->merges ? HAS_MERGES : 0) |
                 (vocab->other_turns ? OTHER_TURNS : 0);
    gm_string_append(out, (const char *)&head, sizeof head);
    for (size_t i = 0; i < vocab->count; i++)
        gm_string_append(out, (const char *)&(uint32_t){vocab->pieces[i].length}, 4);
    for (size_t i = 0; i < vocab->count; i++) gm_string_append(out, (const char *)&vocab->pieces[i].score, 4);
    if (vocab->merge_count) gm_string_append(out, (const char *)vocab->merges, vocab->merge_count * sizeof(rt_merge));
    for (size_t i = 0; i < vocab->count; i++)
        gm_string_append(
            out, &(char){(char)(vocab->pieces[i].type | vocab->pieces[i].apart << 3 | vocab->pieces[i].match << 4)}, 1);
    for (size_t i = 0; i < vocab->count; i++) gm_string_append(out, vocab->pieces[i].text, vocab->pieces[i].length);
}

/* ---- reading ---- */

static gm_status refuse(const char *path, const char *expected, gm_diag *diag) {
    return gm_fail(diag, GM_FORMAT, "%s: vocabulary: expected %s", path, expected);
}

static gm_status read_pieces(const uint8_t *lengths, const uint8_t *types, const char *text, const char *end,
                             const char *path, gm_diag *diag, rt_vocab *vocab) {
    vocab->pieces = GM_NEW_ARRAY(&vocab->arena, rt_piece, vocab->count);
    for (size_t i = 0; i < vocab->count; i++) {
        rt_piece *piece = &vocab->pieces[i];
        uint32_t length;
        memcpy(&length, lengths + 4 * i, 4);
        memcpy(&piece->score, lengths + 4 * (vocab->count + i), 4);
        piece->text = text;
        piece->type = types[i] & 7;
        piece->apart = types[i] >> 3 & 1;
        piece->match = types[i] >> 4;
        if (length > RT_MAX_PIECE_BYTES || length > (size_t)(end - text))
            return refuse(path, "as much text as it says", diag);
        piece->length = length;
        if (piece->type < RT_PIECE_NORMAL || piece->type > RT_PIECE_BYTE || !isfinite(piece->score))
            return refuse(path, "types 1 to 6 and finite scores", diag);
        text += length;
    }
    return text == end ? GM_OK : refuse(path, "nothing after the texts", diag);
}

static gm_status read_merges(const uint8_t *data, const char *path, gm_diag *diag, rt_vocab *vocab) {
    vocab->merges = GM_NEW_ARRAY(&vocab->arena, rt_merge, vocab->merge_count + 1);
    memcpy(vocab->merges, data, vocab->merge_count * sizeof(rt_merge));
    for (size_t i = 0; i < vocab->merge_count; i++) {
        const rt_merge *merge = &vocab->merges[i];
        if (!rt_is_id(merge->left, vocab->count) || !rt_is_id(merge->right, vocab->count) ||
            !rt_is_id(merge->result, vocab->count))
            return refuse(path, "merges of its pieces", diag);
    }
    return GM_OK;
}

static gm_status read_ids(const vocab_head *head, const char *path, gm_diag *diag, rt_vocab *vocab) {
    const int32_t ids[] = {head->bos, head->eos, head->unk, head->pad, head->end_of_turn};
    for (size_t i = 0; i < GM_COUNT(ids); i++)
        if (ids[i] != -1 && !rt_is_id(ids[i], vocab->count)) return refuse(path, "special ids of its pieces", diag);
    vocab->bos = head->bos, vocab->eos = head->eos, vocab->unk = head->unk, vocab->pad = head->pad;
    vocab->end_of_turn = head->end_of_turn;
    vocab->add_bos = head->flags & ADD_BOS, vocab->add_eos = head->flags & ADD_EOS,
    vocab->json_rules = head->flags & JSON_RULES;
    vocab->other_turns = head->flags & OTHER_TURNS;
    if ((vocab->add_bos && vocab->bos < 0) || (vocab->add_eos && vocab->eos < 0))
        return refuse(path, "ids for the tokens it adds", diag);
    return GM_OK;
}

gm_status gmx_vocab_read(const void *data, size_t bytes, const char *path, gm_diag *diag, rt_vocab *vocab) {
    vocab_head head;
    if (bytes == 0) return GM_OK;
    if (bytes < sizeof head) return refuse(path, "its head", diag);
    memcpy(&head, data, sizeof head);
    bool merges = head.flags & HAS_MERGES;
    if (head.pieces == 0 || head.pieces > FE_MAX_SIZE || head.merges > 4 * FE_MAX_SIZE ||
        head.flags & ~(uint32_t)ALL_FLAGS || (head.merges && !merges))
        return refuse(path, "possible counts and flags", diag);
    size_t pieces = head.pieces, merge_bytes = head.merges * sizeof(rt_merge);
    size_t fixed = sizeof head + 9 * pieces + merge_bytes; /* at most 2^30 */
    if (bytes < fixed) return refuse(path, "as many pieces and merges as it says", diag);
    const uint8_t *at = (const uint8_t *)data + sizeof head;
    vocab->count = pieces;
    vocab->merge_count = head.merges;
    GM_TRY(read_ids(&head, path, diag, vocab));
    if (merges) GM_TRY(read_merges(at + 8 * pieces, path, diag, vocab));
    return read_pieces(at, at + 8 * pieces + merge_bytes, (const char *)data + fixed, (const char *)data + bytes, path,
                       diag, vocab);
}
