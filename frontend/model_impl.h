/* What the readers of one model share. Internal to frontend/. */
#ifndef GM_FRONTEND_MODEL_IMPL_H
#define GM_FRONTEND_MODEL_IMPL_H

#include "frontend/json.h"
#include "frontend/model.h"

#include <string.h>

/* Bounds of every size in a configuration, so that no product of two of them overflows. */
enum { FE_MAX_SIZE = 1 << 24, FE_MAX_HEAD_DIM = 2048, FE_MAX_CONTEXT = 1 << 30 };
enum { FE_MAX_JSON_BYTES = 1 << 28 };

static inline bool fe_ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* ---- defaulted.c ---- */

/* The key is absent, and the formatted JSON text stands in for its value. */
void fe_note_default(fe_defaulted *list, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void fe_defaulted_free(fe_defaulted *list);

/* ---- config.c ---- */

/* The relations between sizes that hold whatever the configuration was read from. */
gm_status fe_config_check(const fe_config *config, const char *path, gm_diag *diag);
/* Layer i is local iff (i + 1) mod period is not 0. */
void fe_config_set_period(fe_config *config, int64_t period);
/* Clear the window when no layer is local. */
void fe_config_settle_window(fe_config *config);
/* GM_INVALID when there are too many; an id that is there already is not added again. */
gm_status fe_config_add_stop(fe_config *config, int32_t id, const char *path, gm_diag *diag);

/* ---- generation.c ---- */

/* generation_config.json (other keys are ignored) or, strictly, a manifest's "generation". */
gm_status fe_generation_from_json(const cJSON *root, const char *path, bool manifest, gm_diag *diag, fe_model *model);
/* Add the ids of an eos_token_id, an integer, a list of them or null, to the stops. */
gm_status fe_stops_from_json(const cJSON *item, const char *path, const char *key, gm_diag *diag, fe_config *config);

/* ---- gguf.c ---- */

/* Only the vocabulary; the mapping its texts lie in is kept in model->weights. */
gm_status fe_gguf_open_vocab(const char *path, gm_diag *diag, fe_model *model);

/* ---- check.c ---- */

/* Decide config.tied from what the files hold: a head equal to the embedding is dropped, a lone
 * head becomes the embedding, a different head means untied. */
gm_status fe_settle_head(fe_model *model, gm_diag *diag);
/* The canonical name of a GGUF tensor name; false when the configuration has no such tensor. */
bool fe_tensor_from_gguf(const fe_config *config, const char *name, char *out, size_t out_bytes);

#endif
