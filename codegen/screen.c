/* screened_argmax, screened_guess, screened_sample: choices from W·x without all of its elements, from the screen of W
 * (runtime/screen.h) and those rows of W that can change a choice.
 *
 * When only the k largest logits count (rt_sample_reach; one for an argmax), every thread collects as many of its rows
 * in a heap, those that it estimates highest, and keeps of the others those that may score more than what is least
 * there is supposed to. Then it computes the exact scores of the rows in the heap. The k-th largest of all threads' is
 * one that k logits reach, so rows whose bound is below its rt_sample_floor change nothing; where some thread has
 * supposed more than that, all rows are estimated once more, and those kept that are not below it. (A repeat penalty
 * makes no logit larger; with it more rows are taken at first, and what it leaves of them counts.) The exact scores of
 * the rows that are left go to the sampler with their ids. Otherwise every bound is infinite, and all rows are
 * computed. Either way each row by the code of the matrix-vector kernel, so that every bit is that of the full product.
 * Each time the screen is read once for all rows of x.
 *
 * A comparison that decides to skip a row is false for NaN, so that a row with NaN is never skipped.
 */
#include "codegen/screen.h"

#include <math.h>
#include <stddef.h>

enum { BATCH = 16 /* rows */ };

/* ---- rows of x ---- */

/* A loop over the rows of x, in which job->dot.x is the row. */
typedef struct x_loop {
    cg_loop loop;
    screen_x at;
    LLVMValueRef x; /* the first row */
} x_loop;

static x_loop x_begin(cg *c, const screen_job *job, LLVMValueRef scratch) {
    x_loop x = {.loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->x_rows), 1), .x = c->code.args[job->dot.x]};
    x.at = screen_x_at(c, job, scratch, x.loop.index);
    c->code.args[job->dot.x] = cg_at(c, c->f32, x.x, cg_mul(c, x.loop.index, cg_i64(c, job->dot.columns)));
    return x;
}

static void x_end(cg *c, const screen_job *job, x_loop *x) {
    cg_loop_end(c, &x->loop);
    c->code.args[job->dot.x] = x->x;
}

/* ---- candidates ---- */

static LLVMValueRef field_of(cg *c, LLVMValueRef candidates, size_t offset) {
    return cg_at(c, c->i8, candidates, cg_i64(c, (int64_t)offset));
}

static void set_up(cg *c, LLVMValueRef candidates, LLVMValueRef score, LLVMValueRef id) {
    cg_store(c, cg_i64(c, 0), field_of(c, candidates, offsetof(rt_candidates, count)), 8);
    cg_store(c, score, field_of(c, candidates, offsetof(rt_candidates, score)), 8);
    cg_store(c, id, field_of(c, candidates, offsetof(rt_candidates, id)), 8);
}

/* The exact score of a row: with the operations of ir_soft_cap. */
static LLVMValueRef exact_score(cg *c, const screen_job *job, LLVMValueRef row) {
    LLVMValueRef score = cg_dot_row(c, &job->dot, row), cap = cg_f32(c, job->cap);
    return job->cap > 0 ? LLVMBuildFMul(c->b, cg_tanh(c, LLVMBuildFDiv(c->b, score, cap, "")), cap, "") : score;
}

/* The estimates in the heap become exact scores. */
static void score_heap(cg *c, const screen_job *job, const screen_x *x) {
    cg_loop loop =
        cg_loop_begin(c, cg_i64(c, 0), cg_load(c, c->i64, field_of(c, x->heap, offsetof(rt_candidates, count)), 8), 1);
    LLVMValueRef row = cg_load(c, c->i32, cg_at(c, c->i32, x->heap_id, loop.index), 4);
    cg_branch any = cg_if(c, LLVMBuildICmp(c->b, LLVMIntSGE, row, cg_i32(c, 0), ""));
    cg_store(c, exact_score(c, job, cg_widen(c, row)), cg_at(c, c->f32, x->heap_score, loop.index), 4);
    cg_end_if(c, &any);
    cg_loop_end(c, &loop);
}

