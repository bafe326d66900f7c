/* roll_layers: layers that do the same on other weights become a loop over layers, as scan over layers does elsewhere.
 *
 *   %w = weight {name = "layers.0.w"}         ->   %n = const {value = 12}
 *   %x1 = … %x …                                   %x12, %kc12, … = scan %n, %x, %kc, … (%i, %x, %kc, …) {
 *   … eleven more …                                  %w = layer_weight %i {name = "layers.*.w", start = 0, step = 1,
 *   %w = weight {name = "layers.11.w"}                                     extent = 12}
 *   %x12 = … %x11 …                                  … %x …; yield … }
 *
 * Weights are not stacked, which would copy them: layer_weight picks a stored tensor by number. What does not depend on
 * the input, the weights or the caches (constants, rotary angles) is computed once, before.
 *
 * Found by shape, without knowing what a layer is: instructions s … s+P·n in which each equals the one P further on in
 * operation, attributes and types, and whose operands correspond: made by the same place of the same round, handed on
 * from the round before (a carry), from outside, i32 constants in equal steps (numbers of layers), or weights whose
 * names differ by one number in equal steps. So the body is a whole period: 6 layers where 5 local ones and a global
 * one follow each other. The longest such stretch is rolled, then likewise what is left and right of it; the remainder
 * stays unrolled.
 *
 * A stretch without weights is no layer and left alone. Refuses what differs: layers whose weights are stored in
 * different dtypes, or of another shape or window, end a stretch. @forward
 * with regions or calls in it (before fuse_attention) stays as it is. Bit-exact: the same operations in the same order
 * (later passes that go by the names of weights, as lower_precision does, no longer tell the layers of a loop apart).
 * Legal before the token loops are formed. Leaves constants that only numbered layers to dce.
 */
#include "passes/match.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CARRIES = 32, MAX_LOOPS = 32, MAX_NUMBERS = 64, NOWHERE = -1 };

/* count rounds of `period` instructions from `start` on. */
typedef struct stretch {
    int start, period, count;
} stretch;

/* What a round takes from the one before: instruction `from` of it, `init` in the first round. */
typedef struct carry {
    const ir_value *init;
    int from;
} carry;

typedef struct plan {
    stretch at;
    carry carries[MAX_CARRIES];
    int carry_count, weights; /* weights that the rounds do not share */
} plan;

typedef struct rolling {
    const ir_func *func;
    const ir_inst **insts; /* all but the invariant ones, in order */
    uint64_t *shape;       /* of each */
    int count;
    int *place;      /* by value id: the place in insts of what makes it; NOWHERE */
    bool *invariant; /* by value id */
    plan plans[MAX_LOOPS];
    int plan_count;
    bool hoisted;
} rolling;

/* ---- what there is ---- */

static bool is_invariant(const rolling *r, const ir_inst *inst) {
    if (ir_stored_count(inst) || inst->op == IR_DIM || ir_has_effect(inst)) return false;
    for (int i = 0; i < inst->operand_count; i++)
        if (!r->invariant[inst->operands[i]->id]) return false;
    return true;
}

static uint64_t mix(uint64_t hash, uint64_t word) {
    return (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15) + (hash >> 29);
}

/* Equal for instructions that may correspond. The names of weights are looked at later. */
static uint64_t shape_of(const ir_inst *inst) {
    const ir_type *type = &inst->results[0]->type;
    uint64_t hash = mix(mix(mix(1, inst->op), (uint64_t)inst->operand_count), type->dtype);
    for (int i = 0; i < type->rank; i++) hash = mix(hash, (uint64_t)type->dim[i]);
    for (int i = 0; i < inst->attr_count; i++) {
        const ir_attr *a = &inst->attrs[i];
        uint64_t real;
        memcpy(&real, &a->f, sizeof real);
        hash = mix(mix(mix(hash, a->key), (uint64_t)a->i), real);
        for (size_t k = 0; k < a->n; k++) hash = mix(hash, a->ints ? (uint64_t)a->ints[k] : 0);
    }
    return hash;
}

