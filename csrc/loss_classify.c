#include "loss.h"
#include "rng.h"

enum { SITE_HEADS = 1 << 24 }; /* of dropout, behind every layer's */

rp_status rp_classify_check(const rp_classify_options *o) {
    if (o->classes < 1 || o->classes > 1 << 24)
        return rp_fail(RP_STATUS_VALUE, "%lld classes, expected 1 to %d", (long long)o->classes, 1 << 24);
    if (!(o->smoothing >= 0 && o->smoothing < 1))
        return rp_fail(RP_STATUS_VALUE, "label_smoothing is %g, expected 0 <= smoothing < 1", o->smoothing);
    if (!(o->dropout >= 0 && o->dropout < 1))
        return rp_fail(RP_STATUS_VALUE, "dropout before the classes is %g, expected 0 <= p < 1", o->dropout);
    return RP_OK;
}

void rp_classify_add_heads(rp_classify *m, rp_params *heads, const char *name, const rp_classify_options *o,
                           int64_t dim) {
    m->weight = rp_params_add(heads, name, "weight", o->classes, dim, RP_INIT_NORMAL, true);
    m->bias = rp_params_add(heads, name, "bias", o->classes, 0, RP_INIT_ZERO, false);
}

void rp_classify_plan(rp_classify *m, rp_arena *arena, rp_arena *host, const rp_classify_options *o,
                      int64_t max_samples, int64_t dim) {
    size_t S = (size_t)max_samples, row = (size_t)dim * sizeof(float);
    m->dropped = rp_arena_take(arena, S, row);
    m->ddropped = rp_arena_take(arena, S, row);
    m->logits = rp_arena_take(arena, S, (size_t)o->classes * sizeof(float));
    m->loss = rp_arena_take(arena, S, sizeof(float));
    m->correct = rp_arena_take(arena, S, sizeof(int32_t));
    m->index = rp_arena_take(arena, S, 5 * sizeof(int32_t));
    m->host_index = rp_arena_take(host, S, 5 * sizeof(int32_t));
    m->host_loss = rp_arena_take(host, S, sizeof(float));
}

/* index (4S+1): the classes; then what dropout asks of tokens, of which each vector is one: sample, sequence, place;
 * and the step. */
static rp_status fill_indices(rp_classify *m, rp_dev *dev, const rp_classify_options *o, const int32_t *relation,
                              const int32_t *sample, uint32_t step, int64_t S) {
    for (int64_t s = 0; s < S; s++) {
        if (relation[s] >= o->classes)
            return rp_fail(RP_STATUS_VALUE, "sample %d is of class %d, expected 0 to %lld", (int)sample[s],
                           (int)relation[s], (long long)o->classes - 1);
        m->host_index[s] = relation[s];
        m->host_index[S + s] = sample[s];
        m->host_index[2 * S + s] = (int32_t)s;
        m->host_index[3 * S + s] = 0;
    }
    m->host_index[4 * S] = (int32_t)step;
    return dev->ops->upload(dev, m->index, m->host_index, (4 * S + 1) * (int64_t)sizeof(int32_t));
}

rp_status rp_classify_run(rp_classify *m, rp_dev *dev, const rp_classify_options *o, double weight,
                          const rp_tensors *heads, float *dvectors, double *loss, double *accuracy,
                          const float *vectors, const int32_t *relation, const int32_t *sample, int64_t S, int64_t dim,
                          const rp_pass *pass) {
    const rp_ops *ops = dev->ops;
    const float *w = heads->values + m->weight, *b = heads->values + m->bias;
    rp_dropout dropout = {.key = rp_rng_key(pass->seed, RP_PURPOSE_DROPOUT, SITE_HEADS + (uint32_t)m->weight),
                          .step = m->index + 4 * S,
                          .threshold = rp_dropout_threshold(o->dropout),
                          .sample = m->index + S,
                          .sequence = m->index + 2 * S,
                          .pos = m->index + 3 * S};
    rp_xent xent = {
        .target = m->index, .scale = 1.0f, .weight = (float)(weight / (double)S), .smoothing = (float)o->smoothing};
    RP_TRY(fill_indices(m, dev, o, relation, sample, pass->step, S));
    RP_TRY(ops->dropout_forward(dev, m->dropped, vectors, &dropout, S, dim));
    RP_TRY(ops->linear_forward(dev, m->logits, m->dropped, w, b, S, dim, o->classes));
    RP_TRY(ops->softmax_xent(dev, m->logits, m->loss, m->correct, &xent, S, o->classes));
    RP_TRY(ops->linear_backward(dev, m->ddropped, heads->grads + m->weight, heads->grads + m->bias, m->logits,
                                m->dropped, w, S, dim, o->classes, 0));
    RP_TRY(ops->dropout_forward(dev, m->ddropped, m->ddropped, &dropout, S, dim));
    RP_TRY(rp_loss_means(dev, loss, accuracy, m->loss, m->correct, m->host_loss, m->host_index, S));
    return ops->add_forward(dev, dvectors, dvectors, m->ddropped, S * dim);
}
