/* The IR: types, builders, text, copies, verifier, interpreter edge cases, random modules. */
#include "ir/interp.h"
#include "ir/rewrite.h"
#include "tests/random_module.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- helpers ---- */

static ir_module *parse(const char *text) {
    gm_diag diag = {0};
    ir_module *module = NULL;
    ck_assert_msg(ir_parse(text, strlen(text), "test", &diag, &module) == GM_OK, "%s", diag.message);
    return module;
}

static char *print(const ir_module *module) {
    gm_string text = {0};
    ir_print_module(module, &text);
    return text.data;
}

static void check_prints_same(const ir_module *module) {
    char *once = print(module);
    ir_module *again = parse(once);
    char *twice = print(again);
    ck_assert_str_eq(once, twice);
    free(once);
    free(twice);
    ir_module_free(again);
}

static ir_array int_arg(int32_t *value) {
    return (ir_array){.dtype = RT_I32, .data = value};
}

static ir_array floats_arg(float *values, int64_t n) {
    return (ir_array){.dtype = RT_F32, .rank = 1, .dim = {n}, .data = values};
}

/* Running @f must fail, with this in the message. */
static void check_fails(const char *text, const ir_interp_env *env, const ir_array *args, int count, const char *why) {
    ir_module *module = parse(text);
    gm_arena arena = {0};
    gm_diag diag = {0};
    ir_array results[8];
    ck_assert_int_eq(ir_interp(module, "f", env, args, count, &arena, results, &diag), GM_INVALID);
    ck_assert_msg(strstr(diag.message, why), "\"%s\" lacks \"%s\"", diag.message, why);
    gm_arena_free(&arena);
    ir_module_free(module);
}

/* ---- types ---- */

static ir_type type2(ir_dim a, ir_dim b) {
    return ir_tensor(RT_F32, 2, (ir_dim[]){a, b});
}

START_TEST(broadcasting) {
    ir_dim t = ir_dim_symbol(0), s = ir_dim_symbol(1);
    const struct {
        ir_type a, b;
        bool ok;
        ir_type out;
    } rows[] = {
        {type2(2, 3), type2(2, 3), true, type2(2, 3)},
        {type2(2, 1), type2(1, 3), true, type2(2, 3)},
        {type2(2, 3), ir_tensor(RT_F32, 1, (ir_dim[]){3}), true, type2(2, 3)},
        {ir_scalar(RT_F32), type2(2, 3), true, type2(2, 3)},
        {ir_scalar(RT_F32), ir_scalar(RT_F32), true, ir_scalar(RT_F32)},
        {type2(t, 3), type2(1, 3), true, type2(t, 3)},
        {type2(t, 1), type2(1, s), true, type2(t, s)},
        {type2(0, 3), type2(1, 3), true, type2(0, 3)},
        {type2(2, 3), type2(2, 4), false, {0}},
        {type2(t, 3), type2(s, 3), false, {0}},
        {type2(t, 3), type2(4, 3), false, {0}},
        {type2(2, 3), ir_tensor(RT_F32, 1, (ir_dim[]){2}), false, {0}},
    };
    for (size_t i = 0; i < GM_COUNT(rows); i++) {
        ir_type out;
        for (int turn = 0; turn < 2; turn++) {
            bool ok = turn ? ir_broadcast(&rows[i].b, &rows[i].a, &out) : ir_broadcast(&rows[i].a, &rows[i].b, &out);
            ck_assert_msg(ok == rows[i].ok, "row %zu", i);
            if (ok) ck_assert_msg(ir_type_equal(&out, &rows[i].out), "row %zu", i);
        }
    }
}
END_TEST

START_TEST(symbols_and_sizes) {
    ir_module *module = ir_module_new();
    int t = ir_symbol_intern(module, "T", 0), s = ir_symbol_intern(module, "S", 100);
    ck_assert_int_eq(ir_symbol_intern(module, "T", 7), t);
    ck_assert_int_eq(ir_symbol_find(module, "S"), s);
    ck_assert_int_eq(ir_symbol_find(module, "U"), -1);
    ck_assert(ir_dim_is_symbol(ir_dim_symbol(t)) && !ir_dim_is_symbol(0));
    ck_assert_int_eq(ir_dim_symbol_of(ir_dim_symbol(s)), s);
    ck_assert_int_eq(ir_dim_max(module, ir_dim_symbol(t)), 7);
    ir_type type = type2(ir_dim_symbol(t), ir_dim_symbol(s));
    ck_assert_int_eq(ir_type_max_elems(module, &type), 700);
    char text[96];
    ck_assert_str_eq(ir_type_text(module, &type, text), "f32[T,S]");
    type = ir_scalar(RT_BOOL);
    ck_assert_str_eq(ir_type_text(module, &type, text), "bool");
    ck_assert_int_eq(ir_type_max_elems(module, &type), 1);
    ir_module_free(module);
}
END_TEST

