/* LLVM IR -> object code, in parts that several threads compile.
 *
 * What one function tells about another (arguments that are always the same constant, arguments that nobody reads) is
 * used on the whole module first. Then each part gets a copy of the module in a context of its own and forgets the
 * bodies that are not its own. Which part a function goes to depends on the module alone, so the code is the same
 * whatever the number of threads.
 *
 * Kernels are where the time of a run is spent. The functions that call them run straight through once a token, and are
 * most of the code of a deep model: they are a part of their own, translated quickly rather than well.
 */
#include "codegen/cg.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { PART_INSTRUCTIONS = 1000, CALLERS = 0 }; /* part 0 holds the callers */

static const char whole_passes[] = "function(simplifycfg,sroa,early-cse),ipsccp,deadargelim,globaldce";
static const char caller_passes[] = "elim-avail-extern,globaldce";
static const char kernel_passes[] = "elim-avail-extern,globaldce,default<O2>";

typedef struct part {
    int64_t instructions;
    gm_status status;
    gm_diag diag;
    LLVMMemoryBufferRef object, bitcode, assembly; /* NULL: not asked for */
} part;

typedef struct work {
    const cg_target *target;
    const cg_options *options;
    LLVMMemoryBufferRef module; /* bitcode of the whole */
    int *part_of;               /* by number among the module's functions; -1: a declaration */
    int count;                  /* parts */
    part parts[CG_MAX_OBJECTS];
    atomic_int next;
} work;

static gm_status run_passes(LLVMModuleRef module, const char *passes, LLVMTargetMachineRef machine, gm_diag *diag) {
    LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
    LLVMPassBuilderOptionsSetLoopVectorization(options, 1);
    LLVMPassBuilderOptionsSetLoopInterleaving(options, 1);
    /* but for loops that ask for it: of the others it makes a quarter more code, no faster */
    LLVMPassBuilderOptionsSetLoopUnrolling(options, 0);
    LLVMErrorRef error = LLVMRunPasses(module, passes, machine, options);
    LLVMDisposePassBuilderOptions(options);
    return error ? cg_llvm_fail(diag, error, "LLVM passes") : GM_OK;
}

/* ---- dividing ---- */

static int64_t instructions_of(LLVMValueRef fn) {
    int64_t count = 0;
    for (LLVMBasicBlockRef block = LLVMGetFirstBasicBlock(fn); block; block = LLVMGetNextBasicBlock(block))
        for (LLVMValueRef inst = LLVMGetFirstInstruction(block); inst; inst = LLVMGetNextInstruction(inst)) count++;
    return count;
}

typedef struct candidate {
    int number; /* among the module's functions */
    int64_t instructions;
} candidate;

/* Largest first; of equals the earlier. */
static int compare(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->instructions != y->instructions) return x->instructions < y->instructions ? 1 : -1;
    return x->number - y->number;
}

/* kernel.c names them k0.…, k1.…; what emit.c makes begins with "gm". */
static bool is_kernel(LLVMValueRef fn) {
    size_t length;
    return LLVMGetValueName2(fn, &length)[0] == 'k';
}

/* Each kernel to the part that has least, the largest first. */
static void divide(work *w, candidate *kernels, int count) {
    int64_t total = 0;
    for (int i = 0; i < count; i++) total += kernels[i].instructions;
    int64_t wanted = total / PART_INSTRUCTIONS + 1;
    w->count = 1 + (int)(wanted < CG_MAX_OBJECTS - 1 ? wanted : CG_MAX_OBJECTS - 1);
    qsort(kernels, (size_t)count, sizeof *kernels, compare);
    for (int i = 0; i < count; i++) {
        int least = CALLERS + 1;
        for (int p = least + 1; p < w->count; p++)
            if (w->parts[p].instructions < w->parts[least].instructions) least = p;
        w->part_of[kernels[i].number] = least;
        w->parts[least].instructions += kernels[i].instructions;
    }
}

