/* The interpreter's frame: functions, regions, instructions, the values of symbols. The ops themselves are in
 * interp_elem.c (sources, element-wise), interp_sum.c (reductions, contractions), interp_move.c (views, movement) and
 * interp_control.c (regions, calls, generation). */
#include "ir/interp_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CALL_DEPTH = 100 };

int64_t ir_array_elems(const ir_array *tensor) {
    int64_t elems = 1;
    for (int i = 0; i < tensor->rank; i++) elems *= tensor->dim[i];
    return elems;
}

double ir_array_element(const ir_array *tensor, int64_t i) {
    const void *data = tensor->data;
    switch (tensor->dtype) {
    case RT_F32: return (double)((const float *)data)[i];
    case RT_F16: return (double)rt_f16_to_f32(((const uint16_t *)data)[i]);
    case RT_BF16: return (double)rt_bf16_to_f32(((const uint16_t *)data)[i]);
    case RT_I64: return (double)((const int64_t *)data)[i];
    case RT_I32: return (double)((const int32_t *)data)[i];
    case RT_I16: return (double)((const int16_t *)data)[i];
    case RT_I8: return (double)((const int8_t *)data)[i];
    case RT_BOOL: return (double)((const uint8_t *)data)[i];
    default: GM_UNREACHABLE("storage types have no elements");
    }
}

size_t interp_bytes(const ir_array *tensor) {
    return rt_dtype_bytes(tensor->dtype, (size_t)ir_array_elems(tensor));
}

gm_status interp_fail(const interp_frame *frame, const ir_inst *inst, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    gm_diag *diag = frame->run->diag;
    if (!inst) return gm_fail(diag, GM_INVALID, "@%s: %s", frame->func->name, text);
    const char *op = ir_op_of(inst->op)->text;
    if (inst->result_count == 0) return gm_fail(diag, GM_INVALID, "@%s: %s: %s", frame->func->name, op, text);
    gm_arena names = {0};
    gm_fail(diag, GM_INVALID, "@%s: %%%s = %s: %s", frame->func->name,
            ir_value_names(frame->func, &names)[inst->results[0]->id], op, text);
    gm_arena_free(&names);
    return GM_INVALID;
}

gm_status interp_alloc(interp_frame *frame, const ir_inst *inst, ir_array *tensor) {
    size_t elems = 1, limit = (size_t)1 << 40;
    for (int i = 0; i < tensor->rank; i++)
        if (!gm_mul_size(elems, (size_t)tensor->dim[i], &elems) || elems > limit)
            return interp_fail(frame, inst, "the tensor is too large");
    tensor->data = gm_arena_alloc(frame->arena, rt_dtype_bytes(tensor->dtype, elems));
    return GM_OK;
}

/* ---- symbols and types ---- */

gm_status interp_extent(const interp_frame *frame, const ir_inst *inst, ir_dim dim, int64_t *out) {
    *out = dim;
    if (!ir_dim_is_symbol(dim)) return GM_OK;
    int symbol = ir_dim_symbol_of(dim);
    *out = frame->extent[symbol];
    if (*out >= 0) return GM_OK;
    return interp_fail(frame, inst, "symbol %s has no value", frame->module->symbols[symbol].name);
}

static gm_status shape_of(const interp_frame *frame, const ir_inst *inst, const ir_type *type, ir_array *out) {
    *out = (ir_array){.dtype = type->dtype, .rank = type->rank};
    for (int i = 0; i < type->rank; i++) GM_TRY(interp_extent(frame, inst, type->dim[i], &out->dim[i]));
    return GM_OK;
}

/* `what` must have the extents that `type` has at this moment. */
static gm_status check_shape(const interp_frame *frame, const ir_inst *inst, const ir_type *type,
                             const ir_array *tensor, const char *what, int number) {
    ir_array want;
    GM_TRY(shape_of(frame, inst, type, &want));
    if (tensor->dtype != want.dtype || tensor->rank != want.rank)
        return interp_fail(frame, inst, "%s %d has another dtype or rank than its type", what, number);
    for (int i = 0; i < want.rank; i++)
        if (tensor->dim[i] != want.dim[i])
            return interp_fail(frame, inst, "%s %d has extent %lld on axis %d, its type says %lld", what, number,
                               (long long)tensor->dim[i], i, (long long)want.dim[i]);
    return GM_OK;
}

