/* Estimates and bounds of the scores of all rows from their screen (runtime/screen.h). Vector lanes are rows, so that
 * no sum crosses lanes: for a run of 32 columns an integer sum Σ code·q of eight or sixteen rows at once, then
 * s·(step·Σ code·q + centre) in f32; and the bounds of four runs of columns at once, times the digits of their lengths.
 * The codes of a run are taken apart once for all rows of x.
 *
 * Slabs of groups are dealt out (deal.c): the rows that can win lie close together, because usual tokens have low
 * numbers.
 */
#include "codegen/screen.h"

enum {
    RUN = RT_SCREEN_RUN,
    ROWS = RT_SCREEN_ROWS,
    QUAD = RT_SCREEN_QUAD,
    LANES = SCREEN_LANES,
    PARTS = ROWS / LANES /* most vectors of a group's rows */
};

/* Of the margin: a score is hardly ever so far below its estimate, since errors of the columns are of either sign. More
 * keeps more rows, less looks again more often; what is chosen is the same. */
#define DOUBT 0.25

/* ---- this thread's groups ---- */

cg_pieces screen_deal_begin(cg *c, const screen_job *job) {
    LLVMValueRef count =
        LLVMBuildUDiv(c->b, cg_add(c, job->groups, cg_i64(c, SCREEN_SLAB - 1)), cg_i64(c, SCREEN_SLAB), "");
    return cg_pieces_begin(c, cg_deal(c), count);
}

screen_groups screen_groups_begin(cg *c, const screen_job *job, LLVMValueRef slab) {
    enum { EACH = RT_LIKELY_BLOCK / ROWS };
    LLVMValueRef size = cg_i64(c, SCREEN_SLAB), first = cg_mul(c, slab, size);
    screen_groups groups = {.loop = cg_loop_begin(c, first, cg_min(c, cg_add(c, first, size), job->groups), 1)};
    groups.group = groups.loop.index;
    if (!job->listed) return groups;
    LLVMValueRef each = cg_i64(c, EACH), place = LLVMBuildUDiv(c->b, groups.loop.index, each, "");
    LLVMValueRef block = cg_widen(c, cg_load(c, c->i32, cg_at(c, c->i32, job->blocks, place), 4));
    groups.group = cg_add(c, cg_mul(c, block, each), LLVMBuildURem(c->b, groups.loop.index, each, ""));
    return groups;
}

