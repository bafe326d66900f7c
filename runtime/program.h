/* What a session needs to know of a compiled program: entries, sizes, tables. Filled by frontend/engine_program.c and
 * frontend/engine_weights.c. */
#ifndef GM_RUNTIME_PROGRAM_H
#define GM_RUNTIME_PROGRAM_H

#include "runtime/abi.h"
#include "runtime/residency.h"

#include <stdbool.h>

enum { RT_MAX_ARGS = 16, RT_MAX_RESULTS = 16, RT_MAX_DIMS = 16 };

/* One compiled function; alias[i] is the parameter whose memory result i takes over, -1: none. */
typedef struct rt_function {
    rt_entry entry; /* NULL: the program has no such function */
    int alias[RT_MAX_RESULTS];
} rt_function;

typedef struct rt_program {
    const char *model;    /* its path, for messages */
    rt_function forward;  /* (ids[T], position, caches…) -> (x[T,h], caches…), T <= chunk */
    rt_function step;     /* the same at T = 1 */
    rt_function head;     /* (x[R,h]) -> logits[R,V], R <= rows */
    rt_function head_one; /* the same at R = 1 */
    rt_function prefill;  /* (tokens[S], start, count, caches…) -> (x[1,h], caches…) */
    /* (x, tokens, position, count, options, seed, stops, caches…) -> (x, tokens, position, stopped, caches…) */
    rt_function generate;
    int64_t hidden, vocab, context, chunk, rows;
    int64_t steps;                      /* prompts of at most so many tokens go through `step`, where there is one */
    int64_t cache_bytes[RT_MAX_CACHES]; /* zeros at first; what lies in them is the program's own business */
    int cache_count;
    bool forgets;              /* a cache is a ring (kv_ring): old tokens are overwritten */
    int64_t dims[RT_MAX_DIMS]; /* value of each module symbol unless a call binds it */
    int dim_t, dim_r;          /* numbers of the symbols T and R, -1: none */
    int64_t arena_bytes, scratch_bytes;
    const void *const *weights;
    const rt_source *sources; /* weights whose pages are given back while they are not needed (residency.h) */
    int source_count;
    const rt_site *sites;
    int site_count;
} rt_program;

#endif
