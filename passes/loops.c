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

/* (ids, position, caches…) -> (x, caches…) */
static bool is_forward(const ir_region *f) {
    int caches = f->param_count - 2;
    if (caches < 1 || caches > LOOP_MAX_CACHES || f->yield_count != caches + 1) return false;
    const ir_type *ids = &f->params[0]->type, *position = &f->params[1]->type, *x = &f->yields[0]->type;
    if (ids->dtype != RT_I32 || ids->rank != 1 || position->dtype != RT_I32 || position->rank != 0) return false;
    for (int i = 0; i < caches; i++) {
        const ir_type *cache = &f->params[2 + i]->type;
        if (cache->rank < 3 || !ir_type_equal(cache, &f->yields[1 + i]->type)) return false;
        for (int d = 0; d < cache->rank; d++)
            if (ir_dim_is_symbol(cache->dim[d]) && cache->dim[d] == ids->dim[0]) return false;
    }
    return is_rows(x) && x->dim[0] == ids->dim[0];
}

static bool is_head(const ir_region *h, ir_dim columns) {
    if (h->param_count != 1 || h->yield_count != 1) return false;
    const ir_type *x = &h->params[0]->type, *logits = &h->yields[0]->type;
    return is_rows(x) && is_rows(logits) && x->dim[1] == columns && x->dim[0] == logits->dim[0];
}

/* The tokens that a sequence can have: S, which a cache need not show (its layout may be another, its slots fewer). */
static ir_dim capacity_of(const ir_module *module, const loop_model *model) {
    int symbol = ir_symbol_find(module, "S");
    return symbol >= 0 ? ir_dim_symbol(symbol) : model->cache[0]->type.dim[1];
}

bool loop_model_of(ir_module *module, loop_model *out) {
    ir_func *forward = ir_func_find(module, "forward"), *head = ir_func_find(module, "head");
    if (!forward || !head || !is_forward(forward->body)) return false;
    const ir_region *f = forward->body;
    if (!is_head(head->body, f->yields[0]->type.dim[1])) return false;
    *out = (loop_model){.forward = forward, .head = head, .row = f->yields[0]->type, .cache_count = f->param_count - 2};
    for (int i = 0; i < out->cache_count; i++) out->cache[i] = f->params[2 + i];
    out->row.dim[0] = 1;
    out->tokens = ir_tensor(RT_I32, 1, (ir_dim[]){capacity_of(module, out)});
    return true;
}

void loop_cache_params(ir_builder *b, ir_region *region, const loop_model *model, ir_value **out) {
    for (int i = 0; i < model->cache_count; i++) out[i] = ir_param(b, region, model->cache[i]->type, model->cache[i]->hint);
}

ir_inst *loop_step(ir_builder *b, const loop_model *model, ir_value *ids, ir_value *position, ir_value *const *caches) {
    ir_value *args[2 + LOOP_MAX_CACHES] = {ids, position};
    for (int i = 0; i < model->cache_count; i++) args[2 + i] = caches[i];
    return ir_call(b, model->forward, args, 2 + model->cache_count);
}

ir_value *loop_ids(ir_builder *b, ir_value *tokens, ir_value *at, ir_dim size) {
    return ir_named(ir_window(b, tokens, at, 0, size), "ids");
}
