#include "cpu/gelu_row.h"

enum { CHUNK = 4096 };

rp_status RP_CPU(gelu_forward)(rp_dev *dev, float *out, const float *inp, int64_t N) {
#pragma omp parallel num_threads(team(dev, N * 8))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N; i += CHUNK) gelu_row(out + i, inp + i, at_most(N - i, CHUNK));
        rp_threads_restore(mode);
    }
    return RP_OK;
}

/* gelu'(x) = Phi(x) + x phi(x) */
static void gelu_backward_row(float *dinp, const float *dout, const float *inp, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float x = inp[i], bell, tail = normal_tail(x < 0 ? -x : x, &bell);
        dinp[i] = dout[i] * ((x < 0 ? tail : 1.0f - tail) + 0.39894228f * x * bell);
    }
}

rp_status RP_CPU(gelu_backward)(rp_dev *dev, float *dinp, const float *dout, const float *inp, int64_t N) {
#pragma omp parallel num_threads(team(dev, N * 8))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N; i += CHUNK) gelu_backward_row(dinp + i, dout + i, inp + i, at_most(N - i, CHUNK));
        rp_threads_restore(mode);
    }
    return RP_OK;
}
