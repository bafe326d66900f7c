/* Profiles: buffers of events, code with and without the calls, and a profiled run of a tiny model as report and trace.
 * Nothing is judged by how long it took. */
#include "codegen/codegen.h"
#include "frontend/profile.h"
#include "tests/unit/passed_text.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

static const char model_path[] = GM_TEST_DATA "/gguf/gemma3-tiny-f32.gguf";

/* ---- buffers ---- */

static rt_frame *frame_new(rt_profile *profile) {
    rt_frame *frame = aligned_alloc(64, (sizeof *frame + 63) / 64 * 64);
    ck_assert_ptr_nonnull(frame);
    memset(frame, 0, sizeof *frame);
    frame->threads = 1;
    frame->profile = profile;
    return frame;
}

START_TEST(a_barrier_parts_an_instruction) {
    gm_diag diag = {0};
    rt_profile *profile;
    ck_assert_int_eq(rt_profile_open(1, 8, &diag, &profile), GM_OK);
    rt_frame *frame = frame_new(profile);
    rt_profile_barrier(frame, 0, 5);
    rt_profile_begin(frame, 0, 7, RT_EVENT_OP, 3, 11);
    rt_profile_barrier(frame, 0, -1);
    rt_profile_end(frame, 0);
    int64_t count;
    const rt_event *e = rt_profile_events(profile, 0, &count);
    static const rt_event expected[] = {{.inst = 5, .kind = RT_EVENT_WAIT},
                                        {.inst = 7, .kind = RT_EVENT_OP, .extent = 3, .position = 11},
                                        {.inst = 7, .kind = RT_EVENT_WAIT},
                                        {.inst = 7, .kind = RT_EVENT_MORE, .extent = 3, .position = 11}};
    ck_assert_int_eq(count, (int64_t)GM_COUNT(expected));
    for (int i = 0; i < count; i++) {
        ck_assert_int_eq(e[i].inst, expected[i].inst);
        ck_assert_int_eq(e[i].kind, expected[i].kind);
        ck_assert_int_eq(e[i].extent, expected[i].extent);
        ck_assert_int_eq(e[i].position, expected[i].position);
        ck_assert_int_le(e[i].start, e[i].end);
        if (i) ck_assert_int_le(e[i - 1].end, e[i].start);
    }
    ck_assert_int_eq(rt_profile_dropped(profile, 0), 0);
    rt_profile_close(profile);
    free(frame);
}
END_TEST

START_TEST(a_full_buffer_counts_what_it_drops) {
    gm_diag diag = {0};
    for (int room = 0; room <= 2; room += 2) {
        rt_profile *profile;
        int64_t count;
        ck_assert_int_eq(rt_profile_open(1, room, &diag, &profile), GM_OK);
        rt_frame *frame = frame_new(profile);
        for (int i = 0; i < 5; i++) {
            rt_profile_begin(frame, 0, i, RT_EVENT_OP, 0, 0);
            rt_profile_end(frame, 0);
        }
        rt_profile_events(profile, 0, &count);
        ck_assert_int_eq(count, room);
        ck_assert_int_eq(rt_profile_dropped(profile, 0), 5 - room);
        rt_profile_reset(profile);
        rt_profile_events(profile, 0, &count);
        ck_assert_int_eq(count, 0);
        ck_assert_int_eq(rt_profile_dropped(profile, 0), 0);
        rt_profile_close(profile);
        free(frame);
    }
}
END_TEST

/* ---- code ---- */

START_TEST(calls_are_there_only_when_asked_for) {
    static const char text[] =
        "symbol T max 8\nfunc @f(%x: f32[T,8]) -> (f32[T,8]) {\n  %y = neg %x : f32[T,8]\n"
        "  %s = reduce_sum %y {axis = 1} : f32[T,1]\n  %z = add %y, %s : f32[T,8]\n  return %z\n}\n";
    gm_diag diag = {0};
    const pass_options limits = {.context = 8, .chunk = 8, .rows = 8};
    ir_module *planned = passed_text(text, &limits, "plan_memory");
    for (int on = 0; on < 2; on++) {
        gm_string llvm = {0};
        cg_options options = {.profile = on, .llvm_text = &llvm};
        cg_program *program;
        ck_assert_int_eq(cg_compile(planned, &options, &diag, &program), GM_OK);
        ck_assert_int_eq(strstr(llvm.data, "rt_profile_begin") != NULL, on);
        ck_assert_int_eq(strstr(llvm.data, "rt_profile_barrier") != NULL, on);
        ck_assert_int_eq(strstr(llvm.data, "rt_barrier_wait") != NULL, !on);
        gm_string_free(&llvm);
        cg_program_free(program);
    }
    ir_module_free(planned);
}
END_TEST

