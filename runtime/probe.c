/* Two loops as fast as the machine lets them: one that reads, one that multiplies. */
#include "runtime/probe.h"

#include "runtime/abi.h"
#include "runtime/team.h"

#include <stdlib.h>
#include <sys/mman.h>

/* Far more than the caches of the machine for all threads together; three square matrices that fit a core's. */
enum { READ_BYTES = 256 << 20, SIZE = 384 };
static const double seconds_each = 0.5;

typedef struct prober {
    uint64_t *memory; /* READ_BYTES */
    float *matrices;  /* per thread: A, B, C */
    uint64_t sums[RT_MAX_THREADS];
    int products; /* per thread and measurement */
} prober;

static uint64_t read_words(const uint64_t *words, size_t count) {
    uint64_t sum[8] = {0};
    for (size_t i = 0; i + 8 <= count; i += 8)
        for (int k = 0; k < 8; k++) sum[k] += words[i + k];
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

static void fill_on_thread(void *user, int thread, int threads) {
    prober *p = user;
    size_t words = READ_BYTES / sizeof *p->memory, from = words * (size_t)thread / (size_t)threads, to = words * (size_t)(thread + 1) / (size_t)threads;
    for (size_t i = from; i < to; i++) p->memory[i] = i;
    float *a = p->matrices + (size_t)thread * 3 * SIZE * SIZE;
    for (size_t i = 0; i < 3 * SIZE * SIZE; i++) a[i] = (float)(i % 7) * 0.25f;
}

static void read_on_thread(void *user, int thread, int threads) {
    prober *p = user;
    size_t words = READ_BYTES / sizeof *p->memory, from = words * (size_t)thread / (size_t)threads, to = words * (size_t)(thread + 1) / (size_t)threads;
    p->sums[thread] += read_words(p->memory + from, to - from);
}

static void multiply_on_thread(void *user, int thread, int threads) {
    prober *p = user;
    float *a = p->matrices + (size_t)thread * 3 * SIZE * SIZE;
    for (int i = 0; i < p->products; i++) rt_sgemm(1, SIZE, SIZE, SIZE, a, SIZE, a + SIZE * SIZE, SIZE, a + 2 * SIZE * SIZE, SIZE);
}

/* The least time of one run. */
static double best_of(rt_team *team, rt_team_fn work, prober *p) {
    double best = 0, end = gm_now() + seconds_each;
    rt_team_run(team, work, p);
    do {
        double start = gm_now();
        rt_team_run(team, work, p);
        double seconds = gm_now() - start;
        if (best == 0 || seconds < best) best = seconds;
    } while (gm_now() < end);
    return best;
}

static void measure(rt_team *team, prober *p, rt_probe *out) {
    double products = (double)p->products * rt_team_threads(team), flop = 2.0 * SIZE * SIZE * SIZE;
    rt_team_run(team, fill_on_thread, p);
    out->bytes_per_s = READ_BYTES / best_of(team, read_on_thread, p);
    out->flop_per_s = products * flop / best_of(team, multiply_on_thread, p);
}

gm_status rt_probe_run(int threads, gm_diag *diag, rt_probe *out) {
    rt_team *team;
    GM_TRY(rt_team_open(threads, diag, &team));
    prober p = {.products = 8};
    void *memory = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p.matrices = aligned_alloc(64, sizeof(float) * 3 * SIZE * SIZE * (size_t)rt_team_threads(team));
    gm_status status = GM_OK;
    if (memory == MAP_FAILED || !p.matrices) status = gm_fail(diag, GM_NOMEM, "out of memory for the probe");
    else {
        madvise(memory, READ_BYTES, MADV_HUGEPAGE);
        p.memory = memory;
        measure(team, &p, out);
    }
    if (memory != MAP_FAILED) munmap(memory, READ_BYTES);
    free(p.matrices);
    rt_team_close(team);
    return status;
}

double rt_roofline_seconds(const rt_probe *probe, double bytes, double flop) {
    if (probe->bytes_per_s <= 0 || probe->flop_per_s <= 0) return 0;
    double memory = bytes / probe->bytes_per_s, arithmetic = flop / probe->flop_per_s;
    return memory > arithmetic ? memory : arithmetic;
}
