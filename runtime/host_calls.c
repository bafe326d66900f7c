/* Host functions that compiled code calls, other than the products (matmul.c) and the barrier (team.c). */
#include "runtime/abi.h"
#include "runtime/likely.h"
#include "runtime/sampler.h"

/* The logits of likely ids. */
static void take_likely(rt_scores *set, const float *logits, int64_t vocab, const rt_choice *by, int64_t usual) {
    int32_t *blocks = (int32_t *)set->weight;
    int64_t count = rt_likely_blocks(by->tokens, (int32_t)by->position, vocab, usual, blocks);
    for (int64_t b = 0; b < count; b++)
        for (int64_t id = (int64_t)blocks[b] * RT_LIKELY_BLOCK, end = id + RT_LIKELY_BLOCK; id < end && id < vocab;
             id++) {
            set->score[set->count] = logits[id];
            set->id[set->count++] = (int32_t)id;
        }
}

void rt_sample_call(rt_frame *frame, const float *logits, int64_t rows, int64_t vocab, const int32_t *tokens,
                    int32_t position, const float *options, int64_t seed, int64_t usual, int32_t *out) {
    rt_choice by = {.options = options, .tokens = tokens, .position = position, .seed = (uint64_t)seed};
    if (usual >= 0) {
        rt_scores set = rt_scores_in(frame->sample_scratch, vocab);
        take_likely(&set, logits, vocab, &by, usual);
        *out = rt_sample_scores(&set, &by);
        return;
    }
    for (; by.row < rows; by.row++) out[by.row] = rt_sample(logits + by.row * vocab, vocab, &by, frame->sample_scratch);
}

void rt_trace_call(rt_frame *frame, int64_t inst, int64_t result, int64_t elems, const void *data) {
    if (frame->trace) frame->trace(frame->trace_user, inst, result, elems, data);
}
