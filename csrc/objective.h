/* What a run minimises: a weighted sum of objectives, all on one forward pass. Level 2.
 *
 * An objective is of one of two sorts. Over vectors: it sees the relation vectors of all of its samples of the step,
 * between the forward and the backward passes, so that gradient caching stays exact. Over rows: it sees the hidden
 * states of one micro-batch after another. Either adds the gradient of weight * loss to what it was given. */
#ifndef RP_OBJECTIVE_H
#define RP_OBJECTIVE_H

#include "adamw.h"
#include "loss.h"

enum { RP_OBJECTIVES = 8 /* of a run, at most */, RP_OBJECTIVE_HEADS = 10 /* parameters of its own, at most */ };

typedef enum rp_objective_kind {
    RP_OBJECTIVE_CONTRASTIVE,
    RP_OBJECTIVE_MLM,
    RP_OBJECTIVE_MATCH,
    RP_OBJECTIVE_CLASSIFY,
    RP_OBJECTIVE_PROTOTYPES,
    RP_OBJECTIVE_ALIGNMENT,
    RP_OBJECTIVE_BAGS,
    RP_OBJECTIVE_DOMAIN,
    RP_OBJECTIVE_BOUNDARY,
    RP_OBJECTIVE_KINDS
} rp_objective_kind;

typedef struct rp_objective_options {
    rp_objective_kind kind;
    char name[32];                      /* in messages, and of its parameters: "name.weight" */
    double weight;                      /* 0 leaves it out */
    int64_t first, samples;             /* the samples of a step that it runs on (those over rows: all); at most */
    rp_contrastive_options contrastive; /* its kind's alone is read */
    rp_match_options match;
    rp_classify_options classify;
    rp_prototypes_options prototypes;
    rp_alignment_options alignment;
    rp_bags_options bags;
    rp_domain_options domain;
    rp_boundary_options boundary;
} rp_objective_options;

typedef struct rp_objective {
    rp_objective_options options;
    double loss, accuracy; /* of the step; accuracy 0 where the kind has none */
    int64_t rows;          /* whose losses are in `loss`, of an objective over rows */
    union {
        rp_contrastive contrastive;
        rp_mlm mlm;
        rp_match match;
        rp_classify classify;
        rp_prototypes prototypes;
        rp_alignment alignment;
        rp_bags bags;
        rp_domain domain;
        rp_boundary boundary;
    } memory;
} rp_objective;

/* What memory is planned for. */
typedef struct rp_objective_sizes {
    const rp_params *params;   /* the model's */
    int64_t dim, micro_tokens; /* of a vector; of a micro-batch, at most */
    int64_t chunk;             /* rp_ops.chunk */
    float *spare;              /* what rp_objective_floats asked for, with these sizes */
} rp_objective_sizes;

/* What an objective is run on. */
typedef struct rp_view {
    rp_dev *dev;
    const rp_pass *pass;
    const rp_tensors *model, *heads;
    const rp_batch *batch; /* the step's */
    int64_t dim;
    const float *vectors; /* (batch->S, dim), over vectors */
    float *dvectors;
    const rp_inputs *inputs; /* the micro-batch's, over rows */
    const float *hidden;     /* (inputs->T, H) */
    float *dhidden;
} rp_view;

/* VALUE: a weight below 0, all 0, or an objective's own option out of range; samples outside the step's. */
rp_status rp_objectives_check(const rp_objective_options *options, int64_t count, int64_t samples);

bool rp_objective_over_vectors(const rp_objective *objective);
bool rp_objective_has_accuracy(const rp_objective *objective);
bool rp_objective_uses_mlm_head(const rp_objective *objective);

/* Marks what an objective over rows reads of the last layer's output. */
void rp_objective_mark_reads(const rp_objective *objective, rp_reads *reads);

/* Adds the objective's own parameters to the table; params are the model's. */
void rp_objective_add_heads(rp_objective *objective, rp_params *heads, const rp_params *params, int64_t dim);

/* Floats of memory that are written between the encoder's forward and backward pass alone, which objectives share. */
int64_t rp_objective_floats(const rp_objective *objective, const rp_objective_sizes *sizes);
void rp_objective_plan(rp_objective *objective, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host);

/* Copies to its memory what the options point to, where they do; once, before the first run. */
rp_status rp_objective_fill(rp_objective *objective, rp_dev *dev);

/* Columns of its widest matrix product, beside the vectors, the samples and the heads. */
int64_t rp_objective_widest(const rp_objective *objective);

/* Loss and accuracy of the step, and gradients: begin, then one run for the step (over vectors) or for each micro-batch
 * (over rows), then finish. */
void rp_objective_begin(rp_objective *objective);
rp_status rp_objective_run(rp_objective *objective, const rp_view *view);
void rp_objective_finish(rp_objective *objective);

#endif
