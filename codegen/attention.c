/* attention: softmax(mask(scale·q·Kᵀ))·V over the visible keys only.
 *
 * Few queries (decode): each thread takes query heads; scores by vector dot products, then an exponential pass, then the weighted
 * sum of V in blocks of columns held in registers. Many queries (prefill): tasks of one kv head and a block of tokens; scores and
 * weighted sums are oneDNN products on the calling thread, the masked softmax between them is compiled. Either way a task reads
 * just the keys that some row of it sees, so local layers cost their window.
 */
#include "codegen/cg.h"

#include <math.h>

enum { BLOCK_ROWS = 64, COLUMN_BLOCK = 4 };

typedef struct attention_job {
    ir_dim tokens;
    int64_t kv_heads, group, d, capacity;
    int64_t q_stride[4], out_stride[4], k_stride[3], v_stride[3];
    double scale, cap;
    int64_t window;
    int q, k, v, position, out;
    bool single;
} attention_job;

static LLVMTypeRef lanes_type(cg *c) {
    return LLVMVectorType(c->f32, (unsigned)c->lanes);
}

static LLVMValueRef offset4(cg *c, LLVMValueRef a, int64_t sa, LLVMValueRef b, int64_t sb, LLVMValueRef g, int64_t sg) {
    return cg_add(c, cg_mul(c, a, cg_i64(c, sa)), cg_add(c, cg_mul(c, b, cg_i64(c, sb)), cg_mul(c, g, cg_i64(c, sg))));
}

/* First key that the query at position p sees. */
static LLVMValueRef first_key(cg *c, const attention_job *job, LLVMValueRef p) {
    if (!job->window) return cg_i64(c, 0);
    return cg_max(c, cg_i64(c, 0), cg_sub(c, p, cg_i64(c, job->window - 1)));
}

/* scale and softcap of one score. */
static LLVMValueRef finish_score(cg *c, const attention_job *job, LLVMValueRef s) {
    s = LLVMBuildFMul(c->b, s, cg_f32(c, job->scale), "");
    if (job->cap == 0) return s;
    LLVMValueRef cap = cg_f32(c, job->cap);
    return LLVMBuildFMul(c->b, cg_tanh(c, LLVMBuildFDiv(c->b, s, cap, "")), cap, "");
}

/* ---- softmax of scores[low, high) in place; returns 1 / sum ---- */

static LLVMValueRef softmax_row(cg *c, const attention_job *job, LLVMValueRef scores, LLVMValueRef low, LLVMValueRef high) {
    LLVMFastMathFlags fast = LLVMFastMathNoNaNs | LLVMFastMathNoSignedZeros;
    LLVMValueRef top = cg_variable(c, c->f32, cg_f32(c, -INFINITY));
    cg_loop scan = cg_loop_begin(c, low, high, 1);
    LLVMValueRef at = cg_at(c, c->f32, scores, scan.index), s = finish_score(c, job, cg_load(c, c->f32, at, 4));
    cg_store(c, s, at, 4);
    LLVMValueRef old = LLVMBuildLoad2(c->b, c->f32, top, ""), larger = LLVMBuildFCmp(c->b, LLVMRealOGT, s, old, "");
    LLVMValueRef kept = LLVMBuildSelect(c->b, larger, s, old, "");
    LLVMSetFastMathFlags(larger, fast);
    LLVMSetFastMathFlags(kept, fast);
    LLVMBuildStore(c->b, kept, top);
    cg_loop_end(c, &scan);
    LLVMValueRef maximum = LLVMBuildLoad2(c->b, c->f32, top, ""), total = cg_variable(c, c->f32, cg_f32(c, 0));
    cg_loop weigh = cg_loop_begin(c, low, high, 1);
    at = cg_at(c, c->f32, scores, weigh.index);
    LLVMValueRef e = cg_exp(c, LLVMBuildFSub(c->b, cg_load(c, c->f32, at, 4), maximum, ""));
    cg_store(c, e, at, 4);
    LLVMValueRef sum = LLVMBuildFAdd(c->b, LLVMBuildLoad2(c->b, c->f32, total, ""), e, "");
    LLVMSetFastMathFlags(sum, LLVMFastMathAllowReassoc | LLVMFastMathNoSignedZeros);
    LLVMBuildStore(c->b, sum, total);
    cg_loop_end(c, &weigh);
    return LLVMBuildFDiv(c->b, cg_f32(c, 1.0), LLVMBuildLoad2(c->b, c->f32, total, ""), "");
}

