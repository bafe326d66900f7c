/* The whole pipeline on one screen: model -> naive IR -> passes -> machine code -> session. */
#include "frontend/driver.h"

#include "codegen/codegen.h"
#include "frontend/dump.h"
#include "frontend/gemma.h"
#include "passes/passes.h"
#include "runtime/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CONTEXT = 4096, DEFAULT_CHUNK = 512, HEAD_ROWS = 16 };

/* What fe_engine keeps besides the public fields: tables that the session borrows. */
struct fe_tables {
    const void **weights;
    rt_site *sites;
};

/* ---- passes ---- */

static bool listed(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || !at[length])) return true;
    return false;
}

/* `--passes a,b` on a model means: of the optional passes only these. */
static char *skip_list(const fe_options *options, gm_arena *arena) {
    gm_string skip = {0};
    gm_string_printf(&skip, "%s", options->skip ? options->skip : "");
    int count;
    const pass_info *table = pass_table(&count);
    for (int i = 0; options->passes && i < count; i++)
        if (!table[i].required && !listed(options->passes, table[i].name) && !listed(skip.data, table[i].name))
            gm_string_printf(&skip, "%s%s", skip.length ? "," : "", table[i].name);
    char *text = skip.length ? gm_arena_strdup(arena, skip.data) : NULL;
    gm_string_free(&skip);
    return text;
}

static gm_status check_pass_names(const char *list, gm_diag *diag) {
    for (const char *at = list; at && *at;) {
        const char *comma = strchr(at, ',');
        size_t length = comma ? (size_t)(comma - at) : strlen(at);
        if (!pass_find(at, length)) return gm_fail(diag, GM_INVALID, "--passes: no pass is called '%.*s' (see gemmac help passes)", (int)length, at);
        at = comma ? comma + 1 : NULL;
    }
    return GM_OK;
}

static gm_status run_passes(const fe_options *options, const pass_options *limits, ir_module *in, gm_diag *diag, ir_module **out) {
    gm_arena arena = {0};
    fe_dump_state dump = {.options = options};
    gm_status status = check_pass_names(options->passes, diag);
    if (status != GM_OK) ir_module_free(in);
    else status = fe_dump_start(&dump, in, diag);
    if (status == GM_OK) {
        pass_pipeline_request request = {.options = limits, .skip = skip_list(options, &arena), .want_changed = options->time_passes,
                                         .after_step = fe_dump_step, .user = &dump};
        status = pass_run(&request, in, diag, out);
    }
    if (status == GM_OK && dump.status != GM_OK) {
        ir_module_free(*out);
        status = gm_fail(diag, dump.status, "%s", dump.diag.message);
    }
    gm_arena_free(&arena);
    return status;
}

/* ---- compile ---- */

static gm_status compile_module(const fe_options *options, const ir_module *module, gm_diag *diag, cg_program **out) {
    gm_string llvm = {0}, assembly = {0};
    bool want_llvm = fe_dump_wants(options, "llvm"), want_asm = fe_dump_wants(options, "asm");
    cg_options code = {.target_cpu = options->target_cpu, .llvm_text = want_llvm ? &llvm : NULL, .assembly = want_asm ? &assembly : NULL};
    gm_status status = cg_compile(module, &code, diag, out);
    if (status == GM_OK && want_llvm) status = fe_dump_text(options, "module.ll", &llvm, diag);
    if (status == GM_OK && want_asm) status = fe_dump_text(options, "module.s", &assembly, diag);
    gm_string_free(&llvm);
    gm_string_free(&assembly);
    return status;
}

/* ---- session ---- */

static rt_function function_of(const fe_engine *engine, const char *name) {
    rt_function function = {.entry = NULL};
    const ir_func *func = ir_func_find(engine->module, name);
    for (int i = 0; i < RT_MAX_RESULTS; i++) function.alias[i] = -1;
    if (!func) return function;
    function.entry = cg_entry(engine->program, name);
    for (int i = 0; func->alias && i < func->body->yield_count && i < RT_MAX_RESULTS; i++) function.alias[i] = func->alias[i];
    return function;
}

static gm_status bind_weights(fe_engine *engine, gm_diag *diag) {
    int count = cg_weight_count(engine->program);
    const void **table = engine->tables->weights = calloc((size_t)count + 1, sizeof *table);
    GM_ASSERT(table);
    for (int i = 0; i < count; i++) {
        const char *name = cg_weight_name(engine->program, i);
        const rt_tensor *tensor = rt_weights_find(&engine->model.weights, name);
        if (!tensor || !tensor->data) return gm_fail(diag, GM_FORMAT, "%s: tensor \"%s\" is missing", engine->model.path, name);
        table[i] = tensor->data;
    }
    return GM_OK;
}

