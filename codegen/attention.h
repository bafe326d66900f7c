/* What the two forms of attention share. Internal to codegen/. */
#ifndef GM_CODEGEN_ATTENTION_H
#define GM_CODEGEN_ATTENTION_H

#include "codegen/cg.h"

/* K or V [S,KV,D] in memory, in any layout in which rows or columns are dense; scale: its f32[S,KV,D/run], -1: none. */
typedef struct attention_cache {
    rt_dtype dtype;
    int64_t stride[3], scale_stride[3], run; /* run: columns that share a scale, all of a head or 32 */
    int data, scale;                         /* kernel arguments */
} attention_cache;

typedef struct attention_job {
    ir_dim tokens;
    int64_t kv_heads, group, d, slots;
    int64_t q_stride[4], out_stride[4];
    attention_cache k, v;
    rt_dtype q_dtype, out_dtype; /* f32 or bf16 */
    double factor, cap;
    int64_t window; /* 0: none */
    bool ring;      /* key j lies in slot j mod slots */
    /* the instruction has an impl, "int16" or "tiles": it may be done in integers or in bf16, where attention_in_int16,
     * attention_in_tiles or attention_one_in_int16 says so */
    bool int16;
    int parts;                        /* in tiles: how many bf16 hold a number of q or a weight: 1, or 2, high + low */
    int q, position, window_arg, out; /* kernel arguments; window_arg: without a window more than all keys */
} attention_job;

/* Few queries: one token. */
void attention_one(cg *c, const attention_job *job);
/* Many: blocks of tokens. */
void attention_blocks(cg *c, const attention_job *job);
/* For --explain: appends how each of them does this job. */
void attention_one_text(const cg *c, const attention_job *job, gm_string *out);
void attention_blocks_text(const cg *c, const attention_job *job, gm_string *out);

/* ---- attention.c ---- */

/* The most keys that some query can see. */
int64_t attention_most_keys(const attention_job *job);
/* First key that the query at position p sees. */
LLVMValueRef attention_first_key(cg *c, const attention_job *job, LLVMValueRef p);
/* `at`, an address in this thread's scratch, in the scratch of another thread instead. */
LLVMValueRef attention_of_thread(cg *c, LLVMValueRef at, LLVMValueRef thread);
/* scale and softcap of one score. */
LLVMValueRef attention_score(cg *c, const attention_job *job, LLVMValueRef s);
/* The larger of two floats or vectors, not NaN. */
LLVMValueRef attention_larger(cg *c, LLVMValueRef x, LLVMValueRef y);
/* 2^((score - top)·unit), of a top that is not smaller; f32 or vectors. LOG2_E: the unit for e^(score - top). */
#define ATTENTION_LOG2_E 1.44269504088896341
LLVMValueRef attention_weight(cg *c, double unit, LLVMValueRef score, LLVMValueRef top);
/* Softmax of scores[low, high) in place, not divided yet: e^(score - top), which sum to total. top is finite. */
typedef struct attention_sum {
    LLVMValueRef top, total;
} attention_sum;
attention_sum attention_softmax(cg *c, const attention_job *job, LLVMValueRef scores, LLVMValueRef low,
                                LLVMValueRef high);
/* at[count] = 0, of 32 bits. */
void attention_zero(cg *c, LLVMValueRef at, LLVMValueRef count);
/* The largest multiple of `step` that is at most `count`. */
LLVMValueRef attention_whole(cg *c, LLVMValueRef count, int64_t step);
/* a·sa + b·sb + g·sg */
LLVMValueRef attention_offset(cg *c, LLVMValueRef a, int64_t sa, LLVMValueRef b, int64_t sb, LLVMValueRef g,
                              int64_t sg);
/* Where the scale of this element lies. */
LLVMValueRef attention_scale(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv,
                             LLVMValueRef column);
