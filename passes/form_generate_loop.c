/* form_generate_loop: the token loop of generation becomes a `while` inside the IR, so that no host code runs per
 * token.
 *
 *   @generate(x, tokens, position, count, options, seed, stops, caches…) -> (x, tokens, position, stopped, caches…)
 *     while i < count and not stopped:
 *       logits = @head(x); token = argmax or sample; tokens[position] = token; emit token
 *       stopped = token in stops; x, caches = @forward(token, position, caches); position += 1
 *
 * x is the residual stream of the last token so far. The stop token is emitted and processed too, so that the cache
 * holds the whole sequence and a later call can go on from it. Needs @forward and @head; leaves them as they are.
 * Bit-exact: the same operations in the same order as the host's loop over @forward and @head.
 */
#include "passes/loops.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include "runtime/sampler.h"

typedef struct generate {
    ir_builder *b;
    const loop_model *model;
    loop_choice choice;
} generate;

enum { CARRY_CACHES = CARRY_MORE };

static ir_region *build_body(generate *g, ir_value *const *init) {
    ir_builder *b = g->b;
    ir_region *outer = b->region, *body;
    ir_value *c[LOOP_MAX_CARRIES];
    int carries = CARRY_CACHES + g->model->cache_count;
    b->region = body = loop_region(b, init, carries, c);
    ir_value *chosen = loop_pick(b, g->model, &g->choice, c[CARRY_X], c[CARRY_TOKENS], c[CARRY_POSITION]),
             *token = ir_named(ir_reshape(b, chosen, 0, NULL), "token");
    loop_taken taken = loop_take(b, &g->choice, token, c[CARRY_TOKENS], c[CARRY_POSITION]);
    ir_value *next = ir_const_int(b, 1);
    ir_inst *step = loop_step(b, g->model, taken.id, c[CARRY_POSITION], c + CARRY_CACHES);
    ir_value *position = ir_binary(b, IR_ADD, c[CARRY_POSITION], next),
             *count = ir_binary(b, IR_ADD, c[CARRY_COUNT], next);
    ir_value *yields[LOOP_MAX_CARRIES] = {step->results[0], taken.tokens, position, taken.stopped, count};
    for (int i = 0; i < g->model->cache_count; i++) yields[CARRY_CACHES + i] = step->results[1 + i];
    ir_yield(b, yields, carries);
    b->region = outer;
    return body;
}

static void build_generate(ir_module *module, const loop_model *model) {
    ir_builder b;
    ir_func_new(&b, module, "generate");
    ir_region *body = b.region;
    int64_t options = RT_SAMPLE_OPTIONS, stops = RT_MAX_STOPS;
    generate g = {.b = &b, .model = model};
    ir_value *x = ir_param(&b, body, model->row, "x");
    ir_value *tokens = ir_param(&b, body, model->tokens, "tokens");
    ir_value *position = ir_param(&b, body, ir_scalar(RT_I32), "position");
    g.choice.count = ir_param(&b, body, ir_scalar(RT_I32), "count");
    g.choice.options = ir_param(&b, body, ir_tensor(RT_F32, 1, &options), "options");
    g.choice.seed = ir_param(&b, body, ir_scalar(RT_I64), "seed");
    g.choice.stops = ir_param(&b, body, ir_tensor(RT_I32, 1, &stops), "stops");
    ir_value *init[LOOP_MAX_CARRIES] = {x, tokens, position};
    loop_cache_params(&b, body, model, init + CARRY_CACHES);
    init[CARRY_DONE] = ir_named(ir_const_bool(&b, false), "stopped");
    init[CARRY_COUNT] = ir_named(ir_const_int(&b, 0), "i");
    int caches = model->cache_count, carries = CARRY_CACHES + caches;
    ir_region *regions[2] = {loop_test(&b, &g.choice, init, carries), build_body(&g, init)};
    ir_inst *loop = loop_while(&b, init, carries, NULL, regions);
    ir_value *results[LOOP_MAX_CARRIES];
    for (int i = 0; i <= CARRY_DONE; i++) results[i] = loop->results[i];
    for (int i = 0; i < caches; i++) results[CARRY_DONE + 1 + i] = loop->results[CARRY_CACHES + i];
    ir_yield(&b, results, CARRY_DONE + 1 + caches);
}

gm_status pass_form_generate_loop(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    loop_model model;
    *out = ir_rewrite_module(in, NULL, NULL);
    if (loop_model_of(*out, &model) && !ir_func_find(*out, "generate")) build_generate(*out, &model);
    return GM_OK;
}
