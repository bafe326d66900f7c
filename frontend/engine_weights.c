/* A part of the driver: the weights that a program reads, and what is derived from them. */
#include "codegen/codegen.h"
#include "frontend/engine.h"
#include "ir/rewrite.h"
#include "runtime/derive.h"
#include "runtime/team.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is read ---- */

static bool module_reads(const fe_engine *engine, const char *name) {
    for (int i = 0; i < engine->tables->read_count; i++)
        if (strcmp(engine->tables->reads[i], name) == 0) return true;
    return false;
}

static void note_reads(const ir_inst *inst, void *user) {
    fe_engine *engine = user;
    struct fe_tables *tables = engine->tables;
    char text[IR_NAME_BYTES];
    for (int64_t i = 0; i < ir_stored_count(inst); i++) {
        const char *name = ir_stored_name(inst, i, text);
        if (module_reads(engine, name)) continue;
        tables->reads = realloc(tables->reads, sizeof *tables->reads * (size_t)(tables->read_count + 1));
        GM_ASSERT(tables->reads);
        tables->reads[tables->read_count++] = gm_arena_strdup(&tables->names, name);
    }
}

void fe_engine_list_reads(fe_engine *engine) {
    for (int i = 0; i < engine->module->func_count; i++) ir_visit(engine->module->funcs[i]->body, note_reads, engine);
}

bool fe_engine_reads_panels(const fe_engine *engine) {
    for (int i = 0; i < engine->tables->read_count; i++)
        if (rt_is_panels(engine->tables->reads[i])) return true;
    return false;
}

/* ---- for an artefact ---- */

/* By name where they are as large. */
static int by_size(const void *a, const void *b) {
    const rt_tensor *first = a, *second = b;
    if (first->bytes == second->bytes) return strcmp(first->name, second->name);
    return first->bytes < second->bytes ? -1 : 1;
}

/* Small tensors, of which most are read for every token, lie side by side, and
 * not each on a page with weights that are not read. */
gm_status fe_engine_hand_over(const fe_engine *engine, fe_gmx_writer *writer, gm_diag *diag) {
    const rt_weights *weights = &engine->model.weights;
    rt_tensor *list = malloc((weights->count + 1) * sizeof *list);
    GM_ASSERT(list);
    gm_status status = GM_OK;
    memcpy(list, weights->tensors, weights->count * sizeof *list);
    qsort(list, weights->count, sizeof *list, by_size);
    for (size_t i = 0; i < weights->count && status == GM_OK; i++)
        if (!rt_derived_source(list[i].name)) status = fe_gmx_add(writer, weights, &list[i], diag);
    free(list);
    return status;
}

/* ---- deriving ---- */

struct fe_deriving {
    fe_engine *engine;
    fe_gmx_writer *writer;
    const char **names; /* [count] */
    size_t count;
    rt_team *team; /* NULL: one thread, at the end */
    rt_deriving *run;
    gm_status status; /* of the writer */
    gm_diag diag;
};

/* What an artefact kept for another program. */
static void drop_derived(fe_engine *engine) {
    rt_weights *weights = &engine->model.weights;
    for (size_t i = weights->count; i-- > 0;)
        if (rt_derived_source(weights->tensors[i].name) && !module_reads(engine, weights->tensors[i].name))
            rt_weights_drop(weights, weights->tensors[i].name);
}

/* Adds names of all of a kind that the module reads and the model does not have, small ones first: prompts read few of
 * the interleaved rows, of small matrices, which then share their large pages. What the model has goes to the
 * writer. */
static gm_status list_kind(fe_deriving *d, rt_derived kind, gm_diag *diag) {
    const struct fe_tables *tables = d->engine->tables;
    const rt_weights *weights = &d->engine->model.weights;
    rt_tensor *list = calloc((size_t)tables->read_count + 1, sizeof *list);
    GM_ASSERT(list);
    size_t count = 0;
    for (int i = 0; i < tables->read_count; i++) {
        const char *name = tables->reads[i];
        if (rt_derived_kind(name) != kind) continue;
        const rt_tensor *there = rt_weights_find(weights, name),
                        *source = there ? NULL : rt_derived_from(weights, name);
        if (there) list[count] = *there;
        /* What cannot be derived is refused when it is. */
        else if (!source || !rt_derived_shape(name, source, &list[count])) list[count] = (rt_tensor){.name = name};
        count++;
    }
    qsort(list, count, sizeof *list, by_size);
    gm_status status = GM_OK;
    for (size_t i = 0; i < count && status == GM_OK; i++) {
        const rt_tensor *there = rt_weights_find(weights, list[i].name);
        if (!there) d->names[d->count++] = list[i].name;
        else if (d->writer) status = fe_gmx_add(d->writer, weights, there, diag);
    }
    free(list);
    return status;
}

static void write_derived(void *user, const rt_tensor *made) {
    fe_deriving *d = user;
    if (d->status == GM_OK) d->status = fe_gmx_add(d->writer, &d->engine->model.weights, made, &d->diag);
}

/* More threads than one derive while the caller goes on. */
static gm_status start(fe_deriving *d, int threads, gm_diag *diag) {
    /* panels rest while tokens are generated, all else while prompts are read */
    bool rests = fe_engine_reads_panels(d->engine);
    rt_derived_use use = d->writer ? RT_DERIVED_WRITTEN : rests ? RT_DERIVED_LET_GO : RT_DERIVED_KEPT;
    if (!threads) threads = rt_team_default_threads();
    if (threads > 1) GM_TRY(rt_team_open(threads, diag, &d->team));
    return rt_derive_begin(&d->engine->model.weights, d->names, d->count, use, d->writer ? write_derived : NULL, d,
                           d->team, diag, &d->run);
}

