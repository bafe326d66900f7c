/* Deriving weights: names, and matrices one after the other, in slices of rows on the threads of a team. No thread
 * waits for others at the end of a matrix. */
#include "runtime/derive.h"
#include "runtime/interleave.h"
#include "runtime/lanes.h"
#include "runtime/panel.h"
#include "runtime/release.h"
#include "runtime/screen.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE_ROWS = 1024, SHARES = 8 /* slices to a thread, of matrices that are not large */, GROUP = 16 };
_Static_assert((int)RT_DERIVED_COUNT <= (int)RT_WEIGHT_POOLS, "a pool for each kind");
_Static_assert((int)RT_SCREEN_ROWS == (int)GROUP && (int)RT_INTERLEAVED_ROWS == (int)GROUP &&
                   (int)RT_PANEL_ROWS == (int)GROUP && (int)RT_LANES == (int)GROUP,
               "groups of sixteen rows");

/* ---- kinds ---- */

typedef struct derivation {
    const rt_tensor *source;
    rt_dtype type; /* of what is derived */
    uint8_t *out;
    bool mapped; /* the source's pages can be read from their file again */
    atomic_bool failed;
} derivation;

/* scratch: GROUP floats for each column. */
typedef void (*group_fn)(const derivation *work, size_t group, float *scratch);

static size_t columns_of(const derivation *work) {
    return (size_t)work->source->dim[1];
}

static rt_screened screened_of(const derivation *work) {
    const rt_tensor *source = work->source;
    return (rt_screened){source->dtype, source->dim[0], source->dim[1], source->data};
}

static void screen_order(const derivation *work, float *row) {
    rt_screened matrix = screened_of(work);
    rt_screen_order(&matrix, row, work->out);
}

static void screen_group(const derivation *work, size_t group, float *scratch) {
    rt_screened matrix = screened_of(work);
    rt_screen_group(&matrix, (int64_t)group, scratch, work->out);
}

static size_t group_bytes(rt_dtype dtype, const derivation *work) {
    return GROUP * rt_dtype_bytes(dtype, columns_of(work));
}

static void interleave_group(const derivation *work, size_t group, float *scratch) {
    rt_dtype stored = work->source->dtype;
    const uint8_t *rows = (const uint8_t *)work->source->data + group * group_bytes(stored, work);
    rt_interleave_group(stored, rows, columns_of(work), work->out + group * group_bytes(work->type, work));
}

static void panel_group(const derivation *work, size_t group, float *scratch) {
    const uint8_t *rows = (const uint8_t *)work->source->data + group * group_bytes(work->source->dtype, work);
    rt_panel_group(work->source->dtype, rows, work->source->dim[1], scratch,
                   work->out + group * group_bytes(work->type, work));
}

static bool screen_shape(rt_tensor *matrix) {
    bool can = rt_can_screen(matrix->dtype) && rt_can_screen_columns(matrix->dim[1]);
    matrix->dtype = RT_S4;
    rt_screen_shape(matrix->dim[0], matrix->dim[1], matrix->dim);
    return can;
}

static bool rows_shape(rt_tensor *matrix) {
    matrix->dtype = rt_interleaved_type(matrix->dtype);
    return matrix->dtype != RT_DTYPE_COUNT && matrix->dim[0] % GROUP == 0 &&
           matrix->dim[1] % rt_dtype_of(matrix->dtype)->block_elems == 0;
}

static bool panels_shape(rt_tensor *matrix) {
    rt_dtype_class class = rt_dtype_of(matrix->dtype)->class;
    matrix->dtype = RT_I8_P16;
    return (class == RT_CLASS_FLOAT || class == RT_CLASS_QUANT) && matrix->dim[0] % GROUP == 0 &&
           matrix->dim[1] % RT_PANEL_BLOCK == 0;
}

static const struct {
    const char *suffix, *expected;
    /* a matrix's type and dim become those of what is derived from it; false: nothing can be */
    bool (*shape)(rt_tensor *matrix);
    void (*begin)(const derivation *work, float *row); /* before any group; NULL: nothing */
    group_fn group;
} kinds[RT_DERIVED_COUNT] = {
    [RT_DERIVED_SCREEN] =
        {":s4",
         "a screen: expected a matrix of f32, f16, bf16, q8_0 or q6_k and a multiple of 32 columns, at least 128",
         screen_shape, screen_order, screen_group},
    [RT_DERIVED_ROWS] =
        {":r16",
         "interleaved rows: expected a matrix of q4_0, q5_0, q8_0, q4_k, q5_k or q6_k and a multiple of 16 rows",
         rows_shape, NULL, interleave_group},
    [RT_DERIVED_PANELS] =
        {":p16",
         "panels of 8-bit integers: expected a matrix of floats or of blocks, a multiple of 16 rows and of 128 columns",
         panels_shape, NULL, panel_group},
};

/* ---- names ---- */

const char *rt_derived_name(gm_arena *arena, rt_derived kind, const char *name) {
    return gm_arena_printf(arena, "%s%s", name, kinds[kind].suffix);
}

