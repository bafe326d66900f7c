/* argmax over the last axis: vector lanes keep a best value and its place; one row is shared out by columns and the
 * threads' results are joined, several rows are shared out by rows. The lowest index wins ties; NaN never wins.
 */
#include "codegen/cg.h"

#include <math.h>

typedef struct argmax_job {
    ir_dim columns;
    int64_t row_stride;
    int x, out, rows;
    bool single;
} argmax_job;

typedef struct best {
    LLVMValueRef value, index; /* variables: f32; i32, -1 when there was nothing but NaN */
} best;

static best best_new(cg *c) {
    return (best){cg_variable(c, c->f32, cg_f32(c, -INFINITY)), cg_variable(c, c->i32, cg_i32(c, -1))};
}

/* Nothing yet, at run time. */
static void best_clear(cg *c, best *b) {
    LLVMBuildStore(c->b, cg_f32(c, -INFINITY), b->value);
    LLVMBuildStore(c->b, cg_i32(c, -1), b->index);
}

/* Keep (value, index) when it beats the best: larger, or equal at a lower place. NaN never does. */
static void best_challenge(cg *c, best *b, LLVMValueRef value, LLVMValueRef index) {
    LLVMValueRef old = LLVMBuildLoad2(c->b, c->f32, b->value, ""), place = LLVMBuildLoad2(c->b, c->i32, b->index, "");
    LLVMValueRef larger = LLVMBuildFCmp(c->b, LLVMRealOGT, value, old, "");
    LLVMValueRef equal = LLVMBuildFCmp(c->b, LLVMRealOEQ, value, old, "");
    LLVMValueRef lower = LLVMBuildICmp(c->b, LLVMIntULT, index, place, "");
    LLVMValueRef wins = LLVMBuildOr(c->b, larger, LLVMBuildAnd(c->b, equal, lower, ""), "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, wins, value, old, ""), b->value);
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, wins, index, place, ""), b->index);
}

/* Whole vectors of row[from, to); returns where the rest begins. */
static LLVMValueRef scan_lanes(cg *c, best *b, LLVMValueRef row, LLVMValueRef from, LLVMValueRef to) {
    unsigned lanes = (unsigned)c->lanes;
    LLVMTypeRef floats = LLVMVectorType(c->f32, lanes), ints = LLVMVectorType(c->i32, lanes);
    LLVMValueRef lane[64];
    for (unsigned i = 0; i < lanes; i++) lane[i] = cg_i32(c, i);
    LLVMValueRef top = cg_variable(c, floats, cg_splat(c, cg_f32(c, -INFINITY), c->lanes));
    LLVMValueRef where = cg_variable(c, ints, LLVMConstAllOnes(ints));
    LLVMValueRef whole = cg_sub(c, to, LLVMBuildSRem(c->b, cg_sub(c, to, from), cg_i64(c, lanes), ""));
    cg_loop loop = cg_loop_begin(c, from, whole, lanes);
    LLVMValueRef x = cg_load(c, floats, cg_at(c, c->f32, row, loop.index), 4),
                 old = LLVMBuildLoad2(c->b, floats, top, "");
    LLVMValueRef wins = LLVMBuildFCmp(c->b, LLVMRealOGT, x, old, "");
    LLVMValueRef index =
        cg_add(c, cg_splat(c, LLVMBuildTrunc(c->b, loop.index, c->i32, ""), c->lanes), LLVMConstVector(lane, lanes));
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, wins, x, old, ""), top);
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, wins, index, LLVMBuildLoad2(c->b, ints, where, ""), ""), where);
    cg_loop_end(c, &loop);
    LLVMValueRef values = LLVMBuildLoad2(c->b, floats, top, ""), places = LLVMBuildLoad2(c->b, ints, where, "");
    for (unsigned i = 0; i < lanes; i++)
        best_challenge(c, b, LLVMBuildExtractElement(c->b, values, cg_i32(c, i), ""),
                       LLVMBuildExtractElement(c->b, places, cg_i32(c, i), ""));
    return whole;
}

static void challenge_element(cg *c, best *b, LLVMValueRef row, LLVMValueRef index) {
    best_challenge(c, b, cg_load(c, c->f32, cg_at(c, c->f32, row, index), 4), LLVMBuildTrunc(c->b, index, c->i32, ""));
}

