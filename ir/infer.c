/* Type rules: the result types of every op from its operands, attributes and regions. One row per op in `rules`. */
#include "ir/ir.h"
#include "runtime/interleave.h"
#include "runtime/likely.h"
#include "runtime/screen.h"
#include "runtime/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WHY_BYTES = 256 };

typedef struct rule_context {
    const ir_module *module;
    const ir_inst *inst;
    ir_type *out;
    char *why;
} rule_context;

typedef bool (*rule_fn)(const rule_context *c);

#define FAIL(...) return snprintf(c->why, WHY_BYTES, __VA_ARGS__), false
#define REQUIRE(cond, ...)                                                                                             \
    do {                                                                                                               \
        if (!(cond)) FAIL(__VA_ARGS__);                                                                                \
    } while (0)

static const ir_type *operand(const rule_context *c, int i) {
    return &c->inst->operands[i]->type;
}

static bool is_float(rt_dtype dtype) {
    return rt_dtype_of(dtype)->class == RT_CLASS_FLOAT;
}

static bool is_index(const ir_type *type) {
    return type->rank == 0 && type->dtype == RT_I32;
}

/* The axis attribute, checked against the operand's rank. */
static bool axis_of(const rule_context *c, const ir_type *x, int *axis) {
    const ir_attr *attr = ir_attr_find(c->inst, IR_ATTR_AXIS);
    REQUIRE(attr && attr->i >= 0 && attr->i < x->rank, "axis must lie in 0..%d", x->rank - 1);
    *axis = (int)attr->i;
    return true;
}

/* ---- sources ---- */

static bool rule_const(const rule_context *c) {
    const ir_attr *list = ir_attr_find(c->inst, IR_ATTR_VALUES);
    const ir_attr *value = ir_attr_find(c->inst, IR_ATTR_VALUE);
    REQUIRE(!list != !value, "needs value or values");
    REQUIRE(!value || c->out->dtype != RT_BOOL || value->i == 0 || value->i == 1, "a bool is 0 or 1");
    for (size_t i = 0; list && c->out->dtype == RT_BOOL && i < list->n; i++)
        REQUIRE(list->floats[i] == 0 || list->floats[i] == 1, "a bool is 0 or 1");
    REQUIRE(!rt_is_storage(c->out->dtype), "dtype cannot be a storage type");
    int64_t elems = 1;
    for (int i = 0; i < c->out->rank; i++) {
        REQUIRE(!list || !ir_dim_is_symbol(c->out->dim[i]), "values need static extents");
        if (list) elems *= c->out->dim[i];
    }
    REQUIRE(!list || (size_t)elems == list->n, "values must hold %lld numbers", (long long)elems);
    bool fractions = rt_dtype_of(c->out->dtype)->class == RT_CLASS_FLOAT;
    for (size_t i = 0; list && !fractions && i < list->n; i++)
        REQUIRE(fabs(list->floats[i]) < 9e15 && list->floats[i] == rint(list->floats[i]), "value %zu is not an integer",
                i);
    return true;
}

static bool rule_iota(const rule_context *c) {
    int axis;
    REQUIRE(c->out->dtype == RT_I32, "result must be i32");
    return axis_of(c, c->out, &axis);
}

static bool rule_weight(const rule_context *c) {
    REQUIRE(ir_attr_string(c->inst, IR_ATTR_NAME), "needs name");
    REQUIRE(c->out->rank <= RT_MAX_TENSOR_RANK, "weights have at most %d dimensions", RT_MAX_TENSOR_RANK);
    for (int i = 0; i < c->out->rank; i++) REQUIRE(!ir_dim_is_symbol(c->out->dim[i]), "weights have static extents");
    return true;
}

static bool rule_layer_weight(const rule_context *c) {
    const char *name = ir_attr_string(c->inst, IR_ATTR_NAME), *star = name ? strchr(name, '*') : NULL;
    const ir_attr *extent = ir_attr_find(c->inst, IR_ATTR_EXTENT);
    REQUIRE(is_index(operand(c, 0)), "operand must be an i32 scalar");
    REQUIRE(star && !strchr(star + 1, '*') && strlen(name) < IR_NAME_BYTES - 24, "needs a name with one '*'");
    const ir_attr *start = ir_attr_find(c->inst, IR_ATTR_START), *step = ir_attr_find(c->inst, IR_ATTR_STEP);
    REQUIRE(start && step, "needs start and step");
    REQUIRE(start->i >= 0 && start->i <= INT32_MAX && step->i >= 0 && step->i <= INT32_MAX,
            "start and step must be numbers of layers");
    REQUIRE(extent && !ir_dim_is_symbol(extent->i) && extent->i > 0 && extent->i <= IR_MAX_LAYERS,
            "needs extent, a number up to %d", IR_MAX_LAYERS);
    REQUIRE(c->out->rank <= RT_MAX_TENSOR_RANK, "weights have at most %d dimensions", RT_MAX_TENSOR_RANK);
    for (int i = 0; i < c->out->rank; i++) REQUIRE(!ir_dim_is_symbol(c->out->dim[i]), "weights have static extents");
    return true;
}

/* ---- element-wise ---- */

static bool rule_unary_float(const rule_context *c) {
    REQUIRE(operand(c, 0)->dtype == RT_F32, "operand must be f32");
    *c->out = *operand(c, 0);
    return true;
}

static bool rule_neg(const rule_context *c) {
    rt_dtype dtype = operand(c, 0)->dtype;
    REQUIRE(dtype == RT_F32 || dtype == RT_I32 || dtype == RT_I64, "operand must be f32, i32 or i64");
    *c->out = *operand(c, 0);
    return true;
}

