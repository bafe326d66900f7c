/* attention for one token in integers: K and V of i8 with a scale for each 32 columns, read as integers of 16 bits. The
 * parts of a thread and what is done with them are those of attention_one.c.
 *
 *   K  The codes of a row, times 256, are multiplied by their scales as parts of the row's largest (pmulhrsw), so that
 *      a row of them has one scale: an element is off by at most 1/32,512 of the largest that the row could hold,
 *      while a code is off by up to 1/254 of its run's. q is rounded to as many bits as sums of 32 bits allow: 4095
 *      steps to either side for 256 columns and vectors of 16 sums, half of that for twice the columns or half the
 *      sums.
 *   V  The codes stay as they are; weights times scales become int16, off by at most 1/65,534 of the largest of their
 *      block of keys and head, and products are summed in 32 bits over the block. Two keys at a time: those of a column
 *      are neighbours.
 *
 * Sums of products of int16: vpdpwssd, or pmaddwd. A row's scores do not depend on the rows beside it.
 */
#include "codegen/attention.h"
#include "codegen/integer.h"

#include <math.h>

enum {
    HEADS = 4,   /* of a tile, at most */
    PAIRS = 2,   /* of V's rows in a tile */
    BLOCK = 256, /* keys whose weights share a scale */
    RUN = IR_SCALE_RUN,
    LARGEST = INTEGER_LARGEST_PART, /* of int16 */
    K_SHIFT = 8,                    /* of codes, to fill 16 bits */
    K_LARGEST = 1 << 15,
    PIECE = 4, /* sums of 32 bits that instructions which interleave leave together */
    LINE = 64, /* bytes of a cache's line */
    MAX_LANES = 16
};

/* In scratch, of all heads or of the tile under way. */
typedef struct int16_scratch {
    LLVMValueRef q, q_scales; /* i16[heads, D], f32[heads] */
    /* i32[keys of a tile, D/32]: of a row of K, a scale as part of the largest, twice in int16 */
    LLVMValueRef shares;
    LLVMValueRef tops;            /* f32[KV, BLOCK]: the largest scale of a row of V */
    LLVMValueRef inverses, units; /* f32[heads]: of the weights of the block */
    LLVMValueRef weights;         /* i32[PAIRS, HEADS, D/32]: int16 of two keys */
    LLVMValueRef sums;            /* i32[heads, D], in the order of paired_column */
} int16_scratch;

static bool by_runs(const attention_cache *cache) {
    return cache->dtype == RT_I8 && cache->scale >= 0 && cache->run == RUN && cache->stride[2] == 1 &&
           cache->scale_stride[2] == 1;
}

bool attention_one_in_int16(const attention_job *job) {
    return job->int16 && by_runs(&job->k) && by_runs(&job->v);
}

/* Keys of a tile of K: with its heads at most as many sums as a vector has lanes, and more than half as many. */
static int tile_keys(const cg *c, int heads) {
    int keys = 1;
    while (2 * keys * heads <= c->lanes) keys *= 2;
    return keys;
}

/* Of a tile whose first is `first` of the group. */
static int heads_of(const attention_job *job, int64_t first) {
    return job->group - first < HEADS ? (int)(job->group - first) : HEADS;
}

/* The number of head `first` of kv head `kv`. */
static LLVMValueRef head_of(cg *c, const attention_job *job, LLVMValueRef kv, int64_t first) {
    return cg_add(c, cg_mul(c, kv, cg_i64(c, job->group)), cg_i64(c, first));
}

/* Columns of a step along a row: a line of memory, where the row has whole lines. */
static int64_t columns_of_step(const attention_job *job) {
    return job->d % LINE == 0 ? LINE : RUN;
}

void attention_one_int16_text(const cg *c, const attention_job *job, gm_string *out) {
    int heads = heads_of(job, 0);
    gm_string_printf(
        out,
        "in integers of 16 bits, tiles of %d keys by %d heads of K, of %d keys of V, weights scaled for each %d keys",
        tile_keys(c, heads), heads, 2 * PAIRS, BLOCK);
}

/* ---- scratch ---- */

