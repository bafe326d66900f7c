/* How a "# jit:" line runs compiled code. */
#include "tests/gir.h"

#include "frontend/gir_run.h"

gir_run_fn *const gir_jit = fe_gir_run_jit;