static bool rule_not(const rule_context *c) {
    REQUIRE(operand(c, 0)->dtype == RT_BOOL, "operand must be bool");
    *c->out = *operand(c, 0);
    return true;
}

static bool rule_convert(const rule_context *c) {
    rt_dtype to = c->out->dtype;
    REQUIRE(!rt_is_storage(to), "cannot convert to a storage type");
    REQUIRE(!rt_is_storage(operand(c, 0)->dtype), "cannot convert a storage type");
    *c->out = *operand(c, 0);
    c->out->dtype = to;
    return true;
}

static bool binary_types(const rule_context *c, int a, int b) {
    const ir_type *x = operand(c, a), *y = operand(c, b);
    REQUIRE(x->dtype == y->dtype, "operand dtypes differ: %s and %s", rt_dtype_of(x->dtype)->text,
            rt_dtype_of(y->dtype)->text);
    REQUIRE(ir_broadcast(x, y, c->out), "operand shapes do not broadcast");
    return true;
}

static bool rule_arith(const rule_context *c) {
    rt_dtype dtype = operand(c, 0)->dtype;
    REQUIRE(dtype == RT_F32 || dtype == RT_I32 || dtype == RT_I64, "operands must be f32, i32 or i64");
    return binary_types(c, 0, 1);
}

static bool rule_logic(const rule_context *c) {
    REQUIRE(operand(c, 0)->dtype == RT_BOOL, "operands must be bool");
    return binary_types(c, 0, 1);
}

static bool rule_compare(const rule_context *c) {
    if (!rule_arith(c)) return false;
    c->out->dtype = RT_BOOL;
    return true;
}

static bool rule_select(const rule_context *c) {
    REQUIRE(operand(c, 0)->dtype == RT_BOOL, "condition must be bool");
    if (!binary_types(c, 1, 2)) return false;
    ir_type both = *c->out;
    REQUIRE(ir_broadcast(&both, operand(c, 0), c->out), "condition shape does not broadcast");
    return true;
}

/* ---- reductions ---- */

static bool rule_reduce(const rule_context *c) {
    int axis;
    const ir_type *x = operand(c, 0);
    if (!axis_of(c, x, &axis)) return false;
    bool max = c->inst->op == IR_REDUCE_MAX;
    REQUIRE(x->dtype == RT_F32 || x->dtype == RT_I32 || (max && x->dtype == RT_BOOL), "operand must be f32 or i32%s",
            max ? " or bool" : "");
    *c->out = *x;
    c->out->dim[axis] = 1;
    return true;
}

static bool rule_argmax(const rule_context *c) {
    const ir_type *x = operand(c, 0);
    REQUIRE(x->rank >= 1 && x->dtype == RT_F32, "operand must be f32 of rank >= 1");
    *c->out = *x;
    c->out->dtype = RT_I32;
    c->out->dim[x->rank - 1] = 1;
    return true;
}

/* Operands `first` and the next: tokens and position. */
static bool is_sequence(const rule_context *c, int first) {
    const ir_type *tokens = operand(c, first);
    REQUIRE(tokens->dtype == RT_I32 && tokens->rank == 1, "tokens must be i32[S]");
    REQUIRE(is_index(operand(c, first + 1)), "position must be i32");
    return true;
}

/* What `usual` says, where it is there, and of which rows. */
static bool is_usual(const rule_context *c) {
    int64_t usual = ir_attr_int(c->inst, IR_ATTR_USUAL, 0);
    REQUIRE(usual >= 0 && usual % RT_LIKELY_BLOCK == 0, "usual must be a multiple of %d", RT_LIKELY_BLOCK);
    REQUIRE(!ir_attr_find(c->inst, IR_ATTR_USUAL) || operand(c, 0)->dim[0] == 1, "likely ids are those of one row");
    return true;
}

/* Operands from `first` on: tokens, position, options, seed. */
static bool infer_drawn(const rule_context *c, int first) {
    const ir_type *options = operand(c, first + 2), *seed = operand(c, first + 3);
    if (!is_usual(c) || !is_sequence(c, first)) return false;
    REQUIRE(options->dtype == RT_F32 && options->rank == 1 && options->dim[0] == 8, "options must be f32[8]");
    REQUIRE(seed->dtype == RT_I64 && seed->rank == 0, "seed must be i64");
    *c->out = ir_tensor(RT_I32, 2, (ir_dim[]){operand(c, 0)->dim[0], 1});
    return true;
}

static bool rule_sample(const rule_context *c) {
    const ir_type *logits = operand(c, 0);
    REQUIRE(logits->dtype == RT_F32 && logits->rank == 2, "logits must be f32[M,V]");
    return infer_drawn(c, 1);
}

/* Operands `first` and the next as above. */
static bool infer_guessed(const rule_context *c, int first) {
    *c->out = ir_tensor(RT_I32, 2, (ir_dim[]){1, 1});
    return is_usual(c) && is_sequence(c, first);
}

static bool rule_guess(const rule_context *c) {
    const ir_type *logits = operand(c, 0);
    REQUIRE(logits->dtype == RT_F32 && logits->rank == 2 && logits->dim[0] == 1, "logits must be f32[1,V]");
    return infer_guessed(c, 1);
}

/* ---- contractions ---- */

