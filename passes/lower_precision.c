/* lower_precision: round both sides of the matrix-matrix products as the plan says.
 *
 *   bf16   %y = matmul %x, %w {impl = "packed"}    ->   %b = convert %x : bf16;  %y = matmul %b, %w {impl = "packed"}
 *          or {impl = "tiles"}
 *   int16  %y = matmul %x, %w {impl = "integer"}   ->   %q, %s = %x as integers of 13 bits in i16, a scale for each row
 *                                                       %y = scaled_matmul %q, %s, %w {bits = 12}
 *   int8   the same                                ->   %r = rotate %x
 *                                                       %q, %s = %r as integers of 8 bits in i8, a scale for each row
 *                                                       %y = scaled_matmul %q, %s, %w {bits = 8, rotate = 1}
 *   block8 the same                                ->   %q, %s = %x as integers of 8 bits in i8, a scale for each 32
 *                                                       columns
 *                                                       %y = scaled_matmul %q, %s, %w
 *          but in both for weights that options->wide names, and in block8 for those not stored in small codes: their
 *          products stay as in int16 and are joined by a concat. Layers that were rolled into a loop have one name for
 *          all, so that no word is of one of them
 *
 * The weights are rounded to bf16 when they are packed, or like those to integers on their way through the cache; sums
 * stay f32 (integer ones are exact within a group), and so do the residual stream and the matrix-vector kernels of
 * decode. Not exact: `gemmac perplexity --kl-base f32` says what it costs. An x that the products of a region share is
 * rounded once. Does nothing under the f32 plan.
 */
#include "passes/passes.h"
#include "passes/quantise.h"
#include "ir/rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum rounding { ROUND_BF16, ROUND_INT16, ROUND_INT8, ROUND_BLOCK8, ROUNDINGS } rounding;

/* 256 products of x with w stay below 2^31 (scaled_matmul sums as many in i32). */
static const struct {
    int x_largest, w_bits; /* 0: W as it is stored */
    rt_dtype x;
    bool rotate;
} integers[ROUNDINGS] = {[ROUND_INT16] = {4095, 12, RT_I16, false},
                         [ROUND_INT8] = {127, 8, RT_I8, true},
                         [ROUND_BLOCK8] = {127, 0, RT_I8, false}};

/* The last rounding of each kind; values that other regions made may not be visible. */
typedef struct lowering {
    const pass_options *options;
    int64_t layers; /* of the model */
    struct {
        const ir_value *x;
        const ir_region *region;
        quantised rounded; /* bf16: no scale */
    } last[ROUNDINGS];
} lowering;

/* "normed_i8" or the like, of x called normed. */
static ir_value *name_after(ir_rewrite *rw, ir_value *value, const ir_value *x, const char *end) {
    return ir_named(value, gm_arena_printf(&rw->out->arena, "%s_%s", x->hint ? x->hint : "x", end));
}

static quantised rounded_of(ir_rewrite *rw, const ir_value *x, rounding how) {
    lowering *state = rw->user;
    if (state->last[how].x == x && state->last[how].region == rw->b.region) return state->last[how].rounded;
    ir_value *value = ir_rewrite_get(rw, x);
    quantised rounded = {.codes = NULL};
    if (how == ROUND_BF16) rounded.codes = ir_convert(&rw->b, value, RT_BF16);
    else {
        if (integers[how].rotate) value = name_after(rw, ir_unary(&rw->b, IR_ROTATE, value), x, "rotated");
        rounded = (integers[how].w_bits ? quantise_rows : quantise_runs)(&rw->b, value, integers[how].x_largest,
                                                                         integers[how].x);
        name_after(rw, rounded.scale, x, "scale");
    }
    name_after(rw, rounded.codes, x, rt_dtype_of(rounded.codes->type.dtype)->text);
    state->last[how].x = x;
    state->last[how].region = rw->b.region;
    state->last[how].rounded = rounded;
    return rounded;
}

