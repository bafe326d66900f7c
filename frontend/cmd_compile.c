/* gemmac compile: MODEL to an artefact OUT.gmx, or to dumps of the stages in between. */
#include "frontend/budget.h"
#include "frontend/commands.h"
#include "frontend/new_file.h"

#include <stdio.h>
#include <string.h>

/* The last component of a path without trailing slashes. */
static void last_component(const char *path, size_t length, const char **out, size_t *out_length) {
    while (length > 1 && path[length - 1] == '/') length--;
    size_t start = length;
    while (start > 0 && path[start - 1] != '/') start--;
    *out = path + start;
    *out_length = length - start;
}

/* "dir/gemma.gguf" and "dir/gemma/config.json" give "gemma.gmx". */
static char *default_output(const char *path, gm_arena *arena) {
    static const char *const extensions[] = {".gguf", ".json", ".gmx"};
    const char *name;
    size_t length;
    last_component(path, strlen(path), &name, &length);
    if (length == 11 && memcmp(name, "config.json", 11) == 0 && name > path + 1)
        last_component(path, (size_t)(name - path), &name, &length);
    for (size_t i = 0; i < GM_COUNT(extensions); i++) {
        size_t end = strlen(extensions[i]);
        if (length > end && memcmp(name + length - end, extensions[i], end) == 0) length -= end;
    }
    bool nameless = length == 0 || name[0] == '.' || name[0] == '/';
    return nameless ? gm_arena_strdup(arena, "model.gmx") : gm_arena_printf(arena, "%.*s.gmx", (int)length, name);
}

/* ---- --kl-budget ---- */

static void print_tried(void *user, const char *precision, const char *wide, double kl) {
    fprintf(stderr, "%s%s%s: mean KL %.3g\n", precision, wide && *wide ? ", 16 bits for " : "", wide ? wide : "", kl);
}

/* The text to measure on: that of -f, without it none. */
static gm_status read_sample(const cmd_options *options, gm_diag *diag, rt_ids *out) {
    fe_engine engine;
    GM_TRY(cmd_vocab_open(options, false, diag, &engine));
    gm_status status = cmd_text_ids(&engine, options, diag, out);
    fe_engine_close(&engine);
    return status;
}

static gm_status choose_plan(const char *path, const cmd_options *options, fe_options *engine_options, gm_diag *diag) {
    rt_ids ids = {0};
    if (options->no_weights) return gm_fail(diag, GM_INVALID, "--kl-budget measures plans, which needs the weights");
    if (cmd_given(options, FLAG_PRECISION) || cmd_given(options, FLAG_WIDE))
        return gm_fail(diag, GM_INVALID,
                       "--kl-budget chooses the precision: give no --precision and no --wide with it");
    gm_status status = options->file ? read_sample(options, diag, &ids) : GM_OK;
    fe_budget_request request = {.kl = options->kl_budget,
                                 .ids = options->file ? ids.data : NULL,
                                 .count = (int64_t)ids.count,
                                 .tried = print_tried};
    if (status == GM_OK) status = fe_budget_choose(path, &request, engine_options, diag);
    rt_ids_free(&ids);
    return status;
}

/* Before plans are tried, which takes long: could OUT be written? */
static gm_status check_output(const cmd_options *options, const char *output, gm_diag *diag) {
    fe_engine engine;
    GM_TRY(cmd_vocab_open(options, true, diag, &engine));
    /* an artefact may take its own place */
    gm_status status = engine.model.gmx ? GM_OK : fe_model_spare(&engine.model, output, diag);
    fe_engine_close(&engine);
    return status == GM_OK ? fe_new_file_check(output, diag) : status;
}

/* Compile for what is printed on the way. */
static gm_status only_print(const char *path, const fe_options *options, gm_diag *diag) {
    fe_engine engine = {0};
    fe_options as_written = *options;
    as_written.artefact = true;
    as_written.no_session = !options->no_weights; /* nothing is run */
    GM_TRY(fe_engine_open(path, &as_written, diag, &engine));
    fe_engine_close(&engine);
    return GM_OK;
}

static gm_status write_artefact(const char *path, const char *output, const fe_options *engine_options, gm_diag *diag) {
    double start = gm_now();
    GM_TRY(fe_compile(path, engine_options, output, diag));
    fprintf(stderr, "%s: compiled in %.2f s\n", output, gm_now() - start);
    return GM_OK;
}

/* output: NULL where nothing but what is printed is wanted. */
static gm_status run(const char *path, const char *output, const cmd_options *options, gm_diag *diag) {
    fe_options engine_options = cmd_engine_options(options);
    ir_decisions decisions = {0};
    if (cmd_given(options, FLAG_KL_BUDGET)) {
        if (output) GM_TRY(check_output(options, output, diag));
        GM_TRY(choose_plan(path, options, &engine_options, diag));
    } else if (options->file || cmd_given(options, FLAG_TOKENS))
        return gm_fail(diag, GM_INVALID, "-f FILE and --tokens N are for --kl-budget");
    if (options->explain) engine_options.decisions = &decisions;
    gm_status status =
        output ? write_artefact(path, output, &engine_options, diag) : only_print(path, &engine_options, diag);
    if (status == GM_OK && options->explain) cmd_print_decisions(&decisions, options->format == CMD_JSON);
    ir_decisions_free(&decisions);
    return status;
}

gm_status cmd_compile(const cmd_options *options, gm_diag *diag) {
    const char *path = NULL;
    gm_arena arena = {0};
    GM_TRY(cmd_model_path(options, diag, &path));
    bool prints = (options->dump || options->explain) && !options->output;
    gm_status status = run(path,
                           prints            ? NULL
                           : options->output ? options->output
                                             : default_output(path, &arena),
                           options, diag);
    gm_arena_free(&arena);
    return status;
}
