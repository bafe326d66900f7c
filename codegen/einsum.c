/* einsum: a plain loop nest, result elements shared out between the threads. The passes turn the einsums that matter
 * into attention or matmul; this is for the programs in which they were left out.
 */
#include "codegen/cg.h"

#include <string.h>

typedef struct einsum_job {
    char result[8], inner[16]; /* letters */
    ir_dim extent[26];
    int64_t stride[3][26]; /* of x, y, result by letter; 0 where absent */
    int args[3];
} einsum_job;

static void bind(einsum_job *job, int which, const char *letters, const ir_type *type, const ir_layout *layout) {
    for (size_t i = 0; letters[i]; i++) {
        int at = letters[i] - 'a';
        job->extent[at] = type->dim[i];
        job->stride[which][at] = layout->stride[i];
    }
}

static void describe(cg *c, const ir_inst *inst, einsum_job *job) {
    ir_einsum_spec spec = ir_einsum_spec_of(inst);
    const ir_value *values[3] = {inst->operands[0], inst->operands[1], inst->results[0]};
    const char *letters[3] = {spec.operand[0], spec.operand[1], spec.result};
    for (int i = 0; i < 3; i++) bind(job, i, letters[i], &values[i]->type, &cg_slot_of(c, values[i])->layout);
    strcpy(job->result, spec.result);
    for (int i = 0; i < 2; i++)
        for (const char *l = letters[i]; *l; l++)
            if (!strchr(job->result, *l) && !strchr(job->inner, *l)) job->inner[strlen(job->inner)] = *l;
}

static LLVMValueRef offset_of(cg *c, const einsum_job *job, int which, LLVMValueRef index[26]) {
    LLVMValueRef offset = cg_i64(c, 0);
    for (int l = 0; l < 26; l++)
        if (index[l] && job->stride[which][l])
            offset = cg_add(c, offset, cg_mul(c, index[l], cg_i64(c, job->stride[which][l])));
    return offset;
}

/* Σ over the inner letters from `at` on, added to *total. */
static void emit_inner(cg *c, const einsum_job *job, int at, LLVMValueRef index[26], LLVMValueRef total) {
    if (!job->inner[at]) {
        LLVMValueRef x =
            cg_load(c, c->f32, cg_at(c, c->f32, c->code.args[job->args[0]], offset_of(c, job, 0, index)), 4);
        LLVMValueRef y =
            cg_load(c, c->f32, cg_at(c, c->f32, c->code.args[job->args[1]], offset_of(c, job, 1, index)), 4);
        LLVMValueRef sum =
            LLVMBuildFAdd(c->b, LLVMBuildLoad2(c->b, c->f32, total, ""), LLVMBuildFMul(c->b, x, y, ""), "");
        LLVMSetFastMathFlags(sum, LLVMFastMathAllowReassoc | LLVMFastMathAllowContract | LLVMFastMathNoSignedZeros);
        LLVMBuildStore(c->b, sum, total);
        return;
    }
    int letter = job->inner[at] - 'a';
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_dim(c, job->extent[letter]), 1);
    index[letter] = loop.index;
    emit_inner(c, job, at + 1, index, total);
    index[letter] = NULL;
    cg_loop_end(c, &loop);
}

static void emit_nest(cg *c, void *user) {
    einsum_job *job = user;
    LLVMValueRef count = cg_i64(c, 1), index[26] = {NULL}, from, to, total = cg_variable(c, c->f32, NULL);
    for (const char *l = job->result; *l; l++) count = cg_mul(c, count, cg_dim(c, job->extent[*l - 'a']));
    cg_share(c, count, 1, &from, &to);
    cg_loop loop = cg_loop_begin(c, from, to, 1);
    LLVMValueRef rest = loop.index;
    for (int i = (int)strlen(job->result); i-- > 0;) {
        LLVMValueRef extent = cg_dim(c, job->extent[job->result[i] - 'a']);
        index[job->result[i] - 'a'] = i ? LLVMBuildURem(c->b, rest, extent, "") : rest;
        if (i) rest = LLVMBuildUDiv(c->b, rest, extent, "");
    }
    LLVMBuildStore(c->b, cg_f32(c, 0), total);
    emit_inner(c, job, 0, index, total);
    LLVMValueRef out = cg_at(c, c->f32, c->code.args[job->args[2]], offset_of(c, job, 2, index));
    cg_store(c, LLVMBuildLoad2(c->b, c->f32, total, ""), out, 4);
    cg_loop_end(c, &loop);
}

void cg_emit_einsum(cg *c, const ir_inst *inst) {
    einsum_job job = {.result = ""};
    cg_kernel kernel = {.count = 0};
    cg_slot *result = cg_slot_of(c, inst->results[0]);
    const cg_slot *reads[] = {cg_slot_of(c, inst->operands[0]), cg_slot_of(c, inst->operands[1])}, *write = result;
    for (int i = 0; i < 2; i++)
        if (inst->operands[i]->type.rank == 0) {
            cg_unsupported(c, inst, "scalar operands");
            return;
        }
    cg_access(c, reads, 2, &write, 1);
    describe(c, inst, &job);
    job.args[0] = cg_kernel_arg(&kernel, reads[0]->base);
    job.args[1] = cg_kernel_arg(&kernel, reads[1]->base);
    job.args[2] = cg_kernel_arg(&kernel, result->base);
    gm_string_printf(&kernel.key, "einsum %s %s", job.result, job.inner);
    for (int l = 0; l < 26; l++)
        gm_string_printf(&kernel.key, " %lld:%lld,%lld,%lld", (long long)job.extent[l], (long long)job.stride[0][l],
                         (long long)job.stride[1][l], (long long)job.stride[2][l]);
    cg_kernel_call(c, &kernel, "einsum", emit_nest, &job);
    if (inst->results[0]->type.rank) return;
    cg_access(c, &write, 1, NULL, 0);
    result->reg = cg_load(c, c->f32, result->base, 4);
}
