/* matmul and gated_matmul of bf16 x in tile registers: W is rounded to bf16 on its way, a panel of 32 rows at a time (integer_pack.c), which
 * all rows of x then meet (tile_product.c). No copy of W is kept. Panels are dealt out (deal.c). With a gate a panel of either weight is
 * multiplied to scratch, and what they come to goes out (gate.c).
 */
#include "codegen/integer.h"
#include "runtime/interleave.h"

#include <string.h>

enum { BF16_BITS = 16, ROW_MULTIPLE = CG_TILE_COLUMNS, MAX_WEIGHTS = 2 /* of a gate */ };

typedef struct tiles_job {
    integer_kind kind;
    int64_t x_stride, out_stride;
    int weights;        /* 2: with a gate */
    rt_dtype out_dtype;
    int w[MAX_WEIGHTS], x, x_rows, out, hand, first, last; /* kernel arguments; panels first..last of the instruction's are those of w */
} tiles_job;

/* The thread's scratch. */
typedef struct places {
    integer_places pack;
    LLVMValueRef halves[MAX_WEIGHTS]; /* of a gate: f32[rows of x][rows of the panel] */
} places;

/* Bytes of scratch; with `base`, also where things lie. */
static int64_t lay_out(cg *c, const tiles_job *job, LLVMValueRef base, places *to) {
    const integer_kind *kind = &job->kind;
    int64_t rows = integer_panel_rows(c), block = integer_block_of(kind), at = 0, half = job->weights == MAX_WEIGHTS ? kind->max_rows * rows * 4 : 0;
    bool lanes = rt_interleaved_of(kind->w);
    integer_places *out = &to->pack;
    GM_ASSERT(rows == ROW_MULTIPLE);
    struct {
        LLVMValueRef *place;
        int64_t bytes;
    } parts[] = {{&out->panel, rows * (block + INTEGER_SLACK) * 2}, {&out->codes, lanes ? 0 : rows * integer_codes_stride(kind) * 2}, {&out->floats, lanes ? 0 : block * 4},
                 {&to->halves[0], half}, {&to->halves[1], half}};
    for (size_t i = 0; i < GM_COUNT(parts); at += (parts[i++].bytes + 63) / 64 * 64)
        if (base) *parts[i].place = cg_at(c, c->i8, base, cg_i64(c, at));
    out->scales = out->units = out->minima = out->panel; /* bf16 has none */
    return at;
}

/* The rows of W `which` from `row` on, times x, to out. */
static void multiply(cg *c, const tiles_job *job, const integer_places *at, int which, LLVMValueRef row, LLVMValueRef out, int64_t out_stride) {
    LLVMValueRef *args = c->code.args;
    for (int64_t first = 0, columns; first < job->kind.columns; first += columns) {
        columns = integer_pack(c, &job->kind, at, args[job->w[which]], row, first);
        cg_tile_product product = {.a = cg_at(c, c->i16, args[job->x], cg_i64(c, first)), .rows = args[job->x_rows], .b = at->panel,
                                   .depth = cg_i64(c, columns / 2), .out = out, .a_stride = cg_i64(c, job->x_stride / 2),
                                   .out_stride = cg_i64(c, out_stride), .parts = 1, .add = first > 0};
        cg_tile_multiply(c, &product);
    }
}

/* The panels of one weight, or of both of a gate, that come to this thread. */
static void emit_panels(cg *c, void *user) {
    const tiles_job *job = user;
    LLVMValueRef *args = c->code.args;
    places at;
    lay_out(c, job, cg_scratch(c, lay_out(c, job, NULL, &at)), &at);
    cg_pieces panels = cg_pieces_begin(c, args[job->hand], args[job->last]);
    LLVMValueRef row = cg_mul(c, cg_sub(c, panels.index, args[job->first]), cg_i64(c, ROW_MULTIPLE));
    LLVMValueRef out = cg_at(c, cg_type(c, job->out_dtype), args[job->out], row);
    if (job->weights == 1) multiply(c, job, &at.pack, 0, row, out, job->out_stride);
    else {
        for (int i = 0; i < MAX_WEIGHTS; i++) multiply(c, job, &at.pack, i, row, at.halves[i], ROW_MULTIPLE);
        cg_gate(c, &(cg_gated){at.halves[0], at.halves[1], args[job->x_rows], out, cg_i64(c, job->out_stride), ROW_MULTIPLE, job->out_dtype});
    }
    cg_pieces_end(c, &panels);
}

