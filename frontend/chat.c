/* The chat templates of Gemma 1, 2 and 3, character for character as their jinja renders them. A template of the
 * model's own is not read. */
#include "frontend/chat.h"

#include <string.h>

#include "frontend/json.h"

enum { MAX_CHAT_BYTES = 1 << 26 };

static void append(gm_string *out, const char *text) {
    gm_string_append(out, text, strlen(text));
}

/* ---- trimming as Python's str.strip does, all of Unicode's blanks ---- */

/* Bytes of the blank at text, 0: it is none. */
static size_t blank_length(const char *text, size_t length) {
    const uint8_t *byte = (const uint8_t *)text;
    if (length < 1) return 0;
    if (byte[0] == ' ' || (byte[0] >= 0x09 && byte[0] <= 0x0D) || (byte[0] >= 0x1C && byte[0] <= 0x1F)) return 1;
    if (length < 2) return 0;
    if (byte[0] == 0xC2) return byte[1] == 0x85 || byte[1] == 0xA0 ? 2 : 0;
    if (length < 3) return 0;
    switch ((uint32_t)byte[0] << 16 | (uint32_t)byte[1] << 8 | byte[2]) {
    case 0xE19A80: /* U+1680 */
    case 0xE280A8: /* U+2028 */
    case 0xE280A9: /* U+2029 */
    case 0xE280AF: /* U+202F */
    case 0xE2819F: /* U+205F */
    case 0xE38080: /* U+3000 */ return 3;
    default: /* U+2000 to U+200A */
        return byte[0] == 0xE2 && byte[1] == 0x80 && byte[2] >= 0x80 && byte[2] <= 0x8A ? 3 : 0;
    }
}

static size_t trailing_blank_length(const char *text, size_t length) {
    for (size_t size = 1; size <= 3 && size <= length; size++)
        if (blank_length(text + length - size, size) == size) return size;
    return 0;
}

static void append_trimmed(gm_string *out, const char *text) {
    size_t length = strlen(text);
    for (size_t size; (size = blank_length(text, length)) > 0; length -= size) text += size;
    for (size_t size; (size = trailing_blank_length(text, length)) > 0;) length -= size;
    gm_string_append(out, text, length);
}

/* ---- rendering ---- */

/* `source` opens the error messages: a path, or "chat". */
static gm_status check_messages(fe_generation generation, const fe_message *messages, size_t count, const char *source,
                                gm_diag *diag) {
    if (count == 0) return gm_fail(diag, GM_INVALID, "%s: no messages, expected at least one", source);
    for (size_t i = 0; i < count; i++)
        if (!messages[i].role || !messages[i].content)
            return gm_fail(diag, GM_INVALID, "%s: message %zu: expected a role and a content", source, i);
    bool system = strcmp(messages[0].role, "system") == 0;
    if (system && generation < FE_GEMMA3)
        return gm_fail(diag, GM_INVALID, "%s: message 0: role \"system\" is not supported by Gemma %d", source,
                       (int)generation);
    for (size_t i = system, turn = 0; i < count; i++, turn++) {
        bool user = strcmp(messages[i].role, "user") == 0;
        if (user != (turn % 2 == 0))
            return gm_fail(diag, GM_INVALID, "%s: message %zu: role \"%.40s\", expected %s: roles must alternate",
                           source, i, messages[i].role, user ? "\"assistant\"" : "\"user\"");
    }
    return GM_OK;
}

/* A leading system message goes, untrimmed, before the first user text; alone it is dropped. */
static gm_status render(fe_generation generation, const fe_message *messages, size_t count, bool generation_prompt,
                        const char *source, gm_diag *diag, gm_string *out) {
    GM_TRY(check_messages(generation, messages, count, source, diag));
    bool system = strcmp(messages[0].role, "system") == 0;
    append(out, "<bos>");
    for (size_t i = system; i < count; i++) {
        bool assistant = strcmp(messages[i].role, "assistant") == 0;
        append(out, "<start_of_turn>");
        append(out, assistant ? "model" : messages[i].role);
        append(out, "\n");
        if (system && i == 1) {
            append(out, messages[0].content);
            append(out, "\n\n");
        }
        append_trimmed(out, messages[i].content);
        append(out, "<end_of_turn>\n");
    }
    if (generation_prompt) append(out, "<start_of_turn>model\n");
    return GM_OK;
}

