/* screen_head: tokens are chosen without forming the logits of the whole head.
 *
 *   %logits = call %x {callee = "head.R1"}          ->   %token = if %greedy () {
 *   %token = if %greedy () {                               %a = call %x {callee = "head.R1.argmax"}
 *     %a = argmax %logits; …                               …
 *   } () {                                               } () {
 *     %t = sample %logits, %tokens, …                      %t = call %x, %tokens, … {callee = "head.R1.sample"}
 *   }                                                    }
 *
 * @head.R1.argmax and @head.R1.sample are @head.R1 with its last `matmul %x, %w` replaced by `screened_argmax %x, %w,
 * %s` and `screened_sample %x, %w, %s, %tokens, …`, which read the 4-bit screen "w:s4" of all rows and only those rows
 * of w that can change the token. A guess (passes/guess_ahead.c) becomes a call of @head.R1.guess16384 with its
 * screened_guess, a sample of likely ids one of @head.R1.sample16384. A soft cap of the product, cap·tanh(y / cap),
 * becomes an attribute.
 *
 * Fires where the call is read by one argmax or guess, by one sample, or by both in two branches of an `if`; the callee
 * returns the product of one row, or a few, with one stored weight that can be screened, perhaps soft-capped, and
 * nothing else. Bit-exact: the product's rows are summed as in a gemv. Needs specialize, which makes @head.R1;
 * functions stay, since the host may call them.
 */
#include "passes/match.h"
#include "passes/passes.h"
#include "passes/screened.h"
#include "ir/rewrite.h"

#include "runtime/abi.h"
#include "runtime/derive.h"
#include "runtime/screen.h"

#include <stdlib.h>
#include <string.h>

/* ---- what can be screened ---- */

/* The instruction whose result the function returns; NULL: it returns several values or a parameter. */
static const ir_inst *returned_by(const ir_func *func) {
    return func->body->yield_count == 1 ? func->body->yields[0]->def : NULL;
}

/* y = cap·tanh(x / cap): x and the cap; else y itself. */
static const ir_value *capped(const ir_value *y, double *cap) {
    double factor, divisor;
    const ir_inst *scaled = match_made_by(y, IR_MUL),
                  *bent = scaled ? match_made_by(scaled->operands[0], IR_TANH) : NULL;
    const ir_inst *quotient = bent ? match_made_by(bent->operands[0], IR_DIV) : NULL;
    if (!quotient || !match_number(scaled->operands[1], &factor) || !match_number(quotient->operands[1], &divisor))
        return y;
    if (factor != divisor || !(factor > 0) || !ir_type_equal(&y->type, &quotient->operands[0]->type)) return y;
    *cap = factor;
    return quotient->operands[0];
}

/* The product that the function returns; *cap: of its elements, 0 where there is none. */
static const ir_inst *product_of(const ir_func *func, double *cap) {
    const ir_inst *returned = returned_by(func);
    *cap = 0;
    return returned && returned->result_count == 1 ? match_made_by(capped(returned->results[0], cap), IR_MATMUL) : NULL;
}

/* Is each value from the product to the returned value read exactly once? */
static bool is_read_once(const ir_func *func, const ir_inst *product) {
    uint32_t *uses = ir_count_uses(func);
    const ir_inst *at = returned_by(func);
    bool once = true;
    for (; once && at != product; at = at->operands[0]->def) once = uses[at->results[0]->id] == 1;
    once &= uses[product->results[0]->id] == 1;
    free(uses);
    return once;
}

