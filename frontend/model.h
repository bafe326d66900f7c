/* A model as it lies on disk: configuration, weight table, vocabulary, generation defaults. */
#ifndef GM_FRONTEND_MODEL_H
#define GM_FRONTEND_MODEL_H

#include "frontend/config.h"
#include "runtime/tokenizer.h"
#include "runtime/weights.h"

enum { FE_MODEL_FILES = 5 /* manifest, configuration, index of weights, tokenizer, generation defaults */ };

typedef struct fe_defaults { /* generation_config.json or the manifest; NAN / -1: not given */
    double temperature, top_p, min_p, repeat_penalty;
    int64_t top_k;
} fe_defaults;

typedef struct fe_setting {
    const char *key, *value; /* value: JSON text */
} fe_setting;

/* Settings that the files leave out, with the architecture's default that is used instead, in the order of reading. */
typedef struct fe_defaulted {
    gm_arena arena;
    fe_setting *items;
    size_t count;
} fe_defaulted;

typedef struct fe_model {
    char *path;         /* as the user gave it; used in messages */
    char *architecture; /* "gemma3", "gemma3_text", … as the file says */
    fe_config config;
    rt_weights weights; /* canonical names; shapes checked against config; empty when no_weights */
    rt_vocab vocab;     /* count 0: the model came without a tokenizer */
    fe_defaults defaults;
    fe_defaulted defaulted;
    struct fe_gmx *gmx;               /* of an artefact: what else it holds (frontend/gmx.h); NULL: another format */
    gm_file_id files[FE_MODEL_FILES]; /* that it was read from, beside those that hold the weights */
    int file_count;
} fe_model;

/* Open MODEL: a model.json manifest, an HF folder or its config.json, a .gguf or a .gmx file. no_weights: read the
 * configuration only (and, for GGUF and artefacts, the tensor types: data stays NULL). Everything is validated: see
 * fe_model_check. On failure nothing is left open. */
gm_status fe_model_open(const char *path, bool no_weights, gm_diag *diag, fe_model *out);
void fe_model_close(fe_model *model);

/* GM_INVALID: the file at `output` is one that the model was read from, and writing would destroy it. Weight files are
 * recognised only if they are mapped. */
gm_status fe_model_spare(const fe_model *model, const char *output, gm_diag *diag);

/* rt_tokenizer_new, whose errors name the file. */
gm_status fe_tokenizer_index(const rt_vocab *vocab, const char *path, gm_diag *diag, rt_tokenizer **out);

/* The id that texts begin with: the vocabulary's, else the configuration's; -1: none. */
int32_t fe_model_bos(const fe_model *model);
/* The same where the vocabulary asks for it before texts; -1: nothing is put there. */
int32_t fe_model_text_bos(const fe_model *model);

/* Every tensor the configuration asks for is present with its exact shape and a supported type, none is
 * left over, norms are finite. */
gm_status fe_model_check(const fe_model *model, gm_diag *diag);

/* ---- the readers behind it ---- */

/* frontend/gguf.c: config, weights (canonical names), vocabulary from one GGUF v2/v3 file. */
gm_status fe_gguf_open(const char *path, bool no_weights, gm_diag *diag, fe_model *model);
/* frontend/config.c: config.json text -> config (every key of the Gemma 1, 2 and 3 text models, with its
 * default). `path` is for messages. */
struct cJSON;
gm_status fe_config_from_json(const struct cJSON *root, const char *path, gm_diag *diag, fe_model *model);
/* frontend/safetensors.c: add the tensors of these files, or of the shards of an index, to model->weights
 * under their canonical names, which all have the same prefix there; vision tensors are left out. */
gm_status fe_safetensors_open_all(const char *const *paths, size_t count, gm_diag *diag, fe_model *model);
gm_status fe_safetensors_open_index(const char *path, gm_diag *diag, fe_model *model);
/* frontend/tokenizer_json.c: HF tokenizer.json -> vocab. */
gm_status fe_tokenizer_json_open(const char *path, gm_diag *diag, rt_vocab *vocab);
/* frontend/tokenizer_model.c: SentencePiece tokenizer.model -> vocab. */
gm_status fe_tokenizer_model_open(const char *path, gm_diag *diag, rt_vocab *vocab);

#endif
