/* Values of .gir tests: literals, seeded random arguments and weights, comparison within ir/tol.def. */
#include "tests/gir.h"

#include "ir/agree.h"
#include "ir/rewrite.h"
#include "runtime/derive.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- random numbers ---- */

static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t random_int(uint64_t *state, int64_t least, int64_t most) {
    return least + (int64_t)(next_random(state) % (uint64_t)(most - least + 1));
}

static float random_float(uint64_t *state, double least, double most) {
    return (float)(least + (most - least) * (double)(next_random(state) >> 11) * 0x1p-53);
}

static uint64_t hash_text(const char *text) {
    return gm_hash(GM_HASH, text, strlen(text));
}

/* ---- storing and reading elements ---- */

static void store(void *data, rt_dtype dtype, int64_t i, double value) {
    switch (dtype) {
    case RT_F32: ((float *)data)[i] = (float)value; return;
    case RT_F16: ((uint16_t *)data)[i] = rt_f32_to_f16((float)value); return;
    case RT_BF16: ((uint16_t *)data)[i] = rt_f32_to_bf16((float)value); return;
    case RT_I64: ((int64_t *)data)[i] = (int64_t)value; return;
    case RT_I32: ((int32_t *)data)[i] = (int32_t)value; return;
    case RT_I16: ((int16_t *)data)[i] = (int16_t)value; return;
    case RT_I8: ((int8_t *)data)[i] = (int8_t)value; return;
    case RT_BOOL: ((uint8_t *)data)[i] = value != 0; return;
    default: GM_UNREACHABLE("storage types are written as bytes");
    }
}

/* ---- literals ---- */

static void skip_blank(const char **at) {
    while (isspace((unsigned char)**at) || **at == ',') ++*at;
}

static bool parse_number(gir_file *file, const char **at, double *out) {
    char *stop;
    skip_blank(at);
    if (strncmp(*at, "true", 4) == 0) return *out = 1, *at += 4, true;
    if (strncmp(*at, "false", 5) == 0) return *out = 0, *at += 5, true;
    *out = strtod(*at, &stop);
    if (stop == *at) return gir_fail(file, "expected a number at \"%.20s\"", *at);
    *at = stop;
    return true;
}

/* A number or a list "[1, 2, 0*30]" of exactly `elems` numbers, into doubles. */
static bool parse_numbers(gir_file *file, const char **at, int64_t elems, double *out) {
    int64_t n = 0;
    skip_blank(at);
    if (**at != '[') {
        if (elems != 1) return gir_fail(file, "expected a list of %lld numbers", (long long)elems);
        return parse_number(file, at, out);
    }
    for (++*at, skip_blank(at); **at != ']'; skip_blank(at)) {
        double value;
        long repeat = 1;
        if (!parse_number(file, at, &value)) return false;
        if (**at == '*') repeat = strtol(*at + 1, (char **)(uintptr_t)at, 10);
        if (repeat < 0 || repeat > elems - n)
            return gir_fail(file, "a list has more than %lld numbers", (long long)elems);
        while (repeat-- > 0) out[n++] = value;
    }
    ++*at;
    return n == elems || gir_fail(file, "a list has %lld numbers instead of %lld", (long long)n, (long long)elems);
}

/* "T=3 S=8 " at the start of a call: values of symbols. */
static bool parse_symbols(gir_file *file, const ir_module *module, const char **at, int64_t *symbols) {
    for (skip_blank(at); isalpha((unsigned char)**at); skip_blank(at)) {
        size_t length = strcspn(*at, "= ");
        char *name = gm_arena_strndup(&file->arena, *at, length);
        int symbol = ir_symbol_find(module, name);
        if ((*at)[length] != '=') return true;
        if (symbol < 0) return gir_fail(file, "no symbol is called %s", name);
        symbols[symbol] = strtol(*at + length + 1, (char **)(uintptr_t)at, 10);
    }
    return true;
}

static bool shape_of(gir_file *file, const ir_module *module, const ir_type *type, const int64_t *symbols,
                     ir_array *out) {
    *out = (ir_array){.dtype = type->dtype, .rank = type->rank};
    for (int i = 0; i < type->rank; i++) {
        out->dim[i] = type->dim[i];
        if (!ir_dim_is_symbol(type->dim[i])) continue;
        out->dim[i] = symbols[ir_dim_symbol_of(type->dim[i])];
        if (out->dim[i] < 0)
            return gir_fail(file, "symbol %s needs a value", module->symbols[ir_dim_symbol_of(type->dim[i])].name);
    }
    size_t elems = (size_t)ir_array_elems(out);
    out->data = gm_arena_alloc(&file->arena, rt_dtype_bytes(out->dtype, elems) + 1);
    return true;
}

