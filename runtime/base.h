/* What every folder shares: status codes, diagnostics, assertions, checked sizes, the arena.
 *
 * Errors come in three classes. (1) The user or the environment: a gm_status, with one line stored
 * once in the gm_diag at the failing place; callers propagate with GM_TRY and never overwrite it.
 * (2) A broken invariant of ours: GM_ASSERT, which aborts. (3) Out of memory in a compile-time
 * arena aborts; large run-time allocations return GM_NOMEM.
 */
#ifndef GM_RUNTIME_BASE_H
#define GM_RUNTIME_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum gm_status {
#define STATUS(name, value, text) GM_##name = (value),
#include "runtime/status.def"
#undef STATUS
} gm_status;

/* Holds the first error message of an operation; zero-initialise before use. */
typedef struct gm_diag {
    char message[1024];
    bool set;
    bool quiet; /* suppresses warnings */
} gm_diag;

/* Store the message (unless one is set already) and return `code`, so that a failing site reads
 * `return gm_fail(diag, GM_FORMAT, "%s: expected …", path);`. */
gm_status gm_fail(gm_diag *diag, gm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Blanks the control characters of a message: the names and the contents of files, which it quotes, may be any bytes,
 * and it is to be one line all the same, with no orders to a terminal. Those of two bytes in UTF-8 lose the first. */
void gm_plain(char *text);
/* One line on stderr, prefixed "gemmac: warning: ". */
void gm_warn(const gm_diag *diag, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A static function that is compiled twice, also for CPUs with AVX2: the same operations, so the same results. (clang
 * 14 gives one that is not static a name under which other files do not find it.) */
#ifdef __clang__
#define GM_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define GM_EACH_CPU __attribute__((target_clones("arch=x86-64-v3", "default")))
#endif
#define GM_INLINE static inline __attribute__((always_inline)) /* into both */

#define GM_TRY(expr)                                                                                                   \
    do {                                                                                                               \
        gm_status gm_try_status_ = (expr);                                                                             \
        if (gm_try_status_ != GM_OK) return gm_try_status_;                                                            \
    } while (0)

_Noreturn void gm_abort(const char *file, int line, const char *what);
#define GM_ASSERT(cond)      ((cond) ? (void)0 : gm_abort(__FILE__, __LINE__, #cond))
#define GM_UNREACHABLE(what) gm_abort(__FILE__, __LINE__, what)
#define GM_COUNT(array)      (sizeof(array) / sizeof((array)[0]))

/* out = a * b; false on overflow. For any size computed from a file. */
static inline bool gm_mul_size(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

/* Bump allocator: memory is zeroed, 64-byte aligned on request of >= 64 bytes (16 otherwise), and
 * lives until gm_arena_free. Aborts when the system has no memory left. */
typedef struct gm_arena {
    struct gm_arena_block *head;
} gm_arena;

void *gm_arena_alloc(gm_arena *arena, size_t bytes);
char *gm_arena_strndup(gm_arena *arena, const char *text, size_t length);
char *gm_arena_strdup(gm_arena *arena, const char *text);
char *gm_arena_printf(gm_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gm_arena_free(gm_arena *arena);
#define GM_NEW(arena, type)          ((type *)gm_arena_alloc((arena), sizeof(type)))
#define GM_NEW_ARRAY(arena, type, n) ((type *)gm_arena_alloc((arena), sizeof(type) * (size_t)(n)))

/* Growable byte string on the heap; free with gm_string_free. Always NUL-terminated once used. */
typedef struct gm_string {
    char *data;
    size_t length, capacity;
} gm_string;
void gm_string_append(gm_string *string, const char *data, size_t length);
void gm_string_printf(gm_string *string, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gm_string_free(gm_string *string);

/* Seconds of the monotonic clock. */
double gm_now(void);

/* ---- files ---- */

/* What a file is the same by, whatever path leads to it. */
typedef struct gm_file_id {
    uint64_t device, inode;
} gm_file_id;
/* False: there is no such file. */
bool gm_file_identify(const char *path, gm_file_id *out);
static inline bool gm_same_file(gm_file_id a, gm_file_id b) {
    return a.device == b.device && a.inode == b.inode;
}

/* ---- hashes ---- */

#define GM_HASH UINT64_C(14695981039346656037) /* of nothing */
/* FNV-1a: the hash of what came before, and of these bytes behind it. */
static inline uint64_t gm_hash(uint64_t hash, const void *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const uint8_t *)data)[i]) * UINT64_C(1099511628211);
    return hash;
}

/* ---- text ---- */

/* Length 1..4 of the well-formed UTF-8 character at text[0..length), length > 0; 0: the first byte
 * is part of none; -1: text ends inside what may become one. */
static inline int gm_utf8_scan(const char *text, size_t length) {
    const uint8_t *byte = (const uint8_t *)text;
    uint8_t lead = byte[0], low = 0x80, high = 0xBF;
    if (lead < 0x80) return 1;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    int size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead == 0xE0) low = 0xA0;  /* overlong */
    if (lead == 0xED) high = 0x9F; /* surrogates */
    if (lead == 0xF0) low = 0x90;  /* overlong */
    if (lead == 0xF4) high = 0x8F; /* above U+10FFFF */
    for (int i = 1; i < size; i++) {
        if ((size_t)i == length) return -1;
        if (byte[i] < low || byte[i] > high) return 0;
        low = 0x80, high = 0xBF;
    }
    return size;
}

#endif
