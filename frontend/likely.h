/* Log probabilities of tokens, and of the likeliest tokens in their places. */
#ifndef GM_FRONTEND_LIKELY_H
#define GM_FRONTEND_LIKELY_H

#include "runtime/base.h"

enum { FE_LIKELY_MOST = 20 };

typedef struct fe_likely {
    int32_t id;
    double logprob; /* ln p under softmax(logits); NAN: nothing stands before the token */
} fe_likely;

/* Of `count` tokens in order: each with the `top` likeliest ids in its place behind it, the likeliest first, the lower
 * id on ties. */
typedef struct fe_likelies {
    int top; /* 0 … FE_LIKELY_MOST */
    fe_likely *data;
    size_t count, capacity;
} fe_likelies;

/* The token's entry; its likeliest are those at [1, top]. */
const fe_likely *fe_likelies_at(const fe_likelies *list, size_t token);
/* Room for `count` more tokens, of which nothing is known: the first new number. */
size_t fe_likelies_grow(fe_likelies *list, size_t count);
/* What is known of a token with id `id` from the logits[vocab] that it follows. Those of other tokens can be set at the
 * same time. */
void fe_likelies_set(fe_likelies *list, size_t token, const float *logits, int64_t vocab, int32_t id);
/* The first token of a sequence. */
void fe_likelies_set_first(fe_likelies *list, size_t token, int32_t id);
void fe_likelies_free(fe_likelies *list);

#endif
