/* Files that appear complete or not at all: written beside their place, and renamed to it when all is there. */
#ifndef GM_FRONTEND_NEW_FILE_H
#define GM_FRONTEND_NEW_FILE_H

#include "runtime/base.h"

/* Does something that is no ordinary file stand at `path`, like a pipe or /dev/null? It is written to as it is. */
bool fe_writes_through(const char *path);
/* A file open for writing beside `path`, with the mode that a new file gets; *name, of the arena, is to be renamed to path, or unlinked. -1: see errno. */
int fe_open_beside(const char *path, gm_arena *arena, const char **name);

#endif
