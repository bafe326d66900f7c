/* What Linux says of this process and of the machine, in /proc. */
#ifndef GM_FRONTEND_PROC_H
#define GM_FRONTEND_PROC_H

#include <stdint.h>

/* Bytes that a line "KEY: N kB" of such a file gives; 0: it has none. */
int64_t fe_proc_bytes(const char *path, const char *key);

#endif
