/* matmul: the choice of code by `impl`, the compiled matrix-vector kernels (gemv, int16) on stored blocks, and the call
 * of packed products in the runtime. Streamed products are in widen.c, those in tile registers in matmul_tiles.c.
 *
 * A gemv kernel computes a range of rows of W·x. For each 32-element piece it forms Σ code·x in vector lanes and adds
 * scale · that to the row's accumulator, so that the scale costs one multiply per vector of sums; types with a minimum
 * subtract minus · Σx, with the sums of x made once per call.
 */
#include "codegen/cg.h"
#include "runtime/interleave.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHAINS = 2, UNROLL_ELEMS = 256 };

typedef struct gemv_job {
    cg_dot dot;
    int64_t out_stride; /* between rows */
    int out, low, high; /* kernel arguments */
} gemv_job;

/* Elements that share a minimum, at most a piece; 0: the type has none. */
static int minimum_elems(rt_dtype dtype) {
    const rt_codes *codes = rt_codes_of(dtype);
    return codes && codes->minima ? codes->run : 0;
}

static LLVMTypeRef lanes_type(cg *c) {
    return LLVMVectorType(c->f32, (unsigned)c->lanes);
}

static LLVMValueRef load_x(cg *c, LLVMValueRef x, LLVMValueRef column, int p) {
    return cg_load(c, lanes_type(c), cg_at(c, c->f32, x, cg_add(c, column, cg_i64(c, p * c->lanes))), 4);
}

/* sums[i] = Σ x of the columns that share minimum i of a row, at `scratch`. */
static void emit_sums(cg *c, cg_dot *job, LLVMValueRef scratch) {
    int elems = minimum_elems(job->dtype);
    job->sums = scratch;
    LLVMValueRef count = cg_mul(c, c->code.args[job->units], cg_i64(c, cg_unit_elems(job->dtype) / elems));
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), count, 1);
    LLVMValueRef column = cg_mul(c, loop.index, cg_i64(c, elems)), total = load_x(c, c->code.args[job->x], column, 0);
    for (int p = 1; p < elems / c->lanes; p++)
        total = LLVMBuildFAdd(c->b, total, load_x(c, c->code.args[job->x], column, p), "");
    cg_store(c, cg_sum_lanes(c, total), cg_at(c, c->f32, job->sums, loop.index), 4);
    cg_loop_end(c, &loop);
}

/* acc + Σ over one piece of decoded codes. */
static LLVMValueRef accumulate(cg *c, const cg_codes *codes, LLVMValueRef const *x, LLVMValueRef acc) {
    int parts = CG_PIECE / c->lanes, half = parts / 2;
    if (!codes->scale[0]) {
        for (int p = 0; p < parts; p++) acc = cg_fma(c, codes->part[p], x[p], acc);
        return acc;
    }
    bool split = codes->scale[0] != codes->scale[1];
    for (int h = 0; h < (split ? 2 : 1); h++) {
        int from = split ? h * half : 0, to = split ? from + half : parts;
        LLVMValueRef sum = LLVMBuildFMul(c->b, codes->part[from], x[from], "");
        for (int p = from + 1; p < to; p++) sum = cg_fma(c, codes->part[p], x[p], sum);
        acc = cg_fma(c, cg_splat(c, codes->scale[h], c->lanes), sum, acc);
    }
    return acc;
}

/* One row's sums while its units are gone through: vector accumulators used in turn, and the minimum's share. */
typedef struct row_sums {
    LLVMValueRef row, ahead;       /* first byte; of what to ask for */
    LLVMValueRef acc[CHAINS], low; /* variables; low NULL: no minimum */
} row_sums;

