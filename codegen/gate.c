/* The gate of gated_matmul: gelu(g)·u of two blocks of columns, to memory of f32 or bf16. */
#include "codegen/cg.h"
#include "ir/build.h"

typedef struct gate_job {
    rt_dtype dtype;
    int64_t columns;
    int g, u, rows, out, out_stride; /* kernel arguments */
} gate_job;

static LLVMValueRef times(cg *c, LLVMValueRef x, double factor) {
    return LLVMBuildFMul(c->b, x, cg_f32(c, factor), "");
}

/* The operations of ir_gelu, in its order. */
static LLVMValueRef gelu(cg *c, LLVMValueRef g) {
    LLVMValueRef cube = LLVMBuildFMul(c->b, LLVMBuildFMul(c->b, g, g, ""), g, "");
    LLVMValueRef inner = LLVMBuildFAdd(c->b, g, times(c, cube, IR_GELU_CUBE), ""),
                 bent = cg_tanh(c, times(c, inner, IR_GELU_FACTOR));
    return LLVMBuildFMul(c->b, times(c, g, 0.5), LLVMBuildFAdd(c->b, bent, cg_f32(c, 1), ""), "");
}

static void emit_gate(cg *c, void *user) {
    const gate_job *job = user;
    LLVMValueRef *args = c->code.args;
    LLVMTypeRef type = cg_type(c, job->dtype);
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), args[job->rows], 1);
    LLVMValueRef from = cg_mul(c, rows.index, cg_i64(c, job->columns)),
                 to = cg_at(c, type, args[job->out], cg_mul(c, rows.index, args[job->out_stride]));
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->columns), 1);
    LLVMValueRef at = cg_add(c, from, columns.index);
    LLVMValueRef g = cg_load(c, c->f32, cg_at(c, c->f32, args[job->g], at), 4),
                 u = cg_load(c, c->f32, cg_at(c, c->f32, args[job->u], at), 4);
    LLVMValueRef y = cg_from_f32(c, job->dtype, LLVMBuildFMul(c->b, gelu(c, g), u, ""));
    cg_store(c, y, cg_at(c, type, to, columns.index), (int)rt_dtype_bytes(job->dtype, 1));
    cg_loop_end(c, &columns);
    cg_loop_end(c, &rows);
}

void cg_gate(cg *c, const cg_gated *gated) {
    gate_job job = {.dtype = gated->dtype, .columns = gated->columns};
    cg_kernel kernel = {.count = 0};
    job.g = cg_kernel_arg(&kernel, gated->g);
    job.u = cg_kernel_arg(&kernel, gated->u);
    job.rows = cg_kernel_arg(&kernel, gated->rows);
    job.out = cg_kernel_arg(&kernel, gated->out);
    job.out_stride = cg_kernel_arg(&kernel, gated->out_stride);
    gm_string_printf(&kernel.key, "gate %d %lld", gated->dtype, (long long)gated->columns);
    cg_kernel_call(c, &kernel, "gate", emit_gate, &job);
}