bool gir_parse_args(gir_file *file, const ir_module *module, const ir_func *func, const char *text, ir_array *args) {
    int64_t symbols[IR_MAX_SYMBOLS];
    for (int i = 0; i < IR_MAX_SYMBOLS; i++) symbols[i] = -1;
    if (!parse_symbols(file, module, &text, symbols)) return false;
    for (int i = 0; i < func->body->param_count; i++) {
        if (!shape_of(file, module, &func->body->params[i]->type, symbols, &args[i])) return false;
        int64_t elems = ir_array_elems(&args[i]);
        double *numbers = GM_NEW_ARRAY(&file->arena, double, elems + 1);
        if (!parse_numbers(file, &text, elems, numbers)) return false;
        for (int64_t j = 0; j < elems; j++) store(args[i].data, args[i].dtype, j, numbers[j]);
    }
    skip_blank(&text);
    return !*text || gir_fail(file, "@%s: more arguments than parameters: \"%.20s\"", func->name, text);
}

/* ---- comparing ---- */

static bool same_array(gir_file *file, ir_exactness exactness, const double *want, const ir_array *got,
                       const char *what, int number) {
    double largest = 0;
    int64_t elems = ir_array_elems(got);
    for (int64_t i = 0; i < elems; i++)
        if (isfinite(want[i])) largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < elems; i++) {
        double value = ir_array_element(got, i);
        if (!ir_agree(exactness, got->dtype, want[i], value, largest))
            return gir_fail(file, "%s: result %d: element %lld is %.9g, expected %.9g", what, number, (long long)i,
                            value, want[i]);
    }
    return true;
}

bool gir_check_values(gir_file *file, const ir_module *module, const ir_func *func, const char *text,
                      const ir_array *results) {
    ir_exactness exactness = ir_exactness_of_func(module, func);
    for (int i = 0; i < func->body->yield_count; i++) {
        int64_t elems = ir_array_elems(&results[i]);
        double *want = GM_NEW_ARRAY(&file->arena, double, elems + 1);
        if (!parse_numbers(file, &text, elems, want)) return false;
        uint64_t rounded; /* a literal means the nearest number of the result's dtype */
        for (int64_t j = 0; j < elems; j++) {
            store(&rounded, results[i].dtype, 0, want[j]);
            want[j] = ir_array_element(&(ir_array){.dtype = results[i].dtype, .data = &rounded}, 0);
        }
        if (!same_array(file, exactness, want, &results[i], func->name, i)) return false;
    }
    skip_blank(&text);
    return !*text || gir_fail(file, "@%s: more values than results: \"%.20s\"", func->name, text);
}

bool gir_same_result(gir_file *file, const ir_module *module, const ir_func *func, int i, const ir_array *want,
                     const ir_array *got, const char *what) {
    bool same = want->dtype == got->dtype && want->rank == got->rank;
    for (int d = 0; same && d < want->rank; d++) same = want->dim[d] == got->dim[d];
    if (!same) return gir_fail(file, "%s: result %d of @%s has another shape", what, i, func->name);
    int64_t elems = ir_array_elems(want);
    double *values = GM_NEW_ARRAY(&file->arena, double, elems + 1);
    for (int64_t j = 0; j < elems; j++) values[j] = ir_array_element(want, j);
    return same_array(file, ir_exactness_of_func(module, func), values, got, what, i);
}

bool gir_same_outcome(gir_file *file, const ir_module *module, const ir_func *func, const gir_outcome *want,
                      const gir_outcome *got, const char *what) {
    for (int i = 0; i < func->body->yield_count; i++)
        if (!gir_same_result(file, module, func, i, &want->results[i], &got->results[i], what)) return false;
    if (want->emitted_count != got->emitted_count)
        return gir_fail(file, "%s: @%s emits %d tokens, expected %d", what, func->name, got->emitted_count,
                        want->emitted_count);
    for (int i = 0; i < want->emitted_count; i++)
        if (want->emitted[i] != got->emitted[i])
            return gir_fail(file, "%s: token %d of @%s is %d, expected %d", what, i, func->name, (int)got->emitted[i],
                            (int)want->emitted[i]);
    return true;
}

/* ---- random arguments ---- */

