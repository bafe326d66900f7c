/* rotate: rows times the fixed orthogonal matrix of runtime/rotate.h, as signs and butterflies. */
#include "codegen/cg.h"

#include "runtime/rotate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { RADIX = 8 }; /* vectors of a pass: three steps of the transform in registers */

static LLVMTypeRef vector(cg *c, LLVMTypeRef element) {
    return LLVMVectorType(element, (unsigned)c->lanes);
}

/* Rows that are turned in place: one, or `lanes` of them side by side. */
typedef struct field {
    LLVMValueRef floats;
    int64_t columns, each; /* each: floats from a column to the next, 1 or lanes */
} field;

/* Columns that a vector holds. */
static int64_t held(const cg *c, const field *f) {
    return c->lanes / f->each;
}

static LLVMValueRef place(cg *c, const field *f, LLVMValueRef column) {
    return cg_at(c, c->f32, f->floats, cg_mul(c, column, cg_i64(c, f->each)));
}

static LLVMValueRef load(cg *c, const field *f, LLVMValueRef column) {
    return cg_load(c, vector(c, c->f32), place(c, f, column), 4);
}

static void store(cg *c, LLVMValueRef x, const field *f, LLVMValueRef column) {
    cg_store(c, x, place(c, f, column), 4);
}

/* What each of `columns` columns is multiplied with: its sign and the transform's scale; a constant table, made once. */
static LLVMValueRef factor_table(cg *c, int64_t columns) {
    char name[40];
    snprintf(name, sizeof name, "rotate_factors.%lld", (long long)columns);
    LLVMValueRef table = LLVMGetNamedGlobal(c->llvm, name);
    if (table) return table;
    LLVMValueRef *factors = malloc(sizeof *factors * (size_t)columns);
    double scale = 1 / sqrt((double)rt_rotate_run(columns));
    GM_ASSERT(factors);
    for (int64_t i = 0; i < columns; i++) factors[i] = cg_f32(c, rt_rotate_sign(i) ? -scale : scale);
    LLVMValueRef values = LLVMConstArray2(c->f32, factors, (uint64_t)columns);
    free(factors);
    table = LLVMAddGlobal(c->llvm, LLVMTypeOf(values), name);
    LLVMSetInitializer(table, values);
    LLVMSetGlobalConstant(table, 1);
    LLVMSetLinkage(table, LLVMInternalLinkage);
    return table;
}

/* One step of the transform within a vector: lanes `half` apart. */
static LLVMValueRef step_within(cg *c, LLVMValueRef x, int half) {
    LLVMValueRef swap[16], sign[16];
    for (int i = 0; i < c->lanes; i++) {
        swap[i] = cg_i32(c, i ^ half);
        sign[i] = cg_f32(c, i & half ? -1 : 1);
    }
    LLVMValueRef other = LLVMBuildShuffleVector(c->b, x, x, LLVMConstVector(swap, (unsigned)c->lanes), "");
    return cg_fma(c, x, LLVMConstVector(sign, (unsigned)c->lanes), other);
}

/* to = from with signs and scale; and the steps that stay within vectors. */
static void emit_first(cg *c, LLVMValueRef from, const field *to) {
    LLVMValueRef factors = factor_table(c, to->columns);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, to->columns), c->lanes);
    LLVMValueRef factor = cg_load(c, vector(c, c->f32), cg_at(c, c->f32, factors, loop.index), 4);
    LLVMValueRef x = LLVMBuildFMul(c->b, cg_load(c, vector(c, c->f32), cg_at(c, c->f32, from, loop.index), 4), factor, "");
    for (int half = 1; half < c->lanes; half *= 2) x = step_within(c, x, half);
    store(c, x, to, loop.index);
    cg_loop_end(c, &loop);
}

/* Steps half, 2·half, … of `count` vectors that lie `half` apart, `count` a power of two. */
static void butterflies(cg *c, LLVMValueRef *x, int count) {
    for (int half = 1; half < count; half *= 2)
        for (int i = 0; i < count; i++) {
            if (i & half) continue;
            LLVMValueRef a = x[i], b = x[i + half];
            x[i] = LLVMBuildFAdd(c->b, a, b, "");
            x[i + half] = LLVMBuildFSub(c->b, a, b, "");
        }
}

/* The steps from `half` on, `radix` elements of each transform at a time. */
static void emit_pass(cg *c, const field *f, int64_t half, int radix) {
    LLVMValueRef x[RADIX];
    cg_loop outer = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, f->columns), half * radix);
    cg_loop inner = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, half), held(c, f));
    LLVMValueRef at = cg_add(c, outer.index, inner.index);
    for (int i = 0; i < radix; i++) x[i] = load(c, f, cg_add(c, at, cg_i64(c, i * half)));
    butterflies(c, x, radix);
    for (int i = 0; i < radix; i++) store(c, x[i], f, cg_add(c, at, cg_i64(c, i * half)));
    cg_loop_end(c, &inner);
    cg_loop_end(c, &outer);
}

