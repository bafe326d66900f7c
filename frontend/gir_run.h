/* Running a .gir function as machine code, alone or against the interpreter. */
#ifndef GM_FRONTEND_GIR_RUN_H
#define GM_FRONTEND_GIR_RUN_H

#include "ir/interp.h"

/* Compile the module for the host and run @func on args with 2 threads, shapes as in ir_interp; env gives the weights
 * and receives what the emit op hands out (trace is not called). A module without a memory plan gets one. results[]
 * receives one tensor per returned value, allocated in `arena`. */
gm_status fe_gir_run_jit(const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args,
                         int arg_count, gm_arena *arena, ir_array *results, gm_diag *diag);

/* The same for a --target-cpu; NULL: the host. GM_UNSUPPORTED when this machine's vectors are too narrow for it.
 * threads 0: the default. */
gm_status fe_gir_run_jit_for(const char *target_cpu, int threads, const ir_module *module, const char *func,
                             const ir_interp_env *env, const ir_array *args, int arg_count, gm_arena *arena,
                             ir_array *results, gm_diag *diag);

/* Run @func both ways, on arguments that the interpreter takes: compiled code does not look at positions. GM_INTERNAL
 * when they differ; the message names the first operation whose value does. */
gm_status fe_gir_check(int threads, const ir_module *module, const char *func, const rt_weights *weights,
                       const ir_array *args, int arg_count, gm_diag *diag);

#endif
