/* Which pages of mapped weights stay resident: prompts and single tokens read different ones, and both together are
 * more than a session may hold. */
#ifndef GM_RUNTIME_RESIDENCY_H
#define GM_RUNTIME_RESIDENCY_H

#include "runtime/base.h"

#include <stdbool.h>

/* What of mapped files is not needed all the time, so that its pages can be given back. */
typedef enum rt_rest {
    /* not read, since what was derived from it is: but the system maps what lies beside pages that are */
    RT_RESTS_ALWAYS,
    RT_RESTS_PREDICTING, /* while tokens are generated: kept panels, and weights of which others are read instead */
    /* while prompts are read, if there is no room beside them; in between, single rows of it are read: a screen says
     * which */
    RT_RESTS_ROWS,
    RT_RESTS_PROMPT /* while prompts are read: screens, and beside kept panels what tokens are generated from */
} rt_rest;
typedef struct rt_source {
    const void *from, *to;
    rt_rest rest;
} rt_source;

/* A prompt of this many tokens is long: it takes the room of all that single tokens have read, and its activations are
 * let go of before these. */
enum { RT_RELEASE_TOKENS = 256 };
/* The pages of stored weights that only prompts need are given back before so many tokens are generated. */
enum { RT_RELEASE_PREDICTED = 32 };

typedef struct rt_residency {
    const rt_source *sources; /* borrowed */
    int count;
    /* single tokens, all of the head, or prompts have read sources: their pages are resident */
    bool has_predicted, has_read_head, has_read_chunks;
    bool keeps_rows; /* while prompts are read: without them they need no more than what else is given back */
    /* prompts need more than the rows leave: what else rests is given back for any of them, and theirs for any
     * tokens */
    bool trades_all;
} rt_residency;

/* activations: bytes that prompts write besides. What is resident stays known. */
void rt_residency_set(rt_residency *r, const rt_source *sources, int count, size_t activations);
/* Chunks of a prompt of n tokens are about to be read: what single tokens have read is not to be resident beside all
 * that these read. */
void rt_residency_begin_prompt(rt_residency *r, int64_t n);
/* Between two chunks: pages around rows of the embedding, of which a long prompt would leave most resident. */
void rt_residency_within_prompt(rt_residency *r);
/* Single tokens, `many` of them or few, are about to be computed: what chunks have read is not to be resident beside
 * what these do. */
void rt_residency_begin_tokens(rt_residency *r, bool many);
/* All of the head has been read. */
void rt_residency_note_head(rt_residency *r);
/* All of everything has been read. */
void rt_residency_note_scoring(rt_residency *r);

#endif