/* A stored or computed [N,columns] of floats, N a number? */
static bool is_matrix_of(const ir_type *w, ir_dim columns) {
    rt_dtype_class class = rt_dtype_of(w->dtype)->class;
    bool floats =
        class == RT_CLASS_FLOAT || class == RT_CLASS_QUANT || class == RT_CLASS_INTERLEAVED || class == RT_CLASS_PANELS;
    return floats && w->rank == 2 && !ir_dim_is_symbol(w->dim[0]) && w->dim[1] == columns;
}

/* Rows of x times the rows of the weights from operand `first` on. */
static bool infer_products(const rule_context *c, int first) {
    const ir_type *x = operand(c, 0);
    int64_t rows = 0;
    REQUIRE(c->inst->operand_count - first <= IR_MAX_WEIGHTS, "multiplies at most %d weights", IR_MAX_WEIGHTS);
    for (int i = first; i < c->inst->operand_count; i++) {
        const ir_type *w = operand(c, i);
        REQUIRE(is_matrix_of(w, x->dim[x->rank - 1]), "weight must be a float matrix [N,K] with x's last extent as K");
        REQUIRE(!rt_interleaved_of(w->dtype) || w->dim[0] % RT_INTERLEAVED_ROWS == 0,
                "interleaved rows come in groups of %d", RT_INTERLEAVED_ROWS);
        rows += w->dim[0];
    }
    *c->out = *x;
    c->out->dtype = RT_F32;
    c->out->dim[x->rank - 1] = rows;
    return true;
}

static bool rule_matmul(const rule_context *c) {
    REQUIRE(c->inst->operand_count >= 2, "needs x and at least one weight");
    const ir_type *x = operand(c, 0);
    REQUIRE(x->rank >= 1 && (x->dtype == RT_F32 || x->dtype == RT_BF16), "x must be f32 or bf16 of rank >= 1");
    bool int16 = ir_attr_is(c->inst, IR_ATTR_IMPL, "gemv_int16"), tiles = ir_attr_is(c->inst, IR_ATTR_IMPL, "tiles");
    for (int i = 1; i < c->inst->operand_count; i++) {
        REQUIRE(operand(c, i)->dtype != RT_I8_P16, "panels are multiplied by scaled_matmul");
        REQUIRE(!rt_interleaved_of(operand(c, i)->dtype) || int16 || tiles,
                "interleaved rows are multiplied with x in int16 or in tiles");
    }
    return infer_products(c, 1);
}

static bool rule_scaled_matmul(const rule_context *c) {
    REQUIRE(c->inst->operand_count >= 3, "needs x, its scales and at least one weight");
    const ir_type *x = operand(c, 0), *s = operand(c, 1);
    int64_t bits = ir_attr_int(c->inst, IR_ATTR_BITS, 0), tile = ir_attr_int(c->inst, IR_ATTR_TILE, 1);
    REQUIRE(tile >= 1 && tile <= 12, "tile must be 1 to 12");
    REQUIRE(x->rank >= 1 && (x->dtype == RT_I8 || x->dtype == RT_I16), "x must be i8 or i16 of rank >= 1");
    bool stored = !ir_attr_find(c->inst, IR_ATTR_BITS);
    int64_t columns = x->dim[x->rank - 1], scales = stored ? columns / IR_SCALE_RUN : 1;
    REQUIRE(columns > 0, "x must have columns");
    const char *each = stored ? "each 32 columns of x" : "each row of x";
    REQUIRE(s->dtype == RT_F32 && s->rank == x->rank && s->dim[s->rank - 1] == scales,
            "the scales must be f32, one for %s", each);
    for (int i = 0; i + 1 < x->rank; i++) REQUIRE(s->dim[i] == x->dim[i], "the scales must be f32, one for %s", each);
    if (stored) {
        REQUIRE(x->dtype == RT_I8 && columns % IR_SCALE_RUN == 0,
                "without bits x must be i8, with a multiple of 32 columns");
        REQUIRE(!ir_attr_int(c->inst, IR_ATTR_ROTATE, 0), "weights in their own codes cannot be rotated");
        for (int i = 2; i < c->inst->operand_count; i++)
            REQUIRE(rt_codes_of(operand(c, i)->dtype),
                    "without bits weights must be stored in codes of at most six bits");
        return infer_products(c, 2);
    }
    /* W's integers are stored as x's; 256 products of 12 bits with 13 of x stay below 2^31 */
    int64_t most = x->dtype == RT_I8 ? 8 : 12;
    REQUIRE(bits >= 2 && bits <= most, "bits must be 2..%lld", (long long)most);
    bool rotated = x->dtype == RT_I8 && bits == 8 && ir_attr_int(c->inst, IR_ATTR_ROTATE, 0);
    for (int i = 2; i < c->inst->operand_count; i++)
        REQUIRE(operand(c, i)->dtype != RT_I8_P16 || (rotated && operand(c, i)->dim[0] % RT_PANEL_ROWS == 0),
                "panels are rotated rows of 8 bits, in groups of %d, for x of i8", RT_PANEL_ROWS);
    return infer_products(c, 2);
}

/* The result's dtype on entry is what is wanted: f32 unless bf16. */
static bool rule_gated_matmul(const rule_context *c) {
    int count = c->inst->operand_count;
    rt_dtype wanted = c->out->dtype == RT_BF16 ? RT_BF16 : RT_F32;
    REQUIRE(count == 3 || count == 4, "takes x, with scales or without, and two weights");
    if (!(count == 4 ? rule_scaled_matmul(c) : rule_matmul(c))) return false;
    REQUIRE(operand(c, count - 1)->dim[0] == operand(c, count - 2)->dim[0], "both weights must have as many rows");
    c->out->dim[c->out->rank - 1] /= 2;
    c->out->dtype = wanted;
    return true;
}

