/* Events of compiled code: the three calls that it makes when it was compiled for a profile, and the buffers they
 * fill. */
#include "runtime/profile.h"

#include <stdlib.h>
#include <sys/mman.h>

/* One thread's buffer, and the instruction it is in. */
typedef struct track {
    _Alignas(64) rt_event *events;
    int64_t count, dropped;
    rt_event open;
    bool is_open;
} track;

struct rt_profile {
    int threads;
    int64_t capacity; /* events per thread */
    int64_t first_ticks;
    double first_seconds;
    track tracks[RT_MAX_THREADS];
};

int64_t rt_ticks(void) {
    return (int64_t)__builtin_ia32_rdtsc();
}

gm_status rt_profile_open(int threads, int64_t events, gm_diag *diag, rt_profile **out) {
    rt_profile *profile = aligned_alloc(64, sizeof *profile);
    if (!profile) return gm_fail(diag, GM_NOMEM, "out of memory");
    *profile =
        (rt_profile){.threads = threads, .capacity = events, .first_ticks = rt_ticks(), .first_seconds = gm_now()};
    size_t bytes = (size_t)events * sizeof(rt_event);
    for (int i = 0; i < threads && events; i++) {
        void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (pages == MAP_FAILED) {
            rt_profile_close(profile);
            return gm_fail(diag, GM_NOMEM, "out of memory for %lld events of %d threads", (long long)events, threads);
        }
        profile->tracks[i].events = pages;
    }
    *out = profile;
    return GM_OK;
}

void rt_profile_close(rt_profile *profile) {
    if (!profile) return;
    for (int i = 0; i < profile->threads; i++)
        if (profile->tracks[i].events) munmap(profile->tracks[i].events, (size_t)profile->capacity * sizeof(rt_event));
    free(profile);
}

void rt_profile_reset(rt_profile *profile) {
    for (int i = 0; i < profile->threads; i++) {
        track *t = &profile->tracks[i];
        t->count = t->dropped = 0;
        t->is_open = false;
    }
}

const rt_event *rt_profile_events(const rt_profile *profile, int thread, int64_t *out_count) {
    *out_count = profile->tracks[thread].count;
    return profile->tracks[thread].events;
}

int64_t rt_profile_dropped(const rt_profile *profile, int thread) {
    return profile->tracks[thread].dropped;
}

double rt_profile_rate(const rt_profile *profile) {
    return (double)(rt_ticks() - profile->first_ticks) / (gm_now() - profile->first_seconds);
}

/* ---- what compiled code calls ---- */

static void push(const rt_profile *profile, track *t, const rt_event *event) {
    if (t->count < profile->capacity) t->events[t->count++] = *event;
    else t->dropped++;
}

void rt_profile_begin(rt_frame *frame, int32_t thread, int32_t inst, int32_t kind, int32_t extent, int32_t position) {
    if (!frame->profile) return;
    track *t = &frame->profile->tracks[thread];
    t->is_open = true;
    t->open = (rt_event){.inst = inst, .kind = kind, .extent = extent, .position = position, .start = rt_ticks()};
}

void rt_profile_end(rt_frame *frame, int32_t thread) {
    if (!frame->profile) return;
    track *t = &frame->profile->tracks[thread];
    t->open.end = rt_ticks();
    t->is_open = false;
    push(frame->profile, t, &t->open);
}

/* Within an instruction the barrier parts it in two events, so that none holds another. */
void rt_profile_barrier(rt_frame *frame, int32_t thread, int32_t inst) {
    if (!frame->profile) {
        rt_barrier_wait(frame, thread);
        return;
    }
    track *t = &frame->profile->tracks[thread];
    rt_event wait = {.start = rt_ticks(), .inst = t->is_open ? t->open.inst : inst, .kind = RT_EVENT_WAIT};
    if (t->is_open) {
        t->open.end = wait.start;
        push(frame->profile, t, &t->open);
    }
    rt_barrier_wait(frame, thread);
    wait.end = rt_ticks();
    push(frame->profile, t, &wait);
    t->open.kind = RT_EVENT_MORE;
    t->open.start = wait.end;
}
