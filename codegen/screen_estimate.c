/* Estimates and bounds of the scores of all rows from their screen (runtime/screen.h). Vector lanes are rows, so that no sum crosses lanes:
 * for a run of 32 columns an integer sum Σ code·q of eight or sixteen rows at once, then s·(step·Σ code·q - 8·step·Σq) in f32. The codes of a run are put
 * together once for all rows of x.
 *
 * Slabs of groups are dealt out in turn, because the rows that can win lie close together: usual tokens have low numbers.
 */
#include "codegen/screen.h"

#include <math.h>

enum { RUN = RT_SCREEN_RUN, ROWS = RT_SCREEN_ROWS, LANES = SCREEN_LANES, PARTS = SCREEN_PARTS, PIECE = RT_SCREEN_PIECE };

/* ---- this thread's groups ---- */

int64_t screen_slabs(const screen_job *job) {
    return (job->rows / ROWS + SCREEN_SLAB - 1) / SCREEN_SLAB;
}

cg_loop screen_slabs_begin(cg *c, const screen_job *job) {
    LLVMValueRef thread = cg_widen(c, c->code.thread), threads = cg_widen(c, c->code.threads);
    LLVMValueRef left = cg_sub(c, cg_add(c, cg_i64(c, screen_slabs(job) - 1), threads), thread);
    return cg_loop_begin(c, cg_i64(c, 0), LLVMBuildSDiv(c->b, left, threads, ""), 1);
}

cg_loop screen_groups_begin(cg *c, const screen_job *job, const cg_loop *slabs) {
    LLVMValueRef thread = cg_widen(c, c->code.thread), threads = cg_widen(c, c->code.threads), slab = cg_i64(c, SCREEN_SLAB);
    LLVMValueRef first = cg_mul(c, cg_add(c, cg_mul(c, slabs->index, threads), thread), slab);
    return cg_loop_begin(c, first, cg_min(c, cg_add(c, first, slab), cg_i64(c, job->rows / ROWS)), 1);
}

/* ---- integer sums: lanes are rows, of four columns each ---- */

LLVMTypeRef screen_eight(LLVMTypeRef type, int each) {
    return LLVMVectorType(type, (unsigned)(LANES * each));
}

LLVMValueRef screen_lanes(cg *c, LLVMValueRef truths) {
    return LLVMBuildBitCast(c->b, truths, LLVMIntTypeInContext(c->context, LLVMGetVectorSize(LLVMTypeOf(truths))), "");
}

cg_branch screen_if_any(cg *c, LLVMValueRef lanes) {
    return cg_if(c, LLVMBuildICmp(c->b, LLVMIntNE, lanes, LLVMConstNull(LLVMTypeOf(lanes)), ""));
}

/* Rows of a vector here: a group's, where the target sums products of bytes in vectors as wide, else eight. */
static int rows_together(const cg *c) {
    return c->dot_bytes && c->lanes >= ROWS ? ROWS : LANES;
}

static LLVMTypeRef rows_type(cg *c, LLVMTypeRef type, int each) {
    return LLVMVectorType(type, (unsigned)(rows_together(c) * each));
}

static LLVMValueRef splat(cg *c, LLVMValueRef x) {
    return cg_splat(c, x, rows_together(c));
}

/* Sums of neighbours. */
static LLVMValueRef add_neighbours(cg *c, LLVMValueRef v) {
    LLVMValueRef even[2 * LANES], odd[2 * LANES], none = LLVMGetPoison(LLVMTypeOf(v));
    unsigned count = LLVMGetVectorSize(LLVMTypeOf(v)) / 2;
    for (unsigned i = 0; i < count; i++) even[i] = cg_i32(c, 2 * i), odd[i] = cg_i32(c, 2 * i + 1);
    return cg_add(c, LLVMBuildShuffleVector(c->b, v, none, LLVMConstVector(even, count), ""),
                  LLVMBuildShuffleVector(c->b, v, none, LLVMConstVector(odd, count), ""));
}

