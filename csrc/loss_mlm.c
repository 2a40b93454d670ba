#include "loss.h"

/* The buffers of M rows. */
static void lay_out(rp_mlm *m, rp_arena *arena, const rp_config *c, int64_t M, int64_t chunk) {
    size_t H = (size_t)c->hidden_size * sizeof(float), E = (size_t)c->embedding_size * sizeof(float);
    size_t rows = (size_t)M, some = (size_t)(M < chunk ? M : chunk), wide = H > E ? H : E;
    m->logits = rp_arena_take(arena, some, (size_t)c->vocab_size * sizeof(float));
    m->rows = rp_arena_take(arena, rows, wide);
    m->pre = rp_arena_take(arena, rows, E);
    m->act = rp_arena_take(arena, rows, wide);
    m->normed = rp_arena_take(arena, rows, E);
}

int64_t rp_mlm_floats(const rp_params *params, int64_t max_tokens, int64_t chunk) {
    rp_mlm measured;
    rp_arena arena = {0};
    lay_out(&measured, &arena, &params->config, max_tokens, chunk);
    return (int64_t)(arena.used / sizeof(float));
}

void rp_mlm_plan(rp_mlm *m, rp_arena *arena, rp_arena *host, const rp_params *params, int64_t max_tokens, int64_t chunk,
                 float *spare) {
    size_t T = (size_t)max_tokens;
    m->chunk = max_tokens < chunk ? max_tokens : chunk;
    m->spare = spare;
    m->floats = rp_mlm_floats(params, max_tokens, chunk);
    m->mean = rp_arena_take(arena, T, sizeof(float));
    m->rstd = rp_arena_take(arena, T, sizeof(float));
    m->loss = rp_arena_take(arena, T, sizeof(float));
    m->correct = rp_arena_take(arena, T, sizeof(int32_t));
    m->host = rp_arena_take(host, T, sizeof(float));
}

static rp_status head_forward(rp_mlm *m, rp_dev *dev, const rp_params *p, const float *values, const float *hidden,
                              const rp_inputs *in) {
    int64_t H = p->config.hidden_size, E = p->config.embedding_size, M = in->M;
    RP_TRY(dev->ops->rows_gather(dev, m->rows, H, hidden, in->mlm_row, M, H));
    RP_TRY(dev->ops->linear_gelu_forward(dev, m->act, m->pre, m->rows, values + p->transform_weight,
                                         values + p->transform_bias, M, H, E));
    return dev->ops->layernorm_forward(dev, m->normed, NULL, m->mean, m->rstd, m->act, values + p->transform_gamma,
                                       values + p->transform_beta, (float)p->config.layer_norm_eps, M, E);
}

/* Logits, loss and their gradient a chunk of rows at a time; the gradient of m->normed takes its place. */
static rp_status vocabulary(rp_mlm *m, rp_dev *dev, const rp_params *p, const float *values, float *grads,
                            double weight, const rp_inputs *in) {
    const rp_ops *ops = dev->ops;
    int64_t E = p->config.embedding_size, V = p->config.vocab_size;
    for (int64_t first = 0; first < in->M; first += m->chunk) {
        int64_t rows = in->M - first < m->chunk ? in->M - first : m->chunk;
        float *normed = m->normed + first * E, *dnormed = m->rows + first * E; /* the gathered rows come back below */
        rp_xent x = {.target = in->mlm_label + first, .scale = 1.0f, .weight = (float)weight};
        RP_TRY(rp_dev_poll(dev));
        RP_TRY(ops->linear_forward(dev, m->logits, normed, values + p->word, values + p->decoder_bias, rows, E, V));
        RP_TRY(ops->softmax_xent(dev, m->logits, m->loss + first, m->correct + first, &x, rows, V));
        RP_TRY(ops->linear_backward(dev, dnormed, grads + p->word, grads + p->decoder_bias, m->logits, normed,
                                    values + p->word, rows, E, V, 0));
    }
    return RP_OK;
}

static rp_status head_backward(rp_mlm *m, rp_dev *dev, const rp_params *p, const float *values, float *grads,
                               float *dhidden, const float *hidden, const rp_inputs *in) {
    const rp_ops *ops = dev->ops;
    int64_t H = p->config.hidden_size, E = p->config.embedding_size, M = in->M;
    float *dnormed = m->rows, *dact = m->normed;
    RP_TRY(ops->layernorm_backward(dev, dact, grads + p->transform_gamma, grads + p->transform_beta, dnormed, m->act,
                                   m->mean, m->rstd, values + p->transform_gamma, M, E));
    RP_TRY(ops->gelu_backward(dev, dact, dact, m->pre, M * E));
    RP_TRY(ops->rows_gather(dev, m->rows, H, hidden, in->mlm_row, M, H));
    float *drows = m->act;
    RP_TRY(ops->linear_backward(dev, drows, grads + p->transform_weight, grads + p->transform_bias, dact, m->rows,
                                values + p->transform_weight, M, H, E, 0));
    return ops->rows_scatter_add(dev, dhidden, drows, H, in->mlm_row, M, H);
}

rp_status rp_mlm_run(rp_mlm *m, rp_dev *dev, const rp_params *p, const float *values, float *grads, float *dhidden,
                     double weight, double *loss, const float *hidden, const rp_inputs *in) {
    *loss = 0;
    if (in->M == 0) return RP_OK;
    rp_arena batch = {.base = (char *)m->spare, .capacity = (size_t)m->floats * sizeof(float)};
    lay_out(m, &batch, &p->config, in->M, m->chunk);
    RP_TRY(rp_arena_check(&batch));
    RP_TRY(head_forward(m, dev, p, values, hidden, in));
    RP_TRY(vocabulary(m, dev, p, values, grads, weight, in));
    RP_TRY(head_backward(m, dev, p, values, grads, dhidden, hidden, in));
    RP_TRY(dev->ops->download(dev, m->host, m->loss, in->M * (int64_t)sizeof(float)));
    for (int64_t i = 0; i < in->M; i++) *loss += m->host[i];
    return RP_OK;
}
