#include <math.h>

#include "loss.h"

rp_status rp_bags_check(const rp_bags_options *o) {
    if ((int)o->pooling < 0 || o->pooling >= RP_POOLINGS)
        return rp_fail(RP_STATUS_VALUE, "there is no kind %d of pooling", (int)o->pooling);
    return rp_classify_check(&o->classify);
}

void rp_bags_add_heads(rp_bags *m, rp_params *heads, const char *name, const rp_bags_options *o, int64_t dim) {
    rp_classify_add_heads(&m->classify, heads, name, &o->classify, dim);
    if (o->pooling == RP_POOLING_ATTENTION)
        m->attention = rp_params_add(heads, name, "attention", dim, 0, RP_INIT_ONE, false);
}

void rp_bags_plan(rp_bags *m, rp_arena *arena, rp_arena *host, const rp_bags_options *o, int64_t max_samples,
                  int64_t dim) {
    size_t S = (size_t)max_samples, row = (size_t)dim * sizeof(float);
    float **of_rows[] = {&m->pooled, &m->dpooled, &m->rows, &m->drows, &m->spare};
    float **of_attention[] = {&m->diagonal, &m->relations, &m->query, &m->ddiagonal, &m->drelations};
    rp_classify_plan(&m->classify, arena, host, &o->classify, max_samples, dim);
    for (size_t i = 0; i < sizeof of_rows / sizeof *of_rows; i++) *of_rows[i] = rp_arena_take(arena, S, row);
    if (o->pooling == RP_POOLING_ATTENTION)
        for (size_t i = 0; i < sizeof of_attention / sizeof *of_attention; i++)
            *of_attention[i] = rp_arena_take(arena, S, row);
    if (o->pooling == RP_POOLING_ONE) m->logits = rp_arena_take(arena, S, (size_t)o->classify.classes * sizeof(float));
    m->share = rp_arena_take(arena, S, sizeof(float));
    m->score = rp_arena_take(arena, S, sizeof(float));
    m->correct = rp_arena_take(arena, S, sizeof(int32_t));
    m->index = rp_arena_take(arena, S, 4 * sizeof(int32_t));
    m->host = rp_arena_take(host, S, 2 * sizeof(float));
    m->host_index = rp_arena_take(host, S, 4 * sizeof(int32_t));
    m->start = rp_arena_take(host, S + 1, sizeof(int32_t));
    m->sample = rp_arena_take(host, S, sizeof(int32_t));
}

/* A run: S samples in B bags, and where their indices stand on the device. */
typedef struct run {
    rp_bags *m;
    rp_dev *dev;
    int64_t S, B, dim, classes;
    const float *x, *weight, *attention;    /* vectors; heads' values */
    const int32_t *bag_of, *relation_of;    /* (S) */
    const int32_t *relation_of_bag, *zeros; /* (B) */
} run;

/* index, start, sample, and the number of bags. */
static rp_status find_bags(run *r, const rp_bags_options *o, const rp_batch *batch, int64_t first) {
    rp_bags *m = r->m;
    int64_t S = r->S, B = 0;
    const int32_t *bag = batch->pair + first, *relation = batch->relation + first;
    for (int64_t s = 0; s < S; s++) {
        if (bag[s] < 0 || relation[s] >= o->classify.classes)
            return rp_fail(RP_STATUS_VALUE, "sample %lld is in bag %d and of class %d, expected a bag and 0 to %lld",
                           (long long)(first + s), (int)bag[s], (int)relation[s], (long long)o->classify.classes - 1);
        if (s == 0 || bag[s] != bag[s - 1]) {
            m->start[B] = (int32_t)s;
            m->sample[B] = batch->sample[first + s];
            m->host_index[2 * S + B++] = relation[s];
        }
        m->host_index[s] = (int32_t)B - 1;
        m->host_index[S + s] = relation[s];
        m->host_index[3 * S + s] = 0;
    }
    m->start[B] = (int32_t)S;
    r->B = B;
    r->bag_of = m->index;
    r->relation_of = m->index + S;
    r->relation_of_bag = m->index + 2 * S;
    r->zeros = m->index + 3 * S;
    return r->dev->ops->upload(r->dev, m->index, m->host_index, 4 * S * (int64_t)sizeof(int32_t));
}

