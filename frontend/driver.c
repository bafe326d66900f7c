/* The whole pipeline on one screen: model -> naive IR -> passes -> machine code -> session. */
#include "frontend/driver.h"

#include "codegen/codegen.h"
#include "frontend/engine.h"
#include "runtime/derive.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

/* Each factor of the KV cache's size is bounded by the configuration's checks, but their product may overflow. */
static gm_status check_cache(const fe_config *config, int64_t context, gm_diag *diag) {
    size_t bytes = sizeof(float);
    const int64_t sizes[] = {config->layers, context, config->kv_heads, config->head_dim};
    for (size_t i = 0; i < GM_COUNT(sizes); i++)
        if (!gm_mul_size(bytes, (size_t)sizes[i], &bytes) || bytes > PTRDIFF_MAX)
            return gm_fail(diag, GM_INVALID,
                           "a KV cache of %lld tokens has more bytes than there are addresses: expected a smaller "
                           "context (see -c)",
                           (long long)context);
    return GM_OK;
}

static gm_status pass_options_of(const fe_options *options, const fe_model *model, gm_diag *diag, pass_options *out) {
    const fe_config *config = &model->config;
    int64_t context = options->context                         ? options->context
                      : config->context < PASS_DEFAULT_CONTEXT ? config->context
                                                               : PASS_DEFAULT_CONTEXT;
    if (!options->context && context < options->least_context) context = options->least_context;
    if (context < 1 || context > config->context)
        return gm_fail(diag, GM_INVALID, "%s: context size must be 1..%lld for this model, found %lld", model->path,
                       (long long)config->context, (long long)context);
    GM_TRY(check_cache(config, context, diag));
    int64_t chunk = options->chunk ? options->chunk : PASS_DEFAULT_CHUNK;
    *out = (pass_options){.context = context,
                          .chunk = chunk < context ? chunk : context,
                          .rows = PASS_DEFAULT_ROWS,
                          .wide = options->wide,
                          .layers = config->layers,
                          .decisions = options->decisions};
    return GM_OK;
}

/* An artefact keeps the index of its vocabulary. */
gm_status fe_tokenizer_open(const fe_model *model, gm_diag *diag, rt_tokenizer **out) {
    if (!model->vocab.count) return GM_OK;
    if (!model->gmx) return fe_tokenizer_index(&model->vocab, model->path, diag, out);
    *out = rt_tokenizer_open(&model->vocab, model->gmx->index.data, model->gmx->index.bytes);
    return *out ? GM_OK
                : gm_fail(diag, GM_FORMAT, "%s: section \"index\": expected that of the vocabulary", model->path);
}

static bool holds_panels(const rt_weights *weights) {
    for (size_t i = 0; i < weights->count; i++)
        if (rt_is_panels(weights->tensors[i].name)) return true;
    return false;
}

/* Read MODEL. What the options leave open is taken from the artefact, if MODEL is one, then from the defaults. */
static gm_status load_model(const char *path, fe_options *options, gm_diag *diag, fe_engine *engine,
                            pass_options *pass_opts) {
    double start = gm_now();
    GM_TRY(fe_model_open(path, options->no_weights, diag, &engine->model));
    const fe_gmx *gmx = engine->model.gmx;
    if (gmx) fe_gmx_adopt(gmx, options);
    if (gmx && !options->target_cpu && gmx->key.target_cpu && cg_target_runs(gmx->key.target_cpu))
        options->target_cpu = gmx->key.target_cpu;
    if (!options->no_text) GM_TRY(fe_tokenizer_open(&engine->model, diag, &engine->tokenizer));
    GM_TRY(pass_options_of(options, &engine->model, diag, pass_opts));
    pass_opts->tiles = cg_target_has_tiles(options->target_cpu);
    pass_opts->artefact = options->artefact || holds_panels(&engine->model.weights);
    pass_opts->precision =
        fe_pass_precision(options->precision, options->target_cpu, &engine->model, pass_opts->artefact);
    engine->load_s = gm_now() - start;
    return GM_OK;
}

/* To the module, and to its program where an artefact has that. */
static gm_status lower_model(fe_engine *engine, const fe_options *options, const pass_options *pass_opts,
                             gm_diag *diag) {
    const char *why = NULL;
    if (engine->model.gmx) GM_TRY(fe_engine_adopt_measurements(engine, options, diag));
    if (engine->model.gmx) GM_TRY(fe_engine_why_cold(engine->model.gmx, options, pass_opts, diag, &why));
    engine->warm = engine->model.gmx && !why;
    if (why && options->time_passes) fprintf(stderr, "%s: compiled again, since %s\n", engine->model.path, why);
    GM_TRY(engine->warm ? fe_engine_start_warm(engine, options, pass_opts, diag)
                        : fe_engine_lower(engine, options, pass_opts, diag));
    fe_engine_list_reads(engine);
    return GM_OK;
}

