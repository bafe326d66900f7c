/* Runner of text tests: gir_test [--bless] [--target-cpu CPU] FILE|FOLDER….
 *
 * A test is a .gir file whose comments carry directives:
 *   # run: fold,dce             passes ("pipeline": all of passes.def), the module verified after each
 *   # options: context 64       what the passes are told; also chunk, rows, precision (f32, bf16, int16, int8, block8),
 *                               tiles, artefact and wide (a,b; none)
 *   # same-values: 3            on 3 seeds, every function gives the same before and after the passes
 *   # same-steps: 4*9 1 3       @forward of 4 tokens nine times, of 1, of 3, its caches (zeros at first) handed on,
 *                               gives the same first result before and after the passes, whatever form the caches have
 *   # jit-steps: 4*9 1 3        the same, compiled against interpreted, and the caches too
 *   # jit: 3                    on 3 seeds, compiled code gives what the interpreter gives
 *   # input: %x -2 2            range of the random values of a parameter (or of a symbol: "# input: T 1 9")
 *   # weight: w = [1, 0*7]      values of a weight; "hex 003c 01*32" for storage types; seeded when there is no line
 *   # call: @f T=2 [1, 2] 3     run @f on these arguments (row-major), then one or both of
 *   # expect-values: [4] 5      … its results
 *   # expect-emitted: [7, 7]    … the tokens it emits
 *   # call-fails: @f 9 ~ text   running @f fails with a message containing the text
 *   # expect-error: text        parsing fails with a message containing the text
 *   # expect:                   the printed module after the passes, as comments to the end of the file
 * Every file must also print the same after being parsed again. --bless rewrites what is under "# expect:".
 */
#include "tests/gir.h"

#include "ir/rewrite.h"
#include "passes/passes.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool gir_fail(gir_file *file, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!file->why[0]) vsnprintf(file->why, sizeof file->why, format, args);
    va_end(args);
    return false;
}

/* ---- reading the file ---- */

static const char *const keys[] = {
    "run",    "options", "same-values",   "same-steps",     "jit",        "jit-steps",    "input",
    "weight", "call",    "expect-values", "expect-emitted", "call-fails", "expect-error", "expect"};

static bool read_bytes(gir_file *file) {
    FILE *in = fopen(file->path, "rb");
    if (!in) return gir_fail(file, "cannot be read");
    gm_string text = {0};
    char part[4096];
    for (size_t n; (n = fread(part, 1, sizeof part, in)) > 0;) gm_string_append(&text, part, n);
    fclose(in);
    file->text = gm_arena_strndup(&file->arena, text.data ? text.data : "", text.length);
    file->bytes = text.length;
    gm_string_free(&text);
    return true;
}

/* "# key: rest" with a known key. */
static bool parse_directive(gir_file *file, const char *line, size_t length, gir_directive *out) {
    const char *colon = memchr(line, ':', length);
    if (length < 3 || line[0] != '#' || line[1] != ' ' || !colon) return false;
    out->key = gm_arena_strndup(&file->arena, line + 2, (size_t)(colon - line - 2));
    const char *rest = colon + 1;
    while (rest < line + length && *rest == ' ') rest++;
    out->rest = gm_arena_strndup(&file->arena, rest, (size_t)(line + length - rest));
    for (size_t i = 0; i < GM_COUNT(keys); i++)
        if (strcmp(keys[i], out->key) == 0) return true;
    if (strspn(out->key, "abcdefghijklmnopqrstuvwxyz-") == strlen(out->key))
        gir_fail(file, "no directive is called \"%s\"", out->key);
    return false;
}

static void read_expectation(gir_file *file) {
    gm_string text = {0};
    gm_string_append(&text, "", 0);
    for (const char *line = file->text + file->expect_offset; *line;) {
        size_t length = strcspn(line, "\n"), mark = length >= 2 && line[1] == ' ' ? 2 : length >= 1;
        if (line[0] == '#') gm_string_append(&text, line + mark, length - mark);
        gm_string_append(&text, "\n", 1);
        line += length + (line[length] == '\n');
    }
    file->expect = gm_arena_strndup(&file->arena, text.data, text.length);
    gm_string_free(&text);
}

