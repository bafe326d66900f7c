/* kv_bf16, kv_int8: the KV caches hold fewer bits. Rows are rounded when they are written; attention widens what it reads.
 *
 *   kv_bf16:  %kc1 = update %kc, %k, layer, %position    ->   %b = convert %k : bf16;  %kc1 = update %kc, %b, layer, %position
 *   kv_int8:  the same                                   ->   %q, %s = the row as i8 and its scale, one for each token and kv head
 *                                                             %kc1 = update %kc, %q, …;  %ks1 = update %ks, %s, …
 *             attention %q, %keys, %values, %pos         ->   attention %q, %keys, %values, %pos, %key_scales, %value_scales
 *
 * with caches bf16[L,S,KV,D], or i8[L,S,KV,D] and f32[L,S,KV] beside them. s = max|k| / 127 over the head's D numbers, q = k / s
 * rounded to nearest even, so that an element is off by at most s/2.
 * Not exact: `gemmac perplexity --with kv_int8 --kl-base f32` says what it costs. Legal before the token loops are formed, on f32
 * caches in the plain form (passes/kv_caches.h), so after fuse_attention; rings are fine. The second of the two passes (kv_bf16, which runs in every plan but f32) does nothing.
 */
#include "passes/kv_caches.h"
#include "passes/passes.h"
#include "passes/quantise.h"

enum { LARGEST = 127 };

static void write(ir_rewrite *rw, kv_caches *caches, const ir_inst *inst) {
    uint32_t before = inst->operands[0]->id, after = inst->results[0]->id;
    const kv_part *part = caches->part[caches->cache_of[before]];
    ir_value *x = ir_rewrite_get(rw, inst->operands[1]);
    ir_value *starts[] = {ir_rewrite_get(rw, inst->operands[2]), ir_rewrite_get(rw, inst->operands[3])};
    quantised q = {.codes = NULL};
    if (part[1].type.rank) {
        q = quantise_rows(&rw->b, x, LARGEST, RT_I8);
        q.scale = ir_reshape(&rw->b, q.scale, 3, x->type.dim); /* [1,T,KV] */
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
    ir_value *operands[6];
    int count = inst->operand_count;
    for (int i = 0; i < count; i++) operands[i] = ir_rewrite_get(rw, inst->operands[i]);
    for (int i = 1; i < 3; i++)
        if (caches->beside[inst->operands[i]->id]) operands[count++] = caches->beside[inst->operands[i]->id];
    ir_rewrite_map(rw, inst->results[0], ir_emit1(&rw->b, IR_ATTENTION, operands, count, inst->attrs, inst->attr_count, NULL));
}

static bool rewrite(ir_rewrite *rw, const ir_inst *inst) {
    kv_caches *caches = rw->user;
    int64_t layer;
    if (kv_written(caches, inst, &layer) >= 0) write(rw, caches, inst);
    else if (kv_read(caches, inst, &layer) >= 0) read(rw, caches, inst);
    else if (inst->op == IR_ATTENTION) attend(rw, caches, inst);
    else return false;
    return true;
}

/* Do all attentions read caches, and are all caches f32[L,S,KV,D]? */
static bool applies(const kv_caches *caches) {
    const ir_region *body = caches->forward->body;
    int64_t layer;
    for (int i = 0; i < caches->count; i++)
        if (caches->part[i][0].type.dtype != RT_F32 || caches->part[i][0].type.rank != 4) return false;
    for (int i = 0; i < body->inst_count; i++)
        for (int k = 1; body->insts[i]->op == IR_ATTENTION && k < 3; k++) {
            const ir_inst *def = body->insts[i]->operands[k]->def;
            if (!def || kv_read(caches, def, &layer) < 0) return false;
        }
    return true;
}

/* i8: with scales beside. */
static gm_status store_as(rt_dtype dtype, const ir_module *in, ir_module **out) {
    kv_caches caches;
    bool fires = kv_caches_open(in, &caches) && applies(&caches) && (dtype != RT_I8 || 2 * caches.count <= KV_MAX_CACHES);
    for (int i = 0; i < caches.count && fires; i++) {
        kv_part *part = caches.part[i];
        part[0].type.dtype = dtype;
        if (dtype != RT_I8) continue;
        part[1].type = ir_tensor(RT_F32, 3, part[0].type.dim);
        part[1].hint = part[0].hint ? gm_arena_printf(&caches.arena, "%s_scale", part[0].hint) : NULL;
    }
    *out = fires ? kv_caches_rewrite(&caches, rewrite) : ir_rewrite_module(in, NULL, NULL);
    kv_caches_close(&caches);
    return GM_OK;
}

gm_status pass_kv_bf16(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    return store_as(RT_BF16, in, out);
}

gm_status pass_kv_int8(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    return store_as(RT_I8, in, out);
}