/* Σ code·q of pairs of columns: at most 2·15·127 in magnitude. */
static LLVMValueRef pair_sums(cg *c, LLVMValueRef codes, LLVMValueRef q) {
    if (c->lanes >= LANES) return cg_intrinsic2(c, "llvm.x86.avx2.pmadd.ub.sw", screen_eight(c->i16, 2), codes, q);
    return add_neighbours(c, cg_mul(c, LLVMBuildZExt(c->b, codes, screen_eight(c->i16, 4), ""), LLVMBuildSExt(c->b, q, screen_eight(c->i16, 4), "")));
}

/* What was summed before, NULL: nothing, and Σ code·q of four columns. */
static LLVMValueRef add_pairs(cg *c, LLVMValueRef before, LLVMValueRef codes, LLVMValueRef q) {
    LLVMValueRef sums = pair_sums(c, codes, q);
    return before ? cg_add(c, before, sums) : sums;
}

static LLVMValueRef add_four(cg *c, LLVMValueRef before, LLVMValueRef codes, LLVMValueRef q) {
    return cg_add_quads(c, before ? before : LLVMConstNull(rows_type(c, c->i32, 1)), codes, q);
}

/* The sum of a row's two pairs; in lanes of i32 they have been added. */
static LLVMValueRef row_sums(cg *c, LLVMValueRef pairs) {
    if (c->dot_bytes) return pairs;
    LLVMValueRef ones = cg_splat(c, LLVMConstInt(c->i16, 1, 0), 2 * LANES);
    if (c->lanes >= LANES) return cg_intrinsic2(c, "llvm.x86.avx2.pmadd.wd", screen_eight(c->i32, 1), pairs, ones);
    return add_neighbours(c, LLVMBuildSExt(c->b, pairs, screen_eight(c->i32, 2), ""));
}

/* Four columns of x for every row. */
static LLVMValueRef load_columns(cg *c, const screen_x *x, LLVMValueRef column) {
    LLVMValueRef four = cg_load(c, c->i32, cg_at(c, c->i8, x->q, column), 4);
    return LLVMBuildBitCast(c->b, splat(c, four), rows_type(c, c->i8, 4), "");
}

/* ---- codes ---- */

/* A run of a vector's rows. */
typedef struct block {
    LLVMValueRef upper, lower, scales; /* the group's */
    LLVMValueRef part;                 /* which vector of the group */
} block;

static LLVMValueRef and_each(cg *c, LLVMValueRef words, int byte) {
    return LLVMBuildAnd(c->b, words, cg_splat(c, LLVMConstInt(c->i16, (unsigned)byte * 0x0101, 0), 2 * rows_together(c)), "");
}

static LLVMValueRef shift_each(cg *c, LLVMValueRef words, int bits, bool left) {
    LLVMValueRef by = cg_splat(c, LLVMConstInt(c->i16, (unsigned)bits, 0), 2 * rows_together(c));
    return left ? LLVMBuildShl(c->b, words, by, "") : LLVMBuildLShr(c->b, words, by, "");
}

/* The words of piece `piece` of a run of one of the planes; what comes CG_AHEAD of it is asked for. */
static LLVMValueRef load_piece(cg *c, LLVMValueRef codes, const block *at, int piece) {
    LLVMValueRef from = cg_add(c, cg_mul(c, at->part, cg_i64(c, 4 * rows_together(c))), cg_i64(c, PIECE / 4 * ROWS * piece)), words = cg_at(c, c->i8, codes, from);
    cg_prefetch(c, cg_at(c, c->i8, words, cg_i64(c, CG_AHEAD)));
    return cg_load(c, rows_type(c, c->i16, 2), words, 1);
}

static LLVMValueRef bytes_of(cg *c, LLVMValueRef words) {
    return LLVMBuildBitCast(c->b, words, rows_type(c, c->i8, 4), "");
}

/* Where products of bytes are summed in lanes of i32, codes of the upper nibbles stay there, and with them their sums. */
static bool stays_upper(const cg *c, const screen_job *job, int j) {
    return c->dot_bytes && !job->sketch && j / 2;
}

