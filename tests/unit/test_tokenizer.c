/* Tokenizer under SentencePiece rules: reference lines, comparison with naive oracles, piece types.
 */
#include "tokenizer_checks.h"

static void setup_mini(void) {
    mini_vocab(&vocab);
    index_vocab();
}

/* ---- encoding against a naive oracle ---- */

typedef struct stretch {
    size_t start, length;
    int32_t frozen; /* the piece it was cut out as, -1: none */
} stretch;

static int32_t naive_find(const char *text, size_t length, bool user_only) {
    for (size_t id = 0; id < vocab.count; id++) {
        const rt_piece *piece = &vocab.pieces[id];
        bool fits = piece->type == RT_PIECE_USER || (!user_only && piece->type == RT_PIECE_NORMAL);
        if (fits && piece->length == length && memcmp(piece->text, text, length) == 0) return (int32_t)id;
    }
    return -1;
}

/* Rank of merging two stretches, smaller first; 1e300: they do not merge. */
static double naive_rank(const char *text, stretch a, stretch b) {
    if (a.frozen >= 0 || b.frozen >= 0) return 1e300;
    int32_t id = naive_find(text + a.start, a.length + b.length, false);
    if (!vocab.merges) return id < 0 ? 1e300 : -vocab.pieces[id].score;
    int32_t left = naive_find(text + a.start, a.length, false);
    int32_t right = naive_find(text + b.start, b.length, false);
    for (size_t rank = 0; rank < vocab.merge_count; rank++)
        if (vocab.merges[rank].left == left && vocab.merges[rank].right == right) return (double)rank;
    return 1e300;
}

/* Valid text without spaces, whose user pieces have none either, in quadratic time. */
static rt_ids naive_encode(const char *text, size_t length) {
    stretch *list = calloc(length + 1, sizeof *list);
    size_t count = 0;
    for (size_t at = 0; at < length; at += list[count++].length) {
        list[count] = (stretch){at, character_length((const uint8_t *)text + at, length - at), -1};
        for (size_t longest = length - at; longest > 0; longest--) {
            int32_t id = naive_find(text + at, longest, true);
            if (id < 0) continue;
            list[count] = (stretch){at, longest, id};
            break;
        }
    }
    while (true) {
        size_t best = 0;
        double best_rank = 1e300;
        for (size_t i = 0; i + 1 < count; i++) {
            double rank = naive_rank(text, list[i], list[i + 1]);
            if (rank < best_rank) best_rank = rank, best = i;
        }
        if (best_rank == 1e300) break;
        list[best].length += list[best + 1].length;
        memmove(&list[best + 1], &list[best + 2], (--count - best - 1) * sizeof *list);
    }
    rt_ids ids = {0};
    for (size_t i = 0; i < count; i++) {
        int32_t id = list[i].frozen >= 0 ? list[i].frozen : naive_find(text + list[i].start, list[i].length, false);
        if (id >= 0) rt_ids_push(&ids, id);
        for (size_t k = 0; id < 0 && k < list[i].length; k++) rt_ids_push(&ids, 4 + (uint8_t)text[list[i].start + k]);
    }
    free(list);
    return ids;
}

/* A vocabulary of random pieces over a few characters, some of which are no pieces themselves. */
static const char *alphabet[] = {"a", "b", "c", "é", "\u2581", "世", "😀"};

static void random_vocab(bool explicit_merges) {
    vocab_begin(&vocab, 400);
    char text[64];
    for (int i = 0; i < 60; i++) {
        int length = i < 5 ? 1 : 1 + (int)random_below(4);
        text[0] = '\0';
        for (int k = 0; k < length; k++) strcat(text, alphabet[i < 5 ? (uint32_t)i : random_below(GM_COUNT(alphabet))]);
        if (naive_find(text, strlen(text), false) >= 0) continue;
        bool user = random_below(8) == 0;
        float below = (float)random_below(12), zero = random_below(2) ? -0.0f : 0.0f; /* one score */
        vocab_add(&vocab, text, user ? RT_PIECE_USER : RT_PIECE_NORMAL, below > 0 ? -below : zero);
    }
    if (!explicit_merges) return;
    vocab.json_rules = true;
    vocab.merges = GM_NEW_ARRAY(&vocab.arena, rt_merge, 400);
    for (size_t id = 260; id < vocab.count && vocab.merge_count < 350; id++) {
        const rt_piece *piece = &vocab.pieces[id];
        for (uint32_t at = 1; at < piece->length; at++) {
            int32_t left = naive_find(piece->text, at, false);
            int32_t right = naive_find(piece->text + at, piece->length - at, false);
            if (left < 0 || right < 0 || random_below(5) == 0) continue;
            rt_merge *to = &vocab.merges[vocab.merge_count++];
            rt_merge *swap = &vocab.merges[random_below((uint32_t)vocab.merge_count)];
            *to = *swap;
            *swap = (rt_merge){left, right, (int32_t)id};
        }
    }
}

