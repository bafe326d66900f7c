/* Drafted and guessed tokens (passes/draft_lookup.c, passes/guess_ahead.c): with and without them, sessions give the
 * same tokens in the same order and leave caches that are the same to the bit, whatever ends a run; and they are made,
 * accepted and rejected. */
#include "frontend/driver.h"
#include "ir/interp.h"
#include "tests/unit/passed_text.h"
#include "tests/unit/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 120, PROMPT = 24, AGAIN = 9, ROOM = CONTEXT };

/* ---- sessions ---- */

static const struct subject {
    const char *model, *with, *skip;
    fe_precision precision;
    int threads, chunk;
    bool guesses; /* tokens are guessed ahead, else drafted */
} subjects[] = {
    {"gemma3-tiny-f32", NULL, NULL, FE_PRECISION_F32, 1, 0, false},
    {"gemma3-tiny-bf16", NULL, NULL, FE_PRECISION_AUTO, 1, 0, false},
    {"gemma2-tiny-q8_0", NULL, "fuse_rows", FE_PRECISION_AUTO, 1, 0, false}, /* soft caps, no screen */
    {"gemma1-tiny-q4_0", NULL, NULL, FE_PRECISION_F32, 1, 0, false},
    {"gemma3-tiny256-q4_k_m", "roll_layers", NULL, FE_PRECISION_AUTO, 2, 0, false}, /* a screened head */
    {"gemma3-tiny256-q6_k", "kv_ring,kv_int8", "screen_head", FE_PRECISION_INT16, 1, 40, false},
    {"gemma3-tiny-q5_0", "kv_ring,kv_k_transposed", "kv_in_place", FE_PRECISION_AUTO, 1, 40, false},
    {"gemma3-tiny-q4_1", "kv_head_major", "fuse_attention", FE_PRECISION_BF16, 1, 3, false},
    {"gemma3-tiny256-q4_k_m", NULL, NULL, FE_PRECISION_AUTO, 2, 0, true},
    {"gemma3-tiny256-q6_k", "kv_ring,kv_int8,roll_layers", NULL, FE_PRECISION_INT16, 1, 40, true},
};

/* The names of either kind, separated by a comma where there are both; NULL: none. */
static const char *names(const char *some, const char *more, char *out, size_t size) {
    snprintf(out, size, "%s%s%s", some ? some : "", some && more ? "," : "", more ? more : "");
    return *out ? out : NULL;
}

/* A prompt that says the same over and over; one that does not. */
static void fill_prompt(int32_t *ids, bool again) {
    for (int i = 0; i < PROMPT; i++) ids[i] = 3 + 17 * (again ? i % AGAIN : i) % 101;
}

static const struct ending {
    int64_t max;
    int cancel; /* after as many tokens; 0: no callback */
    int stop;   /* the token that came as number `stop` is a stop id; 0: none */
} endings[] = {{CONTEXT, 0, 0}, {60, 33, 0}, {60, 60, 12}, {37, 0, 0}, {60, 11, 0}, {60, 0, 7}};

static const rt_sampling samplings[] = {
    {.top_p = 1, .repeat_penalty = 1},
    {.top_p = 1, .repeat_penalty = 1.2f, .repeat_last_n = 16},
    {.temperature = 0.7f, .top_k = 4, .top_p = 0.9f, .repeat_penalty = 1, .seed = 5}};

/* What a run gives. */
typedef struct outcome {
    int32_t ids[ROOM], streamed[ROOM];
    int64_t count, seen, cancel, length;
    rt_stop stop;
    float *logits; /* of one more token: they depend on every row of the caches */
} outcome;

static bool on_token(void *user, int32_t token, const float *logits) {
    outcome *o = user;
    o->streamed[o->seen++] = token;
    return o->seen < o->cancel;
}

static bool keep_logits(void *user, int64_t first, int64_t rows, const float *logits) {
    outcome *o = user;
    memcpy(o->logits, logits, sizeof *logits * 8);
    return true;
}

static void run(rt_session *session, const int32_t *prompt, const rt_sampling *sampling, const struct ending *ending,
                int32_t stop_id, outcome *o) {
    gm_diag diag = {0};
    int32_t stops[] = {stop_id};
    float some[8] = {0};
    *o = (outcome){.cancel = ending->cancel, .logits = some};
    rt_session_reset(session);
    ck_assert_msg(rt_session_prefill(session, prompt, PROMPT, &diag) == GM_OK, "%s", diag.message);
    gm_status status = rt_session_generate(session, sampling, stops, ending->stop ? 1 : 0, ending->max,
                                           ending->cancel ? on_token : NULL, o, o->ids, &o->count, &o->stop, &diag);
    ck_assert_msg(status == GM_OK, "%s", diag.message);
    o->length = rt_session_length(session);
    if (o->length < CONTEXT) ck_assert_int_eq(rt_session_score(session, prompt, 1, keep_logits, o, &diag), GM_OK);
    /* Going on from there is the same too. */
    if (o->length < CONTEXT - 20) {
        int64_t count;
        rt_stop stop;
        ck_assert_int_eq(
            rt_session_generate(session, sampling, NULL, 0, 12, NULL, NULL, o->ids + o->count, &count, &stop, &diag),
            GM_OK);
        o->count += count;
    }
    for (int i = 0; i < 8; i++) memcpy(&o->ids[ROOM - 8 + i], &some[i], sizeof some[i]);
    o->logits = NULL;
}

