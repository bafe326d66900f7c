/* gemmac opt: run passes on a .gir file and print what comes out. */
#include "frontend/commands.h"
#include "passes/passes.h"

#include <stdio.h>

static void print_step(void *user, const pass_step *step) {
    fprintf(stderr, "%02d.%-20s %8.3f ms%s\n", step->position, step->pass->name, 1e3 * step->seconds,
            step->changed ? "" : "  (unchanged)");
}

gm_status cmd_apply_passes(const cmd_options *options, ir_module **module, gm_diag *diag) {
    pass_options settings = {.context = options->context ? options->context : PASS_DEFAULT_CONTEXT,
                             .chunk = options->chunk ? options->chunk : PASS_DEFAULT_CHUNK,
                             .rows = PASS_DEFAULT_ROWS,
                             /* auto would depend on this machine */
                             .precision = options->precision == FE_PRECISION_AUTO
                                              ? PASS_F32
                                              : fe_pass_precision((fe_precision)options->precision, NULL, NULL, false)};
    pass_pipeline_request request = {.options = &settings,
                                     .list = options->passes ? options->passes : "",
                                     .skip = options->skip,
                                     .want_changed = options->time,
                                     .after_step = options->time ? print_step : NULL};
    ir_module *in = *module;
    *module = NULL; /* pass_run takes it over */
    return pass_run(&request, in, diag, module);
}

gm_status cmd_opt(const cmd_options *options, gm_diag *diag) {
    gm_string text = {0}, out = {0};
    ir_module *module = NULL;
    if (!options->input) return gm_fail(diag, GM_INVALID, "no file given: expected IN.gir, '-' for standard input");
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
