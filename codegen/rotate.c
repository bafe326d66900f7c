/* rotate: rows times the fixed orthogonal matrix of runtime/rotate.h, as signs and butterflies. */
#include "codegen/cg.h"

#include "runtime/rotate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The most vectors of a pass, whose steps are done in registers: four steps where there are 32 of these, else three;
 * and of the first pass, whose steps within vectors need registers too. */
enum { RADIX = 16, FIRST = 8 };

/* Rows that are turned in place: one, or `lanes` of them side by side, with a gap after every BLOCK columns, so that
 * columns which belong together at multiples of that are not all in the same few sets of a cache. */
typedef struct field {
    LLVMValueRef floats;
    int64_t columns, each; /* each: floats from a column to the next, 1 or lanes */
} field;

enum { BLOCK = CG_ROTATE_BLOCK, BLOCK_BITS = 5 };
_Static_assert(1 << BLOCK_BITS == BLOCK, "");

/* Columns that a vector holds. */
static int64_t held(const cg *c, const field *f) {
    return c->lanes / f->each;
}

LLVMValueRef cg_rotate_place(cg *c, LLVMValueRef floats, LLVMValueRef column) {
    LLVMValueRef gaps = LLVMBuildLShr(c->b, column, cg_i64(c, BLOCK_BITS), "");
    return cg_at(c, cg_vector(c, c->f32), floats, cg_add(c, column, gaps));
}

/* Column `column` + more; side by side, `more` is a multiple of BLOCK, which is known to leave the gaps as they are. */
static LLVMValueRef place(cg *c, const field *f, LLVMValueRef column, int64_t more) {
    if (f->each == 1) return cg_at(c, c->f32, f->floats, cg_add(c, column, cg_i64(c, more)));
    GM_ASSERT(more % BLOCK == 0);
    return cg_at(c, cg_vector(c, c->f32), cg_rotate_place(c, f->floats, column), cg_i64(c, more + more / BLOCK));
}

static LLVMValueRef load(cg *c, const field *f, LLVMValueRef column, int64_t more) {
    return cg_load(c, cg_vector(c, c->f32), place(c, f, column, more), 4);
}

static void store(cg *c, LLVMValueRef x, const field *f, LLVMValueRef column, int64_t more) {
    cg_store(c, x, place(c, f, column, more), 4);
}

static double scale_of(int64_t columns) {
    return 1 / sqrt((double)rt_rotate_run(columns));
}

/* An entry of a table, of column `column` of `columns`; by: a number of the table's. */
typedef LLVMValueRef (*entry_fn)(cg *c, int64_t columns, int64_t column, int by);

/* A constant of `columns` entries, made once. */
static LLVMValueRef table_of(cg *c, const char *what, int64_t columns, LLVMTypeRef type, entry_fn entry, int by) {
    char name[48];
    snprintf(name, sizeof name, "rotate_%s.%lld.%d", what, (long long)columns, by);
    LLVMValueRef table = LLVMGetNamedGlobal(c->llvm, name);
    if (table) return table;
    LLVMValueRef *entries = malloc(sizeof *entries * (size_t)columns);
    GM_ASSERT(entries);
    for (int64_t i = 0; i < columns; i++) entries[i] = entry(c, columns, i, by);
    LLVMValueRef values = LLVMConstArray2(type, entries, (uint64_t)columns);
    free(entries);
    table = LLVMAddGlobal(c->llvm, LLVMTypeOf(values), name);
    LLVMSetInitializer(table, values);
    LLVMSetGlobalConstant(table, 1);
    LLVMSetLinkage(table, LLVMInternalLinkage);
    return table;
}

static LLVMValueRef load_entry(cg *c, LLVMValueRef table, LLVMTypeRef type, LLVMValueRef column, int more) {
    return cg_splat(c, cg_load(c, type, cg_at(c, type, table, cg_add(c, column, cg_i64(c, more))), 4), c->lanes);
}

/* What a column is multiplied with: its sign and the transform's scale. */
static LLVMValueRef factor_of(cg *c, int64_t columns, int64_t column, int by) {
    return cg_f32(c, rt_rotate_sign(column) ? -scale_of(columns) : scale_of(columns));
}

/* One step of the transform within a vector: lanes `half` apart. */
static LLVMValueRef step_within(cg *c, LLVMValueRef x, int half) {
    LLVMValueRef swap[16], sign[16];
    for (int i = 0; i < c->lanes; i++) {
        swap[i] = cg_i32(c, i ^ half);
        sign[i] = cg_f32(c, i & half ? -1 : 1);
    }
    LLVMValueRef other = LLVMBuildShuffleVector(c->b, x, x, LLVMConstVector(swap, (unsigned)c->lanes), "");
    return cg_fma(c, x, LLVMConstVector(sign, (unsigned)c->lanes), other);
}