/* -- weights --------------------------------------------------------------------------------------------- */

/* out(N) = a b element by element: products of rows of one. */
static rp_status multiply(rp_dev *dev, float *out, const float *a, const float *b, int64_t N) {
    return dev->ops->rows_dot_forward(dev, out, 1, a, b, 1, N, 1);
}

/* score(S) = x_i A r. */
static rp_status score_attention(const run *r) {
    const rp_ops *ops = r->dev->ops;
    rp_bags *m = r->m;
    RP_TRY(ops->rows_gather(r->dev, m->relations, r->dim, r->weight, r->relation_of_bag, r->B, r->dim));
    RP_TRY(ops->rows_gather(r->dev, m->diagonal, r->dim, r->attention, r->zeros, r->B, r->dim));
    RP_TRY(multiply(r->dev, m->query, m->diagonal, m->relations, r->B * r->dim));
    RP_TRY(ops->rows_gather(r->dev, m->rows, r->dim, m->query, r->bag_of, r->S, r->dim));
    return ops->rows_dot_forward(r->dev, m->score, 1, m->rows, r->x, r->dim, r->S, r->dim);
}

/* score(S) = -log p(relation of the bag | x_i). */
static rp_status score_losses(const run *r, const float *bias) {
    const rp_ops *ops = r->dev->ops;
    rp_bags *m = r->m;
    rp_xent xent = {.target = r->relation_of, .scale = 1.0f};
    RP_TRY(ops->linear_forward(r->dev, m->logits, r->x, r->weight, bias, r->S, r->dim, r->classes));
    return ops->softmax_xent(r->dev, m->logits, m->score, m->correct, &xent, r->S, r->classes);
}

static void softmax(float *share, const float *score, int64_t n) {
    double sum = 0;
    float top = score[0];
    for (int64_t i = 1; i < n; i++) top = score[i] > top ? score[i] : top;
    for (int64_t i = 0; i < n; i++) sum += exp((double)score[i] - top);
    for (int64_t i = 0; i < n; i++) share[i] = (float)(exp((double)score[i] - top) / sum);
}

static void choose_least(float *share, const float *score, int64_t n) {
    int64_t least = 0;
    for (int64_t i = 1; i < n; i++)
        if (score[i] < score[least]) least = i;
    for (int64_t i = 0; i < n; i++) share[i] = i == least;
}

/* share(S), in host[0] and on the device. The scores are few: the host makes the weights of them. */
static rp_status weigh(const run *r, rp_pooling pooling, const float *bias) {
    rp_bags *m = r->m;
    float *share = m->host, *score = m->host + r->S;
    int64_t bytes = r->S * (int64_t)sizeof(float);
    if (pooling == RP_POOLING_ATTENTION) RP_TRY(score_attention(r));
    if (pooling == RP_POOLING_ONE) RP_TRY(score_losses(r, bias));
    if (pooling != RP_POOLING_MEAN) RP_TRY(r->dev->ops->download(r->dev, score, m->score, bytes));
    for (int64_t b = 0; b < r->B; b++) {
        int64_t first = m->start[b], n = m->start[b + 1] - first;
        if (pooling == RP_POOLING_ATTENTION) softmax(share + first, score + first, n);
        if (pooling == RP_POOLING_ONE) choose_least(share + first, score + first, n);
        for (int64_t i = 0; i < n && pooling == RP_POOLING_MEAN; i++) share[first + i] = 1.0f / (float)n;
    }
    return r->dev->ops->upload(r->dev, m->share, share, bytes);
}

/* -- forward and backward -------------------------------------------------------------------------------- */

/* pooled(B,dim) = the weighted sums. */
static rp_status pool(const run *r) {
    const rp_ops *ops = r->dev->ops;
    rp_bags *m = r->m;
    RP_TRY(rp_loss_scale_rows(r->dev, m->drows, m->spare, m->share, r->x, r->S, r->dim));
    RP_TRY(ops->zero(r->dev, m->pooled, r->B * r->dim * (int64_t)sizeof(float)));
    return ops->rows_scatter_add(r->dev, m->pooled, m->drows, r->dim, r->bag_of, r->S, r->dim);
}

