/* Bytes and FLOP of instructions, by class and for some by operation. */
#include "ir/cost.h"
#include "runtime/rotate.h"

#include "ir/rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GATE_FLOP = 9 /* of a gate's element: gelu, and the product with up */ };

ir_cost ir_cost_add(ir_cost a, ir_cost b, double times) {
    return (ir_cost){a.read + times * b.read, a.written + times * b.written, a.flop + times * b.flop,
                     a.tokens + times * b.tokens};
}

/* ---- shapes at run time ---- */

static double extent(const ir_module *module, ir_dim dim, const ir_cost_at *at) {
    if (!ir_dim_is_symbol(dim)) return (double)dim;
    return (double)(at->symbols ? at->symbols[ir_dim_symbol_of(dim)] : ir_dim_max(module, dim));
}

static double elems(const ir_module *module, const ir_type *type, const ir_cost_at *at) {
    double n = 1;
    for (int i = 0; i < type->rank; i++) n *= extent(module, type->dim[i], at);
    return n;
}

/* 0 for a scalar: it is a register. */
static double bytes(const ir_module *module, const ir_type *type, const ir_cost_at *at) {
    const rt_dtype_info *info = rt_dtype_of(type->dtype);
    return type->rank ? elems(module, type, at) * info->block_bytes / info->block_elems : 0;
}

/* Is operand i a value that an operand before it is too? */
static bool repeats(const ir_inst *inst, int i) {
    for (int k = 0; k < i; k++)
        if (inst->operands[k] == inst->operands[i]) return true;
    return false;
}

static ir_cost in_and_out(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    ir_cost cost = {0};
    for (int i = 0; i < inst->operand_count; i++)
        if (!repeats(inst, i)) cost.read += bytes(module, &inst->operands[i]->type, at);
    for (int i = 0; i < inst->result_count; i++) cost.written += bytes(module, &inst->results[i]->type, at);
    return cost;
}

/* ---- element-wise operations, reductions and rotations ---- */

static const uint8_t flop_per_element[IR_OP_COUNT] = {
    [IR_NEG] = 1,        [IR_EXP] = 1,        [IR_LOG] = 1,    [IR_TANH] = 1,  [IR_ERF] = 1,
    [IR_SQRT] = 1,       [IR_RSQRT] = 2,      [IR_SIN] = 1,    [IR_COS] = 1,   [IR_ADD] = 1,
    [IR_SUB] = 1,        [IR_MUL] = 1,        [IR_DIV] = 1,    [IR_MAX] = 1,   [IR_MIN] = 1,
    [IR_REDUCE_SUM] = 1, [IR_REDUCE_MAX] = 1, [IR_ARGMAX] = 1, [IR_GUESS] = 1, [IR_SAMPLE] = 1};

/* Butterflies: a step for each doubling of the transform's length. */
static double rotate_flop(const ir_module *module, const ir_type *x, const ir_cost_at *at) {
    int64_t columns = x->dim[x->rank - 1], run = rt_rotate_run(columns);
    double per_element = run == columns ? 1 : 4;
    for (; run > 1; run /= 2) per_element += 1;
    return per_element * elems(module, x, at);
}

/* A rotation takes its steps, a reduction one per element of what it folds, the others one per element of the
 * result. */
static double element_flop(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    bool reduces = ir_op_of(inst->op)->class == IR_CLASS_REDUCE;
    if (inst->op == IR_ROTATE) return rotate_flop(module, &inst->operands[0]->type, at);
    if (!inst->operand_count || !flop_per_element[inst->op]) return 0;
    const ir_type *type = &inst->operands[0]->type;
    if (rt_dtype_of(type->dtype)->class != RT_CLASS_FLOAT) return 0;
    return flop_per_element[inst->op] * elems(module, reduces ? type : &inst->results[0]->type, at);
}

static ir_cost cost_elem(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    ir_cost cost = in_and_out(module, inst, at);
    if (inst->results[0]->type.rank || ir_op_of(inst->op)->class == IR_CLASS_REDUCE)
        cost.flop = element_flop(module, inst, at);
    return cost;
}

/* The numbers of a sampling are the logits; tokens are looked at here and there. */
static ir_cost cost_sample(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    return (ir_cost){.read = bytes(module, &inst->operands[0]->type, at),
                     .written = bytes(module, &inst->results[0]->type, at),
                     .flop = element_flop(module, inst, at)};
}

