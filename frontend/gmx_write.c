/* Writing an artefact: lay out, print the header, then everything in order through one large buffer. */
#include "frontend/gmx_impl.h"
#include "runtime/release.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20 }; /* stdio passes larger pieces on as they are */

/* ---- layout ---- */

typedef struct layout {
    gmx_header header;
    fe_gmx_section section[GMX_SECTIONS];
    gm_string vocab;
    char *json;
    size_t start, end; /* of the data, of the file */
} layout;

/* The next place for these bytes; *end is that of the data so far. */
static bool place_next(size_t bytes, size_t *end, gmx_place *out) {
    *out = (gmx_place){*end, bytes};
    return bytes <= SIZE_MAX - *end && gmx_align(*end + bytes, end);
}

static gm_status lay_out(const char *path, const fe_model *model, const fe_gmx *gmx, gm_diag *diag, layout *l) {
    const rt_weights *weights = &model->weights;
    size_t end = 0;
    bool fits = true;
    l->header = (gmx_header){.model = (fe_model *)model, .gmx = (fe_gmx *)gmx, .tensors = calloc(weights->count + 1, sizeof(gmx_place))}; /* only read */
    GM_ASSERT(l->header.tensors);
    gmx_vocab_write(&model->vocab, &l->vocab);
    l->section[GMX_VOCAB] = (fe_gmx_section){l->vocab.data, l->vocab.length};
    l->section[GMX_INDEX] = gmx->index, l->section[GMX_IR] = gmx->ir, l->section[GMX_PROGRAM] = gmx->program, l->section[GMX_OBJECT] = gmx->object;
    for (int i = 0; i < GMX_SECTIONS; i++) {
        fits &= place_next(l->section[i].bytes, &end, &l->header.section[i]);
        l->header.checksum[i] = gmx_checksum(l->section[i].data, l->section[i].bytes);
    }
    for (size_t i = 0; i < weights->count; i++) fits &= place_next(weights->tensors[i].bytes, &end, &l->header.tensors[i]);
    l->json = gmx_header_print(&l->header);
    fits &= gmx_align(FE_GMX_HEAD + strlen(l->json), &l->start) && end <= SIZE_MAX - l->start;
    l->end = l->start + end;
    return fits ? GM_OK : gm_fail(diag, GM_UNSUPPORTED, "%s: the artefact would be too large", path);
}

static void free_layout(layout *l) {
    free(l->header.tensors);
    gm_string_free(&l->vocab);
    cJSON_free(l->json);
}

/* ---- bytes ---- */

static bool write_padded(FILE *file, const void *data, size_t bytes) {
    static const char zeros[FE_GMX_ALIGN];
    size_t padding = (FE_GMX_ALIGN - bytes % FE_GMX_ALIGN) % FE_GMX_ALIGN;
    return fwrite(data ? data : zeros, 1, bytes, file) == bytes && fwrite(zeros, 1, padding, file) == padding;
}

static bool write_all(FILE *file, const layout *l) {
    uint8_t head[FE_GMX_HEAD] = "GMX1";
    uint32_t version = FE_GMX_VERSION;
    uint64_t json_bytes = strlen(l->json), end = l->end, checksum = gmx_checksum(l->json, json_bytes);
    const rt_weights *weights = &l->header.model->weights;
    memcpy(head + 4, &version, sizeof version);
    memcpy(head + 8, &end, sizeof end);
    memcpy(head + 16, &json_bytes, sizeof json_bytes);
    memcpy(head + 24, &checksum, sizeof checksum);
    checksum = gmx_checksum(head, 32);
    memcpy(head + 32, &checksum, sizeof checksum);
    bool ok = write_padded(file, head, sizeof head) && write_padded(file, l->json, json_bytes);
    for (int i = 0; i < GMX_SECTIONS && ok; i++) ok = write_padded(file, l->section[i].data, l->section[i].bytes);
    for (size_t i = 0; i < weights->count && ok; i++) {
        const rt_tensor *tensor = &weights->tensors[i];
        ok = write_padded(file, tensor->data, tensor->bytes);
        if (rt_weights_is_mapped(weights, tensor)) rt_release_pages(tensor->data, (const char *)tensor->data + tensor->bytes);
    }
    return ok;
}

/* ---- the file ---- */

/* A file beside `path` with the mode that a new file gets; its name goes to *out_name. */
static int open_beside(const char *path, gm_string *out_name) {
    gm_string_printf(out_name, "%s.XXXXXX", path);
    int fd = mkstemp(out_name->data);
    mode_t mask = umask(0);
    umask(mask);
    if (fd >= 0) fchmod(fd, 0666 & ~mask);
    return fd;
}

static gm_status write_file(const char *path, const layout *l, gm_diag *diag) {
    struct stat info;
    gm_string name = {0};
    bool direct = stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    int fd = direct ? open(path, O_WRONLY | O_CLOEXEC) : open_beside(path, &name);
    FILE *file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    char *buffer = malloc(BUFFER_BYTES);
    if (file && buffer) setvbuf(file, buffer, _IOFBF, BUFFER_BYTES);
    bool ok = file && write_all(file, l);
    int reason = errno;
    if (file && fclose(file) != 0 && ok) ok = false, reason = errno;
    if (ok && !direct && rename(name.data, path) != 0) ok = false, reason = errno;
    if (!ok && !direct && fd >= 0) unlink(name.data);
    free(buffer);
    gm_string_free(&name);
    return ok ? GM_OK : gm_fail(diag, GM_IO, "%s: cannot write: %s", path, strerror(reason));
}

gm_status fe_gmx_write(const char *path, const fe_model *model, const fe_gmx *gmx, gm_diag *diag) {
    layout l = {0};
    gm_status status = lay_out(path, model, gmx, diag, &l);
    if (status == GM_OK) status = write_file(path, &l, diag);
    free_layout(&l);
    return status;
}
