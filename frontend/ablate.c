/* gemmac ablate: the rows, and measuring them side by side.
 *
 * A row is an engine of its own, compiled with the row's passes. Engines stay open while they are
 * measured, so that the rounds go over all rows and drift of the machine hits all alike; rows that
 * do not fit the memory wait for the next group. */
#include "frontend/ablate.h"
#include "frontend/proc.h"

#include "passes/passes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the rows ---- */

static const fe_ablate_row table[] = {
#define ROW(name, base, skip, with, slice, report, meaning) {name, base, skip, with, slice, report, meaning},
#include "frontend/ablate_rows.def"
#undef ROW
};

const fe_ablate_row *fe_ablate_rows(gm_arena *arena, int *out_count) {
    int passes, count = (int)GM_COUNT(table);
    const pass_info *pass = pass_table(&passes);
    fe_ablate_row *rows = GM_NEW_ARRAY(arena, fe_ablate_row, GM_COUNT(table) + (size_t)passes);
    memcpy(rows, table, sizeof table);
    for (int i = 0; i < passes; i++)
        if (pass[i].when == PASS_USUAL)
            rows[count++] =
                (fe_ablate_row){.name = gm_arena_printf(arena, "without-%s", pass[i].name),
                                .base = "full",
                                .skip = pass[i].name,
                                .with = "",
                                .meaning = gm_arena_printf(arena, "the full pipeline without %s", pass[i].name)};
    *out_count = count;
    return rows;
}

/* ---- memory ---- */

/* What this process holds itself, also in files without a name where those lie in memory: mapped weight files are
 * shared between engines. */
static int64_t memory_now(void) {
    return fe_proc_bytes("/proc/self/status", "RssAnon") + fe_proc_bytes("/proc/self/status", "RssShmem");
}

int64_t fe_ablate_memory(void) {
    return fe_proc_bytes("/proc/meminfo", "MemAvailable") / 2;
}

/* ---- one row ---- */

/* A row that is open in the current group. */
typedef struct variant {
    fe_engine engine;
    fe_ablate_result *result;
    bool wanted;                        /* its result comes from this group */
    double *prefill, *generate, *total; /* per repetition */
    int64_t differ_at, memory;
    uint64_t program; /* a hash of the final IR */
    double margin;
} variant;

typedef struct ablation {
    const fe_ablate_request *request;
    fe_ablate_result *results;
    int count, group;
    variant *open; /* up to count */
    int open_count;
    int64_t before, largest; /* bytes: before the first engine; of the largest engine so far */
    int32_t *tokens, *reference;
    bool has_reference;
    gm_diag *diag;
} ablation;

static void say(const ablation *a, const char *what, const char *name) {
    char line[160];
    snprintf(line, sizeof line, "group %d: %s %s", a->group, what, name);
    if (a->request->progress) a->request->progress(a->request->user, line);
}

static gm_status generate(ablation *a, rt_session *session, int slice) {
    rt_sampling greedy = {.top_p = 1, .repeat_penalty = 1};
    int64_t wanted = a->request->predict;
    for (int64_t done = 0; done < wanted;) {
        int64_t count, n = slice && slice < wanted - done ? slice : wanted - done;
        rt_stop stop;
        GM_TRY(rt_session_generate(session, &greedy, NULL, 0, n, NULL, NULL, a->tokens + done, &count, &stop, a->diag));
        if (count != n)
            return gm_fail(a->diag, GM_INTERNAL, "%lld tokens generated, expected %lld", (long long)count,
                           (long long)n);
        done += count;
    }
    return GM_OK;
}

static gm_status run_once(ablation *a, rt_session *session, int slice, double *prefill, double *generation) {
    rt_session_reset(session);
    double start = gm_now();
    GM_TRY(rt_session_prefill(session, a->request->ids, a->request->id_count, a->diag));
    double middle = gm_now();
    GM_TRY(generate(a, session, slice));
    *prefill = middle - start;
    *generation = gm_now() - middle;
    return GM_OK;
}

/* ---- tokens ---- */

typedef struct last_row {
    int64_t last, width;
    int32_t chosen, other;
    double margin;
} last_row;