static int64_t runs_of(const attention_job *job) {
    return job->d / RUN;
}

/* Returns the bytes; at: NULL only counts them. */
static int64_t lay_out(cg *c, const attention_job *job, LLVMValueRef at, int16_scratch *w) {
    int64_t heads = job->kv_heads * job->group, runs = runs_of(job), total = 0;
    struct {
        LLVMValueRef *to;
        int64_t elements, bytes;
    } piece[] = {{&w->q, heads * job->d, 2},
                 {&w->q_scales, heads, 4},
                 {&w->shares, c->lanes * runs, 4},
                 {&w->tops, job->kv_heads * BLOCK, 4},
                 {&w->inverses, heads, 4},
                 {&w->units, heads, 4},
                 {&w->weights, PAIRS * HEADS * runs, 4},
                 {&w->sums, heads * job->d, 4}};
    for (size_t i = 0; i < GM_COUNT(piece); i++) {
        if (at) *piece[i].to = cg_at(c, c->i8, at, cg_i64(c, total));
        total += (piece[i].elements * piece[i].bytes + LINE - 1) / LINE * LINE;
    }
    return total;
}

int64_t attention_one_int16_bytes(cg *c, const attention_job *job) {
    int16_scratch w;
    return lay_out(c, job, NULL, &w);
}

static int16_scratch scratch_of(cg *c, const attention_job *job, const attention_part *p) {
    int16_scratch w;
    lay_out(c, job, p->int16, &w);
    return w;
}

static LLVMValueRef float_at(cg *c, LLVMValueRef floats, LLVMValueRef index) {
    return cg_at(c, c->f32, floats, index);
}

static LLVMValueRef float_of(cg *c, LLVMValueRef floats, LLVMValueRef index) {
    return cg_load(c, c->f32, float_at(c, floats, index), 4);
}

/* ---- scales ---- */

/* f32[D/32]: those of a row. */
static LLVMValueRef scales_of(cg *c, const attention_job *job, const attention_cache *cache, LLVMValueRef slot,
                              LLVMValueRef kv) {
    LLVMTypeRef type = LLVMVectorType(c->f32, (unsigned)runs_of(job));
    return cg_load(c, type, attention_scale(c, cache, slot, kv, cg_i64(c, 0)), 4);
}

static LLVMTypeRef int16_type(cg *c) {
    return LLVMVectorType(c->i16, 2 * (unsigned)c->lanes);
}

/* Codes as int16: as many as a vector has. */
static LLVMValueRef codes_at(cg *c, LLVMValueRef row, LLVMValueRef column) {
    LLVMValueRef codes = cg_load(c, LLVMVectorType(c->i8, 2 * (unsigned)c->lanes), cg_at(c, c->i8, row, column), 1);
    return LLVMBuildSExt(c->b, codes, int16_type(c), "");
}

/* ---- q ---- */

/* The largest code of q: a lane sums so many products with int16 of K. */
static double largest_q(const cg *c, const attention_job *job) {
    double most = floor(2147483647.0 / ((double)K_LARGEST * (double)(job->d / c->lanes)));
    return most < LARGEST ? most : LARGEST;
}

static void round_queries(cg *c, const attention_job *job, const int16_scratch *w) {
    cg_loop kv = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->kv_heads), 1);
    cg_loop g = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->group), 1);
    LLVMValueRef head = cg_add(c, head_of(c, job, kv.index, 0), g.index),
                 to = cg_at(c, c->i16, w->q, cg_mul(c, head, cg_i64(c, job->d)));
    attention_round_row(c, job, job->q_dtype, largest_q(c, job), attention_query_of(c, job, kv.index, g.index), to,
                        float_at(c, w->q_scales, head));
    cg_loop_end(c, &g);
    cg_loop_end(c, &kv);
}

/* ---- scores ---- */

