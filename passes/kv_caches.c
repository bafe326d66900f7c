/* What the passes that change the form of the KV caches share: finding the caches, and giving @forward others. */
#include "passes/kv_caches.h"
#include "passes/match.h"

#include <stdlib.h>
#include <string.h>

/* ---- finding them ---- */

int kv_written(const kv_caches *caches, const ir_inst *inst, int64_t *out_layer) {
    return inst->op == IR_UPDATE && match_index(inst->operands[2], out_layer) ? caches->cache_of[inst->operands[0]->id]
                                                                              : -1;
}

int kv_read(const kv_caches *caches, const ir_inst *inst, int64_t *out_layer) {
    return inst->op == IR_INDEX && match_index(inst->operands[1], out_layer) ? caches->cache_of[inst->operands[0]->id]
                                                                             : -1;
}

int kv_seen(const kv_caches *caches, const ir_inst *attention, int k, int64_t *out_layer) {
    const ir_inst *def = attention->operands[k]->def;
    return def ? kv_read(caches, def, out_layer) : -1;
}

int64_t kv_window(const kv_caches *caches, int cache, int64_t layer) {
    const ir_region *body = caches->forward->body;
    int64_t longest = 0, seen = -1;
    for (int i = 0; i < body->inst_count; i++)
        for (int k = 1; body->insts[i]->op == IR_ATTENTION && k < 3; k++) {
            int64_t window = ir_attr_int(body->insts[i], IR_ATTR_WINDOW, 0);
            if (kv_seen(caches, body->insts[i], k, &seen) != cache || (layer >= 0 && seen != layer)) continue;
            if (window <= 0) return 0;
            if (window > longest) longest = window;
        }
    return longest;
}

static void note_call(const ir_inst *inst, void *user) {
    if (inst->op == IR_CALL && strcmp(ir_attr_string(inst, IR_ATTR_CALLEE), "forward") == 0) *(bool *)user = true;
}

/* ids, position, then caches that come back as they went. */
static bool has_signature(const ir_region *body, int caches) {
    if (caches < 1 || caches > RT_MAX_CACHES || body->yield_count != caches + 1) return false;
    const ir_type *position = &body->params[1]->type;
    if (position->dtype != RT_I32 || position->rank) return false;
    for (int i = 0; i < caches; i++) {
        const ir_type *type = &body->params[KV_FIRST + i]->type;
        if (type->rank != 4 || ir_dim_is_symbol(type->dim[0]) || !ir_type_equal(type, &body->yields[1 + i]->type))
            return false;
    }
    return true;
}

/* An update at (layer, position) of all the rows that a call brings. */
static bool is_plain_update(const kv_caches *caches, const ir_inst *inst) {
    int64_t layer;
    const ir_value *position = caches->forward->body->params[1];
    if (inst->op != IR_UPDATE || inst->operand_count != 4 || inst->operands[3] != position ||
        !match_index(inst->operands[2], &layer))
        return false;
    return inst->operands[1]->type.dim[0] == 1;
}

static bool is_plain_read(const ir_inst *inst) {
    int64_t layer;
    return inst->op == IR_INDEX && ir_attr_int(inst, IR_ATTR_AXIS, 0) == 0 && match_index(inst->operands[1], &layer);
}

/* Marks the states; false when something else touches one. layer_of[id]: the value is a layer of a cache. */
static bool mark_states(kv_caches *caches, bool *layer_of, int *updates) {
    const ir_region *body = caches->forward->body;
    for (int i = 0; i < body->inst_count; i++) {
        const ir_inst *inst = body->insts[i];
        if (inst->region_count) return false;
        for (int k = 0; k < inst->operand_count; k++) {
            uint32_t id = inst->operands[k]->id;
            if (layer_of[id] && !(inst->op == IR_ATTENTION && k != 0 && k != 3)) return false;
            if (caches->cache_of[id] < 0) continue;
            if (k != 0) return false;
            if (is_plain_read(inst)) layer_of[inst->results[0]->id] = true;
            else if (is_plain_update(caches, inst) && updates[id]++ == 0)
                caches->cache_of[inst->results[0]->id] = caches->cache_of[id];
            else return false;
        }
    }
    for (int i = 0; i < body->yield_count; i++) {
        uint32_t id = body->yields[i]->id;
        if (layer_of[id] || caches->cache_of[id] != i - 1 || (i && updates[id])) return false;
    }
    return true;
}

