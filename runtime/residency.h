/* Which pages of mapped weights stay resident. Prefill ("prompts", in chunks) and decoding ("single tokens") read
 * different tensors, and both together are more than a session may hold: so before one begins, pages that only the
 * other needs are given back (rt_release_pages). They come from the page cache again when they are read. */
#ifndef GM_RUNTIME_RESIDENCY_H
#define GM_RUNTIME_RESIDENCY_H

#include "runtime/base.h"

#include <stdbool.h>

/* When a mapped tensor is not needed, so that its pages can be given back. */
typedef enum rt_evict {
    /* never needed: what was derived from it is read instead. Some of its pages become resident with their
     * neighbours */
    RT_EVICT_ALWAYS,
    RT_EVICT_IN_DECODE, /* not in decoding: kept panels, and weights of which decoding reads the interleaved copy */
    /* not in prefill, if there is no room: a weight with a screen, of which decoding reads single rows that the screen
     * selects (and a prompt, where the embedding is tied to the head, the rows of its tokens) */
    RT_EVICT_ROWS_IN_PREFILL,
    RT_EVICT_IN_PREFILL /* not in prefill: screens and, if prefill reads kept panels, the weights that decoding reads */
} rt_evict;
typedef struct rt_source {
    const void *from, *to;
    rt_evict evict;
} rt_source;

/* A prompt of at least this many tokens is long: before it, the pages of RT_EVICT_IN_PREFILL are given back, and before
 * the decoding that follows it, those of its activations. */
enum { RT_LONG_PROMPT = 256 };
/* Pages that only prefill needs are given back before at least this many tokens are generated. */
enum { RT_LONG_DECODE = 32 };

typedef struct rt_residency {
    const rt_source *sources; /* borrowed */
    int count;
    /* what has made pages resident that were not given back since: decoding, a reading of the whole head, prefill */
    bool decode_resident, head_resident, prefill_resident;
    /* RT_EVICT_ROWS_IN_PREFILL stay in prefill: giving back RT_EVICT_IN_PREFILL makes all the room that it needs */
    bool keeps_rows;
    /* prefill needs more room than RT_EVICT_ROWS_IN_PREFILL leave: pages are given back before every prompt and before
     * any tokens, however few they are */
    bool trades_all;
} rt_residency;

/* Sets the sources, which are borrowed. activations: bytes that prefill writes besides. What is known to be resident
 * stays known. */
void rt_residency_set(rt_residency *r, const rt_source *sources, int count, size_t activations);
/* To be called before the prefill of n tokens in chunks: gives back pages that decoding has made resident and prefill
 * does not need, unless there is room for both. */
void rt_residency_begin_prefill(rt_residency *r, int64_t n);
/* To be called between calls of @prefill: gives back the pages around the rows of the embedding, of which a long prompt
 * would make most resident. */
void rt_residency_within_prefill(rt_residency *r);
/* To be called before decoding: gives back what prefill has read and decoding does not need, if `many` tokens are to
 * come (RT_LONG_DECODE), or with trades_all. */
void rt_residency_begin_decode(rt_residency *r, bool many);
/* Notes that the whole head has been read: its pages are resident. */
void rt_residency_note_head(rt_residency *r);
/* Notes that scoring has read everything. */
void rt_residency_note_scoring(rt_residency *r);

#endif