/* Give the symbols in the parameter's type the extents of the argument. */
static gm_status bind_param(interp_frame *frame, int number, const ir_array *arg) {
    const ir_type *type = &frame->func->body->params[number]->type;
    for (int i = 0; i < type->rank && i < arg->rank; i++) {
        if (!ir_dim_is_symbol(type->dim[i])) continue;
        int symbol = ir_dim_symbol_of(type->dim[i]);
        const ir_symbol *s = &frame->module->symbols[symbol];
        if (arg->dim[i] < 0 || (s->max && arg->dim[i] > s->max))
            return interp_fail(frame, NULL, "argument %d makes %s = %lld, its bound is %lld", number, s->name,
                               (long long)arg->dim[i], (long long)s->max);
        if (frame->extent[symbol] < 0) frame->extent[symbol] = arg->dim[i];
    }
    return GM_OK;
}

static gm_status bind_symbols(interp_frame *frame, const ir_array *args, int arg_count, const interp_frame *outer) {
    const ir_region *body = frame->func->body;
    if (arg_count != body->param_count)
        return interp_fail(frame, NULL, "takes %d arguments, got %d", body->param_count, arg_count);
    for (int i = 0; i < arg_count; i++) GM_TRY(bind_param(frame, i, &args[i]));
    for (int i = 0; i < frame->module->symbol_count; i++) {
        if (frame->extent[i] >= 0) continue;
        int64_t max = frame->module->symbols[i].max;
        frame->extent[i] = outer ? outer->extent[i] : max ? max : -1;
    }
    for (int i = 0; i < arg_count; i++)
        GM_TRY(check_shape(frame, NULL, &body->params[i]->type, &args[i], "argument", i));
    return GM_OK;
}

/* ---- FUSED ops ---- */

struct interp_expansion {
    const ir_inst *inst;
    ir_module *module;
    interp_expansion *next;
};

/* A module of one function that takes the operands and returns the result. */
static const ir_module *expansion_of(interp_frame *frame, const ir_inst *inst) {
    interp_run *run = frame->run;
    for (interp_expansion *e = run->expansions; e; e = e->next)
        if (e->inst == inst) return e->module;
    ir_builder b;
    ir_module *module = ir_module_like(frame->module);
    ir_func *func = ir_func_new(&b, module, ir_op_of(inst->op)->text);
    for (int i = 0; i < inst->operand_count; i++) ir_param(&b, func->body, inst->operands[i]->type, NULL);
    ir_value *result = ir_expand_inst(&b, inst, func->body->params);
    ir_yield(&b, &result, 1);
    interp_expansion *e = GM_NEW(&run->arena, interp_expansion);
    *e = (interp_expansion){inst, module, run->expansions};
    run->expansions = e;
    return module;
}

static gm_status interp_fused(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    const ir_module *module = expansion_of(frame, inst);
    return interp_function(frame->run, module, module->funcs[0], in, inst->operand_count, frame, true, frame->arena,
                           out);
}

/* ---- instructions, regions, functions ---- */

#define INTERP_ENTRY_SOURCE(name)   interp_##name
#define INTERP_ENTRY_ELEM(name)     interp_##name
#define INTERP_ENTRY_REDUCE(name)   interp_##name
#define INTERP_ENTRY_CONTRACT(name) interp_##name
#define INTERP_ENTRY_MOVE(name)     interp_##name
#define INTERP_ENTRY_SHAPE(name)    interp_##name
#define INTERP_ENTRY_CONTROL(name)  interp_##name
#define INTERP_ENTRY_EFFECT(name)   interp_##name
#define INTERP_ENTRY_FUSED(name)    interp_fused

static interp_fn *const table[] = {
#define OP(name, text, operands, results, regions, class) INTERP_ENTRY_##class(name),
#include "ir/ops.def"
#undef OP
};

