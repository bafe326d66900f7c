/* What the passes that change the form of the KV caches share. */
#ifndef GM_PASSES_KV_CACHES_H
#define GM_PASSES_KV_CACHES_H

#include "ir/rewrite.h"
#include "runtime/abi.h"

enum { KV_FIRST = 2 };

/* A cache after the change; type.rank 0: not there. */
typedef struct kv_part {
    ir_type type;
    const char *hint;
} kv_part;

/* The caches of @forward(ids, position, caches…) -> (x, caches…), and what each becomes: itself in another form,
 * part[0], or that and a second tensor beside it, part[1]. */
typedef struct kv_caches {
    gm_arena arena; /* for names of parts */
    const ir_module *module;
    const ir_func *forward;
    int count;
    int *cache_of; /* by value id: the cache that the value is a state of, -1: none */
    kv_part part[RT_MAX_CACHES][2];
    ir_value **beside; /* by value id: the new value of part[1]; filled while rewriting */
} kv_caches;

/* Does every cache have the plain form? It is [L,S,KV,D]; each state of it is written by one `update` at (a layer's
 * number, position) at most, a ring or not, read by `index` of a layer for an attention, and the last one is returned.
 * No function calls @forward yet. Close it either way. */
bool kv_caches_open(const ir_module *in, kv_caches *out);
void kv_caches_close(kv_caches *caches);
/* The cache of which `inst` writes or reads a layer, and which layer; -1: neither. */
int kv_written(const kv_caches *caches, const ir_inst *inst, int64_t *out_layer);
int kv_read(const kv_caches *caches, const ir_inst *inst, int64_t *out_layer);
/* The cache of which operand k of an attention is a layer, and which layer; -1: of none. */
int kv_seen(const kv_caches *caches, const ir_inst *attention, int k, int64_t *out_layer);
/* The longest window through which attentions see `layer` of a cache, -1: any layer. 0: something sees it without one,
 * or nothing at all. */
int64_t kv_window(const kv_caches *caches, int cache, int64_t layer);
/* `inst`, a write, with another state, value and starts (of the leading axes); it keeps to be a ring or not. */
ir_value *kv_write(ir_rewrite *rw, const ir_inst *inst, ir_value *state, ir_value *value, ir_value *const *starts,
                   int count);
/* Has a cache of @forward become a ring already? */
bool kv_has_rings(const kv_caches *caches);
/* The module with @forward's caches as `part` says. The hook gets `caches` as rewrite->user; it sets map and beside of
 * the results of every update. */
ir_module *kv_caches_rewrite(kv_caches *caches, ir_rewrite_fn hook);

#endif
