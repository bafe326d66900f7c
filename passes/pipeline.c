/* The pipeline of passes.def: look-up by name, and the runner that checks every step. */
#include "passes/passes.h"

#include <string.h>

enum { MAX_STEPS = 128 };

static const pass_info table[] = {
#define PASS(name, when, summary) {#name, summary, PASS_##when, pass_##name},
#include "passes/passes.def"
#undef PASS
};

/* The steps in order, as names: passes that appear again are here twice. */
static const char *const steps[] = {
#define PASS(name, when, summary) #name,
#define PASS_AGAIN(name)          #name,
#include "passes/passes.def"
#undef PASS
};

static const char *const precisions[] = {
    [PASS_F32] = "f32", [PASS_BF16] = "bf16", [PASS_INT16] = "int16", [PASS_INT8] = "int8", [PASS_BLOCK8] = "block8"};

const char *pass_precision_text(pass_precision precision) {
    return precisions[precision];
}

pass_precision pass_precision_of(const char *text) {
    size_t i = GM_COUNT(precisions);
    while (i-- > 0)
        if (strcmp(precisions[i], text) == 0) return (pass_precision)i;
    return PASS_F32;
}

const char *pass_default_wide(pass_precision precision) {
    return precision == PASS_INT8 ? "v_proj,layers.-1." : "";
}

const pass_info *pass_table(int *out_count) {
    *out_count = (int)GM_COUNT(table);
    return table;
}

const pass_info *pass_find(const char *name, size_t length) {
    for (size_t i = 0; i < GM_COUNT(table); i++)
        if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0) return &table[i];
    return NULL;
}

static gm_status find(const char *name, size_t length, gm_diag *diag, const pass_info **out) {
    *out = pass_find(name, length);
    if (*out) return GM_OK;
    return gm_fail(diag, GM_INVALID, "unknown pass '%.*s' (see 'gemmac help passes')", (int)length, name);
}

/* The passes of a comma list, in its order. */
static gm_status read_list(const char *list, gm_diag *diag, const pass_info **out, int *out_count) {
    *out_count = 0;
    for (const char *at = list; at && *at;) {
        size_t length = strcspn(at, ",");
        if (*out_count == MAX_STEPS) return gm_fail(diag, GM_INVALID, "more than %d passes in a list", MAX_STEPS);
        GM_TRY(find(at, length, diag, &out[(*out_count)++]));
        at += length + (at[length] == ',');
    }
    return GM_OK;
}

bool pass_can_be_asked(pass_when when) {
    return when == PASS_ROUNDING || when == PASS_COARSE || when == PASS_ON_REQUEST;
}

/* Does it run in this precision only where it is asked for? */
static bool on_request(pass_when when, pass_precision precision) {
    bool exact = precision == PASS_F32, near = exact || precision == PASS_INT16;
    return when == PASS_ON_REQUEST || (when == PASS_ROUNDING && exact) || (when == PASS_COARSE && near);
}

static bool contains(const pass_info *const *list, int count, const pass_info *pass) {
    for (int i = 0; i < count; i++)
        if (list[i] == pass) return true;
    return false;
}

/* Which passes run, in order, and what options say of it. */
static gm_status choose_steps(const pass_pipeline_request *request, pass_options *options, gm_diag *diag,
                              const pass_info **out, int *out_count) {
    const pass_info *wanted[MAX_STEPS], *skipped[MAX_STEPS], *asked[MAX_STEPS], *last = NULL;
    int wanted_count = 0, skipped_count = 0, asked_count = 0;
    GM_TRY(read_list(request->skip, diag, skipped, &skipped_count));
    GM_TRY(read_list(request->with, diag, asked, &asked_count));
    for (int i = 0; i < asked_count; i++)
        if (!pass_can_be_asked(asked[i]->when))
            return gm_fail(diag, GM_INVALID, "pass '%s' need not be asked for: it runs unless it is skipped",
                           asked[i]->name);
    if (request->stop_after) GM_TRY(find(request->stop_after, strlen(request->stop_after), diag, &last));
    if (request->list) GM_TRY(read_list(request->list, diag, wanted, &wanted_count));
    else
        for (size_t i = 0; i < GM_COUNT(steps); i++) wanted[wanted_count++] = pass_find(steps[i], strlen(steps[i]));
    options->unscreened = contains(skipped, skipped_count, pass_find("screen_head", strlen("screen_head")));
    *out_count = 0;
    for (int i = 0; i < wanted_count; i++) {
        bool skip = contains(skipped, skipped_count, wanted[i]);
        if (on_request(wanted[i]->when, request->options->precision) && !request->list)
            skip |= !contains(asked, asked_count, wanted[i]);
        if (skip && wanted[i]->when == PASS_REQUIRED && !request->list)
            return gm_fail(diag, GM_INVALID, "pass '%s' is required and cannot be skipped", wanted[i]->name);
        if (!skip) out[(*out_count)++] = wanted[i];
        if (wanted[i] == last) break;
    }
    return GM_OK;
}

static bool texts_differ(const ir_module *a, const ir_module *b) {
    gm_string x = {0}, y = {0};
    ir_print_module(a, &x);
    ir_print_module(b, &y);
    bool differ = x.length != y.length || memcmp(x.data, y.data, x.length) != 0;
    gm_string_free(&x);
    gm_string_free(&y);
    return differ;
}

/* One step: *module becomes what the pass makes of it. */
static gm_status run_step(const pass_pipeline_request *request, const pass_options *options, const pass_info *pass,
                          int position, gm_diag *diag, ir_module **module) {
    ir_module *before = *module, *after = NULL;
    double start = gm_now();
    GM_TRY(pass->run(options, before, diag, &after));
    pass_step step = {
        .pass = pass, .position = position, .before = before, .after = after, .seconds = gm_now() - start};
    *module = after;
    gm_status status = ir_verify(after, pass->name, diag);
    if (status == GM_OK && request->after_step) {
        step.changed = request->want_changed && texts_differ(before, after);
        request->after_step(request->user, &step);
    }
    ir_module_free(before);
    return status;
}

gm_status pass_run(const pass_pipeline_request *request, ir_module *in, gm_diag *diag, ir_module **out) {
    const pass_info *chosen[MAX_STEPS];
    int count = 0;
    ir_module *module = in;
    pass_options options = *request->options;
    gm_status status = choose_steps(request, &options, diag, chosen, &count);
    for (int i = 0; status == GM_OK && i < count; i++)
        status = run_step(request, &options, chosen[i], i + 1, diag, &module);
    if (status != GM_OK) {
        ir_module_free(module);
        return status;
    }
    *out = module;
    return GM_OK;
}
