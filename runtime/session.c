/* Sessions: the KV cache, the activations, and calls of compiled functions by the team. */
#include "runtime/session.h"

#include "runtime/frame.h"
#include "runtime/matmul.h"
#include "runtime/program.h"
#include "runtime/residency.h"
#include "runtime/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { POLL_NANOSECONDS = 500000 };

struct rt_session {
    rt_program program;
    rt_team *team;
    rt_frame *frame;
    int32_t *tokens, *spare_tokens; /* [context] */
    void *caches[RT_MAX_CACHES], *spare_caches[RT_MAX_CACHES];
    float *x, *spare_x;   /* [1, hidden]: residual stream of the last token */
    float *rows;          /* [chunk, hidden], for scoring; made when first needed */
    float *logits;        /* [rows, vocab], likewise */
    int64_t length, most; /* now; at a seek since the last reset */
    bool has_x;           /* x belongs to tokens[length - 1] */
    bool has_activations; /* of a long prompt, or rows to be scored: their pages are resident */
    rt_residency weights;
};

/* ---- memory ---- */

static bool takes_over(const rt_function *f, int first, int count) {
    for (int i = first; f->entry && i < first + count; i++)
        if (f->alias[i] < 0) return false;
    return true;
}

/* Functions that do not update in place need second buffers to write to. */
static bool needs_spare_caches(const rt_program *p) {
    int n = p->cache_count;
    return !(takes_over(&p->forward, 1, n) && takes_over(&p->step, 1, n) && takes_over(&p->prefill, 1, n) &&
             takes_over(&p->generate, 4, n));
}

static gm_status open_memory(rt_session *s, gm_diag *diag) {
    const rt_program *p = &s->program;
    bool ok = true, spare = needs_spare_caches(p);
    for (int i = 0; i < p->cache_count && ok; i++) {
        s->caches[i] = rt_pages_new((size_t)p->cache_bytes[i]);
        if (spare) s->spare_caches[i] = rt_pages_new((size_t)p->cache_bytes[i]);
        ok = s->caches[i] && (!spare || s->spare_caches[i]);
    }
    s->tokens = calloc((size_t)p->context, sizeof *s->tokens);
    s->spare_tokens = calloc((size_t)p->context, sizeof *s->spare_tokens);
    s->x = calloc((size_t)p->hidden, sizeof *s->x);
    s->spare_x = calloc((size_t)p->hidden, sizeof *s->spare_x);
    ok = ok && s->tokens && s->spare_tokens && s->x && s->spare_x;
    return ok ? GM_OK : gm_fail(diag, GM_NOMEM, "out of memory for a context of %lld tokens", (long long)p->context);
}

static rt_frame_sizes sizes_of(const rt_program *p) {
    return (rt_frame_sizes){.arena = p->arena_bytes, .scratch = p->scratch_bytes, .vocab = p->vocab};
}

static gm_status open_frame(rt_session *s, gm_diag *diag) {
    const rt_program *p = &s->program;
    rt_frame_sizes sizes = sizes_of(p);
    GM_TRY(rt_frame_open(&sizes, p->weights, p->sites, p->site_count, s->team, diag, &s->frame));
    return rt_matmul_prepare(s->frame->matmul, p->chunk, s->team, diag);
}

gm_status rt_session_open(const rt_program *program, int threads, gm_diag *diag, rt_session **out) {
    rt_session *s = calloc(1, sizeof *s);
    if (!s) return gm_fail(diag, GM_NOMEM, "out of memory");
    s->program = *program;
    gm_status status = rt_team_open(threads, diag, &s->team);
    if (status == GM_OK) status = open_memory(s, diag);
    if (status == GM_OK) status = open_frame(s, diag);
    if (status == GM_OK) rt_session_set_evictable(s, program->sources, program->source_count);
    if (status != GM_OK) {
        rt_session_close(s);
        return status;
    }
    *out = s;
    return GM_OK;
}

