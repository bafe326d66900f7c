/* Shared by the emitters: the state of one compilation, value slots, kernels, loops. Internal to codegen/.
 *
 * A program is SPMD: every thread of the team runs each function with its own number. Tensors live in shared memory at
 * their planned offsets; rank-0 values are registers that each thread computes for itself. Work is done by kernels,
 * internal LLVM functions shared by all instructions of the same shape: kernel(frame, thread, threads, symbols…,
 * args…). Between kernels that touch the same bytes the function calls the barrier (hazard.c).
 */
#ifndef GM_CODEGEN_CG_H
#define GM_CODEGEN_CG_H

#include "codegen/codegen.h"
#include "codegen/llvm.h"
#include "ir/layout.h"

enum {
    CG_MAX_ARGS = 64,
    CG_MAX_PARAMS =
        2 * CG_MAX_ARGS + IR_MAX_SYMBOLS + 4 /* of a function: arguments, results, symbols, where it runs */,
    CG_MAX_WEIGHTS = 8192,
    CG_MAX_SITES = 4096
};
_Static_assert((int)CG_MAX_SITES >= (int)IR_MAX_LAYERS, "a product of layers has a site for each");

/* What bytes lie in, for hazards. */
enum {
    CG_UNTRACKED = -1, /* constants, weights, and the parts of a concat after the first */
    CG_ARENA,          /* of the function */
    CG_PARAMETER,      /* + i: parameter i */
    CG_RESULT = 1000,  /* + i: the caller's memory for result i (emit.c) */
    CG_WORK = 2000     /* the counter of cg_dealt (deal.c) */
};
_Static_assert(CG_MAX_ARGS < CG_RESULT - CG_PARAMETER && CG_MAX_ARGS < CG_WORK - CG_RESULT, "objects are distinct");

typedef struct cg_extent {
    int object;        /* one of these */
    int64_t low, high; /* bytes; within the object */
} cg_extent;

typedef struct cg_slot {
    LLVMValueRef reg;  /* rank-0 value */
    LLVMValueRef base; /* pointer to element [0,0,…] */
    ir_layout layout;
    cg_extent extent;
} cg_slot;

enum { CG_MAX_PENDING = 512 };
typedef struct cg_hazards {
    cg_extent read[CG_MAX_PENDING], written[CG_MAX_PENDING];
    int read_count, written_count;
} cg_hazards;

/* For a profile: the instruction's work under way. */
typedef struct cg_timing {
    bool open;
    int parts; /* begun so far: a barrier ends one, and work after it is another */
} cg_timing;

/* The LLVM function being filled: a compiled IR function or a kernel. */
typedef struct cg_code {
    LLVMValueRef fn, frame, thread, threads;
    LLVMValueRef symbol[IR_MAX_SYMBOLS]; /* i64; NULL: not bound here */
    LLVMValueRef args[CG_MAX_ARGS];      /* of a kernel */
    LLVMValueRef tile_config, tiles;     /* variables of tiles.c; NULL: not used here */
} cg_code;

typedef struct cg_kernel_entry {
    char *key;
    LLVMValueRef fn;
    LLVMTypeRef type;
} cg_kernel_entry;

typedef struct cg {
    const ir_module *module;
    const cg_options *options;
    gm_diag *diag;
    gm_status status;
    cg_program *program;
    gm_arena arena;
    LLVMContextRef context;
    LLVMModuleRef llvm;
    LLVMBuilderRef b;
    LLVMTypeRef void_t, i1, i8, i16, i32, i64, f16, f32, ptr;
    int lanes;     /* floats per vector register of the target */
    bool vnni;     /* the target sums products of four bytes, or of two int16, in 32 bits (vpdpbusd, vpdpwssd) */
    bool tiles;    /* the target has tile registers for products of bytes and of bf16 (tdpbssd, tdpbf16ps) */
    int64_t ahead; /* prefetch distance: bytes of weights or caches ahead of those that are read */
    bool emulated; /* the target stands in for one that has what lanes, vnni and tiles say */
    cg_kernel_entry *kernels;
    int kernel_count, kernel_capacity;
    int site_capacity; /* of the program's sites */
    /* the IR function being compiled */
    const ir_func *func;
    cg_slot *slots; /* by value id */
    LLVMValueRef arena_base;
    const ir_inst *inst; /* the innermost that is being emitted; NULL: none */
    cg_timing timing;
    cg_hazards hazards;
    cg_code code;
} cg;

