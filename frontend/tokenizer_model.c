/* Reads the vocabulary of a SentencePiece tokenizer.model, refusing every setting that Gemma's does
 * not have.
 *
 * The file is a protobuf ModelProto: fields of a number and a wire type, in any order, the last of
 * several counting. Of it are read pieces (1), trainer_spec (2), normalizer_spec (3) and
 * denormalizer_spec (5); other fields are skipped.
 *
 * User-defined blanks are stored with plain spaces, so that they match where a space and U+2581 are
 * the same, as in SentencePiece. A Gemma 1 or 2 vocabulary has no piece for a tab, which therefore
 * becomes the byte piece <0x09>; their tokenizer.json spells that piece as the tab, under the same
 * id.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/json.h"
#include "frontend/model.h"
#include "frontend/model_impl.h"

enum { MAX_BYTES = 1 << 28 };

/* ---- settings: integers, enums and bools of the specs ---- */

enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3, DENORMALIZER = 5 };

typedef enum setting_index {
    MODEL_TYPE,
    SUFFIX_BLANKS,
    BYTE_FALLBACK,
    UNK,
    BOS,
    EOS,
    PAD,
    DUMMY_PREFIX,
    REMOVE_BLANKS,
    ESCAPE,
    SETTING_COUNT
} setting_index;

static const struct setting {
    uint32_t message, field;
    int32_t initial, wanted; /* wanted counts where expected is given */
    const char *name, *expected;
} settings[SETTING_COUNT] = {
    [MODEL_TYPE] = {TRAINER, 3, 1, 2, "trainer_spec.model_type", "2 (BPE)"},
    [SUFFIX_BLANKS] = {TRAINER, 24, 0, 0, "trainer_spec.treat_whitespace_as_suffix", "false"},
    [BYTE_FALLBACK] = {TRAINER, 35, 0, 1, "trainer_spec.byte_fallback", "true"},
    [UNK] = {TRAINER, 40, 0, 0, "trainer_spec.unk_id", NULL},
    [BOS] = {TRAINER, 41, 1, 0, "trainer_spec.bos_id", NULL},
    [EOS] = {TRAINER, 42, 2, 0, "trainer_spec.eos_id", NULL},
    [PAD] = {TRAINER, 43, -1, 0, "trainer_spec.pad_id", NULL},
    [DUMMY_PREFIX] = {NORMALIZER, 3, 1, 0, "normalizer_spec.add_dummy_prefix", "false"},
    [REMOVE_BLANKS] = {NORMALIZER, 4, 1, 0, "normalizer_spec.remove_extra_whitespaces", "false"},
    [ESCAPE] = {NORMALIZER, 5, 1, 1, "normalizer_spec.escape_whitespaces", "true"},
};

/* ---- the wire format ---- */

typedef enum wire_type { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 } wire_type;

typedef struct span { /* what is left of a message */
    const uint8_t *at, *end;
} span;

typedef struct field {
    uint32_t number;
    wire_type wire;
    uint64_t value; /* of VARINT and FIXED32 */
    span bytes;     /* of BYTES */
    size_t offset;  /* of its first byte in the file, for messages */
} field;

typedef struct reader {
    const char *path;
    gm_diag *diag;
    rt_vocab *vocab;
    const uint8_t *data;
    int32_t values[SETTING_COUNT];
    span name, charsmap, decoding_charsmap; /* the normaliser's; the denormaliser's */
    size_t piece;                           /* next id */
} reader;

static size_t span_length(span bytes) {
    return (size_t)(bytes.end - bytes.at);
}

static gm_status read_varint(const reader *in, span *from, uint64_t *out) {
    size_t offset = (size_t)(from->at - in->data);
    *out = 0;
    for (int shift = 0; shift < 64 && from->at < from->end; shift += 7) {
        uint64_t byte = *from->at++;
        if (shift == 63 && byte > 1) break; /* more than 64 bits */
        *out |= (byte & 0x7F) << shift;
        if (byte < 0x80) return GM_OK;
    }
    return gm_fail(in->diag, GM_FORMAT, "%s: byte %zu: expected a whole varint of at most 64 bits", in->path, offset);
}

