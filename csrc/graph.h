/* A knowledge graph: its triples, which entities answer a query, and queries with wrong answers drawn for training.
 * Level 1.
 *
 * A query is a triple with one entity asked for: (?, r, t) asks for heads, (h, r, ?) for tails. */
#ifndef RP_GRAPH_H
#define RP_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

typedef enum rp_side { RP_SIDE_HEAD, RP_SIDE_TAIL } rp_side; /* the entity that is asked for */

typedef struct rp_query {
    rp_side side;
    int32_t anchor, relation; /* what is given: the other entity, and the relation */
    int32_t answer;
} rp_query;

typedef struct rp_answers { /* of all queries that ask for one side */
    int64_t queries;
    int64_t *key;    /* (queries) anchor * n_relations + relation, ascending */
    int64_t *start;  /* (queries+1) */
    int32_t *answer; /* (start[queries]) ascending inside a query, each once */
    int64_t longest; /* most answers of a query */
} rp_answers;

typedef struct rp_graph {
    int64_t n, n_entities, n_relations;
    int32_t *triple;       /* (n,3) head, relation, tail */
    rp_answers answers[2]; /* by rp_side */
    double *head_share;    /* (n_relations) of queries that ask for the head, see rp_corruption; 0.5 without triples */
} rp_graph;

/* Copies triple int32(n,3). VALUE: a number out of range, sizes beyond 32 bits. */
rp_status rp_graph_new(rp_graph **out, const int32_t *triple, int64_t n, int64_t n_entities, int64_t n_relations);
void rp_graph_free(rp_graph *graph);

/* The triple as a query that asks for `side`. */
rp_query rp_graph_query(const int32_t triple[3], rp_side side);

/* The known answers of a query, ascending; NULL and 0 when there are none. */
const int32_t *rp_graph_answers(const rp_graph *graph, const rp_query *query, int64_t *count);

/* How a triple is corrupted: the head or the tail is replaced by an entity drawn uniformly (Bordes et al. 2013,
 * algorithm 1). `bernoulli` replaces the head with probability tph / (tph + hpt), tails per head and heads per tail of
 * the relation, so that a one-to-many relation seldom gets a true triple as wrong (Wang et al. 2014, section 3.2).
 * `filtered` draws among the entities that are no known answer; otherwise only the right answer itself is left out. */
typedef struct rp_corruption {
    uint64_t seed;
    int64_t negatives;
    bool bernoulli, filtered;
} rp_corruption;

/* VALUE: negatives out of range, or a query that no entity can answer wrongly (named). */
rp_status rp_graph_check_corruption(const rp_graph *graph, const rp_corruption *options);

/* Triple i as a query, and candidate(1+negatives): its answer, then wrong ones, which may repeat. A function of (seed,
 * epoch, i). */
rp_query rp_graph_corrupt(const rp_graph *graph, const rp_corruption *options, int64_t epoch, int64_t i,
                          int32_t *candidate);

/* order(n): the numbers of the triples in the order of an epoch, a function of (seed, epoch). */
void rp_graph_shuffle(const rp_graph *graph, uint64_t seed, int64_t epoch, uint32_t *order);

#endif
