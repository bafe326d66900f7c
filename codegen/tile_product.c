/* Products of bf16 in tile registers, summed in f32: 32 rows of a by 32 columns of b at a time.
 *
 * b lies in units of 32 bits, two of its rows, [depth][32 columns], as tiles take it. a may be given in two parts, high
 * and low, that are added: x = high + low has 16 bits. Whole blocks first, then sixteen rows or fewer at a time, so
 * that nothing is read or written beyond.
 */
#include "codegen/cg.h"

enum {
    SIDE = CG_TILE_ROWS,
    LINE = CG_TILE_BYTES / 4,
    HALVES = 2,
    TALL = 2,
    A = TALL * HALVES,
    B = A + TALL /* registers after the sums */
};

typedef struct product_job {
    bool add;
    int parts;
    int a, rows, b, depth, out, a_stride, out_stride; /* kernel arguments */
} product_job;

static LLVMValueRef out_at(cg *c, const product_job *job, LLVMValueRef row, int tile, int half) {
    LLVMValueRef first = cg_mul(c, cg_add(c, row, cg_i64(c, tile * SIDE)), c->code.args[job->out_stride]);
    return cg_at(c, c->f32, c->code.args[job->out], cg_add(c, first, cg_i64(c, half * LINE)));
}

static LLVMValueRef a_at(cg *c, const product_job *job, LLVMValueRef row, int part, LLVMValueRef unit) {
    LLVMValueRef stride = c->code.args[job->a_stride],
                 plane = LLVMBuildUDiv(c->b, cg_mul(c, stride, cg_i64(c, part)), cg_i64(c, job->parts), "");
    return cg_at(c, c->i32, c->code.args[job->a], cg_add(c, cg_mul(c, row, stride), cg_add(c, unit, plane)));
}

/* Sixteen units of the depth: tile by tile of a, each with both of b. */
static void add_step(cg *c, const product_job *job, LLVMValueRef row, int tall, LLVMValueRef unit) {
    LLVMValueRef stride = cg_mul(c, c->code.args[job->a_stride], cg_i64(c, 4));
    for (int h = 0; h < HALVES; h++) {
        LLVMValueRef at = cg_add(c, cg_mul(c, unit, cg_i64(c, HALVES * LINE)), cg_i64(c, h * LINE));
        cg_tile_load(c, B + h, cg_at(c, c->i32, c->code.args[job->b], at), cg_i64(c, HALVES * CG_TILE_BYTES));
    }
    for (int p = 0; p < job->parts; p++)
        for (int t = 0; t < tall; t++) {
            cg_tile_load(c, A + t, a_at(c, job, cg_add(c, row, cg_i64(c, t * SIDE)), p, unit), stride);
            for (int h = 0; h < HALVES; h++) cg_tile_add_halves(c, t * HALVES + h, A + t, B + h);
        }
}

/* `tall` tiles of rows from `row` on. */
static void emit_block(cg *c, const product_job *job, LLVMValueRef row, int tall) {
    LLVMValueRef stride = cg_mul(c, c->code.args[job->out_stride], cg_i64(c, 4));
    for (int i = 0; i < tall * HALVES; i++) {
        if (job->add) cg_tile_load(c, i, out_at(c, job, row, i / HALVES, i % HALVES), stride);
        else cg_tile_zero(c, i);
    }
    cg_loop steps = cg_loop_begin(c, cg_i64(c, 0), c->code.args[job->depth], LINE);
    add_step(c, job, row, tall, steps.index);
    cg_loop_end(c, &steps);
    for (int i = 0; i < tall * HALVES; i++) cg_tile_store(c, i, out_at(c, job, row, i / HALVES, i % HALVES), stride);
}

static void emit_product(cg *c, void *user) {
    const product_job *job = user;
    LLVMValueRef rows = c->code.args[job->rows], size = cg_i64(c, TALL * SIDE), side = cg_i64(c, SIDE);
    cg_tiles_configure(c, side, 0);
    LLVMValueRef end = cg_mul(c, LLVMBuildUDiv(c->b, rows, size, ""), size);
    cg_loop whole = cg_loop_begin(c, cg_i64(c, 0), end, TALL * SIDE);
    emit_block(c, job, whole.index, TALL);
    cg_loop_end(c, &whole);
    cg_loop rest = cg_loop_begin(c, end, rows, SIDE);
    /* Rows of the sums and of a. */
    cg_tiles_configure(c, cg_min(c, side, cg_sub(c, rows, rest.index)), 1u << 0 | 1u << 1 | 1u << A);
    emit_block(c, job, rest.index, 1);
    cg_loop_end(c, &rest);
    cg_tiles_release(c);
}

void cg_tile_multiply(cg *c, const cg_tile_product *p) {
    product_job job = {.add = p->add, .parts = p->parts};
    cg_kernel kernel = {.count = 0};
    job.a = cg_kernel_arg(&kernel, p->a);
    job.rows = cg_kernel_arg(&kernel, p->rows);
    job.b = cg_kernel_arg(&kernel, p->b);
    job.depth = cg_kernel_arg(&kernel, p->depth);
    job.out = cg_kernel_arg(&kernel, p->out);
    job.a_stride = cg_kernel_arg(&kernel, p->a_stride);
    job.out_stride = cg_kernel_arg(&kernel, p->out_stride);
    gm_string_printf(&kernel.key, "tile_product %d %d", p->add, p->parts);
    cg_kernel_call(c, &kernel, "tile_product", emit_product, &job);
}
