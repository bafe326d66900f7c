/* A module compiled and made ready to be called function by function, without a session. */
#include "frontend/gir_program.h"

#include "ir/rewrite.h"
#include "runtime/frame.h"

#include <stdlib.h>

enum { PAD_BYTES = 64 };

static gm_status bind_weights(fe_gir_program *p, const rt_weights *weights, gm_diag *diag) {
    int count = cg_weight_count(p->program);
    p->weights = calloc((size_t)count + 1, sizeof *p->weights);
    GM_ASSERT(p->weights);
    for (int i = 0; i < count; i++) {
        const rt_tensor *tensor = weights ? rt_weights_find(weights, cg_weight_name(p->program, i)) : NULL;
        if (!tensor || !tensor->data)
            return gm_fail(diag, GM_INVALID, "weight \"%s\" is not given", cg_weight_name(p->program, i));
        p->weights[i] = tensor->data;
    }
    return GM_OK;
}

static void find_sample(const ir_inst *inst, void *user) {
    int64_t *vocab = user;
    bool screened = inst->op == IR_SCREENED_ARGMAX || inst->op == IR_SCREENED_GUESS || inst->op == IR_SCREENED_SAMPLE;
    int64_t count = inst->op == IR_SAMPLE ? inst->operands[0]->type.dim[1]
                    : screened            ? inst->operands[1]->type.dim[0]
                                          : 0;
    if (count > *vocab) *vocab = count;
}

static int64_t sample_vocab(const ir_module *module) {
    int64_t vocab = 1;
    for (int i = 0; i < module->func_count; i++) ir_visit(module->funcs[i]->body, find_sample, &vocab);
    return vocab;
}

static rt_frame_sizes sizes_of(const fe_gir_program *p) {
    return (rt_frame_sizes){.arena = ir_frame_bytes(p->module) + PAD_BYTES,
                            .scratch = cg_scratch_bytes(p->program) + PAD_BYTES,
                            .vocab = sample_vocab(p->module)};
}

static gm_status open_frame(fe_gir_program *p, gm_diag *diag) {
    int sites = cg_site_count(p->program);
    rt_frame_sizes sizes = sizes_of(p);
    p->sites = calloc((size_t)sites + 1, sizeof *p->sites);
    GM_ASSERT(p->sites);
    for (int i = 0; i < sites; i++) p->sites[i] = *cg_site_of(p->program, i);
    return rt_frame_open(&sizes, p->weights, p->sites, sites, p->team, diag, &p->frame);
}

void fe_gir_program_close(fe_gir_program *p) {
    if (p->frame) {
        rt_frame_sizes sizes = sizes_of(p);
        rt_frame_close(p->frame, &sizes);
    }
    rt_team_close(p->team);
    cg_program_free(p->program);
    free(p->weights);
    free(p->sites);
    ir_module_free(p->module);
}

gm_status fe_gir_program_open(ir_module *planned, const rt_weights *weights, int threads, const cg_options *options,
                              gm_diag *diag, fe_gir_program *out) {
    *out = (fe_gir_program){.module = planned};
    for (int i = 0; i < planned->symbol_count; i++) out->dims[i] = planned->symbols[i].max;
    GM_TRY(cg_compile(planned, options, diag, &out->program));
    GM_TRY(rt_team_open(threads, diag, &out->team));
    GM_TRY(bind_weights(out, weights, diag));
    return open_frame(out, diag);
}

typedef struct gir_call {
    fe_gir_program *program;
    rt_entry entry;
    void *const *args, *const *results;
} gir_call;

static void call_on_thread(void *user, int thread, int threads) {
    gir_call *call = user;
    call->entry(call->program->frame, thread, threads, call->args, call->results, call->program->dims);
}

void fe_gir_program_run(fe_gir_program *program, const char *func, void *const *args, void *const *results) {
    gir_call call = {.program = program, .entry = cg_entry(program->program, func), .args = args, .results = results};
    GM_ASSERT(call.entry);
    rt_team_run(program->team, call_on_thread, &call);
}