/* out[j]: the codes of columns 4j to 4j + 3 of a piece; of a sketch just their upper two bits. */
static void load_codes(cg *c, const screen_job *job, const block *at, int piece, LLVMValueRef *out) {
    LLVMValueRef high = load_piece(c, at->upper, at, piece);
    if (job->sketch) {
        for (int j = 0; j < 4; j++) out[j] = bytes_of(c, and_each(c, j ? shift_each(c, high, 2 * j, false) : high, 3));
        return;
    }
    LLVMValueRef low = load_piece(c, at->lower, at, piece);
    LLVMValueRef odd = LLVMBuildOr(c->b, and_each(c, high, 0xCC), and_each(c, shift_each(c, low, 2, false), 0x33), "");
    LLVMValueRef even = LLVMBuildOr(c->b, and_each(c, shift_each(c, high, 2, true), 0xCC), and_each(c, low, 0x33), "");
    for (int j = 0; j < 4; j++) {
        LLVMValueRef pair = j % 2 ? odd : even;
        bool upper = stays_upper(c, job, j);
        out[j] = bytes_of(c, and_each(c, j / 2 && !upper ? shift_each(c, pair, 4, false) : pair, upper ? 0xF0 : 15));
    }
}

/* ---- estimates ---- */

enum { MOST_ROWS = RT_FEW_ROWS };

/* Variables, of vectors of rows of W for each row of x: Σ s·step·Σ (code - 8)·q, and how far it may be off, in their units. */
typedef struct estimate {
    LLVMValueRef sum[MOST_ROWS][PARTS], bound[MOST_ROWS][PARTS];
    LLVMValueRef top[MOST_ROWS], where[MOST_ROWS]; /* in each lane the largest estimate so far, and its row */
} estimate;

static LLVMValueRef splat_of(cg *c, LLVMValueRef base, LLVMValueRef run) {
    return splat(c, cg_load(c, c->f32, cg_at(c, c->f32, base, run), 4));
}

/* What each of a vector's rows has in a section of a group's, `type`s as i32. */
static LLVMValueRef load_each(cg *c, LLVMTypeRef type, LLVMValueRef section, LLVMValueRef part) {
    LLVMValueRef stored = cg_load(c, rows_type(c, type, 1), cg_at(c, type, section, cg_mul(c, part, cg_i64(c, rows_together(c)))), 1);
    return LLVMBuildZExt(c->b, stored, rows_type(c, c->i32, 1), "");
}

/* The run's scales or bounds of a vector's rows. */
static LLVMValueRef load_numbers(cg *c, LLVMValueRef section, const block *at) {
    return LLVMBuildSIToFP(c->b, load_each(c, c->i8, section, at->part), rows_type(c, c->f32, 1), "");
}

static void accumulate(cg *c, LLVMValueRef variable, LLVMValueRef scale, LLVMValueRef value) {
    LLVMBuildStore(c->b, cg_fma(c, scale, value, LLVMBuildLoad2(c->b, rows_type(c, c->f32, 1), variable, "")), variable);
}

/* sums[row][part] = Σ code·q over a run: below 2^16 in lanes of i32 where the target sums products of bytes, else of pairs in words, below
 * 2^15. */
static void run_sums(cg *c, const screen_job *job, const block *at, int parts, const screen_x *x, LLVMValueRef first,
                     LLVMValueRef sums[MOST_ROWS][PARTS]) {
    LLVMValueRef upper[MOST_ROWS][PARTS] = {0};
    for (int r = 0; r < job->x_rows; r++)
        for (int p = 0; p < parts; p++) sums[r][p] = NULL;
    for (int piece = 0; piece < RUN / PIECE; piece++) {
        LLVMValueRef codes[PARTS][4];
        for (int p = 0; p < parts; p++) load_codes(c, job, &at[p], piece, codes[p]);
        for (int r = 0; r < job->x_rows; r++)
            for (int j = 0; j < 4; j++) {
                LLVMValueRef q = load_columns(c, &x[r], cg_add(c, first, cg_i64(c, PIECE * piece + 4 * j)));
                for (int p = 0; p < parts; p++) {
                    LLVMValueRef *sum = stays_upper(c, job, j) ? &upper[r][p] : &sums[r][p];
                    *sum = c->dot_bytes ? add_four(c, *sum, codes[p][j], q) : add_pairs(c, *sum, codes[p][j], q);
                }
            }
    }
    for (int r = 0; r < job->x_rows; r++)
        for (int p = 0; p < parts; p++)
            if (upper[r][p]) sums[r][p] = cg_add(c, sums[r][p], LLVMBuildAShr(c->b, upper[r][p], splat(c, cg_i32(c, 4)), ""));
}

