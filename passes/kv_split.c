/* kv_split: layers whose attention looks back over a window only, and those that see everything, have caches of their
 * own.
 *
 *   @forward(ids, position, kc[L,S,KV,D], …)            ->  @forward(ids, position, kc[Lg,S,KV,D], …, kl[Ll,S,KV,D], …)
 *     %kc1 = update %kc, %k, layer, %position           ->    %kl1 = update %kl, %k, layer', %position
 *     %keys = index %kc1, layer : [S,KV,D]              ->    %keys = index %kl1, layer' : [S,KV,D]
 *
 * for the Ll local layers, numbered anew like the Lg global ones, which stay in the first caches. Bit-exact. What a
 * cache may hold and how long it must hold it depends on who reads it: kv_ring and kv_int8 take whole caches. Legal
 * before the token loops are formed, on caches in the plain form (passes/kv_caches.h), so after fuse_attention. Does
 * nothing where all layers are of one kind, or where the caches of a layer are read in two ways.
 */
#include "passes/kv_caches.h"
#include "passes/passes.h"

#include <stdlib.h>

typedef struct split {
    kv_caches caches; /* first: the hook gets a pointer to it */
    int64_t layers, local_count;
    int64_t *number; /* by layer: among those of its kind */
    bool *local;
} split;

/* ---- which layers are local ---- */

/* Is the layer of the first cache seen through windows only? Clears *out_same where another cache's is not seen
 * alike. */
static bool is_local(const split *s, int64_t layer, bool *out_same) {
    bool local = kv_window(&s->caches, 0, layer) > 0;
    for (int i = 1; i < s->caches.count; i++) *out_same &= local == (kv_window(&s->caches, i, layer) > 0);
    return local;
}

static bool find_local(split *s) {
    bool same = true;
    for (int64_t i = 0; i < s->layers; i++) {
        s->local[i] = is_local(s, i, &same);
        s->number[i] = s->local[i] ? s->local_count : i - s->local_count;
        s->local_count += s->local[i];
    }
    return same && s->local_count > 0 && s->local_count < s->layers;
}

static bool same_layers(const split *s) {
    const ir_region *body = s->caches.forward->body;
    int64_t layer;
    for (int i = 0; i < s->caches.count; i++)
        if (body->params[KV_FIRST + i]->type.dim[0] != s->layers) return false;
    for (int i = 0; i < body->inst_count; i++)
        if ((kv_written(&s->caches, body->insts[i], &layer) >= 0 || kv_read(&s->caches, body->insts[i], &layer) >= 0) &&
            (layer < 0 || layer >= s->layers))
            return false;
    return true;
}

static void split_caches(split *s) {
    static const char *const names[] = {"kl", "vl"};
    for (int i = 0; i < s->caches.count; i++) {
        kv_part *part = s->caches.part[i];
        part[1] = (kv_part){part[0].type, i < 2 ? names[i] : NULL};
        part[0].type.dim[0] = s->layers - s->local_count;
        part[1].type.dim[0] = s->local_count;
    }
}

/* ---- rewriting ---- */

/* Into the cache of the layer's kind; the other one stays as it is. */
static void write(ir_rewrite *rw, split *s, const ir_inst *inst, int64_t layer) {
    const ir_value *before = inst->operands[0], *after = inst->results[0];
    ir_value **beside = s->caches.beside, *other = beside[before->id], *whole = ir_rewrite_get(rw, before),
             *v = ir_rewrite_get(rw, inst->operands[1]);
    ir_value *starts[] = {ir_const_int(&rw->b, s->number[layer]), ir_rewrite_get(rw, inst->operands[3])};
    if (s->local[layer]) {
        const char *name = s->caches.part[s->caches.cache_of[before->id]][1].hint;
        beside[after->id] = ir_named(kv_write(rw, inst, other, v, starts, 2), name);
        rw->map[after->id] = whole;
    } else {
        beside[after->id] = other;
        ir_rewrite_map(rw, inst->results[0], kv_write(rw, inst, whole, v, starts, 2));
    }
}

static bool rewrite(ir_rewrite *rw, const ir_inst *inst) {
    split *s = rw->user;
    int64_t layer;
    if (kv_written(&s->caches, inst, &layer) >= 0) {
        write(rw, s, inst, layer);
        return true;
    }
    if (kv_read(&s->caches, inst, &layer) < 0) return false;
    ir_value *cache = s->local[layer] ? s->caches.beside[inst->operands[0]->id] : ir_rewrite_get(rw, inst->operands[0]);
    ir_rewrite_map(rw, inst->results[0], ir_index(&rw->b, cache, ir_const_int(&rw->b, s->number[layer]), 0));
    return true;
}

static bool applies(split *s) {
    s->layers = s->caches.forward->body->params[KV_FIRST]->type.dim[0];
    s->number = calloc((size_t)s->layers + 1, sizeof *s->number);
    s->local = calloc((size_t)s->layers + 1, sizeof *s->local);
    GM_ASSERT(s->number && s->local);
    return 2 * s->caches.count <= RT_MAX_CACHES && same_layers(s) && find_local(s);
}

gm_status pass_kv_split(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    split s = {.layers = 0};
    bool fires = kv_caches_open(in, &s.caches) && applies(&s);
    if (fires) split_caches(&s);
    *out = fires ? kv_caches_rewrite(&s.caches, rewrite) : ir_rewrite_module(in, NULL, NULL);
    kv_caches_close(&s.caches);
    free(s.number);
    free(s.local);
    return GM_OK;
}
