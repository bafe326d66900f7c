/* The tokenizer suites' checks: encoding, decoding and streaming of one vocabulary, decoding
 * against a naive oracle, the frame of a suite. */
#ifndef GM_TESTS_TOKENIZER_CHECKS_H
#define GM_TESTS_TOKENIZER_CHECKS_H

#include "tokenizer_data.h"
#include "tests/unit/suite.h"

/* The vocabulary under test. */
static rt_vocab vocab;
static rt_tokenizer *tokenizer;
static gm_string index_bytes; /* the tokenizer's */

/* Index the vocabulary, write the index, open what was written. */
static inline void index_vocab(void) {
    gm_diag diag = {0};
    rt_tokenizer *made;
    ck_assert_msg(rt_tokenizer_new(&vocab, &diag, &made) == GM_OK, "%s", diag.message);
    gm_string_free(&index_bytes);
    rt_tokenizer_write(made, &index_bytes);
    rt_tokenizer_free(made);
    tokenizer = rt_tokenizer_open(&vocab, index_bytes.data, index_bytes.length);
    ck_assert_ptr_nonnull(tokenizer);
}

static inline void teardown(void) {
    rt_tokenizer_free(tokenizer);
    gm_string_free(&index_bytes);
    rt_vocab_free(&vocab);
}

static inline rt_ids encode(const char *text, size_t length, bool parse_control) {
    rt_ids ids = {0};
    rt_encode(tokenizer, text, length, parse_control, &ids);
    return ids;
}

static inline void check_encode(const char *text, bool parse_control, size_t count, const int32_t *expected) {
    rt_ids want = {.count = count, .data = (int32_t *)expected};
    rt_ids got = encode(text, strlen(text), parse_control);
    assert_ids(&got, &want, text);
    rt_ids_free(&got);
}
#define CHECK_ENCODE(text, parse_control, ...)                                                                         \
    check_encode(text, parse_control, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (int32_t[]){__VA_ARGS__})

static inline gm_string decode(const rt_ids *ids, bool skip_control) {
    gm_string text = {0};
    gm_string_append(&text, "", 0);
    rt_decode(tokenizer, ids->data, ids->count, skip_control, &text);
    return text;
}

static inline void assert_text(const gm_string *got, const gm_string *want) {
    ck_assert_msg(got->length == want->length && memcmp(got->data, want->data, got->length) == 0,
                  "got \"%.300s\", expected \"%.300s\"", got->data, want->data);
}

/* Every prefix of the stream is whole characters, and the sum is what rt_decode gives. */
static inline void check_stream(const rt_ids *ids) {
    gm_string want = decode(ids, true), got = {0};
    rt_stream stream = {0};
    gm_string_append(&got, "", 0);
    for (size_t i = 0; i < ids->count; i++) {
        size_t before = got.length;
        rt_stream_push(tokenizer, &stream, ids->data[i], &got);
        if (before < got.length) ck_assert_int_ne((uint8_t)got.data[before] & 0xC0, 0x80);
        ck_assert_uint_le(got.length, want.length);
    }
    rt_stream_finish(tokenizer, &stream, &got);
    assert_text(&got, &want);
    ck_assert_ptr_null(stream.pending.data);
    gm_string_free(&got);
    gm_string_free(&want);
}

/* ---- decoding against a naive oracle ---- */

static uint64_t random_state = 1;

static inline uint32_t random_below(uint32_t limit) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % limit);
}

/* Length of the character at text by the table of well-formed sequences; 0: none. */
static inline size_t character_length(const uint8_t *t, size_t n) {
    if (n >= 1 && t[0] < 0x80) return 1;
    size_t size = t[0] >= 0xF0 ? 4 : t[0] >= 0xE0 ? 3 : t[0] >= 0xC0 ? 2 : 0;
    if (size == 0 || t[0] >= 0xF8 || n < size) return 0;
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t point = t[0] & (0x7F >> size);
    for (size_t i = 1; i < size; i++) {
        if ((t[i] & 0xC0) != 0x80) return 0;
        point = point << 6 | (t[i] & 0x3F);
    }
    if (point < lowest[size] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return 0;
    return size;
}

static inline void naive_flush(gm_string *run, gm_string *out) {
    const uint8_t *bytes = (const uint8_t *)run->data;
    bool valid = true;
    for (size_t at = 0, size; at < run->length && valid; at += size)
        valid = (size = character_length(bytes + at, run->length - at)) > 0;
    for (size_t at = 0; at < run->length;) {
        size_t size = vocab.json_rules && !valid ? 0 : character_length(bytes + at, run->length - at);
        gm_string_append(out, size ? run->data + at : "\uFFFD", size ? size : 3);
        at += size ? size : 1;
    }
    run->length = 0;
}

static inline gm_string naive_decode(const rt_ids *ids, bool skip_control) {
    gm_string out = {0}, run = {0};
    gm_string_append(&out, "", 0);
    gm_string_append(&run, "", 0);
    for (size_t i = 0; i < ids->count; i++) {
        bool known = ids->data[i] >= 0 && (size_t)ids->data[i] < vocab.count;
        const rt_piece *piece = known ? &vocab.pieces[ids->data[i]] : NULL;
        bool silent = !known || (skip_control && piece->type == RT_PIECE_CONTROL);
        if (silent && vocab.json_rules) continue;
        if (!silent && piece->type == RT_PIECE_BYTE) {
            char byte = (char)strtol((char[]){piece->text[3], piece->text[4], 0}, NULL, 16);
            gm_string_append(&run, &byte, 1);
            continue;
        }
        naive_flush(&run, &out);
        for (uint32_t at = 0; !silent && at < piece->length;) {
            bool blank = piece->length - at >= 3 && memcmp(piece->text + at, "\u2581", 3) == 0;
            gm_string_append(&out, blank ? " " : piece->text + at, 1);
            at += blank ? 3 : 1;
        }
    }
    naive_flush(&run, &out);
    gm_string_free(&run);
    return out;
}

static inline void random_ids(rt_ids *ids) {
    ids->count = 0;
    int32_t first_byte = rt_piece_id(tokenizer, "<0x00>");
    for (uint32_t n = random_below(24); n > 0; n--) {
        static const uint8_t likely[] = {0xE2, 0x80, 0x99, 0xF0, 0x9F, 0x98, 0xC3, 0xA9, 0xED, 0xA0, 0x41};
        uint32_t kind = random_below(10);
        if (kind < 6) rt_ids_push(ids, first_byte + likely[random_below(GM_COUNT(likely))]);
        else if (kind < 8) rt_ids_push(ids, first_byte + (int32_t)random_below(256));
        else if (kind < 9) rt_ids_push(ids, (int32_t)random_below((uint32_t)vocab.count));
        else rt_ids_push(ids, (int32_t)random_below(8) - 2);
    }
}

static inline void compare_decodings(void) {
    rt_ids ids = {0};
    for (int round = 0; round < 20000; round++) {
        random_ids(&ids);
        for (int skip = 0; skip < 2; skip++) {
            gm_string want = naive_decode(&ids, skip), got = decode(&ids, skip);
            assert_text(&got, &want);
            gm_string_free(&want);
            gm_string_free(&got);
        }
        check_stream(&ids);
    }
    rt_ids_free(&ids);
}

/* ---- the suite ---- */

static inline TCase *add_case(Suite *suite, const char *name, SFun setup, SFun end) {
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 120);
    if (setup) tcase_add_unchecked_fixture(tcase, setup, end);
    suite_add_tcase(suite, tcase);
    return tcase;
}

#endif
