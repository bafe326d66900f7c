/* A part of the driver: the compiled program as a session takes it. */
#include "codegen/codegen.h"
#include "frontend/engine.h"
#include "ir/rewrite.h"

#include <stdlib.h>

bool fe_engine_caches_of(const ir_module *module, rt_program *out) {
    const ir_func *forward = ir_func_find(module, "forward");
    out->cache_count = forward ? forward->body->param_count - 2 : 0;
    if (out->cache_count < 1 || out->cache_count > RT_MAX_CACHES || forward->body->yield_count != out->cache_count + 1)
        return false;
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
    for (int i = 0; func->alias && i < func->body->yield_count && i < RT_MAX_RESULTS; i++)
        function.alias[i] = func->alias[i];
    return function;
}

/* A chunk costs what so many single tokens do: two where it takes W in bytes as they lie, in codes or kept panels; more
 * where it rounds all of W, or oneDNN has packed W in a wider type. */
static int64_t most_steps(const fe_engine *engine, pass_precision precision) {
    return precision == PASS_BLOCK8 || fe_engine_reads_panels(engine) ? 2 : RT_FEW_ROWS;
}

_Static_assert((int)RT_MAX_DIMS == (int)IR_MAX_SYMBOLS, "a value for each symbol");

void fe_engine_describe(fe_engine *engine, const pass_options *pass_opts) {
    const fe_config *config = &engine->model.config;
    int sites = cg_site_count(engine->program);
    engine->tables->sites = calloc((size_t)sites + 1, sizeof(rt_site));
    GM_ASSERT(engine->tables->sites);
    for (int i = 0; i < sites; i++) engine->tables->sites[i] = *cg_site_of(engine->program, i);
    rt_program *program = &engine->tables->program;
    *program = (rt_program){.model = engine->model.path,
                            .forward = function_of(engine, "forward"),
                            .step = function_of(engine, "forward.T1"),
                            .head = function_of(engine, "head"),
                            .head_one = function_of(engine, "head.R1"),
                            .prefill = function_of(engine, "prefill"),
                            .generate = function_of(engine, "generate"),
                            .hidden = config->hidden,
                            .vocab = config->vocab,
                            .context = pass_opts->context,
                            .chunk = pass_opts->chunk,
                            .rows = pass_opts->rows,
                            .steps = most_steps(engine, pass_opts->precision),
                            .dim_t = ir_symbol_find(engine->module, "T"),
                            .dim_r = ir_symbol_find(engine->module, "R"),
                            .arena_bytes = ir_frame_bytes(engine->module),
                            .scratch_bytes = cg_scratch_bytes(engine->program),
                            .sites = engine->tables->sites,
                            .site_count = sites};
    GM_ASSERT(fe_engine_caches_of(engine->module, program));
    ir_visit(ir_func_find(engine->module, "forward")->body, note_ring, &program->forgets);
    for (int i = 0; i < engine->module->symbol_count; i++) program->dims[i] = engine->module->symbols[i].max;
}

const rt_program *fe_engine_program(const fe_engine *engine) {
    return &engine->tables->program;
}
