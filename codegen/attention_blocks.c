/* attention for many tokens (prefill). A task is one kv head and a block of tokens; its rows are the queries of these
 * tokens from all heads that share the kv head.
 *
 * The keys go by in panels: for each, all rows of the block get their scores, weights and weighted sum. When a panel
 * brings a row a larger score, what the row has summed before is rescaled (the online softmax of Milakov and
 * Gimelshein; blocked as in Dao's FlashAttention). A row that sees no key of a panel takes no part in its products. The
 * weighted sum of a tile of rows leaves out the keys that none of its rows sees, but not in tile registers; other keys
 * that a row does not see have the weight 0. Panels begin at multiples of their length, so that a row's result, if
 * values are finite, does not depend on the block it is in. Tasks are scheduled dynamically (deal.c).
 *
 * Panels in int16 or bf16 of a cache that is no ring are shared, if all together have at most MOST_SHARED bytes: they
 * are packed before the first block, keys and values by threads in turn, each into the scratch of the thread that packs
 * it, where all blocks read it. Otherwise each block packs each panel when it comes to it.
 */
#include "codegen/attention.h"

#include <float.h>

enum {
    BLOCK_ROWS = 120,
    BLOCK_ROWS_TILES = 128,
    PANEL_KEYS = 128,
    MOST_SHARED = 8 << 20 /* bytes of panels */,
    LINE = 16 /* floats of a cache line */
};

/* A packed panel, or what follows a key in it: f32 or units of 32 bits. */
typedef struct packed {
    LLVMValueRef keys, values;
    attention_scales k, v; /* in int16; in tiles v.scales: what is lost of values */
    LLVMValueRef lost;     /* i32 in tiles: is something? */
} packed;

typedef struct block {
    LLVMValueRef kv, first, count; /* kv head, first token, tokens */
    LLVMValueRef low, keys;        /* first visible key, number of keys */
    LLVMValueRef place;            /* position of the first token */
    /* in the thread's scratch: q [rows, d], sums [rows, columns], scores [rows, PANEL_KEYS], tops [rows], totals
     * [rows], a panel or the parts of shared ones that it packs */
    LLVMValueRef rows, sums, scores, tops, totals, panel, shared;
    bool int16, tiles; /* what products are done in; neither: f32 */
    /* in int16 or tiles: the weights as their product takes them [rows, weight_elements]; in int16: scales of q and of
     * the weights [rows], inverses of the scales of a panel's keys and values */
    LLVMValueRef weights, q_scales, weight_scales, k_inverses, v_inverses;
    int64_t most;       /* panels that are shared, 0: none are */
    LLVMValueRef start; /* of those shared: the first key */
} block;

/* d rounded up to whole tiles. */
static int64_t columns_of(const cg *c, const attention_job *job) {
    int64_t width = attention_tile_width(c);
    return (job->d + width - 1) / width * width;
}

/* Rows that a product takes at once: it reads up to tall_of - 1 rows after the last one, in tile registers none. */
static int64_t tall_of(const cg *c, const block *b) {
    return b->tiles ? 1 : attention_tile_rows(c);
}

static void multiply(cg *c, const attention_job *job, const block *b, const attention_product *product) {
    if (b->tiles) attention_tiles_multiply(c, job, product);
    else attention_multiply(c, product);
}

/* ---- rows of the block ---- */

/* Elements of 32 bits in a row of q. */
static int64_t row_elements(const attention_job *job, const block *b) {
    return b->int16 ? job->d / 2 : b->tiles ? job->d / 2 * job->parts : job->d;
}

/* Are panels of units of two elements? */
static bool in_pairs(const block *b) {
    return b->int16 || b->tiles;
}

/* Elements of 32 bits of a key in a panel. */
static int64_t key_elements(const attention_job *job, const block *b) {
    return in_pairs(b) ? job->d / 2 : job->d;
}

/* Elements of 32 bits in a row of weights. */
static int64_t weight_elements(const attention_job *job, const block *b) {
    return b->int16 ? PANEL_KEYS / 2 : b->tiles ? PANEL_KEYS / 2 * job->parts : PANEL_KEYS;
}

static LLVMValueRef weights_of(const block *b) {
    return in_pairs(b) ? b->weights : b->scores;
}

