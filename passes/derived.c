/* Putting derived weights in the place of stored ones: see derived.h. */
#include "passes/derived.h"

#include <stdlib.h>
#include <string.h>

typedef struct counting {
    derived_first_fn first;
    uint32_t *uses;
} counting;

static void count(const ir_inst *inst, void *user) {
    counting *c = user;
    for (int i = c->first(inst); i < inst->operand_count; i++) c->uses[inst->operands[i]->id]++;
}

derived_uses derived_count(const ir_func *func, derived_first_fn first) {
    counting c = {first, calloc((size_t)func->value_count + 1, sizeof *c.uses)};
    GM_ASSERT(c.uses);
    ir_visit(func->body, count, &c);
    return (derived_uses){c.uses};
}

void derived_free(derived_uses *uses) {
    free(uses->of);
    uses->of = NULL;
}

static const char *name_of(const ir_rewrite *rw, const ir_inst *inst, rt_derived kind) {
    return rt_derived_name(&rw->out->arena, kind, ir_attr_string(inst, IR_ATTR_NAME));
}

rt_dtype derived_type(const ir_rewrite *rw, const ir_inst *inst, const derived_uses *uses, rt_derived kind) {
    const ir_value *w = inst->result_count ? inst->results[0] : NULL;
    rt_tensor derived;
    if (!ir_stored_count(inst) || w->type.rank != 2 || !uses->of[w->id] || uses->of[w->id] != rw->uses[w->id]) return RT_DTYPE_COUNT;
    rt_tensor source = {.dtype = w->type.dtype, .rank = 2, .dim = {w->type.dim[0], w->type.dim[1]}};
    return rt_derived_shape(name_of(rw, inst, kind), &source, &derived) ? derived.dtype : RT_DTYPE_COUNT;
}

void derived_clone(ir_rewrite *rw, const ir_inst *inst, rt_derived kind, rt_dtype type) {
    ir_inst copy = *inst;
    ir_attr attrs[8];
    ir_value result = *inst->results[0];
    ir_value *results[] = {&result};
    GM_ASSERT(inst->attr_count <= (int)GM_COUNT(attrs));
    memcpy(attrs, inst->attrs, sizeof *attrs * (size_t)inst->attr_count);
    for (int i = 0; i < inst->attr_count; i++)
        if (attrs[i].key == IR_ATTR_NAME) attrs[i].s = name_of(rw, inst, kind);
    result.type.dtype = type;
    copy.attrs = attrs;
    copy.results = results;
    ir_rewrite_clone(rw, &copy);
}
