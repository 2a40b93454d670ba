/* Stochastic gradient descent over the flat buffers, beside AdamW. Level 2. */
#ifndef RP_SGD_H
#define RP_SGD_H

#include <stdbool.h>

#include "adamw.h"

typedef struct rp_sgd_options {
    double momentum, weight_decay, max_grad_norm; /* max_grad_norm 0: no clipping */
} rp_sgd_options;

rp_status rp_sgd_check(const rp_sgd_options *options);

/* One update of a table with gradients scaled to max_grad_norm where `norm` (rp_adamw_norm's) is above it. moment1
 * begins as 0; it is not touched, and may be NULL, where momentum is 0. moment2 is not read. Without `mlm_head` the
 * parameters of that head stay as they are. Weight decay spares what AdamW's does. */
rp_status rp_sgd_apply(rp_dev *dev, const rp_tensors *tensors, const rp_sgd_options *options, double lr, double norm,
                       bool mlm_head);

#endif