struct cg_program {
    const ir_module *module;
    char **weight_names;
    int weight_count;
    rt_site *sites;
    int site_count;
    int64_t scratch_bytes;
    LLVMOrcLLJITRef jit;
    rt_entry *entries; /* by number of the module's function; NULL: not in the objects */
    char *objects;     /* cg_object_list, then the objects */
    size_t object_bytes;
};

enum { CG_MAX_OBJECTS = 9 };
/* The relocatable objects of a program, one after the other from `start`. */
typedef struct cg_object_list {
    uint64_t count, bytes[CG_MAX_OBJECTS];
    const char *start;
} cg_object_list;

/* ---- emit.c: modules, functions, slots, cg_dim; support.c: types, arithmetic, memory, loops, branches ---- */

gm_status cg_emit_module(cg *c);
void cg_emit_region(cg *c, const ir_region *region);
cg_slot *cg_slot_of(cg *c, const ir_value *value);
LLVMTypeRef cg_type(cg *c, rt_dtype dtype);     /* in memory */
LLVMTypeRef cg_reg_type(cg *c, rt_dtype dtype); /* in registers: bool is i1 */
/* Memory of result i at its planned offset; false when the plan gives none. */
bool cg_place_result(cg *c, const ir_inst *inst, int i);
LLVMValueRef cg_dim(cg *c, ir_dim dim);
/* Rows of a tensor: the product of all extents but the last. */
LLVMValueRef cg_leading_rows(cg *c, const ir_type *type);
LLVMValueRef cg_widen(cg *c, LLVMValueRef x); /* i32 -> i64, signed */
LLVMValueRef cg_i64(cg *c, int64_t value);
LLVMValueRef cg_i32(cg *c, int64_t value);
LLVMValueRef cg_f32(cg *c, double value);
LLVMValueRef cg_add(cg *c, LLVMValueRef x, LLVMValueRef y);
LLVMValueRef cg_sub(cg *c, LLVMValueRef x, LLVMValueRef y);
LLVMValueRef cg_mul(cg *c, LLVMValueRef x, LLVMValueRef y);
LLVMValueRef cg_min(cg *c, LLVMValueRef x, LLVMValueRef y); /* signed */
LLVMValueRef cg_max(cg *c, LLVMValueRef x, LLVMValueRef y);
/* pointer + index elements of `type` */
LLVMValueRef cg_at(cg *c, LLVMTypeRef type, LLVMValueRef pointer, LLVMValueRef index);
LLVMValueRef cg_load(cg *c, LLVMTypeRef type, LLVMValueRef pointer, int align);
void cg_store(cg *c, LLVMValueRef value, LLVMValueRef pointer, int align);
/* Prefetch the cache line of `pointer`, which need not be mapped, into all caches; _second: into all but the first. */
void cg_prefetch(cg *c, LLVMValueRef pointer);
void cg_prefetch_second(cg *c, LLVMValueRef pointer);
/* Prefetch every cache line of `bytes` bytes. */
void cg_prefetch_lines(cg *c, LLVMValueRef from, int64_t bytes);
/* `bytes` bytes are about to be read at `from`: prefetch as many, c->ahead bytes further on. */
void cg_prefetch_ahead(cg *c, LLVMValueRef from, int64_t bytes);
/* overload: NULL for an intrinsic that has none. */
LLVMValueRef cg_intrinsic(cg *c, const char *name, LLVMTypeRef overload, LLVMValueRef *args, int count);
/* An intrinsic of the target with two operands. */
LLVMValueRef cg_intrinsic2(cg *c, const char *name, LLVMTypeRef result, LLVMValueRef a, LLVMValueRef b);
/* Passes v through an empty piece of assembly: all are computed before anything that uses one of them afterwards, and
 * what was loaded before is loaded again behind it. Vectors no wider than the target's. */
