/* What each thread did and when, as compiled code reports it when it was compiled with cg_options.profile: a buffer of
 * events per thread, made before the run and never grown during it. */
#ifndef GM_RUNTIME_PROFILE_H
#define GM_RUNTIME_PROFILE_H

#include "runtime/abi.h"
#include "runtime/base.h"

/* Ticks are those of rt_ticks. Events of one thread follow one another and never overlap. */
typedef struct rt_event {
    int64_t start, end;
    int32_t inst;     /* the instruction's number (cg_trace_number) */
    int32_t kind;     /* rt_event_kind */
    int32_t extent;   /* value of the symbol in the instruction's shapes; 0: it has none */
    int32_t position; /* of an attention's first query; else 0 */
} rt_event;

typedef struct rt_profile rt_profile;

/* Room for `events` events of each thread, its pages already there; with 0 they are only counted, as dropped.
 * GM_NOMEM. */
gm_status rt_profile_open(int threads, int64_t events, gm_diag *diag, rt_profile **out);
void rt_profile_close(rt_profile *profile);
/* Forget all events, and how many were dropped. Not while compiled code runs. */
void rt_profile_reset(rt_profile *profile);
/* The events of one thread so far, in order; borrowed. */
const rt_event *rt_profile_events(const rt_profile *profile, int thread, int64_t *out_count);
/* Events of one thread that found its buffer full. */
int64_t rt_profile_dropped(const rt_profile *profile, int thread);

/* The CPU's time-stamp counter, which runs at a constant rate in all cores of one machine. */
int64_t rt_ticks(void);
/* Ticks in a second, by the monotonic clock since rt_profile_open; at least some milliseconds should have gone by. */
double rt_profile_rate(const rt_profile *profile);

#endif
