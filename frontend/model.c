/* MODEL, whatever it is: a GGUF file, an artefact, an HF folder or its config.json, or a model.json
 * manifest.
 *
 * A manifest is an object with any of
 *   "architecture": the keys of an HF config.json, or the path of one
 *   "weights": safetensors file(s), an index.json or a GGUF file
 *   "tokenizer": a tokenizer.json, a SentencePiece *.model, or a GGUF file with a vocabulary
 *   "generation": temperature, top_k, top_p, min_p, repeat_penalty, eos_token_id
 * Paths are relative to it. What it leaves out is looked for beside the config.json (or the
 * manifest).
 */
#include "frontend/model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontend/gmx.h"
#include "frontend/model_impl.h"
#include "frontend/template.h"

/* Where the parts of one model are. */
typedef struct parts {
    fe_model *model;
    gm_diag *diag;
    gm_arena arena; /* paths */
    bool no_weights;
    const char *folder;      /* where parts not named are looked for */
    const char *config_path; /* for messages */
    const cJSON *config;     /* NULL: the GGUF's own */
    const char **weights;    /* files */
    size_t weight_count;
    const char *tokenizer;   /* NULL: tokenizer.json or tokenizer.model in folder, if any */
    const cJSON *generation; /* of the manifest */
} parts;

/* ---- paths ---- */

static const char *folder_of(gm_arena *arena, const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return ".";
    return slash == path ? "/" : gm_arena_strndup(arena, path, (size_t)(slash - path));
}

