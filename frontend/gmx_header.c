/* The JSON header of an artefact, both ways. */
#include "frontend/gmx_impl.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const gmx_section_names[GMX_SECTIONS] = {"vocab", "index", "ir", "program", "object"};

/* ---- the fields of fe_config that are one number ---- */

typedef enum field_kind { INT, REAL, BOOL, ID } field_kind;

static const struct field {
    const char *name;
    field_kind kind;
    size_t offset;
    double min, max;
} fields[] = {
#define AT(field) offsetof(fe_config, field)
    {"vocab", INT, AT(vocab), 1, FE_MAX_SIZE},
    {"hidden", INT, AT(hidden), 1, FE_MAX_SIZE},
    {"ffn", INT, AT(ffn), 1, FE_MAX_SIZE},
    {"layers", INT, AT(layers), 1, FE_MAX_LAYERS},
    {"heads", INT, AT(heads), 1, FE_MAX_SIZE},
    {"kv_heads", INT, AT(kv_heads), 1, FE_MAX_SIZE},
    {"head_dim", INT, AT(head_dim), 1, FE_MAX_HEAD_DIM},
    {"context", INT, AT(context), 1, FE_MAX_CONTEXT},
    {"window", INT, AT(window), 0, FE_MAX_CONTEXT},
    {"norm_eps", REAL, AT(norm_eps), 0, INFINITY},
    {"attention_scale", REAL, AT(attention_scale), 0, INFINITY},
    {"attention_cap", REAL, AT(attention_cap), 0, INFINITY},
    {"final_cap", REAL, AT(final_cap), 0, INFINITY},
    {"rope_global_theta", REAL, AT(rope_global.theta), 0, INFINITY},
    {"rope_global_factor", REAL, AT(rope_global.factor), 0, INFINITY},
    {"rope_local_theta", REAL, AT(rope_local.theta), 0, INFINITY},
    {"rope_local_factor", REAL, AT(rope_local.factor), 0, INFINITY},
    {"tied", BOOL, AT(tied), 0, 0},
    {"attention_bias", BOOL, AT(attention_bias), 0, 0},
    {"norm_plus_one", BOOL, AT(norm_plus_one), 0, 0},
    {"gelu_erf", BOOL, AT(gelu_erf), 0, 0},
    {"bos", ID, AT(bos), -1, INT32_MAX},
#undef AT
};
/* A field added to fe_config needs a row above (or its own lines below), and FE_GMX_VERSION another number. */
_Static_assert(sizeof(fe_config) == 480, "fe_config has a field that artefacts do not keep");

static const struct {
    const char *name;
    size_t offset;
} defaults[] = {
    {"temperature", offsetof(fe_defaults, temperature)},
    {"top_p", offsetof(fe_defaults, top_p)},
    {"min_p", offsetof(fe_defaults, min_p)},
    {"repeat_penalty", offsetof(fe_defaults, repeat_penalty)},
};

/* ---- printing ---- */

/* cJSON itself prints doubles short of the last bit. */
static void add_real(cJSON *object, const char *name, double value) {
    char text[40];
    snprintf(text, sizeof text, "%.17g", value);
    if (isfinite(value)) cJSON_AddRawToObject(object, name, text);
    else cJSON_AddNullToObject(object, name);
}

static void add_text(cJSON *object, const char *name, const char *text) {
    if (text) cJSON_AddStringToObject(object, name, text);
    else cJSON_AddNullToObject(object, name);
}

static void add_hex(cJSON *object, const char *name, uint64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    cJSON_AddStringToObject(object, name, text);
}

static void add_place(cJSON *object, const gmx_place *place) {
    add_real(object, "offset", (double)place->offset);
    add_real(object, "bytes", (double)place->bytes);
}