/* ---- few queries ---- */

static LLVMValueRef dot(cg *c, const attention_job *job, LLVMValueRef q, LLVMValueRef k) {
    LLVMValueRef acc[4];
    int64_t vectors = job->d / c->lanes, used = vectors < 4 ? vectors : 4;
    for (int64_t i = 0; i < vectors; i++) {
        LLVMValueRef at = cg_i64(c, i * c->lanes);
        LLVMValueRef x = cg_load(c, lanes_type(c), cg_at(c, c->f32, q, at), 4), y = cg_load(c, lanes_type(c), cg_at(c, c->f32, k, at), 4);
        acc[i % 4] = i < 4 ? LLVMBuildFMul(c->b, x, y, "") : cg_fma(c, x, y, acc[i % 4]);
    }
    for (int64_t i = 1; i < used; i++) acc[0] = LLVMBuildFAdd(c->b, acc[0], acc[i], "");
    LLVMValueRef sum = vectors ? cg_sum_lanes(c, acc[0]) : cg_f32(c, 0);
    for (int64_t i = vectors * c->lanes; i < job->d; i++) {
        LLVMValueRef at = cg_i64(c, i);
        sum = cg_fma(c, cg_load(c, c->f32, cg_at(c, c->f32, q, at), 4), cg_load(c, c->f32, cg_at(c, c->f32, k, at), 4), sum);
    }
    return sum;
}

/* out[from, from + count·width) = factor · Σ_j weight[j]·V[j], `width` floats to a register. */
static void weigh_columns(cg *c, const attention_job *job, LLVMValueRef weights, LLVMValueRef low, LLVMValueRef high,
                          LLVMValueRef values, LLVMValueRef factor, LLVMValueRef out, int64_t from, int64_t count, int width) {
    LLVMTypeRef type = width == 1 ? c->f32 : LLVMVectorType(c->f32, (unsigned)width);
    LLVMValueRef acc[16];
    for (int64_t i = 0; i < count; i++) acc[i] = cg_variable(c, type, LLVMConstNull(type));
    cg_loop loop = cg_loop_begin(c, low, high, 1);
    LLVMValueRef p = cg_load(c, c->f32, cg_at(c, c->f32, weights, loop.index), 4);
    LLVMValueRef row = cg_at(c, c->f32, values, cg_mul(c, loop.index, cg_i64(c, job->v_stride[0])));
    if (width > 1) p = cg_splat(c, p, width);
    for (int64_t i = 0; i < count; i++) {
        LLVMValueRef v = cg_load(c, type, cg_at(c, c->f32, row, cg_i64(c, from + i * width)), 4);
        LLVMBuildStore(c->b, cg_fma(c, p, v, LLVMBuildLoad2(c->b, type, acc[i], "")), acc[i]);
    }
    cg_loop_end(c, &loop);
    if (width > 1) factor = cg_splat(c, factor, width);
    for (int64_t i = 0; i < count; i++) {
        LLVMValueRef sum = LLVMBuildFMul(c->b, LLVMBuildLoad2(c->b, type, acc[i], ""), factor, "");
        cg_store(c, sum, cg_at(c, c->f32, out, cg_i64(c, from + i * width)), 4);
    }
}

static void weigh_values(cg *c, const attention_job *job, LLVMValueRef weights, LLVMValueRef low, LLVMValueRef high,
                         LLVMValueRef values, LLVMValueRef factor, LLVMValueRef out) {
    int64_t vectors = job->d / c->lanes, block = 2 * COLUMN_BLOCK;
    for (int64_t i = 0; i < vectors; i += block) {
        int64_t count = vectors - i < block ? vectors - i : block;
        weigh_columns(c, job, weights, low, high, values, factor, out, i * c->lanes, count, c->lanes);
    }
    for (int64_t i = vectors * c->lanes; i < job->d; i += 8) {
        int64_t count = job->d - i < 8 ? job->d - i : 8;
        weigh_columns(c, job, weights, low, high, values, factor, out, i, count, 1);
    }
}

