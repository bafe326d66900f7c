/* Typed builders: the way to create functions and instructions. A broken type rule here is our bug and aborts with the
 * rule's text; text that a user wrote goes through ir_parse, which reports instead. Two calls that emit are never
 * arguments of one call: C does not say which comes first, and the text of a module would depend on the compiler. */
#ifndef GM_IR_BUILD_H
#define GM_IR_BUILD_H

#include "ir/ir.h"

typedef struct ir_builder {
    ir_module *module;
    ir_func *func;
    ir_region *region; /* where the next instruction goes */
} ir_builder;

/* A new function; `b` is set to its body. */
ir_func *ir_func_new(ir_builder *b, ir_module *module, const char *name);
ir_value *ir_param(ir_builder *b, ir_region *region, ir_type type, const char *hint);
void ir_yield(ir_builder *b, ir_value *const *values, int count);
/* Sets the name that dumps give the value (NULL: a number); returns the value. hint is borrowed: a literal, or text in
 * the module's arena. */
ir_value *ir_named(ir_value *value, const char *hint);

/* The general form. type_count: the number of results. types: their types, needed only for ops whose results ir_infer
 * cannot derive; else NULL. Copies operands, attrs and the list of regions. */
ir_inst *ir_emit(ir_builder *b, ir_op op, ir_value *const *operands, int operand_count, const ir_attr *attrs,
                 int attr_count, ir_region *const *regions, int region_count, const ir_type *types, int type_count);
ir_region *ir_region_new(ir_builder *b);
/* As ir_emit without regions, for one result. */
ir_value *ir_emit1(ir_builder *b, ir_op op, ir_value *const *operands, int operand_count, const ir_attr *attrs,
                   int attr_count, const ir_type *type);

ir_value *ir_const_float(ir_builder *b, double value);
ir_value *ir_const_int(ir_builder *b, int64_t value);
ir_value *ir_const_bool(ir_builder *b, bool value);
ir_value *ir_const_floats(ir_builder *b, const double *values, int64_t n); /* f32[n] */
ir_value *ir_iota(ir_builder *b, int rank, const ir_dim *dims, int axis);
ir_value *ir_weight(ir_builder *b, const char *name, ir_type type);
ir_value *ir_unary(ir_builder *b, ir_op op, ir_value *x);
ir_value *ir_binary(ir_builder *b, ir_op op, ir_value *x, ir_value *y);
ir_value *ir_select(ir_builder *b, ir_value *c, ir_value *x, ir_value *y);
ir_value *ir_convert(ir_builder *b, ir_value *x, rt_dtype dtype);
ir_value *ir_reduce(ir_builder *b, ir_op op, ir_value *x, int axis);
ir_value *ir_matmul(ir_builder *b, ir_value *x, ir_value *const *weights, int count);
/* g/2·(1 + tanh(√(2/π)·(g + 0.044715·g³))), as gated_matmul has it: the two numbers, and the whole. */
#define IR_GELU_FACTOR 0.79788456080286536
#define IR_GELU_CUBE   0.044715
ir_value *ir_gelu(ir_builder *b, ir_value *g);
/* cap·tanh(x / cap); cap 0: x. */
ir_value *ir_soft_cap(ir_builder *b, ir_value *x, double cap);
ir_value *ir_einsum(ir_builder *b, const char *spec, ir_value *x, ir_value *y);
ir_value *ir_reshape(ir_builder *b, ir_value *x, int rank, const ir_dim *dims);
ir_value *ir_transpose(ir_builder *b, ir_value *x, const int64_t *perm);
ir_value *ir_slice(ir_builder *b, ir_value *x, int axis, int64_t start, int64_t size);
ir_value *ir_index(ir_builder *b, ir_value *x, ir_value *i, int axis);
ir_value *ir_window(ir_builder *b, ir_value *x, ir_value *start, int axis, ir_dim size);
ir_value *ir_concat(ir_builder *b, ir_value *const *xs, int count, int axis);
ir_value *ir_gather(ir_builder *b, ir_value *table, ir_value *ids);
ir_value *ir_update(ir_builder *b, ir_value *x, ir_value *v, ir_value *const *starts, int count);
/* The result types are those of the callee's yields, with its symbols replaced by the extents of the arguments. */
ir_inst *ir_call(ir_builder *b, const ir_func *callee, ir_value *const *args, int count);

/* attribute makers */
ir_attr ir_attr_make_int(ir_attr_key key, int64_t value);
ir_attr ir_attr_make_float(ir_attr_key key, double value);
ir_attr ir_attr_make_string(ir_attr_key key, const char *value);

#endif