static void add_config(cJSON *root, const fe_config *c) {
    char kinds[FE_MAX_LAYERS + 1] = {0};
    cJSON *config = cJSON_AddObjectToObject(root, "config");
    for (size_t i = 0; i < GM_COUNT(fields); i++) {
        const char *at = (const char *)c + fields[i].offset;
        if (fields[i].kind == BOOL) cJSON_AddBoolToObject(config, fields[i].name, *(const bool *)at);
        else if (fields[i].kind == REAL) add_real(config, fields[i].name, *(const double *)at);
        else
            add_real(config, fields[i].name,
                     fields[i].kind == ID ? *(const int32_t *)at : (double)*(const int64_t *)at);
    }
    for (int64_t i = 0; i < c->layers; i++) kinds[i] = c->local[i] ? 'l' : 'g';
    add_real(config, "generation", c->generation);
    add_text(config, "layer_kinds", kinds);
    add_text(config, "storage", rt_dtype_of(c->storage)->text);
    cJSON_AddItemToObject(config, "stops", cJSON_CreateIntArray(c->stops, c->stop_count));
}

static void add_defaults(cJSON *root, const fe_defaults *d) {
    cJSON *object = cJSON_AddObjectToObject(root, "defaults");
    for (size_t i = 0; i < GM_COUNT(defaults); i++)
        add_real(object, defaults[i].name, *(const double *)((const char *)d + defaults[i].offset));
    add_real(object, "top_k", (double)d->top_k);
}

/* What the model's own files left out: key -> JSON text. */
static void add_defaulted(cJSON *root, const fe_defaulted *list) {
    cJSON *object = cJSON_AddObjectToObject(root, "defaulted");
    for (size_t i = 0; i < list->count; i++) add_text(object, list->items[i].key, list->items[i].value);
}

static void add_measured(cJSON *object, const fe_gmx_key *key) {
    cJSON *list = cJSON_AddArrayToObject(object, "measured");
    for (size_t i = 0; i < key->measured_count; i++) {
        cJSON *item = cJSON_CreateObject();
        add_text(item, "what", key->measured[i].what);
        add_text(item, "choice", key->measured[i].choice);
        add_real(item, "seconds", key->measured[i].seconds);
        cJSON_AddItemToArray(list, item);
    }
}

static void add_key(cJSON *root, const fe_gmx_key *key) {
    cJSON *object = cJSON_AddObjectToObject(root, "compiled");
    add_text(object, "gemmac", key->gemmac);
    add_hex(object, "fingerprint", key->fingerprint);
    add_text(object, "target", key->target);
    add_text(object, "target_cpu", key->target_cpu);
    add_real(object, "context", (double)key->context);
    add_real(object, "chunk", (double)key->chunk);
    add_text(object, "precision", fe_precision_text(key->precision));
    add_text(object, "plan", key->plan);
    add_text(object, "passes", key->passes);
    add_text(object, "skip", key->skip);
    add_text(object, "with", key->with);
    add_text(object, "wide", key->wide);
    add_measured(object, key);
}

static void add_tensors(cJSON *root, const gmx_header *header) {
    const rt_weights *weights = &header->model->weights;
    cJSON *list = cJSON_AddArrayToObject(root, "tensors");
    for (size_t i = 0; i < weights->count; i++) {
        const rt_tensor *tensor = &weights->tensors[i];
        cJSON *item = cJSON_CreateObject(), *shape;
        add_text(item, "name", tensor->name);
        add_text(item, "type", rt_dtype_of(tensor->dtype)->text);
        shape = cJSON_AddArrayToObject(item, "shape");
        for (int d = 0; d < tensor->rank; d++) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)tensor->dim[d]));
        add_place(item, &header->tensors[i]);
        cJSON_AddItemToArray(list, item);
    }
}

char *gmx_header_print(const gmx_header *header) {
    cJSON *root = cJSON_CreateObject(), *sections;
    add_text(root, "architecture", header->model->architecture);
    add_config(root, &header->model->config);
    add_defaults(root, &header->model->defaults);
    add_defaulted(root, &header->model->defaulted);
    add_key(root, &header->gmx->key);
    sections = cJSON_AddObjectToObject(root, "sections");
    for (int i = 0; i < GMX_SECTIONS; i++) {
        cJSON *section = cJSON_AddObjectToObject(sections, gmx_section_names[i]);
        add_place(section, &header->section[i]);
        add_hex(section, "checksum", header->checksum[i]);
    }
    add_tensors(root, header);
    char *text = cJSON_PrintUnformatted(root);
    GM_ASSERT(text);
    cJSON_Delete(root);
    return text;
}

/* ---- parsing ---- */

typedef struct reader {
    const char *path;
    gm_diag *diag;
    size_t data_bytes;
} reader;

