/* Rows of numbers as integers with a scale each, in terms of plain operations. */
#ifndef GM_PASSES_QUANTISE_H
#define GM_PASSES_QUANTISE_H

#include "ir/build.h"

typedef struct quantised {
    ir_value *codes; /* like x, of the wanted dtype */
    ir_value *scale; /* f32[…,1]: x ≈ codes · scale */
} quantised;

/* Each row of f32 x[…,K] as integers in ±largest, at most 2^21, rounded to nearest even: its largest magnitude becomes
 * `largest`, so that an element is off by at most half a scale. A row of zeros stays zeros; one with NaN or infinity
 * gets codes of 0 and an infinite scale, so that its products are NaN. */
quantised quantise_rows(ir_builder *b, ir_value *x, int largest, rt_dtype dtype);

/* The same for each 32 columns of a row, K a multiple of them: scale f32[…,K/32]. */
quantised quantise_runs(ir_builder *b, ir_value *x, int largest, rt_dtype dtype);

#endif
