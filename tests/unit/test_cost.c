/* Bytes and FLOP of every kind of instruction, counted by hand, and the layers that values belong to. */
#include "ir/cost.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ir_module *parse(const char *text) {
    gm_diag diag = {0};
    ir_module *module = NULL;
    ck_assert_msg(ir_parse(text, strlen(text), "test", &diag, &module) == GM_OK, "%s\n%s", diag.message, text);
    return module;
}

/* What a call of @f costs at T = 3. */
typedef struct known {
    const char *what, *text;
    int64_t position;
    double read, written, flop;
} known;

#define F(params, results, body) "symbol T max 8\nfunc @f(" params ") -> (" results ") {\n" body "}\n"
#define ATTENTION(attrs)                                                                                               \
    F("%q: f32[T,1,2,4], %k: f32[16,1,4], %v: f32[16,1,4], %p: i32", "f32[T,1,2,4]",                                   \
      "  %y = attention %q, %k, %v, %p {" attrs "} : f32[T,1,2,4]\n  return %y\n")

static const known all_known[] = {
    {"sources",
     F("", "f32[4], i32[2,3]",
       "  %w = weight {name = \"w\"} : f32[4]\n  %c = const {value = 1} : f32\n"
       "  %i = iota {axis = 1} : i32[2,3]\n  return %w, %i\n"),
     0, 0, 24, 0},
    {"elem", F("%x: f32[2,3], %y: f32[2,3]", "f32[2,3]", "  %z = add %x, %y : f32[2,3]\n  return %z\n"), 0, 48, 24, 6},
    {"the same twice", F("%x: f32[2,3]", "f32[2,3]", "  %z = mul %x, %x : f32[2,3]\n  return %z\n"), 0, 24, 24, 6},
    {"broadcast", F("%x: f32[4,8], %y: f32[8]", "f32[4,8]", "  %z = mul %x, %y : f32[4,8]\n  return %z\n"), 0, 160, 128,
     32},
    {"integers", F("%x: i32[4], %y: i32[4]", "i32[4]", "  %z = add %x, %y : i32[4]\n  return %z\n"), 0, 32, 16, 0},
    {"convert", F("%x: f32[4]", "bf16[4]", "  %z = convert %x : bf16[4]\n  return %z\n"), 0, 16, 8, 0},
    {"rsqrt", F("%x: f32[T]", "f32[T]", "  %z = rsqrt %x : f32[T]\n  return %z\n"), 0, 12, 12, 6},
    {"registers", F("%x: f32, %y: f32", "f32", "  %z = add %x, %y : f32\n  return %z\n"), 0, 0, 0, 0},
    {"reduce", F("%x: f32[3,4]", "f32[3,1]", "  %z = reduce_sum %x {axis = 1} : f32[3,1]\n  return %z\n"), 0, 48, 12,
     12},
    {"argmax", F("%x: f32[2,8]", "i32[2,1]", "  %z = argmax %x : i32[2,1]\n  return %z\n"), 0, 64, 8, 16},
    {"sample",
     F("%l: f32[1,100], %t: i32[9], %p: i32, %o: f32[8], %s: i64", "i32[1,1]",
       "  %z = sample %l, %t, %p, %o, %s : i32[1,1]\n  return %z\n"),
     0, 400, 4, 100},
    {"matmul",
     F("%x: f32[T,64]", "f32[T,48]",
       "  %a = weight {name = \"a\"} : q8_0[32,64]\n  %b = weight {name = \"b\"} : f32[16,64]\n"
       "  %y = matmul %x, %a, %b : f32[T,48]\n  return %y\n"),
     0, 768 + 2176 + 4096, 576, 18432},
    {"scaled_matmul",
     F("%q: i16[T,64], %s: f32[T,1]", "f32[T,64]",
       "  %a = weight {name = \"a\"} : q8_0[32,64]\n  %b = weight {name = \"b\"} : f32[32,64]\n"
       "  %y = scaled_matmul %q, %s, %a, %b {bits = 12} : f32[T,64]\n  return %y\n"),
     0, 384 + 12 + 2176 + 8192, 768, 24576},
    {"scaled_matmul, stored",
     F("%q: i8[T,64], %s: f32[T,2]", "f32[T,32]",
       "  %a = weight {name = \"a\"} : q4_0[32,64]\n  %y = scaled_matmul %q, %s, %a : f32[T,32]\n  return %y\n"),
     0, 192 + 24 + 1152, 384, 12288},
    {"gated_matmul",
     F("%x: bf16[T,64]", "f32[T,32]",
       "  %a = weight {name = \"a\"} : f32[32,64]\n  %b = weight {name = \"b\"} : f32[32,64]\n"
       "  %y = gated_matmul %x, %a, %b {impl = \"tiles\"} : f32[T,32]\n  return %y\n"),
     0, 384 + 16384, 384, 24576 + 9 * 96},
    {"rotate", F("%x: f32[T,64]", "f32[T,64]", "  %y = rotate %x : f32[T,64]\n  return %y\n"), 0, 768, 768,
     192 * (1 + 6)},
    {"rotate in runs", F("%x: f32[T,24]", "f32[T,24]", "  %y = rotate %x : f32[T,24]\n  return %y\n"), 0, 288, 288,
     72 * (1 + 3 + 3)},
    {"fused rotation",
     F("%x: f32[T,24]", "f32[T,24]",
       "  %y = fuse %x (%a: f32[T,24]) {\n    %b = neg %a : f32[T,24]\n    %c = rotate %b : f32[T,24]\n"
       "    yield %c\n  } : f32[T,24]\n  return %y\n"),
     0, 288, 288, 72 * (1 + 1 + 3 + 3)},
    {"einsum",
     F("%q: f32[2,2,3,4], %k: f32[5,2,4]", "f32[2,2,3,5]",
       "  %y = einsum %q, %k {spec = \"tkgd,skd->tkgs\"} : f32[2,2,3,5]\n  return %y\n"),
     0, 352, 240, 480},
    {"attention", ATTENTION("scale = 0.5"), 5, 96 + 256, 96, 2 * 21 * 21},
    {"attention at the start", ATTENTION("scale = 0.5"), 0, 96 + 96, 96, 2 * 6 * 21},
    {"window", ATTENTION("scale = 0.5, window = 4"), 5, 96 + 192, 96, 2 * 12 * 21},
    {"window not yet full", ATTENTION("scale = 0.5, window = 4"), 2, 96 + 160, 96, 2 * 11 * 21},
    {"softcap", ATTENTION("scale = 0.5, cap = 30"), 0, 96 + 96, 96, 2 * 6 * 24},
    {"screened_argmax",
     F("%x: f32[2,128]", "i32[2,1]",
       "  %w = weight {name = \"w\"} : f32[16,128]\n  %s = weight {name = \"w:s4\"} : s4[21,160]\n"
       "  %a = screened_argmax %x, %w, %s : i32[2,1]\n  return %a\n"),
     0, 1024 + 1890, 8, 10240},
    {"screened_sample",
     F("%x: f32[1,128], %t: i32[9], %p: i32, %o: f32[8], %r: i64", "i32[1,1]",
       "  %w = weight {name = \"w\"} : f32[16,128]\n  %s = weight {name = \"w:s4\"} : s4[21,160]\n"
       "  %a = screened_sample %x, %w, %s, %t, %p, %o, %r : i32[1,1]\n  return %a\n"),
     0, 512 + 1890 + 384, 4, 5120 + 192},
    {"views",
     F("%x: f32[4,2]", "f32[2,2]",
       "  %a = slice %x {axis = 0, start = 1, size = 2} : f32[2,2]\n"
       "  %b = transpose %a {perm = [1, 0]} : f32[2,2]\n  return %b\n"),
     0, 0, 0, 0},
    {"a copied view",
     F("%x: f32[3,2]", "f32[2,3]", "  %b = transpose %x {perm = [1, 0], offset = [0]} : f32[2,3]\n  return %b\n"), 0,
     24, 24, 0},
    {"concat", F("%x: f32[2,3], %y: f32[1,3]", "f32[3,3]", "  %z = concat %x, %y {axis = 0} : f32[3,3]\n  return %z\n"),
     0, 36, 36, 0},
    {"gather",
     F("%i: i32[T]", "f32[T,64]",
       "  %t = weight {name = \"t\"} : q8_0[100,64]\n  %y = gather %t, %i : f32[T,64]\n  return %y\n"),
     0, 3 * 68 + 12, 768, 0},
    {"update",
     F("%x: f32[16,4], %v: f32[T,4], %i: i32", "f32[16,4]", "  %y = update %x, %v, %i : f32[16,4]\n  return %y\n"), 0,
     304, 304, 0},
    {"update in place",
     F("%x: f32[16,4], %v: f32[T,4], %i: i32", "f32[16,4]",
       "  %y = update %x, %v, %i {inplace = 1} : f32[16,4]\n  return %y\n"),
     0, 48, 48, 0},
    {"fuse",
     F("%x: f32[4,8], %w: f32[8]", "f32[4,8]",
       "  %y = fuse %x, %w (%a: f32[4,8], %b: f32[8]) {\n    %c = mul %a, %a : f32[4,8]\n    %s = reduce_sum %c {axis "
       "= 1} : f32[4,1]\n"
       "    %n = const {value = 8} : f32\n    %m = div %s, %n : f32[4,1]\n    %r = rsqrt %m : f32[4,1]\n    %d = mul "
       "%a, %r : f32[4,8]\n"
       "    %e = mul %d, %b : f32[4,8]\n    yield %e\n  } : f32[4,8]\n  return %y\n"),
     0, 160, 128, 32 + 32 + 4 + 8 + 32 + 32},
    {"map",
     F("%x: f32[4]", "f32[5,4]",
       "  %y = map {extent = 5} (%i: i32) {\n    %a = neg %x : f32[4]\n    yield %a\n  } : f32[5,4]\n  return %y\n"),
     0, 80, 80, 20},
    {"a trip of a scan",
     F("%n: i32, %x: f32[4]", "f32[4]",
       "  %y = scan %n, %x (%i: i32, %a: f32[4]) {\n    %b = neg %a : f32[4]\n    yield %b\n"
       "  } : f32[4]\n  return %y\n"),
     0, 16, 16, 4},
    {"the dearer arm",
     F("%c: bool, %x: f32[4]", "f32[4]",
       "  %y = if %c () {\n    %a = neg %x : f32[4]\n    yield %a\n  } () {\n"
       "    %b = exp %x : f32[4]\n    %d = exp %b : f32[4]\n    yield %d\n  } : f32[4]\n  return %y\n"),
     0, 32, 32, 8},
    {"a call binds symbols",
     "symbol T max 8\nfunc @g(%x: f32[T,4]) -> (f32[T,4]) {\n  %y = neg %x : f32[T,4]\n  return %y\n}\n"
     "func @f(%x: f32[2,4]) -> (f32[2,4]) {\n  %y = call %x {callee = \"g\"} : f32[2,4]\n  return %y\n}\n",
     0, 32, 32, 8},
};

