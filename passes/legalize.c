/* legalize: rewrite what compiled code does not take as it stands.
 *
 *   call/matmul/argmax/sample/gather/… of a strided view      ->  the view is copied first (a concat of one operand)
 *   matmul with a computed matrix instead of a stored weight  ->  an einsum per matrix
 *   gated_matmul of floats, not in tiles                      ->  its expansion
 *   matmul over no columns                                    ->  a constant
 *
 * matmul takes rows at one constant distance, attention any strides that leave the head dimension dense, or in K the
 * keys; the others want dense operands. Changes no value. Layouts are those that plan_memory and codegen will use
 * (ir/layout.h).
 */
#include "passes/passes.h"
#include "ir/interp.h"
#include "ir/layout.h"
#include "ir/rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct layouts {
    const ir_func *func;
    ir_layout *of; /* by value id of the function that is read */
} layouts;

static void set_layouts(const ir_rewrite *rw, layouts *l, const ir_inst *inst) {
    for (int i = 0; i < inst->result_count; i++) {
        const ir_value *y = inst->results[i];
        l->of[y->id] = ir_layout_dense(rw->in, &y->type);
        if (inst->op == IR_CONST && ir_attr_find(inst, IR_ATTR_VALUE)) l->of[y->id] = (ir_layout){{0}};
        if (ir_op_of(inst->op)->class != IR_CLASS_SHAPE || y->type.rank == 0 || inst->operands[0]->type.rank == 0)
            continue;
        ir_layout view;
        if (ir_layout_view(rw->in, inst, &l->of[inst->operands[0]->id], &view)) l->of[y->id] = view;
    }
    if (inst->op == IR_UPDATE) l->of[inst->results[0]->id] = l->of[inst->operands[0]->id];
}

static void set_params(const ir_rewrite *rw, layouts *l, const ir_region *region) {
    for (int i = 0; i < region->param_count; i++)
        l->of[region->params[i]->id] = ir_layout_dense(rw->in, &region->params[i]->type);
    for (int i = 0; i < region->inst_count; i++)
        for (int r = 0; r < region->insts[i]->region_count; r++) set_params(rw, l, region->insts[i]->regions[r]);
}

static bool last_dense(const ir_type *type, const ir_layout *layout) {
    return type->dim[type->rank - 1] == 1 || layout->stride[type->rank - 1] == 1;
}

/* Can compiled code read operand i of inst through this layout? */
static bool takes(const ir_rewrite *rw, const ir_inst *inst, int i, const ir_layout *layout) {
    const ir_type *type = &inst->operands[i]->type;
    int64_t stride;
    if (type->rank == 0 || rt_is_storage(type->dtype)) return true;
    switch (inst->op) {
    case IR_GATED_MATMUL:
    case IR_SCALED_MATMUL:
        return i > 0 ? ir_layout_is_dense(rw->in, type, layout) : ir_layout_matrix(type, layout, &stride);
    case IR_MATMUL: return i > 0 || ir_layout_matrix(type, layout, &stride);
    case IR_ATTENTION: return i > 3 || last_dense(type, layout) || (i == 1 && layout->stride[0] == 1);
    case IR_ARGMAX: return ir_layout_matrix(type, layout, &stride);
    case IR_CALL:
    case IR_SAMPLE:
    case IR_GUESS:
    case IR_SCREENED_ARGMAX:
    case IR_SCREENED_GUESS:
    case IR_SCREENED_SAMPLE:
    case IR_GATHER: return ir_layout_is_dense(rw->in, type, layout);
    default: return true;
    }
}

static ir_value *copy_of(ir_rewrite *rw, ir_value *view) {
    return ir_concat(&rw->b, &view, 1, 0);
}

static bool is_computed(const ir_value *w) {
    return !w->def || !ir_stored_count(w->def);
}

/* A product that has no kernel of its own. */
static bool needs_einsum(const ir_inst *inst) {
    bool computed = false;
    for (int i = 1; inst->op == IR_MATMUL && i < inst->operand_count; i++) computed |= is_computed(inst->operands[i]);
    return computed;
}

/* Compiled code has gates of integer products and of those in tiles. */
static bool needs_expansion(const ir_inst *inst) {
    return inst->op == IR_GATED_MATMUL && inst->operand_count == 3 && !ir_attr_is(inst, IR_ATTR_IMPL, "tiles");
}