static gm_status refuse(const reader *in, const char *key, const char *expected) {
    return gm_fail(in->diag, GM_FORMAT, "%s: header: key \"%.80s\": expected %s", in->path, key, expected);
}

static gm_status read_real(const reader *in, const cJSON *object, const char *key, double min, double max,
                           double *out) {
    const cJSON *item = fe_json_get(object, key);
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble) ||
        !(item->valuedouble >= min && item->valuedouble <= max))
        return refuse(in, key, "a number in its range");
    *out = item->valuedouble;
    return GM_OK;
}

static gm_status read_int(const reader *in, const cJSON *object, const char *key, double min, double max,
                          int64_t *out) {
    double value = 0;
    GM_TRY(read_real(in, object, key, min, max < 0x1p53 ? max : 0x1p53, &value));
    if (value != floor(value)) return refuse(in, key, "an integer");
    *out = (int64_t)value;
    return GM_OK;
}

/* NULL when it is null and may be. */
static gm_status read_text(const reader *in, const cJSON *object, const char *key, bool may_be_null, const char **out) {
    const cJSON *item = fe_json_get(object, key);
    *out = cJSON_IsString(item) ? item->valuestring : NULL;
    if (*out || (may_be_null && cJSON_IsNull(item))) return GM_OK;
    return refuse(in, key, "a text");
}

static gm_status read_hex(const reader *in, const cJSON *object, const char *key, uint64_t *out) {
    const char *text;
    GM_TRY(read_text(in, object, key, false, &text));
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) return refuse(in, key, "16 hexadecimal digits");
    *out = strtoull(text, NULL, 16);
    return GM_OK;
}

/* Within the data and aligned. */
static gm_status read_place(const reader *in, const cJSON *object, const char *what, gmx_place *out) {
    int64_t offset = 0, bytes = 0;
    GM_TRY(read_int(in, object, "offset", 0, INFINITY, &offset));
    GM_TRY(read_int(in, object, "bytes", 0, INFINITY, &bytes));
    *out = (gmx_place){(size_t)offset, (size_t)bytes};
    if (offset % FE_GMX_ALIGN == 0 && out->offset <= in->data_bytes && out->bytes <= in->data_bytes - out->offset)
        return GM_OK;
    return gm_fail(in->diag, GM_FORMAT,
                   "%s: header: \"%.80s\": expected %zu bytes at a multiple of %d, within the %zu bytes of data, found "
                   "them at %zu",
                   in->path, what, out->bytes, FE_GMX_ALIGN, in->data_bytes, out->offset);
}

/* ---- configuration ---- */

static gm_status read_fields(const reader *in, const cJSON *config, fe_config *c) {
    for (size_t i = 0; i < GM_COUNT(fields); i++) {
        char *at = (char *)c + fields[i].offset;
        int64_t number = 0;
        if (fields[i].kind == BOOL) {
            const cJSON *item = fe_json_get(config, fields[i].name);
            if (!cJSON_IsBool(item)) return refuse(in, fields[i].name, "true or false");
            *(bool *)at = cJSON_IsTrue(item);
        } else if (fields[i].kind == REAL) {
            GM_TRY(read_real(in, config, fields[i].name, fields[i].min, fields[i].max, (double *)at));
        } else {
            GM_TRY(read_int(in, config, fields[i].name, fields[i].min, fields[i].max, &number));
            if (fields[i].kind == ID) *(int32_t *)at = (int32_t)number;
            else *(int64_t *)at = number;
        }
    }
    return GM_OK;
}

static gm_status read_kinds(const reader *in, const cJSON *config, fe_config *c) {
    const char *kinds;
    bool any = false;
    GM_TRY(read_text(in, config, "layer_kinds", false, &kinds));
    if ((int64_t)strlen(kinds) != c->layers || (int64_t)strspn(kinds, "lg") != c->layers)
        return refuse(in, "layer_kinds", "an l or g for each layer");
    for (int64_t i = 0; i < c->layers; i++) any |= c->local[i] = kinds[i] == 'l';
    return any && c->window == 0 ? refuse(in, "window", "a positive number, since there are local layers") : GM_OK;
}

