/* Running a function in text form as compiled code. */
#ifndef GM_TESTS_RUN_TEXT_H
#define GM_TESTS_RUN_TEXT_H

#include "frontend/gir_run.h"

#include <check.h>
#include <string.h>

/* False when this machine cannot run code for the CPU. Frees the text. */
static inline bool run_text(const char *cpu, gm_string *text, const rt_weights *weights, const ir_array *args, int arg_count, gm_arena *arena,
                            ir_array *results) {
    gm_diag diag = {.quiet = true};
    ir_module *module = NULL;
    ck_assert_msg(ir_parse(text->data, text->length, "test", &diag, &module) == GM_OK, "%s", diag.message);
    ir_interp_env env = {.weights = weights};
    gm_status status = fe_gir_run_jit_for(cpu, module, "f", &env, args, arg_count, arena, results, &diag);
    ck_assert_msg(status == GM_OK || (cpu && strstr(diag.message, "wider vectors")), "%s", diag.message);
    ir_module_free(module);
    gm_string_free(text);
    return status == GM_OK;
}

#endif
