/* kv_in_place: updates, loop carries and calls take over memory that dies, so that a step writes its rows of the KV
 * cache and copies nothing.
 *
 *   %kc1 = update %kc, %k, %layer, %pos      ->  … {inplace = 1}, and the function says alias [.., 2, ..]: its result
 *   … return %x, %kc1                            is the memory of parameter 2
 *
 * Values that may lie in the same memory form an object: a value with a buffer of its own, the views of it, and what
 * took it over so far. In program order, an update (a loop for all its tensor carries, a call for the arguments its
 * callee takes) may take over an object when
 *   - the operand is the object itself, not a view of it, and no other operand lies in it;
 *   - the object begins in the same region: a value from outside a loop is needed again in the next iteration;
 *   - no member of it so far is used at a later position (positions number instructions before their regions; what a
 *     region yields is used at its end): whoever reads it later would see the new contents;
 *   - somebody owns it: not a constant or a weight, not the carry of a while's test.
 * Parameters belong to the caller. One may be taken over only if what its memory holds in the end is handed back: the
 * carry's own yield in a loop, one result in a function, which then gets func->alias. A parameter for which that turns
 * out not to hold is frozen and the function analysed again; frozen sets only grow, so this ends. The same for calls: a
 * callee's alias stands only if every call can give its argument away, else it is struck and all functions are analysed
 * again. The host always gives its arguments away.
 *
 * Bit-exact. Marks of an earlier run are replaced. Loops carry one mark for all carries, so one that cannot be taken
 * over keeps the others from it; constant starts do not count, they get a buffer anyway.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

enum { NO_OBJECT = -1, NO_ALIAS = -1 };

/* What is known of one function. All arrays but alias and struck are by value id; an object is the id of its first
 * value. */
typedef struct takeover {
    const ir_func *func;
    int *object, *last_use;
    const ir_region **home; /* of objects: the region they begin in */
    bool *frozen, *written; /* of objects */
    bool *inplace;          /* by first result: the instruction takes over */
    int *alias;             /* by result of the function */
    bool *struck;           /* by result: an alias that some caller cannot honour */
    int position;
} takeover;

typedef struct analysis {
    const ir_module *module;
    takeover *funcs; /* as in the module */
    takeover *f;     /* the current one */
    bool again;      /* a parameter of it was frozen */
    bool restart;    /* an alias was struck */
} analysis;

/* ---- positions ---- */

static void number_region(takeover *f, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        f->position++;
        for (int k = 0; k < inst->operand_count; k++) f->last_use[inst->operands[k]->id] = f->position;
        for (int r = 0; r < inst->region_count; r++) number_region(f, inst->regions[r]);
    }
    f->position++;
    for (int i = 0; i < region->yield_count; i++) f->last_use[region->yields[i]->id] = f->position;
}

/* ---- objects ---- */

static void begin_object(takeover *f, const ir_value *value, const ir_region *region, bool read_only) {
    f->object[value->id] = value->type.rank ? (int)value->id : NO_OBJECT;
    f->home[value->id] = region;
    f->written[value->id] = false;
    f->frozen[value->id] |= read_only;
}

static bool is_view(const ir_value *value) {
    return value->def && ir_op_of(value->def->op)->class == IR_CLASS_SHAPE;
}

static bool is_stored(const ir_value *value) {
    return value->def && (value->def->op == IR_CONST || ir_stored_count(value->def));
}

static bool dies_here(const takeover *f, int object) {
    for (uint32_t id = 0; id < f->func->value_count; id++)
        if (f->object[id] == object && f->last_use[id] > f->position) return false;
    return true;
}

/* May `inst`, an instruction of `region`, take over the memory of its operand? */
static bool may_take(const takeover *f, const ir_inst *inst, int operand, const ir_region *region) {
    const ir_value *x = inst->operands[operand];
    int object = f->object[x->id];
    if (object == NO_OBJECT || is_view(x) || f->frozen[object] || f->home[object] != region) return false;
    for (int i = 0; i < inst->operand_count; i++)
        if (i != operand && f->object[inst->operands[i]->id] == object) return false;
    return dies_here(f, object);
}

static void take(takeover *f, const ir_value *result, const ir_value *operand) {
    int object = f->object[operand->id];
    f->object[result->id] = object;
    f->written[object] = true;
}

/* ---- instructions ---- */

