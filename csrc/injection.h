/* Injection of a knowledge graph's entity embeddings at the markers: x = x + W g, with x the input embedding of an
 * entity's start marker before the embeddings' LayerNorm, g the entity's embedding in the graph, which stays as it is,
 * and W (E,size) a parameter, 0 at first, so that a model to which a graph is given computes what it did. (A linear map
 * of entity embeddings into the input: Poerner et al. 2020, E-BERT, section 3.1, there fitted beforehand; frozen
 * embeddings of a graph beside the text: Zhang et al. 2019, ERNIE, section 3.3, there in the upper layers.) Level 2. */
#ifndef RP_INJECTION_H
#define RP_INJECTION_H

#include "arena.h"
#include "batch.h"
#include "ops.h"
#include "params.h"

typedef struct rp_injection {
    const rp_params *params;
    const float *graph;  /* (rows,size) on the device; the model's */
    int64_t rows, K;     /* of the graph; mentions of the batch that get one */
    int32_t *at, *row;   /* (2S): (K) tokens of the batch, (K) rows of the graph */
    float *entity, *out; /* (2S,size), (2S,E): (K,size) g, (K,E) W g, or the gradient there */
} rp_injection;

/* Takes the buffers from the arena, none where the model has no graph; call with a measuring arena first. */
void rp_injection_plan(rp_injection *injection, rp_arena *arena, const rp_params *params, int64_t max_sequences);

/* Picks what the batch asks for. VALUE: of a graph that the model does not have, or has not in whole. */
rp_status rp_injection_upload(rp_injection *injection, rp_dev *dev, rp_batch *batch);

/* embedded(T,E) += W g at the markers; grads of W from dembedded(T,E). */
rp_status rp_injection_forward(rp_injection *injection, rp_dev *dev, float *embedded, const float *values);
rp_status rp_injection_backward(rp_injection *injection, rp_dev *dev, float *grads, const float *dembedded);

#endif
