/* What the passes that form token loops share. */
#include "passes/loops.h"

#include "runtime/sampler.h"

#include <string.h>

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
    if (caches < 1 || caches > RT_MAX_CACHES || f->yield_count != caches + 1) return false;
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
    for (int i = 0; i < model->cache_count; i++)
        out[i] = ir_param(b, region, model->cache[i]->type, model->cache[i]->hint);
}

ir_inst *loop_step(ir_builder *b, const loop_model *model, ir_value *ids, ir_value *position, ir_value *const *caches) {
    ir_value *args[2 + RT_MAX_CACHES] = {ids, position};
    for (int i = 0; i < model->cache_count; i++) args[2 + i] = caches[i];
    ir_inst *step = ir_call(b, model->forward, args, 2 + model->cache_count);
    ir_named(step->results[0], "x");
    for (int i = 0; i < model->cache_count; i++) ir_named(step->results[1 + i], model->cache[i]->hint);
    return step;
}

ir_value *loop_ids(ir_builder *b, ir_value *tokens, ir_value *at, ir_dim size) {
    return ir_named(ir_window(b, tokens, at, 0, size), "ids");
}

static bool is_symbol(const ir_module *module, ir_dim dim, const char *name) {
    return ir_dim_is_symbol(dim) && ir_dim_symbol_of(dim) == ir_symbol_find(module, name);
}

bool loop_takes_rows(const ir_module *module, const loop_model *model) {
    return is_symbol(module, model->forward->body->params[0]->type.dim[0], "T");
}

bool loop_chooses_rows(const ir_module *module, const loop_model *model) {
    return is_symbol(module, model->head->body->params[0]->type.dim[0], "R");
}

/* ---- the loop of @generate ---- */

bool loop_is_generate(const ir_func *func, const ir_inst *inst, const loop_model *model) {
    static const ir_op ops[] = {IR_CALL,    IR_CONST,  IR_CONST, IR_INDEX, IR_LE,         IR_CONST,
                                IR_CONST,   IR_INDEX,  IR_EQ,    IR_AND,   IR_IF,         IR_RESHAPE,
                                IR_RESHAPE, IR_UPDATE, IR_EMIT,  IR_EQ,    IR_REDUCE_MAX, IR_RESHAPE,
                                IR_CONST,   IR_CALL,   IR_ADD,   IR_ADD};
    const ir_region *params = func->body, *body = inst->region_count == 2 ? inst->regions[1] : NULL;
    if (inst->op != IR_WHILE || strcmp(func->name, "generate") ||
        params->param_count != LOOP_CACHES_AT + model->cache_count)
        return false;
    if (inst->operand_count != CARRY_MORE + model->cache_count || body->inst_count != (int)GM_COUNT(ops)) return false;
    for (size_t i = 0; i < GM_COUNT(ops); i++)
        if (body->insts[i]->op != ops[i]) return false;
    const ir_inst *head = body->insts[0], *step = body->insts[GM_COUNT(ops) - 3];
    if (strcmp(ir_attr_string(head, IR_ATTR_CALLEE), "head") || strcmp(ir_attr_string(step, IR_ATTR_CALLEE), "forward"))
        return false;
    return head->operands[0] == body->params[CARRY_X] && step->operands[1] == body->params[CARRY_POSITION];
}

typedef struct ring_check {
    int ahead;
    bool short_ring;
} ring_check;

static void check_ring(const ir_inst *inst, void *user) {
    ring_check *check = user;
    if (inst->op != IR_ATTENTION || !ir_attr_int(inst, IR_ATTR_RING, 0)) return;
    int64_t slots = inst->operands[1]->type.dim[0], window = ir_attr_int(inst, IR_ATTR_WINDOW, 0);
    check->short_ring |= slots < window + RT_MAX_ROLLBACK + check->ahead;
}

bool loop_rings_hold(const loop_model *model, int ahead) {
    ring_check check = {ahead, false};
    ir_visit(model->forward->body, check_ring, &check);
    return !check.short_ring;
}

loop_choice loop_choice_of(const ir_rewrite *rw) {
    ir_value *const *params = rw->in_func->body->params + LOOP_COUNT_AT;
    return (loop_choice){ir_rewrite_get(rw, params[0]), ir_rewrite_get(rw, params[1]), ir_rewrite_get(rw, params[2]),
                         ir_rewrite_get(rw, params[3])};
}

loop_branches loop_branch_begin(ir_builder *b, ir_value *condition) {
    loop_branches branches = {condition, b->region, {ir_region_new(b), ir_region_new(b)}};
    b->region = branches.regions[0];
    return branches;
}

void loop_branch_other(ir_builder *b, const loop_branches *branches, ir_value *result) {
    ir_yield(b, &result, 1);
    b->region = branches->regions[1];
}

ir_value *loop_branch_end(ir_builder *b, const loop_branches *branches, ir_value *result) {
    ir_yield(b, &result, 1);
    b->region = branches->outer;
    ir_region *regions[2] = {branches->regions[0], branches->regions[1]};
    return ir_emit(b, IR_IF, (ir_value *[]){branches->condition}, 1, NULL, 0, regions, 2, NULL, 1)->results[0];
}

static ir_inst *name_results(ir_inst *loop, ir_value *const *init) {
    for (int i = 0; i < loop->result_count; i++) ir_named(loop->results[i], init[i]->hint);
    return loop;
}

