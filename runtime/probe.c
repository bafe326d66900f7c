/* Two loops as fast as the machine lets them: one that reads, one that multiplies. */
#include "runtime/probe.h"

#include "runtime/abi.h"
#include "runtime/onednn.h"
#include "runtime/team.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Far more than the caches of the machine for all threads together; the sides of square matrices that fit a core's. */
enum { READ_BYTES = 256 << 20, SIZE = 512, PRODUCTS = 4 /* per thread and measurement */ };
static const double seconds_each = 0.5;

/* A product x·w = y of oneDNN that one thread runs, w laid out as it likes best. */
typedef struct multiplier {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[3];
    void *data[3];
    dnnl_status_t status;
} multiplier;

typedef struct prober {
    uint64_t *memory; /* READ_BYTES */
    uint64_t sums[RT_MAX_THREADS];
    dnnl_data_type_t type;
    multiplier multipliers[RT_MAX_THREADS];
} prober;

static uint64_t read_words(const uint64_t *words, size_t count) {
    uint64_t sum[8] = {0};
    for (size_t i = 0; i + 8 <= count; i += 8)
        for (int k = 0; k < 8; k++) sum[k] += words[i + k];
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

static void fill_on_thread(void *user, int thread, int threads) {
    prober *p = user;
    size_t words = READ_BYTES / sizeof *p->memory, from = words * (size_t)thread / (size_t)threads,
           to = words * (size_t)(thread + 1) / (size_t)threads;
    for (size_t i = from; i < to; i++) p->memory[i] = i;
}

static void read_on_thread(void *user, int thread, int threads) {
    prober *p = user;
    size_t words = READ_BYTES / sizeof *p->memory, from = words * (size_t)thread / (size_t)threads,
           to = words * (size_t)(thread + 1) / (size_t)threads;
    p->sums[thread] += read_words(p->memory + from, to - from);
}

/* ---- products ---- */

static dnnl_status_t open_memory(multiplier *m, int which, const_dnnl_memory_desc_t desc) {
    size_t bytes = dnnl_memory_desc_get_size(desc);
    m->data[which] = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!m->data[which]) return dnnl_out_of_memory;
    memset(m->data[which], 0, bytes);
    return dnnl_memory_create(&m->memory[which], desc, m->engine, m->data[which]);
}

static dnnl_status_t describe(multiplier *m, dnnl_data_type_t type, dnnl_memory_desc_t *descs,
                              dnnl_primitive_desc_t *out) {
    dnnl_dims_t dims = {SIZE, SIZE};
    DNNL_TRY(dnnl_engine_create(&m->engine, dnnl_cpu, 0));
    DNNL_TRY(dnnl_stream_create(&m->stream, m->engine, dnnl_stream_default_flags));
    DNNL_TRY(dnnl_memory_desc_create_with_tag(&descs[0], 2, dims, type, dnnl_ab));
    DNNL_TRY(dnnl_memory_desc_create_with_tag(&descs[1], 2, dims, type, dnnl_format_tag_any));
    DNNL_TRY(dnnl_memory_desc_create_with_tag(&descs[2], 2, dims, type == dnnl_s8 ? dnnl_s32 : dnnl_f32, dnnl_ab));
    DNNL_TRY(dnnl_matmul_primitive_desc_create(out, m->engine, descs[0], descs[1], NULL, descs[2], NULL));
    DNNL_TRY(dnnl_primitive_create(&m->primitive, *out));
    DNNL_TRY(open_memory(m, 0, descs[0]));
    DNNL_TRY(open_memory(m, 1, dnnl_primitive_desc_query_md(*out, dnnl_query_weights_md, 0)));
    return open_memory(m, 2, descs[2]);
}

