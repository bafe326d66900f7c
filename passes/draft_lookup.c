/* draft_lookup: the generate loop drafts tokens by looking them up in the sequence so far, and verifies them in one
 * step of several rows.
 *
 *   while i < count and not stopped:                       (what form_generate_loop makes, with `known` carried too)
 *     token = known, or head and choice of x; tokens[position] = token; emit token; stopped = token in stops
 *     at = the place behind the latest earlier occurrence of the last MATCH tokens, else 0
 *     scan (at > 0 and there is room ? 1 : 0):             drafted
 *       ids = token, tokens[at], tokens[at + 1], …         DRAFT of them, going round from `at` to the sequence's end
 *       rows, caches = @forward(ids, position, caches)
 *       next = choice of head(rows[0]); a = 0              greedy: of all rows at once
 *       while next is ids[a + 1], wanted and not behind a stop: emit next; a += 1; next = choice of head(rows[a])
 *       x = rows[a]; position, i += 1 + a; known = next
 *     scan (1 - that):                                     plain
 *       x, caches = @forward(token, position, caches); position, i += 1
 *
 * A drafted token counts only where the greedy choice or the sampler, whose random numbers belong to the position and
 * an id, takes it itself, so the tokens are those of the plain loop; rows of the caches behind the last accepted token
 * are written again before they are read. Bit-exact where @forward over several tokens means as many single steps to
 * the bit, as compiled code's few rows do (passes/choose_matmul.c, codegen/attention.c). A step without a draft is the
 * plain loop's. The two scans of one trip or none are branches whose caches stay where they are.
 *
 * Needs the loop of form_generate_loop, an @forward that takes any number of tokens and a @head that takes any number
 * of rows; else does nothing, nor where a chunk is one token or a ring (kv_ring) is too short for drafts besides what
 * the host may take back.
 */
#include "passes/loops.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <string.h>

/* Tokens that must have stood there before. With two, free text has many drafts of which few tokens are accepted: a
 * loss. */
enum { MATCH = 3 };

/* One carry more than those of @generate's own loop. */
enum { CARRY_KNOWN = CARRY_MORE, CARRY_CACHES };

typedef struct drafting {
    ir_builder *b;
    const loop_model *model;
    loop_choice choice;
    ir_value *capacity; /* extent of tokens */
    int draft;          /* tokens */
} drafting;

static ir_value *plus(drafting *d, ir_value *x, int64_t n) {
    return ir_binary(d->b, IR_ADD, x, ir_const_int(d->b, n));
}

static ir_value *both(drafting *d, ir_value *x, ir_value *y) {
    return ir_binary(d->b, IR_AND, x, y);
}

static ir_value *token_at(drafting *d, ir_value *tokens, ir_value *at) {
    return ir_index(d->b, tokens, at, 0);
}

/* ---- looking up ---- */

/* tokens[at - MATCH, at) are `last`, from the end; false with less than MATCH tokens before `at`. */
static ir_value *matches(drafting *d, ir_value *tokens, ir_value *at, ir_value *const *last) {
    ir_value *all = ir_binary(d->b, IR_LE, ir_const_int(d->b, MATCH), at), *zero = ir_const_int(d->b, 0);
    for (int i = 0; i < MATCH; i++) {
        ir_value *from = ir_binary(d->b, IR_MAX, plus(d, at, -1 - i), zero);
        all = both(d, all, ir_binary(d->b, IR_EQ, token_at(d, tokens, from), last[i]));
    }
    return all;
}

/* The largest at < end for which the MATCH tokens before `at` are those before `end`; 0: there is none. */
static ir_value *look_up(drafting *d, ir_value *tokens, ir_value *end) {
    ir_builder *b = d->b;
    ir_value *last[MATCH], *zero = ir_const_int(b, 0), *least = ir_const_int(b, MATCH),
                           *start = ir_named(plus(d, end, -1), "at"), *at;
    for (int i = 0; i < MATCH; i++) last[i] = token_at(d, tokens, ir_binary(b, IR_MAX, plus(d, end, -1 - i), zero));
    ir_region *outer = b->region, *regions[2];
    b->region = regions[0] = loop_region(d->b, &start, 1, &at);
    ir_value *missed = ir_unary(b, IR_NOT, matches(d, tokens, at, last)),
             *go = both(d, ir_binary(b, IR_LE, least, at), missed);
    ir_yield(b, &go, 1);
    b->region = regions[1] = loop_region(d->b, &start, 1, &at);
    ir_value *next = plus(d, at, -1);
    ir_yield(b, &next, 1);
    b->region = outer;
    ir_value *found = loop_while(b, &start, 1, NULL, regions)->results[0];
    return ir_named(ir_select(b, ir_binary(b, IR_LE, least, found), found, zero), "at");
}