static void read_directives(gir_file *file) {
    size_t lines = 1;
    for (const char *c = file->text; *c; c++) lines += *c == '\n';
    file->directives = GM_NEW_ARRAY(&file->arena, gir_directive, lines);
    for (const char *line = file->text; *line;) {
        size_t length = strcspn(line, "\n");
        const char *next = line + length + (line[length] == '\n');
        gir_directive directive;
        if (parse_directive(file, line, length, &directive)) {
            file->directives[file->directive_count++] = directive;
            if (strcmp(directive.key, "expect") == 0) {
                file->expect_offset = (size_t)(next - file->text);
                read_expectation(file);
                return;
            }
        }
        line = next;
    }
}

static const char *directive_of(const gir_file *file, const char *key) {
    for (int i = 0; i < file->directive_count; i++)
        if (strcmp(file->directives[i].key, key) == 0) return file->directives[i].rest;
    return NULL;
}

/* ---- checks on text ---- */

static char *print_module(gir_file *file, const ir_module *module) {
    gm_string text = {0};
    ir_print_module(module, &text);
    char *copy = gm_arena_strndup(&file->arena, text.data, text.length);
    gm_string_free(&text);
    return copy;
}

static int line_of_difference(const char *a, const char *b) {
    int line = 1;
    for (; *a && *a == *b; a++, b++) line += *a == '\n';
    return line;
}

static char *line_of(gir_file *file, const char *text, int line) {
    for (; line > 1; line--) text = strchr(text, '\n') ? strchr(text, '\n') + 1 : "";
    return gm_arena_strndup(&file->arena, text, strcspn(text, "\n"));
}

static bool check_round_trip(gir_file *file, const ir_module *module, const char *what) {
    gm_diag diag = {0};
    ir_module *again = NULL;
    char *once = print_module(file, module);
    if (ir_parse(once, strlen(once), "printed", &diag, &again) != GM_OK)
        return gir_fail(file, "%s: the printed text does not parse: %s", what, diag.message);
    char *twice = print_module(file, again);
    ir_module_free(again);
    if (strcmp(once, twice) == 0) return true;
    return gir_fail(file, "%s: prints differently after being parsed again, from line %d", what,
                    line_of_difference(once, twice));
}

static bool check_error(gir_file *file, const char *want) {
    gm_diag diag = {0};
    ir_module *module = NULL;
    if (ir_parse(file->text, file->bytes, file->path, &diag, &module) == GM_OK) {
        ir_module_free(module);
        return gir_fail(file, "parses, but should fail with \"%s\"", want);
    }
    if (*want && strstr(diag.message, want)) return true;
    return gir_fail(file, "fails with \"%s\" instead of \"%s\"", diag.message, want);
}

/* Writes what is printed under "# expect:", which a file that runs passes may lack. */
static bool bless(gir_file *file, const char *printed) {
    FILE *out = fopen(file->path, "wb");
    size_t kept = file->expect ? file->expect_offset : file->bytes;
    if (!out) return gir_fail(file, "cannot be written");
    fwrite(file->text, 1, kept, out);
    if (kept && file->text[kept - 1] != '\n') fputc('\n', out);
    if (!file->expect) fputs("# expect:\n", out);
    for (const char *line = printed; *line;) {
        size_t length = strcspn(line, "\n");
        fprintf(out, "#%s%.*s\n", length ? " " : "", (int)length, line);
        line += length + (line[length] == '\n');
    }
    return fclose(out) == 0 || gir_fail(file, "cannot be written");
}

static bool check_expectation(gir_file *file, bool blessing) {
    char *printed = print_module(file, file->after);
    if (file->expect && strcmp(printed, file->expect) == 0) return true;
    if (blessing) return bless(file, printed);
    int line = line_of_difference(printed, file->expect);
    char *found = line_of(file, printed, line), *wanted = line_of(file, file->expect, line);
    return gir_fail(file, "line %d of the expectation is\n  %s\nbut this is printed (--bless writes it):\n  %s", line,
                    wanted, found);
}

/* ---- passes ---- */

static bool read_precision(gir_file *file, const char *word, pass_precision *out) {
    static const struct {
        const char *word;
        pass_precision value;
    } words[] = {
        {"f32", PASS_F32}, {"bf16", PASS_BF16}, {"int16", PASS_INT16}, {"int8", PASS_INT8}, {"block8", PASS_BLOCK8}};
    for (size_t i = 0; i < GM_COUNT(words); i++)
        if (strcmp(words[i].word, word) == 0) return *out = words[i].value, true;
    return gir_fail(file, "no precision is called %s", word);
}

