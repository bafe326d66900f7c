/* What the passes that form token loops share. */
#include "passes/loops.h"

/* A symbol, or 1: a function that takes such an extent can be called with one token. */
static bool takes_one(ir_dim dim) {
    return ir_dim_is_symbol(dim) || dim == 1;
}

/* f32[n,columns] where n can be 1 and columns is a number. */
static bool is_rows(const ir_type *type) {
    return type->dtype == RT_F32 && type->rank == 2 && takes_one(type->dim[0]) && !ir_dim_is_symbol(type->dim[1]);
}

static bool is_forward(const ir_region *f) {
    if (f->param_count != 4 || f->yield_count != 3) return false;
    const ir_type *ids = &f->params[0]->type, *position = &f->params[1]->type, *cache = &f->params[2]->type, *x = &f->yields[0]->type;
    if (ids->dtype != RT_I32 || ids->rank != 1 || position->dtype != RT_I32 || position->rank != 0 || cache->rank != 4) return false;
    for (int d = 0; d < cache->rank; d++)
        if (ir_dim_is_symbol(cache->dim[d]) && cache->dim[d] == ids->dim[0]) return false;
    bool same = ir_type_equal(cache, &f->params[3]->type) && ir_type_equal(cache, &f->yields[1]->type) && ir_type_equal(cache, &f->yields[2]->type);
    return same && is_rows(x) && x->dim[0] == ids->dim[0];
}

static bool is_head(const ir_region *h, ir_dim columns) {
    if (h->param_count != 1 || h->yield_count != 1) return false;
    const ir_type *x = &h->params[0]->type, *logits = &h->yields[0]->type;
    return is_rows(x) && is_rows(logits) && x->dim[1] == columns && x->dim[0] == logits->dim[0];
}

bool loop_model_of(ir_module *module, loop_model *out) {
    ir_func *forward = ir_func_find(module, "forward"), *head = ir_func_find(module, "head");
    if (!forward || !head || !is_forward(forward->body)) return false;
    const ir_region *f = forward->body;
    if (!is_head(head->body, f->yields[0]->type.dim[1])) return false;
    *out = (loop_model){.forward = forward, .head = head, .row = f->yields[0]->type, .cache = f->params[2]->type};
    out->row.dim[0] = 1;
    out->tokens = ir_tensor(RT_I32, 1, &out->cache.dim[1]);
    return true;
}

ir_value *loop_ids(ir_builder *b, ir_value *tokens, ir_value *at, ir_dim size) {
    return ir_named(ir_window(b, tokens, at, 0, size), "ids");
}
