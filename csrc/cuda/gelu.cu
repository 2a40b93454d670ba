/* Gaussian error linear unit (Hendrycks and Gimpel 2016), the erf form; cuBLASLt's epilogue is the tanh form. */
#include "cuda/bits.cuh"
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

/* -- on bits ----------------------------------------------------------------------------------------- */

/* The normal distribution below -z, z >= 0, within 1e-7 (Abramowitz & Stegun, 7.1.26), and exp(-z^2 / 2). More digits,
 * which cost more than the memory's traffic, would be rounded off. */
static __device__ __forceinline__ float normal_tail(float z, float *bell) {
    float t = __fdividef(1.0f, 1.0f + 0.3275911f * SQRT_HALF * z);
    float p = 0.5f * 1.061405429f;
    p = p * t - 0.5f * 1.453152027f;
    p = p * t + 0.5f * 1.421413741f;
    p = p * t - 0.5f * 0.284496736f;
    p = p * t + 0.5f * 0.254829592f;
    *bell = __expf(-0.5f * z * z);
    return p * t * *bell;
}

static __device__ __forceinline__ float gelu_and_derivative(float x, float *derivative) {
    float bell, z = fabsf(x), tail = normal_tail(z, &bell);
    *derivative = (x > 0.0f ? 1.0f - tail : tail) + x * INV_SQRT_2PI * bell;
    return (x > 0.0f ? x : 0.0f) - z * tail;
}

/* A thread: eight neighbours. */
static __global__ void forward_bits_kernel(uint16_t *out, const uint16_t *inp, int64_t N) {
    int64_t n = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8;
    float x[8], unused;
    if (n >= N) return;
    load_eight(x, inp + n, N - n);
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = gelu_and_derivative(x[i], &unused);
    store_eight(out + n, x, N - n);
}

/* partials(y,F): sums of dinp's columns over block y of rows, as sums.cu has them. A lane: eight columns. */
static __global__ void backward_bits_kernel(uint16_t *act, uint16_t *dinp, float *partials, const uint16_t *dact,
                                            const uint16_t *inp, int64_t T, int64_t F, int64_t rows) {
    __shared__ float line[WARPS][WARP * 8];
    int64_t block = (int64_t)blockIdx.x * (WARP * 8), column = block + lane_of() * 8, left = F - column;
    int64_t first = blockIdx.y * rows, last = first + rows < T ? first + rows : T;
    float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (left > 0)
        for (int64_t t = first + threadIdx.x / WARP; t < last; t += WARPS) {
            float x[8], d[8], slope;
            load_eight(x, inp + t * F + column, left);
            load_eight(d, dact + t * F + column, left);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                x[j] = gelu_and_derivative(x[j], &slope);
                d[j] *= slope;
                sum[j] += d[j];
            }
            store_eight(act + t * F + column, x, left);
            store_eight(dinp + t * F + column, d, left);
        }
    add_warps<WARPS>(partials + blockIdx.y * F + block, sum, line, F - block);
}

rp_status rp_cuda_gelu_forward_bits(uint16_t *out, const uint16_t *inp, int64_t N) {
    if (N > 0) RP_CUDA_LAUNCH(forward_bits_kernel, rp_cuda_blocks(N, THREADS * 8), THREADS, 0, out, inp, N);
    return RP_OK;
}

rp_status rp_cuda_gelu_backward_bits(rp_dev *dev, uint16_t *act, uint16_t *dinp, float *dbias, const uint16_t *dact,
                                     const uint16_t *inp, int64_t T, int64_t F) {
    rp_arena arena = rp_cuda_scratch_arena(dev);
    float *partials = rp_cuda_take_partials(&arena, 1, T, F);
    if (T * F == 0) return RP_OK;
    RP_TRY(rp_cuda_fits(&arena, "GELU's gradient"));
    int64_t blocks = rp_cuda_row_blocks(T);
    dim3 grid(rp_cuda_blocks(F, WARP * 8), (unsigned)blocks);
    RP_CUDA_LAUNCH(backward_bits_kernel, grid, THREADS, 0, act, dinp, partials, dact, inp, T, F,
                   rp_cuda_ceil(T, blocks));
    return rp_cuda_finish_sums(dbias, partials, T, F);
}
