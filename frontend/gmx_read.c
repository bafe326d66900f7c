/* Opening an artefact: the fixed head, the JSON header, checksums, then the model in place. */
#include "frontend/gmx_impl.h"
#include "runtime/derive.h"
#include "runtime/pool.h"

#include <stdlib.h>
#include <string.h>

/* ---- shared with the writer ---- */

/* Each step is a bijection of the state for a given word, and of the word for a given state. */
uint64_t gmx_checksum(const void *data, size_t bytes) {
    uint64_t hash = 0x9E3779B97F4A7C15u ^ bytes;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        memcpy(&word, (const char *)data + i, bytes - i < 8 ? bytes - i : 8);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
    }
    return hash;
}

bool gmx_align(size_t bytes, size_t *out) {
    if (bytes > SIZE_MAX - FE_GMX_ALIGN) return false;
    *out = (bytes + FE_GMX_ALIGN - 1) / FE_GMX_ALIGN * FE_GMX_ALIGN;
    return true;
}

/* ---- the head ---- */

bool fe_gmx_is(const char *start, size_t bytes) {
    return bytes >= 4 && memcmp(start, "GMX1", 4) == 0;
}

static uint64_t number_at(const uint8_t *data, size_t offset) {
    uint64_t value;
    memcpy(&value, data + offset, sizeof value);
    return value;
}

/* *out_header: bytes of the header. */
static gm_status read_head(const uint8_t *data, size_t bytes, const char *path, gm_diag *diag, size_t *out_header) {
    uint32_t version;
    if (bytes < FE_GMX_HEAD || !fe_gmx_is((const char *)data, bytes))
        return gm_fail(diag, GM_FORMAT, "%s: expected an artefact of at least %d bytes", path, FE_GMX_HEAD);
    memcpy(&version, data + 4, sizeof version);
    if (version != FE_GMX_VERSION)
        return gm_fail(diag, GM_UNSUPPORTED, "%s: expected artefact version %d, found %u (compile it again)", path,
                       FE_GMX_VERSION, version);
    bool blank = true;
    for (size_t i = 40; i < FE_GMX_HEAD; i++) blank &= data[i] == 0;
    if (number_at(data, 32) != gmx_checksum(data, 32) || !blank)
        return gm_fail(diag, GM_FORMAT, "%s: expected an intact artefact: its first bytes are damaged", path);
    if (number_at(data, 8) != bytes)
        return gm_fail(diag, GM_FORMAT, "%s: expected %llu bytes, found %zu", path,
                       (unsigned long long)number_at(data, 8), bytes);
    uint64_t header = number_at(data, 16);
    if (header > FE_MAX_JSON_BYTES || header > bytes - FE_GMX_HEAD)
        return gm_fail(diag, GM_FORMAT, "%s: expected a header within the file, found one of %llu bytes", path,
                       (unsigned long long)header);
    if (number_at(data, 24) != gmx_checksum(data + bytes - header, (size_t)header))
        return gm_fail(diag, GM_FORMAT, "%s: expected an intact artefact: its header is damaged", path);
    *out_header = (size_t)header;
    return GM_OK;
}

/* ---- the data ---- */

static gm_status check_sections(const gmx_header *header, const uint8_t *data, const char *path, gm_diag *diag) {
    for (int i = 0; i < GMX_SECTIONS; i++)
        if (gmx_checksum(data + header->section[i].offset, header->section[i].bytes) != header->checksum[i])
            return gm_fail(diag, GM_FORMAT, "%s: expected an intact artefact: section \"%s\" is damaged", path,
                           gmx_section_names[i]);
    return GM_OK;
}

static fe_gmx_section section_at(const gmx_header *header, const uint8_t *data, gmx_section_id id) {
    return (fe_gmx_section){data + header->section[id].offset, header->section[id].bytes};
}

/* What was derived was written in large pages, and lies together (gmx_write.c). */
static void ask_for_large_pages(const rt_weights *weights) {
    const uint8_t *from = NULL, *to = NULL;
    for (size_t i = 0; i < weights->count; i++) {
        const rt_tensor *tensor = &weights->tensors[i];
        const uint8_t *data = tensor->data;
        if (!data || rt_derived_kind(tensor->name) == RT_DERIVED_COUNT) continue;
        if (!from || data < from) from = data;
        if (!to || data + tensor->bytes > to) to = data + tensor->bytes;
    }
    rt_pool_advise(from, to);
}

