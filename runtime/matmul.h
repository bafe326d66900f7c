/* Matrix-matrix products with stored weights through oneDNN: prepared once at load, run from compiled code. */
#ifndef GM_RUNTIME_MATMUL_H
#define GM_RUNTIME_MATMUL_H

#include "runtime/abi.h"
#include "runtime/dtype.h"
#include "runtime/team.h"

typedef struct rt_matmul rt_matmul;

/* Widen and pack the weights of all sites, each thread its share of the columns, in parallel on the team. Borrows sites
 * and weights. GM_NOMEM; GM_UNSUPPORTED with oneDNN's status. */
gm_status rt_matmul_open(const rt_site *sites, int count, const void *const *weights, rt_team *team, gm_diag *diag,
                         rt_matmul **out);
/* Make the primitives for calls with `rows` rows of x, so that running them allocates nothing. */
gm_status rt_matmul_prepare(rt_matmul *matmul, int64_t rows, rt_team *team, gm_diag *diag);
void rt_matmul_close(rt_matmul *matmul);

/* Bytes of the packed copies that rt_matmul_open makes of the weights of these sites. */
int64_t rt_matmul_packed_bytes(const rt_site *sites, int count);
/* What else products keep in memory: buffers, and of oneDNN its code as far as it runs and its primitives. oneDNN does
 * not say how much that is, so its part is what has been measured. */
int64_t rt_matmul_fixed_bytes(const rt_site *sites, int count, int threads);

#endif
