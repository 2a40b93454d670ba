/* Dropout and the sum of two arrays: the element-wise pieces of a residual connection. */
#include "cuda/kernel.cuh"

/* A thread: eight columns of a row, which share a draw. */
static __global__ void dropout_kernel(float *out, const float *inp, rp_dropout d, int64_t T, int64_t H,
                                      int64_t groups) {
    uint32_t i = blockIdx.x * THREADS + threadIdx.x; /* a GPU's memory holds fewer than 2^32 groups */
    int64_t t = i / (uint32_t)groups, group = i % (uint32_t)groups, at = t * H + group * 8, left = H - group * 8;
    if (t >= T) return;
    float keep[8], x[8];
    load_eight(x, inp + at, left);
    uint32_t sample = d.threshold != 0 ? (uint32_t)d.sample[d.sequence[t]] : 0;
    keep_eight(keep, d, sample, d.threshold != 0 ? (uint32_t)d.pos[t] : 0, (uint32_t)group);
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] = dropped(x[j], keep[j]);
    store_eight(out + at, x, left);
}

rp_status rp_cuda_dropout_forward(rp_dev *dev, float *out, const float *inp, const rp_dropout *d, int64_t T,
                                  int64_t H) {
    int64_t groups = rp_cuda_ceil(H, 8);
    (void)dev;
    if (T > 0)
        RP_CUDA_LAUNCH(dropout_kernel, rp_cuda_blocks(T * groups, THREADS), THREADS, 0, out, inp, *d, T, H, groups);
    return RP_OK;
}

static __global__ void add_kernel(float *out, const float *a, const float *b, int64_t N) {
    FOR_EACH(n, N) out[n] = a[n] + b[n];
}

rp_status rp_cuda_add_forward(rp_dev *dev, float *out, const float *a, const float *b, int64_t N) {
    (void)dev;
    if (N > 0) LAUNCH_EACH(add_kernel, N, out, a, b, N);
    return RP_OK;
}
