/* The typed tensor IR: modules of functions of regions of instructions, in SSA form.
 *
 * Values are immutable tensors; memory appears only when passes/plan_memory.c has given every value a place.
 * A module owns all of its parts through one arena. Passes read one module and build another
 * (ir/rewrite.h); nothing is changed in place except by the builder that is making it.
 */
#ifndef GM_IR_IR_H
#define GM_IR_IR_H

#include "runtime/panel.h"

enum {
    IR_MAX_RANK = 6,
    IR_MAX_SYMBOLS = 16 /* of a module */,
    IR_MAX_LAYERS = 4096 /* that a weight of layers stands for */,
    IR_MAX_WEIGHTS = 32 /* of a product */
};

/* An extent: >= 0 is the number itself, < 0 is symbol -(d + 1) of the module. */
typedef int64_t ir_dim;
static inline bool ir_dim_is_symbol(ir_dim d) {
    return d < 0;
}
static inline ir_dim ir_dim_symbol(int symbol) {
    return -(ir_dim)symbol - 1;
}
static inline int ir_dim_symbol_of(ir_dim d) {
    return (int)(-(d + 1));
}
/* The extent as a number; symbols[i]: the value of symbol i. */
static inline ir_dim ir_dim_value(ir_dim d, const ir_dim *symbols) {
    return ir_dim_is_symbol(d) ? symbols[ir_dim_symbol_of(d)] : d;
}

typedef struct ir_type {
    rt_dtype dtype;
    int rank; /* 0: a scalar */
    ir_dim dim[IR_MAX_RANK];
} ir_type;

typedef enum ir_op {
#define OP(name, text, operands, results, regions, class) IR_##name,
#include "ir/ops.def"
#undef OP
    IR_OP_COUNT
} ir_op;

typedef enum ir_class {
    IR_CLASS_SOURCE,
    IR_CLASS_ELEM,
    IR_CLASS_REDUCE,
    IR_CLASS_CONTRACT,
    IR_CLASS_MOVE,
    IR_CLASS_SHAPE,
    IR_CLASS_CONTROL,
    IR_CLASS_EFFECT,
    IR_CLASS_FUSED
} ir_class;

typedef struct ir_op_info {
    const char *text;
    int operands, results, regions;
    ir_class class;
} ir_op_info;
const ir_op_info *ir_op_of(ir_op op);
bool ir_op_parse(const char *text, size_t length, ir_op *out);

typedef enum ir_attr_key {
#define ATTR(name, text, kind) IR_ATTR_##name,
#include "ir/attrs.def"
#undef ATTR
    IR_ATTR_COUNT
} ir_attr_key;

typedef enum ir_attr_kind {
    IR_KIND_INT,
    IR_KIND_FLOAT,
    IR_KIND_STRING,
    IR_KIND_INTS,
    IR_KIND_FLOATS,
    IR_KIND_DIM,
    IR_KIND_NUMBER
} ir_attr_kind;

typedef struct ir_attr_info {
    const char *text;
    ir_attr_kind kind;
} ir_attr_info;
const ir_attr_info *ir_attr_of(ir_attr_key key);

/* FLOAT and FLOATS hold doubles that f32 represents, or integers; NUMBER uses `f` for floating dtypes and `i`
 * otherwise. */
typedef struct ir_attr {
    ir_attr_key key;
    int64_t i; /* INT, DIM, integer NUMBER */
    double f;  /* FLOAT, floating NUMBER */
    const char *s;
    const int64_t *ints;
    const double *floats;
    size_t n;
} ir_attr;

typedef struct ir_inst ir_inst;
typedef struct ir_region ir_region;

typedef struct ir_value {
    ir_type type;
    uint32_t id;      /* dense within its function: 0 … func->value_count-1, in creation order */
    const char *hint; /* base of the printed name; NULL: a number */
    ir_inst *def;     /* NULL: a region or function parameter */
    ir_region *param_of;
    int index; /* result or parameter number */
} ir_value;

struct ir_inst {
    ir_op op;
    int operand_count, result_count, region_count, attr_count;
    ir_value **operands, **results;
    ir_region **regions;
    ir_attr *attrs;
};

struct ir_region {
    ir_value **params;
    int param_count;
    ir_inst **insts; /* in execution order */
    int inst_count, inst_capacity;
    ir_value **yields;
    int yield_count;
};

typedef struct ir_func {
    const char *name; /* without '@' */
    ir_region *body;  /* its params are the function's, its yields the returned values */
    uint32_t value_count;
    int *alias;    /* per result: the parameter whose memory it takes over, -1: none; NULL: all -1 */
    int64_t frame; /* arena bytes this function and its callees need; 0: not planned */
} ir_func;

typedef struct ir_symbol {
    const char *name;
    int64_t max; /* largest value; 0: not known */
} ir_symbol;