static bool take_margin(void *user, int64_t first, int64_t rows, const float *logits) {
    last_row *l = user;
    if (l->last < first || l->last >= first + rows) return true;
    const float *row = logits + (l->last - first) * l->width;
    l->margin = (double)row[l->chosen] - (double)row[l->other];
    return false;
}

/* How far the row puts its own token above the reference's, after what both have in common. */
static gm_status margin_at(ablation *a, rt_session *session, int64_t at, double *out) {
    int64_t n = a->request->id_count + at;
    int32_t *ids = malloc(sizeof *ids * (size_t)n);
    GM_ASSERT(ids);
    memcpy(ids, a->request->ids, sizeof *ids * (size_t)a->request->id_count);
    memcpy(ids + a->request->id_count, a->reference, sizeof *ids * (size_t)at);
    last_row last = {.last = n - 1,
                     .width = rt_session_vocab(session),
                     .margin = NAN,
                     .chosen = a->tokens[at],
                     .other = a->reference[at]};
    rt_session_reset(session);
    gm_status status = rt_session_score(session, ids, n, take_margin, &last, a->diag);
    free(ids);
    *out = last.margin;
    return status;
}

static gm_status check_tokens(ablation *a, variant *v) {
    for (int64_t i = 0; i < a->request->predict && v->differ_at < 0; i++) {
        if (a->tokens[i] == a->reference[i]) continue;
        v->differ_at = i;
        return margin_at(a, v->engine.session, i, &v->margin);
    }
    return GM_OK;
}

static gm_status open_engine(const ablation *a, const fe_ablate_row *row, fe_engine *out) {
    fe_options options = a->request->options;
    options.skip = row->skip;
    options.with = row->with;
    options.passes = NULL;
    return fe_engine_open(a->request->path, &options, a->diag, out);
}

/* The reference's tokens, when its row is not the first to be opened. */
static gm_status make_reference(ablation *a) {
    fe_engine engine;
    double prefill, generation;
    say(a, "tokens of", a->request->reference->name);
    GM_TRY(open_engine(a, a->request->reference, &engine));
    gm_status status = run_once(a, engine.session, 0, &prefill, &generation);
    fe_engine_close(&engine);
    memcpy(a->reference, a->tokens, sizeof *a->tokens * (size_t)a->request->predict);
    a->has_reference = status == GM_OK;
    return status;
}

/* ---- a group ---- */

static variant *find_open(const ablation *a, const char *name) {
    for (int i = 0; i < a->open_count; i++)
        if (strcmp(a->open[i].result->row->name, name) == 0) return &a->open[i];
    return NULL;
}

static fe_ablate_result *find_result(const ablation *a, const char *name) {
    for (int i = 0; i < a->count; i++)
        if (strcmp(a->results[i].row->name, name) == 0) return &a->results[i];
    GM_UNREACHABLE("an ablation's base row is among its rows");
}

/* A hash of the module's text. */
static uint64_t program_of(const ir_module *module) {
    gm_string text = {0};
    ir_print_module(module, &text);
    uint64_t hash = gm_hash(GM_HASH, text.data, text.length);
    gm_string_free(&text);
    return hash;
}

/* Open the row and run it once: memory is touched then, and the warm-up done. */
static gm_status open_variant(ablation *a, fe_ablate_result *result) {
    const fe_ablate_row *row = result->row;
    int64_t before = memory_now();
    double seconds[2];
    if (!a->has_reference && row != a->request->reference) GM_TRY(make_reference(a));
    say(a, "compiles", row->name);
    variant *v = &a->open[a->open_count];
    *v = (variant){.result = result, .differ_at = -1, .margin = NAN};
    GM_TRY(open_engine(a, row, &v->engine));
    a->open_count++;
    v->program = program_of(v->engine.module);
    size_t bytes = sizeof(double) * (size_t)a->request->repetitions;
    v->prefill = malloc(bytes), v->generate = malloc(bytes), v->total = malloc(bytes);
    GM_ASSERT(v->prefill && v->generate && v->total);
    GM_TRY(run_once(a, v->engine.session, row->slice, &seconds[0], &seconds[1]));
    if (!a->has_reference) memcpy(a->reference, a->tokens, sizeof *a->tokens * (size_t)a->request->predict);
    a->has_reference = true;
    v->memory = memory_now() - before;
    if (v->memory > a->largest) a->largest = v->memory;
    return check_tokens(a, v);
}