static gm_status take_bytes(const reader *in, span *from, uint64_t length, field *out) {
    size_t left = span_length(*from);
    if (length > left)
        return gm_fail(in->diag, GM_FORMAT, "%s: byte %zu: field %u: expected at most %zu bytes, found %llu", in->path,
                       out->offset, out->number, left, (unsigned long long)length);
    out->bytes = (span){from->at, from->at + length};
    from->at += length;
    return GM_OK;
}

/* The next field of a message that has more bytes. */
static gm_status next_field(const reader *in, span *from, field *out) {
    uint64_t tag, length;
    *out = (field){.offset = (size_t)(from->at - in->data)};
    GM_TRY(read_varint(in, from, &tag));
    if (tag >> 3 == 0 || tag >> 32)
        return gm_fail(in->diag, GM_FORMAT, "%s: byte %zu: expected a field number 1 to 2^29-1, found %llu", in->path,
                       out->offset, (unsigned long long)(tag >> 3));
    out->number = (uint32_t)(tag >> 3);
    out->wire = (wire_type)(tag & 7);
    switch (out->wire) {
    case VARINT: return read_varint(in, from, &out->value);
    case BYTES: GM_TRY(read_varint(in, from, &length)); return take_bytes(in, from, length, out);
    case FIXED64: return take_bytes(in, from, 8, out);
    case FIXED32:
        GM_TRY(take_bytes(in, from, 4, out));
        for (int i = 0; i < 4; i++) out->value |= (uint64_t)out->bytes.at[i] << 8 * i;
        return GM_OK;
    }
    return gm_fail(in->diag, GM_FORMAT, "%s: byte %zu: field %u: expected wire type 0, 1, 2 or 5, found %d", in->path,
                   out->offset, out->number, (int)(tag & 7));
}

static gm_status check_wire(const reader *in, const field *item, wire_type wire, const char *name) {
    if (item->wire == wire) return GM_OK;
    return gm_fail(in->diag, GM_FORMAT, "%s: byte %zu: %s: expected wire type %d, found %d", in->path, item->offset,
                   name, (int)wire, (int)item->wire);
}

/* ---- specs ---- */

static gm_status read_text(const reader *in, const field *item, const char *name, span *out) {
    GM_TRY(check_wire(in, item, BYTES, name));
    *out = item->bytes;
    return GM_OK;
}

/* One field of message TRAINER, NORMALIZER or DENORMALIZER. */
static gm_status read_setting(reader *in, uint32_t message, const field *item) {
    if (message == NORMALIZER && item->number == 1) return read_text(in, item, "normalizer_spec.name", &in->name);
    if (message == NORMALIZER && item->number == 2)
        return read_text(in, item, "normalizer_spec.precompiled_charsmap", &in->charsmap);
    if (message == DENORMALIZER && item->number == 2)
        return read_text(in, item, "denormalizer_spec.precompiled_charsmap", &in->decoding_charsmap);
    for (int i = 0; i < SETTING_COUNT; i++) {
        if (settings[i].message != message || settings[i].field != item->number) continue;
        GM_TRY(check_wire(in, item, VARINT, settings[i].name));
        bool is_bool = settings[i].expected && i != MODEL_TYPE;
        in->values[i] = is_bool ? item->value != 0 : (int32_t)(uint32_t)item->value;
    }
    return GM_OK;
}

static gm_status read_spec(reader *in, uint32_t message, span body) {
    while (body.at < body.end) {
        field item;
        GM_TRY(next_field(in, &body, &item));
        GM_TRY(read_setting(in, message, &item));
    }
    return GM_OK;
}

