/* Handing back the memory of a compiler that has done its work: LLVM's heap and the resident pages of its code. Both
 * would otherwise stay beside the weights for the whole run.
 */
#include "codegen/cg.h"
#include "runtime/release.h"

#include <malloc.h>

void cg_release_compiler(void) {
    malloc_trim(0);
    rt_release_library("libLLVM");
}
