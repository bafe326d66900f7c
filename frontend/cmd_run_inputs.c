/* Made-up inputs for gemmac run: seeded random parameters and weights, shaped by the types of the
 * module. */
#include "frontend/cmd_run.h"

#include "ir/rewrite.h"
#include "runtime/derive.h"
#include "runtime/interleave.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_EXTENT = 4, INT_VALUES = 4 };

/* ---- which integers may be ---- */

typedef struct integer_use {
    const ir_value *param;
    const int64_t *symbols;
    /* from 0 on, of which each is one that all direct uses take; what is computed from it is not followed */
    int64_t values;
} integer_use;

/* So many values operand i of the instruction may have; 0: any. */
static int64_t values_of(const integer_use *u, const ir_inst *inst, int i) {
    const ir_type *x = &inst->operands[0]->type, *y = inst->operand_count > 1 ? &inst->operands[1]->type : NULL;
    int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
    switch (inst->op) {
    case IR_GATHER: return i == 1 ? ir_dim_value(x->dim[0], u->symbols) : 0;
    case IR_INDEX: return i == 1 ? ir_dim_value(x->dim[axis], u->symbols) : 0;
    case IR_WINDOW:
        return i == 1 ? ir_dim_value(x->dim[axis], u->symbols) -
                            ir_dim_value(inst->results[0]->type.dim[axis], u->symbols) + 1
                      : 0;
    case IR_LAYER_WEIGHT: return ir_stored_count(inst);
    case IR_UPDATE:
        return i > 1 && !(ir_attr_int(inst, IR_ATTR_RING, 0) && i == inst->operand_count - 1)
                   ? ir_dim_value(x->dim[i - 2], u->symbols) - ir_dim_value(y->dim[i - 2], u->symbols) + 1
                   : 0;
    case IR_ATTENTION:
        return i == 3 && !ir_attr_int(inst, IR_ATTR_RING, 0)
                   ? ir_dim_value(y->dim[0], u->symbols) - ir_dim_value(x->dim[0], u->symbols) + 1
                   : 0;
    default: return 0;
    }
}

static void note_use(const ir_inst *inst, void *user) {
    integer_use *u = user;
    for (int i = 0; i < inst->operand_count; i++) {
        int64_t values = inst->operands[i] == u->param ? values_of(u, inst, i) : 0;
        if (values > 0 && values < u->values) u->values = values;
    }
}

static int64_t integer_values(const ir_func *func, const ir_value *param, const int64_t *symbols) {
    integer_use u = {param, symbols, INT_VALUES};
    ir_visit(func->body, note_use, &u);
    return u.values;
}

/* ---- random numbers ---- */

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t hash_text(const char *text, uint64_t seed) {
    return gm_hash(GM_HASH ^ seed, text, strlen(text));
}

/* Floats in [-1, 1), integers in [0, values), any bytes for blocks, save that no byte makes an f16 scale
 * infinite. */
static void fill(rt_dtype dtype, void *data, size_t bytes, int64_t elems, int64_t values, uint64_t state) {
    if (rt_is_storage(dtype)) {
        for (size_t i = 0; i < bytes; i++) ((uint8_t *)data)[i] = next_random(&state) & 0x3F;
        return;
    }
    for (int64_t i = 0; i < elems; i++) {
        uint64_t bits = next_random(&state);
        float real = (float)(bits >> 40) * 0x1p-23f - 1;
        int32_t integer = (int32_t)(bits >> 33) % (int32_t)values;
        switch (dtype) {
        case RT_F32: ((float *)data)[i] = real; break;
        case RT_F16: ((uint16_t *)data)[i] = rt_f32_to_f16(real); break;
        case RT_BF16: ((uint16_t *)data)[i] = rt_f32_to_bf16(real); break;
        case RT_I64: ((int64_t *)data)[i] = integer; break;
        case RT_I32: ((int32_t *)data)[i] = integer; break;
        case RT_I16: ((int16_t *)data)[i] = (int16_t)integer; break;
        case RT_I8: ((int8_t *)data)[i] = (int8_t)integer; break;
        case RT_BOOL: ((uint8_t *)data)[i] = integer & 1; break;
        default: GM_UNREACHABLE("element type");
        }
    }
}

/* ---- parameters ---- */

/* Values for the symbols: "T=3,S=9" where given, else 4, 8, 12, … within their bounds, so that a
 * position and the tokens after it usually fit the capacity. */
static gm_status bind_symbols(const ir_module *module, const char *dims, gm_diag *diag, int64_t *values) {
    for (int i = 0; i < module->symbol_count; i++) {
        int64_t max = module->symbols[i].max;
        values[i] = (int64_t)DEFAULT_EXTENT * (i + 1);
        if (max > 0 && values[i] > max) values[i] = max;
    }
    for (const char *at = dims; at && *at;) {
        char name[64], *end;
        size_t length = strcspn(at, "=,");
        bool fits = at[length] == '=' && length < sizeof name;
        if (fits) memcpy(name, at, length), name[length] = '\0';
        int symbol = fits ? ir_symbol_find(module, name) : -1;
        int64_t value = fits ? strtoll(at + length + 1, &end, 10) : 0;
        if (symbol < 0 || value < 1 || value > INT32_MAX || (*end && *end != ','))
            return gm_fail(diag, GM_INVALID, "--dims %s: expected SYMBOL=NUMBER,… with symbols of the module", dims);
        values[symbol] = value;
        at = *end ? end + 1 : end;
    }
    return GM_OK;
}

