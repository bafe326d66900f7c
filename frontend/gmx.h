/* The compiled artefact .gmx: a model and its machine code in one file that is mapped and run.
 *
 * An artefact holds machine code, which runs as it stands in the file: run only artefacts you trust, like any
 * executable. Its checksums find accidents, not intent.
 *
 * Little-endian:
 *   0  "GMX1"        8  bytes of the whole file       24  checksum of the JSON header
 *   4  version      16  bytes of the JSON header      32  checksum of bytes 0-31; then zeros to 64
 *   64 the data, to a multiple of 64; the JSON header ends the file
 * The header is one object (frontend/gmx_header.c): architecture, config, defaults, defaulted, what it was compiled
 * for, and "tensors", a table of name, type, shape, and "sections": vocab (frontend/gmx_vocab.c), index
 * (runtime/tokenizer_index.c), ir (.gir text), program (codegen/image.c), object. Tensors and sections give offset and
 * bytes within the data and start at multiples of 64; sections have checksums, tensors are as stored in the model they
 * came from, or derived from those (runtime/derive.h).
 */
#ifndef GM_FRONTEND_GMX_H
#define GM_FRONTEND_GMX_H

#include "frontend/driver.h"
#include "frontend/measure.h"

enum { FE_GMX_VERSION = 11, FE_GMX_ALIGN = 64, FE_GMX_HEAD = 64 };

/* What machine code was compiled for; an artefact is run as it is when all of it is asked for again. */
typedef struct fe_gmx_key {
    int64_t context, chunk; /* chunk may exceed context: it is cut to it */
    fe_precision precision;
    const char *plan;                        /* what precision came to, "int8", "f32", …: to be shown, not compared */
    const char *passes, *skip, *with, *wide; /* NULL: none given */
    const char *target_cpu;                  /* --target-cpu; NULL: the host */
    const char *target;                      /* cg_target_text */
    const char *gemmac;                      /* version */
    uint64_t fingerprint;                    /* cg_fingerprint */
    const fe_measurement *measured;          /* on the target: how long ways of computing products took */
    size_t measured_count;                   /* 0: rules chose */
} fe_gmx_key;

typedef struct fe_gmx_section {
    const void *data;
    size_t bytes;
} fe_gmx_section;

/* What an opened artefact holds besides the model. */
typedef struct fe_gmx {
    gm_arena arena; /* the key's texts */
    fe_gmx_key key;
    fe_gmx_section index, ir, program, object; /* in the mapping that model->weights owns */
} fe_gmx;

/* ---- frontend/gmx_read.c ---- */

bool fe_gmx_is(const char *start, size_t bytes);
/* Map the artefact and fill model, model->gmx included. Without weights the tensors have no data. Checks everything but
 * the values in the tensors and whether the machine code is right. */
gm_status fe_gmx_open(const char *path, bool no_weights, gm_diag *diag, fe_model *model);
void fe_gmx_free(fe_gmx *gmx);
/* What was not asked for is as it was when the artefact was compiled. The texts stay in gmx. */
void fe_gmx_adopt(const fe_gmx *gmx, fe_options *options);
/* NULL: the machine code is what `wanted` asks for; else why it is not. */
const char *fe_gmx_difference(const fe_gmx *gmx, const fe_gmx_key *wanted);
/* Every weight that the module reads is in the model with that type and shape. */
gm_status fe_gmx_check_module(const fe_model *model, const ir_module *module, gm_diag *diag);

/* ---- frontend/gmx_write.c ---- */

/* Begin an artefact at `path`, which appears complete or not at all; what is there and not a regular file is written
 * directly. Between the two calls tensors are handed over, whose bytes a thread writes meanwhile: they must stay as
 * they are. What is derived is let go of as it is written: nobody may read it again. Where much of it waits to be
 * written, whoever hands over more waits too. */
typedef struct fe_gmx_writer fe_gmx_writer;
gm_status fe_gmx_begin(const char *path, gm_diag *diag, fe_gmx_writer **out);
gm_status fe_gmx_add(fe_gmx_writer *writer, const rt_weights *weights, const rt_tensor *tensor, gm_diag *diag);
/* Write the rest, of a model whose tensors have all been handed over; the sections of gmx are read until it returns.
 * Frees the writer, whether it succeeds or not. */
gm_status fe_gmx_finish(fe_gmx_writer *writer, const fe_model *model, const fe_gmx *gmx, gm_diag *diag);
/* Nothing appears. Frees the writer; NULL is fine. */
void fe_gmx_abandon(fe_gmx_writer *writer);

#endif
