/* fuse_rope: a rotation of pairs (j, j + N/2) becomes one expression over whole rows.
 *
 *   %a = slice %x, first half ; %b = slice %x, second        %c2 = concat %c, %c ; %s2 = concat (neg %s), %s
 *   %y1 = sub (mul %a, %c), (mul %b, %s)               ->    %z = swap_halves %x
 *   %y2 = add (mul %b, %c), (mul %a, %s)                     %y = add (mul %x, %c2), (mul %z, %s2)
 *   %y = concat %y1, %y2
 *
 * All along the last axis, the factors of any product and the terms of the sum in either order. Then what makes %x and
 * what reads %y can be in one loop nest with it (fuse_rows), and the halves need no memory of their own. %c2 and %s2
 * are made where %c and %s are, once for all that they turn, as the %q and %k of all layers. Bit-exact: a - b·s is a +
 * b·(-s). Ends with dce for the halves.
 */
#include "passes/match.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>

/* What turns x, of the old module. */
typedef struct rope {
    const ir_value *x, *cosine, *sine;
} rope;

/* Whole rows of a cosine and a sine of the old module; same is NULL until they are made. */
typedef struct wide {
    const ir_value *cosine, *sine;
    ir_value *same, *other; /* factors of x, and of x with its halves swapped */
} wide;

typedef struct state {
    const ir_func *func; /* whose ropes are known */
    wide *wide;
    int count;
    bool found;
} state;

/* y = mul(half `which` of x, factor), in either order. x: NULL on entry where it is not known. */
static bool is_product(const ir_value *y, int which, const ir_value **x, const ir_value **factor) {
    const ir_inst *mul = match_made_by(y, IR_MUL);
    for (int i = 0; mul && i < 2; i++) {
        const ir_value *from = match_half(mul->operands[i], which);
        if (!from || (*x && *x != from) || (*factor && *factor != mul->operands[1 - i])) continue;
        *x = from;
        *factor = mul->operands[1 - i];
        return true;
    }
    return false;
}

static bool whole_rows(const ir_value *factor, const ir_value *half) {
    return factor->type.rank && factor->type.dim[factor->type.rank - 1] == half->type.dim[half->type.rank - 1];
}

static bool match(const ir_inst *inst, rope *r) {
    if (inst->op != IR_CONCAT || inst->operand_count != 2 ||
        ir_attr_int(inst, IR_ATTR_AXIS, 0) != inst->results[0]->type.rank - 1)
        return false;
    const ir_inst *sub = match_made_by(inst->operands[0], IR_SUB), *add = match_made_by(inst->operands[1], IR_ADD);
    *r = (rope){0};
    if (!sub || !add || !is_product(sub->operands[0], 0, &r->x, &r->cosine) ||
        !is_product(sub->operands[1], 1, &r->x, &r->sine))
        return false;
    /* not where a factor has more rows than x */
    if (!ir_type_equal(&r->x->type, &inst->results[0]->type)) return false;
    if (!whole_rows(r->cosine, inst->operands[0]) || !whole_rows(r->sine, inst->operands[0])) return false;
    for (int i = 0; i < 2; i++)
        if (is_product(add->operands[i], 1, &r->x, &r->cosine) && is_product(add->operands[1 - i], 0, &r->x, &r->sine))
            return true;
    return false;
}

static wide *wide_of(const state *s, const rope *r) {
    for (int i = 0; i < s->count; i++)
        if (s->wide[i].cosine == r->cosine && s->wide[i].sine == r->sine) return &s->wide[i];
    return NULL;
}

static void collect(const ir_inst *inst, void *user) {
    state *s = user;
    rope r;
    if (!match(inst, &r) || wide_of(s, &r)) return;
    s->wide = realloc(s->wide, sizeof *s->wide * (size_t)(s->count + 1));
    GM_ASSERT(s->wide);
    s->wide[s->count++] = (wide){.cosine = r.cosine, .sine = r.sine};
}

static void make(ir_rewrite *rw, wide *w) {
    ir_value *cosine = ir_rewrite_get(rw, w->cosine), *sine = ir_rewrite_get(rw, w->sine);
    w->same = ir_named(ir_concat(&rw->b, (ir_value *[]){cosine, cosine}, 2, cosine->type.rank - 1), "cos_cos");
    ir_value *less = ir_unary(&rw->b, IR_NEG, sine);
    w->other = ir_named(ir_concat(&rw->b, (ir_value *[]){less, sine}, 2, sine->type.rank - 1), "minus_sin_sin");
}

/* Both are known from here on. */
static bool is_last_of(const ir_inst *inst, const wide *w) {
    const ir_value *last = w->cosine->id > w->sine->id ? w->cosine : w->sine;
    for (int i = 0; i < inst->result_count; i++)
        if (inst->results[i] == last) return true;
    return false;
}

/* Of parameters alone, at the beginning. */
static void begin(ir_rewrite *rw) {
    state *s = rw->user;
    s->func = rw->in_func;
    s->count = 0;
    ir_visit(rw->in_func->body, collect, s);
    for (int i = 0; i < s->count; i++)
        if (s->wide[i].cosine->param_of == rw->in_func->body && s->wide[i].sine->param_of == rw->in_func->body)
            make(rw, &s->wide[i]);
}

static bool fuse(ir_rewrite *rw, const ir_inst *inst) {
    state *s = rw->user;
    rope r;
    if (rw->in_func != s->func) begin(rw);
    const wide *w = match(inst, &r) ? wide_of(s, &r) : NULL;
    if (w && w->same) {
        ir_value *x = ir_rewrite_get(rw, r.x), *swapped = ir_emit1(&rw->b, IR_SWAP_HALVES, &x, 1, NULL, 0, NULL);
        ir_value *same = ir_binary(&rw->b, IR_MUL, x, w->same), *other = ir_binary(&rw->b, IR_MUL, swapped, w->other);
        ir_rewrite_map(rw, inst->results[0], ir_binary(&rw->b, IR_ADD, same, other));
        s->found = true;
        return true;
    }
    bool copied = false;
    for (int i = 0; i < s->count; i++) {
        if (!is_last_of(inst, &s->wide[i])) continue;
        if (!copied) ir_rewrite_clone(rw, inst);
        copied = true;
        make(rw, &s->wide[i]);
    }
    return copied;
}

gm_status pass_fuse_rope(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    state s = {.wide = NULL};
    ir_module *fused = ir_rewrite_module(in, fuse, &s);
    free(s.wide);
    return pass_sweep(s.found, options, fused, diag, out);
}
