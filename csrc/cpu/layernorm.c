#include "cpu/level.h"

#include <math.h>

/* Sum of x(n), by lanes. */
static float sum_of(const float *x, int64_t n) {
    vf lanes = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) lanes += vf_load(x + i);
    float sum = vf_sum(lanes);
    for (; i < n; i++) sum += x[i];
    return sum;
}

/* Sum of (x(n) - mean)^2, by lanes. */
static float squares_of(const float *x, float mean, int64_t n) {
    vf lanes = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf deviation = vf_load(x + i) - mean;
        lanes += deviation * deviation;
    }
    float sum = vf_sum(lanes);
    for (; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

static void layernorm_row(float *out, float *mean, float *rstd, const float *inp, const float *gamma, const float *beta,
                          float eps, int64_t H) {
    float m = sum_of(inp, H) / (float)H;
    float r = 1.0f / sqrtf(squares_of(inp, m, H) / (float)H + eps);
#pragma omp simd
    for (int64_t h = 0; h < H; h++) out[h] = (inp[h] - m) * r * gamma[h] + beta[h];
    *mean = m;
    *rstd = r;
}

rp_status RP_CPU(layernorm_forward)(rp_dev *dev, float *out, uint16_t *out_bits, float *mean, float *rstd,
                                    const float *inp, const float *gamma, const float *beta, float eps, int64_t T,
                                    int64_t H) {
    (void)out_bits; /* NULL: rp_ops.bits is 0 */
#pragma omp parallel num_threads(team(dev, T *H))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t t = 0; t < T; t++)
            layernorm_row(out + t * H, mean + t, rstd + t, inp + t * H, gamma, beta, eps, H);
        rp_threads_restore(mode);
    }
    return RP_OK;
}

rp_status RP_CPU(residual_layernorm_forward)(rp_dev *dev, float *out, uint16_t *out_bits, float *sum, float *mean,
                                             float *rstd, const float *inp, const float *residual, const float *gamma,
                                             const float *beta, const rp_dropout *d, float eps, int64_t T, int64_t H) {
    (void)out_bits; /* NULL: rp_ops.bits is 0 */
#pragma omp parallel num_threads(team(dev, T *H))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t t = 0; t < T; t++) {
            float *row = (sum != NULL ? sum : out) + t * H;
            const float *branch = inp + t * H;
            if (d->threshold != 0) {
                RP_CPU(dropout_row)(row, branch, d, t, H);
                branch = row;
            }
#pragma omp simd
            for (int64_t h = 0; h < H; h++) row[h] = branch[h] + residual[t * H + h];
            layernorm_row(out + t * H, mean + t, rstd + t, row, gamma, beta, eps, H);
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}

/* One row, with x^ = (inp - mean) rstd and g = dout gamma: dinp = rstd (g - mean(g) - x^ mean(g x^)). */
static void backward_row(float *dinp, float *dgamma, float *dbeta, const float *dout, const float *inp, float mean,
                         float rstd, const float *gamma, int64_t H) {
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t h = 0; h < H; h++) {
        float x = (inp[h] - mean) * rstd, g = dout[h] * gamma[h];
        dgamma[h] += dout[h] * x;
        dbeta[h] += dout[h];
        sum += g;
        dot += g * x;
    }
    sum /= (float)H;
    dot /= (float)H;
#pragma omp simd
    for (int64_t h = 0; h < H; h++) dinp[h] = rstd * (dout[h] * gamma[h] - sum - (inp[h] - mean) * rstd * dot);
}

/* Both backward forms; `dropped` NULL leaves the dropout out. */
static rp_status backward(rp_dev *dev, float *dropped, float *dinp, float *dgamma, float *dbeta, const float *dout,
                          const float *inp, const float *mean, const float *rstd, const float *gamma,
                          const rp_dropout *d, int64_t T, int64_t H) {
    float *partial = dev->scratch; /* (RP_CPU_BLOCKS, 2, H): gamma's and beta's sums of a row block */
    size_t needed = sizeof(float) * RP_CPU_BLOCKS * 2 * (size_t)H;
    if (dev->scratch_bytes < needed)
        return rp_fail(RP_STATUS_STATE, "layernorm_backward: %zu bytes of scratch, %zu needed", dev->scratch_bytes,
                       needed);
#pragma omp parallel num_threads(team(dev, T *H))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t block = 0; block < RP_CPU_BLOCKS; block++) {
            float *sums = partial + block * 2 * H;
            memset(sums, 0, 2 * (size_t)H * sizeof *sums);
            for (int64_t t = T * block / RP_CPU_BLOCKS; t < T * (block + 1) / RP_CPU_BLOCKS; t++) {
                backward_row(dinp + t * H, sums, sums + H, dout + t * H, inp + t * H, mean[t], rstd[t], gamma, H);
                if (dropped != NULL) RP_CPU(dropout_row)(dropped + t * H, dinp + t * H, d, t, H);
            }
        }
#pragma omp for simd schedule(static)
        for (int64_t h = 0; h < H; h++) {
            float g = 0, b = 0;
            for (int64_t block = 0; block < RP_CPU_BLOCKS; block++) {
                g += partial[block * 2 * H + h];
                b += partial[block * 2 * H + H + h];
            }
            dgamma[h] += g;
            dbeta[h] += b;
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}

rp_status RP_CPU(layernorm_backward)(rp_dev *dev, float *dinp, float *dgamma, float *dbeta, const float *dout,
                                     const float *inp, const float *mean, const float *rstd, const float *gamma,
                                     int64_t T, int64_t H) {
    return backward(dev, NULL, dinp, dgamma, dbeta, dout, inp, mean, rstd, gamma, NULL, T, H);
}

rp_status RP_CPU(residual_layernorm_backward)(rp_dev *dev, float *dinp, uint16_t *dinp_bits, float *dresidual,
                                              float *dgamma, float *dbeta, const float *dout, const float *sum,
                                              const float *mean, const float *rstd, const float *gamma,
                                              const rp_dropout *d, int64_t T, int64_t H) {
    (void)dinp_bits;
    return backward(dev, dinp, dresidual, dgamma, dbeta, dout, sum, mean, rstd, gamma, d, T, H);
}
