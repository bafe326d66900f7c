/* screened_argmax, screened_guess: argmax of W·x, of all rows or of those of likely ids, that reads the screen of W (runtime/screen.h) and of
 * W itself only the rows that can win.
 *
 * Every thread, for the slabs of rows that it takes: an estimate and an upper bound of each row's score from the screen, then the exact score of
 * the row it estimates highest. The largest of the threads' scores is beaten only by rows whose bound reaches it: their exact scores
 * are computed, by the row code of the matrix-vector kernel, so that every bit is that of the full product.
 *
 * A comparison that decides to skip a row is false for NaN, so that a row with NaN is never skipped.
 */
#include "codegen/screen.h"

#include <math.h>

enum { ROWS = RT_SCREEN_ROWS, LANES = SCREEN_LANES };
enum { SHOWN = 2 /* shared word: a thread's first score */ };

/* ---- rows of x ---- */

screen_x_loop screen_x_begin(cg *c, const screen_job *job, LLVMValueRef scratch) {
    screen_x_loop x = {.loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->x_rows), 1), .x = c->code.args[job->dot.x]};
    x.at = screen_x_at(c, job, scratch, x.loop.index);
    c->code.args[job->dot.x] = cg_at(c, c->f32, x.x, cg_mul(c, x.loop.index, cg_i64(c, job->dot.columns)));
    return x;
}

void screen_x_end(cg *c, const screen_job *job, screen_x_loop *x) {
    cg_loop_end(c, &x->loop);
    c->code.args[job->dot.x] = x->x;
}

/* The row estimated highest. */
static void emit_guess(cg *c, const screen_x *x, cg_best *guess) {
    LLVMValueRef top = cg_load(c, screen_eight(c->f32, 1), x->top, 4), where = cg_load(c, screen_eight(c->i32, 1), x->where, 4);
    cg_best_clear(c, guess);
    for (int i = 0; i < LANES; i++)
        cg_best_challenge(c, guess, LLVMBuildExtractElement(c->b, top, cg_i32(c, i), ""), LLVMBuildExtractElement(c->b, where, cg_i32(c, i), ""));
}

/* ---- scores ---- */

/* best.value when that is larger. */
static LLVMValueRef larger(cg *c, LLVMValueRef value, LLVMValueRef than) {
    return LLVMBuildSelect(c->b, LLVMBuildFCmp(c->b, LLVMRealOGT, value, than, ""), value, than, "");
}

/* The largest of the threads' scores of their guesses. */
static LLVMValueRef emit_threshold(cg *c, const screen_job *job, const cg_best *guess) {
    LLVMValueRef index = LLVMBuildLoad2(c->b, c->i32, guess->index, ""), score = cg_variable(c, c->f32, cg_f32(c, -INFINITY));
    cg_branch any = cg_if(c, LLVMBuildICmp(c->b, LLVMIntSGE, index, cg_i32(c, 0), ""));
    LLVMBuildStore(c->b, cg_dot_row(c, &job->dot, cg_widen(c, index)), score);
    cg_end_if(c, &any);
    cg_store(c, LLVMBuildLoad2(c->b, c->f32, score, ""), cg_shared_word(c, c->code.thread, SHOWN), 4);
    cg_wait(c, -1);
    LLVMBuildStore(c->b, cg_f32(c, -INFINITY), score);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_widen(c, c->code.threads), 1);
    LLVMValueRef shown = cg_load(c, c->f32, cg_shared_word(c, LLVMBuildTrunc(c->b, loop.index, c->i32, ""), SHOWN), 4);
    LLVMBuildStore(c->b, larger(c, shown, LLVMBuildLoad2(c->b, c->f32, score, "")), score);
    cg_loop_end(c, &loop);
    return LLVMBuildLoad2(c->b, c->f32, score, "");
}

void screen_challenge(cg *c, const screen_job *job, LLVMValueRef row, cg_best *best) {
    cg_best_challenge(c, best, cg_dot_row(c, &job->dot, row), LLVMBuildTrunc(c->b, row, c->i32, ""));
}

cg_loop screen_rest_begin(cg *c, const screen_job *job) {
    LLVMValueRef mine = LLVMBuildICmp(c->b, LLVMIntEQ, cg_add(c, cg_widen(c, c->code.thread), cg_i64(c, 1)), cg_widen(c, c->code.threads), "");
    LLVMValueRef rows = cg_i64(c, job->rows);
    if (job->listed) mine = LLVMBuildAnd(c->b, mine, job->ends, "");
    return cg_loop_begin(c, LLVMBuildSelect(c->b, mine, cg_i64(c, job->rows / ROWS * ROWS), rows, ""), rows, 1);
}

void screen_rest(cg *c, const screen_job *job, cg_best *best) {
    cg_loop rest = screen_rest_begin(c, job);
    screen_challenge(c, job, rest.index, best);
    cg_loop_end(c, &rest);
}