/* score(S) = d loss / d e_i = a_i (g_i - sum_k a_k g_k) of each bag, with g_i = <ds, x_i>; rows are ds of each sample.
 */
static rp_status softmax_backward(const run *r) {
    rp_bags *m = r->m;
    const float *share = m->host;
    float *score = m->host + r->S;
    int64_t bytes = r->S * (int64_t)sizeof(float);
    RP_TRY(r->dev->ops->rows_dot_forward(r->dev, m->score, 1, m->rows, r->x, r->dim, r->S, r->dim));
    RP_TRY(r->dev->ops->download(r->dev, score, m->score, bytes));
    for (int64_t b = 0; b < r->B; b++) {
        double mean = 0;
        for (int64_t i = m->start[b]; i < m->start[b + 1]; i++) mean += (double)share[i] * score[i];
        for (int64_t i = m->start[b]; i < m->start[b + 1]; i++) score[i] = (float)(share[i] * (score[i] - mean));
    }
    return r->dev->ops->upload(r->dev, m->score, score, bytes);
}

/* The gradients that go through the weights: of x, A and r. */
static rp_status attention_backward(const run *r, float *dx, float *dweight, float *dattention) {
    const rp_ops *ops = r->dev->ops;
    rp_bags *m = r->m;
    float *dquery = m->dpooled; /* which is used up */
    int64_t N = r->B * r->dim;
    RP_TRY(softmax_backward(r));
    RP_TRY(ops->rows_gather(r->dev, m->rows, r->dim, m->query, r->bag_of, r->S, r->dim));
    RP_TRY(ops->rows_dot_backward(r->dev, m->drows, m->spare, m->score, 1, r->x, m->rows, r->dim, r->S, r->dim));
    RP_TRY(ops->add_forward(r->dev, dx, dx, m->drows, r->S * r->dim));
    RP_TRY(ops->zero(r->dev, dquery, N * (int64_t)sizeof(float)));
    RP_TRY(ops->rows_scatter_add(r->dev, dquery, m->spare, r->dim, r->bag_of, r->S, r->dim));
    RP_TRY(ops->rows_dot_backward(r->dev, m->ddiagonal, m->drelations, dquery, 1, m->diagonal, m->relations, 1, N, 1));
    RP_TRY(ops->rows_scatter_add(r->dev, dweight, m->drelations, r->dim, r->relation_of_bag, r->B, r->dim));
    return ops->rows_scatter_add(r->dev, dattention, m->ddiagonal, r->dim, r->zeros, r->B, r->dim);
}

rp_status rp_bags_run(rp_bags *m, rp_dev *dev, const rp_bags_options *o, double weight, const rp_tensors *heads,
                      float *dvectors, double *loss, double *accuracy, const float *vectors, const rp_batch *batch,
                      int64_t first, int64_t S, int64_t dim, const rp_pass *pass) {
    const rp_ops *ops = dev->ops;
    run r = {.m = m,
             .dev = dev,
             .S = S,
             .dim = dim,
             .classes = o->classify.classes,
             .x = vectors,
             .weight = heads->values + m->classify.weight,
             .attention = heads->values + m->attention};
    RP_TRY(find_bags(&r, o, batch, first));
    RP_TRY(weigh(&r, o->pooling, heads->values + m->classify.bias));
    RP_TRY(pool(&r));
    RP_TRY(ops->zero(dev, m->dpooled, r.B * dim * (int64_t)sizeof(float)));
    RP_TRY(rp_classify_run(&m->classify, dev, &o->classify, weight, heads, m->dpooled, loss, accuracy, m->pooled,
                           m->host_index + 2 * S, m->sample, r.B, dim, pass));
    RP_TRY(ops->rows_gather(dev, m->rows, dim, m->dpooled, r.bag_of, S, dim));
    RP_TRY(rp_loss_scale_rows(dev, m->drows, m->spare, m->share, m->rows, S, dim));
    RP_TRY(ops->add_forward(dev, dvectors, dvectors, m->drows, S * dim));
    if (o->pooling != RP_POOLING_ATTENTION) return RP_OK;
    return attention_backward(&r, dvectors, heads->grads + m->classify.weight, heads->grads + m->attention);
}
