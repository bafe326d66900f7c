/* attention: softmax(mask(scale·q·Kᵀ))·V over the visible keys only; what is common to few queries (attention_one.c)
 * and many (attention_blocks.c).
 *
 * Either way a task reads just the keys that some row of it sees, so local layers cost their window. Caches are read
 * where they lie, through their strides: [S,KV,D], [KV,S,D] or a K of [KV,D,S]; a ring is read as two runs where it
 * wraps; bf16, f16 and i8 are widened on the way, or i8 rounded to bf16 for tile registers, or made int16.
 */
#include "codegen/attention.h"

#include <float.h>

enum { NO_WINDOW = 1 << 30 }; /* keys: beyond every context, and no sum with it overflows */

void attention_zero(cg *c, LLVMValueRef at, LLVMValueRef count) {
    LLVMBuildMemSet(c->b, at, LLVMConstInt(c->i8, 0, 0), cg_mul(c, count, cg_i64(c, 4)), 4);
}

LLVMValueRef attention_whole(cg *c, LLVMValueRef count, int64_t step) {
    return cg_sub(c, count, LLVMBuildURem(c->b, count, cg_i64(c, step), ""));
}

LLVMValueRef attention_offset(cg *c, LLVMValueRef a, int64_t sa, LLVMValueRef b, int64_t sb, LLVMValueRef g,
                              int64_t sg) {
    return cg_add(c, cg_mul(c, a, cg_i64(c, sa)), cg_add(c, cg_mul(c, b, cg_i64(c, sb)), cg_mul(c, g, cg_i64(c, sg))));
}

int64_t attention_most_keys(const attention_job *job) {
    int64_t tokens = ir_dim_is_symbol(job->tokens) ? job->slots : job->tokens, seen = job->window + tokens - 1;
    return job->window && seen < job->slots ? seen : job->slots;
}

LLVMValueRef attention_first_key(cg *c, const attention_job *job, LLVMValueRef p) {
    return cg_max(c, cg_i64(c, 0), cg_add(c, cg_sub(c, p, c->code.args[job->window_arg]), cg_i64(c, 1)));
}

LLVMValueRef attention_of_thread(cg *c, LLVMValueRef at, LLVMValueRef thread) {
    LLVMValueRef stride = cg_frame_field(c, offsetof(rt_frame, scratch_stride), c->i64);
    LLVMValueRef apart = cg_sub(c, thread, cg_widen(c, c->code.thread));
    return cg_at(c, c->i8, at, cg_mul(c, apart, stride));
}

/* ---- softmax ---- */

LLVMValueRef attention_score(cg *c, const attention_job *job, LLVMValueRef s) {
    s = LLVMBuildFMul(c->b, s, cg_f32(c, job->factor), "");
    if (job->cap == 0) return s;
    LLVMValueRef cap = cg_f32(c, job->cap);
    return LLVMBuildFMul(c->b, cg_tanh(c, LLVMBuildFDiv(c->b, s, cap, "")), cap, "");
}

LLVMValueRef attention_larger(cg *c, LLVMValueRef x, LLVMValueRef y) {
    LLVMValueRef larger = LLVMBuildFCmp(c->b, LLVMRealOGT, x, y, ""), kept = LLVMBuildSelect(c->b, larger, x, y, "");
    LLVMSetFastMathFlags(larger, LLVMFastMathNoNaNs | LLVMFastMathNoSignedZeros);
    LLVMSetFastMathFlags(kept, LLVMFastMathNoNaNs | LLVMFastMathNoSignedZeros);
    return kept;
}

LLVMValueRef attention_weight(cg *c, double unit, LLVMValueRef score, LLVMValueRef top) {
    LLVMValueRef factor = cg_like(c, score, cg_f32(c, unit));
    return cg_exp2_weight(c, LLVMBuildFMul(c->b, LLVMBuildFSub(c->b, score, top, ""), factor, ""));
}

