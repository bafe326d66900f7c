/* Diagnostics, the arena, the growable string and the clock. */
#include "runtime/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

gm_status gm_fail(gm_diag *diag, gm_status code, const char *format, ...) {
    if (diag && !diag->set) {
        va_list args;
        va_start(args, format);
        vsnprintf(diag->message, sizeof diag->message, format, args);
        va_end(args);
        diag->set = true;
    }
    return code;
}

void gm_plain(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        bool pair = *c == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0;
        if (pair) *c++ = ' ';
        if (pair || *c < 0x20 || *c == 0x7F) *c = ' ';
    }
}

void gm_warn(const gm_diag *diag, const char *format, ...) {
    if (diag && diag->quiet) return;
    char message[sizeof diag->message];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    gm_plain(message);
    fprintf(stderr, "gemmac: warning: %s\n", message);
}

void gm_abort(const char *file, int line, const char *what) {
    fprintf(stderr, "gemmac: internal error at %s:%d: %s\n", file, line, what);
    abort();
}

/* ---- arena ---- */

enum { ARENA_BLOCK_BYTES = 64 * 1024 };

typedef struct gm_arena_block {
    struct gm_arena_block *next;
    size_t used, size;
    char *data;
} gm_arena_block;

static gm_arena_block *arena_grow(gm_arena *arena, size_t bytes) {
    size_t size = bytes > ARENA_BLOCK_BYTES ? bytes : ARENA_BLOCK_BYTES;
    gm_arena_block *block = malloc(sizeof *block);
    char *data = aligned_alloc(64, (size + 63) & ~(size_t)63);
    if (!block || !data) gm_abort(__FILE__, __LINE__, "out of memory");
    *block = (gm_arena_block){.next = arena->head, .size = size, .data = data};
    arena->head = block;
    return block;
}

void *gm_arena_alloc(gm_arena *arena, size_t bytes) {
    size_t align = bytes >= 64 ? 64 : 16;
    gm_arena_block *block = arena->head;
    size_t start = block ? (block->used + align - 1) & ~(align - 1) : 0;
    if (!block || start > block->size || block->size - start < bytes) {
        block = arena_grow(arena, bytes);
        start = 0;
    }
    block->used = start + bytes;
    memset(block->data + start, 0, bytes);
    return block->data + start;
}

char *gm_arena_strndup(gm_arena *arena, const char *text, size_t length) {
    char *copy = gm_arena_alloc(arena, length + 1);
    if (length) memcpy(copy, text, length);
    return copy;
}

char *gm_arena_strdup(gm_arena *arena, const char *text) {
    return gm_arena_strndup(arena, text, strlen(text));
}

char *gm_arena_printf(gm_arena *arena, const char *format, ...) {
    GM_ASSERT(format); /* without this gcc warns under the sanitizers */
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    GM_ASSERT(length >= 0);
    char *text = gm_arena_alloc(arena, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void gm_arena_free(gm_arena *arena) {
    for (gm_arena_block *block = arena->head, *next; block; block = next) {
        next = block->next;
        free(block->data);
        free(block);
    }
    arena->head = NULL;
}

/* ---- growable string ---- */

void gm_string_append(gm_string *string, const char *data, size_t length) {
    size_t need = string->length + length + 1;
    if (need > string->capacity) {
        size_t capacity = string->capacity ? string->capacity : 256;
        while (capacity < need) capacity *= 2;
        string->data = realloc(string->data, capacity);
        if (!string->data) gm_abort(__FILE__, __LINE__, "out of memory");
        string->capacity = capacity;
    }
    if (length) memcpy(string->data + string->length, data, length);
    string->length += length;
    string->data[string->length] = '\0';
}

void gm_string_printf(gm_string *string, const char *format, ...) {
    char small[512];
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    GM_ASSERT(length >= 0);
    if ((size_t)length < sizeof small) {
        gm_string_append(string, small, (size_t)length);
    } else {
        char *large = malloc((size_t)length + 1);
        if (!large) gm_abort(__FILE__, __LINE__, "out of memory");
        vsnprintf(large, (size_t)length + 1, format, again);
        gm_string_append(string, large, (size_t)length);
        free(large);
    }
    va_end(again);
}

void gm_string_free(gm_string *string) {
    free(string->data);
    *string = (gm_string){0};
}

double gm_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- files ---- */

bool gm_file_identify(const char *path, gm_file_id *out) {
    struct stat info;
    if (stat(path, &info) != 0) return false;
    *out = (gm_file_id){(uint64_t)info.st_dev, (uint64_t)info.st_ino};
    return true;
}
