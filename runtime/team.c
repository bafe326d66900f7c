/* The thread team and the barrier that compiled code calls. */
#include "runtime/team.h"

#include "runtime/abi.h"
#include "runtime/profile.h"

#include <limits.h>
#include <linux/futex.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Ticks of rt_ticks, the time-stamp counter: at 2.5 GHz a tenth of a millisecond, and four milliseconds. */
enum { SPIN_TICKS = 250000, YIELD_TICKS = 40 * SPIN_TICKS };

struct rt_team {
    pthread_t conductor;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int threads;
    bool busy, quit;
    rt_team_fn work;
    void *user;
};

/* ---- how many threads ---- */

/* CPUs' worth of time per period, from cgroup v2, else v1; 0: no limit known. */
static double cgroup_quota(void) {
    double quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (file) {
        int found = fscanf(file, "%lf %lf", &quota, &period);
        fclose(file);
        return found == 2 && period > 0 ? quota / period : 0;
    }
    FILE *q = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"),
         *p = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r");
    bool both = q && p && fscanf(q, "%lf", &quota) == 1 && fscanf(p, "%lf", &period) == 1;
    if (q) fclose(q);
    if (p) fclose(p);
    return both && quota > 0 && period > 0 ? quota / period : 0;
}

int rt_team_default_threads(void) {
    cpu_set_t set;
    int threads = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    double quota = cgroup_quota();
    if (quota > 0 && quota < threads) threads = (int)(quota + 0.5);
    if (threads < 1) threads = 1;
    return threads > RT_MAX_THREADS ? RT_MAX_THREADS : threads;
}

/* How many threads OpenMP will start. If it started fewer than compiled code is told, these would wait at the first
 * barrier for ever. */
static int startable(int threads) {
    int limit = omp_get_thread_limit();
    return threads < limit ? threads : limit;
}

/* ---- the conductor ---- */

static void conduct(rt_team *team) {
#pragma omp parallel num_threads(team->threads)
    team->work(team->user, omp_get_thread_num(), team->threads);
}

static void *conductor_main(void *argument) {
    rt_team *team = argument;
    omp_set_dynamic(0);
    omp_set_max_active_levels(1); /* the team's region, whatever the environment allows */
    omp_set_num_threads(1); /* what oneDNN opens inside the team's region must not add threads, even in a team of one */
    pthread_mutex_lock(&team->lock);
    while (!team->quit) {
        if (!team->busy) {
            pthread_cond_wait(&team->changed, &team->lock);
            continue;
        }
        pthread_mutex_unlock(&team->lock);
        conduct(team);
        pthread_mutex_lock(&team->lock);
        team->busy = false;
        pthread_cond_broadcast(&team->changed);
    }
    pthread_mutex_unlock(&team->lock);
    return NULL;
}

gm_status rt_team_open(int threads, gm_diag *diag, rt_team **out) {
    if (threads < 0 || threads > RT_MAX_THREADS)
        return gm_fail(diag, GM_INVALID, "threads must be 1..%d, found %d", RT_MAX_THREADS, threads);
    rt_team *team = calloc(1, sizeof *team);
    if (!team) return gm_fail(diag, GM_NOMEM, "out of memory");
    team->threads = startable(threads ? threads : rt_team_default_threads());
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->changed, NULL);
    if (pthread_create(&team->conductor, NULL, conductor_main, team)) {
        free(team);
        return gm_fail(diag, GM_NOMEM, "cannot start a thread");
    }
    *out = team;
    return GM_OK;
}

int rt_team_threads(const rt_team *team) {
    return team->threads;
}

void rt_team_start(rt_team *team, rt_team_fn work, void *user) {
    pthread_mutex_lock(&team->lock);
    GM_ASSERT(!team->busy);
    team->work = work;
    team->user = user;
    team->busy = true;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
}

bool rt_team_done(rt_team *team) {
    pthread_mutex_lock(&team->lock);
    bool done = !team->busy;
    pthread_mutex_unlock(&team->lock);
    return done;
}

void rt_team_wait(rt_team *team) {
    pthread_mutex_lock(&team->lock);
    while (team->busy) pthread_cond_wait(&team->changed, &team->lock);
    pthread_mutex_unlock(&team->lock);
}

void rt_team_run(rt_team *team, rt_team_fn work, void *user) {
    rt_team_start(team, work, user);
    rt_team_wait(team);
}

void rt_team_close(rt_team *team) {
    if (!team) return;
    pthread_mutex_lock(&team->lock);
    team->quit = true;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
    pthread_join(team->conductor, NULL);
    pthread_mutex_destroy(&team->lock);
    pthread_cond_destroy(&team->changed);
    free(team);
}

/* ---- the barrier ---- */

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool passed(rt_barrier *barrier, unsigned phase) {
    return atomic_load_explicit(&barrier->phase, memory_order_acquire) != phase;
}

/* Sleep until the phase changes. The last to arrive looks for sleepers after changing it, so none is missed. */
static void sleep_until(rt_barrier *barrier, unsigned phase) {
    atomic_fetch_add(&barrier->sleepers, 1);
    while (!passed(barrier, phase)) syscall(SYS_futex, &barrier->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
    atomic_fetch_sub(&barrier->sleepers, 1);
}

/* Was another thread on this thread's CPU when it last arrived at a barrier? Then this thread must not spin while it
 * waits: the other cannot run meanwhile. */
static bool shares_cpu(rt_barrier *barrier, int32_t thread, int32_t threads) {
    int here = sched_getcpu() + 1;
    if (atomic_load_explicit(&barrier->cpu[thread], memory_order_relaxed) != here)
        atomic_store_explicit(&barrier->cpu[thread], here, memory_order_relaxed);
    for (int32_t i = 0; i < threads; i++)
        if (i != thread && atomic_load_explicit(&barrier->cpu[i], memory_order_relaxed) == here) return true;
    return false;
}

/* Counting barrier with a phase number. The last thread to arrive resets the counter of dealt work (codegen/deal.c) and
 * opens the next phase. The others spin for about as long as it takes to fall asleep and be woken (a kernel takes
 * microseconds), then sleep, so that whatever keeps the missing thread off its CPU can finish. Threads that share a CPU
 * yield it to each other at once, and sleep only after the time of the longest kernels: waking a thread costs as much
 * as many kernels. */
void rt_barrier_wait(rt_frame *frame, int32_t thread) {
    rt_barrier *barrier = &frame->barrier;
    if (frame->threads == 1) {
        atomic_store_explicit(&barrier->dealt, 0, memory_order_relaxed);
        return;
    }
    bool shared = shares_cpu(barrier, thread, frame->threads);
    unsigned phase = atomic_load_explicit(&barrier->phase, memory_order_relaxed);
    unsigned arrived = atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) + 1;
    if (arrived == (unsigned)frame->threads) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&barrier->dealt, 0, memory_order_relaxed);
        atomic_store(&barrier->phase, phase + 1);
        if (atomic_load(&barrier->sleepers))
            syscall(SYS_futex, &barrier->phase, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        return;
    }
    int64_t end = rt_ticks() + (shared ? YIELD_TICKS : SPIN_TICKS);
    while (!passed(barrier, phase) && rt_ticks() < end) {
        if (shared) sched_yield();
        else relax();
    }
    if (!passed(barrier, phase)) sleep_until(barrier, phase);
}
