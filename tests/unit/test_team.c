/* The team's barrier, and work dealt out between two: every thread sees what the others wrote before it, each piece is
 * taken once, and what is computed has the same bits whatever number of threads there are. */
#include "codegen/codegen.h"
#include "frontend/driver.h"
#include "passes/passes.h"
#include "runtime/abi.h"
#include "runtime/team.h"
#include "tests/unit/passed_text.h"
#include "tests/unit/suite.h"

#include <stdio.h>
#include <string.h>

/* ---- the barrier ---- */

enum { ROUNDS = 400, PIECES = 11, MOST_THREADS = 9 };

typedef struct rounds {
    rt_frame *frame;
    int taken[2][PIECES];      /* times in this round, in the next */
    int written[MOST_THREADS]; /* the round that each thread is in */
    atomic_int wrong;
} rounds;

/* Pieces as compiled code takes them (codegen/deal.c). The others may be a barrier ahead, hence two tables. */
static void play(void *user, int thread, int threads) {
    rounds *r = user;
    for (int round = 0; round < ROUNDS; round++) {
        int *taken = r->taken[round % 2];
        for (unsigned piece; (piece = atomic_fetch_add(&r->frame->barrier.dealt, 1)) < PIECES;) taken[piece]++;
        r->written[thread] = round;
        rt_barrier_wait(r->frame, thread);
        for (int i = 0; i < threads; i++)
            if (r->written[i] != round) r->wrong++;
        for (int i = 0; i < PIECES && thread == 0; i++) {
            if (taken[i] != 1) r->wrong++;
            taken[i] = 0;
        }
        rt_barrier_wait(r->frame, thread);
    }
}

static const int teams[] = {1, 2, MOST_THREADS};

START_TEST(barriers_part_rounds) {
    rounds r = {.frame = aligned_alloc(64, (sizeof(rt_frame) + 63) / 64 * 64)};
    gm_diag diag = {0};
    rt_team *team;
    ck_assert_ptr_nonnull(r.frame);
    memset(r.frame, 0, sizeof *r.frame);
    r.frame->threads = teams[_i];
    ck_assert_int_eq(rt_team_open(teams[_i], &diag, &team), GM_OK);
    for (int i = 0; i < 3; i++) rt_team_run(team, play, &r);
    ck_assert_int_eq(r.wrong, 0);
    rt_team_close(team);
    free(r.frame);
}
END_TEST

/* ---- code ---- */

static int count_of(const char *text, const char *word) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, word)); at++) count++;
    return count;
}

/* Two products that need not wait for each other: but where they deal they do. */
START_TEST(a_barrier_parts_what_deals) {
    static const char text[] = "func @f(%x: i16[8,64], %s: f32[8,1]) -> (f32[8,32], f32[8,32]) {\n"
                               "  %v = weight {name = \"v\"} : f32[32,64]\n  %w = weight {name = \"w\"} : f32[32,64]\n"
                               "  %y = scaled_matmul %x, %s, %v {bits = 12} : f32[8,32]\n"
                               "  %z = scaled_matmul %x, %s, %w {bits = 12} : f32[8,32]\n  return %y, %z\n}\n";
    gm_diag diag = {0};
    gm_string llvm = {0};
    cg_options options = {.llvm_text = &llvm};
    cg_program *program;
    pass_options limits = {.context = 8, .chunk = 8, .rows = 8};
    ir_module *planned = passed_text(text, &limits, "plan_memory");
    ck_assert_msg(cg_compile(planned, &options, &diag, &program) == GM_OK, "%s", diag.message);
    const char *first = strstr(llvm.data, "atomicrmw"),
               *wait = first ? strstr(first, "call void @rt_barrier_wait") : NULL;
    ck_assert_ptr_nonnull(wait);
    ck_assert_ptr_nonnull(strstr(wait, "atomicrmw"));
    ck_assert_int_ge(count_of(llvm.data, "call void @rt_barrier_wait"), 2);
    gm_string_free(&llvm);
    cg_program_free(program);
    ir_module_free(planned);
}
END_TEST

/* ---- sessions ---- */

enum { TOKENS = 170, CONTEXT = 200 };

typedef struct logits {
    float *data; /* [TOKENS, vocab] */
    int64_t vocab;
} logits;

static bool keep_logits(void *user, int64_t first, int64_t rows, const float *data) {
    logits *l = user;
    memcpy(l->data + first * l->vocab, data, sizeof *data * (size_t)(rows * l->vocab));
    return true;
}

static logits score(const char *path, fe_precision precision, int threads) {
    const fe_options options = {.threads = threads, .context = CONTEXT, .precision = precision};
    int32_t ids[TOKENS];
    fe_engine engine;
    gm_diag diag = {0};
    ck_assert_msg(fe_engine_open(path, &options, &diag, &engine) == GM_OK, "%s", diag.message);
    logits l = {.vocab = rt_session_vocab(engine.session)};
    l.data = malloc(sizeof *l.data * (size_t)(TOKENS * l.vocab));
    ck_assert_ptr_nonnull(l.data);
    for (int i = 0; i < TOKENS; i++) ids[i] = 3 + 17 * i % 101;
    ck_assert_msg(rt_session_score(engine.session, ids, TOKENS, keep_logits, &l, &diag) == GM_OK, "%s", diag.message);
    fe_engine_close(&engine);
    return l;
}

/* More tokens than a panel of attention has keys, and a window far shorter. */
static const struct subject {
    const char *model;
    fe_precision precision;
} subjects[] = {{"gemma3-tiny-bf16", FE_PRECISION_INT16},
                {"gemma3-tiny256-q4_k_m", FE_PRECISION_INT8},
                {"gemma3-tiny256-q4_k_m", FE_PRECISION_BLOCK8},
                {"gemma3-tiny256-q4_k_m", FE_PRECISION_AUTO},
                {"gemma2-tiny-q8_0", FE_PRECISION_INT16}};

START_TEST(same_bits_on_any_number_of_threads) {
    char path[300];
    snprintf(path, sizeof path, "%s/gguf/%s.gguf", GM_TEST_DATA, subjects[_i].model);
    logits one = score(path, subjects[_i].precision, 1);
    for (size_t i = 1; i < GM_COUNT(teams); i++) {
        logits more = score(path, subjects[_i].precision, teams[i]);
        ck_assert_int_eq(more.vocab, one.vocab);
        ck_assert_msg(memcmp(more.data, one.data, sizeof *one.data * (size_t)(TOKENS * one.vocab)) == 0,
                      "%s: %d threads", subjects[_i].model, teams[i]);
        free(more.data);
    }
    free(one.data);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("team");
    TCase *tcase = tcase_create("barrier");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, barriers_part_rounds, 0, (int)GM_COUNT(teams));
    tcase_add_test(tcase, a_barrier_parts_what_deals);
    tcase_add_loop_test(tcase, same_bits_on_any_number_of_threads, 0, (int)GM_COUNT(subjects));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
