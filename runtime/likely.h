/* Likely ids: those that a guess of the next token may fall on (`guess`, `sample` with `usual` and their screened
 * forms, ir/ops.def). Vocabularies are sorted roughly by how often their pieces occur, and a text repeats itself: the
 * ids below a number that is given, and every block of ids in which one of the latest tokens lies. Of English prose an
 * eleventh of the tokens are neither among the first 16384 ids nor near one of the 256 tokens before, which is a
 * fourteenth of Gemma's vocabulary. */
#ifndef GM_RUNTIME_LIKELY_H
#define GM_RUNTIME_LIKELY_H

#include <stdint.h>

enum {
    RT_LIKELY_BLOCK = 64,   /* ids, from a multiple of as many on */
    RT_LIKELY_TOKENS = 256, /* that are looked back */
};

/* The blocks with likely ids of 0 … ids - 1, in ascending order; returns how many. usual: the ids below it, a multiple
 * of RT_LIKELY_BLOCK, are likely. tokens: those before `position` count, as far as they are ids. blocks: room for every
 * block of the ids, the last of which may be shorter. */
int64_t rt_likely_blocks(const int32_t *tokens, int32_t position, int64_t ids, int64_t usual, int32_t *blocks);

/* The likely id with the largest logit, the lowest on ties; NaN never wins; 0 where none does. */
int32_t rt_guess(const float *logits, int64_t ids, const int32_t *tokens, int32_t position, int64_t usual);

#endif