/* "# options: context 64 chunk 4 rows 2 precision int8 tiles 1 wide v_proj,o_proj", any of them; wide none: an empty
 * list. */
static bool read_options(gir_file *file, pass_options *out) {
    *out = (pass_options){.context = 64, .chunk = 4, .rows = 4};
    const char *text = directive_of(file, "options");
    char key[32], word[32];
    int used;
    for (; text && sscanf(text, " %31s %31s%n", key, word, &used) == 2; text += used) {
        char *stop;
        long value = strtol(word, &stop, 10);
        if (strcmp(key, "precision") == 0) {
            if (!read_precision(file, word, &out->precision)) return false;
            continue;
        }
        if (strcmp(key, "wide") == 0) {
            out->wide = strcmp(word, "none") == 0 ? "" : gm_arena_strdup(&file->arena, word);
            continue;
        }
        if (*stop) return gir_fail(file, "option %s is not a number: %s", key, word);
        if (strcmp(key, "context") == 0) out->context = value;
        else if (strcmp(key, "chunk") == 0) out->chunk = value;
        else if (strcmp(key, "rows") == 0) out->rows = value;
        else if (strcmp(key, "tiles") == 0) out->tiles = value;
        else if (strcmp(key, "artefact") == 0) out->artefact = value;
        else return gir_fail(file, "no option is called %s", key);
    }
    return !text || !text[strspn(text, " ")] || gir_fail(file, "options are pairs of a name and a value");
}

/* Run a pass, or the whole pipeline, on file->after. */
static bool run_pass(gir_file *file, const char *name) {
    pass_options options;
    gm_diag diag = {0};
    ir_module *out = NULL;
    gm_status status;
    char *before = print_module(file, file->after);
    if (!read_options(file, &options)) return false;
    const pass_info *pass = pass_find(name, strlen(name));
    if (strcmp(name, "pipeline") == 0) {
        const pass_pipeline_request request = {.options = &options};
        status = pass_run(&request, ir_rewrite_module(file->after, NULL, NULL), &diag, &out);
    } else if (pass) status = pass->run(&options, file->after, &diag, &out);
    else return gir_fail(file, "no pass is called %s", name);
    if (status != GM_OK) return gir_fail(file, "pass %s: %s", name, diag.message);
    bool kept = strcmp(before, print_module(file, file->after)) == 0;
    if (file->after != file->module) ir_module_free(file->after);
    file->after = out;
    if (!kept) return gir_fail(file, "pass %s changed its input", name);
    return ir_verify(out, name, &diag) == GM_OK || gir_fail(file, "%s", diag.message);
}

static bool run_passes(gir_file *file, const char *list) {
    char *names = gm_arena_strdup(&file->arena, list ? list : ""), *rest = NULL;
    for (char *name = strtok_r(names, ", ", &rest); name; name = strtok_r(NULL, ", ", &rest))
        if (!run_pass(file, name)) return false;
    return true;
}

/* ---- runs ---- */

typedef struct emit_sink {
    gir_outcome *outcome;
    gm_arena *arena;
} emit_sink;

static void take_token(void *user, int32_t token) {
    gir_outcome *out = ((emit_sink *)user)->outcome;
    if (out->emitted_count == out->emitted_capacity) {
        int32_t *grown = GM_NEW_ARRAY(((emit_sink *)user)->arena, int32_t, 2 * out->emitted_capacity + 16);
        if (out->emitted_count) memcpy(grown, out->emitted, sizeof *grown * (size_t)out->emitted_count);
        out->emitted = grown;
        out->emitted_capacity = 2 * out->emitted_capacity + 16;
    }
    out->emitted[out->emitted_count++] = token;
}

gm_status gir_run(gir_file *file, gir_run_fn *run, const ir_module *module, const ir_func *func, const ir_array *args,
                  gir_outcome *out, gm_diag *diag) {
    emit_sink sink = {out, &file->arena};
    ir_interp_env env = {.weights = &file->weights, .emit = take_token, .user = &sink};
    *out = (gir_outcome){.results = GM_NEW_ARRAY(&file->arena, ir_array, func->body->yield_count + 1)};
    return run(module, func->name, &env, args, func->body->param_count, &file->arena, out->results, diag);
}

