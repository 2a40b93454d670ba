/* AdamW (Loshchilov and Hutter 2019), and the sum of squares that gradient clipping needs. */
#include "cuda/kernel.cuh"

static __global__ void update_kernel(float *param, float *m, float *v, const float *grad, rp_adamw_step h, int64_t N) {
    FOR_EACH(n, N) {
        float g = h.grad_scale * grad[n], p = param[n];
        float first = h.beta1 * m[n] + (1.0f - h.beta1) * g;
        float second = h.beta2 * v[n] + (1.0f - h.beta2) * g * g;
        float step = first / h.correction1 / (sqrtf(second / h.correction2) + h.eps);
        param[n] = p - h.lr * h.weight_decay * p - h.lr * step;
        m[n] = first;
        v[n] = second;
    }
}

rp_status rp_cuda_adamw_update(rp_dev *dev, float *param, float *m, float *v, const float *grad, const rp_adamw_step *h,
                               int64_t N) {
    (void)dev;
    if (N > 0) LAUNCH_EACH(update_kernel, N, param, m, v, grad, *h, N);
    return RP_OK;
}

static constexpr int SQUARE_BLOCKS = 1024;

/* partials(SQUARE_BLOCKS): each block every SQUARE_BLOCKS-th run of THREADS numbers. */
static __global__ void squares_kernel(double *partials, const float *inp, int64_t N) {
    __shared__ double shared[WARPS];
    double sum = 0;
    for (int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x; n < N; n += (int64_t)gridDim.x * THREADS)
        sum += (double)inp[n] * inp[n];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

static __global__ void total_kernel(double *out, const double *partials) {
    __shared__ double shared[WARPS];
    double sum = 0;
    for (int i = (int)threadIdx.x; i < SQUARE_BLOCKS; i += THREADS) sum += partials[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *out = sum;
}

rp_status rp_cuda_sum_squares(rp_dev *dev, double *out, const float *inp, int64_t N) {
    rp_arena arena = rp_cuda_scratch_arena(dev);
    double *partials = (double *)rp_arena_take(&arena, SQUARE_BLOCKS + 1, sizeof(double));
    *out = 0;
    RP_TRY(rp_cuda_outside_list("a sum of squares is asked for"));
    if (N == 0) return RP_OK;
    RP_TRY(rp_cuda_fits(&arena, "a sum of squares"));
    RP_CUDA_LAUNCH(squares_kernel, SQUARE_BLOCKS, THREADS, 0, partials, inp, N);
    RP_CUDA_LAUNCH(total_kernel, 1, THREADS, 0, partials + SQUARE_BLOCKS, partials);
    return rp_cuda_download(dev, out, partials + SQUARE_BLOCKS, sizeof(double));
}