/* The pieces of unit `unit`, added to the accumulators. */
static void emit_unit(cg *c, const cg_dot *job, row_sums *sums, LLVMValueRef unit, int *turn) {
    const rt_dtype_info *info = rt_dtype_of(job->dtype);
    int64_t elems = cg_unit_elems(job->dtype), bytes = elems / info->block_elems * info->block_bytes;
    LLVMValueRef start = cg_mul(c, unit, cg_i64(c, bytes));
    for (int64_t line = 0; line < bytes; line += 64)
        cg_prefetch(c, cg_at(c, c->i8, sums->ahead, cg_add(c, start, cg_i64(c, line))));
    for (int sub = 0; sub < elems / CG_PIECE; sub++, ++*turn) {
        LLVMValueRef column = cg_add(c, cg_mul(c, unit, cg_i64(c, elems)), cg_i64(c, sub * CG_PIECE)), x[8];
        LLVMValueRef acc = sums->acc[*turn % CHAINS];
        cg_codes codes;
        for (int p = 0; p < CG_PIECE / c->lanes; p++) x[p] = load_x(c, c->code.args[job->x], column, p);
        cg_decode(c, job->dtype, cg_at(c, c->i8, sums->row, start), sub, &codes);
        LLVMBuildStore(c->b, accumulate(c, &codes, x, LLVMBuildLoad2(c->b, lanes_type(c), acc, "")), acc);
        int minima = job->sums ? CG_PIECE / minimum_elems(job->dtype) : 0;
        for (int h = 0; h < minima; h++) {
            LLVMValueRef at =
                cg_add(c, cg_mul(c, unit, cg_i64(c, elems / CG_PIECE * minima)), cg_i64(c, sub * minima + h));
            LLVMValueRef sum = cg_load(c, c->f32, cg_at(c, c->f32, job->sums, at), 4);
            LLVMBuildStore(c->b, cg_fma(c, codes.minus[h], sum, LLVMBuildLoad2(c->b, c->f32, sums->low, "")),
                           sums->low);
        }
    }
}

/* One row at a time: reading W as a single stream suits the prefetchers best. */
LLVMValueRef cg_dot_row(cg *c, const cg_dot *job, LLVMValueRef index) {
    LLVMValueRef y = NULL;
    GM_ASSERT(job->rows == 1);
    if (job->in_int16) {
        cg_int_row(c, job, index, &y);
        return y;
    }
    const rt_dtype_info *info = rt_dtype_of(job->dtype);
    int64_t elems = cg_unit_elems(job->dtype), bytes = elems / info->block_elems * info->block_bytes,
            unroll = UNROLL_ELEMS / elems;
    LLVMValueRef units = c->code.args[job->units], zero = LLVMConstNull(lanes_type(c));
    row_sums sums = {.row =
                         cg_at(c, c->i8, c->code.args[job->w], cg_mul(c, index, cg_mul(c, units, cg_i64(c, bytes))))};
    sums.ahead = job->next ? job->next : cg_at(c, c->i8, sums.row, cg_i64(c, c->ahead));
    for (int i = 0; i < CHAINS; i++) sums.acc[i] = cg_variable(c, lanes_type(c), zero);
    if (job->sums) sums.low = cg_variable(c, c->f32, cg_f32(c, 0));
    LLVMValueRef whole = cg_mul(c, LLVMBuildUDiv(c->b, units, cg_i64(c, unroll), ""), cg_i64(c, unroll));
    int turn = 0;
    cg_loop many = cg_loop_begin(c, cg_i64(c, 0), whole, unroll);
    for (int i = 0; i < unroll; i++) emit_unit(c, job, &sums, cg_add(c, many.index, cg_i64(c, i)), &turn);
    cg_loop_end(c, &many);
    cg_loop rest = cg_loop_begin(c, whole, unroll > 1 ? units : whole, 1);
    emit_unit(c, job, &sums, rest.index, &turn);
    cg_loop_end(c, &rest);
    LLVMValueRef total = LLVMBuildLoad2(c->b, lanes_type(c), sums.acc[0], "");
    for (int i = 1; i < CHAINS; i++)
        total = LLVMBuildFAdd(c->b, total, LLVMBuildLoad2(c->b, lanes_type(c), sums.acc[i], ""), "");
    y = cg_sum_lanes(c, total);
    if (sums.low) y = LLVMBuildFSub(c->b, y, LLVMBuildLoad2(c->b, c->f32, sums.low, ""), "");
    return y;
}

/* Bytes of scratch: for x in integers, or for Σx per minimum. */
static int64_t vnni(const cg_dot *dot) {
    if (rt_interleaved_of(dot->dtype)) return dot->rows * cg_rows_x_bytes(dot->columns);
    if (dot->in_int16) return dot->rows * cg_int_x_bytes(dot->columns);
    return minimum_elems(dot->dtype) ? dot->columns / minimum_elems(dot->dtype) * 4 : 0;
}

