/* gemmac ablate: program variants made by leaving passes out, measured side by side. */
#ifndef GM_FRONTEND_ABLATE_H
#define GM_FRONTEND_ABLATE_H

#include "frontend/driver.h"
#include "frontend/stats.h"

/* A variant: a row of ablate_rows.def or the full pipeline without one pass. */
typedef struct fe_ablate_row {
    const char *name, *base, *skip, *with; /* base NULL: none; skip and with are never NULL */
    int slice;                             /* tokens per call of the generate loop; 0: all */
    const char *report, *meaning;          /* report NULL: not in the report */
} fe_ablate_row;

/* Every row in order; the first is the reference for the tokens. They live in `arena`. */
const fe_ablate_row *fe_ablate_rows(gm_arena *arena, int *out_count);

/* ---- measuring ---- */

typedef struct fe_ablate_result {
    const fe_ablate_row *row;
    const char *base; /* what it was compared with; NULL: nothing */
    bool measured;
    bool same_program; /* its final IR and its mode are its base's: the effect can only be noise */
    int64_t group;     /* rows of one group were interleaved; from 1 */
    double prefill_mean, prefill_std, generate_mean, generate_std, total_mean, total_std; /* s */
    fe_effect effect;         /* of the total; without base NAN */
    int64_t tokens_differ_at; /* first generated token unlike the reference's; -1: none */
    double logit_margin;      /* there: how far this row puts its own token above the reference's */
    int64_t memory;           /* bytes that the row's engine took */
} fe_ablate_result;

typedef struct fe_ablate_request {
    const char *path;   /* the model */
    fe_options options; /* skip, with and passes are the rows' */
    const int32_t *ids; /* the prompt */
    int64_t id_count, predict, repetitions;
    int64_t memory; /* bytes that engines held open together may take */
    const fe_ablate_row *reference;
    void (*progress)(void *user, const char *line); /* NULL: none */
    void *user;
} fe_ablate_request;

/* Half of the memory that the machine has available now. */
int64_t fe_ablate_memory(void);

/* Fill results[0..count), whose row and base are set: a base must be the row of another result. A
 * warm-up of every row, then `repetitions` rounds over all rows. When the engines do not fit the
 * memory together, rows are taken in groups, and each group repeats the base rows that it needs. */
gm_status fe_ablate_run(const fe_ablate_request *request, fe_ablate_result *results, int count, gm_diag *diag);

/* A Markdown list: per row that has a lesson (ablate_lessons.def) its effect, the report's, whether the finding carries
 * over, and why. */
void fe_ablate_lessons(const fe_ablate_result *results, int count, gm_string *out);

/* Horizontal bars, prefill and generation stacked, with error bars. */
void fe_ablate_svg(const char *title, const fe_ablate_result *results, int count, gm_string *out);

#endif
