/* The tile registers of AMX (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18): eight
 * of up to 16 rows of 64 bytes, configured before they are used and released after it, within one kernel. For the
 * target that stands in they lie in memory, and what the instructions do is written out.
 */
#include "codegen/cg.h"

enum {
    ROWS = CG_TILE_ROWS,
    BYTES = CG_TILE_BYTES,
    LANES = BYTES / 4,
    TILE = ROWS * BYTES,
    PALETTE = 1,
    AT_COLUMNS = 16,
    AT_ROWS = 48,
    CONFIG = 64
};

static LLVMValueRef number_of(cg *c, int tile) {
    return LLVMConstInt(c->i8, (unsigned long long)tile, 0);
}

/* ---- in memory ---- */

static LLVMTypeRef lanes_type(cg *c, LLVMTypeRef element) {
    return LLVMVectorType(element, LANES);
}

static LLVMValueRef tile_row(cg *c, int tile, LLVMValueRef row) {
    return cg_at(c, c->i8, c->code.tiles, cg_add(c, cg_i64(c, tile * TILE), cg_mul(c, row, cg_i64(c, BYTES))));
}

static LLVMValueRef rows_of(cg *c, int tile) {
    LLVMValueRef at = cg_at(c, c->i8, c->code.tile_config, cg_i64(c, AT_ROWS + tile));
    return LLVMBuildZExt(c->b, cg_load(c, c->i8, at, 1), c->i64, "");
}

/* Lane by lane acc += Σ a·b of four signed bytes. */
static LLVMValueRef add_bytes(cg *c, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b) {
    LLVMValueRef down = cg_splat(c, cg_i32(c, 24), LANES);
    for (int k = 0; k < 4; k++) {
        LLVMValueRef up = cg_splat(c, cg_i32(c, 24 - 8 * k), LANES);
        LLVMValueRef x = LLVMBuildAShr(c->b, LLVMBuildShl(c->b, a, up, ""), down, ""),
                     y = LLVMBuildAShr(c->b, LLVMBuildShl(c->b, b, up, ""), down, "");
        acc = cg_add(c, acc, cg_mul(c, x, y));
    }
    return acc;
}

/* The same of two bf16, acc in f32. */
static LLVMValueRef add_halves(cg *c, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b) {
    LLVMTypeRef floats = lanes_type(c, c->f32);
    LLVMValueRef sum = LLVMBuildBitCast(c->b, acc, floats, ""), sixteen = cg_splat(c, cg_i32(c, 16), LANES),
                 high = cg_splat(c, cg_i32(c, 0xFFFF0000), LANES);
    LLVMValueRef x[] = {LLVMBuildShl(c->b, a, sixteen, ""), LLVMBuildAnd(c->b, a, high, "")},
                 y[] = {LLVMBuildShl(c->b, b, sixteen, ""), LLVMBuildAnd(c->b, b, high, "")};
    for (int k = 0; k < 2; k++)
        sum = cg_fma(c, LLVMBuildBitCast(c->b, x[k], floats, ""), LLVMBuildBitCast(c->b, y[k], floats, ""), sum);
    return LLVMBuildBitCast(c->b, sum, LLVMTypeOf(acc), "");
}

typedef LLVMValueRef (*add_fn)(cg *c, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b);

static void write_dots(cg *c, int sums, int a, int b, add_fn add) {
    LLVMTypeRef ints = lanes_type(c, c->i32);
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), rows_of(c, sums), 1);
    cg_loop units = cg_loop_begin(c, cg_i64(c, 0), rows_of(c, b), 1);
    LLVMValueRef x = cg_load(c, c->i32, cg_at(c, c->i32, tile_row(c, a, rows.index), units.index), 4);
    LLVMValueRef w = cg_load(c, ints, tile_row(c, b, units.index), 4), place = tile_row(c, sums, rows.index);
    cg_store(c, add(c, cg_load(c, ints, place, 4), cg_splat(c, x, LANES), w), place, 4);
    cg_loop_end(c, &units);
    cg_loop_end(c, &rows);
}

