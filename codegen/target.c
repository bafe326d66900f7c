/* The target machine: the host with its features, or a named CPU. */
#include "codegen/cg.h"
#include "runtime/tiles.h"

#include <stdlib.h>
#include <string.h>

/* The CPUs that --target-cpu may name, by LLVM's names, with the floats of a vector register, whether they have
 * vpdpbusd, and whether tile registers. The host is asked directly. */
static const struct cpu {
    const char *name;
    int lanes;
    bool vnni, tiles;
} known[] = {
    {"x86-64", 4, false, false},          {"x86-64-v2", 4, false, false},      {"nehalem", 4, false, false},
    {"westmere", 4, false, false},        {"sandybridge", 4, false, false},    {"ivybridge", 4, false, false},
    {"btver2", 4, false, false},          {"x86-64-v3", 8, false, false},      {"haswell", 8, false, false},
    {"broadwell", 8, false, false},       {"skylake", 8, false, false},        {"alderlake", 8, true, false},
    {"raptorlake", 8, true, false},       {"meteorlake", 8, true, false},      {"arrowlake", 8, true, false},
    {"lunarlake", 8, true, false},        {"sierraforest", 8, true, false},    {"znver1", 8, false, false},
    {"znver2", 8, false, false},          {"znver3", 8, false, false},         {"x86-64-v4", 16, false, false},
    {"skylake-avx512", 16, false, false}, {"cascadelake", 16, true, false},    {"cooperlake", 16, true, false},
    {"icelake-client", 16, true, false},  {"icelake-server", 16, true, false}, {"rocketlake", 16, true, false},
    {"tigerlake", 16, true, false},       {"sapphirerapids", 16, true, true},  {"emeraldrapids", 16, true, true},
    {"graniterapids", 16, true, true},    {"znver4", 16, true, false},         {"znver5", 16, true, false},
};

/* LLVM compiles for x86-64-v3 and takes the vectors apart. */
static const struct cpu stand_ins[] = {{CG_STAND_IN_CPU, 16, true, false}, {CG_STAND_IN_TILES_CPU, 16, true, true}};
#define STAND_IN_CPU "x86-64-v3"

static bool is_stand_in(const struct cpu *cpu) {
    return cpu && cpu >= stand_ins && cpu < stand_ins + GM_COUNT(stand_ins);
}

/* NULL: not one of them. */
static const struct cpu *known_cpu(const char *name) {
    for (size_t i = 0; i < GM_COUNT(stand_ins); i++)
        if (strcmp(name, stand_ins[i].name) == 0) return &stand_ins[i];
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
    if (cg_has_feature(features, "avx512f") && cg_has_feature(features, "avx512bw") &&
        cg_has_feature(features, "avx512vl"))
        return 16;
    return cg_has_feature(features, "avx2") && cg_has_feature(features, "fma") ? 8 : 4;
}

/* In vectors of so many lanes: each width has its own encoding. */
static bool dots_bytes(const char *features, int lanes) {
    return lanes == 16 ? cg_has_feature(features, "avx512vnni") : lanes == 8 && cg_has_feature(features, "avxvnni");
}

static bool has_tile_features(const char *features) {
    return cg_has_feature(features, "amx-tile") && cg_has_feature(features, "amx-int8") &&
           cg_has_feature(features, "amx-bf16");
}

/* In this process; what else a kernel of tiles needs is there too. */
static bool host_has_tiles(const char *features) {
    return has_tile_features(features) && cg_has_feature(features, "avx512bf16") && dots_bytes(features, 16) &&
           lanes_of_features(features) == 16 && rt_tiles_permitted();
}

bool cg_target_here(const char *cpu, const char *host, const char *features) {
    const struct cpu *named = known_cpu(cpu);
    return strcmp(cpu, host) == 0 && (!named || !named->tiles || host_has_tiles(features));
}