/* One function on one seed: interp of the module as written against `run` of the module after the passes. */
static bool compare_run(gir_file *file, gir_run_fn *run, const char *what, const ir_func *before, const ir_func *after,
                        uint64_t seed) {
    gm_diag diag = {0};
    gir_outcome want, got;
    ir_array *args = GM_NEW_ARRAY(&file->arena, ir_array, before->body->param_count + 1);
    if (!gir_random_args(file, file->module, before, after, seed, args)) return false;
    if (gir_run(file, ir_interp, file->module, before, args, &want, &diag) != GM_OK)
        return gir_fail(file, "interpreting: %s", diag.message);
    if (gir_run(file, run, file->after, after, args, &got, &diag) != GM_OK)
        return gir_fail(file, "%s: %s", what, diag.message);
    if (before->body->yield_count != after->body->yield_count)
        return gir_fail(file, "%s: @%s has another number of results", what, before->name);
    return gir_same_outcome(file, file->module, before, &want, &got, what);
}

static bool compare_runs(gir_file *file, gir_run_fn *run, const char *what, const char *seeds) {
    int count = atoi(seeds), compared = 0;
    if (count < 1) return gir_fail(file, "%s needs a number of seeds", what);
    for (int i = 0; i < file->module->func_count; i++) {
        const ir_func *before = file->module->funcs[i], *after = ir_func_find(file->after, before->name);
        if (!after) continue;
        compared++;
        for (int seed = 1; seed <= count; seed++)
            if (!compare_run(file, run, what, before, after, (uint64_t)seed))
                return gir_fail(file, "@%s, seed %d: %s", before->name, seed, gm_arena_strdup(&file->arena, file->why));
    }
    return compared || gir_fail(file, "%s: no function is left after the passes", what);
}

/* "@f …": the function in the module after the passes; *rest is what follows its name. */
static const ir_func *called(gir_file *file, const char *text, const char **rest) {
    size_t length = strcspn(text, " ");
    const char *name = gm_arena_strndup(&file->arena, text, length);
    const ir_func *func = name[0] == '@' ? ir_func_find(file->after, name + 1) : NULL;
    if (!func) gir_fail(file, "no function is called %s", name);
    *rest = text + length;
    return func;
}

static bool check_emitted(gir_file *file, const char *text, const gir_outcome *outcome) {
    int n = 0;
    for (const char *at = text;; n++) {
        at += strspn(at, " ,[]");
        if (!*at) break;
        char *stop;
        long want = strtol(at, &stop, 10);
        if (stop == at) return gir_fail(file, "expected a token at \"%.20s\"", at);
        if (n >= outcome->emitted_count || outcome->emitted[n] != want)
            return gir_fail(file, "token %d is not %ld", n, want);
        at = stop;
    }
    return n == outcome->emitted_count || gir_fail(file, "%d tokens instead of %d", outcome->emitted_count, n);
}

/* The directive at `*at` is a call; the expectations follow it. */
static bool check_call(gir_file *file, int *at) {
    const char *rest;
    const ir_func *func = called(file, file->directives[*at].rest, &rest);
    if (!func) return false;
    gm_diag diag = {0};
    gir_outcome outcome;
    ir_array *args = GM_NEW_ARRAY(&file->arena, ir_array, func->body->param_count + 1);
    if (!gir_parse_args(file, file->after, func, rest, args)) return false;
    if (gir_run(file, ir_interp, file->after, func, args, &outcome, &diag) != GM_OK)
        return gir_fail(file, "calling: %s", diag.message);
    int checks = 0;
    for (; *at + 1 < file->directive_count; ++*at, ++checks) {
        const gir_directive *next = &file->directives[*at + 1];
        if (strcmp(next->key, "expect-values") == 0) {
            if (!gir_check_values(file, file->after, func, next->rest, outcome.results)) return false;
        } else if (strcmp(next->key, "expect-emitted") == 0) {
            if (!check_emitted(file, next->rest, &outcome)) return false;
        } else break;
    }
    return checks || gir_fail(file, "a call expects nothing");
}

static bool check_call_fails(gir_file *file, const char *text) {
    const char *tilde = strstr(text, " ~ "), *rest;
    if (!tilde) return gir_fail(file, "call-fails needs \"~ text\"");
    char *call = gm_arena_strndup(&file->arena, text, (size_t)(tilde - text));
    const ir_func *func = called(file, call, &rest);
    if (!func) return false;
    gm_diag diag = {0};
    gir_outcome outcome;
    ir_array *args = GM_NEW_ARRAY(&file->arena, ir_array, func->body->param_count + 1);
    if (!gir_parse_args(file, file->after, func, rest, args)) return false;
    if (gir_run(file, ir_interp, file->after, func, args, &outcome, &diag) == GM_OK)
        return gir_fail(file, "%s runs, but should fail with \"%s\"", call, tilde + 3);
    if (strstr(diag.message, tilde + 3)) return true;
    return gir_fail(file, "%s fails with \"%s\" instead of \"%s\"", call, diag.message, tilde + 3);
}

