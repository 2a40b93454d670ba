#include "cpu/level.h"

#include <math.h>

rp_status RP_CPU(activation_forward)(rp_dev *dev, float *out, const float *inp, int64_t N, int64_t kind) {
#pragma omp parallel for num_threads(team(dev, N)) schedule(static)
    for (int64_t i = 0; i < N; i++) out[i] = kind == RP_TANH ? tanhf(inp[i]) : inp[i] < 0 ? 0.0f : inp[i];
    return RP_OK;
}

rp_status RP_CPU(activation_backward)(rp_dev *dev, float *dinp, const float *dout, const float *out, int64_t N,
                                      int64_t kind) {
#pragma omp parallel for simd num_threads(team(dev, N)) schedule(static)
    for (int64_t i = 0; i < N; i++) {
        float slope = kind == RP_TANH ? 1.0f - out[i] * out[i] : out[i] > 0 ? 1.0f : 0.0f;
        dinp[i] = dout[i] * slope;
    }
    return RP_OK;
}
