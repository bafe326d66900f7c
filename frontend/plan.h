/* gemmac plan: what a model will take and what this machine can make of it, known before it runs. */
#ifndef GM_FRONTEND_PLAN_H
#define GM_FRONTEND_PLAN_H

#include "frontend/driver.h"
#include "ir/cost.h"
#include "runtime/probe.h"

/* The largest resident memory of `gemmac generate` with a prompt and tokens after it, and its parts when it is
 * largest. */
typedef struct fe_peak {
    int64_t bytes;
    const char *when;    /* "compile", "prefill" or "decode" */
    int64_t base;        /* this process as it is now: program text, vocabulary, compiled code */
    int64_t weights;     /* stored weights that are read, as pages of their file */
    int64_t packed;      /* copies of weights for matrix-matrix products */
    int64_t cache;       /* of the tokens so far */
    int64_t activations; /* the arena and the threads' scratch */
    int64_t other;       /* the session's buffers, oneDNN */
} fe_peak;

typedef struct fe_plan {
    int threads;
    int64_t context, chunk, prompt, predict;
    int64_t parameters, weight_bytes;                 /* of the tensors that the program reads */
    int64_t cache_token_bytes, cache_bytes;           /* per token, at the context's length */
    int64_t arena_bytes, scratch_bytes, packed_bytes; /* at most; scratch of all threads */
    ir_cost prefill, decode;                          /* a token's, on average over prompt and predict */
    fe_peak run, full;                                /* of the run asked for; of one that fills the context */
    rt_probe probe;                                   /* 0: not probed */
    double prefill_tok_s, decode_tok_s;               /* this machine's roofline; 0 without a probe */
} fe_plan;

/* Compile MODEL and plan a run of `prompt` tokens (at least 1) and then `predict`; both are cut to the context. With
 * options->no_weights a configuration is enough. */
gm_status fe_plan_make(const char *path, const fe_options *options, int64_t prompt, int64_t predict, bool probe,
                       gm_diag *diag, fe_plan *out);

#endif