void cg_dot_args(cg *c, cg_dot *dot, cg_kernel *kernel, LLVMValueRef w, LLVMValueRef x) {
    dot->w = cg_kernel_arg(kernel, w);
    dot->x = cg_kernel_arg(kernel, x);
    dot->units = cg_kernel_arg(kernel, cg_i64(c, dot->columns / cg_unit_elems(dot->dtype)));
    cg_reserve_scratch(c, vnni(dot));
}

void cg_dot_begin(cg *c, cg_dot *dot) {
    if (!vnni(dot)) return;
    LLVMValueRef scratch = cg_scratch(c, vnni(dot));
    if (rt_interleaved_of(dot->dtype)) cg_rows_x(c, dot, scratch);
    else if (dot->in_int16) cg_int_x(c, dot, scratch);
    else emit_sums(c, dot, scratch);
}

/* Rows [low, high) of W, a group of interleaved rows at a time: both are multiples of a group's rows. low >= high where
 * this thread has no rows of this weight. */
static void emit_rows(cg *c, void *user) {
    gemv_job *job = user;
    LLVMValueRef rows = cg_i64(c, RT_INTERLEAVED_ROWS), y[RT_FEW_ROWS][CG_ROWS_VECTORS];
    cg_dot_begin(c, &job->dot);
    cg_loop loop = cg_loop_begin(c, LLVMBuildSDiv(c->b, c->code.args[job->low], rows, ""),
                                 LLVMBuildSDiv(c->b, c->code.args[job->high], rows, ""), 1);
    cg_rows_group(c, &job->dot, loop.index, y);
    for (int r = 0; r < job->dot.rows; r++)
        for (int p = 0; p < RT_INTERLEAVED_ROWS / c->lanes; p++) {
            LLVMValueRef at = cg_add(c, cg_mul(c, loop.index, rows), cg_i64(c, r * job->out_stride + p * c->lanes));
            cg_store(c, y[r][p], cg_at(c, c->f32, c->code.args[job->out], at), 4);
        }
    cg_loop_end(c, &loop);
}

static void emit_gemv(cg *c, void *user) {
    gemv_job *job = user;
    cg_dot_begin(c, &job->dot);
    cg_loop loop = cg_loop_begin(c, c->code.args[job->low], c->code.args[job->high], 1);
    LLVMValueRef y[RT_FEW_ROWS], at = cg_at(c, c->f32, c->code.args[job->out], loop.index);
    if (job->dot.rows == 1) y[0] = cg_dot_row(c, &job->dot, loop.index);
    else cg_int_row(c, &job->dot, loop.index, y);
    for (int r = 0; r < job->dot.rows; r++) cg_store(c, y[r], cg_at(c, c->f32, at, cg_i64(c, r * job->out_stride)), 4);
    cg_loop_end(c, &loop);
}

/* ---- the instruction ---- */

/* Rows of x and of the result. */
typedef struct gemv_rows {
    int count;
    LLVMValueRef x, out;
    int64_t x_stride, out_stride;
} gemv_rows;

/* out[origin + i] = w[i]·x for this thread's rows i of w: those with from <= origin + i < to, where origin is the
 * number of rows that the weights before w have. */
