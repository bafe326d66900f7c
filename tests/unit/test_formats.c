/* JSON, the weight table, safetensors files and their index: what is read, and what is refused. */
#include "model_files.h"
#include "tests/unit/suite.h"

/* ---- JSON ---- */

static gm_status parse(const char *text, size_t bytes, gm_diag *diag) {
    cJSON *root = NULL;
    gm_status status = fe_json_parse(text, bytes, "f.json", diag, &root);
    ck_assert((status == GM_OK) == (root != NULL));
    cJSON_Delete(root);
    return status;
}

START_TEST(json_good) {
    static const char *const texts[] = {
        "{}",
        " [1, -0, 0.5, 1e3, -2.5E-7]\n",
        "\"\\u00e9\\n\\ud83d\\ude00\"",
        "null",
        "true",
        "{\"a\":{\"a\":1},\"b\":[{\"a\":2},{\"a\":3}]}",
        "\"\xC3\xA9\xF0\x9F\xA6\x99\"",
        "[[],{}]",
    };
    for (size_t i = 0; i < GM_COUNT(texts); i++) {
        gm_diag diag = {0};
        ck_assert_msg(parse(texts[i], strlen(texts[i]), &diag) == GM_OK, "%s: %s", texts[i], diag.message);
    }
}
END_TEST

START_TEST(json_bad) {
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "f.json: byte 0: expected a JSON value"},
        {"{", "byte 1: expected a string"},
        {"{\"a\"}", "byte 4: expected ':'"},
        {"{\"a\":1,}", "byte 7: expected a string"},
        {"{\"a\":1 \"b\":2}", "byte 7: expected ',' or '}'"},
        {"[1 2]", "byte 3: expected ',' or ']'"},
        {"[1,]", "byte 3: expected a JSON value"},
        {"[01]", "byte 2: expected ',' or ']'"},
        {"[1.]", "byte 3: expected a digit"},
        {"[+1]", "byte 1: expected a JSON value"},
        {"[-]", "byte 2: expected a digit"},
        {"[1e]", "byte 3: expected a digit"},
        {"[.5]", "byte 1: expected a JSON value"},
        {"[NaN]", "byte 1: expected a JSON value"},
        {"tru", "byte 0: expected a JSON value"},
        {"{} {}", "byte 3: expected nothing after the value"},
        {"{}\f", "byte 2: expected nothing after the value"},
        {"\"a\nb\"", "byte 2: expected no control character"},
        {"\"\\x\"", "byte 2: expected an escape"},
        {"\"\\u12g4\"", "byte 5: expected four hexadecimal digits"},
        {"\"\\u0000\"", "byte 3: expected no NUL"},
        {"\"\\ud800\"", "expected valid JSON"},
        {"\"abc", "byte 4: expected the end of the string"},
        {"\"\xC3(\"", "byte 1: expected UTF-8"},
        {"\"\xED\xA0\x80\"", "byte 1: expected UTF-8"},
        {"\"\xC0\xAF\"", "byte 1: expected UTF-8"},
        {"\xEF\xBB\xBF{}", "byte 0: expected a JSON value"},
        {"{\"a\":1,\"a\":2}", "byte 7: expected key \"a\" only once"},
        {"{\"x\":{\"q\":0},\"b\":1,\"y\":[{\"c\":1,\"\\u0063\":2}]}", "byte 31: expected key \"c\""},
        {"// no\n{}", "byte 0: expected a JSON value"},
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        gm_diag diag = {0};
        gm_status status = parse(cases[i].text, strlen(cases[i].text), &diag);
        expect_failure(cases[i].text, status, &diag, GM_FORMAT, cases[i].message);
    }
    gm_diag diag = {0};
    expect_failure("NUL", parse("{}\0", 3, &diag), &diag, GM_FORMAT, "byte 2: expected nothing");
}
END_TEST

