/* One step of contrastive pre-training, end to end. Level 3. */
#ifndef RP_TRAINER_H
#define RP_TRAINER_H

#include "adamw.h"
#include "batch.h"
#include "loss.h"
#include "model.h"
#include "represent.h"
#include "sampler.h"
#include "schedule.h"

typedef struct rp_trainer_options {
    rp_dtype dtype; /* of the encoder's and the MLM head's matrix products */
    rp_represent represent;
    rp_contrastive_options contrastive;
    double cp_weight, mlm_weight; /* 0 leaves the objective out */
    rp_adamw_options adamw;
    rp_schedule_kind schedule;
    double learning_rate;
    int64_t warmup_steps, max_steps;
    double hidden_dropout, attention_dropout;
    uint64_t seed;             /* of dropout */
    int64_t pairs, max_length; /* as the sampler's */
    int64_t micro_batch_pairs; /* pairs whose activations are held at a time; pairs: the whole step */
    int64_t num_threads;
} rp_trainer_options;

typedef struct rp_step_stats {
    double loss, loss_cp, loss_mlm, accuracy, lr, grad_norm;
    int64_t sentences, tokens, masked, truncated, truncated_mentions;
} rp_step_stats;

typedef struct rp_trainer rp_trainer;

/* Gradients, both moments and the workspace. The model must outlive it and nobody else may write its values. */
rp_status rp_trainer_new(rp_trainer **out, rp_model *model, const rp_trainer_options *options, int (*poll)(void *),
                         void *poll_context);
void rp_trainer_free(rp_trainer *trainer); /* takes NULL */

/* Bytes of workspace that these options take on this model, without making them. */
rp_status rp_trainer_bytes(int64_t *bytes, const rp_model *model, const rp_trainer_options *options);

/* Loss and gradients of step `step` on its batch, no update. Where micro_batch_pairs < pairs: representations of all
 * micro-batches first, then the loss over all pairs, then each micro-batch again with its dropout replayed (gradient
 * caching, Gao et al. 2021), which gives the gradients of one big batch. */
rp_status rp_trainer_gradients(rp_trainer *trainer, const rp_batch *batch, int64_t step, rp_step_stats *stats);

/* The same, then clipping and the update. NUMERIC: loss or gradients not finite; parameters and moments unchanged. */
rp_status rp_trainer_step(rp_trainer *trainer, const rp_batch *batch, int64_t step, rp_step_stats *stats);

/* State to and from host memory, per parameter: which is 0 gradients (read only), 1 first, 2 second moments. */
rp_status rp_trainer_get(const rp_trainer *trainer, int which, int64_t index, float *host);
rp_status rp_trainer_set(rp_trainer *trainer, int which, int64_t index, const float *host);

#endif
