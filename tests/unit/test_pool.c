/* Memory in large pages: what is taken is zero and apart from all else, and what lies in a file comes back when its
 * pages have been given back. */
#include "runtime/pool.h"
#include "runtime/release.h"
#include "runtime/weights.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "tests/unit/suite.h"

enum { MIB = 1 << 20 };

static void check_bytes(const uint8_t *bytes, size_t count, uint8_t want) {
    size_t same = 0;
    while (same < count && bytes[same] == want) same++;
    ck_assert_uint_eq(same, count);
}

/* In a file, in memory. */
START_TEST(what_is_taken_lies_apart_and_comes_back) {
    static const size_t sizes[] = {1, 64, 5 * MIB + 3, 4096, 2 * MIB, 63};
    rt_pool pool = {0};
    uint8_t *taken[GM_COUNT(sizes)];
    ck_assert(!rt_pool_has(&pool, 1));
    ck_assert_ptr_null(rt_pool_take(&pool, 1));
    ck_assert((_i ? rt_pool_open_memory : rt_pool_open_file)(&pool, 1));
    for (size_t i = 0; i < GM_COUNT(sizes); i++) {
        taken[i] = rt_pool_take(&pool, sizes[i]);
        ck_assert_ptr_nonnull(taken[i]);
        ck_assert_uint_eq((uintptr_t)taken[i] % 64, 0);
        check_bytes(taken[i], sizes[i], 0);
        memset(taken[i], (int)i + 1, sizes[i]);
    }
    void *address = pool.address;
    size_t bytes = pool.bytes;
    if (!_i) rt_release_pages(address, (char *)address + bytes);
    rt_pool_close(&pool); /* the mapping stays */
    for (size_t i = 0; i < GM_COUNT(sizes); i++) check_bytes(taken[i], sizes[i], (uint8_t)(i + 1));
    munmap(address, bytes);
}
END_TEST

START_TEST(a_pool_ends) {
    rt_pool pool = {0};
    ck_assert((_i ? rt_pool_open_memory : rt_pool_open_file)(&pool, 65 * MIB));
    size_t bytes = pool.bytes;
    ck_assert_uint_ge(bytes, 65 * MIB);
    ck_assert(rt_pool_has(&pool, bytes) && !rt_pool_has(&pool, bytes + 1));
    ck_assert_ptr_null(rt_pool_take(&pool, bytes + 1));
    ck_assert_ptr_nonnull(rt_pool_take(&pool, bytes - 3));
    ck_assert(!rt_pool_has(&pool, 4));
    ck_assert_ptr_null(rt_pool_take(&pool, SIZE_MAX));
    munmap(pool.address, bytes);
    rt_pool_close(&pool);
}
END_TEST

/* Files that may not become as long as a pool usually is: shorter pools, and for what is longer memory, but no
 * signal. */
START_TEST(where_files_are_short_it_is_memory) {
    enum { LIMIT = 5 * MIB };
    struct rlimit before, limit;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){.rlim_cur = LIMIT, .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    rt_weights weights = {0};
    rt_tensor little = {.bytes = 3 * MIB}, much = {.bytes = LIMIT};
    little.data = rt_weights_file_pages(&weights, 0, little.bytes);
    much.data = rt_weights_file_pages(&weights, 0, much.bytes);
    ck_assert(little.data && much.data);
    ck_assert(rt_weights_is_mapped(&weights, &little) && !rt_weights_is_mapped(&weights, &much));
    check_bytes(little.data, little.bytes, 0);
    check_bytes(much.data, much.bytes, 0);
    rt_weights_close(&weights);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
}
END_TEST

/* Giving back all of one pool takes nothing of another, and small things of one pool share pages. */
START_TEST(pools_lie_apart) {
    enum { EACH = 100, COUNT = 50 };
    rt_weights weights = {0};
    uint8_t *at[2][COUNT];
    for (int i = 0; i < COUNT; i++)
        for (int pool = 0; pool < 2; pool++) {
            at[pool][i] = rt_weights_file_pages(&weights, pool, EACH);
            ck_assert_ptr_nonnull(at[pool][i]);
            memset(at[pool][i], 2 * i + pool, EACH);
        }
    rt_weights_release(&weights);
    for (int pool = 0; pool < 2; pool++) ck_assert_int_lt(at[pool][COUNT - 1] - at[pool][0], COUNT * 2 * EACH);
    ck_assert_int_ge(llabs((long long)(at[0][0] - at[1][0])), 4096);
    for (int i = 0; i < COUNT; i++)
        for (int pool = 0; pool < 2; pool++) check_bytes(at[pool][i], EACH, (uint8_t)(2 * i + pool));
    rt_weights_close(&weights);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pool");
    TCase *tcase = tcase_create("files without a name and memory");
    tcase_add_loop_test(tcase, what_is_taken_lies_apart_and_comes_back, 0, 2);
    tcase_add_loop_test(tcase, a_pool_ends, 0, 2);
    tcase_add_test(tcase, where_files_are_short_it_is_memory);
    tcase_add_test(tcase, pools_lie_apart);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