enum { CG_PASSED = 8 };
void cg_value_barrier(cg *c, LLVMValueRef *v, int count);
LLVMValueRef cg_fma(cg *c, LLVMValueRef x, LLVMValueRef y, LLVMValueRef z);
LLVMValueRef cg_splat(cg *c, LLVMValueRef scalar, int lanes);
/* A vector of the target's lanes, and one with a scalar in all of them. */
static inline LLVMTypeRef cg_vector(const cg *c, LLVMTypeRef element) {
    return LLVMVectorType(element, (unsigned)c->lanes);
}
static inline LLVMValueRef cg_spread(cg *c, LLVMValueRef scalar) {
    return cg_splat(c, scalar, c->lanes);
}
/* The scalar in all lanes of a vector like x; the scalar itself when x is one. */
LLVMValueRef cg_like(cg *c, LLVMValueRef x, LLVMValueRef scalar);
/* The sum of the lanes of floats, as a halving tree: the same order on every target. */
LLVMValueRef cg_sum_lanes(cg *c, LLVMValueRef vector);
/* i32: the sum of the lanes of a vector of signed integers of at most 32 bits. */
LLVMValueRef cg_sum_whole(cg *c, LLVMValueRef vector);
/* v[lanes], vectors of the target of any 32-bit element: as the rows of a matrix they become its columns
 * (transpose.c). */
void cg_transpose(cg *c, LLVMValueRef *v);
LLVMValueRef cg_variable(cg *c, LLVMTypeRef type, LLVMValueRef init); /* alloca in the entry block */
LLVMValueRef cg_frame_field(cg *c, size_t offset, LLVMTypeRef type);
/* cg_scratch: the address of this thread's scratch, with room for `bytes`; every call gives the same address, so what
 * is to live at the same time comes from one call. cg_reserve_scratch only makes the room, for a kernel that calls
 * cg_scratch. */
void cg_reserve_scratch(cg *c, int64_t bytes);
LLVMValueRef cg_scratch(cg *c, int64_t bytes);
LLVMValueRef cg_host_call(cg *c, const char *name, LLVMTypeRef result, LLVMValueRef *args, int count);
void cg_unsupported(cg *c, const ir_inst *inst, const char *what);

typedef struct cg_loop {
    LLVMBasicBlockRef head, body, exit;
    LLVMValueRef index; /* i64 */
    LLVMValueRef step;
} cg_loop;
cg_loop cg_loop_begin(cg *c, LLVMValueRef from, LLVMValueRef to, int64_t step);
void cg_loop_end(cg *c, cg_loop *loop);
/* The same; LLVM unrolls the loop, after it has simplified its body. */
void cg_loop_end_unrolled(cg *c, cg_loop *loop, int times);
typedef struct cg_branch {
    LLVMBasicBlockRef otherwise, join;
} cg_branch;
cg_branch cg_if(cg *c, LLVMValueRef condition);
void cg_else(cg *c, cg_branch *branch);
void cg_end_if(cg *c, cg_branch *branch);
/* [from, to) = this thread's share of 0..count, in whole multiples of `grain`. */
void cg_share(cg *c, LLVMValueRef count, int64_t grain, LLVMValueRef *from, LLVMValueRef *to);

/* ---- hazard.c ---- */

void cg_barrier(cg *c); /* unconditional; forgets what was pending */
void cg_settle(cg *c);  /* a barrier if anything is pending */
/* Records a write that has been waited for already. */
void cg_wrote(cg *c, const cg_slot *slot);
/* Emits the barrier that these accesses need, then records them. */
void cg_access(cg *c, const cg_slot *const *reads, int read_count, const cg_slot *const *writes, int write_count);

/* Only the call of the barrier, in kernels too; hazards stay as they are. inst: the instruction's number to which a
 * profile puts the waiting (cg_trace_number), -1: none. */
void cg_wait(cg *c, int64_t inst);

/* ---- deal.c: dynamic scheduling: threads take pieces of work from a shared counter ---- */

/* Stands for the shared counter. An instruction that deals out its work puts this among the writes of its cg_access, so
 * that a barrier, which resets the counter, lies between any two such instructions. */
extern const cg_slot cg_dealt;
/* Takes the thread's first piece. Returns its hand: an i64 variable with the number of the piece that is next. */
LLVMValueRef cg_deal(cg *c);
/* A loop over the pieces [0, end) that this thread takes. Several loops of one instruction may share a hand if their
 * ends ascend: each piece below the last end is then worked on once, in the first loop whose end lies above it. */