void rt_session_set_evictable(rt_session *s, const rt_source *sources, int count) {
    rt_residency_set(&s->weights, sources, count, (size_t)s->program.arena_bytes + rt_frame_scratch(s->frame));
}

int64_t rt_session_fixed_bytes(const rt_program *p, int threads) {
    return (int64_t)(sizeof(rt_ring) + rt_sample_scratch_bytes(p->vocab)) +
           rt_matmul_fixed_bytes(p->sites, p->site_count, threads);
}

void rt_session_close(rt_session *s) {
    if (!s) return;
    rt_frame_sizes sizes = sizes_of(&s->program);
    rt_frame_close(s->frame, &sizes);
    rt_team_close(s->team);
    for (int i = 0; i < s->program.cache_count; i++) {
        rt_pages_free(s->caches[i], (size_t)s->program.cache_bytes[i]);
        rt_pages_free(s->spare_caches[i], (size_t)s->program.cache_bytes[i]);
    }
    free(s->tokens);
    free(s->spare_tokens);
    free(s->x);
    free(s->spare_x);
    free(s->rows);
    free(s->logits);
    free(s);
}

int64_t rt_session_length(const rt_session *s) {
    return s->length;
}

int64_t rt_session_context(const rt_session *s) {
    return s->program.context;
}

int64_t rt_session_vocab(const rt_session *s) {
    return s->program.vocab;
}

int rt_session_threads(const rt_session *s) {
    return rt_team_threads(s->team);
}

void rt_session_profile(rt_session *s, struct rt_profile *profile) {
    s->frame->profile = profile;
}

void rt_session_reset(rt_session *s) {
    s->length = s->most = 0;
    s->has_x = false;
}

bool rt_session_seeks(const rt_session *s) {
    return !s->program.forgets;
}

gm_status rt_session_seek(rt_session *s, int64_t n, gm_diag *diag) {
    if (s->length > s->most) s->most = s->length;
    if (s->program.forgets) return gm_fail(diag, GM_UNSUPPORTED, "the caches have forgotten old tokens (kv_ring)");
    if (n < 0 || n > s->most)
        return gm_fail(diag, GM_INVALID, "seek to %lld of %lld tokens", (long long)n, (long long)s->most);
    s->length = n;
    s->has_x = false;
    return GM_OK;
}

/* ---- calling compiled functions ---- */

typedef struct call {
    rt_session *session;
    const rt_function *function;
    void *args[RT_MAX_ARGS], *results[RT_MAX_RESULTS];
    int64_t dims[RT_MAX_DIMS];
} call;

static void call_on_thread(void *user, int thread, int threads) {
    call *c = user;
    c->function->entry(c->session->frame, thread, threads, c->args, c->results, c->dims);
}

static call call_of(rt_session *s, const rt_function *function) {
    call c = {.session = s, .function = function};
    memcpy(c.dims, s->program.dims, sizeof c.dims);
    return c;
}

/* Where result i goes: the parameter it takes over, else the spare buffer. */
static void *result_for(const call *c, int i, void *spare) {
    int alias = c->function->alias[i];
    return alias >= 0 ? c->args[alias] : spare;
}

static void swap_pointers(void *a, void *b) {
    void *t;
    memcpy(&t, a, sizeof t);
    memcpy(a, b, sizeof t);
    memcpy(b, &t, sizeof t);
}

/* The caches as the last arguments, from `argument` on, and results, from `result` on. */
static void pass_caches(call *c, int argument, int result) {
    rt_session *s = c->session;
    for (int i = 0; i < s->program.cache_count; i++) c->args[argument + i] = s->caches[i];
    for (int i = 0; i < s->program.cache_count; i++)
        c->results[result + i] = result_for(c, result + i, s->spare_caches[i]);
}

/* After a call: results that went to a spare buffer become the current ones. */
static void adopt_caches(rt_session *s, const call *c, int result) {
    for (int i = 0; i < s->program.cache_count; i++)
        if (c->function->alias[result + i] < 0) swap_pointers(&s->caches[i], &s->spare_caches[i]);
}