START_TEST(costs_are_those_counted_by_hand) {
    const known *k = &all_known[_i];
    ir_module *module = parse(k->text);
    const int64_t symbols[] = {3};
    ir_cost cost = ir_cost_func(module, ir_func_find(module, "f"), &(ir_cost_at){symbols, k->position});
    ck_assert_msg(cost.read == k->read, "%s: reads %g, expected %g", k->what, cost.read, k->read);
    ck_assert_msg(cost.written == k->written, "%s: writes %g, expected %g", k->what, cost.written, k->written);
    ck_assert_msg(cost.flop == k->flop, "%s: %g FLOP, expected %g", k->what, cost.flop, k->flop);
    ir_module_free(module);
}
END_TEST

/* So that an operation which is added has its FLOP. */
START_TEST(arithmetic_of_elements_counts) {
    static const ir_op free_ops[] = {IR_NOT, IR_CONVERT, IR_AND, IR_OR, IR_LT, IR_LE, IR_EQ, IR_SELECT};
    for (ir_op op = 0; op < IR_OP_COUNT; op++) {
        const ir_op_info *info = ir_op_of(op);
        bool counts = info->class == IR_CLASS_ELEM;
        for (size_t i = 0; i < GM_COUNT(free_ops); i++) counts &= op != free_ops[i];
        if (!counts) continue;
        char text[200], operands[40] = "%x";
        for (int i = 1; i < info->operands; i++) strcat(operands, ", %x");
        snprintf(text, sizeof text,
                 "func @f(%%x: f32[2,4]) -> (f32[2,4]) {\n  %%y = %s %s : f32[2,4]\n  return %%y\n}\n", info->text,
                 operands);
        ir_module *module = parse(text);
        ir_cost cost = ir_cost_func(module, module->funcs[0], &(ir_cost_at){NULL, 0});
        ck_assert_msg(cost.flop >= 8, "%s: %g FLOP, expected one for each element", info->text, cost.flop);
        ir_module_free(module);
    }
}
END_TEST

