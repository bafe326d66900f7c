/* The target machine: the host with its features, or a named CPU. */
#include "codegen/cg.h"

#include <stdlib.h>
#include <string.h>

/* The CPUs that --target-cpu may name, by LLVM's names, with the floats of a vector register. The host is asked directly. */
static const struct {
    const char *name;
    int lanes;
} known[] = {
    {"x86-64", 4},          {"x86-64-v2", 4},       {"nehalem", 4},         {"westmere", 4},        {"sandybridge", 4},
    {"ivybridge", 4},       {"btver2", 4},          {"x86-64-v3", 8},       {"haswell", 8},         {"broadwell", 8},
    {"skylake", 8},         {"alderlake", 8},       {"raptorlake", 8},      {"meteorlake", 8},      {"arrowlake", 8},
    {"lunarlake", 8},       {"sierraforest", 8},    {"znver1", 8},          {"znver2", 8},          {"znver3", 8},
    {"x86-64-v4", 16},      {"skylake-avx512", 16}, {"cascadelake", 16},    {"cooperlake", 16},     {"icelake-client", 16},
    {"icelake-server", 16}, {"rocketlake", 16},     {"tigerlake", 16},      {"sapphirerapids", 16}, {"emeraldrapids", 16},
    {"graniterapids", 16},  {"znver4", 16},         {"znver5", 16},
};

/* 0: not one of them. */
static int lanes_of_cpu(const char *cpu) {
    for (size_t i = 0; i < GM_COUNT(known); i++)
        if (strcmp(cpu, known[i].name) == 0) return known[i].lanes;
    return 0;
}

static int lanes_of_features(const char *features) {
    if (strstr(features, "+avx512f")) return 16;
    return strstr(features, "+avx2") && strstr(features, "+fma") ? 8 : 4;
}

gm_status cg_target_open(const char *cpu, gm_diag *diag, cg_target *out) {
    if (cpu && !lanes_of_cpu(cpu))
        return gm_fail(diag, GM_INVALID, "--target-cpu=%s: not a CPU that gemmac knows (haswell, znver4, x86-64-v3, … as LLVM names them)", cpu);
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMTargetRef target;
    char *error = NULL;
    *out = (cg_target){.triple = LLVMGetDefaultTargetTriple()};
    if (LLVMGetTargetFromTriple(out->triple, &target, &error)) {
        gm_status status = gm_fail(diag, GM_UNSUPPORTED, "LLVM has no target for %s: %s", out->triple, error);
        LLVMDisposeMessage(error);
        cg_target_close(out);
        return status;
    }
    char *host_features = LLVMGetHostCPUFeatures();
    out->cpu = cpu ? LLVMCreateMessage(cpu) : LLVMGetHostCPUName();
    out->features = LLVMCreateMessage(cpu ? "" : host_features);
    out->lanes = cpu ? lanes_of_cpu(cpu) : lanes_of_features(host_features);
    int host_lanes = lanes_of_features(host_features);
    LLVMDisposeMessage(host_features);
    if (out->lanes > host_lanes) {
        gm_status status = gm_fail(diag, GM_UNSUPPORTED, "--target-cpu=%s needs wider vectors than this machine has", cpu);
        cg_target_close(out);
        return status;
    }
    out->machine = LLVMCreateTargetMachine(target, out->triple, out->cpu, out->features, LLVMCodeGenLevelDefault, LLVMRelocPIC, LLVMCodeModelDefault);
    return GM_OK;
}

void cg_target_close(cg_target *target) {
    if (target->machine) LLVMDisposeTargetMachine(target->machine);
    LLVMDisposeMessage(target->triple);
    if (target->cpu) LLVMDisposeMessage(target->cpu);
    if (target->features) LLVMDisposeMessage(target->features);
    *target = (cg_target){0};
}