START_TEST(json_integers) {
    static const char text[] =
        "{\"a\":[1.5,{\"x\":7,\"y\":7.0}],\"b\":-3,\"c\":1e2,\"d\":[],\"e\":9007199254740993,\"f\":100}";
    gm_diag diag = {0};
    cJSON *root;
    int64_t value = 0;
    ck_assert_int_eq(fe_json_parse(text, strlen(text), "f.json", &diag, &root), GM_OK);
    const cJSON *inner = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "a"), 1);
    ck_assert(fe_json_int(cJSON_GetObjectItem(inner, "x"), 0, 7, &value) && value == 7);
    ck_assert(!fe_json_int(cJSON_GetObjectItem(inner, "x"), 0, 6, &value));
    ck_assert(!fe_json_int(cJSON_GetObjectItem(inner, "y"), 0, 7, &value));
    ck_assert_double_eq(cJSON_GetObjectItem(inner, "y")->valuedouble, 7);
    ck_assert(fe_json_int(cJSON_GetObjectItem(root, "b"), -3, 0, &value) && value == -3);
    ck_assert(!fe_json_int(cJSON_GetObjectItem(root, "c"), 0, 1000, &value));
    ck_assert(!fe_json_int(cJSON_GetObjectItem(root, "d"), 0, 1000, &value));
    ck_assert(fe_json_int(cJSON_GetObjectItem(root, "f"), 0, 1000, &value) && value == 100);
    ck_assert(!fe_json_int(cJSON_GetObjectItem(root, "g"), 0, 1000, &value)); /* none */
    cJSON_Delete(root);
}
END_TEST

START_TEST(json_depth) {
    char text[200];
    for (int depth = 60; depth < 70; depth++) {
        gm_diag diag = {0};
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        gm_status status = parse(text, 2 * (size_t)depth, &diag);
        if (depth <= 64) ck_assert_int_eq(status, GM_OK);
        else expect_failure("depth", status, &diag, GM_FORMAT, "byte 65: expected at most 64 nested");
    }
}
END_TEST

START_TEST(json_many_keys) {
    gm_string text = {0};
    gm_string_printf(&text, "{");
    for (int i = 0; i < 20000; i++) gm_string_printf(&text, "\"key%d\":%d,", i, i);
    size_t end = text.length;
    gm_string_printf(&text, "\"last\":0}");
    gm_diag diag = {0};
    ck_assert_int_eq(parse(text.data, text.length, &diag), GM_OK);
    text.length = end;
    gm_string_printf(&text, "\"key777\":0}");
    expect_failure("many", parse(text.data, text.length, &diag), &diag, GM_FORMAT, "\"key777\"");
    gm_string_free(&text);
}
END_TEST

START_TEST(json_files) {
    gm_diag diag = {0}, large = {0};
    cJSON *root;
    expect_failure("none", fe_json_open(temp_file("none.json"), 100, &diag, &root), &diag, GM_IO,
                   "none.json: No such file");
    const char *path = temp_text("large.json", "{\"a\":[1,2,3,4,5]}");
    expect_failure("large", fe_json_open(path, 10, &large, &root), &large, GM_FORMAT,
                   "large.json: expected at most 10 bytes, found 17");
    gm_diag folder = {0};
    expect_failure("folder", fe_json_open(temp_folder, 10, &folder, &root), &folder, GM_IO, "expected a regular file");
}
END_TEST

/* ---- the weight table ---- */

