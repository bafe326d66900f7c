/* kv_ring: layers whose attention looks back over a window only keep a ring of the latest tokens instead of the whole context.
 *
 *   @forward(ids, position, kc[L,S,KV,D], …)            ->  @forward(ids, position, kc[Lg,S,KV,D], …, kl[Ll,C,KV,D], …)
 *     %kc1 = update %kc, %k, layer, %position           ->    %kl1 = update %kl, %k, layer', %position {ring = 1}
 *     %keys = index %kc1, layer : [S,KV,D]              ->    %keys = index %kl1, layer' : [C,KV,D]
 *     attention %q, %keys, …, {window = W}              ->    attention %q, %keys, …, {window = W, ring = 1}
 *
 * for the Ll local layers; the Lg global ones stay in the first caches, which go when there are none. Token p lies in slot p mod C of
 * its layer, C = W - 1 + max(chunk, RT_MAX_ROLLBACK + 1): when a call has written its up to `chunk` tokens, the window of the first
 * of them is still there, and also after the host has taken back the last tokens of a generation and goes on from there.
 *
 * The same keys are seen, so the same values come out up to the order of sums: the interpreter adds in the order of the slots, compiled
 * prefill in two parts where a block's keys lie across the ring's end; compiled decoding adds in the order of the tokens as before. Memory and reading are bounded by the window whatever the context is.
 * Legal before the token loops are formed, on caches in the plain form (passes/kv_caches.h), so after fuse_attention. Does nothing
 * where a ring would be no shorter than the context, without local layers, or where a layer is read both with and without a window.
 */
#include "passes/kv_caches.h"
#include "passes/passes.h"

#include "runtime/abi.h"

#include <stdlib.h>
#include <string.h>

typedef struct ring {
    kv_caches caches; /* first: the hook gets a pointer to it */
    int64_t layers, local_count, window;
    int64_t *number; /* by layer: among those of its kind */
    bool *local, *global;
} ring;

/* ---- which layers are local ---- */

static bool note_attention(ring *r, const ir_inst *inst) {
    int64_t window = ir_attr_int(inst, IR_ATTR_WINDOW, 0), layer;
    for (int i = 1; i < inst->operand_count; i++) {
        const ir_value *x = inst->operands[i];
        if (i == 3 || !x->def || kv_read(&r->caches, x->def, &layer) < 0) continue;
        if (layer < 0 || layer >= r->layers) return false;
        *(window ? &r->local[layer] : &r->global[layer]) = true;
        if (window > r->window) r->window = window;
    }
    return true;
}

static bool find_local(ring *r) {
    const ir_region *body = r->caches.forward->body;
    for (int i = 0; i < body->inst_count; i++)
        if (body->insts[i]->op == IR_ATTENTION && !note_attention(r, body->insts[i])) return false;
    for (int64_t i = 0; i < r->layers; i++) {
        if (r->local[i] && r->global[i]) return false;
        r->number[i] = r->local[i] ? r->local_count : i - r->local_count;
        r->local_count += r->local[i];
    }
    return r->local_count > 0;
}

static bool same_layers(const ring *r) {
    const ir_region *body = r->caches.forward->body;
    for (int i = 0; i < r->caches.count; i++)
        if (body->params[KV_FIRST + i]->type.dim[0] != r->layers) return false;
    return true;
}

static void split_caches(ring *r, int64_t slots) {
    static const char *const names[] = {"kl", "vl"};
    for (int i = 0; i < r->caches.count; i++) {
        kv_part *part = r->caches.part[i];
        part[1] = (kv_part){part[0].type, i < 2 ? names[i] : NULL};
        part[0].type.dim[0] -= r->local_count;
        part[1].type.dim[0] = r->local_count;
        part[1].type.dim[1] = slots;
        if (part[0].type.dim[0] == 0) part[0].type.rank = 0;
    }
}

/* ---- rewriting ---- */

static void write_ring(ir_rewrite *rw, ring *r, const ir_inst *inst, int64_t layer) {
    uint32_t before = inst->operands[0]->id, after = inst->results[0]->id;
    ir_value *operands[] = {r->caches.beside[before], ir_rewrite_get(rw, inst->operands[1]), ir_const_int(&rw->b, r->number[layer]),
                            ir_rewrite_get(rw, inst->operands[3])};
    ir_attr attr = ir_attr_make_int(IR_ATTR_RING, 1);
    r->caches.beside[after] = ir_named(ir_emit1(&rw->b, IR_UPDATE, operands, 4, &attr, 1, NULL), r->caches.part[r->caches.cache_of[before]][1].hint);
    rw->map[after] = rw->map[before];
}

