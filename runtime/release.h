/* Resident pages of mapped files that can be read again. */
#ifndef GM_RUNTIME_RELEASE_H
#define GM_RUNTIME_RELEASE_H

#include "runtime/base.h"

/* Let go of the whole pages within [from, to), which lie in a file. */
void rt_release_pages(const void *from, const void *to);
/* Let go of the code and constants of the shared libraries whose path holds `name`. */
void rt_release_library(const char *name);

#endif
