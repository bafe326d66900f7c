/* Read one module, build another: the copying skeleton under every pass. */
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

ir_value *ir_rewrite_get(const ir_rewrite *rewrite, const ir_value *old) {
    ir_value *value = rewrite->map[old->id];
    GM_ASSERT(value && "value used before its definition was rewritten");
    return value;
}

ir_value *ir_rewrite_named(const ir_rewrite *rewrite, ir_value *value, const ir_value *old) {
    if (old->hint && !value->hint) value->hint = gm_arena_strdup(&rewrite->out->arena, old->hint);
    return value;
}

void ir_rewrite_map(ir_rewrite *rewrite, const ir_value *old, ir_value *replacement) {
    rewrite->map[old->id] = ir_rewrite_named(rewrite, replacement, old);
}

static const ir_dim *substitute_of(const ir_rewrite *rewrite);

static ir_type type_of(const ir_rewrite *rewrite, ir_type type) {
    const ir_dim *substitute = substitute_of(rewrite);
    for (int d = 0; substitute && d < type.rank; d++)
        if (ir_dim_is_symbol(type.dim[d])) type.dim[d] = substitute[ir_dim_symbol_of(type.dim[d])];
    return type;
}

/* The rewrite with what only this file needs. */
typedef struct rewrite_frame {
    ir_rewrite base; /* first, so that the public pointer is this one */
    const ir_dim *substitute;
} rewrite_frame;

static const ir_dim *substitute_of(const ir_rewrite *rewrite) {
    return ((const rewrite_frame *)rewrite)->substitute;
}

static void clone_params(ir_rewrite *rewrite, const ir_region *from, ir_region *to) {
    for (int i = 0; i < from->param_count; i++) {
        const ir_value *old = from->params[i];
        ir_rewrite_map(rewrite, old, ir_param(&rewrite->b, to, type_of(rewrite, old->type), old->hint));
    }
}

void ir_rewrite_region_into(ir_rewrite *rewrite, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        if (!rewrite->hook || !rewrite->hook(rewrite, inst)) ir_rewrite_clone(rewrite, inst);
    }
}

static void clone_yields(ir_rewrite *rewrite, const ir_region *from) {
    ir_value **yields = GM_NEW_ARRAY(&rewrite->out->arena, ir_value *, from->yield_count + 1);
    for (int i = 0; i < from->yield_count; i++) yields[i] = ir_rewrite_get(rewrite, from->yields[i]);
    ir_yield(&rewrite->b, yields, from->yield_count);
}

static ir_region *clone_region(ir_rewrite *rewrite, const ir_region *from) {
    ir_region *to = ir_region_new(&rewrite->b), *outer = rewrite->b.region;
    clone_params(rewrite, from, to);
    rewrite->b.region = to;
    ir_rewrite_region_into(rewrite, from);
    clone_yields(rewrite, from);
    rewrite->b.region = outer;
    return to;
}

static void substitute_attrs(const ir_rewrite *rewrite, ir_attr *attrs, int count) {
    const ir_dim *substitute = substitute_of(rewrite);
    for (int i = 0; substitute && i < count; i++)
        if (ir_attr_of(attrs[i].key)->kind == IR_KIND_DIM && ir_dim_is_symbol(attrs[i].i))
            attrs[i].i = substitute[ir_dim_symbol_of(attrs[i].i)];
}

ir_value **ir_rewrite_operands(const ir_rewrite *rewrite, const ir_inst *inst, int more) {
    ir_value **operands = GM_NEW_ARRAY(&rewrite->out->arena, ir_value *, inst->operand_count + more + 1);
    for (int i = 0; i < inst->operand_count; i++) operands[i] = ir_rewrite_get(rewrite, inst->operands[i]);
    return operands;
}

/* Its attributes without that of `key`, in whose place is `instead`, or behind all; NULL: nothing is. */
static ir_inst *copy_but(ir_rewrite *rewrite, const ir_inst *inst, ir_attr_key key, const ir_attr *instead) {
    ir_inst *copy = GM_NEW(&rewrite->out->arena, ir_inst);
    *copy = *inst;
    copy->attrs = GM_NEW_ARRAY(&rewrite->out->arena, ir_attr, inst->attr_count + 1);
    copy->attr_count = 0;
    for (int i = 0; i < inst->attr_count; i++) {
        bool other = inst->attrs[i].key != key;
        if (other || instead) copy->attrs[copy->attr_count++] = other ? inst->attrs[i] : *instead;
        if (!other) instead = NULL;
    }
    if (instead) copy->attrs[copy->attr_count++] = *instead;
    return copy;
}

ir_inst *ir_rewrite_without(ir_rewrite *rewrite, const ir_inst *inst, ir_attr_key key) {
    return copy_but(rewrite, inst, key, NULL);
}

ir_inst *ir_rewrite_with(ir_rewrite *rewrite, const ir_inst *inst, ir_attr attr) {
    return copy_but(rewrite, inst, attr.key, &attr);
}