static void compare_random(bool explicit_merges) {
    for (int round = 0; round < 150; round++) {
        random_vocab(explicit_merges);
        index_vocab();
        for (int i = 0; i < 20; i++) {
            gm_string text = {0};
            gm_string_append(&text, "", 0);
            for (uint32_t n = random_below(40); n > 0; n--) {
                const char *piece = alphabet[random_below(GM_COUNT(alphabet))];
                gm_string_append(&text, piece, strlen(piece));
            }
            rt_ids want = naive_encode(text.data, text.length);
            rt_ids got = encode(text.data, text.length, false);
            assert_ids(&got, &want, text.data);
            rt_ids_free(&want);
            rt_ids_free(&got);
            gm_string_free(&text);
        }
        teardown();
    }
}

START_TEST(random_scores) {
    compare_random(false);
}
END_TEST

START_TEST(random_merges) {
    compare_random(true);
}
END_TEST

/* ---- the small vocabulary ---- */

START_TEST(mini_encode) {
    lines in = lines_open(DATA_DIR "mini_spm.jsonl");
    int count = 0;
    for (cJSON *line; (line = lines_next(&in)) != NULL; cJSON_Delete(line), count++) {
        gm_string text = text_of(line, "text");
        rt_ids want = ids_of(line, "ids"), got = encode(text.data, text.length, true);
        assert_ids(&got, &want, text.data);
        gm_string decoded = decode(&got, false);
        assert_text(&decoded, &text);
        check_stream(&got);
        gm_string_free(&decoded);
        gm_string_free(&text);
        rt_ids_free(&want);
        rt_ids_free(&got);
    }
    ck_assert_int_eq(count, 25);
}
END_TEST

START_TEST(mini_control) {
    /* Control pieces come from text only on request. */
    CHECK_ENCODE("<bos>", false, 64, 102, 280 + 4, 285, 66);
    CHECK_ENCODE("<bos>", true, 2);
    CHECK_ENCODE("\n\n", false, 262);
    gm_string text = {0}, want = {0};
    gm_string_append(&want, "the", 3);
    rt_decode(tokenizer, (int32_t[]){2, 279, 265, 1}, 4, true, &text);
    assert_text(&text, &want);
    gm_string_free(&text);
    gm_string_free(&want);
}
END_TEST

/* ---- decoding ---- */

START_TEST(mini_random_decode) {
    compare_decodings();
}
END_TEST

/* Under SentencePiece rules a character appears with its last byte. */
START_TEST(mini_stream_latency) {
    rt_stream stream = {0};
    gm_string out = {0};
    const int32_t ids[] = {4 + 0xF0, 4 + 0x9F, 4 + 0x98, 4 + 0x80, 4 + 0x41, 4 + 0xE2, 280};
    const size_t lengths[] = {0, 0, 0, 4, 5, 5, 9};
    for (size_t i = 0; i < GM_COUNT(ids); i++) {
        rt_stream_push(tokenizer, &stream, ids[i], &out);
        ck_assert_uint_eq(out.length, lengths[i]);
    }
    rt_stream_finish(tokenizer, &stream, &out);
    ck_assert_str_eq(out.data, "😀A\uFFFDa");
    gm_string_free(&out);
}
END_TEST

/* ---- special cases of piece types ---- */

START_TEST(spaces_in_user_pieces) {
    vocab_begin(&vocab, 300);
    int32_t two = vocab_add(&vocab, "  ", RT_PIECE_USER, -1000);
    int32_t three = vocab_add(&vocab, "   ", RT_PIECE_USER, -1000);
    int32_t one = vocab_add(&vocab, "\u2581", RT_PIECE_NORMAL, -10);
    int32_t a = vocab_add(&vocab, "a", RT_PIECE_NORMAL, -11);
    int32_t word = vocab_add(&vocab, "\u2581a", RT_PIECE_NORMAL, 0);
    index_vocab();
    CHECK_ENCODE("  a", false, two, a);
    CHECK_ENCODE(" a", false, word);
    CHECK_ENCODE("\u2581 a", false, two, a); /* U+2581 and space are one */
    CHECK_ENCODE("    a", false, three, word);
    CHECK_ENCODE("     ", false, three, two);
    CHECK_ENCODE("a ", false, a, one);
    teardown();
}
END_TEST

