/* Integer products with W as it is stored (integer.c, integer_codes.c): a group of columns of a panel times a tile of
 * x.
 *
 * With VNNI products of four columns are summed in lanes of 32 bits until the group ends, then both scales are
 * multiplied in as floats. Without, they go to two int16 of each lane, and stay there until the group ends; then the
 * scale of W is multiplied in as they are summed, and that of x as the sum is converted. On AVX2 a group is written as
 * assembly (vpmaddubsw, vpaddw, vpmaddwd): LLVM rebalances sums of many products, for which there are not registers
 * enough.
 */
#include "codegen/integer.h"

enum { VECTORS = INTEGER_VECTORS, UNIT = 4, INT16_LANES = 2, BYTES = 4, MOST_ROWS = INTEGER_MOST_TALL };

/* ---- in instructions that every target has ---- */

/* acc + w·x of four columns, bytes of w unsigned. */
static LLVMValueRef add_unit(cg *c, LLVMValueRef acc, LLVMValueRef w, LLVMValueRef x) {
    LLVMTypeRef int16s = LLVMVectorType(c->i16, (unsigned)(INT16_LANES * c->lanes));
    LLVMValueRef eight = cg_splat(c, LLVMConstInt(c->i16, 8, 0), INT16_LANES * c->lanes),
                 low = cg_splat(c, LLVMConstInt(c->i16, 255, 0), INT16_LANES * c->lanes);
    w = LLVMBuildBitCast(c->b, w, int16s, ""), x = LLVMBuildBitCast(c->b, x, int16s, "");
    LLVMValueRef even =
        cg_mul(c, LLVMBuildAnd(c->b, w, low, ""), LLVMBuildAShr(c->b, LLVMBuildShl(c->b, x, eight, ""), eight, ""));
    LLVMValueRef odd = cg_mul(c, LLVMBuildLShr(c->b, w, eight, ""), LLVMBuildAShr(c->b, x, eight, ""));
    return cg_add(c, acc, cg_add(c, even, odd));
}

/* The scaled sums of int16: both int16 of a lane times the same part of the unit. */
static LLVMValueRef scaled(cg *c, LLVMValueRef int16s, LLVMValueRef parts) {
    LLVMTypeRef lanes = cg_vector(c, c->i32);
    LLVMValueRef sixteen = cg_spread(c, cg_i32(c, 16)), pair = LLVMBuildBitCast(c->b, int16s, lanes, "");
    LLVMValueRef low = LLVMBuildAShr(c->b, LLVMBuildShl(c->b, pair, sixteen, ""), sixteen, "");
    LLVMValueRef sum = cg_add(c, low, LLVMBuildAShr(c->b, pair, sixteen, ""));
    return cg_mul(c, sum, LLVMBuildAShr(c->b, parts, sixteen, ""));
}

static LLVMValueRef element(cg *c, LLVMTypeRef type, LLVMValueRef from, int64_t at) {
    return cg_load(c, type, cg_at(c, type, from, cg_i64(c, at)), 4);
}

/* Row r of x with vector v of the panel. */
static void emit_sum(cg *c, const integer_group *g, int r, int v) {
    LLVMTypeRef lanes = cg_vector(c, c->i32), floats = cg_vector(c, c->f32),
                int16s = LLVMVectorType(c->i16, (unsigned)(INT16_LANES * c->lanes));
    LLVMValueRef start =
        g->start ? cg_spread(c, element(c, c->i32, g->start, r * g->sum_stride)) : LLVMConstNull(lanes);
    LLVMValueRef acc = cg_variable(c, int16s, NULL);
    LLVMBuildStore(c->b, LLVMBuildBitCast(c->b, start, int16s, ""), acc);
    cg_loop units = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, g->columns / UNIT), 1);
    LLVMValueRef x = cg_spread(
        c, cg_load(c, c->i32, cg_at(c, c->i32, cg_at(c, c->i8, g->x, cg_i64(c, r * g->x_stride)), units.index), 1));
    LLVMValueRef at = cg_add(c, cg_mul(c, units.index, cg_i64(c, VECTORS)), cg_i64(c, v));
    LLVMValueRef w = cg_load(c, lanes, cg_at(c, lanes, g->w, at), 4);
    LLVMBuildStore(c->b, add_unit(c, LLVMBuildLoad2(c->b, int16s, acc, ""), w, x), acc);
    cg_loop_end(c, &units);
    LLVMValueRef parts = cg_load(c, lanes, cg_at(c, lanes, g->scales, cg_i64(c, v)), 4);
    LLVMValueRef sum = LLVMBuildSIToFP(c->b, scaled(c, LLVMBuildLoad2(c->b, int16s, acc, ""), parts), floats, "");
    LLVMValueRef place = cg_at(c, floats, g->sums, cg_i64(c, r * VECTORS + v));
    sum = cg_fma(c, sum, cg_spread(c, element(c, c->f32, g->scale, r * g->scale_stride)), cg_load(c, floats, place, 4));
    if (g->minima) {
        LLVMValueRef minimum = cg_load(c, floats, cg_at(c, floats, g->minima, cg_i64(c, v)), 4);
        sum = cg_fma(c, minimum, cg_spread(c, element(c, c->f32, g->x_sum, r * g->sum_stride)), sum);
    }
    cg_store(c, sum, place, 4);
}

