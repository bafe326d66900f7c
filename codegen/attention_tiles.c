/* Attention of many tokens in tile registers: products of bf16, summed in f32.
 *
 * K and V are bf16 in the cache and stay as they are. q and the weights are rounded to it in the bf16 plan, and so are
 * K and V of i8; in others q and the weights are split in two, x = high + low, which leaves 16 bits of each: more than
 * the integers of attention_int16.c have, and no scales. A panel's units of 32 bits lie as tiles take them: two columns
 * of a key, or a column of two keys. Values that are not finite are taken out of the panel, since the weight 0 of a row
 * that does not see them would not be enough, and make the weights of the rows that see them NaN.
 */
#include "codegen/attention.h"
#include "codegen/integer.h"

enum {
    MOST_PARTS = 2,
    PAIR = 2 /* of bf16, a unit of 32 bits */,
    HALVES = 2 /* of a row of as many bf16 as a vector holds */,
    MAX_ELEMENTS = 32
};

bool attention_in_tiles(const cg *c, const attention_job *job) {
    const attention_cache *caches[] = {&job->k, &job->v};
    for (size_t i = 0; i < GM_COUNT(caches); i++) {
        bool rounds = caches[i]->scale >= 0 && job->parts == 1; /* codes and scales give no bf16 */
        if ((caches[i]->dtype != RT_BF16 && !rounds) || caches[i]->stride[2] != 1) return false;
    }
    return c->tiles && job->int16 && job->d % (PAIR * c->lanes) == 0;
}

/* ---- floats in one part or two ---- */

/* x = part[0] + part[1], nearly. */
static void split(cg *c, LLVMValueRef x, LLVMValueRef *part) {
    LLVMValueRef bits = LLVMBuildBitCast(c->b, x, cg_vector(c, c->i32), ""),
                 high = LLVMBuildAnd(c->b, bits, cg_spread(c, cg_i32(c, 0xFFFF0000)), "");
    part[0] =
        LLVMBuildTrunc(c->b, LLVMBuildLShr(c->b, bits, cg_spread(c, cg_i32(c, 16)), ""), cg_vector(c, c->i16), "");
    part[1] =
        cg_from_f32(c, RT_BF16, LLVMBuildFSub(c->b, x, LLVMBuildBitCast(c->b, high, cg_vector(c, c->f32), ""), ""));
}

/* Where a row of `count` floats in bf16 begins: all first parts, then the second ones if there are two. */
typedef struct parts_of_row {
    LLVMValueRef to;
    int64_t count;
    int parts;
} parts_of_row;

/* A vector of it, from `index` on. */
static void store_parts(cg *c, const parts_of_row *row, LLVMValueRef index, LLVMValueRef x) {
    LLVMValueRef part[MOST_PARTS];
    if (row->parts == 1) part[0] = cg_from_f32(c, RT_BF16, x);
    else split(c, x, part);
    for (int i = 0; i < row->parts; i++)
        cg_store(c, part[i], cg_at(c, c->i16, row->to, cg_add(c, index, cg_i64(c, i * row->count))), 2);
}

void attention_tiles_row(cg *c, const attention_job *job, LLVMValueRef from, LLVMValueRef to) {
    parts_of_row row = {.to = to, .count = job->d, .parts = job->parts};
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), c->lanes);
    store_parts(c, &row, loop.index, cg_load(c, cg_vector(c, c->f32), cg_at(c, c->f32, from, loop.index), 4));
    cg_loop_end_unrolled(c, &loop, 4);
}

/* Of floats [low, high), added: they are 0 or NaN. */
static LLVMValueRef sum_losses(cg *c, LLVMValueRef losses, LLVMValueRef low, LLVMValueRef high) {
    LLVMValueRef total = cg_variable(c, c->f32, cg_f32(c, 0));
    cg_loop scan = cg_loop_begin(c, low, high, 1);
    LLVMValueRef sum = LLVMBuildFAdd(c->b, LLVMBuildLoad2(c->b, c->f32, total, ""),
                                     cg_load(c, c->f32, cg_at(c, c->f32, losses, scan.index), 4), "");
    LLVMSetFastMathFlags(sum, LLVMFastMathAllowReassoc | LLVMFastMathNoSignedZeros);
    LLVMBuildStore(c->b, sum, total);
    cg_loop_end(c, &scan);
    return LLVMBuildLoad2(c->b, c->f32, total, "");
}

