/* Stochastic gradient descent with momentum. */
#include "cuda/kernel.cuh"

static __global__ void update_kernel(float *param, float *m, const float *grad, rp_sgd_step h, int64_t N) {
    FOR_EACH(n, N) {
        float g = h.grad_scale * grad[n] + h.weight_decay * param[n];
        if (m != nullptr) m[n] = g += h.momentum * m[n];
        param[n] -= h.lr * g;
    }
}

rp_status rp_cuda_sgd_update(rp_dev *dev, float *param, float *m, const float *grad, const rp_sgd_step *h, int64_t N) {
    (void)dev;
    if (N > 0) LAUNCH_EACH(update_kernel, N, param, m, grad, *h, N);
    return RP_OK;
}
