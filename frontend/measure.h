/* How long ways of computing a product take on this machine: for passes/choose_matmul.c, which chooses among them
 * (--measure). */
#ifndef GM_FRONTEND_MEASURE_H
#define GM_FRONTEND_MEASURE_H

#include "passes/passes.h"
#include "runtime/weights.h"

typedef struct fe_measurement {
    const char *what, *choice; /* as in pass_candidate */
    double seconds;
} fe_measurement;

typedef struct fe_measurements {
    gm_arena arena; /* owns the texts */
    fe_measurement *items;
    size_t count, capacity;
} fe_measurements;

/* Copies the texts. */
void fe_measurements_add(fe_measurements *list, const char *what, const char *choice, double seconds);
/* 0: not there. */
double fe_measurements_find(const fe_measurements *list, const char *what, const char *choice);
void fe_measurements_free(fe_measurements *list);

/* What a measurement needs besides the candidates. */
typedef struct fe_measuring {
    const pass_options *options;
    const rt_weights *weights; /* the products' own: with data */
    const char *target_cpu;    /* NULL: the host */
    int threads;               /* that compile; 0: the default */
} fe_measuring;

/* Fill in the seconds of candidates that have none: a module of all of them, compiled as products of the model are,
 * each run a few times on random x at the most rows it can have, by one thread; the least of its CPU time counts.
 * Products whose weights are not stored stay without. Errors are those of compiling. */
gm_status fe_measure(const fe_measuring *request, const ir_module *module, pass_candidate *candidates, size_t count,
                     gm_diag *diag);

#endif
