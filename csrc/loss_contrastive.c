#include "loss.h"

enum { TARGET, SKIP, GROUP, ROWS, INDICES }; /* the rows of index (4,S) */

rp_status rp_contrastive_check(const rp_contrastive_options *o) {
    if (!(o->temperature > 0)) return rp_fail(RP_STATUS_VALUE, "temperature is %g, expected above 0", o->temperature);
    if (o->similarity != RP_SIMILARITY_DOT && o->similarity != RP_SIMILARITY_COSINE)
        return rp_fail(RP_STATUS_VALUE, "the contrastive loss takes similarity dot or cosine");
    return RP_OK;
}

void rp_contrastive_plan(rp_contrastive *m, rp_arena *arena, rp_arena *host, int64_t max_samples, int64_t dim,
                         int64_t chunk) {
    size_t S = (size_t)max_samples, row = (size_t)dim * sizeof(float);
    m->chunk = max_samples < chunk ? max_samples : chunk;
    m->unit = rp_arena_take(arena, S, row);
    m->dunit = rp_arena_take(arena, S, row);
    m->anchors = rp_arena_take(arena, S, row);
    m->candidates = rp_arena_take(arena, S, row);
    m->danchors = rp_arena_take(arena, S, row);
    m->dcandidates = rp_arena_take(arena, S, row);
    m->norm = rp_arena_take(arena, S, sizeof(float));
    m->logits = rp_arena_take(arena, (size_t)m->chunk, S * sizeof(float));
    m->loss = rp_arena_take(arena, S, sizeof(float));
    m->correct = rp_arena_take(arena, S, sizeof(int32_t));
    m->index = rp_arena_take(arena, S, INDICES * sizeof(int32_t));
    m->host_index = rp_arena_take(host, S, INDICES * sizeof(int32_t));
    m->host_loss = rp_arena_take(host, S, sizeof(float));
    m->host_correct = rp_arena_take(host, S, sizeof(int32_t));
    m->max_samples = max_samples;
}

/* The two sides of the product. Symmetric: both are all samples. */
typedef struct sides {
    int64_t anchors, candidates;
    const float *x, *y; /* (anchors,dim), (candidates,dim) */
} sides;

static int32_t *indices(const rp_contrastive *m, int which) { return m->index + which * m->max_samples; }

static void fill_indices(const rp_contrastive *m, bool symmetric, const int32_t *group_of, int64_t S) {
    int32_t *target = m->host_index, *skip = target + m->max_samples, *group = skip + m->max_samples,
            *rows = group + m->max_samples;
    for (int32_t i = 0; i < S; i++) {
        int32_t half = (int32_t)(S / 2);
        target[i] = symmetric ? i ^ 1 : i;
        skip[i] = symmetric ? i : -1;
        group[i] = group_of[symmetric ? i : 2 * (i % half)];
        rows[i] = i < half ? 2 * i : 2 * (i - half) + 1; /* the first ones of all pairs, then the second ones */
    }
}

static rp_status split_sides(rp_contrastive *m, rp_dev *dev, const rp_contrastive_options *o, sides *out,
                             const float *vectors, const int32_t *group_of, int64_t S, int64_t dim) {
    const rp_ops *ops = dev->ops;
    fill_indices(m, o->symmetric, group_of, S);
    RP_TRY(ops->upload(dev, m->index, m->host_index, INDICES * m->max_samples * (int64_t)sizeof(int32_t)));
    if (o->symmetric) {
        *out = (sides){S, S, vectors, vectors};
        return RP_OK;
    }
    *out = (sides){S / 2, S / 2, m->anchors, m->candidates};
    RP_TRY(ops->rows_gather(dev, m->anchors, dim, vectors, indices(m, ROWS), S / 2, dim));
    return ops->rows_gather(dev, m->candidates, dim, vectors, indices(m, ROWS) + S / 2, S / 2, dim);
}

/* danchors, dcandidates from the logits of a chunk of anchors at a time. */
static rp_status products(rp_contrastive *m, rp_dev *dev, const rp_contrastive_options *o, double weight,
                          const sides *s, int64_t dim) {
    const rp_ops *ops = dev->ops;
    bool grouped = o->mask_same_group || o->supervised;
    RP_TRY(ops->zero(dev, m->dcandidates, s->candidates * dim * (int64_t)sizeof(float)));
    for (int64_t first = 0; first < s->anchors; first += m->chunk) {
        int64_t rows = s->anchors - first < m->chunk ? s->anchors - first : m->chunk;
        rp_xent x = {
            .target = indices(m, TARGET) + first,
            .skip = indices(m, SKIP) + first,
            .row_group = grouped ? indices(m, GROUP) + first : NULL,
            .col_group = grouped ? indices(m, GROUP) : NULL,
            .supervised = o->supervised,
            .scale = (float)(1.0 / o->temperature),
            .weight = (float)(weight / (double)s->anchors),
        };
        RP_TRY(ops->linear_forward(dev, m->logits, s->x + first * dim, s->y, NULL, rows, dim, s->candidates));
        RP_TRY(ops->softmax_xent(dev, m->logits, m->loss + first, m->correct + first, &x, rows, s->candidates));
        RP_TRY(ops->linear_backward(dev, m->danchors + first * dim, m->dcandidates, NULL, m->logits, s->x + first * dim,
                                    s->y, rows, dim, s->candidates, 0));
    }
    return RP_OK;
}

static rp_status join_sides(rp_contrastive *m, rp_dev *dev, const rp_contrastive_options *o, float *out, int64_t S,
                            int64_t dim) {
    const rp_ops *ops = dev->ops;
    if (o->symmetric) return ops->add_forward(dev, out, m->danchors, m->dcandidates, S * dim);
    RP_TRY(ops->zero(dev, out, S * dim * (int64_t)sizeof(float)));
    RP_TRY(ops->rows_scatter_add(dev, out, m->danchors, dim, indices(m, ROWS), S / 2, dim));
    return ops->rows_scatter_add(dev, out, m->dcandidates, dim, indices(m, ROWS) + S / 2, S / 2, dim);
}

rp_status rp_contrastive_run(rp_contrastive *m, rp_dev *dev, const rp_contrastive_options *o, double weight,
                             float *dvectors, double *loss, double *accuracy, const float *vectors,
                             const int32_t *group_of, int64_t S, int64_t dim) {
    const rp_ops *ops = dev->ops;
    bool cosine = o->similarity == RP_SIMILARITY_COSINE;
    sides s;
    if (cosine) RP_TRY(ops->normalize_forward(dev, m->unit, m->norm, vectors, S, dim));
    RP_TRY(split_sides(m, dev, o, &s, cosine ? m->unit : vectors, group_of, S, dim));
    RP_TRY(products(m, dev, o, weight, &s, dim));
    RP_TRY(rp_loss_means(dev, loss, accuracy, m->loss, m->correct, m->host_loss, m->host_correct, s.anchors));
    RP_TRY(join_sides(m, dev, o, m->dunit, S, dim));
    if (cosine) RP_TRY(ops->normalize_backward(dev, m->dunit, m->dunit, m->unit, m->norm, S, dim));
    return ops->add_forward(dev, dvectors, dvectors, m->dunit, S * dim);
}
