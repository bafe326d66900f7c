/* Reference outputs of a model: reading them and comparing with them. */
#include "tests/model/golden.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the file ---- */

static bool read_all(const char *path, golden_file *out) {
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    bool ok = fseek(file, 0, SEEK_END) == 0;
    long bytes = ok ? ftell(file) : -1;
    rewind(file);
    out->count = bytes > 8 ? (size_t)bytes : 0;
    out->bytes = out->count ? malloc(out->count) : NULL;
    ok = out->bytes && fread(out->bytes, 1, out->count, file) == out->count;
    fclose(file);
    return ok;
}

static void list_prompts(golden_file *file) {
    const cJSON *item;
    cJSON_ArrayForEach(item, file->header) {
        if (strncmp(item->string, "ids.", 4) != 0 || file->prompt_count == GOLDEN_PROMPTS) continue;
        snprintf(file->prompts[file->prompt_count++], GOLDEN_NAME, "%s", item->string + 4);
    }
}

bool golden_open(const char *path, golden_file *out) {
    *out = (golden_file){0};
    uint64_t header = 0;
    bool ok = read_all(path, out);
    if (ok) memcpy(&header, out->bytes, sizeof header);
    ok = ok && header <= out->count - 8;
    if (ok) out->header = cJSON_ParseWithLength((const char *)out->bytes + 8, (size_t)header);
    if (!out->header) {
        fprintf(stderr, "%s: not a readable safetensors file\n", path);
        golden_close(out);
        return false;
    }
    out->data = (size_t)header + 8;
    list_prompts(out);
    return true;
}

void golden_close(golden_file *file) {
    cJSON_Delete(file->header);
    free(file->bytes);
    *file = (golden_file){0};
}

const void *golden_tensor(const golden_file *file, const char *kind, const char *prompt, int64_t *out_elems) {
    char name[128];
    snprintf(name, sizeof name, "%s%s%s", kind, prompt ? "." : "", prompt ? prompt : "");
    const cJSON *tensor = cJSON_GetObjectItemCaseSensitive(file->header, name);
    const cJSON *range = cJSON_GetObjectItemCaseSensitive(tensor, "data_offsets");
    if (cJSON_GetArraySize(range) != 2) return NULL;
    size_t start = (size_t)range->child->valuedouble, end = (size_t)range->child->next->valuedouble;
    if (start > end || end > file->count - file->data) return NULL;
    if (out_elems) *out_elems = (int64_t)((end - start) / 4);
    return file->bytes + file->data + start;
}

/* ---- comparing ---- */

void golden_compare(golden_error *error, int64_t row, int64_t column, double got, double want) {
    double difference = fabs(got - want);
    if (isnan(error->worst) || difference <= error->worst) return;
    *error = (golden_error){difference, row, column, got, want};
}

typedef struct scoring {
    const float *want;
    int64_t vocab;
    golden_error *error;
} scoring;

static bool compare_rows(void *user, int64_t first, int64_t rows, const float *logits) {
    scoring *s = user;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < s->vocab; i++)
            golden_compare(s->error, first + row, i, (double)logits[row * s->vocab + i],
                           (double)s->want[(first + row) * s->vocab + i]);
    return true;
}

gm_status golden_score(rt_session *session, const int32_t *ids, int64_t n, const float *want, gm_diag *diag,
                       golden_error *error) {
    scoring s = {want, rt_session_vocab(session), error};
    return rt_session_score(session, ids, n, compare_rows, &s, diag);
}

static gm_status prefill_in_parts(rt_session *session, const int32_t *ids, int64_t n, int parts, gm_diag *diag) {
    rt_session_reset(session);
    for (int i = 0; i < parts; i++) {
        int64_t start = n * i / parts, end = n * (i + 1) / parts;
        if (end > start) GM_TRY(rt_session_prefill(session, ids + start, end - start, diag));
    }
    return GM_OK;
}

bool golden_generate(rt_session *session, const golden_file *file, const char *prompt, int parts, double error,
                     char *why, size_t why_bytes) {
    int64_t n = 0, steps = 0, count = 0;
    const int32_t *ids = golden_tensor(file, "ids", prompt, &n), *want = golden_tensor(file, "gen_ids", prompt, &steps);
    const float *margin = golden_tensor(file, "gen_margin", prompt, NULL);
    rt_sampling greedy = {.top_p = 1, .repeat_penalty = 1};
    rt_stop stop;
    gm_diag diag = {.quiet = true};
    if (!ids || !want || !margin)
        return snprintf(why, why_bytes, "the golden file has no ids, gen_ids or gen_margin"), false;
    int32_t *got = calloc((size_t)steps + 1, sizeof *got);
    gm_status status = prefill_in_parts(session, ids, n, parts, &diag);
    if (status == GM_OK)
        status = rt_session_generate(session, &greedy, NULL, 0, steps, NULL, NULL, got, &count, &stop, &diag);
    bool same = status == GM_OK && count == steps;
    if (!same)
        snprintf(why, why_bytes, "prefill in %d, %lld of %lld tokens: %s", parts, (long long)count, (long long)steps,
                 diag.message);
    for (int64_t i = 0; same && i < steps && (double)margin[i] >= 2 * error; i++) {
        same = got[i] == want[i];
        if (!same)
            snprintf(why, why_bytes, "prefill in %d: token %lld is %d instead of %d (margin %g)", parts, (long long)i,
                     got[i], want[i], (double)margin[i]);
    }
    free(got);
    return same;
}
