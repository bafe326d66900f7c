/* gemmac ablate: its statistics, its table of rows, that the rows are different programs in the way
 * their names say, and that all of them give the same tokens. Nothing is timed. */
#include "frontend/ablate.h"
#include "frontend/gemma.h"
#include "ir/rewrite.h"
#include "passes/passes.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char model_path[] = GM_TEST_DATA "/gguf/gemma3-tiny-f32.gguf";

static const fe_ablate_row *row_of(const fe_ablate_row *rows, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(rows[i].name, name) == 0) return &rows[i];
    return NULL;
}

/* ---- statistics ---- */

START_TEST(t_quantiles_are_those_of_the_tables) {
    static const struct {
        int degrees;
        double t;
    } known[] = {{1, 12.706205}, {2, 4.302653},  {3, 3.182446},   {4, 2.776445},    {9, 2.262157},
                 {30, 2.042272}, {99, 1.984217}, {999, 1.962341}, {99999, 1.959988}};
    for (size_t i = 0; i < GM_COUNT(known); i++)
        ck_assert_double_eq_tol(fe_student_t95(known[i].degrees), known[i].t, 1e-5);
    ck_assert(isinf(fe_student_t95(0)));
}
END_TEST

START_TEST(mean_and_deviation) {
    const double x[] = {2, 4, 4, 4, 5, 5, 7, 9};
    ck_assert_double_eq_tol(fe_mean(x, 8), 5, 1e-12);
    ck_assert_double_eq_tol(fe_std(x, 8), sqrt(32.0 / 7), 1e-12);
    ck_assert_double_eq(fe_std(x, 1), 0);
}
END_TEST

START_TEST(paired_effects) {
    /* Differences 1, 2, 3: mean 2, deviation 1, so 2 ± 4.302653/sqrt(3) of a base of 20. */
    const double base[] = {10, 20, 30}, x[] = {11, 22, 33}, mixed[] = {8, 20, 33};
    fe_effect effect = fe_paired_effect(x, base, 3);
    ck_assert_double_eq_tol(effect.percent, 10, 1e-9);
    ck_assert_double_eq_tol(effect.low, (2 - 4.302653 / sqrt(3)) * 5, 1e-4);
    ck_assert_double_eq_tol(effect.high, (2 + 4.302653 / sqrt(3)) * 5, 1e-4);
    ck_assert(effect.noise);
    const double clear[] = {12, 22.1, 31.9};
    ck_assert(!fe_paired_effect(clear, base, 3).noise);
    ck_assert(fe_paired_effect(mixed, base, 3).noise);
    effect = fe_paired_effect(x, base, 1);
    ck_assert_double_eq_tol(effect.percent, 10, 1e-9);
    ck_assert(isinf(effect.low) && isinf(effect.high) && effect.noise);
}
END_TEST

/* ---- the table ---- */

START_TEST(rows_name_passes_and_rows_that_exist) {
    gm_arena arena = {0};
    int count;
    const fe_ablate_row *rows = fe_ablate_rows(&arena, &count);
    ck_assert_str_eq(rows[0].name, "host-loop");
    for (int i = 0; i < count; i++) {
        ck_assert_ptr_eq(row_of(rows, count, rows[i].name), &rows[i]);
        ck_assert(!rows[i].base || row_of(rows, count, rows[i].base));
        for (const char *at = rows[i].skip; *at;) {
            size_t length = strcspn(at, ",");
            const pass_info *pass = pass_find(at, length);
            ck_assert_msg(pass && pass->when == PASS_USUAL, "%s skips '%.*s'", rows[i].name, (int)length, at);
            at += length + (at[length] == ',');
        }
        const pass_info *asked = pass_find(rows[i].with, strlen(rows[i].with));
        ck_assert(!rows[i].with[0] || (asked && pass_can_be_asked(asked->when)));
    }
    gm_arena_free(&arena);
}
END_TEST

START_TEST(every_pass_on_request_has_a_row) {
    gm_arena arena = {0};
    int count, passes;
    const fe_ablate_row *rows = fe_ablate_rows(&arena, &count);
    const pass_info *pass = pass_table(&passes);
    for (int i = 0; i < passes; i++) {
        int found = 0;
        for (int k = 0; k < count; k++) found += strcmp(rows[k].with, pass[i].name) == 0;
        ck_assert_msg(found == pass_can_be_asked(pass[i].when), "%s", pass[i].name);
    }
    gm_arena_free(&arena);
}
END_TEST

