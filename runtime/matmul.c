/* oneDNN products for compiled code.
 *
 * The team's threads are already parallel when they get here, so each one runs single-threaded primitives on its own
 * columns of the result: rows of W are dealt out once at load, packed per thread, and no thread ever waits for another
 * inside a product.
 */
#include "runtime/matmul.h"
#include "runtime/onednn.h"
#include "runtime/release.h"

#include <stdlib.h>
#include <string.h>

enum { GRAIN = 16, PLANS = 8 };
/* Measured: oneDNN's code and tables; a primitive with what belongs to it, of which a prompt needs one for whole chunks
 * and one for the rest. */
enum { LIBRARY_BYTES = 4 << 20, PRIMITIVE_BYTES = 48 << 10, PROMPT_PRIMITIVES = 2 };

/* A primitive for one number of rows. */
typedef struct plan {
    int64_t rows;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, out;
} plan;

/* One thread's part of one site: result columns first … first+count-1. */
typedef struct share {
    int64_t first, count;
    dnnl_memory_t packed; /* NULL: no columns */
    plan plans[PLANS];
    int plan_count, next_victim;
} share;

typedef struct worker {
    dnnl_stream_t stream;
    float *plain;  /* while opening: the largest share, widened; later x of an emulated product */
    share *shares; /* by site */
    dnnl_status_t status;
} worker;

struct rt_matmul {
    dnnl_engine_t engine;
    const rt_site *sites;
    int count, threads;
    bool native_bf16;
    const void *const *weights;
    worker workers[RT_MAX_THREADS];
    int64_t prepare_rows;
};

static int64_t total_rows(const rt_site *site) {
    int64_t rows = 0;
    for (int i = 0; i < site->weight_count; i++) rows += site->rows[i];
    return rows;
}

/* dst[count][K] = rows first … of the concatenated weights, widened. */
static void widen_rows(const rt_matmul *matmul, const rt_site *site, int64_t first, int64_t count, float *dst) {
    int64_t start = 0;
    for (int i = 0; i < site->weight_count; start += site->rows[i++]) {
        int64_t from = first > start ? first : start, end = start + site->rows[i];
        int64_t to = first + count < end ? first + count : end;
        size_t row_bytes = rt_dtype_bytes((rt_dtype)site->dtypes[i], (size_t)site->columns);
        const char *data = matmul->weights[site->weights[i]];
        for (int64_t row = from; row < to; row++)
            rt_dequantize_row((rt_dtype)site->dtypes[i], data + (size_t)(row - start) * row_bytes,
                              dst + (row - first) * site->columns, (size_t)site->columns);
    }
}

/* ---- primitives ---- */

/* bf16 products of a CPU that has none are f32 products of the rounded values: the same up to the order of sums. */
static bool emulated(const rt_matmul *matmul, const rt_site *site) {
    return site->bf16 && !matmul->native_bf16;
}

static dnnl_data_type_t compute_type(const rt_matmul *matmul, const rt_site *site) {
    return site->bf16 && matmul->native_bf16 ? dnnl_bf16 : dnnl_f32;
}

static int64_t x_stride(const rt_matmul *matmul, const rt_site *site) {
    return emulated(matmul, site) ? site->columns : site->x_stride;
}

/* The primitive for `rows` rows; `weights` is the packed layout, or format "any" to let oneDNN choose it. */
static dnnl_status_t describe(const rt_matmul *matmul, const rt_site *site, const share *s, int64_t rows,
                              const_dnnl_memory_desc_t weights, dnnl_primitive_desc_t *out) {
    dnnl_dims_t x_dims = {rows, site->columns}, x_strides = {x_stride(matmul, site), 1};
    dnnl_dims_t out_dims = {rows, s->count}, out_strides = {site->out_stride, 1};
    dnnl_memory_desc_t x, y;
    DNNL_TRY(dnnl_memory_desc_create_with_strides(&x, 2, x_dims, compute_type(matmul, site), x_strides));
    dnnl_status_t status = dnnl_memory_desc_create_with_strides(&y, 2, out_dims, dnnl_f32, out_strides);
    if (status == dnnl_success) {
        status = dnnl_matmul_primitive_desc_create(out, matmul->engine, x, weights, NULL, y, NULL);
        dnnl_memory_desc_destroy(y);
    }
    dnnl_memory_desc_destroy(x);
    return status;
}

