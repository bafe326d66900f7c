/* Tokenizer under tokenizer.json rules: the reference encodings and decodings, and what the reader
 * refuses. */
#include "tokenizer_checks.h"

static void setup_json(void) {
    json_vocab(&vocab);
    index_vocab();
}

/* ---- reference lines ---- */

START_TEST(json_encode) {
    lines in = lines_open(DATA_DIR "encode.jsonl");
    int count = 0;
    for (cJSON *line; (line = lines_next(&in)) != NULL; cJSON_Delete(line), count++) {
        gm_string text = text_of(line, "text");
        rt_ids want = ids_of(line, "ids"), got = encode(text.data, text.length, false);
        assert_ids(&got, &want, text.data);
        gm_string decoded = decode(&got, false);
        gm_string expected = cJSON_HasObjectItem(line, "decoded") ? text_of(line, "decoded") : text;
        assert_text(&decoded, &expected);
        check_stream(&got);
        if (expected.data != text.data) gm_string_free(&expected);
        gm_string_free(&decoded);
        gm_string_free(&text);
        rt_ids_free(&want);
        rt_ids_free(&got);
    }
    ck_assert_int_eq(count, 519);
}
END_TEST

START_TEST(json_decode) {
    lines in = lines_open(DATA_DIR "decode.jsonl");
    int count = 0;
    for (cJSON *line; (line = lines_next(&in)) != NULL; cJSON_Delete(line), count++) {
        rt_ids ids = ids_of(line, "ids");
        const char *keys[] = {"text", "text_skip_special"};
        for (int skip = 0; skip < 2; skip++) {
            gm_string want = text_of(line, keys[skip]), got = decode(&ids, skip);
            assert_text(&got, &want);
            gm_string_free(&want);
            gm_string_free(&got);
        }
        check_stream(&ids);
        rt_ids_free(&ids);
    }
    ck_assert_int_eq(count, 79);
}
END_TEST

START_TEST(json_details) {
    ck_assert_uint_eq(vocab.count, 262145);
    ck_assert_int_eq(vocab.bos, 2);
    ck_assert_int_eq(vocab.eos, 1);
    ck_assert_int_eq(vocab.unk, 3);
    ck_assert_int_eq(vocab.pad, 0);
    ck_assert_int_eq(vocab.end_of_turn, 106);
    ck_assert(vocab.add_bos && !vocab.add_eos && vocab.json_rules);
    ck_assert_int_eq(rt_piece_id(tokenizer, "<start_of_turn>"), 105);
    ck_assert_int_eq(rt_piece_id(tokenizer, "\u2581the"), 506);
    ck_assert_int_eq(rt_piece_id(tokenizer, "no such piece"), -1);
    ck_assert_int_eq(rt_piece_id(tokenizer, ""), -1);
    CHECK_ENCODE("<bos>", false, 2);
    CHECK_ENCODE("a\xFF"
                 "b",
                 false, 236746, rt_piece_id(tokenizer, "\uFFFD"), 236763);
}
END_TEST

START_TEST(json_random_decode) {
    compare_decodings();
}
END_TEST

/* ---- small files of every age ---- */

/* One line under the vocabulary that is open. */
static void check_mini(const cJSON *line) {
    rt_ids want = ids_of(line, "ids");
    if (cJSON_HasObjectItem(line, "text")) {
        gm_string text = text_of(line, "text");
        rt_ids got = encode(text.data, text.length, false);
        assert_ids(&got, &want, text.data);
        rt_ids_free(&got);
        gm_string_free(&text);
    }
    const char *keys[] = {"decoded", "skip"};
    for (int skip = 0; skip < 2; skip++) {
        gm_string expected = text_of(line, keys[skip]), got = decode(&want, skip);
        assert_text(&got, &expected);
        gm_string_free(&expected);
        gm_string_free(&got);
    }
    check_stream(&want);
    rt_ids_free(&want);
}

/* Gemma 1 as published (no <0x09>, merges as strings, four added tokens, no pre_tokenizer), as saved today, and
 * with added tokens that have every flag; the lines are the reference library's. */
START_TEST(mini_files) {
    lines in = lines_open(DATA_DIR "mini_json.jsonl");
    char open[64] = "";
    int count = 0;
    for (cJSON *line; (line = lines_next(&in)) != NULL; cJSON_Delete(line), count++) {
        const char *name = cJSON_GetObjectItem(line, "file")->valuestring;
        if (strcmp(open, name) != 0) {
            char path[512];
            gm_diag diag = {0};
            if (open[0]) teardown();
            snprintf(open, sizeof open, "%s", name);
            snprintf(path, sizeof path, DATA_DIR "%s.json", name);
            ck_assert_msg(fe_tokenizer_json_open(path, &diag, &vocab) == GM_OK, "%s", diag.message);
            index_vocab();
            ck_assert(vocab.bos == 2 && vocab.eos == 1 && vocab.add_bos && !vocab.add_eos);
            ck_assert_int_eq(vocab.pieces[rt_piece_id(tokenizer, "\t")].type, RT_PIECE_NORMAL);
            ck_assert_int_eq(rt_piece_id(tokenizer, "<0x09>"), -1);
        }
        check_mini(line);
    }
    teardown();
    ck_assert_int_eq(count, 1198);
}
END_TEST

