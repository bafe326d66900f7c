/* What the compiler chose and why: passes and emitters note it where they decide, `--explain` prints it. */
#ifndef GM_IR_DECISIONS_H
#define GM_IR_DECISIONS_H

#include "ir/ir.h"

typedef struct ir_decision {
    const char *step; /* the pass or emitter */
    const char *func; /* where the instruction is */
    const char *what; /* its op, and the types of what it reads */
    const char *choice;
    const char *reason; /* the rule with its numbers */
    int64_t count;      /* how many times the same */
} ir_decision;

typedef struct ir_decisions {
    gm_arena arena; /* owns the texts */
    ir_decision *items;
    size_t count, capacity;
} ir_decisions;

/* Note a decision about `inst`; equal ones are counted. Nothing happens when `to` is NULL: nobody asked. */
void ir_decide(ir_decisions *to, const char *step, const ir_module *module, const ir_func *func, const ir_inst *inst,
               const char *choice, const char *reason, ...) __attribute__((format(printf, 7, 8)));
void ir_decisions_free(ir_decisions *list);

#endif
