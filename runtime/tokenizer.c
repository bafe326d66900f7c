/* Tokenizer: building the index over a vocabulary, look-ups by text. */
#include "runtime/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/tokenizer_impl.h"

bool rt_piece_is(const rt_piece *piece, const char *text) {
    return piece->length == strlen(text) && memcmp(piece->text, text, piece->length) == 0;
}

int rt_piece_byte(const rt_piece *piece) {
    static const char digits[] = "0123456789ABCDEF";
    if (piece->length != 6 || memcmp(piece->text, "<0x", 3) != 0 || piece->text[5] != '>') return -1;
    const char *high = memchr(digits, piece->text[3], 16), *low = memchr(digits, piece->text[4], 16);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

int32_t rt_vocab_find(const rt_vocab *vocab, const char *text) {
    for (size_t id = 0; id < vocab->count; id++)
        if (rt_piece_is(&vocab->pieces[id], text)) return (int32_t)id;
    return -1;
}

void rt_vocab_free(rt_vocab *vocab) {
    gm_arena_free(&vocab->arena);
    *vocab = (rt_vocab){0};
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) gm_abort(__FILE__, __LINE__, "out of memory");
    return memory;
}

/* Power of two, at least twice `count`. */
static size_t table_size(size_t count) {
    size_t size = 64;
    while (size < 2 * count) size *= 2;
    return size;
}

/* ---- pieces by text ---- */

static uint32_t text_hash(const char *text, size_t length) {
    uint64_t hash = length * 0x9E3779B97F4A7C15u, word;
    for (; length >= 8; text += 8, length -= 8) {
        memcpy(&word, text, 8);
        hash = (hash ^ word) * 0xBF58476D1CE4E5B9u;
        hash ^= hash >> 32;
    }
    word = 0;
    for (size_t i = 0; i < length; i++) word = word << 8 | (uint8_t)text[i];
    hash = (hash ^ word) * 0x94D049BB133111EBu;
    return (uint32_t)(hash ^ hash >> 31);
}

/* The piece in a slot, -1: the slot is free. */
static int32_t id_in(rt_piece_slot slot, uint32_t mask) {
    return (int32_t)(slot & mask) - 1;
}

/* The slot that holds the text, or the free one where it belongs. */
static rt_piece_slot *piece_slot(const rt_tokenizer *tokenizer, const char *text, size_t length, uint32_t hash) {
    const rt_piece *pieces = tokenizer->vocab->pieces;
    uint32_t mask = tokenizer->piece_mask;
    for (uint32_t at = hash & mask;; at = (at + 1) & mask) {
        rt_piece_slot *slot = &tokenizer->pieces[at];
        int32_t id = id_in(*slot, mask);
        if (id < 0) return slot;
        if (((*slot ^ hash) & ~mask) == 0 && pieces[id].length == length && memcmp(pieces[id].text, text, length) == 0)
            return slot;
    }
}

int32_t rt_piece_find(const rt_tokenizer *tokenizer, const char *text, size_t length) {
    return id_in(*piece_slot(tokenizer, text, length, text_hash(text, length)), tokenizer->piece_mask);
}

int32_t rt_piece_id(const rt_tokenizer *tokenizer, const char *text) {
    return rt_piece_find(tokenizer, text, strlen(text));
}

/* Of several pieces with one text the first mergeable one is found, else the first. */
static void build_pieces(rt_tokenizer *tokenizer) {
    const rt_vocab *vocab = tokenizer->vocab;
    size_t size = table_size(vocab->count);
    tokenizer->pieces = allocate(size, sizeof(rt_piece_slot));
    tokenizer->piece_mask = (uint32_t)(size - 1);
    for (size_t id = 0; id < vocab->count; id++) {
        const rt_piece *piece = &vocab->pieces[id];
        if (piece->type == RT_PIECE_UNUSED) tokenizer->has_unused = true;
        if (piece->length == 0) continue;
        uint32_t hash = text_hash(piece->text, piece->length), mask = tokenizer->piece_mask;
        rt_piece_slot *slot = piece_slot(tokenizer, piece->text, piece->length, hash);
        int32_t taken = id_in(*slot, mask);
        if (taken < 0 || (rt_mergeable(vocab, piece) && !rt_mergeable(vocab, &vocab->pieces[taken])))
            *slot = (hash & ~mask) | ((uint32_t)id + 1);
    }
}

/* ---- explicit merges by pair of pieces ---- */

static rt_merge_slot *merge_slot(const rt_tokenizer *tokenizer, int32_t left, int32_t right) {
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    for (size_t at = hash & tokenizer->merge_mask;; at = (at + 1) & tokenizer->merge_mask) {
        rt_merge_slot *slot = &tokenizer->merges[at];
        if (slot->result < 0 || (slot->left == left && slot->right == right)) return slot;
    }
}

const rt_merge_slot *rt_merge_find(const rt_tokenizer *tokenizer, int32_t left, int32_t right) {
    const rt_merge_slot *slot = merge_slot(tokenizer, left, right);
    return slot->result < 0 ? NULL : slot;
}

