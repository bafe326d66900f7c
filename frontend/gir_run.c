/* Running a .gir function as machine code, alone or in step with the interpreter. */
#include "frontend/gir_run.h"

#include "frontend/gir_program.h"
#include "passes/passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 2, PAD_BYTES = 64 };

typedef void (*trace_fn)(void *user, int64_t inst, int64_t result, const void *data);

/* ---- getting ready ---- */

/* @name and what it calls, its symbols bound to the extents of the arguments, with a memory plan. */
static gm_status prepare(const ir_module *in, const char *name, const ir_array *args, int arg_count, gm_diag *diag, int64_t *values,
                         ir_module **out) {
    const ir_func *func = ir_func_find(in, name);
    if (!func) return gm_fail(diag, GM_INVALID, "no function @%s", name);
    if (func->body->param_count != arg_count) return gm_fail(diag, GM_INVALID, "@%s takes %d arguments", name, func->body->param_count);
    for (int i = 0; i < IR_MAX_SYMBOLS; i++) values[i] = -1;
    for (int i = 0; i < arg_count; i++) {
        const ir_type *type = &func->body->params[i]->type;
        for (int d = 0; d < type->rank; d++)
            if (ir_dim_is_symbol(type->dim[d])) values[ir_dim_symbol_of(type->dim[d])] = args[i].dim[d];
    }
    ir_module *bound;
    GM_TRY(pass_specialize_for(in, func, values, diag, &bound));
    for (int i = 0; i < bound->symbol_count; i++) {
        ir_symbol *symbol = &bound->symbols[i];
        if (!symbol->max || symbol->max < values[i]) symbol->max = values[i] > 0 ? values[i] : 1;
        if (values[i] < 0) values[i] = symbol->max;
    }
    pass_options limits = {.context = 1, .chunk = 1, .rows = 1};
    pass_pipeline_request request = {.options = &limits, .list = "choose_matmul,legalize,plan_memory"};
    return pass_run(&request, bound, diag, out);
}

/* Close the program even when this fails. */
static gm_status program_open(const ir_module *module, const char *name, const rt_weights *weights, const ir_array *args, int arg_count,
                              int threads, const cg_options *options, gm_diag *diag, fe_gir_program *p) {
    int64_t values[IR_MAX_SYMBOLS];
    ir_module *planned = NULL;
    *p = (fe_gir_program){.module = NULL};
    GM_TRY(prepare(module, name, args, arg_count, diag, values, &planned));
    GM_TRY(fe_gir_program_open(planned, weights, threads, options, diag, p));
    memcpy(p->dims, values, sizeof p->dims);
    return GM_OK;
}

/* ---- running ---- */

static size_t array_bytes(const ir_array *array) {
    return rt_dtype_bytes(array->dtype, (size_t)ir_array_elems(array));
}

/* Arguments are copied: a function may take over their memory. */
static void run(fe_gir_program *p, const char *name, const ir_array *args, int arg_count, gm_arena *arena, ir_array *results) {
    const ir_func *func = ir_func_find(p->module, name);
    const ir_region *body = func->body;
    void **in = GM_NEW_ARRAY(arena, void *, arg_count + 1), **out = GM_NEW_ARRAY(arena, void *, body->yield_count + 1);
    for (int i = 0; i < arg_count; i++) {
        in[i] = gm_arena_alloc(arena, array_bytes(&args[i]) + PAD_BYTES);
        memcpy(in[i], args[i].data, array_bytes(&args[i]));
    }
    for (int i = 0; i < body->yield_count; i++) {
        const ir_type *type = &body->yields[i]->type;
        results[i] = (ir_array){.dtype = type->dtype, .rank = type->rank};
        for (int d = 0; d < type->rank; d++) results[i].dim[d] = ir_dim_is_symbol(type->dim[d]) ? p->dims[ir_dim_symbol_of(type->dim[d])] : type->dim[d];
        int alias = func->alias ? func->alias[i] : -1;
        results[i].data = alias >= 0 ? in[alias] : gm_arena_alloc(arena, array_bytes(&results[i]) + PAD_BYTES);
        out[i] = results[i].data;
    }
    fe_gir_program_run(p, name, in, out);
}

gm_status fe_gir_run_jit_for(const char *target_cpu, int threads, const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args,
                             int arg_count, gm_arena *arena, ir_array *results, gm_diag *diag) {
    fe_gir_program program;
    cg_options options = {.target_cpu = target_cpu};
    gm_status status = program_open(module, func, env->weights, args, arg_count, threads, &options, diag, &program);
    if (status == GM_OK) {
        run(&program, func, args, arg_count, arena, results);
        uint64_t written = atomic_load(&program.frame->ring->written);
        for (uint64_t i = 0; env->emit && i < written; i++) env->emit(env->user, program.frame->ring->token[i % RT_RING_CAPACITY]);
    }
    fe_gir_program_close(&program);
    return status;
}

