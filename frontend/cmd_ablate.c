/* gemmac ablate: what each pass is worth, as a table of program variants measured side by side. */
#include "frontend/ablate.h"
#include "frontend/commands.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_PREDICT = 100, DEFAULT_REPETITIONS = 5, DEFAULT_CONTEXT = 1024 };
enum { ABLATE_TEXT, ABLATE_JSON, ABLATE_CSV, ABLATE_MD }; /* --format */

static const char default_prompt[] = "The capital of France is Paris. The capital of Germany is";

typedef struct ablate {
    gm_arena arena;
    const fe_ablate_row *rows;
    int row_count;
    bool *chosen; /* per row */
    fe_ablate_result *results;
    int count;
    rt_ids ids;
    int64_t context; /* the most that the model takes */
    fe_ablate_request request;
} ablate;

/* ---- which rows ---- */

static gm_status find_row(const ablate *a, const char *flag, const char *name, size_t length, gm_diag *diag, int *out) {
    for (int i = 0; i < a->row_count; i++) {
        *out = i;
        if (strlen(a->rows[i].name) == length && memcmp(a->rows[i].name, name, length) == 0) return GM_OK;
    }
    gm_string names = {0};
    for (int i = 0; i < a->row_count; i++) gm_string_printf(&names, "%s%s", i ? ", " : "", a->rows[i].name);
    gm_fail(diag, GM_INVALID, "%s %.*s: expected one of %s", flag, (int)length, name, names.data);
    gm_string_free(&names);
    return GM_INVALID;
}

/* The rows of --rows, all when there is none, and the bases that they are compared with. */
static gm_status choose_rows(ablate *a, const cmd_options *options, gm_diag *diag) {
    int base = -1, at;
    if (options->base) GM_TRY(find_row(a, "--base", options->base, strlen(options->base), diag, &base));
    const char **bases = GM_NEW_ARRAY(&a->arena, const char *, a->row_count);
    for (const char *name = options->rows; name;) {
        size_t length = strcspn(name, ",");
        GM_TRY(find_row(a, "--rows", name, length, diag, &at));
        a->chosen[at] = true;
        name = name[length] ? name + length + 1 : NULL;
    }
    for (int i = 0; i < a->row_count; i++) {
        if (!options->rows) a->chosen[i] = true;
        bases[i] = base < 0 ? a->rows[i].base : i == base ? NULL : a->rows[base].name;
        if (!a->chosen[i]) bases[i] = NULL;
    }
    for (int i = 0; i < a->row_count; i++) {
        if (!bases[i]) continue;
        GM_TRY(find_row(a, "--base", bases[i], strlen(bases[i]), diag, &at));
        a->chosen[at] = true;
    }
    a->results = GM_NEW_ARRAY(&a->arena, fe_ablate_result, a->row_count);
    for (int i = 0; i < a->row_count; i++)
        if (a->chosen[i]) a->results[a->count++] = (fe_ablate_result){.row = &a->rows[i], .base = bases[i]};
    return GM_OK;
}

/* ---- what is run ---- */

static gm_status read_prompt(ablate *a, const cmd_options *options, gm_diag *diag) {
    cmd_options with_prompt = *options;
    bool given = cmd_given(options, FLAG_IDS) || cmd_given(options, FLAG_PROMPT) || cmd_given(options, FLAG_FILE);
    if (!given) {
        with_prompt.prompt = default_prompt;
        cmd_give(&with_prompt, FLAG_PROMPT);
    }
    return cmd_prompt_alone(&with_prompt, options->svg, diag, &a->context, &a->ids);
}

static void progress(void *user, const char *text) {
    fprintf(stderr, "%s\n", text);
}