static gm_status read_config(const reader *in, const cJSON *config, fe_config *c) {
    const char *storage;
    int64_t generation = 0;
    *c = (fe_config){0};
    GM_TRY(read_fields(in, config, c));
    GM_TRY(read_int(in, config, "generation", FE_GEMMA1, FE_GEMMA3, &generation));
    c->generation = (fe_generation)generation;
    GM_TRY(read_kinds(in, config, c));
    GM_TRY(read_text(in, config, "storage", false, &storage));
    if (!rt_dtype_parse(storage, strlen(storage), &c->storage)) return refuse(in, "storage", "a type of element");
    if (c->bos >= c->vocab) return refuse(in, "bos", "an id below vocab");
    const cJSON *stops = fe_json_get(config, "stops"), *item;
    if (!cJSON_IsArray(stops)) return refuse(in, "stops", "a list of ids");
    cJSON_ArrayForEach(item, stops) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= INT32_MAX))
            return refuse(in, "stops", "a list of ids");
        GM_TRY(fe_config_add_stop(c, (int32_t)item->valuedouble, in->path, in->diag));
    }
    return fe_config_check(c, in->path, in->diag);
}

static gm_status read_defaults(const reader *in, const cJSON *object, fe_defaults *d) {
    for (size_t i = 0; i < GM_COUNT(defaults); i++) {
        double *at = (double *)((char *)d + defaults[i].offset);
        if (cJSON_IsNull(fe_json_get(object, defaults[i].name))) *at = NAN;
        else GM_TRY(read_real(in, object, defaults[i].name, 0, 1e6, at));
    }
    return read_int(in, object, "top_k", -1, INT32_MAX, &d->top_k);
}

static gm_status read_defaulted(const reader *in, const cJSON *object, fe_defaulted *list) {
    const cJSON *item;
    if (!cJSON_IsObject(object)) return refuse(in, "defaulted", "an object of texts");
    cJSON_ArrayForEach(item, object) {
        if (!cJSON_IsString(item)) return refuse(in, "defaulted", "an object of texts");
        fe_note_default(list, item->string, "%s", item->valuestring);
    }
    return GM_OK;
}

static gm_status read_measured(const reader *in, const cJSON *list, fe_gmx *gmx) {
    const cJSON *item;
    if (!cJSON_IsArray(list)) return refuse(in, "measured", "a list of measurements");
    fe_measurement *measured = GM_NEW_ARRAY(&gmx->arena, fe_measurement, (size_t)cJSON_GetArraySize(list) + 1);
    cJSON_ArrayForEach(item, list) {
        fe_measurement m = {0};
        GM_TRY(read_text(in, item, "what", false, &m.what));
        GM_TRY(read_text(in, item, "choice", false, &m.choice));
        GM_TRY(read_real(in, item, "seconds", DBL_MIN, 1e9, &m.seconds));
        measured[gmx->key.measured_count++] =
            (fe_measurement){gm_arena_strdup(&gmx->arena, m.what), gm_arena_strdup(&gmx->arena, m.choice), m.seconds};
    }
    gmx->key.measured = measured;
    return GM_OK;
}

static gm_status read_key(const reader *in, const cJSON *object, fe_gmx *gmx) {
    fe_gmx_key *key = &gmx->key;
    const char *precision;
    const struct {
        const char *name, **out;
        bool may_be_null;
    } texts[] = {
        {"gemmac", &key->gemmac, false}, {"target", &key->target, false}, {"target_cpu", &key->target_cpu, true},
        {"passes", &key->passes, true},  {"skip", &key->skip, true},      {"with", &key->with, true},
        {"wide", &key->wide, true},      {"plan", &key->plan, false},     {"precision", &precision, false}};
    for (size_t i = 0; i < GM_COUNT(texts); i++) {
        GM_TRY(read_text(in, object, texts[i].name, texts[i].may_be_null, texts[i].out));
        if (*texts[i].out) *texts[i].out = gm_arena_strdup(&gmx->arena, *texts[i].out);
    }
    size_t number = 0;
    while (number < FE_PRECISION_COUNT && strcmp(fe_precision_text((fe_precision)number), precision) != 0) number++;
    if (number == FE_PRECISION_COUNT) return refuse(in, "precision", "auto, f32, bf16, int16, int8 or block8");
    key->precision = (fe_precision)number;
    GM_TRY(read_hex(in, object, "fingerprint", &key->fingerprint));
    GM_TRY(read_int(in, object, "context", 1, FE_MAX_CONTEXT, &key->context));
    GM_TRY(read_int(in, object, "chunk", 1, FE_MAX_CONTEXT, &key->chunk));
    return read_measured(in, fe_json_get(object, "measured"), gmx);
}

