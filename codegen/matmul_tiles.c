/* matmul and gated_matmul of bf16 x in tile registers: W is rounded to bf16 on its way, a panel of 32 rows at a time
 * (integer_pack.c), which all rows of x then meet (tile_product.c). No copy of W is kept. Panels are dealt out and
 * gates joined by integer_panels.c.
 */
#include "codegen/integer.h"
#include "runtime/interleave.h"

#include <string.h>

enum { BF16_BITS = 16, ROW_MULTIPLE = CG_TILE_COLUMNS };

typedef struct tiles_job {
    integer_kind kind;
    integer_panels panels;
    int64_t x_stride, half; /* half: bytes of scratch, of a gate */
} tiles_job;

/* The thread's scratch. */
typedef struct places {
    integer_places pack;
    LLVMValueRef halves[INTEGER_GATE_WEIGHTS]; /* integer_panels_half */
} places;

/* Bytes of scratch; with `base`, also where things lie. */
static int64_t lay_out(cg *c, const tiles_job *job, LLVMValueRef base, places *to) {
    const integer_kind *kind = &job->kind;
    int64_t rows = integer_panel_rows(c), block = integer_block_of(kind), at = 0;
    bool lanes = rt_interleaved_of(kind->w);
    integer_places *out = &to->pack;
    GM_ASSERT(rows == ROW_MULTIPLE);
    struct {
        LLVMValueRef *place;
        int64_t bytes;
    } parts[] = {{&out->panel, rows * (block + INTEGER_SLACK) * 2},
                 {&out->codes, lanes ? 0 : rows * integer_codes_stride(kind) * 2},
                 {&out->floats, lanes ? 0 : block * 4},
                 {&to->halves[0], job->half},
                 {&to->halves[1], job->half}};
    for (size_t i = 0; i < GM_COUNT(parts); at += (parts[i++].bytes + 63) / 64 * 64)
        if (base) *parts[i].place = cg_at(c, c->i8, base, cg_i64(c, at));
    out->scales = out->units = out->minima = out->panel; /* bf16 has none */
    return at;
}

static void multiply(cg *c, void *user, const integer_places *panel, int64_t first, int64_t columns, LLVMValueRef out,
                     LLVMValueRef out_stride) {
    const tiles_job *job = user;
    const integer_panels *p = &job->panels;
    LLVMValueRef *args = c->code.args;
    cg_tile_product product = {.a = cg_at(c, c->i16, args[p->x], cg_i64(c, first)),
                               .rows = args[p->x_rows],
                               .b = panel->panel,
                               .depth = cg_i64(c, columns / 2),
                               .out = out,
                               .a_stride = cg_i64(c, job->x_stride / 2),
                               .out_stride = out_stride,
                               .parts = 1,
                               .add = first > 0};
    cg_tile_multiply(c, &product);
}

static void emit_tiles(cg *c, void *user) {
    const tiles_job *job = user;
    places at;
    lay_out(c, job, cg_scratch(c, lay_out(c, job, NULL, &at)), &at);
    integer_emit_panels(c, &(integer_work){&job->panels, &job->kind, &at.pack, at.halves, multiply, user});
}

static void call_tiles(cg *c, const ir_inst *inst, tiles_job *job, int which, LLVMValueRef hand, int64_t origin) {
    cg_kernel kernel = {.count = 0};
    job->panels = integer_panels_of(c, inst, which, hand, origin, &kernel);
    gm_string_printf(&kernel.key, "tiles %s %lld %lld %lld", rt_dtype_of(job->kind.w)->text,
                     (long long)job->kind.columns, (long long)job->kind.max_rows, (long long)job->x_stride);
    char name[40] = "tiles_";
    strcat(name, rt_dtype_of(job->kind.w)->text);
    cg_kernel_call(c, &kernel, name, emit_tiles, job);
}

static bool takes(const cg *c, const ir_inst *inst, int64_t x_stride) {
    if (!c->tiles || inst->operands[0]->type.dtype != RT_BF16 || x_stride % 2) return false;
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_type *w = &inst->operands[i]->type;
        if (inst->op == IR_GATED_MATMUL && w->dtype != inst->operands[1]->type.dtype) return false;
        if (w->dim[0] % ROW_MULTIPLE || w->dim[1] % CG_TILE_DEPTH || !(rt_interleaved_of(w->dtype) || cg_can_widen(w)))
            return false;
    }
    return true;
}

void cg_emit_tiles(cg *c, const ir_inst *inst, int64_t x_stride) {
    const ir_type *x = &inst->operands[0]->type;
    if (!takes(c, inst, x_stride)) {
        cg_unsupported(c, inst, "a target without tile registers, x not of bf16, or weights not of whole panels");
        return;
    }
    ir_decide(c->options->decisions, "code", c->module, c->func, inst, "bf16 in tile registers (tdpbf16ps)",
              "the target has them; W is rounded on its way, panels of %d rows, blocks of %d rows of x", ROW_MULTIPLE,
              2 * CG_TILE_ROWS);
    LLVMValueRef hand = cg_deal(c);
    int64_t start = 0;
    for (int i = 1; i < inst->operand_count; i += integer_panels_together(inst)) {
        tiles_job job = {.kind = {.w = inst->operands[i]->type.dtype,
                                  .x = RT_BF16,
                                  .bits = BF16_BITS,
                                  .columns = x->dim[x->rank - 1],
                                  .max_rows = ir_type_max_rows(c->module, x)},
                         .x_stride = x_stride};
        places at;
        job.half = integer_panels_half(c, inst, job.kind.max_rows);
        cg_reserve_scratch(c, lay_out(c, &job, NULL, &at));
        call_tiles(c, inst, &job, i, hand, start);
        start += inst->operands[i]->type.dim[0];
    }
}