START_TEST(weights_table) {
    rt_weights weights = {0};
    gm_diag diag = {0};
    char name[64];
    static const _Alignas(8) char bytes[64] = "0123456789abcdef";
    ck_assert_ptr_null(rt_weights_find(&weights, "layers.0.x"));
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "layers.%d.mlp", i);
        rt_tensor tensor = {.name = name, .dtype = RT_F32, .rank = 1, .dim = {i}};
        ck_assert_int_eq(rt_weights_add(&weights, "f", &tensor, &diag), GM_OK);
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "layers.%d.mlp", i);
        ck_assert_int_eq(rt_weights_find(&weights, name)->dim[0], i);
        ck_assert_int_eq(weights.tensors[i].dim[0], i); /* order of adding */
    }
    rt_weights_drop(&weights, "layers.7.mlp");
    rt_weights_drop(&weights, "layers.7.mlp");
    ck_assert_uint_eq(weights.count, 4999);
    ck_assert_ptr_null(rt_weights_find(&weights, "layers.7.mlp"));
    ck_assert_int_eq(rt_weights_find(&weights, "layers.4999.mlp")->dim[0], 4999);
    rt_tensor odd = {.name = "odd", .rank = 1, .dim = {4}, .data = bytes + 1, .bytes = 16};
    ck_assert_int_eq(rt_weights_add(&weights, "f", &odd, &diag), GM_OK);
    const rt_tensor *found = rt_weights_find(&weights, "odd");
    ck_assert_uint_eq((uintptr_t)found->data % 4, 0);
    ck_assert_mem_eq(found->data, bytes + 1, 16);
    expect_failure("twice", rt_weights_add(&weights, "f", &odd, &diag), &diag, GM_FORMAT,
                   "f: tensor \"odd\": expected only one");
    rt_weights_close(&weights);
}
END_TEST

/* ---- safetensors ---- */

static gm_status open_bytes(const gm_string *bytes, gm_diag *diag, fe_model *model) {
    *model = (fe_model){0};
    const char *path = temp_write("m.safetensors", bytes->data, bytes->length);
    return fe_safetensors_open_all(&path, 1, diag, model);
}

static gm_string make_file(const char *header, size_t data_bytes) {
    gm_string out = {0};
    put(&out, strlen(header), 8);
    gm_string_append(&out, header, strlen(header));
    for (size_t i = 0; i < data_bytes; i++) put(&out, i, 1);
    return out;
}

START_TEST(safetensors_good) {
    /* Names of all four prefixes, unsorted, two empty tensors at one place, ignored parts and metadata. */
    static const struct {
        const char *prefix, *head;
    } savers[] = {{"model.", "lm_head"},
                  {"language_model.model.", "language_model.lm_head"},
                  {"model.language_model.", "lm_head"},
                  {"", "lm_head"}};
    for (size_t i = 0; i < GM_COUNT(savers); i++) {
        char header[1024];
        snprintf(header, sizeof header,
                 "{\"__metadata__\":{\"format\":\"pt\"},"
                 "\"%snorm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[6,14],\"x\":0},"
                 "\"%s.weight\":{\"dtype\":\"BF16\",\"shape\":[1,3],\"data_offsets\":[0,6]},"
                 "\"%slayers.0.q\":{\"dtype\":\"F16\",\"shape\":[0,5],\"data_offsets\":[6,6]},"
                 "\"%slayers.0.k\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[6,6]},"
                 "\"model.vision_tower.x\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[14,22]},"
                 "\"multi_modal_projector.y\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,2],"
                 "\"data_offsets\":[22,24]},"
                 "\"%slayers.0.self_attn.rotary_emb.inv_freq\":{\"dtype\":\"F64\",\"shape\":[1],"
                 "\"data_offsets\":[24,32]}}  ",
                 savers[i].prefix, savers[i].head, savers[i].prefix, savers[i].prefix, savers[i].prefix);
        gm_string file = make_file(header, 32);
        gm_diag diag = {0};
        fe_model model;
        gm_status status = open_bytes(&file, &diag, &model);
        ck_assert_msg(status == GM_OK, "%s", diag.message);
        ck_assert_uint_eq(model.weights.count, 4);
        const rt_tensor *head = rt_weights_find(&model.weights, "lm_head.weight");
        ck_assert(head && head->dtype == RT_BF16 && head->rank == 2 && head->dim[1] == 3);
        const rt_tensor *norm = rt_weights_find(&model.weights, "norm.weight");
        ck_assert_uint_eq(((const uint8_t *)norm->data)[0], 6);
        ck_assert_uint_eq(rt_weights_find(&model.weights, "layers.0.q")->bytes, 0);
        ck_assert_uint_eq(rt_weights_find(&model.weights, "layers.0.k")->bytes, 0);
        fe_model_close(&model);
        gm_string_free(&file);
    }
}
END_TEST

