/* guess_ahead: speculative decoding in the generate loop. Tokens are guessed (drafted) from the rows of the head that
 * belong to likely ids (runtime/likely.h), and several are then verified at once, with the whole head.
 *
 *   while i < count and not stopped:                       (what form_generate_loop makes)
 *     rows = x, x, …; j = 0
 *     limit = no repeat penalty, greedy or a choice among few, and i > 0 ? fewer than ROWS and than wanted : 0
 *     while j < limit and the last guess is no stop:
 *       ids[j] = choice of head(rows[j]) among likely ids
 *       rows[j + 1], caches = @forward(ids[j], position + j, caches); j += 1
 *     best = choice of head(rows)                          j is 0: of head(x)
 *     a = 0; token = best[0]; tokens[position] = token; emit token
 *     while a < j and best[a] is ids[a] and not a stop:
 *       a += 1; token = best[a]; tokens[position + a] = token; emit token
 *     x, caches = @forward(token, position + a, caches)
 *     position, i += 1 + a
 *
 * A guess is accepted only where the whole head chooses the same id, so the tokens are those of the plain loop. Rows of
 * the caches that a rejected guess has written are overwritten before they are read. Bit-exact where several rows of
 * the head are computed as each alone (passes/screen_head.c). When sampling, the random number of an id depends only on
 * the seed, the position and the id, so that the choice among likely ids is mostly the choice among all
 * (runtime/sampler.c).
 *
 * Every guess runs all layers, as a token of the plain loop does; what is saved is reading the head. A guess reads
 * about a fourteenth of it, and the whole is read once for ROWS tokens. That pays where reading costs more than
 * multiplying ROWS rows instead of one. The first step of a call has no guesses, so that its first token is not
 * delayed.
 *
 * Needs the loop of form_generate_loop, and a @head that takes any number of rows and that screen_head can screen. Does
 * nothing otherwise, or where a ring (kv_ring) is too short for the guesses and the tokens that the host may take back.
 */
#include "passes/loops.h"
#include "passes/passes.h"
#include "passes/screened.h"
#include "ir/rewrite.h"

enum { CARRY_CACHES = CARRY_MORE };

/* Ids below this are always likely. Measured on English prose for 8192, 16384 and 32768, together with the blocks of
 * recent tokens: 13, 9 and 5 % of the tokens are not likely ids, which are 4, 7 and 13 % of the head's rows. */
enum { USUAL_IDS = 16384 };

/* Rows of x that the head verifies at once: one more than there are guesses. A larger number saves little more reading
 * and loses more by a wrong guess. */
enum { ROWS = 3 };

typedef struct guessing {
    ir_builder *b;
    const loop_model *model;
    loop_choice choice;
    int rows;       /* of the head in one step: a guess less */
    ir_attr rounds; /* as many guesses, and tokens taken besides the first, as a rule */
} guessing;

static ir_value *plus(guessing *g, ir_value *x, ir_value *y) {
    return ir_binary(g->b, IR_ADD, x, y);
}

static ir_value *number(guessing *g, int64_t n) {
    return ir_const_int(g->b, n);
}

/* i32[rows] of zero. */
static ir_value *no_ids(guessing *g) {
    ir_type type = ir_tensor(RT_I32, 1, (ir_dim[]){g->rows});
    ir_attr zero = ir_attr_make_int(IR_ATTR_VALUE, 0);
    return ir_emit1(g->b, IR_CONST, NULL, 0, &zero, 1, &type);
}

static ir_value *put_row(guessing *g, ir_value *rows, ir_value *x, ir_value *row) {
    ir_value *at[] = {row, number(g, 0)};
    return ir_update(g->b, rows, x, at, 2);
}

/* ---- guessing ---- */

enum { GUESS_COUNT, GUESS_ROWS, GUESS_IDS, GUESS_DONE, GUESS_CACHES, GUESS_MAX = GUESS_CACHES + RT_MAX_CACHES };