static gm_status make_request(ablate *a, const cmd_options *options, gm_diag *diag) {
    fe_ablate_request *request = &a->request;
    *request = (fe_ablate_request){
        .options = cmd_engine_options(options),
        .predict = cmd_int_or(options, FLAG_ABLATE_PREDICT, options->predict, DEFAULT_PREDICT),
        .repetitions = cmd_int_or(options, FLAG_REPETITIONS, options->repetitions, DEFAULT_REPETITIONS),
        .memory = options->memory ? options->memory << 20 : fe_ablate_memory(),
        .reference = &a->rows[0],
        .progress = isatty(STDERR_FILENO) ? progress : NULL};
    GM_TRY(cmd_model_path(options, diag, &request->path));
    GM_TRY(read_prompt(a, options, diag));
    request->ids = a->ids.data;
    request->id_count = (int64_t)a->ids.count;
    /* One arithmetic for all rows, else rows with chunks would round where the others do not. */
    if (!cmd_given(options, FLAG_PRECISION)) request->options.precision = FE_PRECISION_F32;
    if (!request->options.context)
        request->options.context = a->context < DEFAULT_CONTEXT ? a->context : DEFAULT_CONTEXT;
    int64_t room = request->id_count + request->predict;
    if (request->options.context >= room) return GM_OK;
    return gm_fail(diag, GM_INVALID, "-c %lld: prompt and tokens need a context of at least %lld",
                   (long long)request->options.context, (long long)room);
}

/* ---- fields, for JSON and CSV ---- */

static void text_or_null(gm_string *out, const char *text) {
    if (text) cmd_json_text(out, text, strlen(text));
    else gm_string_printf(out, "null");
}

/* DIFFERENCE: of the tokens from the reference's, none where they are the same. */
typedef enum field_kind {
    FIELD_ROW,
    FIELD_TEXT,
    FIELD_REAL,
    FIELD_BOOL,
    FIELD_INT,
    FIELD_NOISE,
    FIELD_SAME,
    FIELD_DIFFERENCE
} field_kind;

#define AT(member) offsetof(fe_ablate_result, member)
static const struct {
    const char *name;
    field_kind kind;
    size_t at; /* in fe_ablate_result */
} fields[] = {
    {"row", FIELD_ROW, AT(row)},
    {"base", FIELD_TEXT, AT(base)},
    {"prefill_mean", FIELD_REAL, AT(prefill_mean)},
    {"prefill_std", FIELD_REAL, AT(prefill_std)},
    {"generate_mean", FIELD_REAL, AT(generate_mean)},
    {"generate_std", FIELD_REAL, AT(generate_std)},
    {"total_mean", FIELD_REAL, AT(total_mean)},
    {"total_std", FIELD_REAL, AT(total_std)},
    {"effect_percent", FIELD_REAL, AT(effect.percent)},
    {"effect_low", FIELD_REAL, AT(effect.low)},
    {"effect_high", FIELD_REAL, AT(effect.high)},
    {"noise", FIELD_NOISE, AT(effect.noise)},
    {"same_tokens", FIELD_SAME, AT(tokens_differ_at)},
    {"tokens_differ_at", FIELD_DIFFERENCE, AT(tokens_differ_at)},
    {"logit_margin", FIELD_REAL, AT(logit_margin)},
    {"group", FIELD_INT, AT(group)},
    {"memory_bytes", FIELD_INT, AT(memory)},
    {"same_program", FIELD_BOOL, AT(same_program)},
};
#undef AT
enum { FIELDS = GM_COUNT(fields) };

static void add_bool(gm_string *out, bool value) {
    gm_string_printf(out, "%s", value ? "true" : "false");
}

/* The value of a field as JSON. */
static void field(const fe_ablate_result *r, int index, gm_string *out) {
    const void *at = (const char *)r + fields[index].at;
    switch (fields[index].kind) {
    case FIELD_ROW: text_or_null(out, r->row->name); return;
    case FIELD_TEXT: text_or_null(out, *(const char *const *)at); return;
    case FIELD_REAL: cmd_json_real(out, *(const double *)at); return;
    case FIELD_BOOL: add_bool(out, *(const bool *)at); return;
    case FIELD_INT: gm_string_printf(out, "%lld", (long long)*(const int64_t *)at); return;
    case FIELD_SAME: add_bool(out, *(const int64_t *)at < 0); return;
    case FIELD_NOISE:
        if (r->base) add_bool(out, *(const bool *)at);
        else text_or_null(out, NULL);
        return;
    case FIELD_DIFFERENCE:
        if (*(const int64_t *)at < 0) text_or_null(out, NULL);
        else gm_string_printf(out, "%lld", (long long)*(const int64_t *)at);
        return;
    }
}

