/* The SentencePiece tokenizer.model reader: files written here from GGUF vocabularies encode as
 * those do, what is not Gemma's kind is refused, damaged files never crash. */
#include "tokenizer_checks.h"

/* ---- writing protobuf ---- */

static void put_varint(gm_string *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) gm_string_append(out, &(char){(char)(value | 0x80)}, 1);
    gm_string_append(out, &(char){(char)value}, 1);
}

static void put_number(gm_string *out, uint32_t field, int64_t value) {
    put_varint(out, field << 3);
    put_varint(out, (uint64_t)value);
}

static void put_bytes(gm_string *out, uint32_t field, const char *data, size_t length) {
    put_varint(out, field << 3 | 2);
    put_varint(out, length);
    gm_string_append(out, data, length);
}

static void put_fixed(gm_string *out, uint32_t field, const void *data, size_t bytes) {
    put_varint(out, field << 3 | (bytes == 8 ? 1 : 5));
    gm_string_append(out, data, bytes);
}

/* Appends a message and empties it. */
static void put_message(gm_string *out, uint32_t field, gm_string *body) {
    put_bytes(out, field, body->data ? body->data : "", body->length);
    gm_string_free(body);
}

/* A type of 0 and a score of 0 are left out, as defaults are. */
static void put_piece(gm_string *out, const char *text, size_t length, float score, int type) {
    gm_string body = {0};
    put_bytes(&body, 1, text, length);
    if (score != 0) put_fixed(&body, 2, &score, 4);
    if (type) put_number(&body, 3, type);
    put_message(out, 1, &body);
}

typedef struct spec {
    int model_type, byte_fallback, suffix_blanks, unk, bos, eos, pad;
    int dummy_prefix, remove_blanks, escape; /* -1: left out */
    const char *name, *charsmap, *decoding_charsmap;
} spec;

static const spec gemma = {2, 1, -1, 3, 2, 1, 0, 0, 0, 1, "identity", "", NULL};

static void put_specs(gm_string *out, const spec *s) {
    gm_string body = {0};
    const int trainer[][2] = {{3, s->model_type}, {24, s->suffix_blanks}, {35, s->byte_fallback},
                              {40, s->unk},       {41, s->bos},           {42, s->eos}};
    put_bytes(&body, 1, "data.txt", 8); /* input: one of the fields that are skipped */
    put_fixed(&body, 10, &(float){0.9995f}, 4);
    for (size_t i = 0; i < GM_COUNT(trainer); i++)
        if (trainer[i][1] >= 0) put_number(&body, (uint32_t)trainer[i][0], trainer[i][1]);
    put_number(&body, 43, s->pad); /* negative numbers take ten bytes */
    put_message(out, 2, &body);
    if (s->name) put_bytes(&body, 1, s->name, strlen(s->name));
    if (s->charsmap) put_bytes(&body, 2, s->charsmap, strlen(s->charsmap));
    const int normalizer[] = {s->dummy_prefix, s->remove_blanks, s->escape};
    for (uint32_t i = 0; i < 3; i++)
        if (normalizer[i] >= 0) put_number(&body, 3 + i, normalizer[i]);
    put_message(out, 3, &body);
    if (s->decoding_charsmap) put_bytes(&body, 2, s->decoding_charsmap, strlen(s->decoding_charsmap));
    put_message(out, 5, &body);
    put_fixed(out, 1000, &(double){1}, 8);
}

/* A GGUF vocabulary as SentencePiece stores it: <unk> has its own type, blanks are U+2581. */
static void put_vocab(gm_string *out, const rt_vocab *from) {
    for (size_t id = 0; id < from->count; id++) {
        const rt_piece *piece = &from->pieces[id];
        bool unk = (int32_t)id == from->unk;
        int type = unk ? RT_PIECE_UNKNOWN : piece->type == RT_PIECE_NORMAL ? 0 : (int)piece->type;
        gm_string text = {0};
        for (uint32_t at = 0; at < piece->length; at++) {
            bool blank = piece->type == RT_PIECE_USER && piece->text[at] == ' ';
            gm_string_append(&text, blank ? "\u2581" : piece->text + at, blank ? 3 : 1);
        }
        put_piece(out, text.data, text.length, piece->score, type);
        gm_string_free(&text);
    }
}

/* ---- opening what was written ---- */

