/* gemmac opt: run passes on a .gir file and print what comes out. */
#include "frontend/commands.h"
#include "passes/passes.h"

#include <stdio.h>
#include <string.h>

enum { DEFAULT_CONTEXT = 4096, DEFAULT_CHUNK = 512 };

static const struct {
    const char *name;
    pass_fn run;
} pass_rows[] = {
#define PASS(name, required, summary) {#name, pass_##name},
#include "passes/passes.def"
#undef PASS
};

/* Index into pass_rows; -1: none. */
static int find_pass(const char *name, size_t length) {
    for (int i = 0; i < (int)GM_COUNT(pass_rows); i++)
        if (strlen(pass_rows[i].name) == length && memcmp(pass_rows[i].name, name, length) == 0)
            return i;
    return -1;
}

/* The comma list as a mask of passes. */
static gm_status check_list(const char *list, gm_diag *diag, uint64_t *out_mask) {
    _Static_assert(GM_COUNT(pass_rows) <= 64, "sets of passes are 64-bit masks");
    for (const char *at = list; at && *at;) {
        size_t length = strcspn(at, ",");
        int pass = find_pass(at, length);
        if (pass < 0)
            return gm_fail(diag, GM_INVALID, "unknown pass '%.*s' (see 'gemmac help passes')",
                           (int)length, at);
        *out_mask |= UINT64_C(1) << pass;
        at += length + (at[length] == ',');
    }
    return GM_OK;
}

/* Replace *module by what one pass makes of it. */
static gm_status apply(const pass_options *options, int pass, gm_diag *diag, ir_module **module) {
    ir_module *next = NULL;
    GM_TRY(pass_rows[pass].run(options, *module, diag, &next));
    ir_module_free(*module);
    *module = next;
    return ir_verify(next, pass_rows[pass].name, diag);
}

gm_status cmd_apply_passes(const cmd_options *options, ir_module **module, gm_diag *diag) {
    pass_options settings = {
        .context = cmd_int_or(options, FLAG_CONTEXT, options->context, DEFAULT_CONTEXT),
        .chunk = cmd_int_or(options, FLAG_CHUNK, options->chunk, DEFAULT_CHUNK)};
    uint64_t wanted = 0, skipped = 0;
    GM_TRY(check_list(options->passes, diag, &wanted));
    GM_TRY(check_list(options->skip, diag, &skipped));
    for (const char *at = options->passes; at && *at;) {
        size_t length = strcspn(at, ",");
        int pass = find_pass(at, length);
        if (!(skipped >> pass & 1)) GM_TRY(apply(&settings, pass, diag, module));
        at += length + (at[length] == ',');
    }
    return GM_OK;
}

gm_status cmd_opt(const cmd_options *options, gm_diag *diag) {
    gm_string text = {0}, out = {0};
    ir_module *module = NULL;
    if (!options->input)
        return gm_fail(diag, GM_INVALID, "no file given: expected IN.gir, '-' for standard input");
    gm_status status = cmd_read_text(options->input, diag, &text);
    if (status == GM_OK) status = ir_parse(text.data, text.length, options->input, diag, &module);
    if (status == GM_OK) status = cmd_apply_passes(options, &module, diag);
    if (status == GM_OK) {
        ir_print_module(module, &out);
        status = cmd_write_text(options->output, &out, diag);
    }
    if (module) ir_module_free(module);
    gm_string_free(&text);
    gm_string_free(&out);
    return status;
}