static void emit_single(cg *c, attention_job *job) {
    LLVMValueRef scores = cg_scratch(c, job->capacity * 4), from, to, one = cg_i64(c, 1);
    LLVMValueRef position = cg_widen(c, c->code.args[job->position]);
    LLVMValueRef low = first_key(c, job, position), high = cg_add(c, position, one);
    cg_share(c, cg_i64(c, job->kv_heads * job->group), 1, &from, &to);
    cg_loop head = cg_loop_begin(c, from, to, 1);
    LLVMValueRef group = cg_i64(c, job->group), zero = cg_i64(c, 0);
    LLVMValueRef kv = LLVMBuildUDiv(c->b, head.index, group, ""), g = LLVMBuildURem(c->b, head.index, group, "");
    LLVMValueRef q = cg_at(c, c->f32, c->code.args[job->q], offset4(c, zero, 0, kv, job->q_stride[1], g, job->q_stride[2]));
    LLVMValueRef out = cg_at(c, c->f32, c->code.args[job->out], offset4(c, zero, 0, kv, job->out_stride[1], g, job->out_stride[2]));
    LLVMValueRef keys = cg_at(c, c->f32, c->code.args[job->k], cg_mul(c, kv, cg_i64(c, job->k_stride[1])));
    LLVMValueRef values = cg_at(c, c->f32, c->code.args[job->v], cg_mul(c, kv, cg_i64(c, job->v_stride[1])));
    cg_loop key = cg_loop_begin(c, low, high, 1);
    LLVMValueRef k = cg_at(c, c->f32, keys, cg_mul(c, key.index, cg_i64(c, job->k_stride[0])));
    cg_store(c, dot(c, job, q, k), cg_at(c, c->f32, scores, key.index), 4);
    cg_loop_end(c, &key);
    LLVMValueRef factor = softmax_row(c, job, scores, low, high);
    weigh_values(c, job, scores, low, high, values, factor, out);
    cg_loop_end(c, &head);
}

/* ---- many queries ---- */

typedef struct block {
    LLVMValueRef kv, first, count; /* kv head, first token, tokens */
    LLVMValueRef low, keys;        /* first visible key, number of keys */
    LLVMValueRef position, scores, rows, result;
} block;

/* rows[(t, g)] = q, or out = rows: the two copies between [T,KV,G,D] and a dense block. */
static void copy_rows(cg *c, const attention_job *job, const block *b, LLVMValueRef tensor, const int64_t *stride, LLVMValueRef dense, bool in) {
    cg_loop token = cg_loop_begin(c, cg_i64(c, 0), b->count, 1);
    cg_loop member = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->group), 1);
    LLVMValueRef t = cg_add(c, b->first, token.index);
    LLVMValueRef far = cg_at(c, c->f32, tensor, offset4(c, t, stride[0], b->kv, stride[1], member.index, stride[2]));
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
    LLVMValueRef low = cg_sub(c, first_key(c, job, p), b->low), high = cg_add(c, cg_sub(c, p, b->low), cg_i64(c, 1));
    LLVMValueRef scores = cg_at(c, c->f32, b->scores, cg_mul(c, row.index, b->keys));
    LLVMValueRef factor = softmax_row(c, job, scores, low, high);
    cg_loop scale = cg_loop_begin(c, low, high, 1);
    LLVMValueRef at = cg_at(c, c->f32, scores, scale.index);
    cg_store(c, LLVMBuildFMul(c->b, cg_load(c, c->f32, at, 4), factor, ""), at, 4);
    cg_loop_end(c, &scale);
    zero_range(c, scores, zero, low);
    zero_range(c, scores, high, b->keys);
    cg_loop_end(c, &row);
}

static void product(cg *c, bool transposed, LLVMValueRef m, LLVMValueRef n, LLVMValueRef k, LLVMValueRef x, LLVMValueRef ldx,
                    LLVMValueRef y, LLVMValueRef ldy, LLVMValueRef z, LLVMValueRef ldz) {
    LLVMValueRef args[] = {cg_i32(c, transposed), m, n, k, x, ldx, y, ldy, z, ldz};
    cg_host_call(c, "rt_sgemm", c->void_t, args, 10);
}

