/* A part of the driver: artefacts, which of their machine code runs, and how they are finished. */
#include "codegen/codegen.h"
#include "frontend/engine.h"

#include <stdlib.h>
#include <string.h>

/* What the options ask for; `target` holds a text of the key. */
static gm_status key_of(const fe_options *options, const pass_options *pass_opts, gm_diag *diag, gm_string *target,
                        fe_gmx_key *out) {
    GM_TRY(cg_target_text(options->target_cpu, diag, target));
    *out = (fe_gmx_key){.context = pass_opts->context,
                        .chunk = options->chunk ? options->chunk : PASS_DEFAULT_CHUNK,
                        .precision = options->precision,
                        .plan = pass_precision_text(pass_opts->precision),
                        .passes = options->passes,
                        .skip = options->skip,
                        .with = options->with,
                        .wide = options->wide,
                        .target_cpu = options->target_cpu,
                        .target = target->data,
                        .gemmac = GM_VERSION,
                        .fingerprint = cg_fingerprint()};
    return GM_OK;
}

gm_status fe_engine_why_cold(const fe_gmx *gmx, const fe_options *options, const pass_options *pass_opts, gm_diag *diag,
                             const char **out) {
    gm_string target = {0};
    fe_gmx_key wanted;
    gm_status status = key_of(options, pass_opts, diag, &target, &wanted);
    if (status == GM_OK)
        *out = options->dump.what                             ? "a dump is asked for"
               : options->decisions                           ? "reasons are asked for"
               : options->profile                             ? "a profile is asked for"
               : options->measure && !gmx->key.measured_count ? "measurements are asked for"
                                                              : fe_gmx_difference(gmx, &wanted);
    gm_string_free(&target);
    return status;
}

/* Where there is a function of that name, its parameters from `at` on are the caches of @forward. */
static bool takes_caches(const ir_module *module, const char *name, int at) {
    const ir_region *forward = ir_func_find(module, "forward")->body;
    const ir_func *func = ir_func_find(module, name);
    int caches = forward->param_count - 2;
    if (func && func->body->param_count != at + caches) return false;
    for (int i = 0; func && i < caches; i++)
        if (!ir_type_equal(&func->body->params[at + i]->type, &forward->params[2 + i]->type)) return false;
    return true;
}

/* The module is one that the session can run. */
static gm_status check_forward(const fe_engine *engine, const pass_options *pass_opts, gm_diag *diag) {
    rt_program program = {.cache_count = 0};
    int chunk = ir_symbol_find(engine->module, "T");
    bool fits = fe_engine_caches_of(engine->module, &program) &&
                (chunk < 0 || engine->module->symbols[chunk].max == pass_opts->chunk);
    static const struct {
        const char *name;
        int caches_at;
    } users[] = {{"forward.T1", 2}, {"prefill", 3}, {"generate", 7}};
    for (size_t i = 0; i < GM_COUNT(users) && fits; i++)
        fits = takes_caches(engine->module, users[i].name, users[i].caches_at);
    return fits ? GM_OK
                : gm_fail(diag, GM_FORMAT, "%s: section \"ir\": expected @forward of this configuration",
                          engine->model.path);
}

gm_status fe_engine_start_warm(fe_engine *engine, const fe_options *options, const pass_options *pass_opts,
                               gm_diag *diag) {
    const fe_gmx *gmx = engine->model.gmx;
    cg_image image = {.path = engine->model.path,
                      .metadata = gmx->program.data,
                      .metadata_bytes = gmx->program.bytes,
                      .objects = gmx->object.data,
                      .object_bytes = gmx->object.bytes};
    GM_TRY(ir_parse(gmx->ir.data, gmx->ir.bytes, engine->model.path, diag, &engine->module));
    GM_TRY(fe_gmx_check_module(&engine->model, engine->module, diag));
    GM_TRY(check_forward(engine, pass_opts, diag));
    return fe_engine_for_dumps(options) ? GM_OK : cg_image_read(engine->module, &image, diag, &engine->program);
}

gm_status fe_engine_finish_artefact(const fe_engine *engine, const fe_options *options, const pass_options *pass_opts,
                                    fe_gmx_writer *writer, gm_diag *diag) {
    gm_string target = {0}, index = {0}, ir = {0}, program = {0};
    fe_gmx gmx = {0};
    gm_status status = key_of(options, pass_opts, diag, &target, &gmx.key);
    gmx.key.measured = engine->tables->measured.items;
    gmx.key.measured_count = engine->tables->measured.count;
    if (status == GM_OK) {
        if (engine->tokenizer) rt_tokenizer_write(engine->tokenizer, &index);
        ir_print_module(engine->module, &ir);
        cg_image_write(engine->program, &program);
        gmx.index = (fe_gmx_section){index.data, index.length};
        gmx.ir = (fe_gmx_section){ir.data, ir.length};
        gmx.program = (fe_gmx_section){program.data, program.length};
        gmx.object.data = cg_objects(engine->program, &gmx.object.bytes);
        status = fe_gmx_finish(writer, &engine->model, &gmx, diag);
    } else fe_gmx_abandon(writer);
    gm_string_free(&target);
    gm_string_free(&index);
    gm_string_free(&ir);
    gm_string_free(&program);
    return status;
}

gm_status fe_engine_adopt_measurements(fe_engine *engine, const fe_options *options, gm_diag *diag) {
    const fe_gmx_key *key = &engine->model.gmx->key;
    gm_string target = {0};
    if (!key->measured_count) return GM_OK;
    gm_status status = cg_target_text(options->target_cpu, diag, &target);
    for (size_t i = 0; i < key->measured_count && status == GM_OK && strcmp(target.data, key->target) == 0; i++)
        fe_measurements_add(&engine->tables->measured, key->measured[i].what, key->measured[i].choice,
                            key->measured[i].seconds);
    gm_string_free(&target);
    return status;
}