bool cg_target_dots_bytes(const char *cpu) {
    const struct cpu *named = cpu ? known_cpu(cpu) : NULL;
    if (cpu) return named && named->vnni;
    char *host = LLVMGetHostCPUFeatures();
    bool dots = dots_bytes(host, lanes_of_features(host));
    LLVMDisposeMessage(host);
    return dots;
}

bool cg_target_has_tiles(const char *cpu) {
    const struct cpu *named = cpu ? known_cpu(cpu) : NULL;
    if (cpu) return named && named->tiles;
    char *host = LLVMGetHostCPUFeatures();
    bool tiles = host_has_tiles(host);
    LLVMDisposeMessage(host);
    return tiles;
}

/* Where another distance than CG_AHEAD was measured to be better: on Zen 4 a page ahead is no better than not to ask,
 * the next block of weights by a quarter (bench/figures.md). */
static int64_t ahead_of(const char *cpu) {
    static const struct {
        const char *cpu;
        int64_t bytes;
    } measured[] = {{"znver4", 384}};
    for (size_t i = 0; i < GM_COUNT(measured); i++)
        if (strcmp(cpu, measured[i].cpu) == 0) return measured[i].bytes;
    return CG_AHEAD;
}

/* Tiles have sums enough to hide the latency of vpdpwssd, which LLVM else takes apart for some CPUs: two instructions
 * for one. */
static char *feature_text(const char *features, bool vnni, bool tiles) {
    gm_string text = {0};
    gm_string_printf(&text, "%s%s%s", features, *features && vnni ? "," : "", vnni ? "+fast-dpwssd" : "");
    /* the kernel refuses them */
    if (has_tile_features(features) && !tiles) gm_string_printf(&text, ",-amx-tile,-amx-int8,-amx-bf16");
    char *message = LLVMCreateMessage(text.data);
    gm_string_free(&text);
    return message;
}

/* As far as vectors, dots of bytes and tiles go. */
static bool runs_here(const cg_target *target, const char *host_features) {
    int lanes = lanes_of_features(host_features);
    if (target->emulated) return lanes >= known_cpu(STAND_IN_CPU)->lanes;
    return target->lanes <= lanes && (!target->vnni || dots_bytes(host_features, target->lanes)) &&
           (!target->tiles || host_has_tiles(host_features));
}

gm_status cg_target_open(const char *cpu, gm_diag *diag, cg_target *out) {
    const struct cpu *named = cpu ? known_cpu(cpu) : NULL;
    if (cpu && !named)
        return gm_fail(
            diag, GM_INVALID,
            "--target-cpu=%s: not a CPU that gemmac knows (haswell, znver4, x86-64-v3, … as LLVM names them)", cpu);
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
    out->emulated = is_stand_in(named);
    out->cpu = cpu ? LLVMCreateMessage(out->emulated ? STAND_IN_CPU : cpu) : LLVMGetHostCPUName();
    out->lanes = named ? named->lanes : lanes_of_features(host_features);
    out->vnni = named ? named->vnni : dots_bytes(host_features, out->lanes);
    out->tiles = named ? named->tiles : host_has_tiles(host_features);
    out->ahead = ahead_of(out->cpu);
    out->features = feature_text(cpu ? "" : host_features, out->vnni && !out->emulated, out->tiles);
    out->runs_here = runs_here(out, host_features);
    LLVMDisposeMessage(host_features);
    out->machine = cg_target_machine(out, LLVMCodeGenLevelDefault);
    return GM_OK;
}

LLVMTargetMachineRef cg_target_machine(const cg_target *target, LLVMCodeGenOptLevel level) {
    return LLVMCreateTargetMachine(target->llvm, target->triple, target->cpu, target->features, level, LLVMRelocPIC,
                                   LLVMCodeModelDefault);
}

void cg_target_close(cg_target *target) {
    if (target->machine) LLVMDisposeTargetMachine(target->machine);
    LLVMDisposeMessage(target->triple);
    if (target->cpu) LLVMDisposeMessage(target->cpu);
    if (target->features) LLVMDisposeMessage(target->features);
    *target = (cg_target){0};
}