START_TEST(every_optional_pass_is_left_out_once) {
    gm_arena arena = {0};
    int count, passes;
    const fe_ablate_row *rows = fe_ablate_rows(&arena, &count);
    const pass_info *pass = pass_table(&passes);
    for (int i = 0; i < passes; i++) {
        const char *name = gm_arena_printf(&arena, "without-%s", pass[i].name);
        const fe_ablate_row *row = row_of(rows, count, name);
        ck_assert(!row == (pass[i].when != PASS_USUAL));
        if (row) ck_assert_str_eq(row->skip, pass[i].name);
    }
    gm_arena_free(&arena);
}
END_TEST

/* ---- the rows' programs ---- */

/* What a row's IR holds after the passes that know tensors only. */
typedef struct census {
    int qkv, merged;           /* projections of Q, K or V alone; of all three */
    int maps, unit_maps;       /* maps; those over one element */
    int softmaxes, attentions; /* exponentials of scores outside of any map; attention operations */
    int whiles, scans, chunks; /* loops; scans that set the chunk's size */
    int by_layer, by_name;     /* weights that a loop over layers picks; others */
} census;

static void count_inst(const ir_inst *inst, void *user) {
    census *c = user;
    int weights = 0;
    for (int i = 0; inst->op == IR_MATMUL && i < inst->operand_count; i++) {
        const ir_inst *def = inst->operands[i]->def;
        const char *name = def && ir_stored_count(def) ? ir_attr_string(def, IR_ATTR_NAME) : NULL;
        weights += name && (strstr(name, "q_proj.w") || strstr(name, "k_proj.w") || strstr(name, "v_proj.w"));
    }
    c->qkv += weights == 1;
    c->merged += weights == 3;
    c->maps += inst->op == IR_MAP;
    c->unit_maps += inst->op == IR_MAP && ir_attr_int(inst, IR_ATTR_EXTENT, 0) == 1;
    c->attentions += inst->op == IR_ATTENTION;
    c->whiles += inst->op == IR_WHILE;
    c->scans += inst->op == IR_SCAN;
    c->chunks += inst->op == IR_DIM;
    c->by_layer += inst->op == IR_LAYER_WEIGHT;
    c->by_name += inst->op == IR_WEIGHT;
}

static ir_module *module_of(const fe_model *model, const fe_ablate_row *row, const char *last) {
    pass_options limits = {.context = 64, .chunk = 16, .rows = PASS_DEFAULT_ROWS};
    pass_pipeline_request request = {.options = &limits, .skip = row->skip, .with = row->with, .stop_after = last};
    gm_diag diag = {0};
    ir_module *module = NULL;
    gm_status status = pass_run(&request, fe_gemma_build(&model->config, NULL), &diag, &module);
    ck_assert_msg(status == GM_OK, "%s: %s", row->name, diag.message);
    return module;
}

static census census_of(const fe_model *model, const fe_ablate_row *rows, int count, const char *name) {
    census c = {0};
    ir_module *module = module_of(model, row_of(rows, count, name), "chunk_prefill");
    for (int i = 0; i < module->func_count; i++) ir_visit(module->funcs[i]->body, count_inst, &c);
    const ir_region *forward = ir_func_find(module, "forward")->body;
    for (int i = 0; i < forward->inst_count; i++) c.softmaxes += forward->insts[i]->op == IR_EXP;
    ir_module_free(module);
    return c;
}

static fe_model model;
static gm_arena row_arena;
static const fe_ablate_row *rows;
static int row_count;

static void open_model(void) {
    gm_diag diag = {0};
    rows = fe_ablate_rows(&row_arena, &row_count);
    ck_assert_int_eq(fe_model_open(model_path, true, &diag, &model), GM_OK);
}

static void close_model(void) {
    fe_model_close(&model);
    gm_arena_free(&row_arena);
    row_arena = (gm_arena){0};
}

START_TEST(loops_are_in_the_ir_where_the_row_says_so) {
    census host = census_of(&model, rows, row_count, "host-loop");
    census device = census_of(&model, rows, row_count, "device-generate");
    census both = census_of(&model, rows, row_count, "prefill-scan");
    census stack = census_of(&model, rows, row_count, "stack");
    census chunked = census_of(&model, rows, row_count, "chunked-prefill");
    ck_assert(host.whiles == 0 && host.scans == 0);
    ck_assert(device.whiles == 1 && device.scans == 0);
    ck_assert(both.whiles == 1 && both.scans == 1 && both.chunks == 0);
    ck_assert(stack.whiles == 1 && stack.scans == 1 && stack.chunks == 0);
    ck_assert(chunked.whiles == 1 && chunked.scans == 1 && chunked.chunks == 1);
}
END_TEST

