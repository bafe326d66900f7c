/* gemmac logits: the logits after each token of a prompt, as tensor "logits" F32 [n_ids, vocab] of
 * a safetensors file. Rows go to the file as they come, so no more than one piece is in memory. */
#include "frontend/commands.h"
#include "frontend/new_file.h"

#include <stdlib.h>
#include <string.h>

typedef struct logits_writer {
    fe_new_file file;
    int64_t vocab;
    gm_diag *diag;
    gm_status status;
} logits_writer;

/* Length of the header, then the header, padded so that the data is aligned. */
static gm_status write_header(logits_writer *w, int64_t rows) {
    gm_string header = {0};
    gm_string_printf(&header, "{\"logits\":{\"dtype\":\"F32\",\"shape\":[%lld,%lld],\"data_offsets\":[0,%lld]}}",
                     (long long)rows, (long long)w->vocab, (long long)(rows * w->vocab * 4));
    while (header.length % 8) gm_string_append(&header, " ", 1);
    uint64_t length = header.length; /* little-endian, as all hosts we compile for */
    gm_status status = fe_new_file_write(&w->file, &length, sizeof length, w->diag);
    if (status == GM_OK) status = fe_new_file_write(&w->file, header.data, header.length, w->diag);
    gm_string_free(&header);
    return status;
}

static bool write_rows(void *user, int64_t first, int64_t rows, const float *logits) {
    logits_writer *w = user;
    size_t bytes = sizeof *logits * (size_t)(rows * w->vocab);
    if (w->status == GM_OK) w->status = fe_new_file_write(&w->file, logits, bytes, w->diag);
    return w->status == GM_OK;
}

static gm_status write_logits(const fe_engine *engine, const rt_ids *ids, const char *path, gm_diag *diag) {
    int64_t count = (int64_t)ids->count;
    GM_TRY(cmd_prompt_fits(engine, ids, diag));
    logits_writer w = {.vocab = rt_session_vocab(engine->session), .diag = diag};
    GM_TRY(fe_model_spare(&engine->model, path, diag));
    GM_TRY(fe_new_file_open(path, diag, &w.file));
    gm_status status = write_header(&w, count);
    if (status == GM_OK) status = rt_session_score(engine->session, ids->data, count, write_rows, &w, diag);
    if (w.status != GM_OK) status = w.status; /* why the rows were refused */
    return fe_new_file_close(&w.file, status, diag);
}

gm_status cmd_logits(const cmd_options *options, gm_diag *diag) {
    fe_engine engine;
    fe_options engine_options = cmd_engine_options(options);
    engine_options.no_screens = true;
    rt_ids ids = {0};
    GM_TRY(cmd_prompt_given(options, diag));
    if (!options->output) return gm_fail(diag, GM_INVALID, "no output given: expected -o FILE.safetensors");
    GM_TRY(cmd_engine_open(options, &engine_options, diag, &engine));
    gm_status status = cmd_prompt(&engine, options, diag, &ids);
    if (status == GM_OK) status = write_logits(&engine, &ids, options->output, diag);
    rt_ids_free(&ids);
    fe_engine_close(&engine);
    return status;
}