/* "# input: name least most", for a symbol or a parameter. */
static bool range_of(const gir_file *file, const char *name, double *least, double *most) {
    for (int i = 0; name && i < file->directive_count; i++) {
        const char *rest = file->directives[i].rest;
        char key[64], more;
        double low, high;
        if (strcmp(file->directives[i].key, "input")) continue;
        int found = sscanf(rest, " %%%63s %lf %lf %c", key, &low, &high, &more);
        if (found < 3) found = sscanf(rest, " %63s %lf %lf %c", key, &low, &high, &more);
        GM_ASSERT(found < 4 && "\"# input:\" takes a name, the least and the most");
        if (found < 3 || strcmp(key, name)) continue;
        *least = low;
        *most = high;
        return true;
    }
    return false;
}

static void default_range(rt_dtype dtype, double *least, double *most) {
    bool is_float = rt_dtype_of(dtype)->class == RT_CLASS_FLOAT;
    *least = is_float ? -1 : 0;
    *most = dtype == RT_BOOL || is_float ? 1 : 3;
}

static void choose_symbols(const gir_file *file, const ir_module *module, const ir_func *before, const ir_func *after,
                           uint64_t *state, int64_t *symbols) {
    for (int i = 0; i < module->symbol_count; i++) {
        double least = 1,
               most = module->symbols[i].max && module->symbols[i].max < 5 ? (double)module->symbols[i].max : 5;
        range_of(file, module->symbols[i].name, &least, &most);
        symbols[i] = random_int(state, (int64_t)least, (int64_t)most);
    }
    for (int i = 0; i < before->body->param_count; i++) {
        const ir_type *a = &before->body->params[i]->type, *b = &after->body->params[i]->type;
        for (int d = 0; d < a->rank && d < b->rank; d++)
            if (ir_dim_is_symbol(a->dim[d]) && !ir_dim_is_symbol(b->dim[d]))
                symbols[ir_dim_symbol_of(a->dim[d])] = b->dim[d];
    }
}

void gir_fill_random(gir_file *file, const ir_value *param, uint64_t *state, ir_array *out) {
    double least, most;
    default_range(param->type.dtype, &least, &most);
    range_of(file, param->hint, &least, &most);
    bool is_float = rt_dtype_of(param->type.dtype)->class == RT_CLASS_FLOAT;
    int64_t elems = ir_array_elems(out);
    for (int64_t j = 0; j < elems; j++)
        store(out->data, out->dtype, j,
              is_float ? (double)random_float(state, least, most)
                       : (double)random_int(state, (int64_t)least, (int64_t)most));
}

bool gir_random_args(gir_file *file, const ir_module *module, const ir_func *before, const ir_func *after,
                     uint64_t seed, ir_array *args) {
    int64_t symbols[IR_MAX_SYMBOLS];
    uint64_t state = hash_text(before->name) + seed;
    if (before->body->param_count != after->body->param_count)
        return gir_fail(file, "@%s has another number of parameters after the passes", before->name);
    choose_symbols(file, module, before, after, &state, symbols);
    for (int i = 0; i < before->body->param_count; i++) {
        const ir_value *param = before->body->params[i];
        if (rt_is_storage(param->type.dtype))
            return gir_fail(file, "@%s takes a storage type: write it as a weight", before->name);
        if (!shape_of(file, module, &param->type, symbols, &args[i])) return false;
        gir_fill_random(file, param, &state, &args[i]);
    }
    return true;
}

/* ---- weights ---- */

/* Any bytes are a valid block once its f16 scales are sane: this many of them, at these offsets. */
typedef struct scale_places {
    rt_dtype dtype;
    int count, offset[2];
} scale_places;

static const scale_places scales[] = {
    {RT_Q4_0, 1, {0}}, {RT_Q4_1, 2, {0, 2}}, {RT_Q5_0, 1, {0}},    {RT_Q5_1, 2, {0, 2}},
    {RT_Q8_0, 1, {0}}, {RT_Q4_K, 2, {0, 2}}, {RT_Q5_K, 2, {0, 2}}, {RT_Q6_K, 1, {208}},
};

static void random_blocks(rt_dtype dtype, uint8_t *data, size_t bytes, uint64_t *state) {
    size_t block = (size_t)rt_dtype_of(dtype)->block_bytes;
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)next_random(state);
    for (size_t s = 0; s < GM_COUNT(scales); s++) {
        if (scales[s].dtype != dtype) continue;
        for (uint8_t *at = data; at < data + bytes; at += block)
            for (int i = 0; i < scales[s].count; i++) {
                uint16_t scale = rt_f32_to_f16(random_float(state, 0.0005, 0.01));
                memcpy(at + scales[s].offset[i], &scale, sizeof scale);
            }
    }
}

