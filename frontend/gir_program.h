/* A module compiled and made ready to be called function by function, without a session: what `run`, tests and
 * measurements share. */
#ifndef GM_FRONTEND_GIR_PROGRAM_H
#define GM_FRONTEND_GIR_PROGRAM_H

#include "codegen/codegen.h"
#include "runtime/team.h"
#include "runtime/weights.h"

typedef struct fe_gir_program {
    ir_module *module; /* planned */
    cg_program *program;
    rt_team *team;
    rt_frame *frame;
    const void **weights;
    rt_site *sites;
    int64_t dims[IR_MAX_SYMBOLS]; /* values of the module's symbols: their bounds, unless the caller sets others */
} fe_gir_program;

/* Takes over `planned`, a module with a memory plan; borrows the weights. threads 0: the default. Close *out on failure
 * too. GM_INVALID: a weight is missing; errors of cg_compile and rt_matmul_open. */
gm_status fe_gir_program_open(ir_module *planned, const rt_weights *weights, int threads, const cg_options *options,
                              gm_diag *diag, fe_gir_program *out);
/* Call @func on the whole team. A pointer for each parameter and each returned value; parameters that a result takes
 * over are changed. */
void fe_gir_program_run(fe_gir_program *program, const char *func, void *const *args, void *const *results);
void fe_gir_program_close(fe_gir_program *program);

#endif
