/* The container behind gguf.c: keys, values and tensor infos of one mapped file. Internal. */
#ifndef GM_FRONTEND_GGUF_IMPL_H
#define GM_FRONTEND_GGUF_IMPL_H

#include "frontend/model.h"

/* Types of metadata values, numbered as in the file: GGUF_TYPE(name, number, bytes); bytes 0:
 * variable. */
#define GGUF_TYPES(GGUF_TYPE)                                                                                          \
    GGUF_TYPE(U8, 0, 1)                                                                                                \
    GGUF_TYPE(I8, 1, 1)                                                                                                \
    GGUF_TYPE(U16, 2, 2)                                                                                               \
    GGUF_TYPE(I16, 3, 2)                                                                                               \
    GGUF_TYPE(U32, 4, 4)                                                                                               \
    GGUF_TYPE(I32, 5, 4)                                                                                               \
    GGUF_TYPE(F32, 6, 4)                                                                                               \
    GGUF_TYPE(BOOL, 7, 1)                                                                                              \
    GGUF_TYPE(STRING, 8, 0)                                                                                            \
    GGUF_TYPE(ARRAY, 9, 0)                                                                                             \
    GGUF_TYPE(U64, 10, 8)                                                                                              \
    GGUF_TYPE(I64, 11, 8)                                                                                              \
    GGUF_TYPE(F64, 12, 8)

typedef enum gguf_type {
#define GGUF_TYPE(name, number, bytes) GGUF_##name = (number),
    GGUF_TYPES(GGUF_TYPE)
#undef GGUF_TYPE
        GGUF_TYPE_COUNT
} gguf_type;

typedef struct gguf_value {
    const char *key; /* in the file, not NUL-terminated */
    size_t key_length;
    gguf_type type; /* of the elements when is_array */
    bool is_array;
    uint64_t count;      /* elements; 1 for a scalar */
    const uint8_t *data; /* of the first element, unaligned */
} gguf_value;

typedef struct gguf_info {
    const char *name;
    rt_tensor tensor; /* slowest dimension first */
    uint64_t offset;
} gguf_info;

typedef struct gguf_file {
    const char *path;
    gm_diag *diag;
    gm_arena arena;
    const uint8_t *data;
    size_t bytes;
    gguf_value *values; /* sorted by key */
    size_t value_count;
    gguf_info *infos; /* in the order of the file, tensor.data set */
    size_t info_count;
} gguf_file;

/* Map and check a whole file; the mapping belongs to `weights`. Close even after a failure. */
gm_status gguf_open(gguf_file *file, const char *path, rt_weights *weights, gm_diag *diag);
void gguf_close(gguf_file *file);

/* NULL: no such key. */
const gguf_value *gguf_find(const gguf_file *file, const char *key);

/* A key of the kind asked for. Absent: *out is left alone, and GM_OK, unless `required`. Integers
 * of all widths are one kind, so are both floats. */
gm_status gguf_int(const gguf_file *file, const char *key, bool required, int64_t min, int64_t max, int64_t *out);
gm_status gguf_float(const gguf_file *file, const char *key, bool required, double *out);
gm_status gguf_bool(const gguf_file *file, const char *key, bool *out);
gm_status gguf_string(const gguf_file *file, const char *key, bool required, const char **out, size_t *out_length);
/* Element i of an integer or bool value, false when it is of another kind. */
bool gguf_element(const gguf_value *value, uint64_t i, int64_t *out);

static inline uint64_t gguf_load(const uint8_t *data, int bytes) {
    uint64_t bits = 0;
    for (int i = 0; i < bytes; i++) bits |= (uint64_t)data[i] << 8 * i;
    return bits;
}

/* ---- gguf_vocab.c ---- */

gm_status gguf_read_vocab(const gguf_file *file, rt_vocab *vocab);

#endif
