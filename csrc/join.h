/* Relation vectors made of parts that stand side by side: networks, which are trained together, and vectors that stay
 * as they are. Level 2.
 *
 * The hybrid of arXiv 2312.11062 ("Entity or Relation Embeddings?", section 3.3) joins two encoders that were
 * pre-trained apart, or one with entity embeddings that are not trained. Each network reads the step's samples as its
 * own tokenizer and prompt make them: one batch for each network, all of the same samples. */
#ifndef RP_JOIN_H
#define RP_JOIN_H

#include "adamw.h"
#include "model.h"
#include "network.h"

enum { RP_JOIN_PARTS = 8 /* at most */ };

/* A network; or where `model` is NULL, fixed vectors of a corpus' rows. */
typedef struct rp_join_part_options {
    rp_model *model;
    rp_represent represent; /* of an encoder */
    const float *fixed;     /* (rows,dim) host, as long as the join is used */
    int64_t rows, dim;
} rp_join_part_options;

typedef struct rp_join_options {
    int64_t parts; /* 1 .. RP_JOIN_PARTS */
    rp_join_part_options part[RP_JOIN_PARTS];
} rp_join_options;

typedef struct rp_join_part {
    int64_t dim, column; /* of its vector; where that begins in the joined one */
    int number;          /* of the network, among the networks */
    rp_network network;
    float *vectors, *dvectors; /* (S,dim) where there are other parts */
    float *host_fixed;         /* (S,dim) host: of the samples */
} rp_join_part;

typedef struct rp_join {
    rp_join_options options;
    int64_t dim;     /* of the joined vector */
    int networks;    /* parts that are one */
    int first;       /* the first of them */
    int32_t *place;  /* (S) 0, 1, 2, … on the device, where there are several parts */
    int32_t *places; /* (S) the same on the host */
    rp_join_part part[RP_JOIN_PARTS];
} rp_join;

/* VALUE: no network; one model twice, or models on different back ends; a representation that is none. */
rp_status rp_join_check(const rp_join_options *options);

/* Over the networks: the shortest `positions`, the first one's initializer_range, of all else the most. */
rp_network_sizes rp_join_sizes(const rp_join_options *options);

/* Host memory; close takes a join that is all 0. */
rp_status rp_join_open(rp_join *join, const rp_join_options *options);
void rp_join_close(rp_join *join);

/* Takes the buffers from the arenas; call with measuring arenas first. most->spare is what the first network has to
 * spare. Then, once, upload. */
void rp_join_plan(rp_join *join, rp_arena *arena, rp_arena *host, const rp_capacity *most);
rp_status rp_join_upload(rp_join *join, rp_dev *dev, int64_t max_sequences);

/* vectors(S,dim) of the samples of which batches[n] is what network n reads; see rp_network_forward. Network n draws
 * its dropout from a seed of its own. VALUE: a fixed part has no such row. */
rp_status rp_join_forward(rp_join *join, rp_dev *dev, float *vectors, rp_batch *const *batches, const rp_reads *also,
                          const rp_pass *pass);

/* rp_network_begin of all networks; then backward adds all gradients to those of tensors[n], of network n, from
 * dvectors(S,dim), or NULL where no loss looks at the vectors. */
rp_status rp_join_begin(rp_join *join, rp_dev *dev);
rp_status rp_join_backward(rp_join *join, rp_dev *dev, const rp_tensors *tensors, const float *dvectors,
                           const rp_pass *pass);

#endif
