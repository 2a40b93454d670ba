#include "link.h"

#include <inttypes.h>
#include <math.h>

#include "arena.h"
#include "threads.h"

static rp_status check(const rp_embeddings *e, const int32_t *triple, int64_t n, int64_t num_threads) {
    if ((int)e->model < 0 || e->model >= RP_KGE_MODELS)
        return rp_fail(RP_STATUS_VALUE, "model is %d; expected 0 .. %d", (int)e->model, RP_KGE_MODELS - 1);
    if (num_threads < 1 || num_threads > 4096)
        return rp_fail(RP_STATUS_VALUE, "num_threads is %" PRId64 "; expected 1 .. 4096", num_threads);
    for (int64_t i = 0; i < n; i++) {
        const int32_t *t = triple + 3 * i;
        if (t[0] < 0 || t[0] >= e->n_entities || t[2] < 0 || t[2] >= e->n_entities || t[1] < 0 ||
            t[1] >= e->n_relations)
            return rp_fail(RP_STATUS_VALUE,
                           "triple %" PRId64 " is (%" PRId32 ", %" PRId32 ", %" PRId32 "); there are %" PRId64
                           " entities and %" PRId64 " relations",
                           i, t[0], t[1], t[2], e->n_entities, e->n_relations);
    }
    return RP_OK;
}

static rp_status check_finite(const float *table, int64_t rows, int64_t dim, const char *name) {
    for (int64_t i = 0; i < rows * dim; i++)
        if (!isfinite(table[i]))
            return rp_fail(RP_STATUS_NUMERIC, "%s %" PRId64 " has an embedding that is not finite: train it anew", name,
                           i / dim);
    return RP_OK;
}

/* One vector for each thread; *each floats apart. */
static rp_status allocate(float **out, int64_t *each, int64_t dim, int64_t num_threads) {
    size_t count;
    *each = (dim + 63) / 64 * 64;
    RP_TRY(rp_checked_mul(&count, (size_t)*each * sizeof **out, (size_t)num_threads, "vectors of queries"));
    *out = rp_aligned_alloc(count);
    return *out != NULL ? RP_OK : rp_fail(RP_STATUS_MEMORY, "no memory for %zu bytes of queries", count);
}

static void make_query(float *q, const rp_embeddings *e, const rp_query *query) {
    rp_kge_query(e->model, query->side == RP_SIDE_HEAD, q, e->entity + query->anchor * e->dim,
                 e->relation + query->relation * e->dim, e->dim);
}

static double score_of(const rp_embeddings *e, const float *q, int32_t entity) {
    return rp_kge_score(e->model, q, e->entity + entity * e->dim, e->dim);
}

/* What an entity with this score adds to the rank of the right one. */
static double weight(double score, double right) { return score < right ? 0 : score == right ? 0.5 : 1; }

static void rank(double *raw, double *filtered, const rp_embeddings *e, const rp_query *query, const rp_graph *known,
                 float *q) {
    make_query(q, e, query);
    double right = score_of(e, q, query->answer), sum = 0.5; /* the answer itself will add the other half */
    for (int64_t i = 0; i < e->n_entities; i++) sum += weight(score_of(e, q, (int32_t)i), right);
    *raw = *filtered = sum;
    int64_t count;
    const int32_t *answer = rp_graph_answers(known, query, &count);
    for (int64_t i = 0; i < count; i++)
        if (answer[i] != query->answer) *filtered -= weight(score_of(e, q, answer[i]), right);
}

rp_status rp_link_scores(double *score, const rp_embeddings *e, const int32_t *triple, int64_t n, int64_t num_threads) {
    float *vectors;
    int64_t each;
    RP_TRY(check(e, triple, n, num_threads));
    RP_TRY(allocate(&vectors, &each, e->dim, num_threads));
#pragma omp parallel for schedule(static) num_threads((int)num_threads)
    for (int64_t i = 0; i < n; i++) {
        float *q = vectors + omp_get_thread_num() * each;
        rp_query query = rp_graph_query(triple + 3 * i, RP_SIDE_TAIL);
        make_query(q, e, &query);
        score[i] = score_of(e, q, query.answer);
    }
    rp_aligned_free(vectors);
    return RP_OK;
}

rp_status rp_link_ranks(double *raw, double *filtered, const rp_embeddings *e, const int32_t *triple, int64_t n,
                        const rp_graph *known, int64_t num_threads) {
    float *vectors;
    int64_t each;
    RP_TRY(check(e, triple, n, num_threads));
    if (known->n_entities != e->n_entities || known->n_relations != e->n_relations)
        return rp_fail(RP_STATUS_VALUE,
                       "the known triples are of %" PRId64 " entities and %" PRId64
                       " relations, the embeddings of %" PRId64 " and %" PRId64,
                       known->n_entities, known->n_relations, e->n_entities, e->n_relations);
    RP_TRY(check_finite(e->entity, e->n_entities, e->dim, "entity"));
    RP_TRY(check_finite(e->relation, e->n_relations, e->dim, "relation"));
    RP_TRY(allocate(&vectors, &each, e->dim, num_threads));
#pragma omp parallel for schedule(static) num_threads((int)num_threads)
    for (int64_t i = 0; i < 2 * n; i++) {
        rp_query query = rp_graph_query(triple + 3 * (i / 2), (rp_side)(i % 2));
        rank(raw + i, filtered + i, e, &query, known, vectors + omp_get_thread_num() * each);
    }
    rp_aligned_free(vectors);
    return RP_OK;
}