static LLVMValueRef float_at(cg *c, LLVMValueRef floats, LLVMValueRef index) {
    return cg_at(c, c->f32, floats, index);
}

/* to[d] = from[d], times a factor if there is one. */
static void copy_row(cg *c, const attention_job *job, rt_dtype from_dtype, LLVMValueRef from, LLVMValueRef factor,
                     rt_dtype to_dtype, LLVMValueRef to) {
    int64_t whole = job->d / c->lanes * c->lanes;
    for (int vectors = 1; vectors >= 0; vectors--) { /* whole vectors, then what is left of the row */
        int width = vectors ? c->lanes : 1;
        cg_loop loop = cg_loop_begin(c, cg_i64(c, vectors ? 0 : whole), cg_i64(c, vectors ? whole : job->d), width);
        LLVMValueRef x = attention_load(c, from_dtype, from, loop.index, width);
        if (factor) x = LLVMBuildFMul(c->b, x, vectors ? cg_splat(c, factor, width) : factor, "");
        attention_store(c, to_dtype, x, to, loop.index);
        cg_loop_end(c, &loop);
    }
}

static void read_row(cg *c, const attention_job *job, const block *b, LLVMValueRef row, LLVMValueRef from,
                     LLVMValueRef to) {
    bool narrow = job->q_dtype != RT_F32;
    bool as_it_is = b->tiles && narrow && job->parts == 1;
    /* There are no scores yet, so a row may lie in their place. */
    if (in_pairs(b) && narrow && !as_it_is)
        copy_row(c, job, job->q_dtype, from, NULL, RT_F32, b->scores), from = b->scores;
    if (b->int16) attention_int16_row(c, job, from, to, float_at(c, b->q_scales, row));
    else if (as_it_is) LLVMBuildMemCpy(c->b, to, 4, from, 2, cg_i64(c, job->d * 2));
    else if (b->tiles) attention_tiles_row(c, job, from, to);
    else copy_row(c, job, job->q_dtype, from, NULL, RT_F32, to);
}

/* rows[(t, g)] = q; the rows after them, which fill the last tile, are 0. */
static void read_rows(cg *c, const attention_job *job, const block *b, LLVMValueRef rows) {
    int64_t elements = row_elements(job, b);
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), rows, 1);
    LLVMValueRef t = cg_add(c, b->first, LLVMBuildUDiv(c->b, loop.index, cg_i64(c, job->group), ""));
    LLVMValueRef g = LLVMBuildURem(c->b, loop.index, cg_i64(c, job->group), "");
    LLVMValueRef from = cg_at(c, cg_type(c, job->q_dtype), c->code.args[job->q],
                              attention_offset(c, t, job->q_stride[0], b->kv, job->q_stride[1], g, job->q_stride[2]));
    LLVMValueRef to = float_at(c, b->rows, cg_mul(c, loop.index, cg_i64(c, elements)));
    read_row(c, job, b, loop.index, from, to);
    cg_loop_end(c, &loop);
    LLVMValueRef end = float_at(c, b->rows, cg_mul(c, rows, cg_i64(c, elements)));
    attention_zero(c, end, cg_i64(c, (tall_of(c, b) - 1) * elements));
}

static void begin_sums(cg *c, const attention_job *job, const block *b, LLVMValueRef rows) {
    int64_t columns = columns_of(c, job);
    attention_zero(c, b->sums, cg_mul(c, rows, cg_i64(c, columns)));
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), rows, 1);
    cg_store(c, cg_f32(c, -FLT_MAX), float_at(c, b->tops, loop.index), 4);
    cg_store(c, cg_f32(c, 0), float_at(c, b->totals, loop.index), 4);
    cg_loop_end(c, &loop);
    /* The last tile's other rows add nothing, so their scales are finite. */
    LLVMValueRef scales = cg_add(c, rows, cg_i64(c, tall_of(c, b) - 1));
    if (b->int16) attention_zero(c, b->weight_scales, scales);
}

/* row[d] *= factor */
static void scale_row(cg *c, const attention_job *job, LLVMValueRef row, LLVMValueRef factor) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->d), 1);
    LLVMValueRef at = cg_at(c, c->f32, row, loop.index);
    cg_store(c, LLVMBuildFMul(c->b, cg_load(c, c->f32, at, 4), factor, ""), at, 4);
    cg_loop_end(c, &loop);
}

