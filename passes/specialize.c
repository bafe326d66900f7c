/* specialize: bind what is known before code is made.
 *
 *   - symbol S -> the context length; bounds for T and R;
 *   - a call whose arguments have other extents than the callee's symbols calls a copy made for them: @forward at T = 1
 *     becomes @forward.T1 (the decode step), @head at R = 1 becomes @head.R1.
 *
 * The one-token copies are always made: the host may drive them token by token. Changes no value. Refuses a module in
 * which another function has the name that a copy would have: it would be called in the copy's place.
 */
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <stdlib.h>
#include <string.h>

typedef struct specializer {
    const ir_module *in;
    ir_module *out;
    ir_dim identity[IR_MAX_SYMBOLS]; /* what a symbol is where nothing else binds it */
    const ir_dim *current;           /* of the function being copied */
    gm_diag *diag;
    gm_status status;
} specializer;

/* What the call's arguments make of the callee's symbols. */
static void bind_call(const specializer *s, const ir_inst *call, const ir_func *callee, const ir_dim *caller,
                      ir_dim *out) {
    memcpy(out, s->identity, sizeof s->identity);
    for (int i = 0; i < call->operand_count; i++) {
        const ir_type *param = &callee->body->params[i]->type, *arg = &call->operands[i]->type;
        for (int d = 0; d < param->rank; d++)
            if (ir_dim_is_symbol(param->dim[d]))
                out[ir_dim_symbol_of(param->dim[d])] = ir_dim_value(arg->dim[d], caller);
    }
}

/* "forward" with T = 1 is "forward.T1"; symbols that stay what they are add nothing. */
static const char *name_for(const specializer *s, const char *name, const ir_dim *substitute) {
    for (int i = 0; i < s->in->symbol_count; i++) {
        if (substitute[i] == s->identity[i]) continue;
        name =
            ir_dim_is_symbol(substitute[i])
                ? gm_arena_printf(&s->out->arena, "%s.%s%s", name, s->in->symbols[i].name,
                                  s->in->symbols[ir_dim_symbol_of(substitute[i])].name)
                : gm_arena_printf(&s->out->arena, "%s.%s%lld", name, s->in->symbols[i].name, (long long)substitute[i]);
    }
    return name;
}

static bool redirect_call(ir_rewrite *rw, const ir_inst *inst) {
    specializer *s = rw->user;
    if (inst->op != IR_CALL) return false;
    const ir_func *callee = ir_func_find(s->in, ir_attr_string(inst, IR_ATTR_CALLEE));
    ir_dim substitute[IR_MAX_SYMBOLS];
    bind_call(s, inst, callee, s->current, substitute);
    const ir_func *copy = ir_func_find(s->out, name_for(s, callee->name, substitute));
    ir_inst *call = ir_call(&rw->b, copy, ir_rewrite_operands(rw, inst, 0), inst->operand_count);
    for (int i = 0; i < inst->result_count; i++) ir_rewrite_map(rw, inst->results[i], call->results[i]);
    return true;
}

static void copy_for(specializer *s, const ir_func *func, const ir_dim *substitute);

typedef struct callee_visit {
    specializer *s;
    const ir_dim *substitute;
} callee_visit;

static void copy_callee(const ir_inst *inst, void *user) {
    callee_visit *visit = user;
    if (inst->op != IR_CALL) return;
    const ir_func *callee = ir_func_find(visit->s->in, ir_attr_string(inst, IR_ATTR_CALLEE));
    ir_dim substitute[IR_MAX_SYMBOLS];
    bind_call(visit->s, inst, callee, visit->substitute, substitute);
    copy_for(visit->s, callee, substitute);
}

typedef struct rebinding {
    const specializer *s;
    ir_dim *substitute;
} rebinding;

static void keep_symbol(const ir_inst *inst, void *user) {
    rebinding *r = user;
    if (inst->op != IR_DIM) return;
    int symbol = ir_symbol_find(r->s->in, ir_attr_string(inst, IR_ATTR_SYMBOL));
    r->substitute[symbol] = ir_dim_symbol(symbol);
}