/* `width` elements from base[index] on as f32. */
LLVMValueRef attention_load(cg *c, rt_dtype dtype, LLVMValueRef base, LLVMValueRef index, int width);
/* out[index …] = y, f32 of any width, rounded where dtype is bf16. */
void attention_store(cg *c, rt_dtype dtype, LLVMValueRef y, LLVMValueRef out, LLVMValueRef index);

/* A loop over runs of the keys [low, low + keys) that lie in consecutive slots: `count` keys, from key low + first on,
 * in the slots from `slot` on. No run crosses a multiple of `most` (0: no such limit) or the end of a ring. */
typedef struct attention_runs {
    cg_loop loop;
    bool looped;
    LLVMValueRef first, slot, count;
} attention_runs;
attention_runs attention_runs_begin(cg *c, const attention_job *job, LLVMValueRef low, LLVMValueRef keys, int64_t most);
void attention_runs_end(cg *c, attention_runs *runs);

/* ---- attention_one.c ---- */

/* What a thread works on, of one token. In its scratch: scores [heads, most], sums [heads, D], top [heads], total
 * [heads], each f32; and what attention_one_int16.c keeps there. */
typedef struct attention_part {
    int64_t heads, most;
    LLVMValueRef scores, sums, top, total, int16;
    LLVMValueRef low, keys; /* this thread's */
    LLVMValueRef count;     /* of threads that have keys: the first ones */
} attention_part;

/* The address of V's or K's row in `slot`, of kv head `kv`. */
LLVMValueRef attention_row_of(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv);
/* The address of the row of q of head g of the kv head's group. */
LLVMValueRef attention_query_of(cg *c, const attention_job *job, LLVMValueRef kv, LLVMValueRef g);
/* scores[kv·group + g, key] */
LLVMValueRef attention_score_of(cg *c, const attention_job *job, const attention_part *p, LLVMValueRef kv, int64_t g,
                                LLVMValueRef key);
/* While `rows` neighbouring rows of d columns, the first at `row`, are read from `column` on, at most a cache line of
 * each: prefetch as many lines of the rows that come after them. */
void attention_prefetch(cg *c, const attention_cache *cache, int64_t d, LLVMValueRef row, int rows,
                        LLVMValueRef column);
/* Loops over the rows of a run of keys in the order of memory: first over whole tiles of `rows` rows, then over tiles
 * of `last` rows for the rest, of which the last may reach beyond the run (last 0: the rest is left out). The code of a
 * tile is emitted for each of the two:
 *
 *   attention_row_tiles t = attention_row_tiles_begin(…);
 *   do … while (attention_row_tiles_next(c, &t)); */
typedef struct attention_row_tiles {
    int rows;                   /* of the tile */
    LLVMValueRef slot, key, kv; /* of its first row; key: counted as the run's first is */
    LLVMValueRef left;          /* i64: rows of the run from there on */
    const attention_job *job;
    const attention_cache *cache;
    const attention_runs *run;
    int last;
    LLVMValueRef whole; /* i64: rows in whole tiles */
    cg_loop outer, keys, heads;
} attention_row_tiles;
attention_row_tiles attention_row_tiles_begin(cg *c, const attention_job *job, const attention_cache *cache,
                                              const attention_runs *run, int rows, int last);
bool attention_row_tiles_next(cg *c, attention_row_tiles *t);

/* ---- attention_one_int16.c ---- */

/* Is this job, of one token, done in int16? K and V are i8 then, with a scale for each 32 columns. */
bool attention_one_in_int16(const attention_job *job);
void attention_one_int16_text(const cg *c, const attention_job *job, gm_string *out);
/* Bytes of scratch at part.int16, where a line of memory begins. */
int64_t attention_one_int16_bytes(cg *c, const attention_job *job);
/* The part's scores. */
void attention_one_int16_score(cg *c, const attention_job *job, const attention_part *p);
/* The part's sums, zero before, += the rows of V by their weights. */
void attention_one_int16_weigh(cg *c, const attention_job *job, const attention_part *p);

/* ---- attention_weigh.c ---- */