/* The best of row[from, to), in `b`; index -1 when all are NaN. */
static void scan(cg *c, best *b, LLVMValueRef row, LLVMValueRef from, LLVMValueRef to) {
    best_clear(c, b);
    LLVMValueRef rest = scan_lanes(c, b, row, from, to);
    cg_loop loop = cg_loop_begin(c, rest, to, 1);
    challenge_element(c, b, row, loop.index);
    cg_loop_end(c, &loop);
    LLVMValueRef least =
        LLVMBuildFCmp(c->b, LLVMRealOEQ, LLVMBuildLoad2(c->b, c->f32, b->value, ""), cg_f32(c, -INFINITY), "");
    cg_branch none = cg_if(c, least); /* lanes do not tell -inf from nothing */
    cg_loop again = cg_loop_begin(c, from, to, 1);
    challenge_element(c, b, row, again.index);
    cg_loop_end(c, &again);
    cg_end_if(c, &none);
}

/* Word `word` of 2 that the thread shows to the others. */
static LLVMValueRef shared_word(cg *c, LLVMValueRef thread, int word) {
    LLVMValueRef base = cg_frame_field(c, offsetof(rt_frame, shared), c->ptr);
    LLVMValueRef at = cg_add(c, cg_mul(c, cg_widen(c, thread), cg_i64(c, 2)), cg_i64(c, word));
    return cg_at(c, c->i32, base, at);
}

/* -1 (nothing but NaN) means the first element. */
static void store_index(cg *c, best *b, LLVMValueRef out) {
    LLVMValueRef index = cg_max(c, LLVMBuildLoad2(c->b, c->i32, b->index, ""), cg_i32(c, 0));
    cg_store(c, index, out, 4);
}

/* Every thread's best to the others, a barrier, the best of all to *out; thread 0 writes it. */
static void best_join(cg *c, best *b, LLVMValueRef out) {
    cg_store(c, LLVMBuildLoad2(c->b, c->f32, b->value, ""), shared_word(c, c->code.thread, 0), 4);
    cg_store(c, LLVMBuildLoad2(c->b, c->i32, b->index, ""), shared_word(c, c->code.thread, 1), 4);
    cg_wait(c, -1);
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    LLVMValueRef threads = cg_widen(c, c->code.threads);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 1), threads, 1);
    LLVMValueRef thread = LLVMBuildTrunc(c->b, loop.index, c->i32, "");
    best_challenge(c, b, cg_load(c, c->f32, shared_word(c, thread, 0), 4),
                   cg_load(c, c->i32, shared_word(c, thread, 1), 4));
    cg_loop_end(c, &loop);
    store_index(c, b, out);
    cg_end_if(c, &first);
}

static void emit_single(cg *c, argmax_job *job, best *b) {
    LLVMValueRef from, to;
    cg_share(c, cg_dim(c, job->columns), 16, &from, &to);
    scan(c, b, c->code.args[job->x], from, to);
    best_join(c, b, c->code.args[job->out]);
}

static void emit_many(cg *c, argmax_job *job, best *b) {
    LLVMValueRef from, to;
    cg_share(c, c->code.args[job->rows], 1, &from, &to);
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    LLVMValueRef row = cg_at(c, c->f32, c->code.args[job->x], cg_mul(c, loop.index, cg_i64(c, job->row_stride)));
    scan(c, b, row, cg_i64(c, 0), cg_dim(c, job->columns));
    store_index(c, b, cg_at(c, c->i32, c->code.args[job->out], loop.index));
    cg_loop_end(c, &loop);
}

static void emit_argmax(cg *c, void *user) {
    argmax_job *job = user;
    best b = best_new(c);
    if (job->single) emit_single(c, job, &b);
    else emit_many(c, job, &b);
}

void cg_emit_argmax(cg *c, const ir_inst *inst) {
    const ir_type *x = &inst->operands[0]->type;
    const cg_slot *read = cg_slot_of(c, inst->operands[0]), *write = cg_slot_of(c, inst->results[0]);
    argmax_job job = {.columns = x->dim[x->rank - 1], .single = true};
    LLVMValueRef rows = cg_i64(c, 1);
    if (!ir_layout_matrix(x, &read->layout, &job.row_stride)) {
        cg_unsupported(c, inst, "rows at varying distances");
        return;
    }
    for (int i = 0; i + 1 < x->rank; i++) {
        rows = cg_mul(c, rows, cg_dim(c, x->dim[i]));
        job.single &= x->dim[i] == 1;
    }
    cg_access(c, &read, 1, &write, 1);
    cg_kernel kernel = {.count = 0};
    job.x = cg_kernel_arg(&kernel, read->base);
    job.out = cg_kernel_arg(&kernel, write->base);
    job.rows = cg_kernel_arg(&kernel, rows);
    gm_string_printf(&kernel.key, "argmax %d %lld %lld", job.single, (long long)job.columns, (long long)job.row_stride);
    cg_kernel_call(c, &kernel, "argmax", emit_argmax, &job);
    if (job.single) cg_barrier(c); /* the shared words may be written again */
}