START_TEST(one_projection_or_three) {
    int layers = (int)model.config.layers;
    census base = census_of(&model, rows, row_count, "device-generate");
    census merged = census_of(&model, rows, row_count, "merge-qkv");
    census full = census_of(&model, rows, row_count, "full");
    ck_assert(base.qkv == 3 * layers && base.merged == 0);
    ck_assert(merged.qkv == 0 && merged.merged == layers);
    ck_assert(full.qkv == 0 && full.merged == layers);
    merged.qkv = base.qkv, merged.merged = 0; /* and nothing else */
    ck_assert_mem_eq(&merged, &base, sizeof base);
}
END_TEST

START_TEST(the_nest_of_maps_is_there_or_gone) {
    int layers = (int)model.config.layers;
    census base = census_of(&model, rows, row_count, "device-generate");
    census dropped = census_of(&model, rows, row_count, "drop-unit-map");
    census batched = census_of(&model, rows, row_count, "batched-attention");
    census stack = census_of(&model, rows, row_count, "stack");
    census full = census_of(&model, rows, row_count, "full");
    ck_assert(base.unit_maps == layers && base.maps > base.unit_maps && base.softmaxes == 0);
    ck_assert(dropped.unit_maps == 0 && dropped.maps == base.maps - layers);
    ck_assert(batched.maps == 0 && batched.softmaxes == layers); /* one softmax per layer */
    ck_assert(stack.maps == 0 && stack.softmaxes == layers && stack.merged == layers);
    ck_assert(full.maps == 0 && full.softmaxes == 0 && full.attentions == layers);
}
END_TEST

START_TEST(layers_are_a_loop_or_one_after_another) {
    enum { PERIOD = 6 }; /* of Gemma 3's local and global layers */
    int layers = (int)model.config.layers;
    census full = census_of(&model, rows, row_count, "full");
    census rolled = census_of(&model, rows, row_count, "roll-layers");
    ck_assert(layers == 2 * PERIOD && full.by_layer == 0);
    ck_assert(rolled.scans == full.scans + 1 && rolled.whiles == full.whiles);
    ck_assert(rolled.merged == PERIOD && rolled.attentions == PERIOD);
    /* Outside the layers: the embedding, the last norm and the head's matrix. */
    ck_assert(rolled.by_name == 3 && full.by_name - 3 == 2 * rolled.by_layer);
    ir_module *module = module_of(&model, row_of(rows, row_count, "roll-layers"), "chunk_prefill");
    const ir_region *forward = ir_func_find(module, "forward")->body;
    int loops = 0;
    for (int i = 0; i < forward->inst_count; i++) loops += forward->insts[i]->op == IR_SCAN;
    ck_assert_int_eq(loops, 1);
    ir_module_free(module);
}
END_TEST

/* The caches of @forward as text: "f32[2,S,1,16] f32[2,S,1,16]". */
static char *caches_of(gm_arena *arena, const char *name) {
    ir_module *module = module_of(&model, row_of(rows, row_count, name), "chunk_prefill");
    const ir_region *forward = ir_func_find(module, "forward")->body;
    const ir_func *prefill = ir_func_find(module, "prefill"), *loop = ir_func_find(module, "generate");
    gm_string text = {0};
    for (int i = 2; i < forward->param_count; i++) {
        char type[96];
        gm_string_printf(&text, "%s%s", i == 2 ? "" : " ", ir_type_text(module, &forward->params[i]->type, type));
    }
    ck_assert_int_eq(prefill->body->param_count, forward->param_count + 1);
    ck_assert_int_eq(loop->body->param_count, forward->param_count + 5);
    char *copy = gm_arena_strdup(arena, text.data);
    gm_string_free(&text);
    ir_module_free(module);
    return copy;
}

