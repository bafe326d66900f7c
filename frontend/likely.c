/* Log probabilities: see likely.h. Sums are in double, as in perplexity.c. */
#include "frontend/likely.h"
#include "frontend/perplexity.h"

#include <math.h>
#include <stdlib.h>

static size_t stride_of(const fe_likelies *list) {
    return 1 + (size_t)list->top;
}

const fe_likely *fe_likelies_at(const fe_likelies *list, size_t token) {
    return list->data + token * stride_of(list);
}

size_t fe_likelies_grow(fe_likelies *list, size_t count) {
    size_t first = list->count;
    list->count += count;
    if (list->count <= list->capacity) return first;
    list->capacity = 2 * list->count;
    list->data = realloc(list->data, list->capacity * stride_of(list) * sizeof *list->data);
    GM_ASSERT(list->data);
    return first;
}

/* Takes the id in where it is among the `top` largest logits so far, `found` of them; how many there are then. */
static int take(const float *logits, int32_t id, fe_likely *largest, int top, int found) {
    int at = found;
    while (at > 0 && logits[id] > logits[largest[at - 1].id]) at--;
    if (at == top) return found;
    found += found < top;
    for (int i = found - 1; i > at; i--) largest[i] = largest[i - 1];
    largest[at].id = id;
    return found;
}

void fe_likelies_set(fe_likelies *list, size_t token, const float *logits, int64_t vocab, int32_t id) {
    fe_likely *entry = list->data + token * stride_of(list);
    double log_sum = fe_row_nll(logits, vocab, id) + (double)logits[id];
    int found = 0;
    entry->id = id;
    for (int32_t i = 0; i < vocab; i++) found = take(logits, i, entry + 1, list->top, found);
    for (int i = 0; i <= list->top; i++) entry[i].logprob = (double)logits[entry[i].id] - log_sum;
}

void fe_likelies_set_first(fe_likelies *list, size_t token, int32_t id) {
    fe_likely *entry = list->data + token * stride_of(list);
    for (int i = 0; i <= list->top; i++) entry[i] = (fe_likely){id, NAN};
}

void fe_likelies_free(fe_likelies *list) {
    free(list->data);
    *list = (fe_likelies){0};
}