/* Does the name hold the word? In that "layers.-1." is the last layer, and so on. */
static bool holds(const char *name, const char *word, size_t length, int64_t layers) {
    static const char prefix[] = "layers.-";
    char text[2 * IR_NAME_BYTES], *rest;
    if (strncmp(word, prefix, strlen(prefix)) != 0) return memmem(name, strlen(name), word, length);
    long back = strtol(word + strlen(prefix), &rest, 10);
    if (*rest != '.' || back < 1 || back > layers) return false;
    snprintf(text, sizeof text, "layers.%lld%.*s", (long long)(layers - back), (int)(word + length - rest), rest);
    return strstr(name, text);
}

static bool names_one_of(const char *words, const char *name, int64_t layers) {
    for (size_t n; *words; words += n + (words[n] == ',')) {
        n = strcspn(words, ",");
        if (n && n < IR_NAME_BYTES && holds(name, words, n, layers)) return true;
    }
    return false;
}

static void count_layers(const ir_inst *inst, void *user) {
    int64_t *layers = user;
    char text[IR_NAME_BYTES];
    for (int64_t i = 0; i < ir_stored_count(inst); i++) {
        const char *at = strstr(ir_stored_name(inst, i, text), "layers.");
        int64_t number = at ? strtol(at + strlen("layers."), NULL, 10) : -1;
        if (number >= *layers) *layers = number + 1;
    }
}

/* A word of the list that is asked for; found: some weight's name holds it. */
typedef struct asked_word {
    const char *text;
    size_t length;
    int64_t layers;
    bool found;
} asked_word;

static void look_for(const ir_inst *inst, void *user) {
    asked_word *word = user;
    char name[IR_NAME_BYTES];
    for (int64_t i = 0; i < ir_stored_count(inst) && !word->found; i++)
        word->found = holds(ir_stored_name(inst, i, name), word->text, word->length, word->layers);
}

gm_status pass_check_wide(const pass_options *options, const ir_module *module, gm_diag *diag) {
    bool reads = options->precision == PASS_INT8 || options->precision == PASS_BLOCK8;
    for (const char *words = reads && options->wide ? options->wide : ""; *words; words += strspn(words, ",")) {
        size_t n = strcspn(words, ",");
        asked_word word = {words, n, options->layers, n == 0};
        for (int i = 0; i < module->func_count && n < IR_NAME_BYTES; i++)
            ir_visit(module->funcs[i]->body, look_for, &word);
        if (!word.found)
            return gm_fail(diag, GM_INVALID, "--wide %.*s: no weight's name holds this word", (int)n, words);
        words += n;
    }
    return GM_OK;
}

static const char *wide_of(const lowering *state) {
    return state->options->wide ? state->options->wide : pass_default_wide(state->options->precision);
}

/* How the product with weight w is rounded, its impl being "integer". */
static rounding rounding_of(const lowering *state, const ir_value *w) {
    const char *name = w->def ? ir_attr_string(w->def, IR_ATTR_NAME) : NULL;
    if (state->options->precision == PASS_INT16 || (name && names_one_of(wide_of(state), name, state->layers)))
        return ROUND_INT16;
    if (state->options->precision == PASS_INT8) return ROUND_INT8;
    return rt_codes_of(w->type.dtype) ? ROUND_BLOCK8 : ROUND_INT16;
}

static void note(const ir_rewrite *rw, const ir_inst *inst, rounding how) {
    const lowering *state = rw->user;
    const char *words = wide_of(state), *plan = pass_precision_text(state->options->precision);
    ir_decisions *to = state->options->decisions;
    if (how == ROUND_BF16)
        ir_decide(to, "lower_precision", rw->in, rw->in_func, inst, "bf16", "plan bf16 rounds both sides");
    else if (how == ROUND_INT8)
        ir_decide(to, "lower_precision", rw->in, rw->in_func, inst, "int8",
                  "plan int8: %d bits for both sides after a rotation; no name holds one of '%s'", integers[how].w_bits,
                  words);
    else if (how == ROUND_BLOCK8)
        ir_decide(to, "lower_precision", rw->in, rw->in_func, inst, "block8",
                  "plan block8: 8 bits for x with a scale for each 32 columns, W in its own codes");
    else if (state->options->precision != PASS_INT16)
        ir_decide(to, "lower_precision", rw->in, rw->in_func, inst, "int16",
                  "plan %s: names that hold one of '%s', and weights without small codes, keep %d bits", plan, words,
                  integers[how].w_bits);
    else
        ir_decide(to, "lower_precision", rw->in, rw->in_func, inst, "int16", "plan int16: |x| to %d, W in %d bits",
                  integers[how].x_largest, integers[how].w_bits);
}

