/* Softmax of one row's scores in a panel, a vector of keys at a time, and what becomes of the weights: floats in place, or integers or bf16 as the
 * product that follows takes them.
 *
 * A weight is 2^((score - top)·unit): the factor of scores and that of e are one. Vectors of which the row sees no key are left out; in
 * the first and the last one of the others the scores of keys that it does not see become the least one there is, and their weights 0.
 */
#include "codegen/attention.h"
#include "codegen/integer.h"

#include <float.h>

enum { MAX_LANES = 16 };

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

attention_row attention_seen_row(cg *c, LLVMValueRef scores, LLVMValueRef low, LLVMValueRef high, int64_t keys) {
    return (attention_row){.scores = scores, .low = low, .high = high, .from = attention_whole(c, low, c->lanes),
                           .to = attention_whole(c, cg_add(c, high, cg_i64(c, c->lanes - 1)), c->lanes), .more = cg_f32(c, 0), .keys = keys};
}

/* Of the vector at `index`, scores of keys that the row does not see become the least one there is. */
static void hide_unseen(cg *c, const attention_row *row, LLVMValueRef index) {
    LLVMValueRef number[MAX_LANES], ends[] = {row->low, row->high};
    for (int i = 0; i < c->lanes; i++) number[i] = cg_i32(c, i);
    LLVMValueRef key = cg_add(c, LLVMConstVector(number, (unsigned)c->lanes), splat(c, LLVMBuildTrunc(c->b, index, c->i32, "")));
    for (int i = 0; i < 2; i++) ends[i] = splat(c, LLVMBuildTrunc(c->b, ends[i], c->i32, ""));
    LLVMValueRef sees = LLVMBuildAnd(c->b, LLVMBuildICmp(c->b, LLVMIntSGE, key, ends[0], ""), LLVMBuildICmp(c->b, LLVMIntSLT, key, ends[1], ""), "");
    LLVMValueRef s = LLVMBuildSelect(c->b, sees, load(c, row->scores, index), splat(c, cg_f32(c, -FLT_MAX)), "");
    cg_store(c, s, vector_at(c, row->scores, index), 4);
}

/* Scores as they are compared: with a cap and the like. */
static void prepare(cg *c, const attention_job *job, const attention_row *row) {
    if (!is_plain(job)) {
        cg_loop each = cg_loop_begin(c, row->from, row->to, 1);
        LLVMValueRef at = cg_at(c, c->f32, row->scores, each.index);
        cg_store(c, attention_score(c, job, cg_load(c, c->f32, at, 4)), at, 4);
        cg_loop_end(c, &each);
    }
    hide_unseen(c, row, row->from);
    hide_unseen(c, row, cg_sub(c, row->to, cg_i64(c, c->lanes)));
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
    cg_loop scan = cg_loop_begin(c, row->from, row->to, c->lanes);
    attention_vector_top(c, most, load(c, row->scores, scan.index));
    cg_loop_end(c, &scan);
    return attention_larger(c, attention_vector_largest(c, most), before);
}

LLVMValueRef attention_weigh(cg *c, const attention_job *job, const attention_row *row, LLVMValueRef *top, attention_put_fn put, void *user) {
    LLVMValueRef total = attention_vector(c, 0);
    prepare(c, job, row);
    *top = top_of(c, row, *top);
    LLVMValueRef less = splat(c, LLVMBuildFAdd(c->b, *top, row->more, ""));
    cg_loop loop = cg_loop_begin(c, row->from, row->to, c->lanes);
    LLVMValueRef score = load(c, row->scores, loop.index), weight = attention_weight(c, attention_unit(job), score, less);
    attention_vector_add(c, total, weight);
    put(c, user, loop.index, weight, LLVMBuildFCmp(c->b, LLVMRealUGT, score, splat(c, cg_f32(c, -FLT_MAX)), ""));
    cg_loop_end(c, &loop);
    return attention_vector_sum(c, total);
}
