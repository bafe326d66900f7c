/* What the reader and the writer of artefacts share. Internal to frontend/gmx*.c. */
#ifndef GM_FRONTEND_GMX_IMPL_H
#define GM_FRONTEND_GMX_IMPL_H

#include "frontend/gmx.h"
#include "frontend/model_impl.h"

typedef enum gmx_section_id { GMX_VOCAB, GMX_INDEX, GMX_IR, GMX_PROGRAM, GMX_OBJECT, GMX_SECTIONS } gmx_section_id;
extern const char *const gmx_section_names[GMX_SECTIONS];

/* Where bytes lie in the data part. */
typedef struct gmx_place {
    size_t offset, bytes;
} gmx_place;

/* Changes with every single bit of the data. */
uint64_t gmx_checksum(const void *data, size_t bytes);
/* Round up to FE_GMX_ALIGN; false on overflow. */
bool gmx_align(size_t bytes, size_t *out);

/* ---- gmx_header.c: the JSON header ---- */

typedef struct gmx_header {
    fe_model *model; /* architecture, config, defaults, tensors */
    fe_gmx *gmx;     /* its key */
    gmx_place section[GMX_SECTIONS];
    uint64_t checksum[GMX_SECTIONS];
    gmx_place *tensors; /* of model->weights, in its order */
} gmx_header;

/* The caller frees the text (cJSON_free). */
char *gmx_header_print(const gmx_header *header);
/* Fills everything but what lies in the data: the weights get names, types, shapes and bytes, and no data.
 * header->tensors is in gmx's arena. Every place is within `data_bytes` and aligned. */
gm_status gmx_header_parse(const char *text, size_t bytes, size_t data_bytes, const char *path, gm_diag *diag,
                           gmx_header *header);

/* ---- gmx_vocab.c: the vocabulary section ---- */

void gmx_vocab_write(const rt_vocab *vocab, gm_string *out);
/* Texts stay in the section, which must outlive the vocabulary. */
gm_status gmx_vocab_read(const void *data, size_t bytes, const char *path, gm_diag *diag, rt_vocab *vocab);

#endif