/* The most guesses of this round. */
static ir_value *limit_of(guessing *g, ir_value *const *c) {
    ir_builder *b = g->b;
    ir_value *one = number(g, 1), *left = ir_binary(b, IR_SUB, g->choice.count, c[CARRY_COUNT]);
    ir_value *wanted = ir_binary(b, IR_SUB, left, one);
    ir_value *most = ir_binary(b, IR_MIN, wanted, number(g, g->rows - 1));
    ir_value *few = loop_chooses_few(b, &g->choice), *greedy = loop_greedy(b, &g->choice);
    ir_value *screened = ir_binary(b, IR_OR, greedy, few);
    ir_value *may = ir_binary(b, IR_AND, screened, ir_binary(b, IR_LT, number(g, 0), c[CARRY_COUNT]));
    return ir_named(ir_select(b, may, most, number(g, 0)), "limit");
}

static ir_region *guess_test(guessing *g, ir_value *const *init, int carries, ir_value *limit) {
    ir_builder *b = g->b;
    ir_region *outer = b->region, *test;
    ir_value *c[GUESS_MAX];
    b->region = test = loop_region(b, init, carries, c);
    ir_value *running = ir_unary(b, IR_NOT, c[GUESS_DONE]), *more = ir_binary(b, IR_LT, c[GUESS_COUNT], limit);
    ir_value *go = ir_binary(b, IR_AND, more, running);
    ir_yield(b, &go, 1);
    b->region = outer;
    return test;
}

/* i32[1,1]: the guess for position + at, chosen among likely ids. The sampler looks for recent tokens up to position +
 * at, although `tokens` holds stale ids from `position` on: at worst they make some more ids likely. */
static ir_value *guess_of(guessing *g, ir_value *row, ir_value *tokens, ir_value *position, ir_value *at) {
    ir_builder *b = g->b;
    ir_value *logits = loop_logits(b, g->model, row), *of[] = {logits, tokens, position};
    ir_attr usual = ir_attr_make_int(IR_ATTR_USUAL, USUAL_IDS);
    loop_branches chosen = loop_branch_begin(b, loop_greedy(b, &g->choice));
    loop_branch_other(b, &chosen, ir_emit1(b, IR_GUESS, of, 3, &usual, 1, NULL));
    return loop_branch_end(b, &chosen, loop_draw(b, &g->choice, logits, tokens, plus(g, position, at), USUAL_IDS));
}

static ir_region *guess_body(guessing *g, ir_value *const *init, int carries, ir_value *const *outside) {
    ir_builder *b = g->b;
    ir_region *outer = b->region, *body;
    ir_value *c[GUESS_MAX], *position = outside[CARRY_POSITION];
    ir_dim one = 1;
    b->region = body = loop_region(b, init, carries, c);
    ir_value *at = c[GUESS_COUNT], *row = ir_window(b, c[GUESS_ROWS], at, 0, 1);
    ir_value *id = ir_named(ir_reshape(b, guess_of(g, row, outside[CARRY_TOKENS], position, at), 1, &one), "guess");
    c[GUESS_IDS] = ir_update(b, c[GUESS_IDS], id, &at, 1);
    c[GUESS_DONE] = loop_is_stop(b, &g->choice, ir_reshape(b, id, 0, NULL));
    ir_inst *step = loop_step(b, g->model, id, plus(g, position, at), c + GUESS_CACHES);
    c[GUESS_COUNT] = plus(g, at, number(g, 1));
    c[GUESS_ROWS] = put_row(g, c[GUESS_ROWS], step->results[0], c[GUESS_COUNT]);
    for (int i = 0; i < g->model->cache_count; i++) c[GUESS_CACHES + i] = step->results[1 + i];
    ir_yield(b, c, carries);
    b->region = outer;
    return body;
}

