/* Host functions that compiled code calls, other than the products (matmul.c) and the barrier (team.c). */
#include "runtime/abi.h"
#include "runtime/sampler.h"

/* Thread 0 draws; the others take its answer. The second barrier keeps the shared word until all have read it. */
int32_t rt_sample_call(rt_frame *frame, int32_t thread, const float *logits, int64_t vocab, const int32_t *tokens, int32_t position,
                       const float *options, int64_t seed) {
    rt_profile_barrier(frame, thread, 0);
    if (thread == 0) frame->shared[0] = rt_sample(logits, vocab, tokens, position, options, (uint64_t)seed, frame->sample_scratch);
    rt_profile_barrier(frame, thread, 0);
    int32_t token = frame->shared[0];
    rt_profile_barrier(frame, thread, 0);
    return token;
}

void rt_trace_call(rt_frame *frame, int64_t inst, int64_t result, const void *data) {
    if (frame->trace) frame->trace(frame->trace_user, inst, result, data);
}