rt_derived rt_derived_kind(const char *name) {
    size_t length = strlen(name);
    for (rt_derived kind = 0; kind < RT_DERIVED_COUNT; kind++) {
        size_t tail = strlen(kinds[kind].suffix);
        if (length > tail && strcmp(name + length - tail, kinds[kind].suffix) == 0) return kind;
    }
    return RT_DERIVED_COUNT;
}

size_t rt_derived_source(const char *name) {
    rt_derived kind = rt_derived_kind(name);
    return kind == RT_DERIVED_COUNT ? 0 : strlen(name) - strlen(kinds[kind].suffix);
}

/* Is `source` the first `length` bytes of a derived name? */
static bool begins(const char *name, size_t length, const char *source) {
    return length && strncmp(source, name, length) == 0 && !source[length];
}

bool rt_is_derived_from(const char *name, const char *source) {
    return begins(name, rt_derived_source(name), source);
}

const rt_tensor *rt_derived_from(const rt_weights *weights, const char *name) {
    size_t length = rt_derived_source(name);
    for (size_t i = 0; length && i < weights->count; i++)
        if (begins(name, length, weights->tensors[i].name)) return &weights->tensors[i];
    return NULL;
}

bool rt_derived_alike(const char *a, const char *b) {
    size_t length = rt_derived_source(a);
    return length && rt_derived_source(b) == length && strncmp(a, b, length) == 0;
}

bool rt_is_screen(const char *name) {
    return rt_derived_kind(name) == RT_DERIVED_SCREEN;
}

bool rt_is_panels(const char *name) {
    return rt_derived_kind(name) == RT_DERIVED_PANELS;
}

bool rt_derived_shape(const char *name, const rt_tensor *source, rt_tensor *out) {
    rt_derived kind = rt_derived_kind(name);
    *out = (rt_tensor){.name = name, .dtype = source->dtype, .rank = 2, .dim = {source->dim[0], source->dim[1]}};
    if (kind == RT_DERIVED_COUNT || source->rank != 2 || !kinds[kind].shape(out)) return false;
    out->bytes = rt_dtype_bytes(out->dtype, (size_t)(out->dim[0] * out->dim[1]));
    return true;
}

bool rt_is_derived(const rt_weights *weights, const rt_tensor *tensor) {
    const rt_tensor *source = rt_derived_from(weights, tensor->name);
    rt_tensor like;
    return source && rt_derived_shape(tensor->name, source, &like) && tensor->dtype == like.dtype &&
           tensor->rank == like.rank && memcmp(like.dim, tensor->dim, sizeof like.dim) == 0;
}

/* ---- matrices ---- */

typedef struct job {
    derivation work;
    rt_derived kind;
    rt_tensor made;
    pthread_mutex_t lock; /* while it begins */
    bool begun, done, in_file;
    atomic_size_t next; /* row that no thread has taken */
    atomic_size_t left; /* rows that are not made */
} job;

struct rt_deriving {
    rt_weights *weights;
    rt_team *team; /* NULL: they are made at the end */
    rt_derived_use use;
    rt_derived_fn made;
    void *user;
    job *jobs;
    size_t count, told; /* told: the first ones, of which `made` knows */
    pthread_mutex_t lock;
};

/* Whole groups. */
static size_t rows_of(const job *j) {
    return (size_t)j->work.source->dim[0] / GROUP * GROUP;
}

/* Rows to a slice, whole groups. */
static size_t slice_of(size_t rows, int threads) {
    size_t slice = rows / (SHARES * (size_t)threads) / GROUP * GROUP;
    return slice < GROUP ? GROUP : slice < SLICE_ROWS ? slice : SLICE_ROWS;
}

static void tell(rt_deriving *d, job *done) {
    pthread_mutex_lock(&d->lock);
    done->done = true;
    for (; d->told < d->count && d->jobs[d->told].done; d->told++)
        if (d->made && !atomic_load(&d->jobs[d->told].work.failed)) d->made(d->user, &d->jobs[d->told].made);
    pthread_mutex_unlock(&d->lock);
}

static void let_go(const void *data, size_t bytes) {
    rt_release_pages(data, (const uint8_t *)data + bytes);
}

/* No row is left. */
static void finish(rt_deriving *d, job *j) {
    if (j->work.mapped) let_go(j->work.source->data, j->work.source->bytes);
    if (j->in_file && d->use == RT_DERIVED_LET_GO) let_go(j->made.data, j->made.bytes);
    tell(d, j);
}

/* Before any group. */
static void begin(rt_deriving *d, job *j) {
    pthread_mutex_lock(&j->lock);
    bool first = !j->begun;
    if (first && kinds[j->kind].begin) {
        float *row = malloc(columns_of(&j->work) * sizeof *row);
        if (row) kinds[j->kind].begin(&j->work, row);
        else atomic_store(&j->work.failed, true);
        free(row);
    }
    j->begun = true;
    pthread_mutex_unlock(&j->lock);
    if (first && !rows_of(j)) finish(d, j);
}

