/* Rows of a stored table widened to f32: gather, and the matrix-matrix products that stream W through a slice in the
 * cache.
 *
 * A streamed product reads W as it is stored, a slice of rows at a time, so no second copy of the weights exists and
 * nothing is prepared at load. Widening costs one pass over W for all rows of x.
 */
#include "codegen/cg.h"

#include <string.h>

/* Of a slice, per thread: it stays in the second-level cache. */
enum { SLICE_ELEMS = 80 * 1024, SLICE_GRAIN = 16 };

int64_t cg_unit_elems(rt_dtype dtype) {
    int64_t block = rt_dtype_of(dtype)->block_elems;
    return block < CG_PIECE ? CG_PIECE : block;
}

bool cg_can_widen(const ir_type *table) {
    bool whole = rt_dtype_of(table->dtype)->block_elems == 1 || table->dim[1] % cg_unit_elems(table->dtype) == 0;
    return cg_can_decode(table->dtype) && whole;
}

/* ---- gather ---- */

typedef struct gather_job {
    rt_dtype dtype;
    int64_t columns, rows;
    int table, ids, out, count;
    bool scalar; /* ids is a register */
} gather_job;

void cg_emit_decoded_row(cg *c, rt_dtype dtype, LLVMValueRef columns, LLVMValueRef row, LLVMValueRef out) {
    const rt_dtype_info *info = rt_dtype_of(dtype);
    int64_t unit = cg_unit_elems(dtype), unit_bytes = unit / info->block_elems * info->block_bytes;
    LLVMValueRef units = LLVMBuildUDiv(c->b, columns, cg_i64(c, unit), "");
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), units, 1);
    for (int sub = 0; sub < unit / CG_PIECE; sub++) {
        cg_codes codes;
        cg_decode(c, dtype, cg_at(c, c->i8, row, cg_mul(c, loop.index, cg_i64(c, unit_bytes))), sub, &codes);
        for (int p = 0; p < CG_PIECE / c->lanes; p++) {
            LLVMValueRef value = codes.part[p], scale = codes.scale[p * c->lanes >= 16],
                         minus = codes.minus[p * c->lanes >= 16];
            if (scale) value = LLVMBuildFMul(c->b, value, cg_splat(c, scale, c->lanes), "");
            if (minus) value = LLVMBuildFSub(c->b, value, cg_splat(c, minus, c->lanes), "");
            LLVMValueRef column =
                cg_add(c, cg_mul(c, loop.index, cg_i64(c, unit)), cg_i64(c, sub * CG_PIECE + p * c->lanes));
            cg_store(c, value, cg_at(c, c->f32, out, column), 4);
        }
    }
    cg_loop_end(c, &loop);
    cg_loop rest = cg_loop_begin(c, cg_mul(c, units, cg_i64(c, unit)), columns, 1); /* plain types only */
    LLVMValueRef element = LLVMBuildLoad2(c->b, cg_type(c, dtype), cg_at(c, cg_type(c, dtype), row, rest.index), "");
    if (info->block_elems == 1) cg_store(c, cg_to_f32(c, dtype, element), cg_at(c, c->f32, out, rest.index), 4);
    cg_loop_end(c, &rest);
}

static void emit_gather(cg *c, void *user) {
    gather_job *job = user;
    LLVMValueRef from, to;
    cg_share(c, c->code.args[job->count], 1, &from, &to);
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    LLVMValueRef id = c->code.args[job->ids];
    if (!job->scalar) id = cg_load(c, c->i32, cg_at(c, c->i32, id, loop.index), 4);
    id = cg_widen(c, id);
    id = cg_max(c, cg_i64(c, 0), cg_min(c, id, cg_i64(c, job->rows - 1)));
    LLVMValueRef bytes = cg_i64(c, (int64_t)rt_dtype_bytes(job->dtype, (size_t)job->columns));
    LLVMValueRef row = cg_at(c, c->i8, c->code.args[job->table], cg_mul(c, id, bytes));
    LLVMValueRef out = cg_at(c, c->f32, c->code.args[job->out], cg_mul(c, loop.index, cg_i64(c, job->columns)));
    cg_emit_decoded_row(c, job->dtype, cg_i64(c, job->columns), row, out);
    cg_loop_end(c, &loop);
}

void cg_emit_gather(cg *c, const ir_inst *inst) {
    const ir_value *table = inst->operands[0], *ids = inst->operands[1], *out = inst->results[0];
    const cg_slot *reads[] = {cg_slot_of(c, ids), cg_slot_of(c, table)}, *write = cg_slot_of(c, out);
    int64_t columns = table->type.dim[1];
    if (!cg_can_widen(&table->type)) {
        cg_unsupported(c, inst, "a table of this storage type");
        return;
    }
    cg_access(c, reads, 2, &write, 1);
    gather_job job = {
        .dtype = table->type.dtype, .columns = columns, .rows = table->type.dim[0], .scalar = ids->type.rank == 0};
    cg_kernel kernel = {.count = 0};
    LLVMValueRef count = cg_i64(c, 1);
    for (int i = 0; i < ids->type.rank; i++) count = cg_mul(c, count, cg_dim(c, ids->type.dim[i]));
    job.count = cg_kernel_arg(&kernel, count);
    job.table = cg_kernel_arg(&kernel, cg_slot_of(c, table)->base);
    job.ids = cg_kernel_arg(&kernel, job.scalar ? reads[0]->reg : reads[0]->base);
    job.out = cg_kernel_arg(&kernel, write->base);
    gm_string_printf(&kernel.key, "gather %d %lld %lld %d", job.dtype, (long long)columns, (long long)job.rows,
                     job.scalar);
    cg_kernel_call(c, &kernel, "gather", emit_gather, &job);
}

