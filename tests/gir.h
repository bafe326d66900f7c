/* What the parts of the .gir test runner share: a test file, its values, and the hook for compiled code. */
#ifndef GM_TESTS_GIR_H
#define GM_TESTS_GIR_H

#include "ir/interp.h"

/* A line "# key: rest" before the expectation. */
typedef struct gir_directive {
    const char *key, *rest;
} gir_directive;

typedef struct gir_file {
    const char *path;
    gm_arena arena;
    char *text;
    size_t bytes;
    gir_directive *directives;
    int directive_count;
    char *expect;         /* the text under "# expect:" without the comment marks; NULL: none */
    size_t expect_offset; /* where the line after "# expect:" begins */
    ir_module *module;    /* as written */
    ir_module *after;     /* after "# run:"; the same as module without one */
    rt_weights weights;
    char why[1024]; /* the first failure */
} gir_file;

/* Store the reason and return false. */
bool gir_fail(gir_file *file, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What one run of a function gave. */
typedef struct gir_outcome {
    ir_array *results;
    int32_t *emitted;
    int emitted_count, emitted_capacity;
} gir_outcome;

/* A way to run a function: ir_interp, or compiled code. */
typedef gm_status gir_run_fn(const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args,
                             int arg_count, gm_arena *arena, ir_array *results, gm_diag *diag);
/* Compiles and runs; NULL while there is no code generator. Set in gir_jit.c. */
extern gir_run_fn *const gir_jit;
/* What it compiles for; NULL: the host. */
extern const char *gir_target_cpu;

gm_status gir_run(gir_file *file, gir_run_fn *run, const ir_module *module, const ir_func *func, const ir_array *args,
                  gir_outcome *out, gm_diag *diag);

/* ---- gir_values.c ---- */

/* A tensor for each weight op of the module: from its "# weight:" line, else seeded by its name. */
bool gir_make_weights(gir_file *file, const ir_module *module);
/* Parse "T=3 [1, 2, 0*4] 7 …" into the arguments of func. */
bool gir_parse_args(gir_file *file, const ir_module *module, const ir_func *func, const char *text, ir_array *args);
/* Does the outcome hold the values written in `text`? */
bool gir_check_values(gir_file *file, const ir_module *module, const ir_func *func, const char *text,
                      const ir_array *results);
/* Random arguments on which both functions can run; symbols of `before` that `after` has as numbers take those. */
bool gir_random_args(gir_file *file, const ir_module *module, const ir_func *before, const ir_func *after,
                     uint64_t seed, ir_array *args);
/* Seeded values of a parameter for the elements of `out`, within its "# input:" range. */
void gir_fill_random(gir_file *file, const ir_value *param, uint64_t *state, ir_array *out);
/* Within the tolerance of the function's ops; says where they differ in file->why. */
bool gir_same_result(gir_file *file, const ir_module *module, const ir_func *func, int i, const ir_array *want,
                     const ir_array *got, const char *what);
bool gir_same_outcome(gir_file *file, const ir_module *module, const ir_func *func, const gir_outcome *want,
                      const gir_outcome *got, const char *what);

/* ---- gir_steps.c ---- */

/* @forward of both modules called for the numbers of tokens in `text` ("4*9 1 3"), the caches handed on: the same first
 * result each time; all results when the module is the same. */
bool gir_check_steps(gir_file *file, const ir_module *before, gir_run_fn *run, const char *what, const char *text);

#endif
