/* How a "# jit:" line runs compiled code. */
#include "tests/gir.h"

#include "frontend/gir_run.h"

const char *gir_target_cpu;

static gm_status run(const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args,
                     int arg_count, gm_arena *arena, ir_array *results, gm_diag *diag) {
    return fe_gir_run_jit_for(gir_target_cpu, 2, module, func, env, args, arg_count, arena, results, diag);
}

gir_run_fn *const gir_jit = run;