static void gemv_call(cg *c, const ir_inst *inst, const ir_value *w, bool int16, const gemv_rows *rows, int64_t origin,
                      LLVMValueRef from, LLVMValueRef to) {
    bool interleaved = rt_interleaved_of(w->type.dtype),
         integers = interleaved || (int16 && cg_can_dot_int(c, w->type.dtype));
    gemv_job job = {.dot = {.dtype = w->type.dtype,
                            .columns = w->type.dim[1],
                            .in_int16 = integers,
                            .rows = rows->count,
                            .x_stride = rows->x_stride},
                    .out_stride = rows->out_stride};
    cg_kernel kernel = {.count = 0};
    LLVMValueRef start = cg_i64(c, origin), zero = cg_i64(c, 0);
    cg_dot_args(c, &job.dot, &kernel, cg_slot_of(c, w)->base, rows->x);
    job.out = cg_kernel_arg(&kernel, cg_at(c, c->f32, rows->out, start));
    job.low = cg_kernel_arg(&kernel, cg_max(c, cg_sub(c, from, start), zero));
    job.high = cg_kernel_arg(&kernel, cg_min(c, cg_sub(c, to, start), cg_i64(c, w->type.dim[0])));
    char name[32];
    snprintf(name, sizeof name, "%s_%s", integers ? "gemv_int16" : "gemv", rt_dtype_of(w->type.dtype)->text);
    gm_string_printf(&kernel.key, "%s", name);
    if (integers)
        ir_decide(c->options->decisions, "code", c->module, c->func, inst, name,
                  "vectors of %d lanes multiply int16 with this type", c->lanes);
    else if (int16)
        ir_decide(c->options->decisions, "code", c->module, c->func, inst, name,
                  "no kernel for int16 with this type in vectors of %d lanes", c->lanes);
    if (rows->count > 1)
        gm_string_printf(&kernel.key, " %d %lld %lld", rows->count, (long long)rows->x_stride,
                         (long long)rows->out_stride);
    cg_kernel_call(c, &kernel, name, interleaved ? emit_rows : emit_gemv, &job);
}

/* How many rows of x one reading of W serves: all of them when they are at most RT_FEW_ROWS, a number; else 1. */
static int rows_at_once(cg *c, const ir_type *x) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < x->rank; i++) {
        if (ir_dim_is_symbol(x->dim[i]) || x->dim[i] > RT_FEW_ROWS) return 1;
        rows *= x->dim[i];
    }
    return rows > 0 && rows <= RT_FEW_ROWS ? (int)rows : 1;
}

/* This thread's rows of all weights in order. A row of W meets several rows of x at once where x is in integers. */
static void emit_gemvs(cg *c, const ir_inst *inst, bool int16, LLVMValueRef count, const gemv_rows *rows) {
    int64_t start = 0, total = inst->results[0]->type.dim[inst->results[0]->type.rank - 1];
    LLVMValueRef from, to;
    cg_share(c, cg_i64(c, total), 16, &from, &to);
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_value *w = inst->operands[i];
        gemv_rows part = *rows;
        if (!rt_interleaved_of(w->type.dtype) && (!int16 || !cg_can_dot_int(c, w->type.dtype))) part.count = 1;
        cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), count, part.count);
        part.x = cg_at(c, c->f32, rows->x, cg_mul(c, loop.index, cg_i64(c, rows->x_stride)));
        part.out = cg_at(c, c->f32, rows->out, cg_mul(c, loop.index, cg_i64(c, rows->out_stride)));
        gemv_call(c, inst, w, int16, &part, start, from, to);
        cg_loop_end(c, &loop);
        start += w->type.dim[0];
    }
}

/* The first unused site of the program's table, which grows; the caller counts it in site_count. */
static rt_site *next_site(cg *c) {
    cg_program *program = c->program;
    GM_ASSERT(program->site_count < CG_MAX_SITES);
    if (program->site_count == c->site_capacity) {
        c->site_capacity = c->site_capacity ? 2 * c->site_capacity : 16;
        program->sites = realloc(program->sites, sizeof *program->sites * (size_t)c->site_capacity);
        GM_ASSERT(program->sites);
    }
    return &program->sites[program->site_count];
}

_Static_assert((int)RT_SITE_WEIGHTS == (int)IR_MAX_WEIGHTS, "a site holds all weights of a product");

/* A site for the weights of iteration `layer`, which only layer_weights mind. */
static int site_new(cg *c, const ir_inst *inst, int64_t x_stride, int64_t out_stride, int64_t layer) {
    rt_site *site = next_site(c);
    const ir_type *x = &inst->operands[0]->type;
    *site = (rt_site){.columns = x->dim[x->rank - 1],
                      .bf16 = x->dtype == RT_BF16,
                      .max_rows = ir_type_max_rows(c->module, x),
                      .x_stride = x_stride,
                      .out_stride = out_stride};
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_inst *def = inst->operands[i]->def;
        char name[IR_NAME_BYTES];
        if (!def || layer >= ir_stored_count(def)) return -1;
        site->weights[site->weight_count] = cg_weight_number(c->program, ir_stored_name(def, layer, name));
        site->dtypes[site->weight_count] = inst->operands[i]->type.dtype;
        site->rows[site->weight_count++] = inst->operands[i]->type.dim[0];
    }
    return c->program->site_count++;
}

