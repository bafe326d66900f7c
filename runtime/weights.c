/* The weight table: mapped files and a hash index from names to tensors.
 *
 * The index shares the allocation of the tensors: after `capacity` tensors come 2·capacity slots,
 * each a tensor's number + 1, or 0. Capacity is a power of two; probing is linear.
 */
#include "runtime/weights.h"
#include "runtime/release.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- mapping ---- */

static gm_status map_file(int file, const char *path, gm_diag *diag, rt_mapping *out) {
    struct stat info;
    if (fstat(file, &info) != 0) return gm_fail(diag, GM_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return gm_fail(diag, GM_IO, "%s: expected a regular file", path);
    *out = (rt_mapping){
        .bytes = (size_t)info.st_size, .file = true, .identity = {(uint64_t)info.st_dev, (uint64_t)info.st_ino}};
    if (out->bytes == 0) return GM_OK; /* nothing to map; the format's reader will refuse it */
    void *address = mmap(NULL, out->bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (address == MAP_FAILED) return gm_fail(diag, GM_IO, "%s: %s", path, strerror(errno));
    out->address = address;
    return GM_OK;
}

static void keep_mapping(rt_weights *weights, rt_mapping mapping) {
    size_t bytes = (weights->mapping_count + 1) * sizeof *weights->mappings;
    rt_mapping *mappings = realloc(weights->mappings, bytes);
    if (!mappings) gm_abort(__FILE__, __LINE__, "out of memory");
    weights->mappings = mappings;
    weights->mappings[weights->mapping_count++] = mapping;
}

gm_status rt_weights_map(rt_weights *weights, const char *path, gm_diag *diag, const uint8_t **out_data,
                         size_t *out_bytes) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return gm_fail(diag, GM_IO, "%s: %s", path, strerror(errno));
    rt_mapping mapping = {0};
    gm_status status = map_file(file, path, diag, &mapping);
    close(file);
    GM_TRY(status);
    mapping.path = gm_arena_strdup(&weights->arena, path);
    keep_mapping(weights, mapping);
    *out_data = mapping.address ? mapping.address : (const void *)"";
    *out_bytes = mapping.bytes;
    return GM_OK;
}

void *rt_weights_pages(rt_weights *weights, size_t bytes) {
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) return NULL;
    keep_mapping(weights, (rt_mapping){.address = address, .bytes = bytes});
    return address;
}

static void *take(rt_weights *weights, rt_pool *pool, bool file, size_t bytes) {
    if (!rt_pool_has(pool, bytes) && (file ? rt_pool_open_file : rt_pool_open_memory)(pool, bytes))
        keep_mapping(weights, (rt_mapping){.address = pool->address, .bytes = pool->bytes, .file = file});
    return rt_pool_take(pool, bytes);
}

void *rt_weights_large_pages(rt_weights *weights, size_t bytes) {
    return take(weights, &weights->memory, false, bytes);
}

void *rt_weights_file_pages(rt_weights *weights, int pool, size_t bytes) {
    GM_ASSERT(pool >= 0 && pool < RT_WEIGHT_POOLS);
    void *taken = take(weights, &weights->pools[pool], true, bytes);
    return taken ? taken : rt_weights_large_pages(weights, bytes);
}

void rt_weights_release(const rt_weights *weights) {
    for (size_t i = 0; i < weights->mapping_count; i++) {
        const rt_mapping *mapping = &weights->mappings[i];
        if (mapping->file) rt_release_pages(mapping->address, (const char *)mapping->address + mapping->bytes);
    }
}

/* The mapped file in which the tensor's bytes lie; NULL: none. */
static const rt_mapping *file_of(const rt_weights *weights, const rt_tensor *tensor) {
    const uint8_t *data = tensor->data;
    for (size_t i = 0; i < weights->mapping_count; i++) {
        const rt_mapping *mapping = &weights->mappings[i];
        const uint8_t *start = mapping->address;
        if (mapping->file && data >= start && data + tensor->bytes <= start + mapping->bytes) return mapping;
    }
    return NULL;
}

bool rt_weights_is_mapped(const rt_weights *weights, const rt_tensor *tensor) {
    return file_of(weights, tensor);
}