START_TEST(tables) {
    for (int i = 0; i < IR_OP_COUNT; i++) {
        const ir_op_info *info = ir_op_of((ir_op)i);
        ir_op op;
        ck_assert(ir_op_parse(info->text, strlen(info->text), &op) && op == (ir_op)i);
        ck_assert_int_le(info->regions, 2);
    }
    ir_op op;
    ck_assert(!ir_op_parse("ad", 2, &op) && !ir_op_parse("addd", 4, &op) && !ir_op_parse("", 0, &op));
    for (int i = 0; i < IR_ATTR_COUNT; i++)
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(ir_attr_of((ir_attr_key)i)->text, ir_attr_of((ir_attr_key)j)->text);
}
END_TEST

/* ---- text ---- */

START_TEST(text_is_exact) {
    const char *text = "symbol T max 8\n"
                       "symbol N\n"
                       "\n"
                       "func @g(%x: f32[T,4]) -> (f32[T,4]) alias [0] {\n"
                       "  %0 = const {value = 0.100000001} : f32\n"
                       "  %big = const {value = 1.17549435e-38} : f32\n"
                       "  %big.1 = const {values = [inf, -inf, nan, -0]} : f32[4]\n"
                       "  %1 = const {value = -9007199254740993} : i64\n"
                       "  %w = weight {name = \"a \\\"b\\\" \\\\c\"} : q8_0[2,64]\n"
                       "  %2 = map {extent = T} (%i: i32) {\n"
                       "    %3 = index %x, %i {axis = 0} : f32[4]\n"
                       "    yield %3\n"
                       "  } : f32[T,4]\n"
                       "  return %2\n"
                       "}\n"
                       "\n"
                       "func @h(%n: i32) -> () {\n"
                       "  dim %n {symbol = \"N\"}\n"
                       "  %b = const {value = 1} : bool\n"
                       "  if %b () {\n"
                       "    emit %n\n"
                       "    yield\n"
                       "  } () {\n"
                       "    yield\n"
                       "  }\n"
                       "  return\n"
                       "}\n";
    ir_module *module = parse(text);
    char *printed = print(module);
    ck_assert_str_eq(printed, text);
    ir_module *copy = ir_rewrite_module(module, NULL, NULL);
    char *copied = print(copy);
    ck_assert_str_eq(copied, text);
    free(printed);
    free(copied);
    ir_module_free(module);
    ir_module_free(copy);
}
END_TEST

START_TEST(text_needs_no_terminator) {
    static const char text[] = "func @f() -> (i32) { %x = const {value = 1";
    for (size_t bytes = 0; bytes < sizeof text; bytes++) {
        char *exact = malloc(bytes ? bytes : 1);
        memcpy(exact, text, bytes);
        gm_diag diag = {0};
        ir_module *module = NULL;
        if (ir_parse(exact, bytes, "t", &diag, &module) == GM_OK) ir_module_free(module);
        else ck_assert(strncmp(diag.message, "t:1:", 4) == 0);
        free(exact);
    }
}
END_TEST

START_TEST(builder_names) {
    ir_module *module = ir_module_new();
    ir_builder b;
    ir_func *func = ir_func_new(&b, module, "f");
    ir_value *x = ir_param(&b, func->body, ir_tensor(RT_F32, 1, (ir_dim[]){4}), "x");
    ir_value *y = ir_named(ir_binary(&b, IR_ADD, x, x), "x");
    ir_value *z = ir_binary(&b, IR_MUL, y, ir_const_float(&b, 0.1));
    ir_yield(&b, &z, 1);
    gm_diag diag = {0};
    ck_assert_int_eq(ir_verify(module, "test", &diag), GM_OK);
    char *text = print(module);
    ck_assert(strstr(text, "%x.1 = add %x, %x : f32[4]") && strstr(text, "value = 0.100000001"));
    check_prints_same(module);
    free(text);
    ir_module_free(module);
}
END_TEST