static const char *join(gm_arena *arena, const char *folder, const char *name) {
    return name[0] == '/' ? name : gm_arena_printf(arena, "%s/%s", folder, name);
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

/* It is not to be written over. */
static void note_file(parts *in, const char *path) {
    fe_model *model = in->model;
    GM_ASSERT(model->file_count < FE_MODEL_FILES);
    model->file_count += gm_file_identify(path, &model->files[model->file_count]);
}

enum { START_BYTES = 256 };

/* Returns how many of the file's first bytes there are: 0 where it cannot be read. */
static size_t read_start(const char *path, char *start) {
    FILE *file = fopen(path, "rb");
    size_t count = file ? fread(start, 1, START_BYTES, file) : 0;
    if (file) fclose(file);
    return count;
}

/* The first bytes of a file tell GGUF, an artefact (X), JSON and a Git LFS pointer (L) apart; 0: none of them, or the
 * file cannot be read. */
static char kind_of(const char *path) {
    char start[START_BYTES];
    size_t count = read_start(path, start), at = 0;
    if (count >= 4 && memcmp(start, "GGUF", 4) == 0) return 'G';
    if (fe_gmx_is(start, count)) return 'X';
    gm_diag ignored = {0};
    if (fe_check_fetched(start, count, path, &ignored) != GM_OK) return 'L';
    while (at < count && strchr(" \t\r\n", start[at]) && start[at]) at++;
    return at < count && start[at] == '{' ? '{' : 0;
}

/* ---- parts ---- */

/* A config beside a GGUF file tells what the file leaves out; what the file does hold stays. */
static gm_status override_config(parts *in) {
    fe_model described = {0};
    fe_config *stored = &in->model->config, *wanted = &described.config;
    gm_status status = fe_config_from_json(in->config, in->config_path, in->diag, &described);
    free(described.architecture);
    fe_defaulted_free(&in->model->defaulted);
    in->model->defaulted = described.defaulted;
    GM_TRY(status);
    if (wanted->generation != stored->generation)
        return gm_fail(in->diag, GM_INVALID, "%s: expected a configuration of %s, like the weights", in->config_path,
                       in->model->architecture);
    wanted->vocab = stored->vocab; /* converters cut rows without a token */
    wanted->tied = stored->tied;
    wanted->storage = stored->storage;
    wanted->norm_plus_one = false;
    for (int i = 0; i < stored->stop_count; i++)
        GM_TRY(fe_config_add_stop(wanted, stored->stops[i], in->config_path, in->diag));
    *stored = *wanted;
    return GM_OK;
}

static gm_status open_gguf(parts *in, const char *path) {
    GM_TRY(fe_gguf_open(path, in->no_weights, in->diag, in->model));
    return in->config ? override_config(in) : GM_OK;
}

static gm_status find_weights(parts *in) {
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    for (size_t i = 0; i < GM_COUNT(names); i++) {
        const char *path = join(&in->arena, in->folder, names[i]);
        if (!exists(path)) continue;
        in->weights = GM_NEW_ARRAY(&in->arena, const char *, 1);
        in->weights[0] = path;
        in->weight_count = 1;
        return GM_OK;
    }
    return gm_fail(in->diag, GM_IO, "%s: expected model.safetensors or model.safetensors.index.json", in->folder);
}

static gm_status open_safetensors(parts *in) {
    fe_model *model = in->model;
    bool tied = model->config.tied;
    bool index = in->weight_count == 1 && fe_ends_with(in->weights[0], ".json");
    if (index) note_file(in, in->weights[0]);
    if (index) GM_TRY(fe_safetensors_open_index(in->weights[0], in->diag, model));
    else GM_TRY(fe_safetensors_open_all(in->weights, in->weight_count, in->diag, model));
    if (model->weights.count == 0)
        return gm_fail(in->diag, GM_FORMAT, "%s: expected tensors of a text model", in->weights[0]);
    GM_TRY(fe_settle_head(model, in->diag));
    if (tied && !model->config.tied)
        gm_warn(in->diag, "%s: lm_head.weight differs from the embedding, so tie_word_embeddings is ignored",
                in->weights[0]);
    return GM_OK;
}

/* HF files add special pieces beyond the rows of the embedding (<image_soft_token>): cut those off.
 */
static void cut_vocab(fe_model *model) {
    rt_vocab *vocab = &model->vocab;
    size_t count = vocab->count;
    while ((int64_t)count > model->config.vocab && vocab->pieces[count - 1].type == RT_PIECE_CONTROL) count--;
    if ((int64_t)count > model->config.vocab) return; /* refused by fe_model_check */
    vocab->count = count;
    int32_t *const ids[] = {&vocab->bos, &vocab->eos, &vocab->unk, &vocab->pad, &vocab->end_of_turn};
    for (size_t i = 0; i < GM_COUNT(ids); i++)
        if (*ids[i] >= (int64_t)count) *ids[i] = -1;
}

static gm_status open_tokenizer(parts *in) {
    fe_model *model = in->model;
    const char *path = in->tokenizer;
    if (!path) {
        if (model->vocab.count) return GM_OK; /* the GGUF's own */
        path = join(&in->arena, in->folder, "tokenizer.json");
        if (!exists(path)) path = join(&in->arena, in->folder, "tokenizer.model");
        if (!exists(path)) {
            model->vocab.other_turns = fe_template_other_in(in->folder);
            return GM_OK;
        }
    }
    rt_vocab_free(&model->vocab);
    note_file(in, path);
    if (kind_of(path) == 'G') return fe_gguf_open_vocab(path, in->diag, model);
    if (fe_ends_with(path, ".json") || kind_of(path) == '{')
        GM_TRY(fe_tokenizer_json_open(path, in->diag, &model->vocab));
    else GM_TRY(fe_tokenizer_model_open(path, in->diag, &model->vocab));
    cut_vocab(model);
    model->vocab.other_turns = fe_template_other_in(folder_of(&in->arena, path));
    return GM_OK;
}

static gm_status read_generation(parts *in) {
    const char *path = join(&in->arena, in->folder, "generation_config.json");
    if (exists(path)) {
        cJSON *root;
        note_file(in, path);
        GM_TRY(fe_json_open(path, FE_MAX_JSON_BYTES, in->diag, &root));
        gm_status status = fe_generation_from_json(root, path, false, in->diag, in->model);
        cJSON_Delete(root);
        GM_TRY(status);
    }
    if (!in->generation) return GM_OK;
    return fe_generation_from_json(in->generation, in->model->path, true, in->diag, in->model);
}

static gm_status check_weights_exist(const parts *in) {
    for (size_t i = 0; i < in->weight_count; i++)
        if (access(in->weights[i], R_OK) != 0)
            return gm_fail(in->diag, GM_IO, "%s: %s", in->weights[i], strerror(errno));
    return GM_OK;
}

/* Why a manifest does not say what the model is, unless its one weight file does. */
static gm_status refuse_nameless(const parts *in) {
    GM_TRY(check_weights_exist(in));
    char start[START_BYTES];
    if (in->weight_count == 1)
        GM_TRY(fe_check_fetched(start, read_start(in->weights[0], start), in->weights[0], in->diag));
    return gm_fail(in->diag, GM_FORMAT, "%s: expected key \"architecture\" (only GGUF weights can do without)",
                   in->model->path);
}

static gm_status open_parts(parts *in) {
    if (!in->no_weights) GM_TRY(check_weights_exist(in));
    if (in->weight_count == 1 && kind_of(in->weights[0]) == 'G') {
        GM_TRY(open_gguf(in, in->weights[0]));
    } else {
        if (!in->config) return refuse_nameless(in);
        GM_TRY(fe_config_from_json(in->config, in->config_path, in->diag, in->model));
        if (!in->no_weights) {
            if (in->weight_count == 0) GM_TRY(find_weights(in));
            GM_TRY(open_safetensors(in));
        }
    }
    GM_TRY(open_tokenizer(in));
    return read_generation(in);
}

/* ---- manifest ---- */

static gm_status check_keys(parts *in, const cJSON *root) {
    const cJSON *item;
    cJSON_ArrayForEach(item, root) {
        const char *key = item->string;
        if (strcmp(key, "architecture") != 0 && strcmp(key, "weights") != 0 && strcmp(key, "tokenizer") != 0 &&
            strcmp(key, "generation") != 0)
            return gm_fail(in->diag, GM_FORMAT,
                           "%s: key \"%.80s\": expected architecture, weights, tokenizer or generation",
                           in->model->path, key);
    }
    return GM_OK;
}

static gm_status read_weights_key(parts *in, const cJSON *item, const char *folder) {
    size_t count = cJSON_IsArray(item) ? (size_t)cJSON_GetArraySize(item) : 1;
    const cJSON *path = cJSON_IsArray(item) ? item->child : item;
    in->weights = GM_NEW_ARRAY(&in->arena, const char *, count);
    for (; path && in->weight_count < count; path = path->next) {
        if (!cJSON_IsString(path)) break;
        in->weights[in->weight_count++] = join(&in->arena, folder, path->valuestring);
    }
    if (count > 0 && in->weight_count == count) return GM_OK;
    return gm_fail(in->diag, GM_FORMAT, "%s: key \"weights\": expected a path or a list of paths", in->model->path);
}

static gm_status read_manifest(parts *in, const cJSON *root, cJSON **out_config) {
    const char *path = in->model->path, *folder = in->folder;
    const cJSON *architecture = fe_json_get(root, "architecture"), *weights = fe_json_get(root, "weights");
    const cJSON *tokenizer = fe_json_get(root, "tokenizer");
    GM_TRY(check_keys(in, root));
    in->generation = fe_json_get(root, "generation");
    if (weights) GM_TRY(read_weights_key(in, weights, folder));
    if (cJSON_IsString(architecture)) {
        in->config_path = join(&in->arena, folder, architecture->valuestring);
        in->folder = folder_of(&in->arena, in->config_path);
        note_file(in, in->config_path);
        GM_TRY(fe_json_open(in->config_path, FE_MAX_JSON_BYTES, in->diag, out_config));
        in->config = *out_config;
    } else if (cJSON_IsObject(architecture)) {
        in->config = architecture;
    } else if (architecture) {
        return gm_fail(in->diag, GM_FORMAT, "%s: key \"architecture\": expected an object or the path of a config.json",
                       path);
    }
    if (tokenizer && !cJSON_IsString(tokenizer))
        return gm_fail(in->diag, GM_FORMAT, "%s: key \"tokenizer\": expected a path", path);
    if (tokenizer) in->tokenizer = join(&in->arena, folder, tokenizer->valuestring);
    return GM_OK;
}

/* ---- dispatch ---- */

static gm_status open_json(parts *in, const char *path) {
    cJSON *root, *config = NULL;
    GM_TRY(fe_json_open(path, FE_MAX_JSON_BYTES, in->diag, &root));
    in->config_path = path;
    in->folder = folder_of(&in->arena, path);
    note_file(in, path);
    gm_status status = GM_OK;
    if (fe_json_get(root, "architecture") || fe_json_get(root, "weights")) status = read_manifest(in, root, &config);
    else if (fe_json_get(root, "model_type")) in->config = root;
    else
        status = gm_fail(in->diag, GM_FORMAT,
                         "%s: expected key \"model_type\" (config.json), or \"architecture\" or "
                         "\"weights\" (model.json)",
                         path);
    if (status == GM_OK) status = open_parts(in);
    cJSON_Delete(config);
    cJSON_Delete(root);
    return status;
}

static gm_status open_any(parts *in, const char *path) {
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        const char *config = join(&in->arena, path, "config.json");
        if (exists(config)) return open_json(in, config);
        return gm_fail(in->diag, GM_IO, "%s: expected config.json in the folder", path);
    }
    char kind = kind_of(path);
    if (kind == 'G') return open_gguf(in, path);
    if (kind == 'X') return fe_gmx_open(path, in->no_weights, in->diag, in->model);
    /* open_json refuses a pointer, and says why it cannot read. */
    if (kind == '{' || kind == 'L' || access(path, R_OK) != 0) return open_json(in, path);
    return gm_fail(in->diag, GM_FORMAT,
                   "%s: expected a GGUF file, an artefact, a folder with config.json, a config.json or "
                   "a model.json",
                   path);
}

