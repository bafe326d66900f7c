/* Measuring products: see measure.h. */
#include "frontend/measure.h"

#include "frontend/gir_program.h"
#include "ir/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Rounds over all candidates, so that a slow moment of the machine meets them all, every other one backwards, so that
 * the first way is not the one that always finds the caches cold. After LEAST_ROUNDS a candidate that has been timed
 * for long enough is left out. */
enum { LEAST_ROUNDS = 3, ROUNDS = 4, MAX_WEIGHTS = 16, NAME_BYTES = 32 };
static const double enough_s = 0.03;
/* Heavy products are run on fewer rows of x: at most so many multiplications and additions, but LEAST_ROWS at least. */
enum { LEAST_ROWS = 96 };
static const int64_t most_flop = (int64_t)2e9;

/* ---- the list ---- */

void fe_measurements_add(fe_measurements *list, const char *what, const char *choice, double seconds) {
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 32;
        list->items = realloc(list->items, list->capacity * sizeof *list->items);
        GM_ASSERT(list->items);
    }
    list->items[list->count++] =
        (fe_measurement){gm_arena_strdup(&list->arena, what), gm_arena_strdup(&list->arena, choice), seconds};
}

double fe_measurements_find(const fe_measurements *list, const char *what, const char *choice) {
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].what, what) == 0 && strcmp(list->items[i].choice, choice) == 0)
            return list->items[i].seconds;
    return 0;
}

void fe_measurements_free(fe_measurements *list) {
    gm_arena_free(&list->arena);
    free(list->items);
    *list = (fe_measurements){0};
}

/* ---- the module ---- */

static bool is_measurable(const pass_candidate *candidate) {
    const ir_inst *product = candidate->product;
    bool stored = product->operand_count <= MAX_WEIGHTS;
    for (int i = 1; i < product->operand_count; i++)
        stored &= product->operands[i]->def && ir_stored_count(product->operands[i]->def) > 0;
    return stored && !(candidate->seconds > 0);
}

static const char *name_of(size_t number, char *text) {
    snprintf(text, NAME_BYTES, "product.%zu", number);
    return text;
}

/* Type of x: with its symbols at their most, as far as the product is not too heavy. */
static ir_type type_of_x(const ir_module *from, const ir_inst *product) {
    ir_type type = product->operands[0]->type;
    const ir_type *y = &product->results[0]->type;
    int64_t most = most_flop / (2 * type.dim[type.rank - 1] * y->dim[y->rank - 1]);
    if (most < LEAST_ROWS) most = LEAST_ROWS;
    for (int d = 0; d < type.rank; d++) {
        if (!ir_dim_is_symbol(type.dim[d])) continue;
        type.dim[d] = ir_dim_max(from, type.dim[d]);
        if (type.dim[d] > most) type.dim[d] = most;
    }
    return type;
}

/* @product.N: the candidate's product with its own weights, of the first layer where they stand for many. */
static void add_product(const ir_module *from, const pass_candidate *candidate, const char *name, ir_module *to) {
    ir_builder b;
    const ir_inst *product = candidate->product;
    ir_func_new(&b, to, name);
    ir_value *operands[1 + MAX_WEIGHTS] = {ir_param(&b, b.region, type_of_x(from, product), "x")};
    for (int i = 1; i < product->operand_count; i++) {
        char text[IR_NAME_BYTES];
        operands[i] = ir_weight(&b, ir_stored_name(product->operands[i]->def, 0, text), product->operands[i]->type);
    }
    ir_attr attrs[] = {ir_attr_make_string(IR_ATTR_IMPL, candidate->impl),
                       ir_attr_make_int(IR_ATTR_TILE, candidate->tile)};
    ir_value *y = ir_emit1(&b, IR_MATMUL, operands, product->operand_count, attrs, candidate->tile ? 2 : 1, NULL);
    ir_yield(&b, &y, 1);
}

