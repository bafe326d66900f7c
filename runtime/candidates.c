/* Screened choices: what their kernel (codegen/screen.c) leaves to the host. Every thread collects candidates in its
 * own scratch, at the same place of each. */
#include "runtime/abi.h"
#include "runtime/sampler.h"

#include <math.h>
#include <string.h>

static const float greedy[RT_SAMPLE_OPTIONS] = {[RT_SAMPLE_REPEAT_PENALTY] = 1};

/* ---- a heap with the least in front ---- */

static void put(rt_candidates *heap, int64_t at, float score, int32_t id) {
    heap->score[at] = score;
    heap->id[at] = id;
}

/* The place in front is free. */
static void put_in_order(rt_candidates *heap, float score, int32_t id) {
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < heap->count; at = child) {
        if (child + 1 < heap->count && heap->score[child + 1] < heap->score[child]) child++;
        if (score <= heap->score[child]) break;
        put(heap, at, heap->score[child], heap->id[child]);
    }
    put(heap, at, score, id);
}

static void clear(rt_candidates *heap) {
    for (int64_t i = 0; i < heap->count; i++) put(heap, i, -INFINITY, -1);
}

/* As many as count, and as many more as a penalty may take the places of. */
static int64_t wanted(const float *options, int64_t rows) {
    int64_t reach = rt_sample_reach(options, rows);
    if (!reach || options[RT_SAMPLE_REPEAT_PENALTY] == 1) return reach;
    return (int64_t)fminf((float)reach + fmaxf(options[RT_SAMPLE_REPEAT_LAST_N], 0), RT_SAMPLE_MOST_REACH);
}

void rt_candidates_begin(rt_candidates *heap, const float *options, int64_t rows) {
    heap->count = wanted(options ? options : greedy, rows);
    heap->supposed = heap->floor = heap->uncapped = -INFINITY;
    clear(heap);
}

void rt_candidates_offer(rt_candidates *heap, const float *estimates, int64_t count, int32_t first) {
    for (int64_t i = 0; i < count; i++)
        if (estimates[i] > heap->score[0]) put_in_order(heap, estimates[i], first + (int32_t)i);
}

/* ---- all threads' ---- */

/* The same struct of another thread. */
static const rt_candidates *of_thread(const rt_frame *frame, int32_t thread, const rt_candidates *mine, int32_t other) {
    return (const rt_candidates *)((const char *)mine + (other - thread) * frame->scratch_stride);
}

/* What k of all threads' exact scores reach, as a penalty leaves them. */
static float reached(const rt_frame *frame, int32_t thread, const rt_candidates *mine, int64_t rows,
                     const rt_choice *by) {
    float least[RT_SAMPLE_MOST_REACH];
    int32_t none[RT_SAMPLE_MOST_REACH];
    rt_candidates heap = {.count = rt_sample_reach(by->options, rows), .score = least, .id = none};
    clear(&heap);
    for (int32_t t = 0; t < frame->threads; t++) {
        const rt_candidates *other = of_thread(frame, thread, mine, t);
        for (int64_t i = 0; i < other->count; i++) { /* a penalty makes no score larger */
            if (!(other->score[i] > least[0])) continue;
            float left = rt_sample_penalised(other->score[i], other->id[i], by);
            rt_candidates_offer(&heap, &left, 1, 0);
        }
    }
    return rt_sample_floor(least[0], by->options);
}

int32_t rt_candidates_floor(const rt_frame *frame, int32_t thread, rt_candidates *mine, int64_t rows,
                            const int32_t *tokens, int32_t position, const float *options, float cap) {
    rt_choice by = {.options = options ? options : greedy, .tokens = tokens, .position = position};
    mine->floor = reached(frame, thread, mine, rows, &by);
    mine->uncapped = cap > 0 ? rt_candidates_uncapped(mine->floor, cap) : mine->floor;
    for (int32_t t = 0; t < frame->threads; t++)
        if (!(of_thread(frame, thread, mine, t)->supposed <= mine->uncapped)) return 1;
    return 0;
}

/* Compiled code's quotient, tanh (cg_tanh: 2e-8) and product are within 2^-20 of the exact ones. */
float rt_candidates_uncapped(float floor, float cap) {
    double bent = (double)floor / (double)cap, below = bent - fabs(bent) * 0x1p-19 - 0x1p-120;
    if (isnan(below)) return floor;
    if (below <= -1) return -INFINITY;
    double x = (double)cap * atanh(below);
    return (float)(x - fabs(x) * 0x1p-22 - 0x1p-120);
}

/* Appends what all threads have, by id. */
static void join(const rt_frame *frame, const rt_candidates *mine, rt_scores *out) {
    int64_t at[RT_MAX_THREADS] = {0};
    for (;;) {
        const rt_candidates *list = NULL;
        int32_t from = 0, next = INT32_MAX;
        for (int32_t t = 0; t < frame->threads; t++) { /* the list with the least id, and the least of the others */
            const rt_candidates *other = of_thread(frame, 0, mine, t);
            if (at[t] == other->count) continue;
            int32_t id = other->id[at[t]];
            if (list && id > list->id[at[from]]) next = id < next ? id : next;
            else next = list ? list->id[at[from]] : next, list = other, from = t;
        }
        if (!list) return;
        int64_t start = at[from], end = start;
        while (end < list->count && list->id[end] < next) end++;
        memcpy(out->score + out->count, list->score + start, (size_t)(end - start) * sizeof *out->score);
        memcpy(out->id + out->count, list->id + start, (size_t)(end - start) * sizeof *out->id);
        out->count += end - start;
        at[from] = end;
    }
}

int32_t rt_candidates_sample(rt_frame *frame, const rt_candidates *mine, int64_t vocab, const int32_t *tokens,
                             int32_t position, int64_t row, const float *options, int64_t seed) {
    rt_scores among = rt_scores_in(frame->sample_scratch, vocab);
    join(frame, mine, &among);
    return rt_sample_scores(&among, &(rt_choice){.options = options ? options : greedy,
                                                 .tokens = tokens,
                                                 .position = position,
                                                 .row = row,
                                                 .seed = (uint64_t)seed});
}
