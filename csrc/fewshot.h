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

#endif
