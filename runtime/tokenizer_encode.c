/* Tokenizer: text -> ids.
 *
 * The text is made valid UTF-8, pieces that match as a whole are cut out, and each gap between them
 * is split where no piece holds two neighbouring characters together; within such a segment pairs
 * of symbols merge in order of priority, kept in a heap.
 */
#include "runtime/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/tokenizer_impl.h"

typedef struct symbol { /* a stretch of the segment; length 0: merged into its left neighbour */
    uint32_t start, length;
    int32_t previous, next; /* -1: none */
    int32_t id;             /* UNRESOLVED: a single character not looked up yet */
} symbol;

typedef struct candidate { /* a pair that may merge; the smallest key goes first */
    uint64_t key;          /* priority in the high half, position in the low one */
    uint32_t length;       /* bytes of both symbols when it was found: differs once it is stale */
    int32_t result;
} candidate;

enum { UNRESOLVED = -2 };

typedef struct encoder {
    const rt_tokenizer *tokenizer;
    rt_ids *out;
    char *text;    /* the whole text as valid UTF-8 */
    char *escaped; /* one gap after space -> U+2581 */
    symbol *symbols;
    size_t symbol_count, symbol_capacity;
    candidate *heap;
    size_t heap_count, heap_capacity;
    uint32_t *unused_split; /* by id: bytes of the left half an UNUSED piece was last merged from */
} encoder;

static void *grow(void *array, size_t *capacity, size_t element) {
    *capacity = *capacity ? 2 * *capacity : 256;
    array = realloc(array, *capacity * element);
    if (!array) gm_abort(__FILE__, __LINE__, "out of memory");
    return array;
}

/* ---- the heap ---- */

static void heap_push(encoder *work, candidate item) {
    if (work->heap_count == work->heap_capacity)
        work->heap = grow(work->heap, &work->heap_capacity, sizeof *work->heap);
    candidate *heap = work->heap;
    size_t at = work->heap_count++;
    for (; at && item.key < heap[(at - 1) / 2].key; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = item;
}

static candidate heap_pop(encoder *work) {
    candidate *heap = work->heap, top = heap[0], last = heap[--work->heap_count];
    size_t at = 0, count = work->heap_count;
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && heap[child + 1].key < heap[child].key) child++;
        if (last.key <= heap[child].key) break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return top;
}

/* ---- merging one segment ---- */

/* Order-preserving map of scores to integers, reversed: a higher score is a smaller key. */
static uint32_t score_key(float score) {
    uint32_t bits;
    score += 0.0f; /* -0 and +0 are one score */
    memcpy(&bits, &score, sizeof bits);
    return ~(bits & 0x80000000u ? ~bits : bits | 0x80000000u);
}

/* What the pair merges to: its priority in *priority; -1: nothing. */
static int32_t pair_result(encoder *work, const char *text, const symbol *left, const symbol *right,
                           uint32_t *priority) {
    const rt_tokenizer *tokenizer = work->tokenizer;
    if (tokenizer->merges) {
        if (left->id < 0 || right->id < 0) return -1;
        const rt_merge_slot *merge = rt_merge_find(tokenizer, left->id, right->id);
        if (!merge) return -1;
        *priority = merge->rank;
        return merge->result;
    }
    int32_t id = rt_piece_find(tokenizer, text + left->start, left->length + right->length);
    if (id < 0) return -1;
    const rt_piece *piece = &tokenizer->vocab->pieces[id];
    if (!rt_mergeable(tokenizer->vocab, piece)) return -1;
    if (piece->type == RT_PIECE_UNUSED) work->unused_split[id] = left->length;
    *priority = score_key(piece->score);
    return id;
}

static void consider(encoder *work, const char *text, int32_t left) {
    if (left < 0 || work->symbols[left].next < 0) return;
    const symbol *a = &work->symbols[left], *b = &work->symbols[a->next];
    uint32_t priority = 0;
    int32_t result = pair_result(work, text, a, b, &priority);
    if (result < 0) return;
    heap_push(work, (candidate){.key = (uint64_t)priority << 32 | (uint32_t)left,
                                .length = a->length + b->length,
                                .result = result});
}

/* Still the same pair? Symbols only ever grow, so the same length means that neither has changed.
 */
static bool is_current(const encoder *work, const candidate *item, int32_t left) {
    const symbol *a = &work->symbols[left];
    return a->length && a->next >= 0 && a->length + work->symbols[a->next].length == item->length;
}

