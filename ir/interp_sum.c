/* The interpreter's reductions and contractions. Sums and dot products are accumulated in double and rounded
 * once, so that the definition depends on no order of summation. */
#include "ir/interp_internal.h"
#include "runtime/interleave.h"
#include "runtime/rotate.h"

#include <math.h>
#include <string.h>

/* ---- along one axis ---- */

/* x seen as [outer, n, inner] around an axis. */
typedef struct axis_view {
    int64_t outer, n, inner;
} axis_view;

static axis_view view_axis(const ir_array *x, int axis) {
    axis_view v = {1, x->dim[axis], 1};
    for (int i = 0; i < axis; i++) v.outer *= x->dim[i];
    for (int i = axis + 1; i < x->rank; i++) v.inner *= x->dim[i];
    return v;
}

gm_status interp_REDUCE_SUM(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    axis_view v = view_axis(in, (int)ir_attr_int(inst, IR_ATTR_AXIS, 0));
    for (int64_t i = 0; i < v.outer * v.inner; i++) {
        int64_t at = i / v.inner * v.n * v.inner + i % v.inner;
        double sum = 0;
        uint32_t wrapped = 0;
        for (int64_t k = 0; k < v.n; k++, at += v.inner) {
            if (in->dtype == RT_F32) sum += (double)((const float *)in->data)[at];
            else wrapped += (uint32_t)((const int32_t *)in->data)[at];
        }
        if (in->dtype == RT_F32) ((float *)out->data)[i] = (float)sum;
        else ((int32_t *)out->data)[i] = (int32_t)wrapped;
    }
    return GM_OK;
}

/* Of nothing: -inf, the least integer, false. */
gm_status interp_REDUCE_MAX(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    axis_view v = view_axis(in, (int)ir_attr_int(inst, IR_ATTR_AXIS, 0));
    for (int64_t i = 0; i < v.outer * v.inner; i++) {
        int64_t at = i / v.inner * v.n * v.inner + i % v.inner;
        float most = -INFINITY;
        int64_t most_int = in->dtype == RT_BOOL ? 0 : INT32_MIN;
        for (int64_t k = 0; k < v.n; k++, at += v.inner) {
            if (in->dtype == RT_F32) {
                most = fmaxf(most, ((const float *)in->data)[at]);
            } else {
                int64_t x = interp_load_int(in, at);
                if (x > most_int) most_int = x;
            }
        }
        if (in->dtype == RT_F32) ((float *)out->data)[i] = most;
        else interp_store_int(out, i, most_int);
    }
    return GM_OK;
}

gm_status interp_ARGMAX(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    axis_view v = view_axis(in, in->rank - 1);
    for (int64_t i = 0; i < v.outer; i++) {
        const float *row = (const float *)in->data + i * v.n;
        int64_t best = 0;
        for (int64_t k = 1; k < v.n; k++)
            if (row[k] > row[best] || (isnan(row[best]) && !isnan(row[k]))) best = k;
        ((int32_t *)out->data)[i] = (int32_t)best;
    }
    return GM_OK;
}

/* ---- sums of products ---- */

/* row[k] = row j of a stored matrix. */
static void read_row(const ir_array *matrix, int64_t j, int64_t k, float *row) {
    if (rt_interleaved_of(matrix->dtype)) rt_deinterleave_row(matrix->dtype, matrix->data, (size_t)j, (size_t)k, row);
    else
        rt_dequantize_row(matrix->dtype,
                          (const char *)matrix->data + rt_dtype_bytes(matrix->dtype, (size_t)k) * (size_t)j, row,
                          (size_t)k);
}

/* To bf16 and back. */
static void round_halves(float *x, int64_t count) {
    for (int64_t i = 0; i < count; i++) x[i] = rt_bf16_to_f32(rt_f32_to_bf16(x[i]));
}

gm_status interp_MATMUL(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int64_t k = in[0].dim[in[0].rank - 1], n = out->dim[out->rank - 1];
    int64_t rows = 1, column = 0;
    for (int i = 0; i < in[0].rank - 1; i++) rows *= in[0].dim[i];
    float *x = gm_arena_alloc(frame->arena, sizeof *x * (size_t)(rows * k)); /* [rows, k] */
    float *w = gm_arena_alloc(frame->arena, sizeof *w * (size_t)k);
    bool tiles = ir_attr_is(inst, IR_ATTR_IMPL, "tiles");
    for (int64_t i = 0; i < rows * k; i++) x[i] = interp_load_float(&in[0], i);
    if (tiles) round_halves(x, rows * k);
    for (int op = 1; op < inst->operand_count; op++) {
        for (int64_t j = 0; j < in[op].dim[0]; j++, column++) {
            read_row(&in[op], j, k, w);
            if (tiles) round_halves(w, k);
            for (int64_t r = 0; r < rows; r++) {
                double sum = 0;
                for (int64_t i = 0; i < k; i++) sum += (double)x[r * k + i] * (double)w[i];
                ((float *)out->data)[r * n + column] = (float)sum;
            }
        }
    }
    return GM_OK;
}

/* row[k] as integers of `bits` bits and the scales of its groups, as scaled_matmul rounds them. */
static void round_row(float *row, float *scales, int64_t k, int64_t bits, int64_t group) {
    float levels = (float)((1 << (bits - 1)) - 1);
    for (int64_t from = 0; from < k; from += group) {
        int64_t to = from + group < k ? from + group : k;
        float most = RT_SCALE_LEAST; /* NaN where there is one, so that the products become NaN too */
        for (int64_t i = from; i < to && !isnan(most); i++)
            if (!(fabsf(row[i]) <= most)) most = fabsf(row[i]);
        float inverse = levels / most;
        for (int64_t i = from; i < to; i++) row[i] = rintf(row[i] * inverse);
        *scales++ = most / levels;
    }
}