const char *pass_why_not_screened(const ir_func *func) {
    const ir_region *body = func->body;
    double cap;
    const ir_inst *product = product_of(func, &cap);
    if (!product || product->operand_count != 2)
        return "the head returns more than a product with one weight, soft-capped or not";
    const char *impl = ir_attr_string(product, IR_ATTR_IMPL);
    if (impl && strcmp(impl, "gemv") != 0) return "its rows are summed in another order than those of a gemv";
    const ir_type *x = &product->operands[0]->type, *w = &product->operands[1]->type;
    const ir_inst *weight = product->operands[1]->def;
    if (!weight || weight->op != IR_WEIGHT) return "W is not a stored weight";
    if (!rt_can_screen(w->dtype))
        return "a screen of 4 bits is not worth it beside this type, or its bound does not cover it";
    if (!rt_can_screen_columns(w->dim[1]) || w->dim[0] > INT32_MAX)
        return "W has a number of columns that a screen cannot have, or too many rows";
    if (x->rank != 2 || x->dtype != RT_F32) return "x is not rows of f32";
    if (func->alias && func->alias[0] >= 0) return "the head writes where its argument lies";
    for (int i = 0; i < body->inst_count; i++)
        if (ir_has_effect(body->insts[i]) || body->insts[i]->op == IR_CALL)
            return "the head does something else besides";
    return is_read_once(func, product) ? NULL : "the product has other readers in the head";
}

/* The product that the function returns, of one row or a few, when its weight can be screened; else NULL. */
static const ir_inst *screenable_product(const ir_func *func) {
    double cap;
    const ir_inst *product = pass_why_not_screened(func) ? NULL : product_of(func, &cap);
    ir_dim rows = product ? product->operands[0]->type.dim[0] : 0;
    return !ir_dim_is_symbol(rows) && rows >= 1 && rows <= RT_FEW_ROWS ? product : NULL;
}

/* The region of `within` that holds inst itself. */
static const ir_region *region_of(const ir_region *within, const ir_inst *inst) {
    const ir_region *found = NULL;
    for (int i = 0; i < within->inst_count && !found; i++) {
        if (within->insts[i] == inst) return within;
        for (int j = 0; j < within->insts[i]->region_count && !found; j++)
            found = region_of(within->insts[i]->regions[j], inst);
    }
    return found;
}

/* Who reads a value as operand 0, in the region of its definition or in a branch of an `if` there: the last argmax or
 * guess, and the last sample. */
typedef struct readers {
    const ir_value *value;
    const ir_inst *argmax, *sample;       /* the last such; the argmax may be a guess */
    const ir_inst *argmax_if, *sample_if; /* NULL: not in a branch */
    const ir_region *argmax_in, *sample_in;
} readers;

static void find_readers(const ir_region *region, const ir_inst *branch, readers *r) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        bool reads = inst->operand_count && inst->operands[0] == r->value;
        if (reads && (inst->op == IR_ARGMAX || inst->op == IR_GUESS))
            r->argmax = inst, r->argmax_if = branch, r->argmax_in = region;
        if (reads && inst->op == IR_SAMPLE) r->sample = inst, r->sample_if = branch, r->sample_in = region;
        for (int j = 0; j < inst->region_count && inst->op == IR_IF && !branch; j++)
            find_readers(inst->regions[j], inst, r);
    }
}

/* What a head and the reader of its logits become. */
typedef struct way {
    ir_op reader, screened;
    int more;                             /* the reader's operands after the logits */
    const char *suffix, *result, *reason; /* the reason is followed by what the screen saves */
} way;

enum { MOST_MORE = 4 };

static const way ways[] = {
    {IR_ARGMAX, IR_SCREENED_ARGMAX, 0, "argmax", "best", "greedy choice reads nothing but the largest element"},
    {IR_GUESS, IR_SCREENED_GUESS, 2, "guess", "best", "a guess reads nothing but the largest element of likely ids"},
    {IR_SAMPLE, IR_SCREENED_SAMPLE, 4, "sample", "drawn", "a choice among the top_k largest elements reads no others"},
};

/* NULL: an instruction that reads logits otherwise. */
static const way *way_of(const ir_inst *reader) {
    for (size_t i = 0; i < GM_COUNT(ways); i++)
        if (ways[i].reader == reader->op) return &ways[i];
    return NULL;
}

static const char *screened_name(ir_rewrite *rw, const ir_inst *call, const ir_inst *reader) {
    const char *head = ir_attr_string(call, IR_ATTR_CALLEE), *suffix = way_of(reader)->suffix;
    if (!ir_attr_find(reader, IR_ATTR_USUAL)) return gm_arena_printf(&rw->out->arena, "%s.%s", head, suffix);
    return gm_arena_printf(&rw->out->arena, "%s.%s%lld", head, suffix,
                           (long long)ir_attr_int(reader, IR_ATTR_USUAL, 0));
}

