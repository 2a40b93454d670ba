#include "loss.h"

#include <math.h>

rp_status rp_match_check(const rp_match_options *o) {
    if (!(o->temperature > 0)) return rp_fail(RP_STATUS_VALUE, "temperature is %g, expected above 0", o->temperature);
    if (!isfinite(o->threshold)) return rp_fail(RP_STATUS_VALUE, "threshold is %g, expected a number", o->threshold);
    if (o->similarity != RP_SIMILARITY_DOT && o->similarity != RP_SIMILARITY_COSINE)
        return rp_fail(RP_STATUS_VALUE, "matching takes similarity dot or cosine");
    return RP_OK;
}

void rp_match_plan(rp_match *m, rp_arena *arena, rp_arena *host, int64_t max_samples, int64_t dim) {
    size_t S = (size_t)max_samples, pairs = S / 2, row = (size_t)dim * sizeof(float);
    m->unit = rp_arena_take(arena, S, row);
    m->dunit = rp_arena_take(arena, S, row);
    m->norm = rp_arena_take(arena, S, sizeof(float));
    m->logits = rp_arena_take(arena, pairs, 2 * sizeof(float));
    m->loss = rp_arena_take(arena, pairs, sizeof(float));
    m->correct = rp_arena_take(arena, pairs, sizeof(int32_t));
    m->target = rp_arena_take(arena, pairs, sizeof(int32_t));
    m->host_loss = rp_arena_take(host, pairs, sizeof(float));
    m->host_index = rp_arena_take(host, pairs, sizeof(int32_t));
    m->host_logits = rp_arena_take(host, pairs, 2 * sizeof(float));
}

/* The column of the right answer: 0, that the two match, whose logit is their similarity; 1, that they do not, whose
 * logit is the threshold. So softmax over the two is the sigmoid of the difference. */
static rp_status fill(rp_match *m, rp_dev *dev, const int32_t *pair, int64_t pairs, double threshold) {
    for (int64_t i = 0; i < pairs; i++) {
        m->host_index[i] = pair[2 * i] < 0 || pair[2 * i] != pair[2 * i + 1];
        m->host_logits[2 * i] = 0;
        m->host_logits[2 * i + 1] = (float)threshold;
    }
    RP_TRY(dev->ops->upload(dev, m->target, m->host_index, pairs * (int64_t)sizeof(int32_t)));
    return dev->ops->upload(dev, m->logits, m->host_logits, 2 * pairs * (int64_t)sizeof(float));
}

rp_status rp_match_run(rp_match *m, rp_dev *dev, const rp_match_options *o, double weight, float *dvectors,
                       double *loss, double *accuracy, const float *vectors, const int32_t *pair, int64_t S,
                       int64_t dim) {
    const rp_ops *ops = dev->ops;
    int64_t pairs = S / 2;
    bool cosine = o->similarity == RP_SIMILARITY_COSINE;
    const float *x = cosine ? m->unit : vectors;
    rp_xent xent = {
        .target = m->target, .scale = (float)(1.0 / o->temperature), .weight = (float)(weight / (double)pairs)};
    RP_TRY(fill(m, dev, pair, pairs, o->threshold));
    if (cosine) RP_TRY(ops->normalize_forward(dev, m->unit, m->norm, vectors, S, dim));
    RP_TRY(ops->rows_dot_forward(dev, m->logits, 2, x, x + dim, 2 * dim, pairs, dim));
    RP_TRY(ops->softmax_xent(dev, m->logits, m->loss, m->correct, &xent, pairs, 2));
    RP_TRY(ops->rows_dot_backward(dev, m->dunit, m->dunit + dim, m->logits, 2, x, x + dim, 2 * dim, pairs, dim));
    if (cosine) RP_TRY(ops->normalize_backward(dev, m->dunit, m->dunit, m->unit, m->norm, S, dim));
    RP_TRY(rp_loss_means(dev, loss, accuracy, m->loss, m->correct, m->host_loss, m->host_index, pairs));
    return ops->add_forward(dev, dvectors, dvectors, m->dunit, S * dim);
}