/* ---- in instructions that sum products of bytes ---- */

/* The sums of `rows` rows of x in lanes of 32 bits, before scales. */
static void emit_dots(cg *c, const integer_group *g, LLVMValueRef (*acc)[VECTORS]) {
    for (int r = 0; r < g->rows; r++) {
        LLVMValueRef start = g->start ? cg_spread(c, element(c, c->i32, g->start, r * g->sum_stride))
                                      : LLVMConstNull(cg_vector(c, c->i32));
        for (int v = 0; v < VECTORS; v++) acc[r][v] = start;
    }
    for (int unit = 0; unit < g->columns / UNIT; unit++) {
        LLVMValueRef w[VECTORS];
        for (int v = 0; v < VECTORS; v++) w[v] = element(c, cg_vector(c, c->i32), g->w, unit * VECTORS + v);
        for (int r = 0; r < g->rows; r++) {
            LLVMValueRef x =
                cg_spread(c, cg_load(c, c->i32, cg_at(c, c->i8, g->x, cg_i64(c, r * g->x_stride + UNIT * unit)), 1));
            for (int v = 0; v < VECTORS; v++) acc[r][v] = cg_add_quads(c, acc[r][v], w[v], x);
        }
    }
}

static void emit_dot_group(cg *c, const integer_group *g) {
    LLVMTypeRef floats = cg_vector(c, c->f32);
    LLVMValueRef acc[MOST_ROWS][VECTORS];
    emit_dots(c, g, acc);
    for (int r = 0; r < g->rows; r++)
        for (int v = 0; v < VECTORS; v++) {
            LLVMValueRef place = cg_at(c, floats, g->sums, cg_i64(c, r * VECTORS + v)),
                         sum = LLVMBuildSIToFP(c->b, acc[r][v], floats, "");
            sum = LLVMBuildFMul(c->b, sum, cg_spread(c, element(c, c->f32, g->scale, r * g->scale_stride)), "");
            sum = cg_fma(c, sum, element(c, floats, g->scales, v), cg_load(c, floats, place, 4));
            if (g->minima)
                sum = cg_fma(c, element(c, floats, g->minima, v),
                             cg_spread(c, element(c, c->f32, g->x_sum, r * g->sum_stride)), sum);
            cg_store(c, sum, place, 4);
        }
}

/* ---- as assembly ---- */

/* Its operands, in this order. */
enum { X, W, PARTS, SCALE, SUMS, START, MINIMA, X_SUM, OPERANDS };

/* Its registers: sums, then these. */
typedef struct registers {
    int w, x, product;
} registers;

static int acc_of(int r, int v) {
    return r * VECTORS + v;
}

static void write_start(const integer_group *g, gm_string *out) {
    for (int r = 0; r < g->rows; r++)
        for (int v = 0; v < VECTORS; v++) {
            if (g->start && !v)
                gm_string_printf(out, "vpbroadcastd %lld($%d), %%ymm%d\n", (long long)(r * g->sum_stride * BYTES),
                                 START, acc_of(r, v));
            else if (g->start) gm_string_printf(out, "vmovdqa %%ymm%d, %%ymm%d\n", acc_of(r, 0), acc_of(r, v));
            else gm_string_printf(out, "vpxor %%xmm%d, %%xmm%d, %%xmm%d\n", acc_of(r, v), acc_of(r, v), acc_of(r, v));
        }
}

static void write_unit(const integer_group *g, const registers *at, int unit, gm_string *out) {
    for (int v = 0; v < VECTORS; v++)
        gm_string_printf(out, "vmovdqu %d($%d), %%ymm%d\n", 32 * (unit * VECTORS + v), W, at->w + v);
    for (int r = 0; r < g->rows; r++) {
        gm_string_printf(out, "vpbroadcastd %lld($%d), %%ymm%d\n", (long long)(r * g->x_stride + UNIT * unit), X,
                         at->x);
        for (int v = 0; v < VECTORS; v++)
            gm_string_printf(out, "vpmaddubsw %%ymm%d, %%ymm%d, %%ymm%d\nvpaddw %%ymm%d, %%ymm%d, %%ymm%d\n", at->x,
                             at->w + v, at->product, at->product, acc_of(r, v), acc_of(r, v));
    }
}