/* The function is there already, for a reader of other types. */
static bool name_is_taken(ir_rewrite *rw, const ir_inst *call, const ir_inst *reader) {
    const ir_func *func = reader ? ir_func_find(rw->out, screened_name(rw, call, reader)) : NULL;
    int given = call->operand_count, more = reader ? way_of(reader)->more : 0;
    bool taken = func && func->body->param_count != given + more;
    for (int i = 0; func && !taken && i < more; i++)
        taken = !ir_type_equal(&func->body->params[given + i]->type, &reader->operands[1 + i]->type);
    return taken;
}

static const ir_func *callee_of(const ir_rewrite *rw, const ir_inst *call) {
    return ir_func_find(rw->in, ir_attr_string(call, IR_ATTR_CALLEE));
}

/* Is inst a call whose result is read by one argmax, guess or sample alone, or by an argmax or guess and a sample in
 * different branches of one `if`? */
static bool is_choice(const ir_rewrite *rw, const ir_inst *inst, readers *r) {
    if (inst->op != IR_CALL || inst->result_count != 1) return false;
    *r = (readers){.value = inst->results[0]};
    find_readers(region_of(rw->in_func->body, inst), NULL, r);
    int count = (r->argmax != NULL) + (r->sample != NULL);
    bool apart = r->argmax_if && r->argmax_if == r->sample_if && r->argmax_in != r->sample_in;
    return count && rw->uses[inst->results[0]->id] == (uint32_t)count && (count == 1 || apart);
}

/* The same of a head that can be screened. */
static bool is_head_call(ir_rewrite *rw, const ir_inst *inst, readers *r) {
    return is_choice(rw, inst, r) && screenable_product(callee_of(rw, inst)) && !name_is_taken(rw, inst, r->argmax) &&
           !name_is_taken(rw, inst, r->sample);
}

/* ---- the copies of the head ---- */

typedef struct head_copy {
    const ir_inst *product, *returned, *reader;
    double cap;
    ir_value *more[MOST_MORE];
} head_copy;

static void copy_params(ir_rewrite *rw) {
    head_copy *copy = rw->user;
    const ir_region *body = rw->in_func->body;
    for (int i = 0; i < body->param_count; i++)
        ir_rewrite_map(rw, body->params[i],
                       ir_param(&rw->b, rw->b.region, body->params[i]->type, body->params[i]->hint));
    for (int i = 0; i < way_of(copy->reader)->more; i++) {
        const ir_value *given = copy->reader->operands[1 + i];
        copy->more[i] = ir_param(&rw->b, rw->b.region, given->type, given->hint);
    }
}

static void copy_yield(ir_rewrite *rw) {
    ir_value *chosen = ir_rewrite_get(rw, rw->in_func->body->yields[0]);
    ir_yield(&rw->b, &chosen, 1);
}

static ir_type screen_type(const ir_type *w) {
    ir_dim dim[2];
    rt_screen_shape(w->dim[0], w->dim[1], dim);
    return ir_tensor(RT_S4, 2, dim);
}

static bool is_capping(const head_copy *copy, const ir_inst *inst) {
    const ir_inst *at = copy->returned;
    while (at != copy->product && at != inst) at = at->operands[0]->def;
    return at != copy->product;
}

static bool screen_product(ir_rewrite *rw, const ir_inst *inst) {
    const head_copy *copy = rw->user;
    if (inst != copy->product) return is_capping(copy, inst);
    const way *to = way_of(copy->reader);
    const char *name =
        rt_derived_name(&rw->out->arena, RT_DERIVED_SCREEN, ir_attr_string(inst->operands[1]->def, IR_ATTR_NAME));
    ir_value *operands[3 + MOST_MORE] = {ir_rewrite_get(rw, inst->operands[0]), ir_rewrite_get(rw, inst->operands[1]),
                                         ir_weight(&rw->b, name, screen_type(&inst->operands[1]->type))};
    for (int i = 0; i < to->more; i++) operands[3 + i] = copy->more[i];
    ir_attr attrs[2] = {ir_attr_make_float(IR_ATTR_CAP, copy->cap)};
    const ir_attr *usual = ir_attr_find(copy->reader, IR_ATTR_USUAL);
    int count = copy->cap > 0;
    if (usual) attrs[count++] = *usual;
    ir_value *chosen = ir_emit1(&rw->b, to->screened, operands, 3 + to->more, attrs, count, NULL);
    rw->map[copy->returned->results[0]->id] = ir_named(chosen, to->result);
    return true;
}

