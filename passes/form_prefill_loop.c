/* form_prefill_loop: the prompt becomes a `scan` over tokens inside the IR.
 *
 *   @prefill(tokens, start, count, caches…) -> (x, caches…)
 *     scan i < count: x, caches = @forward(tokens[start + i], start + i, caches)
 *
 * x is the residual stream of the last token; the head is not run for the others. Bit-exact against a host loop over
 * @forward. Needs @forward and @head.
 */
#include "passes/loops.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

static ir_region *build_body(ir_builder *b, const loop_model *model, ir_value *tokens, ir_value *start) {
    ir_region *outer = b->region, *body = ir_region_new(b);
    b->region = body;
    ir_value *i = ir_param(b, body, ir_scalar(RT_I32), "i");
    ir_param(b, body, model->row, "x");
    ir_value *caches[RT_MAX_CACHES];
    loop_cache_params(b, body, model, caches);
    ir_value *position = ir_named(ir_binary(b, IR_ADD, start, i), "position");
    ir_inst *step = loop_step(b, model, loop_ids(b, tokens, position, 1), position, caches);
    ir_yield(b, step->results, step->result_count);
    b->region = outer;
    return body;
}

static void build_prefill(ir_module *module, const loop_model *model) {
    ir_builder b;
    ir_func_new(&b, module, "prefill");
    ir_region *func = b.region;
    ir_value *tokens = ir_param(&b, func, model->tokens, "tokens");
    ir_value *start = ir_param(&b, func, ir_scalar(RT_I32), "start");
    ir_value *count = ir_param(&b, func, ir_scalar(RT_I32), "count");
    ir_value *init[2 + RT_MAX_CACHES] = {count};
    loop_cache_params(&b, func, model, init + 2);
    ir_attr zero = ir_attr_make_float(IR_ATTR_VALUE, 0);
    init[1] = ir_named(ir_emit1(&b, IR_CONST, NULL, 0, &zero, 1, &model->row), "x");
    ir_region *body = build_body(&b, model, tokens, start);
    int carries = 1 + model->cache_count;
    ir_inst *scan = loop_scan(&b, init, carries, body);
    ir_yield(&b, scan->results, carries);
}

gm_status pass_form_prefill_loop(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    loop_model model;
    *out = ir_rewrite_module(in, NULL, NULL);
    if (loop_model_of(*out, &model) && !ir_func_find(*out, "prefill")) build_prefill(*out, &model);
    return GM_OK;
}
