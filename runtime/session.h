/* A session runs one compiled program on one sequence: it owns the KV cache, the activations and the thread team. */
#ifndef GM_RUNTIME_SESSION_H
#define GM_RUNTIME_SESSION_H

#include "runtime/base.h"

typedef struct rt_session rt_session;
struct rt_program;
struct rt_source;

/* A session with an empty sequence. Copies *program; borrows what it points to. threads 0: the default. GM_INVALID:
 * threads out of range; GM_NOMEM: no room for the caches, the activations or the packed weights, or no thread;
 * GM_UNSUPPORTED: oneDNN refuses a product. */
gm_status rt_session_open(const struct rt_program *program, int threads, gm_diag *diag, rt_session **out);

/* Replaces the list of weights whose pages the session gives back (runtime/residency.h), borrowed: to be called when
 * weights have been derived after it was opened. */
void rt_session_set_evictable(rt_session *session, const struct rt_source *sources, int count);

/* Bytes that a session takes at once whatever it is used for, its caches, activations and packed weights left out. */
int64_t rt_session_fixed_bytes(const struct rt_program *program, int threads);

typedef struct rt_sampling {
    float temperature; /* 0: greedy */
    int32_t top_k;     /* 0: all */
    float top_p, min_p;
    float repeat_penalty;                      /* 1: none */
    float frequency_penalty, presence_penalty; /* 0: none; with them the host picks, as for `logits` */
    int32_t repeat_last_n;                     /* latest tokens that penalties see */
    uint64_t seed;
    const struct rt_bias *biases; /* [bias_count] (runtime/sampler.h), borrowed; with them the host picks too */
    int64_t bias_count;
    bool logits; /* hand them on with each token: the same tokens, slower, by a call of the program for each */
} rt_sampling;
/* May choices by it from `vocab` tokens read screens of the weights (runtime/screen.h), where the program has them? */
bool rt_sampling_screens(const rt_sampling *sampling, int64_t vocab);

typedef enum rt_stop { RT_STOP_LENGTH, RT_STOP_EOS, RT_STOP_HOST } rt_stop;

/* Called on the calling thread for each token as it comes; return false to stop after it. logits[vocab]: those that it
 * was chosen from, before what the sampling makes of them, to be read until this returns; NULL unless the sampling asks
 * for them. */
typedef bool (*rt_token_fn)(void *user, int32_t token, const float *logits);

/* Tokens in the cache so far, and the largest number it can hold. */
int64_t rt_session_length(const rt_session *session);
int64_t rt_session_context(const rt_session *session);
int64_t rt_session_vocab(const rt_session *session);
/* Forget the sequence (keeps memory). */
void rt_session_reset(rt_session *session);

/* Set the length of the sequence to n tokens: fewer than it has, or again up to the most that it has had since the last
 * reset. Tokens and caches then hold, at each position, what was written there last. The next generate first runs the
 * last token once more. GM_INVALID: it never had n tokens; GM_UNSUPPORTED: a cache is a ring (kv_ring) and has lost old
 * tokens. */
gm_status rt_session_seek(rt_session *session, int64_t n, gm_diag *diag);
/* Does the session support rt_session_seek? */
bool rt_session_seeks(const rt_session *session);

/* Append ids[0..n) to the sequence. GM_INVALID: an id outside the vocabulary, more tokens than the context holds, n =
 * 0; nothing is appended then. GM_FORMAT: the activations are not finite. GM_NOMEM, GM_UNSUPPORTED: from oneDNN. */
gm_status rt_session_prefill(rt_session *session, const int32_t *ids, int64_t n, gm_diag *diag);

/* Generate up to max tokens, fewer when the context is full, after a prefill (or an earlier generate). stops: at most
 * RT_MAX_STOPS ids that end generation; the stop id itself becomes part of the sequence, but is neither counted in
 * *out_count nor passed to on_token (NULL: none). out must hold max ids. GM_INVALID: the sequence is empty, or too many
 * stops. GM_FORMAT: the activations are not finite; tokens that were passed on before mean nothing then. GM_NOMEM,
 * GM_UNSUPPORTED. */
gm_status rt_session_generate(rt_session *session, const rt_sampling *sampling, const int32_t *stops, int stop_count,
                              int64_t max, rt_token_fn on_token, void *user, int32_t *out, int64_t *out_count,
                              rt_stop *out_stop, gm_diag *diag);

/* Append ids[0..n) and give the logits after each of them, piece by piece: on_logits gets logits[rows, vocab], those
 * after ids first … first + rows - 1, and may read them until it returns; it returns false to stop, after which ids of
 * later chunks are not appended. Errors as of rt_session_prefill; GM_FORMAT also for logits that are not finite;
 * GM_NOMEM. */
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