/* Results: GUESS_…. */
static ir_value **guess(guessing *g, ir_value *const *c) {
    ir_builder *b = g->b;
    int caches = g->model->cache_count, carries = GUESS_CACHES + caches;
    ir_value *limit = limit_of(g, c), *zero = number(g, 0), *init[GUESS_MAX] = {ir_named(zero, "j")};
    ir_value *copies[ROWS];
    for (int i = 0; i < g->rows; i++) copies[i] = c[CARRY_X];
    /* rows without a guess are copies of x: for a row of zeros all logits tie, and no row of W is ruled out */
    init[GUESS_ROWS] = ir_named(ir_concat(b, copies, g->rows, 0), "rows");
    init[GUESS_IDS] = ir_named(no_ids(g), "ids");
    init[GUESS_DONE] = ir_named(ir_const_bool(b, false), "stop");
    for (int i = 0; i < caches; i++) init[GUESS_CACHES + i] = c[CARRY_CACHES + i];
    ir_region *regions[2] = {guess_test(g, init, carries, limit), guess_body(g, init, carries, c)};
    return loop_while(b, init, carries, &g->rounds, regions)->results;
}

/* ---- verifying ---- */

/* ids with only the first. */
static ir_value *one_id(guessing *g, ir_value *id) {
    ir_value *zero = number(g, 0), *row = ir_reshape(g->b, id, 1, (ir_dim[]){1});
    return ir_update(g->b, no_ids(g), row, &zero, 1);
}

/* i32[rows]: the token that follows each of the rows; only the first one's when nothing was guessed. */
static ir_value *best_of(guessing *g, ir_value *const *guessed, ir_value *const *c) {
    ir_builder *b = g->b;
    ir_dim count = g->rows;
    loop_branches some = loop_branch_begin(b, ir_binary(b, IR_LT, number(g, 0), guessed[GUESS_COUNT]));
    loop_branch_other(
        b, &some,
        ir_reshape(b, loop_pick(b, g->model, &g->choice, guessed[GUESS_ROWS], c[CARRY_TOKENS], c[CARRY_POSITION]), 1,
                   &count));
    return ir_named(
        loop_branch_end(b, &some,
                        one_id(g, loop_pick(b, g->model, &g->choice, c[CARRY_X], c[CARRY_TOKENS], c[CARRY_POSITION]))),
        "best");
}

enum { TAKE_TOKENS, TAKE_ACCEPTED, TAKE_DONE, TAKE_CARRIES };

static ir_region *take_test(guessing *g, ir_value *const *init, ir_value *const *guessed, ir_value *best) {
    ir_builder *b = g->b;
    ir_region *outer = b->region, *test;
    ir_value *c[TAKE_CARRIES];
    b->region = test = loop_region(b, init, TAKE_CARRIES, c);
    ir_value *at = c[TAKE_ACCEPTED], *drafted = ir_index(b, guessed[GUESS_IDS], at, 0);
    ir_value *right = ir_binary(b, IR_EQ, ir_index(b, best, at, 0), drafted);
    ir_value *more = ir_binary(b, IR_AND, ir_binary(b, IR_LT, at, guessed[GUESS_COUNT]), right);
    ir_value *go = ir_binary(b, IR_AND, more, ir_unary(b, IR_NOT, c[TAKE_DONE]));
    ir_yield(b, &go, 1);
    b->region = outer;
    return test;
}

static ir_region *take_body(guessing *g, ir_value *const *init, ir_value *best, ir_value *position) {
    ir_builder *b = g->b;
    ir_region *outer = b->region, *body;
    ir_value *c[TAKE_CARRIES];
    b->region = body = loop_region(b, init, TAKE_CARRIES, c);
    ir_value *accepted = plus(g, c[TAKE_ACCEPTED], number(g, 1));
    ir_value *place = plus(g, position, accepted), *token = ir_index(b, best, accepted, 0);
    loop_taken taken = loop_take(b, &g->choice, token, c[TAKE_TOKENS], place);
    ir_value *yields[TAKE_CARRIES] = {taken.tokens, accepted, taken.stopped};
    ir_yield(b, yields, TAKE_CARRIES);
    b->region = outer;
    return body;
}

