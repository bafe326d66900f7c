/* Sequences of calls of @forward with the caches handed on: what passes that change the caches' form must keep. */
#include "tests/gir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RESULTS = 32, FIRST_CACHE = 2 };

/* One module's @forward and the caches it has come to. */
typedef struct sequence {
    const ir_module *module;
    const ir_func *forward;
    gir_run_fn *run;
    ir_array args[MAX_RESULTS];
    gir_outcome outcome;
} sequence;

/* Symbols other than the number of tokens are at their bounds. */
static bool array_of(gir_file *file, const sequence *s, const ir_type *type, ir_dim tokens_dim, int64_t tokens,
                     ir_array *out) {
    *out = (ir_array){.dtype = type->dtype, .rank = type->rank};
    for (int d = 0; d < type->rank; d++) {
        out->dim[d] = type->dim[d] == tokens_dim ? tokens : ir_dim_max(s->module, type->dim[d]);
        if (out->dim[d] < 1)
            return gir_fail(file, "steps: give symbol %s a max",
                            s->module->symbols[ir_dim_symbol_of(type->dim[d])].name);
    }
    size_t bytes = rt_dtype_bytes(out->dtype, (size_t)ir_array_elems(out));
    out->data = gm_arena_alloc(&file->arena, bytes + 64);
    memset(out->data, 0, bytes);
    return true;
}

static bool open_sequence(gir_file *file, const ir_module *module, gir_run_fn *run, sequence *out) {
    *out = (sequence){.module = module, .forward = ir_func_find(module, "forward"), .run = run};
    if (!out->forward) return gir_fail(file, "steps: there is no @forward");
    const ir_region *body = out->forward->body;
    if (body->param_count > MAX_RESULTS || body->yield_count != body->param_count - 1)
        return gir_fail(file, "steps: @forward has another form");
    for (int i = FIRST_CACHE; i < body->param_count; i++)
        if (!array_of(file, out, &body->params[i]->type, body->params[0]->type.dim[0], 1, &out->args[i])) return false;
    return true;
}

static bool step(gir_file *file, sequence *s, const ir_array *ids, ir_array *position) {
    gm_diag diag = {0};
    s->args[0] = *ids;
    s->args[1] = *position;
    if (gir_run(file, s->run, s->module, s->forward, s->args, &s->outcome, &diag) != GM_OK)
        return gir_fail(file, "steps: %s", diag.message);
    for (int i = FIRST_CACHE; i < s->forward->body->param_count; i++) s->args[i] = s->outcome.results[i - 1];
    return true;
}

static bool same_step(gir_file *file, const sequence *want, const sequence *got, const char *what, int32_t position) {
    char where[64];
    int results = want->module == got->module ? want->forward->body->yield_count : 1;
    snprintf(where, sizeof where, "%s at position %d", what, (int)position);
    for (int i = 0; i < results; i++)
        if (!gir_same_result(file, want->module, want->forward, i, &want->outcome.results[i], &got->outcome.results[i],
                             where))
            return false;
    return true;
}

bool gir_check_steps(gir_file *file, const ir_module *before, gir_run_fn *run, const char *what, const char *text) {
    sequence want, got;
    uint64_t state = 1;
    int32_t position = 0;
    if (!open_sequence(file, before, ir_interp, &want) || !open_sequence(file, file->after, run, &got)) return false;
    for (char *at = (char *)(uintptr_t)text; *at;) {
        long tokens = strtol(at, &at, 10), times = *at == '*' ? strtol(at + 1, &at, 10) : 1;
        at += strspn(at, " ");
        if (tokens < 1 || times < 1) return gir_fail(file, "steps are numbers of tokens, n or n*times");
        for (; times > 0; times--, position += (int32_t)tokens) {
            const ir_value *param = want.forward->body->params[0];
            ir_array ids, start = {.dtype = RT_I32, .data = &position};
            if (!array_of(file, &want, &param->type, param->type.dim[0], tokens, &ids)) return false;
            gir_fill_random(file, param, &state, &ids);
            if (!step(file, &want, &ids, &start) || !step(file, &got, &ids, &start)) return false;
            if (!same_step(file, &want, &got, what, position)) return false;
        }
    }
    return position > 0 || gir_fail(file, "%s: no steps", what);
}
