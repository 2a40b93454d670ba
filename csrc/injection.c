#include "injection.h"

void rp_injection_plan(rp_injection *n, rp_arena *arena, const rp_params *params, int64_t max_sequences) {
    const rp_config *c = &params->config;
    size_t mentions = 2 * (size_t)max_sequences;
    n->params = params;
    n->K = 0;
    if (c->graph_size == 0) return;
    n->at = rp_arena_take(arena, mentions, sizeof(int32_t));
    n->row = rp_arena_take(arena, mentions, sizeof(int32_t));
    n->entity = rp_arena_take(arena, mentions, (size_t)c->graph_size * sizeof(float));
    n->out = rp_arena_take(arena, mentions, (size_t)c->embedding_size * sizeof(float));
}

rp_status rp_injection_upload(rp_injection *n, rp_dev *dev, rp_batch *batch) {
    int64_t size = n->params->config.graph_size, bytes;
    rp_batch_inject(batch);
    n->K = batch->K;
    if (n->K == 0) return RP_OK;
    for (int32_t k = 0; k < batch->K; k++)
        if (batch->inject_row[k] >= n->rows)
            return rp_fail(RP_STATUS_VALUE, "graph_row names row %d of the graph's table, the model has %lld rows",
                           (int)batch->inject_row[k], (long long)n->rows);
    bytes = n->K * (int64_t)sizeof(int32_t);
    RP_TRY(dev->ops->upload(dev, n->at, batch->inject_at, bytes));
    RP_TRY(dev->ops->upload(dev, n->row, batch->inject_row, bytes));
    return dev->ops->rows_gather(dev, n->entity, size, n->graph, n->row, n->K, size);
}

rp_status rp_injection_forward(rp_injection *n, rp_dev *dev, float *embedded, const float *values) {
    const rp_config *c = &n->params->config;
    if (n->K == 0) return RP_OK;
    RP_TRY(dev->ops->linear_forward(dev, n->out, n->entity, values + n->params->graph_weight, NULL, n->K, c->graph_size,
                                    c->embedding_size));
    return dev->ops->rows_scatter_add(dev, embedded, n->out, c->embedding_size, n->at, n->K, c->embedding_size);
}

rp_status rp_injection_backward(rp_injection *n, rp_dev *dev, float *grads, const float *dembedded) {
    const rp_config *c = &n->params->config;
    if (n->K == 0) return RP_OK;
    RP_TRY(dev->ops->rows_gather(dev, n->out, c->embedding_size, dembedded, n->at, n->K, c->embedding_size));
    return dev->ops->linear_backward(dev, NULL, grads + n->params->graph_weight, NULL, n->out, n->entity, NULL, n->K,
                                     c->graph_size, c->embedding_size, 0);
}