/* Run `run` of the row, which is at at[p], for `parts` vectors of rows. */
static void emit_run(cg *c, const screen_job *job, const estimate *e, const block *at, int parts, const screen_x *x, LLVMValueRef run) {
    LLVMValueRef sums[MOST_ROWS][PARTS], scale[PARTS], bound[PARTS];
    run_sums(c, job, at, parts, x, cg_mul(c, run, cg_i64(c, RUN)), sums);
    for (int p = 0; p < parts; p++) {
        LLVMTypeRef floats = rows_type(c, c->f32, 1);
        scale[p] = load_numbers(c, at[p].scales, &at[p]);
        bound[p] = job->sketch ? NULL : load_numbers(c, cg_at(c, c->i8, at[p].scales, cg_i64(c, ROWS)), &at[p]);
        for (int r = 0; r < job->x_rows; r++) {
            LLVMValueRef sum = LLVMBuildSIToFP(c->b, row_sums(c, sums[r][p]), floats, "");
            accumulate(c, e->sum[r][p], scale[p], cg_fma(c, sum, splat_of(c, x[r].step, run), splat_of(c, x[r].centre, run)));
            if (!job->sketch) accumulate(c, e->bound[r][p], scale[p], cg_fma(c, bound[p], splat_of(c, x[r].length, run), splat_of(c, x[r].excess, run)));
        }
    }
}

LLVMValueRef screen_ordered(cg *c, LLVMValueRef floats) {
    LLVMTypeRef ints = screen_eight(c->i32, 1);
    LLVMValueRef bits = LLVMBuildBitCast(c->b, floats, ints, ""), sign = LLVMBuildAShr(c->b, bits, cg_splat(c, cg_i32(c, 31), LANES), "");
    return LLVMBuildXor(c->b, bits, LLVMBuildAnd(c->b, sign, cg_splat(c, cg_i32(c, 0x7FFFFFFF), LANES), ""), "");
}

