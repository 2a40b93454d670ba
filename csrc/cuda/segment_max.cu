/* The largest of each column over runs of rows: max pooling over a sentence, or over its pieces. A block has a segment
 * and THREADS columns. */
#include "cuda/kernel.cuh"

static __global__ void forward_kernel(float *out, int32_t *row, const float *inp, const int32_t *cu_segments,
                                      int64_t H) {
    int64_t g = blockIdx.x, h = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    float best = 0.0f;
    int32_t at = -1;
    if (h >= H) return;
    for (int32_t t = cu_segments[g]; t < cu_segments[g + 1]; t++) {
        float x = inp[t * H + h];
        if (at >= 0 && !(x > best) && !isnan(x)) continue;
        best = x;
        at = t;
        if (isnan(x)) break;
    }
    out[g * H + h] = best;
    row[g * H + h] = at;
}

static __global__ void backward_kernel(float *dinp, const float *dout, const int32_t *row, const int32_t *cu_segments,
                                       int64_t H) {
    int64_t g = blockIdx.x, h = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (h >= H) return;
    for (int32_t t = cu_segments[g]; t < cu_segments[g + 1]; t++)
        dinp[t * H + h] = row[g * H + h] == t ? dout[g * H + h] : 0.0f;
}

rp_status rp_cuda_segment_max_forward(rp_dev *dev, float *out, int32_t *row, const float *inp,
                                      const int32_t *cu_segments, int64_t G, int64_t H) {
    dim3 grid((unsigned)G, rp_cuda_blocks(H, THREADS));
    (void)dev;
    if (G > 0) RP_CUDA_LAUNCH(forward_kernel, grid, THREADS, 0, out, row, inp, cu_segments, H);
    return RP_OK;
}

rp_status rp_cuda_segment_max_backward(rp_dev *dev, float *dinp, const float *dout, const int32_t *row,
                                       const int32_t *cu_segments, int64_t G, int64_t H) {
    dim3 grid((unsigned)G, rp_cuda_blocks(H, THREADS));
    (void)dev;
    if (G > 0) RP_CUDA_LAUNCH(backward_kernel, grid, THREADS, 0, dinp, dout, row, cu_segments, H);
    return RP_OK;
}
