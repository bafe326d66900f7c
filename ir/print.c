/* Modules as .gir text. Names are given in order of definition, so printing is deterministic. */
#include "ir/ir.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct printer {
    const ir_module *module;
    const char **names;
    gm_string *out;
} printer;

const char *ir_type_text(const ir_module *module, const ir_type *type, char *text) {
    int used = snprintf(text, 96, "%s", rt_dtype_of(type->dtype)->text);
    for (int i = 0; i < type->rank; i++) {
        const char *mark = i ? "," : "[";
        ir_dim dim = type->dim[i];
        if (ir_dim_is_symbol(dim))
            used +=
                snprintf(text + used, (size_t)(96 - used), "%s%s", mark, module->symbols[ir_dim_symbol_of(dim)].name);
        else used += snprintf(text + used, (size_t)(96 - used), "%s%lld", mark, (long long)dim);
        GM_ASSERT(used < 95);
    }
    if (type->rank) strcat(text, "]");
    return text;
}

/* ---- names ---- */

typedef struct naming {
    gm_arena *arena;
    const char **names;
    const char **hints; /* hints seen, with how often */
    int *seen;
    int hint_count, hint_capacity, next_number;
} naming;

static int hint_occurrence(naming *n, const char *hint) {
    for (int i = 0; i < n->hint_count; i++)
        if (strcmp(n->hints[i], hint) == 0) return n->seen[i]++;
    if (n->hint_count == n->hint_capacity) {
        n->hint_capacity = n->hint_capacity ? n->hint_capacity * 2 : 64;
        n->hints = realloc(n->hints, sizeof *n->hints * (size_t)n->hint_capacity);
        n->seen = realloc(n->seen, sizeof *n->seen * (size_t)n->hint_capacity);
        GM_ASSERT(n->hints && n->seen);
    }
    n->hints[n->hint_count] = hint;
    n->seen[n->hint_count++] = 1;
    return 0;
}

static void name_value(naming *n, const ir_value *value) {
    if (!value->hint) {
        n->names[value->id] = gm_arena_printf(n->arena, "%d", n->next_number++);
        return;
    }
    int occurrence = hint_occurrence(n, value->hint);
    n->names[value->id] = occurrence ? gm_arena_printf(n->arena, "%s.%d", value->hint, occurrence)
                                     : gm_arena_strdup(n->arena, value->hint);
}

static void name_region(naming *n, const ir_region *region) {
    for (int i = 0; i < region->param_count; i++) name_value(n, region->params[i]);
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        for (int j = 0; j < inst->result_count; j++) name_value(n, inst->results[j]);
        for (int j = 0; j < inst->region_count; j++) name_region(n, inst->regions[j]);
    }
}

const char **ir_value_names(const ir_func *func, gm_arena *arena) {
    naming n = {.arena = arena, .names = GM_NEW_ARRAY(arena, const char *, func->value_count + 1)};
    name_region(&n, func->body);
    free(n.hints);
    free(n.seen);
    return n.names;
}

/* ---- text ---- */

static void print_type(printer *p, const ir_type *type) {
    char text[96];
    gm_string_printf(p->out, "%s", ir_type_text(p->module, type, text));
}

static void print_values(printer *p, ir_value *const *values, int count) {
    for (int i = 0; i < count; i++) gm_string_printf(p->out, "%s%%%s", i ? ", " : "", p->names[values[i]->id]);
}

static void print_dim(printer *p, ir_dim dim) {
    if (ir_dim_is_symbol(dim)) gm_string_printf(p->out, "%s", p->module->symbols[ir_dim_symbol_of(dim)].name);
    else gm_string_printf(p->out, "%lld", (long long)dim);
}

static void print_float(printer *p, double value) {
    if (isnan(value)) gm_string_printf(p->out, "nan");
    else if (value == rint(value) && fabs(value) < 9e15) gm_string_printf(p->out, "%.0f", value);
    else gm_string_printf(p->out, "%.9g", value);
}

static void print_string(printer *p, const char *text) {
    gm_string_append(p->out, "\"", 1);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') gm_string_append(p->out, "\\", 1);
        gm_string_append(p->out, text, 1);
    }
    gm_string_append(p->out, "\"", 1);
}

static void print_list(printer *p, const ir_attr *attr) {
    gm_string_printf(p->out, "[");
    for (size_t i = 0; i < attr->n; i++) {
        if (i) gm_string_printf(p->out, ", ");
        if (attr->ints) gm_string_printf(p->out, "%lld", (long long)attr->ints[i]);
        else print_float(p, attr->floats[i]);
    }
    gm_string_printf(p->out, "]");
}

