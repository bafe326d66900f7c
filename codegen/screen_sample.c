/* screened_sample: the sampler's tokens without all of their logits, from the screen of W (runtime/screen.h) and those rows of W that can
 * change a token.
 *
 * When the options let only the k largest logits count (rt_sample_reach), every thread takes the k of its rows that it estimates highest
 * and computes their exact scores. The k-th largest of all threads' is one that k logits reach, so rows whose bound is below its
 * rt_sample_floor change nothing. The exact scores of the others go to the sampler with their ids. Otherwise every bound is infinite, and
 * all rows are computed. Either way each row by the code of the matrix-vector kernel, so that every bit is that of the full product. The
 * screen is read once for all rows of x.
 */
#include "codegen/screen.h"

#include <math.h>
#include <stddef.h>

enum { BATCH = 16 /* rows */ };

typedef struct sample_job {
    screen_job screen;
    int options, seed; /* kernel arguments */
} sample_job;

static LLVMValueRef field_of(cg *c, LLVMValueRef candidates, size_t offset) {
    return cg_at(c, c->i8, candidates, cg_i64(c, (int64_t)offset));
}

static void set_up(cg *c, LLVMValueRef candidates, LLVMValueRef score, LLVMValueRef id) {
    cg_store(c, cg_i64(c, 0), field_of(c, candidates, offsetof(rt_candidates, count)), 8);
    cg_store(c, score, field_of(c, candidates, offsetof(rt_candidates, score)), 8);
    cg_store(c, id, field_of(c, candidates, offsetof(rt_candidates, id)), 8);
}

/* The estimates in the heap become exact scores. */
static void score_heap(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef count) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), count, 1);
    LLVMValueRef row = cg_load(c, c->i32, cg_at(c, c->i32, x->heap_id, loop.index), 4);
    cg_branch any = cg_if(c, LLVMBuildICmp(c->b, LLVMIntSGE, row, cg_i32(c, 0), ""));
    cg_store(c, cg_dot_row(c, &job->dot, cg_widen(c, row)), cg_at(c, c->f32, x->heap_score, loop.index), 4);
    cg_end_if(c, &any);
    cg_loop_end(c, &loop);
}

