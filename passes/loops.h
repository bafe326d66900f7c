/* What the passes that form token loops share. */
#ifndef GM_PASSES_LOOPS_H
#define GM_PASSES_LOOPS_H

#include "ir/build.h"
#include "ir/rewrite.h"
#include "runtime/abi.h"

/* @forward and @head of a model module, with the types that the loops around them need. */
typedef struct loop_model {
    ir_func *forward, *head;
    ir_type row;                          /* f32[1,h]: one token's residual stream */
    ir_type tokens;                       /* i32[S] */
    const ir_value *cache[RT_MAX_CACHES]; /* the parameters of @forward after ids and position */
    int cache_count;
} loop_model;

/* False when the module has no @forward and @head of the expected form: nothing to loop over. */
bool loop_model_of(ir_module *module, loop_model *out);

/* A parameter of `region` for each cache. */
void loop_cache_params(ir_builder *b, ir_region *region, const loop_model *model, ir_value **out);
/* @forward(ids, position, caches…) */
ir_inst *loop_step(ir_builder *b, const loop_model *model, ir_value *ids, ir_value *position, ir_value *const *caches);
/* tokens[at, at + size) as ids. */
ir_value *loop_ids(ir_builder *b, ir_value *tokens, ir_value *at, ir_dim size);
/* @forward takes any number of tokens, and calls it T. */
bool loop_takes_rows(const ir_module *module, const loop_model *model);
/* @head takes any number of rows, and calls it R. */
bool loop_chooses_rows(const ir_module *module, const loop_model *model);

/* The parameters of @generate are x, tokens, position, these, and the caches. */
enum { LOOP_COUNT_AT = 3, LOOP_CACHES_AT = 7 };
typedef struct loop_choice {
    ir_value *count, *options, *seed, *stops;
} loop_choice;

/* The carries of @generate's loop; then the caches. */
enum {
    CARRY_X,
    CARRY_TOKENS,
    CARRY_POSITION,
    CARRY_DONE,
    CARRY_COUNT,
    CARRY_MORE,
    LOOP_MAX_CARRIES = CARRY_MORE + 1 + RT_MAX_CACHES
};

/* Is inst, in `func`, the loop that form_generate_loop makes? */
bool loop_is_generate(const ir_func *func, const ir_inst *inst, const loop_model *model);
/* The choice by the parameters of @generate in the making: those of `func` as `rw` maps them. */
loop_choice loop_choice_of(const ir_rewrite *rw);
/* An `if` of one result in the making: its branches are built between begin, other and end. */
typedef struct loop_branches {
    ir_value *condition;
    ir_region *outer, *regions[2];
} loop_branches;
loop_branches loop_branch_begin(ir_builder *b, ir_value *condition);
void loop_branch_other(ir_builder *b, const loop_branches *branches, ir_value *result);
ir_value *loop_branch_end(ir_builder *b, const loop_branches *branches, ir_value *result);
/* A while whose carries begin as `init`, with its test and its body; or a scan of init[0] trips whose carries begin as
 * the others. The results are called as what they begin as. */
ir_inst *loop_while(ir_builder *b, ir_value *const *init, int carries, const ir_attr *attr, ir_region *const *regions);
ir_inst *loop_scan(ir_builder *b, ir_value *const *init, int carries, ir_region *body);
/* A region with parameters for carries that begin as these. */
ir_region *loop_region(ir_builder *b, ir_value *const *init, int count, ir_value **out_params);
/* The test of @generate's loop by its carries: fewer than count, and not stopped. */
ir_region *loop_test(ir_builder *b, const loop_choice *choice, ir_value *const *init, int carries);
/* Do rings still hold the window of a token that the host goes back to, when `ahead` tokens behind the last one have
 * been written? */
bool loop_rings_hold(const loop_model *model, int ahead);

/* Are tokens chosen by an argmax? Greedy choice without a repeat penalty is one; everything else is the sampler's. */
ir_value *loop_greedy(ir_builder *b, const loop_choice *choice);
/* Does the sampler choose among few logits, which a screen finds, without a repeat penalty, for which the tokens
 * between must be known? */
ir_value *loop_chooses_few(ir_builder *b, const loop_choice *choice);
/* @head(x), for as many rows as x has. */
ir_value *loop_logits(ir_builder *b, const loop_model *model, ir_value *x);
/* i32[R,1]: the sampler's tokens by rows of logits, the first at `position`. usual: 0, or those below it are likely,
 * and no other ids than likely ones are chosen. */
ir_value *loop_draw(ir_builder *b, const loop_choice *choice, ir_value *logits, ir_value *tokens, ir_value *position,
                    int64_t usual);
/* i32[R,1]: the tokens that follow the rows of x, the first at `position`, chosen either way. */
ir_value *loop_pick(ir_builder *b, const loop_model *model, const loop_choice *choice, ir_value *x, ir_value *tokens,
                    ir_value *position);

/* What taking a token gives: itself as i32[1], the tokens with it at its position, and whether it is one of the
 * stops. */
typedef struct loop_taken {
    ir_value *id, *tokens, *stopped;
} loop_taken;
/* Is the token one of the stops? */
ir_value *loop_is_stop(ir_builder *b, const loop_choice *choice, ir_value *token);
/* Emits it. */
loop_taken loop_take(ir_builder *b, const loop_choice *choice, ir_value *token, ir_value *tokens, ir_value *position);

#endif
