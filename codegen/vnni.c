/* Sums of products of small integers: the instructions of VNNI, in lanes of 32 bits, and what there is without. */
#include "codegen/cg.h"

#include <stdio.h>
#include <string.h>

static LLVMTypeRef parts_of(cg *c, LLVMValueRef acc, int parts) {
    return LLVMVectorType(parts == 4 ? c->i8 : c->i16, (unsigned)parts * LLVMGetVectorSize(LLVMTypeOf(acc)));
}

/* What VNNI does, in instructions that every target has. */
static LLVMValueRef written_out(cg *c, int parts, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b) {
    LLVMTypeRef type = parts_of(c, acc, parts), sums = LLVMTypeOf(acc);
    unsigned lanes = LLVMGetVectorSize(sums);
    a = LLVMBuildBitCast(c->b, a, type, "");
    b = LLVMBuildBitCast(c->b, b, type, "");
    for (int k = 0; k < parts; k++) {
        LLVMValueRef mask[16];
        for (unsigned i = 0; i < lanes; i++) mask[i] = cg_i32(c, parts * (int)i + k);
        LLVMValueRef pick = LLVMConstVector(mask, lanes);
        LLVMValueRef x = LLVMBuildShuffleVector(c->b, a, a, pick, ""), y = LLVMBuildShuffleVector(c->b, b, b, pick, "");
        x = parts == 4 ? LLVMBuildZExt(c->b, x, sums, "") : LLVMBuildSExt(c->b, x, sums, "");
        acc = cg_add(c, acc, cg_mul(c, x, LLVMBuildSExt(c->b, y, sums, "")));
    }
    return acc;
}

/* By "busd", four bytes, those of a unsigned, or "wssd", two int16. The intrinsic's operands are int16 or their parts,
 * as LLVM's version has it. */
static LLVMValueRef add_dots(cg *c, const char *kind, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b) {
    if (c->emulated) return written_out(c, kind[0] == 'b' ? 4 : 2, acc, a, b);
    char name[40];
    snprintf(name, sizeof name, "llvm.x86.avx512.vpdp%s.%u", kind, 32 * LLVMGetVectorSize(LLVMTypeOf(acc)));
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    LLVMValueRef fn = LLVMGetIntrinsicDeclaration(c->llvm, id, NULL, 0);
    LLVMTypeRef type = LLVMIntrinsicGetType(c->context, id, NULL, 0), params[3];
    LLVMGetParamTypes(type, params);
    LLVMValueRef args[] = {acc, LLVMBuildBitCast(c->b, a, params[1], ""), LLVMBuildBitCast(c->b, b, params[2], "")};
    return LLVMBuildCall2(c->b, type, fn, args, 3, "");
}

LLVMValueRef cg_add_quads(cg *c, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b) {
    GM_ASSERT(c->vnni);
    return add_dots(c, "busd", acc, a, b);
}

LLVMValueRef cg_add_pairs(cg *c, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b) {
    if (c->vnni) return add_dots(c, "wssd", acc, a, b);
    LLVMTypeRef int16s = parts_of(c, acc, 2);
    unsigned lanes = LLVMGetVectorSize(LLVMTypeOf(acc));
    const char *name = lanes == 16  ? "llvm.x86.avx512.pmaddw.d.512"
                       : lanes == 8 ? "llvm.x86.avx2.pmadd.wd"
                                    : "llvm.x86.sse2.pmadd.wd";
    LLVMValueRef sums = cg_intrinsic2(c, name, LLVMTypeOf(acc), LLVMBuildBitCast(c->b, a, int16s, ""),
                                      LLVMBuildBitCast(c->b, b, int16s, ""));
    return cg_add(c, acc, sums);
}

LLVMValueRef cg_byte_pairs(cg *c, LLVMValueRef a, LLVMValueRef b) {
    unsigned bytes = LLVMGetVectorSize(LLVMTypeOf(a));
    GM_ASSERT(bytes == 32 || bytes == 64);
    const char *name = bytes == 64 ? "llvm.x86.avx512.pmaddubs.w.512" : "llvm.x86.avx2.pmadd.ub.sw";
    return cg_intrinsic2(c, name, LLVMVectorType(c->i16, bytes / 2), a, LLVMBuildBitCast(c->b, b, LLVMTypeOf(a), ""));
}

static LLVMValueRef int16_of(cg *c, LLVMValueRef from, int first, int count) {
    LLVMValueRef lanes[16];
    for (int i = 0; i < count; i++) lanes[i] = cg_i32(c, first + i);
    return LLVMBuildShuffleVector(c->b, from, LLVMGetPoison(LLVMTypeOf(from)), LLVMConstVector(lanes, (unsigned)count),
                                  "");
}

LLVMValueRef cg_word_sums(cg *c, LLVMValueRef x) {
    int count = (int)LLVMGetVectorSize(LLVMTypeOf(x)) / 2;
    LLVMValueRef eight = cg_splat(c, LLVMConstInt(c->i16, 8, 0), count);
    LLVMValueRef int16s = LLVMBuildBitCast(c->b, x, LLVMVectorType(c->i16, (unsigned)count), "");
    LLVMValueRef even = LLVMBuildAShr(c->b, LLVMBuildShl(c->b, int16s, eight, ""), eight, "");
    int16s = cg_add(c, even, LLVMBuildAShr(c->b, int16s, eight, ""));
    for (; count > 2; count /= 2)
        int16s = cg_add(c, int16_of(c, int16s, 0, count / 2), int16_of(c, int16s, count / 2, count / 2));
    return int16s;
}

bool cg_int16_hold(const rt_codes *codes, int64_t columns) {
    if (!codes) return false;
    int size = codes->most > -codes->least ? codes->most : -codes->least;
    return size * INT8_MAX * columns / 2 <= INT16_MAX;
}
