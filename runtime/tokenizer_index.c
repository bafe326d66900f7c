/* Tokenizer: its index as bytes, so that a vocabulary which is kept in a file needs no indexing when it is opened.
 *
 * In the machine's byte order: the head below, then the slots of pieces, the slots of merges, the trie, the bits of
 * adjacency.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/tokenizer_impl.h"

typedef struct index_head {
    uint64_t piece_slots, merge_slots, trie_nodes;
    uint64_t has_second, match_escaped, has_unused; /* 0 or 1 */
    uint32_t trie_root[2][256];
    int32_t byte_ids[256];
} index_head;

static size_t slots(const void *table, size_t mask) {
    return table ? mask + 1 : 0;
}

void rt_tokenizer_write(const rt_tokenizer *t, gm_string *out) {
    index_head head = {.piece_slots = slots(t->pieces, t->piece_mask),
                       .merge_slots = slots(t->merges, t->merge_mask),
                       .trie_nodes = t->trie_count,
                       .has_second = t->has_second,
                       .match_escaped = t->match_escaped,
                       .has_unused = t->has_unused};
    memcpy(head.trie_root, t->trie_root, sizeof head.trie_root);
    memcpy(head.byte_ids, t->byte_ids, sizeof head.byte_ids);
    gm_string_append(out, (const char *)&head, sizeof head);
    gm_string_append(out, (const char *)t->pieces, head.piece_slots * sizeof *t->pieces);
    if (t->merges) gm_string_append(out, (const char *)t->merges, head.merge_slots * sizeof *t->merges);
    gm_string_append(out, (const char *)t->trie, head.trie_nodes * sizeof *t->trie);
    gm_string_append(out, (const char *)t->adjacent, RT_ADJACENT_BITS / 8);
}

/* ---- reading ---- */

/* A power of two; a search ends at a free slot. */
static bool pieces_hold(const rt_tokenizer *t) {
    size_t taken = 0;
    for (size_t i = 0; i < t->vocab->count && !t->has_unused; i++)
        if (t->vocab->pieces[i].type == RT_PIECE_UNUSED) return false;
    for (size_t i = 0; i <= t->piece_mask; i++) {
        if ((t->pieces[i] & t->piece_mask) > t->vocab->count) return false;
        taken += (t->pieces[i] & t->piece_mask) > 0;
    }
    return (t->piece_mask & (t->piece_mask + 1)) == 0 && taken <= t->piece_mask;
}

static bool merges_hold(const rt_tokenizer *t) {
    size_t taken = 0, count = t->vocab->count;
    for (size_t i = 0; t->merges && i <= t->merge_mask; i++) {
        const rt_merge_slot *slot = &t->merges[i];
        if (slot->result < 0) continue;
        if (!rt_is_id(slot->left, count) || !rt_is_id(slot->right, count) || !rt_is_id(slot->result, count))
            return false;
        taken++;
    }
    return !t->merges || ((t->merge_mask & (t->merge_mask + 1)) == 0 && taken <= t->merge_mask);
}

/* Children come after their parent and before their elder siblings, so every walk ends. */
static bool trie_holds(const rt_tokenizer *t) {
    for (int i = 0; i < 2 * 256; i++)
        if (t->trie_root[i / 256][i % 256] >= t->trie_count) return false;
    for (uint32_t i = 0; i < t->trie_count; i++) {
        const rt_trie_node *node = &t->trie[i];
        if (node->child && (node->child <= i || node->child >= t->trie_count)) return false;
        if (node->sibling && node->sibling >= i) return false;
        if (node->id != -1 && !rt_is_id(node->id, t->vocab->count)) return false;
    }
    for (int i = 0; i < 256; i++)
        if (!rt_is_id(t->byte_ids[i], t->vocab->count)) return false;
    return true;
}

/* The tables lie one behind the other in `data`; false when they are not exactly as long. */
static bool find_tables(rt_tokenizer *t, const index_head *head, const uint8_t *data, size_t bytes) {
    size_t most = bytes / sizeof(rt_piece_slot);
    if (!head->piece_slots || head->piece_slots > most || head->piece_slots > UINT32_MAX || head->merge_slots > most ||
        !head->trie_nodes || head->trie_nodes > most)
        return false;
    size_t pieces = head->piece_slots * sizeof(rt_piece_slot), merges = head->merge_slots * sizeof(rt_merge_slot),
           trie = head->trie_nodes * sizeof(rt_trie_node);
    if (bytes - sizeof *head != pieces + merges + trie + RT_ADJACENT_BITS / 8) return false;
    const uint8_t *at = data + sizeof *head;
    t->pieces = (rt_piece_slot *)at, t->piece_mask = (uint32_t)(head->piece_slots - 1); /* only read */
    t->merges = head->merge_slots ? (rt_merge_slot *)(at + pieces) : NULL, t->merge_mask = head->merge_slots - 1;
    t->trie = (rt_trie_node *)(at + pieces + merges), t->trie_count = (uint32_t)head->trie_nodes;
    t->adjacent = (uint64_t *)(at + pieces + merges + trie);
    return true;
}

static bool fill(rt_tokenizer *t, const uint8_t *data, size_t bytes) {
    index_head head;
    if (bytes < sizeof head) return false;
    memcpy(&head, data, sizeof head);
    if (!find_tables(t, &head, data, bytes) || !head.merge_slots != !t->vocab->merges) return false;
    if (head.has_second > 1 || head.match_escaped > 1 || head.has_unused > 1) return false;
    t->has_second = head.has_second, t->match_escaped = head.match_escaped, t->has_unused = head.has_unused;
    memcpy(t->trie_root, head.trie_root, sizeof head.trie_root);
    memcpy(t->byte_ids, head.byte_ids, sizeof head.byte_ids);
    return pieces_hold(t) && merges_hold(t) && trie_holds(t);
}

rt_tokenizer *rt_tokenizer_open(const rt_vocab *vocab, const void *index, size_t bytes) {
    GM_ASSERT((uintptr_t)index % _Alignof(index_head) == 0);
    rt_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    GM_ASSERT(tokenizer);
    *tokenizer = (rt_tokenizer){.vocab = vocab, .borrowed = true};
    if (fill(tokenizer, index, bytes)) return tokenizer;
    rt_tokenizer_free(tokenizer);
    return NULL;
}
