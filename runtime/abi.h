/* What compiled code and the runtime agree on: the entry signature, the frame, the host calls. libc includes only.
 * Field offsets used by compiled code are taken with offsetof (codegen/emit.c), so both sides read this one header. */
#ifndef GM_RUNTIME_ABI_H
#define GM_RUNTIME_ABI_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { RT_MAX_THREADS = 64, RT_RING_CAPACITY = 1 << 16 };

/* The tokens that the host may take back after the generate loop has gone past them. Caches that forget old tokens
 * (kv_ring) keep as many more. */
enum { RT_MAX_ROLLBACK = 32 };

/* The tokens that the generate loop may draft ahead of a token: cache rows behind it are written, and perhaps not
 * kept. */
enum { RT_MAX_DRAFT = 5 };
/* So few rows are computed each as if it were alone, to the bit, in every operation: drafted tokens are verified so. */
enum { RT_FEW_ROWS = 1 + RT_MAX_DRAFT };

/* Tokens on their way from the compiled loop to the host: one writer, one reader. */
typedef struct rt_ring {
    _Alignas(64) atomic_uint_fast64_t written; /* tokens ever written */
    int32_t token[RT_RING_CAPACITY];           /* slot = count mod capacity */
} rt_ring;

typedef struct rt_barrier {
    _Alignas(64) atomic_uint arrived;
    atomic_uint dealt; /* pieces of work that threads have taken since they last met here (codegen/deal.c) */
    _Alignas(64) atomic_uint phase;
    atomic_uint sleepers;                        /* threads that wait in the kernel */
    _Alignas(64) atomic_int cpu[RT_MAX_THREADS]; /* where each thread last arrived: 1 + the CPU's number */
} rt_barrier;

typedef enum rt_event_kind {
    RT_EVENT_OP,   /* an instruction at work */
    RT_EVENT_MORE, /* the same instruction after it has waited for the other threads */
    RT_EVENT_WAIT  /* waiting at a barrier, for the good of the instruction that comes next */
} rt_event_kind;   /* runtime/profile.h */

enum {
    RT_MAX_CACHES = 8 /* that a program passes from call to call */,
    RT_MAX_STOPS = 16 /* ids that end generation */
};

/* A product that the runtime runs for compiled code: x·Wᵀ with the rows of several stored weights in order. */
enum { RT_SITE_WEIGHTS = 32 };
typedef struct rt_site {
    int64_t columns;               /* K */
    int64_t rows[RT_SITE_WEIGHTS]; /* N of each weight */
    int weights[RT_SITE_WEIGHTS];  /* numbers in the program's table */
    int dtypes[RT_SITE_WEIGHTS];   /* rt_dtype as stored */
    int weight_count;
    int bf16;                     /* x is bf16, and W is rounded to it when it is packed */
    int64_t max_rows;             /* most rows of x */
    int64_t x_stride, out_stride; /* elements between rows */
} rt_site;

/* Rows with scores that a thread has found, in its scratch: at the same place of each thread's. */
typedef struct rt_candidates {
    int64_t count;
    float *score;
    int32_t *id;
    float supposed; /* of a heap: rows that cannot score as much, before a cap, are left out */
    float floor;    /* rows that score less change nothing, */
    float uncapped; /* nor those that score less than this before a cap */
} rt_candidates;

struct rt_matmul;
struct rt_profile;

/* One per session; passed to every compiled function. */
typedef struct rt_frame {
    const void **weights; /* stored tensors, by the program's weight number */
    char *arena;          /* activations: shared by the team, planned by plan_memory */
    char *scratch;        /* scratch_stride bytes per thread */
    int64_t scratch_stride;
    struct rt_matmul *matmul; /* prepared products of all sites */
    rt_ring *ring;
    int32_t *shared;      /* RT_SHARED_WORDS words for values one thread hands to the others */
    void *sample_scratch; /* rt_sample_scratch_bytes(vocab) */
    void *trace_user;
    void (*trace)(void *user, int64_t inst, int64_t result, int64_t elems, const void *data);
    struct rt_profile *profile; /* where code compiled for it leaves events; NULL: nowhere */
    rt_barrier barrier;
    int32_t threads;
} rt_frame;

enum { RT_SHARED_WORDS = 2 * RT_MAX_THREADS };

