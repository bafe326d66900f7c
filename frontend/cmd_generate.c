/* gemmac generate: continue a prompt, as text while it comes or as one JSON object. */
#include "frontend/commands.h"

enum { DEFAULT_PREDICT = 128 };

static gm_status run(cmd_answer *answer, const cmd_options *options, gm_diag *diag) {
    const fe_engine *engine = answer->engine;
    const fe_config *config = &engine->model.config;
    if (options->stops.count && !engine->tokenizer)
        return gm_fail(diag, GM_INVALID, "%s: comes without a tokenizer, so --stop has no text", engine->model.path);
    GM_TRY(cmd_prompt(engine, options, diag, &answer->prompt));
    cmd_stops stops = {config->stops, options->ignore_eos ? 0 : config->stop_count};
    return cmd_answer_run(answer, options, 0, cmd_int_or(options, FLAG_PREDICT, options->predict, DEFAULT_PREDICT),
                          &stops, diag);
}

gm_status cmd_generate(const cmd_options *options, gm_diag *diag) {
    fe_engine engine;
    GM_TRY(cmd_prompt_given(options, diag));
    GM_TRY(cmd_engine_open_for_answers(options, diag, &engine));
    cmd_answer answer = cmd_answer_new(&engine, options);
    gm_status status = run(&answer, options, diag);
    if (status == GM_OK && answer.show) {
        cmd_answer_newline(&answer);
        cmd_answer_speed(&answer, 0);
    } else if (status == GM_OK) cmd_answer_json(&answer);
    cmd_answer_free(&answer);
    fe_engine_close(&engine);
    return status;
}
