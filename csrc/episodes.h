/* N-way K-shot episodes over labelled instances. Level 1. */
#ifndef RP_EPISODES_H
#define RP_EPISODES_H

#include <stdint.h>

#include "status.h"

typedef struct rp_episodes {
    uint64_t seed;
    int64_t n_way, k_shot, n_query;
    double nota_rate;
    int64_t n, n_classes;
    int32_t *row_class;   /* (n) */
    int64_t *class_start; /* (n_classes+1) */
    int64_t *class_rows;  /* (n) rows sorted by class, stable */
} rp_episodes;

/* labels int32(n) in 0 .. n_classes-1. nota_rate in [0, 1): the chance of a query that none of the above is its class
 * (FewRel 2.0, Gao et al. 2019). VALUE: n_way beyond the classes, or all of them with a nota_rate above 0; k_shot +
 * n_query beyond a class's instances (names the class number, its count, and what is needed). */
rp_status rp_episodes_new(rp_episodes **out, const int32_t *labels, int64_t n, int64_t n_classes, int64_t n_way,
                          int64_t k_shot, int64_t n_query, double nota_rate, uint64_t seed);
void rp_episodes_free(rp_episodes *episodes);

/* Episode i, a function of (seed, i): n_way different classes; of each, k_shot + n_query different rows. Then each
 * query gives way with chance nota_rate to a row of a class outside the episode, every such class and every row of it
 * equally likely, drawn for each query on its own (two may be the same): a query is none of the above exactly if its
 * class is not that of its way. Queries that give way at one rate do so, to the same rows, at every higher one.
 * support int64(n_way, k_shot), query int64(n_way, n_query). */
void rp_episodes_draw(const rp_episodes *episodes, int64_t i, int64_t *support, int64_t *query);

#endif
