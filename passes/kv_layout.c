/* kv_head_major, kv_k_transposed: the KV caches in another order, so that what one kv head reads lies together.
 *
 *   kv_head_major:    [L,S,KV,D]  ->  [L,KV,S,D]
 *   kv_k_transposed:  K [L,S,KV,D]  ->  [L,KV,D,S], so that a vector of keys is loaded at once; V as in kv_head_major
 *
 *   %kc1 = update %kc, %k, layer, %position    ->   %t = transpose %k : [1,KV,T,D]
 *                                                   %kc1 = update %kc, %t, layer, 0, %position
 *   %keys = index %kc1, layer : [S,KV,D]       ->   %i = index %kc1, layer : [KV,S,D]
 *                                                   %keys = transpose %i : [S,KV,D]
 *
 * The transposes are views: attention reads through their strides, nothing is copied. Bit-exact but for the order in
 * which compiled code adds the products of q and a transposed K. Scales [L,S,KV,R] go with what they scale. Legal
 * before the token loops are formed, on caches in the plain form (passes/kv_caches.h), so after fuse_attention; after
 * kv_ring and kv_int8, whose caches they take too. The second of the two passes does nothing, since the caches are not
 * in the plain form any more; so does kv_k_transposed with a cache that is read both as keys and as values.
 */
#include "passes/kv_caches.h"
#include "passes/passes.h"

#include <string.h>

/* Where the axes of the plain form go: new axis i is old axis order[i]. */
typedef struct layout {
    kv_caches caches; /* first: the hook gets a pointer to it */
    const int64_t *order[RT_MAX_CACHES];
} layout;

static const int64_t head_major[] = {0, 2, 1, 3}, transposed[] = {0, 2, 3, 1};

/* Of the token axis, 1 in the plain form. */
static int token_axis(const int64_t *order) {
    int axis = 0;
    while (order[axis] != 1) axis++;
    return axis;
}

static void write(ir_rewrite *rw, layout *l, const ir_inst *inst, int cache) {
    ir_value *zero = ir_const_int(&rw->b, 0), *starts[IR_MAX_RANK] = {ir_rewrite_get(rw, inst->operands[2])};
    int axis = token_axis(l->order[cache]);
    for (int i = 1; i < axis; i++) starts[i] = zero;
    starts[axis] = ir_rewrite_get(rw, inst->operands[3]);
    ir_value *row = ir_transpose(&rw->b, ir_rewrite_get(rw, inst->operands[1]), l->order[cache]);
    ir_rewrite_map(rw, inst->results[0],
                   kv_write(rw, inst, ir_rewrite_get(rw, inst->operands[0]), row, starts, axis + 1));
}

/* The layer in its new form, seen in the plain one. */
static void read(ir_rewrite *rw, layout *l, const ir_inst *inst, int cache) {
    int64_t back[IR_MAX_RANK];
    const int64_t *order = l->order[cache];
    ir_value *layer = ir_index(&rw->b, ir_rewrite_get(rw, inst->operands[0]), ir_rewrite_get(rw, inst->operands[1]), 0);
    for (int i = 0; i < layer->type.rank; i++) back[order[i + 1] - 1] = i;
    ir_rewrite_map(rw, inst->results[0], ir_transpose(&rw->b, layer, back));
}

static bool rewrite(ir_rewrite *rw, const ir_inst *inst) {
    layout *l = rw->user;
    int64_t layer;
    int written = kv_written(&l->caches, inst, &layer), seen = kv_read(&l->caches, inst, &layer);
    if (written >= 0) write(rw, l, inst, written);
    else if (seen >= 0) read(rw, l, inst, seen);
    return written >= 0 || seen >= 0;
}

/* Which caches are read as keys or their scales; false when one is also read as values. */
static bool find_keys(const kv_caches *caches, bool *is_key) {
    bool is_value[RT_MAX_CACHES] = {false};
    const ir_region *body = caches->forward->body;
    int64_t layer;
    for (int i = 0; i < body->inst_count; i++)
        for (int k = 1; body->insts[i]->op == IR_ATTENTION && k < body->insts[i]->operand_count; k++) {
            int cache = kv_seen(caches, body->insts[i], k, &layer);
            if (cache >= 0) *(k == 1 || k == 4 ? &is_key[cache] : &is_value[cache]) = true;
        }
    for (int i = 0; i < caches->count; i++)
        if (is_key[i] && is_value[i]) return false;
    return true;
}

static void choose_order(layout *l, int cache, bool turn) {
    ir_type *type = &l->caches.part[cache][0].type;
    ir_type plain = *type;
    l->order[cache] = turn ? transposed : head_major;
    for (int i = 0; i < plain.rank; i++) type->dim[i] = plain.dim[l->order[cache][i]];
}

static gm_status lay_out(bool turn_keys, const ir_module *in, ir_module **out) {
    layout l = {.order = {NULL}};
    bool is_key[RT_MAX_CACHES] = {false};
    bool fires = kv_caches_open(in, &l.caches) && (find_keys(&l.caches, is_key) || !turn_keys);
    for (int i = 0; i < l.caches.count && fires; i++) choose_order(&l, i, turn_keys && is_key[i]);
    *out = fires ? kv_caches_rewrite(&l.caches, rewrite) : ir_rewrite_module(in, NULL, NULL);
    kv_caches_close(&l.caches);
    return GM_OK;
}

gm_status pass_kv_head_major(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    return lay_out(false, in, out);
}

gm_status pass_kv_k_transposed(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    return lay_out(true, in, out);
}
