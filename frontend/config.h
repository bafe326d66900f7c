/* A validated Gemma configuration, whatever spelling it was read from. */
#ifndef GM_FRONTEND_CONFIG_H
#define GM_FRONTEND_CONFIG_H

#include "runtime/abi.h"
#include "runtime/dtype.h"

enum { FE_MAX_LAYERS = 256 };

typedef enum fe_generation { FE_GEMMA1 = 1, FE_GEMMA2 = 2, FE_GEMMA3 = 3 } fe_generation;

typedef struct fe_rope {
    double theta;  /* base */
    double factor; /* linear scaling: inverse frequencies are divided by it; 1 = none */
} fe_rope;

typedef struct fe_config {
    fe_generation generation;
    int64_t vocab, hidden, ffn, layers, heads, kv_heads, head_dim, context;
    int64_t window; /* keys visible on local layers, the query's own included; 0: no local layers */
    double norm_eps;
    double attention_scale;          /* multiplies q·k */
    double attention_cap, final_cap; /* soft caps; 0: none */
    fe_rope rope_global, rope_local;
    bool local[FE_MAX_LAYERS]; /* layer i sees only its window and uses rope_local */
    bool tied;                 /* the head is the embedding table */
    bool attention_bias;       /* q,k,v,o have bias tensors */
    bool norm_plus_one;        /* norm weights are stored as w and used as 1+w (safetensors); GGUF stores 1+w */
    bool gelu_erf;             /* exact erf GELU instead of the tanh form */
    rt_dtype storage;          /* dtype/torch_dtype: type of the weights when only the config is known */
    int32_t bos;               /* -1: none */
    int32_t stops[RT_MAX_STOPS];
    int stop_count; /* eos ids: union of config and generation_config */
} fe_config;

#endif
