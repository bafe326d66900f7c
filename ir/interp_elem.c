/* The interpreter's sources and element-wise ops. */
#include "ir/interp_internal.h"

#include <math.h>
#include <string.h>

/* ---- element access ---- */

float interp_load_float(const ir_array *tensor, int64_t i) {
    switch (tensor->dtype) {
    case RT_F32: return ((const float *)tensor->data)[i];
    case RT_F16: return rt_f16_to_f32(((const uint16_t *)tensor->data)[i]);
    case RT_BF16: return rt_bf16_to_f32(((const uint16_t *)tensor->data)[i]);
    default: GM_UNREACHABLE("not a float tensor");
    }
}

void interp_store_float(ir_array *tensor, int64_t i, float value) {
    switch (tensor->dtype) {
    case RT_F32: ((float *)tensor->data)[i] = value; return;
    case RT_F16: ((uint16_t *)tensor->data)[i] = rt_f32_to_f16(value); return;
    case RT_BF16: ((uint16_t *)tensor->data)[i] = rt_f32_to_bf16(value); return;
    default: GM_UNREACHABLE("not a float tensor");
    }
}

int64_t interp_load_int(const ir_array *tensor, int64_t i) {
    switch (tensor->dtype) {
    case RT_I64: return ((const int64_t *)tensor->data)[i];
    case RT_I32: return ((const int32_t *)tensor->data)[i];
    case RT_I16: return ((const int16_t *)tensor->data)[i];
    case RT_I8: return ((const int8_t *)tensor->data)[i];
    case RT_BOOL: return ((const uint8_t *)tensor->data)[i] != 0;
    default: GM_UNREACHABLE("not an integer tensor");
    }
}

/* Narrowing keeps the low bits; a bool is "not zero". */
void interp_store_int(ir_array *tensor, int64_t i, int64_t value) {
    switch (tensor->dtype) {
    case RT_I64: ((int64_t *)tensor->data)[i] = value; return;
    case RT_I32: ((int32_t *)tensor->data)[i] = (int32_t)value; return;
    case RT_I16: ((int16_t *)tensor->data)[i] = (int16_t)value; return;
    case RT_I8: ((int8_t *)tensor->data)[i] = (int8_t)value; return;
    case RT_BOOL: ((uint8_t *)tensor->data)[i] = value != 0; return;
    default: GM_UNREACHABLE("not an integer tensor");
    }
}

/* ---- sources ---- */

gm_status interp_CONST(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    const ir_attr *list = ir_attr_find(inst, IR_ATTR_VALUES);
    const ir_attr *one = ir_attr_find(inst, IR_ATTR_VALUE);
    bool is_float = rt_dtype_of(out->dtype)->class == RT_CLASS_FLOAT;
    int64_t elems = ir_array_elems(out);
    for (int64_t i = 0; i < elems; i++) {
        if (is_float) interp_store_float(out, i, (float)(list ? list->floats[i] : one->f));
        else interp_store_int(out, i, list ? (int64_t)list->floats[i] : one->i);
    }
    return GM_OK;
}

gm_status interp_IOTA(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
    int64_t inner = 1, elems = ir_array_elems(out);
    for (int i = axis + 1; i < out->rank; i++) inner *= out->dim[i];
    for (int64_t i = 0; i < elems; i++) ((int32_t *)out->data)[i] = (int32_t)(i / inner % out->dim[axis]);
    return GM_OK;
}

static gm_status find_stored(interp_frame *frame, const ir_inst *inst, const char *name, ir_array *out) {
    const rt_weights *weights = frame->run->env->weights;
    const rt_tensor *tensor = weights ? rt_weights_find(weights, name) : NULL;
    if (!tensor) return interp_fail(frame, inst, "no weight is called \"%s\"", name);
    bool same = tensor->dtype == out->dtype && tensor->rank == out->rank;
    for (int i = 0; same && i < out->rank; i++) same = tensor->dim[i] == out->dim[i];
    if (!same) return interp_fail(frame, inst, "the stored \"%s\" has another type", name);
    if (!tensor->data) return interp_fail(frame, inst, "the bytes of \"%s\" are not loaded", name);
    out->data = (void *)(uintptr_t)tensor->data; /* values are never written to */
    return GM_OK;
}

gm_status interp_WEIGHT(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    return find_stored(frame, inst, ir_attr_string(inst, IR_ATTR_NAME), out);
}