static LLVMValueRef sums_of(cg *c, const attention_job *job, const block *b, LLVMValueRef row) {
    return cg_at(c, c->f32, b->sums, cg_mul(c, row, cg_i64(c, columns_of(c, job))));
}

static void write_rows(cg *c, const attention_job *job, const block *b, LLVMValueRef rows) {
    cg_loop loop = cg_loop_begin(c, cg_i64(c, 0), rows, 1);
    LLVMValueRef t = cg_add(c, b->first, LLVMBuildUDiv(c->b, loop.index, cg_i64(c, job->group), ""));
    LLVMValueRef g = LLVMBuildURem(c->b, loop.index, cg_i64(c, job->group), "");
    LLVMValueRef at = attention_offset(c, t, job->out_stride[0], b->kv, job->out_stride[1], g, job->out_stride[2]);
    LLVMValueRef total = cg_load(c, c->f32, cg_at(c, c->f32, b->totals, loop.index), 4);
    LLVMValueRef out = cg_at(c, cg_type(c, job->out_dtype), c->code.args[job->out], at);
    copy_row(c, job, RT_F32, sums_of(c, job, b, loop.index), LLVMBuildFDiv(c->b, cg_f32(c, 1.0), total, ""),
             job->out_dtype, out);
    cg_loop_end(c, &loop);
}

/* ---- a panel of keys ---- */

/* The position of the token whose row this is. */
static LLVMValueRef place_of(cg *c, const attention_job *job, const block *b, LLVMValueRef row) {
    return cg_add(c, b->place, LLVMBuildUDiv(c->b, row, cg_i64(c, job->group), ""));
}

/* Rows [from, to) of the block: those that see some of the keys [low, high), counted from b->low. */
static void rows_that_see(cg *c, const attention_job *job, const block *b, LLVMValueRef low, LLVMValueRef high,
                          LLVMValueRef *from, LLVMValueRef *to) {
    LLVMValueRef behind = cg_sub(c, b->low, b->place), group = cg_i64(c, job->group); /* of key 0 to token 0 */
    *from = cg_mul(c, cg_max(c, cg_i64(c, 0), cg_add(c, low, behind)), group);
    LLVMValueRef end = cg_sub(c, cg_add(c, cg_add(c, high, behind), c->code.args[job->window_arg]), cg_i64(c, 1));
    *to = cg_mul(c, cg_min(c, b->count, end), group);
}

static void keep_weights(cg *c, void *user, int i, LLVMValueRef index, LLVMValueRef weights, LLVMValueRef seen) {
    (void)seen;
    cg_store(c, weights, attention_score_at(c, user, i, index), 4);
}

static LLVMValueRef is_set(cg *c, LLVMValueRef at) {
    return LLVMBuildICmp(c->b, LLVMIntNE, cg_load(c, c->i32, at, 4), cg_i32(c, 0), "");
}

/* Weights of rows from `number` on, from their scores, where their product takes them; their sums to sum. top[i]: the
 * largest score so far. */
static void weigh_rows(cg *c, const attention_job *job, const block *b, const packed *p, LLVMValueRef number,
                       attention_rows *rows, LLVMValueRef *top, LLVMValueRef *sum) {
    int64_t elements = weight_elements(job, b);
    LLVMValueRef weights = float_at(c, weights_of(b), cg_mul(c, number, cg_i64(c, elements)));
    if (in_pairs(b)) attention_zero(c, weights, cg_i64(c, rows->count * elements));
    if (b->int16)
        attention_int16_weigh(c, job, rows, p->v.scales, weights, float_at(c, b->weight_scales, number), top, sum);
    else if (b->tiles) attention_tiles_weigh(c, job, rows, is_set(c, p->lost), p->v.scales, weights, top, sum);
    else attention_weigh(c, job, rows, top, keep_weights, rows, sum);
    for (int i = 0; i < rows->count && !in_pairs(b); i++) {
        LLVMValueRef row = float_at(c, weights, cg_i64(c, i * elements));
        attention_zero(c, row, rows->from);
        attention_zero(c, float_at(c, row, rows->to), cg_sub(c, cg_i64(c, rows->keys), rows->to));
    }
}