/* Slices of rows, as threads come for them: others may be at work on the same cores. */
static void derive_slices(rt_deriving *d, job *j, int threads) {
    derivation *work = &j->work;
    size_t rows = rows_of(j), slice = slice_of(rows, threads),
           in_bytes = rt_dtype_bytes(work->source->dtype, columns_of(work));
    const uint8_t *in = work->source->data;
    float *scratch = malloc(GROUP * columns_of(work) * sizeof *scratch);
    if (!scratch) atomic_store(&work->failed, true);
    for (size_t start; (start = atomic_fetch_add(&j->next, slice)) < rows;) {
        size_t end = start + slice < rows ? start + slice : rows;
        for (size_t i = start; i < end && !atomic_load(&work->failed); i += GROUP)
            kinds[j->kind].group(work, i / GROUP, scratch);
        /* of a large matrix, little by little */
        if (work->mapped && slice == SLICE_ROWS) rt_release_pages(in + start * in_bytes, in + end * in_bytes);
        if (atomic_fetch_sub(&j->left, end - start) == end - start) finish(d, j);
    }
    free(scratch);
}

static void derive_all(void *user, int thread, int threads) {
    rt_deriving *d = user;
    (void)thread;
    for (size_t i = 0; i < d->count; i++) {
        begin(d, &d->jobs[i]);
        derive_slices(d, &d->jobs[i], threads);
    }
}

static uint8_t *pages_for(rt_weights *weights, rt_derived kind, rt_derived_use use, size_t bytes) {
    switch (use) {
    case RT_DERIVED_WRITTEN: return rt_weights_pages(weights, bytes);
    case RT_DERIVED_KEPT: return rt_weights_large_pages(weights, bytes);
    case RT_DERIVED_LET_GO: break;
    }
    return rt_weights_file_pages(weights, kind, bytes);
}

static gm_status prepare(rt_deriving *d, const char *name, gm_diag *diag) {
    const rt_tensor *source = rt_derived_from(d->weights, name);
    rt_derived kind = rt_derived_kind(name);
    rt_tensor made;
    if (!source || !source->data)
        return gm_fail(diag, GM_FORMAT, "tensor \"%.*s\" is missing, which \"%s\" is derived from",
                       (int)rt_derived_source(name), name, name);
    if (!rt_derived_shape(name, source, &made))
        return gm_fail(diag, GM_FORMAT, "tensor \"%s\" cannot become %s", source->name, kinds[kind].expected);
    uint8_t *out = pages_for(d->weights, kind, d->use, made.bytes);
    if (!out) return gm_fail(diag, GM_NOMEM, "out of memory for \"%s\", %zu bytes", name, made.bytes);
    made.data = out;
    job *j = &d->jobs[d->count++];
    *j = (job){
        .work = {.source = source, .type = made.dtype, .out = out, .mapped = rt_weights_is_mapped(d->weights, source)},
        .kind = kind,
        .made = made,
        .in_file = rt_weights_is_mapped(d->weights, &made)};
    atomic_store(&j->left, rows_of(j));
    pthread_mutex_init(&j->lock, NULL);
    return GM_OK;
}

static void dispose(rt_deriving *d) {
    for (size_t i = 0; i < d->count; i++) pthread_mutex_destroy(&d->jobs[i].lock);
    pthread_mutex_destroy(&d->lock);
    free(d->jobs);
    free(d);
}

gm_status rt_derive_begin(rt_weights *weights, const char *const *names, size_t count, rt_derived_use use,
                          rt_derived_fn made, void *user, rt_team *team, gm_diag *diag, rt_deriving **out) {
    rt_deriving *d = calloc(1, sizeof *d);
    GM_ASSERT(d);
    *d = (rt_deriving){.weights = weights, .team = team, .use = use, .made = made, .user = user};
    d->jobs = calloc(count + 1, sizeof *d->jobs);
    GM_ASSERT(d->jobs);
    pthread_mutex_init(&d->lock, NULL);
    gm_status status = GM_OK;
    for (size_t i = 0; i < count && status == GM_OK; i++)
        if (!rt_weights_find(weights, names[i])) status = prepare(d, names[i], diag);
    if (status != GM_OK) dispose(d);
    else if (team) rt_team_start(team, derive_all, d);
    *out = status == GM_OK ? d : NULL;
    return status;
}

gm_status rt_derive_end(rt_deriving *d, gm_diag *diag) {
    gm_status status = GM_OK;
    if (d->team) rt_team_wait(d->team);
    else derive_all(d, 0, 1);
    for (size_t i = 0; i < d->count && status == GM_OK; i++) {
        const rt_tensor *made = &d->jobs[i].made;
        if (atomic_load(&d->jobs[i].work.failed))
            status = gm_fail(diag, GM_NOMEM, "out of memory for \"%s\"", made->name);
        else status = rt_weights_add(d->weights, made->name, made, diag);
    }
    dispose(d);
    return status;
}

gm_status rt_derive(rt_weights *weights, const char *name, rt_derived_use use, rt_team *team, gm_diag *diag) {
    rt_deriving *deriving;
    GM_ASSERT(rt_derived_source(name));
    GM_TRY(rt_derive_begin(weights, &name, 1, use, NULL, NULL, team, diag, &deriving));
    return rt_derive_end(deriving, diag);
}
