/* A part of the driver: the weights that a program reads, and what is derived from them. */
#include "codegen/codegen.h"
#include "frontend/engine.h"
#include "runtime/derive.h"
#include "runtime/team.h"

#include <stdlib.h>
#include <string.h>

static bool program_reads(const fe_engine *engine, const char *name) {
    for (int i = 0; i < cg_weight_count(engine->program); i++)
        if (strcmp(cg_weight_name(engine->program, i), name) == 0) return true;
    return false;
}

/* What an artefact kept for another program. */
static void drop_derived(fe_engine *engine) {
    rt_weights *weights = &engine->model.weights;
    for (size_t i = weights->count; i-- > 0;)
        if (rt_derived_source(weights->tensors[i].name) && !program_reads(engine, weights->tensors[i].name))
            rt_weights_drop(weights, weights->tensors[i].name);
}

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

bool fe_engine_reads_panels(const fe_engine *engine) {
    for (int i = 0; i < cg_weight_count(engine->program); i++)
        if (rt_is_panels(cg_weight_name(engine->program, i))) return true;
    return false;
}

static gm_status derive_one(fe_engine *engine, const char *name, rt_derived_use use, int threads, rt_team **team,
                            gm_diag *diag) {
    rt_weights *weights = &engine->model.weights;
    if (rt_weights_find(weights, name)) return GM_OK;
    if (!*team) GM_TRY(rt_team_open(threads, diag, team));
    return rt_derive(weights, name, use, *team, diag);
}

/* The shapes of all of a kind that the program reads, small ones first: prompts read few of the interleaved rows, of
 * small matrices, which then share their large pages. Returns how many there are. */
static size_t list_kind(const fe_engine *engine, rt_derived kind, rt_tensor *out) {
    const rt_weights *weights = &engine->model.weights;
    size_t count = 0;
    for (int i = 0; i < cg_weight_count(engine->program); i++) {
        const char *name = cg_weight_name(engine->program, i);
        if (rt_derived_kind(name) != kind) continue;
        const rt_tensor *there = rt_weights_find(weights, name),
                        *source = there ? NULL : rt_derived_from(weights, name);
        if (there) out[count] = *there;
        /* What cannot be derived is refused when it is. */
        else if (!source || !rt_derived_shape(name, source, &out[count])) out[count] = (rt_tensor){.name = name};
        count++;
    }
    qsort(out, count, sizeof *out, by_size);
    return count;
}

/* All of a kind that the program reads and the model does not have, but can be made from what it has. It goes to a
 * writer, if there is one. Opens *team when something is missing. */
static gm_status derive_kind(fe_engine *engine, rt_derived kind, int threads, rt_team **team, fe_gmx_writer *writer,
                             gm_diag *diag) {
    rt_weights *weights = &engine->model.weights;
    /* panels while tokens are generated, all else while prompts are read */
    bool rests = fe_engine_reads_panels(engine);
    rt_derived_use use = writer ? RT_DERIVED_WRITTEN : rests ? RT_DERIVED_LET_GO : RT_DERIVED_KEPT;
    rt_tensor *list = calloc((size_t)cg_weight_count(engine->program) + 1, sizeof *list);
    GM_ASSERT(list);
    gm_status status = GM_OK;
    size_t count = list_kind(engine, kind, list);
    for (size_t i = 0; i < count && status == GM_OK; i++) {
        status = derive_one(engine, list[i].name, use, threads, team, diag);
        if (writer && status == GM_OK)
            status = fe_gmx_add(writer, weights, rt_weights_find(weights, list[i].name), diag);
    }
    free(list);
    return status;
}

/* Screens come first: a writer has most to do with them. What is read at the same time lies together. */
gm_status fe_engine_derive(fe_engine *engine, int threads, bool screens, fe_gmx_writer *writer, gm_diag *diag) {
    rt_team *team = NULL;
    gm_status status = GM_OK;
    drop_derived(engine);
    for (rt_derived kind = 0; kind < RT_DERIVED_COUNT && status == GM_OK; kind++)
        if (screens || kind != RT_DERIVED_SCREEN) status = derive_kind(engine, kind, threads, &team, writer, diag);
    /* else all that was derived into files would be resident at once */
    if (team && !writer) rt_weights_release(&engine->model.weights);
    rt_team_close(team);
    return status;
}

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
    if (!program_reads(engine, source->name)) return RT_EVICT_ALWAYS;
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

gm_status fe_engine_take_weights(fe_engine *engine, int threads, bool screens, gm_diag *diag) {
    GM_TRY(fe_engine_derive(engine, threads, screens, NULL, diag));
    GM_TRY(bind_weights(engine, !screens, diag));
    list_sources(engine);
    return GM_OK;
}