void screen_groups_end(cg *c, screen_groups *groups) {
    cg_loop_end(c, &groups->loop);
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

int screen_together(const cg *c) {
    return c->vnni && c->lanes >= ROWS ? ROWS : LANES;
}

static LLVMTypeRef rows_type(cg *c, LLVMTypeRef type, int each) {
    return LLVMVectorType(type, (unsigned)(screen_together(c) * each));
}

static LLVMValueRef splat(cg *c, LLVMValueRef x) {
    return cg_splat(c, x, screen_together(c));
}

/* Sums of neighbours. */
static LLVMValueRef add_neighbours(cg *c, LLVMValueRef v) {
    LLVMValueRef even[2 * LANES], odd[2 * LANES], none = LLVMGetPoison(LLVMTypeOf(v));
    unsigned count = LLVMGetVectorSize(LLVMTypeOf(v)) / 2;
    for (unsigned i = 0; i < count; i++) even[i] = cg_i32(c, 2 * i), odd[i] = cg_i32(c, 2 * i + 1);
    return cg_add(c, LLVMBuildShuffleVector(c->b, v, none, LLVMConstVector(even, count), ""),
                  LLVMBuildShuffleVector(c->b, v, none, LLVMConstVector(odd, count), ""));
}

/* Σ code·q of pairs of columns. */
static LLVMValueRef pair_sums(cg *c, LLVMValueRef codes, LLVMValueRef q) {
    if (c->lanes >= LANES) return cg_byte_pairs(c, codes, q);
    return add_neighbours(c, cg_mul(c, LLVMBuildZExt(c->b, codes, screen_eight(c->i16, 4), ""),
                                    LLVMBuildSExt(c->b, q, screen_eight(c->i16, 4), "")));
}

/* before (NULL: nothing) and Σ code·q of four columns in lanes of i32, or of pairs of them in int16. */
static LLVMValueRef add_products(cg *c, LLVMValueRef before, LLVMValueRef codes, LLVMValueRef q) {
    if (c->vnni) return cg_add_quads(c, before ? before : LLVMConstNull(rows_type(c, c->i32, 1)), codes, q);
    LLVMValueRef sums = pair_sums(c, codes, q);
    return before ? cg_add(c, before, sums) : sums;
}

/* The sum of a row's two pairs; in lanes of i32 they have been added. */
static LLVMValueRef row_sums(cg *c, LLVMValueRef pairs) {
    if (c->vnni) return pairs;
    LLVMValueRef ones = cg_splat(c, LLVMConstInt(c->i16, 1, 0), 2 * LANES);
    if (c->lanes >= LANES) return cg_add_pairs(c, LLVMConstNull(screen_eight(c->i32, 1)), pairs, ones);
    return add_neighbours(c, LLVMBuildSExt(c->b, pairs, screen_eight(c->i32, 2), ""));
}

/* The same four bytes of x for every row. */
static LLVMValueRef load_four(cg *c, LLVMValueRef bytes, LLVMValueRef at) {
    LLVMValueRef four = cg_load(c, c->i32, cg_at(c, c->i8, bytes, at), 4);
    return LLVMBuildBitCast(c->b, splat(c, four), rows_type(c, c->i8, 4), "");
}

/* The same of q. */
static LLVMValueRef load_q(cg *c, const screen_x *x, LLVMValueRef at) {
    if (!screen_spreads(c)) return load_four(c, x->q, at);
    return cg_load(c, rows_type(c, c->i8, 4), cg_at(c, c->i8, x->spread, cg_mul(c, at, cg_i64(c, LANES))), 4);
}

/* ---- codes ---- */

/* Four bytes of each row of vector p of a group; what comes c->ahead of the group's, a line, is asked for. */
static LLVMValueRef load_quads(cg *c, LLVMValueRef quads, int p) {
    if (p == 0) cg_prefetch(c, cg_at(c, c->i8, quads, cg_i64(c, c->ahead)));
    return cg_load(c, rows_type(c, c->i8, QUAD), cg_at(c, c->i8, quads, cg_i64(c, p * QUAD * screen_together(c))), 1);
}

/* The lower nibbles of bytes, or the upper ones. */
static LLVMValueRef nibbles_of(cg *c, LLVMValueRef bytes, bool upper) {
    LLVMTypeRef int16s = rows_type(c, c->i16, 2);
    LLVMValueRef shifted = LLVMBuildBitCast(c->b, bytes, int16s, ""), mask = LLVMConstInt(c->i16, 0x0F0F, 0);
    if (upper)
        shifted = LLVMBuildLShr(c->b, shifted, cg_splat(c, LLVMConstInt(c->i16, 4, 0), 2 * screen_together(c)), "");
    return LLVMBuildBitCast(c->b, LLVMBuildAnd(c->b, shifted, cg_splat(c, mask, 2 * screen_together(c)), ""),
                            rows_type(c, c->i8, QUAD), "");
}

/* ---- estimates ---- */

enum { MOST_ROWS = RT_FEW_ROWS };

typedef struct estimate {
    screen_x x[MOST_ROWS];
    /* Variables, of vectors of rows of W for each row of x. */
    LLVMValueRef sum[MOST_ROWS][PARTS];                            /* f32: Σ s·(step·Σ code·q + centre) */
    LLVMValueRef coarse[MOST_ROWS][PARTS], fine[MOST_ROWS][PARTS]; /* i32: Σ bound·digit of the lengths */
} estimate;

/* Where a run of a group is, or its quads of bounds. */
typedef struct block {
    LLVMValueRef bytes, scales;
} block;

/* Vectors of a group's rows. */
static int vectors_of(const cg *c) {
    return ROWS / screen_together(c);
}

static LLVMValueRef splat_of(cg *c, LLVMValueRef base, LLVMValueRef run) {
    return splat(c, cg_load(c, c->f32, cg_at(c, c->f32, base, run), 4));
}

/* What each of a vector's rows has in a section of a group's, `type`s as i32. */
static LLVMValueRef load_each(cg *c, LLVMTypeRef type, LLVMValueRef section, int p) {
    LLVMValueRef stored =
        cg_load(c, rows_type(c, type, 1), cg_at(c, type, section, cg_i64(c, p * screen_together(c))), 1);
    return LLVMBuildZExt(c->b, stored, rows_type(c, c->i32, 1), "");
}

/* The upper nibbles are multiplied where they are, with what the lower ones add there (screen_carry). */
static bool is_whole(const cg *c, bool upper) {
    return upper && screen_carry(c) > 0;
}

/* sums[row] = Σ code·q over a run of vector p, 16 times as much where something is carried: below 2^20 in lanes of i32
 * where the target sums products of bytes, else of pairs in int16, below 2^15. */
static void run_sums(cg *c, const screen_job *job, const estimate *e, const block *at, int p, LLVMValueRef first,
                     LLVMValueRef *sums) {
    LLVMValueRef whole[MOST_ROWS] = {0};
    for (int r = 0; r < job->x_rows; r++) sums[r] = NULL;
    for (int load = 0; load < 2 * RT_SCREEN_LOADS; load++) {
        LLVMValueRef from = cg_i64(c, load / RT_SCREEN_LOADS * job->at.plane + load % RT_SCREEN_LOADS * QUAD * ROWS);
        LLVMValueRef bytes = load_quads(c, cg_at(c, c->i8, at->bytes, from), p);
        for (int upper = 0; upper < 2; upper++) {
            LLVMValueRef codes = is_whole(c, upper) ? bytes : nibbles_of(c, bytes, upper);
            for (int r = 0; r < job->x_rows; r++) {
                LLVMValueRef q = load_q(c, &e->x[r], cg_add(c, first, cg_i64(c, QUAD * load + RUN / 2 * upper)));
                LLVMValueRef *sum = is_whole(c, upper) ? &whole[r] : &sums[r];
                *sum = add_products(c, *sum, codes, q);
            }
        }
    }
    for (int r = 0; r < job->x_rows; r++)
        if (whole[r]) sums[r] = cg_add(c, LLVMBuildShl(c->b, sums[r], splat(c, cg_i32(c, 4)), ""), whole[r]);
}

/* Vector p: a run of codes at `at`, times run `run` of x. */
static void emit_vector(cg *c, const screen_job *job, const estimate *e, const block *at, int p, LLVMValueRef run) {
    LLVMTypeRef floats = rows_type(c, c->f32, 1);
    LLVMValueRef sums[MOST_ROWS];
    run_sums(c, job, e, at, p, cg_mul(c, run, cg_i64(c, RUN)), sums);
    LLVMValueRef scale = LLVMBuildSIToFP(c->b, load_each(c, c->i8, at->scales, p), floats, "");
    for (int r = 0; r < job->x_rows; r++) {
        LLVMValueRef sum = LLVMBuildSIToFP(c->b, row_sums(c, sums[r]), floats, ""),
                     old = LLVMBuildLoad2(c->b, floats, e->sum[r][p], "");
        sum = cg_fma(c, sum, splat_of(c, e->x[r].step, run), splat_of(c, e->x[r].centre, run));
        LLVMBuildStore(c->b, cg_fma(c, scale, sum, old), e->sum[r][p]);
    }
}

/* Vector p is summed before the next, which reads x anew: LLVM would else keep x for all of them, where there are not
 * registers enough. */
static void finish_vector(cg *c, const screen_job *job, const estimate *e, int p) {
    LLVMValueRef sums[MOST_ROWS];
    for (int r = 0; r < job->x_rows; r++) sums[r] = LLVMBuildLoad2(c->b, rows_type(c, c->f32, 1), e->sum[r][p], "");
    cg_value_barrier(c, sums, (int)job->x_rows);
    for (int r = 0; r < job->x_rows; r++) LLVMBuildStore(c->b, sums[r], e->sum[r][p]);
}

static void emit_run(cg *c, const screen_job *job, const estimate *e, const block *at, LLVMValueRef run) {
    bool in_register = c->lanes >= LANES; /* eight floats of vectors of four are in two */
    for (int p = 0; p < vectors_of(c); p++) {
        emit_vector(c, job, e, at, p, run);
        if (p + 1 < vectors_of(c) && in_register) finish_vector(c, job, e, p);
    }
}

/* Bounds of quad `quad` of the runs of columns. */
static void emit_bounds(cg *c, const screen_job *job, const estimate *e, const block *at, LLVMValueRef quad) {
    LLVMTypeRef ints = rows_type(c, c->i32, 1);
    for (int p = 0; p < vectors_of(c); p++) {
        LLVMValueRef bounds = load_quads(c, at->bytes, p);
        for (int r = 0; r < job->x_rows; r++) {
            LLVMValueRef const digits[] = {e->x[r].coarse, e->x[r].fine}, to[] = {e->coarse[r][p], e->fine[r][p]};
            for (size_t d = 0; d < GM_COUNT(digits); d++) {
                LLVMValueRef four = load_four(c, digits[d], cg_mul(c, quad, cg_i64(c, QUAD))),
                             old = LLVMBuildLoad2(c->b, ints, to[d], "");
                LLVMValueRef sum = c->vnni ? add_products(c, old, bounds, four)
                                           : cg_add(c, old, row_sums(c, pair_sums(c, bounds, four)));
                LLVMBuildStore(c->b, sum, to[d]);
            }
        }
    }
}

/* Eight rows from `row` on go to the heap when one of them is above what is least there. */
static void offer_lanes(cg *c, const screen_x *x, LLVMValueRef scores, LLVMValueRef row) {
    LLVMValueRef least = cg_splat(c, cg_load(c, c->f32, x->heap_score, 4), LANES),
                 wins = LLVMBuildFCmp(c->b, LLVMRealOGT, scores, least, "");
    LLVMValueRef eight = cg_variable(c, LLVMTypeOf(scores), NULL);
    cg_branch any = screen_if_any(c, screen_lanes(c, wins));
    LLVMBuildStore(c->b, scores, eight);
    LLVMValueRef args[] = {x->heap, eight, cg_i64(c, LANES), LLVMBuildTrunc(c->b, row, c->i32, "")};
    cg_host_call(c, "rt_candidates_offer", c->void_t, args, 4);
    cg_store(c, cg_load(c, c->f32, x->heap_score, 4), x->supposed, 4);
    cg_end_if(c, &any);
}

/* Units of vector p of a group, those of its bounds when `which` is 1. */
static LLVMValueRef load_units(cg *c, LLVMValueRef head, int p, int which) {
    LLVMValueRef units = cg_at(c, c->i8, head, cg_i64(c, which * ROWS * (int)sizeof(uint16_t)));
    LLVMValueRef bits = LLVMBuildShl(c->b, load_each(c, c->i16, units, p), splat(c, cg_i32(c, 16)), "");
    return LLVMBuildBitCast(c->b, bits, rows_type(c, c->f32, 1), "");
}

static void offer_vector(cg *c, const screen_x *x, LLVMValueRef scores, LLVMValueRef row) {
    for (int from = 0; from < screen_together(c); from += LANES) {
        LLVMValueRef lane[LANES];
        for (int i = 0; i < LANES; i++) lane[i] = cg_i32(c, from + i);
        LLVMValueRef eight =
            LLVMBuildShuffleVector(c->b, scores, LLVMGetPoison(LLVMTypeOf(scores)), LLVMConstVector(lane, LANES), "");
        offer_lanes(c, x, eight, cg_add(c, row, cg_i64(c, from)));
    }
}

void screen_keep(cg *c, const screen_x *x, LLVMValueRef bounds, LLVMValueRef row) {
    LLVMValueRef count = cg_load(c, c->i64, x->kept, 8);
    cg_store(c, bounds, cg_at(c, c->f32, x->bound, cg_mul(c, count, cg_i64(c, screen_together(c)))), 4);
    cg_store(c, LLVMBuildTrunc(c->b, row, c->i32, ""), cg_at(c, c->i32, x->kept_row, count), 4);
    cg_store(c, cg_add(c, count, cg_i64(c, 1)), x->kept, 8);
}

/* How far a score may be from its estimate: z·Σ bound·length + u·excess, and more where x is out of range. */
static LLVMValueRef margin_of(cg *c, const estimate *e, int r, int p, LLVMValueRef head) {
    LLVMTypeRef ints = rows_type(c, c->i32, 1), floats = rows_type(c, c->f32, 1);
    const screen_x *x = &e->x[r];
    LLVMValueRef coarse = LLVMBuildLoad2(c->b, ints, e->coarse[r][p], ""),
                 fine = LLVMBuildLoad2(c->b, ints, e->fine[r][p], "");
    LLVMValueRef sum = LLVMBuildSIToFP(
        c->b, cg_add(c, LLVMBuildShl(c->b, coarse, splat(c, cg_i32(c, SCREEN_DIGIT)), ""), fine), floats, "");
    LLVMValueRef unit = LLVMBuildFMul(c->b, load_units(c, head, p, 1), splat(c, cg_load(c, c->f32, x->unit, 4)), "");
    LLVMValueRef excess =
        LLVMBuildFMul(c->b, load_units(c, head, p, 0), splat(c, cg_load(c, c->f32, x->excess, 4)), "");
    return LLVMBuildFAdd(c->b, cg_fma(c, sum, unit, excess), splat(c, cg_load(c, c->f32, x->extra, 4)), "");
}

/* What was summed of a group; row: its first. A vector of rows is kept unless none of them can score what the least in
 * the heap is supposed to. */
static void keep_estimates(cg *c, const screen_job *job, const estimate *e, LLVMValueRef head, LLVMValueRef row) {
    LLVMTypeRef floats = rows_type(c, c->f32, 1);
    for (int p = 0; p < vectors_of(c); p++)
        for (int r = 0; r < job->x_rows; r++) {
            const screen_x *x = &e->x[r];
            LLVMValueRef first = cg_add(c, row, cg_i64(c, p * screen_together(c))),
                         margin = margin_of(c, e, r, p, head);
            LLVMValueRef sum =
                LLVMBuildFMul(c->b, LLVMBuildLoad2(c->b, floats, e->sum[r][p], ""), load_units(c, head, p, 0), "");
            LLVMValueRef bound = LLVMBuildFAdd(c->b, sum, margin, ""),
                         supposed = splat(c, cg_load(c, c->f32, x->supposed, 4));
            cg_branch any = screen_if_any(c, screen_lanes(c, LLVMBuildFCmp(c->b, LLVMRealUGE, bound, supposed, "")));
            screen_keep(c, x, bound, first);
            offer_vector(c, x, cg_fma(c, margin, splat(c, cg_f32(c, -DOUBT)), sum), first);
            cg_end_if(c, &any);
        }
}

static void clear_sums(cg *c, const screen_job *job, const estimate *e) {
    for (int r = 0; r < job->x_rows; r++)
        for (int p = 0; p < vectors_of(c); p++) {
            LLVMBuildStore(c->b, LLVMConstNull(rows_type(c, c->f32, 1)), e->sum[r][p]);
            LLVMBuildStore(c->b, LLVMConstNull(rows_type(c, c->i32, 1)), e->coarse[r][p]);
            LLVMBuildStore(c->b, LLVMConstNull(rows_type(c, c->i32, 1)), e->fine[r][p]);
        }
}

/* Group `index`. Behind the runs the first one's codes once more, times what its x̂ had left. */
static void emit_group(cg *c, const screen_job *job, const estimate *e, LLVMValueRef index) {
    const rt_screen_places *places = &job->at;
    LLVMValueRef screen = c->code.args[job->screen],
                 head = cg_at(c, c->i8, screen,
                              cg_add(c, cg_mul(c, index, cg_i64(c, places->head)), cg_i64(c, places->heads)));
    LLVMValueRef count = cg_i64(c, places->runs), zero = cg_i64(c, 0);
    block at;
    clear_sums(c, job, e);
    cg_loop runs = cg_loop_begin(c, zero, cg_add(c, count, cg_i64(c, 1)), 1);
    LLVMValueRef run =
        LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntEQ, runs.index, count, ""), zero, runs.index, "");
    LLVMValueRef before = cg_add(c, cg_mul(c, index, count), run);
    at.bytes =
        cg_at(c, c->i8, screen, cg_add(c, cg_mul(c, before, cg_i64(c, RT_SCREEN_CODES)), cg_i64(c, places->codes)));
    at.scales = cg_at(c, c->i8, head, cg_add(c, cg_mul(c, run, cg_i64(c, ROWS)), cg_i64(c, places->scales)));
    emit_run(c, job, e, &at, runs.index);
    cg_loop_end(c, &runs);
    cg_loop quads = cg_loop_begin(c, zero, cg_i64(c, places->quads), 1);
    at.bytes =
        cg_at(c, c->i8, head, cg_add(c, cg_mul(c, quads.index, cg_i64(c, QUAD * ROWS)), cg_i64(c, places->bounds)));
    emit_bounds(c, job, e, &at, quads.index);
    cg_loop_end(c, &quads);
    keep_estimates(c, job, e, head, cg_mul(c, index, cg_i64(c, ROWS)));
}

void screen_estimates(cg *c, const screen_job *job, LLVMValueRef scratch) {
    estimate e;
    GM_ASSERT(job->x_rows <= MOST_ROWS);
    for (int r = 0; r < job->x_rows; r++) {
        e.x[r] = screen_x_at(c, job, scratch, cg_i64(c, r));
        for (int p = 0; p < vectors_of(c); p++)
            e.sum[r][p] = cg_variable(c, rows_type(c, c->f32, 1), NULL),
            e.coarse[r][p] = cg_variable(c, rows_type(c, c->i32, 1), NULL),
            e.fine[r][p] = cg_variable(c, rows_type(c, c->i32, 1), NULL);
    }
    cg_pieces slabs = screen_deal_begin(c, job);
    screen_groups groups = screen_groups_begin(c, job, slabs.index);
    emit_group(c, job, &e, groups.group);
    screen_groups_end(c, &groups);
    cg_pieces_end(c, &slabs);
}