/* A variable, f32[lanes]; what it becomes with a vector more; its largest lane, none of them NaN, or their sum. */
LLVMValueRef attention_vector(cg *c, double each);
void attention_vector_top(cg *c, LLVMValueRef variable, LLVMValueRef x);
void attention_vector_add(cg *c, LLVMValueRef variable, LLVMValueRef x);
LLVMValueRef attention_vector_largest(cg *c, LLVMValueRef variable);
LLVMValueRef attention_vector_sum(cg *c, LLVMValueRef variable);

/* The scores f32[count][keys] of some rows with the keys of a panel, of which all rows see the same ones, [low, high),
 * at least one. Rows are taken together so that one's work fills the time in which another waits for its own results.
 * keys: a multiple of a vector's lanes. */
enum { ATTENTION_TOGETHER = 4 };
typedef struct attention_rows {
    int count; /* at most ATTENTION_TOGETHER */
    LLVMValueRef scores, low, high;
    LLVMValueRef from, to; /* [low, high) in whole vectors; outside of these no weights are made */
    LLVMValueRef more;     /* f32: 0, or NaN, which makes all weights NaN */
    int64_t keys;
} attention_rows;
/* These rows, without more. */
attention_rows attention_seen_rows(cg *c, int count, LLVMValueRef scores, LLVMValueRef low, LLVMValueRef high,
                                   int64_t keys);
/* The address of row i's score of key `index`. */
LLVMValueRef attention_score_at(cg *c, const attention_rows *rows, int i, LLVMValueRef index);
/* Vector by vector of [from, to): the weights of row i for keys `index` and on, f32[lanes], and which of the keys it
 * sees, i1[lanes]. */
typedef void (*attention_put_fn)(cg *c, void *user, int i, LLVMValueRef index, LLVMValueRef weights, LLVMValueRef seen);
/* The unit of its weights (attention_weight): scores stay without their factor if that is all they need. */
double attention_unit(const attention_job *job);
/* Softmax of each row, not divided yet: e^(score - top) of the keys that it sees, 0 of others in their vectors, or with
 * `more` all NaN. top[i] is the largest score so far, before and after, sum[i] becomes the sum. Scores of these vectors
 * are overwritten. */
void attention_weigh(cg *c, const attention_job *job, const attention_rows *rows, LLVMValueRef *top,
                     attention_put_fn put, void *user, LLVMValueRef *sum);

/* ---- attention_tile.c ---- */

/* A panel of K or V: `count` keys that lie in neighbouring slots. */
typedef struct attention_panel {
    LLVMValueRef kv, slot, count;
} attention_panel;

/* Columns and rows of a tile. */
int64_t attention_tile_width(const cg *c);
int64_t attention_tile_rows(const cg *c);
/* f32 of a panel's keys in int16: what they are multiplied by to become codes, and what their codes stand for. */
typedef struct attention_scales {
    LLVMValueRef inverses, scales;
} attention_scales;
/* to[part][column][key within the part] = K as f32, in parts of as many keys as a tile is wide; what lies after the
 * last key is undefined. Units of 32 bits, two columns each, take the place of columns with scales, which are filled
 * (int16), and in tile registers (bf16). */
void attention_pack_k(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *scales,
                      LLVMValueRef to);
/* to[part][key][column within the part]: f32, parts of as many columns, `most` keys from part to part. */
void attention_pack_v(cg *c, const attention_job *job, const attention_panel *p, LLVMValueRef to, int64_t most);
/* Element [slot, kv, column] of a cache and those after it, `width` of them, as f32 and with their scale: one for all,
 * so that where a head has several column is a multiple of width, a power of two up to 32. */
LLVMValueRef attention_element(cg *c, const attention_cache *cache, LLVMValueRef slot, LLVMValueRef kv,
                               LLVMValueRef column, int width);