/* user: the first row. */
static void put_parts(cg *c, void *user, int i, LLVMValueRef index, LLVMValueRef weights, LLVMValueRef seen) {
    parts_of_row row = *(const parts_of_row *)user;
    (void)seen;
    row.to = cg_at(c, c->i16, row.to, cg_i64(c, i * row.parts * row.count));
    store_parts(c, &row, index, weights);
}

void attention_tiles_weigh(cg *c, const attention_job *job, attention_rows *rows, LLVMValueRef lost,
                           LLVMValueRef losses, LLVMValueRef to, LLVMValueRef *top, LLVMValueRef *sum) {
    LLVMValueRef more = cg_variable(c, c->f32, cg_f32(c, 0));
    cg_branch some = cg_if(c, lost);
    LLVMBuildStore(c->b, sum_losses(c, losses, rows->low, rows->high), more);
    cg_end_if(c, &some);
    rows->more = LLVMBuildLoad2(c->b, c->f32, more, "");
    attention_weigh(c, job, rows, top, put_parts, &(parts_of_row){to, rows->keys, job->parts}, sum);
}

/* ---- panels ---- */

/* A vector of elements of a cache, two in a lane: as they are, or of codes and scales. */
static LLVMValueRef load_units(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv,
                               LLVMValueRef column) {
    if (cache->scale >= 0) {
        LLVMValueRef x = attention_element(c, cache, slot, kv, column, PAIR * c->lanes);
        return LLVMBuildBitCast(c->b, cg_from_f32(c, RT_BF16, x), cg_vector(c, c->i32), "");
    }
    LLVMValueRef at = attention_offset(c, slot, cache->stride[0], kv, cache->stride[1], column, 1);
    return cg_load(c, cg_vector(c, c->i32), cg_at(c, c->i16, c->code.args[cache->data], at), 2);
}

LLVMValueRef attention_tiles_units(cg *c, const attention_job *job, const attention_panel *p, LLVMValueRef number,
                                   LLVMValueRef unit) {
    return load_units(c, &job->k, cg_add(c, p->slot, number), p->kv, cg_mul(c, unit, cg_i64(c, PAIR)));
}

/* Elements that are not finite become 0, and are counted: *lost, i16 lanes of ones. */
static LLVMValueRef take_finite(cg *c, LLVMValueRef units, LLVMValueRef lost) {
    LLVMTypeRef halves = LLVMVectorType(c->i16, PAIR * (unsigned)c->lanes);
    LLVMValueRef bits = LLVMBuildBitCast(c->b, units, halves, ""),
                 most = cg_splat(c, LLVMConstInt(c->i16, 0x7F80, 0), PAIR * c->lanes);
    LLVMValueRef wrong = LLVMBuildICmp(c->b, LLVMIntEQ, LLVMBuildAnd(c->b, bits, most, ""), most, "");
    LLVMValueRef ones = LLVMBuildSExt(c->b, wrong, halves, "");
    LLVMBuildStore(c->b, LLVMBuildOr(c->b, LLVMBuildLoad2(c->b, halves, lost, ""), ones, ""), lost);
    return LLVMBuildBitCast(c->b, LLVMBuildSelect(c->b, wrong, LLVMConstNull(halves), bits, ""), cg_vector(c, c->i32),
                            "");
}

/* Columns `low` or `high` half of two keys, a column of both to a lane. */
static LLVMValueRef pair_up(cg *c, LLVMValueRef one, LLVMValueRef other, bool high) {
    LLVMTypeRef halves = LLVMVectorType(c->i16, PAIR * (unsigned)c->lanes);
    LLVMValueRef mask[MAX_ELEMENTS];
    for (int i = 0; i < PAIR * c->lanes; i++)
        mask[i] = cg_i32(c, i / 2 + (high ? c->lanes : 0) + (i % 2) * PAIR * c->lanes);
    one = LLVMBuildBitCast(c->b, one, halves, ""), other = LLVMBuildBitCast(c->b, other, halves, "");
    return LLVMBuildBitCast(
        c->b, LLVMBuildShuffleVector(c->b, one, other, LLVMConstVector(mask, (unsigned)(PAIR * c->lanes)), ""),
        cg_vector(c, c->i32), "");
}

