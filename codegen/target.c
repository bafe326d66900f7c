/* The target machine: the host with its features, or a named CPU. */
#include "codegen/cg.h"

#include <stdlib.h>
#include <string.h>

/* The CPUs that --target-cpu may name, by LLVM's names, with the floats of a vector register, and whether they have vpdpbusd. The
 * host is asked directly. */
static const struct cpu {
    const char *name;
    int lanes;
    bool dot_bytes;
} known[] = {
    {"x86-64", 4, false}, {"x86-64-v2", 4, false}, {"nehalem", 4, false}, {"westmere", 4, false}, {"sandybridge", 4, false},
    {"ivybridge", 4, false}, {"btver2", 4, false}, {"x86-64-v3", 8, false}, {"haswell", 8, false}, {"broadwell", 8, false},
    {"skylake", 8, false}, {"alderlake", 8, true}, {"raptorlake", 8, true}, {"meteorlake", 8, true}, {"arrowlake", 8, true},
    {"lunarlake", 8, true}, {"sierraforest", 8, true}, {"znver1", 8, false}, {"znver2", 8, false}, {"znver3", 8, false},
    {"x86-64-v4", 16, false}, {"skylake-avx512", 16, false}, {"cascadelake", 16, true}, {"cooperlake", 16, true},
    {"icelake-client", 16, true}, {"icelake-server", 16, true}, {"rocketlake", 16, true}, {"tigerlake", 16, true},
    {"sapphirerapids", 16, true}, {"emeraldrapids", 16, true}, {"graniterapids", 16, true}, {"znver4", 16, true}, {"znver5", 16, true},
};

/* NULL: not one of them. */
static const struct cpu *known_cpu(const char *name) {
    for (size_t i = 0; i < GM_COUNT(known); i++)
        if (strcmp(name, known[i].name) == 0) return &known[i];
    return NULL;
}

static int lanes_of_features(const char *features) {
    if (strstr(features, "+avx512f")) return 16;
    return strstr(features, "+avx2") && strstr(features, "+fma") ? 8 : 4;
}

/* In vectors of 256 bits. */
static bool dots_bytes(const char *features) {
    return strstr(features, "+avxvnni,") || (strstr(features, "+avx512vnni") && strstr(features, "+avx512vl"));
}

bool cg_target_dots_bytes(const char *cpu) {
    const struct cpu *named = cpu ? known_cpu(cpu) : NULL;
    if (cpu) return named && named->dot_bytes;
    char *host = LLVMGetHostCPUFeatures();
    bool dots = dots_bytes(host);
    LLVMDisposeMessage(host);
    return dots;
}

gm_status cg_target_open(const char *cpu, gm_diag *diag, cg_target *out) {
    const struct cpu *named = cpu ? known_cpu(cpu) : NULL;
    if (cpu && !named)
        return gm_fail(diag, GM_INVALID, "--target-cpu=%s: not a CPU that gemmac knows (haswell, znver4, x86-64-v3, … as LLVM names them)", cpu);
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    char *error = NULL;
    *out = (cg_target){.triple = LLVMGetDefaultTargetTriple()};
    if (LLVMGetTargetFromTriple(out->triple, &out->llvm, &error)) {
        gm_status status = gm_fail(diag, GM_UNSUPPORTED, "LLVM has no target for %s: %s", out->triple, error);
        LLVMDisposeMessage(error);
        cg_target_close(out);
        return status;
    }
    char *host_features = LLVMGetHostCPUFeatures();
    out->cpu = cpu ? LLVMCreateMessage(cpu) : LLVMGetHostCPUName();
    out->features = LLVMCreateMessage(cpu ? "" : host_features);
    out->lanes = named ? named->lanes : lanes_of_features(host_features);
    out->dot_bytes = named ? named->dot_bytes : dots_bytes(host_features);
    bool runs = out->lanes <= lanes_of_features(host_features) && (!out->dot_bytes || dots_bytes(host_features));
    LLVMDisposeMessage(host_features);
    if (!runs) {
        gm_status status = gm_fail(diag, GM_UNSUPPORTED, "--target-cpu=%s needs wider vectors or other instructions than this machine has", cpu);
        cg_target_close(out);
        return status;
    }
    out->machine = cg_target_machine(out, LLVMCodeGenLevelDefault);
    return GM_OK;
}

LLVMTargetMachineRef cg_target_machine(const cg_target *target, LLVMCodeGenOptLevel level) {
    return LLVMCreateTargetMachine(target->llvm, target->triple, target->cpu, target->features, level, LLVMRelocPIC, LLVMCodeModelDefault);
}

void cg_target_close(cg_target *target) {
    if (target->machine) LLVMDisposeTargetMachine(target->machine);
    LLVMDisposeMessage(target->triple);
    if (target->cpu) LLVMDisposeMessage(target->cpu);
    if (target->features) LLVMDisposeMessage(target->features);
    *target = (cg_target){0};
}