static void print_json(const ablate *a, gm_string *out) {
    gm_string_printf(out, "[");
    for (int i = 0; i < a->count; i++) {
        gm_string_printf(out, "%s\n{", i ? "," : "");
        for (int f = 0; f < FIELDS; f++) {
            gm_string_printf(out, "%s\"%s\":", f ? "," : "", fields[f].name);
            field(&a->results[i], f, out);
        }
        gm_string_printf(out, "}");
    }
    gm_string_printf(out, "\n]\n");
}

/* The names need no quotes, and null is an empty field. */
static void print_csv(const ablate *a, gm_string *out) {
    for (int f = 0; f < FIELDS; f++) gm_string_printf(out, "%s%s", f ? "," : "", fields[f].name);
    for (int i = 0; i < a->count; i++)
        for (int f = 0; f < FIELDS; f++) {
            gm_string value = {0};
            field(&a->results[i], f, &value);
            bool null = strcmp(value.data, "null") == 0, quoted = value.data[0] == '"';
            gm_string_printf(out, "%s", f ? "," : "\n");
            if (!null) gm_string_append(out, value.data + quoted, value.length - 2 * quoted);
            gm_string_free(&value);
        }
    gm_string_printf(out, "\n");
}

/* ---- tables, for people ---- */

enum { COLUMNS = 8 };
static const char *const headings[COLUMNS] = {"row",     "base",   "prefill s", "generation s",
                                              "total s", "effect", "tokens",    "report, s"};

static const char *with_std(gm_arena *arena, double mean, double std) {
    return gm_arena_printf(arena, "%.4f ± %.4f", mean, std);
}

static const char *effect_cell(gm_arena *arena, const fe_ablate_result *r) {
    if (!r->base) return "";
    if (!isfinite(r->effect.low) || !isfinite(r->effect.high))
        return gm_arena_printf(arena, "%+.2f %%, one run: no interval", r->effect.percent);
    return gm_arena_printf(arena, "%+.2f %% [%+.2f, %+.2f]%s%s", r->effect.percent, r->effect.low, r->effect.high,
                           r->effect.noise ? " noise" : "", r->same_program ? ", same program" : "");
}

static void cells_of(gm_arena *arena, const fe_ablate_result *r, const char **cells) {
    cells[0] = r->row->name;
    cells[1] = r->base ? r->base : "";
    cells[2] = with_std(arena, r->prefill_mean, r->prefill_std);
    cells[3] = with_std(arena, r->generate_mean, r->generate_std);
    cells[4] = with_std(arena, r->total_mean, r->total_std);
    cells[5] = effect_cell(arena, r);
    cells[6] = r->tokens_differ_at < 0
                   ? "same"
                   : gm_arena_printf(arena, "differ at %lld by %.3g", (long long)r->tokens_differ_at, r->logit_margin);
    cells[7] = r->row->report ? r->row->report : "";
}

