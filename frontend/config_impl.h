/* What the parts of the config.json reader share. Internal to frontend/config*.c. */
#ifndef GM_FRONTEND_CONFIG_IMPL_H
#define GM_FRONTEND_CONFIG_IMPL_H

#include "frontend/model_impl.h"

/* What the table's keys are read into: the configuration and what it is derived from. */
typedef struct config_draft {
    fe_config c;
    int64_t attention_scalar, period;
    double theta, local_theta;
    bool bidirectional;
} config_draft;

typedef struct config_reader {
    const char *path, *scope; /* scope: "text_config." or "", before key names in messages */
    gm_diag *diag;
    const cJSON *root, *text; /* text == root unless multimodal */
    config_draft draft;
    fe_defaulted defaulted;
} config_reader;

/* ---- config.c ---- */

/* `path`: key "scope key": expected …, found the item. */
gm_status config_refuse(const config_reader *in, gm_status code, const char *key, const char *expected,
                        const cJSON *found);
/* The key is absent; its value is the formatted JSON text. */
void config_note(config_reader *in, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- config_rope.c ---- */

/* rope_global and rope_local, from whichever keys hold them. */
gm_status config_read_rope(config_reader *in);

#endif
