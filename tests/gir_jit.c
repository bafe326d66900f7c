/* How a "# jit:" line runs compiled code. */
#include "tests/gir.h"

gir_run_fn *const gir_jit = NULL;
