/* What the files of fold share: the form of a rule. Nobody else includes this. */
#ifndef GM_PASSES_FOLD_H
#define GM_PASSES_FOLD_H

#include "ir/build.h"

/* The value that stands for `inst`, made at b from its operands x in the new module; NULL where the rule does not
 * apply. */
typedef ir_value *(*fold_rule)(ir_builder *b, const ir_inst *inst, ir_value *const *x);

typedef struct fold_row {
    ir_op op;
    fold_rule rule;
} fold_row;

/* A constant with one value for all elements: its `value`; NULL for every other value. */
const ir_attr *fold_splat(const ir_value *x);
/* That constant in another type of the same dtype. */
ir_value *fold_make_splat(ir_builder *b, const ir_attr *value, const ir_type *type);

extern const fold_row fold_view_rows[]; /* views and einsum */
extern const int fold_view_count;

#endif
