/* What the parts of the driver share: driver.c is the whole, engine_compile.c, engine_weights.c, engine_program.c and
 * engine_artefact.c its steps. */
#ifndef GM_FRONTEND_ENGINE_H
#define GM_FRONTEND_ENGINE_H

#include "frontend/driver.h"
#include "frontend/gmx.h"
#include "frontend/measure.h"
#include "runtime/program.h"

/* What fe_engine keeps besides the public fields: tables that the session borrows, and what products were measured to
 * take. */
struct fe_tables {
    fe_measurements measured;
    const char **reads; /* [read_count] names of the weights that the module reads */
    int read_count;
    gm_arena names;
    const void **weights;
    rt_source *sources;
    rt_site *sites;
    rt_program program;
};

/* Only the IR and texts of the code are wanted. */
bool fe_engine_for_dumps(const fe_options *options);
/* From the model's configuration to engine->module. Prints what options->dump asks for. GM_INVALID: the options name
 * passes or weights that there are not; else as the passes. */
gm_status fe_engine_lower(fe_engine *engine, const fe_options *options, const pass_options *settled, gm_diag *diag);
/* From engine->module to engine->program, where code is wanted; prints as well. As the code generator. */
gm_status fe_engine_emit(fe_engine *engine, const fe_options *options, gm_diag *diag);

/* The KV caches in `out`: what @forward takes after ids and position, as large as those parameters. False: it is not
 * such a function. */
bool fe_engine_caches_of(const ir_module *module, rt_program *out);
/* What a session needs to know of the compiled program, but for its weights. */
void fe_engine_describe(fe_engine *engine, const pass_options *pass_opts);

/* Fills the table of what the module reads. */
void fe_engine_list_reads(fe_engine *engine);
/* Does it read kept panels (runtime/panel.h)? */
bool fe_engine_reads_panels(const fe_engine *engine);
/* The tensors of the model for an artefact but for those that are derived. */
gm_status fe_engine_hand_over(const fe_engine *engine, fe_gmx_writer *writer, gm_diag *diag);
/* What the module reads, the model does not have, and can be made from what it has: it is made by threads of its own
 * from begin to end, during which nobody else may change the model's weights. What is derived goes to `writer`, if
 * there is one. What the model has for another module is dropped. `screens` may be left for later. GM_NOMEM, GM_IO;
 * GM_FORMAT: something cannot be made. To end NULL is nothing. */
typedef struct fe_deriving fe_deriving;
gm_status fe_engine_derive_begin(fe_engine *engine, int threads, bool screens, fe_gmx_writer *writer, gm_diag *diag,
                                 fe_deriving **out);
gm_status fe_engine_derive_end(fe_deriving *deriving, gm_diag *diag);
/* Fills the program's tables of weights, and of the pages that rest between prompts and generation, once all is
 * derived. Screens may be missing where they are `lazy`. GM_FORMAT: something is missing. */
gm_status fe_engine_take_weights(fe_engine *engine, bool lazy, gm_diag *diag);

/* An artefact's measurements hold for the target they were made on. */
gm_status fe_engine_adopt_measurements(fe_engine *engine, const fe_options *options, gm_diag *diag);
/* *out is NULL when the artefact's machine code can run, else the reason why not. */
gm_status fe_engine_why_cold(const fe_gmx *gmx, const fe_options *options, const pass_options *pass_opts, gm_diag *diag,
                             const char **out);
/* The module and the program that an artefact holds. GM_FORMAT: they are not those of its model. */
gm_status fe_engine_start_warm(fe_engine *engine, const fe_options *options, const pass_options *pass_opts,
                               gm_diag *diag);
/* Writes all but weights, which the writer has, and frees it. */
gm_status fe_engine_finish_artefact(const fe_engine *engine, const fe_options *options, const pass_options *pass_opts,
                                    fe_gmx_writer *writer, gm_diag *diag);

#endif
