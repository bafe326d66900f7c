/* Guessed tokens (passes/guess_ahead.c) in a model whose tokens go round, one of them with a number above those of
 * usual ids: guesses are made, accepted, and rejected where the right token is no likely one; likely ids
 * (runtime/likely.h). */
#include "frontend/gir_run.h"
#include "runtime/derive.h"
#include "runtime/likely.h"
#include "tests/unit/passed_text.h"
#include "tests/unit/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model ---- */

enum { VOCAB = 16400, COLUMNS = 128, RARE = 16399, SLOTS = 40, STOPS = 16, ARGS = 8, ROUND = 6 };

/* What comes after each of them, and after the last one. */
static const int32_t round_of[ROUND] = {1, 2, RARE, 3, 4, 5};

static int32_t token_at(int64_t i) {
    return round_of[i % ROUND];
}

/* x is the column of the token that follows; the cache only keeps what @forward takes. */
static const char module_text[] =
    "symbol T max 6\nsymbol S\nsymbol R\n"
    "func @forward(%ids: i32[T], %position: i32, %kc: f32[1,S,1,1]) -> (f32[T,128], f32[1,S,1,1]) {\n"
    "  %next = weight {name = \"next\"} : f32[16400,128]\n  %x = gather %next, %ids : f32[T,128]\n"
    "  %id = convert %ids : f32[T]\n  %row = reshape %id : f32[1,T,1,1]\n  %first = const {value = 0} : i32\n"
    "  %k = update %kc, %row, %first, %position : f32[1,S,1,1]\n  return %x, %k\n}\n"
    "func @head(%x: f32[R,128]) -> (f32[R,16400]) {\n"
    "  %w = weight {name = \"head\"} : f32[16400,128]\n  %logits = matmul %x, %w : f32[R,16400]\n  return %logits\n}\n";

static void open_weights(float *next, float *head, rt_weights *weights) {
    gm_diag diag = {0};
    size_t bytes = sizeof(float) * VOCAB * COLUMNS;
    for (int i = 0; i < ROUND; i++)
        head[round_of[i] * COLUMNS + i] = 1, next[round_of[i] * COLUMNS + (i + 1) % ROUND] = 1;
    const rt_tensor both[] = {
        {.name = "next", .dtype = RT_F32, .rank = 2, .dim = {VOCAB, COLUMNS}, .data = next, .bytes = bytes},
        {.name = "head", .dtype = RT_F32, .rank = 2, .dim = {VOCAB, COLUMNS}, .data = head, .bytes = bytes}};
    for (int i = 0; i < 2; i++) ck_assert_int_eq(rt_weights_add(weights, "test", &both[i], &diag), GM_OK);
    ck_assert_int_eq(rt_derive(weights, "head:s4", RT_DERIVED_KEPT, NULL, &diag), GM_OK);
}

/* ---- running it ---- */

typedef struct calls {
    int forward;
    int64_t emitted; /* tokens, each of them right */
} calls;

static void count_call(void *user, const ir_func *func, const ir_inst *inst, const ir_array *results) {
    calls *c = user;
    c->forward += inst->op == IR_CALL && strcmp(ir_attr_string(inst, IR_ATTR_CALLEE), "forward") == 0;
}

static void count_token(void *user, int32_t token) {
    calls *c = user;
    ck_assert_int_eq(token, token_at(c->emitted++));
}

/* @generate of `count` tokens behind `given` ones, interpreted or compiled; returns the calls of @forward, where it is
 * interpreted. Above a temperature of 0 the sampler chooses, to whom one token is certain too. */
static int calls_for(const rt_weights *weights, const char *passes, bool compiled, float temperature, int32_t count,
                     int32_t given) {
    gm_diag diag = {0};
    gm_arena arena = {0};
    const pass_options options = {.context = SLOTS, .chunk = PASS_DEFAULT_CHUNK, .rows = PASS_DEFAULT_ROWS};
    ir_module *module = passed_text(module_text, &options, passes);
    float x[COLUMNS] = {0}, sampling[8] = {temperature, 3, 1, 0, 1}, cache[SLOTS] = {0};
    int32_t tokens[SLOTS] = {0}, position = given, stops[STOPS];
    int64_t seed = 0;
    x[given % ROUND] = 1;
    for (int i = 0; i < STOPS; i++) stops[i] = -1;
    for (int i = 0; i < given; i++) tokens[i] = token_at(i);
    const ir_array args[ARGS] = {{RT_F32, 2, {1, COLUMNS}, x}, {RT_I32, 1, {SLOTS}, tokens},
                                 {RT_I32, 0, {0}, &position},  {RT_I32, 0, {0}, &count},
                                 {RT_F32, 1, {8}, sampling},   {RT_I64, 0, {0}, &seed},
                                 {RT_I32, 1, {STOPS}, stops},  {RT_F32, 4, {1, SLOTS, 1, 1}, cache}};
    ir_array results[5];
    calls c = {.emitted = given};
    const ir_interp_env env = {.weights = weights, .emit = count_token, .trace = count_call, .user = &c};
    gm_status status =
        (compiled ? fe_gir_run_jit : ir_interp)(module, "generate", &env, args, ARGS, &arena, results, &diag);
    ck_assert_msg(status == GM_OK, "%s", diag.message);
    ck_assert_int_eq(c.emitted, given + count);
    ck_assert_int_eq(*(int32_t *)results[2].data, given + count);
    for (int i = 0; i < given + count; i++) ck_assert_int_eq(((int32_t *)results[1].data)[i], token_at(i));
    for (int i = given; i < given + count; i++) ck_assert_int_eq((int32_t)((float *)results[4].data)[i], token_at(i));
    gm_arena_free(&arena);
    ir_module_free(module);
    return c.forward;
}