static ir_cost cost_fuse(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    ir_cost cost = in_and_out(module, inst, at);
    const ir_region *body = inst->regions[0];
    for (int i = 0; i < body->inst_count; i++) cost.flop += element_flop(module, body->insts[i], at);
    return cost;
}

/* ---- sums of products ---- */

static ir_cost cost_matmul(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    const ir_type *x = &inst->operands[0]->type;
    ir_cost cost = in_and_out(module, inst, at);
    cost.flop = 2 * elems(module, &inst->results[0]->type, at) * extent(module, x->dim[x->rank - 1], at);
    return cost;
}

/* Of both products and of the gate. */
static ir_cost cost_gated(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    ir_cost cost = cost_matmul(module, inst, at);
    cost.flop = 2 * cost.flop + GATE_FLOP * elems(module, &inst->results[0]->type, at);
    return cost;
}

/* A product and an addition for every value of all letters together. */
static ir_cost cost_einsum(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    const char *spec = ir_attr_string(inst, IR_ATTR_SPEC);
    bool seen[26] = {false};
    ir_cost cost = in_and_out(module, inst, at);
    cost.flop = 2;
    for (int which = 0, axis = 0; *spec && *spec != '-'; spec++) {
        if (*spec == ',') {
            which = 1;
            axis = 0;
            continue;
        }
        double n = extent(module, inst->operands[which]->type.dim[axis++], at);
        if (!seen[*spec - 'a']) cost.flop *= n;
        seen[*spec - 'a'] = true;
    }
    return cost;
}

/* Rows see the keys up to their own position, at most a window of them. Each is scaled, compared, shifted, raised and
 * summed. */
static ir_cost cost_attention(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    enum { SOFTMAX = 5, SOFTCAP = 3 };
    const ir_type *q = &inst->operands[0]->type, *k = &inst->operands[1]->type;
    double rows = extent(module, q->dim[0], at), heads = extent(module, q->dim[1], at) * extent(module, q->dim[2], at);
    double d = extent(module, q->dim[3], at), window = (double)ir_attr_int(inst, IR_ATTR_WINDOW, 0), seen = 0;
    double first = (double)at->position, keys = first + rows;
    for (double row = 1; row <= rows; row++) seen += window > 0 && first + row > window ? window : first + row;
    if (window > 0 && keys > window + rows - 1) keys = window + rows - 1;
    ir_type key = ir_tensor(k->dtype, k->rank - 1, k->dim + 1);
    double of_key = bytes(module, &key, at);
    if (inst->operand_count > 4) {
        const ir_type *scales = &inst->operands[4]->type;
        ir_type scale = ir_tensor(RT_F32, scales->rank - 1, scales->dim + 1);
        of_key += bytes(module, &scale, at);
    }
    double softmax = SOFTMAX + (ir_attr_float(inst, IR_ATTR_CAP, 0) != 0 ? SOFTCAP : 0);
    return (ir_cost){.read = bytes(module, q, at) + 2 * keys * of_key,
                     .written = bytes(module, &inst->results[0]->type, at),
                     .flop = heads * seen * (4 * d + softmax)};
}

/* How much of w and its screen is gone through: among likely ids the blocks of usual ones, besides which those of the
 * latest tokens are few. */
static double part_screened(const ir_inst *inst, double rows) {
    double usual = (double)ir_attr_int(inst, IR_ATTR_USUAL, 0);
    return ir_attr_find(inst, IR_ATTR_USUAL) && usual < rows ? usual / rows : 1;
}

/* The product with the screen, and with those rows of w that are read besides: few for an argmax; a share as of a usual
 * top_k, which is of about a twentieth on Gemma 3 270M. */
static ir_cost cost_screened(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    const ir_type *x = &inst->operands[0]->type, *w = &inst->operands[1]->type, *screen = &inst->operands[2]->type;
    double rows = elems(module, x, at) / (double)w->dim[1], part = part_screened(inst, (double)w->dim[0]),
           share = inst->op == IR_SCREENED_SAMPLE ? 3.0 / 64 : 0;
    return (ir_cost){.read = bytes(module, x, at) + part * bytes(module, screen, at) + share * bytes(module, w, at),
                     .written = bytes(module, &inst->results[0]->type, at),
                     .flop =
                         2 * rows * part * (double)w->dim[0] * ((double)screen->dim[1] + share * (double)w->dim[1])};
}

/* ---- movement ---- */

