/* The losses, each forward and backward in one call. Level 2. */
#ifndef RP_LOSS_H
#define RP_LOSS_H

#include <stdbool.h>

#include "adamw.h"
#include "arena.h"
#include "encoder.h"
#include "fewshot.h"
#include "ops.h"
#include "params.h"

/* *loss and *accuracy: means of loss(rows) and correct(rows), by way of host memory of that size. */
rp_status rp_loss_means(rp_dev *dev, double *loss, double *accuracy, const float *loss_of, const int32_t *correct,
                        float *host_loss, int32_t *host_correct, int64_t rows);

/* out(R,H) = the rows of inp, each times its factor (R); spare (R,H) is written to as well. */
rp_status rp_loss_scale_rows(rp_dev *dev, float *out, float *spare, const float *factor, const float *inp, int64_t R,
                             int64_t H);

/* -- contrastive (loss_contrastive.c) --------------------------------------------------------------------------------
 * Samples 2i and 2i+1 are pair i. With s(a,b) the similarity over the temperature:
 *   symmetric   every sample is an anchor, its candidates are all other samples of the step (NT-Xent, Chen et al. 2020;
 *               the form of the published code)
 *   otherwise   the first of each pair is an anchor, its candidates are the second ones of all pairs (Peng et al. 2020,
 *               equation 2)
 * loss = mean over anchors of -log softmax s(anchor, .)[partner]. Candidates of the anchor's own group, its partner
 * apart, are left out when mask_same_group, or count as further positives when supervised (SupCon). A sample's group is
 * its relation, or its pair of entities (InfoNCE over entity pairs, arXiv 2312.11062). */
