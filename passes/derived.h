/* Passes that put weights derived from others (runtime/derive.h) in their place. Internal to passes/. */
#ifndef GM_PASSES_DERIVED_H
#define GM_PASSES_DERIVED_H

#include "passes/passes.h"

#include "runtime/derive.h"

typedef struct derived_pass {
    const char *name, *why; /* for decisions */
    rt_derived kind;
    /* the first operand that may be read as that kind; past the last: none may */
    int (*first_weight)(const ir_inst *inst);
} derived_pass;

/* A copy of `in` in which stored matrices are of the pass's kind: where something of it can be derived from them, and
 * all their uses in a function may read that. The caller owns it. */
ir_module *derived_take(const derived_pass *pass, const pass_options *options, const ir_module *in);

#endif
