/* Putting derived weights in the place of stored ones: see derived.h. */
#include "passes/derived.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

typedef struct state {
    const derived_pass *pass;
    const pass_options *options;
    uint32_t *uses; /* of each value, by its id: as a weight that may be of the kind */
} state;

static void count_uses(const ir_inst *inst, void *user) {
    state *s = user;
    for (int i = s->pass->first_weight(inst); i < inst->operand_count; i++) s->uses[inst->operands[i]->id]++;
}

/* As inst, of another name and type. */
static void clone_as(ir_rewrite *rw, const ir_inst *inst, const rt_tensor *derived) {
    ir_inst *copy = ir_rewrite_with(rw, inst, ir_attr_make_string(IR_ATTR_NAME, derived->name));
    ir_value result = *inst->results[0];
    ir_value *results[] = {&result};
    result.type.dtype = derived->dtype;
    copy->results = results;
    ir_rewrite_clone(rw, copy);
}

static bool take(ir_rewrite *rw, const ir_inst *inst) {
    const state *s = rw->user;
    const ir_value *w = inst->result_count ? inst->results[0] : NULL;
    if (!ir_stored_count(inst) || w->type.rank != 2 || !s->uses[w->id] || s->uses[w->id] != rw->uses[w->id])
        return false;
    rt_tensor source = {.dtype = w->type.dtype, .rank = 2, .dim = {w->type.dim[0], w->type.dim[1]}}, derived;
    const char *name = rt_derived_name(&rw->out->arena, s->pass->kind, ir_attr_string(inst, IR_ATTR_NAME));
    if (!rt_derived_shape(name, &source, &derived)) return false;
    clone_as(rw, inst, &derived);
    ir_decide(s->options->decisions, s->pass->name, rw->in, rw->in_func, inst, rt_dtype_of(derived.dtype)->text, "%s",
              s->pass->why);
    return true;
}

ir_module *derived_take(const derived_pass *pass, const pass_options *options, const ir_module *in) {
    state s = {.pass = pass, .options = options};
    ir_module *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        s.uses = calloc((size_t)in->funcs[i]->value_count + 1, sizeof *s.uses);
        GM_ASSERT(s.uses);
        ir_visit(in->funcs[i]->body, count_uses, &s);
        ir_clone_func(in, in->funcs[i], out, in->funcs[i]->name, NULL, take, &s);
        free(s.uses);
    }
    return out;
}
