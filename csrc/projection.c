#include "projection.h"

#include <math.h>
#include <stdlib.h>

#include "lanes.h"
#include "ops.h"

#define ROWS 1024 /* whose directions are held at a time */

typedef struct fit_memory {
    double *deviation; /* (n,dim) unit vectors, then less their relation's mean */
    double *mean;      /* (classes,dim) */
    double *center;    /* (dim) */
    double *matrix;    /* (dim,dim) the covariance, then its Cholesky factor */
    double *inverse;   /* (dim,dim) of the factor */
    int64_t *count;    /* (classes) */
} fit_memory;

/* y += a x */
static void add_scaled(double *restrict y, double a, const double *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* Unit vectors less the mean of their relation; the center of all. */
static void deviations(fit_memory *m, const float *vectors, const int32_t *label, int64_t n, int64_t classes,
                       int64_t dim) {
    for (int64_t i = 0; i < n; i++) {
        double *x = m->deviation + i * dim;
        for (int64_t j = 0; j < dim; j++) x[j] = vectors[i * dim + j];
        double norm = sqrt(rp_lanes_dot(x, x, dim));
        for (int64_t j = 0; j < dim; j++) x[j] /= norm > 1e-12 ? norm : 1e-12;
        add_scaled(m->mean + label[i] * dim, 1, x, dim);
        add_scaled(m->center, 1.0 / (double)n, x, dim);
        m->count[label[i]]++;
    }
    for (int64_t k = 0; k < classes; k++)
        for (int64_t j = 0; j < dim && m->count[k] > 0; j++) m->mean[k * dim + j] /= (double)m->count[k];
    for (int64_t i = 0; i < n; i++) add_scaled(m->deviation + i * dim, -1, m->mean + label[i] * dim, dim);
}

/* The lower triangle of the covariance; returns the mean of its diagonal. */
static double covariance(fit_memory *m, int64_t n, int64_t dim) {
    double trace = 0;
    for (int64_t row = 0; row < dim; row++) {
        double *line = m->matrix + row * dim;
        for (int64_t i = 0; i < n; i++)
            add_scaled(line, m->deviation[i * dim + row] / (double)n, m->deviation + i * dim, row + 1);
        trace += line[row];
    }
    return trace / (double)dim;
}

/* The lower triangle becomes its Cholesky factor; `inverse` that of the factor. */
static void factor(fit_memory *m, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) {
        double *row = m->matrix + i * dim, *out = m->inverse + i * dim;
        for (int64_t j = 0; j < i; j++)
            row[j] = (row[j] - rp_lanes_dot(row, m->matrix + j * dim, j)) / m->matrix[j * dim + j];
        row[i] = sqrt(row[i] - rp_lanes_dot(row, row, i));
        for (int64_t j = 0; j < i; j++) add_scaled(out, -row[j] / row[i], m->inverse + j * dim, j + 1);
        out[i] = 1 / row[i];
    }
}

static rp_status fit(fit_memory *m, float *weight, float *bias, const float *vectors, const int32_t *label, int64_t n,
                     int64_t classes, int64_t dim, double shrinkage) {
    deviations(m, vectors, label, n, classes, dim);
    double spread = covariance(m, n, dim);
    if (!(spread > 0))
        return rp_fail(RP_STATUS_VALUE, "projection: the %lld vectors do not vary inside any of their relations",
                       (long long)n);
    for (int64_t i = 0; i < dim; i++) m->matrix[i * dim + i] += shrinkage * spread;
    factor(m, dim);
    double scale = sqrt(spread * (1 + shrinkage));
    for (int64_t i = 0; i < dim; i++) {
        double *row = m->inverse + i * dim;
        for (int64_t j = 0; j < dim; j++) weight[i * dim + j] = (float)(row[j] * scale);
        bias[i] = (float)(-rp_lanes_dot(row, m->center, i + 1) * scale);
    }
    return RP_OK;
}

