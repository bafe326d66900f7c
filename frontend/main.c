/* The gemmac binary: a table of commands, and help made from the tables. */
#include "frontend/commands.h"

#include "passes/passes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define F(name)      CMD_FLAG(name)
#define COMMON_FLAGS (F(HELP) | F(THREADS) | F(PRECISION) | F(SKIP))
#define MODEL_FLAGS                                                                                                    \
    (COMMON_FLAGS | F(MODEL) | F(PASSES) | F(WITH) | F(WIDE) | F(CONTEXT) | F(CHUNK) | F(TARGET_CPU) | F(TIME) |       \
     F(FORMAT))
#define DUMP_FLAGS     (F(DUMP) | F(DUMP_DIR))
#define PROMPT_FLAGS   (F(PROMPT) | F(FILE) | F(IDS) | F(NO_BOS) | F(SPECIAL))
#define SAMPLING_FLAGS (F(TEMP) | CMD_SAMPLER_FLAGS | F(SEED))

typedef struct command {
    const char *name;
    cmd_fn *run;
    cmd_flags flags;
    const char *synopsis, *summary;
} command;

static const command commands[] = {
    {"compile", cmd_compile,
     MODEL_FLAGS | DUMP_FLAGS | F(OUTPUT) | F(NO_WEIGHTS) | F(KL_BUDGET) | F(FILE) | F(TOKENS) | F(EXPLAIN) |
         F(MEASURE),
     "MODEL [-o OUT.gmx] [--kl-budget X] [--measure] [--dump WHAT] [--explain]",
     "compile a model into an artefact (without -o its name with .gmx, in the current folder), or dump a stage"},
    {"generate", cmd_generate,
     MODEL_FLAGS | DUMP_FLAGS | PROMPT_FLAGS | SAMPLING_FLAGS | F(PREDICT) | F(STOP) | F(IGNORE_EOS) | F(MEASURE),
     "MODEL (-p TEXT | -f FILE | --ids LIST) [-n N]", "continue a prompt"},
    {"chat", cmd_chat, MODEL_FLAGS | SAMPLING_FLAGS | F(CHAT_PREDICT) | F(STOP) | F(MESSAGES) | F(MEASURE),
     "MODEL [--messages FILE.json] [-n N] < LINES", "talk with a model, a line for each message"},
#ifdef GM_HAVE_MICROHTTPD
    {"serve", cmd_serve,
     (MODEL_FLAGS & ~F(FORMAT)) | SAMPLING_FLAGS | F(CHAT_PREDICT) | F(STOP) | F(HOST) | F(PORT) | F(MEASURE),
     "MODEL [--host 127.0.0.1] [--port 8080]",
     "answer over HTTP, in the JSON of OpenAI's completions and chat completions"},
#endif
    {"bench", cmd_bench,
     MODEL_FLAGS | CMD_SAMPLER_FLAGS | F(BENCH_TEMP) | F(BENCH_SEED) | F(BENCH_PROMPT) | F(BENCH_PREDICT) | F(DEPTH) |
         F(REPETITIONS) | F(MEASURE) | F(FILE),
     "MODEL [-p 512] [-n 64] [-r 5] [-f FILE] [--temp X]", "measure prefill and decoding"},
    {"ablate", cmd_ablate,
     (MODEL_FLAGS & ~(F(SKIP) | F(PASSES) | F(WITH) | F(TIME) | F(FORMAT))) | PROMPT_FLAGS | F(ABLATE_PREDICT) |
         F(REPETITIONS) | F(ABLATE_FORMAT) | F(ROWS) | F(BASE) | F(SVG) | F(MEMORY),
     "MODEL [-r 5] [-n 100] [-c 1024] [--rows LIST] [--base ROW] [--svg OUT.svg]",
     "what each pass is worth: program variants side by side"},
    {"profile", cmd_profile, MODEL_FLAGS | PROMPT_FLAGS | F(PROFILE_PREDICT) | F(REPETITIONS) | F(OUTPUT) | F(NO_PROBE),
     "MODEL (-p TEXT | -f FILE | --ids LIST) [-n 64] [-o TRACE.json]",
     "where the time goes: by operation, layer and thread"},
    {"plan", cmd_plan, MODEL_FLAGS | F(NO_WEIGHTS) | F(PLAN_PROMPT) | F(PLAN_PREDICT) | F(NO_PROBE),
     "MODEL [-p 512] [-n 64]", "sizes, costs and memory before running, and this machine's limits"},
    {"perplexity", cmd_perplexity, MODEL_FLAGS | F(FILE) | F(TOKENS) | F(KL_BASE) | F(NO_BOS) | F(SPECIAL),
     "MODEL -f FILE [-c 512] [--kl-base f32]", "how well a text is predicted"},
    {"logits", cmd_logits, MODEL_FLAGS | PROMPT_FLAGS | F(OUTPUT),
     "MODEL (--ids LIST | -p TEXT | -f FILE) -o OUT.safetensors", "logits after every token"},
    {"tokenize", cmd_tokenize, MODEL_FLAGS | F(PROMPT) | F(FILE) | F(NO_BOS) | F(SPECIAL),
     "MODEL [-p TEXT | -f FILE] < TEXT", "text to token ids"},
    {"detokenize", cmd_detokenize, MODEL_FLAGS | F(IDS) | F(SKIP_SPECIAL), "MODEL --ids LIST", "token ids to text"},
    {"render", cmd_render, MODEL_FLAGS | F(MESSAGES) | F(NO_GENERATION_PROMPT), "MODEL --messages FILE.json",
     "the chat template's text and ids for a list of messages"},
    {"inspect", cmd_inspect, MODEL_FLAGS | F(NO_WEIGHTS), "MODEL",
     "architecture, sizes, tensor types and vocabulary of a model"},
    {"opt", cmd_opt, COMMON_FLAGS | F(OPT_PASSES) | F(TIME) | F(CONTEXT) | F(CHUNK) | F(OUTPUT),
     "[-p PASS,PASS] IN.gir [-o OUT.gir]", "run passes on a module in text form"},
    {"run", cmd_run,
     COMMON_FLAGS | F(OPT_PASSES) | F(TIME) | F(CONTEXT) | F(CHUNK) | F(FUNC) | F(DIMS) | F(RUN_SEED) | F(FORMAT) |
         F(INTERP) | F(JIT) | F(CHECK),
     "[-p PASS,PASS] IN.gir [--func NAME] [--interp | --jit | --check]", "run a function on random inputs"},
};

