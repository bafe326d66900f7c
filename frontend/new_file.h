/* Files that appear complete or not at all, as far as this process goes (the system writes them to the disk when it
 * will): written without a name, or under one beside their place where the file system knows no such files, and put in
 * place when all is there. */
#ifndef GM_FRONTEND_NEW_FILE_H
#define GM_FRONTEND_NEW_FILE_H

#include "runtime/base.h"

typedef struct fe_new_file {
    const char *path;   /* as the user gave it; borrowed */
    const char *place;  /* where it is put: what a link at `path` leads to */
    const char *beside; /* the name that it has until then; NULL: none */
    /* a descriptor of the process, like /dev/stdout, and what is no ordinary file is written to as it is, in order */
    bool through;
    int fd;
    gm_arena arena;
} fe_new_file;

/* Open for writing; "-" is standard output. GM_IO: path and the system's reason. */
gm_status fe_new_file_open(const char *path, gm_diag *diag, fe_new_file *out);
gm_status fe_new_file_write(fe_new_file *file, const void *data, size_t bytes, gm_diag *diag);
/* The same at an offset, wherever writing was; what is written through takes it as the next bytes. 0, else an errno.
 * Threads may call it. */
int fe_new_file_put(const fe_new_file *file, const void *data, size_t bytes, size_t offset);
/* The reason for GM_IO, an errno, as a line. */
gm_status fe_new_file_failed(const fe_new_file *file, int reason, gm_diag *diag);
/* Ends the writing: the file is in place if status is GM_OK and the rest goes well, else nothing is left of it. Returns
 * status, or what failed. */
gm_status fe_new_file_close(fe_new_file *file, gm_status status, gm_diag *diag);
/* Could it be written? For what takes long before it is. */
gm_status fe_new_file_check(const char *path, gm_diag *diag);
/* A whole file at once. */
gm_status fe_new_file_text(const char *path, const gm_string *text, gm_diag *diag);

#endif