/* The token before `end` and its draft: tokens from `at` on, and from `at` again behind the last. */
static ir_value *draft_ids(drafting *d, ir_value *tokens, ir_value *id, ir_value *at, ir_value *end) {
    ir_builder *b = d->b;
    ir_value *ids[RT_FEW_ROWS] = {id}, *period = ir_binary(b, IR_SUB, end, at);
    ir_dim one = 1;
    for (int i = 0; i < d->draft; i++) {
        ir_value *number = ir_const_int(b, i),
                 *round = ir_binary(b, IR_MUL, ir_binary(b, IR_DIV, number, period), period);
        ir_value *from = ir_binary(b, IR_ADD, at, ir_binary(b, IR_SUB, number, round));
        ids[1 + i] = ir_reshape(b, token_at(d, tokens, from), 1, &one);
    }
    return ir_named(ir_concat(b, ids, 1 + d->draft, 0), "ids");
}

/* ---- verifying ---- */

enum { VERIFY_TOKENS, VERIFY_ACCEPTED, VERIFY_NEXT, VERIFY_DONE, VERIFY_CARRIES };

typedef struct verification {
    ir_value *rows, *ids;      /* [1 + draft, h], [1 + draft] */
    ir_value *first, *count;   /* position and number of the token that ids[1] is a draft for */
    ir_value *greedy, *argmax; /* [1 + draft]: of each row, when greedy */
} verification;

/* All rows at once: the head is read once for them. */
static ir_value *argmax_rows(drafting *d, const verification *v) {
    ir_builder *b = d->b;
    ir_type type = v->ids->type;
    ir_attr zero = ir_attr_make_int(IR_ATTR_VALUE, 0);
    loop_branches chosen = loop_branch_begin(b, v->greedy);
    loop_branch_other(b, &chosen,
                      ir_reshape(b, ir_reduce(b, IR_ARGMAX, loop_logits(b, d->model, v->rows), 1), 1, type.dim));
    return ir_named(loop_branch_end(b, &chosen, ir_emit1(b, IR_CONST, NULL, 0, &zero, 1, &type)), "argmax");
}

/* The token that follows row `row`, at `position`. */
static ir_value *choose_row(drafting *d, const verification *v, ir_value *row, ir_value *tokens, ir_value *position) {
    ir_builder *b = d->b;
    loop_branches chosen = loop_branch_begin(b, v->greedy);
    loop_branch_other(b, &chosen, ir_index(b, v->argmax, row, 0));
    ir_value *logits = loop_logits(b, d->model, ir_window(b, v->rows, row, 0, 1));
    return ir_named(
        loop_branch_end(b, &chosen, ir_reshape(b, loop_draw(b, &d->choice, logits, tokens, position, 0), 0, NULL)),
        "next");
}

static ir_region *verify_test(drafting *d, const verification *v, ir_value *const *init) {
    ir_builder *b = d->b;
    ir_region *outer = b->region, *test;
    ir_value *c[VERIFY_CARRIES];
    b->region = test = loop_region(d->b, init, VERIFY_CARRIES, c);
    ir_value *accepted = c[VERIFY_ACCEPTED], *last = ir_const_int(b, d->draft);
    ir_value *drafted = token_at(d, v->ids, ir_binary(b, IR_MIN, plus(d, accepted, 1), last));
    ir_value *right = ir_binary(b, IR_EQ, c[VERIFY_NEXT], drafted), *more = ir_binary(b, IR_LT, accepted, last);
    ir_value *go = both(d, more, right);
    ir_value *wanted = ir_binary(b, IR_LT, ir_binary(b, IR_ADD, v->count, accepted), d->choice.count);
    go = both(d, go, both(d, wanted, ir_unary(b, IR_NOT, c[VERIFY_DONE])));
    ir_yield(b, &go, 1);
    b->region = outer;
    return test;
}

static ir_region *verify_body(drafting *d, const verification *v, ir_value *const *init) {
    ir_builder *b = d->b;
    ir_region *outer = b->region, *body;
    ir_value *c[VERIFY_CARRIES];
    b->region = body = loop_region(d->b, init, VERIFY_CARRIES, c);
    ir_value *position = ir_binary(b, IR_ADD, v->first, c[VERIFY_ACCEPTED]);
    loop_taken taken = loop_take(b, &d->choice, c[VERIFY_NEXT], c[VERIFY_TOKENS], position);
    ir_value *accepted = plus(d, c[VERIFY_ACCEPTED], 1);
    ir_value *next = choose_row(d, v, accepted, taken.tokens, plus(d, position, 1));
    ir_value *yields[VERIFY_CARRIES] = {taken.tokens, accepted, next, taken.stopped};
    ir_yield(b, yields, VERIFY_CARRIES);
    b->region = outer;
    return body;
}

