#include "cpu/level.h"

rp_status RP_CPU(sgd_update)(rp_dev *dev, float *param, float *m, const float *grad, const rp_sgd_step *h, int64_t N) {
    rp_sgd_step s = *h;
#pragma omp parallel num_threads(team(dev, N))
    {
        uint32_t mode = rp_threads_flush_denormals();
        if (m == NULL) {
#pragma omp for simd schedule(static)
            for (int64_t i = 0; i < N; i++) param[i] -= s.lr * (s.grad_scale * grad[i] + s.weight_decay * param[i]);
        } else {
#pragma omp for simd schedule(static)
            for (int64_t i = 0; i < N; i++) {
                m[i] = s.momentum * m[i] + (s.grad_scale * grad[i] + s.weight_decay * param[i]);
                param[i] -= s.lr * m[i];
            }
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}
