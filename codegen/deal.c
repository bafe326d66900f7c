/* Work dealt out in pieces as threads come for them, for instructions that take long enough that a thread whose core is
 * held up for a while (by another process, by a virtual machine's host) would keep all others waiting at the next
 * barrier.
 *
 * The pieces taken are counted in the frame's barrier: a thread adds one and works on the piece whose number it found,
 * until that is past the last. The thread that opens the barrier sets the count to 0, so that every instruction between
 * two barriers would begin where the one before it has ended: they must not deal both. cg_dealt makes them write the
 * same bytes, as hazard.c sees it, and a barrier comes between. What a piece computes must not depend on who does.
 */
#include "codegen/cg.h"

const cg_slot cg_dealt = {.extent = {CG_WORK, 0, 1}};

static LLVMValueRef take(cg *c) {
    LLVMValueRef count = cg_at(c, c->i8, c->code.frame, cg_i64(c, offsetof(rt_frame, barrier.dealt)));
    LLVMValueRef before =
        LLVMBuildAtomicRMW(c->b, LLVMAtomicRMWBinOpAdd, count, cg_i32(c, 1), LLVMAtomicOrderingMonotonic, 0);
    return LLVMBuildZExt(c->b, before, c->i64, "");
}

LLVMValueRef cg_deal(cg *c) {
    return cg_variable(c, c->i64, take(c));
}

cg_pieces cg_pieces_begin(cg *c, LLVMValueRef hand, LLVMValueRef end) {
    cg_pieces p = {.hand = hand, .head = LLVMAppendBasicBlockInContext(c->context, c->code.fn, "deal")};
    LLVMBasicBlockRef body = LLVMAppendBasicBlockInContext(c->context, c->code.fn, "");
    p.exit = LLVMAppendBasicBlockInContext(c->context, c->code.fn, "");
    LLVMBuildBr(c->b, p.head);
    LLVMPositionBuilderAtEnd(c->b, p.head);
    p.index = LLVMBuildLoad2(c->b, c->i64, hand, "");
    LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntSLT, p.index, end, ""), body, p.exit);
    LLVMPositionBuilderAtEnd(c->b, body);
    return p;
}

void cg_pieces_end(cg *c, cg_pieces *pieces) {
    LLVMBuildStore(c->b, take(c), pieces->hand);
    LLVMBuildBr(c->b, pieces->head);
    LLVMPositionBuilderAtEnd(c->b, pieces->exit);
}
