/* What instructions read, write and compute: the one place where bytes and FLOP are counted, for profiles and plans. */
#ifndef GM_IR_COST_H
#define GM_IR_COST_H

#include "ir/ir.h"

/* Bytes as stored and as the operation's meaning needs them once each, whether they come from memory or a cache. FLOP:
 * additions, multiplications, divisions, comparisons that choose, and functions of floating numbers, one each (rsqrt
 * two); a product and its addition are two. Tokens are those that are emitted. */
typedef struct ir_cost {
    double read, written, flop, tokens;
} ir_cost;

/* Where costs depend on the run. */
typedef struct ir_cost_at {
    const int64_t *symbols; /* value of each module symbol; NULL: the bounds */
    int64_t position;       /* tokens before an attention's first query */
} ir_cost_at;

ir_cost ir_cost_add(ir_cost a, ir_cost b, double times);
/* One instruction by itself: regions of map, scan, while, if and what a call runs are not in it, the body of a fuse is.
 * Views cost what they copy in a planned module, else nothing. */
ir_cost ir_cost_of(const ir_module *module, const ir_inst *inst, const ir_cost_at *at);
/* All that a call of func runs: a map's body for every element, a scan's once, a while's as often as its `rounds` say,
 * else once, of an if the arm that moves more. */
ir_cost ir_cost_func(const ir_module *module, const ir_func *func, const ir_cost_at *at);
/* In what the module multiplies matrices at the fastest: RT_I8 where there are integers, else RT_BF16 or RT_F32. */
rt_dtype ir_cost_products(const ir_module *module);
/* The first symbol in the shapes of operands and results; -1: none. */
int ir_cost_symbol(const ir_inst *inst);

/* The decoder layer that each value of func belongs to, by id: the lowest "layers.N." among the weights of its
 * instruction, when there are none the highest layer of its operands; -1: none. The caller frees. */
int *ir_value_layers(const ir_func *func);

#endif
