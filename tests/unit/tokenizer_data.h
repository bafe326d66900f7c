/* What the tokenizer and chat suites share: the reference lines and the vocabularies they are for.
 */
#ifndef GM_TESTS_TOKENIZER_DATA_H
#define GM_TESTS_TOKENIZER_DATA_H

#include <check.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/model.h"
#include "runtime/tokenizer.h"

#define DATA_DIR GM_TEST_DATA "/tokenizer/"

/* ---- JSON lines ---- */

typedef struct lines {
    FILE *file;
    char *line;
    size_t capacity;
} lines;

static inline lines lines_open(const char *path) {
    lines in = {.file = fopen(path, "r")};
    ck_assert_msg(in.file != NULL, "cannot open %s", path);
    return in;
}

/* The next line's object, NULL at the end. cJSON strings cannot hold NUL, so U+F8FF takes its place
 * until text_of puts it back. */
static inline cJSON *lines_next(lines *in) {
    if (getline(&in->line, &in->capacity, in->file) <= 0) {
        fclose(in->file);
        free(in->line);
        return NULL;
    }
    for (char *at = in->line; (at = strstr(at, "\\u0000")) != NULL;) memcpy(at, "\\uf8ff", 6);
    cJSON *object = cJSON_Parse(in->line);
    ck_assert_ptr_nonnull(object);
    return object;
}

static inline gm_string text_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    ck_assert(cJSON_IsString(item));
    gm_string text = {0};
    gm_string_append(&text, "", 0);
    for (const char *at = item->valuestring; *at;) {
        bool nul = strncmp(at, "\xEF\xA3\xBF", 3) == 0;
        gm_string_append(&text, nul ? "" : at, 1);
        at += nul ? 3 : 1;
    }
    return text;
}

static inline rt_ids ids_of(const cJSON *object, const char *key) {
    const cJSON *item;
    rt_ids ids = {0};
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(object, key)) rt_ids_push(&ids, item->valueint);
    return ids;
}

static inline bool same_ids(const rt_ids *a, const rt_ids *b) {
    return a->count == b->count && (a->count == 0 || memcmp(a->data, b->data, a->count * 4) == 0);
}

static inline gm_string ids_text(const rt_ids *ids) {
    gm_string text = {0};
    gm_string_append(&text, "", 0);
    for (size_t i = 0; i < ids->count; i++) gm_string_printf(&text, "%s%d", i ? " " : "", ids->data[i]);
    return text;
}

static inline void assert_ids(const rt_ids *got, const rt_ids *want, const char *text) {
    if (same_ids(got, want)) return;
    gm_string got_text = ids_text(got), want_text = ids_text(want);
    ck_abort_msg("\"%.200s\": got [%.400s], expected [%.400s]", text, got_text.data, want_text.data);
}

/* ---- vocabularies ---- */

static inline int32_t vocab_add(rt_vocab *vocab, const char *text, rt_piece_type type, float score) {
    rt_piece *piece = &vocab->pieces[vocab->count];
    *piece = (rt_piece){
        .text = gm_arena_strdup(&vocab->arena, text), .length = (uint32_t)strlen(text), .score = score, .type = type};
    return (int32_t)vocab->count++;
}

/* <pad> <eos> <bos> <unk>, then the 256 byte pieces; room for `most` pieces. */
static inline void vocab_begin(rt_vocab *vocab, size_t most) {
    *vocab = (rt_vocab){.bos = 2, .eos = 1, .unk = 3, .pad = 0, .end_of_turn = -1, .add_bos = true};
    vocab->pieces = GM_NEW_ARRAY(&vocab->arena, rt_piece, most);
    const char *controls[] = {"<pad>", "<eos>", "<bos>", "<unk>"};
    for (int i = 0; i < 4; i++) vocab_add(vocab, controls[i], RT_PIECE_CONTROL, -1000);
    for (int i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        vocab_add(vocab, text, RT_PIECE_BYTE, 0);
    }
}

/* The vocabulary of the small GGUF files, for mini_spm.jsonl. */
static inline void mini_vocab(rt_vocab *vocab) {
    static const char *merged[] = {"\u2581t", "he",        "\u2581a", "in",  "er", "\u2581the", "an", "on",
                                   "nd",      "\u2581and", "th",      "ing", "é",  "\u2581",    "e",  "t",
                                   "a",       "h",         "n",       "i",   "o",  "s",         "r",  "d"};
    vocab_begin(vocab, 300);
    vocab_add(vocab, "<start_of_turn>", RT_PIECE_CONTROL, -1000);
    vocab->end_of_turn = vocab_add(vocab, "<end_of_turn>", RT_PIECE_CONTROL, -1000);
    vocab_add(vocab, "\n\n", RT_PIECE_USER, -1000);
    vocab_add(vocab, "\u2581\u2581", RT_PIECE_USER, -1000);
    for (size_t i = 0; i < GM_COUNT(merged); i++) vocab_add(vocab, merged[i], RT_PIECE_NORMAL, -(float)i);
}

/* A new temporary file, whose name is written to path; the caller unlinks it. */
static inline int temporary_file(char path[256]) {
    const char *folder = getenv("TMPDIR");
    snprintf(path, 256, "%s/gemmac-test-XXXXXX", folder && *folder ? folder : P_tmpdir);
    int descriptor = mkstemp(path);
    ck_assert_int_ge(descriptor, 0);
    return descriptor;
}

static inline void write_file(char path[256], const char *text, size_t length) {
    int descriptor = temporary_file(path);
    ck_assert_int_eq(write(descriptor, text, length), (ssize_t)length);
    close(descriptor);
}

/* Unpacks tests/data/tokenizer/tokenizer.json.xz and reads it. */
static inline void json_vocab(rt_vocab *vocab) {
    char path[256], command[1024];
    close(temporary_file(path));
    snprintf(command, sizeof command, "xz -dc '%stokenizer.json.xz' >'%s'", DATA_DIR, path);
    ck_assert_msg(system(command) == 0, "%s", command);
    gm_diag diag = {0};
    gm_status status = fe_tokenizer_json_open(path, &diag, vocab);
    unlink(path);
    ck_assert_msg(status == GM_OK, "%s", diag.message);
}

#endif
