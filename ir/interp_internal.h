/* What the parts of the interpreter share; nobody else includes this. */
#ifndef GM_IR_INTERP_INTERNAL_H
#define GM_IR_INTERP_INTERNAL_H

#include "ir/rewrite.h"
#include "ir/interp.h"

typedef struct interp_expansion interp_expansion;

/* One run of ir_interp. */
typedef struct interp_run {
    const ir_interp_env *env;
    gm_diag *diag;
    gm_arena arena;               /* of the expansions */
    interp_expansion *expansions; /* of the FUSED instructions met so far */
    int depth;                    /* of calls */
} interp_run;

/* One activation of a function. */
typedef struct interp_frame {
    interp_run *run;
    const ir_module *module;
    const ir_func *func;
    int64_t *extent;  /* by symbol; -1: no value yet */
    ir_array *values; /* by value id */
    gm_arena *arena;  /* takes the results of the region that is running */
    bool quiet;       /* within an expansion: nothing to trace */
} interp_frame;

/* One per primitive op. in[] are the operands, checked against their types; out[] come with dtype and
 * extents set and no data. */
typedef gm_status interp_fn(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out);

#define INTERP_DECLARE_SOURCE(name)                       interp_fn interp_##name;
#define INTERP_DECLARE_ELEM(name)                         interp_fn interp_##name;
#define INTERP_DECLARE_REDUCE(name)                       interp_fn interp_##name;
#define INTERP_DECLARE_CONTRACT(name)                     interp_fn interp_##name;
#define INTERP_DECLARE_MOVE(name)                         interp_fn interp_##name;
#define INTERP_DECLARE_SHAPE(name)                        interp_fn interp_##name;
#define INTERP_DECLARE_CONTROL(name)                      interp_fn interp_##name;
#define INTERP_DECLARE_EFFECT(name)                       interp_fn interp_##name;
#define INTERP_DECLARE_FUSED(name)                        /* means its expansion */
#define OP(name, text, operands, results, regions, class) INTERP_DECLARE_##class(name)
#include "ir/ops.def"
#undef OP

/* Store "@func: %value = op: …" in the run's diag. */
gm_status interp_fail(const interp_frame *frame, const ir_inst *inst, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Zeroed data for a tensor whose dtype and extents are set. */
gm_status interp_alloc(interp_frame *frame, const ir_inst *inst, ir_array *tensor);
size_t interp_bytes(const ir_array *tensor);
/* The extent that a type's dimension has now. */
gm_status interp_extent(const interp_frame *frame, const ir_inst *inst, ir_dim dim, int64_t *out);

/* Run the region with its own scratch memory; its yields are copied into `to`. Symbols that `dim` sets inside
 * have their old values again afterwards. */
gm_status interp_region(interp_frame *frame, const ir_region *region, const ir_array *args, gm_arena *to,
                        ir_array *yields);
/* Run the function; symbols that no argument binds are taken from `outer` (NULL: their bounds). */
gm_status interp_function(interp_run *run, const ir_module *module, const ir_func *func, const ir_array *args,
                          int arg_count, const interp_frame *outer, bool quiet, gm_arena *to, ir_array *results);

/* Element access across dtypes: FLOAT classes through f32, INT and BOOL through int64_t. */
float interp_load_float(const ir_array *tensor, int64_t i);
void interp_store_float(ir_array *tensor, int64_t i, float value);
int64_t interp_load_int(const ir_array *tensor, int64_t i);
void interp_store_int(ir_array *tensor, int64_t i, int64_t value);
static inline int32_t interp_scalar(const ir_array *tensor) {
    return *(const int32_t *)tensor->data;
}

#endif
