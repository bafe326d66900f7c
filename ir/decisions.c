/* The list of decisions. */
#include "ir/decisions.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "%qkv = matmul f32[T,640] q5_0[1024,640] q8_0[256,640]"; weights without their names, which are many. */
static char *describe(gm_arena *arena, const ir_module *module, const ir_inst *inst) {
    gm_string text = {0};
    char type[96];
    const char *hint = inst->result_count && inst->op != IR_WEIGHT ? inst->results[0]->hint : NULL;
    if (hint) gm_string_printf(&text, "%%%s = ", hint);
    gm_string_printf(&text, "%s", ir_op_of(inst->op)->text);
    for (int i = 0; i < inst->operand_count; i++)
        gm_string_printf(&text, " %s", ir_type_text(module, &inst->operands[i]->type, type));
    char *copy = gm_arena_strdup(arena, text.data);
    gm_string_free(&text);
    return copy;
}

static bool same(const ir_decision *a, const ir_decision *b) {
    return strcmp(a->step, b->step) == 0 && strcmp(a->func, b->func) == 0 && strcmp(a->what, b->what) == 0 &&
           strcmp(a->choice, b->choice) == 0 && strcmp(a->reason, b->reason) == 0;
}

static void add(ir_decisions *to, const ir_decision *decision) {
    for (size_t i = 0; i < to->count; i++) {
        if (!same(&to->items[i], decision)) continue;
        to->items[i].count++;
        return;
    }
    if (to->count == to->capacity) {
        to->capacity = to->capacity ? 2 * to->capacity : 32;
        to->items = realloc(to->items, to->capacity * sizeof *to->items);
        GM_ASSERT(to->items);
    }
    to->items[to->count++] = *decision;
}

void ir_decide(ir_decisions *to, const char *step, const ir_module *module, const ir_func *func, const ir_inst *inst,
               const char *choice, const char *reason, ...) {
    char why[384];
    va_list args;
    if (!to) return;
    va_start(args, reason);
    vsnprintf(why, sizeof why, reason, args);
    va_end(args);
    ir_decision decision = {.step = step,
                            .func = gm_arena_strdup(&to->arena, func->name),
                            .what = describe(&to->arena, module, inst),
                            .choice = gm_arena_strdup(&to->arena, choice),
                            .reason = gm_arena_strdup(&to->arena, why),
                            .count = 1};
    add(to, &decision);
}

void ir_decisions_free(ir_decisions *list) {
    gm_arena_free(&list->arena);
    free(list->items);
    *list = (ir_decisions){0};
}