/* All rows are kept, for every row of x. */
static void keep_all(cg *c, const screen_job *job, LLVMValueRef scratch) {
    int together = screen_together(c);
    LLVMValueRef infinite = cg_splat(c, cg_f32(c, INFINITY), together);
    cg_pieces slabs = screen_deal_begin(c, job);
    screen_groups groups = screen_groups_begin(c, job, slabs.index);
    for (int r = 0; r < job->x_rows; r++) {
        screen_x x = screen_x_at(c, job, scratch, cg_i64(c, r));
        for (int i = 0; i < RT_SCREEN_ROWS; i += together)
            screen_keep(c, &x, infinite, cg_add(c, cg_mul(c, groups.group, cg_i64(c, RT_SCREEN_ROWS)), cg_i64(c, i)));
    }
    screen_groups_end(c, &groups);
    cg_pieces_end(c, &slabs);
}

/* ---- the rows that may count ---- */

/* Where the next found row goes; there are never more than rows that were gone through. */
static void append(cg *c, const screen_x *x, LLVMValueRef count, LLVMValueRef row, LLVMValueRef counts) {
    LLVMValueRef at = LLVMBuildLoad2(c->b, c->i64, count, "");
    cg_store(c, LLVMBuildTrunc(c->b, row, c->i32, ""), cg_at(c, c->i32, x->found_id, at), 4);
    LLVMBuildStore(c->b, cg_add(c, at, LLVMBuildZExt(c->b, counts, c->i64, "")), count);
}

/* Those of SCREEN_LANES rows from `row` on, with bounds from place `at` on, that are not below the floor; a row with
 * NaN is never skipped. */
static void append_lanes(cg *c, const screen_x *x, LLVMValueRef count, LLVMValueRef at, LLVMValueRef row,
                         LLVMValueRef floor) {
    LLVMValueRef bounds = cg_load(c, screen_eight(c->f32, 1), cg_at(c, c->f32, x->bound, at), 4);
    LLVMValueRef reach = LLVMBuildFCmp(c->b, LLVMRealUGE, bounds, cg_splat(c, floor, SCREEN_LANES), "");
    cg_branch any = screen_if_any(c, screen_lanes(c, reach));
    for (int i = 0; i < SCREEN_LANES; i++)
        append(c, x, count, cg_add(c, row, cg_i64(c, i)), LLVMBuildExtractElement(c->b, reach, cg_i32(c, i), ""));
    cg_end_if(c, &any);
}

/* The rows of the last, partial group, taken by the last thread. */
static cg_loop rest_begin(cg *c, const screen_job *job) {
    LLVMValueRef mine = LLVMBuildICmp(c->b, LLVMIntEQ, cg_add(c, cg_widen(c, c->code.thread), cg_i64(c, 1)),
                                      cg_widen(c, c->code.threads), "");
    LLVMValueRef all = cg_i64(c, job->rows);
    if (job->listed) mine = LLVMBuildAnd(c->b, mine, job->ends, "");
    return cg_loop_begin(
        c, LLVMBuildSelect(c->b, mine, cg_i64(c, job->rows / RT_SCREEN_ROWS * RT_SCREEN_ROWS), all, ""), all, 1);
}

/* This thread's, in ascending order; returns their number. */
static LLVMValueRef find_rows(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef floor) {
    LLVMValueRef count = cg_variable(c, c->i64, cg_i64(c, 0)), together = cg_i64(c, screen_together(c));
    cg_loop kept = cg_loop_begin(c, cg_i64(c, 0), cg_load(c, c->i64, x->kept, 8), 1);
    LLVMValueRef row = cg_widen(c, cg_load(c, c->i32, cg_at(c, c->i32, x->kept_row, kept.index), 4)),
                 at = cg_mul(c, kept.index, together);
    for (int i = 0; i < screen_together(c); i += SCREEN_LANES)
        append_lanes(c, x, count, cg_add(c, at, cg_i64(c, i)), cg_add(c, row, cg_i64(c, i)), floor);
    cg_loop_end(c, &kept);
    cg_loop last = rest_begin(c, job);
    append(c, x, count, last.index, LLVMConstInt(c->i1, 1, 0));
    cg_loop_end(c, &last);
    return LLVMBuildLoad2(c->b, c->i64, count, "");
}