/* Code is made while weights are derived, where `derives`; `writer`, NULL: none, gets them. */
static gm_status compile_model(fe_engine *engine, const fe_options *options, const pass_options *pass_opts,
                               bool derives, fe_gmx_writer *writer, gm_diag *diag) {
    double begin = gm_now();
    fe_deriving *deriving = NULL;
    bool screens = writer || !options->no_screens;
    GM_TRY(lower_model(engine, options, pass_opts, diag));
    if (derives) GM_TRY(fe_engine_derive_begin(engine, options->threads, screens, writer, diag, &deriving));
    gm_status status = engine->warm ? GM_OK : fe_engine_emit(engine, options, diag);
    double code_s = gm_now() - begin;
    gm_status derived = fe_engine_derive_end(deriving, diag);
    engine->compile_s = gm_now() - begin;
    if (status != GM_OK || derived != GM_OK) return status != GM_OK ? status : derived;
    if (options->time_passes && engine->warm) fprintf(stderr, "warm start %.3f s\n", engine->compile_s);
    else if (options->time_passes)
        fprintf(stderr, "passes and code %.3f s, derived weights %.3f s later\n", code_s, engine->compile_s - code_s);
    return GM_OK;
}

static gm_status open_session(fe_engine *engine, const fe_options *options, gm_diag *diag) {
    GM_TRY(fe_engine_take_weights(engine, options->no_screens, diag));
    engine->tables->program.weights = (const void *const *)engine->tables->weights;
    return rt_session_open(&engine->tables->program, options->threads, diag, &engine->session);
}

/* What was needed to make the session, and is not needed to use it. */
static void let_go(fe_engine *engine) {
    cg_only_run(engine->program);
    ir_module_free(engine->module);
    engine->module = NULL;
    malloc_trim(0);
}

gm_status fe_engine_screens(fe_engine *engine, int threads, gm_diag *diag) {
    fe_deriving *deriving;
    GM_TRY(fe_engine_derive_begin(engine, threads, true, NULL, diag, &deriving));
    GM_TRY(fe_engine_derive_end(deriving, diag));
    GM_TRY(fe_engine_take_weights(engine, false, diag)); /* the session reads the same table of weights */
    rt_session_set_evictable(engine->session, engine->tables->program.sources, engine->tables->program.source_count);
    return GM_OK;
}

static gm_status build_engine(const char *path, fe_options options, gm_diag *diag, fe_engine *engine) {
    pass_options pass_opts;
    GM_TRY(load_model(path, &options, diag, engine, &pass_opts));
    bool dumps = fe_engine_for_dumps(&options);
    GM_TRY(compile_model(engine, &options, &pass_opts, !dumps && !options.no_session, NULL, diag));
    if (dumps) return GM_OK;
    fe_engine_describe(engine, &pass_opts);
    if (options.no_session) return GM_OK;
    double start = gm_now();
    rt_weights_release(&engine->model.weights); /* of the vocabulary and of headers, which were read once */
    GM_TRY(open_session(engine, &options, diag));
    if (options.only_run) let_go(engine);
    engine->compile_s += gm_now() - start;
    if (options.time_passes) fprintf(stderr, "session %.3f s\n", gm_now() - start);
    return GM_OK;
}

static fe_engine new_engine(void) {
    fe_engine engine = {.tables = calloc(1, sizeof *engine.tables)};
    GM_ASSERT(engine.tables);
    return engine;
}

gm_status fe_engine_open(const char *path, const fe_options *options, gm_diag *diag, fe_engine *out) {
    *out = new_engine();
    gm_status status = build_engine(path, *options, diag, out);
    if (status != GM_OK) fe_engine_close(out);
    return status;
}

void fe_engine_close(fe_engine *engine) {
    rt_session_close(engine->session);
    cg_program_free(engine->program);
    ir_module_free(engine->module);
    rt_tokenizer_free(engine->tokenizer);
    fe_model_close(&engine->model);
    if (engine->tables) {
        fe_measurements_free(&engine->tables->measured);
        free(engine->tables->reads);
        gm_arena_free(&engine->tables->names);
        free(engine->tables->weights);
        free(engine->tables->sources);
        free(engine->tables->sites);
    }
    free(engine->tables);
    *engine = (fe_engine){0};
}

/* The weights are derived and written while the code is made. */
static gm_status make_artefact(fe_engine *engine, const fe_options *options, const pass_options *pass_opts,
                               const char *out_path, gm_diag *diag) {
    fe_gmx_writer *writer;
    GM_TRY(fe_gmx_begin(out_path, diag, &writer));
    gm_status status = fe_engine_hand_over(engine, writer, diag);
    if (status == GM_OK) status = compile_model(engine, options, pass_opts, true, writer, diag);
    if (status == GM_OK) return fe_engine_finish_artefact(engine, options, pass_opts, writer, diag);
    fe_gmx_abandon(writer);
    return status;
}

gm_status fe_compile(const char *path, const fe_options *options, const char *out_path, gm_diag *diag) {
    fe_options settled = *options;
    pass_options pass_opts;
    settled.artefact = true;
    if (options->no_weights)
        return gm_fail(diag, GM_INVALID, "%s: an artefact needs the weights (--no-weights is for dumps)", out_path);
    fe_engine engine = new_engine();
    gm_status status = load_model(path, &settled, diag, &engine, &pass_opts);
    /* an artefact may take its own place */
    if (status == GM_OK && !engine.model.gmx) status = fe_model_spare(&engine.model, out_path, diag);
    if (status == GM_OK) status = make_artefact(&engine, &settled, &pass_opts, out_path, diag);
    fe_engine_close(&engine);
    return status;
}
