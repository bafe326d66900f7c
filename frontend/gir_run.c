/* Running a .gir function as machine code, alone or in step with the interpreter. */
#include "frontend/gir_run.h"

#include "frontend/gir_program.h"
#include "ir/agree.h"
#include "ir/rewrite.h"
#include "passes/passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 2, PAD_BYTES = 64 };

/* ---- getting ready ---- */

/* @name and what it calls, its symbols bound to the extents of the arguments, with a memory plan. */
static gm_status prepare(const ir_module *in, const char *name, const ir_array *args, int arg_count, gm_diag *diag,
                         int64_t *values, ir_module **out) {
    const ir_func *func = ir_func_find(in, name);
    if (!func) return gm_fail(diag, GM_INVALID, "no function @%s", name);
    if (func->body->param_count != arg_count)
        return gm_fail(diag, GM_INVALID, "@%s takes %d arguments", name, func->body->param_count);
    for (int i = 0; i < IR_MAX_SYMBOLS; i++) values[i] = -1;
    for (int i = 0; i < arg_count; i++) {
        const ir_type *type = &func->body->params[i]->type;
        for (int d = 0; d < type->rank; d++)
            if (ir_dim_is_symbol(type->dim[d])) values[ir_dim_symbol_of(type->dim[d])] = args[i].dim[d];
    }
    for (int i = 0; i < in->symbol_count; i++)
        if (in->symbols[i].max && in->symbols[i].max < values[i])
            return gm_fail(diag, GM_INVALID, "the arguments make %s = %lld, its bound is %lld", in->symbols[i].name,
                           (long long)values[i], (long long)in->symbols[i].max);
    ir_module *bound;
    GM_TRY(pass_specialize_for(in, func, values, diag, &bound));
    for (int i = 0; i < bound->symbol_count; i++) {
        ir_symbol *symbol = &bound->symbols[i];
        if (!symbol->max) symbol->max = values[i] > 0 ? values[i] : 1;
        if (values[i] < 0) values[i] = symbol->max;
    }
    pass_options limits = {.context = 1, .chunk = 1, .rows = 1};
    pass_pipeline_request request = {.options = &limits, .list = "choose_matmul,legalize,plan_memory"};
    return pass_run(&request, bound, diag, out);
}

/* Close the program even when this fails. */
static gm_status program_open(const ir_module *module, const char *name, const rt_weights *weights,
                              const ir_array *args, int arg_count, int threads, const cg_options *options,
                              gm_diag *diag, fe_gir_program *p) {
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
static void run(fe_gir_program *p, const char *name, const ir_array *args, int arg_count, gm_arena *arena,
                ir_array *results) {
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
        for (int d = 0; d < type->rank; d++) results[i].dim[d] = ir_dim_value(type->dim[d], p->dims);
        int alias = func->alias ? func->alias[i] : -1;
        results[i].data = alias >= 0 ? in[alias] : gm_arena_alloc(arena, array_bytes(&results[i]) + PAD_BYTES);
        out[i] = results[i].data;
    }
    fe_gir_program_run(p, name, in, out);
}

gm_status fe_gir_run_jit_for(const char *target_cpu, int threads, const ir_module *module, const char *func,
                             const ir_interp_env *env, const ir_array *args, int arg_count, gm_arena *arena,
                             ir_array *results, gm_diag *diag) {
    fe_gir_program program;
    cg_options options = {.target_cpu = target_cpu};
    gm_status status = program_open(module, func, env->weights, args, arg_count, threads, &options, diag, &program);
    if (status == GM_OK) {
        run(&program, func, args, arg_count, arena, results);
        uint64_t written = atomic_load(&program.frame->ring->written);
        for (uint64_t i = 0; env->emit && i < written; i++)
            env->emit(env->user, program.frame->ring->token[i % RT_RING_CAPACITY]);
    }
    fe_gir_program_close(&program);
    return status;
}

gm_status fe_gir_run_jit(const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args,
                         int arg_count, gm_arena *arena, ir_array *results, gm_diag *diag) {
    return fe_gir_run_jit_for(NULL, THREADS, module, func, env, args, arg_count, arena, results, diag);
}

/* ---- --check: both, instruction by instruction ---- */

/* Compiled code runs first and leaves its values. Then the interpreter runs, and after each instruction takes the
 * compiled value for its own, so that every instruction is judged by itself, on the same operands: errors do not add
 * up, and control flow is the same. */
typedef struct record {
    const ir_inst *inst;
    int64_t result;
    size_t bytes;
    void *data;
} record;

typedef struct checker {
    const ir_module *module;
    const ir_inst **insts; /* by number */
    gm_arena arena;
    record *records;
    size_t count, capacity, cursor;
    bool differs;
    gm_diag *diag;
} checker;

static void number_inst(const ir_inst *inst, void *user) {
    checker *c = user;
    int64_t number = cg_trace_number(c->module, inst);
    if (number >= 0) c->insts[number] = inst;
}

static void count_inst(const ir_inst *inst, void *user) {
    ++*(int64_t *)user;
}

static void number_insts(checker *c) {
    int64_t count = 0;
    for (int i = 0; i < c->module->func_count; i++) ir_visit(c->module->funcs[i]->body, count_inst, &count);
    c->insts = GM_NEW_ARRAY(&c->arena, const ir_inst *, count + 1);
    for (int i = 0; i < c->module->func_count; i++) ir_visit(c->module->funcs[i]->body, number_inst, c);
}

