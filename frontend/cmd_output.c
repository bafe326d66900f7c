/* What commands write: JSON pieces and texts. */
#include "frontend/commands.h"
#include "frontend/new_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON ---- */

static void json_character(gm_string *out, const char *text, size_t length) {
    static const char escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (size_t i = 0; length == 1 && escapes[i]; i += 2)
        if (text[0] == escapes[i]) {
            gm_string_printf(out, "\\%c", escapes[i + 1]);
            return;
        }
    if (length == 0) gm_string_append(out, "\xEF\xBF\xBD", 3);
    else if (length == 1 && ((unsigned char)text[0] < 0x20 || text[0] == 0x7F))
        gm_string_printf(out, "\\u%04x", (unsigned)text[0]);
    else gm_string_append(out, text, length);
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

void cmd_json_field(gm_string *out, const char *name, double value) {
    gm_string_printf(out, ",\"%s\":", name);
    cmd_json_real(out, value);
}

void cmd_json_ids(gm_string *out, const int32_t *ids, size_t count) {
    gm_string_append(out, "[", 1);
    for (size_t i = 0; i < count; i++) gm_string_printf(out, "%s%d", i ? "," : "", ids[i]);
    gm_string_append(out, "]", 1);
}

/* ---- texts ---- */

gm_status cmd_write_text(const char *path, const gm_string *text, gm_diag *diag) {
    if (path) return fe_new_file_text(path, text, diag);
    fwrite(text->data, 1, text->length, stdout); /* main looks at ferror */
    return GM_OK;
}
