#include <math.h>

#include "loss.h"
#include "rng.h"

enum { SITE_DOMAIN = 1 << 25 }; /* of dropout, behind every layer's and every head's */

rp_status rp_domain_check(const rp_domain_options *o) {
    if (o->hidden < -1 || o->hidden > 1 << 20)
        return rp_fail(RP_STATUS_VALUE, "hidden is %lld, expected 0 to %d units", (long long)o->hidden, 1 << 20);
    if (!(o->dropout >= 0 && o->dropout < 1))
        return rp_fail(RP_STATUS_VALUE, "dropout in the discriminator is %g, expected 0 <= p < 1", o->dropout);
    if (!(o->reversal >= 0) || !isfinite(o->reversal))
        return rp_fail(RP_STATUS_VALUE, "reversal is %g, expected 0 or more", o->reversal);
    if (o->ramp_steps >= 0) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "ramp_steps is %lld, expected 0 or more", (long long)o->ramp_steps);
}

void rp_domain_add_heads(rp_domain *m, rp_params *heads, const char *name, const rp_domain_options *o, int64_t dim) {
    m->hidden = o->hidden < 0 ? dim : o->hidden;
    if (m->hidden > 0) {
        m->hidden_weight = rp_params_add(heads, name, "hidden.weight", m->hidden, dim, RP_INIT_NORMAL, true);
        m->hidden_bias = rp_params_add(heads, name, "hidden.bias", m->hidden, 0, RP_INIT_ZERO, false);
    }
    m->weight = rp_params_add(heads, name, "weight", 2, m->hidden > 0 ? m->hidden : dim, RP_INIT_NORMAL, true);
    m->bias = rp_params_add(heads, name, "bias", 2, 0, RP_INIT_ZERO, false);
}

void rp_domain_plan(rp_domain *m, rp_arena *arena, rp_arena *host, int64_t max_samples, int64_t dim) {
    size_t S = (size_t)max_samples, row = (size_t)dim * sizeof(float), units = (size_t)m->hidden * sizeof(float);
    m->units = rp_arena_take(arena, S, units);
    m->dropped = rp_arena_take(arena, S, units);
    m->dunits = rp_arena_take(arena, S, units);
    m->dx = rp_arena_take(arena, S, row);
    m->reversed = rp_arena_take(arena, S, row);
    m->spare = rp_arena_take(arena, S, row);
    m->factor = rp_arena_take(arena, S, sizeof(float));
    m->logits = rp_arena_take(arena, S, 2 * sizeof(float));
    m->loss = rp_arena_take(arena, S, sizeof(float));
    m->correct = rp_arena_take(arena, S, sizeof(int32_t));
    m->index = rp_arena_take(arena, S, 5 * sizeof(int32_t));
    m->host_index = rp_arena_take(host, S, 5 * sizeof(int32_t));
    m->host_loss = rp_arena_take(host, S, sizeof(float));
}

/* index (4S+1): the domains, 1 for the target's; then what dropout asks of tokens, of which each vector is one, and
 * the step. */
static rp_status fill_indices(rp_domain *m, rp_dev *dev, const int32_t *relation, const int32_t *sample, uint32_t step,
                              int64_t S) {
    int64_t targets = 0;
    for (int64_t s = 0; s < S; s++) {
        m->host_index[s] = relation[s] < 0;
        m->host_index[S + s] = sample[s];
        m->host_index[2 * S + s] = (int32_t)s;
        m->host_index[3 * S + s] = 0;
        targets += relation[s] < 0;
    }
    m->host_index[4 * S] = (int32_t)step;
    if (targets == 0 || targets == S)
        return rp_fail(RP_STATUS_VALUE,
                       "%lld of a step's %lld sentences are of the target, expected some of both texts",
                       (long long)targets, (long long)S);
    return dev->ops->upload(dev, m->index, m->host_index, (4 * S + 1) * (int64_t)sizeof(int32_t));
}

/* factor (S): what the vectors' gradient is multiplied by, -lambda. */
static rp_status fill_factor(rp_domain *m, rp_dev *dev, const rp_domain_options *o, uint32_t step, int64_t S) {
    double ramp = o->ramp_steps > 0 ? 2 / (1 + exp(-10.0 * (double)step / (double)o->ramp_steps)) - 1 : 1;
    for (int64_t s = 0; s < S; s++) m->host_loss[s] = (float)(-o->reversal * ramp);
    return dev->ops->upload(dev, m->factor, m->host_loss, S * (int64_t)sizeof(float));
}