/* Parts call each other by names that nobody outside sees. */
static void plan_parts(work *w, const cg *c) {
    int functions = 0, number = 0, count = 0;
    for (LLVMValueRef fn = LLVMGetFirstFunction(c->llvm); fn; fn = LLVMGetNextFunction(fn)) functions++;
    candidate *kernels = calloc((size_t)functions + 1, sizeof *kernels);
    w->part_of = calloc((size_t)functions + 1, sizeof *w->part_of);
    GM_ASSERT(kernels && w->part_of);
    for (LLVMValueRef fn = LLVMGetFirstFunction(c->llvm); fn; fn = LLVMGetNextFunction(fn), number++) {
        w->part_of[number] = LLVMIsDeclaration(fn) ? -1 : CALLERS;
        if (LLVMIsDeclaration(fn)) continue;
        if (is_kernel(fn)) kernels[count++] = (candidate){number, instructions_of(fn)};
        if (LLVMGetLinkage(fn) != LLVMInternalLinkage) continue;
        LLVMSetLinkage(fn, LLVMExternalLinkage);
        LLVMSetVisibility(fn, LLVMHiddenVisibility);
    }
    divide(w, kernels, count);
    free(kernels);
}

/* ---- a part ---- */

static void forget_others(const work *w, LLVMModuleRef module, int which) {
    int number = 0;
    for (LLVMValueRef fn = LLVMGetFirstFunction(module); fn; fn = LLVMGetNextFunction(fn), number++)
        if (w->part_of[number] >= 0 && w->part_of[number] != which) LLVMSetLinkage(fn, LLVMAvailableExternallyLinkage);
}

static gm_status emit_file(part *p, LLVMTargetMachineRef machine, LLVMModuleRef module, LLVMCodeGenFileType type,
                           LLVMMemoryBufferRef *out) {
    char *error = NULL;
    if (!LLVMTargetMachineEmitToMemoryBuffer(machine, module, type, &error, out)) return GM_OK;
    gm_status status = gm_fail(&p->diag, GM_INTERNAL, "object code: %s", error);
    LLVMDisposeMessage(error);
    return status;
}

/* Emitting changes the module. */
static gm_status emit_assembly(part *p, LLVMTargetMachineRef machine, LLVMModuleRef module) {
    LLVMModuleRef copy = LLVMCloneModule(module);
    gm_status status = emit_file(p, machine, copy, LLVMAssemblyFile, &p->assembly);
    LLVMDisposeModule(copy);
    return status;
}

static gm_status compile_module(const work *w, part *p, LLVMModuleRef module) {
    bool callers = p == &w->parts[CALLERS];
    LLVMTargetMachineRef machine =
        cg_target_machine(w->target, callers ? LLVMCodeGenLevelNone : LLVMCodeGenLevelDefault);
    forget_others(w, module, (int)(p - w->parts));
    gm_status status = run_passes(module, callers ? caller_passes : kernel_passes, machine, &p->diag);
    if (status == GM_OK && w->options->llvm_text) p->bitcode = LLVMWriteBitcodeToMemoryBuffer(module);
    if (status == GM_OK && w->options->assembly) status = emit_assembly(p, machine, module);
    if (status == GM_OK) status = emit_file(p, machine, module, LLVMObjectFile, &p->object);
    LLVMDisposeTargetMachine(machine);
    return status;
}

static gm_status compile_part(const work *w, part *p) {
    LLVMContextRef context = LLVMContextCreate();
    LLVMModuleRef module = NULL;
    gm_status status = GM_OK;
    if (LLVMParseBitcodeInContext2(context, w->module, &module))
        status = gm_fail(&p->diag, GM_INTERNAL, "LLVM cannot read its own bitcode");
    else status = compile_module(w, p, module);
    if (module) LLVMDisposeModule(module);
    LLVMContextDispose(context);
    return status;
}

