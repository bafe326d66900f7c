/* Strides of dense tensors and of views. */
#include "ir/layout.h"

#include <string.h>

ir_layout ir_layout_dense(const ir_module *module, const ir_type *type) {
    ir_layout layout = {{0}};
    int64_t step = 1;
    for (int i = type->rank; i-- > 0;) {
        layout.stride[i] = step;
        step *= ir_dim_max(module, type->dim[i]);
    }
    return layout;
}

/* Extents other than 1, with their strides, in order. */
static int squeeze(const ir_type *type, const ir_layout *layout, ir_dim *dims, int64_t *strides, int *axes) {
    int n = 0;
    for (int i = 0; i < type->rank; i++) {
        if (type->dim[i] == 1) continue;
        dims[n] = type->dim[i];
        axes[n] = i;
        if (layout) strides[n] = layout->stride[i];
        n++;
    }
    return n;
}

/* Split both shapes into the smallest groups of equal extent; a group is a view when its source axes are contiguous
 * among themselves. */
static bool reshape_view(const ir_type *from, const ir_layout *layout, const ir_type *to, ir_layout *out) {
    ir_dim x[IR_MAX_RANK], y[IR_MAX_RANK];
    int64_t strides[IR_MAX_RANK];
    int x_axes[IR_MAX_RANK], y_axes[IR_MAX_RANK];
    int nx = squeeze(from, layout, x, strides, x_axes), ny = squeeze(to, NULL, y, NULL, y_axes);
    memset(out, 0, sizeof *out);
    int i = 0, j = 0;
    while (i < nx && j < ny) {
        if (ir_dim_is_symbol(x[i]) || ir_dim_is_symbol(y[j])) {
            if (x[i] != y[j]) return false;
            out->stride[y_axes[j++]] = strides[i++];
            continue;
        }
        int i0 = i, j0 = j;
        int64_t px = x[i++], py = y[j++];
        while (px != py) {
            if (px < py) {
                if (i == nx || ir_dim_is_symbol(x[i])) return false;
                px *= x[i++];
            } else {
                if (j == ny || ir_dim_is_symbol(y[j])) return false;
                py *= y[j++];
            }
        }
        for (int k = i0; k + 1 < i; k++)
            if (strides[k] != strides[k + 1] * x[k + 1]) return false;
        int64_t step = strides[i - 1];
        for (int k = j; k-- > j0;) {
            out->stride[y_axes[k]] = step;
            step *= y[k];
        }
    }
    return i == nx && j == ny;
}

bool ir_layout_view(const ir_module *module, const ir_inst *inst, const ir_layout *operand, ir_layout *out) {
    const ir_type *from = &inst->operands[0]->type, *to = &inst->results[0]->type;
    switch (inst->op) {
    case IR_RESHAPE: return reshape_view(from, operand, to, out);
    case IR_TRANSPOSE: {
        const ir_attr *perm = ir_attr_find(inst, IR_ATTR_PERM);
        for (int i = 0; i < to->rank; i++) out->stride[i] = operand->stride[perm->ints[i]];
        return true;
    }
    case IR_SLICE:
    case IR_WINDOW: *out = *operand; return true;
    case IR_INDEX: {
        int axis = (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
        for (int i = 0; i < to->rank; i++) out->stride[i] = operand->stride[i < axis ? i : i + 1];
        return true;
    }
    default: GM_UNREACHABLE("not a SHAPE op");
    }
}

bool ir_layout_is_dense(const ir_module *module, const ir_type *type, const ir_layout *layout) {
    ir_layout dense = ir_layout_dense(module, type);
    for (int i = 0; i < type->rank; i++)
        if (type->dim[i] != 1 && layout->stride[i] != dense.stride[i]) return false;
    return true;
}

bool ir_layout_matrix(const ir_type *type, const ir_layout *layout, int64_t *out_stride) {
    int last = type->rank - 1;
    if (ir_dim_is_symbol(type->dim[last]) || (type->dim[last] != 1 && layout->stride[last] != 1)) return false;
    int64_t expected = 0;
    *out_stride = type->dim[last];
    for (int i = last; i-- > 0;) {
        if (type->dim[i] == 1) continue;
        bool symbol = ir_dim_is_symbol(type->dim[i]);
        if ((expected && layout->stride[i] != expected) || (symbol && i > 0)) return false;
        if (!expected) *out_stride = layout->stride[i];
        expected = symbol ? -1 : layout->stride[i] * type->dim[i];
    }
    return true;
}