/* One site for each tensor that the weights stand for, one after the other. Returns i64: the number of the site to run,
 * which a layer_weight's index selects. NULL: W is not stored weights, or they do not share one index. */
static LLVMValueRef sites_new(cg *c, const ir_inst *inst, int64_t x_stride, int64_t out_stride) {
    const ir_inst *first = inst->operands[1]->def;
    int64_t layers = first ? ir_stored_count(first) : 0;
    int site = -1;
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_inst *def = inst->operands[i]->def;
        if (!def || ir_stored_count(def) != layers || (layers > 1 && def->operands[0] != first->operands[0]))
            return NULL;
    }
    for (int64_t i = 0; i < layers; i++) {
        int at = site_new(c, inst, x_stride, out_stride, i);
        if (at < 0) return NULL;
        if (i == 0) site = at;
    }
    if (layers <= 1) return layers ? cg_i64(c, site) : NULL;
    return cg_add(c, cg_i64(c, site), cg_widen(c, cg_slot_of(c, first->operands[0])->reg));
}

static bool all_stored(cg *c, const ir_inst *inst) {
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_type *w = &inst->operands[i]->type;
        if (!(cg_can_decode(w->dtype) || rt_interleaved_of(w->dtype)) || w->dim[1] % cg_unit_elems(w->dtype))
            return false;
    }
    return true;
}

void cg_emit_matmul(cg *c, const ir_inst *inst) {
    const ir_value *x = inst->operands[0], *y = inst->results[0];
    const cg_slot *in = cg_slot_of(c, x), *out = cg_slot_of(c, y);
    int64_t in_stride, out_stride;
    bool tiles = ir_attr_is(inst, IR_ATTR_IMPL, "tiles"), int16 = ir_attr_is(inst, IR_ATTR_IMPL, "gemv_int16"),
         gemv = int16 || ir_attr_is(inst, IR_ATTR_IMPL, "gemv");
    const cg_slot *reads[1 + IR_MAX_WEIGHTS], *writes[] = {out, &cg_dealt};
    for (int i = 0; i < inst->operand_count; i++) reads[i] = cg_slot_of(c, inst->operands[i]);
    cg_access(c, reads, inst->operand_count, writes, tiles ? 2 : 1);
    if (!ir_layout_matrix(&x->type, &in->layout, &in_stride) ||
        !ir_layout_matrix(&y->type, &out->layout, &out_stride)) {
        cg_unsupported(c, inst, "rows of x at varying distances");
        return;
    }
    if (tiles) {
        cg_emit_tiles(c, inst, in_stride);
        return;
    }
    LLVMValueRef rows = cg_leading_rows(c, &x->type);
    if (gemv && x->type.dtype == RT_F32 && all_stored(c, inst)) {
        emit_gemvs(c, inst, int16, rows,
                   &(gemv_rows){rows_at_once(c, &x->type), in->base, out->base, in_stride, out_stride});
        return;
    }
    bool packed = ir_attr_is(inst, IR_ATTR_IMPL, "packed");
    if (!packed && cg_can_stream(inst)) {
        ir_decide(c->options->decisions, "code", c->module, c->func, inst, "stream",
                  "compiled code widens slices of W in every thread, oneDNN multiplies them");
        cg_emit_stream(c, inst, rows, in_stride, out_stride);
        return;
    }
    LLVMValueRef site = sites_new(c, inst, in_stride, out_stride);
    if (!site) {
        cg_unsupported(c, inst, "a matrix that is not a stored weight");
        return;
    }
    ir_decide(c->options->decisions, "code", c->module, c->func, inst,
              packed ? "oneDNN, packed once" : "oneDNN, W widened by the runtime",
              packed ? "impl is packed" : "no compiled code for this layout or type of W");
    LLVMValueRef args[] = {c->code.frame, site, c->code.thread, in->base, rows, out->base};
    cg_host_call(c, "rt_matmul_run", c->void_t, args, 6);
}
