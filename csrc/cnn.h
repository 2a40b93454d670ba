/* The convolutional network of relation extraction (Nguyen and Grishman 2015) and its piecewise form, PCNN (Zeng et al.
 * 2015), forward and backward on a packed batch. Level 2.
 *
 *   x = [word, position to the head, position to the tail [, part of speech] [, kind of named entity]]     (T,E)
 *   c = K window(x) + b                                     (T,C), beyond a sentence's ends x is 0
 *   p = max of c over the sentence, or over each of its three pieces, 0 over an empty one      (S,C) or (S,3C)
 *   vector = dropout(f(p)), f tanh or max(x, 0)
 *
 * f rises, so that it gives the same before the maximum as behind it. What stands in [] is there by option. */
#ifndef RP_CNN_H
#define RP_CNN_H

#include <stdbool.h>

#include "arena.h"
#include "encoder.h"

typedef struct rp_cnn_config {
    int64_t vocab_size, word_size;
    int64_t max_distance, position_size;           /* words further off than max_distance count as at it */
    int64_t tag_count[RP_TAGS], tag_size[RP_TAGS]; /* tags, 0 among them; size 0: they are not read */
    int64_t window, hidden_size;                   /* W; C */
    bool piecewise;                                /* PCNN */
    rp_activation activation;
    double initializer_range; /* of the embeddings; the convolution's is Glorot and Bengio's (2010) */
} rp_cnn_config;

/* Offsets of the parameters. */
typedef struct rp_cnn_params {
    rp_cnn_config config;
    int64_t word, position[2]; /* (V,word_size), (2 max_distance + 1,position_size) to head and tail */
    int64_t tag[RP_TAGS];      /* (tag_count,tag_size); -1: not read */
    int64_t weight, bias;      /* (C,W E), the window's places one after another; (C) */
} rp_cnn_params;

/* Builds a CNN's table. VALUE names the field that is out of range. */
rp_status rp_cnn_params_new(rp_params **out, const rp_cnn_config *config);

int64_t rp_cnn_width(const rp_cnn_config *config); /* E */
int64_t rp_cnn_dim(const rp_cnn_config *config);   /* of the vector: C or 3C */

/* One run's workspace. */
typedef struct rp_cnn {
    const rp_cnn_params *params;
    int32_t *distance[2], *tags[RP_TAGS];  /* (T) of the batch */
    int32_t *cu_pieces;                    /* (3S+1) */
    float *embedded, *windows, *states;    /* (T,E), (T,W,E), (T,C) */
    float *pooled;                         /* (S,dim) behind f, before dropout */
    int32_t *row;                          /* (S,dim) where the maxima stand */
    float *dpooled;                        /* (S,dim) gradients, where it is planned with `train` */
    float *dembedded, *dwindows, *dstates; /* (T,E), (T,W,E), (T,C) */
} rp_cnn;

/* Takes the buffers from the arena; call with a measuring arena first. */
void rp_cnn_plan(rp_cnn *cnn, rp_arena *arena, const rp_params *params, int64_t max_sequences, int64_t max_tokens,
                 bool train);

/* The words, tags and places of the batch, and the step, on the device; inputs are planned by rp_inputs_plan. */
rp_status rp_cnn_upload(rp_cnn *cnn, rp_inputs *inputs, rp_dev *dev, rp_batch *batch, uint32_t step);

/* vectors(S,dim) of what was uploaded; dropout is the pass' hidden_dropout. */
rp_status rp_cnn_forward(rp_cnn *cnn, rp_dev *dev, float *vectors, const float *values, const rp_inputs *inputs,
                         const rp_pass *pass);

/* From dvectors(S,dim) adds all gradients to `grads`. After a forward pass with the same inputs and pass, of a CNN
 * planned with `train`. */
rp_status rp_cnn_backward(rp_cnn *cnn, rp_dev *dev, const float *values, float *grads, const float *dvectors,
                          const rp_inputs *inputs, const rp_pass *pass);

#endif
