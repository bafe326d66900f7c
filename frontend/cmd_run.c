/* gemmac run: one function of a .gir file on random inputs, interpreted, compiled, or both and
 * compared. */
#include "frontend/cmd_run.h"
#include "frontend/commands.h"
#include "frontend/gir_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_ELEMENTS = 8 };

/* ---- results ---- */

/* As few digits as give the same f32 back. */
static void append_float(gm_string *out, float value) {
    char text[40];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) break;
    }
    gm_string_printf(out, "%s", isfinite(value) ? text : "null");
}

static void append_element(gm_string *out, const ir_array *array, int64_t i) {
    switch (array->dtype) {
    case RT_F32: append_float(out, ((const float *)array->data)[i]); break;
    case RT_F16: append_float(out, rt_f16_to_f32(((const uint16_t *)array->data)[i])); break;
    case RT_BF16: append_float(out, rt_bf16_to_f32(((const uint16_t *)array->data)[i])); break;
    case RT_I64: gm_string_printf(out, "%lld", (long long)((const int64_t *)array->data)[i]); break;
    case RT_I32: gm_string_printf(out, "%d", ((const int32_t *)array->data)[i]); break;
    case RT_I16: gm_string_printf(out, "%d", ((const int16_t *)array->data)[i]); break;
    case RT_I8: gm_string_printf(out, "%d", ((const int8_t *)array->data)[i]); break;
    case RT_BOOL: gm_string_printf(out, "%s", ((const uint8_t *)array->data)[i] ? "true" : "false"); break;
    default: gm_string_printf(out, "null"); break; /* blocks have no elements to show */
    }
}

static void append_shape(gm_string *out, const ir_array *array) {
    for (int d = 0; d < array->rank; d++) gm_string_printf(out, "%s%lld", d ? "," : "", (long long)array->dim[d]);
}

static void append_json(gm_string *out, const ir_array *array) {
    int64_t elems = ir_array_elems(array);
    gm_string_printf(out, "{\"dtype\":\"%s\",\"shape\":[", rt_dtype_of(array->dtype)->text);
    append_shape(out, array);
    gm_string_printf(out, "],\"values\":[");
    for (int64_t i = 0; i < elems; i++) {
        if (i) gm_string_append(out, ",", 1);
        append_element(out, array, i);
    }
    gm_string_printf(out, "]}");
}

/* "0: f32[4,64] = 0.25 -1.5 … (248 more)" */
static void append_line(gm_string *out, int number, const ir_array *array) {
    int64_t elems = ir_array_elems(array);
    int64_t shown = elems < 2 * SHOWN_ELEMENTS ? elems : SHOWN_ELEMENTS;
    gm_string_printf(out, "%d: %s%s", number, rt_dtype_of(array->dtype)->text, array->rank ? "[" : "");
    append_shape(out, array);
    gm_string_printf(out, "%s =", array->rank ? "]" : "");
    for (int64_t i = 0; i < shown; i++) {
        gm_string_append(out, " ", 1);
        append_element(out, array, i);
    }
    if (shown < elems) gm_string_printf(out, " … (%lld more)", (long long)(elems - shown));
    gm_string_append(out, "\n", 1);
}

static void print_results(const cmd_options *options, const ir_array *results, int count) {
    gm_string out = {0};
    bool json = options->format == CMD_JSON;
    gm_string_append(&out, "", 0);
    if (json) gm_string_printf(&out, "{\"results\":[");
    for (int i = 0; i < count; i++) {
        if (json && i) gm_string_append(&out, ",", 1);
        if (json) append_json(&out, &results[i]);
        else append_line(&out, i, &results[i]);
    }
    if (json) gm_string_printf(&out, "]}\n");
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
}

/* ---- the command ---- */

static gm_status run(const cmd_options *options, const ir_module *module, const ir_func *func,
                     const rt_weights *weights, gm_arena *arena, gm_diag *diag) {
    ir_array *args, *results = GM_NEW_ARRAY(arena, ir_array, func->body->yield_count + 1);
    int arg_count = func->body->param_count;
    uint64_t seed = (uint64_t)options->seed;
    GM_TRY(cmd_run_args(module, func, options->dims, seed, arena, diag, &args));
    ir_interp_env env = {.weights = weights};
    /* The interpreter refuses what compiled code does not look at. */
    GM_TRY(ir_interp(module, func->name, &env, args, arg_count, arena, results, diag));
    if (options->run_mode == RUN_CHECK) {
        GM_TRY(fe_gir_check((int)options->threads, module, func->name, weights, args, arg_count, diag));
        printf(options->format == CMD_JSON ? "{\"func\":\"%s\",\"same\":true}\n"
                                           : "@%s: compiled and interpreted values agree\n",
               func->name);
        return GM_OK;
    }
    if (options->run_mode == RUN_JIT)
        GM_TRY(fe_gir_run_jit_for(NULL, (int)options->threads, module, func->name, &env, args, arg_count, arena,
                                  results, diag));
    print_results(options, results, func->body->yield_count);
    return GM_OK;
}

static gm_status run_module(const cmd_options *options, const ir_module *module, gm_diag *diag) {
    gm_arena arena = {0};
    rt_weights weights = {0};
    const char *name = options->func && options->func[0] == '@' ? options->func + 1 : options->func;
    if (module->func_count == 0) return gm_fail(diag, GM_INVALID, "%s: has no function", options->input);
    const ir_func *func = name ? ir_func_find(module, name) : module->funcs[0];
    if (!func) return gm_fail(diag, GM_INVALID, "%s: has no function @%s", options->input, name);
    gm_status status = cmd_run_weights(module, (uint64_t)options->seed, &arena, diag, &weights);
    if (status == GM_OK) status = run(options, module, func, &weights, &arena, diag);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
    return status;
}

gm_status cmd_run(const cmd_options *options, gm_diag *diag) {
    gm_string text = {0};
    ir_module *module = NULL;
    if (!options->input) return gm_fail(diag, GM_INVALID, "no file given: expected IN.gir, '-' for standard input");
    gm_status status = cmd_read_text(options->input, diag, &text);
    if (status == GM_OK) status = ir_parse(text.data, text.length, options->input, diag, &module);
    if (status == GM_OK) status = cmd_apply_passes(options, &module, diag);
    if (status == GM_OK) status = run_module(options, module, diag);
    if (module) ir_module_free(module);
    gm_string_free(&text);
    return status;
}