static LLVMValueRef id_at(cg *c, const screen_x *x, LLVMValueRef index) {
    return cg_load(c, c->i32, cg_at(c, c->i32, x->found_id, index), 4);
}

/* The first byte of the row that is found at place `index`, of the last one behind it. */
static LLVMValueRef row_at(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef index, LLVMValueRef last) {
    int64_t bytes = (int64_t)rt_dtype_bytes(job->dot.dtype, (size_t)job->dot.columns);
    return cg_at(c, c->i8, c->code.args[job->dot.w],
                 cg_mul(c, cg_widen(c, id_at(c, x, cg_min(c, index, last))), cg_i64(c, bytes)));
}

/* The scores of `count` found rows take the place of the bounds; rows below the floor go. The rows lie apart, mostly
 * one on a page: so a BATCH of pages is looked up at once, and while a row is computed the one a BATCH later is on its
 * way. */
static void score_rows(cg *c, screen_job *job, const screen_x *x, LLVMValueRef count, LLVMValueRef floor) {
    LLVMValueRef last = cg_sub(c, count, cg_i64(c, 1)), batch = cg_i64(c, BATCH),
                 kept = cg_variable(c, c->i64, cg_i64(c, 0));
    cg_loop batches = cg_loop_begin(c, cg_i64(c, 0), count, BATCH);
    for (int i = 0; i < BATCH; i++)
        cg_prefetch(c, row_at(c, job, x, cg_add(c, batches.index, cg_i64(c, BATCH + i)), last));
    cg_loop loop = cg_loop_begin(c, batches.index, cg_min(c, cg_add(c, batches.index, batch), count), 1);
    LLVMValueRef id = id_at(c, x, loop.index), to = LLVMBuildLoad2(c->b, c->i64, kept, "");
    job->dot.next = row_at(c, job, x, cg_add(c, loop.index, batch), last);
    LLVMValueRef score = exact_score(c, job, cg_widen(c, id)),
                 counts = LLVMBuildFCmp(c->b, LLVMRealUGE, score, floor, "");
    cg_store(c, score, cg_at(c, c->f32, x->bound, to), 4);
    cg_store(c, id, cg_at(c, c->i32, x->found_id, to), 4);
    LLVMBuildStore(c->b, cg_add(c, to, LLVMBuildZExt(c->b, counts, c->i64, "")), kept);
    cg_loop_end(c, &loop);
    cg_loop_end(c, &batches);
    job->dot.next = NULL;
    cg_store(c, LLVMBuildLoad2(c->b, c->i64, kept, ""), field_of(c, x->found, offsetof(rt_candidates, count)), 8);
}

/* ---- the kernel ---- */

/* Nothing is found yet, for any row of x; returns how many logits count, 0: all. */
static LLVMValueRef begin_rows(cg *c, const screen_job *job, LLVMValueRef scratch) {
    x_loop x = x_begin(c, job, scratch);
    set_up(c, x.at.heap, x.at.heap_score, x.at.heap_id);
    set_up(c, x.at.found, x.at.bound, x.at.found_id);
    cg_store(c, cg_i64(c, 0), x.at.kept, 8);
    cg_host_call(c, "rt_candidates_begin", c->void_t,
                 (LLVMValueRef[]){x.at.heap, c->code.args[job->options], cg_i64(c, job->rows)}, 3);
    x_end(c, job, &x);
    LLVMValueRef heap = screen_x_at(c, job, scratch, cg_i64(c, 0)).heap;
    return cg_load(c, c->i64, field_of(c, heap, offsetof(rt_candidates, count)), 8);
}

/* The scores of the heaps become exact, and all threads agree on the floors: i1, was some row of x supposed to reach
 * more? */