/* Keep in each lane of top and where what is larger; `row` is that of the first lane. */
static void challenge_lanes(cg *c, const screen_job *job, const estimate *e, int r, LLVMValueRef sum, LLVMValueRef row) {
    LLVMValueRef lane[LANES], top = LLVMBuildLoad2(c->b, screen_eight(c->f32, 1), e->top[r], "");
    LLVMValueRef wins = LLVMBuildFCmp(c->b, LLVMRealOGT, sum, top, "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, wins, sum, top, ""), e->top[r]);
    if (job->sketch) return;
    for (int i = 0; i < LANES; i++) lane[i] = cg_i32(c, i);
    LLVMValueRef index = cg_add(c, cg_splat(c, LLVMBuildTrunc(c->b, row, c->i32, ""), LANES), LLVMConstVector(lane, LANES));
    LLVMValueRef where = LLVMBuildLoad2(c->b, screen_eight(c->i32, 1), e->where[r], "");
    LLVMBuildStore(c->b, LLVMBuildSelect(c->b, wins, index, where, ""), e->where[r]);
}

/* Hand the rows of a vector to the heap when one is larger than what is least there. */
static void offer_lanes(cg *c, const screen_x *x, LLVMValueRef sum, LLVMValueRef row) {
    LLVMValueRef least = cg_splat(c, cg_load(c, c->f32, x->heap_score, 4), LANES), wins = LLVMBuildFCmp(c->b, LLVMRealOGT, sum, least, "");
    LLVMValueRef sums = cg_variable(c, LLVMTypeOf(sum), NULL);
    cg_branch any = screen_if_any(c, screen_lanes(c, wins));
    LLVMBuildStore(c->b, sum, sums);
    LLVMValueRef args[] = {x->heap, sums, cg_i64(c, LANES), LLVMBuildTrunc(c->b, row, c->i32, "")};
    cg_host_call(c, "rt_candidates_offer", c->void_t, args, 4);
    cg_end_if(c, &any);
}

/* Of the vector's rows from `row` on. */
static LLVMValueRef load_units(cg *c, const screen_job *job, LLVMValueRef row) {
    LLVMValueRef units = cg_at(c, c->i8, c->code.args[job->screen], cg_i64(c, job->at.units)), part = LLVMBuildUDiv(c->b, row, cg_i64(c, rows_together(c)), "");
    LLVMValueRef bits = LLVMBuildShl(c->b, load_each(c, c->i16, units, part), splat(c, cg_i32(c, 16)), "");
    return LLVMBuildBitCast(c->b, bits, rows_type(c, c->f32, 1), "");
}

/* Estimates of a vector's rows from `row` on to the top, or to the heap, eight at a time. */
static void hand_over(cg *c, const screen_job *job, const estimate *e, const screen_x *x, int r, LLVMValueRef sum, LLVMValueRef row) {
    for (int from = 0; from < rows_together(c); from += LANES) {
        LLVMValueRef lane[LANES], at = cg_add(c, row, cg_i64(c, from));
        for (int i = 0; i < LANES; i++) lane[i] = cg_i32(c, from + i);
        LLVMValueRef eight = LLVMBuildShuffleVector(c->b, sum, LLVMGetPoison(LLVMTypeOf(sum)), LLVMConstVector(lane, LANES), "");
        if (job->collects) offer_lanes(c, &x[r], eight, at);
        else challenge_lanes(c, job, e, r, eight, at);
    }
}

/* What was summed of `parts` vectors of rows from `row` on. A bound's own sum may lose a rounding per run. */
static void store_estimates(cg *c, const screen_job *job, const estimate *e, int parts, const screen_x *x, LLVMValueRef row) {
    LLVMTypeRef floats = rows_type(c, c->f32, 1);
    LLVMValueRef up = splat(c, cg_f32(c, 1 + (double)(job->at.runs + 10) * 0x1p-23));
    for (int p = 0; p < parts; p++)
        for (int r = 0; r < job->x_rows; r++) {
            LLVMValueRef at = cg_add(c, row, cg_i64(c, rows_together(c) * p)), unit = load_units(c, job, at);
            LLVMValueRef sum = LLVMBuildFMul(c->b, LLVMBuildLoad2(c->b, floats, e->sum[r][p], ""), unit, ""), bound = sum;
            if (!job->sketch) {
                bound = cg_fma(c, LLVMBuildLoad2(c->b, floats, e->bound[r][p], ""), LLVMBuildFMul(c->b, unit, up, ""), sum);
                bound = LLVMBuildFAdd(c->b, bound, splat(c, cg_load(c, c->f32, x[r].extra, 4)), "");
            }
            cg_store(c, bound, cg_at(c, c->f32, x[r].bound, at), 4);
            hand_over(c, job, e, x, r, sum, at);
        }
}

/* `parts` vectors of rows of group `index`, from `part` on. */
static void emit_rows(cg *c, const screen_job *job, const estimate *e, const screen_x *x, LLVMValueRef index, LLVMValueRef part, int parts) {
    LLVMValueRef screen = c->code.args[job->screen];
    for (int r = 0; r < job->x_rows; r++)
        for (int p = 0; p < parts; p++) {
            LLVMBuildStore(c->b, LLVMConstNull(rows_type(c, c->f32, 1)), e->sum[r][p]);
            LLVMBuildStore(c->b, LLVMConstNull(rows_type(c, c->f32, 1)), e->bound[r][p]);
        }
    cg_loop runs = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->at.runs), 1);
    LLVMValueRef run = cg_add(c, cg_mul(c, index, cg_i64(c, job->at.runs)), runs.index), codes = cg_mul(c, run, cg_i64(c, RT_SCREEN_CODES));
    block at[PARTS] = {{.upper = cg_at(c, c->i8, screen, cg_add(c, codes, cg_i64(c, job->at.upper))),
                        .lower = cg_at(c, c->i8, screen, cg_add(c, codes, cg_i64(c, job->at.lower))),
                        .scales = cg_at(c, c->i8, screen, cg_add(c, cg_mul(c, run, cg_i64(c, RT_SCREEN_SCALES)), cg_i64(c, job->at.scales)))}};
    cg_prefetch(c, cg_at(c, c->i8, at[0].scales, cg_i64(c, CG_AHEAD)));
    for (int p = 0; p < parts; p++) {
        at[p] = at[0];
        at[p].part = cg_add(c, part, cg_i64(c, p));
    }
    emit_run(c, job, e, at, parts, x, runs.index);
    cg_loop_end(c, &runs);
    store_estimates(c, job, e, parts, x, cg_add(c, cg_mul(c, index, cg_i64(c, ROWS)), cg_mul(c, part, cg_i64(c, rows_together(c)))));
}