static void write_scaled(const integer_group *g, const registers *at, gm_string *out) {
    for (int v = 0; v < VECTORS && g->minima; v++)
        gm_string_printf(out, "vmovups %d($%d), %%ymm%d\n", 32 * v, MINIMA, at->w + v);
    for (int r = 0; r < g->rows; r++) {
        gm_string_printf(out, "vbroadcastss %lld($%d), %%ymm%d\n", (long long)(r * g->scale_stride * BYTES), SCALE,
                         at->x);
        if (g->minima)
            gm_string_printf(out, "vbroadcastss %lld($%d), %%ymm%d\n", (long long)(r * g->sum_stride * BYTES), X_SUM,
                             at->product);
        for (int v = 0; v < VECTORS; v++) {
            int acc = acc_of(r, v);
            gm_string_printf(out, "vpmaddwd %d($%d), %%ymm%d, %%ymm%d\nvcvtdq2ps %%ymm%d, %%ymm%d\n", 32 * v, PARTS,
                             acc, acc, acc, acc);
            gm_string_printf(out, "vfmadd213ps %d($%d), %%ymm%d, %%ymm%d\n", 32 * acc, SUMS, at->x, acc);
            if (g->minima)
                gm_string_printf(out, "vfmadd231ps %%ymm%d, %%ymm%d, %%ymm%d\n", at->product, at->w + v, acc);
            gm_string_printf(out, "vmovups %%ymm%d, %d($%d)\n", acc, 32 * acc, SUMS);
        }
    }
}

static void emit_text(cg *c, const integer_group *g) {
    LLVMValueRef none = LLVMConstNull(c->ptr),
                 args[OPERANDS] = {[X] = g->x,       [W] = g->w,         [PARTS] = g->scales,  [SCALE] = g->scale,
                                   [SUMS] = g->sums, [START] = g->start, [MINIMA] = g->minima, [X_SUM] = g->x_sum};
    registers at = {.w = g->rows * VECTORS, .x = (g->rows + 1) * VECTORS, .product = (g->rows + 1) * VECTORS + 1};
    gm_string text = {0}, constraints = {0};
    LLVMTypeRef types[OPERANDS];
    GM_ASSERT(at.product < 16);
    for (int i = 0; i < OPERANDS; i++) {
        types[i] = c->ptr;
        if (!args[i]) args[i] = none;
        gm_string_printf(&constraints, "r,");
    }
    for (int i = 0; i < 16; i++) gm_string_printf(&constraints, "~{xmm%d},", i);
    gm_string_printf(&constraints, "~{memory}");
    write_start(g, &text);
    for (int unit = 0; unit < g->columns / UNIT; unit++) write_unit(g, &at, unit, &text);
    write_scaled(g, &at, &text);
    LLVMTypeRef fn = LLVMFunctionType(c->void_t, types, OPERANDS, 0);
    LLVMValueRef code = LLVMGetInlineAsm(fn, text.data, text.length, constraints.data, constraints.length, 1, 0,
                                         LLVMInlineAsmDialectATT, 0);
    LLVMBuildCall2(c->b, fn, code, args, OPERANDS, "");
    gm_string_free(&text);
    gm_string_free(&constraints);
}

/* Of 16-lane targets the text has never been run. */
bool integer_stored_in_text(const cg *c) {
    return c->lanes == 8 && !c->vnni && !c->emulated;
}

static LLVMValueRef skip(cg *c, LLVMTypeRef type, LLVMValueRef from, int64_t elements) {
    return from ? cg_at(c, type, from, cg_i64(c, elements)) : NULL;
}

/* The group's rows from `first` on, at most `rows`. */
static integer_group some_rows(cg *c, const integer_group *g, int first, int rows) {
    integer_group some = *g;
    some.rows = g->rows - first < rows ? g->rows - first : rows;
    some.x = skip(c, c->i8, g->x, first * g->x_stride);
    some.scale = skip(c, c->f32, g->scale, first * g->scale_stride);
    some.start = skip(c, c->i32, g->start, first * g->sum_stride);
    some.x_sum = skip(c, c->f32, g->x_sum, first * g->sum_stride);
    some.sums = skip(c, c->f32, g->sums, first * integer_panel_rows(c));
    return some;
}

void integer_emit_stored_group(cg *c, const integer_group *g) {
    if (c->vnni) {
        emit_dot_group(c, g);
        return;
    }
    enum { ROWS = 6 }; /* whose sums, with a unit of the panel and of x and a product, fill 16 registers */
    for (int first = 0; first < g->rows; first += ROWS) {
        integer_group some = some_rows(c, g, first, ROWS);
        if (integer_stored_in_text(c)) emit_text(c, &some);
        else
            for (int i = 0; i < some.rows * VECTORS; i++) emit_sum(c, &some, i / VECTORS, i % VECTORS);
    }
}