typedef struct rp_contrastive_options {
    rp_similarity similarity; /* dot or cosine */
    double temperature;
    bool symmetric, mask_same_group, supervised;
    bool by_entities; /* groups are pairs of entities, not relations */
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
void rp_contrastive_plan(rp_contrastive *memory, rp_arena *arena, rp_arena *host, int64_t max_samples, int64_t dim,
                         int64_t chunk);

/* dvectors(S,dim) += weight * gradient; *loss the mean, *accuracy the share of anchors whose most similar
 * candidate is a positive. group_of (S) is host memory. */
rp_status rp_contrastive_run(rp_contrastive *memory, rp_dev *dev, const rp_contrastive_options *options, double weight,
                             float *dvectors, double *loss, double *accuracy, const float *vectors,
                             const int32_t *group_of, int64_t S, int64_t dim);

/* -- masked words (loss_mlm.c) ---------------------------------------------------------------------------------------
 * BERT's head on the masked rows alone: logits = LN(gelu(W h + b)) word^T + bias; cross-entropy with the true ids. */
typedef struct rp_mlm {
    int64_t chunk; /* rows whose logits are held at a time */
    float *spare;  /* (floats) memory of what follows, laid out anew for each batch: */
    int64_t floats;
    float *logits;             /* (chunk,V) */
    float *rows, *act;         /* (M, max(H,E)), E the embeddings' size */
    float *pre, *normed;       /* (M,E) */
    float *mean, *rstd, *loss; /* (T) */
    float *host;               /* (T) host */
    int32_t *correct;          /* (T) */
} rp_mlm;

/* Floats of memory that are written between the encoder's forward and backward pass alone: all but what each row has
 * one of. */
int64_t rp_mlm_floats(const rp_params *params, int64_t max_tokens, int64_t chunk);
/* The rest from the arenas; spare: rp_mlm_floats of them. */
void rp_mlm_plan(rp_mlm *memory, rp_arena *arena, rp_arena *host, const rp_params *params, int64_t max_tokens,
                 int64_t chunk, float *spare);

/* Adds `weight` * the sum over the inputs' M masked rows of the loss's gradient to dhidden(T,H) and to grads; *loss is
 * the plain sum over rows. */
rp_status rp_mlm_run(rp_mlm *memory, rp_dev *dev, const rp_params *params, const float *values, float *grads,
                     float *dhidden, double weight, double *loss, const float *hidden, const rp_inputs *inputs);

/* -- spans from their boundaries (loss_boundary.c) --------------------------------------------------------------------
 * The token at place i of a masked span from what stands just outside of it, the hidden states x_l and x_r (Joshi et
 * al. 2020, section 3.2, the span boundary objective):
 *   h = LN(gelu(W1 [x_l; x_r; p_i] + b1)), y = LN(gelu(W2 h + b2)), logits = y word^T + bias
 * with parameters of its own but for the word embeddings; cross-entropy with the true ids, as for masked words. */
typedef struct rp_boundary_options {
    int64_t position_size; /* P, of the vectors p_i */
} rp_boundary_options;

/* LN(gelu(W x + b)), I inputs and O outputs: offsets in the heads; and what a chunk of rows leaves behind. */
typedef struct rp_boundary_layer {
    int64_t I, O, weight, bias, gamma, beta;
    float *pre, *act, *normed, *mean, *rstd; /* (chunk,O) three times, (chunk) twice */
} rp_boundary_layer;

typedef struct rp_boundary {
    int64_t chunk;              /* rows at a time */
    int64_t position, bias;     /* (RP_SPAN_PLACES,P), (V): offsets in the heads */
    rp_boundary_layer layer[2]; /* 2H + P to H, H to E */
    float *inputs, *dinputs;    /* (chunk,2H+P) */
    float *dhidden, *dnormed;   /* (chunk,H), (chunk,E) */
    float *logits;              /* (chunk,V) */
    float *loss, *host_loss;    /* (T), (T) host */
    int32_t *correct, *host_correct;
} rp_boundary;

rp_status rp_boundary_check(const rp_boundary_options *options);
void rp_boundary_add_heads(rp_boundary *memory, rp_params *heads, const char *name, const rp_boundary_options *options,
                           const rp_params *params);
/* spare: rp_mlm_floats of them. */
void rp_boundary_plan(rp_boundary *memory, rp_arena *arena, rp_arena *host, const rp_boundary_options *options,
                      const rp_params *params, int64_t max_tokens, int64_t chunk, float *spare);

/* Adds `weight` * the sum over the inputs' M masked rows of the loss's gradient to dhidden(T,H), to the heads' grads
 * and to the word embeddings'; *loss and *correct grow by the plain sums over rows. */
rp_status rp_boundary_run(rp_boundary *memory, rp_dev *dev, const rp_tensors *model, const rp_tensors *heads,
                          float *dhidden, double weight, double *loss, double *correct, const float *hidden,
                          const rp_inputs *inputs);

/* -- matching pairs (loss_match.c) -----------------------------------------------------------------------------------
 * Samples 2i and 2i+1 are pair i, which matches when they have the same pair of entities. With s their similarity, less
 * the threshold, over the temperature (dot product, 0 and 1 as published): p = 1 / (1 + exp(-s)), binary cross-entropy,
 * mean over pairs (Baldini Soares et al. 2019, section 4.1; Peng et al. 2020, section 2.1). */
typedef struct rp_match_options {
    rp_similarity similarity; /* dot or cosine */
    double temperature, threshold;
} rp_match_options;

typedef struct rp_match {
    float *unit, *norm, *dunit; /* (S,dim), (S), (S,dim): gradients, of the unit vectors, then of the vectors */
    float *logits;              /* (S/2,2) */
    float *loss, *host_loss;    /* (S/2), (S/2) host */
    int32_t *correct, *target;  /* (S/2) */
    int32_t *host_index;        /* (S/2) host */
    float *host_logits;         /* (S/2,2) host */
} rp_match;

rp_status rp_match_check(const rp_match_options *options);
void rp_match_plan(rp_match *memory, rp_arena *arena, rp_arena *host, int64_t max_samples, int64_t dim);

/* dvectors(S,dim) += weight * gradient; *loss the mean, *accuracy the share of pairs with p on the right side of 0.5
 * (0.5 itself says that they match). pair (S) is host memory, -1 matches nothing. */
rp_status rp_match_run(rp_match *memory, rp_dev *dev, const rp_match_options *options, double weight, float *dvectors,
                       double *loss, double *accuracy, const float *vectors, const int32_t *pair, int64_t S,
                       int64_t dim);

/* -- classes (loss_classify.c) ---------------------------------------------------------------------------------------
 * logits = W dropout(vector) + b with parameters of its own; softmax cross-entropy with the sample's relation, mean
 * over samples, as BERT's classifiers do. */
typedef struct rp_classify_options {
    int64_t classes;
    double smoothing; /* of the labels, as rp_xent has it */
    double dropout;   /* of the vectors */
} rp_classify_options;

typedef struct rp_classify {
    int64_t weight, bias;        /* (classes,dim), (classes): offsets in the heads */
    float *dropped, *ddropped;   /* (S,dim) */
    float *logits;               /* (S,classes) */
    float *loss, *host_loss;     /* (S), (S) host */
    int32_t *correct;            /* (S) */
    int32_t *index, *host_index; /* (4S+1), the same host */
} rp_classify;

rp_status rp_classify_check(const rp_classify_options *options);
void rp_classify_add_heads(rp_classify *memory, rp_params *heads, const char *name, const rp_classify_options *options,
                           int64_t dim);
void rp_classify_plan(rp_classify *memory, rp_arena *arena, rp_arena *host, const rp_classify_options *options,
                      int64_t max_samples, int64_t dim);

/* dvectors(S,dim) += weight * gradient, and the heads' grads likewise. relation (S) and sample (S), the number that
 * keys the dropout, are host memory. VALUE: a sample is of no class. */
rp_status rp_classify_run(rp_classify *memory, rp_dev *dev, const rp_classify_options *options, double weight,
                          const rp_tensors *heads, float *dvectors, double *loss, double *accuracy,
                          const float *vectors, const int32_t *relation, const int32_t *sample, int64_t S, int64_t dim,
                          const rp_pass *pass);

/* -- bags (loss_bags.c) ----------------------------------------------------------------------------------------------
 * Samples come in bags, runs with one number in batch->pair and one relation, of which some may state it. A bag's
 * vector is the weighted sum s = sum_i a_i x_i of its sentences' vectors, classified as above. The weights are
 *   ATTENTION  softmax over the bag of e_i = x_i A r, r being the row of the classes' weight for the bag's relation,
 *              A a diagonal matrix of parameters, at first the identity (Lin et al. 2016, section 3.2)
 *   ONE        1 of the sentence with the largest probability of the bag's relation, without dropout, the first of
 *              equals; 0 of the others (at least one, Zeng et al. 2015)
 *   MEAN       1 / n (Lin et al. 2016, section 3.2) */
typedef enum rp_pooling { RP_POOLING_ATTENTION, RP_POOLING_ONE, RP_POOLING_MEAN, RP_POOLINGS } rp_pooling;

typedef struct rp_bags_options {
    rp_classify_options classify;
    rp_pooling pooling;
} rp_bags_options;

typedef struct rp_bags {                 /* of S samples in B bags, at most as many */
    rp_classify classify;                /* of the bags' vectors */
    int64_t attention;                   /* (dim): A's offset in the heads */
    float *pooled, *dpooled;             /* (B,dim) */
    float *rows, *drows, *spare;         /* (S,dim) */
    float *diagonal, *relations, *query; /* (B,dim) for ATTENTION: A, r, A r */
    float *ddiagonal, *drelations;       /* (B,dim) */
    float *logits;                       /* (S,classes) for ONE */
    float *share, *score, *host;         /* (S) a_i; (S); (2,S) host: a_i, and what is made of the scores */
    int32_t *correct;                    /* (S) for ONE */
    int32_t *index, *host_index; /* (4,S), (4,S) host: bag and relation of each sample, relation of each bag, 0 */
    int32_t *start, *sample;     /* (S+1), (S) host: the first sample of each bag; its number */
} rp_bags;

rp_status rp_bags_check(const rp_bags_options *options);
void rp_bags_add_heads(rp_bags *memory, rp_params *heads, const char *name, const rp_bags_options *options,
                       int64_t dim);
void rp_bags_plan(rp_bags *memory, rp_arena *arena, rp_arena *host, const rp_bags_options *options, int64_t max_samples,
                  int64_t dim);

/* On the samples first .. first + S of the batch: dvectors(S,dim) += weight * gradient, and the heads' grads likewise;
 * *loss and *accuracy: means over bags. VALUE: a sample is of no class, or in no bag. */
rp_status rp_bags_run(rp_bags *memory, rp_dev *dev, const rp_bags_options *options, double weight,
                      const rp_tensors *heads, float *dvectors, double *loss, double *accuracy, const float *vectors,
                      const rp_batch *batch, int64_t first, int64_t S, int64_t dim, const rp_pass *pass);

/* -- prototypes (loss_prototypes.c) ----------------------------------------------------------------------------------
 * Samples are episodes one after another, as the source of episodes gives them: supports (n_way, k_shot), then queries
 * (n_way, n_query). A way's prototype is the mean of its supports (Snell et al. 2017, equation 1); with s the
 * similarity of a query and a prototype over the temperature, loss = mean over queries of -log softmax s(query, .)[its
 * way] (equation 2; dot product and 1 in Peng et al. 2020, section 4.1). */
typedef struct rp_prototypes_options {
    rp_similarity similarity; /* dot or cosine */
    double temperature;
    int64_t n_way, k_shot, n_query;
} rp_prototypes_options;

typedef struct rp_prototypes { /* of one episode, N ways and Q queries in all; of every query of the step: asked */
    float *prototype, *dprototype, *unit_prototype; /* (N,dim) */
    float *unit_query, *dquery;                     /* (Q,dim) */
    float *norm;                                    /* (N+Q) */
    float *logits;                                  /* (Q,N) */
    int32_t *index, *host_index;                    /* (N+1+Q), (N+1+Q) host */
    float *loss, *host_loss;                        /* (asked), (asked) host */
    int32_t *correct, *host_correct;                /* (asked), (asked) host */
} rp_prototypes;

rp_status rp_prototypes_check(const rp_prototypes_options *options, int64_t samples);
void rp_prototypes_plan(rp_prototypes *memory, rp_arena *arena, rp_arena *host, const rp_prototypes_options *options,
                        int64_t max_samples, int64_t dim);

/* dvectors(S,dim) += weight * gradient; *loss the mean, *accuracy the share of queries whose most similar prototype is
 * their own way's. */
rp_status rp_prototypes_run(rp_prototypes *memory, rp_dev *dev, const rp_prototypes_options *options, double weight,
                            float *dvectors, double *loss, double *accuracy, const float *vectors, int64_t S,
                            int64_t dim);

/* -- alignment with a graph (loss_alignment.c) -----------------------------------------------------------------------
 * The vector x of a sentence is mapped into the space of a knowledge graph's embeddings by parameters of its own, and
 * contrasted there with the embeddings r of all of the graph's relations, which stay as they are: with W (size,dim) and
 * s the cosine over the temperature, loss = -log softmax s(W x, r)[the sentence's relation] (InfoNCE, van den Oord et
 * al. 2018, equation 4; text and graph share a space in Weston et al. 2013), mean over the sentences whose relation the
 * graph knows. */
typedef struct rp_alignment_options {
    double temperature;
    int64_t relations, size;    /* of the graph; of its vectors */
    const float *graph;         /* (relations,size) of length 1 */
    int64_t classes;            /* relations of the data */
    const int32_t *relation_of; /* (classes) the graph's relation of each, -1 none. Both: host memory of the caller's,
                                   read by rp_alignment_check and rp_alignment_fill alone */
} rp_alignment_options;

typedef struct rp_alignment {
    int64_t weight;            /* (size,dim): offset in the heads */
    float *graph;              /* (relations,size) */
    float *projected, *unit;   /* (S,size) */
    float *norm, *dvectors;    /* (S), (S,dim) */
    float *logits;             /* (S,relations) */
    float *loss, *host_loss;   /* (S), (S) host */
    int32_t *correct, *target; /* (S) */
    int32_t *relation_of;      /* (classes) host */
    int32_t *host_index;       /* (S) host */
} rp_alignment;

rp_status rp_alignment_check(const rp_alignment_options *options);
void rp_alignment_add_heads(rp_alignment *memory, rp_params *heads, const char *name,
                            const rp_alignment_options *options, int64_t dim);
void rp_alignment_plan(rp_alignment *memory, rp_arena *arena, rp_arena *host, const rp_alignment_options *options,
                       int64_t max_samples, int64_t dim);
/* Copies what the options point to; once, before the first run. */
rp_status rp_alignment_fill(rp_alignment *memory, rp_dev *dev, const rp_alignment_options *options);

/* dvectors(S,dim) += weight * gradient, and the heads' grads likewise; *loss the mean over samples whose relation the
 * graph knows, *accuracy the share of them whose most similar relation is their own; untouched where there are none.
 * relation (S) is host memory. */
rp_status rp_alignment_run(rp_alignment *memory, rp_dev *dev, const rp_alignment_options *options, double weight,
                           const rp_tensors *heads, float *dvectors, double *loss, double *accuracy,
                           const float *vectors, const int32_t *relation, int64_t S, int64_t dim);

/* -- domains (loss_domain.c) -----------------------------------------------------------------------------------------
 * A discriminator tells the run's text from the target's by the relation vectors, and the network learns to leave it in
 * the dark: gradient reversal (Ganin and Lempitsky 2015, section 3; the adversarial adaptation of FewRel 2.0, Gao et
 * al. 2019). logits = W dropout(max(U x + c, 0)) + b, or without a hidden layer W x + b; softmax cross-entropy with the
 * sample's domain, mean over samples. The parameters get its gradient, the vectors -lambda times it, where lambda =
 * reversal (2 / (1 + exp(-10 step / ramp_steps)) - 1), or reversal itself where ramp_steps is 0. */
typedef struct rp_domain_options {
    int64_t hidden; /* -1: as many as a vector has; 0: no hidden layer */
    double dropout, reversal;
    int64_t ramp_steps;
} rp_domain_options;

typedef struct rp_domain {
    int64_t hidden;                        /* units; 0: none */
    int64_t hidden_weight, hidden_bias;    /* U(hidden,dim), c(hidden): offsets in the heads */
    int64_t weight, bias;                  /* W(2,inputs), b(2), inputs hidden or dim */
    float *units, *dropped, *dunits;       /* (S,hidden) */
    float *dx, *reversed, *spare, *factor; /* (S,dim), (S,dim), (S,dim), (S) */
    float *logits;                         /* (S,2) */
    float *loss, *host_loss;               /* (S), (S) host */
    int32_t *correct;                      /* (S) */
    int32_t *index, *host_index;           /* (4S+1), the same host */
} rp_domain;

rp_status rp_domain_check(const rp_domain_options *options);
void rp_domain_add_heads(rp_domain *memory, rp_params *heads, const char *name, const rp_domain_options *options,
                         int64_t dim);
void rp_domain_plan(rp_domain *memory, rp_arena *arena, rp_arena *host, int64_t max_samples, int64_t dim);

/* Adds to dvectors(S,dim) and the heads' grads as above, times weight; *accuracy is the discriminator's. relation (S),
 * negative in the target's text, and sample (S) are host memory. VALUE: all samples are of one domain. */
rp_status rp_domain_run(rp_domain *memory, rp_dev *dev, const rp_domain_options *options, double weight,
                        const rp_tensors *heads, float *dvectors, double *loss, double *accuracy, const float *vectors,
                        const int32_t *relation, const int32_t *sample, int64_t S, int64_t dim, const rp_pass *pass);

#endif
