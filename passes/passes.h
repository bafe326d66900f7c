/* The contract of a pass and the runner of the list passes.def. */
#ifndef GM_PASSES_PASSES_H
#define GM_PASSES_PASSES_H

#include "ir/decisions.h"

/* The defaults of pass_options: context, chunk and rows. A chunk is larger than 512 so that a prompt of 512 tokens and
 * <bos> is a single chunk. */
enum { PASS_DEFAULT_CONTEXT = 4096, PASS_DEFAULT_CHUNK = 576, PASS_DEFAULT_ROWS = 32 };

/* How matrix-matrix products are computed. */
typedef enum pass_precision {
    PASS_F32,
    PASS_BF16,  /* both operands rounded to bf16 */
    PASS_INT16, /* both as integers of 12 or 13 bits with scales */
    PASS_INT8,  /* both as integers of 8 bits with scales, after a rotation */
    /* x as integers of 8 bits with a scale for each 32 columns, W in its own codes; as PASS_INT16 where it has none */
    PASS_BLOCK8
} pass_precision;

/* "f32", "bf16", … */
const char *pass_precision_text(pass_precision precision);

/* The precision of that text; PASS_F32 where there is none. */
pass_precision pass_precision_of(const char *text);

/* The default of pass_options.wide. int8: "v_proj,layers.-1.": V, and the last layer, which costs little, since most of
 * it is computed for a single row of a prompt (passes/last_row.c). Other plans: "". */
const char *pass_default_wide(pass_precision precision);

/* One of several ways to compute a product. They do the same arithmetic and differ at most in the order of sums, so
 * that a choice by speed changes no precision. */
typedef struct pass_candidate {
    const ir_inst *product; /* in the module that is passed along */
    const char *what;       /* plan and shape: the same text for products that are alike */
    const char *impl;
    int64_t tile;       /* of an integer product; 0: the usual one */
    const char *choice; /* impl and tile in words */
    double seconds;     /* of one run by one thread, to be filled in; 0: not known */
} pass_candidate;

/* Fills in the seconds of candidates, as far as they are known or can be found out. */
typedef gm_status (*pass_measure_fn)(void *user, const ir_module *module, pass_candidate *candidates, size_t count,
                                     gm_diag *diag);

typedef struct pass_options {
    int64_t context; /* S: KV capacity in tokens */
    int64_t chunk;   /* largest T: tokens per prefill chunk */
    int64_t rows;    /* largest R: rows per @head call */
    pass_precision precision;
    bool tiles;    /* the target has tile registers for products of bf16 */
    bool artefact; /* what is derived from weights is made once, for an artefact, or lies in one */
    /* int8, block8: weights whose names hold one of these comma-separated words ("layers.-1.": of the last layer) keep
     * 16 bits; NULL: pass_default_wide */
    const char *wide;
    int64_t layers;          /* of the whole model; 0: as many as weights of the module are named by */
    bool unscreened;         /* screen_head is skipped (pass_run fills this in) */
    ir_decisions *decisions; /* NULL, or where passes note what they chose and why */
    pass_measure_fn measure; /* NULL: rules alone choose among candidates */
    void *measure_user;
} pass_options;

/* A pass reads `in`, which it never changes, and returns a new module in *out (the caller owns it); where it does not
 * apply, a copy. Errors: GM_INVALID: plan_memory meets a symbol without a bound, or specialize another function
 * under the name of a copy that it makes. GM_UNSUPPORTED: legalize meets a matmul by a quantised parameter. Those of
 * options->measure. */
typedef gm_status (*pass_fn)(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out);

/* Bytes of kept panels (runtime/panel.h), of all weights as they are stored and of the largest of them. */
typedef struct pass_panel_sizes {
    size_t panels, stored, largest;
} pass_panel_sizes;
/* Are such panels kept (keep_panels.c)? */
bool pass_panels_fit(const pass_panel_sizes *sizes, bool artefact);

/* GM_INVALID: in an int8 or block8 plan a word of options->wide is in no weight's name, so that it would silently have
 * no effect. module: that of a whole model. */
gm_status pass_check_wide(const pass_options *options, const ir_module *module, gm_diag *diag);

/* The end of a pass that may leave unused values behind. Takes over `made`. found: the pass changed something, and *out
 * is `made` after dce; else *out is `made` itself. */
gm_status pass_sweep(bool found, const pass_options *options, ir_module *made, gm_diag *diag, ir_module **out);

#define PASS(name, when, summary)                                                                                      \
    gm_status pass_##name(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out);
#include "passes/passes.def"
#undef PASS

/* `func` and what it calls, with symbol i bound to values[i] where that is not negative; func keeps its name. */
gm_status pass_specialize_for(const ir_module *in, const ir_func *func, const int64_t *values, gm_diag *diag,
                              ir_module **out);

/* When a pass runs: see passes.def. PASS_COARSE passes are on request in the int16 plan too, since that plan is as good
 * as exact without them. */
typedef enum pass_when { PASS_REQUIRED, PASS_USUAL, PASS_ROUNDING, PASS_COARSE, PASS_ON_REQUEST } pass_when;

/* Is there a plan in which such a pass runs only when it is asked for? */
bool pass_can_be_asked(pass_when when);

/* A row of passes.def. */
typedef struct pass_info {
    const char *name, *summary;
    pass_when when;
    pass_fn run;
} pass_info;

/* Every pass once, in the order of passes.def. */
const pass_info *pass_table(int *out_count);
/* NULL: no pass has this name. */
const pass_info *pass_find(const char *name, size_t length);

/* What one step of the pipeline did. The modules live until the callback returns. */
typedef struct pass_step {
    const pass_info *pass;
    int position; /* 1 for the first step that ran */
    const ir_module *before, *after;
    bool changed; /* the printed text differs; false unless the request asks for it */
    double seconds;
} pass_step;

typedef struct pass_pipeline_request {
    const pass_options *options;
    const char *list;       /* comma-separated passes to run instead of the pipeline; NULL: the pipeline */
    const char *skip;       /* comma-separated passes to leave out; NULL: none */
    const char *with;       /* comma-separated passes on request that are to run in the pipeline; NULL: none */
    const char *stop_after; /* the first step of this name is the last; NULL: all */
    bool want_changed;
    void (*after_step)(void *user, const pass_step *step); /* NULL: none */
    void *user;
} pass_pipeline_request;

/* Run the steps on `in`, which this takes over (freed on failure too), verifying after each. The caller owns *out.
 * GM_INVALID: an unknown name, a required pass skipped in the pipeline, or one asked for that runs anyway. */
gm_status pass_run(const pass_pipeline_request *request, ir_module *in, gm_diag *diag, ir_module **out);

#endif
