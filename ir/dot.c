/* The graph as Graphviz DOT: a cluster per function and region, a node per instruction with its op, names and types. */
#include "ir/ir.h"

#include <string.h>

typedef struct dot {
    const ir_module *module;
    gm_string *out;
    int func; /* number of the function: node names start with it */
    int clusters, nodes;
    int *node_of; /* by value id: the node that makes the value */
} dot;

static void print_escaped(dot *d, const char *text) {
    for (; *text; text++) {
        if (strchr("\"\\<>{}|", *text)) gm_string_append(d->out, "\\", 1);
        gm_string_append(d->out, text, 1);
    }
}

static void print_type(dot *d, const char *name, const ir_type *type) {
    char text[96];
    gm_string_printf(d->out, "\\n");
    if (name) print_escaped(d, name), gm_string_printf(d->out, ": ");
    print_escaped(d, ir_type_text(d->module, type, text));
}

static void indent(dot *d, int depth) {
    gm_string_printf(d->out, "%*s", 2 * depth, "");
}

static int new_node(dot *d, int depth, const char *shape) {
    indent(d, depth);
    gm_string_printf(d->out, "n%d_%d [shape=%s, label=\"", d->func, d->nodes, shape);
    return d->nodes++;
}

static void print_edge(dot *d, const ir_value *from, int to, int depth) {
    indent(d, depth);
    gm_string_printf(d->out, "n%d_%d -> n%d_%d;\n", d->func, d->node_of[from->id], d->func, to);
}

static void open_cluster(dot *d, int depth, const char *what, const char *name) {
    indent(d, depth);
    gm_string_printf(d->out, "subgraph cluster_%d_%d {\n", d->func, d->clusters++);
    indent(d, depth + 1);
    gm_string_printf(d->out, "label=\"%s", what);
    print_escaped(d, name);
    gm_string_printf(d->out, "\";\n");
}

static void print_region(dot *d, const ir_region *region, int depth, const char *last);

/* What distinguishes the instruction beside its op: the weight, the callee, the spec. */
static void print_detail(dot *d, const ir_inst *inst) {
    static const ir_attr_key shown[] = {IR_ATTR_NAME, IR_ATTR_CALLEE, IR_ATTR_SPEC, IR_ATTR_SYMBOL, IR_ATTR_IMPL};
    for (size_t i = 0; i < GM_COUNT(shown); i++) {
        const char *text = ir_attr_string(inst, shown[i]);
        if (!text) continue;
        gm_string_printf(d->out, " ");
        print_escaped(d, text);
    }
}

static void print_inst(dot *d, const ir_inst *inst, int depth) {
    const char *op = ir_op_of(inst->op)->text;
    int node = new_node(d, depth, inst->region_count ? "box3d" : "box");
    gm_string_printf(d->out, "%s", op);
    print_detail(d, inst);
    for (int i = 0; i < inst->result_count; i++)
        print_type(d, inst->op == IR_WEIGHT ? NULL : inst->results[i]->hint, &inst->results[i]->type);
    gm_string_printf(d->out, "\"];\n");
    for (int i = 0; i < inst->operand_count; i++) print_edge(d, inst->operands[i], node, depth);
    for (int i = 0; i < inst->result_count; i++) d->node_of[inst->results[i]->id] = node;
    for (int i = 0; i < inst->region_count; i++) {
        open_cluster(d, depth, "", op);
        print_region(d, inst->regions[i], depth + 1, "yield");
        indent(d, depth);
        gm_string_printf(d->out, "}\n");
    }
}

static void print_region(dot *d, const ir_region *region, int depth, const char *last) {
    for (int i = 0; i < region->param_count; i++) {
        const ir_value *param = region->params[i];
        d->node_of[param->id] = new_node(d, depth, "ellipse");
        print_escaped(d, param->hint ? param->hint : "parameter");
        print_type(d, NULL, &param->type);
        gm_string_printf(d->out, "\"];\n");
    }
    for (int i = 0; i < region->inst_count; i++) print_inst(d, region->insts[i], depth);
    if (!region->yield_count) return;
    int node = new_node(d, depth, "ellipse");
    gm_string_printf(d->out, "%s\"];\n", last);
    for (int i = 0; i < region->yield_count; i++) print_edge(d, region->yields[i], node, depth);
}

void ir_print_dot(const ir_module *module, gm_string *out) {
    gm_arena arena = {0};
    gm_string_printf(out, "digraph module {\n  node [fontname=\"monospace\", fontsize=10];\n");
    for (int i = 0; i < module->func_count; i++) {
        const ir_func *func = module->funcs[i];
        dot d = {.module = module, .out = out, .func = i};
        d.node_of = GM_NEW_ARRAY(&arena, int, func->value_count + 1);
        open_cluster(&d, 1, "@", func->name);
        print_region(&d, func->body, 2, "return");
        gm_string_printf(out, "  }\n");
    }
    gm_string_printf(out, "}\n");
    gm_arena_free(&arena);
}