/* With a memory plan; the caller owns *out. */
static gm_status build(const fe_measuring *request, const ir_module *from, const pass_candidate *candidates,
                       size_t count, gm_diag *diag, ir_module **out) {
    ir_module *naive = ir_module_new();
    char name[NAME_BYTES];
    for (size_t i = 0; i < count; i++)
        if (is_measurable(&candidates[i])) add_product(from, &candidates[i], name_of(i, name), naive);
    pass_options options = *request->options;
    options.measure = NULL;
    options.decisions = NULL;
    pass_pipeline_request passes = {.options = &options, .list = "lower_precision,legalize,fuse_rows,plan_memory"};
    return pass_run(&passes, naive, diag, out);
}

/* ---- running ---- */

/* Buffers for the largest x and y. */
typedef struct buffers {
    float *x, *y;
} buffers;

static size_t elems_of(const ir_module *module, const ir_value *value) {
    return (size_t)ir_type_max_elems(module, &value->type);
}

static gm_status open_buffers(const ir_module *module, gm_diag *diag, buffers *out) {
    size_t x = 0, y = 0;
    uint32_t state = 1;
    for (int i = 0; i < module->func_count; i++) {
        const ir_region *body = module->funcs[i]->body;
        if (x < elems_of(module, body->params[0])) x = elems_of(module, body->params[0]);
        if (y < elems_of(module, body->yields[0])) y = elems_of(module, body->yields[0]);
    }
    out->x = aligned_alloc(64, (x * sizeof *out->x + 127) / 64 * 64);
    out->y = aligned_alloc(64, (y * sizeof *out->y + 127) / 64 * 64);
    if (!out->x || !out->y) return gm_fail(diag, GM_NOMEM, "out of memory for measuring products");
    for (size_t i = 0; i < x; i++) {
        state = state * 1664525 + 1013904223;
        out->x[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
    return GM_OK;
}

/* CPU time: what else runs on the machine counts little. */
static double process_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Returns the seconds that it took. */
static double run_once(fe_gir_program *program, const char *name, const buffers *memory, pass_candidate *candidate) {
    void *args[] = {memory->x}, *results[] = {memory->y};
    double start = process_seconds();
    fe_gir_program_run(program, name, args, results);
    double seconds = process_seconds() - start;
    if (!(candidate->seconds > 0) || seconds < candidate->seconds) candidate->seconds = seconds;
    return seconds;
}

static void run_rounds(fe_gir_program *program, const buffers *memory, pass_candidate *candidates, size_t count) {
    double *spent = calloc(count + 1, sizeof *spent);
    char name[NAME_BYTES];
    GM_ASSERT(spent);
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < count; i++) {
            size_t at = round % 2 ? count - 1 - i : i;
            if (!ir_func_find(program->module, name_of(at, name)) || (round >= LEAST_ROUNDS && spent[at] > enough_s))
                continue;
            spent[at] += run_once(program, name, memory, &candidates[at]);
        }
    free(spent);
}

gm_status fe_measure(const fe_measuring *request, const ir_module *module, pass_candidate *candidates, size_t count,
                     gm_diag *diag) {
    ir_module *planned = NULL;
    fe_gir_program program = {.module = NULL};
    buffers memory = {.y = NULL};
    bool any = false;
    for (size_t i = 0; i < count; i++) any |= is_measurable(&candidates[i]);
    if (!any) return GM_OK;
    GM_TRY(build(request, module, candidates, count, diag, &planned));
    cg_options code = {.target_cpu = request->target_cpu,
                       .threads = request->threads ? request->threads : rt_team_default_threads()};
    gm_status status = fe_gir_program_open(planned, request->weights, 1, &code, diag, &program);
    if (status == GM_OK) status = open_buffers(program.module, diag, &memory);
    if (status == GM_OK) run_rounds(&program, &memory, candidates, count);
    free(memory.x);
    free(memory.y);
    fe_gir_program_close(&program);
    return status;
}