static gm_status open_bytes(const gm_string *file, gm_diag *diag, rt_vocab *out) {
    char path[256];
    write_file(path, file->data, file->length);
    gm_status status = fe_tokenizer_model_open(path, diag, out);
    unlink(path);
    return status;
}

static void expect_open(const gm_string *file) {
    gm_diag diag = {0};
    gm_status status = open_bytes(file, &diag, &vocab);
    ck_assert_msg(status == GM_OK, "%s", diag.message);
}

static void expect_refusal(const gm_string *file, gm_status wanted, const char *part) {
    gm_diag diag = {0};
    gm_status status = open_bytes(file, &diag, &vocab);
    ck_assert_msg(status == wanted, "%s: status %d: %s", part, status, diag.message);
    ck_assert_msg(strstr(diag.message, part) != NULL, "no \"%s\" in: %s", part, diag.message);
    ck_assert_msg(!strchr(diag.message, '\n'), "more than one line: %s", diag.message);
    ck_assert(vocab.pieces == NULL && vocab.count == 0);
}

static gm_string small_file(const spec *s) {
    gm_string file = {0};
    rt_vocab mini;
    mini_vocab(&mini);
    put_vocab(&file, &mini);
    put_specs(&file, s);
    rt_vocab_free(&mini);
    return file;
}

/* ---- the same encodings as the GGUF file's ---- */

static fe_model model; /* the GGUF file */
static rt_tokenizer *reference;

/* The tiny files spell user-defined blanks with U+2581; converters write spaces, which match as in
 * SentencePiece. */
static void space_blanks(rt_vocab *from) {
    for (size_t id = 0; id < from->count; id++) {
        rt_piece *piece = &from->pieces[id];
        if (piece->type != RT_PIECE_USER || piece->length % 3) continue;
        bool blank = true;
        for (uint32_t at = 0; at < piece->length; at += 3) blank = blank && memcmp(piece->text + at, "\u2581", 3) == 0;
        if (!blank) continue;
        piece->length /= 3;
        piece->text = &"                                "[32 - piece->length];
    }
}

static void open_both(const char *path) {
    gm_diag diag = {0};
    ck_assert_msg(fe_gguf_open(path, true, &diag, &model) == GM_OK, "%s", diag.message);
    space_blanks(&model.vocab);
    ck_assert_msg(rt_tokenizer_new(&model.vocab, &diag, &reference) == GM_OK, "%s", diag.message);
    gm_string file = {0};
    spec s = gemma;
    s.bos = model.vocab.bos, s.eos = model.vocab.eos, s.unk = model.vocab.unk;
    s.pad = model.vocab.pad;
    put_vocab(&file, &model.vocab);
    put_specs(&file, &s);
    expect_open(&file);
    gm_string_free(&file);
    index_vocab();
}

static void close_both(void) {
    rt_tokenizer_free(reference);
    fe_model_close(&model);
    teardown();
}

static void check_same(const char *text, size_t length) {
    for (int control = 0; control < 2; control++) {
        rt_ids want = {0}, got = encode(text, length, control);
        rt_encode(reference, text, length, control, &want);
        assert_ids(&got, &want, text);
        gm_string decoded = decode(&got, false), expected = {0};
        gm_string_append(&expected, "", 0);
        rt_decode(reference, got.data, got.count, false, &expected);
        assert_text(&decoded, &expected);
        check_stream(&got);
        gm_string_free(&decoded);
        gm_string_free(&expected);
        rt_ids_free(&want);
        rt_ids_free(&got);
    }
}

static void check_random(void) {
    static const char *parts[] = {"a",  " ",    "\u2581", "\n",   "\t",   "the",           "ing",
                                  "é",  "世",   "😀",      "<bos", "<",    "<end_of_turn>", "1",
                                  "\r", "\xFF", "\xE2",   "<s>",  "</s>", "<unk>",         "er"};
    for (int round = 0; round < 3000; round++) {
        gm_string text = {0};
        gm_string_append(&text, "", 0);
        for (uint32_t n = random_below(30); n > 0; n--) {
            const char *part = parts[random_below(GM_COUNT(parts))];
            gm_string_append(&text, part, strlen(part));
        }
        check_same(text.data, text.length);
        gm_string_free(&text);
    }
}

