/* last_row: where only one row of a function's first result is used, what follows the last exchange between rows is
 * computed for that row alone.
 *
 *   %y, %kc, %vc = call %ids, … {callee = "forward"}     ->   %row, %kc, %vc = call %ids, …, %i
 *   %row = window %y, %i {axis = 0, size = 1}                                  {callee = "forward.row"}
 *
 * @forward.row is @forward with one parameter more, the row. Values of which somebody needs every row (what the caches
 * are made of) stay whole. One of which only the row is needed is made from rows by element-wise operations, reductions
 * along other axes, products, views that keep axis 0, and attention (from a later position, over the same keys); any
 * other is made whole, and its row cut out. So of the last layer of a prompt's chunk only the keys and values are
 * computed for all tokens. A product with several weights that is sliced into the results of each is taken apart, where
 * only a row of some of them is needed:
 *
 *   %y = matmul %x, %wq, %wk                                  %k = matmul %x, %wk
 *   %q = slice %y {axis = 1, start = 0, size = Q}        ->   %row = window %x, %i {axis = 0, size = 1}
 *   %k = slice %y {axis = 1, start = Q, size = K}             %q = matmul %row, %wq
 *
 * Legal because the rows, counted by a symbol along axis 0, do not depend on each other in these operations. The
 * product of one row may be summed in another order: equal up to f32 rounding. Does nothing where the first result is
 * made whole anyway. Needs dce after it.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

/* Who needs what of a value. */
typedef struct demand {
    bool whole, row;
} demand;

/* The same of a product's weights, a bit for each, of which slices are the results. */
enum { MOST_WEIGHTS = 31 };
typedef struct shares {
    uint32_t whole, row;
    bool apart; /* the product is taken apart */
} shares;

typedef struct narrowing {
    ir_dim rows;     /* the symbol that counts them */
    demand *demands; /* by value id of the callee */
    shares *shares;  /* by the same */
    /* by the same: the row, once it is made; of a product that is taken apart, of the weights in shares.row */
    ir_value **narrow;
    ir_value **whole; /* of such a product: every row, of the weights in shares.whole */
    ir_value *at;     /* which row */
} narrowing;

/* ---- rows ---- */

static bool varies_with(const ir_type *type, ir_dim rows) {
    for (int d = 0; d < type->rank; d++)
        if (type->dim[d] == rows) return true;
    return false;
}

/* One row for each of `rows`, along axis 0. */
static bool has_rows(const ir_type *type, ir_dim rows) {
    if (type->rank == 0 || type->dim[0] != rows) return false;
    for (int d = 1; d < type->rank; d++)
        if (type->dim[d] == rows) return false;
    return true;
}

/* Is a row of the result made of rows of the operands that have some, and of operands that do not vary with them? */
static bool keeps_rows(const ir_inst *inst) {
    switch (inst->op) {
    case IR_RESHAPE:
    case IR_MATMUL:
    case IR_ATTENTION: return true;
    case IR_SLICE:
    case IR_CONCAT:
    case IR_REDUCE_SUM:
    case IR_REDUCE_MAX: return ir_attr_int(inst, IR_ATTR_AXIS, 0) != 0;
    case IR_TRANSPOSE: return ir_attr_find(inst, IR_ATTR_PERM)->ints[0] == 0;
    default: return ir_op_of(inst->op)->class == IR_CLASS_ELEM;
    }
}

static bool can_narrow(const ir_inst *inst, ir_dim rows) {
    if (!keeps_rows(inst) || !has_rows(&inst->results[0]->type, rows)) return false;
    for (int i = 0; i < inst->operand_count; i++) {
        const ir_type *type = &inst->operands[i]->type;
        if (!varies_with(type, rows)) continue;
        bool x = i == 0 || (inst->op != IR_MATMUL && inst->op != IR_ATTENTION); /* neither weights nor keys */
        bool aligned = ir_op_of(inst->op)->class != IR_CLASS_ELEM || type->rank == inst->results[0]->type.rank;
        if (!x || !aligned || !has_rows(type, rows)) return false;
    }
    return true;
}

/* ---- products with several weights ---- */

static int64_t width_of(const ir_inst *product, int weight) {
    return product->operands[1 + weight]->type.dim[0];
}

/* The product with several weights of whose columns this is a slice; NULL: it is none. */
static const ir_inst *sliced_product(const ir_inst *slice) {
    const ir_inst *product = slice->op == IR_SLICE ? slice->operands[0]->def : NULL;
    if (!product || product->op != IR_MATMUL || product->results[0]->type.rank != 2 ||
        ir_attr_int(slice, IR_ATTR_AXIS, 0) != 1)
        return NULL;
    int weights = product->operand_count - 1;
    return weights > 1 && weights <= MOST_WEIGHTS ? product : NULL;
}

