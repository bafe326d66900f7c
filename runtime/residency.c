/* Pages of weights that rest while others are read. */
#include "runtime/residency.h"

#include "runtime/release.h"

static size_t resting_bytes(const rt_residency *r, rt_rest rest) {
    size_t bytes = 0;
    for (int i = 0; i < r->count; i++)
        if (r->sources[i].rest == rest)
            bytes += (size_t)((const char *)r->sources[i].to - (const char *)r->sources[i].from);
    return bytes;
}

static void release(const rt_residency *r, rt_rest rest) {
    for (int i = 0; i < r->count; i++)
        if (r->sources[i].rest == rest) rt_release_pages(r->sources[i].from, r->sources[i].to);
}

/* The pages around rows that were read one by one need not rest when what else does is as much as a prompt needs:
 * generating needed both. Of interleaved rows prompts read some, few unless much is wide. */
void rt_residency_set(rt_residency *r, const rt_source *sources, int count, size_t activations) {
    r->sources = sources;
    r->count = count;
    size_t predicting = resting_bytes(r, RT_RESTS_PREDICTING), rows = resting_bytes(r, RT_RESTS_ROWS);
    r->keeps_rows = rows && resting_bytes(r, RT_RESTS_PROMPT) >= predicting + activations;
    r->trades_all = predicting > rows;
}

void rt_residency_begin_prompt(rt_residency *r, int64_t n) {
    r->has_read_chunks = true;
    if (!r->has_predicted) return;
    if (!r->keeps_rows || r->has_read_head) release(r, RT_RESTS_ROWS);
    if (r->keeps_rows || r->trades_all || n >= RT_RELEASE_TOKENS) release(r, RT_RESTS_PROMPT);
    r->has_predicted = r->has_read_head = false;
}

void rt_residency_within_prompt(rt_residency *r) {
    if (!r->keeps_rows) release(r, RT_RESTS_ROWS);
}

void rt_residency_begin_tokens(rt_residency *r, bool many) {
    r->has_predicted = true;
    if (!r->has_read_chunks || !(many || r->trades_all)) return;
    release(r, RT_RESTS_PREDICTING);
    release(r, RT_RESTS_ALWAYS);
    r->has_read_chunks = false;
}

void rt_residency_note_head(rt_residency *r) {
    r->has_read_head = true;
}

void rt_residency_note_scoring(rt_residency *r) {
    r->has_read_chunks = r->has_predicted = r->has_read_head = true;
}
