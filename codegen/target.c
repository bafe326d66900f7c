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

/* LLVM compiles for x86-64-v3 and takes the vectors apart. */
static const struct cpu stand_in = {CG_STAND_IN_CPU, 16, true};
#define STAND_IN_CPU "x86-64-v3"

/* NULL: not one of them. */
static const struct cpu *known_cpu(const char *name) {
    if (strcmp(name, stand_in.name) == 0) return &stand_in;
    for (size_t i = 0; i < GM_COUNT(known); i++)
        if (strcmp(name, known[i].name) == 0) return &known[i];
    return NULL;
}

bool cg_has_feature(const char *features, const char *name) {
    size_t length = strlen(name);
    for (const char *at = features; (at = strstr(at, name)); at += length) {
        bool begins = at > features && at[-1] == '+', ends = at[length] == ',' || !at[length];
        if (begins && ends) return true;
    }
    return false;
}

static int lanes_of_features(const char *features) {
    if (cg_has_feature(features, "avx512f") && cg_has_feature(features, "avx512bw") && cg_has_feature(features, "avx512vl")) return 16;
    return cg_has_feature(features, "avx2") && cg_has_feature(features, "fma") ? 8 : 4;
}

/* In vectors of so many lanes: each width has its own encoding. */
static bool dots_bytes(const char *features, int lanes) {
    return lanes == 16 ? cg_has_feature(features, "avx512vnni") : lanes == 8 && cg_has_feature(features, "avxvnni");
}

bool cg_target_dots_bytes(const char *cpu) {
    const struct cpu *named = cpu ? known_cpu(cpu) : NULL;
    if (cpu) return named && named->dot_bytes;
    char *host = LLVMGetHostCPUFeatures();
    bool dots = dots_bytes(host, lanes_of_features(host));
    LLVMDisposeMessage(host);
    return dots;
}

/* Tiles have sums enough to hide the latency of vpdpwssd, which LLVM else takes apart for some CPUs: two instructions for one. */
static char *feature_text(const char *features, bool dot_bytes) {
    gm_string text = {0};
    gm_string_printf(&text, "%s%s%s", features, *features && dot_bytes ? "," : "", dot_bytes ? "+fast-dpwssd" : "");
    char *message = LLVMCreateMessage(text.data);
    gm_string_free(&text);
    return message;
}

/* As far as vectors and dots of bytes go. */
static bool runs_here(const cg_target *target, const char *host_features) {
    int lanes = lanes_of_features(host_features);
    if (target->stands_in) return lanes >= known_cpu(STAND_IN_CPU)->lanes;
    return target->lanes <= lanes && (!target->dot_bytes || dots_bytes(host_features, target->lanes));
}

gm_status cg_target_open(const char *cpu, gm_diag *diag, cg_target *out) {
    const struct cpu *named = cpu ? known_cpu(cpu) : NULL;
    if (cpu && !named)
        return gm_fail(diag, GM_INVALID, "--target-cpu=%s: not a CPU that gemmac knows (haswell, znver4, x86-64-v3, … as LLVM names them)", cpu);
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser(); /* integer_stored.c */
    char *error = NULL;
    *out = (cg_target){.triple = LLVMGetDefaultTargetTriple()};
    if (LLVMGetTargetFromTriple(out->triple, &out->llvm, &error)) {
        gm_status status = gm_fail(diag, GM_UNSUPPORTED, "LLVM has no target for %s: %s", out->triple, error);
        LLVMDisposeMessage(error);
        cg_target_close(out);
        return status;
    }
    char *host_features = LLVMGetHostCPUFeatures();
    out->stands_in = named == &stand_in;
    out->cpu = cpu ? LLVMCreateMessage(out->stands_in ? STAND_IN_CPU : cpu) : LLVMGetHostCPUName();
    out->lanes = named ? named->lanes : lanes_of_features(host_features);
    out->dot_bytes = named ? named->dot_bytes : dots_bytes(host_features, out->lanes);
    out->features = feature_text(cpu ? "" : host_features, out->dot_bytes && !out->stands_in);
    out->runs_here = runs_here(out, host_features);
    LLVMDisposeMessage(host_features);
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