/* The steps of `count` vectors, a power of two, from that of neighbours `half` apart on; of floats or integers. */
static void butterflies(cg *c, LLVMValueRef *x, int half, int count) {
    bool floats = LLVMGetTypeKind(LLVMGetElementType(LLVMTypeOf(x[0]))) == LLVMFloatTypeKind;
    for (; half < count; half *= 2)
        for (int i = 0; i < count; i++) {
            if (i & half) continue;
            LLVMValueRef a = x[i], b = x[i + half];
            x[i] = floats ? LLVMBuildFAdd(c->b, a, b, "") : cg_add(c, a, b);
            x[i + half] = floats ? LLVMBuildFSub(c->b, a, b, "") : cg_sub(c, a, b);
        }
}

/* 32 of them, not 16. */
static bool has_many_registers(const cg *c) {
    return c->lanes == 16;
}

/* to = from with signs and scale; and the steps within `count` vectors that lie side by side. */
static void emit_first(cg *c, LLVMValueRef from, const field *to, int count) {
    LLVMValueRef factors = table_of(c, "factors", to->columns, c->f32, factor_of, 0), x[FIRST];
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, to->columns), (int64_t)count * c->lanes);
    for (int i = 0; i < count; i++) {
        LLVMValueRef at = cg_add(c, loop.index, cg_i64(c, (int64_t)i * c->lanes));
        LLVMValueRef factor = cg_load(c, cg_vector(c, c->f32), cg_at(c, c->f32, factors, at), 4);
        x[i] = LLVMBuildFMul(c->b, cg_load(c, cg_vector(c, c->f32), cg_at(c, c->f32, from, at), 4), factor, "");
        for (int half = 1; half < c->lanes; half *= 2) x[i] = step_within(c, x[i], half);
    }
    butterflies(c, x, 1, count);
    for (int i = 0; i < count; i++) store(c, x[i], to, loop.index, (int64_t)i * c->lanes);
    cg_loop_end(c, &loop);
}

/* The steps from `half` on, `radix` elements of each transform at a time. */
static void emit_pass(cg *c, const field *f, int64_t half, int radix) {
    LLVMValueRef x[RADIX];
    cg_loop outer = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, f->columns), half * radix);
    cg_loop inner = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, half), held(c, f));
    LLVMValueRef at = cg_add(c, outer.index, inner.index);
    for (int i = 0; i < radix; i++) x[i] = load(c, f, at, i * half);
    butterflies(c, x, 1, radix);
    for (int i = 0; i < radix; i++) store(c, x[i], f, at, i * half);
    cg_loop_end(c, &inner);
    cg_loop_end(c, &outer);
}

/* I - 2/m·J across x of m runs, `apart` from one run to the next. */
static void turn_across(cg *c, LLVMValueRef *x, int64_t m, int apart) {
    LLVMValueRef share = cg_splat(c, cg_f32(c, -2.0 / (double)m), c->lanes);
    for (int i = 0; i < apart; i++) {
        LLVMValueRef total = x[i];
        for (int64_t r = 1; r < m; r++) total = LLVMBuildFAdd(c->b, total, x[r * apart + i], "");
        for (int64_t r = 0; r < m; r++) x[r * apart + i] = cg_fma(c, share, total, x[r * apart + i]);
    }
}

/* The last steps, from `half` on, and across the runs, all that belongs together at a time. */
static void emit_last(cg *c, const field *f, int64_t half, cg_turned_fn turned, void *user) {
    int64_t n = rt_rotate_run(f->columns), m = f->columns / n;
    int radix = (int)(n / half);
    LLVMValueRef *x = malloc(sizeof *x * (size_t)(m * radix));
    GM_ASSERT(x);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, half), held(c, f));
    for (int64_t i = 0; i < m * radix; i++) x[i] = load(c, f, loop.index, i * half);
    for (int64_t r = 0; r < m; r++) butterflies(c, x + r * radix, 1, radix);
    if (m > 1) turn_across(c, x, m, radix);
    for (int64_t i = 0; i < m * radix; i++) {
        if (turned) turned(c, x[i], user);
        store(c, x[i], f, loop.index, i * half);
    }
    cg_loop_end(c, &loop);
    free(x);
}

/* The steps from `half` on, those before being done. */
static void emit_rest(cg *c, const field *f, int64_t half, cg_turned_fn turned, void *user) {
    /* most: vectors in registers at a time */
    int64_t n = rt_rotate_run(f->columns), m = f->columns / n, last = 1, most = has_many_registers(c) ? 24 : 12;
    int largest = has_many_registers(c) ? RADIX : RADIX / 2;
    while (2 * last <= largest && 2 * last * m <= most && half * last < n) last *= 2;
    for (int64_t left = n / half / last; left > 1;) {
        int radix = left < largest ? (int)left : largest;
        emit_pass(c, f, half, radix);
        half *= radix;
        left /= radix;
    }
    emit_last(c, f, half, turned, user);
}