/* The weights whose results a slice takes; 0: it is of no such product, or takes a part of one's. */
static uint32_t weights_of(const ir_inst *slice) {
    const ir_inst *product = sliced_product(slice);
    if (!product) return 0;
    int64_t start = ir_attr_int(slice, IR_ATTR_START, 0), end = start + ir_attr_int(slice, IR_ATTR_SIZE, 0), at = 0,
            taken = 0;
    uint32_t weights = 0;
    for (int i = 0; i + 1 < product->operand_count; at += width_of(product, i++))
        if (at >= start && at + width_of(product, i) <= end) weights |= 1u << i, taken += width_of(product, i);
    return taken == end - start ? weights : 0;
}

/* The product of some of the weights. */
static ir_value *product_of(ir_rewrite *rw, const ir_inst *product, ir_value *x, uint32_t weights) {
    ir_value **operands = GM_NEW_ARRAY(&rw->out->arena, ir_value *, product->operand_count);
    ir_type type = product->results[0]->type;
    int count = 0;
    operands[count++] = x;
    type.dim[0] = x->type.dim[0], type.dim[1] = 0;
    for (int i = 0; i + 1 < product->operand_count; i++)
        if (weights >> i & 1)
            operands[count++] = ir_rewrite_get(rw, product->operands[1 + i]), type.dim[1] += width_of(product, i);
    ir_value *part = ir_emit1(&rw->b, IR_MATMUL, operands, count, product->attrs, product->attr_count, &type);
    return count > 2 ? ir_rewrite_named(rw, part, product->results[0]) : part; /* of one weight: as its slice */
}

/* Columns of the weights before these, in a product of `of`. */
static int64_t columns_before(const ir_inst *product, uint32_t weights, uint32_t of) {
    int64_t columns = 0;
    for (int i = 0; !(weights >> i & 1); i++) columns += of >> i & 1 ? width_of(product, i) : 0;
    return columns;
}

/* ---- demands ---- */

static void need_whole(const ir_inst *inst, void *user) {
    demand *demands = ((narrowing *)user)->demands;
    for (int i = 0; i < inst->operand_count; i++) demands[inst->operands[i]->id].whole = true;
    for (int r = 0; r < inst->region_count; r++)
        for (int i = 0; i < inst->regions[r]->yield_count; i++) demands[inst->regions[r]->yields[i]->id].whole = true;
}

/* A slice of a product with several weights: is it noted there? */
static bool note_share(narrowing *n, const ir_inst *slice, bool row) {
    uint32_t weights = weights_of(slice);
    shares *s = weights ? &n->shares[slice->operands[0]->id] : NULL;
    if (!s) return false;
    *(row ? &s->row : &s->whole) |= weights;
    n->demands[slice->results[0]->id].whole |= !row;
    return true;
}

/* What slices need of a product, besides what is noted of its result; or it is taken apart. */
static void note_product(narrowing *n, const ir_inst *product) {
    demand *d = &n->demands[product->results[0]->id];
    shares *s = &n->shares[product->results[0]->id];
    s->apart = s->whole && s->row && !(s->whole & s->row) && !d->whole && !d->row && can_narrow(product, n->rows);
    if (s->apart) return;
    d->whole |= s->whole != 0;
    d->row |= s->row != 0;
}

/* Backwards over the callee's instructions. What nobody needs is cloned all the same, so whole. */
static void note_demand(narrowing *n, const ir_inst *inst) {
    bool whole = false, row = false;
    if (inst->op == IR_MATMUL) note_product(n, inst);
    for (int i = 0; i < inst->result_count; i++) {
        whole |= n->demands[inst->results[i]->id].whole;
        row |= n->demands[inst->results[i]->id].row;
    }
    row &= !whole && can_narrow(inst, n->rows);
    if (note_share(n, inst, row)) return;
    if (row) {
        for (int i = 0; i < inst->operand_count; i++) {
            demand *d = &n->demands[inst->operands[i]->id];
            *(varies_with(&inst->operands[i]->type, n->rows) ? &d->row : &d->whole) = true;
        }
        return;
    }
    for (int i = 0; i < inst->result_count; i++) n->demands[inst->results[i]->id].whole = true;
    need_whole(inst, n);
    for (int r = 0; r < inst->region_count; r++) ir_visit(inst->regions[r], need_whole, n);
}