typedef struct ir_module {
    gm_arena arena;
    ir_symbol *symbols;
    int symbol_count;
    ir_func **funcs;
    int func_count;
} ir_module;

ir_module *ir_module_new(void);
void ir_module_free(ir_module *module);
ir_func *ir_func_find(const ir_module *module, const char *name);
/* Index of the symbol, added when new. max 0 leaves a known bound. */
int ir_symbol_intern(ir_module *module, const char *name, int64_t max);
int ir_symbol_find(const ir_module *module, const char *name); /* -1: none */

/* ---- types ---- */

ir_type ir_scalar(rt_dtype dtype);
ir_type ir_tensor(rt_dtype dtype, int rank, const ir_dim *dims);
bool ir_type_equal(const ir_type *a, const ir_type *b);
/* Product of the extents with symbols at their bounds. */
int64_t ir_type_max_elems(const ir_module *module, const ir_type *type);
/* Likewise the number of rows: the product of all extents but the last. rank >= 1. */
int64_t ir_type_max_rows(const ir_module *module, const ir_type *type);
int64_t ir_dim_max(const ir_module *module, ir_dim dim);
/* The arena that running any function of a planned module needs: the largest frame. */
int64_t ir_frame_bytes(const ir_module *module);
/* Trailing-aligned broadcast; false when extents differ and neither is 1. dtype is a's. */
bool ir_broadcast(const ir_type *a, const ir_type *b, ir_type *out);

/* ---- attributes ---- */

/* The letters of an einsum's operands and of its result. */
typedef struct ir_einsum_spec {
    char operand[2][IR_MAX_RANK + 1], result[IR_MAX_RANK + 1];
} ir_einsum_spec;
ir_einsum_spec ir_einsum_spec_of(const ir_inst *einsum);

const ir_attr *ir_attr_find(const ir_inst *inst, ir_attr_key key); /* NULL: absent */
int64_t ir_attr_int(const ir_inst *inst, ir_attr_key key, int64_t otherwise);
double ir_attr_float(const ir_inst *inst, ir_attr_key key, double otherwise);
const char *ir_attr_string(const ir_inst *inst, ir_attr_key key);        /* NULL: absent */
bool ir_attr_is(const ir_inst *inst, ir_attr_key key, const char *text); /* false: absent, or another text */
/* Bitwise, so that 0 and -0 stay apart. */
bool ir_attr_equal(const ir_attr *a, const ir_attr *b);

/* The bytes of a buffer for ir_stored_name. */
enum { IR_NAME_BYTES = 256 };

/* Columns that share a scale in scaled_matmul: of W; of W with an x of i8 and rotated rows (more, since the largest
 * magnitude of a rotated row hardly grows with its length); of x beside a W in its stored codes. */
enum { IR_SCALE_GROUP = 256, IR_SCALE_GROUP_ROTATED = RT_PANEL_RUN, IR_SCALE_RUN = 32 };
static inline int64_t ir_scale_group(rt_dtype x, bool rotated) {
    return x == RT_I8 && rotated ? IR_SCALE_GROUP_ROTATED : IR_SCALE_GROUP;
}
/* How many stored tensors a weight (1) or a layer_weight (its extent) stands for; 0: inst is another op. */
int64_t ir_stored_count(const ir_inst *inst);
/* The name of the i-th of them. text: a buffer of IR_NAME_BYTES, in which the name of a layer_weight is written. */
const char *ir_stored_name(const ir_inst *inst, int64_t i, char *text);

/* ---- type rules, text, checks ---- */

/* Result types of an instruction from its operands, attributes and regions. For ops whose results are free
 * (const, weight, convert, reshape, …) out[] must hold the wanted types on entry, which are checked. On failure
 * `why` (>= 256 bytes) says which rule is broken. */
bool ir_infer(const ir_module *module, const ir_inst *inst, ir_type *out, char *why);

/* The .gir text; parse(print(m)) prints the same. */
void ir_print_module(const ir_module *module, gm_string *out);
/* The type as text, in `text` (>= 96 bytes). */
const char *ir_type_text(const ir_module *module, const ir_type *type, char *text);
/* The printed name of each value of func, indexed by id, allocated in `arena`. */
const char **ir_value_names(const ir_func *func, gm_arena *arena);

/* `path` is for messages, which give path:line:column. The caller owns *out. The result is verified. */
gm_status ir_parse(const char *text, size_t bytes, const char *path, gm_diag *diag, ir_module **out);

/* Names the first broken rule and where: "@func: %value = op: rule". `who` says whose work it was. */
gm_status ir_verify(const ir_module *module, const char *who, gm_diag *diag);

/* The graph as Graphviz DOT, a cluster per function and region. */
void ir_print_dot(const ir_module *module, gm_string *out);

#endif