typedef struct cg_pieces {
    LLVMBasicBlockRef head, exit;
    LLVMValueRef hand;  /* from cg_deal, here or in the caller of this kernel */
    LLVMValueRef index; /* i64: the piece */
} cg_pieces;
cg_pieces cg_pieces_begin(cg *c, LLVMValueRef hand, LLVMValueRef end);
void cg_pieces_end(cg *c, cg_pieces *pieces);

/* ---- profile.c; all of it emits nothing unless options->profile ---- */

/* The current instruction's work begins here, unless it has begun already: true when it is begun now. */
bool cg_profile_begin(cg *c);
void cg_profile_end(cg *c); /* if it has begun */
/* As cg_profile_begin for instructions that do their own work; those that hold regions copy now and then, see
 * cg_emit_copy. */
void cg_profile_work(cg *c);

/* ---- kernel.c ---- */

typedef struct cg_kernel {
    gm_string key;
    LLVMValueRef args[CG_MAX_ARGS];
    int count;
} cg_kernel;
typedef void (*cg_kernel_fn)(cg *c, void *user);
void cg_add_attribute(cg *c, LLVMValueRef fn, unsigned index, const char *name);
/* Adds an argument and returns its number: c->code.args[number] inside the kernel. */
int cg_kernel_arg(cg_kernel *kernel, LLVMValueRef value);
/* Call the kernel with this key, emitting its body by `emit` when it is new. Frees the key. */
void cg_kernel_call(cg *c, cg_kernel *kernel, const char *name, cg_kernel_fn emit, void *user);

/* ---- emitters, one per class ---- */

/* One element-wise operation on registers or vectors of registers. */
LLVMValueRef cg_elem(cg *c, const ir_inst *inst, LLVMValueRef *operands);
/* 2^y of y <= 0 or NaN, f32 or a vector, 0 below 2^-125: no result is a denormal number, for each of which Intel's CPUs
 * stop. */
LLVMValueRef cg_exp2_weight(cg *c, LLVMValueRef y);
LLVMValueRef cg_tanh(cg *c, LLVMValueRef x);
/* Memory representation <-> register representation. */
LLVMValueRef cg_to_f32(cg *c, rt_dtype from, LLVMValueRef x);
LLVMValueRef cg_from_f32(cg *c, rt_dtype to, LLVMValueRef x); /* rounded as convert does; to bf16 vectors too */
LLVMValueRef cg_from_memory(cg *c, rt_dtype dtype, LLVMValueRef value);
LLVMValueRef cg_to_memory(cg *c, rt_dtype dtype, LLVMValueRef value);

void cg_emit_rows(cg *c, const ir_inst *inst); /* elem, reduce, rotate, swap_halves, fuse, iota on tensors */
/* dst[…] = src[…] for the extents of `type`. */
void cg_emit_copy(cg *c, const ir_type *type, const cg_slot *src, const cg_slot *dst);
/* The same into a ring: position p of `axis` goes to (start + p) mod slots, 0 <= start < slots. */
typedef struct cg_ring {
    int axis;
    int64_t slots;
    LLVMValueRef start; /* i64 */
} cg_ring;
void cg_emit_ring_copy(cg *c, const ir_type *type, const cg_slot *src, const cg_slot *dst, const cg_ring *ring);
void cg_emit_matmul(cg *c, const ir_inst *inst);
bool cg_can_rotate(const cg *c, int64_t columns);
/* to[columns] = the row `from` rotated; they may be the same memory. */
void cg_emit_rotated_row(cg *c, int64_t columns, LLVMValueRef from, LLVMValueRef to);
/* The beginning of a rotation of c->lanes rows at once, in integers, which are exact: the signs and the first four
 * steps of 16 columns from `first`, a multiple of 16. codes[4]: u8[4·lanes], four neighbouring columns of each row;
 * `bias` is subtracted from every code. x[16]: i32[lanes], the columns. The transform's factor, cg_rotate_scale, is not
 * in them: the caller multiplies the codes' scales by it. */
