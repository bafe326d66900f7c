/* cJSON behind the checks it does not make itself: size, depth, duplicate keys, trailing bytes. */
#ifndef GM_FRONTEND_JSON_H
#define GM_FRONTEND_JSON_H

#include "runtime/base.h"

#include <cjson/cJSON.h>

#include <stdio.h>

/* Whole file into memory (NUL-terminated, free()). GM_IO with the system's reason; GM_FORMAT over max. */
gm_status fe_read_file(const char *path, size_t max_bytes, gm_diag *diag, char **out, size_t *out_bytes);
/* What is left of an open file, as long as it is no more than max_bytes; appended. GM_IO, GM_FORMAT: lines that begin
 * with `name`. */
gm_status fe_read_stream(FILE *file, const char *name, size_t max_bytes, gm_diag *diag, gm_string *out);
/* GM_FORMAT when the bytes are those that Git LFS leaves in place of a file it has not fetched. */
gm_status fe_check_fetched(const void *data, size_t bytes, const char *path, gm_diag *diag);
/* Parse text as one JSON value. Refuses depth > 64, duplicate keys in any object and trailing bytes, with
 * the byte offset. The caller owns *out (cJSON_Delete). */
gm_status fe_json_parse(const char *text, size_t bytes, const char *path, gm_diag *diag, cJSON **out);
gm_status fe_json_open(const char *path, size_t max_bytes, gm_diag *diag, cJSON **out);

/* NULL: it has no such key. */
static inline const cJSON *fe_json_get(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static inline bool fe_json_is_none(const cJSON *item) {
    return !item || cJSON_IsNull(item);
}

/* Whether the item is an integer from min to max, and written as one: 168.0 and 1e2 are not. */
bool fe_json_int(const cJSON *item, int64_t min, int64_t max, int64_t *out);

#endif
