/* Element types: the table, the 16-bit floats, and every block format bit for bit. */
#include <math.h>

#include "model_files.h"
#include "runtime/lanes.h"
#include "tests/unit/random_values.h"
#include "tests/unit/suite.h"

/* ---- the table ---- */

START_TEST(names_and_numbers) {
    rt_dtype dtype;
    for (int i = 0; i < RT_DTYPE_COUNT; i++) {
        const rt_dtype_info *info = rt_dtype_of((rt_dtype)i);
        ck_assert(rt_dtype_parse(info->text, strlen(info->text), &dtype));
        ck_assert_int_eq((int)dtype, i);
        if (info->ggml_id < 0) continue;
        ck_assert(rt_dtype_from_ggml((uint32_t)info->ggml_id, &dtype));
        ck_assert_int_eq((int)dtype, i);
    }
    ck_assert(!rt_dtype_parse("f3", 2, &dtype));
    ck_assert(!rt_dtype_parse("f321", 4, &dtype));
    ck_assert(!rt_dtype_from_ggml(4, &dtype)); /* removed from the format */
    ck_assert(!rt_dtype_from_ggml(UINT32_MAX, &dtype));
}
END_TEST

START_TEST(sizes) {
    ck_assert_uint_eq(rt_dtype_bytes(RT_F32, 3), 12);
    ck_assert_uint_eq(rt_dtype_bytes(RT_Q8_0, 64), 68);
    ck_assert_uint_eq(rt_dtype_bytes(RT_Q6_K, 256 * 5), 1050);
    ck_assert_uint_eq(rt_dtype_bytes(RT_Q4_K, 0), 0);
}
END_TEST

/* ---- 16-bit floats ---- */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

START_TEST(f16_widened) {
    ck_assert_float_eq(rt_f16_to_f32(0x3C00), 1.0f);
    ck_assert_float_eq(rt_f16_to_f32(0xC000), -2.0f);
    ck_assert_float_eq(rt_f16_to_f32(0x0001), 0x1p-24f);
    ck_assert_float_eq(rt_f16_to_f32(0x83FF), -0x3FFp-24f);
    ck_assert_float_eq(rt_f16_to_f32(0x7BFF), 65504.0f);
    ck_assert_uint_eq(bits_of(rt_f16_to_f32(0x8000)), 0x80000000);
    ck_assert_uint_eq(bits_of(rt_f16_to_f32(0xFC00)), 0xFF800000);
    ck_assert(isnan(rt_f16_to_f32(0x7C01)));
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = rt_f16_to_f32((uint16_t)bits);
        if (!isnan(value)) ck_assert_uint_eq(rt_f32_to_f16(value), bits);
    }
}
END_TEST

/* Between every two neighbours: just below, at and just above the middle. */
START_TEST(f16_rounded) {
    for (uint32_t bits = 0; bits < 0x7C00; bits++) {
        float low = rt_f16_to_f32((uint16_t)bits), high = rt_f16_to_f32((uint16_t)(bits + 1));
        if (bits == 0x7BFF) high = 65536.0f;
        float middle = low + (high - low) / 2;
        uint32_t even = bits & 1 ? bits + 1 : bits;
        ck_assert_uint_eq(rt_f32_to_f16(middle), even);
        ck_assert_uint_eq(rt_f32_to_f16(nextafterf(middle, 0)), bits);
        ck_assert_uint_eq(rt_f32_to_f16(nextafterf(middle, INFINITY)), bits + 1);
        ck_assert_uint_eq(rt_f32_to_f16(-middle), even | 0x8000);
    }
    ck_assert_uint_eq(rt_f32_to_f16(INFINITY), 0x7C00);
    ck_assert_uint_eq(rt_f32_to_f16(-1e30f), 0xFC00);
    ck_assert_uint_eq(rt_f32_to_f16(1e-30f), 0);
    ck_assert_uint_eq(rt_f32_to_f16(NAN) & 0x7E00, 0x7E00);
}
END_TEST

START_TEST(bf16) {
    ck_assert_float_eq(rt_bf16_to_f32(0x3F80), 1.0f);
    for (uint32_t bits = 0; bits < 0x7F80; bits++) {
        float low = rt_bf16_to_f32((uint16_t)bits), middle;
        uint32_t middle_bits = bits << 16 | 0x8000;
        memcpy(&middle, &middle_bits, sizeof middle);
        ck_assert_uint_eq(rt_f32_to_bf16(low), bits);
        ck_assert_uint_eq(rt_f32_to_bf16(middle), bits & 1 ? bits + 1 : bits);
        ck_assert_uint_eq(rt_f32_to_bf16(nextafterf(middle, 0)), bits);
        ck_assert_uint_eq(rt_f32_to_bf16(-nextafterf(middle, INFINITY)), 0x8000 | (bits + 1));
    }
    ck_assert_uint_eq(rt_f32_to_bf16(-INFINITY), 0xFF80);
    float signalling;
    memcpy(&signalling, &(uint32_t){0x7F800001}, sizeof signalling);
    ck_assert_uint_eq(rt_f32_to_bf16(signalling), 0x7FC0);
}
END_TEST

/* ---- blocks ---- */

static const cJSON *offsets_of(const cJSON *header, const char *type, const char *suffix) {
    char name[32];
    int length = snprintf(name, sizeof name, "%s", type);
    for (int i = 0; i < length; i++)
        if (name[i] >= 'a' && name[i] <= 'z') name[i] = (char)(name[i] - 'a' + 'A');
    snprintf(name + length, sizeof name - (size_t)length, "%s", suffix);
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(header, name), "data_offsets");
}

