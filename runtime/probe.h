/* What this machine can do at most, measured for about a second: the two limits of a roofline. */
#ifndef GM_RUNTIME_PROBE_H
#define GM_RUNTIME_PROBE_H

#include "runtime/dtype.h"

typedef struct rt_probe {
    double bytes_per_s; /* all threads reading memory in order */
    double flop_per_s;  /* all threads in products of matrices that fit their caches, by oneDNN */
    rt_dtype products;  /* their type: the one asked for, or f32 where oneDNN has none of it on this CPU */
} rt_probe;

/* The best of many short measurements with a team of `threads` (0: the default). products: RT_F32, RT_BF16 or RT_I8.
 * GM_NOMEM, GM_UNSUPPORTED. */
gm_status rt_probe_run(int threads, rt_dtype products, gm_diag *diag, rt_probe *out);

/* The least time in which such a machine moves the bytes and computes, in s; 0 when it was not probed. */
double rt_roofline_seconds(const rt_probe *probe, double bytes, double flop);

#endif
