/* Element-wise operations, reductions, rotations, fused groups, iota and copies: one loop nest over the rows of a row
 * space.
 *
 * The row space is a shape [d0, …, dn-1]; its rows (all axes but the last) are shared out between the threads. Within a
 * row each reduction is a loop over the columns that recomputes its operand from the inputs, and one last loop writes
 * the outputs; cheap arithmetic is done twice rather than kept in memory. A rotated row is kept, in the thread's
 * scratch.
 */
#include "codegen/cg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INPUTS = 32, MAX_OUTPUTS = 16, SPLIT_ROWS = 4, COLUMN_GRAIN = 64, SIDES = 2, LINE = 64 /* bytes */ };

typedef struct row_input {
    const ir_value *value; /* in the body's terms */
    int arg;
    bool reg;
    int64_t stride[IR_MAX_RANK]; /* aligned to the space */
} row_input;

typedef struct row_output {
    const ir_value *value;
    int arg;
    rt_dtype dtype;
    bool full; /* has a column per column of the space */
    int64_t stride[IR_MAX_RANK];
    int ring_axis, ring_start; /* the axis whose indices wrap around, -1: none; the argument with its first slot */
    int64_t ring_slots;
} row_output;

typedef struct row_job {
    int rank;
    ir_dim dim[IR_MAX_RANK];
    row_input inputs[MAX_INPUTS];
    int input_count;
    row_output outputs[MAX_OUTPUTS];
    int output_count;
    ir_inst *const *insts; /* the body, in order */
    int inst_count;
    bool reduces, swaps; /* swaps: some value is read with its halves swapped */
    int rotations;       /* rotated rows of a row, which lie one after the other … */
    int scratch;         /* … in this argument */
    uint32_t id_limit;
    /* while emitting */
    LLVMValueRef *row_value; /* by value id: what holds for the whole row */
    LLVMValueRef *rotated;   /* by value id: where the rotated row lies */
    int rotated_count;       /* so far */
    /* by value id: memos of the current column, and of the same one of the row's other half */
    LLVMValueRef *column_value[SIDES];
    LLVMValueRef column[SIDES];
    LLVMValueRef index[IR_MAX_RANK];
    LLVMValueRef input_row[MAX_INPUTS];
} row_job;

/* ---- describing the job ---- */

static const row_input *input_of(const row_job *job, const ir_value *value) {
    for (int i = 0; i < job->input_count; i++)
        if (job->inputs[i].value == value) return &job->inputs[i];
    return NULL;
}

static void align_strides(const row_job *job, const ir_type *type, const ir_layout *layout, int64_t *out) {
    memset(out, 0, sizeof(int64_t) * IR_MAX_RANK);
    for (int i = 0; i < type->rank; i++)
        if (type->dim[i] != 1) out[job->rank - type->rank + i] = layout->stride[i];
}

static void key_dims(gm_string *key, const ir_dim *dims, int rank) {
    for (int i = 0; i < rank; i++) gm_string_printf(key, "%lld,", (long long)dims[i]);
}

/* A leading extent that spans the space counts as the job's: 1 where leading_begin loops over that axis. */
static void key_type(const row_job *job, gm_string *key, const ir_type *type) {
    bool whole = type->rank == job->rank && type->dim[0] != 1;
    gm_string_printf(key, ":%d/%d", type->dtype, type->rank);
    if (type->rank) gm_string_printf(key, "%lld,", (long long)(whole ? job->dim[0] : type->dim[0]));
    key_dims(key, type->dim + 1, type->rank - 1);
}

static void key_inst(const row_job *job, gm_string *key, const ir_inst *inst) {
    gm_string_printf(key, ";%u=%s", inst->results[0]->id, ir_op_of(inst->op)->text);
    for (int i = 0; i < inst->operand_count; i++) gm_string_printf(key, " %u", inst->operands[i]->id);
    for (int i = 0; i < inst->attr_count; i++) {
        const ir_attr *a = &inst->attrs[i];
        if (a->key == IR_ATTR_OFFSET) continue;
        gm_string_printf(key, " %d:%lld:%a", a->key, (long long)a->i, a->f);
        for (size_t k = 0; a->floats && k < a->n; k++) gm_string_printf(key, " %a", a->floats[k]);
    }
    key_type(job, key, &inst->results[0]->type);
}

