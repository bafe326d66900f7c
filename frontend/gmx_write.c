/* Writing an artefact while it is made: a thread of the writer's own puts tensors into the file as they are handed
 * over, and when all is known sections, header and head follow. The file has no name before it is complete, where the
 * file system can do that.
 *
 * What is written at once stays together in the page cache, and in memory where it is read (runtime/pool.c): large
 * pages of what was derived to be read as a whole, small ones of the model's own tensors, of which single rows of the
 * embedding are read. */
#include "frontend/gmx_impl.h"
#include "frontend/new_file.h"
#include "runtime/derive.h"
#include "runtime/pool.h"
#include "runtime/release.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    LARGE = RT_LARGE_PAGE,
    SMALL = 1 << 16 /* blocks of the file, each written at once */,
    LET_GO_BYTES = 1 << 24 /* of a mapped model or of what is derived, when so many bytes are read */,
    MOST_WAITING = 1 << 28 /* bytes that are derived and not written: whoever derives waits for the writer then */
};

/* Bytes of the data part. */
typedef struct piece {
    const char *name; /* of the tensor; NULL: a section */
    const void *data;
    gmx_place place;
    bool derived; /* and in memory of this process's own */
    bool last;    /* nobody reads it after this, or its pages can be read from their file again */
    size_t block; /* LARGE or SMALL */
} piece;

struct fe_gmx_writer {
    gm_arena arena;   /* path, names of pieces */
    fe_new_file file; /* where that writes through it is written from front to back, when all is known */
    pthread_t thread;
    bool threaded, closed; /* closed: no more pieces come */
    pthread_mutex_t lock;
    pthread_cond_t changed, less; /* less: is waiting */
    piece *pieces;
    size_t count, capacity, written; /* pieces, the first of which are written */
    size_t waiting;                  /* bytes of the others that are derived */
    size_t end;                      /* of the data so far */
    /* what is to be written next: `staged` bytes, at `at` of the file; of the thread alone */
    char *block;
    size_t staged, at;
    int reason; /* errno of what failed, 0: nothing */
    atomic_bool abandoned;
};

/* ---- bytes ---- */

/* All of them. False: see errno. */
static bool put(const fe_gmx_writer *w, const void *data, size_t bytes, size_t offset) {
    return (errno = fe_new_file_put(&w->file, data, bytes, offset)) == 0;
}

static bool put_block(fe_gmx_writer *w) {
    bool ok = put(w, w->block, w->staged, w->at);
    w->at += w->staged;
    w->staged = 0;
    return ok;
}

/* After all that came before; written when it fills a block of the file. */
static bool stage(fe_gmx_writer *w, const void *data, size_t bytes, size_t block) {
    for (size_t done = 0; done < bytes;) {
        size_t left = block - (w->at + w->staged) % block, n = bytes - done < left ? bytes - done : left;
        memcpy(w->block + w->staged, (const char *)data + done, n);
        w->staged += n;
        done += n;
        if (n == left && !put_block(w)) return false;
    }
    return true;
}

/* With zeros to the next piece. */
static bool stage_piece(fe_gmx_writer *w, const piece *p) {
    static const char zeros[FE_GMX_ALIGN];
    size_t bytes = p->place.bytes, padding = (FE_GMX_ALIGN - bytes % FE_GMX_ALIGN) % FE_GMX_ALIGN;
    for (size_t done = 0; done < bytes;) {
        if (atomic_load(&w->abandoned)) return false;
        size_t n = bytes - done < LET_GO_BYTES ? bytes - done : LET_GO_BYTES;
        const char *from = (const char *)p->data + done;
        if (!stage(w, from, n, p->block)) return false;
        if (p->last) rt_release_pages(from, from + n);
        done += n;
    }
    return stage(w, zeros, padding, p->block);
}

/* ---- the thread ---- */

