/* Rows of numbers as integers with a scale each: see quantise.h. */
#include "passes/quantise.h"

#include <math.h>
#include <string.h>

static ir_value *number(ir_builder *b, double value) {
    return ir_const_float(b, value);
}

/* Magnitudes; NaN counts as infinity, since a maximum would pass it over. Of NaN and a number the number is the
 * minimum. */
static ir_value *sizes(ir_builder *b, ir_value *x) {
    ir_value *infinity = number(b, INFINITY); /* first: arguments that both emit have no order */
    return ir_binary(b, IR_MIN, ir_binary(b, IR_MAX, x, ir_unary(b, IR_NEG, x)), infinity);
}

quantised quantise_rows(ir_builder *b, ir_value *x, int largest, rt_dtype dtype) {
    ir_value *most = ir_reduce(b, IR_REDUCE_MAX, sizes(b, x), x->type.rank - 1);
    ir_value *divisor = ir_binary(b, IR_MAX, most, number(b, RT_SCALE_LEAST));
    ir_value *scaled = ir_binary(b, IR_MUL, x, ir_binary(b, IR_DIV, number(b, largest), divisor));
    ir_value *rounder = number(b, RT_ROUNDER),
             *rounded = ir_binary(b, IR_SUB, ir_binary(b, IR_ADD, scaled, rounder), rounder);
    ir_value *codes = ir_convert(b, rounded, dtype); /* a statement of its own: an initialiser's parts have no order */
    return (quantised){codes, ir_binary(b, IR_DIV, most, number(b, largest))};
}

quantised quantise_runs(ir_builder *b, ir_value *x, int largest, rt_dtype dtype) {
    ir_dim dims[IR_MAX_RANK + 1];
    int rank = x->type.rank;
    ir_dim columns = x->type.dim[rank - 1];
    memcpy(dims, x->type.dim, sizeof *dims * (size_t)rank);
    dims[rank - 1] = columns / IR_SCALE_RUN;
    dims[rank] = IR_SCALE_RUN;
    quantised runs = quantise_rows(b, ir_reshape(b, x, rank + 1, dims), largest, dtype);
    runs.scale = ir_reshape(b, runs.scale, rank, dims);
    dims[rank - 1] = columns;
    runs.codes = ir_reshape(b, runs.codes, rank, dims);
    return runs;
}
