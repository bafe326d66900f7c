/* fuse_gate: the gate of an MLP joins the two products that it takes.
 *
 *   %m = matmul %x, %wg, %wu {…}                        %y = gated_matmul %x, %wg, %wu {…}
 *   %g = slice %m, first half ; %u = slice %m, second   ->
 *   %y = mul (gelu %g), %u                              and with `convert %y : bf16` after it, when nothing else
 *                                                       reads %y, straight to bf16
 *   the same with scaled_matmul
 *
 * Recognised is the tanh form of gelu as ir_gelu builds it, the factors of any product and the terms of any sum in
 * either order. Only where compiled code has the product itself: impl = "tiles", or scaled_matmul; both weights stored
 * in one type, and %m used for the two slices alone. Then no thread writes and reads the products in memory: they meet,
 * a panel at a time, in its cache. The same operations on the same numbers. Needs merge_gate_up, lower_precision and
 * interleave_rows. Ends with dce for what is left of the chain.
 */
#include "passes/match.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <math.h>
#include <string.h>

static bool is_number(const ir_value *x, double value) {
    double number;
    return match_number(x, &number) && (float)number == (float)value;
}

/* x = op(number, y), in either order: y, else NULL. */
static const ir_value *beside_number(const ir_value *x, ir_op op, double number) {
    const ir_inst *inst = match_made_by(x, op);
    for (int i = 0; inst && i < 2; i++)
        if (is_number(inst->operands[i], number)) return inst->operands[1 - i];
    return NULL;
}

static bool is_cube(const ir_value *x, const ir_value *g) {
    const ir_value *square = match_beside(x, IR_MUL, g);
    return square && match_beside(square, IR_MUL, g) == g;
}

/* Is x = 1 + tanh(factor·(g + number·g³))? */
static bool is_bend(const ir_value *x, const ir_value *g) {
    const ir_value *bent = beside_number(x, IR_ADD, 1);
    const ir_inst *tanh_of = bent ? match_made_by(bent, IR_TANH) : NULL;
    const ir_value *inner = tanh_of ? beside_number(tanh_of->operands[0], IR_MUL, IR_GELU_FACTOR) : NULL;
    const ir_value *term = inner ? match_beside(inner, IR_ADD, g) : NULL,
                   *cube = term ? beside_number(term, IR_MUL, IR_GELU_CUBE) : NULL;
    return cube && is_cube(cube, g);
}

/* x = gelu(g): g, else NULL. */
static const ir_value *gelu_of(const ir_value *x) {
    const ir_inst *product = match_made_by(x, IR_MUL);
    for (int i = 0; product && i < 2; i++) {
        const ir_value *g = beside_number(product->operands[i], IR_MUL, 0.5);
        if (g && is_bend(product->operands[1 - i], g)) return g;
    }
    return NULL;
}

/* Has compiled code this product with a gate? */
static bool takes_gate(const ir_inst *product) {
    bool tiles = product->op == IR_MATMUL && ir_attr_is(product, IR_ATTR_IMPL, "tiles"),
         scaled = product->op == IR_SCALED_MATMUL;
    int first = scaled ? 2 : 1;
    if ((!tiles && !scaled) || product->operand_count != first + 2) return false;
    const ir_type *gate = &product->operands[first]->type, *up = &product->operands[first + 1]->type;
    return gate->dtype == up->dtype && gate->dim[0] == up->dim[0];
}

/* The product that x = gelu(gate)·up is made of; NULL: it is not. */
static const ir_inst *gated(const ir_rewrite *rw, const ir_value *x) {
    const ir_inst *mul = match_made_by(x, IR_MUL);
    for (int i = 0; mul && i < 2; i++) {
        const ir_value *up = mul->operands[1 - i], *gate = gelu_of(mul->operands[i]);
        const ir_value *both = gate ? match_half(gate, 0) : NULL;
        if (both && match_half(up, 1) == both && both->def && takes_gate(both->def) && rw->uses[both->id] == 2)
            return both->def;
    }
    return NULL;
}

typedef struct state {
    const pass_options *options;
    int found;
} state;

static bool fuse(ir_rewrite *rw, const ir_inst *inst) {
    state *s = rw->user;
    bool converts =
        inst->op == IR_CONVERT && inst->results[0]->type.dtype == RT_BF16 && rw->uses[inst->operands[0]->id] == 1;
    if (inst->op != IR_MUL && !converts) return false;
    const ir_inst *product = gated(rw, converts ? inst->operands[0] : inst->results[0]);
    if (!product) return false;
    ir_value **operands = ir_rewrite_operands(rw, product, 0);
    ir_value *y = ir_emit1(&rw->b, IR_GATED_MATMUL, operands, product->operand_count, product->attrs,
                           product->attr_count, &inst->results[0]->type);
    ir_rewrite_map(rw, inst->results[0], y);
    ir_decide(s->options->decisions, "fuse_gate", rw->in, rw->in_func, product, "gated_matmul",
              "its halves meet in gelu(gate)·up alone, and are stored in one type");
    s->found++;
    return true;
}

gm_status pass_fuse_gate(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    state s = {.options = options};
    ir_module *fused = ir_rewrite_module(in, fuse, &s);
    return pass_sweep(s.found, options, fused, diag, out);
}