/* ---- refusals of tokenizer.json ---- */

static const char small_json[] =
    "{\"added_tokens\":[{\"id\":256,\"content\":\"<bos>\",\"single_word\":false,\"lstrip\":false,"
    "\"rstrip\":false,\"normalized\":false,\"special\":true}],"
    "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"},"
    "\"pre_tokenizer\":null,"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<bos>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
    "\"String\":"
    "\"\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},"
    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"fuse_unk\":true,"
    "\"byte_fallback\":true,\"ignore_merges\":false,\"vocab\":{@\"\u2581\":257,\"a\":258,"
    "\"\u2581a\":259,\"aa\":260},\"merges\":[[\"\u2581\",\"a\"],\"a a\"]}}";

/* The small file with one text replaced; @ stands for the byte pieces. */
static gm_status open_small(const char *from, const char *to, gm_diag *diag) {
    gm_string text = {0}, edited = {0};
    char path[256];
    const char *at = strchr(small_json, '@');
    gm_string_append(&text, small_json, (size_t)(at - small_json));
    for (int i = 0; i < 256; i++) gm_string_printf(&text, "\"<0x%02X>\":%d,", i, i);
    gm_string_append(&text, at + 1, strlen(at + 1));
    const char *found = strstr(text.data, from);
    ck_assert_msg(found != NULL, "%s", from);
    gm_string_append(&edited, text.data, (size_t)(found - text.data));
    gm_string_append(&edited, to, strlen(to));
    gm_string_append(&edited, found + strlen(from), strlen(found + strlen(from)));
    write_file(path, edited.data, edited.length);
    gm_status status = fe_tokenizer_json_open(path, diag, &vocab);
    if (diag->set) ck_assert_msg(strncmp(diag->message, path, strlen(path)) == 0, "%s", diag->message);
    unlink(path);
    gm_string_free(&text);
    gm_string_free(&edited);
    return status;
}

START_TEST(small_accepted) {
    gm_diag diag = {0};
    ck_assert_msg(open_small("", "", &diag) == GM_OK, "%s", diag.message);
    index_vocab();
    ck_assert_int_eq(vocab.bos, 256);
    ck_assert_int_eq(vocab.eos, -1);
    CHECK_ENCODE("aa a<bos>é", false, 260, 259, 256, 0xC3, 0xA9);
    teardown();
    ck_assert_msg(open_small("\"post_processor\":", "\"post_processor\":null,\"x\":", &diag) == GM_OK, "%s",
                  diag.message);
    ck_assert(vocab.add_bos && !vocab.add_eos);
    rt_vocab_free(&vocab);
    ck_assert_msg(open_small("\"normalizer\":",
                             "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Replace\","
                             "\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}]},\"x\":",
                             &diag) == GM_OK,
                  "%s", diag.message);
    rt_vocab_free(&vocab);
    ck_assert_msg(open_small("[\"\u2581\",\"a\"],\"a a\"", "", &diag) == GM_OK, "%s", diag.message);
    index_vocab();
    CHECK_ENCODE("aa a", false, 258, 258, 257, 258); /* no merges: not by score either */
    teardown();
}
END_TEST

#define ADDED(id, content, word, left, right, special)                                                                 \
    ",{\"id\":" #id ",\"content\":\"" content "\",\"single_word\":" word ",\"lstrip\":" left ",\"rstrip\":" right      \
    ",\"normalized\":false,\"special\":" special "}"

/* Texts may end in another piece than <eos>, and begin with none. */
START_TEST(small_template) {
    gm_diag diag = {0};
    ck_assert_msg(open_small("\"single\":[",
                             "\"single\":[{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"aa\"}}],\"x\":[",
                             &diag) == GM_OK,
                  "%s", diag.message);
    ck_assert(!vocab.add_bos && vocab.add_eos && vocab.eos == 260);
    rt_vocab_free(&vocab);
}
END_TEST

/* Where an added token may not stand, what it is spelled with is merged: from the vocabulary, to which an added token
 * belongs only if it is listed there. */
START_TEST(small_added) {
    gm_diag diag = {0};
    ck_assert_msg(open_small("\"special\":true}",
                             "\"special\":true}" ADDED(261, "\xF0\x9F\x99\x82", "true", "false", "false", "false")
                                 ADDED(258, "a", "true", "false", "false", "true"),
                             &diag) == GM_OK,
                  "%s", diag.message);
    index_vocab();
    CHECK_ENCODE("a\xF0\x9F\x99\x82", false, 258, 0xF0, 0x9F, 0x99, 0x82);
    CHECK_ENCODE("!\xF0\x9F\x99\x82", false, 0x21, 261);
    CHECK_ENCODE("ab", false, 258, 0x62);
    CHECK_ENCODE("aa", false, 260);
    teardown();
}
END_TEST

