/* Embeddings of a knowledge graph's entities and relations: how well an entity answers a query, and the losses.
 * Level 2.
 *
 * Both models make a vector q of what a query gives, and compare it with the entity e that is to answer it:
 *
 *     TransE    q = h + r or t - r, score -|q - e|, in the 1- or the 2-norm (Bordes et al. 2013)
 *     DistMult  q = h * r or t * r by component, score <q, e> (Yang et al. 2015, section 3)
 *
 * so that the score of a triple is the same from either side but for rounding. */
#ifndef RP_KGE_H
#define RP_KGE_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

typedef enum rp_kge_model { RP_KGE_TRANSE_L1, RP_KGE_TRANSE_L2, RP_KGE_DISTMULT, RP_KGE_MODELS } rp_kge_model;

/* With s the score of the right answer, n_k those of K wrong ones:
 *   margin    mean over k of max(0, margin - s + n_k) (Bordes et al. 2013, equation 1)
 *   logistic  log(1 + exp(-z(s))) + mean over k of log(1 + exp(z(n_k))), z the score; of TransE, whose scores are never
 *             above 0, margin + score (Trouillon et al. 2016; Sun et al. 2019, equation 5)
 *   softmax   -log(exp(s) / (exp(s) + sum over k of exp(n_k))) */
typedef enum rp_kge_loss { RP_KGE_MARGIN, RP_KGE_LOGISTIC, RP_KGE_SOFTMAX, RP_KGE_LOSSES } rp_kge_loss;

/* q(dim) from the query's anchor and relation; `head` when the head is asked for. */
void rp_kge_query(rp_kge_model model, bool head, float *q, const float *anchor, const float *relation, int64_t dim);

/* danchor(dim), drelation(dim) += gradient of dq(dim). Either may be NULL. */
void rp_kge_query_backward(rp_kge_model model, bool head, float *danchor, float *drelation, const float *dq,
                           const float *anchor, const float *relation, int64_t dim);

double rp_kge_score(rp_kge_model model, const float *q, const float *entity, int64_t dim);

/* Gradient of a score times `dscore`: dq(dim) or dentity(dim) +=, the other one NULL. `score` is that of rp_kge_score.
 * A distance of 0 has the gradient 0. */
void rp_kge_score_backward(rp_kge_model model, float *dq, float *dentity, double dscore, double score, const float *q,
                           const float *entity, int64_t dim);

/* The loss of score(1+negatives), the right answer's first; dscore(1+negatives) = its gradient, which may not alias. */
double rp_kge_loss_forward(rp_kge_loss loss, rp_kge_model model, double margin, double *dscore, const double *score,
                           int64_t negatives);

#endif