static bool rule_rotate(const rule_context *c) {
    const ir_type *x = operand(c, 0);
    REQUIRE(x->dtype == RT_F32 && x->rank >= 1 && !ir_dim_is_symbol(x->dim[x->rank - 1]),
            "x must be f32 with a number of columns");
    *c->out = *x;
    return true;
}

/* Bind each letter of one einsum operand to its extent. */
static bool bind_letters(const rule_context *c, const char *letters, size_t n, const ir_type *type, ir_dim extent[26],
                         bool bound[26]) {
    REQUIRE((int)n == type->rank, "spec has %zu letters for an operand of rank %d", n, type->rank);
    for (size_t i = 0; i < n; i++) {
        REQUIRE(letters[i] >= 'a' && letters[i] <= 'z', "spec letters must be a-z");
        int at = letters[i] - 'a';
        REQUIRE(!bound[at] || extent[at] == type->dim[i], "extents of '%c' differ", letters[i]);
        for (size_t j = 0; j < i; j++) REQUIRE(letters[j] != letters[i], "'%c' is repeated", letters[i]);
        bound[at] = true;
        extent[at] = type->dim[i];
    }
    return true;
}

static bool rule_einsum(const rule_context *c) {
    const char *spec = ir_attr_string(c->inst, IR_ATTR_SPEC);
    REQUIRE(spec, "needs spec");
    const char *comma = strchr(spec, ','), *arrow = strstr(spec, "->");
    REQUIRE(comma && arrow && comma < arrow, "spec must look like \"ab,cb->ac\"");
    REQUIRE(operand(c, 0)->dtype == RT_F32 && operand(c, 1)->dtype == RT_F32, "operands must be f32");
    ir_dim extent[26];
    bool bound[26] = {false};
    if (!bind_letters(c, spec, (size_t)(comma - spec), operand(c, 0), extent, bound)) return false;
    if (!bind_letters(c, comma + 1, (size_t)(arrow - comma - 1), operand(c, 1), extent, bound)) return false;
    const char *result = arrow + 2;
    size_t rank = strlen(result);
    REQUIRE(rank <= IR_MAX_RANK, "result rank exceeds %d", IR_MAX_RANK);
    *c->out = (ir_type){.dtype = RT_F32, .rank = (int)rank};
    for (size_t i = 0; i < rank; i++) {
        REQUIRE(result[i] >= 'a' && result[i] <= 'z' && bound[result[i] - 'a'],
                "result letter '%c' is not in an operand", result[i]);
        REQUIRE(!memchr(result, result[i], i), "'%c' is repeated", result[i]);
        c->out->dim[i] = extent[result[i] - 'a'];
    }
    return true;
}

/* ---- views ---- */

/* The product of the numbers; counts[] gains `step` for every symbol. */
static int64_t split_extents(const ir_type *type, int step, int counts[]) {
    int64_t numbers = 1;
    for (int i = 0; i < type->rank; i++) {
        if (ir_dim_is_symbol(type->dim[i])) counts[ir_dim_symbol_of(type->dim[i])] += step;
        else numbers *= type->dim[i];
    }
    return numbers;
}

static bool rule_reshape(const rule_context *c) {
    int counts[IR_MAX_SYMBOLS] = {0};
    REQUIRE(c->out->dtype == operand(c, 0)->dtype, "dtype must not change");
    REQUIRE(split_extents(operand(c, 0), 1, counts) == split_extents(c->out, -1, counts), "element counts differ");
    for (int i = 0; i < c->module->symbol_count; i++) REQUIRE(counts[i] == 0, "element counts differ");
    return true;
}

static bool rule_transpose(const rule_context *c) {
    const ir_type *x = operand(c, 0);
    const ir_attr *perm = ir_attr_find(c->inst, IR_ATTR_PERM);
    REQUIRE(perm && (int)perm->n == x->rank, "perm must have %d entries", x->rank);
    unsigned seen = 0;
    *c->out = *x;
    for (int i = 0; i < x->rank; i++) {
        REQUIRE(perm->ints[i] >= 0 && perm->ints[i] < x->rank && !(seen >> perm->ints[i] & 1),
                "perm must be a permutation");
        seen |= 1u << perm->ints[i];
        c->out->dim[i] = x->dim[perm->ints[i]];
    }
    return true;
}

static bool rule_slice(const rule_context *c) {
    int axis;
    const ir_type *x = operand(c, 0);
    if (!axis_of(c, x, &axis)) return false;
    int64_t start = ir_attr_int(c->inst, IR_ATTR_START, -1), size = ir_attr_int(c->inst, IR_ATTR_SIZE, -1);
    REQUIRE(start >= 0 && size >= 0, "needs start >= 0 and a static size");
    REQUIRE(!ir_dim_is_symbol(x->dim[axis]) && size <= x->dim[axis] && start <= x->dim[axis] - size,
            "slice leaves the axis");
    *c->out = *x;
    c->out->dim[axis] = size;
    return true;
}

static bool rule_index(const rule_context *c) {
    int axis;
    const ir_type *x = operand(c, 0);
    if (!axis_of(c, x, &axis)) return false;
    REQUIRE(is_index(operand(c, 1)), "index must be an i32 scalar");
    *c->out = (ir_type){.dtype = x->dtype, .rank = x->rank - 1};
    for (int i = 0; i < c->out->rank; i++) c->out->dim[i] = x->dim[i < axis ? i : i + 1];
    return true;
}