/* Value ids differ between instructions of the same shape: number them from the first one seen. */
typedef struct renumber {
    uint32_t *map;
    uint32_t next;
} renumber;

static void add_input(cg *c, row_job *job, cg_kernel *kernel, const ir_value *inner, const ir_value *outer) {
    GM_ASSERT(job->input_count < MAX_INPUTS);
    row_input *input = &job->inputs[job->input_count++];
    const cg_slot *slot = cg_slot_of(c, outer);
    *input = (row_input){.value = inner, .reg = outer->type.rank == 0};
    input->arg = cg_kernel_arg(kernel, input->reg ? slot->reg : slot->base);
    if (!input->reg) align_strides(job, &outer->type, &slot->layout, input->stride);
}

static void add_output(row_job *job, cg_kernel *kernel, const ir_value *inner, const ir_type *type,
                       const cg_slot *slot) {
    GM_ASSERT(job->output_count < MAX_OUTPUTS);
    row_output *output = &job->outputs[job->output_count++];
    *output =
        (row_output){.value = inner, .dtype = type->dtype, .arg = cg_kernel_arg(kernel, slot->base), .ring_axis = -1};
    align_strides(job, type, &slot->layout, output->stride);
    output->full = type->rank > 0 && type->dim[type->rank - 1] == job->dim[job->rank - 1];
}

static uint32_t renumbered(renumber *r, uint32_t id) {
    if (!r->map[id]) r->map[id] = ++r->next;
    return r->map[id];
}

static void make_key(cg *c, const row_job *job, gm_string *key) {
    renumber r = {calloc(job->id_limit + 1, sizeof(uint32_t)), 0};
    GM_ASSERT(r.map);
    gm_string_printf(key, "rows %d:", job->rank);
    key_dims(key, job->dim, job->rank);
    for (int i = 0; i < job->input_count; i++) {
        const row_input *input = &job->inputs[i];
        gm_string_printf(key, "|%u %d %d ", renumbered(&r, input->value->id), input->reg, input->value->type.dtype);
        key_dims(key, input->stride, job->rank);
    }
    for (int i = 0; i < job->inst_count; i++) {
        ir_inst copy = *job->insts[i];
        ir_value *operands[16], values[17], *result = &values[16];
        for (int k = 0; k < copy.operand_count; k++) {
            values[k] = *copy.operands[k];
            values[k].id = renumbered(&r, values[k].id);
            operands[k] = &values[k];
        }
        values[16] = *copy.results[0];
        values[16].id = renumbered(&r, values[16].id);
        copy.operands = operands;
        copy.results = &result;
        key_inst(job, key, &copy);
    }
    for (int i = 0; i < job->output_count; i++) {
        const row_output *output = &job->outputs[i];
        gm_string_printf(key, ">%u %d %d %d/%lld ", renumbered(&r, output->value->id), output->dtype, output->full,
                         output->ring_axis, (long long)output->ring_slots);
        key_dims(key, output->stride, job->rank);
    }
    free(r.map);
}

/* ---- emission ---- */

static LLVMValueRef value_at(cg *c, row_job *job, const ir_value *value, int side);

static LLVMValueRef load_input(cg *c, row_job *job, const row_input *input, LLVMValueRef column) {
    rt_dtype dtype = input->value->type.dtype;
    int64_t step = input->stride[job->rank - 1];
    int at = (int)(input - job->inputs);
    LLVMValueRef pointer = job->input_row[at];
    if (step && column) pointer = cg_at(c, cg_type(c, dtype), pointer, cg_mul(c, column, cg_i64(c, step)));
    LLVMValueRef loaded = LLVMBuildLoad2(c->b, cg_type(c, dtype), pointer, "");
    return cg_from_memory(c, dtype, loaded);
}

static LLVMValueRef const_at(cg *c, const ir_inst *inst) {
    const ir_type *type = &inst->results[0]->type;
    const ir_attr *value = ir_attr_find(inst, IR_ATTR_VALUE);
    GM_ASSERT(value && "a list constant is an input, not part of a body");
    return cg_from_memory(c, type->dtype, cg_const_element(c, type->dtype, value));
}