/* Of every row of x. */
static void make_bounds_infinite(cg *c, const screen_job *job, LLVMValueRef scratch) {
    LLVMValueRef infinite = cg_splat(c, cg_f32(c, INFINITY), RT_SCREEN_ROWS);
    cg_pieces slabs = screen_deal_begin(c, job);
    screen_groups groups = screen_groups_begin(c, job, slabs.index);
    for (int r = 0; r < job->x_rows; r++)
        cg_store(c, infinite, cg_at(c, c->f32, screen_x_at(c, job, scratch, cg_i64(c, r)).bound, cg_mul(c, groups.group, cg_i64(c, RT_SCREEN_ROWS))), 4);
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

/* Those of LANES rows from `first` whose bounds are not below the floor; a row with NaN is never skipped. */
static void append_lanes(cg *c, const screen_x *x, LLVMValueRef count, LLVMValueRef first, LLVMValueRef floor) {
    LLVMValueRef bounds = cg_load(c, screen_eight(c->f32, 1), cg_at(c, c->f32, x->bound, first), 4);
    LLVMValueRef reach = LLVMBuildFCmp(c->b, LLVMRealUGE, bounds, cg_splat(c, floor, SCREEN_LANES), "");
    cg_branch any = screen_if_any(c, screen_lanes(c, reach));
    for (int i = 0; i < SCREEN_LANES; i++) append(c, x, count, cg_add(c, first, cg_i64(c, i)), LLVMBuildExtractElement(c->b, reach, cg_i32(c, i), ""));
    cg_end_if(c, &any);
}

/* This thread's, in ascending order; returns their number. */
static LLVMValueRef find_rows(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef floor) {
    LLVMValueRef count = cg_variable(c, c->i64, cg_i64(c, 0));
    cg_loop slabs = screen_taken_begin(c, job);
    screen_groups groups = screen_taken_groups_begin(c, job, &slabs);
    for (int p = 0; p < SCREEN_PARTS; p++)
        append_lanes(c, x, count, cg_add(c, cg_mul(c, groups.group, cg_i64(c, RT_SCREEN_ROWS)), cg_i64(c, SCREEN_LANES * p)), floor);
    screen_groups_end(c, &groups);
    cg_loop_end(c, &slabs);
    cg_loop rest = screen_rest_begin(c, job);
    append(c, x, count, rest.index, LLVMConstInt(c->i1, 1, 0));
    cg_loop_end(c, &rest);
    return LLVMBuildLoad2(c->b, c->i64, count, "");
}

static LLVMValueRef id_at(cg *c, const screen_x *x, LLVMValueRef index) {
    return cg_load(c, c->i32, cg_at(c, c->i32, x->found_id, index), 4);
}

/* The first byte of the row that is found at place `index`, of the last one behind it. */
static LLVMValueRef row_at(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef index, LLVMValueRef last) {
    int64_t bytes = (int64_t)rt_dtype_bytes(job->dot.dtype, (size_t)job->dot.columns);
    return cg_at(c, c->i8, c->code.args[job->dot.w], cg_mul(c, cg_widen(c, id_at(c, x, cg_min(c, index, last))), cg_i64(c, bytes)));
}

/* The scores of `count` found rows take the place of the bounds; rows below the floor go. The rows lie apart, mostly one on a page: so
 * a BATCH of pages is looked up at once, and while a row is computed the one a BATCH later is on its way. */
static void score_rows(cg *c, screen_job *job, const screen_x *x, LLVMValueRef count, LLVMValueRef floor) {
    LLVMValueRef last = cg_sub(c, count, cg_i64(c, 1)), batch = cg_i64(c, BATCH), kept = cg_variable(c, c->i64, cg_i64(c, 0));
    cg_loop batches = cg_loop_begin(c, cg_i64(c, 0), count, BATCH);
    for (int i = 0; i < BATCH; i++) cg_prefetch(c, row_at(c, job, x, cg_add(c, batches.index, cg_i64(c, BATCH + i)), last));
    cg_loop loop = cg_loop_begin(c, batches.index, cg_min(c, cg_add(c, batches.index, batch), count), 1);
    LLVMValueRef id = id_at(c, x, loop.index), to = LLVMBuildLoad2(c->b, c->i64, kept, "");
    job->dot.next = row_at(c, job, x, cg_add(c, loop.index, batch), last);
    LLVMValueRef score = cg_dot_row(c, &job->dot, cg_widen(c, id)), counts = LLVMBuildFCmp(c->b, LLVMRealUGE, score, floor, "");
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
static LLVMValueRef begin_rows(cg *c, const sample_job *job, LLVMValueRef scratch) {
    screen_x_loop x = screen_x_begin(c, &job->screen, scratch);
    set_up(c, x.at.heap, x.at.heap_score, x.at.heap_id);
    set_up(c, x.at.found, x.at.bound, x.at.found_id);
    cg_host_call(c, "rt_candidates_begin", c->void_t, (LLVMValueRef[]){x.at.heap, c->code.args[job->options], cg_i64(c, job->screen.rows)}, 3);
    screen_x_end(c, &job->screen, &x);
    LLVMValueRef heap = screen_x_at(c, &job->screen, scratch, cg_i64(c, 0)).heap;
    return cg_load(c, c->i64, field_of(c, heap, offsetof(rt_candidates, count)), 8);
}

/* The rows of W of the highest estimates, with exact scores. */
static void estimate_rows(cg *c, screen_job *job, LLVMValueRef scratch, LLVMValueRef reach) {
    screen_x_loop x = screen_x_begin(c, job, scratch);
    screen_store_x(c, job, &x.at);
    screen_x_end(c, job, &x);
    screen_estimates(c, job, scratch);
    x = screen_x_begin(c, job, scratch);
    cg_dot_begin(c, &job->dot);
    score_heap(c, job, &x.at, reach);
    screen_x_end(c, job, &x);
}

/* What this thread finds, once the heaps of all threads are there. */
static void find_all(cg *c, sample_job *job, LLVMValueRef scratch) {
    screen_x_loop x = screen_x_begin(c, &job->screen, scratch);
    LLVMValueRef with_heap[] = {c->code.frame, c->code.thread, x.at.heap, c->code.args[job->options]};
    LLVMValueRef floor = cg_host_call(c, "rt_candidates_floor", c->f32, with_heap, 4);
    cg_dot_begin(c, &job->screen.dot);
    score_rows(c, &job->screen, &x.at, find_rows(c, &job->screen, &x.at, floor), floor);
    screen_x_end(c, &job->screen, &x);
}

/* The tokens, by the first thread. */
static void choose_all(cg *c, const sample_job *job, LLVMValueRef scratch) {
    LLVMValueRef *args = c->code.args;
    cg_branch first = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, c->code.thread, cg_i32(c, 0), ""));
    screen_x_loop x = screen_x_begin(c, &job->screen, scratch);
    LLVMValueRef with_found[] = {c->code.frame, x.at.found, cg_i64(c, job->screen.rows), args[job->screen.tokens], args[job->screen.position], x.loop.index, args[job->options], args[job->seed]};
    cg_store(c, cg_host_call(c, "rt_candidates_sample", c->i32, with_found, 8), cg_at(c, c->i32, args[job->screen.out], x.loop.index), 4);
    screen_x_end(c, &job->screen, &x);
    cg_end_if(c, &first);
}