/* ---- a run ---- */

enum { PROMPT = 9, PREDICT = 6 };
static fe_profile_result result;

static void run_profile(void) {
    static const int32_t ids[PROMPT] = {2, 5, 9, 7, 11, 40, 8, 3, 21};
    gm_diag diag = {0};
    fe_profile_request request = {.path = model_path,
                                  .options = {.threads = 2, .chunk = 8, .context = 32, .precision = FE_PRECISION_F32},
                                  .ids = ids,
                                  .id_count = PROMPT,
                                  .predict = PREDICT,
                                  .repetitions = 2};
    ck_assert_msg(fe_profile_run(&request, &diag, &result) == GM_OK, "%s", diag.message);
}

static void free_profile(void) {
    fe_profile_free(&result);
}

START_TEST(tokens_are_the_same_and_no_event_is_lost) {
    ck_assert(result.same_tokens);
    ck_assert_int_eq(result.threads, 2);
    ck_assert_int_eq(result.dropped, 0);
    for (int p = 0; p < FE_PHASES; p++)
        for (int i = 0; i < result.threads; i++) ck_assert_int_gt(result.phases[p].to[i], result.phases[p].from[i]);
}
END_TEST

/* All threads run the same instructions in the same order. */
START_TEST(threads_agree) {
    int64_t counts[2];
    const rt_event *a = rt_profile_events(result.events, 0, &counts[0]),
                   *b = rt_profile_events(result.events, 1, &counts[1]);
    int64_t i = 0, k = 0;
    for (;; i++, k++) {
        while (i < counts[0] && a[i].kind != RT_EVENT_OP) i++;
        while (k < counts[1] && b[k].kind != RT_EVENT_OP) k++;
        if (i >= counts[0] || k >= counts[1]) break;
        ck_assert_int_eq(a[i].inst, b[k].inst);
        ck_assert_int_eq(a[i].extent, b[k].extent);
        ck_assert_int_eq(a[i].position, b[k].position);
    }
    ck_assert(i >= counts[0] && k >= counts[1]);
}
END_TEST

static double share_sum(const fe_profile_phase *phase, const fe_profile_rows *rows) {
    double sum = 0;
    for (int i = 0; i < rows->count; i++) sum += rows->rows[i].work_s + rows->rows[i].wait_s;
    return sum / (result.threads * phase->wall_s);
}

START_TEST(shares_add_up) {
    for (int p = 0; p < FE_PHASES; p++) {
        const fe_profile_phase *phase = &result.phases[p];
        double all = result.threads * phase->wall_s, spent = (phase->work_s + phase->wait_s) / all;
        ck_assert_double_eq_tol(share_sum(phase, &phase->ops), spent, 1e-9);
        ck_assert_double_eq_tol(share_sum(phase, &phase->layers), spent, 1e-9);
        ck_assert(phase->work_s > 0 && spent < 1 + 1e-3);
        /* Both at work all the time that one is, or never both. */
        double busy = phase->wall_s - phase->idle_s;
        ck_assert(busy <= phase->work_s * (1 + 1e-9) && busy >= phase->work_s / result.threads * (1 - 1e-9));
        double layers_flop = 0, ops_flop = 0;
        for (int i = 0; i < phase->ops.count; i++) ops_flop += phase->ops.rows[i].cost.flop;
        for (int i = 0; i < phase->layers.count; i++) layers_flop += phase->layers.rows[i].cost.flop;
        ck_assert_double_eq_tol(ops_flop, phase->cost.flop, 1e-6 * ops_flop);
        ck_assert_double_eq_tol(layers_flop, phase->cost.flop, 1e-6 * ops_flop);
        ck_assert_int_eq(phase->layers.count, result.engine.model.config.layers + 1);
    }
}
END_TEST

/* What happened costs what the functions that ran cost: chunks of 5 and 4 tokens, then a token at a time. */
START_TEST(costs_are_those_of_the_functions) {
    const ir_module *module = result.engine.module;
    int t = ir_symbol_find(module, "T");
    int64_t symbols[8] = {0};
    ir_cost prefill = {0}, decode = {0};
    ck_assert(t >= 0 && module->symbol_count <= 8);
    for (int chunk = 0; chunk < 2; chunk++) {
        symbols[t] = chunk ? 4 : 5;
        prefill = ir_cost_add(
            prefill, ir_cost_func(module, ir_func_find(module, "prefill"), &(ir_cost_at){symbols, 5 * chunk}), 1);
    }
    for (int i = 0; i < PREDICT; i++)
        decode = ir_cost_add(
            decode, ir_cost_func(module, ir_func_find(module, "generate"), &(ir_cost_at){symbols, PROMPT + i}), 1);
    ck_assert_double_eq_tol(result.phases[0].cost.flop, prefill.flop, 1e-9 * prefill.flop);
    ck_assert_double_eq_tol(result.phases[1].cost.flop, decode.flop, 1e-9 * decode.flop);
    ck_assert_double_eq_tol(result.phases[1].cost.read, decode.read, 1e-9 * decode.read);
}
END_TEST

