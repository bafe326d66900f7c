/* Tokenizer: ids -> text, whole or as a stream. */
#include "runtime/tokenizer.h"

#include <string.h>

#include "runtime/tokenizer_impl.h"

static void append_replacements(gm_string *out, size_t count) {
    for (size_t i = 0; i < count; i++) gm_string_append(out, RT_REPLACEMENT, RT_REPLACEMENT_BYTES);
}

static void append_piece(gm_string *out, const rt_piece *piece) {
    const char *text = piece->text, *end = text + piece->length;
    while (text < end) {
        const char *blank = memmem(text, (size_t)(end - text), RT_BLANK, RT_BLANK_BYTES);
        gm_string_append(out, text, (size_t)((blank ? blank : end) - text));
        if (!blank) return;
        gm_string_append(out, " ", 1);
        text = blank + RT_BLANK_BYTES;
    }
}

/* The run of byte pieces is over: emit what is still held back. Under json_rules that is text only
 * if the whole run is; under SentencePiece rules it is the head of a character that never came. */
static void flush(rt_stream *stream, gm_string *out) {
    gm_string *pending = &stream->pending;
    if (stream->checked && stream->checked == pending->length) gm_string_append(out, pending->data, pending->length);
    else append_replacements(out, pending->length);
    pending->length = stream->checked = 0;
    stream->invalid = false;
}

/* tokenizer.json: one bad byte spoils the run, so nothing of it is known until it ends or is
 * spoilt. */
static void push_byte_json(rt_stream *stream, char byte, gm_string *out) {
    gm_string *pending = &stream->pending;
    gm_string_append(pending, &byte, 1);
    if (!stream->invalid) {
        size_t at = stream->checked;
        int size = gm_utf8_scan(pending->data + at, pending->length - at);
        if (size > 0) stream->checked += (size_t)size;
        if (size != 0) return;
        stream->invalid = true;
    }
    append_replacements(out, pending->length);
    pending->length = stream->checked = 0;
}

/* SentencePiece: each byte that is part of no character is replaced, at most 3 bytes are held. */
static void push_byte_spm(rt_stream *stream, char byte, gm_string *out) {
    gm_string *pending = &stream->pending;
    gm_string_append(pending, &byte, 1);
    while (pending->length) {
        int size = gm_utf8_scan(pending->data, pending->length);
        if (size < 0) return;
        if (size == 0) append_replacements(out, 1);
        else gm_string_append(out, pending->data, (size_t)size);
        size_t used = size ? (size_t)size : 1;
        pending->length -= used;
        memmove(pending->data, pending->data + used, pending->length);
    }
}

/* Ids that give no text end a run of bytes under SentencePiece rules only: HF drops them
 * beforehand. */
static void step(const rt_tokenizer *tokenizer, rt_stream *stream, int32_t id, bool skip_control, gm_string *out) {
    const rt_vocab *vocab = tokenizer->vocab;
    bool known = id >= 0 && (size_t)id < vocab->count;
    const rt_piece *piece = known ? &vocab->pieces[id] : NULL;
    if (!known || (skip_control && (piece->type == RT_PIECE_CONTROL || piece->type == RT_PIECE_UNKNOWN))) {
        if (!vocab->json_rules) flush(stream, out);
    } else if (piece->type != RT_PIECE_BYTE) {
        flush(stream, out);
        append_piece(out, piece);
    } else if (vocab->json_rules) {
        push_byte_json(stream, (char)rt_piece_byte(piece), out);
    } else {
        push_byte_spm(stream, (char)rt_piece_byte(piece), out);
    }
}

void rt_stream_push(const rt_tokenizer *tokenizer, rt_stream *stream, int32_t id, gm_string *out) {
    step(tokenizer, stream, id, true, out);
}

void rt_stream_finish(const rt_tokenizer *tokenizer, rt_stream *stream, gm_string *out) {
    flush(stream, out);
    gm_string_free(&stream->pending);
    *stream = (rt_stream){0};
}

void rt_decode(const rt_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_control, gm_string *out) {
    rt_stream stream = {0};
    for (size_t i = 0; i < count; i++) step(tokenizer, &stream, ids[i], skip_control, out);
    rt_stream_finish(tokenizer, &stream, out);
}