rp_status rp_projection_fit(float *weight, float *bias, const float *vectors, const int32_t *label, int64_t n,
                            int64_t classes, int64_t dim, double shrinkage) {
    if (n < 1 || classes < 1 || dim < 1)
        return rp_fail(RP_STATUS_VALUE, "projection: %lld vectors of %lld numbers, %lld relations; expected some",
                       (long long)n, (long long)dim, (long long)classes);
    if (!(shrinkage > 0) || !isfinite(shrinkage))
        return rp_fail(RP_STATUS_VALUE, "projection: shrinkage is %g; expected a number above 0", shrinkage);
    for (int64_t i = 0; i < n; i++)
        if (label[i] < 0 || label[i] >= classes)
            return rp_fail(RP_STATUS_VALUE, "projection: label %lld is %d, expected 0 to %lld", (long long)i,
                           (int)label[i], (long long)classes - 1);
    fit_memory m = {
        .deviation = calloc((size_t)n, (size_t)dim * sizeof(double)),
        .mean = calloc((size_t)classes, (size_t)dim * sizeof(double)),
        .center = calloc((size_t)dim, sizeof(double)),
        .matrix = calloc((size_t)dim, (size_t)dim * sizeof(double)),
        .inverse = calloc((size_t)dim, (size_t)dim * sizeof(double)),
        .count = calloc((size_t)classes, sizeof(int64_t)),
    };
    rp_status status = RP_OK;
    if (!m.deviation || !m.mean || !m.center || !m.matrix || !m.inverse || !m.count)
        status = rp_fail(RP_STATUS_MEMORY, "no memory for a projection of %lld numbers", (long long)dim);
    if (status == RP_OK) status = fit(&m, weight, bias, vectors, label, n, classes, dim, shrinkage);
    free(m.deviation);
    free(m.mean);
    free(m.center);
    free(m.matrix);
    free(m.inverse);
    free(m.count);
    return status;
}

/* block: ROWS (dim), norm: ROWS. */
static rp_status apply(rp_dev *dev, float *out, const float *vectors, const float *weight, const float *bias, int64_t n,
                       int64_t dim, float *block, float *norm) {
    for (int64_t first = 0; first < n; first += ROWS) {
        int64_t rows = n - first < ROWS ? n - first : ROWS;
        RP_TRY(dev->ops->normalize_forward(dev, block, norm, vectors + first * dim, rows, dim));
        RP_TRY(dev->ops->linear_forward(dev, out + first * dim, block, weight, bias, rows, dim, dim));
    }
    return RP_OK;
}

rp_status rp_projection_apply(float *out, const float *vectors, const float *weight, const float *bias, int64_t n,
                              int64_t dim, int64_t num_threads) {
    rp_dev *dev;
    RP_TRY(rp_dev_open(&dev, "cpu", num_threads));
    float *block = calloc((size_t)(dim + 1), ROWS * sizeof *block);
    rp_status status = rp_dev_reserve(dev, &(rp_extent){.widest = dim, .max_len = 1, .head_size = 1});
    if (status == RP_OK && block == NULL)
        status = rp_fail(RP_STATUS_MEMORY, "no memory for %d vectors of %lld numbers", ROWS, (long long)dim);
    if (status == RP_OK) status = apply(dev, out, vectors, weight, bias, n, dim, block, block + ROWS * dim);
    free(block);
    rp_dev_close(dev);
    return status;
}

rp_status rp_projection_logits(float *out, const float *vectors, const float *weight, const float *bias, int64_t n,
                               int64_t dim, int64_t classes, int64_t num_threads) {
    rp_dev *dev;
    RP_TRY(rp_dev_open(&dev, "cpu", num_threads));
    int64_t widest = classes > dim ? classes : dim;
    rp_status status = rp_dev_reserve(dev, &(rp_extent){.widest = widest, .max_len = 1, .head_size = 1});
    if (status == RP_OK) status = dev->ops->linear_forward(dev, out, vectors, weight, bias, n, dim, classes);
    rp_dev_close(dev);
    return status;
}
