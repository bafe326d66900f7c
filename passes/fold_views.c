/* fold, continued: rules for views, and for the views that einsum takes in. All move elements only, so all are
 * bit-exact. */
#include "passes/fold.h"
#include "passes/match.h"

#include <string.h>

static ir_value *reshaped(ir_builder *b, ir_value *x, const ir_type *type) {
    return ir_type_equal(&x->type, type) ? x : ir_reshape(b, x, type->rank, type->dim);
}

static int axis_of(const ir_inst *inst) {
    return (int)ir_attr_int(inst, IR_ATTR_AXIS, 0);
}

/* Do the shapes differ in extents of 1 only? */
static bool same_but_units(const ir_type *x, const ir_type *y) {
    int i = 0, j = 0;
    for (;; i++, j++) {
        while (i < x->rank && x->dim[i] == 1) i++;
        while (j < y->rank && y->dim[j] == 1) j++;
        if (i == x->rank || j == y->rank) return i == x->rank && j == y->rank;
        if (x->dim[i] != y->dim[j]) return false;
    }
}

/* ---- constants and coordinates ---- */

static ir_value *view_of_splat(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_attr *value = fold_splat(x[0]);
    return value ? fold_make_splat(b, value, &inst->results[0]->type) : NULL;
}

static ir_value *reshape_list(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_inst *list = match_made_by(x[0], IR_CONST);
    return list ? ir_emit1(b, IR_CONST, NULL, 0, list->attrs, list->attr_count, &inst->results[0]->type) : NULL;
}

static ir_value *iota_of_one(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_type *type = &inst->results[0]->type;
    ir_attr zero = ir_attr_make_int(IR_ATTR_VALUE, 0);
    return type->dim[axis_of(inst)] == 1 ? fold_make_splat(b, &zero, type) : NULL;
}

/* An axis of extent > 1 keeps its number among those axes. */
static ir_value *reshape_iota(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_inst *iota = match_made_by(x[0], IR_IOTA);
    const ir_type *type = &inst->results[0]->type;
    if (!iota || !same_but_units(&x[0]->type, type) || x[0]->type.dim[axis_of(iota)] == 1) return NULL;
    int before = 0, axis = 0;
    for (int i = 0; i < axis_of(iota); i++) before += x[0]->type.dim[i] != 1;
    for (; type->dim[axis] == 1 || before; axis++) before -= type->dim[axis] != 1;
    return ir_iota(b, type->rank, type->dim, axis);
}

static ir_value *transpose_iota(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_inst *iota = match_made_by(x[0], IR_IOTA);
    const ir_attr *perm = ir_attr_find(inst, IR_ATTR_PERM);
    for (int i = 0; iota && i < (int)perm->n; i++)
        if (perm->ints[i] == axis_of(iota)) return ir_iota(b, (int)perm->n, inst->results[0]->type.dim, i);
    return NULL;
}

/* Along the coordinates: the position itself. Across them: fewer axes of the same. */
static ir_value *index_iota(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_inst *iota = match_made_by(x[0], IR_IOTA);
    const ir_type *type = &inst->results[0]->type;
    if (!iota) return NULL;
    int at = axis_of(iota), axis = axis_of(inst);
    if (at == axis) return type->rank == 0 ? x[1] : NULL;
    return ir_iota(b, type->rank, type->dim, at < axis ? at : at - 1);
}

/* ---- reshape and transpose ---- */

static ir_value *reshape_reshape(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_type *type = &inst->results[0]->type;
    if (ir_type_equal(&x[0]->type, type)) return x[0];
    const ir_inst *inner = match_made_by(x[0], IR_RESHAPE);
    return inner ? reshaped(b, inner->operands[0], type) : NULL;
}

/* Only extents of 1 change places: the elements keep their order. */
static ir_value *transpose_units(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_attr *perm = ir_attr_find(inst, IR_ATTR_PERM);
    int64_t last = -1;
    for (size_t i = 0; i < perm->n; i++) {
        if (x[0]->type.dim[perm->ints[i]] == 1) continue;
        if (perm->ints[i] < last) return NULL;
        last = perm->ints[i];
    }
    return reshaped(b, x[0], &inst->results[0]->type);
}

static ir_value *transpose_transpose(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_inst *inner = match_made_by(x[0], IR_TRANSPOSE);
    if (!inner) return NULL;
    const ir_attr *first = ir_attr_find(inner, IR_ATTR_PERM), *second = ir_attr_find(inst, IR_ATTR_PERM);
    int64_t perm[IR_MAX_RANK];
    for (size_t i = 0; i < second->n; i++) perm[i] = first->ints[second->ints[i]];
    return ir_transpose(b, inner->operands[0], perm);
}

/* ---- slice, index, window, concat ---- */

static ir_value *slice_all(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    return ir_type_equal(&x[0]->type, &inst->results[0]->type) ? x[0] : NULL;
}

static ir_value *slice_slice(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_inst *inner = match_made_by(x[0], IR_SLICE);
    if (!inner || axis_of(inner) != axis_of(inst)) return NULL;
    int64_t start = ir_attr_int(inner, IR_ATTR_START, 0) + ir_attr_int(inst, IR_ATTR_START, 0);
    return ir_slice(b, inner->operands[0], axis_of(inst), start, ir_attr_int(inst, IR_ATTR_SIZE, 0));
}