static void record_value(void *user, int64_t inst, int64_t result, int64_t elems, const void *data) {
    checker *c = user;
    const ir_inst *made_by = c->insts[inst];
    size_t bytes = rt_dtype_bytes(made_by->results[result]->type.dtype, (size_t)elems);
    if (c->count == c->capacity) {
        c->capacity = c->capacity ? 2 * c->capacity : 256;
        c->records = realloc(c->records, c->capacity * sizeof *c->records);
        GM_ASSERT(c->records);
    }
    record *r = &c->records[c->count++];
    *r = (record){made_by, result, bytes, gm_arena_alloc(&c->arena, bytes + PAD_BYTES)};
    memcpy(r->data, data, bytes);
}

/* Codes of quantised numbers may fall on either side of the middle. */
static bool same_element(ir_exactness exactness, rt_dtype dtype, double want, double got, double largest) {
    bool code = dtype == RT_I8 || dtype == RT_I16;
    if (code && exactness > IR_EXACT_MOVE) return fabs(want - got) <= 1;
    if (exactness >= IR_EXACT_INT16 && !isfinite(want)) return !isfinite(got);
    return ir_agree(exactness, dtype, want, got, largest);
}

/* Some products round x or W on the way, which may fall on either side too. */
static ir_exactness exactness_of(const checker *c, const ir_inst *inst) {
    ir_exactness exactness = ir_exactness_of(c->module, inst);
    bool rounded = ir_attr_is(inst, IR_ATTR_IMPL, "gemv_int16") || ir_attr_is(inst, IR_ATTR_IMPL, "tiles") ||
                   ir_attr_is(inst, IR_ATTR_IMPL, "integer");
    bool scaled = inst->op == IR_SCALED_MATMUL || (inst->op == IR_GATED_MATMUL && inst->operand_count == 4);
    bool rounds = scaled || (rounded && (inst->op == IR_MATMUL || inst->op == IR_GATED_MATMUL));
    return rounds && exactness < IR_EXACT_INT16 ? IR_EXACT_INT16 : exactness;
}

static void compare(checker *c, const ir_func *func, const ir_inst *inst, int result, const ir_array *want,
                    const void *data) {
    ir_array got = *want;
    got.data = (void *)data; /* only read */
    ir_exactness exactness = exactness_of(c, inst);
    int64_t n = ir_array_elems(want);
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(ir_array_element(want, i))) largest = fmax(largest, fabs(ir_array_element(want, i)));
    for (int64_t i = 0; i < n && !c->differs; i++) {
        double w = ir_array_element(want, i), g = ir_array_element(&got, i);
        if (same_element(exactness, want->dtype, w, g, largest)) continue;
        gm_arena arena = {0};
        gm_fail(c->diag, GM_INTERNAL, "@%s: %%%s = %s: element %lld is %.9g compiled, %.9g interpreted", func->name,
                ir_value_names(func, &arena)[inst->results[result]->id], ir_op_of(inst->op)->text, (long long)i, g, w);
        gm_arena_free(&arena);
        c->differs = true;
    }
}

/* After an interpreted instruction. Compiled code leaves out views. */
static void check_values(void *user, const ir_func *func, const ir_inst *inst, const ir_array *results) {
    checker *c = user;
    for (int i = 0; i < inst->result_count && !c->differs && c->cursor < c->count; i++) {
        const record *r = &c->records[c->cursor];
        if (r->inst != inst || r->result != i) continue;
        c->cursor++;
        c->differs |= r->bytes != array_bytes(&results[i]);
        if (c->differs)
            gm_fail(c->diag, GM_INTERNAL, "@%s: %s: extents differ, compiled and interpreted", func->name,
                    ir_op_of(inst->op)->text);
        if (c->differs || memcmp(results[i].data, r->data, array_bytes(&results[i])) == 0) continue;
        compare(c, func, inst, i, &results[i], r->data);
        memcpy(results[i].data, r->data, array_bytes(&results[i]));
    }
}

gm_status fe_gir_check(int threads, const ir_module *module, const char *func, const rt_weights *weights,
                       const ir_array *args, int arg_count, gm_diag *diag) {
    fe_gir_program program;
    checker c = {.diag = diag};
    cg_options options = {.trace = true};
    gm_status status = program_open(module, func, weights, args, arg_count, threads, &options, diag, &program);
    if (status == GM_OK) {
        ir_array *results = GM_NEW_ARRAY(&c.arena, ir_array, ir_func_find(program.module, func)->body->yield_count + 1);
        ir_interp_env env = {.weights = weights, .trace = check_values, .user = &c};
        c.module = program.module;
        number_insts(&c);
        program.frame->trace = record_value;
        program.frame->trace_user = &c;
        run(&program, func, args, arg_count, &c.arena, results);
        status = ir_interp(program.module, func, &env, args, arg_count, &c.arena, results, diag);
        if (status == GM_OK && !c.differs && c.cursor < c.count) {
            c.differs = true;
            gm_fail(diag, GM_INTERNAL, "instruction %lld ran compiled, but not interpreted: control flow differs",
                    (long long)cg_trace_number(c.module, c.records[c.cursor].inst));
        }
        if (status == GM_OK && c.differs) status = GM_INTERNAL;
    }
    fe_gir_program_close(&program);
    free(c.records);
    gm_arena_free(&c.arena);
    return status;
}