/* Characters of a UTF-8 text. */
static size_t width_of(const char *text) {
    size_t width = 0;
    for (; *text; text++) width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

static void print_line(gm_string *out, const char *const *cells, const size_t *widths, bool md) {
    gm_string_printf(out, md ? "| " : "");
    for (int c = 0; c < COLUMNS; c++) {
        bool last = c == COLUMNS - 1;
        size_t pad = last && !md ? 0 : widths[c] - width_of(cells[c]);
        gm_string_printf(out, "%s%*s%s", cells[c], (int)pad, "", md ? " |" : "");
        if (!last) gm_string_printf(out, md ? " " : "  ");
    }
    while (out->data[out->length - 1] == ' ') out->data[--out->length] = 0;
    gm_string_printf(out, "\n");
}

static void print_notes(const ablate *a, gm_string *out, bool md) {
    const fe_ablate_request *r = &a->request;
    int groups = 0;
    for (int i = 0; i < a->count; i++)
        if (a->results[i].group > groups) groups = a->results[i].group;
    gm_string_printf(out,
                     "%s%s plan, %lld prompt tokens, %lld new tokens, greedy, context %lld; mean ± std of "
                     "%lld runs after a warm-up; tokens compared with %s's.\n",
                     md ? "\n" : "", fe_precision_text(r->options.precision), (long long)r->id_count,
                     (long long)r->predict, (long long)r->options.context, (long long)r->repetitions,
                     r->reference->name);
    if (groups == 1) gm_string_printf(out, "All rows were open together and run in turn.\n");
    else
        gm_string_printf(out,
                         "%d groups of rows, each with the bases it needs and run in turn, since "
                         "all together need more than %lld MiB; effects are within a group.\n",
                         groups, (long long)(r->memory >> 20));
    gm_string_printf(out, "report, s: what the variant took in the experiments in JAX that gemmac began with, on "
                          "another machine: prefill / generation / total.\n");
}

static void print_table(ablate *a, gm_string *out, bool md) {
    const char *cells[COLUMNS];
    size_t widths[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) widths[c] = width_of(headings[c]);
    for (int i = 0; i < a->count; i++) {
        cells_of(&a->arena, &a->results[i], cells);
        for (int c = 0; c < COLUMNS; c++)
            if (width_of(cells[c]) > widths[c]) widths[c] = width_of(cells[c]);
    }
    print_line(out, headings, widths, md);
    if (md) gm_string_printf(out, "|---|---|--:|--:|--:|--:|---|---|\n");
    for (int i = 0; i < a->count; i++) {
        cells_of(&a->arena, &a->results[i], cells);
        print_line(out, cells, widths, md);
    }
    print_notes(a, out, md);
    if (!md) return;
    gm_string_printf(out, "\n");
    fe_ablate_lessons(a->results, a->count, out);
}

/* ---- the command ---- */

static gm_status write_svg(const ablate *a, const char *path, gm_diag *diag) {
    gm_string title = {0}, out = {0};
    const char *slash = strrchr(a->request.path, '/');
    gm_string_printf(&title, "%s: %lld prompt tokens, %lld generated, mean of %lld runs",
                     slash && slash[1] ? slash + 1 : a->request.path, (long long)a->request.id_count,
                     (long long)a->request.predict, (long long)a->request.repetitions);
    fe_ablate_svg(title.data, a->results, a->count, &out);
    gm_status status = cmd_write_text(path, &out, diag);
    gm_string_free(&title);
    gm_string_free(&out);
    return status;
}

static gm_status run(ablate *a, const cmd_options *options, gm_diag *diag) {
    a->rows = fe_ablate_rows(&a->arena, &a->row_count);
    a->chosen = GM_NEW_ARRAY(&a->arena, bool, a->row_count);
    GM_TRY(choose_rows(a, options, diag));
    GM_TRY(make_request(a, options, diag));
    GM_TRY(fe_ablate_run(&a->request, a->results, a->count, diag));
    gm_string out = {0};
    if (options->format == ABLATE_JSON) print_json(a, &out);
    else if (options->format == ABLATE_CSV) print_csv(a, &out);
    else print_table(a, &out, options->format == ABLATE_MD);
    gm_status status = cmd_write_text(NULL, &out, diag);
    gm_string_free(&out);
    return status == GM_OK && options->svg ? write_svg(a, options->svg, diag) : status;
}

gm_status cmd_ablate(const cmd_options *options, gm_diag *diag) {
    ablate a = {0};
    gm_status status = run(&a, options, diag);
    rt_ids_free(&a.ids);
    gm_arena_free(&a.arena);
    return status;
}
