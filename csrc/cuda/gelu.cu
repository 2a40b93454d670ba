/* Gaussian error linear unit (Hendrycks and Gimpel 2016), the erf form; cuBLASLt's epilogue is the tanh form. */
#include "cuda/bits.cuh"
#include "cuda/kernel.cuh"

#define SQRT_HALF 0.70710678118654752440f
#define INV_SQRT_2PI 0.39894228040143267794f

/* The normal distribution's cumulative function; erfc keeps the digits of its lower tail. */
static __device__ __forceinline__ float normal_cdf(float x) { return 0.5f * erfcf(-x * SQRT_HALF); }

static __device__ __forceinline__ float derivative(float x) {
    return normal_cdf(x) + x * INV_SQRT_2PI * expf(-0.5f * x * x);
}

static __global__ void forward_kernel(float *out, const float *inp, int64_t N) {
    FOR_EACH(n, N) out[n] = inp[n] * normal_cdf(inp[n]);
}

static __global__ void backward_kernel(float *dinp, const float *dout, const float *inp, int64_t N) {
    FOR_EACH(n, N) dinp[n] = dout[n] * derivative(inp[n]);
}

rp_status rp_cuda_gelu_forward(rp_dev *dev, float *out, const float *inp, int64_t N) {
    (void)dev;
    if (N > 0) LAUNCH_EACH(forward_kernel, N, out, inp, N);
    return RP_OK;
}

rp_status rp_cuda_gelu_backward(rp_dev *dev, float *dinp, const float *dout, const float *inp, int64_t N) {
    (void)dev;
    if (N > 0) LAUNCH_EACH(backward_kernel, N, dinp, dout, inp, N);
    return RP_OK;
}

/* -- on bits: a thread has eight neighbours ---------------------------------------------------------- */

static __device__ __forceinline__ int64_t first_of_eight() { return ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8; }

static __global__ void forward_bits_kernel(uint16_t *out, const uint16_t *inp, int64_t N) {
    int64_t n = first_of_eight();
    float x[8];
    if (n >= N) return;
    load_eight(x, inp + n, N - n);
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] *= normal_cdf(x[i]);
    store_eight(out + n, x, N - n);
}

static __global__ void backward_bits_kernel(uint16_t *dinp, const uint16_t *dout, const uint16_t *inp, int64_t N) {
    int64_t n = first_of_eight();
    float x[8], d[8];
    if (n >= N) return;
    load_eight(x, inp + n, N - n);
    load_eight(d, dout + n, N - n);
#pragma unroll
    for (int i = 0; i < 8; i++) d[i] *= derivative(x[i]);
    store_eight(dinp + n, d, N - n);
}

rp_status rp_cuda_gelu_forward_bits(uint16_t *out, const uint16_t *inp, int64_t N) {
    if (N > 0) RP_CUDA_LAUNCH(forward_bits_kernel, rp_cuda_blocks(N, THREADS * 8), THREADS, 0, out, inp, N);
    return RP_OK;
}

rp_status rp_cuda_gelu_backward_bits(uint16_t *dinp, const uint16_t *dout, const uint16_t *inp, int64_t N) {
    if (N > 0) RP_CUDA_LAUNCH(backward_bits_kernel, rp_cuda_blocks(N, THREADS * 8), THREADS, 0, dinp, dout, inp, N);
    return RP_OK;
}