attention_sum attention_softmax(cg *c, const attention_job *job, LLVMValueRef scores, LLVMValueRef low,
                                LLVMValueRef high) {
    LLVMValueRef top = cg_variable(c, c->f32, cg_f32(c, -FLT_MAX));
    cg_loop scan = cg_loop_begin(c, low, high, 1);
    LLVMValueRef at = cg_at(c, c->f32, scores, scan.index), s = attention_score(c, job, cg_load(c, c->f32, at, 4));
    cg_store(c, s, at, 4);
    LLVMBuildStore(c->b, attention_larger(c, s, LLVMBuildLoad2(c->b, c->f32, top, "")), top);
    cg_loop_end(c, &scan);
    LLVMValueRef maximum = LLVMBuildLoad2(c->b, c->f32, top, ""), total = cg_variable(c, c->f32, cg_f32(c, 0));
    cg_loop weigh = cg_loop_begin(c, low, high, 1);
    at = cg_at(c, c->f32, scores, weigh.index);
    LLVMValueRef e = attention_weight(c, ATTENTION_LOG2_E, cg_load(c, c->f32, at, 4), maximum);
    cg_store(c, e, at, 4);
    LLVMValueRef sum = LLVMBuildFAdd(c->b, LLVMBuildLoad2(c->b, c->f32, total, ""), e, "");
    LLVMSetFastMathFlags(sum, LLVMFastMathAllowReassoc | LLVMFastMathNoSignedZeros);
    LLVMBuildStore(c->b, sum, total);
    cg_loop_end(c, &weigh);
    return (attention_sum){maximum, LLVMBuildLoad2(c->b, c->f32, total, "")};
}

/* ---- caches ---- */

static LLVMTypeRef of_width(LLVMTypeRef type, int width) {
    return width == 1 ? type : LLVMVectorType(type, (unsigned)width);
}

LLVMValueRef attention_load(cg *c, rt_dtype dtype, LLVMValueRef base, LLVMValueRef index, int width) {
    LLVMTypeRef elem = cg_type(c, dtype), f32 = of_width(c->f32, width), i32 = of_width(c->i32, width);
    LLVMValueRef x = cg_load(c, of_width(elem, width), cg_at(c, elem, base, index), (int)rt_dtype_bytes(dtype, 1)),
                 shift = cg_i32(c, 16);
    if (dtype == RT_F32) return x;
    if (dtype == RT_I8) return LLVMBuildSIToFP(c->b, x, f32, "");
    if (dtype == RT_F16) return LLVMBuildFPExt(c->b, LLVMBuildBitCast(c->b, x, of_width(c->f16, width), ""), f32, "");
    GM_ASSERT(dtype == RT_BF16);
    if (width > 1) shift = cg_splat(c, shift, width);
    return LLVMBuildBitCast(c->b, LLVMBuildShl(c->b, LLVMBuildZExt(c->b, x, i32, ""), shift, ""), f32, "");
}

void attention_store(cg *c, rt_dtype dtype, LLVMValueRef y, LLVMValueRef out, LLVMValueRef index) {
    cg_store(c, cg_from_f32(c, dtype, y), cg_at(c, cg_type(c, dtype), out, index), (int)rt_dtype_bytes(dtype, 1));
}

LLVMValueRef attention_scale(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv,
                             LLVMValueRef column) {
    const int64_t *stride = cache->scale_stride;
    LLVMValueRef run = LLVMBuildUDiv(c->b, column, cg_i64(c, cache->run), "");
    return cg_at(c, c->f32, c->code.args[cache->scale],
                 attention_offset(c, slot, stride[0], kv, stride[1], run, stride[2]));
}

attention_runs attention_runs_begin(cg *c, const attention_job *job, LLVMValueRef low, LLVMValueRef keys,
                                    int64_t most) {
    attention_runs runs = {.looped = job->ring || most, .first = cg_i64(c, 0), .slot = low, .count = keys};
    if (!runs.looped) return runs;
    runs.loop = cg_loop_begin(c, cg_i64(c, 0), keys, 1);
    runs.first = runs.loop.index;
    runs.slot = cg_add(c, low, runs.first);
    runs.count = cg_sub(c, keys, runs.first);
    if (most)
        runs.count =
            cg_min(c, runs.count, cg_sub(c, cg_i64(c, most), LLVMBuildURem(c->b, runs.slot, cg_i64(c, most), "")));
    if (job->ring) {
        LLVMValueRef slots = cg_i64(c, job->slots);
        runs.slot = LLVMBuildURem(c->b, runs.slot, slots, "");
        runs.count = cg_min(c, runs.count, cg_sub(c, slots, runs.slot));
    }
    runs.loop.step = runs.count;
    return runs;
}