static void walk_region(analysis *a, const ir_region *region, bool params_read_only);

static void walk_update(takeover *f, const ir_inst *inst, const ir_region *region) {
    const ir_value *result = inst->results[0];
    f->inplace[result->id] = may_take(f, inst, 0, region);
    if (f->inplace[result->id]) take(f, result, inst->operands[0]);
    else begin_object(f, result, region, false);
}

/* Does the memory of `param` end up holding what `yield` hands back, and nothing else of it get out? */
static bool handed_back(const takeover *f, const ir_region *region, const ir_value *param, int yield) {
    int object = f->object[param->id];
    for (int i = 0; i < region->yield_count; i++)
        if ((f->object[region->yields[i]->id] == object) != (i == yield)) return false;
    return !is_view(region->yields[yield]);
}

static void check_carries(analysis *a, const ir_region *body, int first) {
    takeover *f = a->f;
    for (int k = first; k < body->param_count; k++) {
        const ir_value *param = body->params[k];
        if (f->object[param->id] == NO_OBJECT || !f->written[param->id] || handed_back(f, body, param, k - first))
            continue;
        f->frozen[param->id] = a->again = true;
    }
}

static bool loop_may_take(const takeover *f, const ir_inst *inst, int first, const ir_region *region) {
    bool any = false;
    for (int i = first; i < inst->operand_count; i++) {
        const ir_value *init = inst->operands[i];
        if (init->type.rank == 0 || is_stored(init)) continue;
        if (!may_take(f, inst, i, region)) return false;
        any = true;
    }
    return any;
}

static void walk_loop(analysis *a, const ir_inst *inst, const ir_region *region) {
    takeover *f = a->f;
    int first = inst->op == IR_SCAN ? 1 : 0;
    bool inplace = loop_may_take(f, inst, first, region);
    for (int k = 0; k < inst->result_count; k++) {
        const ir_value *init = inst->operands[first + k], *result = inst->results[k];
        if (k == 0) f->inplace[result->id] = inplace;
        if (inplace && init->type.rank && !is_stored(init)) take(f, result, init);
        else begin_object(f, result, region, false);
    }
    for (int r = 0; r < inst->region_count; r++) {
        bool test = inst->op == IR_WHILE && r == 0;
        walk_region(a, inst->regions[r], test);
        if (!test) check_carries(a, inst->regions[r], first);
    }
}

static takeover *callee_of(const analysis *a, const ir_inst *call) {
    const char *name = ir_attr_string(call, IR_ATTR_CALLEE);
    for (int i = 0;; i++)
        if (strcmp(a->module->funcs[i]->name, name) == 0) return &a->funcs[i];
}

static void walk_call(analysis *a, const ir_inst *inst, const ir_region *region) {
    takeover *f = a->f, *callee = callee_of(a, inst);
    for (int k = 0; k < inst->result_count; k++) {
        int argument = callee->alias[k];
        if (argument != NO_ALIAS && !may_take(f, inst, argument, region)) callee->struck[k] = a->restart = true;
    }
    for (int k = 0; k < inst->result_count; k++) {
        int argument = callee->alias[k];
        if (argument != NO_ALIAS && !callee->struck[k]) take(f, inst->results[k], inst->operands[argument]);
        else begin_object(f, inst->results[k], region, false);
    }
}

static void walk_inst(analysis *a, const ir_inst *inst, const ir_region *region) {
    takeover *f = a->f;
    f->position++;
    if (inst->op == IR_UPDATE) walk_update(f, inst, region);
    else if (inst->op == IR_SCAN || inst->op == IR_WHILE) walk_loop(a, inst, region);
    else if (inst->op == IR_CALL) walk_call(a, inst, region);
    else {
        bool view = ir_op_of(inst->op)->class == IR_CLASS_SHAPE;
        for (int i = 0; i < inst->result_count; i++) {
            const ir_value *result = inst->results[i];
            if (view && result->type.rank) f->object[result->id] = f->object[inst->operands[0]->id];
            else begin_object(f, result, region, is_stored(result));
        }
        for (int r = 0; r < inst->region_count; r++) walk_region(a, inst->regions[r], true);
    }
}

static void walk_region(analysis *a, const ir_region *region, bool params_read_only) {
    for (int i = 0; i < region->param_count; i++) begin_object(a->f, region->params[i], region, params_read_only);
    for (int i = 0; i < region->inst_count; i++) walk_inst(a, region->insts[i], region);
    a->f->position++;
}