/* Operands `which` and on are the weights. origin: the first of the result's columns. */
static void call_panels(cg *c, const ir_inst *inst, tiles_job *job, int which, LLVMValueRef rows, LLVMValueRef hand, int64_t origin) {
    cg_kernel kernel = {.count = 0};
    for (int i = 0; i < job->weights; i++) job->w[i] = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[which + i])->base);
    job->x = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[0])->base);
    job->x_rows = cg_kernel_arg(&kernel, rows);
    job->out = cg_kernel_arg(&kernel, cg_at(c, cg_type(c, job->out_dtype), cg_slot_of(c, inst->results[0])->base, cg_i64(c, origin)));
    job->hand = cg_kernel_arg(&kernel, hand);
    job->first = cg_kernel_arg(&kernel, cg_i64(c, origin / ROW_MULTIPLE));
    job->last = cg_kernel_arg(&kernel, cg_i64(c, (origin + inst->operands[which]->type.dim[0]) / ROW_MULTIPLE));
    gm_string_printf(&kernel.key, "tiles %s %d %d %lld %lld %lld %lld", rt_dtype_of(job->kind.w)->text, job->weights, job->out_dtype,
                     (long long)job->kind.columns, (long long)job->kind.max_rows, (long long)job->x_stride, (long long)job->out_stride);
    char name[40] = "tiles_";
    strcat(name, rt_dtype_of(job->kind.w)->text);
    cg_kernel_call(c, &kernel, name, emit_panels, job);
}

static bool takes(const cg *c, const ir_inst *inst, int64_t x_stride) {
    if (!c->tiles || inst->operands[0]->type.dtype != RT_BF16 || x_stride % 2) return false;
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_type *w = &inst->operands[i]->type;
        if (inst->op == IR_GATED_MATMUL && w->dtype != inst->operands[1]->type.dtype) return false;
        if (w->dim[0] % ROW_MULTIPLE || w->dim[1] % CG_TILE_DEPTH || !(rt_interleaved_of(w->dtype) || cg_can_widen(w))) return false;
    }
    return true;
}

void cg_emit_tiles(cg *c, const ir_inst *inst, LLVMValueRef rows, int64_t x_stride, int64_t out_stride) {
    const ir_type *x = &inst->operands[0]->type;
    if (!takes(c, inst, x_stride)) {
        cg_unsupported(c, inst, "a target without tile registers, x not of bf16, or weights not of whole panels");
        return;
    }
    ir_decide(c->options->decisions, "code", c->module, c->func, inst, "bf16 in tile registers (tdpbf16ps)",
              "the target has them; W is rounded on its way, panels of %d rows, blocks of %d rows of x", ROW_MULTIPLE, 2 * CG_TILE_ROWS);
    LLVMValueRef hand = cg_deal(c);
    int64_t start = 0;
    int together = inst->op == IR_GATED_MATMUL ? MAX_WEIGHTS : 1;
    for (int i = 1; i < inst->operand_count; i += together) {
        tiles_job job = {.kind = {.w = inst->operands[i]->type.dtype, .x = RT_BF16, .bits = BF16_BITS, .columns = x->dim[x->rank - 1],
                                  .max_rows = ir_type_max_elems(c->module, x) / x->dim[x->rank - 1]}, .x_stride = x_stride, .out_stride = out_stride,
                         .weights = together, .out_dtype = inst->results[0]->type.dtype};
        places at;
        cg_reserve_scratch(c, lay_out(c, &job, NULL, &at));
        call_panels(c, inst, &job, i, rows, hand, start);
        start += inst->operands[i]->type.dim[0];
    }
}