static gm_status check_merge(const rt_vocab *vocab, size_t rank, gm_diag *diag) {
    const rt_merge *merge = &vocab->merges[rank];
    const int32_t ids[] = {merge->left, merge->right, merge->result};
    for (size_t i = 0; i < GM_COUNT(ids); i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= vocab->count)
            return gm_fail(diag, GM_FORMAT, "tokenizer: merge %zu: id %d, expected 0..%zu", rank, ids[i],
                           vocab->count - 1);
        if (vocab->pieces[ids[i]].type == RT_PIECE_BYTE)
            return gm_fail(diag, GM_UNSUPPORTED, "tokenizer: merge %zu: expected no byte pieces", rank);
    }
    const rt_piece *left = &vocab->pieces[merge->left], *right = &vocab->pieces[merge->right],
                   *result = &vocab->pieces[merge->result];
    if (result->length != left->length + right->length || memcmp(result->text, left->text, left->length) != 0 ||
        memcmp(result->text + left->length, right->text, right->length) != 0)
        return gm_fail(diag, GM_FORMAT, "tokenizer: merge %zu: expected the result to be both texts joined", rank);
    return GM_OK;
}

/* As in HF, the last of several merges of one pair counts. */
static gm_status build_merges(rt_tokenizer *tokenizer, gm_diag *diag) {
    const rt_vocab *vocab = tokenizer->vocab;
    if (!vocab->merges) return GM_OK;
    size_t size = table_size(vocab->merge_count);
    tokenizer->merges = allocate(size, sizeof(rt_merge_slot));
    tokenizer->merge_mask = size - 1;
    for (size_t i = 0; i < size; i++) tokenizer->merges[i].result = -1;
    for (size_t rank = 0; rank < vocab->merge_count; rank++) {
        GM_TRY(check_merge(vocab, rank, diag));
        const rt_merge *merge = &vocab->merges[rank];
        rt_merge_slot *slot = merge_slot(tokenizer, merge->left, merge->right);
        *slot = (rt_merge_slot){merge->left, merge->right, merge->result, (uint32_t)rank};
    }
    return GM_OK;
}

/* ---- pieces cut out before merging ---- */

static uint32_t trie_node(rt_tokenizer *tokenizer, uint8_t byte) {
    if (tokenizer->trie_count == tokenizer->trie_capacity) {
        tokenizer->trie_capacity = tokenizer->trie_capacity ? 2 * tokenizer->trie_capacity : 1024;
        tokenizer->trie = realloc(tokenizer->trie, tokenizer->trie_capacity * sizeof(rt_trie_node));
        if (!tokenizer->trie) gm_abort(__FILE__, __LINE__, "out of memory");
    }
    tokenizer->trie[tokenizer->trie_count] = (rt_trie_node){.id = -1, .byte = byte};
    return tokenizer->trie_count++;
}

static uint32_t trie_child(rt_tokenizer *tokenizer, uint32_t parent, uint8_t byte) {
    for (uint32_t at = tokenizer->trie[parent].child; at; at = tokenizer->trie[at].sibling)
        if (tokenizer->trie[at].byte == byte) return at;
    uint32_t node = trie_node(tokenizer, byte);
    tokenizer->trie[node].sibling = tokenizer->trie[parent].child;
    tokenizer->trie[parent].child = node;
    return node;
}

static void trie_add(rt_tokenizer *tokenizer, const char *text, size_t length, int32_t id) {
    uint8_t first = (uint8_t)text[0];
    bool second = tokenizer->vocab->pieces[id].match & RT_MATCH_ESCAPED;
    uint32_t *root = &tokenizer->trie_root[second][first];
    if (!*root) *root = trie_node(tokenizer, first);
    uint32_t node = *root;
    tokenizer->has_second |= second;
    for (size_t i = 1; i < length; i++) node = trie_child(tokenizer, node, (uint8_t)text[i]);
    if (tokenizer->trie[node].id < 0) tokenizer->trie[node].id = id;
}

static void trie_add_escaped(rt_tokenizer *tokenizer, const rt_piece *piece, int32_t id) {
    gm_string text = {0};
    for (size_t i = 0; i < piece->length; i++) {
        if (piece->text[i] == ' ') gm_string_append(&text, RT_BLANK, RT_BLANK_BYTES);
        else gm_string_append(&text, piece->text + i, 1);
    }
    trie_add(tokenizer, text.data, text.length, id);
    gm_string_free(&text);
}

/* A piece that is not UTF-8 can match no text: it would end inside a character. */
static bool is_cut(const rt_piece *piece) {
    for (uint32_t at = 0; at < piece->length;) {
        int size = gm_utf8_scan(piece->text + at, piece->length - at);
        if (size < 1) return false;
        at += (uint32_t)size;
    }
    return piece->length &&
           (piece->type == RT_PIECE_USER || piece->type == RT_PIECE_CONTROL || piece->type == RT_PIECE_UNKNOWN);
}

