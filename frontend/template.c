/* Chat templates that models bring. gemmac writes Gemma's own turns (chat.c) and runs no other template; here it is
 * found out whether a model has one, so that this can be said. Hugging Face keeps it in chat_template.jinja, or under
 * "chat_template" in tokenizer_config.json: a text, or a list of {"name", "template"}. */
#include "frontend/template.h"

#include "frontend/json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 26 };

bool fe_template_is_other(const char *text, size_t bytes) {
    static const char turn[] = "<start_of_turn>";
    return bytes > 0 && !memmem(text, bytes, turn, sizeof turn - 1);
}

static bool is_other(const cJSON *item) {
    if (cJSON_IsString(item)) return fe_template_is_other(item->valuestring, strlen(item->valuestring));
    const cJSON *named;
    cJSON_ArrayForEach(named, item) {
        const cJSON *name = fe_json_get(named, "name");
        if (cJSON_IsString(name) && strcmp(name->valuestring, "default") == 0)
            return is_other(fe_json_get(named, "template"));
    }
    return false;
}

/* Of a file of its own, which counts before what the settings say. */
static bool read_file(const char *path, bool *other) {
    gm_diag ignored = {0};
    char *text;
    size_t bytes;
    if (fe_read_file(path, MAX_BYTES, &ignored, &text, &bytes) != GM_OK) return false;
    *other = fe_template_is_other(text, bytes);
    free(text);
    return true;
}

static bool settings_name_other(const char *path) {
    gm_diag ignored = {0};
    cJSON *root;
    if (fe_json_open(path, MAX_BYTES, &ignored, &root) != GM_OK) return false;
    bool other = is_other(fe_json_get(root, "chat_template"));
    cJSON_Delete(root);
    return other;
}

bool fe_template_other_in(const char *folder) {
    gm_string path = {0};
    bool other = false;
    gm_string_printf(&path, "%s/chat_template.jinja", folder);
    if (!read_file(path.data, &other)) {
        path.length = 0;
        gm_string_printf(&path, "%s/tokenizer_config.json", folder);
        other = settings_name_other(path.data);
    }
    gm_string_free(&path);
    return other;
}