static const command *find_command(const char *name) {
    for (size_t i = 0; i < GM_COUNT(commands); i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

/* ---- help ---- */

static void help_overview(void) {
    puts("gemmac: compiler and runtime for Gemma models\n\nusage: gemmac COMMAND …\n");
    for (size_t i = 0; i < GM_COUNT(commands); i++) printf("  %-12s %s\n", commands[i].name, commands[i].summary);
    puts("\nMODEL is a model.json, a Hugging Face folder or its config.json, a .gguf file or a "
         "compiled .gmx.\n'gemmac help COMMAND' lists its flags; also 'gemmac help ops', "
         "'gemmac help passes', 'gemmac --version'.");
}

static void help_command(const command *c) {
    printf("usage: gemmac %s %s\n\n%s\n\n", c->name, c->synopsis, c->summary);
    cmd_print_flags(c->flags);
}

static void print_count(const char *what, int count) {
    if (count < 0) printf("  %s n", what);
    else printf("  %s %d", what, count);
}

static void help_ops(void) {
    static const char *const classes[] = {"source", "elem",    "reduce", "contract", "move",
                                          "shape",  "control", "effect", "fused"};
    for (int op = 0; op < IR_OP_COUNT; op++) {
        const ir_op_info *info = ir_op_of((ir_op)op);
        printf("%-14s %-8s", info->text, classes[info->class]);
        print_count("operands", info->operands);
        print_count("results", info->results);
        if (info->regions) print_count("regions", info->regions);
        putchar('\n');
    }
}

static void help_passes(void) {
    static const struct {
        const char *name;
        pass_when when;
        const char *summary;
    } rows[] = {
#define PASS(name, when, summary) {#name, PASS_##when, summary},
#define PASS_AGAIN(name)          {#name, PASS_USUAL, "(again)"},
#include "passes/passes.def"
#undef PASS
#undef PASS_AGAIN
    };
    static const char *const notes[] = {[PASS_REQUIRED] = " (required)",
                                        [PASS_USUAL] = "",
                                        [PASS_ROUNDING] = " (f32 plan: --with)",
                                        [PASS_COARSE] = " (f32, int16 plans: --with)",
                                        [PASS_ON_REQUEST] = " (--with)"};
    for (size_t i = 0; i < GM_COUNT(rows); i++)
        printf("%-20s %s%s\n", rows[i].name, rows[i].summary, notes[rows[i].when]);
}

static gm_status help(const char *topic, gm_diag *diag) {
    if (!topic) help_overview();
    else if (strcmp(topic, "ops") == 0) help_ops();
    else if (strcmp(topic, "passes") == 0) help_passes();
    else if (find_command(topic)) help_command(find_command(topic));
    else
        return gm_fail(diag, GM_INVALID, "no help on '%s': expected a command, 'ops' or 'passes' (see 'gemmac help')",
                       topic);
    return GM_OK;
}

/* ---- dispatch ---- */

static gm_status run_command(const command *c, int argc, char **argv, gm_diag *diag) {
    cmd_options options;
    gm_status status = cmd_parse(c->name, c->flags, argc, argv, diag, &options);
    if (options.help) {
        help_command(c);
        *diag = (gm_diag){0};
        status = GM_OK;
    } else if (status == GM_OK) {
        status = c->run(&options, diag);
    }
    cmd_options_free(&options);
    return status;
}

static gm_status dispatch(int argc, char **argv, gm_diag *diag) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) return gm_fail(diag, GM_INVALID, "no command given (see 'gemmac help')");
    if (strcmp(name, "--version") == 0) {
        puts("gemmac " GM_VERSION);
        return GM_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help(argc > 2 ? argv[2] : NULL, diag);
    const command *c = find_command(name);
    if (!c) return gm_fail(diag, GM_INVALID, "unknown command '%s' (see 'gemmac help')", name);
    return run_command(c, argc - 2, argv + 2, diag);
}

/* 0, 2 for arguments out of range, 1 for everything else. */
int main(int argc, char **argv) {
    gm_diag diag = {0};
    gm_status status = dispatch(argc, argv, &diag);
    errno = 0;
    if (status == GM_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status =
            gm_fail(&diag, GM_IO, "standard output: cannot write%s%s", errno ? ": " : "", errno ? strerror(errno) : "");
    if (status == GM_OK) return 0;
    gm_plain(diag.message);
    fprintf(stderr, "gemmac: %s\n", diag.set ? diag.message : "failed without a message");
    return status == GM_INVALID ? 2 : 1;
}
