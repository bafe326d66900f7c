/* Memory in large pages of 2 MiB: one is mapped by one fault, needs one entry of the TLB, and is given back as a whole.
 * Small things lie together, so that they too are in one. A file system that can keeps a file in the page cache in as
 * large pieces as were written at once, and maps such a piece as a large page: so the bytes of a file are written as
 * zeros, a large page at a time, before they are used. */
#include "runtime/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { POOL = 64 << 20, ALIGN = 64 };

static size_t rounded(size_t bytes, size_t to) {
    return (bytes + to - 1) / to * to;
}

void rt_pool_advise(const void *from, const void *to) {
    uintptr_t first = rounded((uintptr_t)from, RT_LARGE_PAGE);
    if (first < (uintptr_t)to) madvise((void *)first, (uintptr_t)to - first, MADV_HUGEPAGE);
}

void rt_pool_close(rt_pool *pool) {
    if (pool->address && pool->file >= 0) close(pool->file);
    *pool = (rt_pool){0};
}

/* Takes the file over. */
static bool map_pool(rt_pool *pool, size_t size, int file, int flags) {
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, file, 0);
    if (address == MAP_FAILED) {
        if (file >= 0) close(file);
        return false;
    }
    *pool = (rt_pool){.file = file, .address = address, .bytes = size};
    return true;
}

/* Of a pool for `bytes`, where no more than `limit` can be had; 0: too little. A longer file than RLIMIT_FSIZE would
 * end the process. */
static size_t size_for(size_t bytes, size_t limit) {
    size_t size = rounded(bytes < POOL ? POOL : bytes, RT_LARGE_PAGE);
    if (size > limit) size = limit / RT_LARGE_PAGE * RT_LARGE_PAGE;
    return size < bytes ? 0 : size;
}

bool rt_pool_open_file(rt_pool *pool, size_t bytes) {
    const char *folder = getenv("TMPDIR");
    struct rlimit limit;
    size_t size = size_for(
        bytes, getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < SIZE_MAX ? (size_t)limit.rlim_cur : SIZE_MAX);
    rt_pool_close(pool);
    if (!size) return false;
    int file = open(folder && *folder ? folder : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return file >= 0 && map_pool(pool, size, file, MAP_SHARED);
}

bool rt_pool_open_memory(rt_pool *pool, size_t bytes) {
    size_t size = size_for(bytes, SIZE_MAX), least = size ? rounded(bytes, RT_LARGE_PAGE) : 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    rt_pool_close(pool);
    if (!size || !(map_pool(pool, size, -1, flags) || map_pool(pool, least, -1, flags))) return false;
    madvise(pool->address, pool->bytes, MADV_HUGEPAGE); /* where the system has them */
    return true;
}

bool rt_pool_has(const rt_pool *pool, size_t bytes) {
    return bytes <= pool->bytes - pool->used;
}

/* So that the file has the first `bytes`; what is mapped beyond its end cannot be touched. */
static bool fill(rt_pool *pool, size_t bytes) {
    static char zeros[RT_LARGE_PAGE]; /* never written: no memory of its own */
    while (pool->file >= 0 && pool->filled < bytes) {
        size_t left = RT_LARGE_PAGE - pool->filled % RT_LARGE_PAGE;
        ssize_t n = pwrite(pool->file, zeros, left, (off_t)pool->filled);
        if (n > 0) pool->filled += (size_t)n;
        else if (n == 0 || errno != EINTR) return false;
    }
    return true;
}

/* What nobody has taken goes back to the file system, which has no room. */
static void end_early(rt_pool *pool) {
    if (ftruncate(pool->file, (off_t)pool->used) == 0) pool->bytes = pool->filled = pool->used;
}

void *rt_pool_take(rt_pool *pool, size_t bytes) {
    if (!rt_pool_has(pool, bytes)) return NULL;
    if (!fill(pool, pool->used + bytes)) {
        end_early(pool);
        return NULL;
    }
    void *taken = pool->address + pool->used;
    pool->used = rounded(pool->used + bytes, ALIGN);
    return taken;
}