static dnnl_status_t pack_from(const rt_matmul *matmul, const rt_site *site, share *s, worker *w,
                               const_dnnl_memory_desc_t packed, float *plain) {
    dnnl_dims_t dims = {site->columns, s->count}, strides = {1, site->columns};
    dnnl_memory_desc_t plain_desc = NULL;
    dnnl_memory_t source = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_status_t status = dnnl_memory_create(&s->packed, packed, matmul->engine, DNNL_MEMORY_ALLOCATE);
    if (status == dnnl_success) status = dnnl_memory_desc_create_with_strides(&plain_desc, 2, dims, dnnl_f32, strides);
    if (status == dnnl_success) status = dnnl_memory_create(&source, plain_desc, matmul->engine, plain);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&desc, plain_desc, matmul->engine, packed, matmul->engine, NULL);
    if (status == dnnl_success) status = dnnl_primitive_create(&reorder, desc);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, s->packed}};
    if (status == dnnl_success) status = dnnl_primitive_execute(reorder, w->stream, 2, args);
    if (status == dnnl_success) status = dnnl_stream_wait(w->stream);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (source) dnnl_memory_destroy(source);
    if (plain_desc) dnnl_memory_desc_destroy(plain_desc);
    return status;
}

static void round_values(float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++) values[i] = rt_bf16_to_f32(rt_f32_to_bf16(values[i]));
}

static dnnl_status_t pack_share(const rt_matmul *matmul, const rt_site *site, share *s, worker *w) {
    dnnl_dims_t dims = {site->columns, s->count};
    dnnl_memory_desc_t any;
    dnnl_primitive_desc_t desc;
    widen_rows(matmul, site, s->first, s->count, w->plain);
    if (emulated(matmul, site)) round_values(w->plain, s->count * site->columns);
    dnnl_status_t status =
        dnnl_memory_desc_create_with_tag(&any, 2, dims, compute_type(matmul, site), dnnl_format_tag_any);
    if (status == dnnl_success) {
        status = describe(matmul, site, s, site->max_rows, any, &desc);
        dnnl_memory_desc_destroy(any);
    }
    if (status == dnnl_success) {
        status = pack_from(matmul, site, s, w, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0), w->plain);
        dnnl_primitive_desc_destroy(desc);
    }
    return status;
}

static void plan_free(plan *p) {
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->x) dnnl_memory_destroy(p->x);
    if (p->out) dnnl_memory_destroy(p->out);
    *p = (plan){0};
}

static plan *plan_find(share *s, int64_t rows) {
    for (int i = 0; i < s->plan_count; i++)
        if (s->plans[i].rows == rows) return &s->plans[i];
    return NULL;
}

static dnnl_status_t plan_make(const rt_matmul *matmul, const rt_site *site, share *s, int64_t rows, plan **out) {
    const_dnnl_memory_desc_t packed;
    dnnl_primitive_desc_t desc;
    DNNL_TRY(dnnl_memory_get_memory_desc(s->packed, &packed));
    DNNL_TRY(describe(matmul, site, s, rows, packed, &desc));
    int at = s->plan_count < PLANS ? s->plan_count++ : 1 + s->next_victim++ % (PLANS - 1);
    plan *p = &s->plans[at];
    plan_free(p);
    p->rows = rows;
    dnnl_status_t status = dnnl_primitive_create(&p->primitive, desc);
    const_dnnl_memory_desc_t x = dnnl_primitive_desc_query_md(desc, dnnl_query_src_md, 0);
    const_dnnl_memory_desc_t y = dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0);
    if (status == dnnl_success) status = dnnl_memory_create(&p->x, x, matmul->engine, DNNL_MEMORY_NONE);
    if (status == dnnl_success) status = dnnl_memory_create(&p->out, y, matmul->engine, DNNL_MEMORY_NONE);
    dnnl_primitive_desc_destroy(desc);
    if (status != dnnl_success) plan_free(p); /* of 0 rows, which nobody asks for */
    *out = p;
    return status;
}

/* ---- opening ---- */

/* The thread's columns of each site; returns the largest number of floats it has to widen at once. */
static size_t deal_out(const rt_matmul *matmul, worker *w, int thread) {
    size_t most = 0;
    for (int i = 0; i < matmul->count; i++) {
        const rt_site *site = &matmul->sites[i];
        share *s = &w->shares[i];
        int64_t units = (total_rows(site) + GRAIN - 1) / GRAIN, total = total_rows(site);
        int64_t from = units * thread / matmul->threads * GRAIN, to = units * (thread + 1) / matmul->threads * GRAIN;
        s->first = from < total ? from : total;
        s->count = (to < total ? to : total) - s->first;
        int64_t rows = emulated(matmul, site) && s->count < site->max_rows ? site->max_rows : s->count;
        if (most < (size_t)(rows * site->columns)) most = (size_t)(rows * site->columns);
    }
    return most;
}