/* False when the function is not a straight line of instructions with one result. */
static bool open_rolling(rolling *r, const ir_func *func) {
    const ir_region *body = func->body;
    size_t values = func->value_count + 1, insts = (size_t)body->inst_count + 1;
    r->func = func;
    r->insts = calloc(insts, sizeof *r->insts);
    r->shape = calloc(insts, sizeof *r->shape);
    r->place = malloc(values * sizeof *r->place);
    r->invariant = calloc(values, sizeof *r->invariant);
    GM_ASSERT(r->insts && r->shape && r->place && r->invariant);
    for (size_t i = 0; i < values; i++) r->place[i] = NOWHERE;
    for (int i = 0; i < body->param_count; i++) r->invariant[body->params[i]->id] = body->params[i]->type.rank == 0;
    for (int i = 0; i < body->inst_count; i++) {
        const ir_inst *inst = body->insts[i];
        if (inst->region_count || inst->result_count != 1 || inst->op == IR_CALL) return false;
        uint32_t id = inst->results[0]->id;
        r->invariant[id] = is_invariant(r, inst);
        if (r->invariant[id]) continue;
        r->place[id] = r->count;
        r->shape[r->count] = shape_of(inst);
        r->insts[r->count++] = inst;
    }
    return true;
}

static void close_rolling(rolling *r) {
    free(r->insts);
    free(r->shape);
    free(r->place);
    free(r->invariant);
}

/* ---- do rounds correspond ---- */

static const ir_inst *inst_of(const rolling *r, const stretch *s, int round, int at) {
    return r->insts[s->start + round * s->period + at];
}

/* Where a value is made, from the beginning of a round; far below 0 for what comes from before the stretch. */
static int distance(const rolling *r, const stretch *s, int round, const ir_value *value) {
    int place = r->place[value->id];
    return place < s->start ? INT32_MIN : place - s->start - round * s->period;
}

/* Operand k of instruction `at` in the rounds: constants in equal steps. */
static bool in_steps(const rolling *r, const stretch *s, int at, int k, int64_t *out_start, int64_t *out_step) {
    int64_t value = 0;
    for (int round = 0; round < s->count; round++) {
        if (!match_index(inst_of(r, s, round, at)->operands[k], &value)) return false;
        if (round == 0) *out_start = value;
        if (round == 1) *out_step = value - *out_start;
        if (value != *out_start + round * *out_step) return false;
    }
    return *out_step != 0;
}

/* Is it the same value in all rounds, one from outside? */
static bool from_outside(const rolling *r, const stretch *s, int at, int k) {
    const ir_value *first = inst_of(r, s, 0, at)->operands[k];
    for (int round = 1; round < s->count; round++)
        if (inst_of(r, s, round, at)->operands[k] != first) return false;
    return distance(r, s, 0, first) == INT32_MIN;
}

/* From round 1 on made at the same distance; the first round may take it from outside. */
static bool same_distance(const rolling *r, const stretch *s, int at, int k, int *out) {
    *out = distance(r, s, 1, inst_of(r, s, 1, at)->operands[k]);
    for (int round = 1; round < s->count; round++)
        if (distance(r, s, round, inst_of(r, s, round, at)->operands[k]) != *out) return false;
    return *out >= -s->period;
}

static bool note_carry(plan *p, const ir_value *init, int from) {
    for (int i = 0; i < p->carry_count; i++)
        if (p->carries[i].init == init && p->carries[i].from == from) return true;
    if (p->carry_count == MAX_CARRIES) return false;
    p->carries[p->carry_count++] = (carry){init, from};
    return true;
}

static bool match_operand(const rolling *r, plan *p, int at, int k) {
    const stretch *s = &p->at;
    const ir_value *first = inst_of(r, s, 0, at)->operands[k];
    int64_t start, step;
    int from, made = distance(r, s, 0, first);
    if (from_outside(r, s, at, k) || in_steps(r, s, at, k, &start, &step)) return true;
    if (!same_distance(r, s, at, k, &from)) return false;
    if (from >= 0) return made == from;
    const ir_value *handed = inst_of(r, s, 0, from + s->period)->results[0];
    return made == INT32_MIN && ir_type_equal(&first->type, &handed->type) && note_carry(p, first, from + s->period);
}

