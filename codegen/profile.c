/* Calls around each instruction's work, so that the runtime can say what every thread did and when (runtime/profile.h).
 *
 * An instruction is at work from its first access to memory, after the barrier that this may need, to its end. Barriers
 * are events of their own. What only computes registers or names memory is never at work.
 */
#include "codegen/cg.h"
#include "ir/cost.h"

static bool holds_regions(const ir_inst *inst) {
    return ir_op_of(inst->op)->class == IR_CLASS_CONTROL && inst->op != IR_FUSE;
}

/* One number read from memory, into a register. */
static bool reads_scalar(const ir_inst *inst) {
    return ir_op_of(inst->op)->class == IR_CLASS_SHAPE && inst->results[0]->type.rank == 0;
}

/* The symbol in the shapes of an instruction, NULL when there is none. */
static LLVMValueRef extent_of(cg *c, const ir_inst *inst) {
    int symbol = ir_cost_symbol(inst);
    LLVMValueRef value = symbol < 0 ? NULL : c->code.symbol[symbol];
    return value ? LLVMBuildTrunc(c->b, value, c->i32, "") : cg_i32(c, 0);
}

bool cg_profile_begin(cg *c) {
    if (!c->options->profile || !c->inst || c->timing.open) return false;
    int64_t number = cg_trace_number(c->module, c->inst);
    int kind = c->timing.parts++ ? RT_EVENT_MORE : RT_EVENT_OP;
    LLVMValueRef position = c->inst->op == IR_ATTENTION ? cg_slot_of(c, c->inst->operands[3])->reg : cg_i32(c, 0);
    LLVMValueRef args[] = {c->code.frame,   c->code.thread,        cg_i32(c, number),
                           cg_i32(c, kind), extent_of(c, c->inst), position};
    cg_host_call(c, "rt_profile_begin", c->void_t, args, 6);
    c->timing.open = true;
    return true;
}

void cg_profile_work(cg *c) {
    if (c->inst && !holds_regions(c->inst) && !reads_scalar(c->inst)) cg_profile_begin(c);
}

void cg_profile_end(cg *c) {
    if (!c->timing.open) return;
    LLVMValueRef args[] = {c->code.frame, c->code.thread};
    cg_host_call(c, "rt_profile_end", c->void_t, args, 2);
    c->timing.open = false;
}
