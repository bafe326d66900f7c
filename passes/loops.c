/* What the passes that form token loops share. */
#include "passes/loops.h"

bool loop_model_of(ir_module *module, loop_model *out) {
    ir_func *forward = ir_func_find(module, "forward"), *head = ir_func_find(module, "head");
    if (!forward || !head) return false;
    const ir_region *f = forward->body, *h = head->body;
    if (f->param_count != 4 || f->yield_count != 3 || h->param_count != 1 || h->yield_count != 1) return false;
    if (f->params[2]->type.rank != 4 || f->yields[0]->type.rank != 2) return false;
    *out = (loop_model){.forward = forward, .head = head, .row = f->yields[0]->type, .cache = f->params[2]->type};
    out->row.dim[0] = 1;
    out->tokens = ir_tensor(RT_I32, 1, &out->cache.dim[1]);
    return true;
}

ir_value *loop_ids(ir_builder *b, ir_value *tokens, ir_value *at, ir_dim size) {
    return ir_named(ir_window(b, tokens, at, 0, size), "ids");
}