static bool run_directives(gir_file *file, int *checks) {
    for (int i = 0; i < file->directive_count; i++) {
        const gir_directive *d = &file->directives[i];
        bool ok = true;
        if (strcmp(d->key, "same-values") == 0) ok = compare_runs(file, ir_interp, "after the passes", d->rest);
        else if (strcmp(d->key, "jit") == 0)
            ok = compare_runs(file, gir_jit ? gir_jit : ir_interp, "compiled", d->rest);
        else if (strcmp(d->key, "same-steps") == 0)
            ok = gir_check_steps(file, file->module, ir_interp, "after the passes", d->rest);
        else if (strcmp(d->key, "jit-steps") == 0)
            ok = gir_check_steps(file, file->after, gir_jit ? gir_jit : ir_interp, "compiled", d->rest);
        else if (strcmp(d->key, "call") == 0) ok = check_call(file, &i);
        else if (strcmp(d->key, "call-fails") == 0) ok = check_call_fails(file, d->rest);
        else if (strncmp(d->key, "expect-", 7) == 0) ok = gir_fail(file, "%s without a call", d->key);
        else continue;
        if (!ok) return false;
        ++*checks;
    }
    return true;
}

/* ---- one file ---- */

static bool check_module(gir_file *file, bool blessing) {
    int checks = file->expect != NULL;
    if (!check_round_trip(file, file->module, "as written")) return false;
    if (!run_passes(file, directive_of(file, "run"))) return false;
    if (!check_round_trip(file, file->after, "after the passes")) return false;
    if (!gir_make_weights(file, file->module) || !gir_make_weights(file, file->after)) return false;
    if (!run_directives(file, &checks)) return false;
    bool prints = file->expect || (blessing && directive_of(file, "run"));
    if (prints && !check_expectation(file, blessing)) return false;
    return checks || gir_fail(file, "checks nothing");
}

static bool check_file(gir_file *file, bool blessing) {
    if (!read_bytes(file)) return false;
    read_directives(file);
    if (file->why[0]) return false;
    const char *error = directive_of(file, "expect-error");
    if (error) return check_error(file, error);
    gm_diag diag = {0};
    if (ir_parse(file->text, file->bytes, file->path, &diag, &file->module) != GM_OK)
        return gir_fail(file, "%s", diag.message);
    file->after = file->module;
    return check_module(file, blessing);
}

typedef struct tally {
    int passed, failed;
    bool bless;
} tally;

static void test_file(const char *path, tally *sum) {
    gir_file file = {.path = path};
    bool ok = check_file(&file, sum->bless);
    if (ok) sum->passed++;
    else sum->failed++;
    if (!ok) printf("%s: %s\n", path, file.why);
    if (file.after != file.module) ir_module_free(file.after);
    ir_module_free(file.module);
    rt_weights_close(&file.weights);
    gm_arena_free(&file.arena);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void test_path(const char *path, tally *sum) {
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        test_file(path, sum);
        return;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, by_name);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        size_t length = strlen(name);
        char child[4096];
        snprintf(child, sizeof child, "%s/%s", path, name);
        bool folder = name[0] != '.' && stat(child, &info) == 0 && S_ISDIR(info.st_mode);
        if (folder || (length > 4 && strcmp(name + length - 4, ".gir") == 0)) test_path(child, sum);
        free(entries[i]);
    }
    if (count >= 0) free(entries);
}

int main(int argc, char **argv) {
    tally sum = {0};
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        puts("usage: gir_test [--bless] [--target-cpu CPU] FILE|FOLDER…");
        return argc < 2;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bless") == 0) sum.bless = true;
        else if (strcmp(argv[i], "--target-cpu") == 0 && i + 1 < argc) gir_target_cpu = argv[++i];
        else test_path(argv[i], &sum);
    }
    printf("%d passed, %d failed\n", sum.passed, sum.failed);
    return sum.failed || !sum.passed;
}
