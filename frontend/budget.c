/* Choosing a precision plan within a budget of divergence: see budget.h. */
#include "frontend/budget.h"
#include "frontend/perplexity.h"

#include <stdlib.h>
#include <string.h>

/* Plans from the fastest to the most exact, by measure, and where they are tried: bf16 only where auto is bf16, and
 * then no other as small; int8 only where auto is int8: elsewhere block8 is faster and more exact. */
static const struct candidate {
    fe_precision precision;
    const char *name, *wide; /* wide: "" for none */
} candidates[] = {
    {FE_PRECISION_BF16, "bf16", NULL},
    {FE_PRECISION_INT8, "int8", ""},
    {FE_PRECISION_INT8, "int8", "v_proj,layers.-1."},
    {FE_PRECISION_INT8, "int8", "k_proj,v_proj,layers.-1."},
    {FE_PRECISION_INT8, "int8", "k_proj,v_proj,o_proj,layers.-1."},
    {FE_PRECISION_INT8, "int8", "k_proj,v_proj,o_proj,down_proj,layers.-1."},
    {FE_PRECISION_BLOCK8, "block8", ""},
    {FE_PRECISION_BLOCK8, "block8", "v_proj"},
    {FE_PRECISION_BLOCK8, "block8", "v_proj,down_proj"},
    {FE_PRECISION_INT16, "int16", NULL},
    {FE_PRECISION_F32, "f32", NULL},
};

typedef struct sample {
    int32_t *ids;
    int64_t count;
    int32_t bos; /* -1: none */
} sample;

/* Is it tried, on a target with this plan for auto? */
static bool is_tried(const struct candidate *c, pass_precision plan) {
    if (c->precision == FE_PRECISION_BF16) return plan == PASS_BF16;
    if (c->precision == FE_PRECISION_INT8) return plan == PASS_INT8;
    return c->precision != FE_PRECISION_BLOCK8 || plan != PASS_BF16;
}

/* Text of the model's own: drawn at temperature 1 from all tokens, not ended by any. */
static gm_status draw(fe_engine *base, gm_diag *diag, sample *out) {
    rt_sampling sampling = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 1};
    int64_t context = rt_session_context(base->session),
            total = context < FE_BUDGET_TOKENS ? context : FE_BUDGET_TOKENS, drawn = 0;
    int32_t first = fe_model_bos(&base->model); /* also where texts do not begin with it */
    rt_stop reason;
    out->ids = calloc((size_t)total + 1, sizeof *out->ids);
    if (!out->ids) return gm_fail(diag, GM_NOMEM, "out of memory");
    out->ids[0] = first >= 0 ? first : 0;
    GM_TRY(rt_session_prefill(base->session, out->ids, 1, diag));
    GM_TRY(rt_session_generate(base->session, &sampling, NULL, 0, total - 1, NULL, NULL, out->ids + 1, &drawn, &reason,
                               diag));
    out->count = drawn + 1;
    rt_session_reset(base->session);
    return GM_OK;
}

static gm_status copy_ids(const fe_budget_request *request, gm_diag *diag, sample *out) {
    if (request->count < 2)
        return gm_fail(diag, GM_INVALID, "a text of at least 2 tokens is needed to measure a plan, found %lld",
                       (long long)request->count);
    out->ids = malloc(sizeof *out->ids * (size_t)request->count);
    if (!out->ids) return gm_fail(diag, GM_NOMEM, "out of memory");
    memcpy(out->ids, request->ids, sizeof *out->ids * (size_t)request->count);
    out->count = request->count;
    return GM_OK;
}

/* The divergence of a candidate from base. */
static gm_status measure(const char *path, const fe_options *options, fe_engine *base, const sample *text,
                         gm_diag *diag, double *out) {
    fe_engine engine;
    fe_perplexity result = {0};
    int64_t context = rt_session_context(base->session),
            chunk = text->count < FE_BUDGET_TOKENS ? text->count : FE_BUDGET_TOKENS;
    if (chunk > context) chunk = context;
    GM_TRY(fe_engine_open(path, options, diag, &engine));
    gm_status status =
        fe_perplexity_run(engine.session, base->session, text->ids, text->count, chunk, text->bos, diag, &result);
    fe_engine_close(&engine);
    *out = result.kl_mean;
    return status;
}

static gm_status search(const char *path, const fe_budget_request *request, fe_engine *base, const sample *text,
                        fe_options *options, gm_diag *diag) {
    pass_precision plan = fe_pass_precision(FE_PRECISION_AUTO, options->target_cpu, &base->model, true);
    for (size_t i = 0; i < GM_COUNT(candidates); i++) {
        const struct candidate *c = &candidates[i];
        fe_options trial = *options;
        double kl = 0;
        if (!is_tried(c, plan)) continue;
        trial.precision = options->precision = c->precision;
        trial.wide = options->wide = c->wide;
        trial.no_screens = true;
        trial.artefact = true; /* measured as it will be stored */
        trial.measure = false;
        if (c->precision != FE_PRECISION_F32) GM_TRY(measure(path, &trial, base, text, diag, &kl));
        if (request->tried) request->tried(request->user, c->name, c->wide, kl);
        if (kl <= request->kl) break;
    }
    return GM_OK;
}

gm_status fe_budget_choose(const char *path, const fe_budget_request *request, fe_options *options, gm_diag *diag) {
    fe_engine base;
    fe_options plain = *options;
    plain.precision = FE_PRECISION_F32;
    plain.passes = NULL; /* the plain KV cache */
    plain.with = "";
    plain.measure = false;
    plain.no_screens = true;
    GM_TRY(fe_engine_open(path, &plain, diag, &base));
    sample text = {.bos = fe_model_text_bos(&base.model)};
    gm_status status = request->ids ? copy_ids(request, diag, &text) : draw(&base, diag, &text);
    if (status == GM_OK) status = search(path, request, &base, &text, options, diag);
    free(text.ids);
    fe_engine_close(&base);
    return status;
}
