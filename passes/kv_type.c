/* kv_bf16, kv_int8: the KV caches hold fewer bits. Rows are rounded when they are written; attention widens what it
 * reads.
 *
 *   kv_bf16:  %kc1 = update %kc, %k, layer, %position    ->   %b = convert %k : bf16
 *                                                             %kc1 = update %kc, %b, layer, %position
 *   kv_int8:  the same                                   ->   %q, %s = the row as i8 and scales, one for each 32 of a
 *                                                             head's numbers
 *                                                             %kc1 = update %kc, %q, …;  %ks1 = update %ks, %s, …
 *             attention %q, %keys, %values, %pos         ->   attention %q, %keys, %values, %pos, %key_scales,
 *                                                             %value_scales
 *
 * with caches bf16[L,S,KV,D], or i8[L,S,KV,D] and f32[L,S,KV,D/32] beside them; a head of another number of columns has
 * one scale. s = max|k| / 127 over the numbers that share it, q = k / s rounded to nearest even, so that an element is
 * off by at most s/2.
 *
 * kv_int8 takes the caches of global layers where kv_split has put local ones apart: those are read in full however
 * long the context is. A local layer reads its window, and would lose more by it (Gemma 3 270M: the mean KL of the
 * three global layers is 1.1e-4, of all eighteen 1.9e-3); where no layer is local it does nothing. kv_bf16, which comes
 * after it, takes what is f32 still. Not exact: `gemmac perplexity --kl-base f32` says what a plan costs. Legal before
 * the token loops are formed, on f32 caches in the plain form (passes/kv_caches.h), so after fuse_attention; rings are
 * fine.
 */
#include "passes/kv_caches.h"
#include "passes/passes.h"
#include "passes/quantise.h"

#include <string.h>

enum { LARGEST = 127 };

/* Caches that a pass changes. */
typedef struct narrow {
    kv_caches caches; /* first: the hook gets a pointer to it */
    bool chosen[RT_MAX_CACHES];
} narrow;

static void write(ir_rewrite *rw, kv_caches *caches, const ir_inst *inst) {
    uint32_t before = inst->operands[0]->id, after = inst->results[0]->id;
    const kv_part *part = caches->part[caches->cache_of[before]];
    ir_value *x = ir_rewrite_get(rw, inst->operands[1]);
    ir_value *starts[] = {ir_rewrite_get(rw, inst->operands[2]), ir_rewrite_get(rw, inst->operands[3])};
    quantised q = {.codes = NULL};
    if (part[1].type.rank) {
        q = part[1].type.dim[3] > 1 ? quantise_runs(&rw->b, x, LARGEST, RT_I8)
                                    : quantise_rows(&rw->b, x, LARGEST, RT_I8);
    } else q.codes = ir_convert(&rw->b, x, part[0].type.dtype);
    ir_rewrite_map(rw, inst->results[0], kv_write(rw, inst, rw->map[before], q.codes, starts, 2));
    if (q.scale) caches->beside[after] = kv_write(rw, inst, caches->beside[before], q.scale, starts, 2);
}

static void read(ir_rewrite *rw, kv_caches *caches, const ir_inst *inst) {
    uint32_t state = inst->operands[0]->id;
    ir_value *layer = ir_rewrite_get(rw, inst->operands[1]);
    ir_rewrite_map(rw, inst->results[0], ir_index(&rw->b, rw->map[state], layer, 0));
    if (caches->beside[state]) caches->beside[inst->results[0]->id] = ir_index(&rw->b, caches->beside[state], layer, 0);
}

static void attend(ir_rewrite *rw, const kv_caches *caches, const ir_inst *inst) {
    ir_value **operands = ir_rewrite_operands(rw, inst, 2);
    int count = inst->operand_count;
    for (int i = 1; i < 3; i++)
        if (caches->beside[inst->operands[i]->id]) operands[count++] = caches->beside[inst->operands[i]->id];
    ir_rewrite_map(
        rw, inst->results[0],
        ir_emit1(&rw->b, IR_ATTENTION, operands, count, inst->attrs, inst->attr_count, &inst->results[0]->type));
}