/* Take a result into the group with its base, unless that needs more memory than there is. */
static gm_status join_group(ablation *a, fe_ablate_result *result) {
    bool base = result->base && !find_open(a, result->base);
    bool self = !find_open(a, result->row->name);
    int64_t needed = memory_now() - a->before + (base + self) * a->largest;
    if (a->open_count && needed > a->request->memory) return GM_OK;
    if (base) GM_TRY(open_variant(a, find_result(a, result->base)));
    if (self) GM_TRY(open_variant(a, result));
    find_open(a, result->row->name)->wanted = true;
    return GM_OK;
}

/* Forth and back over the rows, so that none is always first. */
static gm_status measure(ablation *a) {
    for (int64_t r = 0; r < a->request->repetitions; r++) {
        say(a, "measures", "a round over its rows");
        for (int i = 0; i < a->open_count; i++) {
            variant *v = &a->open[r % 2 ? a->open_count - 1 - i : i];
            GM_TRY(run_once(a, v->engine.session, v->result->row->slice, &v->prefill[r], &v->generate[r]));
            v->total[r] = v->prefill[r] + v->generate[r];
            GM_TRY(check_tokens(a, v));
        }
    }
    return GM_OK;
}

static void summarise(const ablation *a, const variant *v) {
    fe_ablate_result *out = v->result;
    int64_t n = a->request->repetitions;
    const variant *base = out->base ? find_open(a, out->base) : NULL;
    out->measured = true;
    out->same_program = base && base->program == v->program && base->result->row->slice == out->row->slice;
    out->group = a->group;
    out->prefill_mean = fe_mean(v->prefill, n), out->prefill_std = fe_std(v->prefill, n);
    out->generate_mean = fe_mean(v->generate, n), out->generate_std = fe_std(v->generate, n);
    out->total_mean = fe_mean(v->total, n), out->total_std = fe_std(v->total, n);
    out->effect =
        base ? fe_paired_effect(v->total, base->total, n) : (fe_effect){.percent = NAN, .low = NAN, .high = NAN};
    out->tokens_differ_at = v->differ_at;
    out->logit_margin = v->margin;
    out->memory = v->memory;
}

static void close_group(ablation *a) {
    for (int i = 0; i < a->open_count; i++) {
        fe_engine_close(&a->open[i].engine);
        free(a->open[i].prefill);
        free(a->open[i].generate);
        free(a->open[i].total);
    }
    a->open_count = 0;
}

static gm_status run_group(ablation *a) {
    gm_status status = GM_OK;
    for (int i = 0; i < a->count && status == GM_OK; i++)
        if (!a->results[i].measured) status = join_group(a, &a->results[i]);
    if (status == GM_OK) status = measure(a);
    for (int i = 0; i < a->open_count && status == GM_OK; i++)
        if (a->open[i].wanted) summarise(a, &a->open[i]);
    close_group(a);
    return status;
}

static bool all_measured(const ablation *a) {
    for (int i = 0; i < a->count; i++)
        if (!a->results[i].measured) return false;
    return true;
}

gm_status fe_ablate_run(const fe_ablate_request *request, fe_ablate_result *results, int count, gm_diag *diag) {
    size_t ids = sizeof(int32_t) * (size_t)request->predict;
    ablation a = {.request = request, .results = results, .count = count, .diag = diag};
    a.open = calloc((size_t)count, sizeof *a.open);
    a.tokens = malloc(ids);
    a.reference = malloc(ids);
    GM_ASSERT(a.open && a.tokens && a.reference);
    a.before = memory_now();
    gm_status status = GM_OK;
    while (status == GM_OK && !all_measured(&a)) {
        a.group++;
        status = run_group(&a);
    }
    free(a.open);
    free(a.tokens);
    free(a.reference);
    return status;
}
