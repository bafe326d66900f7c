/* Perplexity of a token sequence, and how far one plan's distribution is from another's. */
#ifndef GM_FRONTEND_PERPLEXITY_H
#define GM_FRONTEND_PERPLEXITY_H

#include "runtime/session.h"

/* -ln p(target) under softmax(logits). */
double fe_row_nll(const float *logits, int64_t vocab, int32_t target);

typedef struct fe_divergence {
    double kl;     /* KL(base || plan) in nats, never below 0 */
    bool same_top; /* both have their largest logit at the same id, the lowest on ties */
} fe_divergence;
fe_divergence fe_row_divergence(const float *base, const float *plan, int64_t vocab);

/* The q-quantile with linear interpolation between neighbours; sorts values. NAN when there are
 * none. */
double fe_quantile(double *values, size_t count, double q);

typedef struct fe_perplexity {
    int64_t tokens;                       /* predicted tokens */
    double nll;                           /* mean of -ln p */
    double ppl;                           /* exp(nll) */
    double kl_mean, kl_p99, kl_max, top1; /* only with a base; top1: share of positions with same_top */
} fe_perplexity;

/* Cut ids[0..count) into chunks of `chunk` tokens (a last partial one is left out), put bos (>= 0)
 * in place of each chunk's first token, and score every position that has a successor in its chunk.
 * base: NULL, or a session over the same vocabulary that the same tokens go through. GM_INVALID
 * when there is not one whole chunk. */
gm_status fe_perplexity_run(rt_session *session, rt_session *base, const int32_t *ids, int64_t count, int64_t chunk,
                            int32_t bos, gm_diag *diag, fe_perplexity *out);

#endif