/* ---- names of weights ---- */

/* The number at the first place where the names differ: what stands before it (length), its value, and after it. */
typedef struct numbered {
    size_t before;
    int64_t number;
    const char *after;
} numbered;

static numbered read_number(const char *name, size_t at) {
    char *after;
    while (at > 0 && name[at - 1] >= '0' && name[at - 1] <= '9') at--;
    numbered n = {at, 0, name + at};
    bool plain = name[at] != '0' || !(name[at + 1] >= '0' && name[at + 1] <= '9'); /* as it is printed again */
    if (plain && name[at] >= '0' && name[at] <= '9') {
        n.number = strtoll(name + at, &after, 10);
        n.after = after;
    }
    return n;
}

/* The weights of the rounds as one layer_weight: its name with a '*', the first number and the step. */
static bool weight_in_steps(const rolling *r, const stretch *s, int at, char *out_name, int64_t *out_start,
                            int64_t *out_step) {
    const char *first = ir_attr_string(inst_of(r, s, 0, at), IR_ATTR_NAME),
               *second = ir_attr_string(inst_of(r, s, 1, at), IR_ATTR_NAME);
    size_t same = 0;
    while (first[same] && first[same] == second[same]) same++;
    numbered a = read_number(first, same);
    if (a.after == first + a.before || strchr(first, '*') || strlen(first) >= IR_NAME_BYTES - 24) return false;
    *out_start = a.number;
    for (int round = 1; round < s->count; round++) {
        const char *name = ir_attr_string(inst_of(r, s, round, at), IR_ATTR_NAME);
        if (strncmp(name, first, a.before)) return false;
        numbered b = read_number(name, a.before);
        if (b.before != a.before || strcmp(b.after, a.after)) return false;
        if (round == 1) *out_step = b.number - a.number;
        if (b.number != a.number + round * *out_step || *out_step <= 0) return false;
    }
    snprintf(out_name, IR_NAME_BYTES, "%.*s*%s", (int)a.before, first, a.after);
    return true;
}

static bool same_attrs(const ir_inst *a, const ir_inst *b) {
    if (a->attr_count != b->attr_count) return false;
    for (int i = 0; i < a->attr_count; i++)
        if (!ir_attr_equal(&a->attrs[i], &b->attrs[i])) return false;
    return true;
}

static bool match_inst(const rolling *r, plan *p, int at) {
    const stretch *s = &p->at;
    const ir_inst *first = inst_of(r, s, 0, at);
    char name[IR_NAME_BYTES];
    int64_t start, step;
    for (int round = 1; round < s->count; round++) {
        const ir_inst *other = inst_of(r, s, round, at);
        bool same = other->op == first->op && other->operand_count == first->operand_count;
        if (!same || !ir_type_equal(&other->results[0]->type, &first->results[0]->type)) return false;
        if (first->op != IR_WEIGHT && !same_attrs(first, other)) return false;
    }
    p->weights += first->op == IR_WEIGHT;
    if (first->op == IR_WEIGHT) return weight_in_steps(r, s, at, name, &start, &step);
    for (int k = 0; k < first->operand_count; k++)
        if (!match_operand(r, p, at, k)) return false;
    return true;
}

/* ---- is the stretch a loop ---- */

/* A use of `value` after the stretch: it must be handed on by the last round. */
static bool may_leave(const rolling *r, const plan *p, const ir_value *value) {
    const stretch *s = &p->at;
    int from = distance(r, s, s->count - 1, value);
    if (r->place[value->id] < s->start || r->place[value->id] >= s->start + s->period * s->count) return true;
    for (int i = 0; i < p->carry_count; i++)
        if (p->carries[i].from == from) return true;
    return false;
}

static bool is_loop(const rolling *r, plan *p) {
    const stretch *s = &p->at;
    const ir_region *body = r->func->body;
    p->carry_count = p->weights = 0;
    for (int at = 0; at < s->period; at++)
        if (!match_inst(r, p, at)) return false;
    for (int i = s->start + s->period * s->count; i < r->count; i++)
        for (int k = 0; k < r->insts[i]->operand_count; k++)
            if (!may_leave(r, p, r->insts[i]->operands[k])) return false;
    for (int i = 0; i < body->yield_count; i++)
        if (!may_leave(r, p, body->yields[i])) return false;
    return p->carry_count > 0 && p->weights > 0;
}