static void run_forward(rt_session *s, const rt_function *f, int32_t *ids, int64_t n, float *x) {
    call c = call_of(s, f);
    int32_t position = (int32_t)s->length;
    if (s->program.dim_t >= 0) c.dims[s->program.dim_t] = n;
    c.args[0] = ids, c.args[1] = &position;
    c.results[0] = x;
    pass_caches(&c, 2, 1);
    rt_team_run(s->team, call_on_thread, &c);
    adopt_caches(s, &c, 1);
    s->length += n;
}

static void run_head(rt_session *s, const rt_function *f, float *x, int64_t rows, float *logits) {
    call c = call_of(s, f);
    if (s->program.dim_r >= 0) c.dims[s->program.dim_r] = rows;
    c.args[0] = x;
    c.results[0] = logits;
    rt_team_run(s->team, call_on_thread, &c);
}

static gm_status check_ids(const rt_session *s, const int32_t *ids, int64_t n, gm_diag *diag) {
    if (n < 1) return gm_fail(diag, GM_INVALID, "the prompt is empty: expected at least one token");
    if (n > s->program.context - s->length)
        return gm_fail(diag, GM_INVALID, "%lld tokens after %lld do not fit the context of %lld", (long long)n,
                       (long long)s->length, (long long)s->program.context);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->program.vocab)
            return gm_fail(diag, GM_INVALID, "token id %d (number %lld) is outside the vocabulary 0..%lld", ids[i],
                           (long long)i, (long long)s->program.vocab - 1);
    return GM_OK;
}

/* One weight that is NaN or infinite spoils the residual stream, and with it everything that would be said. */
static gm_status check_finite(const rt_session *s, const char *what, const float *x, int64_t count, gm_diag *diag) {
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(x[i]))
            return gm_fail(diag, GM_FORMAT, "%s: the %s are not finite: expected weights without NaN and infinity",
                           s->program.model, what);
    return GM_OK;
}

/* ---- prefill ---- */

static void advise_activations(const rt_session *s, int advice) {
    madvise(s->frame->arena, (size_t)s->program.arena_bytes, advice);
    madvise(s->frame->scratch, rt_frame_scratch(s->frame), advice);
}

/* Large pages, where the system has them, for activations that a long prompt writes all over: fewer faults and misses
 * of the TLB. A short prompt writes the first rows of each buffer, and would make a large page of each. */