/* Rounded halves of products of int16, in their upper bits: what pmulhrsw does. */
static LLVMValueRef multiply_high(cg *c, LLVMValueRef a, LLVMValueRef b) {
    const char *name = c->lanes == 16 ? "llvm.x86.avx512.pmul.hr.sw.512" : "llvm.x86.avx2.pmul.hr.sw";
    if (c->lanes > 4 && !c->emulated) return cg_intrinsic2(c, name, int16_type(c), a, b);
    int lanes = 2 * c->lanes;
    LLVMTypeRef wide = LLVMVectorType(c->i32, (unsigned)lanes);
    LLVMValueRef product = cg_mul(c, LLVMBuildSExt(c->b, a, wide, ""), LLVMBuildSExt(c->b, b, wide, ""));
    product = cg_add(c, product, cg_splat(c, cg_i32(c, 1 << 14), lanes));
    return LLVMBuildTrunc(c->b, LLVMBuildAShr(c->b, product, cg_splat(c, cg_i32(c, 15), lanes), ""), int16_type(c), "");
}

/* Keys and heads of a tile: sum g·keys + j is that of key j and head g. */
typedef struct tile {
    int keys, heads;
    LLVMValueRef row[MAX_LANES], unit[MAX_LANES]; /* of the keys; unit: f32, of one */
    LLVMValueRef q[HEADS];
    LLVMValueRef sum[MAX_LANES]; /* variables */
} tile;

static void begin_keys(cg *c, const attention_job *job, const int16_scratch *w, LLVMValueRef slot, LLVMValueRef kv,
                       tile *t) {
    double one = (double)K_LARGEST / LARGEST / (1 << K_SHIFT);
    for (int j = 0; j < t->keys; j++) {
        LLVMValueRef at = cg_add(c, slot, cg_i64(c, j)), scales = scales_of(c, job, &job->k, at, kv),
                     most = integer_largest_lane(c, integer_magnitude(c, scales));
        LLVMValueRef share = integer_nearest(c, scales, LLVMBuildFDiv(c->b, cg_f32(c, LARGEST), most, ""));
        cg_store(c, integer_pair(c, share, share), cg_at(c, c->i32, w->shares, cg_i64(c, j * runs_of(job))), 4);
        t->unit[j] = LLVMBuildFMul(c->b, most, cg_f32(c, one), "");
        t->row[j] = attention_row_of(c, &job->k, at, kv);
    }
}

/* One vector of columns, of run `run`. */
static void add_keys(cg *c, const attention_job *job, const int16_scratch *w, const tile *t, LLVMValueRef run,
                     LLVMValueRef column) {
    LLVMTypeRef type = cg_vector(c, c->i32);
    LLVMValueRef k[MAX_LANES], shift = cg_splat(c, LLVMConstInt(c->i16, K_SHIFT, 0), 2 * c->lanes);
    for (int j = 0; j < t->keys; j++) {
        LLVMValueRef share =
            cg_load(c, c->i32, cg_at(c, c->i32, w->shares, cg_add(c, cg_i64(c, j * runs_of(job)), run)), 4);
        share = LLVMBuildBitCast(c->b, cg_spread(c, share), int16_type(c), "");
        k[j] = multiply_high(c, LLVMBuildShl(c->b, codes_at(c, t->row[j], column), shift, ""), share);
    }
    for (int g = 0; g < t->heads; g++) {
        LLVMValueRef q = cg_load(c, type, cg_at(c, c->i16, t->q[g], column), 2);
        for (int j = 0; j < t->keys; j++) {
            LLVMValueRef at = t->sum[g * t->keys + j];
            LLVMBuildStore(c->b, cg_add_pairs(c, LLVMBuildLoad2(c->b, type, at, ""), q, k[j]), at);
        }
    }
}

/* Lanes of two vectors: bit `bit` of a lane's number says which vector it is of, and is `set` in the lane that is
 * taken. */
static LLVMValueRef lanes_of_both(cg *c, LLVMValueRef a, LLVMValueRef b, int bit, bool set) {
    LLVMValueRef mask[MAX_LANES];
    for (int i = 0; i < c->lanes; i++) mask[i] = cg_i32(c, ((i & ~bit) | (set ? bit : 0)) + (i & bit ? c->lanes : 0));
    return LLVMBuildShuffleVector(c->b, a, b, LLVMConstVector(mask, (unsigned)c->lanes), "");
}

