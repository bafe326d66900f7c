/* Kernels: internal functions shared by every instruction of one shape, found by a key that says all that the body
 * bakes in. */
#include "codegen/cg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cg_kernel_arg(cg_kernel *kernel, LLVMValueRef value) {
    GM_ASSERT(kernel->count < CG_MAX_ARGS);
    kernel->args[kernel->count] = value;
    return kernel->count++;
}

/* frame, thread, threads, every symbol, then the arguments. */
static int signature(cg *c, const cg_kernel *kernel, LLVMTypeRef *types) {
    int n = 0;
    types[n++] = c->ptr;
    types[n++] = c->i32;
    types[n++] = c->i32;
    for (int i = 0; i < c->module->symbol_count; i++) types[n++] = c->i64;
    for (int i = 0; i < kernel->count; i++) types[n++] = LLVMTypeOf(kernel->args[i]);
    return n;
}

void cg_add_attribute(cg *c, LLVMValueRef fn, unsigned index, const char *name) {
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    LLVMAddAttributeAtIndex(fn, index, LLVMCreateEnumAttribute(c->context, kind, 0));
}

/* The planner never lets a result overlap an operand, so pointers do not alias. */
static void mark_arguments(cg *c, LLVMValueRef fn, const LLVMTypeRef *types, int count) {
    for (int i = 0; i < count; i++)
        if (types[i] == c->ptr) cg_add_attribute(c, fn, (unsigned)i + 1, "noalias");
}

static void open_code(cg *c, LLVMValueRef fn, int arg_count) {
    c->code = (cg_code){
        .fn = fn, .frame = LLVMGetParam(fn, 0), .thread = LLVMGetParam(fn, 1), .threads = LLVMGetParam(fn, 2)};
    unsigned n = 3;
    for (int i = 0; i < c->module->symbol_count; i++) c->code.symbol[i] = LLVMGetParam(fn, n++);
    for (int i = 0; i < arg_count; i++) c->code.args[i] = LLVMGetParam(fn, n++);
    LLVMPositionBuilderAtEnd(c->b, LLVMAppendBasicBlockInContext(c->context, fn, "entry"));
    /* A first block for allocas only. */
    LLVMBasicBlockRef start = LLVMAppendBasicBlockInContext(c->context, fn, "start");
    LLVMBuildBr(c->b, start);
    LLVMPositionBuilderAtEnd(c->b, start);
}

static cg_kernel_entry *kernel_make(cg *c, cg_kernel *kernel, const char *name, cg_kernel_fn emit, void *user) {
    if (c->kernel_count == c->kernel_capacity) {
        c->kernel_capacity = c->kernel_capacity ? 2 * c->kernel_capacity : 64;
        c->kernels = realloc(c->kernels, sizeof *c->kernels * (size_t)c->kernel_capacity);
        GM_ASSERT(c->kernels);
    }
    int at = c->kernel_count++;
    LLVMTypeRef types[CG_MAX_PARAMS];
    int count = signature(c, kernel, types);
    LLVMTypeRef type = LLVMFunctionType(c->void_t, types, (unsigned)count, 0);
    char label[96];
    snprintf(label, sizeof label, "k%d.%s", at, name);
    LLVMValueRef fn = LLVMAddFunction(c->llvm, label, type);
    LLVMSetLinkage(fn, LLVMInternalLinkage);
    cg_add_attribute(c, fn, (unsigned)LLVMAttributeFunctionIndex, "noinline");
    mark_arguments(c, fn, types, count);
    c->kernels[at] = (cg_kernel_entry){gm_arena_strdup(&c->arena, kernel->key.data), fn, type};
    cg_code outer = c->code;
    LLVMBasicBlockRef here = LLVMGetInsertBlock(c->b);
    open_code(c, fn, kernel->count);
    emit(c, user);
    LLVMBuildRetVoid(c->b);
    c->code = outer;
    LLVMPositionBuilderAtEnd(c->b, here);
    return &c->kernels[at];
}

void cg_kernel_call(cg *c, cg_kernel *kernel, const char *name, cg_kernel_fn emit, void *user) {
    cg_kernel_entry *entry = NULL;
    for (int i = 0; i < c->kernel_count && !entry; i++)
        if (strcmp(c->kernels[i].key, kernel->key.data) == 0) entry = &c->kernels[i];
    if (!entry) entry = kernel_make(c, kernel, name, emit, user);
    LLVMValueRef args[CG_MAX_PARAMS];
    int n = 0;
    args[n++] = c->code.frame;
    args[n++] = c->code.thread;
    args[n++] = c->code.threads;
    for (int i = 0; i < c->module->symbol_count; i++) args[n++] = c->code.symbol[i] ? c->code.symbol[i] : cg_i64(c, 0);
    for (int i = 0; i < kernel->count; i++) args[n++] = kernel->args[i];
    LLVMBuildCall2(c->b, entry->type, entry->fn, args, (unsigned)n, "");
    gm_string_free(&kernel->key);
}
