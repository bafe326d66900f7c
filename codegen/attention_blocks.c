/* attention for many tokens (prefill): tasks of one kv head and a block of tokens. Scores and weighted sums are oneDNN products on the
 * calling thread, the masked softmax between them is compiled. Products read f32 caches where they lie; other caches are widened a
 * panel of keys at a time.
 */
#include "codegen/attention.h"

enum { BLOCK_ROWS = 64, PANEL_KEYS = 128 };

typedef struct block {
    LLVMValueRef kv, first, count; /* kv head, first token, tokens */
    LLVMValueRef low, keys;        /* first visible key, number of keys */
    LLVMValueRef position, scores, rows, result, panel;
} block;

/* rows[(t, g)] = q, or out = rows: the two copies between [T,KV,G,D] and a dense block. */
static void copy_rows(cg *c, const attention_job *job, const block *b, LLVMValueRef tensor, const int64_t *stride, LLVMValueRef dense, bool in) {
    cg_loop token = cg_loop_begin(c, cg_i64(c, 0), b->count, 1);
    cg_loop member = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->group), 1);
    LLVMValueRef t = cg_add(c, b->first, token.index);
    LLVMValueRef far = cg_at(c, c->f32, tensor, attention_offset(c, t, stride[0], b->kv, stride[1], member.index, stride[2]));
    LLVMValueRef row = cg_add(c, cg_mul(c, token.index, cg_i64(c, job->group)), member.index);
    LLVMValueRef near = cg_at(c, c->f32, dense, cg_mul(c, row, cg_i64(c, job->d)));
    LLVMBuildMemCpy(c->b, in ? near : far, 4, in ? far : near, 4, cg_i64(c, job->d * 4));
    cg_loop_end(c, &member);
    cg_loop_end(c, &token);
}

static void zero_range(cg *c, LLVMValueRef row, LLVMValueRef from, LLVMValueRef to) {
    LLVMValueRef bytes = cg_mul(c, cg_sub(c, to, from), cg_i64(c, 4));
    LLVMBuildMemSet(c->b, cg_at(c, c->f32, row, from), LLVMConstInt(c->i8, 0, 0), bytes, 4);
}

/* Softmax of every row over what it sees; weights of the block's other keys become 0. */
static void softmax_block(cg *c, const attention_job *job, const block *b) {
    LLVMValueRef rows = cg_mul(c, b->count, cg_i64(c, job->group)), zero = cg_i64(c, 0);
    cg_loop row = cg_loop_begin(c, zero, rows, 1);
    LLVMValueRef t = LLVMBuildUDiv(c->b, row.index, cg_i64(c, job->group), "");
    LLVMValueRef p = cg_add(c, b->position, cg_add(c, b->first, t));
    LLVMValueRef low = cg_sub(c, attention_first_key(c, job, p), b->low), high = cg_add(c, cg_sub(c, p, b->low), cg_i64(c, 1));
    LLVMValueRef scores = cg_at(c, c->f32, b->scores, cg_mul(c, row.index, b->keys));
    attention_sum sum = attention_softmax(c, job, scores, low, high);
    LLVMValueRef factor = LLVMBuildFDiv(c->b, cg_f32(c, 1.0), sum.total, "");
    cg_loop scale = cg_loop_begin(c, low, high, 1);
    LLVMValueRef at = cg_at(c, c->f32, scores, scale.index);
    cg_store(c, LLVMBuildFMul(c->b, cg_load(c, c->f32, at, 4), factor, ""), at, 4);
    cg_loop_end(c, &scale);
    zero_range(c, scores, zero, low);
    zero_range(c, scores, high, b->keys);
    cg_loop_end(c, &row);
}

/* ---- products with a run of keys ---- */

/* Some keys of K or V as a matrix for rt_sgemm. */
typedef struct matrix {
    LLVMValueRef data;
    int64_t stride;
    bool by_column; /* [D,keys] instead of [keys,D] */
} matrix;

/* panel[i, j] = the cache's element (i of rows, j of columns), times its key's scale. */
static void widen_panel(cg *c, const attention_cache *cache, const attention_runs *run, LLVMValueRef kv, LLVMValueRef data, const matrix *out,
                        LLVMValueRef rows, LLVMValueRef columns) {
    cg_loop row = cg_loop_begin(c, cg_i64(c, 0), rows, 1);
    LLVMValueRef from = cg_mul(c, row.index, cg_i64(c, cache->stride[out->by_column ? 2 : 0])), to = cg_mul(c, row.index, cg_i64(c, out->stride));
    cg_loop column = cg_loop_begin(c, cg_i64(c, 0), columns, 1);
    LLVMValueRef x = attention_load(c, cache->dtype, data, cg_add(c, from, column.index), 1);
    if (cache->scale >= 0) {
        LLVMValueRef key = cg_add(c, run->slot, out->by_column ? column.index : row.index);
        LLVMValueRef at = attention_offset(c, key, cache->scale_stride[0], kv, cache->scale_stride[1], kv, 0);
        x = LLVMBuildFMul(c->b, x, cg_load(c, c->f32, cg_at(c, c->f32, c->code.args[cache->scale], at), 4), "");
    }
    cg_store(c, x, cg_at(c, c->f32, out->data, cg_add(c, to, column.index)), 4);
    cg_loop_end(c, &column);
    cg_loop_end(c, &row);
}