const char *rt_weights_path(const rt_weights *weights, const rt_tensor *tensor) {
    const rt_mapping *file = file_of(weights, tensor);
    return file ? file->path : NULL;
}

/* ---- index ---- */

static uint32_t *slots_of(const rt_weights *weights) {
    return (uint32_t *)(weights->tensors + weights->capacity);
}

/* The slot that names this tensor, or the free one where it belongs. */
static uint32_t *slot_of(const rt_weights *weights, const char *name) {
    uint64_t hash = gm_hash(GM_HASH, name, strlen(name));
    size_t mask = 2 * weights->capacity - 1, at = (hash ^ hash >> 32) & mask;
    uint32_t *slots = slots_of(weights);
    while (slots[at] && strcmp(weights->tensors[slots[at] - 1].name, name) != 0) at = (at + 1) & mask;
    return &slots[at];
}

static void index_all(rt_weights *weights) {
    memset(slots_of(weights), 0, 2 * weights->capacity * sizeof(uint32_t));
    for (size_t i = 0; i < weights->count; i++) *slot_of(weights, weights->tensors[i].name) = (uint32_t)i + 1;
}

static void grow(rt_weights *weights) {
    size_t capacity = weights->capacity ? 2 * weights->capacity : 256, bytes;
    if (!gm_mul_size(capacity, sizeof(rt_tensor) + 2 * sizeof(uint32_t), &bytes))
        gm_abort(__FILE__, __LINE__, "out of memory");
    weights->tensors = realloc(weights->tensors, bytes);
    if (!weights->tensors) gm_abort(__FILE__, __LINE__, "out of memory");
    weights->capacity = capacity;
    index_all(weights);
}

/* ---- table ---- */

/* Compiled code loads plain elements at their own alignment, f16 scales of blocks at 2 and f32 scales of panels at 4; a
 * file that puts the bytes elsewhere is legal, so such a tensor is copied. */
static const void *aligned_data(rt_weights *weights, const rt_tensor *tensor) {
    const rt_dtype_info *info = rt_dtype_of(tensor->dtype);
    uintptr_t align = info->block_elems == 1 ? (uintptr_t)info->block_bytes : info->class == RT_CLASS_PANELS ? 4 : 2;
    if (!tensor->data || (uintptr_t)tensor->data % align == 0) return tensor->data;
    return memcpy(gm_arena_alloc(&weights->arena, tensor->bytes), tensor->data, tensor->bytes);
}

gm_status rt_weights_add(rt_weights *weights, const char *path, const rt_tensor *tensor, gm_diag *diag) {
    GM_ASSERT(weights->count < UINT32_MAX);
    if (weights->count == weights->capacity) grow(weights);
    uint32_t *slot = slot_of(weights, tensor->name);
    if (*slot)
        return gm_fail(diag, GM_FORMAT, "%s: tensor \"%.200s\": expected only one of this name", path, tensor->name);
    rt_tensor *added = &weights->tensors[weights->count++];
    *slot = (uint32_t)weights->count;
    *added = *tensor;
    added->name = gm_arena_strdup(&weights->arena, tensor->name);
    added->data = aligned_data(weights, tensor);
    return GM_OK;
}

const rt_tensor *rt_weights_find(const rt_weights *weights, const char *name) {
    if (weights->count == 0) return NULL;
    uint32_t number = *slot_of(weights, name);
    return number ? &weights->tensors[number - 1] : NULL;
}

void rt_weights_drop(rt_weights *weights, const char *name) {
    uint32_t number = weights->count ? *slot_of(weights, name) : 0;
    if (number == 0) return;
    rt_tensor *at = &weights->tensors[number - 1];
    weights->count--;
    memmove(at, at + 1, (weights->count - (number - 1)) * sizeof *at);
    index_all(weights);
}

void rt_weights_close(rt_weights *weights) {
    for (size_t i = 0; i < weights->mapping_count; i++)
        if (weights->mappings[i].address) munmap(weights->mappings[i].address, weights->mappings[i].bytes);
    rt_pool_close(&weights->memory);
    for (int i = 0; i < RT_WEIGHT_POOLS; i++) rt_pool_close(&weights->pools[i]);
    free(weights->mappings);
    free(weights->tensors);
    gm_arena_free(&weights->arena);
    *weights = (rt_weights){0};
}
