/* Sampling defaults and stop ids: generation_config.json, and "generation" in a manifest. */
#include <stddef.h>
#include <string.h>

#include "frontend/model_impl.h"

/* Inclusive bounds; the same table serves both spellings. */
static const struct {
    const char *hugging_face, *manifest;
    double min, max;
    size_t offset; /* of a double in fe_defaults */
} numbers[] = {
    {"temperature", "temperature", 0, 1e6, offsetof(fe_defaults, temperature)},
    {"top_p", "top_p", 0, 1, offsetof(fe_defaults, top_p)},
    {"min_p", "min_p", 0, 1, offsetof(fe_defaults, min_p)},
    {"repetition_penalty", "repeat_penalty", 1e-6, 1e6, offsetof(fe_defaults, repeat_penalty)},
};

/* Null means not given, as in HF. */
static gm_status read_number(const cJSON *item, const char *path, const char *key, double min, double max,
                             gm_diag *diag, double *out) {
    if (cJSON_IsNull(item)) return GM_OK;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max))
        return gm_fail(diag, GM_FORMAT, "%s: key \"%s\": expected a number %g to %g", path, key, min, max);
    *out = item->valuedouble;
    return GM_OK;
}

static gm_status read_top_k(const cJSON *item, const char *path, const char *key, gm_diag *diag, int64_t *out) {
    if (cJSON_IsNull(item) || fe_json_int(item, 0, INT32_MAX, out)) return GM_OK;
    return gm_fail(diag, GM_FORMAT, "%s: key \"%s\": expected an integer 0 to %d", path, key, INT32_MAX);
}

static gm_status read_stop(const cJSON *item, const char *path, const char *key, gm_diag *diag, fe_config *config) {
    int64_t id;
    if (!fe_json_int(item, 0, config->vocab - 1, &id))
        return gm_fail(diag, GM_FORMAT, "%s: key \"%s\": expected a token id below %lld, a list of them or null", path,
                       key, (long long)config->vocab);
    return fe_config_add_stop(config, (int32_t)id, path, diag);
}

gm_status fe_stops_from_json(const cJSON *item, const char *path, const char *key, gm_diag *diag, fe_config *config) {
    if (!item || cJSON_IsNull(item)) return GM_OK;
    if (!cJSON_IsArray(item)) return read_stop(item, path, key, diag, config);
    const cJSON *id;
    cJSON_ArrayForEach(id, item) GM_TRY(read_stop(id, path, key, diag, config));
    return GM_OK;
}

static gm_status read_key(const cJSON *item, const char *path, bool manifest, gm_diag *diag, fe_model *model) {
    fe_defaults *defaults = &model->defaults;
    char key[96];
    snprintf(key, sizeof key, "%s%.80s", manifest ? "generation." : "", item->string);
    for (size_t i = 0; i < GM_COUNT(numbers); i++) {
        if (strcmp(item->string, manifest ? numbers[i].manifest : numbers[i].hugging_face) != 0) continue;
        double *out = (double *)(void *)((char *)defaults + numbers[i].offset);
        return read_number(item, path, key, numbers[i].min, numbers[i].max, diag, out);
    }
    if (strcmp(item->string, "top_k") == 0) return read_top_k(item, path, key, diag, &defaults->top_k);
    if (strcmp(item->string, "eos_token_id") == 0) return fe_stops_from_json(item, path, key, diag, &model->config);
    if (manifest)
        return gm_fail(diag, GM_FORMAT,
                       "%s: key \"%s\": expected temperature, top_k, top_p, min_p, "
                       "repeat_penalty or eos_token_id",
                       path, key);
    return GM_OK;
}

gm_status fe_generation_from_json(const cJSON *root, const char *path, bool manifest, gm_diag *diag, fe_model *model) {
    if (!cJSON_IsObject(root))
        return gm_fail(diag, GM_FORMAT, "%s: %sexpected an object", path, manifest ? "key \"generation\": " : "");
    const cJSON *item;
    cJSON_ArrayForEach(item, root) GM_TRY(read_key(item, path, manifest, diag, model));
    if (!manifest && cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(root, "do_sample")))
        model->defaults.temperature = 0;
    return GM_OK;
}