static matrix matrix_of(cg *c, const attention_job *job, const attention_cache *cache, const attention_runs *run, const block *b) {
    bool by_column = cache->stride[2] != 1 && job->d != 1;
    LLVMValueRef at = attention_offset(c, run->slot, cache->stride[0], b->kv, cache->stride[1], b->kv, 0), d = cg_i64(c, job->d);
    LLVMValueRef data = cg_at(c, cg_type(c, cache->dtype), c->code.args[cache->data], at);
    if (cache->dtype == RT_F32) return (matrix){data, cache->stride[by_column ? 2 : 0], by_column};
    matrix out = {b->panel, by_column ? PANEL_KEYS : job->d, by_column};
    widen_panel(c, cache, run, b->kv, data, &out, by_column ? d : run->count, by_column ? run->count : d);
    return out;
}

static void product(cg *c, LLVMValueRef flags, LLVMValueRef m, LLVMValueRef n, LLVMValueRef k, LLVMValueRef x, LLVMValueRef ldx, const matrix *y,
                    LLVMValueRef z, LLVMValueRef ldz) {
    LLVMValueRef args[] = {flags, m, n, k, x, ldx, y->data, cg_i64(c, y->stride), z, ldz};
    cg_host_call(c, "rt_sgemm", c->void_t, args, 10);
}

static int64_t panel_keys(const attention_cache *cache) {
    return cache->dtype == RT_F32 ? 0 : PANEL_KEYS;
}

static void score_block(cg *c, const attention_job *job, const block *b, LLVMValueRef rows) {
    LLVMValueRef d = cg_i64(c, job->d);
    attention_runs run = attention_runs_begin(c, job, b->low, b->keys, panel_keys(&job->k));
    matrix k = matrix_of(c, job, &job->k, &run, b);
    product(c, cg_i32(c, k.by_column ? 0 : RT_SGEMM_TRANSPOSED), rows, run.count, d, b->rows, d, &k, cg_at(c, c->f32, b->scores, run.first), b->keys);
    attention_runs_end(c, &run);
}

static void weigh_block(cg *c, const attention_job *job, const block *b, LLVMValueRef rows) {
    LLVMValueRef d = cg_i64(c, job->d);
    attention_runs run = attention_runs_begin(c, job, b->low, b->keys, panel_keys(&job->v));
    matrix v = matrix_of(c, job, &job->v, &run, b);
    LLVMValueRef start = LLVMBuildICmp(c->b, LLVMIntEQ, run.first, cg_i64(c, 0), "");
    LLVMValueRef flags = LLVMBuildSelect(c->b, start, cg_i32(c, 0), cg_i32(c, RT_SGEMM_ADD), "");
    product(c, flags, rows, d, run.count, cg_at(c, c->f32, b->scores, run.first), b->keys, &v, b->result, d);
    attention_runs_end(c, &run);
}

/* ---- a task ---- */

static void emit_block(cg *c, const attention_job *job, block *b) {
    LLVMValueRef rows = cg_mul(c, b->count, cg_i64(c, job->group));
    LLVMValueRef last = cg_add(c, b->position, cg_add(c, b->first, b->count)); /* one past the last visible key */
    b->low = attention_first_key(c, job, cg_add(c, b->position, b->first));
    b->keys = cg_sub(c, last, b->low);
    copy_rows(c, job, b, c->code.args[job->q], job->q_stride, b->rows, true);
    score_block(c, job, b, rows);
    softmax_block(c, job, b);
    weigh_block(c, job, b, rows);
    copy_rows(c, job, b, c->code.args[job->out], job->out_stride, b->result, false);
}

static void open_scratch(cg *c, const attention_job *job, int64_t tokens, block *b) {
    attention_job one_block = *job;
    one_block.tokens = tokens;
    int64_t rows = tokens * job->group, dense = rows * job->d * 4, scores = rows * attention_most_keys(&one_block) * 4;
    int64_t panel = panel_keys(&job->k) * job->d * 4;
    b->rows = cg_scratch(c, 2 * dense + scores + panel);
    b->result = cg_at(c, c->i8, b->rows, cg_i64(c, dense));
    b->scores = cg_at(c, c->i8, b->rows, cg_i64(c, 2 * dense));
    b->panel = cg_at(c, c->i8, b->rows, cg_i64(c, 2 * dense + scores));
}

void attention_blocks(cg *c, const attention_job *job) {
    int64_t tokens = job->group >= BLOCK_ROWS ? 1 : BLOCK_ROWS / job->group;
    block b = {.position = cg_widen(c, c->code.args[job->position])};
    open_scratch(c, job, tokens, &b);
    LLVMValueRef all = cg_dim(c, job->tokens), step = cg_i64(c, tokens), heads = cg_i64(c, job->kv_heads);
    LLVMValueRef blocks = LLVMBuildSDiv(c->b, cg_add(c, all, cg_i64(c, tokens - 1)), step, "");
    LLVMValueRef threads = cg_widen(c, c->code.threads);
    /* Dealt out in turn: later blocks see more keys. */
    cg_loop task = cg_loop_begin(c, cg_widen(c, c->code.thread), cg_mul(c, blocks, heads), 1);
    task.step = threads;
    b.kv = LLVMBuildURem(c->b, task.index, heads, "");
    b.first = cg_mul(c, LLVMBuildUDiv(c->b, task.index, heads, ""), step);
    b.count = cg_min(c, step, cg_sub(c, all, b.first));
    emit_block(c, job, &b);
    cg_loop_end(c, &task);
}