START_TEST(substituted_copy) {
    ir_module *module = parse("symbol T max 8\nsymbol S max 9\n"
                              "func @f(%x: f32[T,S]) -> (f32[S]) {\n"
                              "  %y = map {extent = S} (%i: i32) {\n"
                              "    %c = index %x, %i {axis = 1} : f32[T]\n"
                              "    %s = reduce_max %c {axis = 0} : f32[1]\n"
                              "    %t = reshape %s : f32\n"
                              "    yield %t\n  } : f32[S]\n  return %y\n}\n");
    ir_module *out = ir_module_like(module);
    ir_clone_func(module, module->funcs[0], out, "one", (ir_dim[]){1, ir_dim_symbol(1)}, NULL, NULL);
    gm_diag diag = {0};
    ck_assert_int_eq(ir_verify(out, "test", &diag), GM_OK);
    char *text = print(out);
    ck_assert(strstr(text, "func @one(%x: f32[1,S]) -> (f32[S])") && strstr(text, "extent = S") && !strstr(text, "T]"));
    free(text);
    ir_module_free(module);
    ir_module_free(out);
}
END_TEST

/* ---- the verifier, on modules that no text can give ---- */

static ir_module *two_steps(void) {
    return parse("func @f(%x: f32[4]) -> (f32[4]) {\n  %y = neg %x : f32[4]\n  %z = exp %y : f32[4]\n  return %z\n}\n");
}

static void check_broken(ir_module *module, const char *why) {
    gm_diag diag = {0};
    ck_assert_int_eq(ir_verify(module, "some pass", &diag), GM_FORMAT);
    ck_assert_msg(strncmp(diag.message, "some pass: @f: ", 15) == 0 && strstr(diag.message, why), "%s", diag.message);
    ir_module_free(module);
}

START_TEST(verifier) {
    ir_module *module = two_steps();
    ir_inst **insts = module->funcs[0]->body->insts, *first = insts[0];
    insts[0] = insts[1];
    insts[1] = first;
    check_broken(module, "before or outside its definition");
    module = two_steps();
    module->funcs[0]->body->insts[1]->results[0]->type.dim[0] = 5;
    check_broken(module, "result 0 must have type f32[4]");
    module = two_steps();
    module->funcs[0]->body->insts[1] = module->funcs[0]->body->insts[0];
    check_broken(module, "defined twice");
    module = two_steps();
    module->funcs[0]->body->insts[1]->operands[0]->id = 99;
    check_broken(module, "out of range");
    module = two_steps();
    module->funcs[0]->body->params[0]->type.dim[0] = ir_dim_symbol(3);
    check_broken(module, "undeclared symbol");
}
END_TEST

/* ---- the interpreter ---- */

START_TEST(interp_rejects_arguments) {
    const char *text = "symbol T max 4\nfunc @f(%x: f32[T], %y: f32[T]) -> (f32[T]) {\n"
                       "  %z = add %x, %y : f32[T]\n  return %z\n}\n";
    float values[8] = {0};
    int32_t n = 0;
    check_fails(text, NULL, (ir_array[]){floats_arg(values, 2)}, 1, "@f: takes 2 arguments, got 1");
    check_fails(text, NULL, (ir_array[]){floats_arg(values, 5), floats_arg(values, 5)}, 2, "T = 5, its bound is 4");
    check_fails(text, NULL, (ir_array[]){floats_arg(values, 2), floats_arg(values, 3)}, 2, "extent 3 on axis 0");
    check_fails(text, NULL, (ir_array[]){floats_arg(values, 2), int_arg(&n)}, 2, "another dtype or rank");
    ir_module *module = parse(text);
    gm_diag diag = {0};
    gm_arena arena = {0};
    ck_assert_int_eq(ir_interp(module, "g", NULL, NULL, 0, &arena, NULL, &diag), GM_INVALID);
    ck_assert_str_eq(diag.message, "no function @g");
    gm_arena_free(&arena);
    ir_module_free(module);
}
END_TEST

START_TEST(interp_rejects_weights) {
    const char *text = "func @f() -> (f32[2]) {\n  %w = weight {name = \"w\"} : f32[2]\n  return %w\n}\n";
    float data[3] = {1, 2, 3};
    gm_diag diag = {0};
    rt_weights weights = {0};
    ir_interp_env env = {.weights = &weights};
    check_fails(text, NULL, NULL, 0, "@f: %w = weight: no weight is called \"w\"");
    check_fails(text, &env, NULL, 0, "no weight is called");
    rt_tensor tensor = {.name = "w", .dtype = RT_F32, .rank = 1, .dim = {3}, .data = data, .bytes = sizeof data};
    ck_assert_int_eq(rt_weights_add(&weights, "test", &tensor, &diag), GM_OK);
    check_fails(text, &env, NULL, 0, "has another type");
    rt_weights_close(&weights);
}
END_TEST

