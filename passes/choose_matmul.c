/* choose_matmul: say how each matmul will run, and each attention that is not done in floats, in its `impl` attribute.
 *
 *   gemv        compiled matrix-vector kernel on the stored blocks: at most RT_FEW_ROWS rows of x, so reading W is
 *               the cost. Each row as if it were alone, to the bit: drafted tokens are verified so
 *   gemv_int16  the same with x in 15 bits for each 32 columns, where the target and the type of W have it
 *               (codegen/dot_int.c, and dot_rows.c where interleave_rows turns W to it): every plan but f32. Not for
 *               products that a function returns: those are logits, which near ties and the rows of a screened head
 *               want as they are
 *   stream      slices of W widened by compiled code and multiplied in f32 by oneDNN: no second copy of the weights
 *   packed      oneDNN on weights rounded to bf16 and packed once at load: the bf16 plan, as long as the copies stay
 *               small
 *   tiles       compiled products of bf16, W rounded on the way: the bf16 plan where the target has tile registers,
 *               from INTEGER_ROWS rows of x on
 *   integer     compiled integer products: the int16, int8 and block8 plans, for at least INTEGER_ROWS rows of x, since
 *               W is rounded on the way
 *
 * attention of more than RT_FEW_ROWS tokens: int16 in every plan but f32, its products in integers as well
 * (codegen/attention_int16.c); tiles in the bf16 plan where the target has tile registers, its products in bf16 where
 * the KV cache is it (codegen/attention_tiles.c). Of fewer tokens: int16 in every plan but f32, where the cache is i8
 * with a scale for each 32 columns (codegen/attention_one_int16.c)
 *
 * The copies are small when one product has at most PACKED_MAX_ELEMS elements of bf16 (the head has more) and all
 * together at most PACKED_MAX_TOTAL; products beyond are streamed. An impl that is there already is left alone. Changes
 * no value beyond the order of sums and, by int16, the last bits of x, in attention what 12 bits or bf16 lose, of few
 * tokens what 16 bits do.
 *
 * These are rules. Some of what they choose has alternatives of the very same arithmetic, of which options->measure may
 * know how long each takes: then the fastest is chosen, the rule's own unless another is faster by MARGIN. So the plan
 * that is run, and how exact it is, never depends on a clock.
 *
 *   integer                   tiles of other heights: the same bits
 *   stream in the f32 plan    packed, as f32, while the copies stay as small: another order of sums
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include "runtime/abi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACKED_MAX_ELEMS ((int64_t)64 << 20)
#define PACKED_MAX_TOTAL ((int64_t)2 << 30)
#define MARGIN           0.05
enum { INTEGER_ROWS = 64, MAX_WAYS = 3, WHY_BYTES = 256 };
/* W in whole panels on every target (codegen/integer.c). */
enum { INTEGER_W_ROWS = 32, INTEGER_W_COLUMNS = 32 };

typedef struct choice {
    const pass_options *options;
    int64_t packed;             /* elements of bf16 so far */
    gm_arena arena;             /* texts of candidates */
    pass_candidate *candidates; /* of products that are alike in a row */
    size_t count, capacity;
    const ir_module *module; /* while candidates are collected, and the function */
    const ir_func *func;
} choice;

/* ---- rules ---- */

/* An impl, with its reason in why[WHY_BYTES]. */
#define RULE(impl, ...) (snprintf(why, WHY_BYTES, __VA_ARGS__), impl)

static bool integer_takes(const ir_inst *inst) {
    if (inst->operands[0]->type.dtype != RT_F32) return false;
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_type *w = &inst->operands[i]->type;
        if (w->dim[0] % INTEGER_W_ROWS || w->dim[1] % INTEGER_W_COLUMNS) return false;
    }
    return true;
}

static bool is_returned(const ir_func *func, const ir_value *value) {
    for (int i = 0; i < func->body->yield_count; i++)
        if (func->body->yields[i] == value) return true;
    return false;
}

static int64_t elems_of(const ir_inst *inst) {
    const ir_type *x = &inst->operands[0]->type, *y = &inst->results[0]->type;
    return y->dim[y->rank - 1] * x->dim[x->rank - 1];
}

/* Elements of bf16 that the next copy may have. */
static int64_t room_of(const choice *state) {
    int64_t left = PACKED_MAX_TOTAL - state->packed;
    return left < PACKED_MAX_ELEMS ? left : PACKED_MAX_ELEMS;
}

#define FEW "rows of x: %lld, at most %d: reading W is the cost"