/* blocks.safetensors has TYPE.raw and TYPE.f32 of the reference for each type. */
static void check_type(rt_dtype dtype, const cJSON *header, const char *data) {
    const rt_dtype_info *info = rt_dtype_of(dtype);
    const cJSON *raw = offsets_of(header, info->text, ".raw");
    const cJSON *wanted = offsets_of(header, info->text, ".f32");
    ck_assert_msg(raw && wanted, "no blocks of %s", info->text);
    size_t raw_start = (size_t)raw->child->valuedouble, raw_end = (size_t)raw->child->next->valuedouble;
    size_t start = (size_t)wanted->child->valuedouble, end = (size_t)wanted->child->next->valuedouble;
    size_t elems = (end - start) / 4, bytes = raw_end - raw_start;
    ck_assert_uint_ge(elems, 256);
    ck_assert_uint_eq(rt_dtype_bytes(dtype, elems), bytes);
    float *found = malloc(elems * sizeof *found);
    char *shifted = malloc(bytes + 1); /* no alignment is assumed */
    memcpy(shifted + 1, data + raw_start, bytes);
    rt_dequantize_row(dtype, shifted + 1, found, elems);
    for (size_t i = 0; i < elems; i++) {
        uint32_t reference;
        memcpy(&reference, data + start + 4 * i, 4);
        ck_assert_msg(bits_of(found[i]) == reference, "%s: element %zu: %a", info->text, i, (double)found[i]);
    }
    free(shifted);
    free(found);
}

/* E4M3 has no infinity; its NaN stands for 0. */
START_TEST(nan_scales) {
    uint8_t block[36];
    float values[64];
    memset(block, 0x77, sizeof block); /* codes of 6 */
    block[0] = 0x7F, block[1] = 0x7E, block[2] = 0x38, block[3] = 0x01;
    rt_dequantize_row(RT_NVFP4, block, values, 64);
    ck_assert(values[0] == 0 && values[15] == 0);
    ck_assert(values[16] == 6 * 448 && values[32] == 6 && values[48] == 6 * ldexpf(1, -9));
}
END_TEST

START_TEST(blocks) {
    gm_string file = read_data("gguf/blocks.safetensors");
    gm_diag diag = {0};
    cJSON *header;
    uint64_t length;
    memcpy(&length, file.data, sizeof length);
    ck_assert_int_eq(fe_json_parse(file.data + 8, length, "blocks", &diag, &header), GM_OK);
    int checked = 0;
    for (int i = 0; i < RT_DTYPE_COUNT; i++) {
        rt_dtype_class class = rt_dtype_of((rt_dtype)i)->class;
        if (class != RT_CLASS_QUANT && i != RT_F16 && i != RT_BF16) continue;
        if (i == RT_S4) continue; /* ours: tests/unit/test_screen.c */
        check_type((rt_dtype)i, header, file.data + 8 + length);
        checked++;
    }
    ck_assert_int_eq(checked, 25); /* as many as the file has */
    cJSON_Delete(header);
    gm_string_free(&file);
}
END_TEST

/* ---- sixteen rows side by side ---- */

/* Of any bytes, so that some are not finite; in a piece, at its end, and behind it. */
static void check_lanes(rt_dtype dtype, int64_t columns) {
    size_t bytes = rt_dtype_bytes(dtype, (size_t)columns);
    uint8_t *rows = malloc(RT_LANES * bytes);
    float *row = malloc((size_t)columns * sizeof *row), *lanes = malloc(RT_LANES * (size_t)columns * sizeof *lanes);
    for (size_t i = 0; i < RT_LANES * bytes; i++) rows[i] = (uint8_t)next_random();
    rt_dequantize_lanes(dtype, rows, columns, lanes);
    for (size_t r = 0; r < RT_LANES; r++) {
        rt_dequantize_row(dtype, rows + r * bytes, row, (size_t)columns);
        for (int64_t k = 0; k < columns; k++)
            ck_assert_msg(bits_of(lanes[k * RT_LANES + (int64_t)r]) == bits_of(row[k]), "%s: row %zu, column %d of %d",
                          rt_dtype_of(dtype)->text, r, (int)k, (int)columns);
    }
    free(rows);
    free(row);
    free(lanes);
}

START_TEST(lanes_are_rows) {
    state = 9;
    for (rt_dtype i = 0; i < RT_DTYPE_COUNT; i++) {
        rt_dtype_class class = rt_dtype_of(i)->class;
        int block = rt_dtype_of(i)->block_elems;
        if (class != RT_CLASS_QUANT && class != RT_CLASS_FLOAT) continue;
        for (int64_t n = 1; n * block <= 3 * 256; n *= 2)
            if (n * block % 8 == 0) check_lanes(i, n * block);
        check_lanes(i, 2 * 256 + (block > 8 ? block : 8));
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dtype");
    TCase *tcase = tcase_create("dtype");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, names_and_numbers);
    tcase_add_test(tcase, sizes);
    tcase_add_test(tcase, f16_widened);
    tcase_add_test(tcase, f16_rounded);
    tcase_add_test(tcase, bf16);
    tcase_add_test(tcase, nan_scales);
    tcase_add_test(tcase, blocks);
    tcase_add_test(tcase, lanes_are_rows);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
