/* The interpreter: one plain function per primitive op, never fast. It defines what each op means; compiled code is
 * tested against it. */
#ifndef GM_IR_INTERP_H
#define GM_IR_INTERP_H

#include "ir/ir.h"
#include "runtime/weights.h"

/* A dense row-major tensor. f32 float, i32 int32_t, i64 int64_t, bool uint8_t 0/1, f16/bf16 uint16_t; QUANT types:
 * blocks as stored. */
typedef struct ir_array {
    rt_dtype dtype;
    int rank;
    int64_t dim[IR_MAX_RANK];
    void *data;
} ir_array;
int64_t ir_array_elems(const ir_array *tensor);
/* Element i, of a type that is no storage type. */
double ir_array_element(const ir_array *tensor, int64_t i);

typedef struct ir_interp_env {
    const rt_weights *weights;               /* for the weight op; NULL: a weight op is an error */
    void (*emit)(void *user, int32_t token); /* NULL: tokens are dropped */
    /* Called after each instruction with its results; `inst` is the one in the module. NULL: none. */
    void (*trace)(void *user, const ir_func *func, const ir_inst *inst, const ir_array *results);
    void *user;
} ir_interp_env;

/* Run @func on args (shapes must match its parameters; symbols are bound from them; a symbol that no parameter binds
 * has its bound `max` as value). results[] receives one tensor per returned value, allocated in `arena`. */
gm_status ir_interp(const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args,
                    int arg_count, gm_arena *arena, ir_array *results, gm_diag *diag);

/* A module in which every FUSED op is replaced by its expansion into primitives (ir/expand.c); the caller owns it. */
ir_module *ir_expand_fused(const ir_module *module);

/* The expansion of one FUSED instruction over the given operands, at the builder's insertion point; its result. */
struct ir_builder;
ir_value *ir_expand_inst(struct ir_builder *b, const ir_inst *inst, ir_value *const *operands);

#endif