/* Every text of the reference lines; the ids too, where the file says what they are. */
static void check_lines(const char *name, bool with_ids) {
    lines in = lines_open(name);
    for (cJSON *line; (line = lines_next(&in)) != NULL; cJSON_Delete(line)) {
        if (!cJSON_HasObjectItem(line, "text")) continue;
        gm_string text = text_of(line, "text");
        check_same(text.data, text.length);
        bool other = memmem(text.data, text.length, "<image_soft_token>", 18) ||
                     !strcmp(text.data, "  two  spaces"); /* of llama.cpp and U+2581, see above */
        if (with_ids && !other) {
            rt_ids want = ids_of(line, "ids"), got = encode(text.data, text.length, true);
            assert_ids(&got, &want, text.data);
            rt_ids_free(&want);
            rt_ids_free(&got);
        }
        gm_string_free(&text);
    }
}

static void check_vocab(void) {
    ck_assert_uint_eq(vocab.count, model.vocab.count);
    ck_assert(vocab.bos == model.vocab.bos && vocab.eos == model.vocab.eos);
    ck_assert(vocab.unk == model.vocab.unk && vocab.pad == model.vocab.pad);
    ck_assert_int_eq(vocab.end_of_turn, model.vocab.end_of_turn);
    ck_assert(vocab.add_bos && !vocab.add_eos && !vocab.json_rules && !vocab.merges);
    for (size_t id = 0; id < vocab.count; id++)
        ck_assert_float_eq(vocab.pieces[id].score, model.vocab.pieces[id].score);
}

START_TEST(tiny_files) {
    static const char *names[] = {"gemma1-tiny-f16", "gemma2-tiny-q8_0", "gemma3-tiny-q8_0"};
    for (size_t i = 0; i < GM_COUNT(names); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/gguf/%s.gguf", GM_TEST_DATA, names[i]);
        open_both(path);
        check_vocab();
        check_lines(DATA_DIR "mini_spm.jsonl", true);
        check_lines(DATA_DIR "encode.jsonl", false);
        check_lines(DATA_DIR "decode.jsonl", false);
        check_random();
        close_both();
    }
}
END_TEST

START_TEST(real_vocabulary) {
    open_both(getenv("GEMMAC_270M"));
    check_vocab();
    check_lines(DATA_DIR "encode.jsonl", true);
    check_lines(DATA_DIR "decode.jsonl", false);
    check_lines(DATA_DIR "mini_spm.jsonl", false);
    check_random();
    CHECK_ENCODE("\u2581 \u2581", false, 139);
    CHECK_ENCODE("a\tb", false, 236746, 255968, 236763);
    CHECK_ENCODE("</s>", false, 212);
    close_both();
}
END_TEST

/* ---- details ---- */

START_TEST(details) {
    gm_string file = {0};
    rt_vocab mini;
    mini_vocab(&mini);
    put_specs(&file, &gemma); /* before the pieces: the order is free */
    put_vocab(&file, &mini);
    put_piece(&file, "<mask>", 6, -1, RT_PIECE_USER);
    put_specs(&file, &gemma); /* again: the last value counts, texts and lists stay */
    expect_open(&file);
    index_vocab();
    ck_assert_uint_eq(vocab.count, mini.count + 1);
    ck_assert_int_eq(vocab.end_of_turn, 261);
    ck_assert_int_eq(vocab.pieces[3].type, RT_PIECE_UNKNOWN);
    CHECK_ENCODE("\t", false, 4 + 9); /* no piece for a tab: the byte */
    CHECK_ENCODE("<mask>", false, (int32_t)mini.count);
    CHECK_ENCODE("  \u2581 ", false, 263, 263); /* a space and U+2581 are one */
    CHECK_ENCODE("\u2581 the", false, 263, 279, 265);
    teardown();
    rt_vocab_free(&mini);
    gm_string_free(&file);
    spec s = gemma; /* what may be missing */
    s.pad = -1, s.name = NULL, s.charsmap = NULL, s.escape = -1;
    file = small_file(&s);
    expect_open(&file);
    ck_assert_int_eq(vocab.pad, -1);
    rt_vocab_free(&vocab);
    gm_string_free(&file);
}
END_TEST

/* ---- refusals ---- */