/* "hex 003c 01*32": bytes, with repetition. */
static bool parse_hex(gir_file *file, const char *text, uint8_t *data, size_t bytes) {
    size_t n = 0;
    for (; *text; text++) {
        unsigned byte;
        if (isspace((unsigned char)*text)) continue;
        if (sscanf(text, "%2x", &byte) != 1 || !isxdigit((unsigned char)text[1]))
            return gir_fail(file, "expected bytes in hex at \"%.20s\"", text);
        long repeat = 1;
        const char *stop = text + 2;
        if (*stop == '*') repeat = strtol(stop + 1, (char **)(uintptr_t)&stop, 10);
        if (repeat < 0 || (size_t)repeat > bytes - n) return gir_fail(file, "more than %zu bytes", bytes);
        while (repeat-- > 0) data[n++] = (uint8_t)byte;
        text = stop - 1;
    }
    return n == bytes || gir_fail(file, "%zu bytes instead of %zu", n, bytes);
}

/* From "# weight: name = […]" or "# weight: name = hex …"; *given says whether there is one. */
static bool literal_weight(gir_file *file, const char *name, const ir_type *type, uint8_t *data, size_t bytes,
                           int64_t elems, bool *given) {
    size_t length = strlen(name);
    *given = true;
    for (int i = 0; i < file->directive_count; i++) {
        const char *text = file->directives[i].rest;
        if (strcmp(file->directives[i].key, "weight") || strncmp(text, name, length)) continue;
        text += length;
        while (*text == ' ') text++;
        if (*text++ != '=') continue;
        while (*text == ' ') text++;
        if (strncmp(text, "hex ", 4) == 0) return parse_hex(file, text + 4, data, bytes);
        if (rt_is_storage(type->dtype)) return gir_fail(file, "weight %s needs its bytes in hex", name);
        double *numbers = GM_NEW_ARRAY(&file->arena, double, elems + 1);
        if (!parse_numbers(file, &text, elems, numbers)) return false;
        for (int64_t j = 0; j < elems; j++) store(data, type->dtype, j, numbers[j]);
        return true;
    }
    *given = false;
    return true;
}

static bool make_weight(gir_file *file, const char *name, const ir_type *type) {
    rt_tensor tensor = {.name = name, .dtype = type->dtype, .rank = type->rank};
    int64_t elems = 1;
    if (type->rank > RT_MAX_TENSOR_RANK) return gir_fail(file, "weight %s has too many axes", name);
    for (int i = 0; i < type->rank; i++) elems *= tensor.dim[i] = type->dim[i];
    tensor.bytes = rt_dtype_bytes(type->dtype, (size_t)elems);
    uint8_t *data = gm_arena_alloc(&file->arena, tensor.bytes + 1);
    bool given;
    if (!literal_weight(file, name, type, data, tensor.bytes, elems, &given)) return false;
    uint64_t state = hash_text(name);
    if (!given && rt_is_storage(type->dtype)) random_blocks(type->dtype, data, tensor.bytes, &state);
    else if (!given)
        for (int64_t i = 0; i < elems; i++) store(data, type->dtype, i, (double)random_float(&state, -0.5, 0.5));
    tensor.data = data;
    gm_diag diag = {0};
    if (rt_weights_add(&file->weights, file->path, &tensor, &diag) != GM_OK) return gir_fail(file, "%s", diag.message);
    return true;
}

typedef struct weight_search {
    gir_file *file;
    bool ok;
} weight_search;

static void note_weight(const ir_inst *inst, void *user) {
    weight_search *search = user;
    char text[IR_NAME_BYTES];
    for (int64_t i = 0; i < ir_stored_count(inst) && search->ok; i++) {
        const char *name = gm_arena_strdup(&search->file->arena, ir_stored_name(inst, i, text));
        if (!rt_derived_source(name) && !rt_weights_find(&search->file->weights, name))
            search->ok = make_weight(search->file, name, &inst->results[0]->type);
    }
}

static void note_derived(const ir_inst *inst, void *user) {
    weight_search *search = user;
    char text[IR_NAME_BYTES];
    gm_diag diag = {0};
    for (int64_t i = 0; i < ir_stored_count(inst) && search->ok; i++) {
        const char *name = gm_arena_strdup(&search->file->arena, ir_stored_name(inst, i, text));
        if (rt_derived_source(name) && rt_derive(&search->file->weights, name, RT_DERIVED_KEPT, NULL, &diag) != GM_OK)
            search->ok = gir_fail(search->file, "%s", diag.message);
    }
}

bool gir_make_weights(gir_file *file, const ir_module *module) {
    weight_search search = {file, true};
    for (int i = 0; i < module->func_count; i++) ir_visit(module->funcs[i]->body, note_weight, &search);
    for (int i = 0; i < module->func_count; i++) ir_visit(module->funcs[i]->body, note_derived, &search);
    return search.ok;
}
