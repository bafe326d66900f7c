/* Sixteen rows of a stored matrix side by side, so that the lanes of a vector are rows: what is derived from weights is
 * made in this form, without sums or shuffles across lanes. */
#ifndef GM_RUNTIME_LANES_H
#define GM_RUNTIME_LANES_H

#include "runtime/dtype.h"

enum { RT_LANES = 16 };

/* Eight lanes, and those at any address: as a memcpy they would go in halves, by way of the stack. */
typedef float rt_floats8 __attribute__((vector_size(32)));
typedef float rt_floats8_at __attribute__((vector_size(32), aligned(4), may_alias));
static inline rt_floats8 rt_load_floats8(const float *from) {
    return *(const rt_floats8_at *)from;
}

/* x[columns][RT_LANES] = the RT_LANES rows of `columns` elements, a multiple of 8 and of the block, that lie one after
 * the other at src in a FLOAT or QUANT type: values as of rt_dequantize_row. */
void rt_dequantize_lanes(rt_dtype stored, const void *src, int64_t columns, float *x);

#endif
