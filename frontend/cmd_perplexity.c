/* gemmac perplexity: how well the model predicts a text, and how far the plan is from another one.
 */
#include "frontend/commands.h"
#include "frontend/perplexity.h"

#include <stdio.h>

enum { DEFAULT_CHUNK = 512 };

static void print_result(const cmd_options *options, const fe_perplexity *p) {
    const char *const names[] = {"nll", "ppl", "kl_mean", "kl_p99", "kl_max", "top1"};
    const double values[] = {p->nll, p->ppl, p->kl_mean, p->kl_p99, p->kl_max, p->top1};
    size_t count = options->kl_base ? GM_COUNT(names) : 2;
    gm_string out = {0};
    bool json = options->format == CMD_JSON;
    gm_string_printf(&out, json ? "{\"tokens\":%lld" : "tokens  %lld\n", (long long)p->tokens);
    for (size_t i = 0; i < count; i++) {
        gm_string_printf(&out, json ? ",\"%s\":" : "%-7s ", names[i]);
        cmd_json_real(&out, values[i]);
        if (!json) gm_string_append(&out, "\n", 1);
    }
    gm_string_printf(&out, json ? "}\n" : "");
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
}

/* Both engines are open; base->session is NULL without --kl-base. */
static gm_status measure(const fe_engine *engine, const fe_engine *base, const cmd_options *options, int64_t chunk,
                         gm_diag *diag) {
    rt_ids ids = {0};
    fe_perplexity result;
    int32_t bos = options->no_bos ? -1 : fe_model_text_bos(&engine->model);
    gm_status status = cmd_text_ids(engine, options, diag, &ids);
    if (status == GM_OK)
        status =
            fe_perplexity_run(engine->session, base->session, ids.data, (int64_t)ids.count, chunk, bos, diag, &result);
    if (status == GM_OK) print_result(options, &result);
    rt_ids_free(&ids);
    return status;
}

gm_status cmd_perplexity(const cmd_options *options, gm_diag *diag) {
    fe_engine engine, base = {0};
    fe_options engine_options = cmd_engine_options(options);
    if (!options->file) return gm_fail(diag, GM_INVALID, "no text given: expected -f FILE");
    engine_options.no_screens = true;
    if (engine_options.context == 0) engine_options.context = DEFAULT_CHUNK;
    GM_TRY(cmd_engine_open(options, &engine_options, diag, &engine));
    gm_status status = GM_OK;
    if (options->kl_base) {
        fe_options base_options = engine_options;
        base_options.precision = (fe_precision)options->kl_base; /* same words in the same places */
        base_options.passes = NULL;                              /* its KV cache is the plain one */
        base_options.with = "";
        base_options.dump = (fe_dump){0};
        status = cmd_engine_open(options, &base_options, diag, &base);
    }
    if (status == GM_OK) status = measure(&engine, &base, options, engine_options.context, diag);
    if (base.session) fe_engine_close(&base);
    fe_engine_close(&engine);
    return status;
}