/* What row `number` has summed so far, relative to its largest score `old`, is rescaled to `top`, and the panel's sum
 * added. */
static void add_weights(cg *c, const attention_job *job, const block *b, LLVMValueRef number, LLVMValueRef old,
                        LLVMValueRef top, LLVMValueRef sum) {
    cg_store(c, top, float_at(c, b->tops, number), 4);
    LLVMValueRef total_at = cg_at(c, c->f32, b->totals, number);
    cg_branch rescale = cg_if(c, LLVMBuildFCmp(c->b, LLVMRealUNE, old, top, ""));
    LLVMValueRef factor = attention_weight(c, attention_unit(job), old, top), sums = sums_of(c, job, b, number);
    cg_store(c, LLVMBuildFMul(c->b, cg_load(c, c->f32, total_at, 4), factor, ""), total_at, 4);
    scale_row(c, job, sums, factor);
    cg_end_if(c, &rescale);
    cg_store(c, LLVMBuildFAdd(c->b, cg_load(c, c->f32, total_at, 4), sum, ""), total_at, 4);
}

/* Rows of a token that are weighed together. */
static int together_of(const attention_job *job) {
    int count = ATTENTION_TOGETHER;
    while (job->group % count) count /= 2;
    return count;
}

/* Scores of the rows [from, to), whole tokens, become weights, and what these rows have summed so far is mended. */
static void weigh_panel(cg *c, const attention_job *job, const block *b, const packed *p, const attention_runs *run,
                        LLVMValueRef from, LLVMValueRef to) {
    LLVMValueRef start = cg_add(c, b->low, run->first), zero = cg_i64(c, 0); /* position of the panel's first key */
    LLVMValueRef old[ATTENTION_TOGETHER], top[ATTENTION_TOGETHER], sum[ATTENTION_TOGETHER];
    int count = together_of(job);
    cg_loop row = cg_loop_begin(c, from, to, count);
    LLVMValueRef place = place_of(c, job, b, row.index);
    LLVMValueRef low = cg_max(c, zero, cg_sub(c, attention_first_key(c, job, place), start));
    LLVMValueRef high = cg_min(c, run->count, cg_add(c, cg_sub(c, place, start), cg_i64(c, 1)));
    attention_rows seen = attention_seen_rows(
        c, count, float_at(c, b->scores, cg_mul(c, row.index, cg_i64(c, PANEL_KEYS))), low, high, PANEL_KEYS);
    for (int i = 0; i < count; i++)
        top[i] = old[i] = cg_load(c, c->f32, float_at(c, b->tops, cg_add(c, row.index, cg_i64(c, i))), 4);
    weigh_rows(c, job, b, p, row.index, &seen, top, sum);
    for (int i = 0; i < count; i++) add_weights(c, job, b, cg_add(c, row.index, cg_i64(c, i)), old[i], top[i], sum[i]);
    cg_loop_end(c, &row);
    /* Weights of the last tile's other rows. */
    LLVMValueRef rest = float_at(c, weights_of(b), cg_mul(c, to, cg_i64(c, weight_elements(job, b))));
    attention_zero(c, rest, cg_i64(c, (tall_of(c, b) - 1) * weight_elements(job, b)));
}

static void score_panel(cg *c, const attention_job *job, const block *b, const packed *p, const attention_runs *run) {
    int64_t elements = row_elements(job, b);
    LLVMValueRef d = cg_i64(c, elements), depth = cg_i64(c, key_elements(job, b)),
                 width = cg_i64(c, attention_tile_width(c)), from, to;
    cg_loop keys = cg_loop_begin(c, cg_i64(c, 0), run->count, attention_tile_width(c));
    LLVMValueRef low = cg_add(c, run->first, keys.index),
                 high = cg_add(c, run->first, cg_min(c, run->count, cg_add(c, keys.index, width)));
    rows_that_see(c, job, b, low, high, &from, &to);
    attention_product product = {
        .a = float_at(c, b->rows, cg_mul(c, from, d)),
        .a_stride = elements,
        .rows = cg_sub(c, to, from),
        .b = float_at(c, p->keys, cg_mul(c, keys.index, depth)),
        .depth = depth,
        .out = float_at(c, b->scores, cg_add(c, cg_mul(c, from, cg_i64(c, PANEL_KEYS)), keys.index)),
        .out_stride = PANEL_KEYS,
        .int16 = b->int16};
    if (b->int16)
        product.row_scales = float_at(c, b->q_scales, from),
        product.column_scales = float_at(c, p->k.scales, keys.index);
    multiply(c, job, b, &product);
    cg_loop_end(c, &keys);
}