static gm_status run_inst(interp_frame *frame, const ir_inst *inst) {
    ir_array *in = GM_NEW_ARRAY(frame->arena, ir_array, inst->operand_count);
    ir_array *out = GM_NEW_ARRAY(frame->arena, ir_array, inst->result_count);
    for (int i = 0; i < inst->operand_count; i++) {
        in[i] = frame->values[inst->operands[i]->id];
        GM_TRY(check_shape(frame, inst, &inst->operands[i]->type, &in[i], "operand", i));
    }
    for (int i = 0; i < inst->result_count; i++) GM_TRY(shape_of(frame, inst, &inst->results[i]->type, &out[i]));
    GM_TRY(table[inst->op](frame, inst, in, out));
    for (int i = 0; i < inst->result_count; i++) {
        GM_TRY(check_shape(frame, inst, &inst->results[i]->type, &out[i], "result", i));
        frame->values[inst->results[i]->id] = out[i];
    }
    const ir_interp_env *env = frame->run->env;
    if (env->trace && !frame->quiet) env->trace(env->user, frame->func, inst, out);
    return GM_OK;
}

static gm_status run_insts(interp_frame *frame, const ir_region *region, const ir_array *args, gm_arena *to,
                           ir_array *yields) {
    for (int i = 0; i < region->param_count; i++) {
        frame->values[region->params[i]->id] = args[i];
        GM_TRY(check_shape(frame, NULL, &region->params[i]->type, &args[i], "parameter", i));
    }
    for (int i = 0; i < region->inst_count; i++) GM_TRY(run_inst(frame, region->insts[i]));
    for (int i = 0; i < region->yield_count; i++) {
        ir_array *from = &frame->values[region->yields[i]->id];
        GM_TRY(check_shape(frame, NULL, &region->yields[i]->type, from, "yield", i));
        yields[i] = *from;
        yields[i].data = gm_arena_alloc(to, interp_bytes(from));
        memcpy(yields[i].data, from->data, interp_bytes(from));
    }
    return GM_OK;
}

gm_status interp_region(interp_frame *frame, const ir_region *region, const ir_array *args, gm_arena *to,
                        ir_array *yields) {
    gm_arena scratch = {0}, *outer = frame->arena;
    size_t bytes = sizeof(int64_t) * (size_t)frame->module->symbol_count;
    int64_t *saved = gm_arena_alloc(&scratch, bytes);
    if (bytes) memcpy(saved, frame->extent, bytes);
    frame->arena = &scratch;
    gm_status status = run_insts(frame, region, args, to, yields);
    frame->arena = outer;
    if (bytes) memcpy(frame->extent, saved, bytes);
    gm_arena_free(&scratch);
    return status;
}

gm_status interp_function(interp_run *run, const ir_module *module, const ir_func *func, const ir_array *args,
                          int arg_count, const interp_frame *outer, bool quiet, gm_arena *to, ir_array *results) {
    gm_arena own = {0};
    interp_frame frame = {.run = run, .module = module, .func = func, .arena = &own, .quiet = quiet};
    frame.extent = GM_NEW_ARRAY(&own, int64_t, module->symbol_count);
    for (int i = 0; i < module->symbol_count; i++) frame.extent[i] = -1;
    frame.values = GM_NEW_ARRAY(&own, ir_array, func->value_count);
    gm_status status = bind_symbols(&frame, args, arg_count, outer);
    if (status == GM_OK && run->depth == MAX_CALL_DEPTH)
        status = interp_fail(&frame, NULL, "calls are nested more than %d deep", MAX_CALL_DEPTH);
    run->depth++;
    if (status == GM_OK) status = interp_region(&frame, func->body, args, to, results);
    run->depth--;
    gm_arena_free(&own);
    return status;
}

gm_status ir_interp(const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args,
                    int arg_count, gm_arena *arena, ir_array *results, gm_diag *diag) {
    static const ir_interp_env nothing;
    const ir_func *entry = ir_func_find(module, func);
    if (!entry) return gm_fail(diag, GM_INVALID, "no function @%s", func);
    interp_run run = {.env = env ? env : &nothing, .diag = diag};
    gm_status status = interp_function(&run, module, entry, args, arg_count, NULL, false, arena, results);
    for (interp_expansion *e = run.expansions; e; e = e->next) ir_module_free(e->module);
    gm_arena_free(&run.arena);
    return status;
}