/* Those of a group's rows, from `first` on, whose bounds reach both the threshold and the best score so far. */
static void emit_some_survivors(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef first, LLVMValueRef threshold, cg_best *best) {
    LLVMValueRef bounds = cg_load(c, screen_eight(c->f32, SCREEN_PARTS), cg_at(c, c->f32, x->bound, first), 4);
    cg_branch any = screen_if_any(c, screen_lanes(c, LLVMBuildFCmp(c->b, LLVMRealUGE, bounds, cg_splat(c, threshold, ROWS), "")));
    cg_loop loop = cg_loop_begin(c, first, cg_add(c, first, cg_i64(c, ROWS)), 1);
    LLVMValueRef bound = cg_load(c, c->f32, cg_at(c, c->f32, x->bound, loop.index), 4);
    LLVMValueRef limit = larger(c, LLVMBuildLoad2(c->b, c->f32, best->value, ""), threshold);
    cg_branch survives = cg_if(c, LLVMBuildFCmp(c->b, LLVMRealUGE, bound, limit, ""));
    screen_challenge(c, job, loop.index, best);
    cg_end_if(c, &survives);
    cg_loop_end(c, &loop);
    cg_end_if(c, &any);
}

/* Scores of all rows that can win. */
static void emit_survivors(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef threshold, cg_best *best) {
    cg_loop slabs = screen_taken_begin(c, job);
    screen_groups groups = screen_taken_groups_begin(c, job, &slabs);
    emit_some_survivors(c, job, x, cg_mul(c, groups.group, cg_i64(c, ROWS)), threshold, best);
    screen_groups_end(c, &groups);
    cg_loop_end(c, &slabs);
    screen_rest(c, job, best);
}

static void emit_screened(cg *c, void *user) {
    screen_job *job = user;
    LLVMValueRef scratch = screen_scratch_begin(c, job);
    cg_best guess = cg_best_new(c), best = cg_best_new(c);
    screen_x_loop x = screen_x_begin(c, job, scratch);
    screen_store_x(c, job, &x.at);
    screen_x_end(c, job, &x);
    screen_estimates(c, job, scratch);
    x = screen_x_begin(c, job, scratch);
    cg_dot_begin(c, &job->dot);
    emit_guess(c, &x.at, &guess);
    cg_best_clear(c, &best);
    emit_survivors(c, job, &x.at, emit_threshold(c, job, &guess), &best);
    cg_best_join(c, &best, cg_at(c, c->i32, c->code.args[job->out], x.loop.index));
    if (job->x_rows > 1) cg_wait(c, -1); /* the shared words are written again */
    screen_x_end(c, job, &x);
}

/* ---- the instruction ---- */

screen_job screen_job_of(const ir_inst *inst) {
    const ir_type *w = &inst->operands[1]->type;
    return (screen_job){.dot = {.dtype = w->dtype, .columns = w->dim[1], .rows = 1}, .rows = w->dim[0], .at = rt_screen_layout(w->dim[0], w->dim[1]),
                        .x_rows = inst->operands[0]->type.dim[0]};
}

void screen_args(cg *c, screen_job *job, const ir_inst *inst, cg_kernel *kernel) {
    cg_dot_args(c, &job->dot, kernel, cg_slot_of(c, inst->operands[1])->base, cg_slot_of(c, inst->operands[0])->base);
    job->screen = cg_kernel_arg(kernel, cg_slot_of(c, inst->operands[2])->base);
    cg_reserve_scratch(c, screen_scratch(job));
}

void screen_likely_args(cg *c, screen_job *job, const ir_inst *inst, cg_kernel *kernel, LLVMValueRef tokens, LLVMValueRef position) {
    bool all = inst->op != IR_SCREENED_GUESS && !ir_attr_find(inst, IR_ATTR_USUAL);
    job->tokens = cg_kernel_arg(kernel, tokens);
    job->position = cg_kernel_arg(kernel, position);
    job->usual = cg_kernel_arg(kernel, cg_i64(c, all ? job->rows + RT_LIKELY_BLOCK - 1 : ir_attr_int(inst, IR_ATTR_USUAL, 0))); /* in blocks */
}

void cg_emit_screened_argmax(cg *c, const ir_inst *inst) {
    const ir_type *w = &inst->operands[1]->type;
    bool guesses = inst->op == IR_SCREENED_GUESS;
    screen_job job = screen_job_of(inst);
    const cg_slot *reads[] = {cg_slot_of(c, inst->operands[0]), guesses ? cg_slot_of(c, inst->operands[3]) : NULL};
    const cg_slot *out = cg_slot_of(c, inst->results[0]), *writes[] = {out, &cg_dealt};
    cg_kernel kernel = {.count = 0};
    job.listed = job.x_rows == 1; /* so that an argmax and guesses have one kernel */
    cg_access(c, reads, guesses ? 2 : 1, writes, 2);
    screen_args(c, &job, inst, &kernel);
    job.out = cg_kernel_arg(&kernel, out->base);
    if (job.listed)
        screen_likely_args(c, &job, inst, &kernel, guesses ? cg_slot_of(c, inst->operands[3])->base : LLVMConstNull(c->ptr),
                           guesses ? cg_slot_of(c, inst->operands[4])->reg : cg_i32(c, 0));
    gm_string_printf(&kernel.key, "screened_argmax %s %lld %lld %lld", rt_dtype_of(w->dtype)->text, (long long)w->dim[0], (long long)w->dim[1], (long long)job.x_rows);
    cg_kernel_call(c, &kernel, "screened_argmax", emit_screened, &job);
    cg_barrier(c); /* the shared words may be written again */
}
