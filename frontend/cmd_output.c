/* What commands write: JSON pieces, and files that appear complete or not at all. */
#include "frontend/commands.h"
#include "frontend/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- JSON ---- */

static void json_character(gm_string *out, const char *text, size_t length) {
    static const char escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (size_t i = 0; length == 1 && escapes[i]; i += 2)
        if (text[0] == escapes[i]) {
            gm_string_printf(out, "\\%c", escapes[i + 1]);
            return;
        }
    if (length == 0)
        gm_string_append(out, "\xEF\xBF\xBD", 3);
    else if (length == 1 && ((unsigned char)text[0] < 0x20 || text[0] == 0x7F))
        gm_string_printf(out, "\\u%04x", (unsigned)text[0]);
    else
        gm_string_append(out, text, length);
}

void cmd_json_text(gm_string *out, const char *text, size_t length) {
    gm_string_append(out, "\"", 1);
    for (size_t i = 0; i < length;) {
        int bytes = gm_utf8_scan(text + i, length - i);
        json_character(out, text + i, bytes > 0 ? (size_t)bytes : 0);
        i += bytes > 0 ? (size_t)bytes : 1;
    }
    gm_string_append(out, "\"", 1);
}

void cmd_json_real(gm_string *out, double value) {
    char text[40];
    if (!isfinite(value)) {
        gm_string_append(out, "null", 4);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    gm_string_append(out, text, strlen(text));
}

void cmd_json_ids(gm_string *out, const int32_t *ids, size_t count) {
    gm_string_append(out, "[", 1);
    for (size_t i = 0; i < count; i++) gm_string_printf(out, "%s%d", i ? "," : "", ids[i]);
    gm_string_append(out, "]", 1);
}

/* ---- files ---- */

static gm_status write_failed(const char *path, gm_diag *diag) {
    return gm_fail(diag, GM_IO, "%s: cannot write: %s", path, strerror(errno));
}

gm_status cmd_file_open(const char *path, gm_diag *diag, cmd_file *out) {
    *out = (cmd_file){.path = path, .fd = -1};
    out->fd = fe_writes_through(path) ? open(path, O_WRONLY) : fe_open_beside(path, &out->arena, &out->temporary);
    if (out->fd >= 0) return GM_OK;
    gm_arena_free(&out->arena);
    return write_failed(path, diag);
}

gm_status cmd_file_write(cmd_file *file, const void *data, size_t bytes, gm_diag *diag) {
    for (const char *at = data; bytes;) {
        ssize_t written = write(file->fd, at, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return write_failed(file->path, diag);
        at += written;
        bytes -= (size_t)written;
    }
    return GM_OK;
}

gm_status cmd_file_close(cmd_file *file, gm_status status, gm_diag *diag) {
    if (close(file->fd) != 0 && status == GM_OK) status = write_failed(file->path, diag);
    if (file->temporary) {
        if (status == GM_OK && rename(file->temporary, file->path) != 0)
            status = write_failed(file->path, diag);
        if (status != GM_OK) unlink(file->temporary);
    }
    gm_arena_free(&file->arena);
    *file = (cmd_file){.fd = -1};
    return status;
}

gm_status cmd_write_text(const char *path, const gm_string *text, gm_diag *diag) {
    if (!path) {
        fwrite(text->data, 1, text->length, stdout); /* main looks at ferror */
        return GM_OK;
    }
    cmd_file file;
    GM_TRY(cmd_file_open(path, diag, &file));
    gm_status status = cmd_file_write(&file, text->data, text->length, diag);
    return cmd_file_close(&file, status, diag);
}