gm_status fe_gir_run_jit(const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args, int arg_count,
                         gm_arena *arena, ir_array *results, gm_diag *diag) {
    return fe_gir_run_jit_for(NULL, THREADS, module, func, env, args, arg_count, arena, results, diag);
}

/* ---- --check: both, value by value ---- */

typedef struct record {
    const ir_func *func;
    const ir_inst *inst;
    int64_t number, result;
    ir_array value;
} record;

typedef struct checker {
    const ir_module *module;
    gm_arena arena;
    record *records;
    size_t count, capacity, cursor;
    bool differs;
    gm_diag *diag;
} checker;

/* The interpreter's values, in order. */
static void record_values(void *user, const ir_func *func, const ir_inst *inst, const ir_array *results) {
    checker *c = user;
    int64_t number = cg_trace_number(c->module, inst);
    for (int i = 0; number >= 0 && i < inst->result_count; i++) {
        if (c->count == c->capacity) {
            c->capacity = c->capacity ? 2 * c->capacity : 256;
            c->records = realloc(c->records, c->capacity * sizeof *c->records);
            GM_ASSERT(c->records);
        }
        record *r = &c->records[c->count++];
        *r = (record){func, inst, number, i, results[i]};
        r->value.data = gm_arena_alloc(&c->arena, array_bytes(&results[i]) + PAD_BYTES);
        memcpy(r->value.data, results[i].data, array_bytes(&results[i]));
    }
}

/* Sums may be formed in another order: 5e-5 of the tensor's largest finite value. */
static bool same_floats(const float *want, const float *got, int64_t n, int64_t *where) {
    float scale = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(want[i]) && fabsf(want[i]) > scale) scale = fabsf(want[i]);
    for (int64_t i = 0; i < n; i++) {
        bool same = want[i] == got[i] || (isnan(want[i]) && isnan(got[i])) || fabsf(want[i] - got[i]) <= 1e-6f + 5e-5f * scale;
        if (!same) return *where = i, false;
    }
    return true;
}

static void compare(checker *c, const record *r, const void *data) {
    gm_arena arena = {0};
    const char **names = ir_value_names(r->func, &arena);
    const char *name = names[r->inst->results[r->result]->id], *op = ir_op_of(r->inst->op)->text;
    int64_t n = ir_array_elems(&r->value), at = 0;
    if (r->value.dtype == RT_F32 && !same_floats(r->value.data, data, n, &at)) {
        gm_fail(c->diag, GM_INTERNAL, "@%s: %%%s = %s: element %lld is %.9g compiled, %.9g interpreted", r->func->name, name, op, (long long)at,
                (double)((const float *)data)[at], (double)((const float *)r->value.data)[at]);
        c->differs = true;
    } else if (r->value.dtype != RT_F32 && memcmp(r->value.data, data, array_bytes(&r->value))) {
        gm_fail(c->diag, GM_INTERNAL, "@%s: %%%s = %s: compiled and interpreted values differ", r->func->name, name, op);
        c->differs = true;
    }
    gm_arena_free(&arena);
}

/* Compiled code leaves out views: look for the next record of this instruction. */
static void check_value(void *user, int64_t inst, int64_t result, const void *data) {
    checker *c = user;
    if (c->differs) return;
    for (size_t i = c->cursor; i < c->count; i++) {
        if (c->records[i].number != inst || c->records[i].result != result) continue;
        c->cursor = i + 1;
        compare(c, &c->records[i], data);
        return;
    }
    c->differs = true;
    gm_fail(c->diag, GM_INTERNAL, "instruction %lld ran compiled, but not interpreted: control flow differs", (long long)inst);
}

gm_status fe_gir_check(int threads, const ir_module *module, const char *func, const rt_weights *weights, const ir_array *args, int arg_count, gm_diag *diag) {
    fe_gir_program program;
    checker c = {.diag = diag};
    cg_options options = {.trace = true};
    gm_status status = program_open(module, func, weights, args, arg_count, threads, &options, diag, &program);
    if (status == GM_OK) {
        ir_array *results = GM_NEW_ARRAY(&c.arena, ir_array, ir_func_find(program.module, func)->body->yield_count + 1);
        ir_interp_env env = {.weights = weights, .trace = record_values, .user = &c};
        c.module = program.module;
        status = ir_interp(program.module, func, &env, args, arg_count, &c.arena, results, diag);
        program.frame->trace = check_value;
        program.frame->trace_user = &c;
        if (status == GM_OK) run(&program, func, args, arg_count, &c.arena, results);
        if (status == GM_OK && c.differs) status = GM_INTERNAL;
    }
    fe_gir_program_close(&program);
    free(c.records);
    gm_arena_free(&c.arena);
    return status;
}
