/* Typed builders over the data structure of ir.h. */
#include "ir/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ir_value *value_new(ir_builder *b, ir_type type) {
    ir_value *value = GM_NEW(&b->module->arena, ir_value);
    value->type = type;
    value->id = b->func->value_count++;
    return value;
}

static void *copy_array(gm_arena *arena, const void *source, size_t bytes) {
    if (!bytes) return NULL;
    return memcpy(gm_arena_alloc(arena, bytes), source, bytes);
}

ir_region *ir_region_new(ir_builder *b) {
    return GM_NEW(&b->module->arena, ir_region);
}

ir_func *ir_func_new(ir_builder *b, ir_module *module, const char *name) {
    gm_arena *arena = &module->arena;
    ir_func *func = GM_NEW(arena, ir_func);
    func->name = gm_arena_strdup(arena, name);
    func->body = GM_NEW(arena, ir_region);
    ir_func **grown = GM_NEW_ARRAY(arena, ir_func *, module->func_count + 1);
    if (module->func_count) memcpy(grown, module->funcs, sizeof *grown * (size_t)module->func_count);
    grown[module->func_count++] = func;
    module->funcs = grown;
    *b = (ir_builder){module, func, func->body};
    return func;
}

ir_value *ir_param(ir_builder *b, ir_region *region, ir_type type, const char *hint) {
    gm_arena *arena = &b->module->arena;
    ir_value *value = value_new(b, type);
    value->param_of = region;
    value->index = region->param_count;
    if (hint) value->hint = gm_arena_strdup(arena, hint);
    ir_value **grown = GM_NEW_ARRAY(arena, ir_value *, region->param_count + 1);
    if (region->param_count) memcpy(grown, region->params, sizeof *grown * (size_t)region->param_count);
    grown[region->param_count++] = value;
    region->params = grown;
    return value;
}

void ir_yield(ir_builder *b, ir_value *const *values, int count) {
    b->region->yields = copy_array(&b->module->arena, values, sizeof *values * (size_t)count);
    b->region->yield_count = count;
}

ir_value *ir_named(ir_value *value, const char *hint) {
    value->hint = hint;
    return value;
}

static void region_append(ir_builder *b, ir_inst *inst) {
    ir_region *region = b->region;
    if (region->inst_count == region->inst_capacity) {
        int capacity = region->inst_capacity ? region->inst_capacity * 2 : 16;
        ir_inst **grown = GM_NEW_ARRAY(&b->module->arena, ir_inst *, capacity);
        if (region->inst_count) memcpy(grown, region->insts, sizeof *grown * (size_t)region->inst_count);
        region->insts = grown;
        region->inst_capacity = capacity;
    }
    region->insts[region->inst_count++] = inst;
}

static void copy_attrs(gm_arena *arena, ir_inst *inst) {
    for (int i = 0; i < inst->attr_count; i++) {
        ir_attr *attr = &inst->attrs[i];
        if (attr->s) attr->s = gm_arena_strdup(arena, attr->s);
        if (attr->ints) attr->ints = copy_array(arena, attr->ints, attr->n * sizeof *attr->ints);
        if (attr->floats) attr->floats = copy_array(arena, attr->floats, attr->n * sizeof *attr->floats);
    }
}

ir_inst *ir_emit(ir_builder *b, ir_op op, ir_value *const *operands, int operand_count, const ir_attr *attrs,
                 int attr_count, ir_region *const *regions, int region_count, const ir_type *types, int type_count) {
    gm_arena *arena = &b->module->arena;
    ir_inst *inst = GM_NEW(arena, ir_inst);
    *inst = (ir_inst){.op = op,
                      .operand_count = operand_count,
                      .result_count = type_count,
                      .region_count = region_count,
                      .attr_count = attr_count,
                      .operands = copy_array(arena, operands, sizeof *operands * (size_t)operand_count),
                      .regions = copy_array(arena, regions, sizeof *regions * (size_t)region_count),
                      .attrs = copy_array(arena, attrs, sizeof *attrs * (size_t)attr_count)};
    copy_attrs(arena, inst);
    ir_type *results = GM_NEW_ARRAY(arena, ir_type, type_count + 1);
    if (types) memcpy(results, types, sizeof *types * (size_t)type_count);
    char why[256];
    if (!ir_infer(b->module, inst, results, why)) {
        fprintf(stderr, "gemmac: building @%s: %s: %s\n", b->func->name, ir_op_of(op)->text, why);
        gm_abort(__FILE__, __LINE__, "type rule broken by a builder");
    }
    inst->results = GM_NEW_ARRAY(arena, ir_value *, type_count + 1);
    for (int i = 0; i < type_count; i++) {
        inst->results[i] = value_new(b, results[i]);
        inst->results[i]->def = inst;
        inst->results[i]->index = i;
    }
    region_append(b, inst);
    return inst;
}

