/* cse: give equal pure instructions one value.
 *
 *   %a = mul %x, %y ; %b = mul %y, %x        ->  %a, and every use of %b reads %a
 *
 * Equal means: the same operation, attributes and result types, and operands that are already one value; add, mul, and,
 * or, eq may have theirs exchanged (a sum of two NaNs may then carry the other's payload; nothing else can differ). An
 * earlier instruction stands for a later one when its region encloses the later one's. Instructions with regions,
 * calls, effects and updates that take over memory are left alone; their bodies are searched.
 *
 * Not across a `dim`: what a symbol means changes there, so what was computed before is not known after it, within that
 * region. A fuse body sees only itself. Bit-exact.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096, MAX_DEPTH = 128 };

typedef struct known {
    ir_inst *inst; /* in the new module */
    ir_region *region;
    int next; /* in the same bucket; -1: none */
} known;

typedef struct value_table {
    known *entries;
    int count, capacity;
    int bucket[BUCKETS];
    /* the regions around the insertion point, innermost last */
    ir_region *open[MAX_DEPTH];
    int depth;
    int floor; /* entries below are hidden: they stand before a dim, or outside a fuse body */
} value_table;

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 32);
}

static uint64_t mix_attr(uint64_t hash, const ir_attr *attr) {
    hash = mix(mix(hash, attr->key), (uint64_t)attr->i);
    for (const char *c = attr->s; c && *c; c++) hash = mix(hash, (unsigned char)*c);
    return mix(hash, attr->n);
}

static bool commutes(ir_op op) {
    return op == IR_ADD || op == IR_MUL || op == IR_AND || op == IR_OR || op == IR_EQ;
}

/* The operands' part does not depend on their order. */
static uint64_t hash_of(const ir_inst *inst, ir_value *const *operands) {
    uint64_t hash = mix(inst->op, (uint64_t)inst->operand_count), sum = 0;
    for (int i = 0; i < inst->operand_count; i++) sum += mix(1, operands[i]->id);
    for (int i = 0; i < inst->attr_count; i++) hash += mix_attr(7, &inst->attrs[i]);
    const ir_type *type = &inst->results[0]->type;
    hash = mix(hash + sum, (uint64_t)type->dtype);
    for (int i = 0; i < type->rank; i++) hash = mix(hash, (uint64_t)type->dim[i]);
    return hash;
}

static bool same_attrs(const ir_inst *a, const ir_inst *b) {
    if (a->attr_count != b->attr_count) return false;
    for (int i = 0; i < a->attr_count; i++) {
        const ir_attr *other = ir_attr_find(b, a->attrs[i].key);
        if (!other || !ir_attr_equal(&a->attrs[i], other)) return false;
    }
    return true;
}

static bool same_operands(const ir_inst *made, ir_value *const *operands) {
    bool same = true;
    for (int i = 0; i < made->operand_count; i++) same &= made->operands[i] == operands[i];
    if (same || !commutes(made->op)) return same;
    return made->operands[0] == operands[1] && made->operands[1] == operands[0];
}

static bool visible(const value_table *t, int at, const ir_region *current) {
    if (at < t->floor) return false;
    const ir_region *region = t->entries[at].region;
    if (region == current) return true;
    for (int i = 0; i < t->depth; i++)
        if (t->open[i] == region) return true;
    return false;
}

static ir_inst *find(const value_table *t, const ir_inst *inst, ir_value *const *operands, uint64_t hash,
                     const ir_region *current) {
    for (int at = t->bucket[hash % BUCKETS]; at >= 0; at = t->entries[at].next) {
        ir_inst *made = t->entries[at].inst;
        if (made->op == inst->op && made->operand_count == inst->operand_count && visible(t, at, current) &&
            same_operands(made, operands) && same_attrs(made, inst) &&
            ir_type_equal(&made->results[0]->type, &inst->results[0]->type))
            return made;
    }
    return NULL;
}

static void remember(value_table *t, ir_inst *made, uint64_t hash, ir_region *current) {
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 256;
        t->entries = realloc(t->entries, sizeof *t->entries * (size_t)t->capacity);
        GM_ASSERT(t->entries);
    }
    t->entries[t->count] = (known){made, current, t->bucket[hash % BUCKETS]};
    t->bucket[hash % BUCKETS] = t->count++;
}

static void copy_with_regions(ir_rewrite *rw, value_table *t, const ir_inst *inst) {
    int floor = t->floor;
    GM_ASSERT(t->depth < MAX_DEPTH);
    t->open[t->depth++] = rw->b.region;
    if (inst->op == IR_FUSE) t->floor = t->count;
    ir_rewrite_clone(rw, inst);
    t->depth--;
    t->floor = floor;
}

static bool may_merge(const ir_inst *inst) {
    return inst->result_count == 1 && inst->region_count == 0 && inst->op != IR_CALL && !ir_has_effect(inst) &&
           !ir_attr_int(inst, IR_ATTR_INPLACE, 0);
}

static bool merge(ir_rewrite *rw, const ir_inst *inst) {
    value_table *t = rw->user;
    if (inst->op == IR_DIM) t->floor = t->count;
    if (inst->region_count) return copy_with_regions(rw, t, inst), true;
    if (!may_merge(inst)) return false;
    ir_value **operands = ir_rewrite_operands(rw, inst, 0);
    uint64_t hash = hash_of(inst, operands);
    ir_inst *made = find(t, inst, operands, hash, rw->b.region);
    if (made) ir_rewrite_map(rw, inst->results[0], made->results[0]);
    else remember(t, ir_rewrite_clone(rw, inst), hash, rw->b.region);
    return true;
}

gm_status pass_cse(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    value_table *t = malloc(sizeof *t);
    GM_ASSERT(t);
    *t = (value_table){.entries = NULL};
    *out = ir_module_like(in);
    for (int i = 0; i < in->func_count; i++) {
        t->count = t->depth = t->floor = 0;
        for (int k = 0; k < BUCKETS; k++) t->bucket[k] = -1;
        ir_clone_func(in, in->funcs[i], *out, in->funcs[i]->name, NULL, merge, t);
    }
    free(t->entries);
    free(t);
    return GM_OK;
}