/* f32[lanes]: lane i is the sum of the lanes of x[i], of `count` vectors, a power of two that is at most `lanes`; x is
 * overwritten. */
static LLVMValueRef sums_of(cg *c, LLVMValueRef *x, int count) {
    for (int bit = 1; bit < c->lanes; bit *= 2) {
        int left = count > 1 ? count / 2 : 1;
        for (int i = 0; i < left; i++) {
            LLVMValueRef a = x[count > 1 ? 2 * i : 0], b = x[count > 1 ? 2 * i + 1 : 0];
            x[i] = LLVMBuildFAdd(c->b, lanes_of_both(c, a, b, bit, false), lanes_of_both(c, a, b, bit, true), "");
        }
        count = left;
    }
    return x[0];
}

/* Of a vector: lanes from[i], as many as `count`. */
static LLVMValueRef pick(cg *c, LLVMValueRef x, const int *from, int count) {
    LLVMValueRef mask[MAX_LANES];
    for (int i = 0; i < count; i++) mask[i] = cg_i32(c, from[i]);
    return LLVMBuildShuffleVector(c->b, x, LLVMGetPoison(LLVMTypeOf(x)), LLVMConstVector(mask, (unsigned)count), "");
}

/* The scales of the tile's sums: those of its keys, and `heads`, f32[of the tile]. */
static LLVMValueRef scale_sums(cg *c, const tile *t, LLVMValueRef sums, LLVMValueRef heads) {
    LLVMValueRef units = LLVMGetPoison(cg_vector(c, c->f32));
    int key[MAX_LANES], head[MAX_LANES], all = t->keys * t->heads;
    for (int j = 0; j < t->keys; j++) units = LLVMBuildInsertElement(c->b, units, t->unit[j], cg_i32(c, j), "");
    for (int i = 0; i < c->lanes; i++) key[i] = i % t->keys, head[i] = i < all ? i / t->keys : 0;
    sums = LLVMBuildFMul(c->b, sums, pick(c, units, key, c->lanes), "");
    return LLVMBuildFMul(c->b, sums, pick(c, heads, head, c->lanes), "");
}

static void score_tile(cg *c, const attention_job *job, const attention_part *p, const int16_scratch *w, int64_t first,
                       LLVMValueRef key, LLVMValueRef kv, tile *t) {
    int sums = 1, step = 2 * c->lanes;
    int64_t line = columns_of_step(job);
    LLVMValueRef head = head_of(c, job, kv, first), x[MAX_LANES];
    for (int g = 0; g < t->heads; g++)
        t->q[g] = cg_at(c, c->i16, w->q, cg_mul(c, cg_add(c, head, cg_i64(c, g)), cg_i64(c, job->d)));
    for (int i = 0; i < t->keys * t->heads; i++) LLVMBuildStore(c->b, LLVMConstNull(cg_vector(c, c->i32)), t->sum[i]);
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), line);
    attention_prefetch(c, &job->k, job->d, t->row[0], t->keys, columns.index);
    for (int more = 0; more < line; more += step) {
        LLVMValueRef column = cg_add(c, columns.index, cg_i64(c, more));
        add_keys(c, job, w, t, LLVMBuildUDiv(c->b, column, cg_i64(c, RUN), ""), column);
    }
    cg_loop_end(c, &columns);
    while (sums < t->keys * t->heads) sums *= 2;
    for (int i = 0; i < sums; i++) {
        LLVMTypeRef whole = cg_vector(c, c->i32);
        LLVMValueRef sum = i < t->keys * t->heads ? LLVMBuildLoad2(c->b, whole, t->sum[i], "") : LLVMConstNull(whole);
        x[i] = LLVMBuildSIToFP(c->b, sum, cg_vector(c, c->f32), "");
    }
    LLVMValueRef scales = cg_load(c, LLVMVectorType(c->f32, (unsigned)t->heads), float_at(c, w->q_scales, head), 4);
    LLVMValueRef scores = scale_sums(c, t, sums_of(c, x, sums), scales);
    for (int g = 0; g < t->heads; g++) {
        int lane[MAX_LANES];
        for (int j = 0; j < t->keys; j++) lane[j] = g * t->keys + j;
        cg_store(c, pick(c, scores, lane, t->keys), attention_score_of(c, job, p, kv, first + g, key), 4);
    }
}

