/* What the parts of a screened choice share: x in bytes (screen_x.c), estimates of all rows from the screen
 * (screen_estimate.c), and the rows that may be chosen (screen.c). */
#ifndef GM_CODEGEN_SCREEN_H
#define GM_CODEGEN_SCREEN_H

#include "codegen/cg.h"

#include "runtime/likely.h"
#include "runtime/screen.h"

enum {
    SCREEN_LANES = 8,
    SCREEN_SLAB = 64, /* groups */
    SCREEN_DIGIT = 7, /* bits of the fine digit of a length */
};

typedef struct screen_job {
    cg_dot dot;
    int64_t rows;
    rt_screen_places at;
    int screen, out; /* kernel arguments */
    int64_t x_rows;  /* of x */
    double cap;      /* scores are soft-capped; 0: not */
    /* x is one row: only the rows in blocks of likely ids are visited (runtime/likely.h), which these kernel arguments
     * select; a `usual` behind the last id makes all ids likely */
    bool listed;
    int tokens, position, usual;
    int options, seed;   /* kernel arguments: with tokens and position what a sampler goes by */
    LLVMValueRef blocks; /* i32[] in this thread's scratch: the blocks, where listed */
    LLVMValueRef ends;   /* i1, where listed: is the last block of all among them? */
    LLVMValueRef groups; /* i64: how many groups are visited, slab by slab: all, or those of the likely blocks */
} screen_job;

/* What is known of a row of x: pointers into this thread's scratch. */
typedef struct screen_x {
    LLVMValueRef columns; /* f32[runs,32]: x in the order of the screen */
    LLVMValueRef q;       /* i8[runs + 1,32]: x in 8 bits; the last run: 8 more bits of the first, its remainder */
    LLVMValueRef spread;  /* i8[runs + 1,8,8,4]: q with every four bytes repeated eight times, if screen_spreads */
    LLVMValueRef step;    /* f32[runs + 1]: the value of a unit of code·q */
    LLVMValueRef centre;  /* f32[runs + 1]: -8·Σx̂, since a code c stands for c - 8 */
    LLVMValueRef length;  /* f32[runs - 1]: an upper bound of ‖x‖ over 32 columns; runs 0 and 1 have the same */
    LLVMValueRef coarse;  /* i8[quads,4]: 128·coarse + fine >= length/unit, for the bounds */
    LLVMValueRef fine;
    LLVMValueRef unit;   /* f32: a little more than that of the lengths, for what the bound itself may round */
    LLVMValueRef excess; /* f32: at least Σ excess, as runtime/screen.h has it */
    LLVMValueRef extra;  /* f32, added to every bound: RT_SCREEN_LEAST, or infinity when x is out of range */
    /* i64: how many vectors of screen_together rows are kept, because one of their rows may change the token; in
     * ascending order */
    LLVMValueRef kept;
    LLVMValueRef kept_row; /* i32[rows / SCREEN_LANES + 1]: the first row of each */
    LLVMValueRef bound;    /* f32[rows]: upper bounds of the scores of the kept rows */
    /* rt_candidates: the rows with the highest estimates; the rows that may change the token */
    LLVMValueRef heap, found;
    /* f32, in the heap: a row whose bound is below it is dropped. First the least score in the heap, an estimate that
     * may be wrong; when the rows are estimated a second time, the floor that is proven by exact scores */
    LLVMValueRef supposed;
    LLVMValueRef heap_score, heap_id; /* f32 and i32 [RT_SAMPLE_MOST_REACH] */
    LLVMValueRef found_id;            /* i32[rows]; the scores lie in `bound` then */
} screen_x;

/* ---- screen_x.c ---- */

/* Bytes of scratch for all rows of x. begin: this thread's scratch; sets blocks, ends and groups of the job. at: where
 * the scratch of row `index` of x lies in it. */
int64_t screen_scratch(const screen_job *job);
LLVMValueRef screen_scratch_begin(cg *c, screen_job *job);
screen_x screen_x_at(cg *c, const screen_job *job, LLVMValueRef scratch, LLVMValueRef index);
/* 1/16 with VNNI, else 0. VNNI multiplies whole bytes, 16·upper + lower, by the q of the column in the upper nibble, to
 * save masking the lower one out. In units of 16 that adds lower·q(upper)/16: x̂ of a column in a lower nibble is
 * step·(q + carry·q of the column in the upper nibble of the same byte), which q is rounded for. */
double screen_carry(const cg *c);
/* Is q read from `spread`? vpmaddubsw takes a whole vector from memory, so that no load of its own takes four bytes to
 * all lanes. */
bool screen_spreads(const cg *c);
/* x of the kernel argument in order and in bytes, with lengths; nothing estimated yet. */
void screen_store_x(cg *c, const screen_job *job, const screen_x *x);

/* ---- screen_estimate.c ---- */

LLVMTypeRef screen_eight(LLVMTypeRef type, int each);
/* A bit for each lane of a vector of truths, and a branch taken when one of the bits is set. */
LLVMValueRef screen_lanes(cg *c, LLVMValueRef truths);
cg_branch screen_if_any(cg *c, LLVMValueRef lanes);

/* Rows of W in a vector: a whole group's 16 with VNNI on 512-bit vectors, else SCREEN_LANES. */
int screen_together(const cg *c);

/* Slabs as threads come for them (codegen/deal.c). */
cg_pieces screen_deal_begin(cg *c, const screen_job *job);
/* The groups of a slab. */
typedef struct screen_groups {
    cg_loop loop;
    LLVMValueRef group;
} screen_groups;
screen_groups screen_groups_begin(cg *c, const screen_job *job, LLVMValueRef slab);
void screen_groups_end(cg *c, screen_groups *groups);

/* Keeps the screen_together rows from `row` on, with their bounds. */
void screen_keep(cg *c, const screen_x *x, LLVMValueRef bounds, LLVMValueRef row);
/* Estimates of this thread's rows for every row of x: which are kept, and the heap, where that is open. */
void screen_estimates(cg *c, const screen_job *job, LLVMValueRef scratch);

#endif
