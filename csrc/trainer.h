/* One step of training, end to end. Level 3. */
#ifndef RP_TRAINER_H
#define RP_TRAINER_H

#include "adamw.h"
#include "batch.h"
#include "join.h"
#include "objective.h"
#include "schedule.h"
#include "sgd.h"

typedef enum rp_optimizer { RP_OPTIMIZER_ADAMW, RP_OPTIMIZER_SGD, RP_OPTIMIZERS } rp_optimizer;

typedef struct rp_trainer_options {
    rp_dtype dtype;       /* of the networks' and the MLM head's matrix products */
    rp_join_options join; /* what is trained */
    int64_t objectives;   /* 1 .. RP_OBJECTIVES */
    rp_objective_options objective[RP_OBJECTIVES];
    rp_optimizer optimizer;
    rp_adamw_options adamw; /* the optimiser's alone is read */
    rp_sgd_options sgd;
    rp_schedule_kind schedule;
    double learning_rate;
    int64_t warmup_steps, max_steps;
    double hidden_dropout, attention_dropout;
    uint64_t seed;               /* of dropout, and of the heads' initial values */
    int64_t samples, max_length; /* of a step; as the sampler's */
    int64_t micro_samples;       /* whose activations are held at a time; samples: the whole step */
    int64_t num_threads;
} rp_trainer_options;

typedef struct rp_step_stats {
    double loss, lr, grad_norm;
    double objective_loss[RP_OBJECTIVES], objective_accuracy[RP_OBJECTIVES];
    int64_t sentences, tokens, masked, truncated, truncated_mentions;
} rp_step_stats;

typedef struct rp_trainer rp_trainer;

/* Gradients, both moments, the objectives' own parameters ("heads", at their initial values) and the workspace. The
 * models and fixed vectors must outlive it and nobody else may write their values. */
rp_status rp_trainer_new(rp_trainer **out, const rp_trainer_options *options, int (*poll)(void *), void *poll_context);
void rp_trainer_free(rp_trainer *trainer); /* takes NULL */

/* Bytes of workspace that these options take, without making them, at most. */
rp_status rp_trainer_bytes(int64_t *bytes, const rp_trainer_options *options);

/* How many networks are trained: a step takes a batch for each. */
int rp_trainer_networks(const rp_trainer *trainer);

/* Loss and gradients of step `step`, no update. batches[n] is what network n reads of the step's samples; VALUE when
 * they are not of the same samples. Where micro_samples < samples: representations of all
 * micro-batches first, then the objectives over vectors on all samples, then each micro-batch again with its dropout
 * replayed (gradient caching, Gao et al. 2021), which gives the gradients of one big batch. */
rp_status rp_trainer_gradients(rp_trainer *trainer, const rp_batch *const *batches, int64_t step, rp_step_stats *stats);

/* The same, then clipping and the update. NUMERIC: loss or gradients not finite; parameters and moments unchanged. */
rp_status rp_trainer_step(rp_trainer *trainer, const rp_batch *const *batches, int64_t step, rp_step_stats *stats);

/* The objectives (as many as in the options) and the table of the heads. */
const rp_objective *rp_trainer_objectives(const rp_trainer *trainer, int64_t *count);
const rp_params *rp_trainer_heads(const rp_trainer *trainer);

/* State to and from host memory, per parameter: gradients (read only), moments, values. The parameters are numbered
 * through: the models', then the heads'. Where several networks are trained, their number stands before the name of a
 * parameter of theirs ("1.embeddings…"). -1: there is none of that name. */
typedef enum rp_state { RP_STATE_GRADIENT, RP_STATE_MOMENT1, RP_STATE_MOMENT2, RP_STATE_VALUE } rp_state;
int64_t rp_trainer_find(const rp_trainer *trainer, const char *name);
const rp_param *rp_trainer_param(const rp_trainer *trainer, int64_t index);
rp_status rp_trainer_get(const rp_trainer *trainer, rp_state which, int64_t index, float *host);
rp_status rp_trainer_set(rp_trainer *trainer, rp_state which, int64_t index, const float *host);

#endif