/* Σ scale · q · w[k] of a row of q, whose scales stand for k / count columns each. */
static double scaled_dot(const ir_array *q, const float *q_scales, int64_t count, int64_t row, const float *w,
                         const float *w_scales, int64_t group, int64_t k) {
    double sum = 0;
    for (int64_t i = 0; i < k; i++) {
        double scale = (double)q_scales[row * count + i / (k / count)] * (w_scales ? (double)w_scales[i / group] : 1);
        sum += scale * (double)interp_load_int(q, row * k + i) * (double)w[i];
    }
    return sum;
}

gm_status interp_SCALED_MATMUL(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int64_t k = in[0].dim[in[0].rank - 1], n = out->dim[out->rank - 1], rows = ir_array_elems(&in[0]) / k, column = 0;
    int64_t bits = ir_attr_int(inst, IR_ATTR_BITS, 0), count = in[1].dim[in[1].rank - 1],
            rotate = ir_attr_int(inst, IR_ATTR_ROTATE, 0);
    int64_t group = ir_scale_group(in[0].dtype, rotate);
    float *w = gm_arena_alloc(frame->arena, sizeof *w * (size_t)k),
          *scales = gm_arena_alloc(frame->arena, sizeof *w * (size_t)k);
    for (int op = 2; op < inst->operand_count; op++) {
        for (int64_t j = 0; j < in[op].dim[0]; j++, column++) {
            if (in[op].dtype == RT_I8_P16) rt_panel_row(in[op].data, j, k, w, scales);
            else {
                read_row(&in[op], j, k, w);
                if (rotate) rt_rotate_row(w, k);
                if (bits) round_row(w, scales, k, bits, group);
            }
            for (int64_t r = 0; r < rows; r++)
                ((float *)out->data)[r * n + column] =
                    (float)scaled_dot(&in[0], in[1].data, count, r, w, bits ? scales : NULL, group, k);
        }
    }
    return GM_OK;
}

gm_status interp_ROTATE(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int64_t k = out->dim[out->rank - 1], elems = ir_array_elems(out);
    memcpy(out->data, in->data, sizeof(float) * (size_t)elems);
    for (int64_t i = 0; i < elems; i += k) rt_rotate_row((float *)out->data + i, k);
    return GM_OK;
}

/* The letters of an einsum: those of the result first, then those summed over. */
typedef struct einsum_plan {
    int letters, kept;
    char letter[26];
    int64_t dim[26], stride[2][26]; /* a letter that an operand lacks has stride 0 there */
} einsum_plan;

static void plan_letter(einsum_plan *plan, char letter) {
    for (int i = 0; i < plan->letters; i++)
        if (plan->letter[i] == letter) return;
    plan->letter[plan->letters++] = letter;
}

static void plan_operand(einsum_plan *plan, int operand, const char *spec, const ir_array *tensor) {
    int64_t stride = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        for (int l = 0; l < plan->letters; l++) {
            if (plan->letter[l] != spec[i]) continue;
            plan->dim[l] = tensor->dim[i];
            plan->stride[operand][l] = stride;
        }
        stride *= tensor->dim[i];
    }
}

static einsum_plan plan_einsum(const char *spec, const ir_array *in) {
    einsum_plan plan = {0};
    for (const char *c = strstr(spec, "->") + 2; *c; c++) plan_letter(&plan, *c);
    plan.kept = plan.letters;
    for (int i = 0; i < in[0].rank; i++) plan_letter(&plan, spec[i]);
    for (int i = 0; i < in[1].rank; i++) plan_letter(&plan, spec[in[0].rank + 1 + i]);
    plan_operand(&plan, 0, spec, &in[0]);
    plan_operand(&plan, 1, spec + in[0].rank + 1, &in[1]);
    return plan;
}

/* Step letters [first, end) as an odometer; false when it wraps around. */
static bool plan_step(const einsum_plan *plan, int first, int end, int64_t *at, int64_t offset[2]) {
    for (int l = end - 1; l >= first; l--) {
        for (int n = 0; n < 2; n++) offset[n] += plan->stride[n][l];
        if (++at[l] < plan->dim[l]) return true;
        for (int n = 0; n < 2; n++) offset[n] -= plan->stride[n][l] * plan->dim[l];
        at[l] = 0;
    }
    return false;
}

gm_status interp_EINSUM(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    einsum_plan plan = plan_einsum(ir_attr_string(inst, IR_ATTR_SPEC), in);
    int64_t at[26] = {0}, offset[2] = {0, 0}, elems = ir_array_elems(out);
    bool empty = false;
    for (int l = plan.kept; l < plan.letters; l++) empty = empty || plan.dim[l] == 0;
    for (int64_t i = 0; i < elems; i++) {
        double sum = 0;
        if (!empty) do {
                sum += (double)((const float *)in[0].data)[offset[0]] * (double)((const float *)in[1].data)[offset[1]];
            } while (plan_step(&plan, plan.kept, plan.letters, at, offset));
        ((float *)out->data)[i] = (float)sum;
        plan_step(&plan, 0, plan.kept, at, offset);
    }
    return GM_OK;
}