#define ENTRY(name, dtype, shape, offsets)                                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

START_TEST(safetensors_bad) {
    static const struct {
        const char *header;
        size_t bytes;
        gm_status status;
        const char *message;
    } cases[] = {
        {"[]", 0, GM_FORMAT, "m.safetensors: header: expected an object"},
        {"{", 0, GM_FORMAT, "m.safetensors: byte 1: expected"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[0,8]") "," ENTRY("norm.weight", "F32", "[2]", "[0,8]") "}", 8,
         GM_FORMAT, "expected key \"norm.weight\" only once"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[0,8]") "}", 7, GM_FORMAT, "expected 8 bytes of tensors, found 7"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[0,8]") "}", 9, GM_FORMAT, "expected 8 bytes of tensors, found 9"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[1,9]") "}", 9, GM_FORMAT, "expected data at offset 0, found 1"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[0,8]") "," ENTRY("a", "F32", "[2]", "[4,12]") "}", 12, GM_FORMAT,
         "tensor \"a\": expected data at offset 8, found 4"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[0,8]") "," ENTRY("a", "F32", "[2]", "[12,20]") "}", 20, GM_FORMAT,
         "tensor \"a\": expected data at offset 8, found 12"},
        {"{" ENTRY("norm.weight", "F32", "[3]", "[0,8]") "}", 8, GM_FORMAT, "expected offsets 12 bytes apart"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[8,0]") "}", 8, GM_FORMAT, "expected offsets"},
        {"{" ENTRY("norm.weight", "F32", "[-2]", "[0,8]") "}", 8, GM_FORMAT, "whole sizes"},
        {"{" ENTRY("norm.weight", "F32", "[2.5]", "[0,10]") "}", 10, GM_FORMAT, "whole sizes"},
        {"{" ENTRY("norm.weight", "F32", "[2.0]", "[0,8]") "}", 8, GM_FORMAT, "whole sizes"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[0,8e0]") "}", 8, GM_FORMAT, "two offsets"},
        {"{" ENTRY("norm.weight", "F64", "[1]", "[0,8]") "}", 8, GM_UNSUPPORTED,
         "tensor \"norm.weight\": expected dtype F32, F16 or BF16, found F64"},
        {"{" ENTRY("norm.weight", "F8_E5M2", "[8]", "[0,8]") "}", 8, GM_UNSUPPORTED, "found F8_E5M2"},
        {"{" ENTRY("norm.weight", "F4", "[16]", "[0,8]") "}", 8, GM_UNSUPPORTED, "found F4"},
        {"{" ENTRY("norm.weight", "F32", "2", "[0,8]") "}", 8, GM_FORMAT, "list of sizes"},
        {"{" ENTRY("norm.weight", "F32", "[4294967296,4294967296]", "[0,8]") "}", 8, GM_FORMAT, "fewer than 2^63"},
        {"{" ENTRY("norm.weight", "F64", "[2305843009213693952]", "[0,0]") "}", 0, GM_FORMAT, "whole sizes"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[0,8,8]") "}", 8, GM_FORMAT, "two offsets"},
        {"{" ENTRY("norm.weight", "F32", "[2]", "[0,\\\"8\\\"]") "}", 8, GM_FORMAT, "expected"},
        {"{" ENTRY("norm.weight", "f32", "[2]", "[0,8]") "}", 8, GM_FORMAT, "expected a known dtype, found \"f32\""},
        {"{" ENTRY("norm.weight", "F4", "[3]", "[0,2]") "}", 2, GM_FORMAT, "expected offsets"},
        {"{\"norm.weight\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, GM_FORMAT, "known dtype"},
        {"{\"norm.weight\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, GM_FORMAT, "\"shape\""},
        {"{\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, GM_FORMAT, "\"data_offsets\""},
        {"{\"norm.weight\":3}", 0, GM_FORMAT, "tensor \"norm.weight\": expected an object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, GM_FORMAT, "expected an object of strings"},
        {"{\"__metadata__\":[]}", 0, GM_FORMAT, "expected an object of strings"},
        {"{" ENTRY("norm.weight", "F8_E4M3", "[8]", "[0,8]") "}", 8, GM_UNSUPPORTED,
         "tensor \"norm.weight\": expected dtype F32, F16 or BF16, found F8_E4M3"},
        {"{" ENTRY("norm.weight", "F32", "[1,1,1,1,2]", "[0,8]") "}", 8, GM_FORMAT, "at most 4 dimensions, found 5"},
        {"{" ENTRY("model.norm.weight", "F32", "[2]", "[0,8]") "," ENTRY("norm.weight", "F32", "[2]", "[8,16]") "}", 16,
         GM_FORMAT, "tensor \"norm.weight\": expected the prefix \"model.\""},
        {"{" ENTRY("lm_head.weight", "F32", "[2]", "[0,8]") "," ENTRY("language_model.lm_head.weight", "F32", "[2]",
                                                                      "[8,16]") "}",
         16, GM_FORMAT, "tensor \"lm_head.weight\": expected only one of this name"},
    };
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        gm_string file = make_file(cases[i].header, cases[i].bytes);
        gm_diag diag = {0};
        fe_model model;
        gm_status status = open_bytes(&file, &diag, &model);
        expect_failure(cases[i].header, status, &diag, cases[i].status, cases[i].message);
        ck_assert_ptr_nonnull(strstr(diag.message, "m.safetensors: "));
        fe_model_close(&model);
        gm_string_free(&file);
    }
}
END_TEST