/* A product over no columns. */
static bool is_empty_sum(const ir_inst *inst) {
    return inst->op == IR_MATMUL && inst->operands[0]->type.dim[inst->operands[0]->type.rank - 1] == 0;
}

static ir_value *as_f32(ir_rewrite *rw, ir_value *x) {
    return x->type.dtype == RT_F32 ? x : ir_convert(&rw->b, x, RT_F32);
}

/* Of stored weights a product each remains. */
static ir_value *matmul_as_einsum(ir_rewrite *rw, const ir_inst *inst, ir_value *const *operands) {
    ir_value *x = as_f32(rw, operands[0]), *parts[IR_MAX_WEIGHTS];
    int count = inst->operand_count;
    char spec[32];
    int lead = x->type.rank - 1;
    snprintf(spec, sizeof spec, "%.*sy,zy->%.*sz", lead, "abcdef", lead, "abcdef");
    for (int i = 1; i < count; i++) {
        ir_value *stored[] = {operands[0], operands[i]};
        if (is_computed(inst->operands[i])) parts[i - 1] = ir_einsum(&rw->b, spec, x, as_f32(rw, operands[i]));
        else parts[i - 1] = ir_emit1(&rw->b, IR_MATMUL, stored, 2, inst->attrs, inst->attr_count, NULL);
    }
    return count == 2 ? parts[0] : ir_concat(&rw->b, parts, count - 1, lead);
}

static bool legalize(ir_rewrite *rw, const ir_inst *inst) {
    layouts *l = rw->user;
    if (l->func != rw->in_func) {
        free(l->of);
        *l = (layouts){rw->in_func, calloc(rw->in_func->value_count + 1, sizeof *l->of)};
        GM_ASSERT(l->of);
        set_params(rw, l, rw->in_func->body);
    }
    set_layouts(rw, l, inst);
    bool einsum = needs_einsum(inst), changed = einsum;
    if (inst->region_count) return false;
    ir_value **operands = ir_rewrite_operands(rw, inst, 0);
    if (needs_expansion(inst)) {
        ir_rewrite_map(rw, inst->results[0], ir_expand_inst(&rw->b, inst, operands));
        return true;
    }
    if (is_empty_sum(inst)) {
        ir_attr zero = ir_attr_make_float(IR_ATTR_VALUE, 0);
        ir_rewrite_map(rw, inst->results[0], ir_emit1(&rw->b, IR_CONST, NULL, 0, &zero, 1, &inst->results[0]->type));
        return true;
    }
    for (int i = 0; i < inst->operand_count; i++) {
        if (takes(rw, inst, i, &l->of[inst->operands[i]->id])) continue;
        operands[i] = copy_of(rw, operands[i]);
        changed = true;
    }
    if (!changed) return false;
    if (einsum) {
        ir_rewrite_map(rw, inst->results[0], matmul_as_einsum(rw, inst, operands));
        return true;
    }
    ir_type *types = GM_NEW_ARRAY(&rw->out->arena, ir_type, inst->result_count + 1);
    for (int i = 0; i < inst->result_count; i++) types[i] = inst->results[i]->type;
    ir_inst *copy = ir_emit(&rw->b, inst->op, operands, inst->operand_count, inst->attrs, inst->attr_count, NULL, 0,
                            types, inst->result_count);
    for (int i = 0; i < inst->result_count; i++) ir_rewrite_map(rw, inst->results[i], copy->results[i]);
    return true;
}

/* Products of blocks are kernels of stored weights: of a parameter in blocks nobody can tell which it is. */
static void find_unnamed(const ir_inst *inst, void *user) {
    for (int i = 1; inst->op == IR_MATMUL && i < inst->operand_count; i++)
        if (is_computed(inst->operands[i]) && rt_is_storage(inst->operands[i]->type.dtype))
            *(const ir_type **)user = &inst->operands[i]->type;
}

gm_status pass_legalize(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    layouts l = {NULL, NULL};
    const ir_type *unnamed = NULL;
    for (int i = 0; i < in->func_count && !unnamed; i++) {
        ir_visit(in->funcs[i]->body, find_unnamed, &unnamed);
        if (unnamed)
            return gm_fail(diag, GM_UNSUPPORTED,
                           "@%s: matmul of a parameter in %s: expected a weight, for compiled code", in->funcs[i]->name,
                           rt_dtype_of(unnamed->dtype)->text);
    }
    *out = ir_rewrite_module(in, legalize, &l);
    free(l.of);
    return GM_OK;
}