START_TEST(interp_symbols) {
    float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    /* bound by nothing: the bound itself, or an error */
    ir_module *module =
        parse("symbol N max 3\nfunc @f() -> (i32[N]) {\n  %i = iota {axis = 0} : i32[N]\n  return %i\n}\n");
    gm_arena arena = {0};
    gm_diag diag = {0};
    ir_array result;
    ck_assert_int_eq(ir_interp(module, "f", NULL, NULL, 0, &arena, &result, &diag), GM_OK);
    ck_assert(result.rank == 1 && result.dim[0] == 3 && ((int32_t *)result.data)[2] == 2);
    gm_arena_free(&arena);
    ir_module_free(module);
    check_fails("symbol N\nfunc @f() -> (i32[N]) {\n  %i = iota {axis = 0} : i32[N]\n  return %i\n}\n", NULL, NULL, 0,
                "symbol N has no value");
    /* a value made before dim has the old extent */
    int32_t n = 2;
    check_fails("symbol T max 8\nfunc @f(%x: f32[T], %n: i32) -> (f32[T]) {\n"
                "  dim %n {symbol = \"T\"}\n  %y = neg %x : f32[T]\n  return %y\n}\n",
                NULL, (ir_array[]){floats_arg(values, 8), int_arg(&n)}, 2,
                "operand 0 has extent 8 on axis 0, its type says 2");
}
END_TEST

typedef struct record {
    char ops[512];
    int32_t tokens[16];
    int token_count;
} record;

static void record_op(void *user, const ir_func *func, const ir_inst *inst, const ir_array *results) {
    record *r = user;
    strcat(strcat(r->ops, ir_op_of(inst->op)->text), " ");
    for (int i = 0; i < inst->result_count; i++) ck_assert_ptr_nonnull(results[i].data);
}

static void record_token(void *user, int32_t token) {
    record *r = user;
    r->tokens[r->token_count++] = token;
}

START_TEST(interp_trace) {
    ir_module *module = parse("func @f(%n: i32) -> (i32) {\n"
                              "  %z = const {value = 0} : i32\n"
                              "  %r = scan %n, %z (%i: i32, %a: i32) {\n"
                              "    %s = scan %i, %a (%j: i32, %b: i32) {\n"
                              "      %t = add %b, %i : i32\n      emit %t\n      yield %t\n    } : i32\n"
                              "    yield %s\n  } : i32\n  return %r\n}\n");
    record r = {0};
    ir_interp_env env = {.trace = record_op, .emit = record_token, .user = &r};
    gm_arena arena = {0};
    gm_diag diag = {0};
    ir_array result;
    int32_t n = 3;
    ck_assert_int_eq(ir_interp(module, "f", &env, (ir_array[]){int_arg(&n)}, 1, &arena, &result, &diag), GM_OK);
    ck_assert_int_eq(*(int32_t *)result.data, 1 + 2 + 2);
    ck_assert_str_eq(r.ops, "const scan add emit scan add emit add emit scan scan ");
    ck_assert(r.token_count == 3 && r.tokens[0] == 1 && r.tokens[1] == 3 && r.tokens[2] == 5);
    gm_arena_free(&arena);
    ir_module_free(module);
}
END_TEST

START_TEST(interp_trace_of_fused) {
    ir_module *module =
        parse("func @f(%q: f32[1,1,1,1], %k: f32[2,1,1], %p: i32) -> (f32[1,1,1,1]) {\n"
              "  %y = attention %q, %k, %k, %p {scale = 1, window = 1} : f32[1,1,1,1]\n  return %y\n}\n");
    record r = {0};
    ir_interp_env env = {.trace = record_op, .user = &r};
    float q = 2, k[2] = {3, 5};
    int32_t p = 1;
    ir_array args[] = {{.dtype = RT_F32, .rank = 4, .dim = {1, 1, 1, 1}, .data = &q},
                       {.dtype = RT_F32, .rank = 3, .dim = {2, 1, 1}, .data = k},
                       int_arg(&p)};
    gm_arena arena = {0};
    gm_diag diag = {0};
    ir_array result;
    ck_assert_int_eq(ir_interp(module, "f", &env, args, 3, &arena, &result, &diag), GM_OK);
    ck_assert_str_eq(r.ops, "attention ");
    ck_assert(*(float *)result.data == 5);
    /* the expansion is a module in its own right, with the same value */
    ir_module *expanded = ir_expand_fused(module);
    ck_assert_int_eq(ir_verify(expanded, "expand", &diag), GM_OK);
    check_prints_same(expanded);
    char *text = print(expanded);
    ck_assert_ptr_null(strstr(text, "attention"));
    ck_assert_int_eq(ir_interp(expanded, "f", NULL, args, 3, &arena, &result, &diag), GM_OK);
    ck_assert(*(float *)result.data == 5);
    free(text);
    gm_arena_free(&arena);
    ir_module_free(module);
    ir_module_free(expanded);
}
END_TEST

