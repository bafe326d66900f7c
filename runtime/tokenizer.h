/* Text <-> token ids for the Gemma vocabularies (SentencePiece BPE with byte fallback).
 *
 * A reader (frontend/gguf.c, frontend/tokenizer_json.c) fills an rt_vocab; rt_tokenizer_new indexes
 * it. Encoding is n·log n in the text's length.
 *
 * User pieces match leftmost-longest before any merging, RT_MATCH_ESCAPED ones in what the others leave.
 * Under json_rules, and when the file spells runs of blanks with U+2581, they match the raw text; when it
 * spells them with plain spaces (the GGUF converter's rewriting), they match the escaped text, where a
 * space and U+2581 are the same.
 */
#ifndef GM_RUNTIME_TOKENIZER_H
#define GM_RUNTIME_TOKENIZER_H

#include "runtime/base.h"

/* Piece types, numbered as in SentencePiece's ModelProto and GGUF's tokenizer.ggml.token_type. */
typedef enum rt_piece_type {
    RT_PIECE_NORMAL = 1,
    RT_PIECE_UNKNOWN = 2,
    RT_PIECE_CONTROL = 3,
    RT_PIECE_USER = 4,
    RT_PIECE_UNUSED = 5,
    RT_PIECE_BYTE = 6
} rt_piece_type;

/* How a piece that is cut out of the text matches (tokenizer.json's added tokens); 0: as it is spelled. */
enum {
    RT_MATCH_WORD = 1,    /* not where a word character touches it */
    RT_MATCH_LEFT = 2,    /* takes the blanks before it along */
    RT_MATCH_RIGHT = 4,   /* takes the blanks after it along */
    RT_MATCH_ESCAPED = 8, /* in what the others leave, where spaces are U+2581 already */
    RT_MATCH_ALL = 15
};

enum { RT_MAX_PIECE_BYTES = (1 << 24) - 1 };

/* In 16 bytes: a vocabulary has a quarter of a million. */
typedef struct rt_piece {
    const char *text;     /* UTF-8 as the file spells it, need not be NUL-terminated */
    float score;          /* merge priority: higher merges first */
    uint32_t length : 24; /* at most RT_MAX_PIECE_BYTES */
    uint32_t type : 3;    /* rt_piece_type */
    /* json_rules: added to the vocabulary that is merged from, so that it is only found as a whole */
    uint32_t apart : 1;
    uint32_t match : 4; /* RT_MATCH_… */
} rt_piece;

/* U+2581, which stands for a space inside pieces. */
#define RT_BLANK "\xE2\x96\x81"
enum { RT_BLANK_BYTES = 3 };
#define RT_END_OF_TURN "<end_of_turn>"

typedef struct rt_merge { /* explicit merges (tokenizer.json): pieces by id, in rank order */
    int32_t left, right, result;
} rt_merge;

typedef struct rt_vocab {
    gm_arena arena; /* owns texts and arrays */
    rt_piece *pieces;
    size_t count;
    rt_merge *merges; /* NULL: merge by score */
    size_t merge_count;
    int32_t bos, eos, unk, pad; /* -1: none */
    int32_t end_of_turn;        /* id of RT_END_OF_TURN, -1: none */
    bool add_bos, add_eos;
    bool json_rules;  /* tokenizer.json semantics: control tokens in raw text match, byte runs decode as one */
    bool other_turns; /* the model brings a chat template whose turns are not those of Gemma's */
} rt_vocab;

/* Is it one of `count` ids? */
static inline bool rt_is_id(int32_t id, size_t count) {
    return id >= 0 && (size_t)id < count;
}

void rt_vocab_free(rt_vocab *vocab);
bool rt_piece_is(const rt_piece *piece, const char *text);
/* The byte that a text "<0xXX>" in upper case stands for, -1: another text. */
int rt_piece_byte(const rt_piece *piece);
/* The first piece of that text, -1: none. Looks at one after the other; see rt_tokenizer for an index. */
int32_t rt_vocab_find(const rt_vocab *vocab, const char *text);

typedef struct rt_tokenizer rt_tokenizer;

/* Borrows `vocab`, which must outlive it. */
gm_status rt_tokenizer_new(const rt_vocab *vocab, gm_diag *diag, rt_tokenizer **out);
void rt_tokenizer_free(rt_tokenizer *tokenizer);

/* Append the index as bytes (runtime/tokenizer_index.c). */
void rt_tokenizer_write(const rt_tokenizer *tokenizer, gm_string *out);
/* The same tokenizer from those bytes, which start at a multiple of 8 and are borrowed like `vocab`. NULL: they are
 * none that could belong to it. */
rt_tokenizer *rt_tokenizer_open(const rt_vocab *vocab, const void *index, size_t bytes);

typedef struct rt_ids {
    int32_t *data;
    size_t count, capacity;
} rt_ids;
void rt_ids_push(rt_ids *ids, int32_t id);
void rt_ids_free(rt_ids *ids);

/* Append the ids of text[0..length). parse_control: control pieces spelled in the text become their
 * ids (for text made by a chat template; under json_rules they always do); otherwise only user-defined
 * pieces do. No BOS or EOS is added here. Invalid UTF-8 bytes are read as U+FFFD each. Positions are
 * 32-bit: length must be below RT_MAX_TEXT_BYTES. */
enum { RT_MAX_TEXT_BYTES = INT32_MAX / 3 /* that a blank becomes */ };
void rt_encode(const rt_tokenizer *tokenizer, const char *text, size_t length, bool parse_control, rt_ids *out);
/* The id of a piece by its exact text, -1 when there is none. */
int32_t rt_piece_id(const rt_tokenizer *tokenizer, const char *text);

/* Whole-sequence decoding. Control pieces give nothing when skip_control, else their text; ids outside
 * the vocabulary give nothing. Bytes that are not UTF-8 become U+FFFD: each bad one under SentencePiece
 * rules, all of an invalid run of byte pieces under json_rules. */
void rt_decode(const rt_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_control, gm_string *out);

/* Streaming decoding: appends only whole characters, in sum what rt_decode with skip_control gives.
 * Bytes of an unfinished character are held back, under json_rules the whole run of byte pieces while
 * it can still turn out invalid. Zero-initialise; rt_stream_finish also releases it. */
typedef struct rt_stream {
    gm_string pending;
    size_t checked; /* leading bytes of pending known to be whole characters */
    bool invalid;   /* json_rules: the current run is not UTF-8, whatever follows */
} rt_stream;
void rt_stream_push(const rt_tokenizer *tokenizer, rt_stream *stream, int32_t id, gm_string *out);
void rt_stream_finish(const rt_tokenizer *tokenizer, rt_stream *stream, gm_string *out);

#endif
