#include "loss.h"

rp_status rp_prototypes_check(const rp_prototypes_options *o, int64_t samples) {
    if (!(o->temperature > 0)) return rp_fail(RP_STATUS_VALUE, "temperature is %g, expected above 0", o->temperature);
    if (o->similarity != RP_SIMILARITY_DOT && o->similarity != RP_SIMILARITY_COSINE)
        return rp_fail(RP_STATUS_VALUE, "prototypes take similarity dot or cosine");
    if (o->n_way < 2 || o->k_shot < 1 || o->n_query < 1)
        return rp_fail(RP_STATUS_VALUE, "n_way is %lld, k_shot %lld, n_query %lld, expected 2, 1 and 1 or more",
                       (long long)o->n_way, (long long)o->k_shot, (long long)o->n_query);
    bool fewer = o->k_shot <= samples && o->n_query <= samples; /* so that their sum is no other number */
    if (fewer && samples % o->n_way == 0 && samples / o->n_way % (o->k_shot + o->n_query) == 0) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%lld samples a step, expected episodes of %lld x (%lld + %lld)",
                   (long long)samples, (long long)o->n_way, (long long)o->k_shot, (long long)o->n_query);
}

void rp_prototypes_plan(rp_prototypes *m, rp_arena *arena, rp_arena *host, const rp_prototypes_options *o,
                        int64_t max_samples, int64_t dim) {
    size_t N = (size_t)o->n_way, Q = N * (size_t)o->n_query, row = (size_t)dim * sizeof(float);
    size_t asked = (size_t)max_samples / (size_t)(o->k_shot + o->n_query) * (size_t)o->n_query;
    m->prototype = rp_arena_take(arena, N, row);
    m->dprototype = rp_arena_take(arena, N, row);
    m->unit_prototype = rp_arena_take(arena, N, row);
    m->unit_query = rp_arena_take(arena, Q, row);
    m->dquery = rp_arena_take(arena, Q, row);
    m->norm = rp_arena_take(arena, N + Q, sizeof(float));
    m->logits = rp_arena_take(arena, Q, N * sizeof(float));
    m->index = rp_arena_take(arena, N + 1 + Q, sizeof(int32_t));
    m->loss = rp_arena_take(arena, asked, sizeof(float));
    m->correct = rp_arena_take(arena, asked, sizeof(int32_t));
    m->host_index = rp_arena_take(host, N + 1 + Q, sizeof(int32_t));
    m->host_loss = rp_arena_take(host, asked, sizeof(float));
    m->host_correct = rp_arena_take(host, asked, sizeof(int32_t));
}

/* index: where the supports of each way begin (n_way+1), the next one's where they end; the way of each query. */
static rp_status fill_indices(rp_prototypes *m, rp_dev *dev, const rp_prototypes_options *o) {
    int64_t N = o->n_way, Q = N * o->n_query;
    for (int64_t w = 0; w <= N; w++) m->host_index[w] = (int32_t)(w * o->k_shot);
    for (int64_t q = 0; q < Q; q++) m->host_index[N + 1 + q] = (int32_t)(q / o->n_query);
    return dev->ops->upload(dev, m->index, m->host_index, (N + 1 + Q) * (int64_t)sizeof(int32_t));
}

/* Adds the gradients of one episode, with its supports and queries at x, to dx. loss and correct: of its queries. */
static rp_status run_episode(rp_prototypes *m, rp_dev *dev, const rp_prototypes_options *o, const rp_xent *xent,
                             float *dx, const float *x, float *loss, int32_t *correct, int64_t dim) {
    const rp_ops *ops = dev->ops;
    int64_t N = o->n_way, Q = N * o->n_query, queries = N * o->k_shot * dim;
    bool cosine = o->similarity == RP_SIMILARITY_COSINE;
    const float *p = cosine ? m->unit_prototype : m->prototype, *q = cosine ? m->unit_query : x + queries;
    RP_TRY(ops->mean_forward(dev, m->prototype, dim, x, m->index, m->index + 1, N, dim));
    if (cosine) {
        RP_TRY(ops->normalize_forward(dev, m->unit_prototype, m->norm, m->prototype, N, dim));
        RP_TRY(ops->normalize_forward(dev, m->unit_query, m->norm + N, x + queries, Q, dim));
    }
    RP_TRY(ops->linear_forward(dev, m->logits, q, p, NULL, Q, dim, N));
    RP_TRY(ops->softmax_xent(dev, m->logits, loss, correct, xent, Q, N));
    RP_TRY(ops->zero(dev, m->dprototype, N * dim * (int64_t)sizeof(float)));
    RP_TRY(ops->linear_backward(dev, m->dquery, m->dprototype, NULL, m->logits, q, p, Q, dim, N, 0));
    if (cosine) {
        RP_TRY(ops->normalize_backward(dev, m->dprototype, m->dprototype, m->unit_prototype, m->norm, N, dim));
        RP_TRY(ops->normalize_backward(dev, m->dquery, m->dquery, m->unit_query, m->norm + N, Q, dim));
    }
    RP_TRY(ops->mean_backward(dev, dx, m->dprototype, dim, m->index, m->index + 1, N, dim));
    return ops->add_forward(dev, dx + queries, dx + queries, m->dquery, Q * dim);
}

rp_status rp_prototypes_run(rp_prototypes *m, rp_dev *dev, const rp_prototypes_options *o, double weight,
                            float *dvectors, double *loss, double *accuracy, const float *vectors, int64_t S,
                            int64_t dim) {
    int64_t size = o->n_way * (o->k_shot + o->n_query), Q = o->n_way * o->n_query, episodes = S / size;
    rp_xent xent = {.target = m->index + o->n_way + 1,
                    .scale = (float)(1.0 / o->temperature),
                    .weight = (float)(weight / (double)(episodes * Q))};
    RP_TRY(fill_indices(m, dev, o));
    for (int64_t e = 0; e < episodes; e++)
        RP_TRY(run_episode(m, dev, o, &xent, dvectors + e * size * dim, vectors + e * size * dim, m->loss + e * Q,
                           m->correct + e * Q, dim));
    return rp_loss_means(dev, loss, accuracy, m->loss, m->correct, m->host_loss, m->host_correct, episodes * Q);
}