void cg_emit_rotated_row(cg *c, int64_t columns, LLVMValueRef from, LLVMValueRef to) {
    field f = {.floats = to, .columns = columns, .each = 1};
    int64_t run = rt_rotate_run(columns);
    int count = 1;
    while (2 * count <= FIRST && 2 * count * c->lanes <= run) count *= 2;
    emit_first(c, from, &f, count);
    if (count * c->lanes < columns) emit_rest(c, &f, (int64_t)count * c->lanes, NULL, NULL);
}

/* ---- rows side by side ---- */

enum { QUAD = CG_ROTATE_QUAD };

/* Column j of the transform's first steps, and the column's sign: what column `column` has of column j of those that
 * are turned with it. */
static int sign_in(int64_t column, int64_t j, int64_t together) {
    int64_t first = column / together * together, both = column % together & j;
    bool odd = __builtin_popcountll((unsigned long long)both) & 1, minus = rt_rotate_sign(first + j);
    return odd != minus ? -1 : 1;
}

static int sum_of(int64_t column, int64_t together) {
    int sum = 0;
    for (int64_t j = 0; j < together; j++) sum += sign_in(column, j, together);
    return sum;
}

/* The signs of a quad as signed bytes. */
static LLVMValueRef quad_signs(cg *c, int64_t columns, int64_t column, int by) {
    uint32_t bytes = 0;
    for (int j = 0; j < QUAD; j++) bytes |= (uint32_t)(sign_in(column, j, QUAD) & 255) << (8 * j);
    return LLVMConstInt(c->i32, bytes, 0);
}

/* What a quad's sum begins with, so that each of the codes is less `bias`. */
static LLVMValueRef quad_start(cg *c, int64_t columns, int64_t column, int bias) {
    return cg_i32(c, -bias * sum_of(column, QUAD));
}

static LLVMValueRef ones_turned(cg *c, int64_t columns, int64_t column, int by) {
    return cg_f32(c, sum_of(column, CG_ROTATE_BLOCK));
}

/* Four columns, their signs and first two steps: where products of bytes are summed, one such sum each. */
static void turn_quad(cg *c, int64_t columns, LLVMValueRef first, LLVMValueRef codes, int bias, LLVMValueRef *x) {
    LLVMTypeRef ints = LLVMVectorType(c->i32, (unsigned)c->lanes);
    LLVMValueRef signs = table_of(c, "signs", columns, c->i32, quad_signs, 0),
                 lanes = LLVMBuildBitCast(c->b, codes, ints, "");
    if (c->vnni) {
        LLVMValueRef starts = bias ? table_of(c, "starts", columns, c->i32, quad_start, bias) : NULL;
        for (int k = 0; k < QUAD; k++)
            x[k] = cg_add_quads(c, starts ? load_entry(c, starts, c->i32, first, k) : LLVMConstNull(ints), codes,
                                load_entry(c, signs, c->i32, first, k));
        return;
    }
    LLVMValueRef bytes = load_entry(c, signs, c->i32, first, 0); /* of column 0, which adds all: their own signs */
    for (int k = 0; k < QUAD; k++) {
        LLVMValueRef up = cg_splat(c, cg_i32(c, 24 - 8 * k), c->lanes), down = cg_splat(c, cg_i32(c, 31), c->lanes),
                     by = cg_splat(c, cg_i32(c, 8 * k), c->lanes);
        LLVMValueRef minus = LLVMBuildAShr(c->b, LLVMBuildShl(c->b, bytes, up, ""), down, ""); /* -1 or 0 */
        x[k] = LLVMBuildAnd(c->b, LLVMBuildLShr(c->b, lanes, by, ""), cg_splat(c, cg_i32(c, 255), c->lanes), "");
        x[k] = cg_sub(c, LLVMBuildXor(c->b, cg_sub(c, x[k], cg_splat(c, cg_i32(c, bias), c->lanes)), minus, ""), minus);
    }
    butterflies(c, x, 1, QUAD);
}

void cg_rotate_codes(cg *c, int64_t columns, LLVMValueRef first, LLVMValueRef const *codes, int bias, LLVMValueRef *x) {
    for (int i = 0; i < CG_ROTATE_CODES; i += QUAD)
        turn_quad(c, columns, cg_add(c, first, cg_i64(c, i)), codes[i / QUAD], bias, x + i);
    butterflies(c, x, QUAD, CG_ROTATE_CODES);
}

LLVMValueRef cg_rotate_ones(cg *c, int64_t columns, LLVMValueRef column, int more) {
    return load_entry(c, table_of(c, "ones", columns, c->f32, ones_turned, 0), c->f32, column, more);
}

double cg_rotate_scale(int64_t columns) {
    return scale_of(columns);
}

void cg_rotate_rows(cg *c, int64_t columns, LLVMValueRef floats, int64_t half, cg_turned_fn turned, void *user) {
    emit_rest(c, &(field){.floats = floats, .columns = columns, .each = c->lanes}, half, turned, user);
}

bool cg_can_rotate(const cg *c, int64_t columns) {
    return rt_rotate_run(columns) >= c->lanes;
}
