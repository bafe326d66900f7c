/* Panels of W dealt out to the threads (deal.c), each for all rows of x: those of one weight, whose products go to the
 * result, or of both of a gate, whose products go to scratch, and what they come to goes to the result (gate.c), so
 * that they never lie in memory.
 */
#include "codegen/integer.h"

integer_panels integer_panels_of(cg *c, const ir_inst *inst, int which, LLVMValueRef hand, int64_t origin,
                                 cg_kernel *kernel) {
    const ir_type *x = &inst->operands[0]->type, *y = &inst->results[0]->type;
    const cg_slot *out = cg_slot_of(c, inst->results[0]);
    int64_t stride, rows = integer_panel_rows(c);
    GM_ASSERT(ir_layout_matrix(y, &out->layout, &stride));
    integer_panels p = {.weights = integer_panels_together(inst), .out_dtype = y->dtype};
    for (int i = 0; i < p.weights; i++) p.w[i] = cg_kernel_arg(kernel, cg_slot_of(c, inst->operands[which + i])->base);
    p.x = cg_kernel_arg(kernel, cg_slot_of(c, inst->operands[0])->base);
    p.x_rows = cg_kernel_arg(kernel, cg_leading_rows(c, x));
    p.out = cg_kernel_arg(kernel, cg_at(c, cg_type(c, y->dtype), out->base, cg_i64(c, origin)));
    p.out_stride = cg_kernel_arg(kernel, cg_i64(c, stride));
    p.hand = cg_kernel_arg(kernel, hand);
    p.first = cg_kernel_arg(kernel, cg_i64(c, origin / rows));
    p.last = cg_kernel_arg(kernel, cg_i64(c, (origin + inst->operands[which]->type.dim[0]) / rows));
    gm_string_printf(&kernel->key, "panels %d %d ", p.weights, p.out_dtype);
    return p;
}

int integer_panels_together(const ir_inst *inst) {
    return inst->op == IR_GATED_MATMUL ? INTEGER_GATE_WEIGHTS : 1;
}

int64_t integer_panels_half(const cg *c, const ir_inst *inst, int64_t max_rows) {
    return inst->op == IR_GATED_MATMUL ? max_rows * integer_panel_rows(c) * 4 : 0;
}

/* The panel that begins at `row` of the weight at w. next: where the one lies that is likely to follow; NULL: nobody
 * asks. */
static void multiply(cg *c, const integer_work *work, LLVMValueRef w, LLVMValueRef row, LLVMValueRef next,
                     LLVMValueRef out, LLVMValueRef out_stride) {
    if (integer_in_place(c, work->kind)) {
        integer_places kept = integer_kept(c, work->kind, w, row);
        kept.next = next;
        work->multiply(c, work->user, &kept, 0, work->kind->columns, out, out_stride);
        return;
    }
    integer_places at = *work->pack;
    for (int64_t first = 0, columns; first < work->kind->columns; first += columns) {
        at.next = next;
        columns = integer_pack(c, work->kind, &at, w, row, first);
        if (next) at.next = cg_at(c, c->i8, next, cg_i64(c, integer_columns_bytes(work->kind, first)));
        work->multiply(c, work->user, &at, first, columns, out, out_stride);
    }
}

/* Where a panel lies, or the rows that it is made of. NULL: nobody asks. */
static LLVMValueRef panel_at(cg *c, const integer_work *work, LLVMValueRef w, LLVMValueRef row) {
    if (!integer_prefetches(c, work->kind)) return NULL;
    return integer_in_place(c, work->kind) ? integer_kept(c, work->kind, w, row).panel
                                           : integer_row_at(c, work->kind, w, row);
}

/* The row with which this thread's next panel is likely to begin: threads that are as fast come in turn. NULL: nobody
 * asks. */
static LLVMValueRef next_row(cg *c, const integer_work *work, LLVMValueRef row, LLVMValueRef rows) {
    LLVMValueRef *args = c->code.args;
    /* a kernel that does not read the number of threads is not given it */
    if (!integer_prefetches(c, work->kind)) return NULL;
    LLVMValueRef last = cg_sub(c, cg_sub(c, args[work->panels->last], args[work->panels->first]), cg_i64(c, 1));
    return cg_min(c, cg_add(c, row, cg_mul(c, cg_widen(c, c->code.threads), rows)), cg_mul(c, last, rows));
}

void integer_emit_panels(cg *c, const integer_work *work) {
    const integer_panels *p = work->panels;
    LLVMValueRef *args = c->code.args, rows = cg_i64(c, integer_panel_rows(c)), w = args[p->w[0]];
    cg_pieces panels = cg_pieces_begin(c, args[p->hand], args[p->last]);
    LLVMValueRef row = cg_mul(c, cg_sub(c, panels.index, args[p->first]), rows),
                 out = cg_at(c, cg_type(c, p->out_dtype), args[p->out], row);
    LLVMValueRef next = panel_at(c, work, w, next_row(c, work, row, rows));
    if (p->weights == 1) multiply(c, work, w, row, next, out, args[p->out_stride]);
    else {
        LLVMValueRef other = args[p->w[1]];
        multiply(c, work, w, row, panel_at(c, work, other, row), work->halves[0], rows);
        multiply(c, work, other, row, next, work->halves[1], rows);
        cg_gate(c, &(cg_gated){work->halves[0], work->halves[1], args[p->x_rows], out, args[p->out_stride],
                               integer_panel_rows(c), p->out_dtype});
    }
    cg_pieces_end(c, &panels);
}