/* out[rows, width of a tile] = a[rows, depth]·b[depth, width], with `add` +=. Whole tiles: up to a tile's rows - 1 more
 * are read of a and read and written of out. Elements of 32 bits: f32, or with `int16` pairs of i16, whose sums are
 * multiplied by the f32 scale of their row and, unless `add`, of their column. */
typedef struct attention_product {
    LLVMValueRef a, rows, b, depth, out;
    int64_t a_stride, out_stride; /* elements */
    bool add, int16;
    LLVMValueRef row_scales, column_scales; /* with int16 */
    /* With add: of the depth in keys, row r has zeros but in [low + r / group, high + r / group). Tile registers
     * multiply all of it. */
    LLVMValueRef low, high;
    int64_t group;
} attention_product;
void attention_multiply(cg *c, const attention_product *p);

/* ---- attention_tiles.c ---- */

/* Is this job done in tile registers? Then not in int16. */
bool attention_in_tiles(const cg *c, const attention_job *job);
/* to: d high parts of the row from[d], then d low ones, if there are two parts; bf16. */
void attention_tiles_row(cg *c, const attention_job *job, LLVMValueRef from, LLVMValueRef to);
/* As attention_int16_units, the elements as they are. */
LLVMValueRef attention_tiles_units(cg *c, const attention_job *job, const attention_panel *p, LLVMValueRef number,
                                   LLVMValueRef unit);
/* As attention_int16_pack_v; losses, f32[keys rounded up to whole tiles]: NaN of a key with values that are not finite,
 * else 0. Returns i1: is there such a key? */
LLVMValueRef attention_tiles_pack_v(cg *c, const attention_job *job, const attention_panel *p, LLVMValueRef losses,
                                    LLVMValueRef to, int64_t most);
/* attention_weigh, with to: the weights in parts as above, row by row, zero before; NaN when one of the keys that they
 * see has lost something. lost: what attention_tiles_pack_v returned. */
void attention_tiles_weigh(cg *c, const attention_job *job, attention_rows *rows, LLVMValueRef lost,
                           LLVMValueRef losses, LLVMValueRef to, LLVMValueRef *top, LLVMValueRef *sum);
/* As attention_multiply, of pairs of bf16: of two parts a row of a has its high ones in the first half of a_stride
 * elements, its low ones in the other. */
void attention_tiles_multiply(cg *c, const attention_job *job, const attention_product *p);

/* ---- attention_int16.c ---- */

/* Is this job done in int16? */
bool attention_in_int16(const cg *c, const attention_job *job);
/* to[d] = the row from[d], of whole vectors, as int16 up to `code`, whose scale goes to *scale. */
void attention_round_row(cg *c, const attention_job *job, rt_dtype dtype, double code, LLVMValueRef from,
                         LLVMValueRef to, LLVMValueRef scale);
/* The same of f32, with the largest code for what it is multiplied by here. */
void attention_int16_row(cg *c, const attention_job *job, LLVMValueRef from, LLVMValueRef to, LLVMValueRef scale);
/* Fill the scales of a panel of K. */
void attention_int16_scale_k(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *to);
/* A vector of units of 32 bits of key `number` of the panel, two columns each, from one on. */
LLVMValueRef attention_int16_units(cg *c, const attention_job *job, const attention_panel *p,
                                   const attention_scales *scales, LLVMValueRef number, LLVMValueRef unit);
/* As attention_pack_v, a unit of 32 bits holding the same column of two keys; fills the scales. */
void attention_int16_pack_v(cg *c, const attention_job *job, const attention_panel *p, const attention_scales *scales,
                            LLVMValueRef to, int64_t most);
/* attention_weigh, with to: i16[count][keys], the codes of the weights times the values' scales, zero before, whose own
 * scales go to scale[count]. The scores are overwritten. */
void attention_int16_weigh(cg *c, const attention_job *job, const attention_rows *rows, LLVMValueRef values,
                           LLVMValueRef to, LLVMValueRef scale, LLVMValueRef *top, LLVMValueRef *sum);

#endif
