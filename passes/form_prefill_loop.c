/* form_prefill_loop: the prompt becomes a `scan` over tokens inside the IR.
 *
 *   @prefill(tokens, start, count, k, v) -> (x, k, v)
 *     scan i < count: x, k, v = @forward(tokens[start + i], start + i, k, v)
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
    ir_value *k = ir_param(b, body, model->cache, "kc"), *v = ir_param(b, body, model->cache, "vc");
    ir_value *position = ir_named(ir_binary(b, IR_ADD, start, i), "position");
    ir_value *args[] = {loop_ids(b, tokens, position, 1), position, k, v};
    ir_inst *step = ir_call(b, model->forward, args, 4);
    ir_yield(b, step->results, 3);
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
    ir_value *k = ir_param(&b, func, model->cache, "kc"), *v = ir_param(&b, func, model->cache, "vc");
    ir_attr zero = ir_attr_make_float(IR_ATTR_VALUE, 0);
    ir_value *x = ir_emit1(&b, IR_CONST, NULL, 0, &zero, 1, &model->row);
    ir_region *body = build_body(&b, model, tokens, start);
    ir_inst *scan = ir_emit(&b, IR_SCAN, (ir_value *[]){count, x, k, v}, 4, NULL, 0, &body, 1, NULL, 3);
    ir_yield(&b, scan->results, 3);
}

gm_status pass_form_prefill_loop(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    loop_model model;
    *out = ir_rewrite_module(in, NULL, NULL);
    if (loop_model_of(*out, &model) && !ir_func_find(*out, "prefill")) build_prefill(*out, &model);
    return GM_OK;
}