/* Between a tile and memory, a row of `stride` bytes at a time. */
static void copy_rows(cg *c, int tile, LLVMValueRef memory, LLVMValueRef stride, bool load) {
    LLVMTypeRef ints = lanes_type(c, c->i32);
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), rows_of(c, tile), 1);
    LLVMValueRef in_tile = tile_row(c, tile, rows.index),
                 outside = cg_at(c, c->i8, memory, cg_mul(c, rows.index, stride));
    cg_store(c, cg_load(c, ints, load ? outside : in_tile, 1), load ? in_tile : outside, 1);
    cg_loop_end(c, &rows);
}

/* ---- what kernels call ---- */

void cg_tiles_configure(cg *c, LLVMValueRef rows, unsigned which) {
    GM_ASSERT(c->tiles);
    LLVMTypeRef type = LLVMVectorType(c->i8, CONFIG);
    LLVMValueRef bytes[CONFIG], few = LLVMBuildTrunc(c->b, rows, c->i8, "");
    if (!c->code.tile_config) c->code.tile_config = cg_variable(c, type, NULL);
    if (!c->code.tiles && c->emulated) c->code.tiles = cg_variable(c, LLVMArrayType2(c->i8, CG_TILES * TILE), NULL);
    for (int i = 0; i < CONFIG; i++) bytes[i] = LLVMConstInt(c->i8, 0, 0);
    bytes[0] = number_of(c, PALETTE);
    for (int i = 0; i < CG_TILES; i++)
        bytes[AT_COLUMNS + 2 * i] = LLVMConstInt(c->i8, BYTES, 0), bytes[AT_ROWS + i] = LLVMConstInt(c->i8, ROWS, 0);
    cg_store(c, LLVMConstVector(bytes, CONFIG), c->code.tile_config, 1);
    for (int i = 0; i < CG_TILES; i++)
        if (which >> i & 1) cg_store(c, few, cg_at(c, c->i8, c->code.tile_config, cg_i64(c, AT_ROWS + i)), 1);
    if (!c->emulated) cg_intrinsic(c, "llvm.x86.ldtilecfg", NULL, &c->code.tile_config, 1);
}

void cg_tiles_release(cg *c) {
    if (!c->emulated) cg_intrinsic(c, "llvm.x86.tilerelease", NULL, NULL, 0);
}

void cg_tile_zero(cg *c, int tile) {
    LLVMValueRef number = number_of(c, tile);
    if (!c->emulated) {
        cg_intrinsic(c, "llvm.x86.tilezero", NULL, &number, 1);
        return;
    }
    cg_loop rows = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, ROWS), 1);
    cg_store(c, LLVMConstNull(lanes_type(c, c->i32)), tile_row(c, tile, rows.index), 4);
    cg_loop_end(c, &rows);
}

void cg_tile_load(cg *c, int tile, LLVMValueRef from, LLVMValueRef stride) {
    LLVMValueRef args[] = {number_of(c, tile), from, stride};
    if (c->emulated) copy_rows(c, tile, from, stride, true);
    else cg_intrinsic(c, "llvm.x86.tileloadd64", NULL, args, 3);
}

void cg_tile_store(cg *c, int tile, LLVMValueRef to, LLVMValueRef stride) {
    LLVMValueRef args[] = {number_of(c, tile), to, stride};
    if (c->emulated) copy_rows(c, tile, to, stride, false);
    else cg_intrinsic(c, "llvm.x86.tilestored64", NULL, args, 3);
}

static void add_products(cg *c, int sums, int a, int b, const char *name, add_fn written_out) {
    LLVMValueRef args[] = {number_of(c, sums), number_of(c, a), number_of(c, b)};
    if (c->emulated) write_dots(c, sums, a, b, written_out);
    else cg_intrinsic(c, name, NULL, args, 3);
}

void cg_tile_add_bytes(cg *c, int sums, int a, int b) {
    add_products(c, sums, a, b, "llvm.x86.tdpbssd", add_bytes);
}

void cg_tile_add_halves(cg *c, int sums, int a, int b) {
    add_products(c, sums, a, b, "llvm.x86.tdpbf16ps", add_halves);
}