/* ---- tables ---- */

/* The bytes that a tensor of this type and shape takes; false when there is no such tensor. */
static bool tensor_bytes(const rt_tensor *tensor, size_t *out) {
    const rt_dtype_info *info = rt_dtype_of(tensor->dtype);
    size_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        if (!gm_mul_size(count, (size_t)tensor->dim[i], &count)) return false;
    if (tensor->dim[tensor->rank - 1] % info->block_elems) return false;
    return gm_mul_size(count / (size_t)info->block_elems, (size_t)info->block_bytes, out);
}

static gm_status read_tensor(const reader *in, const cJSON *item, gmx_header *header, gmx_place *place) {
    rt_tensor tensor = {0};
    const char *type;
    const cJSON *shape = fe_json_get(item, "shape"), *extent;
    GM_TRY(read_text(in, item, "name", false, &tensor.name));
    GM_TRY(read_text(in, item, "type", false, &type));
    if (!rt_dtype_parse(type, strlen(type), &tensor.dtype)) return refuse(in, tensor.name, "a type of element");
    cJSON_ArrayForEach(extent, shape) {
        double value = cJSON_IsNumber(extent) ? extent->valuedouble : 0;
        if (tensor.rank == RT_MAX_TENSOR_RANK || !(value >= 1 && value <= 0x1p40) || value != floor(value))
            return refuse(in, tensor.name, "1 to 4 positive extents");
        tensor.dim[tensor.rank++] = (int64_t)value;
    }
    if (!cJSON_IsArray(shape) || tensor.rank == 0) return refuse(in, tensor.name, "1 to 4 positive extents");
    GM_TRY(read_place(in, item, tensor.name, place));
    if (!tensor_bytes(&tensor, &tensor.bytes) || tensor.bytes != place->bytes)
        return refuse(in, tensor.name, "as many bytes as its type and shape take");
    return rt_weights_add(&header->model->weights, in->path, &tensor, in->diag);
}

static gm_status read_tensors(const reader *in, const cJSON *list, gmx_header *header) {
    const cJSON *item;
    size_t count = 0;
    if (!cJSON_IsArray(list) || !list->child) return refuse(in, "tensors", "a list of tensors");
    header->tensors = GM_NEW_ARRAY(&header->gmx->arena, gmx_place, (size_t)cJSON_GetArraySize(list));
    cJSON_ArrayForEach(item, list) GM_TRY(read_tensor(in, item, header, &header->tensors[count++]));
    return GM_OK;
}

static gm_status read_root(const reader *in, const cJSON *root, gmx_header *header) {
    const char *architecture;
    const cJSON *sections = fe_json_get(root, "sections");
    GM_TRY(read_text(in, root, "architecture", false, &architecture));
    header->model->architecture = strdup(architecture);
    GM_ASSERT(header->model->architecture);
    GM_TRY(read_config(in, fe_json_get(root, "config"), &header->model->config));
    GM_TRY(read_defaults(in, fe_json_get(root, "defaults"), &header->model->defaults));
    GM_TRY(read_defaulted(in, fe_json_get(root, "defaulted"), &header->model->defaulted));
    GM_TRY(read_key(in, fe_json_get(root, "compiled"), header->gmx));
    for (int i = 0; i < GMX_SECTIONS; i++) {
        const cJSON *section = fe_json_get(sections, gmx_section_names[i]);
        GM_TRY(read_place(in, section, gmx_section_names[i], &header->section[i]));
        GM_TRY(read_hex(in, section, "checksum", &header->checksum[i]));
    }
    return read_tensors(in, fe_json_get(root, "tensors"), header);
}

gm_status gmx_header_parse(const char *text, size_t bytes, size_t data_bytes, const char *path, gm_diag *diag,
                           gmx_header *header) {
    reader in = {.path = path, .diag = diag, .data_bytes = data_bytes};
    cJSON *root;
    GM_TRY(fe_json_parse(text, bytes, path, diag, &root));
    gm_status status = read_root(&in, root, header);
    cJSON_Delete(root);
    return status;
}
