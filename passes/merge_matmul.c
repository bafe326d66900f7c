/* merge_qkv and merge_gate_up: sibling projections of one x become one matmul.
 *
 *   %q = matmul %x, %wq        %a = matmul %x, %wq, %wk, %wv     (rows of all weights in order)
 *   %k = matmul %x, %wk   ->   %q = slice %a {axis = last, start = 0, size = NQ}
 *   %v = matmul %x, %wv        %k = slice … ; %v = slice …
 *
 * One sweep over x and one kernel instead of three. Siblings: plain matmuls in one region that read the same value x
 * and a `weight` operation each, called P self_attn.{q,k,v}_proj.weight or P mlp.{gate,up}_proj.weight with the same P.
 * The weights stay as they are stored and may differ in dtype. Bit-exact: every output row is the same sum.
 *
 * Left alone: a projection without a sibling, another x, another layer, a matmul that already has several weights or
 * says how it runs. Run cse before, which makes equal x one value. The weights move up to the first of the siblings,
 * where the merged matmul stands.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 3 };

/* The projections of one x and layer, by their place in the list of suffixes. */
typedef struct siblings {
    const ir_region *region;
    const ir_value *x;
    const char *name; /* of the first weight found; the prefix is its first prefix_length bytes */
    size_t prefix_length;
    const ir_inst *part[MAX_PARTS]; /* NULL: not there */
} siblings;

typedef struct merging {
    const char *const *suffixes;
    int suffix_count;
    const char *hint; /* of the merged product */
    siblings *groups;
    int group_count, group_capacity;
} merging;

/* ---- finding siblings ---- */

static bool ends_with(const char *text, const char *suffix, size_t *out_prefix) {
    size_t length = strlen(text), tail = strlen(suffix);
    if (length < tail || strcmp(text + length - tail, suffix)) return false;
    *out_prefix = length - tail;
    return true;
}

static const ir_value *weight_of(const ir_inst *inst) {
    if (inst->op != IR_MATMUL || inst->operand_count != 2 || inst->attr_count) return NULL;
    const ir_value *weight = inst->operands[1];
    return weight->def && weight->def->op == IR_WEIGHT ? weight : NULL;
}

static siblings *group_for(merging *m, const siblings *wanted) {
    for (int i = 0; i < m->group_count; i++) {
        siblings *g = &m->groups[i];
        if (g->region == wanted->region && g->x == wanted->x && g->prefix_length == wanted->prefix_length &&
            memcmp(g->name, wanted->name, wanted->prefix_length) == 0)
            return g;
    }
    if (m->group_count == m->group_capacity) {
        m->group_capacity = m->group_capacity ? 2 * m->group_capacity : 64;
        m->groups = realloc(m->groups, sizeof *m->groups * (size_t)m->group_capacity);
        GM_ASSERT(m->groups);
    }
    m->groups[m->group_count] = *wanted;
    return &m->groups[m->group_count++];
}

static void note_matmul(merging *m, const ir_region *region, const ir_inst *inst) {
    const ir_value *weight = weight_of(inst);
    if (!weight) return;
    siblings wanted = {.region = region, .x = inst->operands[0], .name = ir_attr_string(weight->def, IR_ATTR_NAME)};
    for (int i = 0; i < m->suffix_count; i++) {
        if (!ends_with(wanted.name, m->suffixes[i], &wanted.prefix_length)) continue;
        siblings *group = group_for(m, &wanted);
        if (!group->part[i]) group->part[i] = inst;
    }
}

static void note_region(merging *m, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        note_matmul(m, region, region->insts[i]);
        for (int j = 0; j < region->insts[i]->region_count; j++) note_region(m, region->insts[i]->regions[j]);
    }
}

/* The group of two or more that this matmul belongs to. */
static const siblings *group_of(const merging *m, const ir_inst *inst) {
    for (int i = 0; i < m->group_count; i++) {
        int parts = 0;
        bool member = false;
        for (int k = 0; k < m->suffix_count; k++) {
            parts += m->groups[i].part[k] != NULL;
            member |= m->groups[i].part[k] == inst;
        }
        if (member) return parts > 1 ? &m->groups[i] : NULL;
    }
    return NULL;
}

/* ---- merging ---- */

static void emit_merged(ir_rewrite *rw, const siblings *group, const char *hint) {
    ir_value *weights[MAX_PARTS];
    int count = 0;
    for (int i = 0; i < MAX_PARTS; i++) {
        if (!group->part[i]) continue;
        const ir_value *weight = group->part[i]->operands[1];
        if (!rw->map[weight->id]) ir_rewrite_clone(rw, weight->def);
        weights[count++] = ir_rewrite_get(rw, weight);
    }
    ir_value *all = ir_named(ir_matmul(&rw->b, ir_rewrite_get(rw, group->x), weights, count), hint);
    int64_t start = 0;
    for (int i = 0; i < MAX_PARTS; i++) {
        if (!group->part[i]) continue;
        const ir_value *result = group->part[i]->results[0];
        int axis = result->type.rank - 1;
        int64_t rows = result->type.dim[axis];
        ir_rewrite_map(rw, result, ir_slice(&rw->b, all, axis, start, rows));
        start += rows;
    }
}

static bool merge(ir_rewrite *rw, const ir_inst *inst) {
    const merging *m = rw->user;
    if (inst->op == IR_WEIGHT) return rw->map[inst->results[0]->id] != NULL;
    const siblings *group = inst->op == IR_MATMUL ? group_of(m, inst) : NULL;
    if (!group) return false;
    if (!rw->map[inst->results[0]->id]) emit_merged(rw, group, m->hint);
    return true;
}

static gm_status merge_siblings(const char *const *suffixes, int suffix_count, const char *hint, const ir_module *in,
                                ir_module **out) {
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        merging m = {.suffixes = suffixes, .suffix_count = suffix_count, .hint = hint};
        note_region(&m, in->funcs[i]->body);
        ir_clone_func(in, in->funcs[i], *out, in->funcs[i]->name, NULL, merge, &m);
        free(m.groups);
    }
    return GM_OK;
}

gm_status pass_merge_qkv(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    static const char *const suffixes[] = {"self_attn.q_proj.weight", "self_attn.k_proj.weight",
                                           "self_attn.v_proj.weight"};
    return merge_siblings(suffixes, 3, "qkv", in, out);
}

gm_status pass_merge_gate_up(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    static const char *const suffixes[] = {"mlp.gate_proj.weight", "mlp.up_proj.weight"};
    return merge_siblings(suffixes, 2, "gate_up", in, out);
}
