#include "loss.h"

rp_status rp_boundary_check(const rp_boundary_options *o) {
    if (o->position_size >= 1 && o->position_size <= 1 << 16) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "position_size is %lld, expected 1 to %d", (long long)o->position_size, 1 << 16);
}

/* -- parameters and memory ------------------------------------------------------------------------------- */

static void add_layer(rp_boundary_layer *l, rp_params *heads, const char *name, const char *const parts[4], int64_t I,
                      int64_t O) {
    l->I = I;
    l->O = O;
    l->weight = rp_params_add(heads, name, parts[0], O, I, RP_INIT_NORMAL, true);
    l->bias = rp_params_add(heads, name, parts[1], O, 0, RP_INIT_ZERO, false);
    l->gamma = rp_params_add(heads, name, parts[2], O, 0, RP_INIT_ONE, false);
    l->beta = rp_params_add(heads, name, parts[3], O, 0, RP_INIT_ZERO, false);
}

void rp_boundary_add_heads(rp_boundary *m, rp_params *heads, const char *name, const rp_boundary_options *o,
                           const rp_params *params) {
    static const char *const parts[2][4] = {
        {"layer.0.dense.weight", "layer.0.dense.bias", "layer.0.LayerNorm.weight", "layer.0.LayerNorm.bias"},
        {"layer.1.dense.weight", "layer.1.dense.bias", "layer.1.LayerNorm.weight", "layer.1.LayerNorm.bias"}};
    const rp_config *c = &params->config;
    int64_t H = c->hidden_size, P = o->position_size;
    m->position = rp_params_add(heads, name, "position_embeddings.weight", RP_SPAN_PLACES, P, RP_INIT_NORMAL, true);
    add_layer(&m->layer[0], heads, name, parts[0], 2 * H + P, H);
    add_layer(&m->layer[1], heads, name, parts[1], H, c->embedding_size);
    m->bias = rp_params_add(heads, name, "bias", c->vocab_size, 0, RP_INIT_ZERO, false);
}

static void plan_layer(rp_boundary_layer *l, rp_arena *arena, size_t rows) {
    size_t row = (size_t)l->O * sizeof(float);
    l->pre = rp_arena_take(arena, rows, row);
    l->act = rp_arena_take(arena, rows, row);
    l->normed = rp_arena_take(arena, rows, row);
    l->mean = rp_arena_take(arena, rows, sizeof(float));
    l->rstd = rp_arena_take(arena, rows, sizeof(float));
}

void rp_boundary_plan(rp_boundary *m, rp_arena *arena, rp_arena *host, const rp_boundary_options *o,
                      const rp_params *params, int64_t max_tokens, int64_t chunk, float *spare) {
    const rp_config *c = &params->config;
    m->chunk = max_tokens < chunk ? max_tokens : chunk;
    size_t rows = (size_t)m->chunk, T = (size_t)max_tokens, f = sizeof(float);
    size_t H = (size_t)c->hidden_size * f, wide = 2 * H + (size_t)o->position_size * f;
    for (int i = 0; i < 2; i++) plan_layer(&m->layer[i], arena, rows);
    m->inputs = rp_arena_take(arena, rows, wide);
    m->dinputs = rp_arena_take(arena, rows, wide);
    m->dhidden = rp_arena_take(arena, rows, H);
    m->dnormed = rp_arena_take(arena, rows, (size_t)c->embedding_size * f);
    m->loss = rp_arena_take(arena, T, f);
    m->correct = rp_arena_take(arena, T, sizeof(int32_t));
    m->host_loss = rp_arena_take(host, T, f);
    m->host_correct = rp_arena_take(host, T, sizeof(int32_t));
    m->logits = spare;
}

/* -- one chunk ------------------------------------------------------------------------------------------- */

static rp_status layer_forward(const rp_boundary_layer *l, rp_dev *dev, const float *values, float eps, const float *x,
                               int64_t rows) {
    RP_TRY(
        dev->ops->linear_gelu_forward(dev, l->act, l->pre, x, values + l->weight, values + l->bias, rows, l->I, l->O));
    return dev->ops->layernorm_forward(dev, l->normed, NULL, l->mean, l->rstd, l->act, values + l->gamma,
                                       values + l->beta, eps, rows, l->O);
}

/* dx from dout, the gradient of l->normed, whose memory takes those of what comes before it. */
static rp_status layer_backward(const rp_boundary_layer *l, rp_dev *dev, const rp_tensors *heads, float *dx,
                                const float *dout, const float *x, int64_t rows) {
    float *dact = l->normed, *grads = heads->grads;
    RP_TRY(dev->ops->layernorm_backward(dev, dact, grads + l->gamma, grads + l->beta, dout, l->act, l->mean, l->rstd,
                                        heads->values + l->gamma, rows, l->O));
    RP_TRY(dev->ops->gelu_backward(dev, dact, dact, l->pre, rows * l->O));
    return dev->ops->linear_backward(dev, dx, grads + l->weight, grads + l->bias, dact, x, heads->values + l->weight,
                                     rows, l->I, l->O, 0);
}