static ir_cost cost_gather(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    const ir_type *table = &inst->operands[0]->type;
    ir_type row = ir_tensor(table->dtype, 1, table->dim + 1);
    double ids = elems(module, &inst->operands[1]->type, at);
    return (ir_cost){.read = ids * bytes(module, &row, at) + bytes(module, &inst->operands[1]->type, at),
                     .written = bytes(module, &inst->results[0]->type, at)};
}

static ir_cost cost_update(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    bool inplace = ir_attr_int(inst, IR_ATTR_INPLACE, 0);
    double part = bytes(module, &inst->operands[1]->type, at),
           whole = inplace ? 0 : bytes(module, &inst->results[0]->type, at);
    return (ir_cost){.read = part + whole, .written = part + whole};
}

/* A view that the plan gives memory of its own is copied there. */
static ir_cost cost_view(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    const ir_attr *offset = ir_attr_find(inst, IR_ATTR_OFFSET);
    double moved = offset && offset->ints[0] >= 0 ? bytes(module, &inst->results[0]->type, at) : 0;
    return (ir_cost){.read = moved, .written = moved};
}

/* ---- one instruction ---- */

ir_cost ir_cost_of(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    switch (ir_op_of(inst->op)->class) {
    case IR_CLASS_SOURCE: return inst->op == IR_IOTA ? in_and_out(module, inst, at) : (ir_cost){0};
    case IR_CLASS_ELEM: return cost_elem(module, inst, at);
    case IR_CLASS_REDUCE: return inst->op == IR_SAMPLE ? cost_sample(module, inst, at) : cost_elem(module, inst, at);
    case IR_CLASS_CONTRACT:
        if (inst->op == IR_ROTATE) return cost_elem(module, inst, at);
        return inst->op == IR_MATMUL || inst->op == IR_SCALED_MATMUL ? cost_matmul(module, inst, at)
                                                                     : cost_einsum(module, inst, at);
    case IR_CLASS_SHAPE: return cost_view(module, inst, at);
    case IR_CLASS_MOVE:
        if (inst->op == IR_GATHER) return cost_gather(module, inst, at);
        return inst->op == IR_UPDATE ? cost_update(module, inst, at) : in_and_out(module, inst, at);
    case IR_CLASS_CONTROL: return inst->op == IR_FUSE ? cost_fuse(module, inst, at) : (ir_cost){0};
    case IR_CLASS_FUSED:
        if (inst->op == IR_GATED_MATMUL) return cost_gated(module, inst, at);
        return inst->op == IR_ATTENTION ? cost_attention(module, inst, at) : cost_screened(module, inst, at);
    case IR_CLASS_EFFECT: return (ir_cost){.tokens = 1};
    }
    GM_UNREACHABLE("no such class");
}

static int symbol_of(const ir_type *type) {
    for (int i = 0; i < type->rank; i++)
        if (ir_dim_is_symbol(type->dim[i])) return ir_dim_symbol_of(type->dim[i]);
    return -1;
}

int ir_cost_symbol(const ir_inst *inst) {
    int symbol = -1;
    for (int i = 0; i < inst->result_count && symbol < 0; i++) symbol = symbol_of(&inst->results[i]->type);
    for (int i = 0; i < inst->operand_count && symbol < 0; i++) symbol = symbol_of(&inst->operands[i]->type);
    return symbol;
}

/* ---- functions ---- */

static ir_cost cost_region(const ir_module *module, const ir_func *func, const ir_region *region, const ir_cost_at *at);

/* The callee's symbols have the extents of the arguments. */
static ir_cost cost_call(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    const ir_func *callee = ir_func_find(module, ir_attr_string(inst, IR_ATTR_CALLEE));
    int64_t symbols[IR_MAX_SYMBOLS];
    for (int i = 0; i < module->symbol_count; i++) symbols[i] = at->symbols ? at->symbols[i] : module->symbols[i].max;
    for (int i = 0; i < inst->operand_count; i++) {
        const ir_type *arg = &inst->operands[i]->type, *param = &callee->body->params[i]->type;
        for (int d = 0; d < param->rank; d++)
            if (ir_dim_is_symbol(param->dim[d]))
                symbols[ir_dim_symbol_of(param->dim[d])] = (int64_t)extent(module, arg->dim[d], at);
    }
    return ir_cost_func(module, callee, &(ir_cost_at){symbols, at->position});
}

