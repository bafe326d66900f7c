/* What commands read: the model, its vocabulary, prompts. */
#include "frontend/commands.h"
#include "frontend/json.h"
#include "frontend/new_file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { MAX_TEXT_BYTES = 1 << 29 };
_Static_assert(MAX_TEXT_BYTES < RT_MAX_TEXT_BYTES - (1 << 20),
               "a text and what a chat template puts around it can be encoded");

/* ---- the model ---- */

fe_options cmd_engine_options(const cmd_options *options) {
    return (fe_options){
        .threads = (int)options->threads,
        .precision = (fe_precision)options->precision, /* the words of --precision in its order */
        .context = options->context,
        .chunk = options->chunk,
        .passes = options->passes,
        .skip = options->skip,
        .with = options->with,
        .wide = options->wide,
        .target_cpu = options->target_cpu,
        .no_weights = options->no_weights,
        .measure = options->measure,
        .time_passes = options->time,
        .dump = {.what = options->dump, .dir = options->dump_dir},
    };
}

gm_status cmd_model_path(const cmd_options *options, gm_diag *diag, const char **out) {
    if (options->model && options->input)
        return gm_fail(diag, GM_INVALID, "the model is given twice: '%s' and -m '%s'", options->input, options->model);
    *out = options->model ? options->model : options->input;
    if (*out && **out) return GM_OK;
    return gm_fail(diag, GM_INVALID,
                   "no model given: expected model.json, a folder, config.json, .gguf or .gmx "
                   "(see 'gemmac help')");
}

gm_status cmd_engine_open(const cmd_options *options, const fe_options *engine_options, gm_diag *diag, fe_engine *out) {
    const char *path = NULL;
    *out = (fe_engine){0};
    GM_TRY(cmd_model_path(options, diag, &path));
    return fe_engine_open(path, engine_options, diag, out);
}

gm_status cmd_engine_open_for_answers(const cmd_options *options, gm_diag *diag, fe_engine *out) {
    fe_options engine_options = cmd_engine_options(options);
    engine_options.only_run = true;
    engine_options.no_screens = true;
    return cmd_engine_open(options, &engine_options, diag, out);
}

gm_status cmd_vocab_open(const cmd_options *options, bool weights, gm_diag *diag, fe_engine *out) {
    const char *path = NULL;
    *out = (fe_engine){0};
    GM_TRY(cmd_model_path(options, diag, &path));
    GM_TRY(fe_model_open(path, !weights, diag, &out->model));
    gm_status status = fe_tokenizer_open(&out->model, diag, &out->tokenizer);
    if (status != GM_OK) fe_engine_close(out);
    return status;
}

/* ---- texts and prompts ---- */

gm_status cmd_read_text(const char *path, gm_diag *diag, gm_string *out) {
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    FILE *file = standard ? stdin : fopen(path, "rb");
    if (!file) return gm_fail(diag, GM_IO, "%s: cannot open: %s", name, strerror(errno));
    gm_status status = fe_read_stream(file, name, MAX_TEXT_BYTES, diag, out);
    if (!standard) fclose(file);
    return status;
}

void cmd_encode(const fe_engine *engine, const cmd_options *options, const char *text, size_t length, rt_ids *out) {
    int32_t bos = fe_model_text_bos(&engine->model);
    if (!options->no_bos && bos >= 0) rt_ids_push(out, bos);
    rt_encode(engine->tokenizer, text, length, options->special, out);
}

gm_status cmd_text_ids(const fe_engine *engine, const cmd_options *options, gm_diag *diag, rt_ids *out) {
    gm_string text = {0};
    if (!engine->tokenizer) return gm_fail(diag, GM_INVALID, "%s: comes without a tokenizer", engine->model.path);
    gm_status status = cmd_read_text(options->file, diag, &text);
    if (status == GM_OK) cmd_encode(engine, options, text.data, text.length, out);
    if (cmd_given(options, FLAG_TOKENS) && (int64_t)out->count > options->tokens) out->count = (size_t)options->tokens;
    gm_string_free(&text);
    return status;
}

gm_status cmd_ids(const cmd_options *options, int64_t vocab, gm_diag *diag, rt_ids *out) {
    for (size_t i = 0; i < options->ids.count; i++) {
        int64_t id = options->ids.data[i];
        if (id >= vocab)
            return gm_fail(diag, GM_INVALID,
                           "--ids: id %lld at position %zu is outside the vocabulary, expected "
                           "0 to %lld",
                           (long long)id, i, (long long)vocab - 1);
        rt_ids_push(out, (int32_t)id);
    }
    return GM_OK;
}

