/* Hidden states to relation vectors. Level 2.
 *
 * Parts are written side by side: ENTITY_START is the hidden state at the head's start marker, then at the tail's (2H;
 * Peng et al. 2020, equation 1), CLS that at [CLS] (H), MEAN the mean over all tokens (H), MASK that at the [MASK] of
 * the prompt (H; arXiv 2312.11062), MENTION_MEAN the mean over the tokens between the head's markers, then between the
 * tail's (2H; mention pooling of Baldini Soares et al. 2019, section 3.2, by the mean). */
#ifndef RP_REPRESENT_H
#define RP_REPRESENT_H

#include "encoder.h"

typedef enum rp_part {
    RP_PART_ENTITY_START,
    RP_PART_CLS,
    RP_PART_MEAN,
    RP_PART_MASK,
    RP_PART_MENTION_MEAN,
    RP_PARTS
} rp_part;

typedef struct rp_represent {
    int64_t parts; /* 1 .. RP_PARTS, all different */
    rp_part part[RP_PARTS];
} rp_represent;

rp_status rp_represent_check(const rp_represent *spec);
int64_t rp_represent_dim(const rp_represent *spec, int64_t H);

/* The rows of hidden that the representation is made of. */
rp_reads rp_represent_reads(const rp_represent *spec);

/* out(S, dim) from hidden(T,H). */
rp_status rp_represent_forward(const rp_represent *spec, rp_dev *dev, float *out, const float *hidden,
                               const rp_inputs *inputs, int64_t H);
/* dhidden(T,H) += gradient of dout(S, dim). */
rp_status rp_represent_backward(const rp_represent *spec, rp_dev *dev, float *dhidden, const float *dout,
                                const rp_inputs *inputs, int64_t H);

#endif
