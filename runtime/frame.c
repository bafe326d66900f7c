/* Making the frame that compiled functions are passed: see frame.h. */
#include "runtime/frame.h"

#include "runtime/matmul.h"
#include "runtime/sampler.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, LINE = 64 };

void *rt_pages_new(size_t bytes) {
    void *address =
        mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

void rt_pages_free(void *address, size_t bytes) {
    if (address) munmap(address, bytes ? bytes : 1);
}

size_t rt_frame_scratch(const rt_frame *frame) {
    return (size_t)(frame->scratch_stride * frame->threads);
}

static void *zero_lines(size_t bytes) {
    void *address = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    return address ? memset(address, 0, bytes) : NULL;
}

gm_status rt_frame_open(const rt_frame_sizes *sizes, const void *const *weights, const rt_site *sites, int site_count,
                        rt_team *team, gm_diag *diag, rt_frame **out) {
    rt_frame *frame = *out = zero_lines(sizeof *frame);
    if (!frame) return gm_fail(diag, GM_NOMEM, "out of memory");
    frame->threads = rt_team_threads(team);
    frame->weights = (const void **)weights;
    frame->scratch_stride = (sizes->scratch + PAGE - 1) / PAGE * PAGE;
    frame->arena = rt_pages_new((size_t)sizes->arena);
    frame->scratch = rt_pages_new(rt_frame_scratch(frame));
    frame->shared = zero_lines(RT_SHARED_WORDS * sizeof *frame->shared);
    frame->ring = zero_lines(sizeof *frame->ring);
    frame->sample_scratch = malloc(rt_sample_scratch_bytes(sizes->vocab));
    if (!frame->arena || !frame->scratch || !frame->shared || !frame->ring || !frame->sample_scratch)
        return gm_fail(diag, GM_NOMEM, "out of memory for activations");
    return rt_matmul_open(sites, site_count, weights, team, diag, &frame->matmul);
}

void rt_frame_close(rt_frame *frame, const rt_frame_sizes *sizes) {
    if (!frame) return;
    rt_matmul_close(frame->matmul);
    rt_pages_free(frame->arena, (size_t)sizes->arena);
    rt_pages_free(frame->scratch, rt_frame_scratch(frame));
    free(frame->shared);
    free(frame->ring);
    free(frame->sample_scratch);
    free(frame);
}