ir_inst *ir_rewrite_clone(ir_rewrite *rewrite, const ir_inst *inst) {
    gm_arena *arena = &rewrite->out->arena;
    ir_value **operands = ir_rewrite_operands(rewrite, inst, 0);
    ir_type *types = GM_NEW_ARRAY(arena, ir_type, inst->result_count + 1);
    for (int i = 0; i < inst->result_count; i++) types[i] = type_of(rewrite, inst->results[i]->type);
    ir_attr *attrs = GM_NEW_ARRAY(arena, ir_attr, inst->attr_count + 1);
    if (inst->attr_count) memcpy(attrs, inst->attrs, sizeof *attrs * (size_t)inst->attr_count);
    substitute_attrs(rewrite, attrs, inst->attr_count);
    ir_region *regions[2];
    GM_ASSERT(inst->region_count <= 2);
    for (int i = 0; i < inst->region_count; i++) regions[i] = clone_region(rewrite, inst->regions[i]);
    ir_inst *copy = ir_emit(&rewrite->b, inst->op, operands, inst->operand_count, attrs, inst->attr_count, regions,
                            inst->region_count, types, inst->result_count);
    for (int i = 0; i < inst->result_count; i++) ir_rewrite_map(rewrite, inst->results[i], copy->results[i]);
    return copy;
}

ir_module *ir_module_like(const ir_module *in) {
    ir_module *out = ir_module_new();
    for (int i = 0; i < in->symbol_count; i++) ir_symbol_intern(out, in->symbols[i].name, in->symbols[i].max);
    return out;
}

static void keep_params(ir_rewrite *rewrite) {
    clone_params(rewrite, rewrite->in_func->body, rewrite->b.region);
}

static void keep_yields(ir_rewrite *rewrite) {
    clone_yields(rewrite, rewrite->in_func->body);
}

static ir_func *copy_func(rewrite_frame *frame, const char *name, ir_rewrite_part params, ir_rewrite_part yields) {
    ir_rewrite *rewrite = &frame->base;
    const ir_func *func = rewrite->in_func;
    rewrite->map = calloc(func->value_count + 1, sizeof *rewrite->map);
    rewrite->uses = ir_count_uses(func);
    GM_ASSERT(rewrite->map);
    ir_func *copy = ir_func_new(&rewrite->b, rewrite->out, name);
    params(rewrite);
    ir_rewrite_region_into(rewrite, func->body);
    yields(rewrite);
    free(rewrite->map);
    free(rewrite->uses);
    return copy;
}

ir_func *ir_retype_func(const ir_module *in, const ir_func *func, ir_module *out, const char *name,
                        ir_rewrite_part params, ir_rewrite_part yields, ir_rewrite_fn hook, void *user) {
    rewrite_frame frame = {.base = {.in = in, .in_func = func, .out = out, .hook = hook, .user = user}};
    return copy_func(&frame, name, params, yields);
}

ir_func *ir_clone_func(const ir_module *in, const ir_func *func, ir_module *out, const char *name,
                       const ir_dim *substitute, ir_rewrite_fn hook, void *user) {
    rewrite_frame frame = {.base = {.in = in, .in_func = func, .out = out, .hook = hook, .user = user},
                           .substitute = substitute};
    ir_func *copy = copy_func(&frame, name, keep_params, keep_yields);
    if (func->alias) {
        size_t count = (size_t)func->body->yield_count;
        copy->alias = GM_NEW_ARRAY(&out->arena, int, count + 1);
        memcpy(copy->alias, func->alias, count * sizeof *copy->alias);
    }
    copy->frame = func->frame;
    return copy;
}

ir_module *ir_rewrite_module(const ir_module *in, ir_rewrite_fn hook, void *user) {
    ir_module *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) ir_clone_func(in, in->funcs[i], out, in->funcs[i]->name, NULL, hook, user);
    return out;
}

static void count_region(const ir_region *region, uint32_t *uses) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        for (int j = 0; j < inst->operand_count; j++) uses[inst->operands[j]->id]++;
        for (int j = 0; j < inst->region_count; j++) count_region(inst->regions[j], uses);
    }
    for (int i = 0; i < region->yield_count; i++) uses[region->yields[i]->id]++;
}

uint32_t *ir_count_uses(const ir_func *func) {
    uint32_t *uses = calloc(func->value_count + 1, sizeof *uses);
    GM_ASSERT(uses);
    count_region(func->body, uses);
    return uses;
}

void ir_visit(const ir_region *region, ir_visit_fn visit, void *user) {
    for (int i = 0; i < region->inst_count; i++) {
        visit(region->insts[i], user);
        for (int j = 0; j < region->insts[i]->region_count; j++) ir_visit(region->insts[i]->regions[j], visit, user);
    }
}

bool ir_has_effect(const ir_inst *inst) {
    if (ir_op_of(inst->op)->class == IR_CLASS_EFFECT || inst->op == IR_DIM) return true;
    for (int i = 0; i < inst->region_count; i++)
        for (int j = 0; j < inst->regions[i]->inst_count; j++)
            if (ir_has_effect(inst->regions[i]->insts[j])) return true;
    return false;
}
