/* Statistics of measurements: means, deviations, and paired differences with Student's t. */
#ifndef GM_FRONTEND_STATS_H
#define GM_FRONTEND_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In place, the smallest first. */
void fe_sort(double *x, size_t n);

double fe_mean(const double *x, int64_t n);
/* Of a sample: divides by n - 1; 0 for n = 1. */
double fe_std(const double *x, int64_t n);
/* The t with 95 % of Student's distribution between -t and t; INFINITY for less than one degree. */
double fe_student_t95(int64_t degrees);

/* x against base in % of base's mean, from paired runs, with a 95 % interval. */
typedef struct fe_effect {
    double percent, low, high; /* the interval is infinite for one run */
    bool noise;                /* the interval spans 0 */
} fe_effect;
fe_effect fe_paired_effect(const double *x, const double *base, int64_t n);

#endif