static LLVMValueRef find_floors(cg *c, screen_job *job, LLVMValueRef scratch) {
    LLVMValueRef *args = c->code.args, more = cg_variable(c, c->i32, cg_i32(c, 0));
    x_loop x = x_begin(c, job, scratch);
    cg_dot_begin(c, &job->dot);
    score_heap(c, job, &x.at);
    x_end(c, job, &x);
    cg_wait(c, -1);
    x = x_begin(c, job, scratch);
    LLVMValueRef with_heap[] = {c->code.frame,     c->code.thread,      x.at.heap,          cg_i64(c, job->rows),
                                args[job->tokens], args[job->position], args[job->options], cg_f32(c, job->cap)};
    LLVMValueRef here = cg_host_call(c, "rt_candidates_floor", c->i32, with_heap, GM_COUNT(with_heap));
    LLVMBuildStore(c->b, LLVMBuildOr(c->b, LLVMBuildLoad2(c->b, c->i32, more, ""), here, ""), more);
    x_end(c, job, &x);
    return LLVMBuildICmp(c->b, LLVMIntNE, LLVMBuildLoad2(c->b, c->i32, more, ""), cg_i32(c, 0), "");
}

/* Nothing is kept, and nothing will be that is below the floors; the heaps are closed. */
static void start_over(cg *c, const screen_job *job, LLVMValueRef scratch) {
    cg_wait(c, -1); /* the other threads have seen the heap */
    x_loop x = x_begin(c, job, scratch);
    cg_store(c, cg_load(c, c->f32, field_of(c, x.at.heap, offsetof(rt_candidates, uncapped)), 4), x.at.supposed, 4);
    cg_store(c, cg_f32(c, INFINITY), x.at.heap_score, 4);
    cg_store(c, cg_i64(c, 0), x.at.kept, 8);
    x_end(c, job, &x);
}

/* After the first time: must the rows be estimated again? */
static LLVMValueRef look_back(cg *c, screen_job *job, LLVMValueRef scratch) {
    LLVMValueRef again = find_floors(c, job, scratch);
    cg_branch over = cg_if(c, again);
    start_over(c, job, scratch);
    cg_end_if(c, &over);
    return again;
}

/* What this thread keeps by estimates, and the floors. A loop, so that the code of the estimates is there once. */
static void keep_some(cg *c, screen_job *job, LLVMValueRef scratch) {
    LLVMValueRef again = cg_variable(c, c->i1, LLVMConstInt(c->i1, 1, 0));
    x_loop x = x_begin(c, job, scratch);
    screen_store_x(c, job, &x.at);
    x_end(c, job, &x);
    cg_loop times = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, 2), 1);
    cg_branch wanted = cg_if(c, LLVMBuildLoad2(c->b, c->i1, again, ""));
    screen_estimates(c, job, scratch);
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, times.index, cg_i64(c, 0), ""));
    LLVMBuildStore(c->b, look_back(c, job, scratch), again);
    cg_end_if(c, &first);
    cg_end_if(c, &wanted);
    cg_loop_end(c, &times);
}

/* What this thread finds among the rows that it has kept. */
static void find_all(cg *c, screen_job *job, LLVMValueRef scratch) {
    x_loop x = x_begin(c, job, scratch);
    LLVMValueRef floor = cg_load(c, c->f32, field_of(c, x.at.heap, offsetof(rt_candidates, floor)), 4);
    LLVMValueRef uncapped = cg_load(c, c->f32, field_of(c, x.at.heap, offsetof(rt_candidates, uncapped)), 4);
    cg_dot_begin(c, &job->dot);
    score_rows(c, job, &x.at, find_rows(c, job, &x.at, uncapped), floor);
    x_end(c, job, &x);
}

/* The tokens, by the first thread. */
static void choose_all(cg *c, const screen_job *job, LLVMValueRef scratch) {
    LLVMValueRef *args = c->code.args;
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    x_loop x = x_begin(c, job, scratch);
    LLVMValueRef with_found[] = {c->code.frame,       x.at.found,   cg_i64(c, job->rows), args[job->tokens],
                                 args[job->position], x.loop.index, args[job->options],   args[job->seed]};
    cg_store(c, cg_host_call(c, "rt_candidates_sample", c->i32, with_found, 8),
             cg_at(c, c->i32, args[job->out], x.loop.index), 4);
    x_end(c, job, &x);
    cg_end_if(c, &first);
}

