/* gemmac profile: where the time of a run goes, as tables and as a trace for Perfetto. */
#include "frontend/commands.h"
#include "frontend/profile.h"

#include <math.h>
#include <stdio.h>

enum { DEFAULT_PREDICT = 64, DEFAULT_REPETITIONS = 5 };

/* The figures of a row or of a phase, derived from what it spent and cost. */
typedef struct figures {
    int64_t calls;
    double time_s, share, wait_share; /* time: of the team, its threads' time at work over their number */
    double flop, bytes, flop_s, bytes_s, roofline_share;
} figures;

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

static figures figures_of(const fe_profile_result *result, const fe_profile_phase *phase, const ir_cost *cost,
                          int64_t calls, double work_s, double wait_s) {
    double threads = result->threads, all = threads * phase->wall_s;
    figures f = {.calls = calls,
                 .time_s = work_s / threads,
                 .share = ratio(work_s, all),
                 .wait_share = ratio(wait_s, all),
                 .flop = cost->flop,
                 .bytes = cost->read + cost->written};
    f.flop_s = ratio(f.flop, f.time_s);
    f.bytes_s = ratio(f.bytes, f.time_s);
    f.roofline_share = ratio(rt_roofline_seconds(&result->probe, f.bytes, f.flop), f.time_s);
    return f;
}

static figures row_figures(const fe_profile_result *result, const fe_profile_phase *phase, const fe_profile_row *row) {
    return figures_of(result, phase, &row->cost, row->calls, row->work_s, row->wait_s);
}

/* The share of the threads' time that is neither work nor waiting at a barrier. */
static double rest_share(const fe_profile_result *result, const fe_profile_phase *phase) {
    double all = result->threads * phase->wall_s;
    return all > 0 ? 1 - (phase->work_s + phase->wait_s) / all : 0;
}

/* ---- text ---- */

static void text_row(const fe_profile_result *result, const char *name, const figures *f, gm_string *out) {
    gm_string_printf(out, "  %-16s %9lld %10.3f %8.2f %8.2f %9.2f %8.2f", name, (long long)f->calls, f->time_s * 1e3,
                     f->share * 100, f->wait_share * 100, f->flop_s / 1e9, f->bytes_s / 1e9);
    if (result->probe.bytes_per_s > 0) gm_string_printf(out, " %9.1f", f->roofline_share * 100);
    gm_string_printf(out, "\n");
}

static void text_rows(const fe_profile_result *result, const fe_profile_phase *phase, const fe_profile_rows *rows,
                      const char *title, gm_string *out) {
    gm_string_printf(out, "  %-16s %9s %10s %8s %8s %9s %8s%s\n", title, "calls", "ms", "share %", "wait %", "GFLOP/s",
                     "GB/s", result->probe.bytes_per_s > 0 ? "  roofl. %" : "");
    for (int i = 0; i < rows->count; i++) {
        figures f = row_figures(result, phase, &rows->rows[i]);
        char name[24] = "none";
        if (rows->rows[i].layer >= 0) snprintf(name, sizeof name, "%d", rows->rows[i].layer);
        text_row(result, rows->rows[i].name ? rows->rows[i].name : name, &f, out);
    }
}

static void text_phase(const fe_profile_result *result, int p, gm_string *out) {
    const fe_profile_phase *phase = &result->phases[p];
    double all = result->threads * phase->wall_s;
    gm_string_printf(out, "%s: %lld tokens in %.1f ms, threads: %d\n", phase->name, (long long)phase->tokens,
                     phase->wall_s * 1e3, result->threads);
    text_rows(result, phase, &phase->ops, "operation", out);
    figures f = figures_of(result, phase, &phase->cost, 0, phase->work_s, phase->wait_s);
    for (int i = 0; i < phase->ops.count; i++) f.calls += phase->ops.rows[i].calls;
    text_row(result, "all", &f, out);
    gm_string_printf(out,
                     "  at work %.2f %%, waiting at barriers %.2f %%, between the two %.2f %% of the "
                     "threads' time;\n  idle share %.2f %%: wall time in which no thread was at work\n",
                     ratio(phase->work_s, all) * 100, ratio(phase->wait_s, all) * 100, rest_share(result, phase) * 100,
                     ratio(phase->idle_s, phase->wall_s) * 100);
    const fe_effect *overhead = &result->overhead[p];
    gm_string_printf(out, "  %.1f ± %.1f tok/s, profiled %.1f ± %.1f: the profile's calls add %.2f %%",
                     result->plain[p].mean, result->plain[p].std, result->profiled[p].mean, result->profiled[p].std,
                     overhead->percent);
    if (isfinite(overhead->low)) gm_string_printf(out, ", 95 %% within %.2f to %.2f", overhead->low, overhead->high);
    gm_string_printf(out, "%s\n", overhead->noise ? " (noise)" : "");
    text_rows(result, phase, &phase->layers, "layer", out);
    gm_string_printf(out, "\n");
}

static void text_report(const fe_profile_result *result, gm_string *out) {
    for (int p = 0; p < FE_PHASES; p++)
        if (result->phases[p].tokens) text_phase(result, p, out);
    if (result->probe.bytes_per_s > 0)
        gm_string_printf(
            out,
            "this machine at most: %.1f GB/s read, %.1f GFLOP/s in products of %s (measured after the runs; a "
            "share above 100 %% was reached while it was faster)\n",
            result->probe.bytes_per_s / 1e9, result->probe.flop_per_s / 1e9, rt_dtype_of(result->probe.products)->text);
    if (result->dropped) gm_string_printf(out, "%lld events did not fit and are missing\n", (long long)result->dropped);
    if (!result->same_tokens) gm_string_printf(out, "the profiled program gave other tokens\n");
}