START_TEST(interp_error_in_a_region) {
    const char *text = "func @f(%x: f32[3], %n: i32) -> (f32) {\n"
                       "  %z = const {value = 0} : f32\n"
                       "  %r = scan %n, %z (%i: i32, %a: f32) {\n"
                       "    %e = index %x, %i {axis = 0} : f32\n    %s = add %a, %e : f32\n    yield %s\n"
                       "  } : f32\n  return %r\n}\n";
    float values[3] = {1, 2, 3};
    int32_t n = 4;
    check_fails(text, NULL, (ir_array[]){floats_arg(values, 3), int_arg(&n)}, 2,
                "@f: %e = index: [3, 4) leaves axis 0 of extent 3");
}
END_TEST

/* ---- DOT ---- */

START_TEST(dot) {
    ir_module *module = random_module(5);
    gm_string text = {0};
    ir_print_dot(module, &text);
    int depth = 0, quotes = 0;
    for (const char *c = text.data; *c; c++) {
        if (*c == '\\') c++;
        else if (*c == '"') quotes++;
        else if (quotes % 2 == 0) depth += (*c == '{') - (*c == '}');
    }
    ck_assert(depth == 0 && quotes % 2 == 0);
    ck_assert(strstr(text.data, "label=\"@f\"") && strstr(text.data, "label=\"@helper\"") && strstr(text.data, "->"));
    gm_string_free(&text);
    ir_module_free(module);
}
END_TEST

/* ---- random modules ---- */

static void check_same_results(const ir_module *a, const ir_module *b, uint64_t seed) {
    gm_arena arena = {0};
    gm_diag diag = {0};
    ir_array args[RANDOM_ARGS], x[8], y[8];
    random_args(seed, &arena, args);
    ck_assert_msg(ir_interp(a, "f", NULL, args, RANDOM_ARGS, &arena, x, &diag) == GM_OK, "%s", diag.message);
    ck_assert_msg(ir_interp(b, "f", NULL, args, RANDOM_ARGS, &arena, y, &diag) == GM_OK, "%s", diag.message);
    for (int i = 0; i < ir_func_find(a, "f")->body->yield_count; i++) {
        size_t bytes = rt_dtype_bytes(x[i].dtype, (size_t)ir_array_elems(&x[i]));
        ck_assert_mem_eq(x[i].dim, y[i].dim, sizeof x[i].dim);
        ck_assert_int_eq(memcmp(x[i].data, y[i].data, bytes), 0);
    }
    gm_arena_free(&arena);
}

START_TEST(random_round_trips) {
    for (uint64_t seed = 0; seed < 300; seed++) {
        ir_module *module = random_module(seed);
        gm_diag diag = {0};
        ck_assert_msg(ir_verify(module, "random", &diag) == GM_OK, "seed %d: %s", (int)seed, diag.message);
        char *text = print(module);
        ir_module *parsed = parse(text), *copied = ir_rewrite_module(module, NULL, NULL);
        char *again = print(parsed), *copy = print(copied);
        ck_assert_str_eq(text, again);
        ck_assert_str_eq(text, copy);
        check_same_results(module, parsed, seed);
        free(text);
        free(again);
        free(copy);
        ir_module_free(module);
        ir_module_free(parsed);
        ir_module_free(copied);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ir");
    TCase *tcase = tcase_create("ir");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, broadcasting);
    tcase_add_test(tcase, symbols_and_sizes);
    tcase_add_test(tcase, tables);
    tcase_add_test(tcase, text_is_exact);
    tcase_add_test(tcase, text_needs_no_terminator);
    tcase_add_test(tcase, builder_names);
    tcase_add_test(tcase, substituted_copy);
    tcase_add_test(tcase, verifier);
    tcase_add_test(tcase, interp_rejects_arguments);
    tcase_add_test(tcase, interp_rejects_weights);
    tcase_add_test(tcase, interp_symbols);
    tcase_add_test(tcase, interp_trace);
    tcase_add_test(tcase, interp_trace_of_fused);
    tcase_add_test(tcase, interp_error_in_a_region);
    tcase_add_test(tcase, dot);
    tcase_add_test(tcase, random_round_trips);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
