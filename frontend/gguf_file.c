/* The GGUF container, versions 2 and 3, little-endian: header, metadata, tensor infos.
 *
 *   "GGUF", u32 version, u64 tensors, u64 values
 *   value:  string key, u32 type, data; array data: u32 element type, u64 count, elements
 *   info:   string name, u32 rank, u64 dims[rank] (fastest first), u32 ggml type, u64 offset
 *   zeros up to general.alignment, then the tensors, each padded to it; offsets count from there
 *
 * Nothing is copied but tensor names. Every count and size is checked against what is left of the
 * file before it is used.
 */
#include "frontend/gguf_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STRING = 1 << 30, MAX_KEY = 65535, MAX_NAME = 63, MIN_VALUE_BYTES = 14 };
enum { MIN_INFO_BYTES = 25, DEFAULT_ALIGNMENT = 32, PRINTED = 200 };

static const int type_bytes[GGUF_TYPE_COUNT] = {
#define GGUF_TYPE(name, number, bytes) [GGUF_##name] = (bytes),
    GGUF_TYPES(GGUF_TYPE)
#undef GGUF_TYPE
};

typedef struct cursor {
    gguf_file *file;
    size_t at;
} cursor;

/* ---- scalars and strings ---- */

static size_t left(const cursor *c) {
    return c->file->bytes - c->at;
}

static gm_status take(cursor *c, size_t bytes, const char *what, const uint8_t **out) {
    if (left(c) < bytes)
        return gm_fail(c->file->diag, GM_FORMAT, "%s: byte %zu: expected %s (%zu bytes), found the end of the file",
                       c->file->path, c->at, what, bytes);
    *out = c->file->data + c->at;
    c->at += bytes;
    return GM_OK;
}

static gm_status take_u32(cursor *c, const char *what, uint32_t *out) {
    const uint8_t *data = NULL;
    GM_TRY(take(c, 4, what, &data));
    *out = (uint32_t)gguf_load(data, 4);
    return GM_OK;
}

static gm_status take_u64(cursor *c, const char *what, uint64_t *out) {
    const uint8_t *data = NULL;
    GM_TRY(take(c, 8, what, &data));
    *out = gguf_load(data, 8);
    return GM_OK;
}

static gm_status take_string(cursor *c, const char *what, const char **out, size_t *out_length) {
    uint64_t length = 0;
    size_t start = c->at;
    GM_TRY(take_u64(c, what, &length));
    if (length > left(c) || length > MAX_STRING)
        return gm_fail(c->file->diag, GM_FORMAT,
                       "%s: byte %zu: expected %s, found a string of %llu bytes with %zu left", c->file->path, start,
                       what, (unsigned long long)length, left(c));
    *out = (const char *)c->file->data + c->at;
    *out_length = (size_t)length;
    c->at += (size_t)length;
    return GM_OK;
}

static gm_status take_name(cursor *c, const char *what, size_t max, const char **out, size_t *out_length) {
    size_t start = c->at;
    GM_TRY(take_string(c, what, out, out_length));
    bool printable = *out_length >= 1 && *out_length <= max;
    for (size_t i = 0; i < *out_length && printable; i++) printable = (*out)[i] > ' ' && (*out)[i] <= '~';
    if (printable) return GM_OK;
    return gm_fail(c->file->diag, GM_FORMAT, "%s: byte %zu: expected %s of 1 to %zu ASCII letters", c->file->path,
                   start, what, max);
}

/* ---- metadata ---- */

static gm_status take_type(cursor *c, const char *what, gguf_type *out) {
    uint32_t type = 0;
    size_t start = c->at;
    GM_TRY(take_u32(c, what, &type));
    if (type >= GGUF_TYPE_COUNT)
        return gm_fail(c->file->diag, GM_FORMAT, "%s: byte %zu: expected %s 0 to 12, found %u", c->file->path, start,
                       what, type);
    *out = (gguf_type)type;
    return GM_OK;
}

static gm_status take_array(cursor *c, gguf_value *value) {
    gguf_file *file = c->file;
    GM_TRY(take_type(c, "an element type", &value->type));
    if (value->type == GGUF_ARRAY)
        return gm_fail(file->diag, GM_UNSUPPORTED, "%s: byte %zu: expected no array of arrays", file->path, c->at);
    GM_TRY(take_u64(c, "an array count", &value->count));
    int size = type_bytes[value->type];
    if (value->count > left(c) / (size_t)(size ? size : 8))
        return gm_fail(file->diag, GM_FORMAT, "%s: byte %zu: expected an array that fits the file, found %llu elements",
                       file->path, c->at, (unsigned long long)value->count);
    value->data = file->data + c->at;
    if (size) {
        c->at += (size_t)value->count * (size_t)size;
        return GM_OK;
    }
    for (uint64_t i = 0; i < value->count; i++) {
        const char *text;
        size_t length;
        GM_TRY(take_string(c, "a string of the array", &text, &length));
    }
    return GM_OK;
}