static void score_run(cg *c, const attention_job *job, const attention_part *p, const int16_scratch *w,
                      const attention_runs *run) {
    tile t;
    for (int i = 0; i < c->lanes; i++) t.sum[i] = cg_variable(c, cg_vector(c, c->i32), NULL);
    attention_row_tiles rows = attention_row_tiles_begin(c, job, &job->k, run, tile_keys(c, heads_of(job, 0)), 1);
    do {
        t.keys = rows.rows;
        begin_keys(c, job, w, rows.slot, rows.kv, &t);
        for (int64_t first = 0; first < job->group; first += HEADS) {
            t.heads = heads_of(job, first);
            score_tile(c, job, p, w, first, rows.key, rows.kv, &t);
        }
    } while (attention_row_tiles_next(c, &rows));
}

void attention_one_int16_score(cg *c, const attention_job *job, const attention_part *p) {
    int16_scratch w = scratch_of(c, job, p);
    round_queries(c, job, &w);
    attention_runs run = attention_runs_begin(c, job, p->low, p->keys, 0);
    score_run(c, job, p, &w, &run);
    attention_runs_end(c, &run);
}

/* ---- weights ---- */

/* The scale of each head's weights in a block: of the largest weight times its row's largest scale. */
static void scale_weights(cg *c, const attention_job *job, const attention_part *p, const int16_scratch *w,
                          const attention_runs *run) {
    attention_row_tiles row = attention_row_tiles_begin(c, job, &job->v, run, 1, 0);
    LLVMValueRef largest = integer_largest_lane(c, integer_magnitude(c, scales_of(c, job, &job->v, row.slot, row.kv)));
    LLVMValueRef at = cg_add(c, cg_mul(c, row.kv, cg_i64(c, BLOCK)), cg_sub(c, row.key, run->first));
    cg_store(c, largest, float_at(c, w->tops, at), 4);
    (void)attention_row_tiles_next(c, &row);
    LLVMValueRef most = cg_variable(c, c->i32, NULL),
                 least = LLVMBuildBitCast(c->b, cg_f32(c, RT_SCALE_LEAST), c->i32, "");
    cg_loop head = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, p->heads), 1);
    LLVMValueRef tops =
        float_at(c, w->tops, cg_mul(c, LLVMBuildUDiv(c->b, head.index, cg_i64(c, job->group), ""), cg_i64(c, BLOCK)));
    LLVMValueRef weights = float_at(c, p->scores, cg_add(c, run->first, cg_mul(c, head.index, cg_i64(c, p->most))));
    LLVMBuildStore(c->b, least, most);
    cg_loop keys = cg_loop_begin(c, cg_i64(c, 0), run->count, 1);
    LLVMValueRef x = LLVMBuildFMul(c->b, float_of(c, weights, keys.index), float_of(c, tops, keys.index), "");
    integer_largest_add(c, most, x);
    cg_loop_end(c, &keys);
    LLVMValueRef top = LLVMBuildBitCast(c->b, LLVMBuildLoad2(c->b, c->i32, most, ""), c->f32, ""),
                 code = cg_f32(c, LARGEST);
    LLVMValueRef lost = LLVMBuildFMul(c->b, top, cg_f32(c, 0), ""); /* NaN where a value was none or infinite */
    cg_store(c, LLVMBuildFDiv(c->b, code, top, ""), float_at(c, w->inverses, head.index), 4);
    cg_store(c, LLVMBuildFAdd(c->b, LLVMBuildFDiv(c->b, top, code, ""), lost, ""), float_at(c, w->units, head.index),
             4);
    cg_loop_end(c, &head);
}

_Static_assert(PAIRS > 1, "a tile of one pair is what is left of a run");

/* Rows of V two at a time; of an odd one alone there is no second. */
typedef struct pair_tile {
    int pairs, heads;
    LLVMValueRef slot, key, kv, second; /* of the first pair; i1: is there a second row? NULL: yes */
    LLVMValueRef row[PAIRS][2];
} pair_tile;

