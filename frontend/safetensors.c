/* safetensors files, alone or as the shards of an index.
 *
 *   u64 N, N bytes of JSON {name: {"dtype", "shape", "data_offsets": [begin, end]}}, data
 *
 * Offsets count from the end of the header; sorted, they cover the data without gap or overlap.
 * Stored names have a prefix that depends on who saved the model; canonical names have none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/model_impl.h"

enum { MAX_HEADER = 100000000 };

typedef struct entry {
    const char *name; /* in the parsed header */
    uint64_t begin, end;
    rt_tensor tensor;
    const struct stored_type *type;
} entry;

/* One open file. */
typedef struct shard {
    const char *path;
    gm_diag *diag;
    cJSON *header;
    const uint8_t *data; /* after the header */
    size_t bytes;        /* of data */
    entry *entries;
    size_t count;
} shard;

/* Every type of the format, with its bits; the loaded ones have a dtype. */
static const struct stored_type {
    const char *name;
    int bits;
    int dtype; /* -1: not loaded */
} types[] = {
    {"F32", 32, RT_F32},    {"F16", 16, RT_F16}, {"BF16", 16, RT_BF16}, {"BOOL", 8, -1},    {"U8", 8, -1},
    {"I8", 8, -1},          {"F8_E4M3", 8, -1},  {"F8_E5M2", 8, -1},    {"F8_E8M0", 8, -1}, {"F8_E4M3FNUZ", 8, -1},
    {"F8_E5M2FNUZ", 8, -1}, {"I16", 16, -1},     {"U16", 16, -1},       {"I32", 32, -1},    {"U32", 32, -1},
    {"I64", 64, -1},        {"U64", 64, -1},     {"F64", 64, -1},       {"C64", 64, -1},    {"F4", 4, -1},
    {"F6_E2M3", 6, -1},     {"F6_E3M2", 6, -1},
};

/* ---- names ---- */

static bool starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

/* Parts that a text model has no use for, and frequencies, which old converters stored though the configuration says
 * them. */
static bool is_ignored(const char *name) {
    static const char *const others[] = {"vision_tower.", "multi_modal_projector."};
    const char *rest = starts_with(name, "model.") ? name + 6 : name;
    for (size_t i = 0; i < GM_COUNT(others); i++)
        if (starts_with(rest, others[i])) return true;
    return fe_ends_with(name, "rotary_emb.inv_freq");
}

static bool is_bare(const char *name) {
    return starts_with(name, "layers.") || starts_with(name, "embed_tokens.") || starts_with(name, "norm.");
}

/* Longer prefixes first. The last one is a bare text model's. */
static const char *const prefixes[] = {"language_model.model.", "model.language_model.", "model.", ""};

/* The text tensors of a model all have one prefix, that of the first; heads stand outside it.
 * *prefix: a number in `prefixes`, -1 before the first. */
static gm_status canonical_name(const shard *in, const char *name, int *prefix, const char **out) {
    static const char *const heads[] = {"lm_head.weight", "language_model.lm_head.weight"};
    for (size_t i = 0; i < GM_COUNT(heads); i++) {
        if (strcmp(name, heads[i]) != 0) continue;
        *out = heads[0];
        return GM_OK;
    }
    int own = 0;
    while (!starts_with(name, prefixes[own])) own++;
    *out = name + strlen(prefixes[own]);
    if (!prefixes[own][0] && !is_bare(name)) return GM_OK; /* refused later, as no such tensor */
    if (*prefix < 0) *prefix = own;
    if (own == *prefix) return GM_OK;
    return gm_fail(in->diag, GM_FORMAT, "%s: tensor \"%.200s\": expected the prefix \"%s\", as before the other names",
                   in->path, name, prefixes[*prefix]);
}

/* ---- header ---- */

static bool read_uint(const cJSON *item, uint64_t *out) {
    int64_t value;
    if (!fe_json_int(item, 0, INT64_MAX, &value)) return false;
    *out = (uint64_t)value;
    return true;
}

static gm_status bad_entry(const shard *in, const char *name, const char *expected) {
    return gm_fail(in->diag, GM_FORMAT, "%s: tensor \"%.200s\": expected %s", in->path, name, expected);
}

static gm_status read_shape(const shard *in, const cJSON *shape, entry *out, size_t *elems) {
    const cJSON *item;
    uint64_t dim = 0;
    rt_tensor *tensor = &out->tensor;
    *elems = 1;
    if (!cJSON_IsArray(shape)) return bad_entry(in, out->name, "a list of sizes in \"shape\"");
    cJSON_ArrayForEach(item, shape) {
        if (!read_uint(item, &dim)) return bad_entry(in, out->name, "whole sizes in \"shape\"");
        if (!gm_mul_size(*elems, (size_t)dim, elems) || *elems > INT64_MAX)
            return bad_entry(in, out->name, "fewer than 2^63 elements");
        if (tensor->rank < RT_MAX_TENSOR_RANK) tensor->dim[tensor->rank] = (int64_t)dim;
        tensor->rank++; /* checked when the tensor is one of the text model */
    }
    return GM_OK;
}