static void merge_all(encoder *work, const char *text) {
    work->heap_count = 0;
    for (size_t i = 0; i + 1 < work->symbol_count; i++) consider(work, text, (int32_t)i);
    while (work->heap_count) {
        candidate item = heap_pop(work);
        int32_t left = (int32_t)(uint32_t)item.key;
        if (!is_current(work, &item, left)) continue;
        symbol *a = &work->symbols[left], *b = &work->symbols[a->next];
        a->length = item.length;
        a->id = item.result;
        a->next = b->next;
        b->length = 0;
        if (a->next >= 0) work->symbols[a->next].previous = left;
        consider(work, text, a->previous);
        consider(work, text, left);
    }
}

/* ---- symbols to ids ---- */

static int32_t text_piece(const rt_tokenizer *tokenizer, const char *text, uint32_t length) {
    int32_t id = rt_piece_find(tokenizer, text, length);
    bool usable = id >= 0 && rt_mergeable(tokenizer->vocab, &tokenizer->vocab->pieces[id]);
    return usable ? id : -1;
}

/* One symbol; an UNUSED piece is taken apart into the halves it came from. */
static void emit(encoder *work, const char *text, uint32_t length, int32_t id) {
    const rt_tokenizer *tokenizer = work->tokenizer;
    if (id == UNRESOLVED) id = text_piece(tokenizer, text, length);
    if (id < 0) {
        for (uint32_t i = 0; i < length; i++) rt_ids_push(work->out, tokenizer->byte_ids[(uint8_t)text[i]]);
        return;
    }
    bool unused = tokenizer->vocab->pieces[id].type == RT_PIECE_UNUSED;
    uint32_t split = unused && work->unused_split ? work->unused_split[id] : 0;
    if (split) {
        emit(work, text, split, UNRESOLVED);
        emit(work, text + split, length - split, UNRESOLVED);
    } else {
        rt_ids_push(work->out, id);
    }
}

static void encode_segment(encoder *work, const char *text) {
    if (work->symbol_count > 1) {
        work->symbols[work->symbol_count - 1].next = -1;
        merge_all(work, text);
    }
    for (size_t i = 0; i < work->symbol_count; i++) {
        const symbol *item = &work->symbols[i];
        if (item->length) emit(work, text + item->start, item->length, item->id);
    }
    work->symbol_count = 0;
}

static void add_symbol(encoder *work, const char *text, uint32_t start, uint32_t length) {
    if (work->symbol_count == work->symbol_capacity)
        work->symbols = grow(work->symbols, &work->symbol_capacity, sizeof *work->symbols);
    int32_t at = (int32_t)work->symbol_count++;
    bool by_id = work->tokenizer->merges != NULL;
    work->symbols[at] = (symbol){
        .start = start,
        .length = length,
        .previous = at - 1,
        .next = at + 1,
        .id = by_id ? text_piece(work->tokenizer, text + start, length) : UNRESOLVED,
    };
}

/* `text` is valid UTF-8 with its spaces escaped. */
static void encode_escaped(encoder *work, const char *text, size_t length) {
    const uint64_t *adjacent = work->tokenizer->adjacent;
    uint32_t before = 0;
    for (size_t at = 0; at < length;) {
        int size = gm_utf8_scan(text + at, length - at);
        GM_ASSERT(size > 0);
        uint32_t character = rt_utf8_pack(text + at, size);
        uint32_t bit = rt_adjacent_bit(before, character);
        if (work->symbol_count && !(adjacent[bit / 64] >> bit % 64 & 1)) encode_segment(work, text);
        add_symbol(work, text, (uint32_t)at, (uint32_t)size);
        before = character;
        at += (size_t)size;
    }
    encode_segment(work, text);
}

/* ---- the text around the segments ---- */

/* Copies valid characters, U+FFFD for each byte that is part of none, U+2581 for spaces if asked.
 */
static size_t clean(const char *text, size_t length, bool escape, char *out) {
    size_t used = 0;
    for (size_t at = 0; at < length;) {
        int size = gm_utf8_scan(text + at, length - at);
        const char *from = size < 1 ? RT_REPLACEMENT : escape && text[at] == ' ' ? RT_BLANK : text + at;
        size_t bytes = from == text + at ? (size_t)size : RT_REPLACEMENT_BYTES;
        for (size_t i = 0; i < bytes; i++) out[used + i] = from[i];
        used += bytes;
        at += size < 1 ? 1 : (size_t)size;
    }
    return used;
}