static gm_status take_value(cursor *c, gguf_value *value) {
    const char *text;
    size_t length;
    GM_TRY(take_name(c, "a key", MAX_KEY, &value->key, &value->key_length));
    GM_TRY(take_type(c, "a value type", &value->type));
    value->is_array = value->type == GGUF_ARRAY;
    if (value->is_array) return take_array(c, value);
    value->count = 1;
    value->data = c->file->data + c->at;
    if (value->type == GGUF_STRING) return take_string(c, "a string value", &text, &length);
    return take(c, (size_t)type_bytes[value->type], "a value", &value->data);
}

static int compare_keys(const char *a, size_t a_length, const char *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_values(const void *a, const void *b) {
    const gguf_value *x = a, *y = b;
    return compare_keys(x->key, x->key_length, y->key, y->key_length);
}

static gm_status read_values(cursor *c, uint64_t count) {
    gguf_file *file = c->file;
    if (count > left(c) / MIN_VALUE_BYTES)
        return gm_fail(file->diag, GM_FORMAT, "%s: expected as many metadata values as fit the file, found %llu",
                       file->path, (unsigned long long)count);
    file->value_count = (size_t)count;
    file->values = GM_NEW_ARRAY(&file->arena, gguf_value, count);
    for (size_t i = 0; i < count; i++) GM_TRY(take_value(c, &file->values[i]));
    qsort(file->values, file->value_count, sizeof *file->values, compare_values);
    for (size_t i = 1; i < file->value_count; i++) {
        const gguf_value *value = &file->values[i];
        if (compare_values(value - 1, value) == 0)
            return gm_fail(file->diag, GM_FORMAT, "%s: key \"%.*s\": expected only one of this name", file->path,
                           value->key_length < PRINTED ? (int)value->key_length : PRINTED, value->key);
    }
    return GM_OK;
}

/* ---- tensor infos ---- */

/* ggml types that are known but not read, for the message. */
static const char *ggml_name(uint32_t type) {
    static const char *const names[] = {
        [9] = "Q8_1", [15] = "Q8_K", [25] = "I16", [28] = "F64", [41] = "Q1_0", [42] = "Q2_0",
    };
    return type < GM_COUNT(names) && names[type] ? names[type] : "unknown";
}

static gm_status take_shape(cursor *c, gguf_info *info, size_t *out_elems) {
    const gguf_file *file = c->file;
    uint32_t rank = 0;
    GM_TRY(take_u32(c, "a tensor rank", &rank));
    if (rank < 1 || rank > RT_MAX_TENSOR_RANK)
        return gm_fail(file->diag, GM_FORMAT, "%s: tensor \"%s\": expected 1 to 4 dimensions, found %u", file->path,
                       info->name, rank);
    info->tensor.rank = (int)rank;
    *out_elems = 1;
    for (uint32_t i = 0; i < rank; i++) {
        uint64_t dim = 0;
        GM_TRY(take_u64(c, "a dimension", &dim));
        if (dim == 0 || dim > INT64_MAX || !gm_mul_size(*out_elems, (size_t)dim, out_elems) || *out_elems > INT64_MAX)
            return gm_fail(file->diag, GM_FORMAT,
                           "%s: tensor \"%s\": expected dimensions of at least 1 and fewer than 2^63 "
                           "elements, found dimension %llu",
                           file->path, info->name, (unsigned long long)dim);
        info->tensor.dim[rank - 1 - i] = (int64_t)dim;
    }
    return GM_OK;
}

static gm_status take_info(cursor *c, gguf_info *info) {
    const gguf_file *file = c->file;
    const char *name = NULL;
    size_t length = 0, elems = 0;
    uint32_t type = 0;
    GM_TRY(take_name(c, "a tensor name", MAX_NAME, &name, &length));
    info->name = gm_arena_strndup(&c->file->arena, name, length);
    GM_TRY(take_shape(c, info, &elems));
    GM_TRY(take_u32(c, "a tensor type", &type));
    GM_TRY(take_u64(c, "a tensor offset", &info->offset));
    rt_tensor *tensor = &info->tensor;
    if (!rt_dtype_from_ggml(type, &tensor->dtype))
        return gm_fail(file->diag, GM_UNSUPPORTED, "%s: tensor \"%s\": type %s (%u) is not supported", file->path,
                       info->name, ggml_name(type), type);
    const rt_dtype_info *dtype = rt_dtype_of(tensor->dtype);
    int64_t columns = tensor->dim[tensor->rank - 1];
    if (columns % dtype->block_elems)
        return gm_fail(file->diag, GM_FORMAT,
                       "%s: tensor \"%s\": expected rows of a multiple of %d elements for type %s, "
                       "found %lld",
                       file->path, info->name, dtype->block_elems, dtype->text, (long long)columns);
    if (!gm_mul_size(elems / (size_t)dtype->block_elems, (size_t)dtype->block_bytes, &tensor->bytes))
        return gm_fail(file->diag, GM_FORMAT, "%s: tensor \"%s\": expected fewer than 2^64 bytes", file->path,
                       info->name);
    return GM_OK;
}

static gm_status read_alignment(const gguf_file *file, size_t *out) {
    const gguf_value *value = gguf_find(file, "general.alignment");
    *out = DEFAULT_ALIGNMENT;
    if (!value) return GM_OK;
    uint64_t alignment = value->type == GGUF_U32 && !value->is_array ? gguf_load(value->data, 4) : 0;
    if (alignment == 0 || (alignment & (alignment - 1)))
        return gm_fail(file->diag, GM_FORMAT, "%s: key \"general.alignment\": expected a power of two of type u32",
                       file->path);
    *out = (size_t)alignment;
    return GM_OK;
}

/* Tensors lie one after the other in the order of their infos, each padded; only the last one's
 * padding may be missing. */
static gm_status place_tensors(cursor *c) {
    gguf_file *file = c->file;
    size_t alignment;
    GM_TRY(read_alignment(file, &alignment));
    size_t start = (c->at + alignment - 1) & ~(alignment - 1), next = start;
    for (size_t i = 0; i < file->info_count; i++) {
        gguf_info *info = &file->infos[i];
        if (info->offset != next - start)
            return gm_fail(file->diag, GM_FORMAT, "%s: tensor \"%s\": expected offset %zu, found %llu", file->path,
                           info->name, next - start, (unsigned long long)info->offset);
        if (next > file->bytes || info->tensor.bytes > file->bytes - next)
            return gm_fail(file->diag, GM_FORMAT,
                           "%s: tensor \"%s\": expected %zu bytes at byte %zu, found the end of the "
                           "file at %zu",
                           file->path, info->name, info->tensor.bytes, next, file->bytes);
        info->tensor.data = file->data + next;
        next = (next + info->tensor.bytes + alignment - 1) & ~(alignment - 1);
    }
    return GM_OK;
}

static gm_status read_infos(cursor *c, uint64_t count) {
    gguf_file *file = c->file;
    if (count > left(c) / MIN_INFO_BYTES)
        return gm_fail(file->diag, GM_FORMAT, "%s: expected as many tensors as fit the file, found %llu", file->path,
                       (unsigned long long)count);
    file->infos = GM_NEW_ARRAY(&file->arena, gguf_info, count);
    file->info_count = (size_t)count;
    for (size_t i = 0; i < count; i++) GM_TRY(take_info(c, &file->infos[i]));
    return GM_OK;
}

/* ---- the whole ---- */

gm_status gguf_open(gguf_file *file, const char *path, rt_weights *weights, gm_diag *diag) {
    *file = (gguf_file){.path = path, .diag = diag};
    GM_TRY(rt_weights_map(weights, path, diag, &file->data, &file->bytes));
    cursor c = {.file = file};
    const uint8_t *magic;
    uint32_t version = 0;
    uint64_t tensors = 0, values = 0;
    if (file->bytes < 4 || memcmp(file->data, "GGUF", 4) != 0)
        return gm_fail(diag, GM_FORMAT, "%s: expected a GGUF file, which starts with \"GGUF\"", path);
    GM_TRY(take(&c, 4, "the magic", &magic));
    GM_TRY(take_u32(&c, "the version", &version));
    if (version && (version & 0xFFFF) == 0)
        return gm_fail(diag, GM_UNSUPPORTED, "%s: expected a little-endian file, found a big-endian one", path);
    if (version != 2 && version != 3)
        return gm_fail(diag, GM_UNSUPPORTED, "%s: expected GGUF version 2 or 3, found %u", path, version);
    GM_TRY(take_u64(&c, "the tensor count", &tensors));
    GM_TRY(take_u64(&c, "the metadata count", &values));
    GM_TRY(read_values(&c, values));
    GM_TRY(read_infos(&c, tensors));
    return place_tensors(&c);
}

void gguf_close(gguf_file *file) {
    gm_arena_free(&file->arena);
}

/* ---- look-up ---- */

const gguf_value *gguf_find(const gguf_file *file, const char *key) {
    size_t length = strlen(key), low = 0, high = file->value_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const gguf_value *value = &file->values[middle];
        int order = compare_keys(value->key, value->key_length, key, length);
        if (order == 0) return value;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

static gm_status missing(const gguf_file *file, const char *key, bool required) {
    if (!required) return GM_OK;
    return gm_fail(file->diag, GM_FORMAT, "%s: expected key \"%s\"", file->path, key);
}

bool gguf_element(const gguf_value *value, uint64_t i, int64_t *out) {
    int bytes = type_bytes[value->type];
    if (!bytes || value->type == GGUF_F32 || value->type == GGUF_F64 || i >= value->count) return false;
    uint64_t bits = gguf_load(value->data + i * (uint64_t)bytes, bytes);
    bool negative = bits >> (8 * bytes - 1) & 1;
    switch (value->type) {
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32: *out = (int64_t)(negative ? bits | ~(uint64_t)0 << 8 * bytes : bits); return true;
    case GGUF_U64: /* too large is as out of range as INT64_MAX */
        *out = negative ? INT64_MAX : (int64_t)bits;
        return true;
    case GGUF_BOOL: *out = bits != 0; return true;
    default: *out = (int64_t)bits; return true;
    }
}

gm_status gguf_int(const gguf_file *file, const char *key, bool required, int64_t min, int64_t max, int64_t *out) {
    const gguf_value *value = gguf_find(file, key);
    if (!value) return missing(file, key, required);
    int64_t first = 0, other;
    bool valid = value->type != GGUF_BOOL && gguf_element(value, 0, &first);
    for (uint64_t i = 1; valid && i < value->count; i++) /* per layer: only if all are the same */
        valid = gguf_element(value, i, &other) && other == first;
    if (!valid)
        return gm_fail(file->diag, GM_FORMAT, "%s: key \"%s\": expected an integer%s", file->path, key,
                       value->is_array ? " for all layers" : "");
    if (min == max && first != min)
        return gm_fail(file->diag, GM_FORMAT, "%s: key \"%s\": expected %lld, found %lld", file->path, key,
                       (long long)min, (long long)first);
    if (first < min || first > max)
        return gm_fail(file->diag, GM_FORMAT, "%s: key \"%s\": expected %lld to %lld, found %lld", file->path, key,
                       (long long)min, (long long)max, (long long)first);
    *out = first;
    return GM_OK;
}

gm_status gguf_float(const gguf_file *file, const char *key, bool required, double *out) {
    const gguf_value *value = gguf_find(file, key);
    if (!value) return missing(file, key, required);
    double number = NAN;
    float single;
    if (value->type == GGUF_F64 && !value->is_array) memcpy(&number, value->data, sizeof number);
    if (value->type == GGUF_F32 && !value->is_array) {
        memcpy(&single, value->data, sizeof single);
        number = (double)single;
    }
    if (!isfinite(number))
        return gm_fail(file->diag, GM_FORMAT, "%s: key \"%s\": expected a finite float", file->path, key);
    *out = number;
    return GM_OK;
}

gm_status gguf_bool(const gguf_file *file, const char *key, bool *out) {
    const gguf_value *value = gguf_find(file, key);
    if (!value) return GM_OK;
    if (value->type != GGUF_BOOL || value->is_array)
        return gm_fail(file->diag, GM_FORMAT, "%s: key \"%s\": expected a bool", file->path, key);
    *out = value->data[0] != 0;
    return GM_OK;
}

gm_status gguf_string(const gguf_file *file, const char *key, bool required, const char **out, size_t *out_length) {
    const gguf_value *value = gguf_find(file, key);
    if (!value) return missing(file, key, required);
    if (value->type != GGUF_STRING || value->is_array)
        return gm_fail(file->diag, GM_FORMAT, "%s: key \"%s\": expected a string", file->path, key);
    *out = (const char *)value->data + 8;
    *out_length = (size_t)gguf_load(value->data, 8);
    return GM_OK;
}