static LLVMValueRef iota_at(cg *c, const row_job *job, const ir_inst *inst, LLVMValueRef column) {
    const ir_type *type = &inst->results[0]->type;
    int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0) + job->rank - type->rank;
    LLVMValueRef index = axis == job->rank - 1 ? column : job->index[axis];
    return LLVMBuildTrunc(c->b, index, c->i32, "");
}

static LLVMValueRef inst_at(cg *c, row_job *job, const ir_inst *inst, int side) {
    if (inst->op == IR_CONST) return const_at(c, inst);
    if (inst->op == IR_IOTA) return iota_at(c, job, inst, job->column[side]);
    if (inst->op == IR_SWAP_HALVES) return value_at(c, job, inst->operands[0], 1 - side);
    if (inst->op == IR_ROTATE)
        return cg_load(c, c->f32, cg_at(c, c->f32, job->rotated[inst->results[0]->id], job->column[side]), 4);
    LLVMValueRef operands[4];
    for (int i = 0; i < inst->operand_count; i++) operands[i] = value_at(c, job, inst->operands[i], side);
    return cg_elem(c, inst, operands);
}

static LLVMValueRef value_at(cg *c, row_job *job, const ir_value *value, int side) {
    if (job->row_value[value->id]) return job->row_value[value->id];
    LLVMValueRef *memo = &job->column_value[side][value->id];
    if (*memo) return *memo;
    const row_input *input = input_of(job, value);
    if (input) return *memo = load_input(c, job, input, job->column[side]);
    GM_ASSERT(value->def);
    return *memo = inst_at(c, job, value->def, side);
}

static void enter_column(row_job *job, LLVMValueRef column, LLVMValueRef other) {
    job->column[0] = column;
    job->column[1] = other;
    for (int i = 0; i < SIDES; i++) memset(job->column_value[i], 0, sizeof *job->column_value[i] * job->id_limit);
}

/* ---- columns ---- */

typedef void (*column_fn)(cg *c, row_job *job, void *user);

/* A loop over the columns [from, to). apart: the distance from a column to its partner in the other half; 0: the body
 * has no swap_halves. */
static void column_loop(cg *c, row_job *job, LLVMValueRef from, LLVMValueRef to, int64_t apart, column_fn emit,
                        void *user) {
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    enter_column(job, loop.index, apart ? cg_add(c, loop.index, cg_i64(c, apart)) : NULL);
    emit(c, job, user);
    cg_loop_end(c, &loop);
    enter_column(job, NULL, NULL);
}

/* Where halves are swapped each half has its loop, in which the other half is a constant away. */
static void each_column(cg *c, row_job *job, LLVMValueRef from, LLVMValueRef to, column_fn emit, void *user) {
    if (!job->swaps) {
        column_loop(c, job, from, to, 0, emit, user);
        return;
    }
    int64_t half = job->dim[job->rank - 1] / 2;
    column_loop(c, job, from, cg_min(c, to, cg_i64(c, half)), half, emit, user);
    column_loop(c, job, cg_max(c, from, cg_i64(c, half)), to, -half, emit, user);
}

static LLVMValueRef reduce_start(cg *c, const ir_inst *inst) {
    rt_dtype dtype = inst->operands[0]->type.dtype;
    bool sum = inst->op == IR_REDUCE_SUM;
    if (dtype == RT_F32) return sum ? cg_f32(c, -0.0) : LLVMConstReal(c->f32, -INFINITY);
    if (dtype == RT_BOOL) return LLVMConstInt(c->i1, 0, 0);
    return cg_i32(c, sum ? 0 : INT32_MIN);
}

static LLVMValueRef reduce_step(cg *c, const ir_inst *inst, LLVMValueRef so_far, LLVMValueRef x) {
    rt_dtype dtype = inst->operands[0]->type.dtype;
    bool sum = inst->op == IR_REDUCE_SUM;
    if (dtype == RT_BOOL) return LLVMBuildOr(c->b, so_far, x, "");
    if (dtype == RT_I32) return sum ? cg_add(c, so_far, x) : cg_max(c, so_far, x);
    if (!sum) {
        /* As one instruction: LLVM merges a comparison with a choice that x is made of, and then takes the loop for no
         * reduction. It may not be given NaN, which never is the largest. */
        LLVMValueRef number = LLVMBuildFCmp(c->b, LLVMRealORD, x, x, "");
        x = LLVMBuildSelect(c->b, number, x, LLVMConstReal(c->f32, -INFINITY), "");
        LLVMValueRef larger = cg_intrinsic(c, "llvm.maxnum", c->f32, (LLVMValueRef[]){so_far, x}, 2);
        LLVMSetFastMathFlags(larger, LLVMFastMathNoSignedZeros | LLVMFastMathNoNaNs);
        return larger;
    }
    LLVMValueRef added = LLVMBuildFAdd(c->b, so_far, x, "");
    LLVMSetFastMathFlags(added, LLVMFastMathAllowReassoc | LLVMFastMathNoSignedZeros);
    return added;
}

