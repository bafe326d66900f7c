/* A compiled program as bytes, so that it can be kept in a file and loaded again: the metadata here, the objects by
 * cg_objects.
 *
 * Metadata, little-endian: four 64-bit numbers (weights, sites, bytes of a site, scratch bytes per thread), the rt_site
 * table, the names of the weights, each with its NUL. It is read back only where cg_fingerprint is what it was when it
 * was written.
 */
#include "codegen/cg.h"

#include <stdlib.h>
#include <string.h>

/* A field added to cg_program must be written and read here. */
_Static_assert(sizeof(cg_program) == 80, "cg_program has a field that images do not keep");

typedef struct image_head {
    uint64_t weights, sites, site_bytes, scratch;
} image_head;

void cg_image_write(const cg_program *program, gm_string *out) {
    image_head head = {(uint64_t)program->weight_count, (uint64_t)program->site_count, sizeof(rt_site),
                       (uint64_t)program->scratch_bytes};
    gm_string_append(out, (const char *)&head, sizeof head);
    if (program->site_count)
        gm_string_append(out, (const char *)program->sites, sizeof(rt_site) * (size_t)program->site_count);
    for (int i = 0; i < program->weight_count; i++)
        gm_string_append(out, program->weight_names[i], strlen(program->weight_names[i]) + 1);
}

/* ---- reading ---- */

static gm_status refuse(const char *path, gm_diag *diag, const char *expected) {
    return gm_fail(diag, GM_FORMAT, "%s: compiled program: expected %s", path, expected);
}

static gm_status read_names(cg_program *program, const char *at, const char *end, uint64_t count, const char *path,
                            gm_diag *diag) {
    for (uint64_t i = 0; i < count; i++) {
        size_t length = strnlen(at, (size_t)(end - at));
        if (length == (size_t)(end - at)) return refuse(path, diag, "as many weight names as it says");
        program->weight_names[program->weight_count++] = strdup(at);
        at += length + 1;
    }
    return at == end ? GM_OK : refuse(path, diag, "nothing after the weight names");
}

/* The types that the module's weight instructions give the program's weights, by number. They come in much the same
 * order, so the search for each goes on where the last one ended. */
typedef struct weight_types {
    const cg_program *program;
    const ir_type **types;
    int next;
} weight_types;

static void note_type(weight_types *w, const char *name, const ir_type *type) {
    int count = w->program->weight_count;
    for (int tried = 0; tried < count; tried++) {
        int at = (w->next + tried) % count;
        if (strcmp(w->program->weight_names[at], name) != 0) continue;
        w->types[at] = type;
        w->next = at + 1;
        return;
    }
}

static void find_types(weight_types *w, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        for (int r = 0; r < inst->region_count; r++) find_types(w, inst->regions[r]);
        for (int64_t k = 0; k < ir_stored_count(inst); k++) {
            char text[IR_NAME_BYTES];
            note_type(w, ir_stored_name(inst, k, text), &inst->results[0]->type);
        }
    }
}

static bool site_holds(const cg_program *program, const rt_site *site, const ir_type *const *types) {
    int64_t total = 0;
    if (site->weight_count < 1 || site->weight_count > RT_SITE_WEIGHTS) return false;
    for (int i = 0; i < site->weight_count; i++) {
        if (site->weights[i] < 0 || site->weights[i] >= program->weight_count) return false;
        const ir_type *type = types[site->weights[i]];
        if (type->rank != 2 || type->dim[0] != site->rows[i] || type->dim[1] != site->columns ||
            (int)type->dtype != site->dtypes[i])
            return false;
        total += site->rows[i];
    }
    return site->max_rows >= 1 && site->x_stride >= site->columns && site->out_stride >= total;
}

static gm_status check_tables(const cg_program *program, const char *path, gm_diag *diag) {
    const ir_type **types = calloc((size_t)program->weight_count + 1, sizeof *types);
    weight_types all = {.program = program, .types = types};
    bool read = true, hold = true;
    GM_ASSERT(types);
    for (int i = 0; i < program->module->func_count; i++) find_types(&all, program->module->funcs[i]->body);
    for (int i = 0; i < program->weight_count; i++) read &= types[i] != NULL;
    for (int i = 0; i < program->site_count && read; i++) hold &= site_holds(program, &program->sites[i], types);
    free(types);
    if (!read) return refuse(path, diag, "only weights that the IR reads");
    return hold ? GM_OK : refuse(path, diag, "products of weights that the IR reads, with their shapes");
}

static gm_status check_entries(const cg_program *program, const char *path, gm_diag *diag) {
    for (int i = 0; i < program->module->func_count; i++) {
        const char *name = program->module->funcs[i]->name;
        if (!cg_entry(program, name))
            return gm_fail(diag, GM_FORMAT, "%s: compiled program: expected code of @%.100s", path, name);
    }
    return GM_OK;
}

static gm_status read_tables(cg_program *program, const void *metadata, size_t bytes, const char *path, gm_diag *diag) {
    image_head head;
    if (bytes < sizeof head) return refuse(path, diag, "its head");
    memcpy(&head, metadata, sizeof head);
    if (head.site_bytes != sizeof(rt_site) || head.weights > CG_MAX_WEIGHTS || head.sites > CG_MAX_SITES ||
        head.scratch > INT32_MAX)
        return refuse(path, diag, "tables of possible sizes");
    size_t sites = (size_t)head.sites * sizeof(rt_site);
    if (bytes - sizeof head < sites) return refuse(path, diag, "as many products as it says");
    const char *at = (const char *)metadata + sizeof head;
    program->sites = malloc(sites + 1);
    GM_ASSERT(program->sites);
    memcpy(program->sites, at, sites);
    program->site_count = (int)head.sites;
    program->scratch_bytes = (int64_t)head.scratch;
    GM_TRY(read_names(program, at + sites, (const char *)metadata + bytes, head.weights, path, diag));
    return check_tables(program, path, diag);
}