static void sum_panel(cg *c, const attention_job *job, const block *b, const attention_runs *run, LLVMValueRef values,
                      LLVMValueRef from, LLVMValueRef to) {
    int64_t columns = columns_of(c, job), keys = weight_elements(job, b),
            lines = in_pairs(b) ? PANEL_KEYS / 2 : PANEL_KEYS;
    LLVMValueRef weights = float_at(c, weights_of(b), cg_mul(c, from, cg_i64(c, keys))), depth = run->count;
    if (in_pairs(b)) depth = LLVMBuildUDiv(c->b, cg_add(c, depth, cg_i64(c, 1)), cg_i64(c, 2), "");
    LLVMValueRef start = cg_add(c, b->low, run->first); /* position of the panel's first key */
    /* Behind the last key that the first row sees. */
    LLVMValueRef high = cg_add(c, cg_sub(c, place_of(c, job, b, from), start), cg_i64(c, 1));
    cg_loop part = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, columns), attention_tile_width(c));
    attention_product product = {.a = weights,
                                 .a_stride = keys,
                                 .rows = cg_sub(c, to, from),
                                 .b = float_at(c, values, cg_mul(c, part.index, cg_i64(c, lines))),
                                 .depth = depth,
                                 .out = float_at(c, sums_of(c, job, b, from), part.index),
                                 .out_stride = columns,
                                 .add = true,
                                 .int16 = b->int16,
                                 .low = cg_sub(c, high, c->code.args[job->window_arg]),
                                 .high = high,
                                 .group = job->group};
    if (b->int16) product.row_scales = float_at(c, b->weight_scales, from);
    multiply(c, job, b, &product);
    cg_loop_end(c, &part);
}

/* The first key to read so that `low` is read. From shared panels and with tile registers, keys are read in groups of
 * GROUP, the width of a tile, and tile registers sum group by group: a key must be in the same group whatever the
 * block, so that reading begins with a group. Groups are counted from where a run begins, at a panel's first key or at
 * a ring's first slot. Keys before `low` have the weight 0. */
static LLVMValueRef first_read(cg *c, const attention_job *job, const block *b, LLVMValueRef low) {
    enum { GROUP = CG_TILE_DEPTH };
    if (!b->tiles && !b->most) return low;
    LLVMValueRef panel = cg_i64(c, PANEL_KEYS), slots = cg_i64(c, job->slots);
    LLVMValueRef start = cg_mul(c, LLVMBuildUDiv(c->b, low, panel, ""), panel);
    if (job->ring) start = cg_max(c, start, cg_mul(c, LLVMBuildUDiv(c->b, low, slots, ""), slots));
    return cg_sub(c, low, LLVMBuildURem(c->b, cg_sub(c, low, start), cg_i64(c, GROUP), ""));
}

/* ---- packing ---- */

enum { KEYS, VALUES, PARTS }; /* of a panel in pairs */

/* With scales and a line more, where values have `lost`. d is a multiple of a tile's width. */
static int64_t part_floats(const attention_job *job) {
    return PANEL_KEYS * (job->d / 2 + 1) + LINE;
}

static int64_t panel_floats(const cg *c, const attention_job *job, const block *b) {
    return in_pairs(b) ? PARTS * part_floats(job) : PANEL_KEYS * columns_of(c, job);
}

/* A panel in pairs whose keys and values begin at these places. */
static packed parts_at(cg *c, const attention_job *job, const block *b, LLVMValueRef keys, LLVMValueRef values) {
    LLVMValueRef units = cg_i64(c, PANEL_KEYS * job->d / 2);
    packed p = {.keys = keys, .values = values};
    GM_ASSERT(columns_of(c, job) == job->d);
    p.k.scales = float_at(c, keys, units);
    p.v.scales = float_at(c, values, units);
    p.lost = float_at(c, p.v.scales, cg_i64(c, PANEL_KEYS));
    p.k.inverses = b->k_inverses, p.v.inverses = b->v_inverses;
    return p;
}