static void *compile_parts(void *argument) {
    work *w = argument;
    for (int i; (i = atomic_fetch_add(&w->next, 1)) < w->count;) w->parts[i].status = compile_part(w, &w->parts[i]);
    return NULL;
}

/* This thread does what the others do, so it does not matter when one cannot be started. */
static void compile_all(work *w, int threads) {
    pthread_t others[CG_MAX_OBJECTS];
    int started = 0;
    while (started + 1 < threads && started + 1 < w->count &&
           pthread_create(&others[started], NULL, compile_parts, w) == 0)
        started++;
    compile_parts(w);
    for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
}

/* ---- joining ---- */

bool cg_object_list_of(const cg_program *program, cg_object_list *out) {
    size_t head = offsetof(cg_object_list, start), left = program->object_bytes;
    if (left < head) return false;
    memcpy(out, program->objects, head);
    out->start = program->objects + head;
    left -= head;
    if (out->count > CG_MAX_OBJECTS) return false;
    for (uint64_t i = 0; i < out->count; i++) {
        if (out->bytes[i] > left) return false;
        left -= out->bytes[i];
    }
    return left == 0;
}

static void take_objects(const work *w, cg_program *program) {
    cg_object_list list = {.count = (uint64_t)w->count};
    gm_string out = {0};
    for (int i = 0; i < w->count; i++) list.bytes[i] = LLVMGetBufferSize(w->parts[i].object);
    gm_string_append(&out, (const char *)&list, offsetof(cg_object_list, start));
    for (int i = 0; i < w->count; i++) gm_string_append(&out, LLVMGetBufferStart(w->parts[i].object), list.bytes[i]);
    program->objects = out.data;
    program->object_bytes = out.length;
}

/* The optimised parts as one module again. */
static gm_status print_llvm(const work *w, cg *c) {
    LLVMModuleRef all = LLVMModuleCreateWithNameInContext("gemmac", c->context);
    bool wrong = false;
    for (int i = 0; i < w->count && !wrong; i++) {
        LLVMModuleRef module;
        wrong = LLVMParseBitcodeInContext2(c->context, w->parts[i].bitcode, &module) || LLVMLinkModules2(all, module);
    }
    char *text = LLVMPrintModuleToString(all);
    gm_string_append(c->options->llvm_text, text, strlen(text));
    LLVMDisposeMessage(text);
    LLVMDisposeModule(all);
    return wrong ? gm_fail(c->diag, GM_INTERNAL, "LLVM cannot link the parts") : GM_OK;
}

static gm_status join(const work *w, cg *c) {
    for (int i = 0; i < w->count; i++)
        if (w->parts[i].status != GM_OK) return gm_fail(c->diag, w->parts[i].status, "%s", w->parts[i].diag.message);
    for (int i = 0; i < w->count && c->options->assembly; i++)
        gm_string_append(c->options->assembly, LLVMGetBufferStart(w->parts[i].assembly),
                         LLVMGetBufferSize(w->parts[i].assembly));
    if (c->options->llvm_text) GM_TRY(print_llvm(w, c));
    take_objects(w, c->program);
    return GM_OK;
}

static void dispose(LLVMMemoryBufferRef buffer) {
    if (buffer) LLVMDisposeMemoryBuffer(buffer);
}

gm_status cg_make_objects(cg *c, const cg_target *target) {
    work w = {.target = target, .options = c->options};
    GM_TRY(run_passes(c->llvm, whole_passes, target->machine, c->diag));
    plan_parts(&w, c);
    w.module = LLVMWriteBitcodeToMemoryBuffer(c->llvm);
    compile_all(&w, c->options->threads);
    gm_status status = join(&w, c);
    for (int i = 0; i < w.count; i++) {
        dispose(w.parts[i].object);
        dispose(w.parts[i].bitcode);
        dispose(w.parts[i].assembly);
    }
    dispose(w.module);
    free(w.part_of);
    return status;
}