/* False: the first result is made whole anyway, or has no rows. */
static bool find_demands(narrowing *n, const ir_func *func) {
    const ir_region *body = func->body;
    if (body->yield_count == 0) return false;
    const ir_type *first = &body->yields[0]->type;
    if (first->rank == 0 || !ir_dim_is_symbol(first->dim[0]) || !has_rows(first, first->dim[0])) return false;
    n->rows = first->dim[0];
    n->demands = calloc(func->value_count + 1, sizeof *n->demands);
    n->shares = calloc(func->value_count + 1, sizeof *n->shares);
    n->narrow = calloc(func->value_count + 1, sizeof *n->narrow);
    n->whole = calloc(func->value_count + 1, sizeof *n->whole);
    GM_ASSERT(n->demands && n->shares && n->narrow && n->whole);
    n->demands[body->yields[0]->id].row = true;
    for (int i = 1; i < body->yield_count; i++) n->demands[body->yields[i]->id].whole = true;
    for (int i = body->inst_count - 1; i >= 0; i--) note_demand(n, body->insts[i]);
    return body->yields[0]->def && !n->demands[body->yields[0]->id].whole;
}

/* ---- the copy for one row ---- */

static ir_value *row_of(ir_rewrite *rw, const ir_value *old) {
    narrowing *n = rw->user;
    ir_value **row = &n->narrow[old->id];
    if (!*row) *row = ir_window(&rw->b, ir_rewrite_get(rw, old), n->at, 0, 1);
    return *row;
}

static void narrow(ir_rewrite *rw, const ir_inst *inst) {
    narrowing *n = rw->user;
    ir_value **operands = GM_NEW_ARRAY(&rw->out->arena, ir_value *, inst->operand_count + 1);
    for (int i = 0; i < inst->operand_count; i++) {
        bool varies = varies_with(&inst->operands[i]->type, n->rows);
        operands[i] = varies ? row_of(rw, inst->operands[i]) : ir_rewrite_get(rw, inst->operands[i]);
    }
    if (inst->op == IR_ATTENTION) operands[3] = ir_binary(&rw->b, IR_ADD, operands[3], n->at);
    ir_type type = inst->results[0]->type;
    type.dim[0] = 1;
    ir_value *row = ir_emit1(&rw->b, inst->op, operands, inst->operand_count, inst->attrs, inst->attr_count, &type);
    ir_rewrite_map(rw, inst->results[0], n->narrow[inst->results[0]->id] = row);
}

static void take_apart(ir_rewrite *rw, const ir_inst *product) {
    narrowing *n = rw->user;
    uint32_t id = product->results[0]->id;
    n->whole[id] = product_of(rw, product, ir_rewrite_get(rw, product->operands[0]), n->shares[id].whole);
    n->narrow[id] = product_of(rw, product, row_of(rw, product->operands[0]), n->shares[id].row);
}

/* The slice is of one of the two products. */
static void slice_part(ir_rewrite *rw, const ir_inst *slice, uint32_t weights) {
    narrowing *n = rw->user;
    uint32_t id = slice->operands[0]->id;
    const ir_inst *product = sliced_product(slice);
    bool row = (weights & n->shares[id].row) != 0;
    int64_t start = columns_before(product, weights, row ? n->shares[id].row : n->shares[id].whole);
    ir_value *part =
        ir_slice(&rw->b, row ? n->narrow[id] : n->whole[id], 1, start, ir_attr_int(slice, IR_ATTR_SIZE, 0));
    if (row) n->narrow[slice->results[0]->id] = part;
    ir_rewrite_map(rw, slice->results[0], part);
}

static bool narrow_hook(ir_rewrite *rw, const ir_inst *inst) {
    const narrowing *n = rw->user;
    if (inst->result_count != 1) return false;
    uint32_t weights = weights_of(inst);
    if (weights && n->shares[inst->operands[0]->id].apart) {
        slice_part(rw, inst, weights);
        return true;
    }
    if (n->shares[inst->results[0]->id].apart) {
        take_apart(rw, inst);
        return true;
    }
    const demand *d = &n->demands[inst->results[0]->id];
    if (!d->row || d->whole) return false;
    narrow(rw, inst);
    return true;
}

static void params_and_row(ir_rewrite *rw) {
    const ir_region *body = rw->in_func->body;
    for (int i = 0; i < body->param_count; i++)
        ir_rewrite_map(rw, body->params[i],
                       ir_param(&rw->b, rw->b.region, body->params[i]->type, body->params[i]->hint));
    ((narrowing *)rw->user)->at = ir_param(&rw->b, rw->b.region, ir_scalar(RT_I32), "row");
}

