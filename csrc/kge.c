#include "kge.h"

#include <math.h>
#include <stddef.h>

/* -- queries --------------------------------------------------------------------------------------------- */

void rp_kge_query(rp_kge_model model, bool head, float *q, const float *anchor, const float *relation, int64_t dim) {
    if (model == RP_KGE_DISTMULT)
        for (int64_t i = 0; i < dim; i++) q[i] = anchor[i] * relation[i];
    else if (head)
        for (int64_t i = 0; i < dim; i++) q[i] = anchor[i] - relation[i];
    else
        for (int64_t i = 0; i < dim; i++) q[i] = anchor[i] + relation[i];
}

static void add_scaled(float *out, float factor, const float *x, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) out[i] += factor * x[i];
}

static void add_product(float *out, const float *x, const float *y, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) out[i] += x[i] * y[i];
}

void rp_kge_query_backward(rp_kge_model model, bool head, float *danchor, float *drelation, const float *dq,
                           const float *anchor, const float *relation, int64_t dim) {
    if (model == RP_KGE_DISTMULT) {
        if (danchor != NULL) add_product(danchor, dq, relation, dim);
        if (drelation != NULL) add_product(drelation, dq, anchor, dim);
    } else {
        if (danchor != NULL) add_scaled(danchor, 1, dq, dim);
        if (drelation != NULL) add_scaled(drelation, head ? -1 : 1, dq, dim);
    }
}

/* -- scores ---------------------------------------------------------------------------------------------- */

#define LANES 16

/* Sums of 16 running float sums, which the compiler may hold in vectors without changing a result. */
static double lanes_sum(const float lane[LANES]) {
    double sum = 0;
    for (int j = 0; j < LANES; j++) sum += (double)lane[j];
    return sum;
}

#define SUM_OVER(name, term)                                                                                           \
    static double name(const float *q, const float *e, int64_t dim) {                                                  \
        float lane[LANES] = {0};                                                                                       \
        int64_t i = 0;                                                                                                 \
        for (; i + LANES <= dim; i += LANES)                                                                           \
            for (int j = 0; j < LANES; j++) lane[j] += term(q[i + j], e[i + j]);                                       \
        for (; i < dim; i++) lane[i % LANES] += term(q[i], e[i]);                                                      \
        return lanes_sum(lane);                                                                                        \
    }
#define PRODUCT(x, y) ((x) * (y))
#define DISTANCE(x, y) fabsf((x) - (y))
#define SQUARE(x, y) (((x) - (y)) * ((x) - (y)))
SUM_OVER(sum_products, PRODUCT)
SUM_OVER(sum_distances, DISTANCE)
SUM_OVER(sum_squares, SQUARE)

double rp_kge_score(rp_kge_model model, const float *q, const float *entity, int64_t dim) {
    if (model == RP_KGE_DISTMULT) return sum_products(q, entity, dim);
    return model == RP_KGE_TRANSE_L1 ? -sum_distances(q, entity, dim) : -sqrt(sum_squares(q, entity, dim));
}

static void add_signs(float *out, float factor, const float *x, const float *y, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) out[i] += factor * (float)((x[i] > y[i]) - (x[i] < y[i]));
}

static void add_difference(float *out, float factor, const float *x, const float *y, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) out[i] += factor * (x[i] - y[i]);
}

void rp_kge_score_backward(rp_kge_model model, float *dq, float *dentity, double dscore, double score, const float *q,
                           const float *entity, int64_t dim) {
    float *out = dq != NULL ? dq : dentity;
    const float *other = dq != NULL ? entity : q, *own = dq != NULL ? q : entity;
    if (model == RP_KGE_DISTMULT)
        add_scaled(out, (float)dscore, other, dim);
    else if (model == RP_KGE_TRANSE_L1)
        add_signs(out, (float)dscore, other, own, dim);
    else if (score < 0)
        add_difference(out, (float)(dscore / -score), other, own, dim);
}

/* -- losses ---------------------------------------------------------------------------------------------- */

static double margin_loss(double margin, double *dscore, const double *score, int64_t negatives) {
    double loss = 0, each = 1 / (double)negatives;
    dscore[0] = 0;
    for (int64_t k = 1; k <= negatives; k++) {
        double violation = margin - score[0] + score[k];
        dscore[k] = violation > 0 ? each : 0;
        dscore[0] -= dscore[k];
        if (!(violation <= 0)) loss += each * violation; /* NaN counts */
    }
    return loss;
}

/* log(1 + exp(x)) */
static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double logistic_loss(double offset, double *dscore, const double *score, int64_t negatives) {
    double loss = softplus(-score[0] - offset), each = 1 / (double)negatives;
    dscore[0] = -sigmoid(-score[0] - offset);
    for (int64_t k = 1; k <= negatives; k++) {
        loss += each * softplus(score[k] + offset);
        dscore[k] = each * sigmoid(score[k] + offset);
    }
    return loss;
}

static double softmax_loss(double *dscore, const double *score, int64_t negatives) {
    double largest = score[0], sum = 0;
    for (int64_t k = 1; k <= negatives; k++) largest = fmax(largest, score[k]);
    for (int64_t k = 0; k <= negatives; k++) sum += dscore[k] = exp(score[k] - largest);
    for (int64_t k = 0; k <= negatives; k++) dscore[k] /= sum;
    dscore[0] -= 1;
    return log(sum) + largest - score[0];
}

double rp_kge_loss_forward(rp_kge_loss loss, rp_kge_model model, double margin, double *dscore, const double *score,
                           int64_t negatives) {
    if (loss == RP_KGE_MARGIN) return margin_loss(margin, dscore, score, negatives);
    if (loss == RP_KGE_SOFTMAX) return softmax_loss(dscore, score, negatives);
    return logistic_loss(model == RP_KGE_DISTMULT ? 0 : margin, dscore, score, negatives);
}