START_TEST(safetensors_truncated) {
    gm_string file = {0};
    put_safetensors(&file, small_safetensors, SMALL_COUNT);
    size_t whole = file.length;
    for (size_t bytes = 0; bytes < whole; bytes += bytes < 16 ? 1 : 37) {
        gm_diag diag = {0};
        fe_model model;
        file.length = bytes;
        gm_status status = open_bytes(&file, &diag, &model);
        expect_failure("cut", status, &diag, GM_FORMAT, "m.safetensors: ");
        fe_model_close(&model);
    }
    memset(file.data, 0xFF, 8);
    file.length = whole;
    gm_diag diag = {0};
    fe_model model;
    expect_failure("length", open_bytes(&file, &diag, &model), &diag, GM_FORMAT, "header of at most 100000000 bytes");
    fe_model_close(&model);
    memset(file.data, 0, 8); /* one byte more than there are */
    for (int i = 0; i < 3; i++) file.data[i] = (char)((whole - 7) >> 8 * i);
    diag = (gm_diag){0};
    expect_failure("beyond", open_bytes(&file, &diag, &model), &diag, GM_FORMAT, "inside the file");
    fe_model_close(&model);
    gm_string_free(&file);
}
END_TEST

/* ---- index ---- */

static void write_shard(const char *name, const small_tensor *tensors, size_t count) {
    gm_string file = {0};
    put_safetensors(&file, tensors, count);
    temp_write(name, file.data, file.length);
    gm_string_free(&file);
}

static gm_status open_index(const char *map, gm_diag *diag, fe_model *model) {
    char text[2048];
    *model = (fe_model){0};
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":1},\"weight_map\":%s}", map);
    return fe_safetensors_open_index(temp_text("i.json", text), diag, model);
}