/* The block's own panel; floats are K, and then V in the same place. */
static packed own_panel(cg *c, const attention_job *job, const block *b) {
    if (!in_pairs(b)) return (packed){.keys = b->panel, .values = b->panel};
    return parts_at(c, job, b, b->panel, float_at(c, b->panel, cg_i64(c, part_floats(job))));
}

/* What follows `keys` keys, whole tiles. */
static packed skip_keys(cg *c, const attention_job *job, const block *b, packed p, LLVMValueRef keys) {
    LLVMValueRef pairs = LLVMBuildUDiv(c->b, keys, cg_i64(c, 2), "");
    p.keys = float_at(c, p.keys, cg_mul(c, keys, cg_i64(c, key_elements(job, b))));
    p.values = float_at(c, p.values, cg_mul(c, pairs, cg_i64(c, attention_tile_width(c))));
    p.k.scales = float_at(c, p.k.scales, keys);
    p.v.scales = float_at(c, p.v.scales, keys);
    return p;
}

typedef void (*pack_fn)(cg *c, const attention_job *job, const block *b, const attention_panel *panel,
                        const packed *to);

static void pack_keys(cg *c, const attention_job *job, const block *b, const attention_panel *panel, const packed *to) {
    attention_pack_k(c, job, panel, b->int16 ? &to->k : NULL, to->keys);
}

/* Only in pairs, since weigh_panel reads the values' scales, or which of them are lost. Values in f32 are packed later,
 * into the memory of the keys, once these have been multiplied (emit_block). */
static void pack_values(cg *c, const attention_job *job, const block *b, const attention_panel *panel,
                        const packed *to) {
    if (b->int16) attention_int16_pack_v(c, job, panel, &to->v, to->values, PANEL_KEYS);
    if (!b->tiles) return;
    LLVMValueRef lost = attention_tiles_pack_v(c, job, panel, to->v.scales, to->values, PANEL_KEYS);
    cg_store(c, LLVMBuildZExt(c->b, lost, c->i32, ""), to->lost, 4);
}

/* Panels that are shared, as many as all keys that blocks see can lie in; 0: each block packs its own. */
static int64_t most_shared(const cg *c, const attention_job *job, const block *b) {
    int64_t tokens = ir_dim_max(c->module, job->tokens), slots = ir_dim_max(c->module, job->slots),
            seen = job->window ? job->window + tokens - 1 : slots;
    int64_t panels = (seen < slots ? seen : slots) / PANEL_KEYS + 2;
    bool fits = panels * job->kv_heads * panel_floats(c, job, b) * 4 <= MOST_SHARED;
    return in_pairs(b) && !job->ring && fits ? panels : 0;
}

/* The number of a part of the shared panel in which a key lies: part n is made by thread n mod threads, and lies in its
 * scratch. Panels begin with keys and with values in turn, since to pack these takes different time. */
static LLVMValueRef part_of(cg *c, const attention_job *job, const block *b, LLVMValueRef key, LLVMValueRef kv,
                            int part) {
    LLVMValueRef panel = cg_i64(c, PANEL_KEYS),
                 index = cg_sub(c, LLVMBuildUDiv(c->b, key, panel, ""), LLVMBuildUDiv(c->b, b->start, panel, ""));
    LLVMValueRef number = cg_add(c, cg_mul(c, index, cg_i64(c, job->kv_heads)), kv);
    LLVMValueRef turned = LLVMBuildXor(c->b, LLVMBuildURem(c->b, number, cg_i64(c, PARTS), ""), cg_i64(c, part), "");
    return cg_add(c, cg_mul(c, number, cg_i64(c, PARTS)), turned);
}

