/* A square of vectors turned: 4×4 in each run of four lanes, by instructions that stay within a run, then the runs
 * change places. */
#include "codegen/cg.h"

enum { MAX_LANES = 16 };

static LLVMValueRef shuffle(cg *c, LLVMValueRef a, LLVMValueRef b, const unsigned *lane, unsigned count) {
    LLVMValueRef mask[MAX_LANES];
    for (unsigned i = 0; i < count; i++) mask[i] = cg_i32(c, lane[i]);
    return LLVMBuildShuffleVector(c->b, a, b, LLVMConstVector(mask, count), "");
}

/* In each run of four lanes: `width` lanes of a and of b in turn, from the run's lower or upper half. */
static LLVMValueRef unpack(cg *c, LLVMValueRef a, LLVMValueRef b, int width, bool upper) {
    unsigned lane[MAX_LANES];
    for (int i = 0; i < c->lanes; i++) {
        int run = i / 4 * 4, within = i % 4, piece = within / width;
        lane[i] = (unsigned)(run + (upper ? 2 : 0) + piece / 2 * width + within % width + (piece % 2 ? c->lanes : 0));
    }
    return shuffle(c, a, b, lane, (unsigned)c->lanes);
}

/* Run `run` of each of the vectors, one after the other. */
static LLVMValueRef gather_runs(cg *c, LLVMValueRef *vectors, int count, int run) {
    unsigned lane[MAX_LANES];
    if (count == 1) {
        for (int i = 0; i < 4; i++) lane[i] = (unsigned)(4 * run + i);
        return shuffle(c, vectors[0], LLVMGetPoison(LLVMTypeOf(vectors[0])), lane, 4);
    }
    LLVMValueRef low = gather_runs(c, vectors, count / 2, run),
                 high = gather_runs(c, vectors + count / 2, count / 2, run);
    for (int i = 0; i < 4 * count; i++) lane[i] = (unsigned)i;
    return shuffle(c, low, high, lane, (unsigned)(4 * count));
}

void cg_transpose(cg *c, LLVMValueRef *v) {
    LLVMValueRef turned[4][MAX_LANES / 4];
    for (int g = 0; g < c->lanes / 4; g++) {
        LLVMValueRef *r = &v[4 * g];
        LLVMValueRef a = unpack(c, r[0], r[1], 1, false), b = unpack(c, r[2], r[3], 1, false);
        LLVMValueRef d = unpack(c, r[0], r[1], 1, true), e = unpack(c, r[2], r[3], 1, true);
        turned[0][g] = unpack(c, a, b, 2, false);
        turned[1][g] = unpack(c, a, b, 2, true);
        turned[2][g] = unpack(c, d, e, 2, false);
        turned[3][g] = unpack(c, d, e, 2, true);
    }
    for (int i = 0; i < c->lanes; i++)
        v[i] = c->lanes == 4 ? turned[i][0] : gather_runs(c, turned[i % 4], c->lanes / 4, i / 4);
}
