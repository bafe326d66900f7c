/* plan_memory: give every tensor its place, before anything runs.
 *
 * Each instruction gets `offset = [o0, o1, …]`. One entry per result: its byte offset in the function's frame, or -1
 * when the result has no memory of its own (a view, a register, a stored weight, or memory taken over in place). A call
 * has one entry more: where the callee's frame begins. scan and while have one more per result: a buffer through which
 * that carry goes at the end of a trip when carries trade places, or -1. The function gets `frame`, the bytes that it
 * and its callees need.
 *
 * A buffer lives from its definition to the last use of it or of any view of it; one that is defined outside of a map,
 * scan, while or if and used inside lives until that ends. Buffers are placed first-fit in order of definition
 * (Pisarchyk & Lee 2020 compare orders; the frames here are small enough that the simplest does). A loop carry has one
 * buffer for its parameters and its result, to which the yield is copied at the end of a trip unless it is there
 * already. Changes no value. Compiled code relies on it; the interpreter ignores it.
 */
#include "passes/passes.h"
#include "ir/layout.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, NO_ROOT = -1, EXTERNAL = -1 };

typedef struct buffer {
    int64_t bytes, offset;
    int start, end; /* positions, inclusive */
    bool external;  /* a parameter: memory of the caller */
} buffer;

typedef struct planner {
    const ir_module *module; /* the copy that is being planned */
    ir_func *func;
    buffer *buffers;
    int buffer_count, buffer_capacity;
    int *root;         /* value id -> buffer, NO_ROOT */
    ir_layout *layout; /* value id -> strides */
    int position;
} planner;

static int buffer_new(planner *p, int64_t bytes, bool external) {
    if (p->buffer_count == p->buffer_capacity) {
        p->buffer_capacity = p->buffer_capacity ? 2 * p->buffer_capacity : 256;
        p->buffers = realloc(p->buffers, sizeof *p->buffers * (size_t)p->buffer_capacity);
        GM_ASSERT(p->buffers);
    }
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    p->buffers[p->buffer_count] =
        (buffer){.bytes = bytes, .offset = -1, .start = p->position, .end = p->position, .external = external};
    return p->buffer_count++;
}

static int buffer_for(planner *p, const ir_value *value) {
    int64_t elems = ir_type_max_elems(p->module, &value->type);
    return buffer_new(p, (int64_t)rt_dtype_bytes(value->type.dtype, (size_t)elems), false);
}

static void touch(planner *p, const ir_value *value) {
    int root = p->root[value->id];
    if (root != NO_ROOT && p->buffers[root].end < p->position) p->buffers[root].end = p->position;
}

static void set_dense(planner *p, const ir_value *value, int root) {
    p->root[value->id] = root;
    p->layout[value->id] = ir_layout_dense(p->module, &value->type);
}

/* ---- one rule per kind of instruction: sets root and layout of its results; offsets come after placement ---- */

static void plan_region(planner *p, const ir_region *region);

/* At the end of an instruction with regions: the buffers from before them (below first_inner) that were used inside,
 * after position `before`, live until here. */
static void extend_over_loop(planner *p, int before, int first_inner) {
    for (int i = 0; i < first_inner; i++)
        if (p->buffers[i].end > before) p->buffers[i].end = p->position;
}

static void plan_view(planner *p, const ir_inst *inst) {
    const ir_value *x = inst->operands[0], *y = inst->results[0];
    if (y->type.rank == 0) {
        p->root[y->id] = NO_ROOT;
        return;
    }
    if (x->type.rank && ir_layout_view(p->module, inst, &p->layout[x->id], &p->layout[y->id]))
        p->root[y->id] = p->root[x->id];
    else set_dense(p, y, buffer_for(p, y));
}

static void plan_update(planner *p, const ir_inst *inst) {
    const ir_value *x = inst->operands[0], *y = inst->results[0];
    if (ir_attr_int(inst, IR_ATTR_INPLACE, 0) && p->root[x->id] != NO_ROOT) {
        p->root[y->id] = p->root[x->id];
        p->layout[y->id] = p->layout[x->id];
    } else set_dense(p, y, buffer_for(p, y));
}

/* Is the yield of carry i simply that carry's memory, as the parameter itself or updated in place? */
static bool stays_home(const planner *p, const ir_value *yield, int home) {
    ir_layout dense = ir_layout_dense(p->module, &yield->type);
    return p->root[yield->id] == home && memcmp(&dense, &p->layout[yield->id], sizeof dense) == 0;
}

/* A carry whose yield lies in the memory of carries, and is not simply that carry's own memory as it stands (carries
 * trade places, or it is a view of one), goes through a buffer of its own at the end of a trip: exchange[i], else
 * NO_ROOT. */