gm_status cmd_prompt_given(const cmd_options *options, gm_diag *diag) {
    int given = cmd_given(options, FLAG_IDS) + cmd_given(options, FLAG_PROMPT) + cmd_given(options, FLAG_FILE);
    if (given == 1) return GM_OK;
    return gm_fail(diag, GM_INVALID, "%s: expected one of -p TEXT, -f FILE and --ids LIST",
                   given ? "the prompt is given twice" : "no prompt given");
}

static gm_status encode_prompt(const fe_engine *engine, const cmd_options *options, gm_diag *diag, rt_ids *out) {
    gm_string text = {0};
    if (!engine->tokenizer)
        return gm_fail(diag, GM_INVALID, "%s: comes without a tokenizer: give the prompt as --ids", engine->model.path);
    gm_status status = GM_OK;
    if (options->file) status = cmd_read_text(options->file, diag, &text);
    else gm_string_append(&text, options->prompt, strlen(options->prompt));
    if (options->file && text.length && text.data[text.length - 1] == '\n')
        text.length--; /* the editor's, not the prompt's */
    if (status == GM_OK) cmd_encode(engine, options, text.data, text.length, out);
    if (status == GM_OK && out->count > 1 && out->data[0] == out->data[1] && out->data[0] == engine->model.vocab.bos)
        gm_warn(diag, "the prompt starts with <bos>, and another is put before it: --no-bos leaves that out");
    gm_string_free(&text);
    return status;
}

gm_status cmd_prompt(const fe_engine *engine, const cmd_options *options, gm_diag *diag, rt_ids *out) {
    if (cmd_given(options, FLAG_IDS)) GM_TRY(cmd_ids(options, engine->model.config.vocab, diag, out));
    else GM_TRY(encode_prompt(engine, options, diag, out));
    if (out->count) return GM_OK;
    return gm_fail(diag, GM_INVALID, "the prompt is empty: expected at least one token");
}

gm_status cmd_prompt_alone(const cmd_options *options, const char *output, gm_diag *diag, int64_t *context,
                           rt_ids *out) {
    fe_engine engine;
    GM_TRY(cmd_prompt_given(options, diag));
    GM_TRY(cmd_vocab_open(options, output, diag, &engine));
    gm_status status = output ? fe_model_spare(&engine.model, output, diag) : GM_OK;
    if (status == GM_OK && output) status = fe_new_file_check(output, diag);
    if (status == GM_OK) status = cmd_prompt(&engine, options, diag, out);
    if (context) *context = engine.model.config.context;
    fe_engine_close(&engine);
    return status;
}

gm_status cmd_prompt_fits(const fe_engine *engine, const rt_ids *prompt, gm_diag *diag) {
    int64_t context = rt_session_context(engine->session);
    if ((int64_t)prompt->count <= context) return GM_OK;
    return gm_fail(diag, GM_INVALID, "%s: the prompt has %zu tokens, expected at most the context of %lld (see -c)",
                   engine->model.path, prompt->count, (long long)context);
}

/* ---- sampling ---- */

static double either(bool given, double value, double model_default, double otherwise) {
    return given ? value : isnan(model_default) ? otherwise : model_default;
}

static uint64_t seed_of(const cmd_options *options) {
    uint64_t seed = 0;
    if (cmd_given(options, FLAG_SEED) && options->seed >= 0) return (uint64_t)options->seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = (uint64_t)(gm_now() * 1e9);
    return seed >> 33; /* short enough to be typed again (cmd_answer_speed) */
}

rt_sampling cmd_sampling(const cmd_options *options, const fe_defaults *defaults) {
    const cmd_options *o = options;
    int64_t top_k = defaults->top_k >= 0 ? defaults->top_k : 64;
    return (rt_sampling){
        .temperature = (float)either(cmd_given(o, FLAG_TEMP), o->temperature, defaults->temperature, 1),
        .top_k = (int32_t)cmd_int_or(o, FLAG_TOP_K, o->top_k, top_k),
        .top_p = (float)either(cmd_given(o, FLAG_TOP_P), o->top_p, defaults->top_p, 0.95),
        .min_p = (float)either(cmd_given(o, FLAG_MIN_P), o->min_p, defaults->min_p, 0),
        .repeat_penalty =
            (float)either(cmd_given(o, FLAG_REPEAT_PENALTY), o->repeat_penalty, defaults->repeat_penalty, 1),
        .frequency_penalty = (float)o->frequency_penalty,
        .presence_penalty = (float)o->presence_penalty,
        .repeat_last_n = (int32_t)cmd_int_or(o, FLAG_REPEAT_LAST_N, o->repeat_last_n, 64),
        .seed = seed_of(o),
    };
}
