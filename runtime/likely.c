/* Likely ids: marks blocks of the vocabulary by the latest tokens; the largest logit among them. */
#include "runtime/likely.h"

#include <stdbool.h>
#include <string.h>

enum { BLOCK = RT_LIKELY_BLOCK };

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t first_token(int32_t position) {
    return position > RT_LIKELY_TOKENS ? position - RT_LIKELY_TOKENS : 0;
}

int64_t rt_likely_blocks(const int32_t *tokens, int32_t position, int64_t ids, int64_t usual, int32_t *blocks) {
    int64_t all = (ids + BLOCK - 1) / BLOCK, always = least(usual / BLOCK, all), count = 0;
    memset(blocks, 0, sizeof *blocks * (size_t)all); /* until they are counted, marks */
    for (int64_t b = 0; b < always; b++) blocks[b] = 1;
    for (int64_t i = first_token(position); i < position; i++)
        if (tokens[i] >= 0 && tokens[i] < ids) blocks[tokens[i] / BLOCK] = 1;
    for (int64_t b = 0; b < all; b++)
        if (blocks[b]) blocks[count++] = (int32_t)b; /* count <= b */
    return count;
}

static bool is_better(const float *logits, int64_t id, int64_t best) {
    float logit = logits[id];
    if (best < 0 || logit != logit) return logit == logit;
    return logit > logits[best] || (logit == logits[best] && id < best);
}

static int64_t best_from(const float *logits, int64_t first, int64_t end, int64_t best) {
    for (int64_t i = first; i < end; i++) best = is_better(logits, i, best) ? i : best;
    return best;
}

int32_t rt_guess(const float *logits, int64_t ids, const int32_t *tokens, int32_t position, int64_t usual) {
    int64_t best = best_from(logits, 0, least(usual, ids), -1);
    for (int64_t i = first_token(position); i < position; i++)
        if (tokens[i] >= 0 && tokens[i] < ids)
            best = best_from(logits, tokens[i] / BLOCK * BLOCK, least(tokens[i] / BLOCK * BLOCK + BLOCK, ids), best);
    return best < 0 ? 0 : (int32_t)best;
}
