/* What the commands of the gemmac binary share: parsed options, input, output. */
#ifndef GM_FRONTEND_COMMANDS_H
#define GM_FRONTEND_COMMANDS_H

#include "frontend/driver.h"
#include "frontend/likely.h"
#include "frontend/stop_match.h"

/* ---- options ---- */

typedef enum cmd_flag {
#define FLAG(name, short_text, long_text, kind, field, min, max, value, help) FLAG_##name,
#include "frontend/options.def"
#undef FLAG
    FLAG_COUNT
} cmd_flag;
/* A bit per flag. */
typedef unsigned __int128 cmd_flags;
_Static_assert(FLAG_COUNT <= 128, "sets of flags are 128-bit masks");
#define CMD_FLAG(name) ((cmd_flags)1 << FLAG_##name)
/* What the sampler takes besides a temperature and a seed. */
#define CMD_SAMPLER_FLAGS                                                                                              \
    (CMD_FLAG(TOP_K) | CMD_FLAG(TOP_P) | CMD_FLAG(MIN_P) | CMD_FLAG(REPEAT_PENALTY) | CMD_FLAG(FREQUENCY_PENALTY) |    \
     CMD_FLAG(PRESENCE_PENALTY) | CMD_FLAG(REPEAT_LAST_N))

typedef struct cmd_ints {
    int64_t *data;
    size_t count;
} cmd_ints;

typedef struct cmd_texts {
    const char **data;
    size_t count;
} cmd_texts;

enum { CMD_TEXT, CMD_JSON };             /* format */
enum { RUN_INTERP, RUN_JIT, RUN_CHECK }; /* run_mode */

/* What the flags said; a field whose flag is absent is zero (see cmd_given), whatever the default
 * is. */
typedef struct cmd_options {
    const char *input; /* the positional argument */
    const char *model, *prompt, *file, *messages, *output, *passes, *skip, *with, *wide, *target_cpu, *dump, *dump_dir,
        *func, *dims, *rows, *base, *svg, *host;
    cmd_ints ids, bench_prompt, bench_predict, depths;
    cmd_texts stops;
    int64_t format, precision, kl_base, run_mode;
    int64_t predict, top_k, repeat_last_n, seed, context, threads, chunk, tokens, repetitions, memory, plan_prompt,
        port;
    double kl_budget, temperature, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty;
    bool help, no_bos, special, skip_special, no_generation_prompt, ignore_eos, time, explain, measure, no_weights,
        no_probe;
    cmd_flags given;
    gm_arena arena; /* owns the lists */
} cmd_options;

static inline bool cmd_given(const cmd_options *options, cmd_flag flag) {
    return options->given >> flag & 1;
}
static inline int64_t cmd_int_or(const cmd_options *options, cmd_flag flag, int64_t value, int64_t otherwise) {
    return cmd_given(options, flag) ? value : otherwise;
}

/* Read the arguments after the command's name. `accepted`: mask of the flags that it takes.
 * GM_INVALID with one line that names the argument. Strings stay in argv; release the rest with
 * cmd_options_free. */
gm_status cmd_parse(const char *command, cmd_flags accepted, int argc, char **argv, gm_diag *diag, cmd_options *out);
/* As if the flag had been there. */
static inline void cmd_give(cmd_options *options, cmd_flag flag) {
    options->given |= (cmd_flags)1 << flag;
}
void cmd_options_free(cmd_options *options);
/* False unless text[0..length) is all of a decimal integer. */
bool cmd_read_int(const char *text, size_t length, int64_t *out);
/* The accepted flags with their meaning, a line each, on standard output. */
void cmd_print_flags(cmd_flags accepted);

/* ---- input (frontend/cmd_input.c) ---- */

fe_options cmd_engine_options(const cmd_options *options);
/* MODEL, positional or after -m. GM_INVALID: there is none, or two. */
gm_status cmd_model_path(const cmd_options *options, gm_diag *diag, const char **out);
gm_status cmd_engine_open(const cmd_options *options, const fe_options *engine_options, gm_diag *diag, fe_engine *out);
/* The same for one that only answers: screens are made once a sampler is known to read them. */
gm_status cmd_engine_open_for_answers(const cmd_options *options, gm_diag *diag, fe_engine *out);

/* Only the model, for its vocabulary and configuration, and its tokenizer, if it has one; to be closed by
 * fe_engine_close. weights: also map and check them. */
gm_status cmd_vocab_open(const cmd_options *options, bool weights, gm_diag *diag, fe_engine *out);

/* The bytes of FILE, of standard input when it is "-". */
gm_status cmd_read_text(const char *path, gm_diag *diag, gm_string *out);
/* Append <bos> as the vocabulary asks for it, then the text's ids. */
void cmd_encode(const fe_engine *engine, const cmd_options *options, const char *text, size_t length, rt_ids *out);
/* Append the ids of -f FILE with <bos> as above, at most --tokens of them. */
gm_status cmd_text_ids(const fe_engine *engine, const cmd_options *options, gm_diag *diag, rt_ids *out);
/* GM_INVALID unless exactly one of --ids, -p and -f is there. */
gm_status cmd_prompt_given(const cmd_options *options, gm_diag *diag);
/* The ids of the prompt: never none, all within the vocabulary. One newline at the end of FILE does
 * not count. */
gm_status cmd_prompt(const fe_engine *engine, const cmd_options *options, gm_diag *diag, rt_ids *out);
/* The same before a session is opened, by a model that is opened for it alone; and GM_INVALID if `output`, NULL: none,
 * is a file of that model. *context, unless NULL: the most tokens that it takes. */