/* NaN where something was lost of a key, else 0. */
static void note_loss(cg *c, LLVMValueRef lost, LLVMValueRef at) {
    LLVMTypeRef halves = LLVMVectorType(c->i16, PAIR * (unsigned)c->lanes);
    LLVMValueRef all = LLVMBuildLoad2(c->b, halves, lost, ""),
                 any = cg_intrinsic(c, "llvm.vector.reduce.or", halves, &all, 1);
    LLVMValueRef bits = LLVMBuildAnd(c->b, LLVMBuildSExt(c->b, any, c->i32, ""), cg_i32(c, 0x7FC00000), "");
    cg_store(c, LLVMBuildBitCast(c->b, bits, c->f32, ""), at, 4);
}

LLVMValueRef attention_tiles_pack_v(cg *c, const attention_job *job, const attention_panel *p, LLVMValueRef losses,
                                    LLVMValueRef to, int64_t most) {
    int64_t width = attention_tile_width(c), both = PAIR * c->lanes, step = CG_TILE_DEPTH;
    LLVMTypeRef halves = LLVMVectorType(c->i16, PAIR * (unsigned)c->lanes);
    LLVMValueRef last = cg_sub(c, p->count, cg_i64(c, 1)), lost[PAIR];
    for (int i = 0; i < PAIR; i++) lost[i] = cg_variable(c, halves, NULL);
    LLVMValueRef end =
        cg_mul(c, LLVMBuildUDiv(c->b, cg_add(c, p->count, cg_i64(c, step - 1)), cg_i64(c, step), ""), cg_i64(c, step));
    /* keys after the last are that one again, and have no weight */
    cg_loop keys = cg_loop_begin(c, cg_i64(c, 0), end, PAIR);
    LLVMValueRef line =
        cg_at(c, c->i32, to, cg_mul(c, LLVMBuildUDiv(c->b, keys.index, cg_i64(c, PAIR), ""), cg_i64(c, width)));
    for (int i = 0; i < PAIR; i++) LLVMBuildStore(c->b, LLVMConstNull(halves), lost[i]);
    cg_loop columns = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), both);
    LLVMValueRef row[PAIR];
    for (int i = 0; i < PAIR; i++) {
        LLVMValueRef slot = cg_add(c, p->slot, cg_min(c, cg_add(c, keys.index, cg_i64(c, i)), last));
        row[i] = take_finite(c, load_units(c, &job->v, slot, p->kv, columns.index), lost[i]);
    }
    LLVMValueRef part =
        cg_at(c, c->i32, line,
              cg_mul(c, LLVMBuildUDiv(c->b, columns.index, cg_i64(c, width), ""), cg_i64(c, most / PAIR * width)));
    for (int h = 0; h < HALVES; h++)
        cg_store(c, pair_up(c, row[0], row[1], h), cg_at(c, c->i32, part, cg_i64(c, h * c->lanes)), 4);
    cg_loop_end(c, &columns);
    for (int i = 0; i < PAIR; i++) note_loss(c, lost[i], cg_at(c, c->f32, losses, cg_add(c, keys.index, cg_i64(c, i))));
    cg_loop_end(c, &keys);
    LLVMValueRef total = sum_losses(c, losses, cg_i64(c, 0), p->count);
    return LLVMBuildFCmp(c->b, LLVMRealUNO, total, total, "");
}

void attention_tiles_multiply(cg *c, const attention_job *job, const attention_product *p) {
    cg_tile_product product = {.a = p->a,
                               .rows = p->rows,
                               .b = p->b,
                               .depth = p->depth,
                               .out = p->out,
                               .a_stride = cg_i64(c, p->a_stride),
                               .out_stride = cg_i64(c, p->out_stride),
                               .parts = job->parts,
                               .add = p->add};
    cg_tile_multiply(c, &product);
}
