/* Rotary embedding of a config.json: rope_parameters, rope_scaling, rope_theta and rope_local_base_freq.
 *
 * Gemma 1 and 2 have one set for all layers. Gemma 3 has one per layer type; its older files hold the
 * bases apart, and scale the global one only.
 */
#include <stdio.h>
#include <string.h>

#include "frontend/config_impl.h"

/* ---- one set of parameters ---- */

static gm_status refuse_member(const config_reader *in, gm_status code, const char *key, const char *member,
                               const char *expected, const cJSON *found) {
    char name[160];
    snprintf(name, sizeof name, "%s.%.60s", key, member);
    return config_refuse(in, code, name, expected, found);
}

static bool in_range(const cJSON *item, double max) {
    return cJSON_IsNumber(item) && item->valuedouble > 0 && item->valuedouble <= max;
}

/* Parameters on top of what *rope holds. has_theta is set when the base is among them. */
static gm_status read_set(const config_reader *in, const char *key, const cJSON *set, fe_rope *rope, bool *has_theta) {
    if (!cJSON_IsObject(set)) return config_refuse(in, GM_FORMAT, key, "an object", set);
    const cJSON *type = fe_json_get(set, "rope_type"), *theta = fe_json_get(set, "rope_theta");
    const cJSON *factor = fe_json_get(set, "factor"), *item;
    const cJSON *partial = fe_json_get(set, "partial_rotary_factor");
    if (!type) type = fe_json_get(set, "type");
    bool linear = cJSON_IsString(type) && strcmp(type->valuestring, "linear") == 0;
    bool plain = !type || (cJSON_IsString(type) && strcmp(type->valuestring, "default") == 0);
    if (!linear && !plain)
        return refuse_member(in, GM_UNSUPPORTED, key, type->string, "\"default\" or \"linear\"", type);
    if (theta && !in_range(theta, 1e12))
        return refuse_member(in, GM_FORMAT, key, "rope_theta", "a positive number up to 1e12", theta);
    if (linear && !in_range(factor, 1e6))
        return refuse_member(in, GM_FORMAT, key, "factor", "a positive number up to 1e6", factor);
    if (!fe_json_is_none(partial) && !(cJSON_IsNumber(partial) && partial->valuedouble == 1))
        return refuse_member(in, GM_UNSUPPORTED, key, "partial_rotary_factor", "1", partial);
    cJSON_ArrayForEach(item, set) if (cJSON_IsObject(item)) return refuse_member(in, GM_UNSUPPORTED, key, item->string,
                                                                                 "one set for all layers", item);
    if (!linear && cJSON_IsNumber(factor) && factor->valuedouble != 1)
        gm_warn(in->diag, "%s: key \"%s%s.factor\": not used without rope_type \"linear\", as in the reference",
                in->path, in->scope, key);
    if (theta) rope->theta = theta->valuedouble, *has_theta = true;
    rope->factor = linear ? factor->valuedouble : 1;
    return GM_OK;
}

/* ---- Gemma 1 and 2: one table for all layers; rope_scaling is the older name ---- */

static gm_status read_single(config_reader *in) {
    fe_config *c = &in->draft.c;
    const cJSON *scaling = fe_json_get(in->text, "rope_scaling");
    const char *key = fe_json_is_none(scaling) ? "rope_parameters" : "rope_scaling";
    const cJSON *set = fe_json_get(in->text, key);
    bool has_theta = fe_json_get(in->text, "rope_theta") != NULL;
    c->rope_global = (fe_rope){.theta = in->draft.theta, .factor = 1};
    if (!fe_json_is_none(set)) GM_TRY(read_set(in, key, set, &c->rope_global, &has_theta));
    if (!has_theta) config_note(in, "rope_theta", "%.9g", c->rope_global.theta);
    c->rope_local = c->rope_global;
    return GM_OK;
}

/* ---- Gemma 3 ---- */

/* rope_parameters: an object per layer type. A set for all layers beside them is not read by the
 * reference, so it is not read here either. */
static gm_status read_typed(config_reader *in, bool *has_global, bool *has_local) {
    fe_config *c = &in->draft.c;
    const cJSON *parameters = fe_json_get(in->text, "rope_parameters"), *item;
    bool flat = false;
    if (!fe_json_is_none(parameters) && !cJSON_IsObject(parameters))
        return config_refuse(in, GM_FORMAT, "rope_parameters", "an object", parameters);
    cJSON_ArrayForEach(item, parameters) {
        bool global = strcmp(item->string, "full_attention") == 0;
        bool local = strcmp(item->string, "sliding_attention") == 0;
        char name[96];
        snprintf(name, sizeof name, "rope_parameters.%.60s", item->string);
        if (!global && !local && cJSON_IsObject(item))
            return config_refuse(in, GM_UNSUPPORTED, name,
                                 "only \"full_attention\" and \"sliding_attention\" in Gemma 3", item);
        flat |= !global && !local;
        if ((global || local) && !fe_json_is_none(item))
            GM_TRY(
                read_set(in, name, item, global ? &c->rope_global : &c->rope_local, global ? has_global : has_local));
    }
    if (flat)
        gm_warn(in->diag,
                "%s: key \"%srope_parameters\": a set without \"full_attention\" or "
                "\"sliding_attention\" is not read in Gemma 3, as in the reference",
                in->path, in->scope);
    return GM_OK;
}

static gm_status read_dual(config_reader *in) {
    fe_config *c = &in->draft.c;
    const cJSON *scaling = fe_json_get(in->text, "rope_scaling");
    bool has_global = fe_json_get(in->text, "rope_theta") != NULL;
    bool has_local = fe_json_get(in->text, "rope_local_base_freq") != NULL;
    c->rope_global = (fe_rope){.theta = in->draft.theta, .factor = 1};
    c->rope_local = (fe_rope){.theta = in->draft.local_theta, .factor = 1};
    GM_TRY(read_typed(in, &has_global, &has_local));
    if (!fe_json_is_none(scaling)) {
        GM_TRY(read_set(in, "rope_scaling", scaling, &c->rope_global, &has_global));
        if (!fe_json_get(scaling, "rope_type") && fe_json_get(scaling, "type"))
            gm_warn(in->diag, "%s: key \"%srope_scaling.type\": old spelling of rope_type, honoured", in->path,
                    in->scope);
    }
    if (!has_global) config_note(in, "rope_theta", "%.9g", c->rope_global.theta);
    if (!has_local) config_note(in, "rope_local_base_freq", "%.9g", c->rope_local.theta);
    return GM_OK;
}

gm_status config_read_rope(config_reader *in) {
    if (!fe_json_get(in->text, "rope_scaling") && !fe_json_get(in->text, "rope_parameters"))
        config_note(in, "rope_scaling", "null");
    return in->draft.c.generation == FE_GEMMA3 ? read_dual(in) : read_single(in);
}
