#include "cpu/level.h"

#include <math.h>

/* Sums of fixed row blocks in double, then the blocks in order. */
rp_status RP_CPU(sum_squares)(rp_dev *dev, double *out, const float *inp, int64_t N) {
    double partial[RP_CPU_BLOCKS];
#pragma omp parallel for num_threads(team(dev, N)) schedule(static)
    for (int64_t block = 0; block < RP_CPU_BLOCKS; block++) {
        double sum = 0;
        int64_t last = N * (block + 1) / RP_CPU_BLOCKS;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = N * block / RP_CPU_BLOCKS; i < last; i++) sum += (double)inp[i] * inp[i];
        partial[block] = sum;
    }
    double sum = 0;
    for (int block = 0; block < RP_CPU_BLOCKS; block++) sum += partial[block];
    *out = sum;
    return RP_OK;
}

rp_status RP_CPU(adamw_update)(rp_dev *dev, float *param, float *m, float *v, const float *grad, const rp_adamw_step *h,
                               int64_t N) {
    rp_adamw_step s = *h;
    float decay = s.lr * s.weight_decay, step = s.lr / s.correction1, inverse = 1.0f / s.correction2;
#pragma omp parallel num_threads(team(dev, N))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for simd schedule(static)
        for (int64_t i = 0; i < N; i++) {
            float g = s.grad_scale * grad[i];
            m[i] = s.beta1 * m[i] + (1.0f - s.beta1) * g;
            v[i] = s.beta2 * v[i] + (1.0f - s.beta2) * g * g;
            param[i] = param[i] - decay * param[i] - step * m[i] / (sqrtf(v[i] * inverse) + s.eps);
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}