void attention_runs_end(cg *c, attention_runs *runs) {
    if (runs->looped) cg_loop_end(c, &runs->loop);
}

/* ---- the instruction ---- */

static void emit_attention(cg *c, void *user) {
    attention_job *job = user;
    if (job->tokens == 1) attention_one(c, job);
    else attention_blocks(c, job);
}

static void key_strides(gm_string *key, const int64_t *stride, int n) {
    for (int i = 0; i < n; i++) gm_string_printf(key, " %lld", (long long)stride[i]);
}

static void add_cache(cg *c, const ir_inst *inst, int operand, cg_kernel *kernel, attention_cache *out) {
    const cg_slot *data = cg_slot_of(c, inst->operands[operand]);
    bool scaled = inst->operand_count == 6;
    *out = (attention_cache){
        .dtype = inst->operands[operand]->type.dtype, .data = cg_kernel_arg(kernel, data->base), .scale = -1};
    for (int i = 0; i < 3; i++) out->stride[i] = data->layout.stride[i];
    if (scaled) {
        const cg_slot *scale = cg_slot_of(c, inst->operands[operand + 3]);
        out->scale = cg_kernel_arg(kernel, scale->base);
        out->run = inst->operands[operand]->type.dim[2] / inst->operands[operand + 3]->type.dim[2];
        for (int i = 0; i < 3; i++) out->scale_stride[i] = scale->layout.stride[i];
    }
    gm_string_printf(&kernel->key, "| %d %lld", out->dtype, (long long)out->run);
    key_strides(&kernel->key, out->stride, 3);
    key_strides(&kernel->key, out->scale_stride, 3);
}

/* For --explain: the kernel, and what of the instruction and the target decides how it goes about it. */
static void decide(cg *c, const ir_inst *inst, const attention_job *job, bool singly) {
    gm_string reason = {0};
    int64_t tokens = inst->operands[0]->type.dim[0];
    bool row_by_row = singly && tokens > 1;
    if (!c->options->decisions) return;
    if (singly)
        gm_string_printf(&reason, "tokens: %lld, at most %d: reading the cache is the cost; ", (long long)tokens,
                         RT_FEW_ROWS);
    else gm_string_printf(&reason, "tokens: more than %d; ", RT_FEW_ROWS);
    if (job->window) gm_string_printf(&reason, "a window of %lld keys", (long long)job->window);
    else gm_string_printf(&reason, "all keys before");
    gm_string_printf(&reason, ", %s of %lld slots in %s, K by %s; ", job->ring ? "a ring" : "a cache",
                     (long long)job->slots, rt_dtype_of(job->k.dtype)->text, job->k.stride[2] == 1 ? "row" : "column");
    if (singly) attention_one_text(c, job, &reason);
    else attention_blocks_text(c, job, &reason);
    gm_string_printf(&reason, " (vectors of %d lanes)", c->lanes);
    ir_decide(c->options->decisions, "code", c->module, c->func, inst,
              row_by_row ? "attention of few tokens, each as if alone"
              : singly   ? "attention of one token, keys dealt out"
                         : "attention of blocks of tokens",
              "%s", reason.data);
    gm_string_free(&reason);
}