/* I - 2/m·J across the m runs. */
static void emit_across(cg *c, const field *f) {
    int64_t n = rt_rotate_run(f->columns), runs = f->columns / n;
    LLVMValueRef share = cg_splat(c, cg_f32(c, -2.0 / (double)runs), c->lanes), columns = cg_i64(c, f->columns);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, n), held(c, f));
    LLVMValueRef sum = cg_variable(c, vector(c, c->f32), LLVMConstNull(vector(c, c->f32)));
    cg_loop adding = cg_loop_begin(c, loop.index, columns, n);
    LLVMBuildStore(c->b, LLVMBuildFAdd(c->b, LLVMBuildLoad2(c->b, vector(c, c->f32), sum, ""), load(c, f, adding.index), ""), sum);
    cg_loop_end(c, &adding);
    LLVMValueRef total = LLVMBuildLoad2(c->b, vector(c, c->f32), sum, "");
    cg_loop moving = cg_loop_begin(c, loop.index, columns, n);
    store(c, cg_fma(c, share, total, load(c, f, moving.index)), f, moving.index);
    cg_loop_end(c, &moving);
    cg_loop_end(c, &loop);
}

/* The steps from `lanes` on, those before being done. */
static void emit_rest(cg *c, const field *f) {
    int64_t n = rt_rotate_run(f->columns);
    for (int64_t half = c->lanes; half < n;) {
        int radix = n / half < RADIX ? (int)(n / half) : RADIX;
        emit_pass(c, f, half, radix);
        half *= radix;
    }
    if (f->columns > n) emit_across(c, f);
}

void cg_emit_rotated_row(cg *c, int64_t columns, LLVMValueRef from, LLVMValueRef to) {
    field f = {.floats = to, .columns = columns, .each = 1};
    emit_first(c, from, &f);
    emit_rest(c, &f);
}

void cg_rotate_columns(cg *c, int64_t columns, LLVMValueRef first, LLVMValueRef *x) {
    LLVMValueRef factors = factor_table(c, columns);
    for (int i = 0; i < c->lanes; i++) {
        LLVMValueRef factor = cg_load(c, c->f32, cg_at(c, c->f32, factors, cg_add(c, first, cg_i64(c, i))), 4);
        x[i] = LLVMBuildFMul(c->b, x[i], cg_splat(c, factor, c->lanes), "");
    }
    butterflies(c, x, c->lanes);
}

void cg_rotate_rows(cg *c, int64_t columns, LLVMValueRef floats) {
    emit_rest(c, &(field){.floats = floats, .columns = columns, .each = c->lanes});
}

bool cg_can_rotate(const cg *c, int64_t columns) {
    return rt_rotate_run(columns) >= c->lanes;
}

/* ---- the instruction ---- */

typedef struct rotate_job {
    int64_t columns;
    int x, x_stride, out, rows; /* kernel arguments */
} rotate_job;

static void emit_rotate(cg *c, void *user) {
    const rotate_job *job = user;
    LLVMValueRef *args = c->code.args, from, to;
    cg_share(c, args[job->rows], 1, &from, &to);
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    LLVMValueRef x = cg_at(c, c->f32, args[job->x], cg_mul(c, loop.index, args[job->x_stride]));
    cg_emit_rotated_row(c, job->columns, x, cg_at(c, c->f32, args[job->out], cg_mul(c, loop.index, cg_i64(c, job->columns))));
    cg_loop_end(c, &loop);
}

void cg_emit_rotate(cg *c, const ir_inst *inst) {
    const ir_type *type = &inst->operands[0]->type;
    const cg_slot *x = cg_slot_of(c, inst->operands[0]), *out = cg_slot_of(c, inst->results[0]);
    rotate_job job = {.columns = type->dim[type->rank - 1]};
    int64_t stride;
    if (!cg_can_rotate(c, job.columns) || !ir_layout_matrix(type, &x->layout, &stride)) {
        cg_unsupported(c, inst, "rows of this length or at varying distances");
        return;
    }
    cg_access(c, &x, 1, &out, 1);
    cg_kernel kernel = {.count = 0};
    job.x = cg_kernel_arg(&kernel, x->base);
    job.x_stride = cg_kernel_arg(&kernel, cg_i64(c, stride));
    job.out = cg_kernel_arg(&kernel, out->base);
    job.rows = cg_kernel_arg(&kernel, cg_leading_rows(c, type));
    gm_string_printf(&kernel.key, "rotate %lld", (long long)job.columns);
    cg_kernel_call(c, &kernel, "rotate", emit_rotate, &job);
}