static gm_status make_array(const ir_type *type, const int64_t *symbols, int64_t values, uint64_t state,
                            gm_arena *arena, gm_diag *diag, ir_array *out) {
    size_t elems = 1;
    *out = (ir_array){.dtype = type->dtype, .rank = type->rank};
    for (int d = 0; d < type->rank; d++) {
        out->dim[d] = ir_dim_value(type->dim[d], symbols);
        if (!gm_mul_size(elems, (size_t)out->dim[d], &elems) || elems > (size_t)1 << 31)
            return gm_fail(diag, GM_INVALID,
                           "a parameter or weight has more than 2^31 elements: expected fewer (see --dims)");
    }
    int64_t row = type->rank ? out->dim[type->rank - 1] : 1;
    if (row % rt_dtype_of(type->dtype)->block_elems)
        return gm_fail(diag, GM_INVALID, "a row of %lld elements is not whole blocks of %s", (long long)row,
                       rt_dtype_of(type->dtype)->text);
    size_t bytes = rt_dtype_bytes(type->dtype, elems);
    out->data = gm_arena_alloc(arena, bytes + 1);
    fill(type->dtype, out->data, bytes, (int64_t)elems, values, state);
    return GM_OK;
}

gm_status cmd_run_args(const ir_module *module, const ir_func *func, const char *dims, uint64_t seed, gm_arena *arena,
                       gm_diag *diag, ir_array **out) {
    int64_t *symbols = GM_NEW_ARRAY(arena, int64_t, module->symbol_count + 1);
    ir_array *args = GM_NEW_ARRAY(arena, ir_array, func->body->param_count + 1);
    GM_TRY(bind_symbols(module, dims, diag, symbols));
    uint64_t state = hash_text(func->name, seed);
    for (int i = 0; i < func->body->param_count; i++)
        GM_TRY(make_array(&func->body->params[i]->type, symbols, integer_values(func, func->body->params[i], symbols),
                          next_random(&state), arena, diag, &args[i]));
    *out = args;
    return GM_OK;
}

/* ---- weights ---- */

typedef struct weight_maker {
    rt_weights *weights;
    uint64_t seed;
    gm_arena *arena;
    gm_diag *diag;
    gm_status status;
} weight_maker;

static void make_weight(weight_maker *m, const char *name, const ir_type *read) {
    ir_array array;
    ir_type stored = *read, *type = &stored;
    const rt_interleaved *rows = rt_interleaved_of(read->dtype);
    size_t source = rt_derived_source(name);
    /* of a screen: it is derived from a weight that is read too; of panels: see make_derived */
    if (source && !rows) return;
    if (source) name = gm_arena_strndup(m->arena, name, source), stored.dtype = rows->stored;
    if (m->status != GM_OK || rt_weights_find(m->weights, name)) return;
    m->status = make_array(type, NULL, INT_VALUES, hash_text(name, m->seed), m->arena, m->diag, &array);
    if (m->status != GM_OK) return;
    rt_tensor tensor = {.name = name, .dtype = type->dtype, .rank = type->rank, .data = array.data};
    GM_ASSERT(type->rank <= RT_MAX_TENSOR_RANK);
    for (int d = 0; d < type->rank; d++) tensor.dim[d] = array.dim[d];
    tensor.bytes = rt_dtype_bytes(type->dtype, (size_t)ir_array_elems(&array));
    m->status = rt_weights_add(m->weights, name, &tensor, m->diag);
}

static void make_weights(const ir_inst *inst, void *user) {
    weight_maker *m = user;
    char text[IR_NAME_BYTES];
    for (int64_t i = 0; i < ir_stored_count(inst); i++)
        make_weight(m, gm_arena_strdup(m->arena, ir_stored_name(inst, i, text)), &inst->results[0]->type);
}

/* The source of panels that nothing else reads, of floats. */
static void make_source(weight_maker *m, const char *name, const ir_type *panels) {
    ir_type floats = *panels;
    floats.dtype = RT_F32;
    make_weight(m, gm_arena_strndup(m->arena, name, rt_derived_source(name)), &floats);
}

/* What the name says must be of the instruction's type. */
static gm_status derive(weight_maker *m, const char *name, const ir_type *type) {
    rt_tensor read = {.name = name, .dtype = type->dtype, .rank = type->rank};
    if (rt_is_panels(name)) make_source(m, name, type);
    GM_TRY(m->status);
    GM_TRY(rt_derive(m->weights, name, RT_DERIVED_KEPT, NULL, m->diag));
    for (int d = 0; d < type->rank && d < RT_MAX_TENSOR_RANK; d++) read.dim[d] = type->dim[d];
    if (rt_is_derived(m->weights, &read)) return GM_OK;
    return gm_fail(m->diag, GM_INVALID, "weight \"%s\": what is derived from \"%.*s\" is of another type", name,
                   (int)rt_derived_source(name), name);
}

static void make_derived(const ir_inst *inst, void *user) {
    weight_maker *m = user;
    char text[IR_NAME_BYTES];
    for (int64_t i = 0; i < ir_stored_count(inst) && m->status == GM_OK; i++) {
        const char *name = gm_arena_strdup(m->arena, ir_stored_name(inst, i, text));
        if (rt_derived_source(name)) m->status = derive(m, name, &inst->results[0]->type);
    }
}

gm_status cmd_run_weights(const ir_module *module, uint64_t seed, gm_arena *arena, gm_diag *diag, rt_weights *out) {
    weight_maker maker = {.weights = out, .seed = seed, .arena = arena, .diag = diag};
    for (int i = 0; i < module->func_count; i++) ir_visit(module->funcs[i]->body, make_weights, &maker);
    for (int i = 0; i < module->func_count; i++) ir_visit(module->funcs[i]->body, make_derived, &maker);
    return maker.status;
}