static void build_trie(rt_tokenizer *tokenizer) {
    const rt_vocab *vocab = tokenizer->vocab;
    trie_node(tokenizer, 0); /* the unused node 0 */
    for (size_t id = 0; id < vocab->count && !vocab->json_rules; id++) {
        const rt_piece *piece = &vocab->pieces[id];
        if (piece->type == RT_PIECE_USER && memchr(piece->text, ' ', piece->length)) tokenizer->match_escaped = true;
    }
    for (size_t id = 0; id < vocab->count; id++) {
        const rt_piece *piece = &vocab->pieces[id];
        if (!is_cut(piece)) continue;
        if (tokenizer->match_escaped || piece->match & RT_MATCH_ESCAPED)
            trie_add_escaped(tokenizer, piece, (int32_t)id);
        else trie_add(tokenizer, piece->text, piece->length, (int32_t)id);
    }
}

/* ---- adjacency and bytes ---- */

static void build_adjacent(rt_tokenizer *tokenizer) {
    const rt_vocab *vocab = tokenizer->vocab;
    tokenizer->adjacent = allocate(RT_ADJACENT_BITS / 64, sizeof(uint64_t));
    for (size_t id = 0; id < vocab->count; id++) {
        const rt_piece *piece = &vocab->pieces[id];
        if (!vocab->merges && !rt_mergeable(vocab, piece)) continue;
        uint32_t before = 0;
        for (uint32_t at = 0; at < piece->length;) {
            int size = gm_utf8_scan(piece->text + at, piece->length - at);
            if (size < 1) size = 1;
            uint32_t character = rt_utf8_pack(piece->text + at, size);
            uint32_t bit = rt_adjacent_bit(before, character);
            if (at) tokenizer->adjacent[bit / 64] |= (uint64_t)1 << bit % 64;
            before = character;
            at += (uint32_t)size;
        }
    }
}

static gm_status build_bytes(rt_tokenizer *tokenizer, gm_diag *diag) {
    const rt_vocab *vocab = tokenizer->vocab;
    memset(tokenizer->byte_ids, -1, sizeof tokenizer->byte_ids);
    for (size_t id = 0; id < vocab->count; id++) {
        const rt_piece *piece = &vocab->pieces[id];
        if (piece->type != RT_PIECE_BYTE) continue;
        int value = rt_piece_byte(piece);
        if (value < 0) return gm_fail(diag, GM_FORMAT, "tokenizer: byte piece %zu: expected the form <0xXX>", id);
        if (tokenizer->byte_ids[value] < 0) tokenizer->byte_ids[value] = (int32_t)id;
    }
    bool has_unk = vocab->unk >= 0 && (size_t)vocab->unk < vocab->count;
    for (int value = 0; value < 256; value++) {
        if (tokenizer->byte_ids[value] >= 0) continue;
        if (!has_unk)
            return gm_fail(diag, GM_FORMAT, "tokenizer: expected a piece <0x%02X> or an unknown piece", value);
        tokenizer->byte_ids[value] = vocab->unk;
    }
    return GM_OK;
}

/* ---- the whole ---- */

static gm_status tokenizer_build(rt_tokenizer *tokenizer, gm_diag *diag) {
    GM_TRY(build_bytes(tokenizer, diag));
    build_pieces(tokenizer);
    GM_TRY(build_merges(tokenizer, diag));
    build_trie(tokenizer);
    build_adjacent(tokenizer);
    return GM_OK;
}

gm_status rt_tokenizer_new(const rt_vocab *vocab, gm_diag *diag, rt_tokenizer **out) {
    *out = NULL;
    if (vocab->count == 0 || vocab->count > INT32_MAX || vocab->merge_count > UINT32_MAX)
        return gm_fail(diag, GM_FORMAT, "tokenizer: %zu pieces and %zu merges, expected 1 to 2^31-1", vocab->count,
                       vocab->merge_count);
    rt_tokenizer *tokenizer = allocate(1, sizeof *tokenizer);
    tokenizer->vocab = vocab;
    gm_status status = tokenizer_build(tokenizer, diag);
    if (status != GM_OK) {
        rt_tokenizer_free(tokenizer);
        return status;
    }
    *out = tokenizer;
    return GM_OK;
}

void rt_tokenizer_free(rt_tokenizer *tokenizer) {
    if (tokenizer && !tokenizer->borrowed) {
        free(tokenizer->pieces);
        free(tokenizer->merges);
        free(tokenizer->trie);
        free(tokenizer->adjacent);
    }
    free(tokenizer);
}

/* ---- id lists ---- */

void rt_ids_push(rt_ids *ids, int32_t id) {
    if (ids->count == ids->capacity) {
        ids->capacity = ids->capacity ? 2 * ids->capacity : 64;
        ids->data = realloc(ids->data, ids->capacity * sizeof *ids->data);
        if (!ids->data) gm_abort(__FILE__, __LINE__, "out of memory");
    }
    ids->data[ids->count++] = id;
}

void rt_ids_free(rt_ids *ids) {
    free(ids->data);
    *ids = (rt_ids){0};
}