static void claim_activations(rt_session *s, int64_t n) {
    advise_activations(s, n < RT_LONG_PROMPT ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    s->has_activations |= n >= RT_LONG_PROMPT;
}

/* Token by token: without @prefill, and for so few tokens that a chunk would take longer. */
static void prefill_by_steps(rt_session *s, int64_t n) {
    for (int64_t i = 0; i < n; i++) run_forward(s, &s->program.step, &s->tokens[s->length], 1, s->x);
}

/* The tokens of a chunk when n tokens are split as in passes/chunk_prefill.c; the last chunk may have fewer. */
static int64_t chunk_of(const rt_session *s, int64_t n) {
    int64_t chunks = (n + s->program.chunk - 1) / s->program.chunk;
    return (n + chunks - 1) / chunks;
}

/* Make oneDNN's primitives for the chunks of one @prefill call of n tokens: their size, and that of the last. */
static gm_status prepare_chunks(const rt_session *s, int64_t n, gm_diag *diag) {
    GM_TRY(rt_matmul_prepare(s->frame->matmul, chunk_of(s, n), s->team, diag));
    return rt_matmul_prepare(s->frame->matmul, n % chunk_of(s, n), s->team, diag);
}

static void prefill_part(rt_session *s, int64_t n) {
    call c = call_of(s, &s->program.prefill);
    int32_t start = (int32_t)s->length, count = (int32_t)n;
    c.args[0] = s->tokens, c.args[1] = &start, c.args[2] = &count;
    c.results[0] = s->x;
    pass_caches(&c, 3, 1);
    rt_team_run(s->team, call_on_thread, &c);
    adopt_caches(s, &c, 1);
    s->length += n;
}

/* Two chunks at a time: in between, pages around rows of the embedding are given back, of which a long prompt would
 * leave most resident, if they are to be. */
static gm_status prefill_by_loop(rt_session *s, int64_t n, gm_diag *diag) {
    int64_t part = n < 2 * chunk_of(s, n) ? n : 2 * chunk_of(s, n);
    GM_TRY(prepare_chunks(s, part, diag));
    if (n % part) GM_TRY(prepare_chunks(s, n % part, diag));
    for (int64_t done = 0; done < n; done += part) {
        if (done) rt_residency_within_prefill(&s->weights);
        prefill_part(s, n - done < part ? n - done : part);
    }
    return GM_OK;
}

/* A long prompt's activations are of no use to decoding, whose own need little: give the pages back. Not before: a
 * prompt may come in several calls, and the next would fault them in again. */
static void release_activations(rt_session *s) {
    if (!s->has_activations) return;
    advise_activations(s, MADV_DONTNEED);
    claim_activations(s, 0);
    s->has_activations = false;
}

gm_status rt_session_prefill(rt_session *s, const int32_t *ids, int64_t n, gm_diag *diag) {
    GM_TRY(check_ids(s, ids, n, diag));
    memcpy(&s->tokens[s->length], ids, (size_t)n * sizeof *ids);
    if (s->program.prefill.entry && (n > s->program.steps || !s->program.step.entry)) {
        claim_activations(s, n);
        rt_residency_begin_prefill(&s->weights, n);
        GM_TRY(prefill_by_loop(s, n, diag));
    } else {
        release_activations(s);
        rt_residency_begin_decode(&s->weights, true);
        prefill_by_steps(s, n);
    }
    s->has_x = true;
    return check_finite(s, "activations", s->x, s->program.hidden, diag);
}

/* ---- generate ---- */

typedef struct generation {
    rt_session *s;
    const rt_sampling *sampling;
    float options[RT_SAMPLE_OPTIONS];
    int32_t stops[RT_MAX_STOPS];
    rt_token_fn on_token;
    void *user;
    int32_t *out;
    int64_t max, count; /* wanted; handed out */
    uint64_t read;      /* of the ring */
    bool stopped, cancelled;
} generation;

static void options_of(const rt_sampling *from, float *options) {
    options[RT_SAMPLE_TEMPERATURE] = from->temperature;
    options[RT_SAMPLE_TOP_K] = (float)from->top_k;
    options[RT_SAMPLE_TOP_P] = from->top_p;
    options[RT_SAMPLE_MIN_P] = from->min_p;
    options[RT_SAMPLE_REPEAT_PENALTY] = from->repeat_penalty;
    options[RT_SAMPLE_REPEAT_LAST_N] = (float)from->repeat_last_n;
    options[RT_SAMPLE_FREQUENCY] = from->frequency_penalty;
    options[RT_SAMPLE_PRESENCE] = from->presence_penalty;
}

/* Must the host do it? The compiled loop passes no logits on, and knows of the repeat penalty alone. */
static bool picks_on_host(const rt_sampling *sampling) {
    return sampling->logits || sampling->bias_count || sampling->frequency_penalty != 0 ||
           sampling->presence_penalty != 0;
}

bool rt_sampling_screens(const rt_sampling *sampling, int64_t vocab) {
    float options[RT_SAMPLE_OPTIONS] = {0};
    options_of(sampling, options);
    return !picks_on_host(sampling) && rt_sample_reach(options, vocab) > 0;
}

static void set_options(generation *g, const int32_t *stops, int stop_count) {
    options_of(g->sampling, g->options);
    for (int i = 0; i < RT_MAX_STOPS; i++) g->stops[i] = i < stop_count ? stops[i] : -1;
}

static bool is_stop(const generation *g, int32_t token) {
    for (int i = 0; i < RT_MAX_STOPS; i++)
        if (g->stops[i] == token) return true;
    return false;
}

/* A new token, in order: counted and handed on unless it is a stop id or generation has ended. */
static void take_token(generation *g, int32_t token, const float *logits) {
    if (g->stopped || g->cancelled) return;
    if (is_stop(g, token)) {
        g->stopped = true;
        return;
    }
    g->out[g->count++] = token;
    if (g->on_token && !g->on_token(g->user, token, logits)) g->cancelled = true;
}

static void drain_ring(generation *g) {
    rt_ring *ring = g->s->frame->ring;
    uint64_t written = atomic_load_explicit(&ring->written, memory_order_acquire);
    while (g->read < written) take_token(g, ring->token[g->read++ % RT_RING_CAPACITY], NULL);
}

static void wait_and_drain(generation *g) {
    while (g->on_token && !rt_team_done(g->s->team)) {
        drain_ring(g);
        nanosleep(&(struct timespec){.tv_nsec = POLL_NANOSECONDS}, NULL);
    }
    rt_team_wait(g->s->team);
    drain_ring(g);
}

/* One call of the compiled loop, for up to n tokens. */
static gm_status generate_slice(generation *g, int64_t n, gm_diag *diag) {
    rt_session *s = g->s;
    call c = call_of(s, &s->program.generate);
    int32_t position = (int32_t)s->length, count = (int32_t)n, end = 0;
    int64_t seed = (int64_t)g->sampling->seed;
    uint8_t stopped = 0;
    c.args[0] = s->x, c.args[1] = s->tokens, c.args[2] = &position, c.args[3] = &count, c.args[4] = g->options;
    c.args[5] = &seed, c.args[6] = g->stops;
    c.results[0] = result_for(&c, 0, s->spare_x);
    c.results[1] = result_for(&c, 1, s->spare_tokens);
    c.results[2] = &end, c.results[3] = &stopped;
    pass_caches(&c, 7, 4);
    rt_team_start(s->team, call_on_thread, &c);
    wait_and_drain(g);
    if (c.function->alias[0] < 0) swap_pointers(&s->x, &s->spare_x);
    if (c.function->alias[1] < 0) swap_pointers(&s->tokens, &s->spare_tokens);
    adopt_caches(s, &c, 4);
    s->length = end;
    return check_finite(s, "activations", s->x, s->program.hidden, diag);
}

/* The host's own loop, when the program has none that does it: logits come back, the host picks, one call per token. */
static gm_status generate_by_steps(generation *g, gm_diag *diag) {
    rt_session *s = g->s;
    if (!s->logits) s->logits = malloc((size_t)(s->program.rows * s->program.vocab) * sizeof *s->logits);
    if (!s->logits) return gm_fail(diag, GM_NOMEM, "out of memory for logits");
    while (g->count < g->max && !g->stopped && !g->cancelled) {
        run_head(s, &s->program.head_one, s->x, 1, s->logits);
        rt_choice by = {.options = g->options,
                        .tokens = s->tokens,
                        .position = s->length,
                        .seed = g->sampling->seed,
                        .biases = g->sampling->biases,
                        .bias_count = g->sampling->bias_count};
        int32_t token = rt_sample(s->logits, s->program.vocab, &by, s->frame->sample_scratch);
        s->tokens[s->length] = token;
        run_forward(s, &s->program.step, &s->tokens[s->length], 1, s->x);
        take_token(g, token, g->sampling->logits ? s->logits : NULL);
        GM_TRY(check_finite(s, "activations", s->x, s->program.hidden, diag));
    }
    return GM_OK;
}

/* A host stop may come after the loop has run on: the sequence ends with the last token taken. */
static void cut_after(generation *g, int64_t start) {
    int64_t kept = start + g->count + (g->stopped ? 1 : 0);
    if (kept >= g->s->length) return;
    g->s->length = kept;
    g->s->has_x = false;
}

gm_status rt_session_generate(rt_session *s, const rt_sampling *sampling, const int32_t *stops, int stop_count,
                              int64_t max, rt_token_fn on_token, void *user, int32_t *out, int64_t *out_count,
                              rt_stop *out_stop, gm_diag *diag) {
    if (!s->length) return gm_fail(diag, GM_INVALID, "nothing to continue: generate needs a prompt first");
    if (stop_count > RT_MAX_STOPS) return gm_fail(diag, GM_INVALID, "more than %d stop ids", RT_MAX_STOPS);
    if (!s->has_x) {
        int32_t last = s->tokens[--s->length];
        GM_TRY(rt_session_prefill(s, &last, 1, diag));
    }
    generation g = {.s = s, .sampling = sampling, .on_token = on_token, .user = user, .out = out};
    int64_t start = s->length, room = s->program.context - s->length;
    g.max = max < room ? max : room;
    g.read = atomic_load(&s->frame->ring->written);
    set_options(&g, stops, stop_count);
    release_activations(s);
    rt_residency_begin_decode(&s->weights, g.max >= RT_LONG_DECODE);
    bool looped = s->program.generate.entry && !picks_on_host(sampling);
    gm_status status = looped ? GM_OK : generate_by_steps(&g, diag);
    while (status == GM_OK && looped && g.count < g.max && !g.stopped && !g.cancelled) {
        int64_t left = g.max - g.count, slice = on_token ? RT_MAX_ROLLBACK : RT_RING_CAPACITY;
        status = generate_slice(&g, left < slice ? left : slice, diag);
    }
    if (!rt_sampling_screens(sampling, s->program.vocab)) rt_residency_note_head(&s->weights);
    cut_after(&g, start);
    *out_count = g.count;
    *out_stop = g.stopped ? RT_STOP_EOS : g.cancelled ? RT_STOP_HOST : RT_STOP_LENGTH;
    return status;
}

/* ---- scoring ---- */

static gm_status open_scoring(rt_session *s, gm_diag *diag) {
    const rt_program *p = &s->program;
    if (!s->rows) s->rows = malloc((size_t)(p->chunk * p->hidden) * sizeof *s->rows);
    if (!s->logits) s->logits = malloc((size_t)(p->rows * p->vocab) * sizeof *s->logits);
    return s->rows && s->logits ? GM_OK : gm_fail(diag, GM_NOMEM, "out of memory for logits");
}

/* Logits of the first `count` of s->rows; first: their place in the call. *more: false once on_logits has said so. */
static gm_status score_rows(rt_session *s, int64_t first, int64_t count, rt_logits_fn on_logits, void *user, bool *more,
                            gm_diag *diag) {
    for (int64_t done = 0; done < count && *more; done += s->program.rows) {
        int64_t rows = count - done < s->program.rows ? count - done : s->program.rows;
        run_head(s, &s->program.head, s->rows + done * s->program.hidden, rows, s->logits);
        GM_TRY(check_finite(s, "logits", s->logits, rows * s->program.vocab, diag));
        *more = on_logits(user, first + done, rows, s->logits);
    }
    return GM_OK;
}

gm_status rt_session_score(rt_session *s, const int32_t *ids, int64_t n, rt_logits_fn on_logits, void *user,
                           gm_diag *diag) {
    GM_TRY(check_ids(s, ids, n, diag));
    GM_TRY(open_scoring(s, diag));
    memcpy(&s->tokens[s->length], ids, (size_t)n * sizeof *ids);
    s->has_x = false;
    bool more = true;
    for (int64_t done = 0; done < n && more; done += s->program.chunk) {
        int64_t rows = n - done < s->program.chunk ? n - done : s->program.chunk;
        GM_TRY(rt_matmul_prepare(s->frame->matmul, rows, s->team, diag));
        claim_activations(s, rows);
        run_forward(s, &s->program.forward, &s->tokens[s->length], rows, s->rows);
        rt_residency_note_scoring(&s->weights);
        GM_TRY(check_finite(s, "activations", s->rows, rows * s->program.hidden, diag));
        GM_TRY(score_rows(s, done, rows, on_logits, user, &more, diag));
    }
    return GM_OK;
}
