/* Files that appear complete or not at all: see new_file.h. */
#include "frontend/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAMES = 100 /* tried */ };

/* ---- opening ---- */

/* Of this process's own, which are written to where they stand; -1: another path. */
static int descriptor_of(const char *path) {
    static const struct {
        const char *path;
        int fd;
    } named[] = {{"-", STDOUT_FILENO}, {"/dev/stdout", STDOUT_FILENO}, {"/dev/stderr", STDERR_FILENO}};
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    for (size_t i = 0; i < GM_COUNT(named); i++)
        if (strcmp(path, named[i].path) == 0) return named[i].fd;
    for (size_t i = 0; i < GM_COUNT(folders); i++) {
        size_t length = strlen(folders[i]);
        if (strncmp(path, folders[i], length) == 0 && path[length] >= '0' && path[length] <= '9')
            return atoi(path + length);
    }
    return -1;
}

static int open_through(int descriptor, const char *path) {
    if (descriptor < 0) return open(path, O_WRONLY | O_CLOEXEC);
    fflush(stdout); /* what was said before comes first */
    return fcntl(descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

static bool writes_through(int descriptor, const char *path) {
    struct stat info;
    return descriptor >= 0 || (stat(path, &info) == 0 && !S_ISREG(info.st_mode));
}

/* What a link to nothing names. */
static const char *link_target(const char *path, gm_arena *arena) {
    char target[4096];
    ssize_t length = readlink(path, target, sizeof target);
    if (length <= 0 || (size_t)length == sizeof target) return path;
    const char *slash = strrchr(path, '/');
    int folder = target[0] == '/' || !slash ? 0 : (int)(slash + 1 - path);
    return gm_arena_printf(arena, "%.*s%.*s", folder, path, (int)length, target);
}

static const char *place_of(const char *path, gm_arena *arena) {
    char *real = realpath(path, NULL);
    const char *place = real ? gm_arena_strdup(arena, real) : link_target(path, arena);
    free(real);
    return place;
}

/* In the folder of `place`; -1 where the file system cannot do that. */
static int open_nameless(const char *place, gm_arena *arena) {
    const char *slash = strrchr(place, '/');
    if (access("/proc/self/fd", X_OK) != 0) return -1; /* by which it gets its name */
    const char *folder = !slash           ? "."
                         : slash == place ? "/"
                                          : gm_arena_printf(arena, "%.*s", (int)(slash - place), place);
    return open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
}

/* With the mode that a new file gets. */
static int open_beside(fe_new_file *file) {
    char *name = gm_arena_printf(&file->arena, "%s.XXXXXX", file->place);
    int fd = mkstemp(name);
    mode_t mask = umask(0);
    umask(mask);
    if (fd < 0) return fd;
    fchmod(fd, 0666 & ~mask);
    file->beside = name;
    return fd;
}

gm_status fe_new_file_open(const char *path, gm_diag *diag, fe_new_file *out) {
    *out = (fe_new_file){.path = path, .fd = -1};
    if (!*path) return gm_fail(diag, GM_INVALID, "-o: expected the name of a file, '-' for standard output");
    int descriptor = descriptor_of(path);
    out->through = writes_through(descriptor, path);
    out->place = out->through ? path : place_of(path, &out->arena);
    out->fd = out->through ? open_through(descriptor, path) : open_nameless(out->place, &out->arena);
    if (out->fd < 0 && !out->through) out->fd = open_beside(out);
    if (out->fd >= 0) return GM_OK;
    gm_status status = fe_new_file_failed(out, errno, diag);
    gm_arena_free(&out->arena);
    return status;
}

/* ---- writing ---- */

gm_status fe_new_file_failed(const fe_new_file *file, int reason, gm_diag *diag) {
    return gm_fail(diag, GM_IO, "%s: cannot write: %s", file->path, strerror(reason));
}

/* offset -1: behind what was written last. 0, else an errno. */
static int put(int fd, const void *data, size_t bytes, off_t offset) {
    for (size_t done = 0; done < bytes;) {
        const char *from = (const char *)data + done;
        ssize_t n = offset < 0 ? write(fd, from, bytes - done) : pwrite(fd, from, bytes - done, offset + (off_t)done);
        if (n > 0) done += (size_t)n;
        else if (n == 0) return EIO;
        else if (errno != EINTR) return errno;
    }
    return 0;
}

gm_status fe_new_file_write(fe_new_file *file, const void *data, size_t bytes, gm_diag *diag) {
    int reason = put(file->fd, data, bytes, -1);
    return reason ? fe_new_file_failed(file, reason, diag) : GM_OK;
}

int fe_new_file_put(const fe_new_file *file, const void *data, size_t bytes, size_t offset) {
    return put(file->fd, data, bytes, file->through ? -1 : (off_t)offset);
}

/* ---- closing ---- */

/* Gives the file a name beside its place that nothing has: a link takes the place of nothing, a rename does. */
static bool name_file(fe_new_file *file) {
    char *from = gm_arena_printf(&file->arena, "/proc/self/fd/%d", file->fd);
    for (int i = 0; i < NAMES && !file->beside; i++) {
        char *name = gm_arena_printf(&file->arena, "%s.%ld.%d", file->place, (long)getpid(), i);
        if (linkat(AT_FDCWD, from, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0) file->beside = name;
        else if (errno != EEXIST) return false;
    }
    return file->beside;
}

/* 0, else the errno of what failed. */
static int publish(fe_new_file *file) {
    if (!file->through && !name_file(file)) return errno;
    int fd = file->fd;
    file->fd = -1;
    if (close(fd) != 0) return errno;
    if (!file->through && rename(file->beside, file->place) != 0) return errno;
    file->beside = NULL;
    return 0;
}

gm_status fe_new_file_close(fe_new_file *file, gm_status status, gm_diag *diag) {
    int reason = status == GM_OK ? publish(file) : 0;
    if (reason) status = fe_new_file_failed(file, reason, diag);
    if (file->fd >= 0) close(file->fd);
    if (file->beside) unlink(file->beside);
    gm_arena_free(&file->arena);
    *file = (fe_new_file){.fd = -1};
    return status;
}

gm_status fe_new_file_check(const char *path, gm_diag *diag) {
    fe_new_file file;
    GM_TRY(fe_new_file_open(path, diag, &file));
    fe_new_file_close(&file, GM_INVALID, diag); /* nothing stays of it */
    return GM_OK;
}

gm_status fe_new_file_text(const char *path, const gm_string *text, gm_diag *diag) {
    fe_new_file file;
    GM_TRY(fe_new_file_open(path, diag, &file));
    gm_status status = fe_new_file_write(&file, text->data, text->length, diag);
    return fe_new_file_close(&file, status, diag);
}