START_TEST(caches_have_the_form_that_the_row_says) {
    const fe_config *c = &model.config;
    long long layers = c->layers, local = 0, kv = c->kv_heads, d = c->head_dim;
    long long slots = c->window - 1 + 33; /* more than the chunk of 16: room for tokens taken back */
    gm_arena arena = {0};
    for (int64_t i = 0; i < c->layers; i++) local += c->local[i];
    ck_assert(local > 0 && local < layers && kv > 1);
    const long long kind[] = {layers - local, local};
    const char *plain[2], *heads[2], *turned[2];
    for (int i = 0; i < 2; i++) {
        plain[i] = gm_arena_printf(&arena, "[%lld,S,%lld,%lld]", kind[i], kv, d);
        heads[i] = gm_arena_printf(&arena, "f32[%lld,%lld,S,%lld]", kind[i], kv, d);
        turned[i] = gm_arena_printf(&arena, "f32[%lld,%lld,%lld,S]", kind[i], kv, d);
    }
    const char *ring = gm_arena_printf(&arena, "f32[%lld,%lld,%lld,%lld]", local, slots, kv, d);
    const char *scale = gm_arena_printf(&arena, "f32[%lld,S,%lld,1]", layers - local, kv);
    const struct {
        const char *row, *caches;
    } wanted[] = {
        {"full", gm_arena_printf(&arena, "f32%s f32%s f32%s f32%s", plain[0], plain[0], plain[1], plain[1])},
        {"kv-head-major", gm_arena_printf(&arena, "%s %s %s %s", heads[0], heads[0], heads[1], heads[1])},
        {"kv-k-transposed", gm_arena_printf(&arena, "%s %s %s %s", turned[0], heads[0], turned[1], heads[1])},
        {"kv-ring", gm_arena_printf(&arena, "f32%s f32%s %s %s", plain[0], plain[0], ring, ring)},
        {"kv-bf16", gm_arena_printf(&arena, "bf16%s bf16%s bf16%s bf16%s", plain[0], plain[0], plain[1], plain[1])},
        {"kv-int8",
         gm_arena_printf(&arena, "i8%s i8%s f32%s f32%s %s %s", plain[0], plain[0], plain[1], plain[1], scale, scale)},
    };
    for (size_t i = 0; i < GM_COUNT(wanted); i++) ck_assert_str_eq(caches_of(&arena, wanted[i].row), wanted[i].caches);
    gm_arena_free(&arena);
}
END_TEST

/* The final text of a row's program; free it. */
static gm_string text_of(const fe_ablate_row *row) {
    gm_string text = {0};
    ir_module *module = module_of(&model, row, NULL);
    ir_print_module(module, &text);
    ir_module_free(module);
    return text;
}

/* Other passes end with their own clean-up, so that nothing is left for dce in this model; its 32 columns are no whole
 * block of a screen, without which nothing is guessed; and the f32 plan has no products in int16, nor any that takes a
 * gate. */
static bool changes_nothing(const fe_ablate_row *row) {
    static const char *const names[] = {
        "without-dce",       "without-screen_head",      "without-guess_ahead", "without-interleave_rows",
        "without-fuse_gate", "without-narrow_attention", "without-keep_panels"};
    for (size_t i = 0; i < GM_COUNT(names); i++)
        if (strcmp(row->name, names[i]) == 0) return true;
    return false;
}

static bool same_programs(const fe_ablate_row *a, const fe_ablate_row *b) {
    return (strcmp(a->skip, b->skip) == 0 && strcmp(a->with, b->with) == 0) ||
           (changes_nothing(a) && (changes_nothing(b) || strcmp(b->name, "full") == 0));
}

START_TEST(rows_are_different_programs) {
    gm_string *texts = calloc((size_t)row_count, sizeof *texts);
    for (int i = 0; i < row_count; i++) texts[i] = text_of(&rows[i]);
    for (int i = 0; i < row_count; i++)
        for (int j = 0; j < i; j++)
            ck_assert_msg((strcmp(texts[i].data, texts[j].data) == 0) == same_programs(&rows[i], &rows[j]),
                          "%s and %s (is the list in changes_nothing right?)", rows[i].name, rows[j].name);
    for (int i = 0; i < row_count; i++) gm_string_free(&texts[i]);
    free(texts);
}
END_TEST

/* ---- running ---- */

