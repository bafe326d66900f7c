/* Interleaved rows (runtime/interleave.h) as vectors whose lanes are rows of W: codes and scales of `lanes` of the
 * sixteen rows of a group, those in vector p of it. Internal to codegen/. */
#ifndef GM_CODEGEN_LANES_H
#define GM_CODEGEN_LANES_H

#include "codegen/cg.h"

#include "runtime/interleave.h"

enum { LANES_UNITS = RT_INTERLEAVED_RUN / RT_INTERLEAVED_UNIT, LANES_HALVES = 2 }; /* of a run of 32 columns */

/* Where run `number` of a group's block begins. */
LLVMValueRef lanes_run(cg *c, rt_dtype dtype, LLVMValueRef block, LLVMValueRef number);
/* u8[4·lanes]: the codes of unit u of the run at `run`, four columns of each row. p: i64. */
LLVMValueRef lanes_unit(cg *c, rt_dtype dtype, LLVMValueRef run, int u, LLVMValueRef p);
/* f32[lanes], twice: the scales of the halves of run `number` of a block. */
void lanes_scales(cg *c, rt_dtype dtype, LLVMValueRef block, LLVMValueRef number, LLVMValueRef p, LLVMValueRef *out);
/* f32[lanes]: what is subtracted in run `number` of a block; of types with minima. */
LLVMValueRef lanes_minimum(cg *c, rt_dtype dtype, LLVMValueRef block, LLVMValueRef number, LLVMValueRef p);

#endif