gm_status fe_gmx_open(const char *path, bool no_weights, gm_diag *diag, fe_model *model) {
    const uint8_t *file;
    size_t bytes, header_bytes = 0;
    GM_TRY(rt_weights_map(&model->weights, path, diag, &file, &bytes));
    GM_TRY(read_head(file, bytes, path, diag, &header_bytes));
    fe_gmx *gmx = model->gmx = calloc(1, sizeof *gmx); /* freed with the model */
    GM_ASSERT(gmx);
    gmx_header header = {.model = model, .gmx = gmx};
    const uint8_t *data = file + FE_GMX_HEAD, *end = file + bytes - header_bytes;
    GM_TRY(gmx_header_parse((const char *)end, header_bytes, (size_t)(end - data), path, diag, &header));
    GM_TRY(check_sections(&header, data, path, diag));
    for (size_t i = 0; i < model->weights.count && !no_weights; i++)
        model->weights.tensors[i].data = data + header.tensors[i].offset;
    ask_for_large_pages(&model->weights);
    gmx->index = section_at(&header, data, GMX_INDEX);
    gmx->ir = section_at(&header, data, GMX_IR);
    gmx->program = section_at(&header, data, GMX_PROGRAM);
    gmx->object = section_at(&header, data, GMX_OBJECT);
    return gmx_vocab_read(data + header.section[GMX_VOCAB].offset, header.section[GMX_VOCAB].bytes, path, diag,
                          &model->vocab);
}

void fe_gmx_free(fe_gmx *gmx) {
    if (gmx) gm_arena_free(&gmx->arena);
    free(gmx);
}

/* ---- what it was compiled for ---- */

void fe_gmx_adopt(const fe_gmx *gmx, fe_options *options) {
    const fe_gmx_key *key = &gmx->key;
    if (!options->context)
        options->context = key->context > options->least_context ? key->context : options->least_context;
    if (!options->chunk) options->chunk = key->chunk;
    if (options->precision == FE_PRECISION_AUTO) options->precision = key->precision;
    if (!options->wide) options->wide = key->wide;
    if (options->passes || options->skip || options->with) return;
    options->passes = key->passes;
    options->skip = key->skip;
    options->with = key->with;
}

/* Nothing given and an empty list are the same. */
static bool same_text(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") == 0;
}

/* An empty list is one: nothing keeps 16 bits. */
static const char *wide_of(const fe_gmx_key *key) {
    return key->wide ? key->wide : pass_default_wide(pass_precision_of(key->plan));
}

static int64_t chunk_of(const fe_gmx_key *key) {
    return key->chunk < key->context ? key->chunk : key->context;
}

const char *fe_gmx_difference(const fe_gmx *gmx, const fe_gmx_key *wanted) {
    const fe_gmx_key *key = &gmx->key;
    if (!same_text(key->gemmac, wanted->gemmac) || key->fingerprint != wanted->fingerprint) return "gemmac is another";
    if (!same_text(key->target, wanted->target)) return "the target or LLVM is another";
    if (key->context != wanted->context) return "the context size is another";
    if (chunk_of(key) != chunk_of(wanted)) return "the chunk is another";
    if (key->precision != wanted->precision) return "the precision is another";
    if (strcmp(wide_of(key), wide_of(wanted)) != 0) return "other weights keep 16 bits";
    if (!same_text(key->passes, wanted->passes) || !same_text(key->skip, wanted->skip) ||
        !same_text(key->with, wanted->with))
        return "the passes are others";
    return NULL;
}

static gm_status check_region(const fe_model *model, const ir_region *region, gm_diag *diag) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        for (int r = 0; r < inst->region_count; r++) GM_TRY(check_region(model, inst->regions[r], diag));
        for (int64_t k = 0; k < ir_stored_count(inst); k++) {
            char text[IR_NAME_BYTES];
            const char *name = ir_stored_name(inst, k, text);
            const ir_type *type = &inst->results[0]->type;
            const rt_tensor *tensor = rt_weights_find(&model->weights, name);
            if (!tensor || tensor->dtype != type->dtype || tensor->rank != type->rank ||
                memcmp(tensor->dim, type->dim, (size_t)tensor->rank * sizeof tensor->dim[0]) != 0)
                return gm_fail(diag, GM_FORMAT,
                               "%s: section \"ir\": expected weights as the tensors are, found another \"%.200s\"",
                               model->path, name);
        }
    }
    return GM_OK;
}

gm_status fe_gmx_check_module(const fe_model *model, const ir_module *module, gm_diag *diag) {
    for (int i = 0; i < module->func_count; i++) GM_TRY(check_region(model, module->funcs[i]->body, diag));
    return GM_OK;
}