static void plan_exchange(planner *p, const ir_inst *inst, int carries, int *exchange) {
    const ir_region *body = inst->regions[inst->region_count - 1];
    for (int i = 0; i < carries; i++) {
        const ir_value *yield = body->yields[i];
        int root = p->root[yield->id];
        exchange[i] = NO_ROOT;
        if (root == NO_ROOT || stays_home(p, yield, p->root[inst->results[i]->id])) continue;
        for (int j = 0; j < carries; j++)
            if (root == p->root[inst->results[j]->id]) exchange[i] = -2;
        if (exchange[i] == -2) exchange[i] = buffer_for(p, inst->results[i]);
    }
}

/* Carries of scan and while: one buffer for init (in place) or result, parameters and yields. */
static void plan_loop(planner *p, const ir_inst *inst, int *exchange) {
    int first = inst->op == IR_SCAN ? 1 : 0, carries = inst->operand_count - first;
    bool inplace = ir_attr_int(inst, IR_ATTR_INPLACE, 0);
    for (int i = 0; i < carries; i++) {
        const ir_value *init = inst->operands[first + i], *result = inst->results[i];
        int root = NO_ROOT;
        if (result->type.rank > 0)
            root = inplace && p->root[init->id] != NO_ROOT ? p->root[init->id] : buffer_for(p, result);
        set_dense(p, result, root);
        for (int r = 0; r < inst->region_count; r++) set_dense(p, inst->regions[r]->params[first + i], root);
    }
    int before = p->position, first_inner = p->buffer_count;
    if (inst->op == IR_SCAN) p->root[inst->regions[0]->params[0]->id] = NO_ROOT;
    for (int r = 0; r < inst->region_count; r++) plan_region(p, inst->regions[r]);
    for (int i = 0; i < carries; i++) touch(p, inst->results[i]);
    extend_over_loop(p, before, first_inner);
    plan_exchange(p, inst, carries, exchange);
}

static void plan_results(planner *p, const ir_inst *inst) {
    for (int i = 0; i < inst->result_count; i++) {
        const ir_value *result = inst->results[i];
        bool memory = result->type.rank > 0 || inst->op == IR_EINSUM;
        set_dense(p, result, memory ? buffer_for(p, result) : NO_ROOT);
    }
}

static void plan_regions(planner *p, const ir_inst *inst) {
    plan_results(p, inst);
    int before = p->position, first_inner = p->buffer_count;
    if (inst->op == IR_MAP) p->root[inst->regions[0]->params[0]->id] = NO_ROOT;
    for (int r = 0; r < inst->region_count; r++) plan_region(p, inst->regions[r]);
    for (int i = 0; i < inst->result_count; i++) touch(p, inst->results[i]);
    extend_over_loop(p, before, first_inner);
}

/* The callee's frame is one more buffer, alive during the call only. */
static void plan_call(planner *p, const ir_inst *inst, int *frame) {
    const ir_func *callee = ir_func_find(p->module, ir_attr_string(inst, IR_ATTR_CALLEE));
    for (int i = 0; i < inst->result_count; i++) {
        const ir_value *result = inst->results[i];
        int alias = callee->alias ? callee->alias[i] : -1;
        int root = NO_ROOT;
        if (alias >= 0) root = p->root[inst->operands[alias]->id];
        else if (result->type.rank > 0) root = buffer_for(p, result);
        set_dense(p, result, root);
    }
    *frame = buffer_new(p, callee->frame, false);
}

static void plan_sources(planner *p, const ir_inst *inst) {
    set_dense(p, inst->results[0],
              inst->op == IR_IOTA && inst->results[0]->type.rank ? buffer_for(p, inst->results[0]) : NO_ROOT);
}

static ir_attr offsets_attr(planner *p, const ir_inst *inst, int frame, const int *exchange, const int *own_first) {
    int64_t *offsets = GM_NEW_ARRAY((gm_arena *)&p->module->arena, int64_t, 2 * inst->result_count + 1);
    size_t n = 0;
    for (int i = 0; i < inst->result_count; i++) {
        int root = p->root[inst->results[i]->id];
        offsets[n++] = root != NO_ROOT && own_first && root >= own_first[0] && root < own_first[1] ? root : EXTERNAL;
    }
    if (inst->op == IR_CALL) offsets[n++] = frame;
    for (int i = 0; exchange && i < inst->result_count; i++) offsets[n++] = exchange[i];
    return (ir_attr){.key = IR_ATTR_OFFSET, .ints = offsets, .n = n};
}

