/* What the passes that form token loops share. */
#ifndef GM_PASSES_LOOPS_H
#define GM_PASSES_LOOPS_H

#include "ir/build.h"

/* @forward and @head of a model module, with the types that the loops around them need. */
typedef struct loop_model {
    ir_func *forward, *head;
    ir_type row;    /* f32[1,h]: one token's residual stream */
    ir_type cache;  /* f32[L,S,KV,D] */
    ir_type tokens; /* i32[S] */
} loop_model;

/* False when the module has no @forward and @head of the expected form: nothing to loop over. */
bool loop_model_of(ir_module *module, loop_model *out);

/* tokens[at, at + size) as ids. */
ir_value *loop_ids(ir_builder *b, ir_value *tokens, ir_value *at, ir_dim size);

#endif
