/* Reference outputs of a model: the tensors of a golden.safetensors (tests/data/README.md), and how they are
 * compared. */
#ifndef GM_TESTS_GOLDEN_H
#define GM_TESTS_GOLDEN_H

#include "frontend/driver.h"

enum { GOLDEN_PROMPTS = 16, GOLDEN_NAME = 32 };

typedef struct golden_file {
    uint8_t *bytes;
    size_t count, data; /* bytes of the file; where the tensors begin */
    struct cJSON *header;
    char prompts[GOLDEN_PROMPTS][GOLDEN_NAME]; /* the P of every "ids.P" */
    int prompt_count;
} golden_file;

/* False, with a line on standard error, when the file cannot be read. */
bool golden_open(const char *path, golden_file *out);
void golden_close(golden_file *file);
/* The tensor "kind.prompt" (or "kind" when prompt is NULL) of 4-byte elements; NULL: there is none. */
const void *golden_tensor(const golden_file *file, const char *kind, const char *prompt, int64_t *out_elems);

/* The largest difference seen so far, and where. */
typedef struct golden_error {
    double worst; /* NAN once a value was not finite */
    int64_t row, column;
    double got, want;
} golden_error;
void golden_compare(golden_error *error, int64_t row, int64_t column, double got, double want);

/* Score ids from the session's present state and compare rows first … of the scored ones with want[rows][vocab]. */
gm_status golden_score(rt_session *session, const int32_t *ids, int64_t n, const float *want, gm_diag *diag,
                       golden_error *error);

/* Greedy continuation after a prefill, ids against gen_ids.prompt up to the first step whose margin is below twice
 * `error`. parts: how many prefill calls the prompt is cut into. False with the reason in `why`. */
bool golden_generate(rt_session *session, const golden_file *file, const char *prompt, int parts, double error,
                     char *why, size_t why_bytes);

#endif
