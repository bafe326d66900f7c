/* How far two computations of the same values may lie apart: what ir/tol.def says of kinds of operations. */
#ifndef GM_IR_AGREE_H
#define GM_IR_AGREE_H

#include "ir/ir.h"

/* From the most exact: the classes of operations, attention in int16 and in bf16. */
typedef enum ir_exactness {
    IR_EXACT_MOVE,
    IR_EXACT_ELEM,
    IR_EXACT_REDUCE,
    IR_EXACT_CONTRACT,
    IR_EXACT_FUSED,
    IR_EXACT_INT16,
    IR_EXACT_HALVES
} ir_exactness;

/* Of an instruction; where it has regions or calls, of the least exact one in there. */
ir_exactness ir_exactness_of(const ir_module *module, const ir_inst *inst);
/* Of the least exact instruction of func and of what it calls. */
ir_exactness ir_exactness_of_func(const ir_module *module, const ir_func *func);
/* largest: the largest finite magnitude in the tensor of the wanted value. NaN agrees with NaN. */
bool ir_agree(ir_exactness exactness, rt_dtype dtype, double want, double got, double largest);

#endif
