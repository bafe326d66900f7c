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
/* Copy one function into `out` under `name`, with its alias and frame. substitute: NULL, or for each symbol of `in` the
 * extent that takes its place in all types and attributes. The function belongs to `out`. */
ir_func *ir_clone_func(const ir_module *in, const ir_func *func, ir_module *out, const char *name,
                       const ir_dim *substitute, ir_rewrite_fn hook, void *user);

/* As ir_clone_func without substitutes, but `params` creates the parameters and maps the old ones to values, and
 * `yields` ends the body with ir_yield. The copy has neither alias nor frame. */
typedef void (*ir_rewrite_part)(ir_rewrite *rewrite);
ir_func *ir_retype_func(const ir_module *in, const ir_func *func, ir_module *out, const char *name,
                        ir_rewrite_part params, ir_rewrite_part yields, ir_rewrite_fn hook, void *user);

ir_value *ir_rewrite_get(const ir_rewrite *rewrite, const ir_value *old);
void ir_rewrite_map(ir_rewrite *rewrite, const ir_value *old, ir_value *replacement);
/* Gives `value`, of the new module, the name of `old` unless it has one; returns it. ir_rewrite_map does this too. */
ir_value *ir_rewrite_named(const ir_rewrite *rewrite, ir_value *value, const ir_value *old);
/* The new values of an old instruction's operands, in an array of the new module's arena with room for `more` further
 * values. */
ir_value **ir_rewrite_operands(const ir_rewrite *rewrite, const ir_inst *inst, int more);
/* A copy of an old instruction with one attribute set, or removed; in the new module's arena. Its operands are still
 * old values: it is to be given to ir_rewrite_clone. */
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