START_TEST(unused_pieces) {
    vocab_begin(&vocab, 300);
    int32_t a = vocab_add(&vocab, "a", RT_PIECE_NORMAL, -9);
    int32_t b = vocab_add(&vocab, "b", RT_PIECE_NORMAL, -9);
    vocab_add(&vocab, "ab", RT_PIECE_UNUSED, 0);
    int32_t aba = vocab_add(&vocab, "aba", RT_PIECE_NORMAL, -1);
    index_vocab();
    CHECK_ENCODE("ab", false, a, b); /* taken apart again */
    CHECK_ENCODE("aba", false, aba); /* but it may be a step on the way */
    CHECK_ENCODE("abab", false, a, b, a, b);
    teardown();
}
END_TEST

START_TEST(invalid_text) {
    mini_vocab(&vocab);
    index_vocab();
    rt_ids got = encode("a\xE4\xB8"
                        "t\xED\xA0\x80\xC0\x80\xF5",
                        10, false);
    gm_string text = decode(&got, true);
    ck_assert_str_eq(text.data, "a\uFFFD\uFFFDt\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");
    gm_string_free(&text);
    rt_ids_free(&got);
    got = encode("", 0, false);
    ck_assert_uint_eq(got.count, 0);
    teardown();
}
END_TEST

static void expect_refusal(const char *part) {
    gm_diag diag = {0};
    ck_assert_int_ne(rt_tokenizer_new(&vocab, &diag, &tokenizer), GM_OK);
    ck_assert_msg(strstr(diag.message, part) != NULL, "%s", diag.message);
    ck_assert_ptr_null(tokenizer);
    rt_vocab_free(&vocab);
}

START_TEST(broken_vocabularies) {
    vocab = (rt_vocab){0};
    expect_refusal("0 pieces");
    mini_vocab(&vocab);
    vocab.pieces[10].text = "<0xZ1>";
    expect_refusal("byte piece 10");
    mini_vocab(&vocab);
    vocab.pieces[10].type = RT_PIECE_NORMAL;
    vocab.unk = -1;
    expect_refusal("<0x06>");
    mini_vocab(&vocab);
    vocab.merges = GM_NEW_ARRAY(&vocab.arena, rt_merge, 1);
    vocab.merge_count = 1;
    vocab.merges[0] = (rt_merge){280, 288, 270};
    expect_refusal("merge 0: id 288");
    mini_vocab(&vocab);
    vocab.merges = GM_NEW_ARRAY(&vocab.arena, rt_merge, 1);
    vocab.merge_count = 1;
    vocab.merges[0] = (rt_merge){280, 282, 265};
    expect_refusal("merge 0: expected the result");
}
END_TEST

/* An index with a few bytes changed, or cut, is refused or does no harm. */
static void damage_index(int round) {
    gm_string damaged = {0};
    gm_string_append(&damaged, index_bytes.data, index_bytes.length);
    uint32_t head = 6 * 8 + 3 * 256 * 4, at = random_below(round % 2 ? head : (uint32_t)damaged.length);
    if (round % 8 == 0) damaged.length = at;
    else damaged.data[at] = (char)random_below(256);
    rt_tokenizer *opened = rt_tokenizer_open(&vocab, damaged.data, damaged.length);
    rt_ids ids = {0};
    const char *text = "Hello, <b>world</b>  héllo\n\n<start_of_turn>";
    if (round % 8 == 0) ck_assert_ptr_null(opened);
    if (opened) rt_encode(opened, text, strlen(text), true, &ids);
    for (size_t i = 0; i < ids.count; i++) ck_assert(ids.data[i] >= 0 && (size_t)ids.data[i] < vocab.count);
    rt_ids_free(&ids);
    rt_tokenizer_free(opened);
    gm_string_free(&damaged);
}

