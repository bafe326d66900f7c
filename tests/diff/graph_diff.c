/* Seeded random graphs computed every way there is: graph_diff FIRST COUNT
 *
 * For each seed: the interpreter's results must stay the same after every pass, and compiled code must give them too,
 * both for the graph as it was made and for what the passes left of it. Random graphs amplify rounding without bounds
 * (1/x, x < y), so the tolerance comes from the graph itself: the interpreter also runs copies in which every inexact
 * operation is off by about one unit in the 20th place, and what those move may move as far again. Each seed has a
 * process of its own; a failing graph is printed as .gir. */
#include "tests/random_module.h"

#include "frontend/gir_run.h"
#include "ir/rewrite.h"
#include "passes/passes.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NUDGES = 6, RESULTS = 8, TOKENS = 4096, SECONDS = 60 };
static const char passes[] =
    "fold,cse,dce,merge_qkv,merge_gate_up,drop_unit_map,batch_attention,fold,cse,dce,fuse_attention,"
    "choose_matmul,legalize,fuse_rows,kv_in_place";

/* What one way of running @f gave. */
typedef struct outcome {
    ir_array results[RESULTS];
    int32_t tokens[TOKENS];
    int token_count;
} outcome;

typedef struct trial {
    uint64_t seed;
    ir_module *module;
    int result_count;
    gm_arena arena;
    ir_array args[RANDOM_ARGS];
    outcome want, nudged[NUDGES], got;
    bool failed;
} trial;

