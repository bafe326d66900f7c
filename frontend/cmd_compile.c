/* gemmac compile: MODEL to an artefact OUT.gmx, or to dumps of the stages in between. */
#include "frontend/commands.h"

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
    return nameless ? gm_arena_strdup(arena, "model.gmx")
                    : gm_arena_printf(arena, "%.*s.gmx", (int)length, name);
}

gm_status cmd_compile(const cmd_options *options, gm_diag *diag) {
    const char *path = NULL;
    fe_options engine_options = cmd_engine_options(options);
    GM_TRY(cmd_model_path(options, diag, &path));
    if (options->dump && !options->output) {
        fe_engine engine = {0};
        GM_TRY(fe_engine_open(path, &engine_options, diag, &engine));
        fe_engine_close(&engine);
        return GM_OK;
    }
    gm_arena arena = {0};
    const char *output = options->output ? options->output : default_output(path, &arena);
    double start = gm_now();
    gm_status status = fe_compile(path, &engine_options, output, diag);
    if (status == GM_OK) fprintf(stderr, "%s: compiled in %.2f s\n", output, gm_now() - start);
    gm_arena_free(&arena);
    return status;
}