/* Results: tokens, number of accepted drafts, the token after them, whether the last is a stop. */
static ir_inst *verify(drafting *d, const verification *v, ir_value *tokens) {
    ir_builder *b = d->b;
    ir_value *zero = ir_const_int(b, 0);
    ir_value *init[VERIFY_CARRIES] = {tokens, ir_named(zero, "accepted"), choose_row(d, v, zero, tokens, v->first),
                                      ir_named(ir_const_bool(b, false), "stopped")};
    ir_region *regions[2] = {verify_test(d, v, init), verify_body(d, v, init)};
    return loop_while(b, init, VERIFY_CARRIES, NULL, regions);
}

/* ---- the two kinds of step ---- */

/* A scan of `trips` trips over the loop's carries: its body, open, with parameters in c. */
static ir_region *step_begin(drafting *d, ir_value *const *carry, int carries, ir_value **c) {
    ir_region *body = ir_region_new(d->b);
    ir_param(d->b, body, ir_scalar(RT_I32), "trip");
    for (int i = 0; i < carries; i++) c[i] = ir_param(d->b, body, carry[i]->type, carry[i]->hint);
    d->b->region = body;
    return body;
}

/* Closes it; carry becomes the scan's results. */
static void step_end(drafting *d, ir_region *outer, ir_region *body, ir_value *trips, ir_value **carry,
                     ir_value *const *next, int carries) {
    ir_value *operands[1 + LOOP_MAX_CARRIES] = {trips};
    for (int i = 0; i < carries; i++) operands[1 + i] = carry[i];
    ir_yield(d->b, next, carries);
    d->b->region = outer;
    ir_inst *scan = loop_scan(d->b, operands, carries, body);
    for (int i = 0; i < carries; i++) carry[i] = scan->results[i];
}

static void plain_step(drafting *d, ir_value *trips, ir_value *id, ir_value **carry) {
    ir_region *outer = d->b->region;
    ir_value *c[LOOP_MAX_CARRIES];
    int caches = d->model->cache_count, carries = CARRY_CACHES + caches;
    ir_region *body = step_begin(d, carry, carries, c);
    ir_inst *step = loop_step(d->b, d->model, id, c[CARRY_POSITION], c + CARRY_CACHES);
    c[CARRY_X] = step->results[0];
    c[CARRY_POSITION] = plus(d, c[CARRY_POSITION], 1);
    c[CARRY_COUNT] = plus(d, c[CARRY_COUNT], 1);
    for (int i = 0; i < caches; i++) c[CARRY_CACHES + i] = step->results[1 + i];
    step_end(d, outer, body, trips, carry, c, carries);
}

static void drafted_step(drafting *d, ir_value *trips, ir_value *id, ir_value *at, ir_value **carry) {
    ir_builder *b = d->b;
    ir_region *outer = b->region;
    ir_value *c[LOOP_MAX_CARRIES];
    int caches = d->model->cache_count, carries = CARRY_CACHES + caches;
    ir_region *body = step_begin(d, carry, carries, c);
    verification v = {.first = plus(d, c[CARRY_POSITION], 1), .count = plus(d, c[CARRY_COUNT], 1)};
    v.ids = draft_ids(d, c[CARRY_TOKENS], id, at, v.first);
    ir_inst *step = loop_step(b, d->model, v.ids, c[CARRY_POSITION], c + CARRY_CACHES);
    v.rows = ir_named(step->results[0], "rows");
    v.greedy = loop_greedy(b, &d->choice);
    v.argmax = argmax_rows(d, &v);
    ir_value **verified = verify(d, &v, c[CARRY_TOKENS])->results, *accepted = verified[VERIFY_ACCEPTED];
    c[CARRY_X] = ir_window(b, v.rows, accepted, 0, 1);
    c[CARRY_TOKENS] = verified[VERIFY_TOKENS];
    c[CARRY_POSITION] = ir_binary(b, IR_ADD, v.first, accepted);
    c[CARRY_DONE] = verified[VERIFY_DONE];
    c[CARRY_COUNT] = ir_binary(b, IR_ADD, v.count, accepted);
    c[CARRY_KNOWN] = verified[VERIFY_NEXT];
    for (int i = 0; i < caches; i++) c[CARRY_CACHES + i] = step->results[1 + i];
    step_end(d, outer, body, trips, carry, c, carries);
}

/* ---- the loop ---- */

/* The token that is known, or the choice of x. */
static ir_value *token_of(drafting *d, ir_value *const *c) {
    ir_builder *b = d->b;
    ir_value *unknown = ir_binary(b, IR_LT, c[CARRY_KNOWN], ir_const_int(b, 0));
    loop_branches token = loop_branch_begin(b, unknown);
    loop_branch_other(
        b, &token,
        ir_reshape(b, loop_pick(b, d->model, &d->choice, c[CARRY_X], c[CARRY_TOKENS], c[CARRY_POSITION]), 0, NULL));
    return ir_named(loop_branch_end(b, &token, c[CARRY_KNOWN]), "token");
}