static ir_cost cost_arms(const ir_module *module, const ir_func *func, const ir_inst *inst, const ir_cost_at *at) {
    ir_cost a = cost_region(module, func, inst->regions[0], at), b = cost_region(module, func, inst->regions[1], at);
    return a.read + a.written >= b.read + b.written ? a : b;
}

/* How often the regions of an instruction run, as far as the module says. */
static double rounds(const ir_module *module, const ir_inst *inst, const ir_cost_at *at) {
    if (inst->op == IR_WHILE) return (double)ir_attr_int(inst, IR_ATTR_ROUNDS, 1);
    if (inst->op == IR_MAP) return extent(module, ir_attr_int(inst, IR_ATTR_EXTENT, 0), at);
    const ir_inst *count = inst->op == IR_SCAN ? inst->operands[0]->def : NULL;
    const ir_attr *value = count && count->op == IR_CONST ? ir_attr_find(count, IR_ATTR_VALUE) : NULL;
    return value ? (double)value->i : 1;
}

/* Of one instruction where it stands. Attention from a later position is for the last of the function's rows. */
static ir_cost cost_within(const ir_module *module, const ir_func *func, const ir_inst *inst, const ir_cost_at *at) {
    ir_cost_at from = *at;
    bool later = inst->op == IR_ATTENTION && inst->operands[3]->def && inst->operands[3]->def->op == IR_ADD;
    const ir_type *all = later && func->body->param_count ? &func->body->params[0]->type : NULL;
    if (all && all->rank)
        from.position +=
            (int64_t)(extent(module, all->dim[0], at) - extent(module, inst->operands[0]->type.dim[0], at));
    return ir_cost_of(module, inst, &from);
}

static ir_cost cost_region(const ir_module *module, const ir_func *func, const ir_region *region,
                           const ir_cost_at *at) {
    ir_cost total = {0};
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        total = ir_cost_add(total, cost_within(module, func, inst, at), 1);
        if (inst->op == IR_CALL) total = ir_cost_add(total, cost_call(module, inst, at), 1);
        else if (inst->op == IR_IF) total = ir_cost_add(total, cost_arms(module, func, inst, at), 1);
        else if (inst->op != IR_FUSE) {
            double times = rounds(module, inst, at);
            for (int r = 0; r < inst->region_count; r++)
                total = ir_cost_add(total, cost_region(module, func, inst->regions[r], at), times);
        }
    }
    return total;
}

ir_cost ir_cost_func(const ir_module *module, const ir_func *func, const ir_cost_at *at) {
    return cost_region(module, func, func->body, at);
}

/* ---- products ---- */

static void narrow(const ir_inst *inst, void *user) {
    rt_dtype *to = user;
    if (inst->op != IR_MATMUL && inst->op != IR_SCALED_MATMUL && inst->op != IR_GATED_MATMUL) return;
    rt_dtype x = inst->operands[0]->type.dtype;
    if (x == RT_I8 || x == RT_I16) *to = RT_I8;
    else if (x == RT_BF16 && *to == RT_F32) *to = RT_BF16;
}

rt_dtype ir_cost_products(const ir_module *module) {
    rt_dtype type = RT_F32;
    for (int i = 0; i < module->func_count; i++) ir_visit(module->funcs[i]->body, narrow, &type);
    return type;
}

/* ---- layers ---- */

static void layer_of(const ir_inst *inst, void *user) {
    int *layers = user, named = -1, reached = -1, weights = 0, number;
    for (int i = 0; i < inst->operand_count; i++) {
        const ir_value *operand = inst->operands[i];
        int layer = layers[operand->id];
        if (layer > reached) reached = layer;
        if (!operand->def || !ir_stored_count(operand->def)) continue;
        weights++;
        if (layer >= 0 && (named < 0 || layer < named)) named = layer;
    }
    int layer = weights ? named : reached;
    if (inst->op == IR_WEIGHT && sscanf(ir_attr_string(inst, IR_ATTR_NAME), "layers.%d.", &number) == 1) layer = number;
    /* stands for those of all rounds */
    if (inst->op == IR_LAYER_WEIGHT) layer = (int)ir_attr_int(inst, IR_ATTR_START, 0);
    for (int i = 0; i < inst->result_count; i++) layers[inst->results[i]->id] = layer;
}

int *ir_value_layers(const ir_func *func) {
    int *layers = malloc(sizeof *layers * (func->value_count + 1));
    GM_ASSERT(layers);
    for (uint32_t i = 0; i < func->value_count; i++) layers[i] = -1;
    ir_visit(func->body, layer_of, layers);
    return layers;
}
