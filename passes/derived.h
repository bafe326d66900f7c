/* Weights of a module that others derived from them take the place of (runtime/derive.h). Internal to passes/. */
#ifndef GM_PASSES_DERIVED_H
#define GM_PASSES_DERIVED_H

#include "ir/rewrite.h"
#include "runtime/derive.h"

/* Uses of each value, by its id, that may read a derived weight instead. */
typedef struct derived_uses {
    uint32_t *of;
} derived_uses;
/* The first operand that is such a weight; past the last: none is. */
typedef int (*derived_first_fn)(const ir_inst *inst);
derived_uses derived_count(const ir_func *func, derived_first_fn first);
void derived_free(derived_uses *uses);

/* The type of what inst, a stored matrix that has no other uses, would be as that kind; RT_DTYPE_COUNT: it cannot. */
rt_dtype derived_type(const ir_rewrite *rw, const ir_inst *inst, const derived_uses *uses, rt_derived kind);
/* Clone inst as the weight of that kind and type. */
void derived_clone(ir_rewrite *rw, const ir_inst *inst, rt_derived kind, rt_dtype type);

#endif
