/* Panels of W dealt out to the threads (deal.c), each for all rows of x: those of one weight, whose products go to the result, or of both of a
 * gate, whose products go to scratch, and what they come to goes to the result (gate.c), so that they never lie in memory.
 */
#include "codegen/integer.h"

integer_panels integer_panels_of(cg *c, const ir_inst *inst, int which, LLVMValueRef hand, int64_t origin, cg_kernel *kernel) {
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

/* A panel of the weight at w, from row `row` on. */
typedef struct panel {
    LLVMValueRef w, row;
} panel;

static void multiply(cg *c, const integer_work *work, panel p, panel next, LLVMValueRef out, LLVMValueRef out_stride) {
    if (integer_in_place(c, work->kind)) {
        integer_places kept = integer_kept(c, work->kind, p.w, p.row);
        kept.next = integer_kept(c, work->kind, next.w, next.row).panel;
        work->multiply(c, work->user, &kept, 0, work->kind->columns, out, out_stride);
        return;
    }
    for (int64_t first = 0, columns; first < work->kind->columns; first += columns) {
        columns = integer_pack(c, work->kind, work->pack, p.w, p.row, first);
        work->multiply(c, work->user, work->pack, first, columns, out, out_stride);
    }
}

/* Threads that are as fast come in turn: the panel after the next ones of the others is likely to be this thread's. */
void integer_emit_panels(cg *c, const integer_work *work) {
    const integer_panels *p = work->panels;
    LLVMValueRef *args = c->code.args, rows = cg_i64(c, integer_panel_rows(c));
    cg_pieces panels = cg_pieces_begin(c, args[p->hand], args[p->last]);
    LLVMValueRef row = cg_mul(c, cg_sub(c, panels.index, args[p->first]), rows), out = cg_at(c, cg_type(c, p->out_dtype), args[p->out], row);
    panel here = {args[p->w[0]], row}, next = here;
    if (integer_in_place(c, work->kind)) next.row = cg_add(c, row, cg_mul(c, cg_widen(c, c->code.threads), rows));
    if (p->weights == 1) multiply(c, work, here, next, out, args[p->out_stride]);
    else {
        panel other = {args[p->w[1]], row};
        multiply(c, work, here, other, work->halves[0], rows);
        multiply(c, work, other, next, work->halves[1], rows);
        cg_gate(c, &(cg_gated){work->halves[0], work->halves[1], args[p->x_rows], out, args[p->out_stride], integer_panel_rows(c), p->out_dtype});
    }
    cg_pieces_end(c, &panels);
}