static bool op_exists(const char *func, const char *value) {
    for (int i = 0; i < result.op_count; i++)
        if (strcmp(result.ops[i].func, func) == 0 && strcmp(result.ops[i].name, value) == 0) return true;
    return false;
}

static const char *text_of(const cJSON *object, const char *key) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    ck_assert_msg(text != NULL, "no %s", key);
    return text;
}

static double number_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    ck_assert_msg(cJSON_IsNumber(item), "no %s", key);
    return item->valuedouble;
}

/* A complete event: its instruction exists, its place on its track is free. */
static void check_event(const cJSON *event, double *reached) {
    enum { ROUNDED = 2 }; /* of the last digit written, on either side */
    const cJSON *args = cJSON_GetObjectItemCaseSensitive(event, "args");
    int thread = (int)number_of(event, "tid");
    double start = number_of(event, "ts"), length = number_of(event, "dur");
    ck_assert(thread >= 0 && thread < result.threads && length >= 0);
    ck_assert_msg(start >= reached[thread] - ROUNDED * 1e-4, "%s at %f overlaps what ends at %f",
                  text_of(event, "name"), start, reached[thread]);
    reached[thread] = start + length;
    if (strcmp(text_of(event, "cat"), "wait") == 0) {
        ck_assert_str_eq(text_of(event, "name"), "barrier");
        return;
    }
    ck_assert_msg(op_exists(text_of(args, "func"), text_of(args, "value")), "%s", text_of(event, "name"));
    ck_assert(strstr(text_of(event, "name"), text_of(args, "value")) != NULL);
    ck_assert(strchr(text_of(args, "shape"), 'T') == NULL);
    if (!cJSON_HasObjectItem(args, "bytes")) return;
    ck_assert(number_of(args, "bytes") >= 0 && number_of(args, "flop") >= 0);
}

START_TEST(the_trace_is_one_that_perfetto_reads) {
    gm_string text = {0};
    int named = 0, complete = 0;
    double reached[2] = {0};
    int64_t counts[2];
    fe_profile_trace(&result, &text);
    cJSON *root = cJSON_Parse(text.data);
    ck_assert_ptr_nonnull(root);
    const cJSON *event;
    cJSON_ArrayForEach(event, cJSON_GetObjectItemCaseSensitive(root, "traceEvents")) {
        const char *kind = text_of(event, "ph");
        if (strcmp(kind, "M") == 0) {
            named += strcmp(text_of(event, "name"), "thread_name") == 0;
            continue;
        }
        ck_assert_str_eq(kind, "X");
        check_event(event, reached);
        complete++;
    }
    for (int i = 0; i < 2; i++) rt_profile_events(result.events, i, &counts[i]);
    ck_assert_int_eq(named, 2);
    ck_assert_int_eq(complete, counts[0] + counts[1]);
    cJSON_Delete(root);
    gm_string_free(&text);
}
END_TEST

START_TEST(rooflines_take_the_slower_limit) {
    rt_probe probe = {.bytes_per_s = 100, .flop_per_s = 1000};
    ck_assert_double_eq(rt_roofline_seconds(&probe, 100, 100), 1);
    ck_assert_double_eq(rt_roofline_seconds(&probe, 10, 3000), 3);
    ck_assert_double_eq(rt_roofline_seconds(&(rt_probe){0}, 10, 3000), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("profile");
    TCase *parts = tcase_create("parts"), *run = tcase_create("run");
    tcase_add_test(parts, a_barrier_parts_an_instruction);
    tcase_add_test(parts, a_full_buffer_counts_what_it_drops);
    tcase_add_test(parts, calls_are_there_only_when_asked_for);
    tcase_add_test(parts, rooflines_take_the_slower_limit);
    suite_add_tcase(suite, parts);
    tcase_set_timeout(run, 300);
    tcase_add_unchecked_fixture(run, run_profile, free_profile); /* one run for all: the tests only read */
    tcase_add_test(run, tokens_are_the_same_and_no_event_is_lost);
    tcase_add_test(run, threads_agree);
    tcase_add_test(run, shares_add_up);
    tcase_add_test(run, costs_are_those_of_the_functions);
    tcase_add_test(run, the_trace_is_one_that_perfetto_reads);
    suite_add_tcase(suite, run);
    return suite_run(suite);
}
