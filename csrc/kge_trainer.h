/* Training of knowledge-graph embeddings. Level 3.
 *
 * A step takes the next `batch` triples of the epoch's order, corrupts each (rp_graph_corrupt), and updates the rows of
 * the entities and relations that occur, by the gradient of
 *   mean over triples of the loss (rp_kge_loss) + l2 (|h|^2 + |r|^2 + |t|^2) + n3 (|h|_3^3 + |r|_3^3 + |t|_3^3)
 * with the rows h, r, t of the right triple; the cubes are the nuclear 3-norm of Lacroix et al. 2018, equation 4.
 * Adagrad divides each gradient by the root of the sum of its squares so far (Duchi et al. 2011), with which rows that
 * occur seldom learn as fast as others; a row's gradients of a step are added first. Rows start uniform in +-6 /
 * sqrt(dim), those of TransE scaled to length 1 (Bordes et al. 2013, algorithm 1); with `normalize` all are, and the
 * entities that a step updates get length 1 again, as there. */
#ifndef RP_KGE_TRAINER_H
#define RP_KGE_TRAINER_H

#include "graph.h"
#include "kge.h"

typedef enum rp_kge_optimizer { RP_KGE_SGD, RP_KGE_ADAGRAD, RP_KGE_OPTIMIZERS } rp_kge_optimizer;

typedef struct rp_kge_options {
    rp_kge_model model;
    rp_kge_loss loss;
    rp_kge_optimizer optimizer;
    rp_corruption corruption;
    int64_t dim, batch, num_threads;
    double margin, l2, n3, learning_rate;
    bool normalize;
} rp_kge_options;

typedef struct rp_kge_trainer rp_kge_trainer;

/* Borrows the graph. VALUE: an option out of range, no triples, a query that cannot be answered wrongly. */
rp_status rp_kge_trainer_new(rp_kge_trainer **out, const rp_graph *graph, const rp_kge_options *options);
void rp_kge_trainer_free(rp_kge_trainer *trainer);

/* Steps of an epoch; the last one may have fewer triples. */
int64_t rp_kge_trainer_steps(const rp_kge_trainer *trainer);

/* Step 0 .. steps - 1 of an epoch; *loss as above, before the update. The values do not depend on the number of
 * threads. NUMERIC: loss or gradient is not finite; the step is refused and the values are unchanged. Without `update`
 * it leaves them as they are. */
rp_status rp_kge_trainer_step(rp_kge_trainer *trainer, int64_t epoch, int64_t step, bool update, double *loss);

/* Values, and gradients of the last step: (n_entities + n_relations, dim), entities first. */
const float *rp_kge_trainer_values(const rp_kge_trainer *trainer);
const float *rp_kge_trainer_gradients(const rp_kge_trainer *trainer);

int64_t rp_kge_trainer_dim(const rp_kge_trainer *trainer);

/* Writes the values: entity(n_entities,dim), relation(n_relations,dim). */
void rp_kge_trainer_set(rp_kge_trainer *trainer, const float *entity, const float *relation);

#endif