gm_status interp_LAYER_WEIGHT(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    char name[IR_NAME_BYTES];
    int64_t i = interp_scalar(&in[0]);
    if (i < 0 || i >= ir_stored_count(inst))
        return interp_fail(frame, inst, "%lld is not in 0..%lld", (long long)i, (long long)ir_stored_count(inst) - 1);
    return find_stored(frame, inst, ir_stored_name(inst, i, name), out);
}

/* ---- the walk over broadcast operands ---- */

typedef struct walk {
    int rank, operands;
    int64_t dim[IR_MAX_RANK], at[IR_MAX_RANK];
    int64_t stride[3][IR_MAX_RANK]; /* 0 along broadcast axes */
    int64_t offset[3], index, elems;
} walk;

static walk walk_start(const ir_array *in, int operands, const ir_array *out) {
    walk w = {.rank = out->rank, .operands = operands, .elems = ir_array_elems(out)};
    memcpy(w.dim, out->dim, sizeof w.dim);
    for (int n = 0; n < operands; n++) {
        int64_t stride = 1;
        for (int i = in[n].rank - 1; i >= 0; i--) {
            w.stride[n][i + out->rank - in[n].rank] = in[n].dim[i] == 1 ? 0 : stride;
            stride *= in[n].dim[i];
        }
    }
    return w;
}

static void walk_next(walk *w) {
    w->index++;
    for (int i = w->rank - 1; i >= 0; i--) {
        for (int n = 0; n < w->operands; n++) w->offset[n] += w->stride[n][i];
        if (++w->at[i] < w->dim[i]) return;
        for (int n = 0; n < w->operands; n++) w->offset[n] -= w->stride[n][i] * w->dim[i];
        w->at[i] = 0;
    }
}

/* Every element of out: `expr` of x, or of x and y. */
#define LOOP1(from, to, expr)                                                                                          \
    for (walk w = walk_start(in, 1, out); w.index < w.elems; walk_next(&w)) {                                          \
        from x = ((const from *)in[0].data)[w.offset[0]];                                                              \
        ((to *)out->data)[w.index] = (to)(expr);                                                                       \
    }
#define LOOP2(from, to, expr)                                                                                          \
    for (walk w = walk_start(in, 2, out); w.index < w.elems; walk_next(&w)) {                                          \
        from x = ((const from *)in[0].data)[w.offset[0]];                                                              \
        from y = ((const from *)in[1].data)[w.offset[1]];                                                              \
        ((to *)out->data)[w.index] = (to)(expr);                                                                       \
    }
#define ELEM_FUNCTION(name)                                                                                            \
    gm_status interp_##name(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out)

/* ---- one operand ---- */

#define UNARY_FLOAT(name, expr)                                                                                        \
    ELEM_FUNCTION(name) {                                                                                              \
        GM_TRY(interp_alloc(frame, inst, out));                                                                        \
        LOOP1(float, float, expr)                                                                                      \
        return GM_OK;                                                                                                  \
    }

UNARY_FLOAT(EXP, expf(x))
UNARY_FLOAT(LOG, logf(x))
UNARY_FLOAT(TANH, tanhf(x))
UNARY_FLOAT(ERF, erff(x))
UNARY_FLOAT(SQRT, sqrtf(x))
UNARY_FLOAT(RSQRT, 1.0f / sqrtf(x))
UNARY_FLOAT(SIN, sinf(x))
UNARY_FLOAT(COS, cosf(x))

ELEM_FUNCTION(NEG) {
    GM_TRY(interp_alloc(frame, inst, out));
    switch (out->dtype) {
    case RT_F32: LOOP1(float, float, -x) break;
    case RT_I32: LOOP1(int32_t, int32_t, 0u - (uint32_t)x) break;
    case RT_I64: LOOP1(int64_t, int64_t, (uint64_t)0 - (uint64_t)x) break;
    default: GM_UNREACHABLE("neg of another dtype");
    }
    return GM_OK;
}

ELEM_FUNCTION(NOT) {
    GM_TRY(interp_alloc(frame, inst, out));
    LOOP1(uint8_t, uint8_t, !x)
    return GM_OK;
}

/* Truncates; NaN gives 0, what does not fit gives the nearest end of the range. */
static int64_t float_to_int(float x, rt_dtype to) {
    if (to == RT_BOOL) return x != 0;
    if (isnan(x)) return 0;
    int64_t least = to == RT_I8 ? INT8_MIN : to == RT_I16 ? INT16_MIN : to == RT_I32 ? INT32_MIN : INT64_MIN;
    if ((double)x <= (double)least) return least;
    if ((double)x >= -(double)least) return -(least + 1);
    return (int64_t)x;
}