static bool rewrite(ir_rewrite *rw, const ir_inst *inst) {
    narrow *n = rw->user;
    int64_t layer;
    int written = kv_written(&n->caches, inst, &layer), seen = kv_read(&n->caches, inst, &layer);
    if (written >= 0 && n->chosen[written]) write(rw, &n->caches, inst);
    else if (seen >= 0 && n->chosen[seen]) read(rw, &n->caches, inst);
    else if (inst->op == IR_ATTENTION) attend(rw, &n->caches, inst);
    else return false;
    return true;
}

/* Chooses the caches of keys and values in f32, of i8 those that are seen without a window beside others. */
static void choose(narrow *n, rt_dtype dtype) {
    int64_t window[RT_MAX_CACHES];
    bool any_local = false;
    for (int i = 0; i < n->caches.count; i++) any_local |= (window[i] = kv_window(&n->caches, i, -1)) > 0;
    for (int i = 0; i < n->caches.count; i++)
        n->chosen[i] = n->caches.part[i][0].type.dtype == RT_F32 && (dtype != RT_I8 || (any_local && window[i] == 0));
}

/* Leaves out the caches of scales. Do all attentions see caches, of keys and values alike? */
static bool applies(narrow *n) {
    const ir_region *body = n->caches.forward->body;
    int64_t layer;
    bool any = false;
    for (int i = 0; i < body->inst_count; i++) {
        int cache[6] = {-1, -1, -1, -1, -1, -1};
        const ir_inst *inst = body->insts[i];
        if (inst->op != IR_ATTENTION) continue;
        for (int k = 1; k < inst->operand_count; k++) cache[k] = kv_seen(&n->caches, inst, k, &layer);
        if (cache[1] < 0 || cache[2] < 0) return false;
        for (int k = 4; k < inst->operand_count; k++)
            if (cache[k] >= 0) n->chosen[cache[k]] = false;
        if (n->chosen[cache[1]] != n->chosen[cache[2]]) return false;
    }
    for (int i = 0; i < n->caches.count; i++) any |= n->chosen[i];
    return any;
}

/* i8: with scales beside. */
static void retype(narrow *n, int cache, rt_dtype dtype) {
    kv_part *part = n->caches.part[cache];
    ir_dim scales[4];
    part[0].type.dtype = dtype;
    if (dtype != RT_I8) return;
    memcpy(scales, part[0].type.dim, sizeof scales);
    scales[3] = scales[3] % IR_SCALE_RUN == 0 ? scales[3] / IR_SCALE_RUN : 1;
    part[1].type = ir_tensor(RT_F32, 4, scales);
    part[1].hint = part[0].hint ? gm_arena_printf(&n->caches.arena, "%s_scale", part[0].hint) : NULL;
}

static bool chooses(narrow *n, rt_dtype dtype) {
    int after = n->caches.count;
    choose(n, dtype);
    bool any = applies(n);
    for (int i = 0; i < n->caches.count && dtype == RT_I8; i++) after += n->chosen[i];
    return any && after <= RT_MAX_CACHES;
}

static gm_status store_as(rt_dtype dtype, const ir_module *in, ir_module **out) {
    narrow n = {.chosen = {false}};
    bool fires = kv_caches_open(in, &n.caches) && chooses(&n, dtype);
    for (int i = 0; i < n.caches.count && fires; i++)
        if (n.chosen[i]) retype(&n, i, dtype);
    *out = fires ? kv_caches_rewrite(&n.caches, rewrite) : ir_rewrite_module(in, NULL, NULL);
    kv_caches_close(&n.caches);
    return GM_OK;
}

gm_status pass_kv_bf16(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    return store_as(RT_BF16, in, out);
}

gm_status pass_kv_int8(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    return store_as(RT_I8, in, out);
}
