/* Where the elements of a tensor lie: strides, and which views need no copy. Shared by the memory planner and codegen,
 * which must agree. */
#ifndef GM_IR_LAYOUT_H
#define GM_IR_LAYOUT_H

#include "ir/ir.h"

typedef struct ir_layout {
    int64_t stride[IR_MAX_RANK]; /* in elements */
} ir_layout;

/* Row-major with symbols at their bounds. */
ir_layout ir_layout_dense(const ir_module *module, const ir_type *type);
/* True when the SHAPE instruction's result is the operand's memory seen through other strides (the caller adds the
 * start offset of slice, index and window); false when it needs a copy. */
bool ir_layout_view(const ir_module *module, const ir_inst *inst, const ir_layout *operand, ir_layout *out);
bool ir_layout_is_dense(const ir_module *module, const ir_type *type, const ir_layout *layout);
/* Can the tensor be read as rows of its last axis at one constant distance, *out_stride elements apart? At most the
 * leading extent may be a symbol; the last axis is dense. */
bool ir_layout_matrix(const ir_type *type, const ir_layout *layout, int64_t *out_stride);

#endif
