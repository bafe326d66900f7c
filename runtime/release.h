/* Resident pages that are let go of: of mapped files, which can be read again, or of the process's own. */
#ifndef GM_RUNTIME_RELEASE_H
#define GM_RUNTIME_RELEASE_H

#include "runtime/base.h"

/* Let go of the whole pages within [from, to). Those of a file come back from the page cache where they are read again,
 * the process's own as zeros. */
void rt_release_pages(const void *from, const void *to);
/* Let go of the code and constants of the shared libraries whose path holds `name`. */
void rt_release_library(const char *name);

#endif
