/* The contract of a pass and the runner of the list passes.def. */
#ifndef GM_PASSES_PASSES_H
#define GM_PASSES_PASSES_H

#include "ir/ir.h"

typedef struct pass_options {
    int64_t context; /* S: KV capacity in tokens */
    int64_t chunk;   /* largest T: tokens per prefill chunk */
    int64_t rows;    /* largest R: rows per @head call */
} pass_options;

/* A pass reads `in`, which it never changes, and returns a new module in *out (caller owns). It succeeds on every
 * verified module: where it does not apply it copies. */
typedef gm_status (*pass_fn)(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out);

#define PASS(name, required, summary)                                                                                  \
    gm_status pass_##name(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out);
#include "passes/passes.def"
#undef PASS

#endif
