/* A GGUF model in several files: where its parts may lie, and sets that do not belong together. */
#include "model_files.h"
#include "tests/unit/suite.h"

static void write_split(int number, int count, int stored_number, size_t first, size_t tensors) {
    char name[64];
    gm_string keys = {0}, file = {0};
    int key_count = number ? 0 : put_small_keys(&keys, "gemma") + 1;
    if (!number) {
        put_key(&keys, "split.tensors.count", 5);
        put(&keys, SMALL_COUNT, 4);
    }
    put_key(&keys, "split.no", 2);
    put(&keys, (uint64_t)stored_number, 2);
    put_key(&keys, "split.count", 2);
    put(&keys, (uint64_t)count, 2);
    put_gguf(&file, &keys, key_count + 2, small_gguf + first, tensors);
    snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", number + 1, count);
    temp_write(name, file.data, file.length);
    gm_string_free(&keys);
    gm_string_free(&file);
}

static int rename_file(const char *from, const char *to) {
    char old[512];
    snprintf(old, sizeof old, "%s", temp_file(from));
    return rename(old, temp_file(to));
}

START_TEST(split) {
    write_split(0, 3, 0, 0, 2);
    write_split(1, 3, 1, 2, 4);
    write_split(2, 3, 2, 6, SMALL_COUNT - 6);
    const char *first = "m-00001-of-00003.gguf";
    fe_model model = expect_open(temp_file(first), false);
    ck_assert_uint_eq(model.weights.count, SMALL_COUNT);
    fe_model_close(&model);
    write_split(0, 3, 0, 0, 0); /* the keys alone */
    write_split(1, 3, 1, 0, 6);
    model = expect_open(temp_file(first), false);
    ck_assert(model.weights.count == SMALL_COUNT && model.config.vocab == 8);
    fe_model_close(&model);
    write_split(0, 3, 0, 0, 2);
    write_split(1, 4, 1, 2, 4);
    ck_assert_int_eq(rename_file("m-00002-of-00004.gguf", "m-00002-of-00003.gguf"), 0);
    expect_open_failure(temp_file(first), GM_FORMAT, "m-00002-of-00003.gguf: key \"split.count\": expected 3, found 4");
    write_split(1, 3, 2, 2, 4);
    expect_open_failure(temp_file(first), GM_FORMAT, "m-00002-of-00003.gguf: key \"split.no\": expected 1, found 2");
    write_split(1, 3, 1, 1, 4);
    expect_open_failure(temp_file(first), GM_FORMAT, "m-00002-of-00003.gguf: tensor \"norm.weight\"");
    write_split(1, 3, 1, 3, 3);
    expect_open_failure(temp_file(first), GM_FORMAT,
                        "m-00001-of-00003.gguf: key \"split.tensors.count\": expected 10, found 11");
    unlink(temp_file("m-00002-of-00003.gguf"));
    expect_open_failure(temp_file(first), GM_IO, "m-00002-of-00003.gguf: No such file");
    expect_open_failure(temp_file("m-00003-of-00003.gguf"), GM_INVALID,
                        "expected the first file of a split model, found number 3");
    char other[512];
    snprintf(other, sizeof other, "%s/other.gguf", temp_folder);
    ck_assert_int_eq(rename(temp_file(first), other), 0);
    expect_open_failure(other, GM_INVALID, "expected a name like model-00001-of-00003.gguf");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gguf_split");
    TCase *tcase = tcase_create("gguf_split");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, temp_make, temp_remove);
    tcase_add_test(tcase, split);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