enum { CG_ROTATE_QUAD = 4, CG_ROTATE_CODES = 16 };
void cg_rotate_codes(cg *c, int64_t columns, LLVMValueRef first, LLVMValueRef const *codes, int bias, LLVMValueRef *x);
/* f32[lanes]: what column `column` + more, of 32 columns from `column` that were all 1, is after five steps; without
 * cg_rotate_scale. For the minimum that 32 columns share. */
LLVMValueRef cg_rotate_ones(cg *c, int64_t columns, LLVMValueRef column, int more);
double cg_rotate_scale(int64_t columns);
/* The address of a column's f32[lanes], one float of each row. The columns of a block of 32 lie one after the other,
 * with a gap of one vector between blocks. */
enum { CG_ROTATE_BLOCK = 32 };
LLVMValueRef cg_rotate_place(cg *c, LLVMValueRef floats, LLVMValueRef column);
/* The rest of the rotation, in place: the steps from distance `half` (a multiple of 32) to the last, and the reflection
 * across runs (runtime/rotate.h). turned, if not NULL, is given each finished vector before it is stored. */
typedef void (*cg_turned_fn)(cg *c, LLVMValueRef x, void *user);
void cg_rotate_rows(cg *c, int64_t columns, LLVMValueRef floats, int64_t half, cg_turned_fn turned, void *user);
void cg_emit_scaled_matmul(cg *c, const ir_inst *inst);
void cg_emit_gather(cg *c, const ir_inst *inst);
void cg_emit_einsum(cg *c, const ir_inst *inst);
void cg_emit_attention(cg *c, const ir_inst *inst);
void cg_emit_argmax(cg *c, const ir_inst *inst);
void cg_emit_control(cg *c, const ir_inst *inst); /* map, scan, while, if, call, dim */
/* The element of a constant as it lies in memory. */
LLVMValueRef cg_const_element(cg *c, rt_dtype dtype, const ir_attr *attr);
void cg_emit_move(cg *c, const ir_inst *inst); /* views, concat, update */
void cg_emit_source(cg *c, const ir_inst *inst);
/* The number of the stored tensor `name` in the program's table, added when new. */
int cg_weight_number(cg_program *program, const char *name);
/* Parameters of an internal function after frame, thread, threads: arena, symbols, then one per IR parameter and per
 * result. */
LLVMValueRef cg_function_of(cg *c, const ir_func *func, LLVMTypeRef *out_type);

/* Can compiled code widen rows of this many columns? Odd tails only of plain types. */
bool cg_can_widen(const ir_type *table);
/* out[columns] = the row as f32. */
void cg_emit_decoded_row(cg *c, rt_dtype dtype, LLVMValueRef columns, LLVMValueRef row, LLVMValueRef out);
/* f32 x times weights of any stored type, W streamed through the cache; false: not for these operands. */
bool cg_can_stream(const ir_inst *inst);
void cg_emit_stream(cg *c, const ir_inst *inst, LLVMValueRef rows, int64_t x_stride, int64_t out_stride);

enum { CG_PIECE = 32 };
/* Bytes of weights or caches that a kernel asks for ahead of those it reads, where nothing else is known to be better
 * (target.c): hardware does not look past the end of a page. */
enum { CG_AHEAD = 4096 };
/* Elements decoded by one trip of a loop over a row: a block, or a piece of a plain type. */
int64_t cg_unit_elems(rt_dtype dtype);
/* 32 (CG_PIECE) consecutive elements of a stored block as floats: value = scale · code - minus. */
typedef struct cg_codes {
    LLVMValueRef part[8];  /* 32 / lanes vectors, in element order */
    LLVMValueRef scale[2]; /* f32 of elements 0-15 and 16-31; NULL: 1 */
    LLVMValueRef minus[2]; /* likewise; NULL: 0 */
} cg_codes;
/* False when compiled code cannot read this dtype. */
bool cg_can_decode(rt_dtype dtype);
void cg_decode(cg *c, rt_dtype dtype, LLVMValueRef block, int sub, cg_codes *out);

/* The product of a row of stored weights with x. Where the kernel is called, cg_dot_args adds w, x and units to its
 * arguments; within it, cg_dot_begin is called once, before any row. */
