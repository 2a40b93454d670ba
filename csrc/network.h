/* What encoding and training ask of a model, whichever network it is: an encoder or a CNN. Level 2.
 *
 * Plan once. Then, for each batch, forward gives its relation vectors; and to train, begin, perhaps other losses on the
 * hidden states, and backward, which takes the vectors' gradients. */
#ifndef RP_NETWORK_H
#define RP_NETWORK_H

#include "cnn.h"
#include "model.h"
#include "represent.h"

typedef struct rp_network_sizes {
    int64_t vocab_size;         /* ids are below it */
    int64_t positions;          /* tokens of the longest sequence */
    int64_t most_dim;           /* of the vector, whichever representation */
    int64_t widest, head_size;  /* for rp_extent, */
    int64_t weight;             /* also; the masked words' head is in it */
    double initializer_range;   /* of what is drawn, also beside the network */
    int64_t tag_count[RP_TAGS]; /* tags are below it; 0: they are not read */
    bool bare;                  /* whether sequences are of words alone (rp_tokens) */
} rp_network_sizes;

typedef struct rp_network {
    const rp_params *params;
    rp_inputs inputs;
    rp_encoder encoder; /* its hidden and dhidden are where further losses read and add; of a CNN all 0 */
    rp_layer_memory *layers;
    rp_injection injection; /* of an encoder with a graph */
    rp_cnn cnn;
} rp_network;

rp_network_sizes rp_network_sizes_of(const rp_params *params);

/* VALUE where a network of these sizes cannot read what comes from there: ids or tags that it does not know, none where
 * it reads some, markers where it takes words alone or the other way round. */
rp_status rp_network_check_origin(const rp_network_sizes *sizes, const rp_origin *of);

/* Of the vector. A CNN has one representation, what it pools, and reads no `spec`. */
int64_t rp_network_dim(const rp_params *params, const rp_represent *spec);

/* Host memory of the network; close takes one that is all 0. The model's graph must be there, where it has one. */
rp_status rp_network_open(rp_network *network, const rp_model *model);
void rp_network_close(rp_network *network);

/* Takes the buffers from the arena; call with a measuring arena first. A CNN has nothing to spare. */
void rp_network_plan(rp_network *network, rp_arena *arena, const rp_capacity *most);

/* vectors(S,dim) of the batch. `also`: the masked tokens and those outside of spans whose hidden states are read too;
 * VALUE of a CNN, which has none. */
rp_status rp_network_forward(rp_network *network, rp_dev *dev, float *vectors, const float *values, rp_batch *batch,
                             const rp_represent *spec, const rp_reads *also, const rp_pass *pass);

/* Sets encoder.dhidden to 0. */
rp_status rp_network_begin(rp_network *network, rp_dev *dev);

/* Adds all gradients to `grads`, from dvectors(S,dim), or NULL where no loss looks at the vectors, and from what was
 * added to encoder.dhidden since rp_network_begin. After a forward pass of the same batch and pass, of a network
 * planned with `train`. */
rp_status rp_network_backward(rp_network *network, rp_dev *dev, const float *values, float *grads,
                              const float *dvectors, const rp_represent *spec, const rp_pass *pass);

#endif
