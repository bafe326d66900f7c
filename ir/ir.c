/* Modules, symbols, types, attribute look-up: the data structure itself. */
#include "ir/ir.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

const ir_op_info *ir_op_of(ir_op op) {
    static const ir_op_info table[] = {
#define OP(name, text, operands, results, regions, class) {text, operands, results, regions, IR_CLASS_##class},
#include "ir/ops.def"
#undef OP
    };
    GM_ASSERT((unsigned)op < IR_OP_COUNT);
    return &table[op];
}

bool ir_op_parse(const char *text, size_t length, ir_op *out) {
    for (int op = 0; op < IR_OP_COUNT; op++) {
        const char *name = ir_op_of((ir_op)op)->text;
        if (strlen(name) == length && memcmp(name, text, length) == 0) {
            *out = (ir_op)op;
            return true;
        }
    }
    return false;
}

const ir_attr_info *ir_attr_of(ir_attr_key key) {
    static const ir_attr_info table[] = {
#define ATTR(name, text, kind) {text, IR_KIND_##kind},
#include "ir/attrs.def"
#undef ATTR
    };
    GM_ASSERT((unsigned)key < IR_ATTR_COUNT);
    return &table[key];
}

ir_module *ir_module_new(void) {
    ir_module *module = calloc(1, sizeof *module);
    GM_ASSERT(module);
    return module;
}

void ir_module_free(ir_module *module) {
    if (!module) return;
    gm_arena_free(&module->arena);
    free(module);
}

ir_func *ir_func_find(const ir_module *module, const char *name) {
    for (int i = 0; i < module->func_count; i++)
        if (strcmp(module->funcs[i]->name, name) == 0) return module->funcs[i];
    return NULL;
}

int ir_symbol_find(const ir_module *module, const char *name) {
    for (int i = 0; i < module->symbol_count; i++)
        if (strcmp(module->symbols[i].name, name) == 0) return i;
    return -1;
}

int ir_symbol_intern(ir_module *module, const char *name, int64_t max) {
    int at = ir_symbol_find(module, name);
    if (at < 0) {
        ir_symbol *grown = GM_NEW_ARRAY(&module->arena, ir_symbol, module->symbol_count + 1);
        if (module->symbol_count) memcpy(grown, module->symbols, sizeof *grown * (size_t)module->symbol_count);
        module->symbols = grown;
        GM_ASSERT(module->symbol_count < IR_MAX_SYMBOLS);
        at = module->symbol_count++;
        grown[at].name = gm_arena_strdup(&module->arena, name);
    }
    if (max) module->symbols[at].max = max;
    return at;
}

/* ---- types ---- */

ir_type ir_scalar(rt_dtype dtype) {
    return (ir_type){.dtype = dtype};
}

ir_type ir_tensor(rt_dtype dtype, int rank, const ir_dim *dims) {
    GM_ASSERT(rank >= 0 && rank <= IR_MAX_RANK);
    ir_type type = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++) type.dim[i] = dims[i];
    return type;
}

bool ir_type_equal(const ir_type *a, const ir_type *b) {
    if (a->dtype != b->dtype || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

int64_t ir_dim_max(const ir_module *module, ir_dim dim) {
    return ir_dim_is_symbol(dim) ? module->symbols[ir_dim_symbol_of(dim)].max : dim;
}

int64_t ir_type_max_elems(const ir_module *module, const ir_type *type) {
    int64_t elems = 1;
    for (int i = 0; i < type->rank; i++)
        GM_ASSERT(!__builtin_mul_overflow(elems, ir_dim_max(module, type->dim[i]), &elems));
    return elems;
}

int64_t ir_type_max_rows(const ir_module *module, const ir_type *type) {
    ir_type row = *type;
    row.rank--;
    return ir_type_max_elems(module, &row);
}

int64_t ir_frame_bytes(const ir_module *module) {
    int64_t bytes = 0;
    for (int i = 0; i < module->func_count; i++)
        if (bytes < module->funcs[i]->frame) bytes = module->funcs[i]->frame;
    return bytes;
}

bool ir_broadcast(const ir_type *a, const ir_type *b, ir_type *out) {
    ir_type result = {.dtype = a->dtype, .rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 0; i < result.rank; i++) {
        int ia = i - (result.rank - a->rank), ib = i - (result.rank - b->rank);
        ir_dim da = ia >= 0 ? a->dim[ia] : 1, db = ib >= 0 ? b->dim[ib] : 1;
        if (da != db && da != 1 && db != 1) return false;
        result.dim[i] = da == 1 ? db : da;
    }
    *out = result;
    return true;
}

/* ---- attributes ---- */

const ir_attr *ir_attr_find(const ir_inst *inst, ir_attr_key key) {
    for (int i = 0; i < inst->attr_count; i++)
        if (inst->attrs[i].key == key) return &inst->attrs[i];
    return NULL;
}

int64_t ir_attr_int(const ir_inst *inst, ir_attr_key key, int64_t otherwise) {
    const ir_attr *attr = ir_attr_find(inst, key);
    return attr ? attr->i : otherwise;
}

double ir_attr_float(const ir_inst *inst, ir_attr_key key, double otherwise) {
    const ir_attr *attr = ir_attr_find(inst, key);
    return attr ? attr->f : otherwise;
}

const char *ir_attr_string(const ir_inst *inst, ir_attr_key key) {
    const ir_attr *attr = ir_attr_find(inst, key);
    return attr ? attr->s : NULL;
}

ir_einsum_spec ir_einsum_spec_of(const ir_inst *einsum) {
    ir_einsum_spec spec = {{{0}}, {0}};
    const char *text = ir_attr_string(einsum, IR_ATTR_SPEC), *comma = strchr(text, ','), *arrow = strstr(text, "->");
    memcpy(spec.operand[0], text, (size_t)(comma - text));
    memcpy(spec.operand[1], comma + 1, (size_t)(arrow - comma - 1));
    strcpy(spec.result, arrow + 2);
    return spec;
}

bool ir_attr_is(const ir_inst *inst, ir_attr_key key, const char *text) {
    const char *value = ir_attr_string(inst, key);
    return value && strcmp(value, text) == 0;
}

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_bytes(const void *a, const void *b, size_t bytes) {
    return (!a && !b) || (a && b && memcmp(a, b, bytes) == 0);
}

bool ir_attr_equal(const ir_attr *a, const ir_attr *b) {
    return a->key == b->key && a->i == b->i && memcmp(&a->f, &b->f, sizeof a->f) == 0 && same_text(a->s, b->s) &&
           a->n == b->n && same_bytes(a->ints, b->ints, a->n * sizeof *a->ints) &&
           same_bytes(a->floats, b->floats, a->n * sizeof *a->floats);
}

int64_t ir_stored_count(const ir_inst *inst) {
    return inst->op == IR_WEIGHT ? 1 : inst->op == IR_LAYER_WEIGHT ? ir_attr_int(inst, IR_ATTR_EXTENT, 0) : 0;
}

const char *ir_stored_name(const ir_inst *inst, int64_t i, char *text) {
    const char *name = ir_attr_string(inst, IR_ATTR_NAME), *star = strchr(name, '*');
    if (inst->op == IR_WEIGHT) return name;
    int64_t number = ir_attr_int(inst, IR_ATTR_START, 0) + i * ir_attr_int(inst, IR_ATTR_STEP, 0);
    snprintf(text, IR_NAME_BYTES, "%.*s%lld%s", (int)(star - name), name, (long long)number, star + 1);
    return text;
}
