/* The rotation that spreads outliers before rounding to 8 bits: a fixed orthogonal matrix for each number of columns.
 *
 * For K = m·2^a, m odd: signs, then a Hadamard transform of each of the m runs of 2^a, then I - 2/m·J across the runs
 * (J all ones; nothing for m = 1), all scaled to length 1. Rotating both sides leaves x·w as it is; the idea is that of
 * QuaRot (Ashkboos and others, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024). */
#ifndef GM_RUNTIME_ROTATE_H
#define GM_RUNTIME_ROTATE_H

#include <stdint.h>

/* 2^a for K = m·2^a. */
int64_t rt_rotate_run(int64_t columns);
/* The sign of column i, as the sign bit of a float. */
uint32_t rt_rotate_sign(int64_t column);
/* Rows side by side, float[columns][each], rotated in place: each as it would be alone, to the bit. */
void rt_rotate_rows(float *rows, int64_t columns, int64_t each);
/* row[columns] rotated in place. */
void rt_rotate_row(float *row, int64_t columns);

#endif
