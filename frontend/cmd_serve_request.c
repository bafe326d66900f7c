/* Requests to gemmac serve, from JSON: see cmd_serve.h. Keys and meanings: OpenAI's API reference; top_k, min_p and
 * repeat_penalty as in llama.cpp's server. */
#include "frontend/cmd_serve.h"
#include "frontend/json.h"

#include <math.h>
#include <string.h>

static const char source[] = "request";
enum { MOST_STOPS = 16 };

static gm_status refuse(const cJSON *item, const char *expected, gm_diag *diag) {
    return gm_fail(diag, GM_INVALID, "%s: key \"%.80s\": expected %s", source, item->string, expected);
}

/* ---- numbers ---- */

static const struct number {
    const char *key;
    cmd_flag flag;
    size_t offset; /* in cmd_options */
    bool whole;
    double least, most;
    const char *expected;
} numbers[] = {
#define OF(field) offsetof(cmd_options, field)
    {"temperature", FLAG_TEMP, OF(temperature), false, 0, 1000, "a number 0 to 1000"},
    {"top_p", FLAG_TOP_P, OF(top_p), false, 0, 1, "a number 0 to 1"},
    {"min_p", FLAG_MIN_P, OF(min_p), false, 0, 1, "a number 0 to 1"},
    {"repeat_penalty", FLAG_REPEAT_PENALTY, OF(repeat_penalty), false, 0.01, 100, "a number 0.01 to 100"},
    {"frequency_penalty", FLAG_FREQUENCY_PENALTY, OF(frequency_penalty), false, -2, 2, "a number -2 to 2"},
    {"presence_penalty", FLAG_PRESENCE_PENALTY, OF(presence_penalty), false, -2, 2, "a number -2 to 2"},
    {"top_k", FLAG_TOP_K, OF(top_k), true, 0, INT32_MAX, "a whole number from 0 on"},
    {"seed", FLAG_SEED, OF(seed), true, -1, 1LL << 53, "a whole number from -1 on"},
    {"max_tokens", FLAG_CHAT_PREDICT, OF(predict), true, -1, INT32_MAX, "a whole number from -1 on"},
    {"max_completion_tokens", FLAG_CHAT_PREDICT, OF(predict), true, -1, INT32_MAX, "a whole number from -1 on"},
#undef OF
};

static gm_status read_number(const struct number *number, const cJSON *item, cmd_options *options, gm_diag *diag) {
    void *field = (char *)options + number->offset;
    if (number->whole && !fe_json_int(item, (int64_t)number->least, (int64_t)number->most, field))
        return refuse(item, number->expected, diag);
    if (!number->whole) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= number->least && item->valuedouble <= number->most))
            return refuse(item, number->expected, diag);
        *(double *)field = item->valuedouble;
    }
    cmd_give(options, number->flag);
    return GM_OK;
}

/* ---- texts ---- */

/* Beside the server's own. */
static gm_status read_stops(const cJSON *item, cmd_options *options, gm_arena *arena, gm_diag *diag) {
    const cJSON *first = cJSON_IsArray(item) ? item->child : item;
    size_t count = options->stops.count + (cJSON_IsArray(item) ? (size_t)cJSON_GetArraySize(item) : 1);
    /* each is looked for at each byte */
    if (count > options->stops.count + MOST_STOPS) return refuse(item, "at most 16 texts", diag);
    const char **texts = GM_NEW_ARRAY(arena, const char *, count + 1);
    if (options->stops.count) memcpy(texts, options->stops.data, sizeof *texts * options->stops.count);
    options->stops.data = texts;
    for (const cJSON *text = first; text; text = cJSON_IsArray(item) ? text->next : NULL) {
        if (!cJSON_IsString(text) || !*text->valuestring) return refuse(item, "a text or a list of texts", diag);
        texts[options->stops.count++] = gm_arena_strdup(arena, text->valuestring);
    }
    return GM_OK;
}

static gm_status refuse_prompt(const cJSON *key, gm_diag *diag) {
    return refuse(key, "a text, a list of token ids, or a list of such", diag);
}

