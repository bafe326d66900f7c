/* Which plan of the passes a --precision comes to. */
#include "codegen/codegen.h"
#include "frontend/driver.h"
#include "runtime/derive.h"

const char *fe_precision_text(fe_precision precision) {
    static const char *const texts[FE_PRECISION_COUNT] = {"auto", "f32", "bf16", "int16", "int8", "block8"};
    return texts[precision];
}

static bool is_stored_matrix(const rt_tensor *tensor) {
    return tensor->rank == 2 && !rt_derived_source(tensor->name);
}

static size_t elems_of(const rt_tensor *tensor) {
    return (size_t)(tensor->dim[0] * tensor->dim[1]);
}

/* Without kept panels int8 would unpack, rotate and round all of W for each chunk, where block8 takes codes as they are. The largest matrix is the head,
 * of which there are no panels; of the others a panel has a byte for each element. */
static bool is_better_as_stored(const rt_weights *weights, bool artefact) {
    pass_panel_sizes all = {0};
    size_t head = 0, in_codes = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const rt_tensor *tensor = &weights->tensors[i];
        if (!is_stored_matrix(tensor)) continue;
        size_t bytes = rt_dtype_bytes(tensor->dtype, elems_of(tensor));
        all.stored += bytes;
        if (bytes > all.largest) all.largest = bytes, head = i;
    }
    for (size_t i = 0; i < weights->count; i++) {
        const rt_tensor *tensor = &weights->tensors[i];
        if (!is_stored_matrix(tensor) || i == head) continue;
        all.panels += elems_of(tensor);
        in_codes += rt_codes_of(tensor->dtype) ? elems_of(tensor) : 0;
    }
    return !pass_panels_fit(&all, artefact) && 2 * in_codes > all.panels;
}

pass_precision fe_pass_precision(fe_precision precision, const char *target_cpu, const rt_weights *weights, bool artefact) {
    switch (precision) {
    case FE_PRECISION_F32: return PASS_F32;
    case FE_PRECISION_BF16: return PASS_BF16;
    case FE_PRECISION_INT16: return PASS_INT16;
    case FE_PRECISION_INT8: return PASS_INT8;
    case FE_PRECISION_BLOCK8: return PASS_BLOCK8;
    case FE_PRECISION_AUTO:
    case FE_PRECISION_COUNT: break;
    }
    if (cg_target_has_tiles(target_cpu)) return PASS_BF16;
    if (!cg_target_dots_bytes(target_cpu)) return PASS_BLOCK8;
    return weights && is_better_as_stored(weights, artefact) ? PASS_BLOCK8 : PASS_INT8;
}