static void emit_block(cg *c, const attention_job *job, block *b) {
    LLVMValueRef rows = cg_mul(c, b->count, cg_i64(c, job->group)), d = cg_i64(c, job->d);
    LLVMValueRef last = cg_add(c, b->position, cg_add(c, b->first, b->count)); /* one past the last visible key */
    b->low = first_key(c, job, cg_add(c, b->position, b->first));
    b->keys = cg_sub(c, last, b->low);
    copy_rows(c, job, b, c->code.args[job->q], job->q_stride, b->rows, true);
    LLVMValueRef keys = cg_at(c, c->f32, c->code.args[job->k], offset4(c, b->low, job->k_stride[0], b->kv, job->k_stride[1], b->kv, 0));
    LLVMValueRef values = cg_at(c, c->f32, c->code.args[job->v], offset4(c, b->low, job->v_stride[0], b->kv, job->v_stride[1], b->kv, 0));
    product(c, true, rows, b->keys, d, b->rows, d, keys, cg_i64(c, job->k_stride[0]), b->scores, b->keys);
    softmax_block(c, job, b);
    product(c, false, rows, d, b->keys, b->scores, b->keys, values, cg_i64(c, job->v_stride[0]), b->result, d);
    copy_rows(c, job, b, c->code.args[job->out], job->out_stride, b->result, false);
}

static void emit_blocked(cg *c, attention_job *job) {
    int64_t tokens = job->group >= BLOCK_ROWS ? 1 : BLOCK_ROWS / job->group, rows = tokens * job->group;
    int64_t dense = rows * job->d * 4;
    block b = {.position = cg_widen(c, c->code.args[job->position])};
    b.rows = cg_scratch(c, 2 * dense + rows * job->capacity * 4);
    b.result = cg_at(c, c->i8, b.rows, cg_i64(c, dense));
    b.scores = cg_at(c, c->i8, b.rows, cg_i64(c, 2 * dense));
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

static void emit_attention(cg *c, void *user) {
    attention_job *job = user;
    if (job->single) emit_single(c, job);
    else emit_blocked(c, job);
}

/* ---- the instruction ---- */

static void key_strides(gm_string *key, const int64_t *stride, int n) {
    for (int i = 0; i < n; i++) gm_string_printf(key, " %lld", (long long)stride[i]);
}

void cg_emit_attention(cg *c, const ir_inst *inst) {
    const cg_slot *reads[3], *write = cg_slot_of(c, inst->results[0]);
    for (int i = 0; i < 3; i++) reads[i] = cg_slot_of(c, inst->operands[i]);
    const ir_type *q = &inst->operands[0]->type, *k = &inst->operands[1]->type;
    if (k->dtype != RT_F32 || reads[0]->layout.stride[3] != 1 || reads[1]->layout.stride[2] != 1 || reads[2]->layout.stride[2] != 1) {
        cg_unsupported(c, inst, "this cache type or a strided head dimension");
        return;
    }
    cg_access(c, reads, 3, &write, 1);
    attention_job job = {.tokens = q->dim[0], .kv_heads = q->dim[1], .group = q->dim[2], .d = q->dim[3], .capacity = k->dim[0],
                         .scale = ir_attr_float(inst, IR_ATTR_SCALE, 1), .cap = ir_attr_float(inst, IR_ATTR_CAP, 0),
                         .window = ir_attr_int(inst, IR_ATTR_WINDOW, 0), .single = q->dim[0] == 1};
    cg_kernel kernel = {.count = 0};
    gm_string_printf(&kernel.key, "attention %lld %lld %lld %lld %lld %a %a %lld |", (long long)job.tokens, (long long)job.kv_heads,
                     (long long)job.group, (long long)job.d, (long long)job.capacity, job.scale, job.cap, (long long)job.window);
    for (int i = 0; i < 4; i++) job.q_stride[i] = reads[0]->layout.stride[i], job.out_stride[i] = write->layout.stride[i];
    for (int i = 0; i < 3; i++) job.k_stride[i] = reads[1]->layout.stride[i], job.v_stride[i] = reads[2]->layout.stride[i];
    key_strides(&kernel.key, job.q_stride, 4);
    key_strides(&kernel.key, job.out_stride, 4);
    key_strides(&kernel.key, job.k_stride, 3);
    key_strides(&kernel.key, job.v_stride, 3);
    job.q = cg_kernel_arg(&kernel, reads[0]->base);
    job.k = cg_kernel_arg(&kernel, reads[1]->base);
    job.v = cg_kernel_arg(&kernel, reads[2]->base);
    job.position = cg_kernel_arg(&kernel, cg_slot_of(c, inst->operands[3])->reg);
    job.out = cg_kernel_arg(&kernel, write->base);
    cg_kernel_call(c, &kernel, "attention", emit_attention, &job);
}