ir_inst *loop_while(ir_builder *b, ir_value *const *init, int carries, const ir_attr *attr, ir_region *const *regions) {
    return name_results(ir_emit(b, IR_WHILE, init, carries, attr, attr != NULL, regions, 2, NULL, carries), init);
}

ir_inst *loop_scan(ir_builder *b, ir_value *const *init, int carries, ir_region *body) {
    return name_results(ir_emit(b, IR_SCAN, init, 1 + carries, NULL, 0, &body, 1, NULL, carries), init + 1);
}

ir_region *loop_region(ir_builder *b, ir_value *const *init, int count, ir_value **out_params) {
    ir_region *region = ir_region_new(b);
    for (int i = 0; i < count; i++) out_params[i] = ir_param(b, region, init[i]->type, init[i]->hint);
    return region;
}

ir_region *loop_test(ir_builder *b, const loop_choice *choice, ir_value *const *init, int carries) {
    ir_region *outer = b->region, *test;
    ir_value *c[LOOP_MAX_CARRIES];
    b->region = test = loop_region(b, init, carries, c);
    ir_value *more = ir_binary(b, IR_LT, c[CARRY_COUNT], choice->count),
             *go = ir_binary(b, IR_AND, more, ir_unary(b, IR_NOT, c[CARRY_DONE]));
    ir_yield(b, &go, 1);
    b->region = outer;
    return test;
}

/* ---- choosing tokens ---- */

static ir_value *option(ir_builder *b, const loop_choice *choice, int index, const char *name) {
    return ir_named(ir_index(b, choice->options, ir_const_int(b, index), 0), name);
}

static ir_value *temperature(ir_builder *b, const loop_choice *choice) {
    return option(b, choice, RT_SAMPLE_TEMPERATURE, "temperature");
}

static ir_value *scalar_of(ir_builder *b, ir_value *x) {
    return ir_reshape(b, x, 0, NULL);
}

/* There is no repeat penalty. */
static ir_value *is_plain(ir_builder *b, const loop_choice *choice) {
    ir_value *one = ir_const_float(b, 1);
    return ir_binary(b, IR_EQ, option(b, choice, RT_SAMPLE_REPEAT_PENALTY, "repeat_penalty"), one);
}

ir_value *loop_greedy(ir_builder *b, const loop_choice *choice) {
    ir_value *zero = ir_const_float(b, 0), *cold = ir_binary(b, IR_LE, temperature(b, choice), zero);
    return ir_named(ir_binary(b, IR_AND, cold, is_plain(b, choice)), "greedy");
}

ir_value *loop_chooses_few(ir_builder *b, const loop_choice *choice) {
    ir_value *top_k = option(b, choice, RT_SAMPLE_TOP_K, "top_k"), *heat = temperature(b, choice);
    ir_value *warm = ir_binary(b, IR_LT, ir_const_float(b, 0), heat);
    ir_value *some = ir_binary(b, IR_LE, ir_const_float(b, 1), top_k),
             *few = ir_binary(b, IR_LE, top_k, ir_const_float(b, RT_SAMPLE_MOST_REACH));
    ir_value *reach = ir_binary(b, IR_AND, some, few), *plain = ir_binary(b, IR_AND, warm, is_plain(b, choice));
    return ir_binary(b, IR_AND, plain, reach);
}

ir_value *loop_logits(ir_builder *b, const loop_model *model, ir_value *x) {
    return ir_named(ir_call(b, model->head, &x, 1)->results[0], "logits");
}

ir_value *loop_draw(ir_builder *b, const loop_choice *choice, ir_value *logits, ir_value *tokens, ir_value *position,
                    int64_t usual) {
    ir_value *operands[] = {logits, tokens, position, choice->options, choice->seed};
    ir_attr likely = ir_attr_make_int(IR_ATTR_USUAL, usual);
    return ir_emit1(b, IR_SAMPLE, operands, 5, &likely, usual > 0, NULL);
}

ir_value *loop_pick(ir_builder *b, const loop_model *model, const loop_choice *choice, ir_value *x, ir_value *tokens,
                    ir_value *position) {
    ir_value *logits = loop_logits(b, model, x), *greedy = loop_greedy(b, choice);
    loop_branches chosen = loop_branch_begin(b, greedy);
    loop_branch_other(b, &chosen, ir_reduce(b, IR_ARGMAX, logits, 1));
    return ir_named(loop_branch_end(b, &chosen, loop_draw(b, choice, logits, tokens, position, 0)), "chosen");
}

ir_value *loop_is_stop(ir_builder *b, const loop_choice *choice, ir_value *token) {
    return scalar_of(b, ir_reduce(b, IR_REDUCE_MAX, ir_binary(b, IR_EQ, choice->stops, token), 0));
}

loop_taken loop_take(ir_builder *b, const loop_choice *choice, ir_value *token, ir_value *tokens, ir_value *position) {
    ir_dim one = 1;
    loop_taken taken = {.id = ir_named(ir_reshape(b, token, 1, &one), "id")};
    taken.tokens = ir_update(b, tokens, taken.id, &position, 1);
    ir_emit(b, IR_EMIT, &token, 1, NULL, 0, NULL, 0, NULL, 0);
    taken.stopped = loop_is_stop(b, choice, token);
    return taken;
}