typedef struct run {
    rp_domain *m;
    rp_dev *dev;
    const float *values, *x; /* of the heads; vectors */
    float *grads;
    const rp_dropout *dropout;
    int64_t S, dim;
} run;

/* logits, by way of dropped(S,hidden) = dropout(max(U x + c, 0)). */
static rp_status forward(const run *r) {
    const rp_ops *ops = r->dev->ops;
    rp_domain *m = r->m;
    const float *w = r->values + m->weight, *b = r->values + m->bias;
    int64_t S = r->S, hidden = m->hidden;
    if (hidden == 0) return ops->linear_forward(r->dev, m->logits, r->x, w, b, S, r->dim, 2);
    RP_TRY(ops->linear_forward(r->dev, m->units, r->x, r->values + m->hidden_weight, r->values + m->hidden_bias, S,
                               r->dim, hidden));
    RP_TRY(ops->activation_forward(r->dev, m->units, m->units, S * hidden, RP_RELU));
    RP_TRY(ops->dropout_forward(r->dev, m->dropped, m->units, r->dropout, S, hidden));
    return ops->linear_forward(r->dev, m->logits, m->dropped, w, b, S, hidden, 2);
}

/* The heads' grads, and dx(S,dim), from the gradient of the logits. */
static rp_status backward(const run *r) {
    const rp_ops *ops = r->dev->ops;
    rp_domain *m = r->m;
    const float *w = r->values + m->weight;
    float *dw = r->grads + m->weight, *db = r->grads + m->bias;
    int64_t S = r->S, hidden = m->hidden;
    if (hidden == 0) return ops->linear_backward(r->dev, m->dx, dw, db, m->logits, r->x, w, S, r->dim, 2, 0);
    RP_TRY(ops->linear_backward(r->dev, m->dunits, dw, db, m->logits, m->dropped, w, S, hidden, 2, 0));
    RP_TRY(ops->dropout_forward(r->dev, m->dunits, m->dunits, r->dropout, S, hidden));
    RP_TRY(ops->activation_backward(r->dev, m->dunits, m->dunits, m->units, S * hidden, RP_RELU));
    return ops->linear_backward(r->dev, m->dx, r->grads + m->hidden_weight, r->grads + m->hidden_bias, m->dunits, r->x,
                                r->values + m->hidden_weight, S, r->dim, hidden, 0);
}

rp_status rp_domain_run(rp_domain *m, rp_dev *dev, const rp_domain_options *o, double weight, const rp_tensors *heads,
                        float *dvectors, double *loss, double *accuracy, const float *vectors, const int32_t *relation,
                        const int32_t *sample, int64_t S, int64_t dim, const rp_pass *pass) {
    const rp_ops *ops = dev->ops;
    rp_dropout dropout = {.key = rp_rng_key(pass->seed, RP_PURPOSE_DROPOUT, SITE_DOMAIN + (uint32_t)m->weight),
                          .step = m->index + 4 * S,
                          .threshold = rp_dropout_threshold(o->dropout),
                          .sample = m->index + S,
                          .sequence = m->index + 2 * S,
                          .pos = m->index + 3 * S};
    rp_xent xent = {.target = m->index, .scale = 1.0f, .weight = (float)(weight / (double)S)};
    run r = {.m = m,
             .dev = dev,
             .values = heads->values,
             .grads = heads->grads,
             .x = vectors,
             .dropout = &dropout,
             .S = S,
             .dim = dim};
    RP_TRY(fill_indices(m, dev, relation, sample, pass->step, S));
    RP_TRY(fill_factor(m, dev, o, pass->step, S));
    RP_TRY(forward(&r));
    RP_TRY(ops->softmax_xent(dev, m->logits, m->loss, m->correct, &xent, S, 2));
    RP_TRY(backward(&r));
    RP_TRY(rp_loss_scale_rows(dev, m->reversed, m->spare, m->factor, m->dx, S, dim));
    RP_TRY(rp_loss_means(dev, loss, accuracy, m->loss, m->correct, m->host_loss, m->host_index, S));
    return ops->add_forward(dev, dvectors, dvectors, m->reversed, S * dim);
}
