/* A session runs one compiled program on one sequence: it owns the KV cache, the activations and the thread team. */
#ifndef GM_RUNTIME_SESSION_H
#define GM_RUNTIME_SESSION_H

#include "runtime/base.h"

typedef struct rt_session rt_session;
struct rt_program;
struct rt_source;

/* A session with an empty sequence. Copies *program; borrows what it points to. threads 0: the default. GM_NOMEM when
 * the cache, the activations or the packed weights do not fit. */
gm_status rt_session_open(const struct rt_program *program, int threads, gm_diag *diag, rt_session **out);

/* Other sources than those that it was opened with, borrowed, when weights were derived since. */
void rt_session_rest(rt_session *session, const struct rt_source *sources, int count);

/* Bytes that a session takes at once whatever it is used for, its caches, activations and packed weights left out. */
int64_t rt_session_fixed_bytes(const struct rt_program *program, int threads);

typedef struct rt_sampling {
    float temperature; /* 0: greedy */
    int32_t top_k;     /* 0: all */
    float top_p, min_p;
    float repeat_penalty; /* 1: none */
    int32_t repeat_last_n;
    uint64_t seed;
} rt_sampling;
/* May choices from `vocab` tokens read screens of the weights (runtime/screen.h), where the program has them? */
bool rt_sampling_screens(const rt_sampling *sampling, int64_t vocab);

typedef enum rt_stop { RT_STOP_LENGTH, RT_STOP_EOS, RT_STOP_HOST } rt_stop;

/* Called on the calling thread for each token as it comes; return false to stop after it. */
typedef bool (*rt_token_fn)(void *user, int32_t token);

/* Tokens in the cache so far, and the largest number it can hold. */
int64_t rt_session_length(const rt_session *session);
int64_t rt_session_context(const rt_session *session);
int64_t rt_session_vocab(const rt_session *session);
/* Forget the sequence (keeps memory). */
void rt_session_reset(rt_session *session);

/* Let the sequence end after n tokens: fewer than it has, or as many as it has had since it was last reset, when the
 * caches still hold what the latest call that came to each place left there. The next generate runs the last token once
 * more, first. GM_INVALID: it never had so many; GM_UNSUPPORTED: caches that forget old tokens. */
gm_status rt_session_seek(rt_session *session, int64_t n, gm_diag *diag);
/* Can it seek? */
bool rt_session_seeks(const rt_session *session);

/* Append ids[0..n) to the sequence. GM_INVALID: an id outside the vocabulary, more tokens than the context holds, n =
 * 0. GM_FORMAT: the activations are not finite. */
gm_status rt_session_prefill(rt_session *session, const int32_t *ids, int64_t n, gm_diag *diag);

/* Generate up to max tokens after a prefill (or an earlier generate). stops: ids that end generation; the stop id
 * itself is neither counted in *out_count nor passed to on_token. out must hold max ids. GM_FORMAT: the activations are
 * not finite; tokens that were passed on before mean nothing then. */
gm_status rt_session_generate(rt_session *session, const rt_sampling *sampling, const int32_t *stops, int stop_count,
                              int64_t max, rt_token_fn on_token, void *user, int32_t *out, int64_t *out_count,
                              rt_stop *out_stop, gm_diag *diag);

/* Append ids and give the logits after each of them: [n, vocab] into `logits`, piece by piece: on_logits is called with
 * the rows of each piece, [rows, vocab], which it may read until it returns; false: no more. GM_FORMAT: activations or
 * logits are not finite. */
typedef bool (*rt_logits_fn)(void *user, int64_t first, int64_t rows, const float *logits);
gm_status rt_session_score(rt_session *session, const int32_t *ids, int64_t n, rt_logits_fn on_logits, void *user,
                           gm_diag *diag);

/* Where code that was compiled for a profile leaves its events from now on, NULL: nowhere. Borrowed. It must have room
 * for the session's threads. */
struct rt_profile;
void rt_session_profile(rt_session *session, struct rt_profile *profile);
int rt_session_threads(const rt_session *session);

void rt_session_close(rt_session *session);

#endif
