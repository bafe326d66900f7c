/* kv_ring: caches of layers whose attention looks back over a window only keep a ring of the latest tokens instead of
 * the whole context.
 *
 *   @forward(ids, position, kl[L,S,KV,D], …)            ->  @forward(ids, position, kl[L,C,KV,D], …)
 *     %kl1 = update %kl, %k, layer, %position           ->    %kl1 = update %kl, %k, layer, %position {ring = 1}
 *     attention %q, %keys, …, {window = W}              ->    attention %q, %keys, …, {window = W, ring = 1}
 *
 * Token p lies in slot p mod C of its layer, C = W - 1 + max(chunk, RT_MAX_ROLLBACK + 1): when a call has written its
 * up to `chunk` tokens, the window of the first of them is still there, and also after the host has taken back the last
 * tokens of a generation and goes on from there.
 *
 * The same keys are seen, so the same values come out up to the order of sums: the interpreter adds in the order of the
 * slots, compiled prefill in two parts where a block's keys lie across the ring's end; compiled decoding adds in the
 * order of the tokens as before. Memory and reading are bounded by the window whatever the context is. Legal before the
 * token loops are formed, on caches in the plain form (passes/kv_caches.h), so after fuse_attention; kv_split gives
 * local layers caches of their own. Does nothing where a ring would be no shorter than the context, or to a cache that
 * is also read without a window.
 */
#include "passes/kv_caches.h"
#include "passes/passes.h"

#include <string.h>

typedef struct ring {
    kv_caches caches; /* first: the hook gets a pointer to it */
    int64_t window[RT_MAX_CACHES];
} ring;

static bool is_ring(const ring *r, int cache) {
    return cache >= 0 && r->window[cache] > 0;
}

static bool rewrite(ir_rewrite *rw, const ir_inst *inst) {
    const ring *r = rw->user;
    int64_t layer;
    bool rings = is_ring(r, inst->op == IR_ATTENTION ? kv_seen(&r->caches, inst, 1, &layer)
                                                     : kv_written(&r->caches, inst, &layer));
    if (rings) ir_rewrite_clone(rw, ir_rewrite_with(rw, inst, ir_attr_make_int(IR_ATTR_RING, 1)));
    return rings;
}

/* Keys and values of an attention are both in rings, or neither; those with scales never are. */
static bool together(const ring *r) {
    const ir_region *body = r->caches.forward->body;
    int64_t layer;
    for (int i = 0; i < body->inst_count; i++) {
        const ir_inst *inst = body->insts[i];
        if (inst->op != IR_ATTENTION) continue;
        bool keys = is_ring(r, kv_seen(&r->caches, inst, 1, &layer)),
             values = is_ring(r, kv_seen(&r->caches, inst, 2, &layer));
        if (keys != values || (keys && inst->operand_count > 4)) return false;
    }
    return true;
}

static bool applies(ring *r, const pass_options *options) {
    int64_t most = options->chunk > RT_MAX_ROLLBACK ? options->chunk : RT_MAX_ROLLBACK + 1, longest = 0;
    for (int i = 0; i < r->caches.count; i++) {
        r->window[i] = kv_window(&r->caches, i, -1);
        if (r->window[i] > longest) longest = r->window[i];
    }
    if (longest == 0 || kv_has_rings(&r->caches) || !together(r) || longest - 1 + most >= options->context)
        return false;
    for (int i = 0; i < r->caches.count; i++)
        if (r->window[i]) r->caches.part[i][0].type.dim[1] = longest - 1 + most;
    return true;
}

gm_status pass_kv_ring(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    ring r = {.window = {0}};
    bool fires = kv_caches_open(in, &r.caches) && applies(&r, options);
    *out = fires ? kv_caches_rewrite(&r.caches, rewrite) : ir_rewrite_module(in, NULL, NULL);
    kv_caches_close(&r.caches);
    return GM_OK;
}