static LLVMValueRef pair_slot(cg *c, const pair_tile *t, int pair, int i) {
    LLVMValueRef first = cg_add(c, t->slot, cg_i64(c, 2 * pair)), next = cg_add(c, first, cg_i64(c, 1));
    return i == 0 ? first : t->second ? LLVMBuildSelect(c->b, t->second, next, first, "") : next;
}

static LLVMValueRef weights_at(cg *c, const attention_job *job, const int16_scratch *w, int pair, int g) {
    return cg_at(c, c->i32, w->weights, cg_i64(c, (pair * HEADS + g) * runs_of(job)));
}

/* Weights of a pair of rows, times their scales, as int16. */
static void round_weights(cg *c, const attention_job *job, const attention_part *p, const int16_scratch *w,
                          const pair_tile *t, int64_t first, int pair) {
    LLVMValueRef scale[2], code[2], zero = cg_f32(c, 0);
    for (int i = 0; i < 2; i++) scale[i] = scales_of(c, job, &job->v, pair_slot(c, t, pair, i), t->kv);
    for (int g = 0; g < t->heads; g++) {
        LLVMValueRef head = head_of(c, job, t->kv, first + g), inverse = float_of(c, w->inverses, head);
        for (int i = 0; i < 2; i++) {
            LLVMValueRef key = cg_add(c, t->key, cg_i64(c, 2 * pair + i));
            LLVMValueRef weight = cg_load(c, c->f32, attention_score_of(c, job, p, t->kv, first + g, key), 4);
            if (i == 1 && t->second) weight = LLVMBuildSelect(c->b, t->second, weight, zero, "");
            code[i] = integer_nearest(c, scale[i], LLVMBuildFMul(c->b, weight, inverse, ""));
        }
        cg_store(c, integer_pair(c, code[0], code[1]), weights_at(c, job, w, pair, g), 4);
    }
}

/* ---- weighted sums ---- */

/* Column, of as many as a vector holds int16, that lane `lane` of vector `half` sums: what unpacking within 128 bits
 * makes of int16. */
static int paired_column(int half, int lane) {
    return lane / PIECE * 2 * PIECE + half * PIECE + lane % PIECE;
}

/* Int16 of two rows in turn: vectors of both halves. */
static void interleave(cg *c, LLVMValueRef a, LLVMValueRef b, LLVMValueRef *out) {
    for (int half = 0; half < 2; half++) {
        LLVMValueRef mask[2 * MAX_LANES];
        for (int i = 0; i < c->lanes; i++)
            for (int k = 0; k < 2; k++) mask[2 * i + k] = cg_i32(c, paired_column(half, i) + k * 2 * c->lanes);
        out[half] = LLVMBuildBitCast(
            c->b, LLVMBuildShuffleVector(c->b, a, b, LLVMConstVector(mask, 2 * (unsigned)c->lanes), ""),
            cg_vector(c, c->i32), "");
    }
}

/* One vector of columns, of run `run`. */
static void add_pairs(cg *c, const attention_job *job, const int16_scratch *w, const pair_tile *t, LLVMValueRef head,
                      LLVMValueRef run, LLVMValueRef column) {
    LLVMTypeRef type = cg_vector(c, c->i32);
    LLVMValueRef v[PAIRS][2], sum[2], at[2];
    for (int i = 0; i < t->pairs; i++)
        interleave(c, codes_at(c, t->row[i][0], column), codes_at(c, t->row[i][1], column), v[i]);
    for (int g = 0; g < t->heads; g++) {
        LLVMValueRef sums =
            cg_at(c, c->i32, w->sums, cg_add(c, cg_mul(c, cg_add(c, head, cg_i64(c, g)), cg_i64(c, job->d)), column));
        for (int half = 0; half < 2; half++)
            sum[half] = cg_load(c, type, at[half] = cg_at(c, c->i32, sums, cg_i64(c, half * c->lanes)), 4);
        for (int i = 0; i < t->pairs; i++) {
            LLVMValueRef weight =
                cg_spread(c, cg_load(c, c->i32, cg_at(c, c->i32, weights_at(c, job, w, i, g), run), 4));
            for (int half = 0; half < 2; half++) sum[half] = cg_add_pairs(c, sum[half], weight, v[i][half]);
        }
        for (int half = 0; half < 2; half++) cg_store(c, sum[half], at[half], 4);
    }
}