START_TEST(symbols_have_their_bounds_unless_given) {
    ir_module *module = parse(F("%x: f32[T]", "f32[T]", "  %z = neg %x : f32[T]\n  return %z\n"));
    ir_cost cost = ir_cost_func(module, module->funcs[0], &(ir_cost_at){NULL, 0});
    ck_assert_double_eq(cost.flop, 8);
    ck_assert_int_eq(ir_cost_symbol(module->funcs[0]->body->insts[0]), 0);
    ir_module_free(module);
}
END_TEST

START_TEST(layers_come_from_weights) {
    ir_module *module =
        parse("func @f(%x: f32[2,4]) -> (f32[2,4]) {\n"
              "  %a = neg %x : f32[2,4]\n"
              "  %w = weight {name = \"layers.3.mlp.down_proj.weight\"} : f32[4,4]\n"
              "  %b = matmul %a, %w : f32[2,4]\n"
              "  %c = neg %b : f32[2,4]\n"
              "  %n = weight {name = \"layers.4.input_layernorm.weight\"} : f32[4]\n"
              "  %p = weight {name = \"layers.3.post_feedforward_layernorm.weight\"} : f32[4]\n"
              "  %y = fuse %c, %n, %p (%d: f32[2,4], %e: f32[4], %g: f32[4]) {\n"
              "    %h = mul %d, %e : f32[2,4]\n    %i = mul %h, %g : f32[2,4]\n    yield %i\n  } : f32[2,4]\n"
              "  %o = weight {name = \"norm.weight\"} : f32[4]\n"
              "  %z = mul %y, %o : f32[2,4]\n"
              "  return %z\n}\n");
    const ir_func *func = module->funcs[0];
    const int expected[] = {-1, 3, 3, 3, 4, 3, 3, -1, -1}; /* %a %w %b %c %n %p %y %o %z */
    int *layers = ir_value_layers(func);
    ck_assert_int_eq(func->body->inst_count, (int)GM_COUNT(expected));
    for (size_t i = 0; i < GM_COUNT(expected); i++)
        ck_assert_int_eq(layers[func->body->insts[i]->results[0]->id], expected[i]);
    free(layers);
    ir_module_free(module);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cost");
    TCase *tests = tcase_create("cost");
    tcase_add_loop_test(tests, costs_are_those_counted_by_hand, 0, (int)GM_COUNT(all_known));
    tcase_add_test(tests, arithmetic_of_elements_counts);
    tcase_add_test(tests, symbols_have_their_bounds_unless_given);
    tcase_add_test(tests, layers_come_from_weights);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
