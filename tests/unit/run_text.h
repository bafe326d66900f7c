/* Running a function in text form as compiled code. */
#ifndef GM_TESTS_RUN_TEXT_H
#define GM_TESTS_RUN_TEXT_H

#include "codegen/codegen.h"
#include "frontend/gir_run.h"
#include "runtime/tiles.h"

#include <check.h>
#include <string.h>

/* A CPU with wide vectors and products of bytes, and no tile registers. */
#define WIDE_CPU "icelake-server"

/* A CPU whose code need not run here: a stand-in on a machine whose own code has what it stands for, which shows what
 * it would show; and WIDE_CPU where the host's own code is like it. */
static inline bool is_stood_in_for(const char *cpu) {
    bool wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512vnni");
    bool tiles = wide && rt_tiles_permitted();
    if (!cpu) return false;
    return strcmp(cpu, CG_STAND_IN_CPU) == 0         ? wide
           : strcmp(cpu, CG_STAND_IN_TILES_CPU) == 0 ? tiles
                                                     : strcmp(cpu, WIDE_CPU) == 0 && !tiles;
}

/* False when this machine cannot run code for the CPU, or need not. Frees the text. */
static inline bool run_text(const char *cpu, gm_string *text, const rt_weights *weights, const ir_array *args,
                            int arg_count, gm_arena *arena, ir_array *results) {
    gm_diag diag = {.quiet = true};
    ir_module *module = NULL;
    if (is_stood_in_for(cpu)) {
        gm_string_free(text);
        return false;
    }
    ck_assert_msg(ir_parse(text->data, text->length, "test", &diag, &module) == GM_OK, "%s", diag.message);
    ir_interp_env env = {.weights = weights};
    gm_status status = fe_gir_run_jit_for(cpu, 2, module, "f", &env, args, arg_count, arena, results, &diag);
    ck_assert_msg(status == GM_OK || (cpu && strstr(diag.message, "wider vectors")), "%s", diag.message);
    ir_module_free(module);
    gm_string_free(text);
    return status == GM_OK;
}

#endif
