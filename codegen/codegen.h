/* IR -> machine code. No LLVM type leaves this folder. */
#ifndef GM_CODEGEN_CODEGEN_H
#define GM_CODEGEN_CODEGEN_H

#include "ir/decisions.h"
#include "runtime/abi.h"

typedef struct cg_program cg_program;

/* A target_cpu for tests: any machine with AVX2 runs the code made for 512-bit vectors and VNNI, if slowly. */
#define CG_STAND_IN_CPU "avx2-as-avx512"
/* The same with tile registers. */
#define CG_STAND_IN_TILES_CPU "avx2-as-amx"

typedef struct cg_options {
    const char *target_cpu;  /* LLVM CPU name; NULL: the host with its features */
    int threads;             /* that compile; 0: this one */
    bool trace;              /* call frame->trace after every instruction with a dense result */
    bool profile;            /* report every instruction's work and every barrier to the frame's profile */
    gm_string *llvm_text;    /* when not NULL: receives the optimised LLVM IR */
    gm_string *assembly;     /* when not NULL: receives the assembly */
    ir_decisions *decisions; /* NULL, or where emitters note what they chose and why */
    /* these are wanted, and nothing that runs: target_cpu may be one that this machine cannot stand in for */
    bool text_only;
} cg_options;

/* Compile a planned module (passes/plan_memory.c) for this process. `module` must outlive the program. GM_UNSUPPORTED
 * when this machine has not the instructions of options->target_cpu. With text_only *out is a program that has no
 * entries. */
gm_status cg_compile(const ir_module *module, const cg_options *options, gm_diag *diag, cg_program **out);
void cg_program_free(cg_program *program);

/* Let go of what only serves to look at the program or to keep it: its objects. From then on its module may go too, and
 * nothing but its weights is asked for. */
void cg_only_run(cg_program *program);

/* The entry point of @name; NULL: no such function. */
rt_entry cg_entry(const cg_program *program, const char *name);

/* What the frame must provide. */
int cg_weight_count(const cg_program *program);
const char *cg_weight_name(const cg_program *program, int weight);
int cg_site_count(const cg_program *program);
const rt_site *cg_site_of(const cg_program *program, int site);
int64_t cg_scratch_bytes(const cg_program *program); /* per thread */

/* Number of an instruction in trace calls and profiles: pre-order over functions in order, bodies of fuse left out. -1:
 * none. */
int64_t cg_trace_number(const ir_module *module, const ir_inst *inst);

/* The relocatable objects, borrowed; with the metadata of cg_image_write it can be kept and loaded again by
 * cg_image_read. */
const void *cg_objects(const cg_program *program, size_t *bytes);

/* ---- codegen/image.c: programs as bytes ---- */

typedef struct cg_image {
    const char *path;               /* for messages */
    const void *metadata, *objects; /* borrowed until cg_image_read returns */
    size_t metadata_bytes, object_bytes;
} cg_image;

/* Append what the objects alone do not say: weight names, products, scratch size. */
void cg_image_write(const cg_program *program, gm_string *out);
/* Load machine code made from `module`, which must outlive the program, under the same target text and fingerprint.
 * GM_FORMAT when the tables do not fit the module. */
gm_status cg_image_read(const ir_module *module, const cg_image *image, gm_diag *diag, cg_program **out);
/* Append the LLVM version and what cg_compile would compile for: triple, CPU, features. */
gm_status cg_target_text(const char *cpu, gm_diag *diag, gm_string *out);
/* Is this machine known to run code for this --target-cpu? */
bool cg_target_runs(const char *cpu);
/* Has the target an instruction that sums products of four bytes (vpdpbusd)? cpu: as in cg_options. */
bool cg_target_dots_bytes(const char *cpu);
/* Has it tile registers (AMX) for products of bytes and of bf16, which this process may use if it is the host's? */
bool cg_target_has_tiles(const char *cpu);
/* Of everything that compiled code, IR text and metadata take for granted about this build. */
uint64_t cg_fingerprint(void);

#endif