static bool rule_window(const rule_context *c) {
    int axis;
    const ir_type *x = operand(c, 0);
    if (!axis_of(c, x, &axis)) return false;
    const ir_attr *size = ir_attr_find(c->inst, IR_ATTR_SIZE);
    REQUIRE(size, "needs size");
    REQUIRE(is_index(operand(c, 1)), "start must be an i32 scalar");
    REQUIRE(ir_dim_is_symbol(size->i) || ir_dim_is_symbol(x->dim[axis]) || size->i <= x->dim[axis],
            "the window is longer than x");
    *c->out = *x;
    c->out->dim[axis] = size->i;
    return true;
}

/* ---- movement ---- */

static bool rule_concat(const rule_context *c) {
    int axis;
    REQUIRE(c->inst->operand_count >= 1, "needs an operand");
    *c->out = *operand(c, 0);
    if (!axis_of(c, c->out, &axis)) return false;
    for (int i = 1; i < c->inst->operand_count; i++) {
        const ir_type *x = operand(c, i);
        REQUIRE(x->rank == c->out->rank && x->dtype == c->out->dtype, "operands differ in rank or dtype");
        for (int d = 0; d < x->rank; d++)
            REQUIRE(d == axis || x->dim[d] == c->out->dim[d], "extents differ off the axis");
        REQUIRE(!ir_dim_is_symbol(x->dim[axis]) && !ir_dim_is_symbol(c->out->dim[axis]), "axis needs static extents");
        c->out->dim[axis] += x->dim[axis];
    }
    return true;
}

static bool rule_swap_halves(const rule_context *c) {
    const ir_type *x = operand(c, 0);
    REQUIRE(!rt_is_storage(x->dtype) && x->rank >= 1, "x must be a tensor of numbers");
    REQUIRE(!ir_dim_is_symbol(x->dim[x->rank - 1]) && x->dim[x->rank - 1] % 2 == 0,
            "the last axis must have an even number of elements");
    *c->out = *x;
    return true;
}

static bool rule_gather(const rule_context *c) {
    const ir_type *table = operand(c, 0), *ids = operand(c, 1);
    rt_dtype_class class = rt_dtype_of(table->dtype)->class;
    REQUIRE(table->rank == 2 && (class == RT_CLASS_FLOAT || class == RT_CLASS_QUANT),
            "table must be a float matrix [V,K]");
    REQUIRE(ids->dtype == RT_I32 && ids->rank < IR_MAX_RANK, "ids must be i32");
    *c->out = *ids;
    c->out->dtype = RT_F32;
    c->out->dim[c->out->rank++] = table->dim[1];
    return true;
}

static bool rule_update(const rule_context *c) {
    REQUIRE(c->inst->operand_count >= 3, "needs x, v and at least one start");
    const ir_type *x = operand(c, 0), *v = operand(c, 1);
    int starts = c->inst->operand_count - 2;
    REQUIRE(v->rank == x->rank && v->dtype == x->dtype && starts <= x->rank, "v must have x's rank and dtype");
    for (int i = 0; i < starts; i++) REQUIRE(is_index(operand(c, i + 2)), "starts must be i32 scalars");
    bool ring = ir_attr_int(c->inst, IR_ATTR_RING, 0);
    REQUIRE(!ring || !ir_dim_is_symbol(x->dim[starts - 1]), "a ring has a number of slots");
    REQUIRE(!ring || ir_dim_is_symbol(v->dim[starts - 1]) || v->dim[starts - 1] <= x->dim[starts - 1],
            "v does not fit the ring");
    for (int i = starts; i < x->rank; i++) REQUIRE(v->dim[i] == x->dim[i], "v must span the axes without a start");
    for (int i = 0; i < starts; i++)
        REQUIRE(ir_dim_is_symbol(v->dim[i]) || ir_dim_is_symbol(x->dim[i]) || v->dim[i] <= x->dim[i],
                "v is longer than x");
    *c->out = *x;
    return true;
}

/* ---- control ---- */

static bool same_types(const rule_context *c, ir_value *const *a, const ir_type *const b[], int n, const char *what) {
    for (int i = 0; i < n; i++) REQUIRE(ir_type_equal(&a[i]->type, b[i]), "%s %d has another type", what, i);
    return true;
}

static bool types_match(const rule_context *c, ir_value *const *a, ir_value *const *b, int n, const char *what) {
    for (int i = 0; i < n; i++) {
        const ir_type *want[1] = {&b[i]->type};
        if (!same_types(c, a + i, want, 1, what)) return false;
    }
    return true;
}

static bool rule_map(const rule_context *c) {
    const ir_region *body = c->inst->regions[0];
    const ir_attr *extent = ir_attr_find(c->inst, IR_ATTR_EXTENT);
    REQUIRE(extent, "needs extent");
    REQUIRE(body->param_count == 1 && is_index(&body->params[0]->type), "body must take one i32");
    REQUIRE(body->yield_count == c->inst->result_count, "body must yield one value per result");
    for (int i = 0; i < body->yield_count; i++) {
        const ir_type *y = &body->yields[i]->type;
        REQUIRE(y->rank < IR_MAX_RANK, "result rank exceeds %d", IR_MAX_RANK);
        c->out[i] = (ir_type){.dtype = y->dtype, .rank = y->rank + 1};
        c->out[i].dim[0] = extent->i;
        memcpy(c->out[i].dim + 1, y->dim, sizeof(ir_dim) * (size_t)y->rank);
    }
    return true;
}