START_TEST(other_kinds) {
    static const struct {
        size_t at; /* the int of spec that differs */
        int value;
        gm_status status;
        const char *part;
    } cases[] = {
        {offsetof(spec, model_type), 1, GM_UNSUPPORTED, "trainer_spec.model_type: expected 2 (BPE), found 1"},
        {offsetof(spec, model_type), -1, GM_UNSUPPORTED, "trainer_spec.model_type: expected 2 (BPE), found 1"},
        {offsetof(spec, byte_fallback), 0, GM_UNSUPPORTED, "trainer_spec.byte_fallback: expected true"},
        {offsetof(spec, byte_fallback), -1, GM_UNSUPPORTED, "trainer_spec.byte_fallback: expected true"},
        {offsetof(spec, suffix_blanks), 1, GM_UNSUPPORTED, "trainer_spec.treat_whitespace_as_suffix: expected false"},
        {offsetof(spec, dummy_prefix), 1, GM_UNSUPPORTED, "normalizer_spec.add_dummy_prefix: expected false"},
        {offsetof(spec, dummy_prefix), -1, GM_UNSUPPORTED, "normalizer_spec.add_dummy_prefix: expected false"},
        {offsetof(spec, remove_blanks), 1, GM_UNSUPPORTED, "normalizer_spec.remove_extra_whitespaces: expected false"},
        {offsetof(spec, remove_blanks), -1, GM_UNSUPPORTED, "normalizer_spec.remove_extra_whitespaces: expected false"},
        {offsetof(spec, escape), 0, GM_UNSUPPORTED, "normalizer_spec.escape_whitespaces: expected true"},
        {offsetof(spec, bos), 288, GM_FORMAT, "trainer_spec.bos_id: expected 0..287, found 288"},
        {offsetof(spec, eos), 300, GM_FORMAT, "trainer_spec.eos_id: expected 0..287, found 300"},
        {offsetof(spec, unk), 20, GM_FORMAT,
         "trainer_spec.unk_id: expected a piece of type 2, 3 or 4, found 20 of type 6"},
        {offsetof(spec, pad), 280, GM_FORMAT, "trainer_spec.pad_id: expected a piece of type 2"},
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        spec s = gemma;
        memcpy((char *)&s + cases[i].at, &cases[i].value, sizeof(int));
        gm_string file = small_file(&s);
        expect_refusal(&file, cases[i].status, cases[i].part);
        gm_string_free(&file);
    }
}
END_TEST

START_TEST(other_normalizers) {
    static const struct {
        size_t at; /* the text of spec that differs */
        const char *value, *part;
    } cases[] = {
        {offsetof(spec, name), "nmt_nfkc", "normalizer_spec.name: expected \"identity\""},
        {offsetof(spec, name), "id\nentity", "normalizer_spec.name: expected \"identity\""},
        {offsetof(spec, charsmap), "abc", "normalizer_spec.precompiled_charsmap: expected no bytes, found 3"},
        {offsetof(spec, decoding_charsmap), "abcd",
         "denormalizer_spec.precompiled_charsmap: expected no bytes, found 4"},
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        spec s = gemma;
        memcpy((char *)&s + cases[i].at, &cases[i].value, sizeof cases[i].value);
        gm_string file = small_file(&s);
        expect_refusal(&file, GM_UNSUPPORTED, cases[i].part);
        gm_string_free(&file);
    }
}
END_TEST

/* One more field or piece after a good file. */
START_TEST(bad_fields) {
#define CASE(bytes, part)                                                                                              \
    { bytes, sizeof bytes - 1, part }
    static const struct {
        const char *bytes;
        size_t length;
        const char *part;
    } cases[] = {
        CASE("\x80", "expected a whole varint"),
        CASE("\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", "expected a whole varint of at most"),
        CASE("\x02\x00", "expected a field number 1 to 2^29-1, found 0"),
        CASE("\x80\x80\x80\x80\x10\x00", "expected a field number 1 to 2^29-1"),
        CASE("\x0B", "field 1: expected wire type 0, 1, 2 or 5, found 3"),
        CASE("\x22\x05"
             "abcd",
             "field 4: expected at most 4 bytes, found 5"),
        CASE("\x22\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
             "field 4: expected at most 0 bytes, found 18446744073709551615"),
        CASE("\x29\x00", "field 5: expected at most 1 bytes, found 8"),
        CASE("\x08\x01", "pieces: expected wire type 2, found 0"),
        CASE("\x10\x01", "trainer_spec: expected wire type 2, found 0"),
        CASE("\x18\x01", "normalizer_spec: expected wire type 2, found 0"),
        CASE("\x28\x01", "denormalizer_spec: expected wire type 2, found 0"),
        CASE("\x12\x02\x1A\x00", "trainer_spec.model_type: expected wire type 0, found 2"),
        CASE("\x1A\x02\x08\x01", "normalizer_spec.name: expected wire type 2, found 0"),
        CASE("\x0A\x02\x08\x01", "pieces.piece: expected wire type 2, found 0"),
        CASE("\x0A\x02\x10\x01", "pieces.score: expected wire type 5, found 0"),
        CASE("\x0A\x02\x1A\x00", "pieces.type: expected wire type 0, found 2"),
        CASE("\x0A\x00", "piece 288: expected a text of 1 to 16777215 bytes"),
        CASE("\x0A\x05\x0A\x01x\x18\x07", "piece 288: expected a type 1 to 6"),
        CASE("\x0A\x08\x0A\x01x\x15\x00\x00\x80\x7F", "piece 288: expected a type 1 to 6 and a"),
        CASE("\x0A\x0A\x0A\x06<0x4g>\x18\x06", "byte piece 288: expected one each"),
        CASE("\x0A\x0A\x0A\x06<0x41>\x18\x06", "byte piece 288: expected one each"),
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        gm_string file = small_file(&gemma);
        gm_string_append(&file, cases[i].bytes, cases[i].length);
        expect_refusal(&file, GM_FORMAT, cases[i].part);
        gm_string_free(&file);
    }
}
END_TEST