/* The next piece into *out; false: no more come, or something failed. */
static bool next_piece(fe_gmx_writer *w, piece *out) {
    pthread_mutex_lock(&w->lock);
    while (w->written == w->count && !w->closed) pthread_cond_wait(&w->changed, &w->lock);
    bool any = w->written < w->count && !w->reason && !atomic_load(&w->abandoned);
    if (any) *out = w->pieces[w->written];
    pthread_mutex_unlock(&w->lock);
    return any;
}

/* done: a piece, or NULL. */
static void note_written(fe_gmx_writer *w, const piece *done, int reason) {
    pthread_mutex_lock(&w->lock);
    if (done) w->written++;
    if (done && done->derived) w->waiting -= done->place.bytes;
    if (!w->reason) w->reason = reason;
    pthread_cond_broadcast(&w->less);
    pthread_mutex_unlock(&w->lock);
}

static void *write_pieces(void *argument) {
    fe_gmx_writer *w = argument;
    for (piece p; next_piece(w, &p);) note_written(w, &p, stage_piece(w, &p) ? 0 : errno);
    if (!atomic_load(&w->abandoned)) note_written(w, NULL, put_block(w) ? 0 : errno);
    return NULL;
}

/* False on overflow. */
static bool add_piece(fe_gmx_writer *w, piece p, size_t bytes) {
    p.place = (gmx_place){w->end, bytes};
    if (bytes > SIZE_MAX - w->end || !gmx_align(w->end + bytes, &w->end)) return false;
    pthread_mutex_lock(&w->lock);
    while (p.derived && w->threaded && w->waiting > MOST_WAITING && !w->reason) pthread_cond_wait(&w->less, &w->lock);
    if (p.derived) w->waiting += bytes;
    if (w->count == w->capacity) {
        w->capacity = w->capacity ? 2 * w->capacity : 64;
        w->pieces = realloc(w->pieces, w->capacity * sizeof *w->pieces);
        GM_ASSERT(w->pieces);
    }
    w->pieces[w->count++] = p;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return true;
}

/* All pieces are written when it returns, unless something failed. */
static void close_pieces(fe_gmx_writer *w) {
    pthread_mutex_lock(&w->lock);
    w->closed = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (w->threaded) pthread_join(w->thread, NULL);
    else write_pieces(w);
    w->threaded = false;
}

/* ---- the file ---- */

gm_status fe_gmx_begin(const char *path, gm_diag *diag, fe_gmx_writer **out) {
    fe_gmx_writer *w = calloc(1, sizeof *w);
    GM_ASSERT(w);
    w->block = malloc(LARGE);
    GM_ASSERT(w->block);
    w->at = FE_GMX_HEAD;
    gm_status status = fe_new_file_open(gm_arena_strdup(&w->arena, path), diag, &w->file);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    pthread_cond_init(&w->less, NULL);
    *out = w;
    if (status == GM_OK) {
        w->threaded = !w->file.through && pthread_create(&w->thread, NULL, write_pieces, w) == 0;
        return GM_OK;
    }
    fe_gmx_abandon(w);
    *out = NULL;
    return status;
}