static bool any_bf16(const rt_matmul *matmul) {
    for (int i = 0; i < matmul->count; i++)
        if (matmul->sites[i].bf16) return true;
    return false;
}

static dnnl_status_t open_worker(rt_matmul *matmul, worker *w, int thread) {
    DNNL_TRY(dnnl_stream_create(&w->stream, matmul->engine, dnnl_stream_default_flags));
    w->plain = malloc((deal_out(matmul, w, thread) + 1) * sizeof *w->plain);
    dnnl_status_t status = w->plain ? dnnl_success : dnnl_out_of_memory;
    for (int i = 0; i < matmul->count && status == dnnl_success; i++)
        if (w->shares[i].count) status = pack_share(matmul, &matmul->sites[i], &w->shares[i], w);
    if (matmul->native_bf16 || !any_bf16(matmul)) {
        free(w->plain);
        w->plain = NULL;
    }
    return status;
}

static void open_on_thread(void *user, int thread, int threads) {
    rt_matmul *matmul = user;
    matmul->workers[thread].status = open_worker(matmul, &matmul->workers[thread], thread);
}

/* Does oneDNN multiply bf16 on this CPU? Asked by describing a product of ordinary size. */
static bool probe_bf16(dnnl_engine_t engine) {
    enum { SIZE = 256 };
    dnnl_dims_t dims = {SIZE, SIZE};
    dnnl_memory_desc_t x = NULL, w = NULL, y = NULL;
    dnnl_primitive_desc_t desc = NULL;
    bool ok = dnnl_memory_desc_create_with_tag(&x, 2, dims, dnnl_bf16, dnnl_ab) == dnnl_success &&
              dnnl_memory_desc_create_with_tag(&w, 2, dims, dnnl_bf16, dnnl_format_tag_any) == dnnl_success &&
              dnnl_memory_desc_create_with_tag(&y, 2, dims, dnnl_f32, dnnl_ab) == dnnl_success &&
              dnnl_matmul_primitive_desc_create(&desc, engine, x, w, NULL, y, NULL) == dnnl_success;
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (x) dnnl_memory_desc_destroy(x);
    if (w) dnnl_memory_desc_destroy(w);
    if (y) dnnl_memory_desc_destroy(y);
    return ok;
}

static gm_status collect(const rt_matmul *matmul, gm_diag *diag) {
    for (int i = 0; i < matmul->threads; i++) {
        dnnl_status_t status = matmul->workers[i].status;
        if (status == dnnl_out_of_memory) return gm_fail(diag, GM_NOMEM, "out of memory packing weights");
        if (status != dnnl_success)
            return gm_fail(diag, GM_UNSUPPORTED, "oneDNN refuses a product (status %d)", (int)status);
    }
    return GM_OK;
}

static bool cpu_multiplies_bf16(void) {
    return __builtin_cpu_supports("avx512bf16");
}

int64_t rt_matmul_packed_bytes(const rt_site *sites, int count) {
    int64_t bytes = 0;
    for (int i = 0; i < count; i++) {
        int64_t elem = sites[i].bf16 && cpu_multiplies_bf16() ? (int64_t)sizeof(uint16_t) : (int64_t)sizeof(float);
        bytes += total_rows(&sites[i]) * sites[i].columns * elem;
    }
    return bytes;
}

/* Of each thread while products of bf16 are emulated: its columns widened, or x. */
static int64_t plain_floats(const rt_site *sites, int count, int threads) {
    int64_t most = 0;
    for (int i = 0; i < count; i++) {
        int64_t columns = total_rows(&sites[i]) / threads,
                rows = columns < sites[i].max_rows ? sites[i].max_rows : columns;
        if (sites[i].bf16 && most < rows * sites[i].columns) most = rows * sites[i].columns;
    }
    return cpu_multiplies_bf16() ? 0 : most;
}

int64_t rt_matmul_fixed_bytes(const rt_site *sites, int count, int threads) {
    int64_t per_thread = count * (int64_t)PRIMITIVE_BYTES * PROMPT_PRIMITIVES +
                         plain_floats(sites, count, threads) * (int64_t)sizeof(float);
    return LIBRARY_BYTES + threads * per_thread;
}