/* What the instruction says; of a kernel that does one token at a time, `singly`, the token's stride is none of it. */
static attention_job job_of(cg *c, const ir_inst *inst, bool singly) {
    const ir_layout *from = &cg_slot_of(c, inst->operands[0])->layout, *to = &cg_slot_of(c, inst->results[0])->layout;
    const ir_type *q = &inst->operands[0]->type, *k = &inst->operands[1]->type;
    attention_job job = {.tokens = singly ? 1 : q->dim[0],
                         .kv_heads = q->dim[1],
                         .group = q->dim[2],
                         .d = q->dim[3],
                         .slots = ir_dim_max(c->module, k->dim[0]),
                         .q_dtype = q->dtype,
                         .out_dtype = inst->results[0]->type.dtype,
                         .factor = ir_attr_float(inst, IR_ATTR_SCALE, 1),
                         .cap = ir_attr_float(inst, IR_ATTR_CAP, 0),
                         .window = ir_attr_int(inst, IR_ATTR_WINDOW, 0),
                         .ring = ir_attr_int(inst, IR_ATTR_RING, 0),
                         .int16 = ir_attr_find(inst, IR_ATTR_IMPL),
                         .parts = ir_attr_is(inst, IR_ATTR_IMPL, "tiles") ? 1 : 2};
    for (int i = singly ? 1 : 0; i < 4; i++) job.q_stride[i] = from->stride[i], job.out_stride[i] = to->stride[i];
    return job;
}

static void begin_key(const attention_job *job, bool singly, gm_string *key) {
    /* They say how much scratch there is. */
    long long keys = singly ? (long long)attention_most_keys(job) : (long long)job->window;
    gm_string_printf(key, "attention %lld %lld %lld %lld %lld %lld ", (long long)job->tokens, (long long)job->kv_heads,
                     (long long)job->group, (long long)job->d, (long long)job->slots, keys);
    gm_string_printf(key, "%a %a %d %d %d %d %d |", job->factor, job->cap, job->ring, job->int16, job->parts,
                     job->q_dtype, job->out_dtype);
    key_strides(key, job->q_stride, 4);
    key_strides(key, job->out_stride, 4);
}

static bool layout_fits(const attention_job *job) {
    if (job->d == 1) return true;
    bool k_fits = job->k.stride[2] == 1 || job->k.stride[0] == 1;
    return job->q_stride[3] == 1 && job->v.stride[2] == 1 && k_fits;
}

/* The address of a row of tokens. */
static LLVMValueRef row_at(cg *c, const cg_slot *slot, rt_dtype dtype, LLVMValueRef row) {
    return cg_at(c, cg_type(c, dtype), slot->base, cg_mul(c, row, cg_i64(c, slot->layout.stride[0])));
}

void cg_emit_attention(cg *c, const ir_inst *inst) {
    const cg_slot *reads[5], *q = cg_slot_of(c, inst->operands[0]), *write = cg_slot_of(c, inst->results[0]),
                             *writes[] = {write, &cg_dealt};
    int read_count = 0;
    for (int i = 0; i < inst->operand_count; i++)
        if (i != 3) reads[read_count++] = cg_slot_of(c, inst->operands[i]);
    ir_dim tokens = inst->operands[0]->type.dim[0];
    bool singly = !ir_dim_is_symbol(tokens) && tokens <= RT_FEW_ROWS;
    cg_access(c, reads, read_count, writes, singly ? 1 : 2);
    attention_job job = job_of(c, inst, singly);
    cg_kernel kernel = {.count = 0};
    begin_key(&job, singly, &kernel.key);
    add_cache(c, inst, 1, &kernel, &job.k);
    add_cache(c, inst, 2, &kernel, &job.v);
    if (!layout_fits(&job)) {
        gm_string_free(&kernel.key);
        cg_unsupported(c, inst, "this layout");
        return;
    }
    decide(c, inst, &job, singly);
    LLVMValueRef position = cg_slot_of(c, inst->operands[3])->reg, from = cg_i64(c, 0);
    cg_loop row = {.index = from};
    if (singly) row = cg_loop_begin(c, from, cg_i64(c, tokens), 1);
    job.q = cg_kernel_arg(&kernel, row_at(c, q, job.q_dtype, row.index));
    job.position = cg_kernel_arg(&kernel, cg_add(c, position, LLVMBuildTrunc(c->b, row.index, c->i32, "")));
    job.window_arg = cg_kernel_arg(&kernel, cg_i64(c, job.window ? job.window : NO_WINDOW));
    job.out = cg_kernel_arg(&kernel, row_at(c, write, job.out_dtype, row.index));
    cg_kernel_call(c, &kernel, "attention", emit_attention, &job);
    cg_barrier(c); /* threads may have read each other's scratch */
    if (singly) cg_loop_end(c, &row);
}