gm_status fe_model_open(const char *path, bool no_weights, gm_diag *diag, fe_model *out) {
    *out = (fe_model){
        .config = {.bos = -1},
        .defaults = {NAN, NAN, NAN, NAN, -1},
    };
    out->path = strdup(path);
    if (!out->path) return gm_fail(diag, GM_NOMEM, "%s: out of memory", path);
    parts in = {.model = out, .diag = diag, .no_weights = no_weights};
    gm_status status = open_any(&in, path);
    if (status == GM_OK) status = fe_model_check(out, diag);
    gm_arena_free(&in.arena);
    if (status != GM_OK) fe_model_close(out);
    return status;
}

gm_status fe_model_spare(const fe_model *model, const char *output, gm_diag *diag) {
    gm_file_id id;
    if (!gm_file_identify(output, &id)) return GM_OK;
    bool read = false;
    for (int i = 0; i < model->file_count; i++) read |= gm_same_file(model->files[i], id);
    for (size_t i = 0; i < model->weights.mapping_count; i++)
        read |= model->weights.mappings[i].file && gm_same_file(model->weights.mappings[i].identity, id);
    return read ? gm_fail(diag, GM_INVALID,
                          "%s: is a file of the model that is read: expected another one for the output", output)
                : GM_OK;
}

gm_status fe_tokenizer_index(const rt_vocab *vocab, const char *path, gm_diag *diag, rt_tokenizer **out) {
    gm_diag inner = {0};
    gm_status status = rt_tokenizer_new(vocab, &inner, out);
    return status == GM_OK ? GM_OK : gm_fail(diag, status, "%s: %s", path, inner.message);
}

int32_t fe_model_bos(const fe_model *model) {
    return model->vocab.count && model->vocab.bos >= 0 ? model->vocab.bos : model->config.bos;
}

int32_t fe_model_text_bos(const fe_model *model) {
    return model->vocab.add_bos ? fe_model_bos(model) : -1;
}

void fe_model_close(fe_model *model) {
    rt_weights_close(&model->weights);
    rt_vocab_free(&model->vocab);
    fe_gmx_free(model->gmx);
    free(model->path);
    fe_defaulted_free(&model->defaulted);
    free(model->architecture);
    *model = (fe_model){0};
}