/* One row of x goes through all rows of a group at once; several fill the registers with one vector of them. */
static void emit_group(cg *c, const screen_job *job, const estimate *e, const screen_x *x, LLVMValueRef index) {
    int vectors = ROWS / rows_together(c);
    if (job->x_rows == 1) {
        emit_rows(c, job, e, x, index, cg_i64(c, 0), vectors);
        return;
    }
    cg_loop part = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, vectors), 1);
    emit_rows(c, job, e, x, index, part.index, 1);
    cg_loop_end(c, &part);
}

static void clear_top(cg *c, const screen_job *job, const estimate *e) {
    for (int r = 0; r < job->x_rows; r++) {
        LLVMBuildStore(c->b, cg_splat(c, cg_f32(c, -INFINITY), LANES), e->top[r]);
        LLVMBuildStore(c->b, LLVMConstAllOnes(screen_eight(c->i32, 1)), e->where[r]);
    }
}

static void end_slab(cg *c, const screen_job *job, const estimate *e, const screen_x *x, const cg_loop *slabs) {
    LLVMTypeRef ints = screen_eight(c->i32, 1);
    LLVMValueRef top = LLVMBuildLoad2(c->b, screen_eight(c->f32, 1), e->top[0], "");
    cg_store(c, screen_ordered(c, top), cg_at(c, ints, x->tops, slabs->index), 4);
    clear_top(c, job, e);
}

void screen_estimates(cg *c, const screen_job *job, LLVMValueRef scratch) {
    estimate e;
    screen_x x[MOST_ROWS];
    GM_ASSERT(job->x_rows <= MOST_ROWS);
    for (int r = 0; r < job->x_rows; r++) {
        x[r] = screen_x_at(c, job, scratch, cg_i64(c, r));
        e.top[r] = cg_variable(c, screen_eight(c->f32, 1), NULL), e.where[r] = cg_variable(c, screen_eight(c->i32, 1), NULL);
        for (int p = 0; p < PARTS; p++)
            e.sum[r][p] = cg_variable(c, rows_type(c, c->f32, 1), NULL), e.bound[r][p] = cg_variable(c, rows_type(c, c->f32, 1), NULL);
    }
    clear_top(c, job, &e);
    cg_loop slabs = screen_slabs_begin(c, job), groups = screen_groups_begin(c, job, &slabs);
    emit_group(c, job, &e, x, groups.index);
    cg_loop_end(c, &groups);
    if (job->sketch) end_slab(c, job, &e, &x[0], &slabs);
    cg_loop_end(c, &slabs);
    for (int r = 0; r < job->x_rows; r++) {
        cg_store(c, LLVMBuildLoad2(c->b, screen_eight(c->f32, 1), e.top[r], ""), x[r].top, 4);
        cg_store(c, LLVMBuildLoad2(c->b, screen_eight(c->i32, 1), e.where[r], ""), x[r].where, 4);
    }
}