/* Screens come first: a writer has most to do with them. What is read at the same time lies together. */
gm_status fe_engine_derive_begin(fe_engine *engine, int threads, bool screens, fe_gmx_writer *writer, gm_diag *diag,
                                 fe_deriving **out) {
    fe_deriving *d = calloc(1, sizeof *d);
    GM_ASSERT(d);
    *d = (fe_deriving){.engine = engine, .writer = writer};
    d->names = calloc((size_t)engine->tables->read_count + 1, sizeof *d->names);
    GM_ASSERT(d->names);
    drop_derived(engine);
    gm_status status = GM_OK;
    for (rt_derived kind = 0; kind < RT_DERIVED_COUNT && status == GM_OK; kind++)
        if (screens || kind != RT_DERIVED_SCREEN) status = list_kind(d, kind, diag);
    if (status == GM_OK && d->count) status = start(d, threads, diag);
    *out = d;
    if (status == GM_OK) return GM_OK;
    fe_engine_derive_end(d, NULL);
    *out = NULL;
    return status;
}

gm_status fe_engine_derive_end(fe_deriving *d, gm_diag *diag) {
    if (!d) return GM_OK;
    gm_status status = d->run ? rt_derive_end(d->run, diag) : GM_OK;
    if (status == GM_OK && d->status != GM_OK) status = gm_fail(diag, d->status, "%s", d->diag.message);
    /* else all that was derived into files would be resident at once */
    if (d->run && !d->writer) rt_weights_release(&d->engine->model.weights);
    rt_team_close(d->team);
    free(d->names);
    free(d);
    return status;
}

/* ---- the program's tables ---- */

/* Screens may be missing when `lazy`: only the choice of tokens reads them. */
static gm_status bind_weights(fe_engine *engine, bool lazy, gm_diag *diag) {
    int count = cg_weight_count(engine->program);
    if (!engine->tables->weights) engine->tables->weights = calloc((size_t)count + 1, sizeof *engine->tables->weights);
    const void **table = engine->tables->weights;
    GM_ASSERT(table);
    for (int i = 0; i < count; i++) {
        const char *name = cg_weight_name(engine->program, i);
        const rt_tensor *tensor = rt_weights_find(&engine->model.weights, name);
        if (!tensor && lazy && rt_is_screen(name)) continue;
        if (!tensor || !tensor->data)
            return gm_fail(diag, GM_FORMAT, "%s: tensor \"%s\" is missing", engine->model.path, name);
        table[i] = tensor->data;
    }
    return GM_OK;
}

static void list_source(fe_engine *engine, rt_source *sources, const rt_tensor *tensor, rt_evict evict) {
    if (!tensor || !tensor->data || !rt_weights_is_mapped(&engine->model.weights, tensor)) return;
    sources[engine->tables->program.source_count++] =
        (rt_source){tensor->data, (const char *)tensor->data + tensor->bytes, evict};
}

/* When a weight from which `derived` was made is not needed. Decoding reads single rows of one with a screen, and all
 * of one with panels, where it has no interleaved rows. */
static rt_evict source_evict(const fe_engine *engine, const char *derived, const rt_tensor *source) {
    if (!module_reads(engine, source->name)) return RT_EVICT_ALWAYS;
    return rt_is_screen(derived)   ? RT_EVICT_ROWS_IN_PREFILL
           : rt_is_panels(derived) ? RT_EVICT_IN_PREFILL
                                   : RT_EVICT_IN_DECODE;
}

static int by_address(const void *a, const void *b) {
    uintptr_t first = (uintptr_t)((const rt_source *)a)->from, second = (uintptr_t)((const rt_source *)b)->from;
    return (first > second) - (first < second);
}

/* Neighbours become one: each call that gives pages back interrupts all other threads' cores. With less than a page
 * between them every page has some of what is given back. */
static void join_sources(rt_source *sources, int *count) {
    enum { PAGE = 4096 };
    int kept = 0;
    qsort(sources, (size_t)*count, sizeof *sources, by_address);
    for (int i = 0; i < *count; i++) {
        rt_source *last = kept ? &sources[kept - 1] : NULL;
        if (last && last->evict == sources[i].evict && (intptr_t)sources[i].from - (intptr_t)last->to < PAGE)
            last->to = sources[i].to;
        else sources[kept++] = sources[i];
    }
    *count = kept;
}

/* Of what is mapped: what the program reads derived, and what it reads only part of the time. */
static void list_sources(fe_engine *engine) {
    int count = cg_weight_count(engine->program);
    const rt_weights *weights = &engine->model.weights;
    rt_source *sources = calloc(2 * (size_t)count + 1, sizeof *sources);
    bool panels = fe_engine_reads_panels(engine);
    GM_ASSERT(sources);
    free(engine->tables->sources);
    engine->tables->sources = sources;
    engine->tables->program.source_count = 0;
    for (int i = 0; i < count; i++) {
        const char *derived = cg_weight_name(engine->program, i);
        const rt_tensor *source = rt_derived_from(weights, derived);
        if (!source) continue;
        list_source(engine, sources, source, source_evict(engine, derived, source));
        rt_evict evict = rt_is_panels(derived) ? RT_EVICT_IN_DECODE : RT_EVICT_IN_PREFILL;
        if (panels || rt_is_screen(derived)) list_source(engine, sources, rt_weights_find(weights, derived), evict);
    }
    join_sources(sources, &engine->tables->program.source_count);
    engine->tables->program.sources = sources;
}

gm_status fe_engine_take_weights(fe_engine *engine, bool lazy, gm_diag *diag) {
    GM_TRY(bind_weights(engine, lazy, diag));
    list_sources(engine);
    return GM_OK;
}
