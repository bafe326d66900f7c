/* A part of the driver: from the naive IR through the passes to machine code. */
#include "codegen/codegen.h"
#include "frontend/dump.h"
#include "frontend/engine.h"
#include "frontend/gemma.h"
#include "runtime/team.h"

#include <string.h>

/* ---- passes ---- */

static bool listed(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || !at[length])) return true;
    return false;
}

/* `--passes a,b` on a model means: of the optional passes only these. */
static bool is_left_out(const fe_options *options, const pass_info *pass) {
    bool optional = pass->when != PASS_REQUIRED && pass->when != PASS_ON_REQUEST && !listed(options->with, pass->name);
    return optional && !listed(options->passes, pass->name);
}

/* Passes on request are those of --with, and of --passes. */
static bool is_asked_for(const fe_options *options, const pass_info *pass) {
    return pass_can_be_asked(pass->when) && listed(options->passes, pass->name);
}

/* The names that are given, and with --passes those it adds; NULL: none. */
static char *list_of(const fe_options *options, const char *given, bool (*adds)(const fe_options *, const pass_info *),
                     gm_arena *arena) {
    gm_string list = {0};
    gm_string_printf(&list, "%s", given ? given : "");
    int count;
    const pass_info *table = pass_table(&count);
    for (int i = 0; options->passes && i < count; i++)
        if (adds(options, &table[i]) && !listed(list.data, table[i].name))
            gm_string_printf(&list, "%s%s", list.length ? "," : "", table[i].name);
    char *text = list.length ? gm_arena_strdup(arena, list.data) : NULL;
    gm_string_free(&list);
    return text;
}

static gm_status check_pass_names(const char *list, gm_diag *diag) {
    for (const char *at = list; at && *at;) {
        const char *comma = strchr(at, ',');
        size_t length = comma ? (size_t)(comma - at) : strlen(at);
        if (!pass_find(at, length))
            return gm_fail(diag, GM_INVALID, "--passes: no pass is called '%.*s' (see gemmac help passes)", (int)length,
                           at);
        at = comma ? comma + 1 : NULL;
    }
    return GM_OK;
}

static gm_status run_passes(const fe_options *options, const pass_options *pass_opts, ir_module *in, gm_diag *diag,
                            ir_module **out) {
    gm_arena arena = {0};
    fe_dump_state dump = {.options = options};
    gm_status status = check_pass_names(options->passes, diag);
    if (status == GM_OK) status = pass_check_wide(pass_opts, in, diag);
    if (status == GM_OK) status = fe_dump_start(&dump, in, diag);
    if (status != GM_OK) ir_module_free(in);
    else {
        pass_pipeline_request request = {.options = pass_opts,
                                         .skip = list_of(options, options->skip, is_left_out, &arena),
                                         .with = list_of(options, options->with, is_asked_for, &arena),
                                         .want_changed = options->time_passes,
                                         .after_step = fe_dump_step,
                                         .user = &dump};
        status = pass_run(&request, in, diag, out);
    }
    if (status == GM_OK && (status = fe_dump_end(&dump, diag)) != GM_OK) {
        ir_module_free(*out);
        *out = NULL;
    }
    gm_arena_free(&arena);
    return status;
}

/* ---- measurements ---- */

/* What passes that measure are given as their user. */
typedef struct measuring {
    fe_measuring request;
    fe_measurements *known;
    bool more; /* measure what is not known */
} measuring;

static gm_status measure(void *user, const ir_module *module, pass_candidate *candidates, size_t count, gm_diag *diag) {
    measuring *m = user;
    for (size_t i = 0; i < count; i++)
        candidates[i].seconds = fe_measurements_find(m->known, candidates[i].what, candidates[i].choice);
    if (!m->more) return GM_OK;
    GM_TRY(fe_measure(&m->request, module, candidates, count, diag));
    for (size_t i = 0; i < count; i++)
        if (candidates[i].seconds > 0 && !fe_measurements_find(m->known, candidates[i].what, candidates[i].choice))
            fe_measurements_add(m->known, candidates[i].what, candidates[i].choice, candidates[i].seconds);
    return GM_OK;
}

/* ---- code ---- */

bool fe_engine_for_dumps(const fe_options *options) {
    return options->no_weights && !options->no_session;
}

static gm_status compile_module(const fe_options *options, const ir_module *module, gm_diag *diag, cg_program **out) {
    gm_string llvm = {0}, assembly = {0};
    bool want_llvm = fe_dump_wants(options, "llvm"), want_asm = fe_dump_wants(options, "asm");
    cg_options code = {.target_cpu = options->target_cpu,
                       .threads = options->threads ? options->threads : rt_team_default_threads(),
                       .profile = options->profile,
                       .decisions = options->decisions,
                       .llvm_text = want_llvm ? &llvm : NULL,
                       .assembly = want_asm ? &assembly : NULL,
                       .text_only = fe_engine_for_dumps(options)};
    gm_status status = cg_compile(module, &code, diag, out);
    if (status == GM_OK && want_llvm) status = fe_dump_text(options, "module.ll", &llvm, diag);
    if (status == GM_OK && want_asm) status = fe_dump_text(options, "module.s", &assembly, diag);
    gm_string_free(&llvm);
    gm_string_free(&assembly);
    return status;
}

gm_status fe_engine_lower(fe_engine *engine, const fe_options *options, const pass_options *settled, gm_diag *diag) {
    pass_options with_measure = *settled, *pass_opts = &with_measure;
    measuring m = {.request = {.options = settled,
                               .weights = &engine->model.weights,
                               .target_cpu = options->target_cpu,
                               .threads = options->threads},
                   .known = &engine->tables->measured,
                   .more = options->measure};
    if (options->measure && options->no_weights)
        return gm_fail(diag, GM_INVALID, "--measure runs products, which needs the weights");
    if (options->measure || m.known->count) pass_opts->measure = measure, pass_opts->measure_user = &m;
    ir_module *naive =
        fe_gemma_build(&engine->model.config, engine->model.weights.count ? &engine->model.weights : NULL);
    return run_passes(options, pass_opts, naive, diag, &engine->module);
}

gm_status fe_engine_emit(fe_engine *engine, const fe_options *options, gm_diag *diag) {
    bool code_wanted = fe_dump_wants(options, "llvm") || fe_dump_wants(options, "asm") || options->decisions;
    if (fe_engine_for_dumps(options) && !code_wanted) return GM_OK;
    return compile_module(options, engine->module, diag, &engine->program);
}