/* The product with weights first … first+count-1 of inst. */
static ir_value *integer_product(ir_rewrite *rw, const ir_inst *inst, int first, int count, rounding how) {
    quantised x = rounded_of(rw, inst->operands[0], how);
    ir_value *operands[2 + IR_MAX_WEIGHTS] = {x.codes, x.scale};
    ir_attr attrs[3];
    const ir_attr *tile = ir_attr_find(inst, IR_ATTR_TILE);
    int attr_count = 0;
    if (integers[how].w_bits) attrs[attr_count++] = ir_attr_make_int(IR_ATTR_BITS, integers[how].w_bits);
    if (integers[how].rotate) attrs[attr_count++] = ir_attr_make_int(IR_ATTR_ROTATE, 1);
    if (tile) attrs[attr_count++] = *tile;
    for (int i = 0; i < count; i++) operands[2 + i] = ir_rewrite_get(rw, inst->operands[first + i]);
    return ir_emit1(&rw->b, IR_SCALED_MATMUL, operands, count + 2, attrs, attr_count, NULL);
}

/* A product for each run of weights that are rounded alike, side by side. x is rounded for all of them first: a product
 * in between would close the loop nest that fuse_rows makes of that. */
static ir_value *integer_products(ir_rewrite *rw, const ir_inst *inst) {
    const lowering *state = rw->user;
    ir_value *parts[IR_MAX_WEIGHTS];
    int count = 0;
    for (int i = 1; i < inst->operand_count; i++)
        rounded_of(rw, inst->operands[0], rounding_of(state, inst->operands[i]));
    for (int first = 1, end; first < inst->operand_count; first = end) {
        rounding how = rounding_of(state, inst->operands[first]);
        for (end = first + 1; end < inst->operand_count && rounding_of(state, inst->operands[end]) == how; end++) {
        }
        note(rw, inst, how);
        parts[count++] = ir_rewrite_named(rw, integer_product(rw, inst, first, end - first, how), inst->results[0]);
    }
    return count == 1 ? parts[0] : ir_concat(&rw->b, parts, count, inst->results[0]->type.rank - 1);
}

static ir_value *packed_product(ir_rewrite *rw, const ir_inst *inst) {
    ir_value **operands = ir_rewrite_operands(rw, inst, 0);
    operands[0] = rounded_of(rw, inst->operands[0], ROUND_BF16).codes;
    return ir_emit1(&rw->b, IR_MATMUL, operands, inst->operand_count, inst->attrs, inst->attr_count, NULL);
}

static bool lower(ir_rewrite *rw, const ir_inst *inst) {
    bool integer = ir_attr_is(inst, IR_ATTR_IMPL, "integer"),
         packed = ir_attr_is(inst, IR_ATTR_IMPL, "packed") || ir_attr_is(inst, IR_ATTR_IMPL, "tiles");
    if (inst->op != IR_MATMUL || (!integer && !packed) || inst->operands[0]->type.dtype != RT_F32) return false;
    if (packed) note(rw, inst, ROUND_BF16);
    ir_rewrite_map(rw, inst->results[0], integer ? integer_products(rw, inst) : packed_product(rw, inst));
    return true;
}

gm_status pass_lower_precision(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    lowering state = {.options = options, .layers = options->layers};
    for (int i = 0; !options->layers && i < in->func_count; i++)
        ir_visit(in->funcs[i]->body, count_layers, &state.layers);
    *out = ir_rewrite_module(in, options->precision == PASS_F32 ? NULL : lower, &state);
    return GM_OK;
}