static void open_on_thread(void *user, int thread, int threads) {
    prober *p = user;
    dnnl_memory_desc_t descs[3] = {NULL};
    dnnl_primitive_desc_t desc = NULL;
    p->multipliers[thread].status = describe(&p->multipliers[thread], p->type, descs, &desc);
    if (desc) dnnl_primitive_desc_destroy(desc);
    for (size_t i = 0; i < GM_COUNT(descs); i++)
        if (descs[i]) dnnl_memory_desc_destroy(descs[i]);
}

static void multiply_on_thread(void *user, int thread, int threads) {
    prober *p = user;
    multiplier *m = &p->multipliers[thread];
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, m->memory[0]}, {DNNL_ARG_WEIGHTS, m->memory[1]}, {DNNL_ARG_DST, m->memory[2]}};
    for (int i = 0; i < PRODUCTS; i++)
        GM_ASSERT(dnnl_primitive_execute(m->primitive, m->stream, 3, args) == dnnl_success);
}

static void close_multipliers(prober *p, int threads) {
    for (int i = 0; i < threads; i++) {
        multiplier *m = &p->multipliers[i];
        for (size_t k = 0; k < GM_COUNT(m->memory); k++) {
            if (m->memory[k]) dnnl_memory_destroy(m->memory[k]);
            free(m->data[k]);
        }
        if (m->primitive) dnnl_primitive_destroy(m->primitive);
        if (m->stream) dnnl_stream_destroy(m->stream);
        if (m->engine) dnnl_engine_destroy(m->engine);
        *m = (multiplier){0};
    }
}

/* False: oneDNN has no product of this type on this CPU. */
static bool open_multipliers(rt_team *team, prober *p, dnnl_data_type_t type) {
    int threads = rt_team_threads(team);
    p->type = type;
    rt_team_run(team, open_on_thread, p);
    for (int i = 0; i < threads; i++) {
        if (p->multipliers[i].status == dnnl_success) continue;
        close_multipliers(p, threads);
        return false;
    }
    return true;
}

/* ---- measuring ---- */

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

static gm_status measure(rt_team *team, prober *p, rt_dtype products, gm_diag *diag, rt_probe *out) {
    double flop = 2.0 * SIZE * SIZE * SIZE * PRODUCTS * rt_team_threads(team);
    dnnl_data_type_t type = products == RT_I8 ? dnnl_s8 : products == RT_BF16 ? dnnl_bf16 : dnnl_f32;
    rt_team_run(team, fill_on_thread, p);
    out->bytes_per_s = READ_BYTES / best_of(team, read_on_thread, p);
    out->products = products;
    if (!open_multipliers(team, p, type)) {
        out->products = RT_F32;
        if (!open_multipliers(team, p, dnnl_f32))
            return gm_fail(diag, GM_UNSUPPORTED, "oneDNN refuses a product of f32");
    }
    out->flop_per_s = flop / best_of(team, multiply_on_thread, p);
    close_multipliers(p, rt_team_threads(team));
    return GM_OK;
}

gm_status rt_probe_run(int threads, rt_dtype products, gm_diag *diag, rt_probe *out) {
    rt_team *team;
    GM_TRY(rt_team_open(threads, diag, &team));
    prober *p = calloc(1, sizeof *p);
    void *memory = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    gm_status status = GM_OK;
    if (memory == MAP_FAILED || !p) status = gm_fail(diag, GM_NOMEM, "out of memory for the probe");
    else {
        madvise(memory, READ_BYTES, MADV_HUGEPAGE);
        p->memory = memory;
        status = measure(team, p, products, diag, out);
    }
    if (memory != MAP_FAILED) munmap(memory, READ_BYTES);
    free(p);
    rt_team_close(team);
    return status;
}

double rt_roofline_seconds(const rt_probe *probe, double bytes, double flop) {
    if (probe->bytes_per_s <= 0 || probe->flop_per_s <= 0) return 0;
    double memory = bytes / probe->bytes_per_s, arithmetic = flop / probe->flop_per_s;
    return memory > arithmetic ? memory : arithmetic;
}
