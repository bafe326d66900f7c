/* Giving back the pages of weights that are not needed while others are read. */
#include "runtime/residency.h"

#include "runtime/release.h"

static size_t evictable_bytes(const rt_residency *r, rt_evict evict) {
    size_t bytes = 0;
    for (int i = 0; i < r->count; i++)
        if (r->sources[i].evict == evict)
            bytes += (size_t)((const char *)r->sources[i].to - (const char *)r->sources[i].from);
    return bytes;
}

static void release(const rt_residency *r, rt_evict evict) {
    for (int i = 0; i < r->count; i++)
        if (r->sources[i].evict == evict) rt_release_pages(r->sources[i].from, r->sources[i].to);
}

/* The pages around rows that were read one by one may stay in prefill when the others that are given back make as much
 * room as it needs: decoding needed both. Of interleaved rows prefill reads some, few unless much is wide. */
void rt_residency_set(rt_residency *r, const rt_source *sources, int count, size_t activations) {
    r->sources = sources;
    r->count = count;
    size_t predicting = evictable_bytes(r, RT_EVICT_IN_DECODE), rows = evictable_bytes(r, RT_EVICT_ROWS_IN_PREFILL);
    r->keeps_rows = rows && evictable_bytes(r, RT_EVICT_IN_PREFILL) >= predicting + activations;
    r->trades_all = predicting > rows;
}

void rt_residency_begin_prefill(rt_residency *r, int64_t n) {
    r->prefill_resident = true;
    if (!r->decode_resident) return;
    if (!r->keeps_rows || r->head_resident) release(r, RT_EVICT_ROWS_IN_PREFILL);
    if (r->keeps_rows || r->trades_all || n >= RT_LONG_PROMPT) release(r, RT_EVICT_IN_PREFILL);
    r->decode_resident = r->head_resident = false;
}

void rt_residency_within_prefill(rt_residency *r) {
    if (!r->keeps_rows) release(r, RT_EVICT_ROWS_IN_PREFILL);
}

void rt_residency_begin_decode(rt_residency *r, bool many) {
    r->decode_resident = true;
    if (!r->prefill_resident || !(many || r->trades_all)) return;
    release(r, RT_EVICT_IN_DECODE);
    release(r, RT_EVICT_ALWAYS);
    r->prefill_resident = false;
}

void rt_residency_note_head(rt_residency *r) {
    r->head_resident = true;
}

void rt_residency_note_scoring(rt_residency *r) {
    r->prefill_resident = r->decode_resident = r->head_resident = true;
}