/* A compiled function. Every thread of the team calls it with its number. args / results: one pointer per parameter /
 * returned value (scalars too); dims: the value of each module symbol. */
typedef void (*rt_entry)(rt_frame *frame, int32_t thread, int32_t threads, void *const *args, void *const *results,
                         const int64_t *dims);

/* Host functions that compiled code calls: RTCALL(name). */
#define RT_CALLS(RTCALL)                                                                                               \
    RTCALL(rt_barrier_wait)                                                                                            \
    RTCALL(rt_matmul_run)                                                                                              \
    RTCALL(rt_sgemm)                                                                                                   \
    RTCALL(rt_sample_call)                                                                                             \
    RTCALL(rt_likely_blocks)                                                                                           \
    RTCALL(rt_guess)                                                                                                   \
    RTCALL(rt_candidates_begin)                                                                                        \
    RTCALL(rt_candidates_offer)                                                                                        \
    RTCALL(rt_candidates_floor)                                                                                        \
    RTCALL(rt_candidates_sample)                                                                                       \
    RTCALL(rt_trace_call)                                                                                              \
    RTCALL(rt_profile_begin)                                                                                           \
    RTCALL(rt_profile_end)                                                                                             \
    RTCALL(rt_profile_barrier)

void rt_barrier_wait(rt_frame *frame, int32_t thread);
/* The thread's share of the columns of out[m,N] = x[m,K]·Wᵀ at site `site`, with the site's strides. */
void rt_matmul_run(rt_frame *frame, int64_t site, int32_t thread, const void *x, int64_t m, float *out);
/* Row-major C[m,n] = A[m,k]·B. B is stored [k,n], or [n,k] when `transposed`. Runs on the calling thread alone. */
void rt_sgemm(int32_t transposed, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
              int64_t ldb, float *c, int64_t ldc);
/* out[rows]: the sampler's tokens for logits[rows,vocab]. usual: of one row, only ids that are likely can be chosen
 * (runtime/likely.h); -1: all. One thread calls it. */
void rt_sample_call(rt_frame *frame, const float *logits, int64_t rows, int64_t vocab, const int32_t *tokens,
                    int32_t position, const float *options, int64_t seed, int64_t usual, int32_t *out);
/* A screened choice among `rows` rows of W, for each row of x in order (candidates.c), greedy when options is NULL. A
 * heap of the thread's rows of the highest estimates, rt_sample_reach and as many more as a penalty looks at (room for
 * RT_SAMPLE_MOST_REACH): none yet, with scores of -inf and ids of -1, … */
void rt_candidates_begin(rt_candidates *heap, const float *options, int64_t rows);
/* … after rows first … first + count - 1, of which some estimate is above score[0], which is the least. Once their
 * scores are exact: */
void rt_candidates_offer(rt_candidates *heap, const float *estimates, int64_t count, int32_t first);
/* the floors of this thread's heap, which depend on those of all threads, where rt_sample_reach is not 0. Returns
 * whether some thread has supposed more (1), so that rows may be missing, or not (0). */
int32_t rt_candidates_floor(const rt_frame *frame, int32_t thread, rt_candidates *heap, int64_t rows,
                            const int32_t *tokens, int32_t position, const float *options, float cap);
/* What the floor is before a cap: no x below it has a cap·tanh(x / cap) that is not below the floor, as compiled code
 * computes that. */
float rt_candidates_uncapped(float floor, float cap);
/* The token of row `row` of x, from every thread's rows of W that may change it, by ascending id. The first thread
 * calls it, with its own. */
int32_t rt_candidates_sample(rt_frame *frame, const rt_candidates *found, int64_t rows, const int32_t *tokens,
                             int32_t position, int64_t row, const float *options, int64_t seed);
void rt_trace_call(rt_frame *frame, int64_t inst, int64_t result, int64_t elems, const void *data);
/* The thread starts on instruction `inst`, ends it (runtime/profile.h); kind is an rt_event_kind. */
void rt_profile_begin(rt_frame *frame, int32_t thread, int32_t inst, int32_t kind, int32_t extent, int32_t position);
void rt_profile_end(rt_frame *frame, int32_t thread);
/* rt_barrier_wait as an event of its own, for the instruction that is open, else for `inst`. */
void rt_profile_barrier(rt_frame *frame, int32_t thread, int32_t inst);

#endif