/* ---- the longest ---- */

static int saved_by(const stretch *s) {
    return (s->count - 1) * s->period;
}

/* The loop with this many rounds within a run of equal shapes that hands on least. */
static bool best_phase(const rolling *r, int start, int slack, int period, int count, plan *out) {
    plan p;
    bool found = false;
    for (int shift = 0; shift <= slack && shift < period; shift++) {
        p.at = (stretch){start + shift, period, count};
        if (!is_loop(r, &p) || (found && p.carry_count >= out->carry_count)) continue;
        *out = p;
        found = true;
    }
    return found;
}

static void try_run(const rolling *r, int start, int length, int period, plan *best) {
    plan p;
    for (int count = length / period + 1; count >= 2; count--) {
        stretch s = {start, period, count};
        if (best->at.period && saved_by(&s) <= saved_by(&best->at)) return;
        if (best_phase(r, start, length - (count - 1) * period, period, count, &p)) {
            *best = p;
            return;
        }
    }
}

static bool longest(const rolling *r, int low, int high, plan *best) {
    *best = (plan){.carry_count = 0};
    for (int period = 1; period <= (high - low) / 2; period++)
        for (int i = low; i + period < high;) {
            int length = 0;
            while (i + length + period < high && r->shape[i + length] == r->shape[i + length + period]) length++;
            if (length >= period) try_run(r, i, length, period, best);
            i += length + 1;
        }
    return best->at.period > 0;
}

static void find_loops(rolling *r, int low, int high) {
    plan best;
    if (r->plan_count == MAX_LOOPS || !longest(r, low, high, &best)) return;
    r->plans[r->plan_count++] = best;
    find_loops(r, low, best.at.start);
    find_loops(r, best.at.start + best.at.period * best.at.count, high);
}

/* ---- building ---- */

/* start + step·i for the round i. */
typedef struct number {
    int64_t start, step;
    ir_value *value;
} number;

typedef struct body {
    const rolling *r;
    const plan *p;
    ir_value *index, *carries[MAX_CARRIES];
    number numbers[MAX_NUMBERS]; /* made so far */
    int number_count;
} body;

static ir_value *number_at(ir_rewrite *rw, body *b, int64_t start, int64_t step) {
    for (int i = 0; i < b->number_count; i++)
        if (b->numbers[i].start == start && b->numbers[i].step == step) return b->numbers[i].value;
    ir_value *scaled = step == 1 ? b->index : ir_binary(&rw->b, IR_MUL, b->index, ir_const_int(&rw->b, step));
    ir_value *value = start ? ir_binary(&rw->b, IR_ADD, scaled, ir_const_int(&rw->b, start)) : scaled;
    if (b->number_count < MAX_NUMBERS) b->numbers[b->number_count++] = (number){start, step, value};
    return value;
}

static ir_value *operand_of(ir_rewrite *rw, body *b, int at, int k) {
    const stretch *s = &b->p->at;
    const ir_value *first = inst_of(b->r, s, 0, at)->operands[k];
    int64_t start, step;
    int from;
    if (from_outside(b->r, s, at, k)) return ir_rewrite_get(rw, first);
    if (in_steps(b->r, s, at, k, &start, &step)) return number_at(rw, b, start, step);
    GM_ASSERT(same_distance(b->r, s, at, k, &from));
    for (int i = 0; from < 0 && i < b->p->carry_count; i++)
        if (b->p->carries[i].init == first && b->p->carries[i].from == from + s->period) return b->carries[i];
    return ir_rewrite_get(rw, first);
}