static const char *rule_of(const ir_module *module, const ir_func *func, const choice *state, const ir_inst *inst,
                           char *why) {
    const ir_type *x = &inst->operands[0]->type;
    const char *plan = pass_precision_text(state->options->precision);
    int64_t rows = 1;
    for (int i = 0; i + 1 < x->rank; i++) {
        if (ir_dim_is_symbol(x->dim[i])) rows = INT32_MAX;
        else rows *= x->dim[i];
    }
    if (rows <= RT_FEW_ROWS && state->options->precision == PASS_F32)
        return RULE("gemv", FEW ", the f32 plan leaves x as it is", (long long)rows, RT_FEW_ROWS);
    if (rows <= RT_FEW_ROWS && is_returned(func, inst->results[0]))
        return RULE("gemv", FEW ", a product that is returned leaves x as it is", (long long)rows, RT_FEW_ROWS);
    if (rows <= RT_FEW_ROWS)
        return RULE("gemv_int16", FEW ", plan %s takes x in 15 bits for each 32 columns", (long long)rows, RT_FEW_ROWS,
                    plan);
    bool integer = state->options->precision != PASS_F32 && state->options->precision != PASS_BF16;
    int64_t most = ir_type_max_rows(module, x), elems = elems_of(inst), room = room_of(state);
    if (integer && most >= INTEGER_ROWS && integer_takes(inst))
        return RULE("integer", "plan %s; rows of x: up to %lld, at least %d: they pay for rounding W on the way", plan,
                    (long long)most, INTEGER_ROWS);
    if (integer && most < INTEGER_ROWS)
        return RULE("stream", "rows of x: up to %lld, fewer than %d: they do not pay for rounding W", (long long)most,
                    INTEGER_ROWS);
    if (integer)
        return RULE("stream", "x is not f32, or W not of whole panels of %d rows and %d columns", INTEGER_W_ROWS,
                    INTEGER_W_COLUMNS);
    if (state->options->precision == PASS_BF16 && state->options->tiles && most >= INTEGER_ROWS && integer_takes(inst))
        return RULE("tiles",
                    "plan bf16, the target has tile registers; rows of x: up to %lld, at least %d: they pay for "
                    "rounding W on the way",
                    (long long)most, INTEGER_ROWS);
    if (state->options->precision != PASS_BF16) return RULE("stream", "plan %s: W is widened a slice at a time", plan);
    if (elems > room)
        return RULE("stream", "W has %lld elements: a copy in bf16 may have %lld", (long long)elems, (long long)room);
    return RULE("packed", "plan bf16, W has %lld elements: a copy in bf16 may have %lld", (long long)elems,
                (long long)room);
}

/* ---- what has been measured ---- */

typedef struct way {
    const char *impl;
    int64_t tile;
} way;

/* The ways to do exactly what the rule's does, that one first; returns how many. */
static int ways_of(const choice *state, const ir_inst *inst, const char *rule, way *out) {
    int count = 0;
    out[count++] = (way){rule, 0};
    if (strcmp(rule, "integer") == 0) out[count++] = (way){rule, 4}, out[count++] = (way){rule, 8};
    if (strcmp(rule, "stream") == 0 && state->options->precision == PASS_F32 && 2 * elems_of(inst) <= room_of(state))
        out[count++] = (way){"packed", 0};
    return count;
}

/* "int16 f32[576,640] q5_0[1024,640] …", in the arena. */
static const char *describe(gm_arena *arena, const choice *state, const ir_module *module, const ir_inst *inst) {
    char text[96];
    const char *all = pass_precision_text(state->options->precision);
    for (int i = 0; i < inst->operand_count; i++) {
        ir_type type = inst->operands[i]->type;
        for (int d = 0; d < type.rank; d++) type.dim[d] = ir_dim_max(module, type.dim[d]);
        all = gm_arena_printf(arena, "%s %s", all, ir_type_text(module, &type, text));
    }
    return all;
}

static void add_candidate(choice *state, const ir_inst *inst, const char *what, const way *w) {
    if (state->count == state->capacity) {
        state->capacity = state->capacity ? 2 * state->capacity : 32;
        state->candidates = realloc(state->candidates, state->capacity * sizeof *state->candidates);
        GM_ASSERT(state->candidates);
    }
    const char *words =
        w->tile ? gm_arena_printf(&state->arena, "%s, tile %lld", w->impl, (long long)w->tile) : w->impl;
    state->candidates[state->count++] =
        (pass_candidate){.product = inst, .what = what, .impl = w->impl, .tile = w->tile, .choice = words};
}

/* The candidates of products like this, *out_count of them; NULL: none. */
static const pass_candidate *candidates_of(const choice *state, const char *what, int *out_count) {
    const pass_candidate *first = NULL;
    *out_count = 0;
    for (size_t i = 0; i < state->count; i++) {
        if (strcmp(state->candidates[i].what, what) != 0) continue;
        if (!first) first = &state->candidates[i];
        ++*out_count;
    }
    return first;
}

static bool is_open(const ir_inst *inst) {
    return inst->op == IR_MATMUL && !ir_attr_find(inst, IR_ATTR_IMPL);
}