static int64_t arena_bytes(const ir_module *module) {
    int64_t bytes = 0;
    for (int i = 0; i < module->func_count; i++)
        if (bytes < module->funcs[i]->frame) bytes = module->funcs[i]->frame;
    return bytes;
}

static gm_status open_session(fe_engine *engine, const fe_options *options, const pass_options *limits, gm_diag *diag) {
    const fe_config *config = &engine->model.config;
    GM_TRY(bind_weights(engine, diag));
    int sites = cg_site_count(engine->program);
    engine->tables->sites = calloc((size_t)sites + 1, sizeof(rt_site));
    GM_ASSERT(engine->tables->sites);
    for (int i = 0; i < sites; i++) engine->tables->sites[i] = *cg_site_of(engine->program, i);
    rt_program program = {
        .forward = function_of(engine, "forward"), .step = function_of(engine, "forward.T1"),
        .head = function_of(engine, "head"), .head_one = function_of(engine, "head.R1"),
        .prefill = function_of(engine, "prefill"), .generate = function_of(engine, "generate"),
        .hidden = config->hidden, .vocab = config->vocab, .context = limits->context, .chunk = limits->chunk, .rows = limits->rows,
        .cache_elems = config->layers * limits->context * config->kv_heads * config->head_dim,
        .dim_t = ir_symbol_find(engine->module, "T"), .dim_r = ir_symbol_find(engine->module, "R"),
        .arena_bytes = arena_bytes(engine->module), .scratch_bytes = cg_scratch_bytes(engine->program),
        .weights = (const void *const *)engine->tables->weights, .sites = engine->tables->sites, .site_count = sites};
    for (int i = 0; i < engine->module->symbol_count && i < RT_MAX_DIMS; i++) program.dims[i] = engine->module->symbols[i].max;
    return rt_session_open(&program, options->threads, diag, &engine->session);
}

/* ---- the engine ---- */

static gm_status limits_of(const fe_options *options, const fe_config *config, gm_diag *diag, pass_options *out) {
    int64_t context = options->context ? options->context : config->context < DEFAULT_CONTEXT ? config->context : DEFAULT_CONTEXT;
    if (context < 1 || context > config->context)
        return gm_fail(diag, GM_INVALID, "context size must be 1..%lld for this model, found %lld", (long long)config->context, (long long)context);
    int64_t chunk = options->chunk ? options->chunk : DEFAULT_CHUNK;
    *out = (pass_options){.context = context, .chunk = chunk < context ? chunk : context, .rows = HEAD_ROWS};
    return GM_OK;
}

/* auto: bf16 where the CPU multiplies it natively, else f32. */
static gm_status choose_precision(const fe_options *options, gm_diag *diag, pass_options *limits) {
    if (options->precision == FE_PRECISION_INT8) return gm_fail(diag, GM_UNSUPPORTED, "--precision int8 is not available: expected f32, bf16 or auto");
    bool native = __builtin_cpu_supports("avx512bf16") && !options->target_cpu;
    limits->bf16 = options->precision == FE_PRECISION_BF16 || (options->precision == FE_PRECISION_AUTO && native);
    return GM_OK;
}

static gm_status build_engine(const char *path, const fe_options *options, gm_diag *diag, fe_engine *engine) {
    pass_options limits;
    double start = gm_now();
    GM_TRY(fe_model_open(path, options->no_weights, diag, &engine->model));
    if (engine->model.vocab.count) GM_TRY(rt_tokenizer_new(&engine->model.vocab, diag, &engine->tokenizer));
    GM_TRY(limits_of(options, &engine->model.config, diag, &limits));
    GM_TRY(choose_precision(options, diag, &limits));
    engine->load_s = gm_now() - start;
    start = gm_now();
    ir_module *naive = fe_gemma_build(&engine->model.config, engine->model.weights.count ? &engine->model.weights : NULL);
    GM_TRY(run_passes(options, &limits, naive, diag, &engine->module));
    if (!options->no_weights || fe_dump_wants(options, "llvm") || fe_dump_wants(options, "asm"))
        GM_TRY(compile_module(options, engine->module, diag, &engine->program));
    double compiled = gm_now();
    if (!options->no_weights) GM_TRY(open_session(engine, options, &limits, diag));
    engine->compile_s = gm_now() - start;
    if (options->time_passes) fprintf(stderr, "passes and code %.3f s, session %.3f s\n", compiled - start, gm_now() - compiled);
    return GM_OK;
}

gm_status fe_engine_open(const char *path, const fe_options *options, gm_diag *diag, fe_engine *out) {
    *out = (fe_engine){.tables = calloc(1, sizeof *out->tables)};
    GM_ASSERT(out->tables);
    gm_status status = build_engine(path, options, diag, out);
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
        free(engine->tables->weights);
        free(engine->tables->sites);
    }
    free(engine->tables);
    *engine = (fe_engine){0};
}