static void plan_inst(planner *p, ir_inst *inst) {
    p->position++;
    for (int i = 0; i < inst->operand_count; i++) touch(p, inst->operands[i]);
    int own[2] = {p->buffer_count, 0}, frame = NO_ROOT, *exchange = NULL;
    ir_class class = ir_op_of(inst->op)->class;
    if (inst->op == IR_SCAN || inst->op == IR_WHILE || inst->op == IR_MAP || inst->op == IR_IF)
        own[1] = own[0] + inst->result_count;
    if (class == IR_CLASS_SHAPE) plan_view(p, inst);
    else if (inst->op == IR_UPDATE) plan_update(p, inst);
    else if (inst->op == IR_SCAN || inst->op == IR_WHILE) {
        exchange = GM_NEW_ARRAY((gm_arena *)&p->module->arena, int, inst->result_count + 1);
        plan_loop(p, inst, exchange);
    } else if (inst->op == IR_MAP || inst->op == IR_IF) plan_regions(p, inst);
    else if (inst->op == IR_CALL) plan_call(p, inst, &frame);
    else if (class == IR_CLASS_SOURCE) plan_sources(p, inst);
    else plan_results(p, inst);
    if (!own[1]) own[1] = p->buffer_count;
    /* Offsets hold buffer numbers until place_buffers has run; see finish_offsets. */
    ir_attr *attrs = GM_NEW_ARRAY((gm_arena *)&p->module->arena, ir_attr, inst->attr_count + 1);
    if (inst->attr_count) memcpy(attrs, inst->attrs, sizeof *attrs * (size_t)inst->attr_count);
    if (inst->result_count || inst->op == IR_CALL)
        attrs[inst->attr_count++] = offsets_attr(p, inst, frame, exchange, own);
    inst->attrs = attrs;
}

static void plan_region(planner *p, const ir_region *region) {
    if (p->func->body != region) p->position++;
    for (int i = 0; i < region->inst_count; i++) plan_inst(p, region->insts[i]);
    p->position++;
    for (int i = 0; i < region->yield_count; i++) touch(p, region->yields[i]);
}

/* ---- placement ---- */

static bool overlap(const buffer *a, const buffer *b) {
    return a->start <= b->end && b->start <= a->end;
}

/* The lowest offset at which `want` meets no placed buffer of its lifetime. */
static int64_t first_fit(const planner *p, int want) {
    const buffer *b = &p->buffers[want];
    int64_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < want; i++) {
            const buffer *other = &p->buffers[i];
            if (other->external || !other->bytes || !overlap(b, other)) continue;
            if (offset < other->offset + other->bytes && other->offset < offset + b->bytes) {
                offset = other->offset + other->bytes;
                moved = true;
            }
        }
    }
    return offset;
}

static int64_t place_buffers(planner *p) {
    int64_t frame = 0;
    for (int i = 0; i < p->buffer_count; i++) {
        buffer *b = &p->buffers[i];
        if (b->external) continue;
        b->offset = first_fit(p, i);
        if (frame < b->offset + b->bytes) frame = b->offset + b->bytes;
    }
    return frame;
}

static void finish_offsets(const ir_inst *inst, void *user) {
    const planner *p = user;
    ir_attr *attr = (ir_attr *)ir_attr_find(inst, IR_ATTR_OFFSET);
    for (size_t i = 0; attr && i < attr->n; i++) {
        int64_t *slot = (int64_t *)&attr->ints[i];
        if (*slot != EXTERNAL) *slot = p->buffers[*slot].external ? EXTERNAL : p->buffers[*slot].offset;
    }
}

static void plan_func(ir_module *module, ir_func *func) {
    planner p = {.module = module, .func = func};
    p.root = malloc(sizeof *p.root * (func->value_count + 1));
    p.layout = calloc(func->value_count + 1, sizeof *p.layout);
    GM_ASSERT(p.root && p.layout);
    for (uint32_t i = 0; i < func->value_count; i++) p.root[i] = NO_ROOT;
    for (int i = 0; i < func->body->param_count; i++) {
        const ir_value *param = func->body->params[i];
        if (param->type.rank) set_dense(&p, param, buffer_new(&p, 0, true));
    }
    plan_region(&p, func->body);
    func->frame = place_buffers(&p);
    ir_visit(func->body, finish_offsets, &p);
    free(p.buffers);
    free(p.root);
    free(p.layout);
}

static bool drop_old_plan(ir_rewrite *rw, const ir_inst *inst) {
    if (!ir_attr_find(inst, IR_ATTR_OFFSET)) return false;
    ir_rewrite_clone(rw, ir_rewrite_without(rw, inst, IR_ATTR_OFFSET));
    return true;
}

gm_status pass_plan_memory(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    for (int i = 0; i < in->symbol_count; i++)
        if (!in->symbols[i].max)
            return gm_fail(diag, GM_INVALID, "plan_memory: symbol %s has no bound (symbol %s max N)",
                           in->symbols[i].name, in->symbols[i].name);
    *out = ir_rewrite_module(in, drop_old_plan, NULL);
    for (int i = 0; i < (*out)->func_count; i++) plan_func(*out, (*out)->funcs[i]);
    return GM_OK;
}
