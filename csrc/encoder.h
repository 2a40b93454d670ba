/* The encoder of BERT (Devlin et al. 2019) and its relatives, forward and backward on a packed batch. Level 2.
 *
 *   x0 = [W_e] dropout(LN(word + position [+ type]));  per layer: h = LN(x + [dropout](W_o attention(W_qkv x)));
 *   x' = LN(h + [dropout](W_2 gelu(W_1 h))). The pooler is not part of it. What stands in [] is not in each of them
 *   (rp_config). E is the embeddings' size, H where they are not projected. */
#ifndef RP_ENCODER_H
#define RP_ENCODER_H

#include <stdbool.h>

#include "injection.h"
#include "inputs.h"
#include "params.h"

/* Dropout of a pass; all 0 for encoding. */
typedef struct rp_pass {
    double hidden_dropout, attention_dropout; /* probabilities, below 1 */
    uint64_t seed;
    uint32_t step;
} rp_pass;

/* An activation that a layer keeps for its backward pass: numbers of its own, or, where the encoder is narrow, their
 * 16 bits, while the numbers themselves stand in memory that all layers share. */
typedef struct rp_activations {
    float *own;
    uint16_t *kept;
} rp_activations;

typedef struct rp_layer_memory {
    rp_activations qkv;                /* (T,3H), or where not all rows are read: k and v (T,2H), then q (R,H) */
    float *lse;                        /* (A,T) */
    float *sum1, *mean1, *rstd1;       /* (T,H), (T), (T) */
    rp_activations pre;                /* (T,F) before GELU */
    float *sum2, *mean2, *rstd2, *out; /* (T,H), (T), (T), (T,H); every other layer's `out` is the same */
} rp_layer_memory;

/* One run's workspace; the buffers of T, R and N rows are laid out anew for each batch. Without `train` all layers
 * share one set of buffers and nothing is kept for a backward pass. */
typedef struct rp_encoder {
    const rp_params *params;
    bool train;
    bool rounds;                     /* products in bfloat16, */
    bool narrow;                     /* and training: see rp_activations */
    bool bits;                       /* whether the back end takes and gives operands as bits then */
    rp_injection *injection;         /* of a graph at the markers; NULL: none */
    float *embedded, *mean, *rstd;   /* (T,E), (T), (T): before the embeddings' LN */
    float *normed, *first;           /* (T,E), (T,H): after it (+ dropout), and projected; without projection one */
    float *dembedded, *dnormed;      /* (T,E) where embeddings are projected: gradients */
    float *no_type;                  /* (2,E) where there are no token types: zeros in their place, and a place
                                        for their gradient, which nobody reads */
    rp_layer_memory *layers;         /* (L) host */
    float *hidden;                   /* (T,H) the last layer's output; rows that are not read are 0 */
    float *mid;                      /* (T,H) behind the attention, and then its LN, of one layer at a time */
    float *act;                      /* (T,F) after GELU, of one layer at a time; see spare. Of a narrow one,
                                        and in encoding, (T, max(F,3H)): q, k and v and the feed-forward in turns */
    float *residual, *spread;        /* (R,H), (T,H) where not all rows are read: of those in, of all out */
    float *dhidden, *dother, *dwide; /* (T,H), (T,H), (T, max(F,3H)) gradients; of the first two see bits */
    float *dread;                    /* (R,H) that of the rows that are read */
    float *spare;                    /* memory that is free between forward and backward: act and dwide */
    char *memory;                    /* of the buffers of a batch */
    size_t bytes;
} rp_encoder;

/* What a run needs buffers for. */
typedef struct rp_capacity {
    int64_t sequences, tokens; /* of a batch, at most */
    bool train;                /* whether a backward pass follows */
    rp_dtype products;
    int64_t spare; /* floats that are to be there at encoder->spare, at least */
} rp_capacity;

/* Takes the buffers from the arena; call with a measuring arena first. `layers` is host memory (L) of the caller's. */
void rp_encoder_plan(rp_encoder *encoder, rp_arena *arena, rp_layer_memory *layers, const rp_params *params,
                     const rp_capacity *most);

/* Whether the inputs of its batches may be filled up (rp_inputs_upload). */
bool rp_encoder_may_fill(const rp_params *params);

/* encoder->hidden from inputs. Inputs' positions and ids must be in range (the batch builder's are). */
rp_status rp_encoder_forward(rp_encoder *encoder, rp_dev *dev, const float *values, const rp_inputs *inputs,
                             const rp_pass *pass);

/* From encoder->dhidden (T,H), which is used up and of which only rows that are read count, adds all gradients to
 * `grads`. After a forward pass with the same inputs and pass, of an encoder planned with `train`. */
rp_status rp_encoder_backward(rp_encoder *encoder, rp_dev *dev, const float *values, float *grads,
                              const rp_inputs *inputs, const rp_pass *pass);

#endif