gm_status rt_matmul_open(const rt_site *sites, int count, const void *const *weights, rt_team *team, gm_diag *diag,
                         rt_matmul **out) {
    rt_matmul *matmul = calloc(1, sizeof *matmul);
    if (!matmul) return gm_fail(diag, GM_NOMEM, "out of memory");
    *matmul = (rt_matmul){.sites = sites, .count = count, .threads = rt_team_threads(team), .weights = weights};
    gm_status status = GM_OK;
    for (int i = 0; i < matmul->threads; i++)
        if (!(matmul->workers[i].shares = calloc((size_t)count + 1, sizeof(share))))
            status = gm_fail(diag, GM_NOMEM, "out of memory");
    if (status == GM_OK && dnnl_engine_create(&matmul->engine, dnnl_cpu, 0) != dnnl_success)
        status = gm_fail(diag, GM_UNSUPPORTED, "oneDNN has no CPU engine here");
    if (status == GM_OK) {
        matmul->native_bf16 = cpu_multiplies_bf16() && probe_bf16(matmul->engine);
        rt_team_run(team, open_on_thread, matmul);
        status = collect(matmul, diag);
    }
    if (status != GM_OK) {
        rt_matmul_close(matmul);
        return status;
    }
    rt_release_library("libdnnl"); /* most of what loading it touched */
    *out = matmul;
    return GM_OK;
}

/* Will the thread multiply so many rows at this site, and has no primitive for it? */
static bool wants_plan(const rt_matmul *matmul, int thread, int site, int64_t rows) {
    share *s = &matmul->workers[thread].shares[site];
    return s->packed && rows <= matmul->sites[site].max_rows && !plan_find(s, rows);
}

static void prepare_on_thread(void *user, int thread, int threads) {
    rt_matmul *matmul = user;
    worker *w = &matmul->workers[thread];
    w->status = dnnl_success;
    for (int i = 0; i < matmul->count && w->status == dnnl_success; i++) {
        plan *p;
        if (wants_plan(matmul, thread, i, matmul->prepare_rows))
            w->status = plan_make(matmul, &matmul->sites[i], &w->shares[i], matmul->prepare_rows, &p);
    }
}

gm_status rt_matmul_prepare(rt_matmul *matmul, int64_t rows, rt_team *team, gm_diag *diag) {
    if (rows < 1) return GM_OK;
    bool known = true;
    for (int t = 0; t < matmul->threads; t++)
        for (int i = 0; i < matmul->count; i++) known &= !wants_plan(matmul, t, i, rows);
    if (known) return GM_OK;
    matmul->prepare_rows = rows;
    rt_team_run(team, prepare_on_thread, matmul);
    return collect(matmul, diag);
}

static void close_share(share *s) {
    for (int i = 0; i < s->plan_count; i++) plan_free(&s->plans[i]);
    if (s->packed) dnnl_memory_destroy(s->packed);
}

void rt_matmul_close(rt_matmul *matmul) {
    if (!matmul) return;
    for (int t = 0; t < matmul->threads; t++) {
        worker *w = &matmul->workers[t];
        for (int i = 0; w->shares && i < matmul->count; i++) close_share(&w->shares[i]);
        free(w->shares);
        free(w->plain);
        if (w->stream) dnnl_stream_destroy(w->stream);
    }
    if (matmul->engine) dnnl_engine_destroy(matmul->engine);
    free(matmul);
}

/* ---- running ---- */

void rt_sgemm(int32_t transposed, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
              int64_t ldb, float *c, int64_t ldc) {
    dnnl_status_t status = dnnl_sgemm('N', transposed ? 'T' : 'N', m, n, k, 1.0f, a, lda, b, ldb, 0, c, ldc);
    GM_ASSERT(status == dnnl_success);
}

static const float *widen_x(const rt_site *site, worker *w, const uint16_t *x, int64_t m) {
    for (int64_t row = 0; row < m; row++)
        for (int64_t k = 0; k < site->columns; k++)
            w->plain[row * site->columns + k] = rt_bf16_to_f32(x[row * site->x_stride + k]);
    return w->plain;
}

void rt_matmul_run(rt_frame *frame, int64_t number, int32_t thread, const void *x, int64_t m, float *out) {
    rt_matmul *matmul = frame->matmul;
    worker *w = &matmul->workers[thread];
    const rt_site *site = &matmul->sites[number];
    share *s = &w->shares[number];
    if (!s->count || !m) return;
    plan *p = plan_find(s, m);
    if (!p) GM_ASSERT(plan_make(matmul, site, s, m, &p) == dnnl_success);
    if (emulated(matmul, site)) x = widen_x(site, w, x, m);
    dnnl_memory_set_data_handle(p->x, (void *)x);
    dnnl_memory_set_data_handle(p->out, out + s->first);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->x}, {DNNL_ARG_WEIGHTS, s->packed}, {DNNL_ARG_DST, p->out}};
    GM_ASSERT(dnnl_primitive_execute(p->primitive, w->stream, 3, args) == dnnl_success);
}
