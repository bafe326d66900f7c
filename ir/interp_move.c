/* The interpreter's views and data movement. Positions are never clamped: one that leaves its axis is an error. */
#include "ir/interp_internal.h"

#include <string.h>

/* A block of elements to copy between two row-major tensors of one rank and dtype. */
typedef struct box_side {
    void *data;
    int64_t dim[IR_MAX_RANK], at[IR_MAX_RANK];
} box_side;

static box_side side_of(const ir_array *tensor) {
    box_side side = {.data = tensor->data};
    memcpy(side.dim, tensor->dim, sizeof side.dim);
    return side;
}

static int64_t side_offset(const box_side *side, int rank, const int64_t *step) {
    int64_t offset = 0;
    for (int i = 0; i < rank; i++) offset = offset * side->dim[i] + side->at[i] + step[i];
    return offset;
}

static void copy_box(const box_side *to, const box_side *from, int rank, const int64_t *size, size_t elem_bytes) {
    int64_t step[IR_MAX_RANK] = {0}, rows = 1, run = rank ? size[rank - 1] : 1;
    for (int i = 0; i < rank - 1; i++) rows *= size[i];
    if (run == 0) return;
    for (int64_t row = 0; row < rows; row++) {
        memcpy((char *)to->data + elem_bytes * (size_t)side_offset(to, rank, step),
               (const char *)from->data + elem_bytes * (size_t)side_offset(from, rank, step), elem_bytes * (size_t)run);
        for (int i = rank - 2; i >= 0; i--) {
            if (++step[i] < size[i]) break;
            step[i] = 0;
        }
    }
}

/* [start, start + size) must lie within an axis of this extent. */
static gm_status check_range(const interp_frame *frame, const ir_inst *inst, int axis, int64_t start, int64_t size,
                             int64_t extent) {
    if (start >= 0 && size <= extent && start <= extent - size) return GM_OK;
    return interp_fail(frame, inst, "[%lld, %lld) leaves axis %d of extent %lld", (long long)start,
                       (long long)(start + size), axis, (long long)extent);
}

/* ---- views ---- */

gm_status interp_RESHAPE(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    if (ir_array_elems(in) != ir_array_elems(out)) return interp_fail(frame, inst, "element counts differ");
    out->data = in->data;
    return GM_OK;
}

gm_status interp_TRANSPOSE(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    const int64_t *perm = ir_attr_find(inst, IR_ATTR_PERM)->ints;
    int64_t stride[IR_MAX_RANK], elems = ir_array_elems(out), step = 1;
    size_t bytes = rt_dtype_bytes(in->dtype, 1);
    for (int i = in->rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= in->dim[i];
    }
    for (int64_t e = 0; e < elems; e++) {
        int64_t rest = e, from = 0;
        for (int i = out->rank - 1; i >= 0; i--) {
            from += rest % out->dim[i] * stride[perm[i]];
            rest /= out->dim[i];
        }
        memcpy((char *)out->data + bytes * (size_t)e, (const char *)in->data + bytes * (size_t)from, bytes);
    }
    return GM_OK;
}

/* out = the box of out's extents that starts at `start` on `axis`. */
static gm_status take(interp_frame *frame, const ir_inst *inst, const ir_array *in, int axis, int64_t start,
                      ir_array *out) {
    GM_TRY(check_range(frame, inst, axis, start, out->dim[axis], in->dim[axis]));
    GM_TRY(interp_alloc(frame, inst, out));
    box_side to = side_of(out), from = side_of(in);
    from.at[axis] = start;
    copy_box(&to, &from, in->rank, out->dim, rt_dtype_bytes(in->dtype, 1));
    return GM_OK;
}

gm_status interp_SLICE(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    return take(frame, inst, in, (int)ir_attr_int(inst, IR_ATTR_AXIS, 0), ir_attr_int(inst, IR_ATTR_START, 0), out);
}

gm_status interp_WINDOW(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    return take(frame, inst, in, (int)ir_attr_int(inst, IR_ATTR_AXIS, 0), interp_scalar(&in[1]), out);
}

gm_status interp_INDEX(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
    ir_array kept = in[0]; /* the result with the axis still there */
    kept.dim[axis] = 1;
    GM_TRY(take(frame, inst, in, axis, interp_scalar(&in[1]), &kept));
    out->data = kept.data;
    return GM_OK;
}

/* ---- movement ---- */

gm_status interp_CONCAT(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
    box_side to = side_of(out);
    for (int i = 0; i < inst->operand_count; i++) {
        box_side from = side_of(&in[i]);
        copy_box(&to, &from, out->rank, in[i].dim, rt_dtype_bytes(out->dtype, 1));
        to.at[axis] += in[i].dim[axis];
    }
    return GM_OK;
}

gm_status interp_SWAP_HALVES(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int axis = out->rank - 1;
    int64_t half = out->dim[axis] / 2, size[IR_MAX_RANK];
    memcpy(size, out->dim, sizeof size);
    size[axis] = half;
    for (int i = 0; i < 2; i++) {
        box_side to = side_of(out), from = side_of(in);
        to.at[axis] = i ? half : 0;
        from.at[axis] = i ? 0 : half;
        copy_box(&to, &from, out->rank, size, rt_dtype_bytes(out->dtype, 1));
    }
    return GM_OK;
}

gm_status interp_GATHER(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int64_t rows = in[0].dim[0], k = in[0].dim[1], ids = ir_array_elems(&in[1]);
    size_t row_bytes = rt_dtype_bytes(in[0].dtype, (size_t)k);
    for (int64_t i = 0; i < ids; i++) {
        int64_t id = ((const int32_t *)in[1].data)[i];
        if (id < 0 || id >= rows)
            return interp_fail(frame, inst, "id %lld is not in 0..%lld", (long long)id, (long long)rows - 1);
        rt_dequantize_row(in[0].dtype, (const char *)in[0].data + row_bytes * (size_t)id, (float *)out->data + i * k,
                          (size_t)k);
    }
    return GM_OK;
}

gm_status interp_UPDATE(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    memcpy(out->data, in[0].data, interp_bytes(out));
    box_side to = side_of(out), from = side_of(&in[1]);
    int64_t size[IR_MAX_RANK];
    int starts = inst->operand_count - 2, ring = ir_attr_int(inst, IR_ATTR_RING, 0) ? starts - 1 : -1;
    memcpy(size, in[1].dim, sizeof size);
    for (int i = 0; i < starts; i++) {
        int64_t start = interp_scalar(&in[i + 2]), extent = out->dim[i];
        if (i == ring && start >= 0 && extent > 0 && size[i] <= extent) {
            start %= extent;
            if (size[i] > extent - start) size[i] = extent - start;
        }
        GM_TRY(check_range(frame, inst, i, start, size[i], extent));
        to.at[i] = start;
    }
    copy_box(&to, &from, out->rank, size, rt_dtype_bytes(out->dtype, 1));
    if (ring < 0 || size[ring] == in[1].dim[ring]) return GM_OK;
    from.at[ring] = size[ring];
    to.at[ring] = 0;
    size[ring] = in[1].dim[ring] - size[ring];
    copy_box(&to, &from, out->rank, size, rt_dtype_bytes(out->dtype, 1));
    return GM_OK;
}
