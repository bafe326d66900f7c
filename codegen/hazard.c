/* Barriers between kernels: one is emitted only where bytes that some thread has written since the last one are read or
 * written, or bytes that some thread has read are written. */
#include "codegen/cg.h"

#include <string.h>

static bool meets(const cg_extent *a, const cg_extent *b) {
    return a->object == b->object && a->object >= 0 && a->low < b->high && b->low < a->high;
}

static bool meets_any(const cg_extent *extent, const cg_extent *list, int count) {
    for (int i = 0; i < count; i++)
        if (meets(extent, &list[i])) return true;
    return false;
}

void cg_wait(cg *c, int64_t inst) {
    LLVMValueRef args[] = {c->code.frame, c->code.thread, cg_i32(c, inst)};
    if (c->options->profile) cg_host_call(c, "rt_profile_barrier", c->void_t, args, 3);
    else cg_host_call(c, "rt_barrier_wait", c->void_t, args, 2);
}

void cg_barrier(cg *c) {
    cg_profile_end(c);
    cg_wait(c, c->inst ? cg_trace_number(c->module, c->inst) : -1);
    c->hazards.read_count = c->hazards.written_count = 0;
}

void cg_settle(cg *c) {
    if (c->hazards.read_count || c->hazards.written_count) cg_barrier(c);
}

void cg_wrote(cg *c, const cg_slot *slot) {
    cg_hazards *h = &c->hazards;
    if (h->written_count == CG_MAX_PENDING) cg_barrier(c);
    else h->written[h->written_count++] = slot->extent;
}

void cg_access(cg *c, const cg_slot *const *reads, int read_count, const cg_slot *const *writes, int write_count) {
    cg_hazards *h = &c->hazards;
    bool wait = h->read_count + read_count > CG_MAX_PENDING || h->written_count + write_count > CG_MAX_PENDING;
    for (int i = 0; i < read_count && !wait; i++) wait = meets_any(&reads[i]->extent, h->written, h->written_count);
    for (int i = 0; i < write_count && !wait; i++)
        wait = meets_any(&writes[i]->extent, h->written, h->written_count) ||
               meets_any(&writes[i]->extent, h->read, h->read_count);
    if (wait) cg_barrier(c);
    cg_profile_work(c);
    for (int i = 0; i < read_count; i++)
        if (reads[i]->extent.object >= 0) h->read[h->read_count++] = reads[i]->extent;
    for (int i = 0; i < write_count; i++) h->written[h->written_count++] = writes[i]->extent;
}
