/* The whole pipeline on one screen: model -> naive IR -> passes -> machine code -> session. */
#include "frontend/driver.h"

#include "codegen/codegen.h"
#include "frontend/commands.h"
#include "frontend/dump.h"
#include "frontend/gemma.h"
#include "frontend/gmx.h"
#include "frontend/measure.h"
#include "ir/rewrite.h"
#include "passes/passes.h"
#include "runtime/derive.h"
#include "runtime/program.h"
#include "runtime/team.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What fe_engine keeps besides the public fields: tables that the session borrows, and what products were measured to take. */
struct fe_tables {
    fe_measurements measured;
    const void **weights;
    rt_source *sources;
    rt_site *sites;
    rt_program program;
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
    for (int i = 0; options->passes && i < count; i++) {
        bool optional = table[i].when != PASS_REQUIRED && table[i].when != PASS_ON_REQUEST && !listed(options->with, table[i].name);
        if (optional && !listed(options->passes, table[i].name) && !listed(skip.data, table[i].name))
            gm_string_printf(&skip, "%s%s", skip.length ? "," : "", table[i].name);
    }
    char *text = skip.length ? gm_arena_strdup(arena, skip.data) : NULL;
    gm_string_free(&skip);
    return text;
}

/* Passes on request: those of --with, and of --passes. */
static char *with_list(const fe_options *options, gm_arena *arena) {
    gm_string with = {0};
    gm_string_printf(&with, "%s", options->with ? options->with : "");
    int count;
    const pass_info *table = pass_table(&count);
    for (int i = 0; options->passes && i < count; i++)
        if (pass_can_be_asked(table[i].when) && listed(options->passes, table[i].name) && !listed(with.data, table[i].name))
            gm_string_printf(&with, "%s%s", with.length ? "," : "", table[i].name);
    char *text = with.length ? gm_arena_strdup(arena, with.data) : NULL;
    gm_string_free(&with);
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
    if (status == GM_OK) status = pass_check_wide(limits, in, diag);
    if (status == GM_OK) status = fe_dump_start(&dump, in, diag);
    if (status != GM_OK) ir_module_free(in);
    else {
        pass_pipeline_request request = {.options = limits, .skip = skip_list(options, &arena), .with = with_list(options, &arena), .want_changed = options->time_passes,
                                         .after_step = fe_dump_step, .user = &dump};
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
    for (size_t i = 0; i < count; i++) candidates[i].seconds = fe_measurements_find(m->known, candidates[i].what, candidates[i].choice);
    if (!m->more) return GM_OK;
    GM_TRY(fe_measure(&m->request, module, candidates, count, diag));
    for (size_t i = 0; i < count; i++)
        if (candidates[i].seconds > 0 && !fe_measurements_find(m->known, candidates[i].what, candidates[i].choice))
            fe_measurements_add(m->known, candidates[i].what, candidates[i].choice, candidates[i].seconds);
    return GM_OK;
}

/* ---- compile ---- */

/* Only the IR and texts of the code are wanted. */
static bool for_dumps(const fe_options *options) {
    return options->no_weights && !options->no_session;
}

static gm_status compile_module(const fe_options *options, const ir_module *module, gm_diag *diag, cg_program **out) {
    gm_string llvm = {0}, assembly = {0};
    bool want_llvm = fe_dump_wants(options, "llvm"), want_asm = fe_dump_wants(options, "asm");
    cg_options code = {.target_cpu = options->target_cpu, .threads = options->threads ? options->threads : rt_team_default_threads(), .profile = options->profile,
                       .decisions = options->decisions, .llvm_text = want_llvm ? &llvm : NULL, .assembly = want_asm ? &assembly : NULL, .text_only = for_dumps(options)};
    gm_status status = cg_compile(module, &code, diag, out);
    if (status == GM_OK && want_llvm) status = fe_dump_text(options, "module.ll", &llvm, diag);
    if (status == GM_OK && want_asm) status = fe_dump_text(options, "module.s", &assembly, diag);
    gm_string_free(&llvm);
    gm_string_free(&assembly);
    return status;
}

/* ---- session ---- */

/* The caches are what @forward takes after ids and position; their sizes are those of its parameters. */
static bool caches_of(const ir_module *module, rt_program *out) {
    const ir_func *forward = ir_func_find(module, "forward");
    out->cache_count = forward ? forward->body->param_count - 2 : 0;
    if (out->cache_count < 1 || out->cache_count > RT_MAX_CACHES || forward->body->yield_count != out->cache_count + 1) return false;
    for (int i = 0; i < out->cache_count; i++) {
        const ir_type *type = &forward->body->params[2 + i]->type;
        if (!ir_type_equal(type, &forward->body->yields[1 + i]->type)) return false;
        out->cache_bytes[i] = (int64_t)rt_dtype_bytes(type->dtype, (size_t)ir_type_max_elems(module, type));
    }
    return true;
}

static void note_ring(const ir_inst *inst, void *user) {
    if (ir_attr_int(inst, IR_ATTR_RING, 0)) *(bool *)user = true;
}

static rt_function function_of(const fe_engine *engine, const char *name) {
    rt_function function = {.entry = NULL};
    const ir_func *func = ir_func_find(engine->module, name);
    for (int i = 0; i < RT_MAX_RESULTS; i++) function.alias[i] = -1;
    if (!func) return function;
    function.entry = cg_entry(engine->program, name);
    for (int i = 0; func->alias && i < func->body->yield_count && i < RT_MAX_RESULTS; i++) function.alias[i] = func->alias[i];
    return function;
}

static bool program_reads(const fe_engine *engine, const char *name) {
    for (int i = 0; i < cg_weight_count(engine->program); i++)
        if (strcmp(cg_weight_name(engine->program, i), name) == 0) return true;
    return false;
}

/* What an artefact kept for another program. */
static void drop_derived(fe_engine *engine) {
    rt_weights *weights = &engine->model.weights;
    for (size_t i = weights->count; i-- > 0;)
        if (rt_derived_source(weights->tensors[i].name) && !program_reads(engine, weights->tensors[i].name)) rt_weights_drop(weights, weights->tensors[i].name);
}

/* By name where they are as large. */
static int by_size(const void *a, const void *b) {
    const rt_tensor *first = a, *second = b;
    if (first->bytes == second->bytes) return strcmp(first->name, second->name);
    return first->bytes < second->bytes ? -1 : 1;
}

/* The tensors of the model for an artefact but for those that are derived; small ones, of which most are read for every token, side by side, and
 * not each on a page with weights that are not read. */
static gm_status hand_over(const fe_engine *engine, fe_gmx_writer *writer, gm_diag *diag) {
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

static bool reads_panels(const fe_engine *engine) {
    for (int i = 0; i < cg_weight_count(engine->program); i++)
        if (rt_is_panels(cg_weight_name(engine->program, i))) return true;
    return false;
}

static gm_status derive_one(fe_engine *engine, const char *name, rt_derived_use use, int threads, rt_team **team, gm_diag *diag) {
    rt_weights *weights = &engine->model.weights;
    if (rt_weights_find(weights, name)) return GM_OK;
    if (!*team) GM_TRY(rt_team_open(threads, diag, team));
    return rt_derive(weights, name, use, *team, diag);
}

/* The shapes of all of a kind that the program reads, small ones first: prompts read few of the interleaved rows, of small matrices, which then share
 * their large pages. Returns how many there are. */
static size_t list_kind(const fe_engine *engine, rt_derived kind, rt_tensor *out) {
    const rt_weights *weights = &engine->model.weights;
    size_t count = 0;
    for (int i = 0; i < cg_weight_count(engine->program); i++) {
        const char *name = cg_weight_name(engine->program, i);
        if (rt_derived_kind(name) != kind) continue;
        const rt_tensor *there = rt_weights_find(weights, name), *source = there ? NULL : rt_derived_from(weights, name);
        if (there) out[count] = *there;
        else if (!source || !rt_derived_shape(name, source, &out[count])) out[count] = (rt_tensor){.name = name}; /* refused when it is derived */
        count++;
    }
    qsort(out, count, sizeof *out, by_size);
    return count;
}

/* All of a kind that the program reads and the model does not have, but can be made from what it has. It goes to a writer, if there is one.
 * Opens *team when something is missing. */
static gm_status derive_kind(fe_engine *engine, rt_derived kind, int threads, rt_team **team, fe_gmx_writer *writer, gm_diag *diag) {
    rt_weights *weights = &engine->model.weights;
    bool rests = reads_panels(engine); /* panels while tokens are generated, all else while prompts are read */
    rt_derived_use use = writer ? RT_DERIVED_WRITTEN : rests ? RT_DERIVED_LET_GO : RT_DERIVED_KEPT;
    rt_tensor *list = calloc((size_t)cg_weight_count(engine->program) + 1, sizeof *list);
    GM_ASSERT(list);
    gm_status status = GM_OK;
    size_t count = list_kind(engine, kind, list);
    for (size_t i = 0; i < count && status == GM_OK; i++) {
        status = derive_one(engine, list[i].name, use, threads, team, diag);
        if (writer && status == GM_OK) status = fe_gmx_add(writer, weights, rt_weights_find(weights, list[i].name), diag);
    }
    free(list);
    return status;
}

/* Screens come first: a writer has most to do with them. What is read at the same time lies together. */
static gm_status derive_weights(fe_engine *engine, int threads, bool screens, fe_gmx_writer *writer, gm_diag *diag) {
    rt_team *team = NULL;
    gm_status status = GM_OK;
    drop_derived(engine);
    for (rt_derived kind = 0; kind < RT_DERIVED_COUNT && status == GM_OK; kind++)
        if (screens || kind != RT_DERIVED_SCREEN) status = derive_kind(engine, kind, threads, &team, writer, diag);
    if (team && !writer) rt_weights_release(&engine->model.weights); /* else all that was derived into files would be resident at once */
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
        if (!tensor || !tensor->data) return gm_fail(diag, GM_FORMAT, "%s: tensor \"%s\" is missing", engine->model.path, name);
        table[i] = tensor->data;
    }
    return GM_OK;
}

static void list_source(fe_engine *engine, rt_source *sources, const rt_tensor *tensor, rt_rest rest) {
    if (!tensor || !tensor->data || !rt_weights_is_mapped(&engine->model.weights, tensor)) return;
    sources[engine->tables->program.source_count++] = (rt_source){tensor->data, (const char *)tensor->data + tensor->bytes, rest};
}

/* When a weight is not needed from which `derived` was made: of a screen's single rows are, and of panels' what is read to generate, where there are
 * no interleaved rows. */
static rt_rest source_rests(const fe_engine *engine, const char *derived, const rt_tensor *source) {
    if (!program_reads(engine, source->name)) return RT_RESTS_ALWAYS;
    return rt_is_screen(derived) ? RT_RESTS_ROWS : rt_is_panels(derived) ? RT_RESTS_PROMPT : RT_RESTS_PREDICTING;
}

static int by_address(const void *a, const void *b) {
    uintptr_t first = (uintptr_t)((const rt_source *)a)->from, second = (uintptr_t)((const rt_source *)b)->from;
    return (first > second) - (first < second);
}

/* Neighbours become one: each call that gives pages back interrupts all other threads' cores. With less than a page between them
 * every page has some of what is given back. */
static void join_sources(rt_source *sources, int *count) {
    enum { PAGE = 4096 };
    int kept = 0;
    qsort(sources, (size_t)*count, sizeof *sources, by_address);
    for (int i = 0; i < *count; i++) {
        rt_source *last = kept ? &sources[kept - 1] : NULL;
        if (last && last->rest == sources[i].rest && (intptr_t)sources[i].from - (intptr_t)last->to < PAGE) last->to = sources[i].to;
        else sources[kept++] = sources[i];
    }
    *count = kept;
}

/* Of what is mapped: what the program reads derived, and what it reads only part of the time. */
static void list_sources(fe_engine *engine) {
    int count = cg_weight_count(engine->program);
    const rt_weights *weights = &engine->model.weights;
    rt_source *sources = calloc(2 * (size_t)count + 1, sizeof *sources);
    bool panels = reads_panels(engine);
    GM_ASSERT(sources);
    free(engine->tables->sources);
    engine->tables->sources = sources;
    engine->tables->program.source_count = 0;
    for (int i = 0; i < count; i++) {
        const char *derived = cg_weight_name(engine->program, i);
        const rt_tensor *source = rt_derived_from(weights, derived);
        if (!source) continue;
        list_source(engine, sources, source, source_rests(engine, derived, source));
        rt_rest rest = rt_is_panels(derived) ? RT_RESTS_PREDICTING : RT_RESTS_PROMPT;
        if (panels || rt_is_screen(derived)) list_source(engine, sources, rt_weights_find(weights, derived), rest);
    }
    join_sources(sources, &engine->tables->program.source_count);
    engine->tables->program.sources = sources;
}

_Static_assert((int)RT_MAX_DIMS == (int)IR_MAX_SYMBOLS, "a value for each symbol");

static void describe_program(fe_engine *engine, const pass_options *limits) {
    const fe_config *config = &engine->model.config;
    int sites = cg_site_count(engine->program);
    engine->tables->sites = calloc((size_t)sites + 1, sizeof(rt_site));
    GM_ASSERT(engine->tables->sites);
    for (int i = 0; i < sites; i++) engine->tables->sites[i] = *cg_site_of(engine->program, i);
    rt_program *program = &engine->tables->program;
    *program = (rt_program){
        .model = engine->model.path,
        .forward = function_of(engine, "forward"), .step = function_of(engine, "forward.T1"),
        .head = function_of(engine, "head"), .head_one = function_of(engine, "head.R1"),
        .prefill = function_of(engine, "prefill"), .generate = function_of(engine, "generate"),
        .hidden = config->hidden, .vocab = config->vocab, .context = limits->context, .chunk = limits->chunk, .rows = limits->rows,
        .dim_t = ir_symbol_find(engine->module, "T"), .dim_r = ir_symbol_find(engine->module, "R"),
        .arena_bytes = ir_frame_bytes(engine->module), .scratch_bytes = cg_scratch_bytes(engine->program),
        .sites = engine->tables->sites, .site_count = sites};
    GM_ASSERT(caches_of(engine->module, program));
    ir_visit(ir_func_find(engine->module, "forward")->body, note_ring, &program->forgets);
    for (int i = 0; i < engine->module->symbol_count; i++) program->dims[i] = engine->module->symbols[i].max;
}

const rt_program *fe_engine_program(const fe_engine *engine) {
    return &engine->tables->program;
}

static gm_status take_weights(fe_engine *engine, int threads, bool screens, gm_diag *diag) {
    GM_TRY(derive_weights(engine, threads, screens, NULL, diag));
    GM_TRY(bind_weights(engine, !screens, diag));
    list_sources(engine);
    return GM_OK;
}

static gm_status open_session(fe_engine *engine, const fe_options *options, gm_diag *diag) {
    GM_TRY(take_weights(engine, options->threads, !options->no_screens, diag));
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
    GM_TRY(take_weights(engine, threads, true, diag)); /* the session reads the same table of weights */
    rt_session_rest(engine->session, engine->tables->program.sources, engine->tables->program.source_count);
    return GM_OK;
}

/* ---- artefacts ---- */

/* What the options ask for; `target` holds a text of the key. */
static gm_status key_of(const fe_options *options, const pass_options *limits, gm_diag *diag, gm_string *target, fe_gmx_key *out) {
    GM_TRY(cg_target_text(options->target_cpu, diag, target));
    *out = (fe_gmx_key){.context = limits->context, .chunk = options->chunk ? options->chunk : PASS_DEFAULT_CHUNK, .precision = options->precision,
                        .plan = pass_precision_text(limits->precision), .passes = options->passes, .skip = options->skip, .with = options->with, .wide = options->wide, .target_cpu = options->target_cpu, .target = target->data,
                        .gemmac = GM_VERSION, .fingerprint = cg_fingerprint()};
    return GM_OK;
}

/* *out is NULL when the artefact's machine code can run, else the reason why not. */
static gm_status why_cold(const fe_gmx *gmx, const fe_options *options, const pass_options *limits, gm_diag *diag, const char **out) {
    gm_string target = {0};
    fe_gmx_key wanted;
    gm_status status = key_of(options, limits, diag, &target, &wanted);
    if (status == GM_OK) *out = options->dump.what ? "a dump is asked for" : options->decisions ? "reasons are asked for" : options->profile ? "a profile is asked for"
                                    : options->measure && !gmx->key.measured_count ? "measurements are asked for" : fe_gmx_difference(gmx, &wanted);
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
static gm_status check_forward(const fe_engine *engine, const pass_options *limits, gm_diag *diag) {
    rt_program program = {.cache_count = 0};
    int chunk = ir_symbol_find(engine->module, "T");
    bool fits = caches_of(engine->module, &program) && (chunk < 0 || engine->module->symbols[chunk].max == limits->chunk);
    static const struct {
        const char *name;
        int caches_at;
    } users[] = {{"forward.T1", 2}, {"prefill", 3}, {"generate", 7}};
    for (size_t i = 0; i < GM_COUNT(users) && fits; i++) fits = takes_caches(engine->module, users[i].name, users[i].caches_at);
    return fits ? GM_OK : gm_fail(diag, GM_FORMAT, "%s: section \"ir\": expected @forward of this configuration", engine->model.path);
}

static gm_status start_warm(fe_engine *engine, const fe_options *options, const pass_options *limits, gm_diag *diag) {
    const fe_gmx *gmx = engine->model.gmx;
    cg_image image = {.path = engine->model.path, .metadata = gmx->program.data, .metadata_bytes = gmx->program.bytes,
                      .objects = gmx->object.data, .object_bytes = gmx->object.bytes};
    GM_TRY(ir_parse(gmx->ir.data, gmx->ir.bytes, engine->model.path, diag, &engine->module));
    GM_TRY(fe_gmx_check_module(&engine->model, engine->module, diag));
    GM_TRY(check_forward(engine, limits, diag));
    return for_dumps(options) ? GM_OK : cg_image_read(engine->module, &image, diag, &engine->program);
}

/* Frees the writer. */
static gm_status finish_artefact(const fe_engine *engine, const fe_options *options, const pass_options *limits, fe_gmx_writer *writer, gm_diag *diag) {
    gm_string target = {0}, index = {0}, ir = {0}, program = {0};
    fe_gmx gmx = {0};
    gm_status status = key_of(options, limits, diag, &target, &gmx.key);
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

/* ---- the engine ---- */

/* Each of its sizes is bounded, their product is not. */
static gm_status check_cache(const fe_config *config, int64_t context, gm_diag *diag) {
    size_t bytes = sizeof(float);
    const int64_t sizes[] = {config->layers, context, config->kv_heads, config->head_dim};
    for (size_t i = 0; i < GM_COUNT(sizes); i++)
        if (!gm_mul_size(bytes, (size_t)sizes[i], &bytes) || bytes > PTRDIFF_MAX)
            return gm_fail(diag, GM_INVALID, "a KV cache of %lld tokens has more bytes than there are addresses: expected a smaller context (see -c)", (long long)context);
    return GM_OK;
}

static gm_status limits_of(const fe_options *options, const fe_config *config, gm_diag *diag, pass_options *out) {
    int64_t context = options->context ? options->context : config->context < PASS_DEFAULT_CONTEXT ? config->context : PASS_DEFAULT_CONTEXT;
    if (!options->context && context < options->least_context) context = options->least_context;
    if (context < 1 || context > config->context)
        return gm_fail(diag, GM_INVALID, "context size must be 1..%lld for this model, found %lld", (long long)config->context, (long long)context);
    GM_TRY(check_cache(config, context, diag));
    int64_t chunk = options->chunk ? options->chunk : PASS_DEFAULT_CHUNK;
    *out = (pass_options){.context = context, .chunk = chunk < context ? chunk : context, .rows = PASS_DEFAULT_ROWS, .wide = options->wide, .layers = config->layers, .decisions = options->decisions};
    return GM_OK;
}

/* An artefact keeps the index of its vocabulary. */
gm_status fe_tokenizer_open(const fe_model *model, gm_diag *diag, rt_tokenizer **out) {
    if (!model->vocab.count) return GM_OK;
    if (!model->gmx) {
        gm_diag inner = {0};
        gm_status status = rt_tokenizer_new(&model->vocab, &inner, out);
        return status == GM_OK ? GM_OK : gm_fail(diag, status, "%s: %s", model->path, inner.message);
    }
    *out = rt_tokenizer_open(&model->vocab, model->gmx->index.data, model->gmx->index.bytes);
    return *out ? GM_OK : gm_fail(diag, GM_FORMAT, "%s: section \"index\": expected that of the vocabulary", model->path);
}

static bool holds_panels(const rt_weights *weights) {
    for (size_t i = 0; i < weights->count; i++)
        if (rt_is_panels(weights->tensors[i].name)) return true;
    return false;
}

/* Read MODEL. What options leave open is settled: by an artefact's own, then by the defaults. */
static gm_status load_model(const char *path, fe_options *options, gm_diag *diag, fe_engine *engine, pass_options *limits) {
    double start = gm_now();
    GM_TRY(fe_model_open(path, options->no_weights, diag, &engine->model));
    const fe_gmx *gmx = engine->model.gmx;
    if (gmx) fe_gmx_adopt(gmx, options);
    if (gmx && !options->target_cpu && gmx->key.target_cpu && cg_target_runs(gmx->key.target_cpu)) options->target_cpu = gmx->key.target_cpu;
    if (!options->no_text) GM_TRY(fe_tokenizer_open(&engine->model, diag, &engine->tokenizer));
    GM_TRY(limits_of(options, &engine->model.config, diag, limits));
    limits->tiles = cg_target_has_tiles(options->target_cpu);
    limits->artefact = options->artefact || holds_panels(&engine->model.weights);
    limits->precision = fe_pass_precision(options->precision, options->target_cpu, &engine->model, limits->artefact);
    engine->load_s = gm_now() - start;
    return GM_OK;
}

/* An artefact's measurements hold for the target they were made on. */
static gm_status adopt_measurements(fe_engine *engine, const fe_options *options, gm_diag *diag) {
    const fe_gmx_key *key = &engine->model.gmx->key;
    gm_string target = {0};
    if (!key->measured_count) return GM_OK;
    gm_status status = cg_target_text(options->target_cpu, diag, &target);
    for (size_t i = 0; i < key->measured_count && status == GM_OK && strcmp(target.data, key->target) == 0; i++)
        fe_measurements_add(&engine->tables->measured, key->measured[i].what, key->measured[i].choice, key->measured[i].seconds);
    gm_string_free(&target);
    return status;
}

static gm_status compile_cold(fe_engine *engine, const fe_options *options, const pass_options *settled, gm_diag *diag) {
    pass_options with_measure = *settled, *limits = &with_measure;
    measuring m = {.request = {.options = settled, .weights = &engine->model.weights, .target_cpu = options->target_cpu, .threads = options->threads},
                   .known = &engine->tables->measured, .more = options->measure};
    if (options->measure && options->no_weights) return gm_fail(diag, GM_INVALID, "--measure runs products, which needs the weights");
    if (options->measure || m.known->count) limits->measure = measure, limits->measure_user = &m;
    ir_module *naive = fe_gemma_build(&engine->model.config, engine->model.weights.count ? &engine->model.weights : NULL);
    GM_TRY(run_passes(options, limits, naive, diag, &engine->module));
    bool code_wanted = fe_dump_wants(options, "llvm") || fe_dump_wants(options, "asm") || options->decisions;
    if (for_dumps(options) && !code_wanted) return GM_OK;
    return compile_module(options, engine->module, diag, &engine->program);
}

static gm_status compile_model(fe_engine *engine, const fe_options *options, const pass_options *limits, gm_diag *diag) {
    const char *why = NULL;
    double start = gm_now();
    if (engine->model.gmx) GM_TRY(adopt_measurements(engine, options, diag));
    if (engine->model.gmx) GM_TRY(why_cold(engine->model.gmx, options, limits, diag, &why));
    engine->warm = engine->model.gmx && !why;
    if (why && options->time_passes) fprintf(stderr, "%s: compiled again, since %s\n", engine->model.path, why);
    GM_TRY(engine->warm ? start_warm(engine, options, limits, diag) : compile_cold(engine, options, limits, diag));
    engine->compile_s = gm_now() - start;
    if (options->time_passes) fprintf(stderr, "%s %.3f s\n", engine->warm ? "warm start" : "passes and code", engine->compile_s);
    return GM_OK;
}

static gm_status build_engine(const char *path, fe_options options, gm_diag *diag, fe_engine *engine) {
    pass_options limits;
    GM_TRY(load_model(path, &options, diag, engine, &limits));
    GM_TRY(compile_model(engine, &options, &limits, diag));
    if (for_dumps(&options)) return GM_OK;
    describe_program(engine, &limits);
    if (options.no_session) return GM_OK;
    double start = gm_now();
    rt_weights_release(&engine->model.weights); /* of the vocabulary and of headers, which were read once */
    GM_TRY(open_session(engine, &options, diag));
    if (options.only_run) let_go(engine);
    engine->compile_s += gm_now() - start;
    if (options.time_passes) fprintf(stderr, "session %.3f s\n", gm_now() - start);
    return GM_OK;
}

gm_status fe_engine_open(const char *path, const fe_options *options, gm_diag *diag, fe_engine *out) {
    *out = (fe_engine){.tables = calloc(1, sizeof *out->tables)};
    GM_ASSERT(out->tables);
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
        free(engine->tables->weights);
        free(engine->tables->sources);
        free(engine->tables->sites);
    }
    free(engine->tables);
    *engine = (fe_engine){0};
}

/* The weights are written while the code is made. */
static gm_status make_artefact(fe_engine *engine, const fe_options *options, const pass_options *limits, const char *out_path, gm_diag *diag) {
    fe_gmx_writer *writer;
    GM_TRY(fe_gmx_begin(out_path, diag, &writer));
    gm_status status = hand_over(engine, writer, diag);
    if (status == GM_OK) status = compile_model(engine, options, limits, diag);
    if (status == GM_OK) status = derive_weights(engine, options->threads, true, writer, diag);
    if (status == GM_OK) return finish_artefact(engine, options, limits, writer, diag);
    fe_gmx_abandon(writer);
    return status;
}

gm_status fe_compile(const char *path, const fe_options *options, const char *out_path, gm_diag *diag) {
    fe_options settled = *options;
    pass_options limits;
    settled.artefact = true;
    if (options->no_weights) return gm_fail(diag, GM_INVALID, "%s: an artefact needs the weights (--no-weights is for dumps)", out_path);
    fe_engine engine = {.tables = calloc(1, sizeof *engine.tables)};
    GM_ASSERT(engine.tables);
    gm_status status = load_model(path, &settled, diag, &engine, &limits);
    if (status == GM_OK && !engine.model.gmx) status = fe_model_spare(&engine.model, out_path, diag); /* an artefact may take its own place */
    if (status == GM_OK) status = make_artefact(&engine, &settled, &limits, out_path, diag);
    fe_engine_close(&engine);
    return status;
}
