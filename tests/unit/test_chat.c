/* Chat templates: the reference texts and their ids, Gemma 1 and 2, trimming, files and refusals.
 */
#include "frontend/chat.h"

#include "tokenizer_data.h"
#include "tests/unit/suite.h"

static gm_string render(fe_generation generation, const fe_message *messages, size_t count, bool prompt) {
    gm_diag diag = {0};
    gm_string text = {0};
    gm_status status = fe_chat_render(generation, messages, count, prompt, &diag, &text);
    ck_assert_msg(status == GM_OK, "%s", diag.message);
    return text;
}

static void check_text(gm_string got, const char *want) {
    ck_assert_str_eq(got.data, want);
    gm_string_free(&got);
}

START_TEST(reference_lines) {
    rt_vocab vocab;
    rt_tokenizer *tokenizer;
    gm_diag diag = {0};
    json_vocab(&vocab);
    ck_assert_int_eq(rt_tokenizer_new(&vocab, &diag, &tokenizer), GM_OK);
    lines in = lines_open(DATA_DIR "chat.jsonl");
    int count = 0;
    for (cJSON *line; (line = lines_next(&in)) != NULL; cJSON_Delete(line), count++) {
        fe_message messages[8];
        size_t used = 0;
        const cJSON *item, *list = cJSON_GetObjectItem(line, "messages");
        cJSON_ArrayForEach(item, list) {
            messages[used].role = cJSON_GetObjectItem(item, "role")->valuestring;
            messages[used++].content = cJSON_GetObjectItem(item, "content")->valuestring;
        }
        bool prompt = cJSON_IsTrue(cJSON_GetObjectItem(line, "add_generation_prompt"));
        gm_string got = render(FE_GEMMA3, messages, used, prompt), want = text_of(line, "text");
        ck_assert_str_eq(got.data, want.data);
        rt_ids ids = {0}, expected = ids_of(line, "ids");
        rt_encode(tokenizer, got.data, got.length, true, &ids);
        assert_ids(&ids, &expected, got.data);
        rt_ids_free(&ids);
        rt_ids_free(&expected);
        gm_string_free(&got);
        gm_string_free(&want);
    }
    ck_assert_int_eq(count, 14);
    rt_tokenizer_free(tokenizer);
    rt_vocab_free(&vocab);
}
END_TEST

START_TEST(older_generations) {
    const fe_message talk[] = {{"user", " Hi\n"}, {"assistant", "Hello!"}, {"user", "Bye"}};
    for (int generation = FE_GEMMA1; generation <= FE_GEMMA2; generation++)
        check_text(render((fe_generation)generation, talk, 3, true),
                   "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
                   "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n");
}
END_TEST

START_TEST(any_role_at_odd_turns) {
    const fe_message talk[] = {{"user", "a"}, {"tool", "b"}, {"user", "c"}, {"model", "d"}};
    check_text(render(FE_GEMMA3, talk, 4, false),
               "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>tool\nb<end_of_turn>\n"
               "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\nd<end_of_turn>\n");
}
END_TEST

/* The system text is kept as it is, also its blanks; alone it vanishes, as in the template. */
START_TEST(system_message) {
    const fe_message talk[] = {{"system", " s "}, {"user", " u "}};
    check_text(render(FE_GEMMA3, talk, 2, false), "<bos><start_of_turn>user\n s \n\nu<end_of_turn>\n");
    check_text(render(FE_GEMMA3, talk, 1, true), "<bos><start_of_turn>model\n");
}
END_TEST

/* Python's str.strip: all of Unicode's blanks, but U+200B and U+FEFF are none. */
START_TEST(trimming) {
    const char *blanks[] = {" ",      "\t",     "\n",     "\v",       "\f",     "\r",     "\x1c",
                            "\x1d",   "\x1e",   "\x1f",   "\xC2\x85", "\u00a0", "\u1680", "\u2000",
                            "\u2005", "\u200a", "\u2028", "\u2029",   "\u202f", "\u205f", "\u3000"};
    gm_string text = {0};
    for (size_t i = 0; i < GM_COUNT(blanks); i++) gm_string_printf(&text, "%s", blanks[i]);
    gm_string_printf(&text, "\u200b x\u3000\u00a0y \u00e9\ufeff");
    for (size_t i = 0; i < GM_COUNT(blanks); i++) gm_string_printf(&text, "%s", blanks[i]);
    const fe_message talk[] = {{"user", text.data}};
    check_text(render(FE_GEMMA3, talk, 1, false),
               "<bos><start_of_turn>user\n\u200b x\u3000\u00a0y \u00e9\ufeff<end_of_turn>\n");
    gm_string_free(&text);
    const fe_message empty[] = {{"user", " \n\u3000"}};
    check_text(render(FE_GEMMA3, empty, 1, false), "<bos><start_of_turn>user\n<end_of_turn>\n");
}
END_TEST

