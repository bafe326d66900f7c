/* --dump and --time: what the pipeline shows of itself. */
#ifndef GM_FRONTEND_DUMP_H
#define GM_FRONTEND_DUMP_H

#include "frontend/driver.h"
#include "passes/passes.h"

typedef struct fe_dump_state {
    const fe_options *options;
    gm_status status; /* of the first dump that failed */
    gm_diag diag;
    bool named_seen; /* the pass of after:NAME has been dumped */
} fe_dump_state;

/* Is `kind` ("all", "llvm", "asm", "dot") asked for? `all` covers the IR only. */
bool fe_dump_wants(const fe_options *options, const char *kind);
/* The naive module, before any pass; also checks what --dump names. */
gm_status fe_dump_start(fe_dump_state *state, const ir_module *naive, gm_diag *diag);
/* pass_pipeline_request.after_step with a fe_dump_state as user. */
void fe_dump_step(void *user, const pass_step *step);
/* After the last pass: what went wrong, or the pass of after:NAME did not run. */
gm_status fe_dump_end(const fe_dump_state *state, gm_diag *diag);
/* `text` to FILE in the dump folder, or to standard output. */
gm_status fe_dump_text(const fe_options *options, const char *file, const gm_string *text, gm_diag *diag);

#endif