/* 1 when there is something to verify: a draft, room for all of it, a token wanted after this one, and this one is no
 * stop. */
static ir_value *trips_of(drafting *d, ir_value *const *c, ir_value *at) {
    ir_builder *b = d->b;
    ir_value *found = ir_binary(b, IR_LT, ir_const_int(b, 0), at),
             *wanted = ir_binary(b, IR_LT, plus(d, c[CARRY_COUNT], 1), d->choice.count);
    ir_value *room = ir_binary(b, IR_LT, plus(d, c[CARRY_POSITION], d->draft), d->capacity);
    ir_value *needed = both(d, wanted, ir_unary(b, IR_NOT, c[CARRY_DONE])), *can = both(d, found, room);
    ir_value *go = both(d, can, needed);
    return ir_named(ir_convert(b, go, RT_I32), "drafted");
}

static ir_region *build_body(drafting *d, ir_value *const *init) {
    ir_builder *b = d->b;
    ir_region *outer = b->region, *body;
    ir_value *c[LOOP_MAX_CARRIES];
    int carries = CARRY_CACHES + d->model->cache_count;
    b->region = body = loop_region(d->b, init, carries, c);
    loop_taken taken = loop_take(b, &d->choice, token_of(d, c), c[CARRY_TOKENS], c[CARRY_POSITION]);
    c[CARRY_TOKENS] = ir_named(taken.tokens, "tokens");
    c[CARRY_DONE] = ir_named(taken.stopped, "stopped");
    c[CARRY_KNOWN] = ir_named(ir_const_int(b, -1), "known");
    ir_value *at = look_up(d, c[CARRY_TOKENS], plus(d, c[CARRY_POSITION], 1)), *drafted = trips_of(d, c, at);
    drafted_step(d, drafted, taken.id, at, c);
    plain_step(d, ir_binary(b, IR_SUB, ir_const_int(b, 1), drafted), taken.id, c);
    ir_yield(b, c, carries);
    b->region = outer;
    return body;
}

/* The extent of `tokens`, which may be a symbol. */
static ir_value *capacity_of(ir_builder *b, const loop_model *model) {
    ir_value *numbers = ir_iota(b, 1, model->tokens.dim, 0),
             *last = ir_reshape(b, ir_reduce(b, IR_REDUCE_MAX, numbers, 0), 0, NULL);
    return ir_named(ir_binary(b, IR_ADD, last, ir_const_int(b, 1)), "capacity");
}

/* ---- the rewrite ---- */

static void build_loop(drafting *d, ir_rewrite *rw, const ir_inst *inst) {
    ir_builder *b = &rw->b;
    const loop_model *model = d->model;
    ir_value *init[LOOP_MAX_CARRIES];
    static const char *const hints[CARRY_CACHES] = {"x", "tokens", "position", "stopped", "i", "known"};
    int caches = model->cache_count, carries = CARRY_CACHES + caches;
    d->capacity = capacity_of(b, model);
    for (int i = 0; i < CARRY_KNOWN; i++) init[i] = ir_rewrite_get(rw, inst->operands[i]);
    init[CARRY_KNOWN] = ir_const_int(b, -1);
    for (int i = 0; i < caches; i++) init[CARRY_CACHES + i] = ir_rewrite_get(rw, inst->operands[CARRY_KNOWN + i]);
    for (int i = 0; i < CARRY_CACHES; i++) ir_named(init[i], hints[i]);
    ir_region *regions[2] = {loop_test(b, &d->choice, init, carries), build_body(d, init)};
    ir_inst *loop = loop_while(b, init, carries, NULL, regions);
    for (int i = 0; i < inst->result_count; i++)
        ir_rewrite_map(rw, inst->results[i], loop->results[i < CARRY_KNOWN ? i : i + 1]);
}

static bool draft(ir_rewrite *rw, const ir_inst *inst) {
    const pass_options *options = rw->user;
    loop_model model;
    if (inst->op != IR_WHILE || !loop_model_of(rw->out, &model) || !loop_takes_rows(rw->out, &model) ||
        !loop_chooses_rows(rw->out, &model) || !loop_is_generate(rw->in_func, inst, &model))
        return false;
    int64_t most = (options->chunk < options->rows ? options->chunk : options->rows) - 1;
    drafting d = {.b = &rw->b, .model = &model, .draft = most < RT_MAX_DRAFT ? (int)most : RT_MAX_DRAFT};
    if (!loop_rings_hold(&model, d.draft)) return false;
    d.choice = loop_choice_of(rw);
    build_loop(&d, rw, inst);
    return true;
}

gm_status pass_draft_lookup(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_rewrite_module(in, options->chunk > 1 && options->rows > 1 ? draft : NULL, (void *)options);
    return GM_OK;
}
