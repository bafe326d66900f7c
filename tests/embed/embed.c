/* gemmac within another program: embed MODEL TEXT N prints what N tokens say after TEXT, greedily, as they come. */
#include "frontend/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    const rt_tokenizer *tokenizer;
    rt_stream stream; /* bytes of a character that is not whole yet */
} writer;

static void print(gm_string *text) {
    if (text->length) fwrite(text->data, 1, text->length, stdout);
    fflush(stdout);
    gm_string_free(text);
}

static bool on_token(void *user, int32_t token, const float *logits) {
    writer *w = user;
    gm_string text = {0};
    rt_stream_push(w->tokenizer, &w->stream, token, &text);
    print(&text);
    return true;
}

static gm_status run(const fe_engine *engine, const char *text, int64_t n, gm_diag *diag) {
    const rt_sampling greedy = {.temperature = 0, .repeat_penalty = 1};
    const fe_config *config = &engine->model.config;
    writer w = {.tokenizer = engine->tokenizer};
    int32_t bos = fe_model_text_bos(&engine->model), *out = malloc((size_t)n * sizeof *out);
    int64_t count;
    rt_stop stop;
    rt_ids ids = {0};
    if (bos >= 0) rt_ids_push(&ids, bos);
    rt_encode(engine->tokenizer, text, strlen(text), false, &ids);
    gm_status status = rt_session_prefill(engine->session, ids.data, (int64_t)ids.count, diag);
    if (status == GM_OK)
        status = rt_session_generate(engine->session, &greedy, config->stops, config->stop_count, n, on_token, &w, out,
                                     &count, &stop, diag);
    gm_string rest = {0};
    rt_stream_finish(engine->tokenizer, &w.stream, &rest);
    print(&rest);
    rt_ids_free(&ids);
    free(out);
    return status;
}

int main(int argc, char **argv) {
    const fe_options options = {.threads = 0 /* what this process may use */, .context = 512};
    gm_diag diag = {0};
    fe_engine engine;
    if (argc != 4) return fprintf(stderr, "usage: embed MODEL TEXT N\n"), 2;
    gm_status status = fe_engine_open(argv[1], &options, &diag, &engine);
    if (status == GM_OK && !engine.tokenizer) status = gm_fail(&diag, GM_INVALID, "%s: expected a tokenizer", argv[1]);
    if (status == GM_OK) status = run(&engine, argv[2], atoll(argv[3]), &diag);
    if (status != GM_OK) fprintf(stderr, "%s\n", diag.message);
    fe_engine_close(&engine);
    return status == GM_OK ? 0 : 1;
}
