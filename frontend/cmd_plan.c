/* gemmac plan: sizes, costs and memory of a model before it runs, and what this machine can make of it. */
#include "frontend/commands.h"
#include "frontend/plan.h"

#include <stdio.h>

enum { DEFAULT_PROMPT = 512, DEFAULT_PREDICT = 64 };

/* ---- text ---- */

static void text_cost(const char *name, int64_t tokens, const ir_cost *cost, double tok_s, gm_string *out) {
    gm_string_printf(out, "%-14s %lld tokens, each %.2f MB read, %.2f MB written, %.2f MFLOP", name, (long long)tokens,
                     cost->read / 1e6, cost->written / 1e6, cost->flop / 1e6);
    if (tok_s > 0) gm_string_printf(out, ": at most %.1f tok/s", tok_s);
    gm_string_printf(out, "\n");
}

static void text_peak(const char *name, const fe_peak *peak, gm_string *out) {
    gm_string_printf(out, "%-14s %.1f MB, in %s", name, (double)peak->bytes / 1e6, peak->when);
    if (peak->bytes != peak->base)
        gm_string_printf(out,
                         ": process %.1f, weights %.1f, packed %.1f, cache %.1f, activations %.1f, "
                         "other %.1f",
                         (double)peak->base / 1e6, (double)peak->weights / 1e6, (double)peak->packed / 1e6,
                         (double)peak->cache / 1e6, (double)peak->activations / 1e6, (double)peak->other / 1e6);
    gm_string_printf(out, "\n");
}

static void text_plan(const fe_plan *plan, gm_string *out) {
    gm_string_printf(out, "%-14s %lld in %.1f MB\n", "parameters", (long long)plan->parameters,
                     (double)plan->weight_bytes / 1e6);
    text_cost("prefill", plan->prompt, &plan->prefill, plan->prefill_tok_s, out);
    text_cost("decode", plan->predict, &plan->decode, plan->decode_tok_s, out);
    gm_string_printf(out, "%-14s %.1f kB per token, %.1f MB at the context of %lld\n", "KV cache",
                     (double)plan->cache_token_bytes / 1e3, (double)plan->cache_bytes / 1e6, (long long)plan->context);
    gm_string_printf(out, "%-14s arena %.1f MB, scratch of %d threads %.1f MB\n", "activations",
                     (double)plan->arena_bytes / 1e6, plan->threads, (double)plan->scratch_bytes / 1e6);
    gm_string_printf(out, "%-14s %.1f MB\n", "packed weights", (double)plan->packed_bytes / 1e6);
    text_peak("peak memory", &plan->run, out);
    text_peak("context full", &plan->full, out);
    if (plan->probe.bytes_per_s > 0)
        gm_string_printf(out, "%-14s at most %.1f GB/s read, %.1f GFLOP/s in products of %s\n", "this machine",
                         plan->probe.bytes_per_s / 1e9, plan->probe.flop_per_s / 1e9,
                         rt_dtype_of(plan->probe.products)->text);
}

/* ---- JSON ---- */

static void json_int(gm_string *out, const char *name, int64_t value) {
    gm_string_printf(out, ",\"%s\":%lld", name, (long long)value);
}

static void json_cost(const fe_plan *plan, const char *name, int64_t tokens, const ir_cost *cost, double tok_s,
                      gm_string *out) {
    gm_string_printf(out, ",\"%s\":{\"tokens\":%lld", name, (long long)tokens);
    cmd_json_field(out, "read", cost->read);
    cmd_json_field(out, "written", cost->written);
    cmd_json_field(out, "flop", cost->flop);
    if (plan->probe.bytes_per_s > 0) cmd_json_field(out, "roofline_tok_s", tok_s);
    gm_string_printf(out, "}");
}

static void json_peak(const char *name, const fe_peak *peak, gm_string *out) {
    gm_string_printf(out, ",\"%s\":{\"bytes\":%lld,\"when\":\"%s\"", name, (long long)peak->bytes, peak->when);
    json_int(out, "process", peak->base);
    json_int(out, "weights", peak->weights);
    json_int(out, "packed", peak->packed);
    json_int(out, "cache", peak->cache);
    json_int(out, "activations", peak->activations);
    json_int(out, "other", peak->other);
    gm_string_printf(out, "}");
}

static void json_plan(const fe_plan *plan, gm_string *out) {
    gm_string_printf(out, "{\"threads\":%d", plan->threads);
    json_int(out, "context", plan->context);
    json_int(out, "chunk", plan->chunk);
    json_int(out, "parameters", plan->parameters);
    json_int(out, "weight_bytes", plan->weight_bytes);
    json_int(out, "cache_token_bytes", plan->cache_token_bytes);
    json_int(out, "cache_bytes", plan->cache_bytes);
    json_int(out, "arena_bytes", plan->arena_bytes);
    json_int(out, "scratch_bytes", plan->scratch_bytes);
    json_int(out, "packed_bytes", plan->packed_bytes);
    json_cost(plan, "prefill", plan->prompt, &plan->prefill, plan->prefill_tok_s, out);
    json_cost(plan, "decode", plan->predict, &plan->decode, plan->decode_tok_s, out);
    json_peak("peak", &plan->run, out);
    json_peak("peak_full", &plan->full, out);
    if (plan->probe.bytes_per_s > 0) {
        cmd_json_field(out, "probe_gb_s", plan->probe.bytes_per_s / 1e9);
        cmd_json_field(out, "probe_gflop_s", plan->probe.flop_per_s / 1e9);
    }
    gm_string_printf(out, "}\n");
}

/* ---- the command ---- */

gm_status cmd_plan(const cmd_options *options, gm_diag *diag) {
    const char *path;
    fe_plan plan;
    gm_string out = {0};
    fe_options engine_options = cmd_engine_options(options);
    GM_TRY(cmd_model_path(options, diag, &path));
    int64_t prompt = cmd_int_or(options, FLAG_PLAN_PROMPT, options->plan_prompt, DEFAULT_PROMPT);
    int64_t predict = cmd_int_or(options, FLAG_PLAN_PREDICT, options->predict, DEFAULT_PREDICT);
    bool given = cmd_given(options, FLAG_PLAN_PROMPT) || cmd_given(options, FLAG_PLAN_PREDICT);
    if (given) engine_options.least_context = prompt + predict;
    GM_TRY(fe_plan_make(path, &engine_options, prompt, predict, !options->no_probe, diag, &plan));
    if (given && plan.prompt + plan.predict < prompt + predict)
        return gm_fail(diag, GM_INVALID, "%s: prompt and tokens need a context of at least %lld, found %lld (see -c)",
                       path, (long long)(prompt + predict), (long long)plan.context);
    if (options->format == CMD_JSON) json_plan(&plan, &out);
    else text_plan(&plan, &out);
    gm_status status = cmd_write_text(NULL, &out, diag);
    gm_string_free(&out);
    return status;
}
