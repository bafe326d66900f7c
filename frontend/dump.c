/* Dumps of the IR between passes, as .gir or DOT, and of machine code: to a folder, or to standard output. */
#include "frontend/dump.h"
#include "frontend/new_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool fe_dump_wants(const fe_options *options, const char *kind) {
    return options->dump.what && strcmp(options->dump.what, kind) == 0;
}

/* The pass that `after:NAME` names; NULL when --dump says something else. */
static const char *after_of(const fe_options *options) {
    const char *what = options->dump.what;
    return what && strncmp(what, "after:", 6) == 0 ? what + 6 : NULL;
}

gm_status fe_dump_text(const fe_options *options, const char *file, const gm_string *text, gm_diag *diag) {
    if (!options->dump.dir) {
        fwrite(text->data, 1, text->length, stdout);
        return GM_OK;
    }
    if (mkdir(options->dump.dir, 0777) && errno != EEXIST)
        return gm_fail(diag, GM_IO, "%s: %s", options->dump.dir, strerror(errno));
    gm_string path = {0};
    gm_string_printf(&path, "%s/%s", options->dump.dir, file);
    gm_status status = fe_new_file_text(path.data, text, diag);
    gm_string_free(&path);
    return status;
}

static gm_status dump_module(const fe_options *options, int position, const char *name, const ir_module *module,
                             gm_diag *diag) {
    char file[128];
    gm_string text = {0};
    bool dot = fe_dump_wants(options, "dot");
    snprintf(file, sizeof file, "%02d.%s.%s", position, name, dot ? "dot" : "gir");
    if (dot) ir_print_dot(module, &text);
    else ir_print_module(module, &text);
    gm_status status = fe_dump_text(options, file, &text, diag);
    gm_string_free(&text);
    return status;
}

gm_status fe_dump_start(fe_dump_state *state, const ir_module *naive, gm_diag *diag) {
    const fe_options *options = state->options;
    const char *after = after_of(options), *what = options->dump.what;
    bool known = !what || fe_dump_wants(options, "all") || fe_dump_wants(options, "llvm") ||
                 fe_dump_wants(options, "asm") || fe_dump_wants(options, "dot");
    if (after && strcmp(after, "lower") && !pass_find(after, strlen(after)))
        return gm_fail(diag, GM_INVALID,
                       "--dump=after:%s: no pass has this name (see gemmac help passes; \"lower\" is before the first)",
                       after);
    if (!after && !known)
        return gm_fail(diag, GM_INVALID, "--dump=%s: expected after:PASS, all, llvm, asm or dot", what);
    if (fe_dump_wants(options, "all") || (after && strcmp(after, "lower") == 0))
        return dump_module(options, 0, "lower", naive, diag);
    return GM_OK;
}

void fe_dump_step(void *user, const pass_step *step) {
    fe_dump_state *state = user;
    const fe_options *options = state->options;
    const char *after = after_of(options), *name = step->pass->name;
    if (options->time_passes)
        fprintf(stderr, "%2d %-20s %8.3f ms%s\n", step->position, name, step->seconds * 1e3,
                step->changed ? "" : " (unchanged)");
    bool last = strcmp(name, "plan_memory") == 0;
    /* a pass that runs again is dumped the first time */
    bool named = after && !state->named_seen && strcmp(after, name) == 0;
    state->named_seen |= named;
    bool wanted = fe_dump_wants(options, "all") || named || (last && fe_dump_wants(options, "dot"));
    if (wanted && state->status == GM_OK)
        state->status = dump_module(options, step->position, name, step->after, &state->diag);
}

gm_status fe_dump_end(const fe_dump_state *state, gm_diag *diag) {
    const char *after = after_of(state->options);
    if (state->status != GM_OK) return gm_fail(diag, state->status, "%s", state->diag.message);
    if (!after || state->named_seen || strcmp(after, "lower") == 0) return GM_OK;
    return gm_fail(diag, GM_INVALID,
                   "--dump=after:%s: the pass is not run here (see gemmac help passes, --with, --skip and --precision)",
                   after);
}
