/* cg_compile: emit, make objects in memory (object.c), load them with ORC. */
#include "codegen/cg.h"
#include "runtime/likely.h"

#include <stdlib.h>
#include <string.h>

/* ---- loading ---- */

gm_status cg_llvm_fail(gm_diag *diag, LLVMErrorRef error, const char *what) {
    char *message = LLVMGetErrorMessage(error);
    gm_status status = gm_fail(diag, GM_INTERNAL, "%s: %s", what, message);
    LLVMDisposeErrorMessage(message);
    return status;
}

typedef struct host_symbol {
    const char *name;
    void *address;
} host_symbol;

static const host_symbol host_symbols[] = {
#define RTCALL(name) {#name, (void *)name},
    RT_CALLS(RTCALL)
#undef RTCALL
};

static LLVMErrorRef define_host_symbols(LLVMOrcLLJITRef jit) {
    LLVMOrcCSymbolMapPair pairs[GM_COUNT(host_symbols)];
    for (size_t i = 0; i < GM_COUNT(host_symbols); i++) {
        pairs[i].Name = LLVMOrcLLJITMangleAndIntern(jit, host_symbols[i].name);
        pairs[i].Sym.Address = (LLVMOrcExecutorAddress)(uintptr_t)host_symbols[i].address;
        pairs[i].Sym.Flags.GenericFlags = LLVMJITSymbolGenericFlagsExported | LLVMJITSymbolGenericFlagsCallable;
        pairs[i].Sym.Flags.TargetFlags = 0;
    }
    LLVMOrcMaterializationUnitRef unit = LLVMOrcAbsoluteSymbols(pairs, GM_COUNT(pairs));
    return LLVMOrcJITDylibDefine(LLVMOrcLLJITGetMainJITDylib(jit), unit);
}

/* libm and libc, from the process. */
static LLVMErrorRef search_process(LLVMOrcLLJITRef jit) {
    LLVMOrcDefinitionGeneratorRef generator;
    LLVMErrorRef error =
        LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(&generator, LLVMOrcLLJITGetGlobalPrefix(jit), NULL, NULL);
    if (!error) LLVMOrcJITDylibAddGenerator(LLVMOrcLLJITGetMainJITDylib(jit), generator);
    return error;
}

static gm_status add_objects(cg_program *program, gm_diag *diag) {
    cg_object_list list;
    GM_ASSERT(cg_object_list_of(program, &list));
    for (uint64_t i = 0; i < list.count; i++) {
        LLVMMemoryBufferRef copy = LLVMCreateMemoryBufferWithMemoryRangeCopy(list.start, list.bytes[i], "gemmac");
        LLVMErrorRef error = LLVMOrcLLJITAddObjectFile(program->jit, LLVMOrcLLJITGetMainJITDylib(program->jit), copy);
        if (error) return cg_llvm_fail(diag, error, "cannot load compiled code");
        list.start += list.bytes[i];
    }
    return GM_OK;
}

static rt_entry look_up(LLVMOrcLLJITRef jit, const char *name) {
    gm_string symbol = {0};
    LLVMOrcExecutorAddress address = 0;
    gm_string_printf(&symbol, "gm_entry.%s", name);
    LLVMErrorRef error = LLVMOrcLLJITLookup(jit, &address, symbol.data);
    if (error) LLVMConsumeError(error);
    gm_string_free(&symbol);
    return error ? NULL : (rt_entry)(uintptr_t)address;
}

static void link_entries(cg_program *program) {
    program->entries = calloc((size_t)program->module->func_count + 1, sizeof *program->entries);
    GM_ASSERT(program->entries);
    for (int i = 0; i < program->module->func_count; i++)
        program->entries[i] = look_up(program->jit, program->module->funcs[i]->name);
}

gm_status cg_jit_load(cg_program *program, gm_diag *diag) {
    LLVMErrorRef error = LLVMOrcCreateLLJIT(&program->jit, NULL);
    if (error) return cg_llvm_fail(diag, error, "cannot start the JIT");
    if ((error = define_host_symbols(program->jit))) return cg_llvm_fail(diag, error, "cannot define host functions");
    if ((error = search_process(program->jit))) return cg_llvm_fail(diag, error, "cannot search the process");
    GM_TRY(add_objects(program, diag));
    link_entries(program);
    return GM_OK;
}

rt_entry cg_entry(const cg_program *program, const char *name) {
    for (int i = 0; i < program->module->func_count; i++)
        if (strcmp(program->module->funcs[i]->name, name) == 0) return program->entries[i];
    return NULL;
}

/* ---- compiling ---- */

static void open_types(cg *c) {
    c->void_t = LLVMVoidTypeInContext(c->context);
    c->i1 = LLVMInt1TypeInContext(c->context);
    c->i8 = LLVMInt8TypeInContext(c->context);
    c->i16 = LLVMInt16TypeInContext(c->context);
    c->i32 = LLVMInt32TypeInContext(c->context);
    c->i64 = LLVMInt64TypeInContext(c->context);
    c->f16 = LLVMHalfTypeInContext(c->context);
    c->f32 = LLVMFloatTypeInContext(c->context);
    c->ptr = LLVMPointerTypeInContext(c->context, 0);
}