/* ahead: tokens are drafted or guessed. */
static void open_engine(const struct subject *s, bool ahead, fe_engine *out) {
    char path[300], with[100], skip[100];
    gm_diag diag = {0};
    snprintf(path, sizeof path, "%s/gguf/%s.gguf", GM_TEST_DATA, s->model);
    const fe_options options = {.threads = s->threads,
                                .context = CONTEXT,
                                .chunk = s->chunk,
                                .precision = s->precision,
                                .with = names(s->with, ahead && !s->guesses ? "draft_lookup" : NULL, with, sizeof with),
                                .skip = names(s->skip, ahead && s->guesses ? NULL : "guess_ahead", skip, sizeof skip)};
    ck_assert_msg(fe_engine_open(path, &options, &diag, out) == GM_OK, "%s: %s", s->model, diag.message);
}

static void compare(const struct subject *s, fe_engine *plain, fe_engine *ahead, bool again,
                    const rt_sampling *sampling) {
    int32_t prompt[PROMPT];
    outcome first, want, got;
    fill_prompt(prompt, again);
    run(plain->session, prompt, sampling, &endings[0], -1, &first);
    for (size_t e = 0; e < (sampling == samplings ? GM_COUNT(endings) : 3); e++) {
        int32_t stop_id = endings[e].stop ? first.ids[endings[e].stop] : -1;
        run(plain->session, prompt, sampling, &endings[e], stop_id, &want);
        run(ahead->session, prompt, sampling, &endings[e], stop_id, &got);
        ck_assert_msg(memcmp(&want, &got, sizeof want) == 0,
                      "%s (%s), prompt %d, temperature %g, ending %zu: %d tokens instead of %d, or others", s->model,
                      s->with ? s->with : "plain", again, (double)sampling->temperature, e, (int)got.count,
                      (int)want.count);
    }
}

START_TEST(tokens_are_the_same) {
    const struct subject *s = &subjects[_i];
    fe_engine plain, ahead;
    open_engine(s, false, &plain);
    open_engine(s, true, &ahead);
    ck_assert(ir_func_find(ahead.module, s->guesses      ? "head.R1.guess16384"
                                         : s->chunk == 3 ? "forward.T3"
                                                         : "forward.T6"));
    for (size_t i = 0; i < GM_COUNT(samplings); i++)
        for (int again = 0; again < 2; again++) compare(s, &plain, &ahead, again, &samplings[i]);
    fe_engine_close(&plain);
    fe_engine_close(&ahead);
}
END_TEST

/* ---- drafts ---- */

/* Tokens go round: 1, 2, … 5, 0, 1, …; the cache only keeps what @forward takes. */
static const char module_text[] =
    "symbol T max 6\nsymbol S\nsymbol R\n"
    "func @forward(%ids: i32[T], %position: i32, %kc: f32[1,S,1,1]) -> (f32[T,1], f32[1,S,1,1]) {\n"
    "  %id = reshape %ids : i32[T,1]\n  %x = convert %id : f32[T,1]\n  %one = const {value = 1} : f32\n  %next = add "
    "%x, %one : f32[T,1]\n"
    "  %six = const {value = 6} : f32\n  %zero = const {value = 0} : f32\n  %end = eq %next, %six : bool[T,1]\n"
    "  %y = select %end, %zero, %next : f32[T,1]\n  %row = reshape %x : f32[1,T,1,1]\n  %first = const {value = 0} : "
    "i32\n"
    "  %k = update %kc, %row, %first, %position : f32[1,S,1,1]\n  return %y, %k\n}\n"
    "func @head(%x: f32[R,1]) -> (f32[R,6]) {\n"
    "  %i = iota {axis = 1} : i32[1,6]\n  %n = convert %i : f32[1,6]\n  %apart = sub %n, %x : f32[R,6]\n"
    "  %square = mul %apart, %apart : f32[R,6]\n  %logits = neg %square : f32[R,6]\n  return %logits\n}\n";

enum { SLOTS = 40, STOPS = 16, ARGS = 8 };

typedef struct calls {
    int plain, drafted;
    int emitted; /* tokens, each of them right */
} calls;