typedef struct cg_dot {
    rt_dtype dtype;
    bool in_int16;    /* x in integers: cg_can_dot_int */
    int rows;         /* of x: 1, in integers up to RT_FEW_ROWS, each as if it were alone, to the bit */
    int64_t x_stride; /* elements from one to the next */
    int64_t columns;  /* of this call, for the scratch it needs */
    int w, x, units;  /* kernel arguments; units: trips of the inner loop */
    /* where to prefetch as many bytes as a row has while a row is read with x in floats; NULL: c->ahead of that row */
    LLVMValueRef next;
    LLVMValueRef sums;     /* Σx per minimum; NULL when the type has none */
    LLVMValueRef integers; /* x in integers (dot_int.c) */
} cg_dot;
/* Adds the arguments. The scratch that cg_dot_begin needs is reserved. */
void cg_dot_args(cg *c, cg_dot *dot, cg_kernel *kernel, LLVMValueRef w, LLVMValueRef x);
void cg_dot_begin(cg *c, cg_dot *dot);
/* W[index]·x, of one row of x: the same bits wherever it is emitted. */
LLVMValueRef cg_dot_row(cg *c, const cg_dot *dot, LLVMValueRef index);

/* ---- vnni.c: sums of products, in vectors of the target's, or with vnni also of 8 lanes of 32 bits ---- */

/* acc + a·b of pairs of i16: both products go to their lane's sum. */
LLVMValueRef cg_add_pairs(cg *c, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b);
/* acc + a·b of four bytes, those of a unsigned; where the target has it (vnni). */
LLVMValueRef cg_add_quads(cg *c, LLVMValueRef acc, LLVMValueRef a, LLVMValueRef b);
/* i16: a[2i]·b[2i] + a[2i+1]·b[2i+1] of bytes, those of a unsigned; saturates at the limits of int16 (vpmaddubsw). For
 * vectors of 32 or 64 bytes, where the target has them. */
LLVMValueRef cg_byte_pairs(cg *c, LLVMValueRef a, LLVMValueRef b);
/* i16[2]: of every four bytes of x (4·2^n of them, up to 32), the sum of the first two and the sum of the last two:
 * those whose products cg_byte_pairs puts into the low and into the high int16 of a 32-bit lane. */
LLVMValueRef cg_word_sums(cg *c, LLVMValueRef x);
/* Can the two int16 of a 32-bit lane, each with half of the columns, hold Σ code·x, |x| <= 127? Sums on the way, in
 * which codes count from `least`, may wrap around. codes NULL: no. */
bool cg_int16_hold(const rt_codes *codes, int64_t columns);

/* ---- tiles.c: tile registers, where the target has them (tiles); between configuring and releasing, in one kernel
 * ---- */

enum { CG_TILES = 8, CG_TILE_ROWS = 16, CG_TILE_BYTES = 64 /* of a row */ };
/* All tiles have 16 rows of 64 bytes, but those whose bit is set in `which` only `rows` of them (i64, 1 to 16). */
void cg_tiles_configure(cg *c, LLVMValueRef rows, unsigned which);
void cg_tiles_release(cg *c);
void cg_tile_zero(cg *c, int tile);
/* stride: i64, bytes from row to row in memory. */
void cg_tile_load(cg *c, int tile, LLVMValueRef from, LLVMValueRef stride);
void cg_tile_store(cg *c, int tile, LLVMValueRef to, LLVMValueRef stride);
/* sums, i32[16,16], += a·b of signed bytes: a[16,64]; b as units of four rows of its matrix, [16 units][16
 * columns][4]. */
void cg_tile_add_bytes(cg *c, int sums, int a, int b);
/* The same of bf16, sums in f32: a[16,32]; b in units of two rows. */
void cg_tile_add_halves(cg *c, int sums, int a, int b);

/* ---- tile_product.c: a kernel of its own ---- */

enum { CG_TILE_COLUMNS = 32 /* of b in a product */, CG_TILE_DEPTH = 32 /* the depth, in bf16, is a multiple */ };
/* out[rows, 32] = a[rows, depth]·b[depth, 32] of bf16, sums in f32; with `add` +=. depth: units of 32 bits, two bf16;
 * b: [depth][32] units of the same column of two rows. Strides from row to row in elements of 32 bits. A row of a has
 * its parts one after the other, its stride being that of all. All i64. */
