/* chunk_prefill: the scan over tokens in @prefill becomes a scan over chunks of up to C tokens, so that every
 * projection is a matrix-matrix product.
 *
 *   chunks = ceil(count / C); size = ceil(count / chunks)      (C: the bound of symbol T)
 *   scan i < chunks:
 *     n = min(size, count - i·size); dim T = n
 *     x, caches = @forward(tokens[start + i·size, … + T), start + i·size, caches)     x: [T,h]
 *     keep row n - 1 of x
 *
 * The chunks are of one size, as far as that goes: each reads all weights, so that a short one costs almost as much as
 * a long one, and attention over few queries shares less.
 *
 * Legal because @forward over T tokens means T single steps (causal attention reads the cache that the chunk itself has
 * written). Sums may be formed in another order: equal up to f32 rounding. Does nothing without @prefill's token scan.
 */
#include "passes/loops.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <string.h>

/* The scan that form_prefill_loop makes: its body does nothing but step @forward through the tokens. */
static bool is_token_scan(const ir_rewrite *rw, const ir_inst *inst) {
    const ir_region *func = rw->in_func->body;
    if (strcmp(rw->in_func->name, "prefill") || inst->op != IR_SCAN || func->param_count < 2) return false;
    const ir_region *body = inst->regions[0];
    if (body->inst_count != 3) return false;
    const ir_inst *position = body->insts[0], *ids = body->insts[1], *step = body->insts[2];
    if (position->op != IR_ADD || ids->op != IR_WINDOW || step->op != IR_CALL ||
        step->operand_count != inst->operand_count)
        return false;
    if (strcmp(ir_attr_string(step, IR_ATTR_CALLEE), "forward") || ids->results[0]->type.dim[0] != 1) return false;
    const ir_value *at = position->results[0];
    bool chain = position->operands[0] == func->params[1] && position->operands[1] == body->params[0] &&
                 ids->operands[0] == func->params[0] && ids->operands[1] == at &&
                 step->operands[0] == ids->results[0] && step->operands[1] == at;
    for (int i = 2; i < step->operand_count; i++) chain = chain && step->operands[i] == body->params[i];
    for (int i = 0; i < body->yield_count; i++)
        chain = chain && i < step->result_count && body->yields[i] == step->results[i];
    return chain;
}

static ir_region *build_body(ir_rewrite *rw, const loop_model *model, ir_value *count, ir_value *chunk) {
    ir_builder *b = &rw->b;
    const ir_region *params = rw->in_func->body;
    ir_value *tokens = ir_rewrite_get(rw, params->params[0]), *start = ir_rewrite_get(rw, params->params[1]);
    ir_region *outer = b->region, *body = ir_region_new(b);
    b->region = body;
    ir_value *i = ir_param(b, body, ir_scalar(RT_I32), "i");
    ir_param(b, body, model->row, "x");
    ir_value *caches[RT_MAX_CACHES], *yields[1 + RT_MAX_CACHES];
    loop_cache_params(b, body, model, caches);
    ir_value *offset = ir_binary(b, IR_MUL, i, chunk);
    ir_value *n = ir_named(ir_binary(b, IR_MIN, chunk, ir_binary(b, IR_SUB, count, offset)), "n");
    ir_attr symbol = ir_attr_make_string(IR_ATTR_SYMBOL, "T");
    ir_emit(b, IR_DIM, &n, 1, &symbol, 1, NULL, 0, NULL, 0);
    ir_value *position = ir_named(ir_binary(b, IR_ADD, start, offset), "position");
    ir_dim t = ir_dim_symbol(ir_symbol_find(b->module, "T"));
    ir_value *last = ir_named(ir_binary(b, IR_SUB, n, ir_const_int(b, 1)), "last");
    ir_inst *step = loop_step(b, model, loop_ids(b, tokens, position, t), position, caches);
    yields[0] = ir_window(b, step->results[0], last, 0, 1);
    for (int k = 1; k < step->result_count; k++) yields[k] = step->results[k];
    ir_yield(b, yields, step->result_count);
    b->region = outer;
    return body;
}

/* ceil(x / y) of whole numbers >= 0; 0 where y is. */
static ir_value *divide_up(ir_builder *b, ir_value *x, ir_value *y) {
    ir_value *rounded = ir_binary(b, IR_ADD, x, ir_binary(b, IR_SUB, y, ir_const_int(b, 1)));
    return ir_binary(b, IR_DIV, rounded, y);
}

static bool chunk_scan(ir_rewrite *rw, const ir_inst *inst) {
    loop_model model;
    if (!is_token_scan(rw, inst) || !loop_model_of(rw->out, &model) || !loop_takes_rows(rw->out, &model)) return false;
    int64_t size = ((const pass_options *)rw->user)->chunk;
    ir_symbol_intern(rw->out, "T", size);
    ir_value **operands = ir_rewrite_operands(rw, inst, 0);
    GM_ASSERT(inst->operand_count == 2 + model.cache_count);
    ir_builder *b = &rw->b;
    ir_value *count = operands[0];
    operands[0] = ir_named(divide_up(b, count, ir_const_int(b, size)), "chunks");
    ir_region *body = build_body(rw, &model, count, ir_named(divide_up(b, count, operands[0]), "size"));
    ir_inst *scan = loop_scan(b, operands, inst->result_count, body);
    for (int i = 0; i < inst->result_count; i++) ir_rewrite_map(rw, inst->results[i], scan->results[i]);
    return true;
}

gm_status pass_chunk_prefill(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_rewrite_module(in, options->chunk > 1 ? chunk_scan : NULL, (void *)options); /* only read */
    return GM_OK;
}
