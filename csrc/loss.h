/* The losses, each forward and backward in one call. Level 2. */
#ifndef RP_LOSS_H
#define RP_LOSS_H

#include <stdbool.h>

#include "arena.h"
#include "encoder.h"
#include "fewshot.h"
#include "ops.h"
#include "params.h"

/* -- contrastive (loss_contrastive.c) --------------------------------------------------------------------------------
 * Samples 2i and 2i+1 are pair i. With s(a,b) the similarity over the temperature:
 *   symmetric   every sample is an anchor, its candidates are all other samples of the step (NT-Xent, Chen et al. 2020;
 *               the form of the published code)
 *   otherwise   the first of each pair is an anchor, its candidates are the second ones of all pairs (Peng et al. 2020,
 *               equation 2)
 * loss = mean over anchors of -log softmax s(anchor, .)[partner]. Candidates of the anchor's own relation, its partner
 * apart, are left out when mask_same_relation, or count as further positives when supervised (SupCon). */
typedef struct rp_contrastive_options {
    rp_similarity similarity; /* dot or cosine */
    double temperature;
    bool symmetric, mask_same_relation, supervised;
} rp_contrastive_options;

typedef struct rp_contrastive {
    int64_t chunk;                   /* anchors whose logits are held at a time */
    float *unit, *norm, *dunit;      /* (S,dim), (S), (S,dim): gradients, of the unit vectors, then of the vectors */
    float *anchors, *candidates;     /* (S,dim): the two sides when they differ */
    float *danchors, *dcandidates;   /* (S,dim) */
    float *logits;                   /* (chunk, S) */
    float *loss, *host_loss;         /* (S), (S) host */
    int32_t *correct, *host_correct; /* (S), (S) host */
    int32_t *index, *host_index;     /* (4,S), (4,S) host: target, skip, group, rows */
    int64_t max_samples;
} rp_contrastive;

rp_status rp_contrastive_check(const rp_contrastive_options *options);
void rp_contrastive_plan(rp_contrastive *memory, rp_arena *arena, rp_arena *host, int64_t max_samples, int64_t dim);

/* dvectors(S,dim) += weight * gradient; *loss the mean, *accuracy the share of anchors whose most similar
 * candidate is a positive. relation (S) is host memory. */
rp_status rp_contrastive_run(rp_contrastive *memory, rp_dev *dev, const rp_contrastive_options *options, double weight,
                             float *dvectors, double *loss, double *accuracy, const float *vectors,
                             const int32_t *relation, int64_t S, int64_t dim);

/* -- masked words (loss_mlm.c) ---------------------------------------------------------------------------------------
 * BERT's head on the masked rows alone: logits = LN(gelu(W h + b)) word^T + bias; cross-entropy with the true ids. */
typedef struct rp_mlm {
    int64_t chunk;                     /* rows whose logits are held at a time */
    float *rows, *act;                 /* (T, max(H,E)), E the embeddings' size */
    float *pre, *normed, *mean, *rstd; /* (T,E), (T,E), (T), (T) */
    float *logits, *loss, *host;       /* (chunk,V), (T), (T) host */
    int32_t *correct;                  /* (T) */
} rp_mlm;

/* Floats of memory that are written between the encoder's forward and backward pass alone, the logits. */
int64_t rp_mlm_floats(const rp_params *params, int64_t max_tokens);
/* The rest from the arenas; spare: rp_mlm_floats of them. */
void rp_mlm_plan(rp_mlm *memory, rp_arena *arena, rp_arena *host, const rp_params *params, int64_t max_tokens,
                 float *spare);

/* Adds `weight` * the sum over the inputs' M masked rows of the loss's gradient to dhidden(T,H) and to grads; *loss is
 * the plain sum over rows. */
rp_status rp_mlm_run(rp_mlm *memory, rp_dev *dev, const rp_params *params, const float *values, float *grads,
                     float *dhidden, double weight, double *loss, const float *hidden, const rp_inputs *inputs);

#endif
