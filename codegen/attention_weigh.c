/* Softmax of some rows' scores in a panel, a vector of keys at a time, and what becomes of the weights: floats in
 * place, or integers or bf16 as the product that follows takes them.
 *
 * A weight is 2^((score - top)·unit): the factor of scores and that of e are one. Vectors of which the row sees no key
 * are left out; in the first and the last one of the others the scores of keys that it does not see become the least
 * one there is, and their weights 0.
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

LLVMValueRef attention_score_at(cg *c, const attention_rows *rows, int i, LLVMValueRef index) {
    return cg_at(c, c->f32, rows->scores, cg_add(c, index, cg_i64(c, i * rows->keys)));
}

static LLVMValueRef load(cg *c, const attention_rows *rows, int i, LLVMValueRef index) {
    return cg_load(c, cg_vector(c, c->f32), attention_score_at(c, rows, i, index), 4);
}

attention_rows attention_seen_rows(cg *c, int count, LLVMValueRef scores, LLVMValueRef low, LLVMValueRef high,
                                   int64_t keys) {
    GM_ASSERT(count <= ATTENTION_TOGETHER);
    return (attention_rows){.count = count,
                            .scores = scores,
                            .low = low,
                            .high = high,
                            .from = attention_whole(c, low, c->lanes),
                            .to = attention_whole(c, cg_add(c, high, cg_i64(c, c->lanes - 1)), c->lanes),
                            .more = cg_f32(c, 0),
                            .keys = keys};
}

/* Of the vector at `index`, scores of keys that the rows do not see become the least one there is. */
static void hide_unseen(cg *c, const attention_rows *rows, LLVMValueRef index) {
    LLVMValueRef number[MAX_LANES], ends[] = {rows->low, rows->high};
    for (int i = 0; i < c->lanes; i++) number[i] = cg_i32(c, i);
    LLVMValueRef key =
        cg_add(c, LLVMConstVector(number, (unsigned)c->lanes), cg_spread(c, LLVMBuildTrunc(c->b, index, c->i32, "")));
    for (int i = 0; i < 2; i++) ends[i] = cg_spread(c, LLVMBuildTrunc(c->b, ends[i], c->i32, ""));
    LLVMValueRef sees = LLVMBuildAnd(c->b, LLVMBuildICmp(c->b, LLVMIntSGE, key, ends[0], ""),
                                     LLVMBuildICmp(c->b, LLVMIntSLT, key, ends[1], ""), "");
    for (int i = 0; i < rows->count; i++) {
        LLVMValueRef s = LLVMBuildSelect(c->b, sees, load(c, rows, i, index), cg_spread(c, cg_f32(c, -FLT_MAX)), "");
        cg_store(c, s, attention_score_at(c, rows, i, index), 4);
    }
}

/* Scores as they are compared: with a cap and the like. */
static void prepare(cg *c, const attention_job *job, const attention_rows *rows) {
    for (int i = 0; i < rows->count && !is_plain(job); i++) {
        cg_loop each = cg_loop_begin(c, rows->from, rows->to, 1);
        LLVMValueRef at = attention_score_at(c, rows, i, each.index);
        cg_store(c, attention_score(c, job, cg_load(c, c->f32, at, 4)), at, 4);
        cg_loop_end(c, &each);
    }
    hide_unseen(c, rows, rows->from);
    hide_unseen(c, rows, cg_sub(c, rows->to, cg_i64(c, c->lanes)));
}

LLVMValueRef attention_vector(cg *c, double each) {
    return cg_variable(c, cg_vector(c, c->f32), cg_spread(c, cg_f32(c, each)));
}

void attention_vector_top(cg *c, LLVMValueRef variable, LLVMValueRef x) {
    LLVMBuildStore(c->b, attention_larger(c, x, LLVMBuildLoad2(c->b, cg_vector(c, c->f32), variable, "")), variable);
}

void attention_vector_add(cg *c, LLVMValueRef variable, LLVMValueRef x) {
    LLVMBuildStore(c->b, LLVMBuildFAdd(c->b, LLVMBuildLoad2(c->b, cg_vector(c, c->f32), variable, ""), x, ""),
                   variable);
}

LLVMValueRef attention_vector_largest(cg *c, LLVMValueRef variable) {
    LLVMValueRef all = LLVMBuildLoad2(c->b, cg_vector(c, c->f32), variable, "");
    LLVMValueRef most = cg_intrinsic(c, "llvm.vector.reduce.fmax", LLVMTypeOf(all), &all, 1);
    LLVMSetFastMathFlags(most, LLVMFastMathNoNaNs | LLVMFastMathNoSignedZeros);
    return most;
}

LLVMValueRef attention_vector_sum(cg *c, LLVMValueRef variable) {
    return cg_sum_lanes(c, LLVMBuildLoad2(c->b, cg_vector(c, c->f32), variable, ""));
}

/* top[i]: the larger of it and the row's largest score. */
static void raise_tops(cg *c, const attention_rows *rows, LLVMValueRef *top) {
    LLVMValueRef most[ATTENTION_TOGETHER];
    for (int i = 0; i < rows->count; i++) most[i] = attention_vector(c, -FLT_MAX);
    cg_loop scan = cg_loop_begin(c, rows->from, rows->to, c->lanes);
    for (int i = 0; i < rows->count; i++) attention_vector_top(c, most[i], load(c, rows, i, scan.index));
    cg_loop_end(c, &scan);
    for (int i = 0; i < rows->count; i++) top[i] = attention_larger(c, attention_vector_largest(c, most[i]), top[i]);
}

void attention_weigh(cg *c, const attention_job *job, const attention_rows *rows, LLVMValueRef *top,
                     attention_put_fn put, void *user, LLVMValueRef *sum) {
    LLVMValueRef total[ATTENTION_TOGETHER], less[ATTENTION_TOGETHER];
    prepare(c, job, rows);
    raise_tops(c, rows, top);
    for (int i = 0; i < rows->count; i++) {
        total[i] = attention_vector(c, 0);
        less[i] = cg_spread(c, LLVMBuildFAdd(c->b, top[i], rows->more, ""));
    }
    cg_loop loop = cg_loop_begin(c, rows->from, rows->to, c->lanes);
    for (int i = 0; i < rows->count; i++) {
        LLVMValueRef score = load(c, rows, i, loop.index),
                     weight = attention_weight(c, attention_unit(job), score, less[i]);
        attention_vector_add(c, total[i], weight);
        put(c, user, i, loop.index, weight,
            LLVMBuildFCmp(c->b, LLVMRealUGT, score, cg_spread(c, cg_f32(c, -FLT_MAX)), ""));
    }
    cg_loop_end(c, &loop);
    for (int i = 0; i < rows->count; i++) sum[i] = attention_vector_sum(c, total[i]);
}