/* A piece cut out of a text: where it was found, and what it takes up with its blanks. */
typedef struct cut {
    int32_t id;
    size_t start, end; /* of the piece itself */
    size_t from, to;   /* with the blanks around */
} cut;

/* The longest piece starting at text that may be cut out here; 0: none, else its bytes. */
static size_t match_piece(const rt_tokenizer *tokenizer, int second, const char *text, size_t length,
                          bool parse_control, int32_t *id) {
    const rt_trie_node *trie = tokenizer->trie;
    uint32_t node = tokenizer->trie_root[second][(uint8_t)text[0]];
    size_t best = 0;
    for (size_t at = 1; node; at++) {
        int32_t found = trie[node].id;
        if (found >= 0 && (parse_control || tokenizer->vocab->pieces[found].type == RT_PIECE_USER))
            best = at, *id = found;
        if (at == length) break;
        node = trie[node].child;
        while (node && trie[node].byte != (uint8_t)text[at]) node = trie[node].sibling;
    }
    return best;
}

/* Whether the piece may stand where it was found; its blanks, those before it not below `gap`. */
static bool settle_cut(const char *text, size_t length, size_t gap, int match, cut *found) {
    found->from = found->start, found->to = found->end;
    if (match & RT_MATCH_WORD &&
        (rt_word_at_end(text, found->start) || rt_word_at_start(text + found->end, length - found->end)))
        return false;
    size_t blank;
    if (match & RT_MATCH_LEFT)
        while ((blank = rt_blank_at_end(text, found->from)) > 0 && found->from - blank >= gap) found->from -= blank;
    if (match & RT_MATCH_RIGHT)
        while ((blank = rt_blank_at_start(text + found->to, length - found->to)) > 0) found->to += blank;
    return true;
}

static void encode_cut(encoder *work, int second, const char *text, size_t length, bool parse_control);

static void encode_gap(encoder *work, int second, const char *text, size_t length) {
    if (length == 0) return;
    if (second || work->tokenizer->match_escaped) {
        encode_escaped(work, text, length);
        return;
    }
    size_t escaped_length = clean(text, length, true, work->escaped);
    if (work->tokenizer->has_second) encode_cut(work, 1, work->escaped, escaped_length, true);
    else encode_escaped(work, work->escaped, escaped_length);
}

/* Cut pieces out, leftmost and longest first. As in HF the search goes on behind the piece itself, so
 * that a piece of blanks may be found among those that the one before took along. */
static void encode_cut(encoder *work, int second, const char *text, size_t length, bool parse_control) {
    const rt_tokenizer *tokenizer = work->tokenizer;
    size_t gap = 0, at = 0;
    while (at < length) {
        cut found = {.id = -1, .start = at};
        size_t size = match_piece(tokenizer, second, text + at, length - at, parse_control, &found.id);
        if (size == 0) {
            at += (size_t)gm_utf8_scan(text + at, length - at);
            continue;
        }
        found.end = at += size;
        int match = tokenizer->vocab->pieces[found.id].match;
        if (!settle_cut(text, length, gap, match, &found)) continue;
        /* as in HF nothing is left of it, a blank that the piece before took along */
        if (match & RT_MATCH_LEFT && found.to <= gap) continue;
        if (found.from > gap) encode_gap(work, second, text + gap, found.from - gap);
        rt_ids_push(work->out, found.id);
        gap = found.to;
    }
    encode_gap(work, second, text + gap, length - gap);
}

static void *reserve(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory) gm_abort(__FILE__, __LINE__, "out of memory");
    return memory;
}

void rt_encode(const rt_tokenizer *tokenizer, const char *text, size_t length, bool parse_control, rt_ids *out) {
    if (length == 0) return;
    GM_ASSERT(length < RT_MAX_TEXT_BYTES);
    size_t most = length * RT_BLANK_BYTES; /* each byte may become 3 */
    encoder work = {.tokenizer = tokenizer, .out = out, .text = reserve(most)};
    size_t used = clean(text, length, tokenizer->match_escaped, work.text);
    if (!tokenizer->match_escaped) work.escaped = reserve(most);
    if (tokenizer->has_unused) {
        work.unused_split = calloc(tokenizer->vocab->count, sizeof *work.unused_split);
        if (!work.unused_split) gm_abort(__FILE__, __LINE__, "out of memory");
    }
    encode_cut(&work, 0, work.text, used, parse_control || tokenizer->vocab->json_rules);
    free(work.text);
    free(work.escaped);
    free(work.symbols);
    free(work.heap);
    free(work.unused_split);
}