static gm_status check_settings(const reader *in) {
    for (int i = 0; i < SETTING_COUNT; i++)
        if (settings[i].expected && in->values[i] != settings[i].wanted)
            return gm_fail(in->diag, GM_UNSUPPORTED, "%s: %s: expected %s, found %d", in->path, settings[i].name,
                           settings[i].expected, in->values[i]);
    size_t length = span_length(in->name);
    if (length && (length != 8 || memcmp(in->name.at, "identity", 8) != 0))
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: normalizer_spec.name: expected \"identity\"", in->path);
    if (span_length(in->charsmap))
        return gm_fail(in->diag, GM_UNSUPPORTED,
                       "%s: normalizer_spec.precompiled_charsmap: expected no bytes, found %zu", in->path,
                       span_length(in->charsmap));
    if (span_length(in->decoding_charsmap))
        return gm_fail(in->diag, GM_UNSUPPORTED,
                       "%s: denormalizer_spec.precompiled_charsmap: expected no bytes, found %zu", in->path,
                       span_length(in->decoding_charsmap));
    return GM_OK;
}

/* ---- pieces ---- */

/* A copy of the text; in user-defined pieces with U+2581 written as a space. */
static void set_text(reader *in, rt_piece *piece, span text) {
    size_t length = 0;
    char *out = gm_arena_strndup(&in->vocab->arena, (const char *)text.at, span_length(text));
    for (size_t at = 0, count = span_length(text); at < count; length++) {
        bool blank = piece->type == RT_PIECE_USER && count - at >= RT_BLANK_BYTES &&
                     memcmp(text.at + at, RT_BLANK, RT_BLANK_BYTES) == 0;
        out[length] = blank ? ' ' : (char)text.at[at];
        at += blank ? RT_BLANK_BYTES : 1;
    }
    out[length] = '\0';
    piece->text = out;
    piece->length = (uint32_t)length;
}

static gm_status read_piece(reader *in, span body) {
    size_t id = in->piece++;
    span text = {NULL, NULL};
    uint32_t score_bits = 0;
    int64_t type = RT_PIECE_NORMAL;
    while (body.at < body.end) {
        field item;
        GM_TRY(next_field(in, &body, &item));
        if (item.number == 1) {
            GM_TRY(read_text(in, &item, "pieces.piece", &text));
        } else if (item.number == 2) {
            GM_TRY(check_wire(in, &item, FIXED32, "pieces.score"));
            score_bits = (uint32_t)item.value;
        } else if (item.number == 3) {
            GM_TRY(check_wire(in, &item, VARINT, "pieces.type"));
            type = (int64_t)item.value;
        }
    }
    rt_piece *piece = &in->vocab->pieces[id];
    memcpy(&piece->score, &score_bits, sizeof piece->score);
    if (type < RT_PIECE_NORMAL || type > RT_PIECE_BYTE || !isfinite(piece->score))
        return gm_fail(in->diag, GM_FORMAT,
                       "%s: piece %zu: expected a type 1 to 6 and a finite score, found %lld and %g", in->path, id,
                       (long long)type, (double)piece->score);
    if (text.at == text.end || span_length(text) > RT_MAX_PIECE_BYTES)
        return gm_fail(in->diag, GM_FORMAT, "%s: piece %zu: expected a text of 1 to %d bytes", in->path, id,
                       RT_MAX_PIECE_BYTES);
    piece->type = (rt_piece_type)type;
    set_text(in, piece, text);
    return GM_OK;
}

/* Byte fallback has all its pieces. */
static gm_status check_bytes(const reader *in) {
    bool seen[256] = {false};
    for (size_t id = 0; id < in->vocab->count; id++) {
        const rt_piece *piece = &in->vocab->pieces[id];
        int value = rt_piece_byte(piece);
        if (piece->type != RT_PIECE_BYTE) continue;
        if (value < 0 || seen[value])
            return gm_fail(in->diag, GM_FORMAT, "%s: byte piece %zu: expected one each of <0x00> to <0xFF>", in->path,
                           id);
        seen[value] = true;
    }
    for (int value = 0; value < 256; value++)
        if (!seen[value]) return gm_fail(in->diag, GM_FORMAT, "%s: expected a byte piece <0x%02X>", in->path, value);
    return GM_OK;
}

