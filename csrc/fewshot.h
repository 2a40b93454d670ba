/* Prototype scoring of few-shot episodes from a table of vectors. Level 3. */
#ifndef RP_FEWSHOT_H
#define RP_FEWSHOT_H

#include <stdint.h>

#include "episodes.h"

typedef enum rp_similarity { RP_SIMILARITY_DOT, RP_SIMILARITY_COSINE, RP_SIMILARITY_EUCLIDEAN } rp_similarity;

/* Share of queries of each of the first `count` episodes whose most similar prototype is their own class's
 * (first of equals wins). Prototype: mean of the support vectors (Snell et al. 2017). accuracy double(count);
 * vectors float(n, dim). Cosine: of query and prototype; Euclidean: the negative squared distance. */
rp_status rp_fewshot_score(double *accuracy, const rp_episodes *episodes, const float *vectors, int64_t dim,
                           int64_t count, rp_similarity similarity, int64_t num_threads);

/* Given episodes: rows of the vectors, 0 .. n-1. */
typedef struct rp_fewshot_rows {
    const int64_t *support; /* (count, n_way, k_shot) */
    const int64_t *query;   /* (count, n_query), the queries of all ways */
    int64_t count, n_way, k_shot, n_query;
} rp_fewshot_rows;

/* What is said of each query: way int32(count, n_query), of the most similar prototype (first of equals); similarity
 * double(count, n_query) to it; margin double(count, n_query) over the second most similar, 0 where there is one way.
 */
typedef struct rp_fewshot_answers {
    int32_t *way;
    double *similarity, *margin;
} rp_fewshot_answers;

/* The answers of rp_fewshot_score, for episodes drawn elsewhere. vectors float(n, dim). VALUE: a row that is none. */
rp_status rp_fewshot_answer(const rp_fewshot_answers *out, const rp_fewshot_rows *rows, const float *vectors, int64_t n,
                            int64_t dim, rp_similarity similarity, int64_t num_threads);

#endif
