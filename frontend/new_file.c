/* Files that appear complete or not at all: see new_file.h. */
#include "frontend/new_file.h"

#include <stdlib.h>
#include <sys/stat.h>

bool fe_writes_through(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

int fe_open_beside(const char *path, gm_arena *arena, const char **name) {
    char *beside = gm_arena_printf(arena, "%s.XXXXXX", path);
    int fd = mkstemp(beside);
    mode_t mask = umask(0);
    umask(mask);
    if (fd < 0) return fd;
    fchmod(fd, 0666 & ~mask);
    *name = beside;
    return fd;
}
