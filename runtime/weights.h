/* The table of a model's weight tensors: name -> type, shape, bytes. Filled by a file format reader
 * (frontend/safetensors.c, frontend/gguf.c, the .gmx reader), used by everything after it.
 *
 * Names are canonical, whatever the file calls them: the Hugging Face text-model suffixes
 * "embed_tokens.weight", "layers.3.self_attn.q_proj.weight", …, "norm.weight", "lm_head.weight".
 */
#ifndef GM_RUNTIME_WEIGHTS_H
#define GM_RUNTIME_WEIGHTS_H

#include "runtime/dtype.h"
#include "runtime/pool.h"

enum { RT_MAX_TENSOR_RANK = 4, RT_WEIGHT_POOLS = 3 };

typedef struct rt_tensor {
    const char *name;
    rt_dtype dtype;
    int rank;
    int64_t dim[RT_MAX_TENSOR_RANK]; /* slowest first: a matrix is [out, in] */
    const void *data;                /* borrowed from a mapping; NULL when only the shape is known */
    size_t bytes;
} rt_tensor;

typedef struct rt_mapping {
    void *address;
    size_t bytes;
    bool file;           /* else memory of our own */
    gm_file_id identity; /* of the file */
    const char *path;    /* of the file; NULL: it has no name */
} rt_mapping;

typedef struct rt_weights {
    gm_arena arena; /* names */
    rt_tensor *tensors;
    size_t count, capacity;
    rt_mapping *mappings;
    size_t mapping_count;
    rt_pool memory, pools[RT_WEIGHT_POOLS]; /* rt_weights_large_pages; rt_weights_file_pages */
} rt_weights;

/* Map a whole file read-only. GM_IO with the path and the system's reason. The mapping is owned by
 * `weights` and unmapped by rt_weights_close. */
gm_status rt_weights_map(rt_weights *weights, const char *path, gm_diag *diag, const uint8_t **out_data,
                         size_t *out_bytes);
/* Zero pages for a tensor that is made rather than read; owned by `weights`. NULL: out of memory. */
void *rt_weights_pages(rt_weights *weights, size_t bytes);
/* The same in large pages, where the system has them, beside other tensors (runtime/pool.h). */
void *rt_weights_large_pages(rt_weights *weights, size_t bytes);
/* The same in a file without a name: rt_release_pages takes them from the process, not from the page cache. What is of
 * one pool lies together, apart from what is of others. Where there is no such file or no room for it, memory as of
 * rt_weights_large_pages. */
void *rt_weights_file_pages(rt_weights *weights, int pool, size_t bytes);
/* The path of the mapped file in which the tensor's bytes lie; NULL: of none that has one. */
const char *rt_weights_path(const rt_weights *weights, const rt_tensor *tensor);
/* Whether the tensor's bytes lie in a mapped file. */
bool rt_weights_is_mapped(const rt_weights *weights, const rt_tensor *tensor);
/* Give back the pages of mapped files that are resident now: they come back from the page cache where they are read
 * again. */
void rt_weights_release(const rt_weights *weights);
/* Append a tensor (its name is copied). GM_FORMAT when the name is taken; `path` is for the message. */
gm_status rt_weights_add(rt_weights *weights, const char *path, const rt_tensor *tensor, gm_diag *diag);
const rt_tensor *rt_weights_find(const rt_weights *weights, const char *name);
/* Forget a tensor, if there is one of that name. */
void rt_weights_drop(rt_weights *weights, const char *name);
void rt_weights_close(rt_weights *weights);

#endif