START_TEST(bad_files) {
    gm_diag diag = {0};
    ck_assert_int_eq(fe_tokenizer_model_open("/nowhere/tokenizer.model", &diag, &vocab), GM_IO);
    ck_assert(strstr(diag.message, "/nowhere/tokenizer.model: No such file"));
    gm_string file = {0};
    gm_string_append(&file, "", 0);
    expect_refusal(&file, GM_FORMAT, "expected 1 to 16777216 pieces, found 0");
    put_specs(&file, &gemma);
    expect_refusal(&file, GM_FORMAT, "expected 1 to 16777216 pieces, found 0");
    put_piece(&file, "a", 1, 0, 0);
    expect_refusal(&file, GM_FORMAT, "expected a byte piece <0x00>");
    gm_string_free(&file);
}
END_TEST

/* ---- damaged files ---- */

/* Whatever the bytes are: a vocabulary that can be used, or one line. */
static void survive(const gm_string *file) {
    gm_diag diag = {.quiet = true};
    gm_status status = open_bytes(file, &diag, &vocab);
    if (status != GM_OK) {
        ck_assert(diag.message[0] && !strchr(diag.message, '\n') && !vocab.pieces);
        return;
    }
    if (rt_tokenizer_new(&vocab, &diag, &tokenizer) != GM_OK) {
        rt_vocab_free(&vocab);
        return;
    }
    rt_ids ids = encode("the and  \u2581<end_of_turn>\n\n\t😀", 33, true);
    gm_string text = decode(&ids, false);
    gm_string_free(&text);
    rt_ids_free(&ids);
    teardown();
}

START_TEST(truncations) {
    gm_string file = small_file(&gemma);
    for (size_t whole = file.length; file.length-- > 0;) {
        ck_assert_uint_lt(file.length, whole);
        survive(&file);
    }
    gm_string_free(&file);
}
END_TEST

START_TEST(byte_flips) {
    gm_string file = small_file(&gemma), damaged = {0};
    random_state = 20;
    for (int round = 0; round < 5000; round++) {
        damaged.length = 0;
        gm_string_append(&damaged, file.data, file.length);
        for (uint32_t n = 1 + random_below(3); n > 0; n--)
            damaged.data[random_below((uint32_t)file.length)] ^= (char)(1 + random_below(255));
        survive(&damaged);
    }
    gm_string_free(&damaged);
    gm_string_free(&file);
}
END_TEST

/* ---- the suite ---- */

int main(void) {
    Suite *suite = suite_create("tokenizer_model");
    TCase *tcase = add_case(suite, "small", NULL, NULL);
    tcase_add_test(tcase, tiny_files);
    tcase_add_test(tcase, details);
    tcase_add_test(tcase, other_kinds);
    tcase_add_test(tcase, other_normalizers);
    tcase_add_test(tcase, bad_fields);
    tcase_add_test(tcase, bad_files);
    tcase_add_test(tcase, truncations);
    tcase_add_test(tcase, byte_flips);
    if (getenv("GEMMAC_270M")) tcase_add_test(tcase, real_vocabulary);
    else printf("skipped: the test of the 270M vocabulary (GEMMAC_270M is not set)\n");
    return suite_run(suite);
}