ir_value *ir_emit1(ir_builder *b, ir_op op, ir_value *const *operands, int operand_count, const ir_attr *attrs,
                   int attr_count, const ir_type *type) {
    return ir_emit(b, op, operands, operand_count, attrs, attr_count, NULL, 0, type, 1)->results[0];
}

/* ---- attributes ---- */

ir_attr ir_attr_make_int(ir_attr_key key, int64_t value) {
    return (ir_attr){.key = key, .i = value};
}

ir_attr ir_attr_make_float(ir_attr_key key, double value) {
    return (ir_attr){.key = key, .f = (double)(float)value};
}

ir_attr ir_attr_make_string(ir_attr_key key, const char *value) {
    return (ir_attr){.key = key, .s = value};
}

/* ---- one function per op family ---- */

ir_value *ir_const_float(ir_builder *b, double value) {
    ir_attr attr = ir_attr_make_float(IR_ATTR_VALUE, value);
    ir_type type = ir_scalar(RT_F32);
    return ir_emit1(b, IR_CONST, NULL, 0, &attr, 1, &type);
}

ir_value *ir_const_int(ir_builder *b, int64_t value) {
    ir_attr attr = ir_attr_make_int(IR_ATTR_VALUE, value);
    ir_type type = ir_scalar(RT_I32);
    return ir_emit1(b, IR_CONST, NULL, 0, &attr, 1, &type);
}

ir_value *ir_const_bool(ir_builder *b, bool value) {
    ir_attr attr = ir_attr_make_int(IR_ATTR_VALUE, value);
    ir_type type = ir_scalar(RT_BOOL);
    return ir_emit1(b, IR_CONST, NULL, 0, &attr, 1, &type);
}

ir_value *ir_const_floats(ir_builder *b, const double *values, int64_t n) {
    ir_attr attr = {.key = IR_ATTR_VALUES, .floats = values, .n = (size_t)n};
    ir_type type = ir_tensor(RT_F32, 1, &n);
    return ir_emit1(b, IR_CONST, NULL, 0, &attr, 1, &type);
}

ir_value *ir_iota(ir_builder *b, int rank, const ir_dim *dims, int axis) {
    ir_attr attr = ir_attr_make_int(IR_ATTR_AXIS, axis);
    ir_type type = ir_tensor(RT_I32, rank, dims);
    return ir_emit1(b, IR_IOTA, NULL, 0, &attr, 1, &type);
}

ir_value *ir_weight(ir_builder *b, const char *name, ir_type type) {
    ir_attr attr = ir_attr_make_string(IR_ATTR_NAME, name);
    return ir_emit1(b, IR_WEIGHT, NULL, 0, &attr, 1, &type);
}

ir_value *ir_unary(ir_builder *b, ir_op op, ir_value *x) {
    return ir_emit1(b, op, &x, 1, NULL, 0, NULL);
}

ir_value *ir_binary(ir_builder *b, ir_op op, ir_value *x, ir_value *y) {
    return ir_emit1(b, op, (ir_value *[]){x, y}, 2, NULL, 0, NULL);
}

ir_value *ir_select(ir_builder *b, ir_value *c, ir_value *x, ir_value *y) {
    return ir_emit1(b, IR_SELECT, (ir_value *[]){c, x, y}, 3, NULL, 0, NULL);
}

ir_value *ir_convert(ir_builder *b, ir_value *x, rt_dtype dtype) {
    ir_type type = ir_scalar(dtype);
    return ir_emit1(b, IR_CONVERT, &x, 1, NULL, 0, &type);
}

ir_value *ir_reduce(ir_builder *b, ir_op op, ir_value *x, int axis) {
    ir_attr attr = ir_attr_make_int(IR_ATTR_AXIS, axis);
    return ir_emit1(b, op, &x, 1, &attr, op == IR_ARGMAX ? 0 : 1, NULL);
}

ir_value *ir_matmul(ir_builder *b, ir_value *x, ir_value *const *weights, int count) {
    ir_value *operands[1 + IR_MAX_WEIGHTS] = {x};
    GM_ASSERT(count <= IR_MAX_WEIGHTS);
    memcpy(operands + 1, weights, sizeof *weights * (size_t)count);
    return ir_emit1(b, IR_MATMUL, operands, count + 1, NULL, 0, NULL);
}

