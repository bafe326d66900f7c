/* What commands write: JSON pieces, and files that appear complete or not at all. */
#include "frontend/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- JSON ---- */

/* Bytes of the UTF-8 character at text, 0 when there is none (overlong, surrogate, cut off, …). */
static size_t utf8_length(const unsigned char *text, size_t left) {
    unsigned char c = text[0];
    size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (length > left) return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xC0) != 0x80) return 0;
    if ((c == 0xE0 && text[1] < 0xA0) || (c == 0xED && text[1] > 0x9F)) return 0;
    if ((c == 0xF0 && text[1] < 0x90) || (c == 0xF4 && text[1] > 0x8F)) return 0;
    return length;
}

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
        size_t bytes = utf8_length((const unsigned char *)text + i, length - i);
        json_character(out, text + i, bytes);
        i += bytes ? bytes : 1;
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
    struct stat info;
    *out = (cmd_file){.path = path, .fd = -1};
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        out->fd = open(path, O_WRONLY);
        return out->fd >= 0 ? GM_OK : write_failed(path, diag);
    }
    gm_string name = {0};
    gm_string_printf(&name, "%s.XXXXXX", path);
    out->fd = mkstemp(name.data);
    if (out->fd < 0) {
        gm_string_free(&name);
        return write_failed(path, diag);
    }
    mode_t mask = umask(0);
    umask(mask);
    fchmod(out->fd, 0666 & ~mask);
    out->temporary = name.data;
    return GM_OK;
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
        free(file->temporary);
    }
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
