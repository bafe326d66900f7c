/* The tokenizer's index structures, shared by tokenizer.c (builds), _index.c (keeps), _encode.c and _decode.c. */
#ifndef GM_RUNTIME_TOKENIZER_IMPL_H
#define GM_RUNTIME_TOKENIZER_IMPL_H

#include "runtime/tokenizer.h"

/* Open addressing, linear probing, at most half full. The bits of the table's mask hold id + 1, 0: free;
 * those above it the same bits of the text's hash, which spares most look-ups the visit to the text. */
typedef uint32_t rt_piece_slot;

typedef struct rt_merge_slot { /* result < 0: free */
    int32_t left, right, result;
    uint32_t rank;
} rt_merge_slot;

/* Byte trie of the pieces cut out of the text before merging; node 0 is unused, so 0 means none. */
typedef struct rt_trie_node {
    uint32_t child, sibling;
    int32_t id; /* piece ending here, -1: none */
    uint8_t byte;
} rt_trie_node;

/* Bits of a Bloom filter over the pairs of adjacent characters inside pieces; 34 k such pairs exist
 * in Gemma 3. Between two characters that no piece holds side by side, no merge can happen. */
enum { RT_ADJACENT_BITS = 1 << 21 };

struct rt_tokenizer {
    const rt_vocab *vocab;
    bool borrowed; /* the tables are someone else's */
    rt_piece_slot *pieces;
    uint32_t piece_mask;
    rt_merge_slot *merges; /* NULL: merge by score */
    size_t merge_mask;
    rt_trie_node *trie;
    uint32_t trie_count, trie_capacity;
    uint32_t trie_root[2][256]; /* of the raw text, and of what the pieces found there leave (RT_MATCH_ESCAPED) */
    bool has_second;            /* there are pieces of the second kind */
    uint64_t *adjacent;
    int32_t byte_ids[256]; /* -1: none */
    bool match_escaped;    /* cut pieces match the text after space -> U+2581 */
    bool has_unused;
};

/* U+FFFD, which replaces what is not UTF-8. */
#define RT_REPLACEMENT "\xEF\xBF\xBD"
enum { RT_REPLACEMENT_BYTES = 3 };

/* The bytes of one character packed into a word: distinct for distinct characters. */
static inline uint32_t rt_utf8_pack(const char *text, int size) {
    uint32_t packed = 0;
    for (int i = 0; i < size; i++) packed = packed << 8 | (uint8_t)text[i];
    return packed;
}

static inline uint32_t rt_adjacent_bit(uint32_t before, uint32_t after) {
    uint64_t mixed = ((uint64_t)before << 32 | after) * 0x9E3779B97F4A7C15u;
    return (uint32_t)((mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9u >> 43);
}

/* Whether merging may end at the piece. Control pieces of a tokenizer.json are pieces like others where a match of the
 * whole is not allowed. */
static inline bool rt_mergeable(const rt_vocab *vocab, const rt_piece *piece) {
    return !piece->apart && (piece->type == RT_PIECE_NORMAL || piece->type == RT_PIECE_USER ||
                             piece->type == RT_PIECE_UNUSED || (piece->type == RT_PIECE_CONTROL && vocab->json_rules));
}

/* The bytes of a blank (Unicode's White_Space) or word character (letters, marks, digits, joiners,
 * connectors) that text[0..length) begins with, or ends with; 0: it does not. */
size_t rt_blank_at_start(const char *text, size_t length);
size_t rt_blank_at_end(const char *text, size_t length);
bool rt_word_at_start(const char *text, size_t length);
bool rt_word_at_end(const char *text, size_t length);

/* Any piece with this text, -1: none. */
int32_t rt_piece_find(const rt_tokenizer *tokenizer, const char *text, size_t length);
/* The explicit merge of two pieces, NULL: none. */
const rt_merge_slot *rt_merge_find(const rt_tokenizer *tokenizer, int32_t left, int32_t right);

#endif
