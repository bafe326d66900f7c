/* The tile registers of AMX, which Linux keeps from a process until it has asked for them. */
#ifndef GM_RUNTIME_TILES_H
#define GM_RUNTIME_TILES_H

#include <stdbool.h>

/* May this process, on all of its threads, use tile data? Asks the kernel the first time. False where CPU or kernel
 * know none, or the kernel refuses. (Linux, Documentation/arch/x86/xstate.rst.) */
bool rt_tiles_permitted(void);

#endif