/* ---- functions ---- */

/* The result that may hand parameter p back; -1: none. */
static int result_for(const takeover *f, int p) {
    const ir_region *body = f->func->body;
    for (int k = 0; k < body->yield_count; k++)
        if (f->object[body->yields[k]->id] == (int)body->params[p]->id)
            return !f->struck[k] && handed_back(f, body, body->params[p], k) ? k : -1;
    return -1;
}

static void find_aliases(analysis *a) {
    takeover *f = a->f;
    const ir_region *body = f->func->body;
    for (int k = 0; k < body->yield_count; k++) f->alias[k] = NO_ALIAS;
    for (int p = 0; p < body->param_count; p++) {
        uint32_t id = body->params[p]->id;
        if (f->object[id] == NO_OBJECT) continue;
        int result = result_for(f, p);
        if (result >= 0) f->alias[result] = p;
        else if (f->written[id]) f->frozen[id] = a->again = true;
    }
}

static void analyse_func(analysis *a, takeover *f) {
    a->f = f;
    memset(f->frozen, 0, sizeof *f->frozen * f->func->value_count);
    do {
        a->again = false;
        f->position = 0;
        for (uint32_t i = 0; i < f->func->value_count; i++) f->object[i] = NO_OBJECT;
        walk_region(a, f->func->body, false);
        find_aliases(a);
    } while (a->again && !a->restart);
}

static void open_func(takeover *f, const ir_func *func) {
    size_t values = func->value_count + 1, results = (size_t)func->body->yield_count + 1;
    f->func = func;
    f->object = calloc(values, sizeof *f->object);
    f->last_use = calloc(values, sizeof *f->last_use);
    f->home = calloc(values, sizeof *f->home);
    f->frozen = calloc(values, sizeof *f->frozen);
    f->written = calloc(values, sizeof *f->written);
    f->inplace = calloc(values, sizeof *f->inplace);
    f->alias = calloc(results, sizeof *f->alias);
    f->struck = calloc(results, sizeof *f->struck);
    GM_ASSERT(f->object && f->last_use && f->home && f->frozen && f->written && f->inplace && f->alias && f->struck);
    number_region(f, func->body);
}

static void close_func(takeover *f) {
    free(f->object);
    free(f->last_use);
    free(f->home);
    free(f->frozen);
    free(f->written);
    free(f->inplace);
    free(f->alias);
    free(f->struck);
}

/* ---- marking ---- */

static bool mark(ir_rewrite *rw, const ir_inst *inst) {
    const takeover *f = rw->user;
    if (inst->op != IR_UPDATE && inst->op != IR_SCAN && inst->op != IR_WHILE) return false;
    bool inplace = inst->result_count && f->inplace[inst->results[0]->id];
    ir_rewrite_clone(rw, inplace ? ir_rewrite_with(rw, inst, ir_attr_make_int(IR_ATTR_INPLACE, 1))
                                 : ir_rewrite_without(rw, inst, IR_ATTR_INPLACE));
    return true;
}

static void set_alias(ir_module *module, ir_func *func, const takeover *f) {
    int count = func->body->yield_count;
    func->alias = NULL;
    for (int k = 0; k < count; k++) {
        if (f->alias[k] == NO_ALIAS) continue;
        func->alias = GM_NEW_ARRAY(&module->arena, int, count);
        memcpy(func->alias, f->alias, sizeof *f->alias * (size_t)count);
        return;
    }
}

gm_status pass_kv_in_place(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    analysis a = {.module = in, .funcs = calloc((size_t)in->func_count + 1, sizeof *a.funcs)};
    GM_ASSERT(a.funcs);
    for (int i = 0; i < in->func_count; i++) open_func(&a.funcs[i], in->funcs[i]);
    do {
        a.restart = false;
        for (int i = 0; i < in->func_count && !a.restart; i++) analyse_func(&a, &a.funcs[i]);
    } while (a.restart);
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        ir_func *copy = ir_clone_func(in, in->funcs[i], *out, in->funcs[i]->name, NULL, mark, &a.funcs[i]);
        set_alias(*out, copy, &a.funcs[i]);
        close_func(&a.funcs[i]);
    }
    free(a.funcs);
    return GM_OK;
}