void fe_gmx_abandon(fe_gmx_writer *w) {
    if (!w) return;
    atomic_store(&w->abandoned, true);
    close_pieces(w);
    if (w->file.fd >= 0) fe_new_file_close(&w->file, GM_IO, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    pthread_cond_destroy(&w->less);
    free(w->pieces);
    free(w->block);
    gm_arena_free(&w->arena);
    free(w);
}

/* ---- parts ---- */

static const piece *piece_of(const fe_gmx_writer *w, const char *tensor) {
    for (size_t i = 0; i < w->count; i++)
        if (w->pieces[i].name && strcmp(w->pieces[i].name, tensor) == 0) return &w->pieces[i];
    return NULL;
}

gm_status fe_gmx_add(fe_gmx_writer *w, const rt_weights *weights, const rt_tensor *tensor, gm_diag *diag) {
    bool derived = rt_derived_kind(tensor->name) != RT_DERIVED_COUNT, mapped = rt_weights_is_mapped(weights, tensor);
    piece p = {.name = gm_arena_strdup(&w->arena, tensor->name),
               .data = tensor->data,
               .derived = derived && !mapped,
               .last = derived || mapped};
    p.block = derived ? LARGE : SMALL;
    pthread_mutex_lock(&w->lock);
    int reason = w->reason;
    pthread_mutex_unlock(&w->lock);
    if (reason) return fe_new_file_failed(&w->file, reason, diag);
    return add_piece(w, p, tensor->bytes)
               ? GM_OK
               : gm_fail(diag, GM_UNSUPPORTED, "%s: the artefact would be too large", w->file.path);
}

/* Hands over the sections, and says where everything lies. */
static gm_status lay_out(fe_gmx_writer *w, const fe_gmx_section *sections, gmx_header *header, gm_diag *diag) {
    const rt_weights *weights = &header->model->weights;
    header->tensors = GM_NEW_ARRAY(&w->arena, gmx_place, weights->count + 1);
    for (size_t i = 0; i < weights->count; i++) {
        const piece *p = piece_of(w, weights->tensors[i].name);
        GM_ASSERT(p);
        header->tensors[i] = p->place;
    }
    for (int i = 0; i < GMX_SECTIONS; i++) {
        header->section[i] = (gmx_place){w->end, sections[i].bytes};
        header->checksum[i] = gmx_checksum(sections[i].data, sections[i].bytes);
        if (!add_piece(w, (piece){.data = sections[i].data, .block = SMALL}, sections[i].bytes))
            return gm_fail(diag, GM_UNSUPPORTED, "%s: the artefact would be too large", w->file.path);
    }
    return GM_OK;
}

static void make_head(const fe_gmx_writer *w, const char *json, uint8_t *head) {
    uint32_t version = FE_GMX_VERSION;
    uint64_t json_bytes = strlen(json), end = FE_GMX_HEAD + w->end + json_bytes,
             checksum = gmx_checksum(json, json_bytes);
    memset(head, 0, FE_GMX_HEAD);
    memcpy(head, "GMX1", 4);
    memcpy(head + 4, &version, sizeof version);
    memcpy(head + 8, &end, sizeof end);
    memcpy(head + 16, &json_bytes, sizeof json_bytes);
    memcpy(head + 24, &checksum, sizeof checksum);
    checksum = gmx_checksum(head, 32);
    memcpy(head + 32, &checksum, sizeof checksum);
}

/* 0, else the errno of what failed. */
static int put_all(fe_gmx_writer *w, const char *json) {
    uint8_t head[FE_GMX_HEAD];
    make_head(w, json, head);
    if (!put(w, head, sizeof head, 0)) return errno;
    close_pieces(w);
    if (w->reason) return w->reason;
    return put(w, json, strlen(json), FE_GMX_HEAD + w->end) ? 0 : errno;
}

gm_status fe_gmx_finish(fe_gmx_writer *w, const fe_model *model, const fe_gmx *gmx, gm_diag *diag) {
    gmx_header header = {.model = (fe_model *)model, .gmx = (fe_gmx *)gmx}; /* only read */
    gm_string vocab = {0};
    gmx_vocab_write(&model->vocab, &vocab);
    const fe_gmx_section sections[GMX_SECTIONS] = {[GMX_VOCAB] = {vocab.data, vocab.length},
                                                   [GMX_INDEX] = gmx->index,
                                                   [GMX_IR] = gmx->ir,
                                                   [GMX_PROGRAM] = gmx->program,
                                                   [GMX_OBJECT] = gmx->object};
    gm_status status = lay_out(w, sections, &header, diag);
    if (status == GM_OK) {
        char *json = gmx_header_print(&header);
        int reason = put_all(w, json);
        status = reason ? fe_new_file_failed(&w->file, reason, diag) : fe_new_file_close(&w->file, GM_OK, diag);
        cJSON_free(json);
    }
    fe_gmx_abandon(w); /* what is left of it; a thread that still writes has to end before the file is closed */
    gm_string_free(&vocab);
    return status;
}