static bool rule_scan(const rule_context *c) {
    const ir_region *body = c->inst->regions[0];
    int carries = c->inst->operand_count - 1;
    REQUIRE(carries >= 0 && is_index(operand(c, 0)), "needs an i32 trip count");
    REQUIRE(body->param_count == carries + 1 && is_index(&body->params[0]->type), "body must take i and the carries");
    REQUIRE(body->yield_count == carries && c->inst->result_count == carries, "body must yield the carries");
    if (!types_match(c, body->params + 1, c->inst->operands + 1, carries, "carry")) return false;
    if (!types_match(c, body->yields, c->inst->operands + 1, carries, "yield")) return false;
    for (int i = 0; i < carries; i++) c->out[i] = *operand(c, i + 1);
    return true;
}

static bool rule_while(const rule_context *c) {
    const ir_region *test = c->inst->regions[0], *body = c->inst->regions[1];
    int carries = c->inst->operand_count;
    REQUIRE(test->param_count == carries && body->param_count == carries, "regions must take the carries");
    REQUIRE(test->yield_count == 1 && test->yields[0]->type.rank == 0 && test->yields[0]->type.dtype == RT_BOOL,
            "test must yield one bool");
    REQUIRE(body->yield_count == carries && c->inst->result_count == carries, "body must yield the carries");
    if (!types_match(c, test->params, c->inst->operands, carries, "test parameter")) return false;
    if (!types_match(c, body->params, c->inst->operands, carries, "carry")) return false;
    if (!types_match(c, body->yields, c->inst->operands, carries, "yield")) return false;
    for (int i = 0; i < carries; i++) c->out[i] = *operand(c, i);
    return true;
}

static bool rule_if(const rule_context *c) {
    const ir_region *yes = c->inst->regions[0], *no = c->inst->regions[1];
    REQUIRE(operand(c, 0)->rank == 0 && operand(c, 0)->dtype == RT_BOOL, "condition must be a bool scalar");
    REQUIRE(yes->param_count == 0 && no->param_count == 0, "branches take no parameters");
    REQUIRE(yes->yield_count == c->inst->result_count && no->yield_count == c->inst->result_count,
            "branches must yield one value per result");
    if (!types_match(c, no->yields, yes->yields, yes->yield_count, "else yield")) return false;
    for (int i = 0; i < yes->yield_count; i++) c->out[i] = yes->yields[i]->type;
    return true;
}

static bool rule_call(const rule_context *c) {
    const char *name = ir_attr_string(c->inst, IR_ATTR_CALLEE);
    REQUIRE(name, "needs callee");
    const ir_func *callee = ir_func_find(c->module, name);
    REQUIRE(callee, "no function @%s before this one", name);
    const ir_region *body = callee->body;
    REQUIRE(c->inst->operand_count == body->param_count, "@%s takes %d arguments", name, body->param_count);
    REQUIRE(c->inst->result_count == body->yield_count, "@%s returns %d values", name, body->yield_count);
    ir_dim bound[IR_MAX_SYMBOLS];
    bool known[IR_MAX_SYMBOLS] = {false};
    for (int i = 0; i < body->param_count; i++) {
        const ir_type *p = &body->params[i]->type, *a = operand(c, i);
        REQUIRE(p->dtype == a->dtype && p->rank == a->rank, "argument %d has another dtype or rank", i);
        for (int d = 0; d < p->rank; d++) {
            if (!ir_dim_is_symbol(p->dim[d])) {
                REQUIRE(p->dim[d] == a->dim[d], "argument %d has another extent", i);
                continue;
            }
            int symbol = ir_dim_symbol_of(p->dim[d]);
            REQUIRE(!known[symbol] || bound[symbol] == a->dim[d], "arguments bind %s twice",
                    c->module->symbols[symbol].name);
            int64_t max = c->module->symbols[symbol].max;
            REQUIRE(!max || ir_dim_max(c->module, a->dim[d]) <= max, "argument %d exceeds the bound of %s", i,
                    c->module->symbols[symbol].name);
            known[symbol] = true;
            bound[symbol] = a->dim[d];
        }
    }
    for (int i = 0; i < body->yield_count; i++) {
        c->out[i] = body->yields[i]->type;
        for (int d = 0; d < c->out[i].rank; d++)
            if (ir_dim_is_symbol(c->out[i].dim[d]) && known[ir_dim_symbol_of(c->out[i].dim[d])])
                c->out[i].dim[d] = bound[ir_dim_symbol_of(c->out[i].dim[d])];
    }
    return true;
}

static bool rule_dim(const rule_context *c) {
    const char *symbol = ir_attr_string(c->inst, IR_ATTR_SYMBOL);
    REQUIRE(is_index(operand(c, 0)), "value must be an i32 scalar");
    REQUIRE(symbol && ir_symbol_find(c->module, symbol) >= 0, "needs a declared symbol");
    return true;
}

/* Is `value` a parameter of the region or a result of its first n instructions? */
static bool defined_in(const ir_region *region, int n, const ir_value *value) {
    if (value->param_of == region) return true;
    for (int i = 0; i < n; i++)
        if (value->def == region->insts[i]) return true;
    return false;
}

static const ir_type *type_in(const ir_region *body, int i) {
    return i < body->param_count ? &body->params[i]->type : &body->insts[i - body->param_count]->results[0]->type;
}

/* Has no value of the nest, all aligned at their last axes, more along the axis of `type`? */
static bool counts_in(const ir_region *body, const ir_type *type, int axis) {
    bool ok = true;
    for (int i = 0; i < body->param_count + body->inst_count; i++) {
        const ir_type *other = type_in(body, i);
        int at = axis - type->rank + other->rank;
        ok &= at < 0 || other->dim[at] == 1 || other->dim[at] == type->dim[axis];
    }
    return ok;
}

