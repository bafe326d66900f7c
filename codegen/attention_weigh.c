/* Softmax of one row's scores in a panel, a vector of keys at a time, and what becomes of the weights: floats in place, or integers or bf16 as the
 * product that follows takes them.
 *
 * A weight is 2^((score - top)·unit): the factor of scores and that of e are one. Only rows that do not see all of the panel's keys look at which:
 * there the others' scores become the least one there is, and their weights 0.
 */
#include "codegen/attention.h"
#include "codegen/integer.h"

#include <float.h>

enum { UNROLL = 8, MAX_LANES = 16 };

/* Do scores need no more than a factor? */
static bool is_plain(const attention_job *job) {
    return job->cap == 0 && job->factor > 0;
}

double attention_unit(const attention_job *job) {
    return is_plain(job) ? job->factor * ATTENTION_LOG2_E : ATTENTION_LOG2_E;
}

static LLVMValueRef vector_at(cg *c, LLVMValueRef floats, LLVMValueRef index) {
    return cg_at(c, c->f32, floats, index);
}

static LLVMValueRef load(cg *c, LLVMValueRef floats, LLVMValueRef index) {
    return cg_load(c, vector(c, c->f32), vector_at(c, floats, index), 4);
}

/* Lanes of keys `index` and on: does the row see them? */
static LLVMValueRef sees(cg *c, const attention_row *row, LLVMValueRef index) {
    LLVMValueRef number[MAX_LANES], ends[] = {row->low, row->high};
    for (int i = 0; i < c->lanes; i++) number[i] = cg_i32(c, i);
    LLVMValueRef key = cg_add(c, LLVMConstVector(number, (unsigned)c->lanes), splat(c, LLVMBuildTrunc(c->b, index, c->i32, "")));
    for (int i = 0; i < 2; i++) ends[i] = splat(c, LLVMBuildTrunc(c->b, ends[i], c->i32, ""));
    return LLVMBuildAnd(c->b, LLVMBuildICmp(c->b, LLVMIntSGE, key, ends[0], ""), LLVMBuildICmp(c->b, LLVMIntSLT, key, ends[1], ""), "");
}

/* Scores as they are compared: with a cap and the like, and the least there is of keys that the row does not see. */
static void prepare(cg *c, const attention_job *job, const attention_row *row) {
    LLVMValueRef zero = cg_i64(c, 0), keys = cg_i64(c, row->keys);
    if (!is_plain(job)) {
        cg_loop each = cg_loop_begin(c, zero, keys, 1);
        LLVMValueRef at = cg_at(c, c->f32, row->scores, each.index);
        cg_store(c, attention_score(c, job, cg_load(c, c->f32, at, 4)), at, 4);
        cg_loop_end(c, &each);
    }
    LLVMValueRef cut_low = LLVMBuildICmp(c->b, LLVMIntSGT, row->low, zero, ""), cut_high = LLVMBuildICmp(c->b, LLVMIntSLT, row->high, keys, "");
    cg_branch some = cg_if(c, LLVMBuildOr(c->b, cut_low, cut_high, ""));
    cg_loop loop = cg_loop_begin(c, zero, keys, c->lanes);
    LLVMValueRef s = LLVMBuildSelect(c->b, sees(c, row, loop.index), load(c, row->scores, loop.index), splat(c, cg_f32(c, -FLT_MAX)), "");
    cg_store(c, s, vector_at(c, row->scores, loop.index), 4);
    cg_loop_end_unrolled(c, &loop, UNROLL);
    cg_end_if(c, &some);
}

LLVMValueRef attention_vector(cg *c, double each) {
    return cg_variable(c, vector(c, c->f32), splat(c, cg_f32(c, each)));
}

void attention_vector_top(cg *c, LLVMValueRef variable, LLVMValueRef x) {
    LLVMBuildStore(c->b, attention_larger(c, x, LLVMBuildLoad2(c->b, vector(c, c->f32), variable, "")), variable);
}

void attention_vector_add(cg *c, LLVMValueRef variable, LLVMValueRef x) {
    LLVMBuildStore(c->b, LLVMBuildFAdd(c->b, LLVMBuildLoad2(c->b, vector(c, c->f32), variable, ""), x, ""), variable);
}

LLVMValueRef attention_vector_largest(cg *c, LLVMValueRef variable) {
    LLVMValueRef all = LLVMBuildLoad2(c->b, vector(c, c->f32), variable, "");
    LLVMValueRef most = cg_intrinsic(c, "llvm.vector.reduce.fmax", LLVMTypeOf(all), &all, 1);
    LLVMSetFastMathFlags(most, LLVMFastMathNoNaNs | LLVMFastMathNoSignedZeros);
    return most;
}

LLVMValueRef attention_vector_sum(cg *c, LLVMValueRef variable) {
    return cg_sum_lanes(c, LLVMBuildLoad2(c->b, vector(c, c->f32), variable, ""));
}

static LLVMValueRef top_of(cg *c, const attention_row *row, LLVMValueRef before) {
    LLVMValueRef most = attention_vector(c, -FLT_MAX);
    cg_loop scan = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, row->keys), c->lanes);
    attention_vector_top(c, most, load(c, row->scores, scan.index));
    cg_loop_end_unrolled(c, &scan, UNROLL);
    return attention_larger(c, attention_vector_largest(c, most), before);
}

LLVMValueRef attention_weigh(cg *c, const attention_job *job, const attention_row *row, LLVMValueRef *top, attention_put_fn put, void *user) {
    LLVMValueRef total = attention_vector(c, 0);
    prepare(c, job, row);
    *top = top_of(c, row, *top);
    LLVMValueRef less = splat(c, LLVMBuildFAdd(c->b, *top, row->more, ""));
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, row->keys), c->lanes);
    LLVMValueRef score = load(c, row->scores, loop.index), weight = attention_weight(c, attention_unit(job), score, less);
    attention_vector_add(c, total, weight);
    put(c, user, loop.index, weight, LLVMBuildFCmp(c->b, LLVMRealUGT, score, splat(c, cg_f32(c, -FLT_MAX)), ""));
    cg_loop_end_unrolled(c, &loop, UNROLL);
    return attention_vector_sum(c, total);
}
