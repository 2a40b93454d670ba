#include "cpu/level.h"

#include <math.h>

static void layernorm_row(float *out, float *mean, float *rstd, const float *inp, const float *gamma, const float *beta,
                          float eps, int64_t H) {
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t h = 0; h < H; h++) sum += inp[h];
    float m = sum / (float)H;
#pragma omp simd reduction(+ : squares)
    for (int64_t h = 0; h < H; h++) squares += (inp[h] - m) * (inp[h] - m);
    float r = 1.0f / sqrtf(squares / (float)H + eps);
#pragma omp simd
    for (int64_t h = 0; h < H; h++) out[h] = (inp[h] - m) * r * gamma[h] + beta[h];
    *mean = m;
    *rstd = r;
}

rp_status RP_CPU(layernorm_forward)(rp_dev *dev, float *out, float *mean, float *rstd, const float *inp,
                                    const float *gamma, const float *beta, float eps, int64_t T, int64_t H) {
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

rp_status RP_CPU(residual_layernorm_forward)(rp_dev *dev, float *out, float *sum, float *mean, float *rstd,
                                             const float *inp, const float *residual, const float *gamma,
                                             const float *beta, const rp_dropout *d, float eps, int64_t T, int64_t H) {
#pragma omp parallel num_threads(team(dev, T *H))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t t = 0; t < T; t++) {
            float *row = sum + t * H;
            RP_CPU(dropout_row)(row, inp + t * H, d, t, H);
#pragma omp simd
            for (int64_t h = 0; h < H; h++) row[h] += residual[t * H + h];
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

rp_status RP_CPU(residual_layernorm_backward)(rp_dev *dev, float *dinp, float *dresidual, float *dgamma, float *dbeta,
                                              const float *dout, const float *sum, const float *mean, const float *rstd,
                                              const float *gamma, const rp_dropout *d, int64_t T, int64_t H) {
    return backward(dev, dinp, dresidual, dgamma, dbeta, dout, sum, mean, rstd, gamma, d, T, H);
}
