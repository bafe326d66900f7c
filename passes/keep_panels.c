/* keep_panels: weights of rotated products of 8-bit integers are kept as these products make them.
 *
 *   %w = weight {name = "w"} : q5_0[N,K]                          ->   %w = weight {name = "w:p16"} : i8_p16[N,K]
 *   %y = scaled_matmul %q, %s, %w {bits = 8, rotate = 1}               the same
 *
 * Fires where every use of a weight in the function is such a product, N is a multiple of sixteen and K of 128
 * (runtime/panel.h). Then no chunk of a prompt unpacks, rotates and rounds W again; the numbers are the same, but for
 * codes beside the middle of two, since compiled code turns rows in another order (runtime/rotate.c). It costs a byte
 * for each weight, in the artefact, and in memory only while prompts are read, when pages are given back instead
 * (runtime/residency.c): of the largest weight of the module, the head, of which a screen leaves single rows to be
 * read, and of what tokens are generated from. So none is kept where all panels together would be larger than the head
 * or, in an artefact, for which they are made once, than four thirds of all weights as they are stored: what a prompt
 * reads besides then still fits into half more than those. Needs lower_precision; interleave_rows takes what is left.
 */
#include "passes/derived.h"
#include "ir/rewrite.h"

static int first_weight(const ir_inst *inst) {
    bool takes =
        inst->op == IR_SCALED_MATMUL && ir_attr_int(inst, IR_ATTR_BITS, 0) == 8 && ir_attr_int(inst, IR_ATTR_ROTATE, 0);
    return takes && inst->operands[0]->type.dtype == RT_I8 ? 2 : inst->operand_count;
}

/* As if each product had weights of its own. */
static void measure(const ir_inst *inst, void *user) {
    pass_panel_sizes *all = user;
    for (int i = first_weight(inst); i < inst->operand_count; i++) {
        const ir_value *w = inst->operands[i];
        int64_t count = w->def ? ir_stored_count(w->def) : 0, elems = w->type.dim[0] * w->type.dim[1];
        if (w->type.dim[1] % RT_PANEL_BLOCK == 0)
            all->panels += (size_t)count * rt_dtype_bytes(RT_I8_P16, (size_t)elems);
    }
    if (!ir_stored_count(inst) || inst->results[0]->type.rank != 2) return;
    const ir_type *type = &inst->results[0]->type;
    size_t bytes = rt_dtype_bytes(type->dtype, (size_t)(type->dim[0] * type->dim[1]));
    all->stored += (size_t)ir_stored_count(inst) * bytes;
    if (ir_stored_count(inst) == 1 && bytes > all->largest) all->largest = bytes;
}

bool pass_panels_fit(const pass_panel_sizes *sizes, bool artefact) {
    return sizes->panels <= (artefact ? sizes->stored + sizes->stored / 3 : sizes->largest);
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Of the function that has most of them: others read the same. */
static bool fits(const pass_options *options, const ir_module *module) {
    pass_panel_sizes most = {0};
    for (int i = 0; i < module->func_count; i++) {
        pass_panel_sizes all = {0};
        ir_visit(module->funcs[i]->body, measure, &all);
        most = (pass_panel_sizes){larger(all.panels, most.panels), larger(all.stored, most.stored),
                                  larger(all.largest, most.largest)};
    }
    return pass_panels_fit(&most, options->artefact);
}

gm_status pass_keep_panels(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    static const derived_pass pass = {"keep_panels",
                                      "its products are of 8-bit integers after a rotation: made once, not for each "
                                      "chunk, and all of them fit where other weights are let go of",
                                      RT_DERIVED_PANELS, first_weight};
    *out = fits(options, in) ? derived_take(&pass, options, in) : ir_rewrite_module(in, NULL, NULL);
    return GM_OK;
}