static void yield_row(ir_rewrite *rw) {
    const ir_region *body = rw->in_func->body;
    ir_value **yields = GM_NEW_ARRAY(&rw->out->arena, ir_value *, body->yield_count);
    yields[0] = row_of(rw, body->yields[0]);
    for (int i = 1; i < body->yield_count; i++) yields[i] = ir_rewrite_get(rw, body->yields[i]);
    ir_yield(&rw->b, yields, body->yield_count);
}

/* ---- the calls ---- */

typedef struct narrowed_calls {
    /* by the value id of a call's first result: the window that is its only use, when it has one row */
    const ir_inst **windows;
    const uint32_t *uses; /* by value id */
} narrowed_calls;

/* The row must be known before the call: values are numbered in order. */
static void note_window(const ir_inst *inst, void *user) {
    narrowed_calls *calls = user;
    const ir_value *rows = inst->op == IR_WINDOW ? inst->operands[0] : NULL;
    if (!rows || !rows->def || rows->def->op != IR_CALL || rows->index != 0 || calls->uses[rows->id] != 1) return;
    bool one = ir_attr_int(inst, IR_ATTR_AXIS, 0) == 0 && inst->results[0]->type.dim[0] == 1;
    if (one && inst->operands[1]->id < rows->id) calls->windows[rows->id] = inst;
}

static const ir_inst **windows_of(const ir_func *func) {
    uint32_t *uses = ir_count_uses(func);
    narrowed_calls calls = {calloc(func->value_count + 1, sizeof *calls.windows), uses};
    GM_ASSERT(calls.windows);
    ir_visit(func->body, note_window, &calls);
    free(uses);
    return calls.windows;
}

static const char *callee_of(const ir_inst *call) {
    return ir_attr_string(call, IR_ATTR_CALLEE);
}

static bool wants_row(const ir_module *in, const ir_func *callee) {
    bool wants = false;
    for (int i = 0; i < in->func_count && !wants; i++) {
        const ir_inst **windows = windows_of(in->funcs[i]);
        for (uint32_t v = 0; v < in->funcs[i]->value_count; v++)
            wants |= windows[v] && !strcmp(callee_of(windows[v]->operands[0]->def), callee->name);
        free(windows);
    }
    return wants;
}

static const char *row_name(ir_module *out, const char *callee) {
    return gm_arena_printf(&out->arena, "%s.row", callee);
}

static void copy_for_row(const ir_module *in, const ir_func *func, ir_module *out) {
    const char *name = row_name(out, func->name);
    if (!wants_row(in, func) || ir_func_find(in, name)) return;
    narrowing n = {0};
    if (find_demands(&n, func)) ir_retype_func(in, func, out, name, params_and_row, yield_row, narrow_hook, &n);
    free(n.demands);
    free(n.shares);
    free(n.narrow);
    free(n.whole);
}

static bool call_for_row(ir_rewrite *rw, const ir_inst *call, const ir_inst *window) {
    const ir_func *callee = ir_func_find(rw->out, row_name(rw->out, callee_of(call)));
    if (!callee || ir_func_find(rw->in, callee->name)) return false;
    ir_value **args = ir_rewrite_operands(rw, call, 1);
    args[call->operand_count] = ir_rewrite_get(rw, window->operands[1]);
    const ir_inst *copy = ir_call(&rw->b, callee, args, call->operand_count + 1);
    for (int i = 0; i < call->result_count; i++) ir_rewrite_map(rw, call->results[i], copy->results[i]);
    return true;
}

static bool call_hook(ir_rewrite *rw, const ir_inst *inst) {
    const ir_inst **windows = rw->user;
    if (inst->op == IR_CALL && inst->result_count && windows[inst->results[0]->id])
        return call_for_row(rw, inst, windows[inst->results[0]->id]);
    if (inst->op != IR_WINDOW || windows[inst->operands[0]->id] != inst) return false;
    ir_value *row = ir_rewrite_get(rw, inst->operands[0]);
    if (!ir_type_equal(&row->type, &inst->results[0]->type)) return false; /* the call was left as it is */
    ir_rewrite_map(rw, inst->results[0], row);
    return true;
}

gm_status pass_last_row(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        const ir_inst **windows = windows_of(in->funcs[i]);
        ir_clone_func(in, in->funcs[i], *out, in->funcs[i]->name, NULL, call_hook, windows);
        free(windows);
        copy_for_row(in, in->funcs[i], *out);
    }
    return GM_OK;
}