static bool reduces_rows_of(const ir_region *body, const ir_inst *inst) {
    const ir_type *x = &inst->operands[0]->type;
    return x->rank && ir_attr_int(inst, IR_ATTR_AXIS, 0) == x->rank - 1 && counts_in(body, x, x->rank - 1);
}

static bool rule_fuse(const rule_context *c) {
    const ir_region *body = c->inst->regions[0];
    REQUIRE(body->param_count == c->inst->operand_count, "body must take the operands");
    REQUIRE(body->yield_count == c->inst->result_count, "body must yield one value per result");
    if (!types_match(c, body->params, c->inst->operands, body->param_count, "parameter")) return false;
    for (int i = 0; i < body->inst_count; i++) {
        ir_op op = body->insts[i]->op;
        ir_class class = ir_op_of(op)->class;
        bool reduces = op == IR_REDUCE_SUM || op == IR_REDUCE_MAX;
        bool can = class == IR_CLASS_ELEM || reduces || op == IR_CONST || op == IR_IOTA || op == IR_SWAP_HALVES ||
                   op == IR_ROTATE;
        REQUIRE(can, "%s cannot be fused", ir_op_of(op)->text);
        REQUIRE(op != IR_CONST || ir_attr_find(body->insts[i], IR_ATTR_VALUE), "a list of values cannot be fused");
        const ir_type *type = &body->insts[i]->results[0]->type;
        REQUIRE(!reduces || reduces_rows_of(body, body->insts[i]),
                "only whole rows, along the last axis, are reduced in a nest");
        REQUIRE(op != IR_IOTA || counts_in(body, type, (int)ir_attr_int(body->insts[i], IR_ATTR_AXIS, 0)),
                "an iota in a nest has the nest's extent along its axis");
        REQUIRE(op != IR_ROTATE || counts_in(body, type, type->rank - 1),
                "rows of another length than those that are rotated");
        for (int k = 0; k < body->insts[i]->operand_count; k++)
            REQUIRE(defined_in(body, i, body->insts[i]->operands[k]), "the body uses a value that is not its own");
    }
    for (int i = 0; i < body->yield_count; i++) c->out[i] = body->yields[i]->type;
    return true;
}

static bool rule_emit(const rule_context *c) {
    REQUIRE(is_index(operand(c, 0)), "token must be an i32 scalar");
    return true;
}

/* The result's dtype on entry is what is wanted: f32 unless bf16. */
static bool rule_attention(const rule_context *c) {
    rt_dtype wanted = c->out->dtype == RT_BF16 ? RT_BF16 : RT_F32;
    REQUIRE(c->inst->operand_count == 4 || c->inst->operand_count == 6, "takes 4 operands, or 6 with scales");
    const ir_type *q = operand(c, 0), *k = operand(c, 1), *v = operand(c, 2);
    REQUIRE(q->rank == 4 && k->rank == 3 && v->rank == 3, "needs q[T,KV,G,D], k[S,KV,D], v[S,KV,D]");
    bool scaled = c->inst->operand_count == 6, ring = ir_attr_int(c->inst, IR_ATTR_RING, 0);
    REQUIRE((q->dtype == RT_F32 || q->dtype == RT_BF16) && (scaled ? k->dtype == RT_I8 : is_float(k->dtype)) &&
                k->dtype == v->dtype,
            "q must be f32 or bf16, k and v of one float dtype or i8 with scales");
    REQUIRE(ir_type_equal(k, v) && k->dim[1] == q->dim[1] && k->dim[2] == q->dim[3], "extents of q, k, v do not fit");
    REQUIRE(is_index(operand(c, 3)), "position must be an i32 scalar");
    REQUIRE(ir_attr_find(c->inst, IR_ATTR_SCALE), "needs scale");
    const char *impl = ir_attr_string(c->inst, IR_ATTR_IMPL);
    REQUIRE(!impl || strcmp(impl, "int16") == 0 || strcmp(impl, "tiles") == 0, "impl must be \"int16\" or \"tiles\"");
    int64_t window = ir_attr_int(c->inst, IR_ATTR_WINDOW, 0);
    REQUIRE(window >= 0 && window <= INT32_MAX, "window must be a number of keys, or 0");
    REQUIRE(ir_attr_float(c->inst, IR_ATTR_CAP, 0) >= 0, "cap must not be negative");
    REQUIRE(!ring || (window > 0 && !ir_dim_is_symbol(k->dim[0])), "a ring needs a window and a number of slots");
    REQUIRE(!ring || k->dim[0] >= window + (ir_dim_is_symbol(q->dim[0]) ? 1 : q->dim[0]) - 1,
            "the ring is shorter than the window");
    for (int i = 4; i < c->inst->operand_count; i++) {
        const ir_type *s = operand(c, i);
        REQUIRE(s->dtype == RT_F32 && s->rank == 3 && s->dim[0] == k->dim[0] && s->dim[1] == k->dim[1] &&
                    s->dim[2] > 0 && (s->dim[2] == 1 || s->dim[2] * IR_SCALE_RUN == k->dim[2]),
                "scales must be f32[S,KV,1] or f32[S,KV,D/32]");
    }
    *c->out = *q;
    c->out->dtype = wanted;
    return true;
}

