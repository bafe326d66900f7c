/* Perplexity and KL divergence, position by position. The sums are in double; with a base plan both
 * sessions advance in lock-step by pieces, so that only one piece of the base's logits is in
 * memory. */
#include "frontend/perplexity.h"
#include "frontend/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_TOKENS = 64 };

/* ---- one row of logits ---- */

static int64_t top_of(const float *logits, int64_t vocab) {
    int64_t top = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[top]) top = i;
    return top;
}

/* sum of exp(logit - shift) */
static double sum_exp(const float *logits, int64_t vocab, double shift) {
    double sum = 0;
    for (int64_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - shift);
    return sum;
}

double fe_row_nll(const float *logits, int64_t vocab, int32_t target) {
    double top = logits[top_of(logits, vocab)];
    return log(sum_exp(logits, vocab, top)) + top - (double)logits[target];
}

fe_divergence fe_row_divergence(const float *base, const float *plan, int64_t vocab) {
    int64_t base_top = top_of(base, vocab), plan_top = top_of(plan, vocab);
    double base_shift = base[base_top], plan_shift = plan[plan_top];
    double plan_sum = sum_exp(plan, vocab, plan_shift), base_sum = 0, weighted = 0;
    for (int64_t i = 0; i < vocab; i++) {
        double score = (double)base[i] - base_shift, weight = exp(score);
        base_sum += weight;
        weighted += weight * (score - ((double)plan[i] - plan_shift));
    }
    double kl = weighted / base_sum + log(plan_sum) - log(base_sum);
    return (fe_divergence){.kl = kl < 0 ? 0 : kl, .same_top = base_top == plan_top};
}

double fe_quantile(double *values, size_t count, double q) {
    if (count == 0) return NAN;
    fe_sort(values, count);
    double place = q * (double)(count - 1);
    size_t low = (size_t)place;
    size_t high = low + 1 < count ? low + 1 : low;
    return values[low] + (place - (double)low) * (values[high] - values[low]);
}

/* ---- a run ---- */

typedef struct scoring {
    int64_t vocab, chunk;
    int threads;
    const int32_t *ids; /* the chunk, its first token replaced */
    int64_t done;       /* positions of the chunk that went before the current call */
    double *nll;        /* [chunk - 1], of the chunk */
    double *kl;         /* likewise; NULL: no base */
    bool *same_top;
    float *base_rows; /* [PIECE_TOKENS, vocab] */
} scoring;

static bool keep_base(void *user, int64_t first, int64_t rows, const float *logits) {
    scoring *s = user;
    memcpy(s->base_rows + first * s->vocab, logits, sizeof *logits * (size_t)(rows * s->vocab));
    return true;
}

static bool score_rows(void *user, int64_t first, int64_t rows, const float *logits) {
    scoring *s = user;
#pragma omp parallel for schedule(static) num_threads(s->threads)
    for (int64_t row = 0; row < rows; row++) {
        int64_t at = s->done + first + row;
        const float *plan = logits + row * s->vocab;
        if (at + 1 >= s->chunk) continue; /* its successor is in the next chunk */
        s->nll[at] = fe_row_nll(plan, s->vocab, s->ids[at + 1]);
        if (!s->kl) continue;
        fe_divergence d = fe_row_divergence(s->base_rows + (first + row) * s->vocab, plan, s->vocab);
        s->kl[at] = d.kl;
        s->same_top[at] = d.same_top;
    }
    return true;
}

static gm_status score_chunk(scoring *s, rt_session *session, rt_session *base, gm_diag *diag) {
    int64_t piece = base ? PIECE_TOKENS : s->chunk;
    rt_session_reset(session);
    if (base) rt_session_reset(base);
    for (s->done = 0; s->done < s->chunk; s->done += piece) {
        int64_t left = s->chunk - s->done, n = left < piece ? left : piece;
        if (base) GM_TRY(rt_session_score(base, s->ids + s->done, n, keep_base, s, diag));
        GM_TRY(rt_session_score(session, s->ids + s->done, n, score_rows, s, diag));
    }
    return GM_OK;
}

static void summarise(double *nll, double *kl, const bool *same_top, int64_t tokens, fe_perplexity *out) {
    *out = (fe_perplexity){.tokens = tokens};
    double sum = 0, kl_sum = 0, same = 0;
    for (int64_t i = 0; i < tokens; i++) sum += nll[i];
    out->nll = sum / (double)tokens;
    out->ppl = exp(out->nll);
    if (!kl) return;
    for (int64_t i = 0; i < tokens; i++) {
        kl_sum += kl[i];
        same += same_top[i];
    }
    out->kl_mean = kl_sum / (double)tokens;
    out->top1 = same / (double)tokens;
    out->kl_p99 = fe_quantile(kl, (size_t)tokens, 0.99);
    out->kl_max = kl[tokens - 1]; /* sorted by now */
}

static gm_status run_chunks(scoring *s, rt_session *session, rt_session *base, const int32_t *ids, int64_t chunks,
                            int32_t bos, gm_diag *diag) {
    int32_t *piece = malloc(sizeof *piece * (size_t)s->chunk);
    if (!piece) return gm_fail(diag, GM_NOMEM, "out of memory");
    s->ids = piece;
    gm_status status = GM_OK;
    for (int64_t i = 0; i < chunks && status == GM_OK; i++) {
        memcpy(piece, ids + i * s->chunk, sizeof *piece * (size_t)s->chunk);
        if (bos >= 0) piece[0] = bos;
        status = score_chunk(s, session, base, diag);
        s->nll += s->chunk - 1;
        if (s->kl) s->kl += s->chunk - 1, s->same_top += s->chunk - 1;
    }
    free(piece);
    return status;
}

gm_status fe_perplexity_run(rt_session *session, rt_session *base, const int32_t *ids, int64_t count, int64_t chunk,
                            int32_t bos, gm_diag *diag, fe_perplexity *out) {
    int64_t chunks = chunk >= 2 ? count / chunk : 0, vocab = rt_session_vocab(session);
    if (chunks == 0)
        return gm_fail(diag, GM_INVALID,
                       "the text has %lld tokens: expected at least one chunk of %lld (and chunks "
                       "of 2 or more; see -c)",
                       (long long)count, (long long)chunk);
    size_t tokens = (size_t)(chunks * (chunk - 1));
    double *nll = malloc(sizeof *nll * tokens);
    double *kl = base ? malloc(sizeof *kl * tokens) : NULL;
    bool *same_top = base ? malloc(sizeof *same_top * tokens) : NULL;
    float *rows = base ? malloc(sizeof *rows * PIECE_TOKENS * (size_t)vocab) : NULL;
    gm_status status;
    if (!nll || (base && (!kl || !same_top || !rows))) {
        status = gm_fail(diag, GM_NOMEM, "out of memory for %zu scores", tokens);
    } else {
        scoring s = {.vocab = vocab,
                     .chunk = chunk,
                     .threads = rt_session_threads(session),
                     .nll = nll,
                     .kl = kl,
                     .same_top = same_top,
                     .base_rows = rows};
        status = run_chunks(&s, session, base, ids, chunks, bos, diag);
        if (status == GM_OK) summarise(nll, kl, same_top, (int64_t)tokens, out);
    }
    free(nll);
    free(kl);
    free(same_top);
    free(rows);
    return status;
}