static packed shared_panel(cg *c, const attention_job *job, const block *b, LLVMValueRef key, LLVMValueRef kv) {
    LLVMValueRef threads = cg_widen(c, c->code.threads), at[PARTS];
    for (int i = 0; i < PARTS; i++) {
        LLVMValueRef number = part_of(c, job, b, key, kv, i);
        LLVMValueRef before = cg_mul(c, LLVMBuildUDiv(c->b, number, threads, ""), cg_i64(c, part_floats(job)));
        at[i] = attention_of_thread(c, float_at(c, b->shared, before), LLVMBuildURem(c->b, number, threads, ""));
    }
    return skip_keys(c, job, b, parts_at(c, job, b, at[KEYS], at[VALUES]),
                     LLVMBuildURem(c->b, key, cg_i64(c, PANEL_KEYS), ""));
}

/* This thread's parts of the panels that blocks see. */
static void pack_shared(cg *c, const attention_job *job, block *b, LLVMValueRef all) {
    LLVMValueRef place = cg_widen(c, c->code.args[job->position]), threads = cg_widen(c, c->code.threads);
    b->start = first_read(c, job, b, attention_first_key(c, job, place));
    attention_runs run = attention_runs_begin(c, job, b->start, cg_sub(c, cg_add(c, place, all), b->start), PANEL_KEYS);
    cg_loop head = cg_loop_begin(c, cg_i64(c, 0), cg_i64(c, job->kv_heads), 1);
    attention_panel panel = {.kv = head.index, .slot = run.slot, .count = run.count};
    packed to = shared_panel(c, job, b, run.slot, head.index);
    const pack_fn packs[PARTS] = {[KEYS] = pack_keys, [VALUES] = pack_values};
    for (int i = 0; i < PARTS; i++) {
        LLVMValueRef owner = LLVMBuildURem(c->b, part_of(c, job, b, run.slot, head.index, i), threads, "");
        cg_branch own = cg_if(c, LLVMBuildICmp(c->b, LLVMIntEQ, owner, cg_widen(c, c->code.thread), ""));
        packs[i](c, job, b, &panel, &to);
        cg_end_if(c, &own);
    }
    cg_loop_end(c, &head);
    attention_runs_end(c, &run);
    cg_wait(c, -1);
}

/* ---- a task ---- */

static void emit_block(cg *c, const attention_job *job, block *b) {
    LLVMValueRef rows = cg_mul(c, b->count, cg_i64(c, job->group)), from, to;
    b->low = first_read(c, job, b, attention_first_key(c, job, b->place));
    b->keys = cg_sub(c, cg_add(c, b->place, b->count), b->low);
    read_rows(c, job, b, rows);
    begin_sums(c, job, b, rows);
    attention_runs run = attention_runs_begin(c, job, b->low, b->keys, PANEL_KEYS);
    attention_panel panel = {.kv = b->kv, .slot = run.slot, .count = run.count};
    packed p = b->most ? shared_panel(c, job, b, run.slot, b->kv) : own_panel(c, job, b);
    if (!b->most) {
        pack_keys(c, job, b, &panel, &p);
        pack_values(c, job, b, &panel, &p);
    }
    score_panel(c, job, b, &p, &run);
    rows_that_see(c, job, b, run.first, cg_add(c, run.first, run.count), &from, &to);
    weigh_panel(c, job, b, &p, &run, from, to);
    if (!in_pairs(b)) attention_pack_v(c, job, &panel, p.values, PANEL_KEYS);
    sum_panel(c, job, b, &run, p.values, from, to);
    attention_runs_end(c, &run);
    write_rows(c, job, b, rows);
}

static void open_scratch(cg *c, const attention_job *job, int64_t tokens, block *b) {
    int64_t rows = tokens * job->group + tall_of(c, b) - 1, columns = columns_of(c, job),
            panel = panel_floats(c, job, b), at = 0;
    struct {
        LLVMValueRef *place;
        int64_t floats;
    } parts[] = {{&b->shared, b->most * job->kv_heads * panel},
                 {&b->panel, b->most ? 0 : panel},
                 {&b->scores, rows * PANEL_KEYS},
                 {&b->rows, rows * row_elements(job, b)},
                 {&b->weights, in_pairs(b) ? rows * weight_elements(job, b) : 0},
                 {&b->sums, rows * columns},
                 {&b->tops, rows},
                 {&b->totals, rows},
                 {&b->q_scales, rows},
                 {&b->weight_scales, rows},
                 {&b->k_inverses, PANEL_KEYS},
                 {&b->v_inverses, PANEL_KEYS}};
    for (size_t i = 0; i < GM_COUNT(parts); i++) at += (parts[i].floats + LINE - 1) / LINE * LINE;
    LLVMValueRef base = cg_scratch(c, at * 4);
    at = 0;
    for (size_t i = 0; i < GM_COUNT(parts); at += (parts[i++].floats + LINE - 1) / LINE * LINE)
        *parts[i].place = float_at(c, base, cg_i64(c, at));
}