static void count_call(void *user, const ir_func *func, const ir_inst *inst, const ir_array *results) {
    calls *c = user;
    if (inst->op != IR_CALL || strcmp(ir_attr_string(inst, IR_ATTR_CALLEE), "forward")) return;
    if (inst->operands[0]->type.dim[0] == 1) c->plain++;
    else c->drafted++;
}

static void count_token(void *user, int32_t token) {
    calls *c = user;
    ck_assert_int_eq(token, ++c->emitted % 6);
}

/* @generate of `count` tokens from the start, or after the first `given` tokens, which `spoilt` puts out of order. */
static calls count_calls(const char *passes, int32_t count, int32_t given, bool spoilt) {
    gm_diag diag = {0};
    gm_arena arena = {0};
    const pass_options options = {.context = SLOTS, .chunk = PASS_DEFAULT_CHUNK, .rows = PASS_DEFAULT_ROWS};
    ir_module *module = passed_text(module_text, &options, passes);
    float x = (float)((given + 1) % 6), sampling[8] = {0, 0, 0, 0, 1}, cache[SLOTS] = {0};
    int32_t tokens[SLOTS] = {0}, position = given + 1, stops[STOPS];
    int64_t seed = 0;
    for (int i = 0; i < STOPS; i++) stops[i] = -1;
    for (int i = 1; i <= given; i++) tokens[i] = spoilt && i % 2 ? 9 + i : i % 6;
    const ir_array args[ARGS] = {{RT_F32, 2, {1, 1}, &x},     {RT_I32, 1, {SLOTS}, tokens},
                                 {RT_I32, 0, {0}, &position}, {RT_I32, 0, {0}, &count},
                                 {RT_F32, 1, {8}, sampling},  {RT_I64, 0, {0}, &seed},
                                 {RT_I32, 1, {STOPS}, stops}, {RT_F32, 4, {1, SLOTS, 1, 1}, cache}};
    ir_array results[5];
    calls c = {.emitted = given};
    const ir_interp_env env = {.emit = count_token, .trace = count_call, .user = &c};
    ck_assert_msg(ir_interp(module, "generate", &env, args, ARGS, &arena, results, &diag) == GM_OK, "%s", diag.message);
    ck_assert_int_eq(c.emitted, given + count);
    ck_assert_int_eq(*(int32_t *)results[2].data, given + count + 1);
    gm_arena_free(&arena);
    ir_module_free(module);
    return c;
}

static void check_calls(int32_t count, int32_t given, bool spoilt, int plain, int drafted) {
    calls before = count_calls("form_generate_loop", count, given, spoilt),
          after = count_calls("form_generate_loop,draft_lookup", count, given, spoilt);
    ck_assert_int_eq(before.plain, count);
    ck_assert_int_eq(before.drafted, 0);
    ck_assert_int_eq(after.plain, plain);
    ck_assert_int_eq(after.drafted, drafted);
}

static bool guesses(int chunk) {
    const struct subject s = {"gemma3-tiny256-q6_k", "kv_ring", NULL, FE_PRECISION_F32, 1, chunk, true};
    bool found = false;
    fe_engine engine;
    open_engine(&s, true, &engine);
    for (int i = 0; i < engine.module->func_count; i++)
        found |= strstr(engine.module->funcs[i]->name, ".guess") != NULL;
    fe_engine_close(&engine);
    return found;
}

/* A ring of window - 1 + 33 slots holds what the host may take back, and no drafts and guesses. */
START_TEST(short_rings_refuse) {
    const struct subject s = {"gemma3-tiny-f32", "kv_ring", NULL, FE_PRECISION_F32, 1, 16, false};
    fe_engine engine;
    open_engine(&s, true, &engine);
    ck_assert(ir_func_find(engine.module, "forward.T1") && !ir_func_find(engine.module, "forward.T6"));
    fe_engine_close(&engine);
    ck_assert(guesses(40) && !guesses(16));
}
END_TEST

/* Three tokens stand there already from the 8th on: from there, each step gives one token and five drafts. */
START_TEST(drafts_are_accepted) {
    check_calls(7, 0, false, 7, 0);
    check_calls(8, 0, false, 8, 0); /* the last token needs no draft */
    check_calls(9, 0, false, 7, 1);
    check_calls(13, 0, false, 7, 1);
    check_calls(14, 0, false, 8, 1);
    check_calls(25, 0, false, 7, 3);
    check_calls(20, 18, false, 2, 3); /* no room for a whole draft behind the token in slot 37 of 40 */
    check_calls(4, 30, true, 4, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("draft");
    TCase *tcase = tcase_create("draft");
    tcase_set_timeout(tcase, 600); /* seconds, for a busy machine */
    tcase_add_loop_test(tcase, tokens_are_the_same, 0, (int)GM_COUNT(subjects));
    tcase_add_test(tcase, short_rings_refuse);
    tcase_add_test(tcase, drafts_are_accepted);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
