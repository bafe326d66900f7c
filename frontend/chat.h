/* The chat templates of Gemma 1, 2 and 3. */
#ifndef GM_FRONTEND_CHAT_H
#define GM_FRONTEND_CHAT_H

#include "frontend/config.h"
#include "runtime/base.h"

typedef struct fe_message {
    const char *role;    /* "system", "user", "assistant" or "model", … */
    const char *content; /* text; the items of list content already trimmed and joined */
} fe_message;

/* Append the template's exact text, "<bos>" included. GM_INVALID when roles do not alternate, when the
 * list is empty, or for a system role before Gemma 3. */
gm_status fe_chat_render(fe_generation generation, const fe_message *messages, size_t count, bool generation_prompt,
                         gm_diag *diag, gm_string *out);
/* Messages from a JSON file, [{"role": …, "content": text or list of items}], "-" for standard input; all in `arena`.
 * Roles are checked as by fe_chat_render. */
gm_status fe_chat_read(fe_generation generation, const char *path, gm_arena *arena, gm_diag *diag, fe_message **out,
                       size_t *out_count);
/* The same of parsed JSON; `source` opens the error messages. */
struct cJSON;
gm_status fe_chat_from_json(fe_generation generation, const struct cJSON *list, const char *source, gm_arena *arena,
                            gm_diag *diag, fe_message **out, size_t *out_count);
/* fe_chat_render of such a file. */
gm_status fe_chat_render_file(fe_generation generation, const char *path, bool generation_prompt, gm_diag *diag,
                              gm_string *out);

#endif
