/* An affine map of relation vectors that is fitted to labelled ones, in closed form, and applied to others. Level 3.
 *
 * x is the vector divided by its length. Fitted on vectors x_i of relations r_i, with c their mean, S their covariance
 * about the means of their relations, and s the mean of S's diagonal:
 *   W = L^-1 sqrt(s (1 + shrinkage)),  L L^T = S + shrinkage s 1,  L lower triangular with a positive diagonal;
 *   the projection of x is W (x - c).
 * What varies inside relations then counts less in a product or distance of two vectors: within-class covariance
 * normalisation (Hatch, Kajarekar and Stolcke 2006), about the mean of the training classes as in SimpleShot's CL2N
 * (Wang et al. 2019). A direction of mean variance keeps its length. */
#ifndef RP_PROJECTION_H
#define RP_PROJECTION_H

#include <stdint.h>

#include "status.h"

/* weight(dim,dim), bias(dim) = -W c, from vectors(n,dim) and their label(n), 0 .. classes - 1. The same on every
 * machine and for any number of threads. VALUE: a label out of range, a shrinkage that is not finite and above 0, no
 * variation inside any relation (each has one vector). */
rp_status rp_projection_fit(float *weight, float *bias, const float *vectors, const int32_t *label, int64_t n,
                            int64_t classes, int64_t dim, double shrinkage);

/* out(n,dim) = projections of vectors(n,dim); a row's does not depend on the others. */
rp_status rp_projection_apply(float *out, const float *vectors, const float *weight, const float *bias, int64_t n,
                              int64_t dim, int64_t num_threads);

/* out(n,classes) = weight(classes,dim) x + bias(classes) of each vector x itself: the logits of a trained head, as the
 * training computes them. */
rp_status rp_projection_logits(float *out, const float *vectors, const float *weight, const float *bias, int64_t n,
                               int64_t dim, int64_t classes, int64_t num_threads);

#endif