static void emit_sampled(cg *c, void *user) {
    sample_job *job = user;
    LLVMValueRef scratch = screen_scratch_begin(c, &job->screen), reach = begin_rows(c, job, scratch);
    cg_branch few = cg_if(c, LLVMBuildICmp(c->b, LLVMIntSGT, reach, cg_i64(c, 0), ""));
    estimate_rows(c, &job->screen, scratch, reach);
    cg_else(c, &few);
    make_bounds_infinite(c, &job->screen, scratch);
    cg_end_if(c, &few);
    cg_wait(c, -1);
    find_all(c, job, scratch);
    cg_wait(c, -1);
    choose_all(c, job, scratch);
}

void cg_emit_screened_sample(cg *c, const ir_inst *inst) {
    const ir_type *w = &inst->operands[1]->type;
    const cg_slot *reads[] = {cg_slot_of(c, inst->operands[0]), cg_slot_of(c, inst->operands[3]), cg_slot_of(c, inst->operands[5])};
    const cg_slot *out = cg_slot_of(c, inst->results[0]), *writes[] = {out, &cg_dealt};
    sample_job job = {.screen = screen_job_of(inst)};
    job.screen.collects = true;
    job.screen.listed = job.screen.x_rows == 1; /* so that a choice among all and one among likely ids have one kernel */
    cg_kernel kernel = {.count = 0};
    cg_access(c, reads, 3, writes, 2);
    screen_args(c, &job.screen, inst, &kernel);
    screen_likely_args(c, &job.screen, inst, &kernel, reads[1]->base, cg_slot_of(c, inst->operands[4])->reg);
    job.screen.out = cg_kernel_arg(&kernel, out->base);
    job.options = cg_kernel_arg(&kernel, reads[2]->base);
    job.seed = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[6])->reg);
    gm_string_printf(&kernel.key, "screened_sample %s %lld %lld %lld", rt_dtype_of(w->dtype)->text, (long long)w->dim[0], (long long)w->dim[1], (long long)job.screen.x_rows);
    cg_kernel_call(c, &kernel, "screened_sample", emit_sampled, &job);
    cg_barrier(c); /* the first thread looks into the scratch of the others */
}