bool kv_caches_open(const ir_module *in, kv_caches *out) {
    bool called = false;
    *out = (kv_caches){.module = in, .forward = ir_func_find(in, "forward")};
    for (int i = 0; i < in->func_count; i++) ir_visit(in->funcs[i]->body, note_call, &called);
    if (!out->forward || called || out->forward->body->param_count <= KV_FIRST) return false;
    const ir_region *body = out->forward->body;
    size_t values = out->forward->value_count + 1;
    out->count = body->param_count - KV_FIRST;
    out->cache_of = malloc(values * sizeof *out->cache_of);
    out->beside = calloc(values, sizeof *out->beside);
    bool *layer_of = calloc(values, sizeof *layer_of);
    int *updates = calloc(values, sizeof *updates);
    GM_ASSERT(out->cache_of && out->beside && layer_of && updates);
    for (size_t i = 0; i < values; i++) out->cache_of[i] = -1;
    bool plain = has_signature(body, out->count);
    for (int i = 0; i < out->count && plain; i++) {
        const ir_value *cache = body->params[KV_FIRST + i];
        out->cache_of[cache->id] = i;
        out->part[i][0] = (kv_part){cache->type, cache->hint};
    }
    plain = plain && mark_states(out, layer_of, updates);
    free(layer_of);
    free(updates);
    return plain;
}

void kv_caches_close(kv_caches *caches) {
    free(caches->cache_of);
    free(caches->beside);
    gm_arena_free(&caches->arena);
}

bool kv_has_rings(const kv_caches *caches) {
    const ir_region *body = caches->forward->body;
    for (int i = 0; i < body->inst_count; i++)
        if (ir_attr_int(body->insts[i], IR_ATTR_RING, 0)) return true;
    return false;
}

/* ---- other caches for @forward ---- */

ir_value *kv_write(ir_rewrite *rw, const ir_inst *inst, ir_value *state, ir_value *value, ir_value *const *starts,
                   int count) {
    ir_value *operands[2 + IR_MAX_RANK] = {state, value};
    for (int i = 0; i < count; i++) operands[2 + i] = starts[i];
    return ir_emit1(&rw->b, IR_UPDATE, operands, 2 + count, inst->attrs, inst->attr_count, NULL);
}

static void new_params(ir_rewrite *rw) {
    const kv_caches *caches = rw->user;
    const ir_region *old = rw->in_func->body;
    for (int i = 0; i < KV_FIRST; i++)
        ir_rewrite_map(rw, old->params[i], ir_param(&rw->b, rw->b.region, old->params[i]->type, old->params[i]->hint));
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < caches->count; i++) {
            const kv_part *part = &caches->part[i][p];
            uint32_t id = old->params[KV_FIRST + i]->id;
            if (!part->type.rank) continue;
            ir_value *param = ir_param(&rw->b, rw->b.region, part->type, part->hint);
            if (p == 0) rw->map[id] = param;
            else caches->beside[id] = param;
        }
}

static void new_yields(ir_rewrite *rw) {
    const kv_caches *caches = rw->user;
    const ir_region *old = rw->in_func->body;
    ir_value *yields[1 + 2 * RT_MAX_CACHES] = {ir_rewrite_get(rw, old->yields[0])};
    int count = 1;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < caches->count; i++) {
            uint32_t id = old->yields[1 + i]->id;
            if (caches->part[i][p].type.rank) yields[count++] = p == 0 ? rw->map[id] : caches->beside[id];
        }
    ir_yield(&rw->b, yields, count);
}

ir_module *kv_caches_rewrite(kv_caches *caches, ir_rewrite_fn hook) {
    const ir_module *in = caches->module;
    ir_module *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        const ir_func *func = in->funcs[i];
        if (func == caches->forward) ir_retype_func(in, func, out, func->name, new_params, new_yields, hook, caches);
        else ir_clone_func(in, func, out, func->name, NULL, NULL, NULL);
    }
    return out;
}