/* Where the slice lies within one part of the concat. */
static ir_value *slice_concat(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_inst *concat = match_made_by(x[0], IR_CONCAT);
    if (!concat || axis_of(concat) != axis_of(inst)) return NULL;
    int64_t start = ir_attr_int(inst, IR_ATTR_START, 0), size = ir_attr_int(inst, IR_ATTR_SIZE, 0);
    for (int i = 0; i < concat->operand_count; i++) {
        ir_value *part = concat->operands[i];
        int64_t extent = part->type.dim[axis_of(inst)];
        if (start < extent) {
            if (start + size > extent) return NULL;
            return size == extent ? part : ir_slice(b, part, axis_of(inst), start, size);
        }
        start -= extent;
    }
    return NULL;
}

static ir_value *index_unit(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    bool unit = x[0]->type.dim[axis_of(inst)] == 1 && fold_splat(x[1]);
    return unit ? reshaped(b, x[0], &inst->results[0]->type) : NULL;
}

/* Where what is left is in the order it was. */
static ir_value *index_transpose(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_inst *inner = match_made_by(x[0], IR_TRANSPOSE);
    if (!inner) return NULL;
    const ir_attr *perm = ir_attr_find(inner, IR_ATTR_PERM);
    int64_t last = -1;
    for (int i = 0; i < (int)perm->n; i++) {
        if (i == axis_of(inst)) continue;
        if (perm->ints[i] < last) return NULL;
        last = perm->ints[i];
    }
    return ir_index(b, inner->operands[0], x[1], (int)perm->ints[axis_of(inst)]);
}

/* A window from a constant is a slice. */
static ir_value *window_const(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    const ir_attr *start = fold_splat(x[1]), *size = ir_attr_find(inst, IR_ATTR_SIZE);
    ir_dim extent = x[0]->type.dim[axis_of(inst)];
    if (!start) return NULL;
    if (start->i == 0 && size->i == extent) return x[0];
    if (ir_dim_is_symbol(extent) || ir_dim_is_symbol(size->i) || start->i < 0 || start->i > extent - size->i)
        return NULL;
    return ir_slice(b, x[0], axis_of(inst), start->i, size->i);
}

static ir_value *concat_one(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    return inst->operand_count == 1 ? x[0] : NULL;
}

/* ---- einsum ---- */

/* Letters of the operand's source before the transpose. */
static void letters_before_transpose(const ir_inst *transpose, const char *letters, char *out) {
    const ir_attr *perm = ir_attr_find(transpose, IR_ATTR_PERM);
    for (size_t i = 0; i < perm->n; i++) out[perm->ints[i]] = letters[i];
    out[perm->n] = '\0';
}

/* Letters of the operand's source before a reshape that changed extents of 1 only. Which of those letters goes where
 * does not matter. Letters left over go, which needs the other operand to carry them, or the result not to. */
static bool letters_before_units(const ir_type *from, const ir_type *to, const char *letters, const char *other,
                                 const char *result, char *out) {
    char units[IR_MAX_RANK + 1] = {0};
    int unit_count = 0, needed = 0, used = 0, at = 0;
    if (!same_but_units(from, to)) return false;
    for (int pass = 0; pass < 2; pass++) /* the needed ones first */
        for (int j = 0; j < to->rank; j++) {
            bool must_stay = !strchr(other, letters[j]) && strchr(result, letters[j]);
            if (to->dim[j] != 1 || must_stay != (pass == 0)) continue;
            units[unit_count++] = letters[j];
            needed += must_stay;
        }
    for (int i = 0; i < from->rank; i++) {
        if (from->dim[i] == 1) {
            if (used == unit_count) return false;
            out[i] = units[used++];
            continue;
        }
        while (to->dim[at] == 1) at++;
        out[i] = letters[at++];
    }
    out[from->rank] = '\0';
    return used >= needed;
}

static ir_value *einsum_view(ir_builder *b, const ir_inst *inst, ir_value *const *x) {
    ir_einsum_spec spec = ir_einsum_spec_of(inst);
    ir_value *source[2] = {x[0], x[1]};
    bool changed = false;
    for (int i = 0; i < 2; i++) {
        const ir_inst *transpose = match_made_by(x[i], IR_TRANSPOSE), *reshape = match_made_by(x[i], IR_RESHAPE);
        char letters[IR_MAX_RANK + 1];
        if (transpose) letters_before_transpose(transpose, spec.operand[i], letters);
        else if (!reshape || !letters_before_units(&reshape->operands[0]->type, &x[i]->type, spec.operand[i],
                                                   spec.operand[1 - i], spec.result, letters))
            continue;
        strcpy(spec.operand[i], letters);
        source[i] = x[i]->def->operands[0];
        changed = true;
    }
    if (!changed) return NULL;
    const char *text = gm_arena_printf(&b->module->arena, "%s,%s->%s", spec.operand[0], spec.operand[1], spec.result);
    return ir_einsum(b, text, source[0], source[1]);
}

const fold_row fold_view_rows[] = {
    {IR_IOTA, iota_of_one},          {IR_RESHAPE, view_of_splat},
    {IR_RESHAPE, reshape_reshape},   {IR_RESHAPE, reshape_list},
    {IR_RESHAPE, reshape_iota},      {IR_TRANSPOSE, view_of_splat},
    {IR_TRANSPOSE, transpose_units}, {IR_TRANSPOSE, transpose_transpose},
    {IR_TRANSPOSE, transpose_iota},  {IR_SLICE, slice_all},
    {IR_SLICE, view_of_splat},       {IR_SLICE, slice_slice},
    {IR_SLICE, slice_concat},        {IR_INDEX, view_of_splat},
    {IR_INDEX, index_unit},          {IR_INDEX, index_iota},
    {IR_INDEX, index_transpose},     {IR_WINDOW, view_of_splat},
    {IR_WINDOW, window_const},       {IR_CONCAT, concat_one},
    {IR_EINSUM, einsum_view},
};
const int fold_view_count = GM_COUNT(fold_view_rows);
