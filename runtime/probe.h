/* What this machine can do at most, measured for about a second: the two limits of a roofline. */
#ifndef GM_RUNTIME_PROBE_H
#define GM_RUNTIME_PROBE_H

#include "runtime/base.h"

typedef struct rt_probe {
    double bytes_per_s; /* all threads reading memory in order */
    double flop_per_s;  /* all threads in f32 products of matrices that fit their caches */
} rt_probe;

/* The best of many short measurements with a team of `threads` (0: the default). GM_NOMEM. */
gm_status rt_probe_run(int threads, gm_diag *diag, rt_probe *out);

/* The least time in which such a machine moves the bytes and computes, in s; 0 when it was not probed. */
double rt_roofline_seconds(const rt_probe *probe, double bytes, double flop);

#endif