START_TEST(damaged_indices) {
    setup_mini();
    for (int round = 0; round < 2000; round++) damage_index(round);
    rt_tokenizer *other = rt_tokenizer_open(&vocab, index_bytes.data, index_bytes.length - 8);
    ck_assert_ptr_null(other);
    teardown();
    random_vocab(true);
    index_vocab();
    for (int round = 0; round < 2000; round++) damage_index(round);
    vocab.count = 256; /* an index of more pieces */
    ck_assert_ptr_null(rt_tokenizer_open(&vocab, index_bytes.data, index_bytes.length));
    teardown();
}
END_TEST

/* ---- speed: one word of a million characters, and long runs ---- */

START_TEST(mini_long) {
    size_t length = 1000000;
    const char *patterns[] = {"the and ing ", " ", "\n", "in", "<bos", "th", "世"};
    for (size_t p = 0; p < GM_COUNT(patterns); p++) {
        char *text = malloc(length);
        size_t size = strlen(patterns[p]);
        for (size_t i = 0; i < length; i++) text[i] = patterns[p][i % size];
        double start = gm_now();
        rt_ids ids = encode(text, length, true);
        ck_assert_double_lt(gm_now() - start, 5.0); /* quadratic time would take hours */
        gm_string decoded = decode(&ids, false);
        if (length % size == 0) ck_assert(decoded.length == length && !memcmp(decoded.data, text, length));
        gm_string_free(&decoded);
        rt_ids_free(&ids);
        free(text);
    }
}
END_TEST

/* ---- the 270M vocabulary, when its file is at hand ---- */

static fe_model model;

static void setup_gguf(void) {
    gm_diag diag = {0};
    gm_status status = fe_gguf_open(getenv("GEMMAC_270M"), true, &diag, &model);
    ck_assert_msg(status == GM_OK, "%s", diag.message);
    vocab = model.vocab;
    index_vocab();
}

static void teardown_gguf(void) {
    rt_tokenizer_free(tokenizer);
    fe_model_close(&model);
}

/* Exact but for the one piece the GGUF does not have. */
START_TEST(gguf_encode) {
    lines in = lines_open(DATA_DIR "encode.jsonl");
    int skipped = 0;
    for (cJSON *line; (line = lines_next(&in)) != NULL; cJSON_Delete(line)) {
        gm_string text = text_of(line, "text");
        rt_ids want = ids_of(line, "ids"), got = encode(text.data, text.length, true);
        if (memmem(text.data, text.length, "<image_soft_token>", 18)) skipped++;
        else assert_ids(&got, &want, text.data);
        check_stream(&got);
        gm_string_free(&text);
        rt_ids_free(&want);
        rt_ids_free(&got);
    }
    ck_assert_int_eq(skipped, 2);
}
END_TEST

START_TEST(gguf_details) {
    CHECK_ENCODE("Hello, world!", false, 9259, 236764, 1902, 236888);
    CHECK_ENCODE("  x", false, 138, 236781);
    CHECK_ENCODE("\u2581 \u2581", false, 139);
    CHECK_ENCODE("<image_soft_token>", false, 236820, 3304, 236779, 5622, 236779, 1114, 236813);
    CHECK_ENCODE("<bos>", false, 236820, rt_piece_id(tokenizer, "bos"), 236813);
    compare_decodings();
}
END_TEST

/* ---- the suite ---- */

static void add_gguf_case(Suite *suite) {
    if (!getenv("GEMMAC_270M")) {
        printf("skipped: the tests of the 270M vocabulary (GEMMAC_270M is not set)\n");
        return;
    }
    TCase *gguf = add_case(suite, "gguf", setup_gguf, teardown_gguf);
    tcase_add_test(gguf, gguf_encode);
    tcase_add_test(gguf, gguf_details);
}

int main(void) {
    Suite *suite = suite_create("tokenizer");
    TCase *mini = add_case(suite, "mini", setup_mini, teardown);
    tcase_add_test(mini, mini_encode);
    tcase_add_test(mini, mini_control);
    tcase_add_test(mini, mini_random_decode);
    tcase_add_test(mini, mini_stream_latency);
    tcase_add_test(mini, mini_long);
    TCase *small = add_case(suite, "small", NULL, NULL);
    tcase_add_test(small, random_scores);
    tcase_add_test(small, random_merges);
    tcase_add_test(small, spaces_in_user_pieces);
    tcase_add_test(small, unused_pieces);
    tcase_add_test(small, invalid_text);
    tcase_add_test(small, broken_vocabularies);
    tcase_add_test(small, damaged_indices);
    add_gguf_case(suite);
    return suite_run(suite);
}