/* 512-bit vectors are used where the emitters ask for them, whatever the CPU's tuning prefers. */
static void mark_functions(cg *c, const cg_target *target) {
    for (LLVMValueRef fn = LLVMGetFirstFunction(c->llvm); fn; fn = LLVMGetNextFunction(fn)) {
        if (LLVMIsDeclaration(fn)) continue;
        LLVMAddTargetDependentFunctionAttr(fn, "target-cpu", target->cpu);
        if (*target->features) LLVMAddTargetDependentFunctionAttr(fn, "target-features", target->features);
        if (c->lanes != 16) continue;
        LLVMAddTargetDependentFunctionAttr(fn, "prefer-vector-width", "512");
        LLVMAddTargetDependentFunctionAttr(fn, "min-legal-vector-width", "512");
    }
}

static gm_status build(cg *c, const cg_target *target) {
    char *error = NULL;
    GM_TRY(cg_emit_module(c));
    mark_functions(c, target);
    if (LLVMVerifyModule(c->llvm, LLVMReturnStatusAction, &error)) {
        gm_status status = gm_fail(c->diag, GM_INTERNAL, "emitted LLVM IR is broken: %s", error);
        LLVMDisposeMessage(error);
        return status;
    }
    LLVMDisposeMessage(error);
    GM_TRY(cg_make_objects(c, target));
    return c->options->text_only ? GM_OK : cg_jit_load(c->program, c->diag);
}

/* The table was made for the largest program. */
static void shrink_names(cg_program *program) {
    char **names = realloc(program->weight_names, sizeof *names * (size_t)(program->weight_count + 1));
    GM_ASSERT(names);
    program->weight_names = names;
}

static gm_status check_arguments(const ir_module *module, gm_diag *diag) {
    for (int i = 0; i < module->func_count; i++) {
        const ir_func *func = module->funcs[i];
        if (func->body->param_count > CG_MAX_ARGS || func->body->yield_count > CG_MAX_ARGS)
            return gm_fail(diag, GM_UNSUPPORTED, "@%s: compiled functions have at most %d parameters and %d results",
                           func->name, CG_MAX_ARGS, CG_MAX_ARGS);
    }
    return GM_OK;
}

gm_status cg_compile(const ir_module *module, const cg_options *options, gm_diag *diag, cg_program **out) {
    GM_TRY(check_arguments(module, diag));
    cg_target target;
    GM_TRY(cg_target_open(options->target_cpu, diag, &target));
    if (!target.runs_here && !options->text_only) {
        cg_target_close(&target);
        return gm_fail(diag, GM_UNSUPPORTED,
                       "--target-cpu=%s needs wider vectors or other instructions than this machine has",
                       options->target_cpu);
    }
    cg_program *program = calloc(1, sizeof *program);
    GM_ASSERT(program);
    *program = (cg_program){.module = module, .weight_names = calloc(CG_MAX_WEIGHTS, sizeof(char *))};
    GM_ASSERT(program->weight_names);
    cg c = {.module = module,
            .options = options,
            .diag = diag,
            .program = program,
            .lanes = target.lanes,
            .vnni = target.vnni,
            .tiles = target.tiles,
            .ahead = target.ahead,
            .emulated = target.emulated};
    c.context = LLVMContextCreate();
    c.llvm = LLVMModuleCreateWithNameInContext("gemmac", c.context);
    c.b = LLVMCreateBuilderInContext(c.context);
    LLVMSetTarget(c.llvm, target.triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(target.machine);
    LLVMSetModuleDataLayout(c.llvm, layout);
    LLVMDisposeTargetData(layout);
    open_types(&c);
    gm_status status = build(&c, &target);
    shrink_names(program);
    LLVMDisposeBuilder(c.b);
    LLVMDisposeModule(c.llvm);
    LLVMContextDispose(c.context);
    free(c.kernels);
    free(c.slots);
    gm_arena_free(&c.arena);
    cg_target_close(&target);
    cg_release_compiler();
    if (status != GM_OK) {
        cg_program_free(program);
        return status;
    }
    *out = program;
    return GM_OK;
}

void cg_program_free(cg_program *program) {
    if (!program) return;
    if (program->jit) {
        LLVMErrorRef error = LLVMOrcDisposeLLJIT(program->jit);
        if (error) LLVMConsumeError(error);
    }
    for (int i = 0; i < program->weight_count; i++) free(program->weight_names[i]);
    free(program->weight_names);
    free(program->sites);
    free(program->entries);
    free(program->objects);
    free(program);
}

void cg_only_run(cg_program *program) {
    free(program->objects);
    free(program->entries);
    program->objects = NULL;
    program->entries = NULL;
    program->object_bytes = 0;
    program->module = NULL;
}

/* ---- what the runtime asks ---- */

int cg_weight_count(const cg_program *program) {
    return program->weight_count;
}

const char *cg_weight_name(const cg_program *program, int weight) {
    return program->weight_names[weight];
}

int cg_site_count(const cg_program *program) {
    return program->site_count;
}

const rt_site *cg_site_of(const cg_program *program, int site) {
    return &program->sites[site];
}

int64_t cg_scratch_bytes(const cg_program *program) {
    return program->scratch_bytes;
}

const void *cg_objects(const cg_program *program, size_t *bytes) {
    *bytes = program->object_bytes;
    return program->objects;
}

/* ---- numbers for traces ---- */

static bool find_number(const ir_region *region, const ir_inst *wanted, int64_t *next) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        if (inst == wanted) return true;
        ++*next;
        for (int r = 0; inst->op != IR_FUSE && r < inst->region_count; r++)
            if (find_number(inst->regions[r], wanted, next)) return true;
    }
    return false;
}

int64_t cg_trace_number(const ir_module *module, const ir_inst *inst) {
    int64_t number = 0;
    for (int i = 0; i < module->func_count; i++)
        if (find_number(module->funcs[i]->body, inst, &number)) return number;
    return -1;
}