typedef struct reduction {
    const ir_inst *inst;
    LLVMTypeRef type;
    LLVMValueRef total; /* variable */
} reduction;

static void reduce_column(cg *c, row_job *job, void *user) {
    const reduction *r = user;
    LLVMValueRef x = value_at(c, job, r->inst->operands[0], 0);
    LLVMBuildStore(c->b, reduce_step(c, r->inst, LLVMBuildLoad2(c->b, r->type, r->total, ""), x), r->total);
}

/* The reduction over this row's columns, left in row_value. */
static void emit_reduction(cg *c, row_job *job, const ir_inst *inst) {
    reduction r = {.inst = inst, .type = cg_reg_type(c, inst->results[0]->type.dtype)};
    r.total = cg_variable(c, r.type, reduce_start(c, inst));
    each_column(c, job, cg_i64(c, 0), cg_dim(c, job->dim[job->rank - 1]), reduce_column, &r);
    job->row_value[inst->results[0]->id] = LLVMBuildLoad2(c->b, r.type, r.total, "");
}

/* Where the row of an f32 value lies, if it is an input with its columns side by side; else NULL. */
static LLVMValueRef row_in_memory(const row_job *job, const ir_value *x) {
    const row_input *input = input_of(job, x);
    return input && input->stride[job->rank - 1] == 1 ? job->input_row[input - job->inputs] : NULL;
}

typedef struct kept_row {
    const ir_value *value;
    LLVMValueRef floats;
} kept_row;

static void keep_column(cg *c, row_job *job, void *user) {
    const kept_row *row = user;
    cg_store(c, value_at(c, job, row->value, 0), cg_at(c, c->f32, row->floats, job->column[0]), 4);
}

/* Bytes from one rotated row in the scratch to the next. */
static int64_t rotated_bytes(int64_t columns) {
    return (columns * (int64_t)sizeof(float) + LINE - 1) / LINE * LINE;
}

/* The rotated row, in its place of the scratch; where the operand is no row in memory, it is computed there first. */
static void emit_rotation(cg *c, row_job *job, const ir_inst *inst) {
    int64_t columns = job->dim[job->rank - 1];
    LLVMValueRef from = row_in_memory(job, inst->operands[0]);
    LLVMValueRef to =
        cg_at(c, c->i8, c->code.args[job->scratch], cg_i64(c, job->rotated_count++ * rotated_bytes(columns)));
    if (!from) each_column(c, job, cg_i64(c, 0), cg_i64(c, columns), keep_column, &(kept_row){inst->operands[0], to});
    cg_emit_rotated_row(c, columns, from ? from : to, to);
    job->rotated[inst->results[0]->id] = to;
}

/* The slot of the ring's axis for index `index`: (start + index) mod slots, 0 <= index < slots. */
static LLVMValueRef wrap_index(cg *c, const row_output *output, LLVMValueRef index) {
    LLVMValueRef slots = cg_i64(c, output->ring_slots), at = cg_add(c, index, c->code.args[output->ring_start]);
    LLVMValueRef over = LLVMBuildICmp(c->b, LLVMIntSGE, at, slots, "");
    return LLVMBuildSelect(c->b, over, cg_sub(c, at, slots), at, "");
}

static void store_output(cg *c, row_job *job, const row_output *output, LLVMValueRef row) {
    LLVMTypeRef type = cg_type(c, output->dtype);
    LLVMValueRef value = value_at(c, job, output->value, 0), column = job->column[0], pointer = row;
    if (output->ring_axis == job->rank - 1) column = wrap_index(c, output, column);
    int64_t step = output->stride[job->rank - 1];
    if (output->full && step) pointer = cg_at(c, type, row, cg_mul(c, column, cg_i64(c, step)));
    LLVMBuildStore(c->b, cg_to_memory(c, output->dtype, value), pointer);
}