static void emit_screened(cg *c, void *user) {
    screen_job *job = user;
    LLVMValueRef scratch = screen_scratch_begin(c, job), reach = begin_rows(c, job, scratch);
    cg_branch few = cg_if(c, LLVMBuildICmp(c->b, LLVMIntSGT, reach, cg_i64(c, 0), ""));
    keep_some(c, job, scratch);
    cg_else(c, &few);
    keep_all(c, job, scratch);
    cg_end_if(c, &few);
    find_all(c, job, scratch);
    cg_wait(c, -1);
    choose_all(c, job, scratch);
}

/* ---- the instruction ---- */

/* tokens, position, options and seed: operands from the fourth on, as far as there are any; without options the choice
 * is greedy. */
static void choice_args(cg *c, screen_job *job, const ir_inst *inst, cg_kernel *kernel) {
    const cg_slot *slot[4] = {NULL};
    for (int i = 3; i < inst->operand_count; i++) slot[i - 3] = cg_slot_of(c, inst->operands[i]);
    bool all = inst->op != IR_SCREENED_GUESS && !ir_attr_find(inst, IR_ATTR_USUAL);
    job->tokens = cg_kernel_arg(kernel, slot[0] ? slot[0]->base : LLVMConstNull(c->ptr));
    job->position = cg_kernel_arg(kernel, slot[1] ? slot[1]->reg : cg_i32(c, 0));
    /* Counted in blocks of likely ids. */
    job->usual =
        cg_kernel_arg(kernel, cg_i64(c, all ? job->rows + RT_LIKELY_BLOCK - 1 : ir_attr_int(inst, IR_ATTR_USUAL, 0)));
    job->options = cg_kernel_arg(kernel, slot[2] ? slot[2]->base : LLVMConstNull(c->ptr));
    job->seed = cg_kernel_arg(kernel, slot[3] ? slot[3]->reg : cg_i64(c, 0));
}

/* One kernel for all choices of as many rows of x. */
void cg_emit_screened(cg *c, const ir_inst *inst) {
    const ir_type *w = &inst->operands[1]->type;
    int64_t x_rows = inst->operands[0]->type.dim[0];
    if (x_rows > RT_FEW_ROWS) {
        cg_unsupported(c, inst, "more rows of x than are verified together");
        return;
    }
    screen_job job = {.dot = {.dtype = w->dtype, .columns = w->dim[1], .rows = 1},
                      .rows = w->dim[0],
                      .at = rt_screen_layout(w->dim[0], w->dim[1]),
                      .x_rows = x_rows,
                      .cap = ir_attr_float(inst, IR_ATTR_CAP, 0),
                      .listed = x_rows == 1};
    const cg_slot *reads[8], *out = cg_slot_of(c, inst->results[0]), *writes[] = {out, &cg_dealt};
    int read_count = 0;
    for (int i = 0; i < inst->operand_count; i++)
        if (inst->operands[i]->type.rank) reads[read_count++] = cg_slot_of(c, inst->operands[i]);
    cg_kernel kernel = {.count = 0};
    cg_access(c, reads, read_count, writes, 2);
    cg_dot_args(c, &job.dot, &kernel, cg_slot_of(c, inst->operands[1])->base, cg_slot_of(c, inst->operands[0])->base);
    job.screen = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[2])->base);
    cg_reserve_scratch(c, screen_scratch(&job));
    job.out = cg_kernel_arg(&kernel, out->base);
    choice_args(c, &job, inst, &kernel);
    gm_string_printf(&kernel.key, "screened %s %lld %lld %lld %a", rt_dtype_of(w->dtype)->text, (long long)w->dim[0],
                     (long long)w->dim[1], (long long)x_rows, job.cap);
    cg_kernel_call(c, &kernel, "screened", emit_screened, &job);
    cg_barrier(c); /* the first thread looks into the scratch of the others */
}