/* Guesses come in rounds of two, after which a third token is known: three calls, for fewer tokens where a guess is
 * wrong. */
START_TEST(guesses_are_verified) {
    static const struct {
        int32_t count, given;
        int forward;
    } runs[] = {
        {1, 0, 1},   {2, 0, 2}, {3, 0, 3},
        {4, 0, 5}, /* 1; then 2 is guessed right, what is rare is not: two tokens for three calls; 3 alone */
        {5, 0, 6},   {7, 0, 8}, {10, 0, 11},
        {4, 6, 4}, /* what is rare has come before */
        {12, 3, 12}, {1, 1, 1}, {2, 1, 2},
        {8, 2, 8}, /* what is rare comes first, which waits for no guess */
    };
    float *next = calloc((size_t)VOCAB * COLUMNS, sizeof *next), *head = calloc((size_t)VOCAB * COLUMNS, sizeof *head);
    rt_weights weights = {0};
    ck_assert(next && head);
    open_weights(next, head, &weights);
    for (size_t i = 0; i < 2 * GM_COUNT(runs); i++) {
        float temperature = i % 2 ? 0.01f : 0;
        int32_t count = runs[i / 2].count, given = runs[i / 2].given;
        int plain = calls_for(&weights, "form_generate_loop", false, temperature, count, given);
        int ahead = calls_for(&weights, "form_generate_loop,guess_ahead", false, temperature, count, given);
        ck_assert_int_eq(plain, count);
        ck_assert_msg(ahead == runs[i / 2].forward, "%d tokens behind %d: %d calls instead of %d", count, given, ahead,
                      runs[i / 2].forward);
    }
    const char *screened = "form_generate_loop,guess_ahead,specialize,screen_head";
    calls_for(&weights, screened, true, 0, 30, 0);
    calls_for(&weights, screened, true, 0.01f, 30, 0);
    calls_for(&weights, screened, true, 0, 20, 9);
    calls_for(&weights, screened, true, 0.01f, 20, 9);
    rt_weights_close(&weights);
    free(next);
    free(head);
}
END_TEST

/* ---- likely ids ---- */

static bool is_likely(int64_t block, const int32_t *tokens, int position, int64_t ids, int64_t usual) {
    bool likely = block * RT_LIKELY_BLOCK < usual;
    for (int i = position - 1; i >= 0 && i >= position - RT_LIKELY_TOKENS; i--)
        likely |= tokens[i] >= 0 && tokens[i] < ids && tokens[i] / RT_LIKELY_BLOCK == block;
    return likely;
}

START_TEST(blocks_are_those_of_latest_tokens) {
    enum { MOST = 3000, IDS = 5000 };
    static int32_t tokens[MOST], blocks[IDS / RT_LIKELY_BLOCK + 1];
    uint32_t state = 7;
    for (int i = 0; i < MOST; i++) {
        state = state * 1664525 + 1013904223;
        tokens[i] = (int32_t)(state >> 16) % (i % 7 ? 900 : 2 * IDS) - 20;
    }
    for (int position = 0; position <= MOST; position += 1 + position / 3)
        for (int64_t ids = 1; ids <= IDS; ids = ids * 3 + 1)
            for (int64_t usual = 0; usual <= 2 * IDS; usual += 22 * RT_LIKELY_BLOCK) {
                int64_t count = rt_likely_blocks(tokens, position, ids, usual, blocks), next = 0;
                for (int64_t b = 0; b * RT_LIKELY_BLOCK < ids; b++)
                    if (is_likely(b, tokens, position, ids, usual)) ck_assert(next < count && blocks[next++] == b);
                ck_assert_int_eq(next, count);
            }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("guess");
    TCase *tcase = tcase_create("guess");
    tcase_set_timeout(tcase, 600); /* seconds, for a busy machine */
    tcase_add_test(tcase, guesses_are_verified);
    tcase_add_test(tcase, blocks_are_those_of_latest_tokens);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