static gm_status read_entry(const shard *in, const cJSON *item, entry *out) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    size_t elems = 0, bits = 0;
    out->name = item->string;
    if (!cJSON_IsObject(item)) return bad_entry(in, out->name, "an object");
    for (size_t i = 0; i < GM_COUNT(types) && cJSON_IsString(dtype); i++)
        if (strcmp(types[i].name, dtype->valuestring) == 0) out->type = &types[i];
    if (!out->type)
        return gm_fail(in->diag, GM_FORMAT, "%s: tensor \"%.200s\": expected a known dtype, found \"%.40s\"", in->path,
                       out->name, cJSON_IsString(dtype) ? dtype->valuestring : "");
    GM_TRY(read_shape(in, cJSON_GetObjectItemCaseSensitive(item, "shape"), out, &elems));
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !read_uint(offsets->child, &out->begin) ||
        !read_uint(offsets->child->next, &out->end))
        return bad_entry(in, out->name, "two offsets in \"data_offsets\"");
    if (out->end < out->begin || !gm_mul_size(elems, (size_t)out->type->bits, &bits) || bits % 8 ||
        bits / 8 != out->end - out->begin)
        return gm_fail(in->diag, GM_FORMAT,
                       "%s: tensor \"%.200s\": expected offsets %zu bytes apart for its shape, found "
                       "[%llu,%llu]",
                       in->path, out->name, bits / 8, (unsigned long long)out->begin, (unsigned long long)out->end);
    out->tensor.bytes = bits / 8;
    return GM_OK;
}

static gm_status check_metadata(const shard *in, const cJSON *metadata) {
    const cJSON *item;
    bool valid = cJSON_IsObject(metadata) || cJSON_IsNull(metadata);
    cJSON_ArrayForEach(item, metadata) valid = valid && cJSON_IsString(item);
    if (valid) return GM_OK;
    return gm_fail(in->diag, GM_FORMAT, "%s: __metadata__: expected an object of strings", in->path);
}