static void refuse(fe_generation generation, const fe_message *messages, size_t count, const char *part) {
    gm_diag diag = {0};
    gm_string text = {0};
    ck_assert_int_eq(fe_chat_render(generation, messages, count, true, &diag, &text), GM_INVALID);
    ck_assert_msg(strstr(diag.message, part) != NULL, "%s", diag.message);
    gm_string_free(&text);
}

START_TEST(refusals) {
    const fe_message system[] = {{"system", "s"}, {"user", "u"}};
    const fe_message twice[] = {{"user", "a"}, {"user", "b"}};
    const fe_message late[] = {{"user", "a"}, {"assistant", "b"}, {"system", "c"}};
    refuse(FE_GEMMA3, NULL, 0, "no messages");
    refuse(FE_GEMMA1, system, 2, "Gemma 1");
    refuse(FE_GEMMA2, system, 2, "Gemma 2");
    refuse(FE_GEMMA3, twice, 2, "message 1");
    refuse(FE_GEMMA3, late, 3, "message 2");
    refuse(FE_GEMMA3, late + 1, 1, "message 0");
}
END_TEST

static gm_status render_json(fe_generation generation, const char *json, gm_diag *diag, gm_string *out) {
    char path[256];
    write_file(path, json, strlen(json));
    gm_status status = fe_chat_render_file(generation, path, false, diag, out);
    if (status != GM_OK) ck_assert_msg(!strncmp(diag->message, path, strlen(path)), "%s", diag->message);
    unlink(path);
    return status;
}

START_TEST(files) {
    static const char *accepted[][2] = {
        {"[{\"role\":\"user\",\"content\":\" Hi \"}]", "<bos><start_of_turn>user\nHi<end_of_turn>\n"},
        {"[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\" "
         "s\"}]},{\"role\":\"user\","
         "\"content\":[{\"type\":\"text\",\"text\":\" a "
         "\"},{\"type\":\"image\"},{\"type\":\"other\"},"
         "{\"type\":\"text\",\"text\":\" b \"}]}]",
         "<bos><start_of_turn>user\n s\n\na<start_of_image>b<end_of_turn>\n"},
    };
    for (size_t i = 0; i < GM_COUNT(accepted); i++) {
        gm_diag diag = {0};
        gm_string text = {0};
        ck_assert_msg(render_json(FE_GEMMA3, accepted[i][0], &diag, &text) == GM_OK, "%s", diag.message);
        check_text(text, accepted[i][1]);
    }
    static const char *refused[] = {
        "{}",
        "[]",
        "[1]",
        "[{\"role\":\"assistant\",\"content\":\"x\"}]",
        "[{\"role\":\"user\"}]",
        "[{\"role\":1,\"content\":\"x\"}]",
        "[{\"role\":\"user\",\"content\":{}}]",
        "[{\"role\":\"user\",\"content\":[\"x\"]}]",
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]",
        "[{\"role\":\"system\",\"content\":[]},{\"role\":\"user\",\"content\":\"x\"}]",
    };
    for (size_t i = 0; i < GM_COUNT(refused); i++) {
        gm_diag diag = {0};
        gm_string text = {0};
        ck_assert_msg(render_json(FE_GEMMA3, refused[i], &diag, &text) != GM_OK, "%s", refused[i]);
        gm_string_free(&text);
    }
    gm_diag diag = {0};
    gm_string text = {0};
    ck_assert_int_ne(render_json(FE_GEMMA2, accepted[1][0], &diag, &text), GM_OK);
    gm_string_free(&text);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("chat");
    TCase *tcase = tcase_create("chat");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, reference_lines);
    tcase_add_test(tcase, older_generations);
    tcase_add_test(tcase, any_role_at_odd_turns);
    tcase_add_test(tcase, system_message);
    tcase_add_test(tcase, trimming);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, files);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