/* ---- JSON ---- */

static void json_figures(const fe_profile_result *result, const figures *f, gm_string *out) {
    gm_string_printf(out, ",\"calls\":%lld", (long long)f->calls);
    cmd_json_field(out, "time_s", f->time_s);
    cmd_json_field(out, "share", f->share);
    cmd_json_field(out, "wait_share", f->wait_share);
    cmd_json_field(out, "flop", f->flop);
    cmd_json_field(out, "bytes", f->bytes);
    cmd_json_field(out, "gflop_s", f->flop_s / 1e9);
    cmd_json_field(out, "gb_s", f->bytes_s / 1e9);
    if (result->probe.bytes_per_s > 0) cmd_json_field(out, "roofline_share", f->roofline_share);
}

static void json_rows(const fe_profile_result *result, const fe_profile_phase *phase, const fe_profile_rows *rows,
                      gm_string *out) {
    for (int i = 0; i < rows->count; i++) {
        const fe_profile_row *row = &rows->rows[i];
        figures f = row_figures(result, phase, row);
        gm_string_printf(out, "%s\n{", i ? "," : "");
        if (row->name) gm_string_printf(out, "\"op\":\"%s\"", row->name);
        else if (row->layer < 0) gm_string_printf(out, "\"layer\":null");
        else gm_string_printf(out, "\"layer\":%d", row->layer);
        json_figures(result, &f, out);
        gm_string_printf(out, "}");
    }
}

static void json_speed(gm_string *out, const char *name, const fe_speed *speed) {
    gm_string_printf(out, ",\"%s\":{\"mean\":", name);
    cmd_json_real(out, speed->mean);
    cmd_json_field(out, "std", speed->std);
    gm_string_printf(out, "}");
}

static void json_phase(const fe_profile_result *result, int p, gm_string *out) {
    const fe_profile_phase *phase = &result->phases[p];
    double all = result->threads * phase->wall_s;
    gm_string_printf(out, "{\"phase\":\"%s\",\"tokens\":%lld", phase->name, (long long)phase->tokens);
    cmd_json_field(out, "wall_s", phase->wall_s);
    cmd_json_field(out, "work_share", ratio(phase->work_s, all));
    cmd_json_field(out, "wait_share", ratio(phase->wait_s, all));
    cmd_json_field(out, "rest_share", rest_share(result, phase));
    cmd_json_field(out, "idle_share", ratio(phase->idle_s, phase->wall_s));
    json_speed(out, "tok_s", &result->plain[p]);
    json_speed(out, "profiled_tok_s", &result->profiled[p]);
    cmd_json_field(out, "overhead_percent", result->overhead[p].percent);
    cmd_json_field(out, "overhead_low", result->overhead[p].low);
    cmd_json_field(out, "overhead_high", result->overhead[p].high);
    gm_string_printf(out, ",\"ops\":[");
    json_rows(result, phase, &phase->ops, out);
    gm_string_printf(out, "],\"layers\":[");
    json_rows(result, phase, &phase->layers, out);
    gm_string_printf(out, "]}");
}

static void json_report(const fe_profile_result *result, gm_string *out) {
    gm_string_printf(out, "{\"threads\":%d,\"same_tokens\":%s,\"dropped_events\":%lld", result->threads,
                     result->same_tokens ? "true" : "false", (long long)result->dropped);
    if (result->probe.bytes_per_s > 0) {
        cmd_json_field(out, "probe_gb_s", result->probe.bytes_per_s / 1e9);
        cmd_json_field(out, "probe_gflop_s", result->probe.flop_per_s / 1e9);
    }
    gm_string_printf(out, ",\"phases\":[");
    for (int p = 0; p < FE_PHASES; p++) {
        gm_string_printf(out, p ? ",\n" : "\n");
        json_phase(result, p, out);
    }
    gm_string_printf(out, "]}\n");
}

/* ---- the command ---- */

static gm_status write_report(const cmd_options *options, const fe_profile_result *result, gm_diag *diag) {
    gm_string report = {0}, trace = {0};
    if (options->format == CMD_JSON) json_report(result, &report);
    else text_report(result, &report);
    gm_status status = cmd_write_text(NULL, &report, diag);
    if (status == GM_OK && options->output) {
        fe_profile_trace(result, &trace);
        status = cmd_write_text(options->output, &trace, diag);
    }
    gm_string_free(&report);
    gm_string_free(&trace);
    return status;
}

gm_status cmd_profile(const cmd_options *options, gm_diag *diag) {
    fe_profile_result result = {.threads = 0};
    rt_ids ids = {0};
    fe_profile_request request = {
        .options = cmd_engine_options(options),
        .predict = cmd_int_or(options, FLAG_PROFILE_PREDICT, options->predict, DEFAULT_PREDICT),
        .repetitions = cmd_int_or(options, FLAG_REPETITIONS, options->repetitions, DEFAULT_REPETITIONS),
        .probe = !options->no_probe};
    GM_TRY(cmd_model_path(options, diag, &request.path));
    gm_status status = cmd_prompt_alone(options, options->output, diag, NULL, &ids);
    request.ids = ids.data;
    request.id_count = (int64_t)ids.count;
    if (status == GM_OK) status = fe_profile_run(&request, diag, &result);
    if (status == GM_OK) status = write_report(options, &result, diag);
    fe_profile_free(&result);
    rt_ids_free(&ids);
    return status;
}