/* A blank that the token before takes along is no token of its own, if it looks for blanks on its left; as in HF. */
START_TEST(small_blanks) {
    gm_diag diag = {0};
    ck_assert_msg(open_small("\"special\":true}",
                             "\"special\":true}" ADDED(261, "<r>", "false", "false", "true", "false")
                                 ADDED(262, "\\t", "false", "true", "false", "false")
                                     ADDED(263, "\\n", "false", "false", "false", "false"),
                             &diag) == GM_OK,
                  "%s", diag.message);
    index_vocab();
    CHECK_ENCODE("<r>\ta", false, 261, 258);
    CHECK_ENCODE("\ta", false, 262, 258);
    CHECK_ENCODE("<r>\n", false, 261, 263);
    teardown();
}
END_TEST

START_TEST(small_refused) {
    static const char *edits[][3] = {
        {"\"BPE\"", "\"Unigram\"", "model.type: expected"},
        {"\"byte_fallback\":true", "\"byte_fallback\":false", "byte_fallback: expected true"},
        {"\"ignore_merges\":false", "\"ignore_merges\":true", "ignore_merges: expected false"},
        {"\"dropout\":null", "\"dropout\":0.1", "dropout: expected null"},
        {"\"pre_tokenizer\":null", "\"pre_tokenizer\":{\"type\":\"ByteLevel\"}", "pre_tokenizer: expected"},
        {"\"Replace\"", "\"NFKC\"", "normalizer: expected"},
        {"\"Fuse\"", "\"Strip\"", "decoder: expected"},
        {"\"lstrip\":false", "\"lstrip\":0", "lstrip: expected true or false"},
        {",\"normalized\":false", "", "normalized: expected true or false"},
        {"\"SpecialToken\":{\"id\":\"<bos>\"", "\"SpecialToken\":{\"id\":\"<cls>\"", "post_processor: expected"},
        {"\"id\":256,", "\"id\":255,", "expected one text per id"},
        {"\"id\":256,", "\"id\":256.5,", "expected an integer"},
        {"\"id\":256,", "\"id\":-1,", "expected an integer"},
        {"\"aa\":260", "\"aa\":262", "largest id + 1 is 263"},
        {"\"aa\":260", "\"aa\":\"260\"", "expected"},
        {"\"content\":\"<bos>\"", "\"content\":\"<cls>\"", "expected the <bos>"},
        {"\"<0x07>\":7", "\"<0x7>\":7", "expected a byte piece <0x07>"},
        {"\"<0x09>\":9", "\"<0x9>\":9", "expected a byte piece <0x09>"},
        {"\"<0x08>\":8", "\"\\b\":8", "expected a byte piece <0x08>"},
        {"\"a a\"", "\"a a a\"", "merge 1: expected a pair"},
        {"\"a a\"", "[\"a\"]", "merge 1: expected a pair"},
        {"\"a a\"", "17", "merge 1: expected a pair"},
        {"\"a a\"", "\"a b\"", "merge 1"},
        {"\"a a\"", "\"a aa\"", "merge 1: result"},
        {"\"a a\"", "\"a <0x41>\"", "no byte pieces"},
        {"\"merges\":", "\"mergers\":", "model.merges: expected an array"},
        {"\"vocab\":{", "\"vocab\":[],\"v\":{", "model.vocab: expected an object"},
    };
    for (size_t i = 0; i < GM_COUNT(edits); i++) {
        gm_diag diag = {0};
        ck_assert_msg(open_small(edits[i][0], edits[i][1], &diag) != GM_OK, "accepted: %s", edits[i][1]);
        ck_assert_msg(strstr(diag.message, edits[i][2]) != NULL, "%s: %s", edits[i][1], diag.message);
        ck_assert_uint_eq(vocab.count, 0);
    }
}
END_TEST

/* ---- the suite ---- */

int main(void) {
    Suite *suite = suite_create("tokenizer_json");
    TCase *json = add_case(suite, "tokenizer.json", setup_json, teardown);
    tcase_add_test(json, json_encode);
    tcase_add_test(json, json_decode);
    tcase_add_test(json, json_details);
    tcase_add_test(json, json_random_decode);
    TCase *small = add_case(suite, "small", NULL, NULL);
    tcase_add_test(small, mini_files);
    tcase_add_test(small, small_accepted);
    tcase_add_test(small, small_template);
    tcase_add_test(small, small_added);
    tcase_add_test(small, small_blanks);
    tcase_add_test(small, small_refused);
    return suite_run(suite);
}
