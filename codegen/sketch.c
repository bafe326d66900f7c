/* A guess of argmax(W·x), for where a wrong one costs only time: estimates from a sketch (two bits of each code and the scales,
 * runtime/screen.h), then the exact scores of the rows that every thread estimates highest.
 *
 * Which rows: a thread keeps the largest estimate of each vector lane of each slab, and takes the SCORED-th largest of those as its
 * threshold. At least that many rows reach it, and not many more.
 */
#include "codegen/screen.h"

enum { LANES = SCREEN_LANES, PARTS = SCREEN_PARTS, SCORED = 64, INT_BITS = 32 };

static LLVMTypeRef ints(cg *c) {
    return screen_eight(c->i32, 1);
}

/* How many of this thread's tops are at least `least`. */
static LLVMValueRef count_tops(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef least) {
    LLVMValueRef counts = cg_variable(c, ints(c), LLVMConstNull(ints(c)));
    cg_loop slabs = screen_taken_begin(c, job);
    LLVMValueRef tops = cg_load(c, ints(c), cg_at(c, ints(c), x->tops, slabs.index), 4);
    LLVMValueRef reach = LLVMBuildICmp(c->b, LLVMIntSGE, tops, cg_splat(c, least, LANES), ""), old = LLVMBuildLoad2(c->b, ints(c), counts, "");
    LLVMBuildStore(c->b, cg_add(c, old, LLVMBuildZExt(c->b, reach, ints(c), "")), counts);
    cg_loop_end(c, &slabs);
    LLVMValueRef all = LLVMBuildLoad2(c->b, ints(c), counts, "");
    return cg_intrinsic(c, "llvm.vector.reduce.add", ints(c), &all, 1);
}

/* The largest integer that SCORED of the tops reach, from its highest bit on; the least of all when there are fewer tops. */
static LLVMValueRef threshold_of(cg *c, const screen_job *job, const screen_x *x) {
    LLVMValueRef found = cg_variable(c, c->i32, cg_i32(c, INT32_MIN));
    cg_loop bits = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, INT_BITS), 1);
    LLVMValueRef old = LLVMBuildLoad2(c->b, c->i32, found, ""), bit = LLVMBuildTrunc(c->b, cg_sub(c, cg_i64(c, INT_BITS - 1), bits.index), c->i32, "");
    LLVMValueRef more = cg_add(c, old, LLVMBuildShl(c->b, cg_i32(c, 1), bit, ""));
    LLVMValueRef enough = LLVMBuildICmp(c->b, LLVMIntSGE, count_tops(c, job, x, more), cg_i32(c, SCORED), "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, enough, more, old, ""), found);
    cg_loop_end(c, &bits);
    return LLVMBuildLoad2(c->b, c->i32, found, "");
}

/* Scores those of LANES rows from `first` that reach the threshold. */
static void score_some(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef first, LLVMValueRef threshold, cg_best *best) {
    LLVMValueRef estimates = screen_ordered(c, cg_load(c, screen_eight(c->f32, 1), cg_at(c, c->f32, x->bound, first), 4));
    LLVMValueRef lanes = screen_lanes(c, LLVMBuildICmp(c->b, LLVMIntSGE, estimates, cg_splat(c, threshold, LANES), ""));
    cg_branch any = screen_if_any(c, lanes);
    cg_loop lane = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, LANES), 1);
    LLVMValueRef bit = LLVMBuildLShr(c->b, lanes, LLVMBuildTrunc(c->b, lane.index, LLVMTypeOf(lanes), ""), "");
    cg_branch reaches = cg_if(c, LLVMBuildTrunc(c->b, bit, LLVMInt1TypeInContext(c->context), ""));
    screen_challenge(c, job, cg_add(c, first, lane.index), best);
    cg_end_if(c, &reaches);
    cg_loop_end(c, &lane);
    cg_end_if(c, &any);
}

/* Scores all rows that reach the threshold, in the slabs where one does. */
static void score_rows(cg *c, const screen_job *job, const screen_x *x, LLVMValueRef threshold, cg_best *best) {
    cg_loop slabs = screen_taken_begin(c, job);
    LLVMValueRef tops = cg_load(c, ints(c), cg_at(c, ints(c), x->tops, slabs.index), 4);
    cg_branch any = screen_if_any(c, screen_lanes(c, LLVMBuildICmp(c->b, LLVMIntSGE, tops, cg_splat(c, threshold, LANES), "")));
    cg_loop groups = screen_taken_groups_begin(c, job, &slabs), parts = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, PARTS), 1);
    LLVMValueRef part = cg_add(c, cg_mul(c, groups.index, cg_i64(c, PARTS)), parts.index);
    score_some(c, job, x, cg_mul(c, part, cg_i64(c, LANES)), threshold, best);
    cg_loop_end(c, &parts);
    cg_loop_end(c, &groups);
    cg_end_if(c, &any);
    cg_loop_end(c, &slabs);
    screen_rest(c, job, best);
}

void screen_sketch(cg *c, void *user) {
    screen_job *job = user;
    LLVMValueRef scratch = screen_scratch_begin(c, job);
    screen_x x = screen_x_at(c, job, scratch, cg_i64(c, 0));
    cg_best best = cg_best_new(c);
    screen_store_x(c, job, &x);
    screen_estimates(c, job, scratch);
    cg_dot_begin(c, &job->dot);
    cg_best_clear(c, &best);
    score_rows(c, job, &x, threshold_of(c, job, &x), &best);
    cg_best_join(c, &best, c->code.args[job->out]);
}