/* Takes the first of `best`, and each one behind a right guess. Results: TAKE_…. */
static ir_value **take(guessing *g, ir_value *const *c, ir_value *const *guessed, ir_value *best) {
    ir_builder *b = g->b;
    ir_value *zero = ir_named(number(g, 0), "accepted");
    loop_taken first = loop_take(b, &g->choice, ir_index(b, best, zero, 0), c[CARRY_TOKENS], c[CARRY_POSITION]);
    ir_value *init[TAKE_CARRIES] = {ir_named(first.tokens, "tokens"), zero, ir_named(first.stopped, "stopped")};
    ir_region *regions[2] = {take_test(g, init, guessed, best), take_body(g, init, best, c[CARRY_POSITION])};
    return loop_while(b, init, TAKE_CARRIES, &g->rounds, regions)->results;
}

/* ---- the loop ---- */

static ir_region *build_body(guessing *g, ir_value *const *init, int carries) {
    ir_builder *b = g->b;
    ir_region *outer = b->region, *body;
    ir_value *c[LOOP_MAX_CARRIES];
    b->region = body = loop_region(b, init, carries, c);
    ir_value **guessed = guess(g, c), *best = best_of(g, guessed, c), **taken = take(g, c, guessed, best);
    ir_value *id = ir_reshape(b, ir_index(b, best, taken[TAKE_ACCEPTED], 0), 1, (ir_dim[]){1});
    ir_value *last = plus(g, c[CARRY_POSITION], taken[TAKE_ACCEPTED]),
             *emitted = plus(g, taken[TAKE_ACCEPTED], number(g, 1));
    ir_inst *step = loop_step(b, g->model, id, last, guessed + GUESS_CACHES);
    ir_value *yields[LOOP_MAX_CARRIES] = {step->results[0], taken[TAKE_TOKENS], plus(g, c[CARRY_POSITION], emitted),
                                          taken[TAKE_DONE], plus(g, c[CARRY_COUNT], emitted)};
    for (int i = 0; i < g->model->cache_count; i++) yields[CARRY_CACHES + i] = step->results[1 + i];
    ir_yield(b, yields, carries);
    b->region = outer;
    return body;
}

static bool guess_in(ir_rewrite *rw, const ir_inst *inst) {
    const pass_options *options = rw->user;
    loop_model model;
    if (inst->op != IR_WHILE || !loop_model_of(rw->out, &model) || !loop_is_generate(rw->in_func, inst, &model))
        return false;
    if (!loop_chooses_rows(rw->out, &model) || pass_why_not_screened(model.head)) return false;
    guessing g = {.b = &rw->b,
                  .model = &model,
                  .choice = loop_choice_of(rw),
                  .rows = options->rows < ROWS ? (int)options->rows : ROWS};
    if (!loop_rings_hold(&model, g.rows - 1)) return false;
    g.rounds = ir_attr_make_int(IR_ATTR_ROUNDS, g.rows - 1);
    ir_value *init[LOOP_MAX_CARRIES];
    int carries = CARRY_CACHES + model.cache_count;
    for (int i = 0; i < carries; i++)
        init[i] = ir_named(ir_rewrite_get(rw, inst->operands[i]),
                           (inst->regions[1]->params[i]->hint
                                ? gm_arena_strdup(&rw->out->arena, inst->regions[1]->params[i]->hint)
                                : NULL));
    ir_region *regions[2] = {loop_test(&rw->b, &g.choice, init, carries), build_body(&g, init, carries)};
    ir_inst *loop = loop_while(&rw->b, init, carries, NULL, regions);
    for (int i = 0; i < inst->result_count; i++) ir_rewrite_map(rw, inst->results[i], loop->results[i]);
    return true;
}

gm_status pass_guess_ahead(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    *out = ir_rewrite_module(in, options->rows > 1 && !options->unscreened ? guess_in : NULL, (void *)options);
    return GM_OK;
}
