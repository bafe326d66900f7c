/* Which plan of the passes a --precision comes to. */
#include "codegen/codegen.h"
#include "frontend/driver.h"
#include "frontend/gmx.h"
#include "runtime/derive.h"
#include "runtime/panel.h"

#include <string.h>

const char *fe_precision_text(fe_precision precision) {
    static const char *const texts[FE_PRECISION_COUNT] = {"auto", "f32", "bf16", "int16", "int8", "block8"};
    return texts[precision];
}

/* Without kept panels int8 would unpack, rotate and round all of W for each chunk, where block8 takes codes as they
 * are. Panels are counted as if of all matrices of the layers, though some keep 16 bits. */
static bool is_better_as_stored(const rt_weights *weights, bool artefact) {
    pass_panel_sizes all = {0};
    size_t elems = 0, in_codes = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const rt_tensor *tensor = &weights->tensors[i];
        if (tensor->rank != 2 || rt_derived_source(tensor->name)) continue;
        size_t count = (size_t)(tensor->dim[0] * tensor->dim[1]), bytes = rt_dtype_bytes(tensor->dtype, count);
        all.stored += bytes;
        if (bytes > all.largest) all.largest = bytes;
        if (strncmp(tensor->name, "layers.", strlen("layers.")) != 0) continue;
        elems += count;
        in_codes += rt_codes_of(tensor->dtype) ? count : 0;
        all.panels += tensor->dim[1] % RT_PANEL_BLOCK == 0 ? rt_dtype_bytes(RT_I8_P16, count) : 0;
    }
    return !pass_panels_fit(&all, artefact) && 2 * in_codes > elems;
}

/* Where bytes are summed: what an artefact was compiled for, which may hold no panels because none were asked for. */
static pass_precision of_bytes(const fe_model *model, bool artefact) {
    pass_precision compiled = model->gmx ? pass_precision_of(model->gmx->key.plan) : PASS_F32;
    if (compiled == PASS_INT8 || compiled == PASS_BLOCK8) return compiled;
    return is_better_as_stored(&model->weights, artefact) ? PASS_BLOCK8 : PASS_INT8;
}

pass_precision fe_pass_precision(fe_precision precision, const char *target_cpu, const fe_model *model, bool artefact) {
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
    return model ? of_bytes(model, artefact) : PASS_INT8;
}