static void fail(trial *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(trial *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    printf("seed %llu: ", (unsigned long long)t->seed);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    t->failed = true;
}

/* ---- running ---- */

static void take_token(void *user, int32_t token) {
    outcome *out = user;
    if (out->token_count < TOKENS) out->tokens[out->token_count] = token;
    out->token_count++;
}

typedef gm_status run_fn(const ir_module *module, const char *func, const ir_interp_env *env, const ir_array *args,
                         int arg_count, gm_arena *arena, ir_array *results, gm_diag *diag);

static bool run(trial *t, run_fn *how, const ir_module *module, const char *what, outcome *out) {
    gm_diag diag = {.quiet = true};
    ir_interp_env env = {.emit = take_token, .user = out};
    out->token_count = 0;
    if (how(module, "f", &env, t->args, RANDOM_ARGS, &t->arena, out->results, &diag) == GM_OK) return true;
    fail(t, "%s: %s", what, diag.message);
    return false;
}

/* ---- graphs that are a little off ---- */

static bool is_inexact(const ir_inst *inst) {
    switch (inst->op) {
    case IR_EXP:
    case IR_LOG:
    case IR_TANH:
    case IR_ERF:
    case IR_SIN:
    case IR_COS:
    case IR_RSQRT:
    case IR_REDUCE_SUM:
    case IR_MATMUL:
    case IR_SCALED_MATMUL:
    case IR_EINSUM: return inst->results[0]->type.dtype == RT_F32;
    default: return false;
    }
}

static bool nudge(ir_rewrite *rewrite, const ir_inst *inst) {
    uint64_t *state = rewrite->user;
    if (!is_inexact(inst)) return false;
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    double step = (*state >> 40 & 1 ? 1 : -1) * ldexp(1, -20);
    ir_value *y = ir_rewrite_clone(rewrite, inst)->results[0];
    y = ir_binary(&rewrite->b, IR_MUL, y, ir_const_float(&rewrite->b, 1 + step));
    ir_rewrite_map(rewrite, inst->results[0], ir_binary(&rewrite->b, IR_ADD, y, ir_const_float(&rewrite->b, step / 2)));
    return true;
}

static bool run_nudged(trial *t) {
    bool ok = true;
    for (int i = 0; i < NUDGES && ok; i++) {
        uint64_t state = t->seed * 2654435761u + (uint64_t)i;
        ir_module *module = ir_rewrite_module(t->module, nudge, &state);
        ok = run(t, ir_interp, module, "a nudged copy", &t->nudged[i]);
        ir_module_free(module);
    }
    return ok;
}

/* ---- comparing ---- */

static double element(const ir_array *tensor, int64_t i) {
    float value = 0;
    switch (tensor->dtype) {
    case RT_I32: return ((const int32_t *)tensor->data)[i];
    case RT_BOOL: return ((const uint8_t *)tensor->data)[i];
    default: break;
    }
    rt_dequantize_row(tensor->dtype, (const char *)tensor->data + rt_dtype_bytes(tensor->dtype, (size_t)i), &value, 1);
    return (double)value;
}

static double distance(double a, double b) {
    if (a == b || (isnan(a) && isnan(b))) return 0;
    return isfinite(a) && isfinite(b) ? fabs(a - b) : INFINITY;
}

/* How far element i may be from what the interpreter gave. */
static double slack(const trial *t, int result, int64_t i) {
    const ir_array *want = &t->want.results[result];
    double value = element(want, i), moved = 0;
    for (int k = 0; k < NUDGES; k++) moved = fmax(moved, distance(element(&t->nudged[k].results[result], i), value));
    if (moved == INFINITY) return INFINITY;
    if (want->dtype == RT_I32 || want->dtype == RT_BOOL) return moved > 0 ? INFINITY : 0;
    double unit = want->dtype == RT_BF16 ? 8e-3 : want->dtype == RT_F16 ? 1e-3 : 2e-6;
    return !isfinite(value) ? 0 : moved > 0 ? 8 * moved + unit * fabs(value) + 1e-6 : unit * fabs(value);
}

static void compare_result(trial *t, int result, const char *what) {
    const ir_array *want = &t->want.results[result], *got = &t->got.results[result];
    bool same = want->dtype == got->dtype && want->rank == got->rank;
    for (int d = 0; same && d < want->rank; d++) same = want->dim[d] == got->dim[d];
    if (!same) {
        fail(t, "%s: result %d has another shape", what, result);
        return;
    }
    for (int64_t i = 0; i < ir_array_elems(want); i++) {
        double a = element(want, i), b = element(got, i);
        if (distance(a, b) <= slack(t, result, i)) continue;
        fail(t, "%s: element %lld of result %d is %.9g, interpreted as written %.9g", what, (long long)i, result, b, a);
        return;
    }
}

static bool same_tokens(const outcome *a, const outcome *b) {
    int count = a->token_count < TOKENS ? a->token_count : TOKENS;
    return a->token_count == b->token_count && memcmp(a->tokens, b->tokens, (size_t)count * sizeof *a->tokens) == 0;
}

static void compare(trial *t, const char *what) {
    for (int i = 0; i < t->result_count && !t->failed; i++) compare_result(t, i, what);
    for (int k = 0; k < NUDGES; k++)
        if (!same_tokens(&t->want, &t->nudged[k])) return;
    if (!t->failed && !same_tokens(&t->want, &t->got)) fail(t, "%s: emits other tokens", what);
}

/* ---- one seed ---- */

static void after_step(void *user, const pass_step *step) {
    trial *t = user;
    if (t->failed || !step->changed) return;
    if (run(t, ir_interp, step->after, step->pass->name, &t->got)) compare(t, step->pass->name);
}

static void run_passes(trial *t, ir_module **out) {
    pass_options limits = {.context = 8, .chunk = 4, .rows = 4};
    pass_pipeline_request request = {
        .options = &limits, .list = passes, .want_changed = true, .after_step = after_step, .user = t};
    gm_diag diag = {.quiet = true};
    if (pass_run(&request, ir_rewrite_module(t->module, NULL, NULL), &diag, out) != GM_OK)
        fail(t, "passes: %s", diag.message);
}

static void print(const ir_module *module) {
    gm_string text = {0};
    ir_print_module(module, &text);
    fwrite(text.data, 1, text.length, stdout);
    gm_string_free(&text);
}

static bool check_seed(uint64_t seed) {
    trial *t = calloc(1, sizeof *t);
    if (!t) return false;
    ir_module *final = NULL;
    t->seed = seed;
    t->module = random_module(seed);
    t->result_count = ir_func_find(t->module, "f")->body->yield_count;
    random_args(seed, &t->arena, t->args);
    bool ok = run(t, ir_interp, t->module, "interpreted", &t->want) && run_nudged(t);
    if (ok) run_passes(t, &final);
    if (!t->failed && run(t, fe_gir_run_jit, t->module, "compiled as written", &t->got))
        compare(t, "compiled as written");
    if (!t->failed && run(t, fe_gir_run_jit, final, "compiled after the passes", &t->got))
        compare(t, "compiled after the passes");
    ok = !t->failed;
    ir_module_free(final);
    ir_module_free(t->module);
    gm_arena_free(&t->arena);
    free(t);
    return ok;
}

/* In a process of its own, so that a crash is one seed's. */
static bool check_apart(uint64_t seed) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(SECONDS);
        bool ok = check_seed(seed);
        fflush(stdout);
        _exit(!ok);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return false;
    if (WIFSIGNALED(status)) printf("seed %llu: signal %d\n", (unsigned long long)seed, WTERMSIG(status));
    return status == 0;
}

int main(int argc, char **argv) {
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, count = argc > 2 ? strtoull(argv[2], NULL, 10) : 50;
    bool quiet = argc > 3 && strcmp(argv[3], "quiet") == 0;
    int failed = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        if (check_apart(seed)) continue;
        failed++;
        ir_module *module = random_module(seed);
        if (!quiet) print(module);
        ir_module_free(module);
    }
    printf("%llu graphs, %d failed\n", (unsigned long long)count, failed);
    return failed != 0;
}
