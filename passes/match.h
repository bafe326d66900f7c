/* What passes recognise in a function by how its values are made. Internal to passes/. */
#ifndef GM_PASSES_MATCH_H
#define GM_PASSES_MATCH_H

#include "ir/ir.h"

/* The instruction that makes x when it is an `op`, else NULL. */
const ir_inst *match_made_by(const ir_value *x, ir_op op);
/* x = op(y, other), in either order: y, else NULL. */
const ir_value *match_beside(const ir_value *x, ir_op op, const ir_value *other);
/* x is the first half (0) or the second (1) of y's last axis: y, else NULL. */
const ir_value *match_half(const ir_value *x, int which);
/* Is x an f32 constant whose elements are all one number? Then *number is that. */
bool match_number(const ir_value *x, double *number);

/* Is x an i32 constant, a scalar? Then *number is that. */
bool match_index(const ir_value *x, int64_t *number);

#endif