static int compare_offsets(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static gm_status check_cover(const shard *in) {
    uint64_t next = 0;
    for (size_t i = 0; i < in->count; i++) {
        entry *e = &in->entries[i];
        if (e->begin != next)
            return gm_fail(in->diag, GM_FORMAT, "%s: tensor \"%.200s\": expected data at offset %llu, found %llu",
                           in->path, e->name, (unsigned long long)next, (unsigned long long)e->begin);
        next = e->end;
    }
    if (next != in->bytes)
        return gm_fail(in->diag, GM_FORMAT, "%s: expected %llu bytes of tensors, found %zu", in->path,
                       (unsigned long long)next, in->bytes);
    for (size_t i = 0; i < in->count; i++) in->entries[i].tensor.data = in->data + in->entries[i].begin;
    return GM_OK;
}

static gm_status read_entries(shard *in) {
    const cJSON *item;
    size_t count = 0;
    cJSON_ArrayForEach(item, in->header) count++;
    in->entries = calloc(count + 1, sizeof *in->entries);
    if (!in->entries) return gm_fail(in->diag, GM_NOMEM, "%s: out of memory", in->path);
    cJSON_ArrayForEach(item, in->header) {
        if (strcmp(item->string, "__metadata__") == 0) GM_TRY(check_metadata(in, item));
        else GM_TRY(read_entry(in, item, &in->entries[in->count++]));
    }
    qsort(in->entries, in->count, sizeof *in->entries, compare_offsets);
    return check_cover(in);
}

static gm_status shard_read(shard *in, rt_weights *weights) {
    const uint8_t *file;
    size_t bytes;
    uint64_t header = 0;
    GM_TRY(rt_weights_map(weights, in->path, in->diag, &file, &bytes));
    GM_TRY(fe_check_fetched(file, bytes, in->path, in->diag));
    for (size_t i = 0; i < 8 && bytes >= 8; i++) header |= (uint64_t)file[i] << 8 * i;
    if (bytes < 8 || header > MAX_HEADER || header > bytes - 8)
        return gm_fail(in->diag, GM_FORMAT,
                       "%s: expected a safetensors header of at most %d bytes inside the file, found "
                       "length %llu in %zu bytes",
                       in->path, MAX_HEADER, (unsigned long long)header, bytes);
    in->data = file + 8 + header;
    in->bytes = bytes - 8 - (size_t)header;
    GM_TRY(fe_json_parse((const char *)file + 8, (size_t)header, in->path, in->diag, &in->header));
    if (!cJSON_IsObject(in->header)) return gm_fail(in->diag, GM_FORMAT, "%s: header: expected an object", in->path);
    return read_entries(in);
}

static void shard_close(shard *in) {
    cJSON_Delete(in->header);
    free(in->entries);
}

/* ---- into the table ---- */

static gm_status add_entry(const shard *in, entry *e, int *prefix, fe_model *model) {
    const char *name;
    if (is_ignored(e->name)) return GM_OK;
    GM_TRY(canonical_name(in, e->name, prefix, &name));
    if (e->type->dtype < 0)
        return gm_fail(in->diag, GM_UNSUPPORTED, "%s: tensor \"%.200s\": expected dtype F32, F16 or BF16, found %s",
                       in->path, e->name, e->type->name);
    if (e->tensor.rank > RT_MAX_TENSOR_RANK)
        return gm_fail(in->diag, GM_FORMAT, "%s: tensor \"%.200s\": expected at most %d dimensions, found %d", in->path,
                       e->name, RT_MAX_TENSOR_RANK, e->tensor.rank);
    rt_tensor tensor = e->tensor;
    tensor.name = name;
    tensor.dtype = (rt_dtype)e->type->dtype;
    return rt_weights_add(&model->weights, in->path, &tensor, in->diag);
}

static gm_status add_all(const shard *in, int *prefix, fe_model *model) {
    for (size_t i = 0; i < in->count; i++) GM_TRY(add_entry(in, &in->entries[i], prefix, model));
    return GM_OK;
}

gm_status fe_safetensors_open_all(const char *const *paths, size_t count, gm_diag *diag, fe_model *model) {
    int prefix = -1;
    gm_status status = GM_OK;
    for (size_t i = 0; i < count && status == GM_OK; i++) {
        shard file = {.path = paths[i], .diag = diag};
        status = shard_read(&file, &model->weights);
        if (status == GM_OK) status = add_all(&file, &prefix, model);
        shard_close(&file);
    }
    return status;
}

/* ---- index ---- */

static int compare_mapped(const void *a, const void *b) {
    const cJSON *x = *(const cJSON *const *)a, *y = *(const cJSON *const *)b;
    int order = strcmp(x->valuestring, y->valuestring);
    return order ? order : strcmp(x->string, y->string);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

/* Tensors of the index that the index puts into this shard: mapped[0..count), all of one file name.
 */
static gm_status open_mapped(const char *folder, const cJSON **mapped, size_t count, int *prefix, gm_diag *diag,
                             fe_model *model) {
    gm_string path = {0};
    gm_string_printf(&path, "%s%s", folder, mapped[0]->valuestring);
    shard file = {.path = path.data, .diag = diag};
    gm_status status = shard_read(&file, &model->weights);
    if (status == GM_OK) status = add_all(&file, prefix, model);
    if (status == GM_OK && file.count) qsort(file.entries, file.count, sizeof *file.entries, compare_names);
    for (size_t i = 0; i < count && status == GM_OK; i++) {
        entry wanted = {.name = mapped[i]->string};
        if (!bsearch(&wanted, file.entries, file.count, sizeof wanted, compare_names))
            status = gm_fail(diag, GM_FORMAT, "%s: tensor \"%.200s\": expected it here, as the index says", path.data,
                             wanted.name);
    }
    shard_close(&file);
    gm_string_free(&path);
    return status;
}

/* weight_map's values, checked: plain file names. */
static gm_status list_mapped(const cJSON *root, const char *path, gm_diag *diag, const cJSON **out) {
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map"), *item;
    size_t count = 0;
    cJSON_ArrayForEach(item, map) {
        const char *name = cJSON_IsString(item) ? item->valuestring : "";
        if (!name[0] || strchr(name, '/') || strchr(name, '\\') || strstr(name, ".."))
            return gm_fail(diag, GM_FORMAT, "%s: key \"weight_map.%.200s\": expected a file name without folders", path,
                           item->string);
        out[count++] = item;
    }
    qsort(out, count, sizeof *out, compare_mapped);
    return GM_OK;
}

static gm_status open_index(const cJSON *root, const char *path, gm_diag *diag, fe_model *model) {
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    size_t count = cJSON_IsObject(map) ? (size_t)cJSON_GetArraySize(map) : 0;
    if (count == 0) return gm_fail(diag, GM_FORMAT, "%s: key \"weight_map\": expected an object of file names", path);
    const char *slash = strrchr(path, '/');
    gm_string folder = {0};
    gm_string_append(&folder, path, slash ? (size_t)(slash - path) + 1 : 0);
    const cJSON **mapped = calloc(count, sizeof *mapped);
    if (!mapped) gm_abort(__FILE__, __LINE__, "out of memory");
    gm_status status = list_mapped(root, path, diag, mapped);
    int prefix = -1;
    for (size_t start = 0, end; start < count && status == GM_OK; start = end) {
        for (end = start + 1; end < count; end++)
            if (strcmp(mapped[end]->valuestring, mapped[start]->valuestring) != 0) break;
        status = open_mapped(folder.data, mapped + start, end - start, &prefix, diag, model);
    }
    free(mapped);
    gm_string_free(&folder);
    return status;
}

gm_status fe_safetensors_open_index(const char *path, gm_diag *diag, fe_model *model) {
    cJSON *root;
    GM_TRY(fe_json_open(path, FE_MAX_JSON_BYTES, diag, &root));
    gm_status status = open_index(root, path, diag, model);
    cJSON_Delete(root);
    return status;
}
