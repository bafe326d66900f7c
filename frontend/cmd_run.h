/* The two parts of gemmac run: making inputs up, and running on them. */
#ifndef GM_FRONTEND_CMD_RUN_H
#define GM_FRONTEND_CMD_RUN_H

#include "ir/interp.h"

/* Parameters of func, allocated in `arena`: a function of the module, dims ("T=4,S=8" or NULL) and
 * seed. */
gm_status cmd_run_args(const ir_module *module, const ir_func *func, const char *dims, uint64_t seed, gm_arena *arena,
                       gm_diag *diag, ir_array **out);
/* Every weight that the module names; each depends on its name and the seed only. */
gm_status cmd_run_weights(const ir_module *module, uint64_t seed, gm_arena *arena, gm_diag *diag, rt_weights *out);

#endif
