/* How far two computations of the same values may lie apart: see agree.h. */
#include "ir/agree.h"
#include "ir/rewrite.h"

#include <math.h>

enum { MAX_DEPTH = 8 /* of calls that are looked into */ };

typedef enum tol_scale { ELEMENT, TENSOR } tol_scale;

static const struct tolerance {
    rt_dtype dtype;
    ir_exactness exactness;
    double abs, rel;
    tol_scale scale;
} tolerances[] = {
#define TOL(dtype, exactness, abs, rel, scale) {RT_##dtype, IR_EXACT_##exactness, abs, rel, scale},
#include "ir/tol.def"
#undef TOL
};

typedef struct search {
    const ir_module *module;
    ir_exactness worst;
    int depth;
} search;

static ir_exactness of_class(const ir_inst *inst) {
    switch (ir_op_of(inst->op)->class) {
    case IR_CLASS_ELEM: return IR_EXACT_ELEM;
    case IR_CLASS_REDUCE: return IR_EXACT_REDUCE;
    case IR_CLASS_CONTRACT: return IR_EXACT_CONTRACT;
    case IR_CLASS_FUSED: return IR_EXACT_FUSED;
    default: return IR_EXACT_MOVE;
    }
}

/* Is it a chain of element-wise operations? What one of them rounds, another may be left with when terms cancel. */
static bool is_chain(const ir_inst *inst) {
    int elements = 0;
    for (int i = 0; inst->op == IR_FUSE && i < inst->regions[0]->inst_count; i++)
        elements += of_class(inst->regions[0]->insts[i]) == IR_EXACT_ELEM;
    return elements > 1;
}

static void note(const ir_inst *inst, void *user) {
    search *s = user;
    ir_exactness exactness = is_chain(inst) ? IR_EXACT_FUSED : of_class(inst);
    if (inst->op == IR_ATTENTION && ir_attr_find(inst, IR_ATTR_IMPL))
        exactness = ir_attr_is(inst, IR_ATTR_IMPL, "tiles") ? IR_EXACT_HALVES : IR_EXACT_INT16;
    if (exactness > s->worst) s->worst = exactness;
    if (inst->op != IR_CALL || s->depth == MAX_DEPTH) return;
    s->depth++;
    ir_visit(ir_func_find(s->module, ir_attr_string(inst, IR_ATTR_CALLEE))->body, note, s);
    s->depth--;
}

ir_exactness ir_exactness_of(const ir_module *module, const ir_inst *inst) {
    search s = {.module = module, .worst = IR_EXACT_MOVE};
    note(inst, &s);
    for (int i = 0; i < inst->region_count; i++) ir_visit(inst->regions[i], note, &s);
    return s.worst;
}

ir_exactness ir_exactness_of_func(const ir_module *module, const ir_func *func) {
    search s = {.module = module, .worst = IR_EXACT_MOVE};
    ir_visit(func->body, note, &s);
    return s.worst;
}

bool ir_agree(ir_exactness exactness, rt_dtype dtype, double want, double got, double largest) {
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
    if (want == got) return true;
    if (isinf(want) || isinf(got)) return false;
    for (size_t i = 0; i < GM_COUNT(tolerances); i++) {
        const struct tolerance *t = &tolerances[i];
        if (t->dtype == dtype && t->exactness == exactness)
            return fabs(want - got) <= t->abs + t->rel * (t->scale == ELEMENT ? fabs(want) : largest);
    }
    return false;
}