static gm_status read_ids(const cJSON *key, const cJSON *list, rt_ids *out, gm_diag *diag) {
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        int64_t id;
        if (!fe_json_int(item, 0, INT32_MAX, &id)) return refuse_prompt(key, diag);
        rt_ids_push(out, (int32_t)id);
    }
    return out->count ? GM_OK : refuse_prompt(key, diag);
}

static gm_status read_prompts(const cJSON *key, gm_arena *arena, serve_request *out, gm_diag *diag) {
    bool many = cJSON_IsArray(key) && key->child && !cJSON_IsNumber(key->child);
    size_t count = many ? (size_t)cJSON_GetArraySize(key) : 1;
    out->prompts = GM_NEW_ARRAY(arena, serve_prompt, count);
    for (const cJSON *item = many ? key->child : key; out->prompt_count < count; item = item->next) {
        serve_prompt *prompt = &out->prompts[out->prompt_count++];
        if (cJSON_IsArray(item)) GM_TRY(read_ids(key, item, &prompt->ids, diag));
        else if (cJSON_IsString(item)) prompt->text = gm_arena_strdup(arena, item->valuestring);
        else return refuse_prompt(key, diag);
    }
    return GM_OK;
}

static gm_status read_chat(const cJSON *messages, fe_generation generation, gm_arena *arena, serve_request *out,
                           gm_diag *diag) {
    out->prompts = GM_NEW_ARRAY(arena, serve_prompt, 1);
    out->prompt_count = 1;
    return fe_chat_from_json(generation, messages, "messages", arena, diag, &out->messages, &out->count);
}

/* ---- biases ---- */

static gm_status read_biases(const cJSON *key, gm_arena *arena, serve_request *out, gm_diag *diag) {
    const cJSON *item;
    if (!cJSON_IsObject(key)) return refuse(key, "an object of token ids", diag);
    out->biases = GM_NEW_ARRAY(arena, rt_bias, cJSON_GetArraySize(key));
    out->bias_count = 0;
    cJSON_ArrayForEach(item, key) {
        int64_t id;
        bool named = cmd_read_int(item->string, strlen(item->string), &id) && *item->string != '-' && id <= INT32_MAX;
        bool fits = cJSON_IsNumber(item) && fabs(item->valuedouble) <= 100;
        if (!named || !fits) return refuse(key, "token ids with numbers -100 to 100", diag);
        out->biases[out->bias_count++] = (rt_bias){(int32_t)id, (float)item->valuedouble};
    }
    return GM_OK;
}

/* ---- what is not there ---- */

static bool is_idle(const cJSON *item) {
    return cJSON_IsNull(item) || cJSON_IsFalse(item) || (cJSON_IsNumber(item) && item->valuedouble == 0) ||
           (cJSON_IsString(item) && !*item->valuestring) ||
           ((cJSON_IsArray(item) || cJSON_IsObject(item)) && !item->child);
}

static gm_status check_idle(const cJSON *item, gm_diag *diag) {
    static const char *const absent[] = {"tools", "functions", "top_logprobs", "suffix", "echo"};
    for (size_t i = 0; i < GM_COUNT(absent); i++)
        if (strcmp(item->string, absent[i]) == 0 && !is_idle(item))
            return refuse(item, "nothing: gemmac serve does not do this", diag);
    const cJSON *type = strcmp(item->string, "response_format") == 0 ? fe_json_get(item, "type") : NULL;
    if (cJSON_IsString(type) && strcmp(type->valuestring, "text") != 0) return refuse(item, "text", diag);
    return GM_OK;
}

/* ---- the whole ---- */

static gm_status read_bool(const cJSON *item, bool *out, gm_diag *diag) {
    *out = cJSON_IsTrue(item);
    return cJSON_IsBool(item) ? GM_OK : refuse(item, "true or false", diag);
}