static LLVMValueRef row_pointer(cg *c, const row_job *job, LLVMTypeRef type, LLVMValueRef base, const int64_t *stride) {
    LLVMValueRef offset = cg_i64(c, 0);
    for (int i = 0; i + 1 < job->rank; i++)
        if (stride[i]) offset = cg_add(c, offset, cg_mul(c, job->index[i], cg_i64(c, stride[i])));
    return cg_at(c, type, base, offset);
}

static LLVMValueRef output_row(cg *c, row_job *job, const row_output *output) {
    int ring = output->ring_axis;
    LLVMValueRef index = ring >= 0 ? job->index[ring] : NULL;
    if (ring >= 0 && ring < job->rank - 1) job->index[ring] = wrap_index(c, output, index);
    LLVMValueRef row = row_pointer(c, job, cg_type(c, output->dtype), c->code.args[output->arg], output->stride);
    if (ring >= 0) job->index[ring] = index;
    return row;
}

/* rows: where the outputs' rows are. */
static void store_column(cg *c, row_job *job, void *rows) {
    for (int i = 0; i < job->output_count; i++)
        if (job->outputs[i].full) store_output(c, job, &job->outputs[i], ((LLVMValueRef *)rows)[i]);
}

static void emit_row(cg *c, row_job *job, LLVMValueRef column_from, LLVMValueRef column_to) {
    memset(job->row_value, 0, sizeof *job->row_value * job->id_limit);
    for (int i = 0; i < job->input_count; i++) {
        const row_input *input = &job->inputs[i];
        LLVMValueRef base = c->code.args[input->arg];
        if (input->reg) job->row_value[input->value->id] = base;
        else job->input_row[i] = row_pointer(c, job, cg_type(c, input->value->type.dtype), base, input->stride);
    }
    job->rotated_count = 0;
    for (int i = 0; i < job->inst_count; i++) {
        if (ir_op_of(job->insts[i]->op)->class == IR_CLASS_REDUCE) emit_reduction(c, job, job->insts[i]);
        else if (job->insts[i]->op == IR_ROTATE) emit_rotation(c, job, job->insts[i]);
    }
    LLVMValueRef rows[MAX_OUTPUTS];
    bool full = false;
    enter_column(job, cg_i64(c, 0), NULL);
    for (int i = 0; i < job->output_count; i++) {
        const row_output *output = &job->outputs[i];
        rows[i] = output_row(c, job, output);
        if (output->full) full = true;
        else store_output(c, job, output, rows[i]);
    }
    if (full) each_column(c, job, column_from, column_to, store_column, rows);
}

/* The threads divide the columns when there are fewer than SPLIT_ROWS rows and no reduction or rotation needs a row
 * whole; else the rows. */
static void emit_job(cg *c, void *user) {
    row_job *job = user;
    LLVMValueRef rows = cg_i64(c, 1), columns = cg_dim(c, job->dim[job->rank - 1]);
    int64_t static_rows = 1;
    for (int i = 0; i + 1 < job->rank; i++) {
        rows = cg_mul(c, rows, cg_dim(c, job->dim[i]));
        static_rows = ir_dim_is_symbol(job->dim[i]) ? INT32_MAX : static_rows * job->dim[i];
    }
    LLVMValueRef row_from = cg_i64(c, 0), row_to = rows, column_from = cg_i64(c, 0), column_to = columns;
    if (!job->reduces && !job->rotations && static_rows < SPLIT_ROWS)
        cg_share(c, columns, COLUMN_GRAIN, &column_from, &column_to);
    else cg_share(c, rows, 1, &row_from, &row_to);
    cg_loop loop = cg_loop_begin(c, row_from, row_to, 1);
    LLVMValueRef rest = loop.index;
    for (int i = job->rank - 1; i-- > 0;) {
        LLVMValueRef extent = cg_dim(c, job->dim[i]);
        job->index[i] = i ? LLVMBuildURem(c->b, rest, extent, "") : rest;
        if (i) rest = LLVMBuildUDiv(c->b, rest, extent, "");
    }
    emit_row(c, job, column_from, column_to);
    cg_loop_end(c, &loop);
}