/* ---- the file ---- */

static gm_status special_id(const reader *in, setting_index which, bool required, int32_t *out) {
    const rt_vocab *vocab = in->vocab;
    int32_t id = in->values[which];
    *out = -1;
    if (id < 0 && !required) return GM_OK;
    if (id < 0 || (size_t)id >= vocab->count)
        return gm_fail(in->diag, GM_FORMAT, "%s: %s: expected 0..%zu, found %d", in->path, settings[which].name,
                       vocab->count - 1, id);
    rt_piece_type type = vocab->pieces[id].type;
    if (type != RT_PIECE_CONTROL && type != RT_PIECE_UNKNOWN && type != RT_PIECE_USER)
        return gm_fail(in->diag, GM_FORMAT, "%s: %s: expected a piece of type 2, 3 or 4, found %d of type %d", in->path,
                       settings[which].name, id, (int)type);
    *out = id;
    return GM_OK;
}

static gm_status name_pieces(reader *in) {
    rt_vocab *vocab = in->vocab;
    GM_TRY(special_id(in, BOS, true, &vocab->bos));
    GM_TRY(special_id(in, EOS, false, &vocab->eos));
    GM_TRY(special_id(in, UNK, false, &vocab->unk));
    GM_TRY(special_id(in, PAD, false, &vocab->pad));
    vocab->add_bos = true;
    vocab->end_of_turn = rt_vocab_find(vocab, RT_END_OF_TURN);
    return GM_OK;
}

/* The specs, and the number of pieces; the settings are judged before any piece is read. */
static gm_status read_specs(reader *in, span file, size_t *pieces) {
    while (file.at < file.end) {
        field item;
        GM_TRY(next_field(in, &file, &item));
        bool known =
            item.number == PIECES || item.number == TRAINER || item.number == NORMALIZER || item.number == DENORMALIZER;
        if (!known) continue;
        GM_TRY(check_wire(in, &item, BYTES,
                          item.number == PIECES       ? "pieces"
                          : item.number == TRAINER    ? "trainer_spec"
                          : item.number == NORMALIZER ? "normalizer_spec"
                                                      : "denormalizer_spec"));
        if (item.number == PIECES) (*pieces)++;
        else GM_TRY(read_spec(in, item.number, item.bytes));
    }
    if (*pieces == 0 || *pieces > FE_MAX_SIZE)
        return gm_fail(in->diag, GM_FORMAT, "%s: expected 1 to %d pieces, found %zu", in->path, FE_MAX_SIZE, *pieces);
    return check_settings(in);
}

static gm_status read_model(reader *in, span file) {
    size_t pieces = 0;
    for (int i = 0; i < SETTING_COUNT; i++) in->values[i] = settings[i].initial;
    GM_TRY(read_specs(in, file, &pieces));
    in->vocab->count = pieces;
    in->vocab->pieces = GM_NEW_ARRAY(&in->vocab->arena, rt_piece, pieces);
    while (file.at < file.end) {
        field item;
        GM_TRY(next_field(in, &file, &item));
        if (item.number == PIECES) GM_TRY(read_piece(in, item.bytes));
    }
    GM_TRY(check_bytes(in));
    return name_pieces(in);
}

gm_status fe_tokenizer_model_open(const char *path, gm_diag *diag, rt_vocab *vocab) {
    *vocab = (rt_vocab){0};
    char *data;
    size_t bytes;
    GM_TRY(fe_read_file(path, MAX_BYTES, diag, &data, &bytes));
    const uint8_t *start = (const uint8_t *)data;
    reader in = {.path = path, .diag = diag, .vocab = vocab, .data = start};
    gm_status status = fe_check_fetched(data, bytes, path, diag);
    if (status == GM_OK) status = read_model(&in, (span){start, start + bytes});
    free(data);
    if (status != GM_OK) rt_vocab_free(vocab);
    return status;
}
