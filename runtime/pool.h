/* Memory in large pages, from which pieces are taken: in files without a name, whose pages can be given back and come
 * again from the page cache, or of the process's own. */
#ifndef GM_RUNTIME_POOL_H
#define GM_RUNTIME_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RT_LARGE_PAGE = 1 << 21 /* bytes */ };

/* A mapping of which the front is taken. Zero-initialise: there is nothing to take. */
typedef struct rt_pool {
    int file; /* -1: none */
    uint8_t *address;
    size_t bytes, used, filled; /* filled: bytes that the file has */
} rt_pool;

/* A pool from which at least `bytes` can be taken, in place of the one before, whose mapping stays. The caller unmaps
 * pool->bytes at pool->address. Of a file under TMPDIR, /tmp where that is not set; false: there is no such file, or it
 * may not become as long. The size of the mapping is pool->bytes at first: less when the file system has had no
 * room. */
bool rt_pool_open_file(rt_pool *pool, size_t bytes);
/* False: out of memory. */
bool rt_pool_open_memory(rt_pool *pool, size_t bytes);
/* Are so many bytes left? */
bool rt_pool_has(const rt_pool *pool, size_t bytes);
/* Zeros, at a multiple of 64 bytes; NULL: so many are not left, or the file system has no room. */
void *rt_pool_take(rt_pool *pool, size_t bytes);
/* What of a mapped file lies in [from, to) is read as a whole: where the page cache does not have it, it is read, kept
 * and mapped in large pages, if the file system can. */
void rt_pool_advise(const void *from, const void *to);
/* What is mapped stays so. */
void rt_pool_close(rt_pool *pool);

#endif