typedef struct cg_tile_product {
    LLVMValueRef a, rows, b, depth, out, a_stride, out_stride;
    int parts; /* 1 or 2, which are added */
    bool add;
} cg_tile_product;
void cg_tile_multiply(cg *c, const cg_tile_product *product);

/* ---- matmul_tiles.c ---- */

/* matmul or gated_matmul of bf16 x whose impl is "tiles"; x_stride: from row to row of x, in elements. */
void cg_emit_tiles(cg *c, const ir_inst *inst, int64_t x_stride);

/* ---- gate.c: a kernel of its own ---- */

/* out[rows, columns] of a dtype, f32 or bf16, = gelu(g)·u of f32[rows, columns] each, dense. rows, out_stride: i64; the
 * stride in elements. */
typedef struct cg_gated {
    LLVMValueRef g, u, rows, out, out_stride;
    int64_t columns;
    rt_dtype dtype;
} cg_gated;
void cg_gate(cg *c, const cg_gated *gated);

/* ---- dot_int.c: x in integers ---- */

/* Does a row of this type take x in integers on this target? */
bool cg_can_dot_int(const cg *c, rt_dtype dtype);
/* Pieces of CG_PIECE columns in a row. */
LLVMValueRef cg_dot_runs(cg *c, const cg_dot *dot);
/* Of 32 columns of x: max|x| / most, or the least step whose inverse is finite; NaN when a column is not finite, and *x
 * becomes zero. */
LLVMValueRef cg_int_step(cg *c, int most, LLVMValueRef *x);
/* i32[32]: x / step to the nearest. */
LLVMValueRef cg_int_codes(cg *c, LLVMValueRef x, LLVMValueRef step);
/* Bytes of a row of x in integers. */
int64_t cg_int_x_bytes(int64_t columns);
/* Fill them at `scratch`, one row after the other. */
void cg_int_x(cg *c, cg_dot *dot, LLVMValueRef scratch);
/* out[r] = W[index]·x[r] */
void cg_int_row(cg *c, const cg_dot *dot, LLVMValueRef index, LLVMValueRef *out);

/* ---- dot_rows.c: interleaved rows (runtime/interleave.h), x in integers ---- */

enum { CG_ROWS_VECTORS = 4 };
/* Bytes of a row of x beside such rows. */
int64_t cg_rows_x_bytes(int64_t columns);
/* Fill them at `scratch`, one row after the other. */
void cg_rows_x(cg *c, cg_dot *dot, LLVMValueRef scratch);
/* out[r] = the sixteen rows of group `group` of W times x[r], in as many vectors as that takes. */
void cg_rows_group(cg *c, const cg_dot *dot, LLVMValueRef group, LLVMValueRef (*out)[CG_ROWS_VECTORS]);

void cg_emit_screened(cg *c, const ir_inst *inst);

/* ---- target.c / object.c / jit.c ---- */

typedef struct cg_target {
    char *triple, *cpu, *features;
    LLVMTargetRef llvm;
    int lanes;
    bool vnni, tiles;
    int64_t ahead; /* see cg */
    bool emulated; /* for a CPU with wider vectors and other instructions, which are to be written out */
    bool runs_here;
    LLVMTargetMachineRef machine;
} cg_target;
gm_status cg_target_open(const char *cpu, gm_diag *diag, cg_target *out);
void cg_target_close(cg_target *target);
/* Is `cpu` this machine's CPU, by the name and the features that LLVM has for it, with all that code for it may use? */
bool cg_target_here(const char *cpu, const char *host, const char *features);
LLVMTargetMachineRef cg_target_machine(const cg_target *target, LLVMCodeGenOptLevel level);
/* Optimises c->llvm and makes the program's objects of it. */
gm_status cg_make_objects(cg *c, const cg_target *target);
/* Reads the list at program->objects; false: the bytes are not one. */
bool cg_object_list_of(const cg_program *program, cg_object_list *out);
/* features: "+a,-b,…" */
bool cg_has_feature(const char *features, const char *name);
void cg_release_compiler(void); /* release.c */
/* Loads and links the objects: nothing of LLVM is needed after it but to close the program. */
gm_status cg_jit_load(cg_program *program, gm_diag *diag);
/* GM_INTERNAL with the error's text; the error is gone. */
gm_status cg_llvm_fail(gm_diag *diag, LLVMErrorRef error, const char *what);

#endif