static gm_status read_choices(const cJSON *item, serve_request *out, gm_diag *diag) {
    bool fits = fe_json_int(item, 1, SERVE_MOST_CHOICES, &out->choices);
    return fits ? GM_OK : refuse(item, "a whole number 1 to 128", diag);
}

/* Of which the best are to be told: all, once their number is read. */
static gm_status check_best(const cJSON *best, const serve_request *request, gm_diag *diag) {
    int64_t count;
    bool all = fe_json_is_none(best) || fe_json_int(best, request->choices, request->choices, &count);
    return all ? GM_OK : refuse(best, "as many as \"n\"", diag);
}

static gm_status read_top(const cJSON *item, serve_request *out, gm_diag *diag) {
    return fe_json_int(item, 0, FE_LIKELY_MOST, &out->top) ? GM_OK : refuse(item, "a whole number 0 to 20", diag);
}

/* Of a text a number, of a chat true, with the number in another key. */
static gm_status read_logprobs(const cJSON *item, serve_request *out, gm_diag *diag) {
    if (out->chat) return read_bool(item, &out->scores, diag);
    out->scores = !cJSON_IsFalse(item);
    return out->scores ? read_top(item, out, diag) : GM_OK;
}

static gm_status read_key(const cJSON *item, gm_arena *arena, gm_diag *diag, serve_request *out) {
    if (cJSON_IsNull(item)) return GM_OK;
    for (size_t i = 0; i < GM_COUNT(numbers); i++)
        if (strcmp(item->string, numbers[i].key) == 0) return read_number(&numbers[i], item, &out->options, diag);
    if (strcmp(item->string, "stop") == 0) return read_stops(item, &out->options, arena, diag);
    if (strcmp(item->string, "stream") == 0) return read_bool(item, &out->stream, diag);
    if (strcmp(item->string, "logit_bias") == 0) return read_biases(item, arena, out, diag);
    if (strcmp(item->string, "n") == 0) return read_choices(item, out, diag);
    if (strcmp(item->string, "logprobs") == 0) return read_logprobs(item, out, diag);
    if (out->chat && strcmp(item->string, "top_logprobs") == 0) return read_top(item, out, diag);
    if (!out->chat && strcmp(item->string, "echo") == 0) return read_bool(item, &out->echo, diag);
    const cJSON *usage = strcmp(item->string, "stream_options") == 0 ? fe_json_get(item, "include_usage") : NULL;
    if (usage) return read_bool(usage, &out->usage, diag);
    return check_idle(item, diag);
}

static gm_status read_all(const cJSON *root, fe_generation generation, gm_arena *arena, gm_diag *diag,
                          serve_request *out) {
    const char *wanted = out->chat ? "messages" : "prompt";
    const cJSON *item, *text = fe_json_get(root, wanted);
    if (!cJSON_IsObject(root)) return gm_fail(diag, GM_INVALID, "%s: expected an object", source);
    cJSON_ArrayForEach(item, root) GM_TRY(read_key(item, arena, diag, out));
    if (!text) return gm_fail(diag, GM_INVALID, "%s: expected key \"%s\"", source, wanted);
    if (out->top && !out->scores)
        return gm_fail(diag, GM_INVALID, "%s: key \"top_logprobs\": expected \"logprobs\" to be true", source);
    GM_TRY(check_best(fe_json_get(root, "best_of"), out, diag));
    return out->chat ? read_chat(text, generation, arena, out, diag) : read_prompts(text, arena, out, diag);
}

gm_status serve_request_read(const gm_string *body, bool chat, fe_generation generation, const cmd_options *options,
                             gm_arena *arena, gm_diag *diag, serve_request *out) {
    cJSON *root = NULL;
    *out = (serve_request){.chat = chat, .choices = 1, .options = *options};
    GM_TRY(fe_json_parse(body->data, body->length, source, diag, &root));
    gm_status status = read_all(root, generation, arena, diag, out);
    cJSON_Delete(root);
    return status;
}

void serve_request_free(serve_request *request) {
    for (size_t i = 0; i < request->prompt_count; i++) rt_ids_free(&request->prompts[i].ids);
}