START_TEST(index_files) {
    static const struct {
        const char *map;
        gm_status status;
        const char *message;
    } cases[] = {
        {"{}", GM_FORMAT, "i.json: key \"weight_map\": expected an object"},
        {"[]", GM_FORMAT, "key \"weight_map\""},
        {"{\"a\":1}", GM_FORMAT, "key \"weight_map.a\": expected a file name"},
        {"{\"a\":\"../s1.st\"}", GM_FORMAT, "expected a file name without folders"},
        {"{\"a\":\"x\\\\s1.st\"}", GM_FORMAT, "expected a file name without folders"},
        {"{\"a\":\"/etc/passwd\"}", GM_FORMAT, "expected a file name without folders"},
        {"{\"a\":\"none.st\"}", GM_IO, "none.st: No such file"},
        {"{\"a\":\"s1.st\"}", GM_FORMAT, "s1.st: tensor \"a\": expected it here, as the index says"},
        {"{\"model.norm.weight\":\"s1.st\",\"model.embed_tokens.weight\":\"s3.st\"}", GM_FORMAT,
         "tensor \"embed_tokens.weight\": expected only one"},
        {"{\"model.norm.weight\":\"s2.st\",\"model.embed_tokens.weight\":\"s1.st\"}", GM_FORMAT,
         "tensor \"model.norm.weight\": expected it here"},
    };
    gm_diag good = {0};
    fe_model model;
    write_shard("s1.st", small_safetensors, 2);
    write_shard("s2.st", small_safetensors + 2, SMALL_COUNT - 2);
    write_shard("s3.st", small_safetensors, 3);
    const char *map = "{\"model.norm.weight\":\"s1.st\","
                      "\"model.layers.0.mlp.up_proj.weight\":\"s2.st\","
                      "\"model.embed_tokens.weight\":\"s1.st\"}";
    ck_assert_msg(open_index(map, &good, &model) == GM_OK, "%s", good.message);
    ck_assert_uint_eq(model.weights.count, SMALL_COUNT);
    fe_model_close(&model);
    for (size_t i = 0; i < GM_COUNT(cases); i++) {
        gm_diag diag = {0};
        gm_status status = open_index(cases[i].map, &diag, &model);
        expect_failure(cases[i].map, status, &diag, cases[i].status, cases[i].message);
        fe_model_close(&model);
    }
}
END_TEST

/* ---- mutations: any byte of the header may be anything ---- */

START_TEST(safetensors_mutated) {
    gm_string file = {0};
    put_safetensors(&file, small_safetensors, SMALL_COUNT);
    size_t header = file.length - 4 * 150;
    uint64_t state = 1;
    for (int i = 0; i < 3000; i++) {
        gm_diag diag = {0};
        fe_model model;
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t at = (size_t)(state >> 33) % header;
        char old = file.data[at];
        file.data[at] = (char)(i % 2 ? old ^ (1 << (state >> 29 & 7)) : (int)(state >> 21 & 255));
        gm_status status = open_bytes(&file, &diag, &model);
        ck_assert(status == GM_OK || diag.message[0]);
        fe_model_close(&model);
        file.data[at] = old;
    }
    gm_string_free(&file);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("formats");
    TCase *tcase = tcase_create("formats");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, temp_make, temp_remove);
    tcase_add_test(tcase, json_good);
    tcase_add_test(tcase, json_bad);
    tcase_add_test(tcase, json_integers);
    tcase_add_test(tcase, json_depth);
    tcase_add_test(tcase, json_many_keys);
    tcase_add_test(tcase, json_files);
    tcase_add_test(tcase, weights_table);
    tcase_add_test(tcase, safetensors_good);
    tcase_add_test(tcase, safetensors_bad);
    tcase_add_test(tcase, safetensors_truncated);
    tcase_add_test(tcase, index_files);
    tcase_add_test(tcase, safetensors_mutated);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
