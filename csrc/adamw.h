/* The optimiser over the flat buffers. Level 2. */
#ifndef RP_ADAMW_H
#define RP_ADAMW_H

#include <stdbool.h>

#include "ops.h"
#include "params.h"

/* Of learning rates, decays and the like: what is finite times as much makes no parameter infinite at once. */
#define RP_RATE_MOST 1e15

typedef struct rp_adamw_options {
    double beta1, beta2, eps, weight_decay, max_grad_norm; /* max_grad_norm 0: no clipping */
} rp_adamw_options;

/* A table of parameters and its flat buffers, (params->total) each. */
typedef struct rp_tensors {
    const rp_params *params;
    float *values, *grads, *moment1, *moment2;
} rp_tensors;

rp_status rp_adamw_check(const rp_adamw_options *options);

/* *norm = the Euclidean norm of the gradients of all `count` tables together. NUMERIC when it is not finite. */
rp_status rp_adamw_norm(rp_dev *dev, const rp_tensors *tensors, int count, double *norm);

/* One update of a table, number `step` counted from 1, with gradients scaled to max_grad_norm where `norm` is above it.
 * Without `mlm_head` the parameters of that head stay as they are. */
rp_status rp_adamw_apply(rp_dev *dev, const rp_tensors *tensors, const rp_adamw_options *options, double lr,
                         int64_t step, double norm, bool mlm_head);

#endif
