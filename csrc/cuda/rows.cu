/* Operations on whole rows: picking, averaging over a sequence, scaling to unit length, products of two. */
#include "cuda/kernel.cuh"

static __global__ void gather_kernel(float *out, int64_t stride, const float *inp, const int32_t *rows, int64_t R,
                                     int64_t H) {
    int64_t r = warp_row();
    if (r >= R) return;
    const float *from = inp + (int64_t)rows[r] * H;
    for (int64_t h = lane_of(); h < H; h += WARP) out[r * stride + h] = from[h];
}

rp_status rp_cuda_rows_gather(rp_dev *dev, float *out, int64_t stride, const float *inp, const int32_t *rows, int64_t R,
                              int64_t H) {
    (void)dev;
    if (R > 0) LAUNCH_ROWS(gather_kernel, R, out, stride, inp, rows, R, H);
    return RP_OK;
}

rp_status rp_cuda_rows_scatter_add(rp_dev *dev, float *dinp, const float *dout, int64_t stride, const int32_t *rows,
                                   int64_t R, int64_t H) {
    rp_arena arena = rp_cuda_scratch_arena(dev);
    rp_cuda_order order;
    if (R == 0) return RP_OK;
    rp_cuda_take_order(&order, &arena, R);
    float *parts = rp_cuda_take_parts(&arena, R, H);
    RP_TRY(rp_cuda_fits(&arena, "adding rows"));
    RP_TRY(rp_cuda_sort(&order, rows, R, 31));
    return rp_cuda_add_in_order(&order, dinp, parts, dout, stride, R, H);
}

/* A block: THREADS columns of a segment. */
static __global__ void mean_kernel(float *out, int64_t stride, const float *inp, const int32_t *first,
                                   const int32_t *end, int64_t H) {
    int64_t s = blockIdx.x, h = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    float sum = 0.0f;
    if (h >= H) return;
    for (int64_t t = first[s]; t < end[s]; t++) sum += inp[t * H + h];
    out[s * stride + h] = sum / (float)(end[s] - first[s]);
}

static __global__ void spread_kernel(float *dinp, const float *dout, int64_t stride, const int32_t *first,
                                     const int32_t *end, int64_t H) {
    int64_t s = blockIdx.x, h = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (h >= H) return;
    float share = dout[s * stride + h] / (float)(end[s] - first[s]);
    for (int64_t t = first[s]; t < end[s]; t++) dinp[t * H + h] += share;
}

rp_status rp_cuda_mean_forward(rp_dev *dev, float *out, int64_t stride, const float *inp, const int32_t *first,
                               const int32_t *end, int64_t S, int64_t H) {
    dim3 grid((unsigned)S, rp_cuda_blocks(H, THREADS));
    (void)dev;
    if (S > 0) RP_CUDA_LAUNCH(mean_kernel, grid, THREADS, 0, out, stride, inp, first, end, H);
    return RP_OK;
}

rp_status rp_cuda_mean_backward(rp_dev *dev, float *dinp, const float *dout, int64_t stride, const int32_t *first,
                                const int32_t *end, int64_t S, int64_t H) {
    dim3 grid((unsigned)S, rp_cuda_blocks(H, THREADS));
    (void)dev;
    if (S > 0) RP_CUDA_LAUNCH(spread_kernel, grid, THREADS, 0, dinp, dout, stride, first, end, H);
    return RP_OK;
}

/* The product of two rows, in double, in every lane. */
static __device__ __forceinline__ double row_dot(const float *a, const float *b, int64_t H) {
    double sum = 0;
    for (int64_t h = lane_of(); h < H; h += WARP) sum += (double)a[h] * b[h];
    return warp_sum(sum);
}

static __global__ void normalize_kernel(float *out, float *norm, const float *inp, int64_t R, int64_t H) {
    int64_t r = warp_row();
    if (r >= R) return;
    const float *x = inp + r * H;
    double length = sqrt(row_dot(x, x, H));
    if (length < 1e-12) length = 1e-12; /* so written, NaN stays NaN */
    for (int64_t h = lane_of(); h < H; h += WARP) out[r * H + h] = (float)(x[h] / length);
    if (lane_of() == 0) norm[r] = (float)length;
}

static __global__ void normalize_backward_kernel(float *dinp, const float *dout, const float *out, const float *norm,
                                                 int64_t R, int64_t H) {
    int64_t r = warp_row();
    if (r >= R) return;
    const float *o = out + r * H, *g = dout + r * H;
    double along = row_dot(o, g, H), length = norm[r];
    for (int64_t h = lane_of(); h < H; h += WARP) dinp[r * H + h] = (float)((g[h] - o[h] * along) / length);
}

rp_status rp_cuda_normalize_forward(rp_dev *dev, float *out, float *norm, const float *inp, int64_t R, int64_t H) {
    (void)dev;
    if (R > 0) LAUNCH_ROWS(normalize_kernel, R, out, norm, inp, R, H);
    return RP_OK;
}

rp_status rp_cuda_normalize_backward(rp_dev *dev, float *dinp, const float *dout, const float *out, const float *norm,
                                     int64_t R, int64_t H) {
    (void)dev;
    if (R > 0) LAUNCH_ROWS(normalize_backward_kernel, R, dinp, dout, out, norm, R, H);
    return RP_OK;
}

static __global__ void dot_kernel(float *out, int64_t stride, const float *a, const float *b, int64_t inp_stride,
                                  int64_t R, int64_t H) {
    int64_t r = warp_row();
    if (r >= R) return;
    double sum = row_dot(a + r * inp_stride, b + r * inp_stride, H);
    if (lane_of() == 0) out[r * stride] = (float)sum;
}

static __global__ void dot_backward_kernel(float *da, float *db, const float *dout, int64_t stride, const float *a,
                                           const float *b, int64_t inp_stride, int64_t R, int64_t H) {
    int64_t r = warp_row();
    if (r >= R) return;
    float g = dout[r * stride];
    for (int64_t h = lane_of(); h < H; h += WARP) {
        da[r * inp_stride + h] = g * b[r * inp_stride + h];
        db[r * inp_stride + h] = g * a[r * inp_stride + h];
    }
}

rp_status rp_cuda_rows_dot_forward(rp_dev *dev, float *out, int64_t stride, const float *a, const float *b,
                                   int64_t inp_stride, int64_t R, int64_t H) {
    (void)dev;
    if (R > 0) LAUNCH_ROWS(dot_kernel, R, out, stride, a, b, inp_stride, R, H);
    return RP_OK;
}

rp_status rp_cuda_rows_dot_backward(rp_dev *dev, float *da, float *db, const float *dout, int64_t stride,
                                    const float *a, const float *b, int64_t inp_stride, int64_t R, int64_t H) {
    (void)dev;
    if (R > 0) LAUNCH_ROWS(dot_backward_kernel, R, da, db, dout, stride, a, b, inp_stride, R, H);
    return RP_OK;
}