/* A loop over the leading axis, around a kernel for one index of it; the arguments advance by their strides. Every
 * thread runs all of the loop: a share for each would give the kernel constants, for which LLVM may make a copy that
 * sums in another order. */
static cg_loop leading_begin(cg *c, row_job *job, cg_kernel *kernel) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->dim[0]), 1);
    for (int i = 0; i < job->input_count; i++) {
        row_input *input = &job->inputs[i];
        LLVMValueRef *arg = &kernel->args[input->arg], offset = cg_mul(c, loop.index, cg_i64(c, input->stride[0]));
        if (!input->reg) *arg = cg_at(c, cg_type(c, input->value->type.dtype), *arg, offset);
        input->stride[0] = 0;
    }
    for (int i = 0; i < job->output_count; i++) {
        row_output *output = &job->outputs[i];
        LLVMValueRef *arg = &kernel->args[output->arg], offset = cg_mul(c, loop.index, cg_i64(c, output->stride[0]));
        *arg = cg_at(c, cg_type(c, output->dtype), *arg, offset);
        output->stride[0] = 0;
    }
    job->dim[0] = 1;
    return loop;
}

/* Does leading_begin loop over the leading axis? Up to RT_FEW_ROWS rows are then reduced by the code for one, to the
 * bit. Not where an iota counts along that axis. */
static bool peels_leading_axis(const row_job *job) {
    if (!job->reduces || job->rank < 2 || job->dim[0] < 2 || job->dim[0] > RT_FEW_ROWS) return false;
    for (int i = 0; i < job->inst_count; i++) {
        const ir_inst *inst = job->insts[i];
        if (inst->op == IR_IOTA && ir_attr_int(inst, IR_ATTR_AXIS, 0) + job->rank == inst->results[0]->type.rank)
            return false;
    }
    return true;
}

static void run_job(cg *c, row_job *job, cg_kernel *kernel, const char *name) {
    job->id_limit = c->func->value_count + 2;
    job->row_value = calloc(job->id_limit, sizeof *job->row_value);
    job->rotated = calloc(job->id_limit, sizeof *job->rotated);
    for (int i = 0; i < SIDES; i++) job->column_value[i] = calloc(job->id_limit, sizeof *job->column_value[i]);
    GM_ASSERT(job->row_value && job->rotated && job->column_value[0] && job->column_value[1]);
    bool singly = peels_leading_axis(job);
    cg_loop leading;
    if (singly) leading = leading_begin(c, job, kernel);
    make_key(c, job, &kernel->key);
    cg_kernel_call(c, kernel, name, emit_job, job);
    if (singly) cg_loop_end(c, &leading);
    free(job->row_value);
    free(job->rotated);
    for (int i = 0; i < SIDES; i++) free(job->column_value[i]);
}

/* ---- what is a job ---- */

/* Broadcasts the row space with one more shape. */
static void widen_space(row_job *job, const ir_type *type) {
    ir_type space = {.rank = job->rank}, joined;
    memcpy(space.dim, job->dim, sizeof space.dim);
    GM_ASSERT(ir_broadcast(&space, type, &joined));
    job->rank = joined.rank;
    memcpy(job->dim, joined.dim, sizeof joined.dim);
}

/* The row space of an instruction, the broadcast of all shapes of its body; and which kinds of operation it has. */
static void space_of(row_job *job, const ir_inst *inst) {
    for (int i = 0; i < inst->operand_count; i++) widen_space(job, &inst->operands[i]->type);
    for (int i = 0; i < inst->result_count; i++) widen_space(job, &inst->results[i]->type);
    for (int i = 0; i < job->inst_count; i++) {
        widen_space(job, &job->insts[i]->results[0]->type);
        if (ir_op_of(job->insts[i]->op)->class == IR_CLASS_REDUCE) job->reduces = true;
        if (job->insts[i]->op == IR_ROTATE) job->rotations++;
        if (job->insts[i]->op == IR_SWAP_HALVES) job->swaps = true;
    }
    if (job->rank == 0) job->rank = 1, job->dim[0] = 1;
}