/* m->inputs: [x_l; x_r; p_i] of masked rows first .. first + rows. */
static rp_status gather(const rp_boundary *m, rp_dev *dev, const float *positions, const float *hidden,
                        const rp_inputs *in, int64_t H, int64_t first, int64_t rows) {
    int64_t wide = m->layer[0].I, P = wide - 2 * H;
    RP_TRY(dev->ops->rows_gather(dev, m->inputs, wide, hidden, in->span_left + first, rows, H));
    RP_TRY(dev->ops->rows_gather(dev, m->inputs + H, wide, hidden, in->span_right + first, rows, H));
    return dev->ops->rows_gather(dev, m->inputs + 2 * H, wide, positions, in->span_place + first, rows, P);
}

static rp_status scatter(const rp_boundary *m, rp_dev *dev, float *dpositions, float *dhidden, const rp_inputs *in,
                         int64_t H, int64_t first, int64_t rows) {
    int64_t wide = m->layer[0].I, P = wide - 2 * H;
    RP_TRY(dev->ops->rows_scatter_add(dev, dhidden, m->dinputs, wide, in->span_left + first, rows, H));
    RP_TRY(dev->ops->rows_scatter_add(dev, dhidden, m->dinputs + H, wide, in->span_right + first, rows, H));
    return dev->ops->rows_scatter_add(dev, dpositions, m->dinputs + 2 * H, wide, in->span_place + first, rows, P);
}

/* Losses of the vocabulary's scores of y, and the gradient of y to m->dnormed. */
static rp_status score(const rp_boundary *m, rp_dev *dev, const rp_tensors *model, const rp_tensors *heads,
                       double weight, const rp_inputs *in, int64_t first, int64_t rows) {
    const rp_ops *ops = dev->ops;
    const float *y = m->layer[1].normed, *word = model->values + model->params->word;
    int64_t E = m->layer[1].O, V = model->params->config.vocab_size;
    rp_xent x = {.target = in->mlm_label + first, .scale = 1.0f, .weight = (float)weight};
    RP_TRY(ops->linear_forward(dev, m->logits, y, word, heads->values + m->bias, rows, E, V));
    RP_TRY(ops->softmax_xent(dev, m->logits, m->loss + first, m->correct + first, &x, rows, V));
    return ops->linear_backward(dev, m->dnormed, model->grads + model->params->word, heads->grads + m->bias, m->logits,
                                y, word, rows, E, V, 0);
}

static rp_status run_chunk(const rp_boundary *m, rp_dev *dev, const rp_tensors *model, const rp_tensors *heads,
                           float *dhidden, double weight, const float *hidden, const rp_inputs *in, int64_t first,
                           int64_t rows) {
    const rp_config *c = &model->params->config;
    const rp_boundary_layer *one = &m->layer[0], *two = &m->layer[1];
    float eps = (float)c->layer_norm_eps;
    RP_TRY(rp_dev_poll(dev));
    RP_TRY(gather(m, dev, heads->values + m->position, hidden, in, c->hidden_size, first, rows));
    RP_TRY(layer_forward(one, dev, heads->values, eps, m->inputs, rows));
    RP_TRY(layer_forward(two, dev, heads->values, eps, one->normed, rows));
    RP_TRY(score(m, dev, model, heads, weight, in, first, rows));
    RP_TRY(layer_backward(two, dev, heads, m->dhidden, m->dnormed, one->normed, rows));
    RP_TRY(layer_backward(one, dev, heads, m->dinputs, m->dhidden, m->inputs, rows));
    return scatter(m, dev, heads->grads + m->position, dhidden, in, c->hidden_size, first, rows);
}

rp_status rp_boundary_run(rp_boundary *m, rp_dev *dev, const rp_tensors *model, const rp_tensors *heads, float *dhidden,
                          double weight, double *loss, double *correct, const float *hidden, const rp_inputs *in) {
    for (int64_t first = 0; first < in->M; first += m->chunk) {
        int64_t rows = in->M - first < m->chunk ? in->M - first : m->chunk;
        RP_TRY(run_chunk(m, dev, model, heads, dhidden, weight, hidden, in, first, rows));
    }
    RP_TRY(dev->ops->download(dev, m->host_loss, m->loss, in->M * (int64_t)sizeof(float)));
    RP_TRY(dev->ops->download(dev, m->host_correct, m->correct, in->M * (int64_t)sizeof(int32_t)));
    for (int64_t i = 0; i < in->M; i++) {
        *loss += m->host_loss[i];
        *correct += m->host_correct[i];
    }
    return RP_OK;
}
