/* Weights derived from stored ones: screens (runtime/screen.h), interleaved rows (runtime/interleave.h) and kept panels
 * (runtime/panel.h). Their names are that of the source and a suffix; a program that reads one gets it from an
 * artefact, or it is made when the weights are bound. */
#ifndef GM_RUNTIME_DERIVE_H
#define GM_RUNTIME_DERIVE_H

#include "runtime/team.h"
#include "runtime/weights.h"

typedef enum rt_derived { RT_DERIVED_SCREEN, RT_DERIVED_ROWS, RT_DERIVED_PANELS, RT_DERIVED_COUNT } rt_derived;

/* What is done with what is derived, which says in what memory it is made: it is written somewhere else and read there,
 * kept and read from one token to the next, or read at times and let go of in between. */
typedef enum rt_derived_use { RT_DERIVED_WRITTEN, RT_DERIVED_KEPT, RT_DERIVED_LET_GO } rt_derived_use;

/* The name of what is derived from weight `name`, made in arena. */
const char *rt_derived_name(gm_arena *arena, rt_derived kind, const char *name);
/* Length of the name of the weight that `name` is derived from; 0: it is no such name. */
size_t rt_derived_source(const char *name);
/* The tensor that `name` is derived from; NULL: it is no such name, or there is none. */
const rt_tensor *rt_derived_from(const rt_weights *weights, const char *name);
/* Is that the weight that `name` is derived from? */
bool rt_is_derived_from(const char *name, const char *source);
/* Are both derived from one weight? */
bool rt_derived_alike(const char *a, const char *b);
/* What it is the name of; RT_DERIVED_COUNT: of nothing that is derived. */
rt_derived rt_derived_kind(const char *name);
/* Of a screen: only a choice of tokens reads it. */
bool rt_is_screen(const char *name);
/* Of kept panels: only prompts read them. */
bool rt_is_panels(const char *name);
/* The name, type, shape and bytes of what `name` says, derived from a tensor of source's type and shape; false: nothing
 * can be. */
bool rt_derived_shape(const char *name, const rt_tensor *source, rt_tensor *out);
/* Is a tensor of the type and shape that its name says, derived from one of `weights`? */
bool rt_is_derived(const rt_weights *weights, const rt_tensor *tensor);
/* Make sure that `weights` holds what is called names[count]: what is missing is derived from its source, into memory
 * for that use, which weights owns. It begins on the threads of `team` while the caller goes on, which may not change
 * weights meanwhile nor use the team, or without a team (NULL) when the caller waits for the end; that adds it to
 * weights. Pages of a mapped source, and of what is let go of, are let go of on the way. made: is told of each, in the
 * order of names, by any thread, one at a time; NULL: nobody is. names and what they point to are borrowed until the
 * end. GM_FORMAT when a source is missing or nothing can be derived from it; GM_NOMEM. */
typedef struct rt_deriving rt_deriving;
typedef void (*rt_derived_fn)(void *user, const rt_tensor *made);
gm_status rt_derive_begin(rt_weights *weights, const char *const *names, size_t count, rt_derived_use use,
                          rt_derived_fn made, void *user, rt_team *team, gm_diag *diag, rt_deriving **out);
gm_status rt_derive_end(rt_deriving *deriving, gm_diag *diag);
/* One, at once. */
gm_status rt_derive(rt_weights *weights, const char *name, rt_derived_use use, rt_team *team, gm_diag *diag);

#endif