static void collect(const ir_inst *inst, void *user) {
    choice *state = user;
    way ways[MAX_WAYS];
    char why[WHY_BYTES];
    int known;
    if (!is_open(inst)) return;
    int count = ways_of(state, inst, rule_of(state->module, state->func, state, inst, why), ways);
    const char *what = describe(&state->arena, state, state->module, inst);
    if (count < 2 || candidates_of(state, what, &known)) return;
    for (int i = 0; i < count; i++) add_candidate(state, inst, what, &ways[i]);
}

static gm_status measure(choice *state, const ir_module *in, gm_diag *diag) {
    state->module = in;
    for (int i = 0; i < in->func_count; i++) {
        state->func = in->funcs[i];
        ir_visit(state->func->body, collect, state);
    }
    return state->count
               ? state->options->measure(state->options->measure_user, in, state->candidates, state->count, diag)
               : GM_OK;
}

/* The fastest of `count` candidates, of which the first is the rule's; NULL: not all are known. */
static const pass_candidate *fastest_of(const pass_candidate *candidates, int count) {
    const pass_candidate *best = candidates;
    for (int i = 0; i < count; i++) {
        double limit = best == candidates ? (1 - MARGIN) * best->seconds : best->seconds;
        if (!(candidates[i].seconds > 0)) return NULL;
        if (candidates[i].seconds < limit) best = &candidates[i];
    }
    return best;
}

/* "measured 0.41 ms of one thread; stream 0.97 ms" */
static void explain(const pass_candidate *candidates, int count, const pass_candidate *best, char *why) {
    int length = snprintf(why, WHY_BYTES, "measured %.3g ms of one thread", 1e3 * best->seconds);
    for (int i = 0; i < count && length < WHY_BYTES; i++)
        if (&candidates[i] != best)
            length += snprintf(why + length, (size_t)(WHY_BYTES - length), "; %s %.3g ms", candidates[i].choice,
                               1e3 * candidates[i].seconds);
}

/* ---- the choice ---- */

/* Measured, where everything that may be chosen is; by rule else. */
static way way_of(choice *state, const ir_module *module, const ir_func *func, const ir_inst *inst) {
    char why[WHY_BYTES];
    way ways[MAX_WAYS];
    gm_arena arena = {0};
    const char *rule = rule_of(module, func, state, inst, why), *name = rule;
    int count = ways_of(state, inst, rule, ways), known;
    const pass_candidate *candidates = candidates_of(state, describe(&arena, state, module, inst), &known),
                         *best = NULL;
    if (candidates && known == count && strcmp(candidates->impl, rule) == 0) best = fastest_of(candidates, count);
    if (best) explain(candidates, count, best, why), name = best->choice;
    way chosen = best ? (way){best->impl, best->tile} : ways[0];
    if (strcmp(chosen.impl, "packed") == 0)
        state->packed += state->options->precision == PASS_F32 ? 2 * elems_of(inst) : elems_of(inst);
    ir_decide(state->options->decisions, "choose_matmul", module, func, inst, name, "%s", why);
    gm_arena_free(&arena);
    return chosen;
}

/* Are the keys i8 with a scale for each IR_SCALE_RUN columns? */
static bool by_runs(const ir_inst *attention) {
    const ir_type *k = &attention->operands[1]->type;
    return attention->operand_count == 6 && k->dtype == RT_I8 &&
           attention->operands[4]->type.dim[2] * IR_SCALE_RUN == k->dim[2];
}

/* How this attention runs; NULL: as it is, or no attention. */
static const char *attention_impl(const choice *state, const ir_inst *inst) {
    const pass_options *options = state->options;
    if (inst->op != IR_ATTENTION || ir_attr_find(inst, IR_ATTR_IMPL) || options->precision == PASS_F32) return NULL;
    ir_dim tokens = inst->operands[0]->type.dim[0];
    if (!ir_dim_is_symbol(tokens) && tokens <= RT_FEW_ROWS) return by_runs(inst) ? "int16" : NULL;
    return options->precision == PASS_BF16 && options->tiles ? "tiles" : "int16";
}

static bool choose(ir_rewrite *rw, const ir_inst *inst) {
    const char *attention = attention_impl(rw->user, inst);
    if (!attention && !is_open(inst)) return false;
    way chosen = attention ? (way){attention, 0} : way_of(rw->user, rw->in, rw->in_func, inst);
    const ir_inst *with = ir_rewrite_with(rw, inst, ir_attr_make_string(IR_ATTR_IMPL, chosen.impl));
    ir_rewrite_clone(rw, chosen.tile ? ir_rewrite_with(rw, with, ir_attr_make_int(IR_ATTR_TILE, chosen.tile)) : with);
    return true;
}

gm_status pass_choose_matmul(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    choice state = {.options = options};
    gm_status status = options->measure ? measure(&state, in, diag) : GM_OK;
    if (status == GM_OK) *out = ir_rewrite_module(in, choose, &state);
    free(state.candidates);
    gm_arena_free(&state.arena);
    return status;
}
