/* One thread team per session. Every call of compiled code is one OpenMP parallel region, opened on a thread of the
 * session's own, so that the caller is free to drain the token ring meanwhile. */
#ifndef GM_RUNTIME_TEAM_H
#define GM_RUNTIME_TEAM_H

#include "runtime/base.h"

typedef struct rt_team rt_team;

/* Threads that CPU affinity and the cgroup's quota allow, at least 1, at most RT_MAX_THREADS. */
int rt_team_default_threads(void);

/* threads 0: the default. Fewer where OMP_THREAD_LIMIT allows no more. GM_NOMEM when no thread can be started. */
gm_status rt_team_open(int threads, gm_diag *diag, rt_team **out);
int rt_team_threads(const rt_team *team);

/* work(user, thread, threads) on every thread of the team. start returns at once; wait until done. */
typedef void (*rt_team_fn)(void *user, int thread, int threads);
void rt_team_start(rt_team *team, rt_team_fn work, void *user);
bool rt_team_done(rt_team *team);
void rt_team_wait(rt_team *team);
void rt_team_run(rt_team *team, rt_team_fn work, void *user); /* start and wait */
void rt_team_close(rt_team *team);

#endif
