/* The verifier: names the first broken rule and where. Run on every parsed module and after every pass. */
#include "ir/ir.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct verifier {
    const ir_module *module;
    const ir_func *func;
    const char *who;
    gm_diag *diag;
    bool *visible; /* by value id */
} verifier;

static gm_status broken(verifier *v, const ir_inst *inst, const char *format, ...) {
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    gm_arena arena = {0};
    const char **names = ir_value_names(v->func, &arena);
    const char *op = inst ? ir_op_of(inst->op)->text : "function";
    const char *value = inst && inst->result_count ? names[inst->results[0]->id] : NULL;
    gm_fail(v->diag, GM_FORMAT, "%s: @%s: %s%s%s%s: %s", v->who, v->func->name, value ? "%" : "", value ? value : "",
            value ? " = " : "", op, what);
    gm_arena_free(&arena);
    return GM_FORMAT;
}

static gm_status check_used(verifier *v, const ir_inst *inst, const ir_value *value, const char *what, int i) {
    if (!value || value->id >= v->func->value_count)
        return broken(v, inst, "%s %d is not a value of this function", what, i);
    if (!v->visible[value->id]) return broken(v, inst, "%s %d is used before or outside its definition", what, i);
    return GM_OK;
}

static gm_status check_new(verifier *v, const ir_inst *inst, const ir_value *value) {
    if (value->id >= v->func->value_count) return broken(v, inst, "value id out of range");
    if (v->visible[value->id]) return broken(v, inst, "value is defined twice");
    for (int i = 0; i < value->type.rank; i++) {
        ir_dim dim = value->type.dim[i];
        if (ir_dim_is_symbol(dim) && ir_dim_symbol_of(dim) >= v->module->symbol_count)
            return broken(v, inst, "type names an undeclared symbol");
    }
    v->visible[value->id] = true;
    return GM_OK;
}

static gm_status check_region(verifier *v, const ir_inst *owner, const ir_region *region);

/* Functions call only what stands above them, so nothing recurses. */
static gm_status check_callee(verifier *v, const ir_inst *inst) {
    const char *callee = ir_attr_string(inst, IR_ATTR_CALLEE);
    for (int i = 0; v->module->funcs[i] != v->func; i++)
        if (strcmp(v->module->funcs[i]->name, callee) == 0) return GM_OK;
    return broken(v, inst, "no function @%s before this one", callee);
}

static gm_status check_inst(verifier *v, const ir_inst *inst) {
    for (int i = 0; i < inst->operand_count; i++) GM_TRY(check_used(v, inst, inst->operands[i], "operand", i));
    for (int i = 0; i < inst->region_count; i++) GM_TRY(check_region(v, inst, inst->regions[i]));
    ir_type *types = calloc((size_t)inst->result_count + 1, sizeof *types);
    GM_ASSERT(types);
    for (int i = 0; i < inst->result_count; i++) types[i] = inst->results[i]->type;
    char why[256];
    gm_status status = GM_OK;
    if (!ir_infer(v->module, inst, types, why)) status = broken(v, inst, "%s", why);
    for (int i = 0; status == GM_OK && i < inst->result_count; i++) {
        char text[96];
        if (!ir_type_equal(&types[i], &inst->results[i]->type))
            status = broken(v, inst, "result %d must have type %s", i, ir_type_text(v->module, &types[i], text));
    }
    free(types);
    GM_TRY(status);
    if (inst->op == IR_CALL) GM_TRY(check_callee(v, inst));
    for (int i = 0; i < inst->result_count; i++) {
        if (inst->results[i]->def != inst) return broken(v, inst, "result %d names another definition", i);
        GM_TRY(check_new(v, inst, inst->results[i]));
    }
    return GM_OK;
}

static gm_status check_region(verifier *v, const ir_inst *owner, const ir_region *region) {
    for (int i = 0; i < region->param_count; i++) GM_TRY(check_new(v, owner, region->params[i]));
    for (int i = 0; i < region->inst_count; i++) GM_TRY(check_inst(v, region->insts[i]));
    for (int i = 0; i < region->yield_count; i++) {
        GM_TRY(check_used(v, owner, region->yields[i], "yield", i));
        if (rt_is_storage(region->yields[i]->type.dtype))
            return broken(v, owner, "yield %d is a weight as it is stored, which has no elements to be copied", i);
    }
    /* What a region defines ends with it; a function's own values may stay visible: nothing follows. */
    for (int i = 0; owner && i < region->param_count; i++) v->visible[region->params[i]->id] = false;
    for (int i = 0; owner && i < region->inst_count; i++)
        for (int j = 0; j < region->insts[i]->result_count; j++) v->visible[region->insts[i]->results[j]->id] = false;
    return GM_OK;
}

static gm_status check_alias(verifier *v) {
    const ir_region *body = v->func->body;
    for (int i = 0; v->func->alias && i < body->yield_count; i++) {
        int param = v->func->alias[i];
        if (param < 0) continue;
        if (param >= body->param_count || !ir_type_equal(&body->params[param]->type, &body->yields[i]->type))
            return broken(v, NULL, "result %d aliases a parameter of another type", i);
    }
    return GM_OK;
}

gm_status ir_verify(const ir_module *module, const char *who, gm_diag *diag) {
    for (int i = 0; i < module->func_count; i++) {
        verifier v = {.module = module, .func = module->funcs[i], .who = who, .diag = diag};
        v.visible = calloc(v.func->value_count + 1, sizeof *v.visible);
        GM_ASSERT(v.visible);
        gm_status status = check_region(&v, NULL, v.func->body);
        if (status == GM_OK) status = check_alias(&v);
        free(v.visible);
        GM_TRY(status);
    }
    return GM_OK;
}
