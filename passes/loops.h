/* What the passes that form token loops share. */
#ifndef GM_PASSES_LOOPS_H
#define GM_PASSES_LOOPS_H

#include "ir/build.h"

/* @forward and @head of a model module, with the types that the loops around them need. */
enum { LOOP_MAX_CACHES = 8 };
typedef struct loop_model {
    ir_func *forward, *head;
    ir_type row;                         /* f32[1,h]: one token's residual stream */
    ir_type tokens;                      /* i32[S] */
    const ir_value *cache[LOOP_MAX_CACHES]; /* the parameters of @forward after ids and position */
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

#endif