/* ---- the callers ---- */

static ir_value *call_screened(ir_rewrite *rw, const ir_inst *call, const ir_inst *reader) {
    int count = call->operand_count, more = way_of(reader)->more;
    ir_value **args = ir_rewrite_operands(rw, call, more);
    for (int i = 0; i < more; i++) args[count++] = ir_rewrite_get(rw, reader->operands[1 + i]);
    return ir_call(&rw->b, ir_func_find(rw->out, screened_name(rw, call, reader)), args, count)->results[0];
}

/* The call goes to where its value is read. */
static bool sink_head(ir_rewrite *rw, const ir_inst *inst) {
    readers r;
    if (is_head_call(rw, inst, &r)) return true;
    const ir_inst *call = inst->operand_count ? inst->operands[0]->def : NULL;
    if (!way_of(inst) || !call || !is_head_call(rw, call, &r)) return false;
    ir_rewrite_map(rw, inst->results[0], call_screened(rw, call, inst));
    return true;
}

static double megabytes(const ir_type *matrix) {
    return (double)rt_dtype_bytes(matrix->dtype, (size_t)(matrix->dim[0] * matrix->dim[1])) / 1e6;
}

static void decide(const ir_rewrite *rw, const ir_func *head, const head_copy *copy) {
    ir_decisions *decisions = ((const pass_options *)rw->user)->decisions;
    const way *to = way_of(copy->reader);
    const ir_type *w = &copy->product->operands[1]->type, screen = screen_type(w);
    ir_decide(decisions, "screen_head", rw->in, head, copy->product, ir_op_of(to->screened)->text,
              "%s: a 4-bit screen of %.3g MB beside the %.3g MB of W says which rows count, and these are computed as "
              "in a gemv",
              to->reason, megabytes(&screen), megabytes(w));
}

/* A choice from a head that is computed in whole. */
static void decide_whole(const ir_rewrite *rw, const ir_func *head) {
    ir_decisions *decisions = ((const pass_options *)rw->user)->decisions;
    const ir_inst *returned = returned_by(head);
    const char *why = pass_why_not_screened(head);
    if (returned && why) ir_decide(decisions, "screen_head", rw->in, head, returned, "the full product", "%s", why);
}

static void copy_head(ir_rewrite *look, const ir_inst *call, const ir_inst *reader) {
    const char *name = screened_name(look, call, reader);
    if (ir_func_find(look->out, name)) return;
    const ir_func *head = callee_of(look, call);
    head_copy copy = {.returned = returned_by(head), .reader = reader};
    copy.product = product_of(head, &copy.cap);
    decide(look, head, &copy);
    ir_retype_func(look->in, head, look->out, name, copy_params, copy_yield, screen_product, &copy);
}

static void note_call(const ir_inst *inst, void *user) {
    ir_rewrite *look = user;
    readers r;
    if (!is_choice(look, inst, &r)) return;
    if (!is_head_call(look, inst, &r)) {
        decide_whole(look, callee_of(look, inst));
        return;
    }
    if (r.argmax) copy_head(look, inst, r.argmax);
    if (r.sample) copy_head(look, inst, r.sample);
}

gm_status pass_screen_head(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        ir_func *func = in->funcs[i];
        /* only read */
        ir_rewrite look = {
            .in = in, .in_func = func, .out = *out, .uses = ir_count_uses(func), .user = (void *)options};
        ir_visit(func->body, note_call, &look); /* copies come before their callers */
        free(look.uses);
        ir_clone_func(in, func, *out, func->name, NULL, sink_head, NULL);
    }
    return GM_OK;
}