gm_status fe_chat_render(fe_generation generation, const fe_message *messages, size_t count, bool generation_prompt,
                         gm_diag *diag, gm_string *out) {
    return render(generation, messages, count, generation_prompt, "chat", diag, out);
}

/* ---- messages from a file ---- */

static const char *string_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

static gm_status join_items(const cJSON *items, const char *path, size_t index, gm_diag *diag, gm_string *joined) {
    const cJSON *item;
    cJSON_ArrayForEach(item, items) {
        const char *type = string_of(item, "type"), *text = string_of(item, "text");
        if (!type || (strcmp(type, "text") == 0 && !text))
            return gm_fail(diag, GM_INVALID,
                           "%s: message %zu: content: expected items with a type, and a text if it is "
                           "\"text\"",
                           path, index);
        if (strcmp(type, "text") == 0) append_trimmed(joined, text);
        if (strcmp(type, "image") == 0) append(joined, "<start_of_image>");
    }
    return GM_OK;
}

/* The text of one message, list content joined; a system message gives its first item as it is. */
static gm_status read_content(fe_generation generation, const cJSON *message, const char *path, size_t index,
                              gm_diag *diag, gm_string *joined) {
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(message, "content");
    const char *role = string_of(message, "role");
    gm_string_append(joined, "", 0);
    if (!role) return gm_fail(diag, GM_INVALID, "%s: message %zu: role: expected a string", path, index);
    if (cJSON_IsString(content)) {
        append(joined, content->valuestring);
        return GM_OK;
    }
    if (!cJSON_IsArray(content) || generation < FE_GEMMA3)
        return gm_fail(diag, GM_INVALID, "%s: message %zu: content: expected a string%s", path, index,
                       generation < FE_GEMMA3 ? "" : " or a list of items");
    if (index > 0 || strcmp(role, "system") != 0) return join_items(content, path, index, diag, joined);
    const char *text = string_of(content->child, "text");
    if (!text) return gm_fail(diag, GM_INVALID, "%s: message 0: content: expected a first item with a text", path);
    append(joined, text);
    return GM_OK;
}

static gm_status read_list(fe_generation generation, const cJSON *list, const char *path, gm_arena *arena,
                           gm_diag *diag, fe_message **out, size_t *out_count) {
    if (!cJSON_IsArray(list)) return gm_fail(diag, GM_INVALID, "%s: expected a list of messages", path);
    fe_message *messages = GM_NEW_ARRAY(arena, fe_message, cJSON_GetArraySize(list) + 1);
    size_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        gm_string joined = {0};
        gm_status status = read_content(generation, item, path, count, diag, &joined);
        const char *role = string_of(item, "role");
        messages[count++] = (fe_message){role ? gm_arena_strdup(arena, role) : NULL,
                                         gm_arena_strndup(arena, joined.data, joined.length)};
        gm_string_free(&joined);
        GM_TRY(status);
    }
    *out = messages;
    *out_count = count;
    return GM_OK;
}

gm_status fe_chat_from_json(fe_generation generation, const cJSON *list, const char *source, gm_arena *arena,
                            gm_diag *diag, fe_message **out, size_t *out_count) {
    GM_TRY(read_list(generation, list, source, arena, diag, out, out_count));
    return check_messages(generation, *out, *out_count, source, diag);
}

gm_status fe_chat_read(fe_generation generation, const char *path, gm_arena *arena, gm_diag *diag, fe_message **out,
                       size_t *out_count) {
    cJSON *list = NULL;
    GM_TRY(fe_json_open(path, MAX_CHAT_BYTES, diag, &list));
    gm_status status = fe_chat_from_json(generation, list, path, arena, diag, out, out_count);
    cJSON_Delete(list);
    return status;
}

gm_status fe_chat_render_file(fe_generation generation, const char *path, bool generation_prompt, gm_diag *diag,
                              gm_string *out) {
    gm_arena arena = {0};
    fe_message *messages;
    size_t count;
    gm_status status = fe_chat_read(generation, path, &arena, diag, &messages, &count);
    if (status == GM_OK) status = render(generation, messages, count, generation_prompt, path, diag, out);
    gm_arena_free(&arena);
    return status;
}