static void print_attr(printer *p, const ir_inst *inst, const ir_attr *attr) {
    gm_string_printf(p->out, "%s = ", ir_attr_of(attr->key)->text);
    switch (ir_attr_of(attr->key)->kind) {
    case IR_KIND_INT: gm_string_printf(p->out, "%lld", (long long)attr->i); return;
    case IR_KIND_FLOAT: print_float(p, attr->f); return;
    case IR_KIND_STRING: print_string(p, attr->s); return;
    case IR_KIND_INTS:
    case IR_KIND_FLOATS: print_list(p, attr); return;
    case IR_KIND_DIM: print_dim(p, attr->i); return;
    case IR_KIND_NUMBER:
        if (inst->result_count && rt_dtype_of(inst->results[0]->type.dtype)->class == RT_CLASS_FLOAT)
            print_float(p, attr->f);
        else gm_string_printf(p->out, "%lld", (long long)attr->i);
        return;
    }
}

static void print_region(printer *p, const ir_region *region, int depth, const char *last);

static void print_params(printer *p, const ir_region *region) {
    gm_string_printf(p->out, "(");
    for (int i = 0; i < region->param_count; i++) {
        gm_string_printf(p->out, "%s%%%s: ", i ? ", " : "", p->names[region->params[i]->id]);
        print_type(p, &region->params[i]->type);
    }
    gm_string_printf(p->out, ")");
}

static void print_inst(printer *p, const ir_inst *inst, int depth) {
    gm_string_printf(p->out, "%*s", depth * 2, "");
    print_values(p, inst->results, inst->result_count);
    gm_string_printf(p->out, "%s%s", inst->result_count ? " = " : "", ir_op_of(inst->op)->text);
    if (inst->operand_count) gm_string_printf(p->out, " ");
    print_values(p, inst->operands, inst->operand_count);
    for (int i = 0; i < inst->attr_count; i++) {
        gm_string_printf(p->out, i ? ", " : " {");
        print_attr(p, inst, &inst->attrs[i]);
    }
    if (inst->attr_count) gm_string_printf(p->out, "}");
    for (int i = 0; i < inst->region_count; i++) {
        gm_string_printf(p->out, " ");
        print_params(p, inst->regions[i]);
        gm_string_printf(p->out, " {\n");
        print_region(p, inst->regions[i], depth + 1, "yield");
        gm_string_printf(p->out, "%*s}", depth * 2, "");
    }
    for (int i = 0; i < inst->result_count; i++) {
        gm_string_printf(p->out, i ? ", " : " : ");
        print_type(p, &inst->results[i]->type);
    }
    gm_string_printf(p->out, "\n");
}

static void print_region(printer *p, const ir_region *region, int depth, const char *last) {
    for (int i = 0; i < region->inst_count; i++) print_inst(p, region->insts[i], depth);
    gm_string_printf(p->out, "%*s%s", depth * 2, "", last);
    if (region->yield_count) gm_string_printf(p->out, " ");
    print_values(p, region->yields, region->yield_count);
    gm_string_printf(p->out, "\n");
}

static void print_func(const ir_module *module, const ir_func *func, gm_string *out) {
    gm_arena arena = {0};
    printer p = {module, ir_value_names(func, &arena), out};
    gm_string_printf(out, "func @%s", func->name);
    print_params(&p, func->body);
    gm_string_printf(out, " -> (");
    for (int i = 0; i < func->body->yield_count; i++) {
        if (i) gm_string_printf(out, ", ");
        print_type(&p, &func->body->yields[i]->type);
    }
    gm_string_printf(out, ")");
    bool aliases = func->alias && func->body->yield_count;
    for (int i = 0; aliases && i < func->body->yield_count; i++)
        gm_string_printf(out, "%s%d", i ? ", " : " alias [", func->alias[i]);
    gm_string_printf(out, "%s", aliases ? "]" : "");
    if (func->frame) gm_string_printf(out, " frame %lld", (long long)func->frame);
    gm_string_printf(out, " {\n");
    print_region(&p, func->body, 1, "return");
    gm_string_printf(out, "}\n");
    gm_arena_free(&arena);
}

void ir_print_module(const ir_module *module, gm_string *out) {
    gm_string_append(out, "", 0);
    for (int i = 0; i < module->symbol_count; i++) {
        gm_string_printf(out, "symbol %s", module->symbols[i].name);
        if (module->symbols[i].max) gm_string_printf(out, " max %lld", (long long)module->symbols[i].max);
        gm_string_printf(out, "\n");
    }
    for (int i = 0; i < module->func_count; i++) {
        if (i || module->symbol_count) gm_string_printf(out, "\n");
        print_func(module, module->funcs[i], out);
    }
}