/* ---- streamed products ---- */

typedef struct stream_job {
    rt_dtype dtype;
    int64_t columns, slice;                                 /* slice: rows widened at a time */
    int w, x, x_rows, x_stride, out, out_stride, low, high; /* kernel arguments */
} stream_job;

bool cg_can_stream(const ir_inst *inst) {
    if (inst->operands[0]->type.dtype != RT_F32) return false;
    for (int i = 1; i < inst->operand_count; i++)
        if (!cg_can_widen(&inst->operands[i]->type)) return false;
    return true;
}

/* out[:, row …] = x · rowsᵀ for `count` rows that lie widened at `rows`. */
static void multiply_slice(cg *c, const stream_job *job, LLVMValueRef rows, LLVMValueRef row, LLVMValueRef count) {
    LLVMValueRef *args = c->code.args, columns = cg_i64(c, job->columns);
    LLVMValueRef call[] = {cg_i32(c, 1),
                           args[job->x_rows],
                           count,
                           columns,
                           args[job->x],
                           args[job->x_stride],
                           rows,
                           columns,
                           cg_at(c, c->f32, args[job->out], row),
                           args[job->out_stride]};
    cg_host_call(c, "rt_sgemm", c->void_t, call, 10);
}

static void emit_stream(cg *c, void *user) {
    stream_job *job = user;
    LLVMValueRef *args = c->code.args, bytes = cg_i64(c, (int64_t)rt_dtype_bytes(job->dtype, (size_t)job->columns));
    LLVMValueRef slice = cg_scratch(c, job->slice * job->columns * 4);
    cg_loop slices = cg_loop_begin(c, args[job->low], args[job->high], job->slice);
    LLVMValueRef count = cg_min(c, cg_sub(c, args[job->high], slices.index), cg_i64(c, job->slice));
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), count, 1);
    LLVMValueRef row = cg_at(c, c->i8, args[job->w], cg_mul(c, cg_add(c, slices.index, rows.index), bytes));
    cg_emit_decoded_row(c, job->dtype, cg_i64(c, job->columns), row,
                        cg_at(c, c->f32, slice, cg_mul(c, rows.index, cg_i64(c, job->columns))));
    cg_loop_end(c, &rows);
    multiply_slice(c, job, slice, slices.index, count);
    cg_loop_end(c, &slices);
}

static int64_t slice_rows(int64_t columns) {
    int64_t rows = SLICE_ELEMS / columns / SLICE_GRAIN * SLICE_GRAIN;
    return rows < SLICE_GRAIN ? SLICE_GRAIN : rows;
}

void cg_emit_stream(cg *c, const ir_inst *inst, LLVMValueRef rows, int64_t x_stride, int64_t out_stride) {
    const ir_type *x = &inst->operands[0]->type, *y = &inst->results[0]->type;
    LLVMValueRef from, to, zero = cg_i64(c, 0), out = cg_slot_of(c, inst->results[0])->base;
    int64_t start = 0;
    cg_share(c, cg_i64(c, y->dim[y->rank - 1]), SLICE_GRAIN, &from, &to);
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_type *w = &inst->operands[i]->type;
        stream_job job = {.dtype = w->dtype, .columns = x->dim[x->rank - 1], .slice = slice_rows(x->dim[x->rank - 1])};
        cg_kernel kernel = {.count = 0};
        LLVMValueRef origin = cg_i64(c, start);
        job.w = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[i])->base);
        job.x = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[0])->base);
        job.x_rows = cg_kernel_arg(&kernel, rows);
        job.x_stride = cg_kernel_arg(&kernel, cg_i64(c, x_stride));
        job.out = cg_kernel_arg(&kernel, cg_at(c, c->f32, out, origin));
        job.out_stride = cg_kernel_arg(&kernel, cg_i64(c, out_stride));
        job.low = cg_kernel_arg(&kernel, cg_max(c, cg_sub(c, from, origin), zero));
        job.high = cg_kernel_arg(&kernel, cg_min(c, cg_sub(c, to, origin), cg_i64(c, w->dim[0])));
        gm_string_printf(&kernel.key, "stream %s %lld", rt_dtype_of(w->dtype)->text, (long long)job.columns);
        char name[32] = "stream_";
        strcat(name, rt_dtype_of(w->dtype)->text);
        cg_reserve_scratch(c, job.slice * job.columns * 4);
        cg_kernel_call(c, &kernel, name, emit_stream, &job);
        start += w->dim[0];
    }
}
