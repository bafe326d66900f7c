/* Making the frame that compiled functions are passed (runtime/abi.h). */
#ifndef GM_RUNTIME_FRAME_H
#define GM_RUNTIME_FRAME_H

#include "runtime/abi.h"
#include "runtime/team.h"

/* Zero pages that come on demand, for what may be large and is used in part. NULL: out of memory. */
void *rt_pages_new(size_t bytes);
void rt_pages_free(void *address, size_t bytes);

typedef struct rt_frame_sizes {
    int64_t arena, scratch; /* bytes; scratch of each thread */
    int64_t vocab;          /* ids that the sampler chooses from */
} rt_frame_sizes;

/* A frame for the team's threads, with the products of all sites prepared. weights and sites are borrowed. Close *out
 * on failure too. GM_NOMEM; errors of rt_matmul_open. */
gm_status rt_frame_open(const rt_frame_sizes *sizes, const void *const *weights, const rt_site *sites, int site_count,
                        rt_team *team, gm_diag *diag, rt_frame **out);
void rt_frame_close(rt_frame *frame, const rt_frame_sizes *sizes);
/* Bytes of all threads' scratch. */
size_t rt_frame_scratch(const rt_frame *frame);

#endif
