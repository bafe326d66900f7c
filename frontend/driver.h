/* The whole pipeline behind one call: MODEL -> IR -> passes -> machine code -> session. */
#ifndef GM_FRONTEND_DRIVER_H
#define GM_FRONTEND_DRIVER_H

#include "frontend/model.h"
#include "ir/ir.h"
#include "passes/passes.h"
#include "runtime/session.h"

/* An artefact of another version is compiled again. */
#define GM_VERSION "0.1.0"

/* The words of --precision in their order. */
typedef enum fe_precision {
    FE_PRECISION_AUTO,
    FE_PRECISION_F32,
    FE_PRECISION_BF16,
    FE_PRECISION_INT16,
    FE_PRECISION_INT8,
    FE_PRECISION_BLOCK8,
    FE_PRECISION_COUNT
} fe_precision;

const char *fe_precision_text(fe_precision precision);

/* Where a dump goes and what is dumped: `--dump=after:merge_qkv | all | llvm | asm | dot`, `--dump-dir D`. */
typedef struct fe_dump {
    const char *what; /* NULL: nothing */
    const char *dir;  /* NULL: standard output */
} fe_dump;

typedef struct fe_options {
    int threads; /* 0: what affinity and cgroup quota allow */
    fe_precision precision;
    int64_t context; /* 0: an artefact's, else min(4096, the model's), but least_context at least */
    int64_t least_context;
    int64_t chunk; /* 0: PASS_DEFAULT_CHUNK */
    /* comma-separated: of the passes that can be left out, these alone; NULL: the usual ones */
    const char *passes;
    const char *skip; /* comma-separated passes to leave out; NULL: none */
    const char *with; /* comma-separated passes on request to run too; NULL: none */
    /* int8, block8: words that name weights which keep 16 bits, as in pass_options; NULL: the usual */
    const char *wide;
    const char *target_cpu; /* LLVM CPU name; NULL: the host with its features */
    bool no_weights;        /* read and compile only; no session */
    bool artefact;          /* compile as for an artefact, also where MODEL is none (fe_compile does) */
    bool time_passes;       /* one line per pass on stderr */
    bool no_session;        /* compile, with weights or without, but open no session (fe_engine_program) */
    bool no_text;           /* ids come in and go out: no tokenizer */
    bool only_run;          /* nobody looks at the IR once the session is open: it is let go of */
    /* the session will not generate with settings that read screens, unless fe_engine_screens comes first */
    bool no_screens;
    ir_decisions *decisions; /* NULL, or where the compiler notes what it chose and why */
    bool measure;            /* choose among ways to compute a product by measuring them here, once for each shape */
    bool profile;            /* code that reports to a profile (rt_session_profile) */
    fe_dump dump;
} fe_options;

/* An opened model with its compiled program. */
typedef struct fe_engine {
    fe_model model;
    rt_tokenizer *tokenizer; /* NULL: no_text, or the model came without one */
    ir_module *module;       /* the final IR; NULL: only_run */
    struct cg_program *program;
    rt_session *session;      /* NULL with no_weights or no_session */
    struct fe_tables *tables; /* what the session borrows */
    /* seconds: to read MODEL; to compile it or load an artefact's code, and to open the session */
    double load_s, compile_s;
    bool warm; /* an artefact's own machine code runs */
} fe_engine;

/* The precision plan that a --precision stands for (precision.c). auto is bf16 where the target has tile registers
 * (AMX). Where it has VNNI (vpdpbusd), auto is what an artefact was compiled for; else int8 if panels of the model's
 * weights would be kept (passes/keep_panels.c) or at most half of the layers' elements are in small codes
 * (rt_codes_of), else block8. On other targets auto is block8. model: NULL, or one without weights, counts as one whose
 * panels are kept. artefact: as in pass_options. */
pass_precision fe_pass_precision(fe_precision precision, const char *target_cpu, const fe_model *model, bool artefact);
/* Open MODEL (model.json, HF folder, config.json, .gguf or .gmx), compile it, make a session. *options is copied; its
 * strings and decisions are borrowed. On failure *out is closed. Errors: those of fe_model_open, of the passes, the
 * code generator and rt_session_open; GM_INVALID also for a context that the model does not have. */
gm_status fe_engine_open(const char *path, const fe_options *options, gm_diag *diag, fe_engine *out);
/* Makes the screens that the program reads (rt_sampling_screens), for an engine opened with no_screens. Nothing is done
 * when they are there. GM_NOMEM. */
gm_status fe_engine_screens(fe_engine *engine, int threads, gm_diag *diag);
void fe_engine_close(fe_engine *engine);

/* The tokenizer of an opened model, with the index that an artefact keeps; NULL: the model has no vocabulary. The
 * caller owns it, and keeps the model open. GM_FORMAT: the index is of another vocabulary. */
gm_status fe_tokenizer_open(const fe_model *model, gm_diag *diag, rt_tokenizer **out);
/* What rt_session_open would be given (entries, sizes, tables), but without weights: for an engine opened with
 * no_session, to tell memory and cost in advance. Borrowed from the engine. */
struct rt_program;
const struct rt_program *fe_engine_program(const fe_engine *engine);
/* Compile MODEL and write the artefact OUT.gmx (through a temporary file: nothing half-written stays). */
gm_status fe_compile(const char *path, const fe_options *options, const char *out_path, gm_diag *diag);

#endif