/* Memory for all rows at once, and none: then each group has a row and its base. */
static void run_rows(int first, int count, int64_t memory, int *groups) {
    static const int32_t ids[] = {2, 9, 40, 77, 5, 31};
    gm_diag diag = {.quiet = true};
    fe_ablate_result *results = calloc((size_t)count, sizeof *results);
    for (int i = 0; i < count; i++) {
        const fe_ablate_row *row = &rows[first + i];
        bool here = false;
        for (int j = 0; j < count && row->base; j++) here = here || strcmp(rows[first + j].name, row->base) == 0;
        results[i] = (fe_ablate_result){.row = row, .base = here ? row->base : NULL};
    }
    fe_ablate_request request = {.path = model_path,
                                 .ids = ids,
                                 .id_count = GM_COUNT(ids),
                                 .predict = 20,
                                 .repetitions = 1,
                                 .memory = memory,
                                 .reference = &rows[0],
                                 .options = {.context = 64, .chunk = 4, .threads = 1, .precision = FE_PRECISION_F32}};
    gm_status status = fe_ablate_run(&request, results, count, &diag);
    ck_assert_msg(status == GM_OK, "%s", diag.message);
    for (int i = 0; i < count; i++) {
        ck_assert(results[i].measured && results[i].total_mean > 0);
        bool same = results[i].tokens_differ_at == -1, rounds = strstr(results[i].row->meaning, "rounds");
        ck_assert_msg(same || rounds, "%s: token %lld", results[i].row->name, (long long)results[i].tokens_differ_at);
        ck_assert(same == isnan(results[i].logit_margin));
        ck_assert(isnan(results[i].effect.percent) == !results[i].base);
        ck_assert_msg(results[i].same_program == changes_nothing(results[i].row), "%s", results[i].row->name);
        if (results[i].group > *groups) *groups = results[i].group;
    }
    free(results);
}

START_TEST(all_rows_give_the_same_tokens) {
    int groups = 0;
    run_rows(0, row_count, INT64_C(1) << 40, &groups);
    ck_assert_int_eq(groups, 1);
}
END_TEST

START_TEST(rows_without_memory_run_in_groups) {
    int groups = 0;
    run_rows(1, 2, 0, &groups); /* the reference is not among them */
    ck_assert_int_eq(groups, 2);
}
END_TEST

/* ---- the picture ---- */

START_TEST(the_picture_is_closed_and_escaped) {
    fe_ablate_result results[2] = {{.row = &rows[0],
                                    .prefill_mean = 1,
                                    .generate_mean = 2,
                                    .total_mean = 3,
                                    .total_std = 0.1,
                                    .tokens_differ_at = -1},
                                   {.row = &rows[1],
                                    .base = "host-loop",
                                    .prefill_mean = 0.1,
                                    .generate_mean = 0.2,
                                    .total_mean = 0.3,
                                    .effect = {.percent = -90, .low = -INFINITY, .high = INFINITY}}};
    gm_string out = {0};
    fe_ablate_svg("a<b & c", results, 2, &out);
    ck_assert(strncmp(out.data, "<svg ", 5) == 0 && strstr(out.data, "</svg>\n"));
    ck_assert(strstr(out.data, "a&lt;b &amp; c") && !strstr(out.data, "script"));
    ck_assert(strstr(out.data, ">host-loop<") && strstr(out.data, "−90.0 %"));
    ck_assert(!strstr(out.data, "nan") && !strstr(out.data, "inf"));
    gm_string_free(&out);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ablate");
    TCase *parts = tcase_create("parts"), *programs = tcase_create("programs");
    tcase_add_test(parts, t_quantiles_are_those_of_the_tables);
    tcase_add_test(parts, mean_and_deviation);
    tcase_add_test(parts, paired_effects);
    tcase_add_test(parts, rows_name_passes_and_rows_that_exist);
    tcase_add_test(parts, every_pass_on_request_has_a_row);
    tcase_add_test(parts, every_optional_pass_is_left_out_once);
    suite_add_tcase(suite, parts);
    tcase_set_timeout(programs, 900);
    tcase_add_checked_fixture(programs, open_model, close_model);
    tcase_add_test(programs, loops_are_in_the_ir_where_the_row_says_so);
    tcase_add_test(programs, one_projection_or_three);
    tcase_add_test(programs, the_nest_of_maps_is_there_or_gone);
    tcase_add_test(programs, layers_are_a_loop_or_one_after_another);
    tcase_add_test(programs, caches_have_the_form_that_the_row_says);
    tcase_add_test(programs, rows_are_different_programs);
    tcase_add_test(programs, all_rows_give_the_same_tokens);
    tcase_add_test(programs, rows_without_memory_run_in_groups);
    tcase_add_test(programs, the_picture_is_closed_and_escaped);
    suite_add_tcase(suite, programs);
    return suite_run(suite);
}