static gm_string text_of(specializer *s, const ir_func *func, const char *name, const ir_dim *substitute,
                         ir_rewrite_fn hook) {
    gm_string text = {0};
    ir_module *alone = ir_module_like(s->in);
    s->current = substitute;
    ir_clone_func(s->in, func, alone, name, substitute, hook, s);
    ir_print_module(alone, &text);
    ir_module_free(alone);
    return text;
}

/* A module that has been specialized holds the copy already. */
static void check_name(specializer *s, const ir_func *func, const char *name, const ir_dim *substitute) {
    gm_string have = text_of(s, ir_func_find(s->in, name), name, s->identity, NULL),
              want = text_of(s, func, name, substitute, redirect_call);
    if (strcmp(have.data, want.data) != 0)
        s->status =
            gm_fail(s->diag, GM_INVALID, "@%s: is not @%s for those extents, whose name it has: expected another name",
                    name, func->name);
    gm_string_free(&have);
    gm_string_free(&want);
}

/* Callees first, so that the text form never names a function before its definition. */
static void copy_for(specializer *s, const ir_func *func, const ir_dim *substitute) {
    const char *name = name_for(s, func->name, substitute);
    bool unsure = strcmp(name, func->name) != 0 && ir_func_find(s->in, name); /* whose function of that name there is */
    if (s->status != GM_OK || (ir_func_find(s->out, name) && !unsure)) return;
    /* A symbol that a dim in the body gives other values stays a symbol. */
    ir_dim fixed[IR_MAX_SYMBOLS];
    memcpy(fixed, substitute, sizeof fixed);
    rebinding r = {s, fixed};
    ir_visit(func->body, keep_symbol, &r);
    callee_visit visit = {s, fixed};
    ir_visit(func->body, copy_callee, &visit);
    if (s->status == GM_OK && unsure) check_name(s, func, name, fixed);
    if (s->status != GM_OK || ir_func_find(s->out, name)) return;
    s->current = fixed;
    ir_clone_func(s->in, func, s->out, name, fixed, redirect_call, s);
}

static void copy_single(specializer *s, const char *name, const char *symbol) {
    const ir_func *func = ir_func_find(s->in, name);
    int at = ir_symbol_find(s->in, symbol);
    if (!func || at < 0) return;
    ir_dim substitute[IR_MAX_SYMBOLS];
    memcpy(substitute, s->identity, sizeof substitute);
    substitute[at] = 1;
    copy_for(s, func, substitute);
}

static void bind_symbol(specializer *s, const char *name, int64_t value, bool constant) {
    int at = ir_symbol_find(s->in, name);
    if (at < 0) return;
    if (constant) s->identity[at] = value;
    ir_symbol_intern(s->out, name, value);
}

static gm_status finish(specializer *s, ir_module **out) {
    if (s->status == GM_OK) *out = s->out;
    else ir_module_free(s->out);
    return s->status;
}

gm_status pass_specialize_for(const ir_module *in, const ir_func *func, const int64_t *values, gm_diag *diag,
                              ir_module **out) {
    specializer s = {.in = in, .out = ir_module_like(in), .diag = diag};
    for (int i = 0; i < in->symbol_count; i++) s.identity[i] = values[i] >= 0 ? values[i] : ir_dim_symbol(i);
    copy_for(&s, func, s.identity);
    return finish(&s, out);
}

gm_status pass_specialize(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    specializer s = {.in = in, .out = ir_module_like(in), .diag = diag};
    for (int i = 0; i < in->symbol_count; i++) s.identity[i] = ir_dim_symbol(i);
    bind_symbol(&s, "S", options->context, true);
    bind_symbol(&s, "T", options->chunk, false);
    bind_symbol(&s, "R", options->rows, false);
    copy_single(&s, "forward", "T");
    copy_single(&s, "head", "R");
    for (int i = 0; i < in->func_count; i++) copy_for(&s, in->funcs[i], s.identity);
    return finish(&s, out);
}