static void weigh_tile(cg *c, const attention_job *job, const attention_part *p, const int16_scratch *w, pair_tile *t) {
    int step = 2 * c->lanes;
    int64_t line = columns_of_step(job);
    for (int i = 0; i < t->pairs; i++)
        for (int k = 0; k < 2; k++) t->row[i][k] = attention_row_of(c, &job->v, pair_slot(c, t, i, k), t->kv);
    for (int64_t first = 0; first < job->group; first += HEADS) {
        t->heads = heads_of(job, first);
        for (int i = 0; i < t->pairs; i++) round_weights(c, job, p, w, t, first, i);
        LLVMValueRef head = head_of(c, job, t->kv, first);
        cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), line);
        attention_prefetch(c, &job->v, job->d, t->row[0][0], 2 * t->pairs, columns.index);
        for (int more = 0; more < line; more += step) {
            LLVMValueRef column = cg_add(c, columns.index, cg_i64(c, more));
            add_pairs(c, job, w, t, head, LLVMBuildUDiv(c->b, column, cg_i64(c, RUN), ""), column);
        }
        cg_loop_end(c, &columns);
    }
}

/* The block's sums times their units, in the order of columns, are added to the part's. */
static void add_block(cg *c, const attention_job *job, const attention_part *p, const int16_scratch *w) {
    LLVMTypeRef whole = cg_vector(c, c->i32), floats = cg_vector(c, c->f32);
    cg_loop head = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, p->heads), 1);
    LLVMValueRef unit = cg_spread(c, float_of(c, w->units, head.index)),
                 first = cg_mul(c, head.index, cg_i64(c, job->d));
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), 2 * c->lanes);
    LLVMValueRef x[2];
    for (int half = 0; half < 2; half++) {
        LLVMValueRef at =
            cg_at(c, c->i32, w->sums, cg_add(c, cg_add(c, first, columns.index), cg_i64(c, half * c->lanes)));
        x[half] = LLVMBuildSIToFP(c->b, cg_load(c, whole, at, 4), floats, "");
    }
    for (int part = 0; part < 2; part++) {
        LLVMValueRef mask[MAX_LANES],
            at = float_at(c, p->sums, cg_add(c, cg_add(c, first, columns.index), cg_i64(c, part * c->lanes)));
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < c->lanes; i++)
                if (paired_column(half, i) / c->lanes == part)
                    mask[paired_column(half, i) % c->lanes] = cg_i32(c, i + half * c->lanes);
        LLVMValueRef ordered = LLVMBuildShuffleVector(c->b, x[0], x[1], LLVMConstVector(mask, (unsigned)c->lanes), "");
        cg_store(c, cg_fma(c, ordered, unit, cg_load(c, floats, at, 4)), at, 4);
    }
    cg_loop_end(c, &columns);
    cg_loop_end(c, &head);
}

void attention_one_int16_weigh(cg *c, const attention_job *job, const attention_part *p) {
    int16_scratch w = scratch_of(c, job, p);
    attention_runs run = attention_runs_begin(c, job, p->low, p->keys, BLOCK);
    scale_weights(c, job, p, &w, &run);
    attention_zero(c, w.sums, cg_i64(c, p->heads * job->d));
    attention_row_tiles rows = attention_row_tiles_begin(c, job, &job->v, &run, 2 * PAIRS, 2);
    do {
        pair_tile t = {.pairs = rows.rows / 2, .slot = rows.slot, .key = rows.key, .kv = rows.kv};
        if (t.pairs < PAIRS) t.second = LLVMBuildICmp(c->b, LLVMIntSGT, rows.left, cg_i64(c, 1), "");
        weigh_tile(c, job, p, &w, &t);
    } while (attention_row_tiles_next(c, &rows));
    add_block(c, job, p, &w);
    attention_runs_end(c, &run);
}