/* A reduction over another axis than the last: exchange the two in every layout. */
static void swap_axes(row_job *job, int axis) {
    int last = job->rank - 1;
    ir_dim dim = job->dim[axis];
    job->dim[axis] = job->dim[last];
    job->dim[last] = dim;
    for (int i = 0; i < job->input_count; i++) {
        int64_t s = job->inputs[i].stride[axis];
        job->inputs[i].stride[axis] = job->inputs[i].stride[last];
        job->inputs[i].stride[last] = s;
    }
    for (int i = 0; i < job->output_count; i++) {
        int64_t s = job->outputs[i].stride[axis];
        job->outputs[i].stride[axis] = job->outputs[i].stride[last];
        job->outputs[i].stride[last] = s;
        job->outputs[i].full = false;
    }
}

static void access_job(cg *c, const ir_inst *inst) {
    const cg_slot *reads[MAX_INPUTS], *writes[MAX_OUTPUTS];
    for (int i = 0; i < inst->operand_count; i++) reads[i] = cg_slot_of(c, inst->operands[i]);
    for (int i = 0; i < inst->result_count; i++) writes[i] = cg_slot_of(c, inst->results[i]);
    cg_access(c, reads, inst->operand_count, writes, inst->result_count);
}

void cg_emit_rows(cg *c, const ir_inst *inst) {
    row_job job = {.rank = 0};
    cg_kernel kernel = {.count = 0};
    bool fused = inst->op == IR_FUSE;
    ir_inst *self[1] = {(ir_inst *)inst};
    job.insts = fused ? inst->regions[0]->insts : self;
    job.inst_count = fused ? inst->regions[0]->inst_count : 1;
    if (inst->operand_count > MAX_INPUTS || inst->result_count > MAX_OUTPUTS) {
        cg_unsupported(c, inst, "more than 32 operands or 16 results");
        return;
    }
    space_of(&job, inst);
    if (job.rotations && !cg_can_rotate(c, job.dim[job.rank - 1])) {
        cg_unsupported(c, inst, "rotated rows in runs shorter than a vector");
        return;
    }
    access_job(c, inst);
    for (int i = 0; i < inst->operand_count; i++) {
        const ir_value *inner = fused ? inst->regions[0]->params[i] : inst->operands[i];
        if (!input_of(&job, inner)) add_input(c, &job, &kernel, inner, inst->operands[i]);
    }
    for (int i = 0; i < inst->result_count; i++) {
        const ir_value *result = inst->results[i], *inner = fused ? inst->regions[0]->yields[i] : result;
        add_output(&job, &kernel, inner, &result->type, cg_slot_of(c, result));
    }
    if (ir_op_of(inst->op)->class == IR_CLASS_REDUCE) {
        job.outputs[0].full = false;
        int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
        if (axis != job.rank - 1) swap_axes(&job, axis);
    }
    if (job.rotations)
        job.scratch = cg_kernel_arg(&kernel, cg_scratch(c, job.rotations * rotated_bytes(job.dim[job.rank - 1])));
    run_job(c, &job, &kernel, fused ? "fuse" : ir_op_of(inst->op)->text);
}

void cg_emit_copy(cg *c, const ir_type *type, const cg_slot *src, const cg_slot *dst) {
    cg_emit_ring_copy(c, type, src, dst, NULL);
}

void cg_emit_ring_copy(cg *c, const ir_type *type, const cg_slot *src, const cg_slot *dst, const cg_ring *ring) {
    if (c->status != GM_OK) return;
    row_job job = {.rank = 0};
    cg_kernel kernel = {.count = 0};
    ir_value value = {.type = *type, .id = c->func->value_count};
    cg_access(c, &src, 1, &dst, 1);
    bool timed = cg_profile_begin(c);
    widen_space(&job, type);
    if (job.rank == 0) job.rank = 1, job.dim[0] = 1;
    row_input *input = &job.inputs[job.input_count++];
    *input = (row_input){.value = &value, .arg = cg_kernel_arg(&kernel, src->base)};
    align_strides(&job, type, &src->layout, input->stride);
    add_output(&job, &kernel, &value, type, dst);
    row_output *output = &job.outputs[0];
    output->full = true;
    if (ring) {
        output->ring_axis = ring->axis + job.rank - type->rank;
        output->ring_slots = ring->slots;
        output->ring_start = cg_kernel_arg(&kernel, ring->start);
        output->stride[output->ring_axis] = dst->layout.stride[ring->axis]; /* one position is put in its slot too */
    }
    run_job(c, &job, &kernel, ring ? "ring" : "copy");
    if (timed) cg_profile_end(c);
}
