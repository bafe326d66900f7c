/* The skeleton every pass shares: read a module, build another through a hook that may replace instructions. */
#ifndef GM_IR_REWRITE_H
#define GM_IR_REWRITE_H

#include "ir/build.h"

typedef struct ir_rewrite ir_rewrite;
/* Called for each instruction in order. Return true after having mapped (ir_rewrite_map) every result that is still
 * used; false to have it cloned. */
typedef bool (*ir_rewrite_fn)(ir_rewrite *rewrite, const ir_inst *inst);

struct ir_rewrite {
    const ir_module *in;
    const ir_func *in_func;
    ir_module *out;
    ir_builder b;       /* insertion point in out */
    ir_value **map;     /* by old value id */
    ir_rewrite_fn hook; /* NULL: plain copy */
    void *user;
    uint32_t *uses; /* by old value id: operand and yield uses in in_func */
};

/* A copy of `in` with the hook applied everywhere. Symbols keep their numbers. The caller owns the result. */
ir_module *ir_rewrite_module(const ir_module *in, ir_rewrite_fn hook, void *user);
/* An empty module with the symbols of `in`. */
ir_module *ir_module_like(const ir_module *in);
/* Copy one function into `out` under `name`; substitute, when not NULL, replaces symbol extents in every type, by
 * symbol. */
ir_func *ir_clone_func(const ir_module *in, const ir_func *func, ir_module *out, const char *name,
                       const ir_dim *substitute, ir_rewrite_fn hook, void *user);

/* As ir_clone_func without substitutes, but `params` makes the parameters and maps the old ones, and `yields` the
 * returned values. */
typedef void (*ir_rewrite_part)(ir_rewrite *rewrite);
ir_func *ir_retype_func(const ir_module *in, const ir_func *func, ir_module *out, const char *name,
                        ir_rewrite_part params, ir_rewrite_part yields, ir_rewrite_fn hook, void *user);

ir_value *ir_rewrite_get(const ir_rewrite *rewrite, const ir_value *old);
void ir_rewrite_map(ir_rewrite *rewrite, const ir_value *old, ir_value *replacement);
/* A value of the new module, which takes the name of an old one, unless it has one. ir_rewrite_map does that. */
ir_value *ir_rewrite_named(const ir_rewrite *rewrite, ir_value *value, const ir_value *old);
/* The new module's values for the operands of an instruction, with room for `more` behind them; of its arena. */
ir_value **ir_rewrite_operands(const ir_rewrite *rewrite, const ir_inst *inst, int more);
/* The old instruction with an attribute set or left out, to be cloned; of the new module's arena. */
ir_inst *ir_rewrite_with(ir_rewrite *rewrite, const ir_inst *inst, ir_attr attr);
ir_inst *ir_rewrite_without(ir_rewrite *rewrite, const ir_inst *inst, ir_attr_key key);
/* Clone one instruction (regions through the hook) and map its results; returns the new one. */
ir_inst *ir_rewrite_clone(ir_rewrite *rewrite, const ir_inst *inst);
/* Clone all instructions of a region into the current insertion point; its params must be mapped already. */
void ir_rewrite_region_into(ir_rewrite *rewrite, const ir_region *region);

/* Operand and yield uses of every value of func, by id; caller frees. */
uint32_t *ir_count_uses(const ir_func *func);
/* Visit every instruction of a region tree in order. */
typedef void (*ir_visit_fn)(const ir_inst *inst, void *user);
void ir_visit(const ir_region *region, ir_visit_fn visit, void *user);

/* Must be kept though nobody uses its results: an EFFECT or a dim, itself or within its regions. */
bool ir_has_effect(const ir_inst *inst);

#endif