static void write_whole(ir_rewrite *rw, ring *r, const ir_inst *inst, int64_t layer) {
    ir_value *starts[] = {ir_const_int(&rw->b, r->number[layer]), ir_rewrite_get(rw, inst->operands[3])};
    ir_value *x = ir_rewrite_get(rw, inst->operands[0]), *v = ir_rewrite_get(rw, inst->operands[1]);
    ir_rewrite_map(rw, inst->results[0], ir_update(&rw->b, x, v, starts, 2));
    r->caches.beside[inst->results[0]->id] = r->caches.beside[inst->operands[0]->id];
}

/* An attention over local layers says that its keys lie in a ring. */
static bool mark_attention(ir_rewrite *rw, const ring *r, const ir_inst *inst) {
    int64_t layer;
    ir_attr attrs[IR_ATTR_COUNT];
    ir_value *operands[6];
    if (!inst->operands[1]->def || kv_read(&r->caches, inst->operands[1]->def, &layer) < 0 || !r->local[layer]) return false;
    memcpy(attrs, inst->attrs, sizeof *attrs * (size_t)inst->attr_count);
    attrs[inst->attr_count] = ir_attr_make_int(IR_ATTR_RING, 1);
    for (int i = 0; i < inst->operand_count; i++) operands[i] = ir_rewrite_get(rw, inst->operands[i]);
    ir_value *y = ir_emit1(&rw->b, IR_ATTENTION, operands, inst->operand_count, attrs, inst->attr_count + 1, NULL);
    ir_rewrite_map(rw, inst->results[0], y);
    return true;
}

static bool rewrite(ir_rewrite *rw, const ir_inst *inst) {
    ring *r = rw->user;
    int64_t layer;
    if (inst->op == IR_ATTENTION) return mark_attention(rw, r, inst);
    if (kv_written(&r->caches, inst, &layer) >= 0) {
        if (r->local[layer]) write_ring(rw, r, inst, layer);
        else write_whole(rw, r, inst, layer);
        return true;
    }
    if (kv_read(&r->caches, inst, &layer) < 0) return false;
    ir_value *cache = r->local[layer] ? r->caches.beside[inst->operands[0]->id] : ir_rewrite_get(rw, inst->operands[0]);
    ir_rewrite_map(rw, inst->results[0], ir_index(&rw->b, cache, ir_const_int(&rw->b, r->number[layer]), 0));
    return true;
}

/* Every layer that is written must be one that is read: its kind is not known otherwise. */
static bool all_known(const ring *r) {
    const ir_region *body = r->caches.forward->body;
    int64_t layer;
    for (int i = 0; i < body->inst_count; i++)
        if (kv_written(&r->caches, body->insts[i], &layer) >= 0 && (layer < 0 || layer >= r->layers || !(r->local[layer] || r->global[layer])))
            return false;
    return true;
}

static bool applies(ring *r, const pass_options *options) {
    r->layers = r->caches.forward->body->params[KV_FIRST]->type.dim[0];
    r->number = calloc((size_t)r->layers + 1, sizeof *r->number);
    r->local = calloc((size_t)r->layers + 1, sizeof *r->local);
    r->global = calloc((size_t)r->layers + 1, sizeof *r->global);
    GM_ASSERT(r->number && r->local && r->global);
    if (2 * r->caches.count > KV_MAX_CACHES || kv_has_rings(&r->caches) || !same_layers(r) || !find_local(r) || !all_known(r)) return false;
    int64_t most = options->chunk > RT_MAX_ROLLBACK ? options->chunk : RT_MAX_ROLLBACK + 1, slots = r->window - 1 + most;
    if (slots >= options->context) return false;
    split_caches(r, slots);
    return true;
}

gm_status pass_kv_ring(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    ring r = {.layers = 0};
    bool fires = kv_caches_open(in, &r.caches) && applies(&r, options);
    *out = fires ? kv_caches_rewrite(&r.caches, rewrite) : ir_rewrite_module(in, NULL, NULL);
    kv_caches_close(&r.caches);
    free(r.number);
    free(r.local);
    free(r.global);
    return GM_OK;
}
