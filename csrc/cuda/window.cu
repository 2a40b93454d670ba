/* Windows of neighbouring rows inside sequences: what turns a convolution into a linear map. A block has a sequence and
 * THREADS columns. */
#include "cuda/kernel.cuh"

static __global__ void forward_kernel(float *out, const float *inp, const int32_t *cu_seqlens, int64_t W, int64_t H) {
    int64_t first = cu_seqlens[blockIdx.x], last = cu_seqlens[blockIdx.x + 1];
    int64_t h = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (h >= H) return;
    for (int64_t t = first; t < last; t++)
        for (int64_t w = 0; w < W; w++) {
            int64_t from = t + w - (W - 1) / 2;
            out[(t * W + w) * H + h] = from >= first && from < last ? inp[from * H + h] : 0.0f;
        }
}

static __global__ void backward_kernel(float *dinp, const float *dout, const int32_t *cu_seqlens, int64_t W,
                                       int64_t H) {
    int64_t first = cu_seqlens[blockIdx.x], last = cu_seqlens[blockIdx.x + 1];
    int64_t h = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (h >= H) return;
    for (int64_t t = first; t < last; t++) {
        float sum = 0.0f;
        for (int64_t w = 0; w < W; w++) {
            int64_t of = t - w + (W - 1) / 2;
            if (of >= first && of < last) sum += dout[(of * W + w) * H + h];
        }
        dinp[t * H + h] = sum;
    }
}

rp_status rp_cuda_window_forward(rp_dev *dev, float *out, const float *inp, const int32_t *cu_seqlens, int64_t S,
                                 int64_t W, int64_t H) {
    dim3 grid((unsigned)S, rp_cuda_blocks(H, THREADS));
    (void)dev;
    if (S > 0) RP_CUDA_LAUNCH(forward_kernel, grid, THREADS, 0, out, inp, cu_seqlens, W, H);
    return RP_OK;
}

rp_status rp_cuda_window_backward(rp_dev *dev, float *dinp, const float *dout, const int32_t *cu_seqlens, int64_t S,
                                  int64_t W, int64_t H) {
    dim3 grid((unsigned)S, rp_cuda_blocks(H, THREADS));
    (void)dev;
    if (S > 0) RP_CUDA_LAUNCH(backward_kernel, grid, THREADS, 0, dinp, dout, cu_seqlens, W, H);
    return RP_OK;
}