ir_value *ir_gelu(ir_builder *b, ir_value *g) {
    ir_value *one = ir_const_float(b, 1), *cube = ir_binary(b, IR_MUL, ir_binary(b, IR_MUL, g, g), g);
    ir_value *inner = ir_binary(b, IR_ADD, g, ir_binary(b, IR_MUL, cube, ir_const_float(b, IR_GELU_CUBE)));
    ir_value *t = ir_unary(b, IR_TANH, ir_binary(b, IR_MUL, inner, ir_const_float(b, IR_GELU_FACTOR)));
    ir_value *factor = ir_binary(b, IR_ADD, t, one), *half = ir_binary(b, IR_MUL, g, ir_const_float(b, 0.5));
    return ir_binary(b, IR_MUL, half, factor);
}

ir_value *ir_soft_cap(ir_builder *b, ir_value *x, double cap) {
    if (cap == 0) return x;
    ir_value *c = ir_const_float(b, cap);
    return ir_binary(b, IR_MUL, ir_unary(b, IR_TANH, ir_binary(b, IR_DIV, x, c)), c);
}

ir_value *ir_einsum(ir_builder *b, const char *spec, ir_value *x, ir_value *y) {
    ir_attr attr = ir_attr_make_string(IR_ATTR_SPEC, spec);
    return ir_emit1(b, IR_EINSUM, (ir_value *[]){x, y}, 2, &attr, 1, NULL);
}

ir_value *ir_reshape(ir_builder *b, ir_value *x, int rank, const ir_dim *dims) {
    ir_type type = ir_tensor(x->type.dtype, rank, dims);
    return ir_emit1(b, IR_RESHAPE, &x, 1, NULL, 0, &type);
}

ir_value *ir_transpose(ir_builder *b, ir_value *x, const int64_t *perm) {
    ir_attr attr = {.key = IR_ATTR_PERM, .ints = perm, .n = (size_t)x->type.rank};
    return ir_emit1(b, IR_TRANSPOSE, &x, 1, &attr, 1, NULL);
}

ir_value *ir_slice(ir_builder *b, ir_value *x, int axis, int64_t start, int64_t size) {
    ir_attr attrs[] = {ir_attr_make_int(IR_ATTR_AXIS, axis), ir_attr_make_int(IR_ATTR_START, start),
                       ir_attr_make_int(IR_ATTR_SIZE, size)};
    return ir_emit1(b, IR_SLICE, &x, 1, attrs, 3, NULL);
}

ir_value *ir_index(ir_builder *b, ir_value *x, ir_value *i, int axis) {
    ir_attr attr = ir_attr_make_int(IR_ATTR_AXIS, axis);
    return ir_emit1(b, IR_INDEX, (ir_value *[]){x, i}, 2, &attr, 1, NULL);
}

ir_value *ir_window(ir_builder *b, ir_value *x, ir_value *start, int axis, ir_dim size) {
    ir_attr attrs[] = {ir_attr_make_int(IR_ATTR_AXIS, axis), ir_attr_make_int(IR_ATTR_SIZE, size)};
    return ir_emit1(b, IR_WINDOW, (ir_value *[]){x, start}, 2, attrs, 2, NULL);
}

ir_value *ir_concat(ir_builder *b, ir_value *const *xs, int count, int axis) {
    ir_attr attr = ir_attr_make_int(IR_ATTR_AXIS, axis);
    return ir_emit1(b, IR_CONCAT, xs, count, &attr, 1, NULL);
}

ir_value *ir_gather(ir_builder *b, ir_value *table, ir_value *ids) {
    return ir_emit1(b, IR_GATHER, (ir_value *[]){table, ids}, 2, NULL, 0, NULL);
}

ir_value *ir_update(ir_builder *b, ir_value *x, ir_value *v, ir_value *const *starts, int count) {
    ir_value *operands[2 + IR_MAX_RANK] = {x, v};
    GM_ASSERT(count <= IR_MAX_RANK);
    memcpy(operands + 2, starts, sizeof *starts * (size_t)count);
    return ir_emit1(b, IR_UPDATE, operands, count + 2, NULL, 0, NULL);
}

ir_inst *ir_call(ir_builder *b, const ir_func *callee, ir_value *const *args, int count) {
    ir_attr attr = ir_attr_make_string(IR_ATTR_CALLEE, callee->name);
    return ir_emit(b, IR_CALL, args, count, &attr, 1, NULL, 0, NULL, callee->body->yield_count);
}