static gm_status load(cg_program *program, const cg_image *image, gm_diag *diag) {
    cg_target host; /* opened only for LLVM's initialisation */
    cg_object_list list;
    GM_TRY(read_tables(program, image->metadata, image->metadata_bytes, image->path, diag));
    if (!cg_object_list_of(program, &list)) return refuse(image->path, diag, "objects of the sizes that it says");
    GM_TRY(cg_target_open(NULL, diag, &host));
    cg_target_close(&host);
    GM_TRY(cg_jit_load(program, diag));
    return check_entries(program, image->path, diag);
}

gm_status cg_image_read(const ir_module *module, const cg_image *image, gm_diag *diag, cg_program **out) {
    cg_program *program = calloc(1, sizeof *program);
    GM_ASSERT(program);
    *program = (cg_program){.module = module,
                            .weight_names = calloc(CG_MAX_WEIGHTS, sizeof(char *)),
                            .objects = malloc(image->object_bytes + 1),
                            .object_bytes = image->object_bytes};
    GM_ASSERT(program->weight_names && program->objects);
    memcpy(program->objects, image->objects, image->object_bytes);
    gm_status status = load(program, image, diag);
    cg_release_compiler();
    if (status == GM_OK) *out = program;
    else cg_program_free(program);
    return status;
}

/* ---- where an image may run ---- */

gm_status cg_target_text(const char *cpu, gm_diag *diag, gm_string *out) {
    cg_target target;
    unsigned major, minor, patch;
    GM_TRY(cg_target_open(cpu, diag, &target));
    LLVMGetVersion(&major, &minor, &patch);
    gm_string_printf(out, "LLVM %u.%u.%u %s %s %s", major, minor, patch, target.triple, target.cpu, target.features);
    cg_target_close(&target);
    return GM_OK;
}

/* The levels of the x86-64 ABI: what each adds to the one before, and CPUs of which LLVM uses no more without being
 * asked. */
static const struct {
    const char *cpu, *adds[10], *alike[6]; /* up to NULL */
} levels[] = {
    {"x86-64", {"sse2"}, {NULL}},
    {"x86-64-v2", {"cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"}, {"nehalem", "westmere"}},
    {"x86-64-v3",
     {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"},
     {"sandybridge", "ivybridge", "haswell", "broadwell", "skylake"}},
    {"x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}, {NULL}},
};

bool cg_target_runs(const char *cpu) {
    char *host = LLVMGetHostCPUName(), *features = LLVMGetHostCPUFeatures();
    bool runs = cg_target_here(cpu, host, features), level_runs = true;
    for (size_t i = 0; i < GM_COUNT(levels) && !runs; i++) {
        for (int k = 0; levels[i].adds[k]; k++) level_runs &= cg_has_feature(features, levels[i].adds[k]);
        bool named = strcmp(cpu, levels[i].cpu) == 0;
        for (int k = 0; levels[i].alike[k]; k++) named |= strcmp(cpu, levels[i].alike[k]) == 0;
        runs = level_runs && named;
    }
    LLVMDisposeMessage(host);
    LLVMDisposeMessage(features);
    return runs;
}

uint64_t cg_fingerprint(void) {
    static const size_t layout[] = {sizeof(rt_frame),
                                    offsetof(rt_frame, weights),
                                    offsetof(rt_frame, arena),
                                    offsetof(rt_frame, scratch),
                                    offsetof(rt_frame, scratch_stride),
                                    offsetof(rt_frame, ring),
                                    offsetof(rt_frame, shared),
                                    offsetof(rt_frame, trace),
                                    offsetof(rt_frame, threads),
                                    offsetof(rt_frame, barrier.dealt),
                                    offsetof(rt_ring, written),
                                    offsetof(rt_ring, token),
                                    sizeof(rt_candidates),
                                    offsetof(rt_candidates, count),
                                    offsetof(rt_candidates, score),
                                    offsetof(rt_candidates, id),
                                    offsetof(rt_candidates, supposed),
                                    offsetof(rt_candidates, floor),
                                    offsetof(rt_candidates, uncapped),
                                    sizeof(rt_site),
                                    offsetof(rt_site, rows),
                                    offsetof(rt_site, weights),
                                    offsetof(rt_site, dtypes),
                                    offsetof(rt_site, max_rows),
                                    CG_MAX_OBJECTS,
                                    RT_RING_CAPACITY,
                                    RT_SHARED_WORDS,
                                    RT_DTYPE_COUNT,
                                    IR_OP_COUNT,
                                    IR_ATTR_COUNT};
    uint64_t hash = gm_hash(GM_HASH, layout, sizeof layout);
#define RTCALL(name) hash = gm_hash(hash, #name, sizeof #name);
    RT_CALLS(RTCALL)
#undef RTCALL
    for (int i = 0; i < IR_OP_COUNT; i++)
        hash = gm_hash(hash, ir_op_of((ir_op)i)->text, strlen(ir_op_of((ir_op)i)->text) + 1);
    for (int i = 0; i < IR_ATTR_COUNT; i++)
        hash = gm_hash(hash, ir_attr_of((ir_attr_key)i)->text, strlen(ir_attr_of((ir_attr_key)i)->text) + 1);
    return hash;
}
