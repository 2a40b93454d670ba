/* What products have made of weights, kept for as long as the weights stay as they are. Level 1. */
#ifndef RP_KEPT_H
#define RP_KEPT_H

#include <stdbool.h>

#include "ops.h"

/* An operand as a product packs it. Two are one when all of this is equal. */
typedef struct rp_kept_key {
    const float *operand;
    int64_t n, k, step; /* its lines, values a line, and the distance of two values of a line */
    int32_t how;        /* of the back end */
} rp_kept_key;

/* The slot keep_weights of back ends in host memory; values NULL frees everything. */
rp_status rp_kept_weights(rp_dev *dev, const float *values, int64_t count, int64_t version);

/* *out: `words` of memory for this operand, and *ready whether they hold it already; if not, the caller fills them
 * and, when they are full, calls rp_kept_fill, for which others that ask for the same wait. NULL when the operand is no
 * weight that is kept. */
rp_status rp_kept_find(uint32_t **out, bool *ready, rp_dev *dev, const rp_kept_key *key, int64_t words);
void rp_kept_fill(rp_dev *dev, const rp_kept_key *key);

#endif