gm_status cmd_prompt_alone(const cmd_options *options, const char *output, gm_diag *diag, int64_t *context,
                           rt_ids *out);
/* GM_INVALID: there are more than the session's context takes. */
gm_status cmd_prompt_fits(const fe_engine *engine, const rt_ids *prompt, gm_diag *diag);
/* How tokens are chosen: what the flags say, else the model's defaults, else those that Gemma's makers recommend. */
rt_sampling cmd_sampling(const cmd_options *options, const fe_defaults *defaults);
/* --ids as 32-bit numbers below `vocab`. */
gm_status cmd_ids(const cmd_options *options, int64_t vocab, gm_diag *diag, rt_ids *out);

/* ---- answers (frontend/cmd_answer.c) ---- */

typedef struct cmd_answer {
    fe_engine *engine; /* borrowed; has a session */
    rt_ids prompt;
    /* what is certain, at once; 0, else an errno, which ends the answer. NULL: nothing is */
    int (*show)(void *user, const char *text, size_t bytes);
    void *show_user;
    fe_stop_match match; /* with the stop strings */
    rt_stream stream;
    gm_string text; /* all of it */
    bool stopped;   /* a stop string came */
    int failed;     /* errno of show, 0: none */
    int32_t *ids;   /* [count] */
    int64_t count;
    rt_stop reason;
    double prefill_s, generate_s;
    const struct rt_bias *biases; /* [bias_count], borrowed: added to logits (runtime/sampler.h) */
    int64_t bias_count;
    rt_sampling sampling; /* once it was run */
    bool scores,
        echoes; /* keep log probabilities of the answer's tokens; of the prompt's before them, then none is held */
    fe_likelies scored; /* those, with as many of the likeliest as `top` says */
} cmd_answer;

typedef struct cmd_stops {
    const int32_t *ids;
    int count;
} cmd_stops;

/* One to be run with these flags, shown on standard output where the format is text; its prompt is empty yet. */
cmd_answer cmd_answer_new(fe_engine *engine, const cmd_options *options);
/* Continue a->prompt, of which the session holds the first `held` ids, by up to `wanted` tokens, -1: until the context
 * is full. GM_INVALID: the prompt does not fit; GM_IO: it could not be shown. */
gm_status cmd_answer_run(cmd_answer *a, const cmd_options *options, int64_t held, int64_t wanted,
                         const cmd_stops *stops, gm_diag *diag);
void cmd_answer_free(cmd_answer *a);
/* "stop", "eos" or "length" */
const char *cmd_answer_reason(const cmd_answer *a);

/* Of the ids that the session holds of the answers before, makes it keep those that the prompt begins with, *out of
 * them, which need not be read again; at least one is left to be read. */
gm_status cmd_held_keep(const rt_ids *held, rt_session *session, const rt_ids *prompt, gm_diag *diag, int64_t *out);
/* What it holds after an answer was run, whose prompt is taken from it. */
void cmd_held_take(rt_ids *held, cmd_answer *answer);

/* Says it where the model brings a chat template whose turns are not Gemma's. */
void cmd_warn_turns(const fe_model *model, const gm_diag *diag);
/* The ids that end an answer in a chat, those of the model and the end of a turn, in ids[RT_MAX_STOPS]. GM_UNSUPPORTED:
 * the vocabulary has no such piece. */
gm_status cmd_chat_stops(const fe_model *model, gm_diag *diag, int32_t *ids, cmd_stops *out);
/* The ids of a conversation in the chat template, with the model's turn opened. GM_INVALID: roles do not alternate, or
 * it is too long. */
struct fe_message;
gm_status cmd_chat_encode(const fe_engine *engine, const struct fe_message *messages, size_t count, gm_diag *diag,
                          rt_ids *out);
/* One JSON object on a line of standard output. */
void cmd_answer_json(const cmd_answer *a);
/* The end of a text that was streamed, and its speed on standard error. */
void cmd_answer_newline(const cmd_answer *a);
void cmd_answer_speed(const cmd_answer *a, int64_t held);

/* ---- output (frontend/cmd_output.c) ---- */

/* A JSON string, whatever bytes the text holds: what is not UTF-8 becomes U+FFFD. */
void cmd_json_text(gm_string *out, const char *text, size_t length);
/* The shortest number that reads back the same; null when it is not finite. */
void cmd_json_real(gm_string *out, double value);
/* ,"name":value */
void cmd_json_field(gm_string *out, const char *name, double value);
void cmd_json_ids(gm_string *out, const int32_t *ids, size_t count);

/* A whole file at once, or standard output when path is NULL. */
gm_status cmd_write_text(const char *path, const gm_string *text, gm_diag *diag);

/* What the compiler chose and why, on standard output (frontend/cmd_explain.c). */
void cmd_print_decisions(const ir_decisions *list, bool json);

/* Run the passes of --passes, without those of --skip, on *module, which is NULL after a failure
 * (frontend/cmd_opt.c). */
gm_status cmd_apply_passes(const cmd_options *options, ir_module **module, gm_diag *diag);

/* ---- the commands, a file each ---- */

typedef gm_status cmd_fn(const cmd_options *options, gm_diag *diag);
cmd_fn cmd_generate, cmd_chat, cmd_serve, cmd_logits, cmd_perplexity, cmd_bench, cmd_ablate, cmd_profile, cmd_plan;
cmd_fn cmd_tokenize, cmd_detokenize, cmd_render, cmd_inspect;
cmd_fn cmd_compile, cmd_opt, cmd_run;

#endif
