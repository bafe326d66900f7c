/* gemmac profile: where the time of a run goes, instruction by instruction and thread by thread. */
#ifndef GM_FRONTEND_PROFILE_H
#define GM_FRONTEND_PROFILE_H

#include "frontend/driver.h"
#include "frontend/stats.h"
#include "ir/cost.h"
#include "runtime/probe.h"
#include "runtime/profile.h"

enum { FE_PHASES = 2 }; /* prefill, decode */

/* An instruction of the compiled program. */
typedef struct fe_op {
    const ir_inst *inst;
    /* as the .gir text has them, without '@'; name: of the first result with its '%', "" without one */
    const char *func, *name;
    const char *op; /* the operation, a matmul with how it runs: "matmul/gemv" */
    int layer;      /* -1: none */
    int symbol;     /* ir_cost_symbol */
} fe_op;

/* One call of an instruction with what it cost. */
typedef struct fe_op_call {
    ir_cost cost;
    char shape[96]; /* of the first result, at run time */
} fe_op_call;

/* What all threads spent on something, added up. */
typedef struct fe_profile_row {
    const char *name; /* op, or NULL for a layer */
    int layer;
    int64_t calls;
    double work_s, wait_s; /* thread-seconds: at work, and at barriers before it or within it */
    ir_cost cost;
} fe_profile_row;

typedef struct fe_profile_rows {
    fe_profile_row *rows; /* by work, the largest first; layers in order */
    int count;
} fe_profile_rows;

typedef struct fe_profile_phase {
    const char *name;
    int64_t tokens;
    int64_t start, end;                               /* ticks */
    int64_t from[RT_MAX_THREADS], to[RT_MAX_THREADS]; /* its events of each thread */
    double wall_s;
    /* thread-seconds of all threads; what is left of threads · wall_s is spent between the two */
    double work_s, wait_s;
    double idle_s; /* in which no thread was at work */
    fe_profile_rows ops, layers;
    ir_cost cost;
} fe_profile_phase;

typedef struct fe_speed {
    double mean, std; /* tokens per second */
} fe_speed;

/* A profiled run beside the same run of the same program without the profile's calls. Tokens are chosen greedily. */
typedef struct fe_profile_result {
    gm_arena arena;
    int threads;
    fe_op *ops;
    int op_count;
    rt_profile *events;
    double rate; /* ticks per second */
    int64_t dropped;
    fe_profile_phase phases[FE_PHASES]; /* of the last repetition */
    fe_speed plain[FE_PHASES], profiled[FE_PHASES];
    fe_effect overhead[FE_PHASES]; /* of the profile's calls on the time */
    bool same_tokens;              /* with and without the profile's calls */
    rt_probe probe;                /* 0: not probed */
    fe_engine engine;              /* of the profiled program; its session is closed */
} fe_profile_result;

typedef struct fe_profile_request {
    const char *path;   /* the model */
    fe_options options; /* profile is the run's own */
    const int32_t *ids; /* the prompt */
    int64_t id_count, predict, repetitions;
    bool probe;
} fe_profile_request;

/* Warm up, then `repetitions` rounds of both programs in turn. Free with fe_profile_free whatever comes back. */
gm_status fe_profile_run(const fe_profile_request *request, gm_diag *diag, fe_profile_result *out);
void fe_profile_free(fe_profile_result *result);

/* An event's instruction at the sizes of that event. */
fe_op_call fe_profile_call(const fe_profile_result *result, const rt_event *event);

/* Every event as JSON of the Trace Event Format, which Perfetto and chrome://tracing read: complete events of one
 * process, a track per thread, times in µs since the prompt went in. */
void fe_profile_trace(const fe_profile_result *result, gm_string *out);

#endif
