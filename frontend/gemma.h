/* Gemma 1, 2 and 3 as naive IR. */
#ifndef GM_FRONTEND_GEMMA_H
#define GM_FRONTEND_GEMMA_H

#include "frontend/config.h"
#include "ir/ir.h"
#include "runtime/weights.h"

/* Build the module of a model: symbols T (tokens of a call), S (KV capacity) and R
 * (rows of a head call) and
 *   @forward(ids i32[T], position i32, k f32[L,S,KV,D], v f32[L,S,KV,D]) -> (x f32[T,h], k, v)
 *     the residual stream after the last layer, and the caches with T entries written from `position` on;
 *   @head(x f32[R,h]) -> logits f32[R,V].
 * weights: tells each tensor's stored type; a tensor missing there (no weights at hand) gets config->storage.
 * The caller owns the module. */
ir_module *fe_gemma_build(const fe_config *config, const rt_weights *weights);

#endif
