/* Writes a model with random weights in the Hugging Face layout: random_checkpoint CONFIG.json FOLDER [SHARDS [SEED]]
 *
 * FOLDER (made here) gets a copy of CONFIG.json and bf16 safetensors of every tensor that the configuration asks for,
 * in one file or in shards with an index. Matrices are uniform with variance 1 / columns, so that activations neither
 * vanish nor grow; norm weights lie near 0 (they are used as 1 + w). Made for sizes that no repository could hold: the
 * same seed gives the same bytes.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "frontend/gemma.h"
#include "frontend/json.h"
#include "frontend/model.h"

enum { MAX_TENSORS = 4096, BUFFER = 1 << 16, MAX_JSON = 1 << 20 };

typedef struct listing {
    const char *name[MAX_TENSORS];
    int64_t rows[MAX_TENSORS], columns[MAX_TENSORS]; /* columns 0: a vector */
    int count;
} listing;

static void die(const char *what, const char *path) {
    fprintf(stderr, "random_checkpoint: %s: %s\n", path, what);
    exit(1);
}

/* The stored weights that the lowered model names, each once. */
static void list_region(listing *list, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        for (int r = 0; r < inst->region_count; r++) list_region(list, inst->regions[r]);
        if (inst->op != IR_WEIGHT) continue;
        const char *name = ir_attr_string(inst, IR_ATTR_NAME);
        const ir_type *type = &inst->results[0]->type;
        bool seen = false;
        for (int k = 0; k < list->count; k++) seen |= strcmp(list->name[k], name) == 0;
        if (seen) continue;
        if (list->count == MAX_TENSORS) die("more tensors than expected", name);
        list->name[list->count] = name;
        list->rows[list->count] = type->dim[0];
        list->columns[list->count++] = type->rank == 2 ? type->dim[1] : 0;
    }
}

static int64_t elems_of(const listing *list, int i) {
    return list->rows[i] * (list->columns[i] ? list->columns[i] : 1);
}

static FILE *create(const char *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file) die("cannot be written", path);
    return file;
}

static void finish(FILE *file, const char *name) {
    if (ferror(file) | fclose(file)) die("cannot be written", name);
}

static void write_header(FILE *file, const listing *list, int from, int to) {
    gm_string text = {0};
    int64_t at = 0;
    for (int i = from; i < to; i++) {
        int64_t end = at + 2 * elems_of(list, i);
        gm_string_printf(&text, "%c\"model.%s\":{\"dtype\":\"BF16\",\"shape\":[%" PRId64, i == from ? '{' : ',',
                         list->name[i], list->rows[i]);
        if (list->columns[i]) gm_string_printf(&text, ",%" PRId64, list->columns[i]);
        gm_string_printf(&text, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, end);
        at = end;
    }
    gm_string_printf(&text, "}");
    while (text.length % 8) gm_string_printf(&text, " ");
    uint64_t length = text.length;
    fwrite(&length, sizeof length, 1, file);
    fwrite(text.data, 1, text.length, file);
    gm_string_free(&text);
}

static uint64_t next(uint64_t *state) { /* xorshift64*, Vigna 2016 */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717u;
}

static void write_values(FILE *file, int64_t elems, int64_t columns, uint64_t *state) {
    static uint16_t buffer[BUFFER];
    float reach = columns ? sqrtf(3.0f / (float)columns) : 0.1f;
    for (int64_t done = 0; done < elems; done += BUFFER) {
        int64_t count = elems - done < BUFFER ? elems - done : BUFFER;
        for (int64_t i = 0; i < count; i++) {
            float unit = (float)(next(state) >> 40) * 0x1p-23f - 1.0f;
            buffer[i] = rt_f32_to_bf16(unit * reach);
        }
        fwrite(buffer, sizeof *buffer, (size_t)count, file);
    }
}

static void write_shard(const char *folder, const char *name, const listing *list, int from, int to, uint64_t *state) {
    FILE *file = create(folder, name);
    write_header(file, list, from, to);
    for (int i = from; i < to; i++) write_values(file, elems_of(list, i), list->columns[i], state);
    finish(file, name);
}

static void write_weights(const char *folder, const listing *list, int shards, uint64_t seed) {
    uint64_t state = seed * 2 + 1;
    char name[64] = "model.safetensors";
    if (shards == 1) {
        write_shard(folder, name, list, 0, list->count, &state);
        return;
    }
    FILE *index = create(folder, "model.safetensors.index.json");
    fprintf(index, "{\"metadata\":{},\"weight_map\":{");
    for (int s = 0; s < shards; s++) {
        int from = list->count * s / shards, to = list->count * (s + 1) / shards;
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", s + 1, shards);
        write_shard(folder, name, list, from, to, &state);
        for (int i = from; i < to; i++) fprintf(index, "%s\"model.%s\":\"%s\"", i ? "," : "", list->name[i], name);
    }
    fprintf(index, "}}\n");
    finish(index, "model.safetensors.index.json");
}

int main(int argc, char **argv) {
    gm_diag diag = {0};
    fe_model model = {0};
    listing list = {.count = 0};
    char *text;
    size_t length;
    if (argc < 3 || argc > 5) die("expected CONFIG.json FOLDER [SHARDS [SEED]]", "usage");
    int shards = argc > 3 ? atoi(argv[3]) : 1;
    if (shards < 1 || shards > 64) die("expected 1 to 64 shards", argv[3]);
    if (mkdir(argv[2], 0777)) die("cannot be made", argv[2]);
    if (fe_read_file(argv[1], MAX_JSON, &diag, &text, &length) != GM_OK) die(diag.message, argv[1]);
    FILE *copy = create(argv[2], "config.json");
    fwrite(text, 1, length, copy);
    finish(copy, "config.json");
    free(text);
    if (fe_model_open(argv[2], true, &diag, &model) != GM_OK) die(diag.message, argv[2]);
    ir_module *module = fe_gemma_build(&model.config, NULL);
    for (int i = 0; i < module->func_count; i++) list_region(&list, module->funcs[i]->body);
    write_weights(argv[2], &list, shards, argc > 4 ? strtoull(argv[4], NULL, 10) : 1);
    ir_module_free(module);
    fe_model_close(&model);
    return 0;
}
