#include "loss.h"

rp_status rp_alignment_check(const rp_alignment_options *o) {
    if (!(o->temperature > 0)) return rp_fail(RP_STATUS_VALUE, "temperature is %g, expected above 0", o->temperature);
    if (o->relations < 1 || o->relations > 1 << 24 || o->size < 1 || o->size > 1 << 16)
        return rp_fail(RP_STATUS_VALUE, "%lld relations of the graph of size %lld, expected 1 to %d of 1 to %d",
                       (long long)o->relations, (long long)o->size, 1 << 24, 1 << 16);
    for (int64_t i = 0; i < o->classes; i++)
        if (o->relation_of[i] < -1 || o->relation_of[i] >= o->relations)
            return rp_fail(RP_STATUS_VALUE, "relation_of[%lld] is %d, expected -1 to %lld", (long long)i,
                           (int)o->relation_of[i], (long long)o->relations - 1);
    return RP_OK;
}

void rp_alignment_add_heads(rp_alignment *m, rp_params *heads, const char *name, const rp_alignment_options *o,
                            int64_t dim) {
    m->weight = rp_params_add(heads, name, "weight", o->size, dim, RP_INIT_NORMAL, true);
}

void rp_alignment_plan(rp_alignment *m, rp_arena *arena, rp_arena *host, const rp_alignment_options *o,
                       int64_t max_samples, int64_t dim) {
    size_t S = (size_t)max_samples, G = (size_t)o->relations, size = (size_t)o->size * sizeof(float);
    m->graph = rp_arena_take(arena, G, size);
    m->projected = rp_arena_take(arena, S, size);
    m->unit = rp_arena_take(arena, S, size);
    m->norm = rp_arena_take(arena, S, sizeof(float));
    m->dvectors = rp_arena_take(arena, S, (size_t)dim * sizeof(float));
    m->logits = rp_arena_take(arena, S, G * sizeof(float));
    m->loss = rp_arena_take(arena, S, sizeof(float));
    m->correct = rp_arena_take(arena, S, sizeof(int32_t));
    m->target = rp_arena_take(arena, S, sizeof(int32_t));
    m->relation_of = rp_arena_take(host, (size_t)o->classes, sizeof(int32_t));
    m->host_index = rp_arena_take(host, S, sizeof(int32_t));
    m->host_loss = rp_arena_take(host, S, sizeof(float));
}

rp_status rp_alignment_fill(rp_alignment *m, rp_dev *dev, const rp_alignment_options *o) {
    for (int64_t i = 0; i < o->classes; i++) m->relation_of[i] = o->relation_of[i];
    return dev->ops->upload(dev, m->graph, o->graph, o->relations * o->size * (int64_t)sizeof(float));
}

/* The graph's relation of each sample, -1 for none that it knows; *counted: those of the others. */
static rp_status fill_targets(rp_alignment *m, rp_dev *dev, const rp_alignment_options *o, const int32_t *relation,
                              int64_t S, int64_t *counted) {
    *counted = 0;
    for (int64_t s = 0; s < S; s++) {
        if (relation[s] >= o->classes)
            return rp_fail(RP_STATUS_VALUE, "sample %lld is of relation %d, expected 0 to %lld", (long long)s,
                           (int)relation[s], (long long)o->classes - 1);
        m->host_index[s] = relation[s] < 0 ? -1 : m->relation_of[relation[s]];
        *counted += m->host_index[s] >= 0;
    }
    return dev->ops->upload(dev, m->target, m->host_index, S * (int64_t)sizeof(int32_t));
}

rp_status rp_alignment_run(rp_alignment *m, rp_dev *dev, const rp_alignment_options *o, double weight,
                           const rp_tensors *heads, float *dvectors, double *loss, double *accuracy,
                           const float *vectors, const int32_t *relation, int64_t S, int64_t dim) {
    const rp_ops *ops = dev->ops;
    const float *w = heads->values + m->weight;
    float *dprojected = m->projected;
    int64_t G = o->relations, size = o->size, counted;
    RP_TRY(fill_targets(m, dev, o, relation, S, &counted));
    if (counted == 0) return RP_OK;
    rp_xent xent = {
        .target = m->target, .scale = (float)(1.0 / o->temperature), .weight = (float)(weight / (double)counted)};
    RP_TRY(ops->linear_forward(dev, m->projected, vectors, w, NULL, S, dim, size));
    RP_TRY(ops->normalize_forward(dev, m->unit, m->norm, m->projected, S, size));
    RP_TRY(ops->linear_forward(dev, m->logits, m->unit, m->graph, NULL, S, size, G));
    RP_TRY(ops->softmax_xent(dev, m->logits, m->loss, m->correct, &xent, S, G));
    RP_TRY(ops->linear_backward(dev, dprojected, NULL, NULL, m->logits, m->unit, m->graph, S, size, G, 0));
    RP_TRY(ops->normalize_backward(dev, dprojected, dprojected, m->unit, m->norm, S, size));
    RP_TRY(ops->linear_backward(dev, m->dvectors, heads->grads + m->weight, NULL, dprojected, vectors, w, S, dim, size,
                                0));
    RP_TRY(rp_loss_means(dev, loss, accuracy, m->loss, m->correct, m->host_loss, m->host_index, S));
    *loss *= (double)S / (double)counted;
    *accuracy *= (double)S / (double)counted;
    return ops->add_forward(dev, dvectors, dvectors, m->dvectors, S * dim);
}
