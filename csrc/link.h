/* Link prediction: the rank of the right entity among all, for both sides of test triples. Level 3.
 *
 * A rank is 1 + the entities that score better + half of those that score the same: the mean of the best and the worst
 * case, so that a constant score ranks in the middle (Berrendorf et al. 2020). Raw ranks are among all entities,
 * filtered ones leave out the other known answers of the query (Bordes et al. 2013, section 4.2). */
#ifndef RP_LINK_H
#define RP_LINK_H

#include "graph.h"
#include "kge.h"

typedef struct rp_embeddings {
    rp_kge_model model;
    int64_t n_entities, n_relations, dim;
    const float *entity;   /* (n_entities,dim) */
    const float *relation; /* (n_relations,dim) */
} rp_embeddings;

/* score(n) of triple int32(n,3), larger is likelier. VALUE: a number out of range. */
rp_status rp_link_scores(double *score, const rp_embeddings *embeddings, const int32_t *triple, int64_t n,
                         int64_t num_threads);

/* raw(n,2) and filtered(n,2), by rp_side, of triple int32(n,3). `known` has the embeddings' entities and relations.
 * NUMERIC: an embedding is not finite. */
rp_status rp_link_ranks(double *raw, double *filtered, const rp_embeddings *embeddings, const int32_t *triple,
                        int64_t n, const rp_graph *known, int64_t num_threads);

#endif