/* The first three operands: x, w, the screen of w. */
static bool is_screened(const rule_context *c) {
    const ir_type *x = operand(c, 0), *w = operand(c, 1), *s = operand(c, 2);
    REQUIRE(x->dtype == RT_F32 && x->rank == 2 && x->dim[0] >= 1, "x must be f32[M,K] with a number of rows");
    REQUIRE(rt_can_screen(w->dtype) && w->rank == 2 && w->dim[1] == x->dim[1],
            "w must be [N,K] of f32, f16, bf16, q8_0 or q6_k");
    ir_dim shape[2];
    rt_screen_shape(w->dim[0], w->dim[1], shape);
    REQUIRE(s->dtype == RT_S4 && s->rank == 2 && s->dim[0] == shape[0] && s->dim[1] == shape[1],
            "the screen of w[N,K] must be s4, of K+32 columns and the rows of runtime/screen.h");
    REQUIRE(!ir_dim_is_symbol(w->dim[0]) && w->dim[0] <= INT32_MAX && rt_can_screen_columns(w->dim[1]),
            "not the rows or columns of a screen");
    REQUIRE(ir_attr_float(c->inst, IR_ATTR_CAP, 0) >= 0, "cap must not be negative");
    return true;
}

static bool rule_screened_argmax(const rule_context *c) {
    *c->out = ir_tensor(RT_I32, 2, (ir_dim[]){operand(c, 0)->dim[0], 1});
    return is_screened(c);
}

static bool rule_screened_guess(const rule_context *c) {
    if (!is_screened(c)) return false;
    REQUIRE(operand(c, 0)->dim[0] == 1, "x must be one row");
    return infer_guessed(c, 3);
}

static bool rule_screened_sample(const rule_context *c) {
    return is_screened(c) && infer_drawn(c, 3);
}

static const rule_fn rules[IR_OP_COUNT] = {
    [IR_CONST] = rule_const,
    [IR_IOTA] = rule_iota,
    [IR_WEIGHT] = rule_weight,
    [IR_LAYER_WEIGHT] = rule_layer_weight,
    [IR_NEG] = rule_neg,
    [IR_EXP] = rule_unary_float,
    [IR_LOG] = rule_unary_float,
    [IR_TANH] = rule_unary_float,
    [IR_ERF] = rule_unary_float,
    [IR_SQRT] = rule_unary_float,
    [IR_RSQRT] = rule_unary_float,
    [IR_SIN] = rule_unary_float,
    [IR_COS] = rule_unary_float,
    [IR_NOT] = rule_not,
    [IR_CONVERT] = rule_convert,
    [IR_ADD] = rule_arith,
    [IR_SUB] = rule_arith,
    [IR_MUL] = rule_arith,
    [IR_DIV] = rule_arith,
    [IR_MAX] = rule_arith,
    [IR_MIN] = rule_arith,
    [IR_AND] = rule_logic,
    [IR_OR] = rule_logic,
    [IR_LT] = rule_compare,
    [IR_LE] = rule_compare,
    [IR_EQ] = rule_compare,
    [IR_SELECT] = rule_select,
    [IR_REDUCE_SUM] = rule_reduce,
    [IR_REDUCE_MAX] = rule_reduce,
    [IR_ARGMAX] = rule_argmax,
    [IR_MATMUL] = rule_matmul,
    [IR_SCALED_MATMUL] = rule_scaled_matmul,
    [IR_ROTATE] = rule_rotate,
    [IR_EINSUM] = rule_einsum,
    [IR_RESHAPE] = rule_reshape,
    [IR_TRANSPOSE] = rule_transpose,
    [IR_SLICE] = rule_slice,
    [IR_INDEX] = rule_index,
    [IR_WINDOW] = rule_window,
    [IR_CONCAT] = rule_concat,
    [IR_SWAP_HALVES] = rule_swap_halves,
    [IR_GATHER] = rule_gather,
    [IR_UPDATE] = rule_update,
    [IR_MAP] = rule_map,
    [IR_SCAN] = rule_scan,
    [IR_WHILE] = rule_while,
    [IR_IF] = rule_if,
    [IR_CALL] = rule_call,
    [IR_DIM] = rule_dim,
    [IR_FUSE] = rule_fuse,
    [IR_SAMPLE] = rule_sample,
    [IR_EMIT] = rule_emit,
    [IR_ATTENTION] = rule_attention,
    [IR_GATED_MATMUL] = rule_gated_matmul,
    [IR_SCREENED_ARGMAX] = rule_screened_argmax,
    [IR_SCREENED_SAMPLE] = rule_screened_sample,
    [IR_GUESS] = rule_guess,
    [IR_SCREENED_GUESS] = rule_screened_guess,
};

bool ir_infer(const ir_module *module, const ir_inst *inst, ir_type *out, char *why) {
    rule_context context = {module, inst, out, why}, *c = &context;
    const ir_op_info *info = ir_op_of(inst->op);
    REQUIRE(info->operands < 0 || inst->operand_count == info->operands, "takes %d operands", info->operands);
    REQUIRE(info->results < 0 || inst->result_count == info->results, "has %d results", info->results);
    REQUIRE(inst->region_count == info->regions, "has %d regions", info->regions);
    for (int i = 0; i < inst->operand_count; i++) {
        bool storage = rt_is_storage(inst->operands[i]->type.dtype);
        bool multiplies = inst->op == IR_MATMUL || inst->op == IR_SCALED_MATMUL || inst->op == IR_GATED_MATMUL ||
                          inst->op == IR_SCREENED_ARGMAX || inst->op == IR_SCREENED_GUESS ||
                          inst->op == IR_SCREENED_SAMPLE;
        REQUIRE(!storage || (multiplies && i > 0) || (inst->op == IR_GATHER && i == 0) || inst->op == IR_CALL,
                "operand %d has a storage type", i);
    }
    GM_ASSERT(rules[inst->op] && "every operation has a type rule in this file");
    return rules[inst->op](c);
}
