/* Gaussian error linear unit (Hendrycks and Gimpel 2016), the erf form; cuBLASLt's epilogue is the tanh form. */
#include "cuda/kernel.cuh"

#define SQRT_HALF 0.70710678118654752440f
#define INV_SQRT_2PI 0.39894228040143267794f

/* The normal distribution's cumulative function; erfc keeps the digits of its lower tail. */
static __device__ __forceinline__ float normal_cdf(float x) { return 0.5f * erfcf(-x * SQRT_HALF); }

static __global__ void forward_kernel(float *out, const float *inp, int64_t N) {
    FOR_EACH(n, N) out[n] = inp[n] * normal_cdf(inp[n]);
}

static __global__ void backward_kernel(float *dinp, const float *dout, const float *inp, int64_t N) {
    FOR_EACH(n, N) {
        float x = inp[n], pdf = INV_SQRT_2PI * expf(-0.5f * x * x);
        dinp[n] = dout[n] * (normal_cdf(x) + x * pdf);
    }
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