static ir_value *copy_weight(ir_rewrite *rw, body *b, int at) {
    const ir_inst *inst = inst_of(b->r, &b->p->at, 0, at);
    char name[IR_NAME_BYTES];
    int64_t start, step;
    GM_ASSERT(weight_in_steps(b->r, &b->p->at, at, name, &start, &step));
    ir_attr attrs[] = {ir_attr_make_string(IR_ATTR_NAME, gm_arena_strdup(&rw->out->arena, name)),
                       ir_attr_make_int(IR_ATTR_START, start), ir_attr_make_int(IR_ATTR_STEP, step),
                       ir_attr_make_int(IR_ATTR_EXTENT, b->p->at.count)};
    return ir_emit1(&rw->b, IR_LAYER_WEIGHT, &b->index, 1, attrs, 4, &inst->results[0]->type);
}

static void copy_inst(ir_rewrite *rw, body *b, int at) {
    const ir_inst *inst = inst_of(b->r, &b->p->at, 0, at);
    ir_value **operands = GM_NEW_ARRAY(&rw->out->arena, ir_value *, inst->operand_count + 1), *made;
    if (inst->op == IR_WEIGHT) made = copy_weight(rw, b, at);
    else {
        for (int k = 0; k < inst->operand_count; k++) operands[k] = operand_of(rw, b, at, k);
        made = ir_emit1(&rw->b, inst->op, operands, inst->operand_count, inst->attrs, inst->attr_count,
                        &inst->results[0]->type);
    }
    ir_rewrite_map(rw, inst->results[0], made);
}

static void emit_loop(ir_rewrite *rw, const rolling *r, const plan *p) {
    body b = {.r = r, .p = p};
    ir_value *operands[1 + MAX_CARRIES] = {ir_named(ir_const_int(&rw->b, p->at.count), "layers")}, *yields[MAX_CARRIES];
    ir_region *outer = rw->b.region, *inside = ir_region_new(&rw->b);
    for (int i = 0; i < p->carry_count; i++) operands[1 + i] = ir_rewrite_get(rw, p->carries[i].init);
    b.index = ir_param(&rw->b, inside, ir_scalar(RT_I32), "l");
    for (int i = 0; i < p->carry_count; i++)
        b.carries[i] = ir_param(&rw->b, inside, operands[1 + i]->type, operands[1 + i]->hint);
    rw->b.region = inside;
    for (int at = 0; at < p->at.period; at++) copy_inst(rw, &b, at);
    for (int i = 0; i < p->carry_count; i++)
        yields[i] = ir_rewrite_get(rw, inst_of(r, &p->at, 0, p->carries[i].from)->results[0]);
    ir_yield(&rw->b, yields, p->carry_count);
    rw->b.region = outer;
    ir_inst *scan = ir_emit(&rw->b, IR_SCAN, operands, 1 + p->carry_count, NULL, 0, &inside, 1, NULL, p->carry_count);
    for (int i = 0; i < p->carry_count; i++)
        ir_rewrite_map(rw, inst_of(r, &p->at, p->at.count - 1, p->carries[i].from)->results[0], scan->results[i]);
}

/* ---- the pass ---- */

static void hoist(ir_rewrite *rw, rolling *r) {
    const ir_region *all = r->func->body;
    r->hoisted = true;
    for (int i = 0; i < all->inst_count; i++)
        if (r->invariant[all->insts[i]->results[0]->id]) ir_rewrite_clone(rw, all->insts[i]);
}

static bool roll(ir_rewrite *rw, const ir_inst *inst) {
    rolling *r = rw->user;
    if (!r->hoisted) hoist(rw, r);
    int place = r->place[inst->results[0]->id];
    if (place == NOWHERE) return true;
    for (int i = 0; i < r->plan_count; i++) {
        const stretch *s = &r->plans[i].at;
        if (place < s->start || place >= s->start + s->period * s->count) continue;
        if (place == s->start) emit_loop(rw, r, &r->plans[i]);
        return true;
    }
    return false;
}

gm_status pass_roll_layers(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        rolling r = {.count = 0};
        const ir_func *func = in->funcs[i];
        bool straight = open_rolling(&r, func);
        if (straight && strcmp(func->name, "forward") == 0) find_loops(&r, 0, r.count);
        ir_clone_func(in, func, *out, func->name, NULL, r.plan_count ? roll : NULL, &r);
        close_rolling(&r);
    }
    return GM_OK;
}