ELEM_FUNCTION(CONVERT) {
    GM_TRY(interp_alloc(frame, inst, out));
    bool from_float = rt_dtype_of(in->dtype)->class == RT_CLASS_FLOAT;
    bool to_float = rt_dtype_of(out->dtype)->class == RT_CLASS_FLOAT;
    int64_t elems = ir_array_elems(out);
    for (int64_t i = 0; i < elems; i++) {
        if (from_float && to_float) interp_store_float(out, i, interp_load_float(in, i));
        else if (from_float) interp_store_int(out, i, float_to_int(interp_load_float(in, i), out->dtype));
        else if (to_float) interp_store_float(out, i, (float)interp_load_int(in, i));
        else interp_store_int(out, i, interp_load_int(in, i));
    }
    return GM_OK;
}

/* ---- two operands ---- */

/* integer(S, U): the expression in a signed type S that wraps through its unsigned U. */
#define BINARY(name, float_expr, integer)                                                                              \
    ELEM_FUNCTION(name) {                                                                                              \
        GM_TRY(interp_alloc(frame, inst, out));                                                                        \
        switch (in->dtype) {                                                                                           \
        case RT_F32: LOOP2(float, float, float_expr) break;                                                            \
        case RT_I32: LOOP2(int32_t, int32_t, integer(int32_t, uint32_t)) break;                                        \
        case RT_I64: LOOP2(int64_t, int64_t, integer(int64_t, uint64_t)) break;                                        \
        default: GM_UNREACHABLE("arithmetic on another dtype");                                                        \
        }                                                                                                              \
        return GM_OK;                                                                                                  \
    }

#define INT_ADD(S, U)    ((U)x + (U)y)
#define INT_SUB(S, U)    ((U)x - (U)y)
#define INT_MUL(S, U)    ((U)x * (U)y)
#define INT_DIV(S, U)    (y == 0 ? 0 : y == -1 ? (S)((U)0 - (U)x) : x / y)
#define INT_MAX_OF(S, U) (x > y ? x : y)
#define INT_MIN_OF(S, U) (x < y ? x : y)

BINARY(ADD, x + y, INT_ADD)
BINARY(SUB, x - y, INT_SUB)
BINARY(MUL, x *y, INT_MUL)
BINARY(DIV, x / y, INT_DIV)
BINARY(MAX, fmaxf(x, y), INT_MAX_OF)
BINARY(MIN, fminf(x, y), INT_MIN_OF)

#define COMPARE(name, relation)                                                                                        \
    ELEM_FUNCTION(name) {                                                                                              \
        GM_TRY(interp_alloc(frame, inst, out));                                                                        \
        switch (in->dtype) {                                                                                           \
        case RT_F32: LOOP2(float, uint8_t, x relation y) break;                                                        \
        case RT_I32: LOOP2(int32_t, uint8_t, x relation y) break;                                                      \
        case RT_I64: LOOP2(int64_t, uint8_t, x relation y) break;                                                      \
        default: GM_UNREACHABLE("comparison of another dtype");                                                        \
        }                                                                                                              \
        return GM_OK;                                                                                                  \
    }

COMPARE(LT, <)
COMPARE(LE, <=)
COMPARE(EQ, ==)

ELEM_FUNCTION(AND) {
    GM_TRY(interp_alloc(frame, inst, out));
    LOOP2(uint8_t, uint8_t, x && y)
    return GM_OK;
}

ELEM_FUNCTION(OR) {
    GM_TRY(interp_alloc(frame, inst, out));
    LOOP2(uint8_t, uint8_t, x || y)
    return GM_OK;
}

ELEM_FUNCTION(SELECT) {
    GM_TRY(interp_alloc(frame, inst, out));
    size_t bytes = rt_dtype_bytes(out->dtype, 1);
    for (walk w = walk_start(in, 3, out); w.index < w.elems; walk_next(&w)) {
        int from = ((const uint8_t *)in[0].data)[w.offset[0]] ? 1 : 2;
        memcpy((char *)out->data + bytes * (size_t)w.index,
               (const char *)in[from].data + bytes * (size_t)w.offset[from], bytes);
    }
    return GM_OK;
}
