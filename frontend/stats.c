/* Statistics of measurements: see stats.h. */
#include "frontend/stats.h"

#include <math.h>
#include <stdlib.h>

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void fe_sort(double *x, size_t n) {
    qsort(x, n, sizeof *x, compare);
}

double fe_mean(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

double fe_std(const double *x, int64_t n) {
    double mean = fe_mean(x, n), squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}

/* The continued fraction of the incomplete beta function, by Lentz's method. */
static double beta_fraction(double a, double b, double x) {
    enum { TERMS = 500 };
    double c = 1, d = 1 / (1 - (a + b) * x / (a + 1)), value = d;
    for (int m = 1; m < TERMS; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / (1 + even * d);
        c = 1 + even / c;
        value *= c * d;
        d = 1 / (1 + odd * d);
        c = 1 + odd / c;
        value *= c * d;
        if (fabs(c * d - 1) < 1e-15) break;
    }
    return value;
}

/* The regularised incomplete beta function I_x(a, b), 0 < x < 1. */
static double beta_part(double a, double b, double x) {
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

/* P(|T| > t) = I_{n/(n+t²)}(n/2, 1/2) falls with t: halve the interval that holds 5 %. */
double fe_student_t95(int64_t degrees) {
    if (degrees < 1) return INFINITY;
    double n = (double)degrees, low = 1, high = 16; /* 12.71 for one degree, 1.96 for many */
    for (int i = 0; i < 60; i++) {
        double t = (low + high) / 2, outside = beta_part(n / 2, 0.5, n / (n + t * t));
        if (outside > 0.05) low = t;
        else high = t;
    }
    return (low + high) / 2;
}

fe_effect fe_paired_effect(const double *x, const double *base, int64_t n) {
    double mean = 0, squares = 0, scale = 100 / fe_mean(base, n);
    for (int64_t i = 0; i < n; i++) mean += (x[i] - base[i]) / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - base[i] - mean) * (x[i] - base[i] - mean);
    fe_effect effect = {.percent = mean * scale, .low = -INFINITY, .high = INFINITY};
    if (n > 1) {
        double half = fe_student_t95(n - 1) * sqrt(squares / (double)(n - 1) / (double)n) * scale;
        effect.low = effect.percent - half;
        effect.high = effect.percent + half;
    }
    effect.noise = effect.low <= 0 && effect.high >= 0;
    return effect;
}