/* Tokens of a block: at most `most`, all blocks alike, and two tasks for a thread at least. */
static LLVMValueRef tokens_of_block(cg *c, const attention_job *job, LLVMValueRef all, int64_t most) {
    LLVMValueRef threads = cg_widen(c, c->code.threads), one = cg_i64(c, 1), heads = cg_i64(c, job->kv_heads);
    LLVMValueRef tasks = cg_mul(c, threads, cg_i64(c, 2)),
                 fill = LLVMBuildUDiv(c->b, cg_add(c, tasks, cg_sub(c, heads, one)), heads, "");
    LLVMValueRef least = LLVMBuildUDiv(c->b, cg_add(c, all, cg_i64(c, most - 1)), cg_i64(c, most), ""),
                 blocks = cg_max(c, least, fill);
    return LLVMBuildUDiv(c->b, cg_add(c, all, cg_sub(c, blocks, one)), blocks, "");
}

/* The most tokens of a block. */
static int64_t block_tokens(const cg *c, const attention_job *job) {
    int64_t rows = attention_in_tiles(c, job) ? BLOCK_ROWS_TILES : BLOCK_ROWS;
    return job->group >= rows ? 1 : rows / job->group;
}

void attention_blocks_text(const cg *c, const attention_job *job, gm_string *out) {
    bool tiles = attention_in_tiles(c, job);
    block b = {.int16 = attention_in_int16(c, job), .tiles = tiles};
    const char *in_tiles =
        job->parts > 1 ? "two parts of bf16 in tile registers (tdpbf16ps)" : "bf16 in tile registers (tdpbf16ps)";
    const char *how = tiles ? in_tiles : b.int16 ? "integers of 16 bits" : "floats";
    const char *whose = most_shared(c, job, &b) ? "that is packed once for all of them" : "of their own";
    gm_string_printf(
        out, "up to %lld tokens by %lld heads share a panel of %d keys %s, in %s, tiles of %lld rows by %lld columns",
        (long long)block_tokens(c, job), (long long)job->group, PANEL_KEYS, whose, how,
        (long long)(tiles ? 2 * CG_TILE_ROWS : attention_tile_rows(c)), (long long)attention_tile_width(c));
}

void attention_blocks(cg *c, const attention_job *job) {
    int64_t most = block_tokens(c, job);
    block b = {.int16 = attention_in_int16(c, job), .tiles = attention_in_tiles(c, job)};
    b.most = most_shared(c, job, &b);
    open_scratch(c, job, most, &b);
    LLVMValueRef all = cg_dim(c, job->tokens), heads = cg_i64(c, job->kv_heads), one = cg_i64(c, 1),
                 step = cg_max(c, tokens_of_block(c, job, all, most), cg_i64(c, 1));
    LLVMValueRef blocks = LLVMBuildUDiv(c->b, cg_add(c, all, cg_sub(c, step, one)), step, ""),
                 tasks = cg_mul(c, blocks, heads);
    if (b.most) pack_shared(c, job, &b, all);
    cg_pieces pieces = cg_pieces_begin(c, cg_deal(c), tasks);
    /* Later blocks see more keys: the longest work first. */
    LLVMValueRef task = cg_sub(c, cg_sub(c, tasks, one), pieces.index);
    b.kv = LLVMBuildURem(c->b, task, heads, "");
    b.first = cg_mul(c, LLVMBuildUDiv(c->b, task, heads, ""), step);
    b.count = cg_min(c, step, cg_sub(c, all, b.first));
    b.place = cg_add(c, cg_widen(c, c->code.args[job->position]), b.first);
    emit_block(c, job, &b);
    cg_pieces_end(c, &pieces);
}
