/* Layer normalisation (Ba et al. 2016) over the last axis, alone and behind dropout and a residual connection. A warp
 * has a row: of up to WIDEST columns in its registers; a wider one it reads anew for mean, variance and result, which
 * the chip's first cache serves. */
#include "cuda/kernel.cuh"

static constexpr int GROUP = WARP * 8, GROUPS_MOST = 4, WIDEST = GROUPS_MOST * GROUP;

/* What dropout asks of a row. */
static __device__ __forceinline__ uint32_t sample_of(const rp_dropout &d, int64_t t) {
    return d.threshold != 0 ? (uint32_t)d.sample[d.sequence[t]] : 0;
}
static __device__ __forceinline__ uint32_t place_of(const rp_dropout &d, int64_t t) {
    return d.threshold != 0 ? (uint32_t)d.pos[t] : 0;
}

/* -- forward ----------------------------------------------------------------------------------------- */

/* x = dropout(x) + residual, eight neighbours from column `first` of a row on. */
static __device__ __forceinline__ void add_residual(float x[8], const float *residual, const rp_dropout &d,
                                                    uint32_t sample, uint32_t row, int64_t first, int64_t left) {
    float keep[8], past[8];
    load_eight(past, residual, left);
    keep_eight(keep, d, sample, row, (uint32_t)(first / 8));
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] = dropped(x[j], keep[j]) + past[j];
}

/* sum = dropout(inp) + residual where there is a residual, and kept where it may; (x - mean) rstd gamma + beta of that
 * or of inp, in `out` and its bits in `bits`, either of which may be NULL. */
template <int GROUPS>
static __global__ void __launch_bounds__(THREADS, 3)
    whole_row_forward(float *out, uint16_t *bits, float *sum, float *mean, float *rstd, const float *inp,
                      const float *residual, const float *gamma, const float *beta, rp_dropout d, float eps, int64_t T,
                      int64_t H) {
    int64_t t = warp_row();
    if (t >= T) return;
    float x[GROUPS][8], total = 0.0f, squares = 0.0f;
    uint32_t sample = sample_of(d, t), row = place_of(d, t);
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        int64_t column = i * GROUP + lane_of() * 8;
        load_eight(x[i], inp + t * H + column, H - column);
    }
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        int64_t column = i * GROUP + lane_of() * 8;
        if (residual != nullptr) {
            add_residual(x[i], residual + t * H + column, d, sample, row, column, H - column);
            if (sum != nullptr) store_eight(sum + t * H + column, x[i], H - column);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) total += x[i][j]; /* 0 behind the row */
    }
    float m = warp_sum(total) / (float)H;
#pragma unroll
    for (int i = 0; i < GROUPS; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (i * GROUP + lane_of() * 8 + j < H) squares += (x[i][j] - m) * (x[i][j] - m);
    float r = 1.0f / sqrtf(warp_sum(squares) / (float)H + eps);
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        int64_t column = i * GROUP + lane_of() * 8;
        float scale[8], shift[8];
        load_eight(scale, gamma + column, H - column);
        load_eight(shift, beta + column, H - column);
#pragma unroll
        for (int j = 0; j < 8; j++) x[i][j] = (x[i][j] - m) * r * scale[j] + shift[j];
        if (out != nullptr) store_eight(out + t * H + column, x[i], H - column);
        if (bits != nullptr) store_eight(bits + t * H + column, x[i], H - column);
    }
    if (lane_of() == 0) mean[t] = m, rstd[t] = r;
}

static constexpr decltype(&whole_row_forward<1>) whole_forward[GROUPS_MOST] = {
    whole_row_forward<1>, whole_row_forward<2>, whole_row_forward<3>, whole_row_forward<4>};

static __device__ __forceinline__ float row_mean(const float *x, int64_t H) {
    float sum = 0.0f;
    for (int64_t h = lane_of(); h < H; h += WARP) sum += x[h];
    return warp_sum(sum) / (float)H;
}

/* Of wider rows: mean and 1 / deviation of x(H), and (x - mean) rstd gamma + beta in `out`, its bits in `bits`; either
 * may be NULL. */
static __device__ __forceinline__ void normalize_row(float *out, uint16_t *bits, float *mean, float *rstd,
                                                     const float *x, const float *gamma, const float *beta, float eps,
                                                     int64_t H) {
    float m = row_mean(x, H), squares = 0.0f;
    for (int64_t h = lane_of(); h < H; h += WARP) squares += (x[h] - m) * (x[h] - m);
    float r = 1.0f / sqrtf(warp_sum(squares) / (float)H + eps);
    for (int64_t h = lane_of(); h < H; h += WARP) {
        float y = (x[h] - m) * r * gamma[h] + beta[h];
        if (out != nullptr) out[h] = y;
        if (bits != nullptr) bits[h] = bfloat16_of(y);
    }
    if (lane_of() == 0) {
        *mean = m;
        *rstd = r;
    }
}

/* Row t of a matrix, which may not be there. */
template <typename number> static __device__ __forceinline__ number *row_of(number *matrix, int64_t t, int64_t H) {
    return matrix == nullptr ? nullptr : matrix + t * H;
}

static __global__ void forward_kernel(float *out, uint16_t *bits, float *mean, float *rstd, const float *inp,
                                      const float *gamma, const float *beta, float eps, int64_t T, int64_t H) {
    int64_t t = warp_row();
    if (t < T)
        normalize_row(row_of(out, t, H), row_of(bits, t, H), mean + t, rstd + t, inp + t * H, gamma, beta, eps, H);
}

rp_status rp_cuda_layernorm_forward(rp_dev *dev, float *out, uint16_t *out_bits, float *mean, float *rstd,
                                    const float *inp, const float *gamma, const float *beta, float eps, int64_t T,
                                    int64_t H) {
    float *no_sum = nullptr;
    const float *none = nullptr;
    (void)dev;
    if (T == 0) return RP_OK;
    if (H <= WIDEST)
        LAUNCH_ROWS(whole_forward[(H - 1) / GROUP], T, out, out_bits, no_sum, mean, rstd, inp, none, gamma, beta,
                    rp_dropout(), eps, T, H);
    else
        LAUNCH_ROWS(forward_kernel, T, out, out_bits, mean, rstd, inp, gamma, beta, eps, T, H);
    return RP_OK;
}

/* sum = dropout(inp) + residual, then as above. */
static __global__ void residual_kernel(float *out, uint16_t *bits, float *sum, float *mean, float *rstd,
                                       const float *inp, const float *residual, const float *gamma, const float *beta,
                                       rp_dropout d, float eps, int64_t T, int64_t H) {
    int64_t t = warp_row();
    if (t >= T) return;
    uint32_t sample = sample_of(d, t), row = place_of(d, t);
    for (int64_t first = lane_of() * 8; first < H; first += WARP * 8) {
        float x[8];
        load_eight(x, inp + t * H + first, H - first);
        add_residual(x, residual + t * H + first, d, sample, row, first, H - first);
        store_eight(sum + t * H + first, x, H - first);
    }
    __syncwarp(); /* the row's sums were written by other lanes than those that read them now */
    normalize_row(row_of(out, t, H), row_of(bits, t, H), mean + t, rstd + t, sum + t * H, gamma, beta, eps, H);
}

rp_status rp_cuda_residual_layernorm_forward(rp_dev *dev, float *out, uint16_t *out_bits, float *sum, float *mean,
                                             float *rstd, const float *inp, const float *residual, const float *gamma,
                                             const float *beta, const rp_dropout *d, float eps, int64_t T, int64_t H) {
    (void)dev;
    if (T == 0) return RP_OK;
    if (H <= WIDEST)
        LAUNCH_ROWS(whole_forward[(H - 1) / GROUP], T, out, out_bits, sum, mean, rstd, inp, residual, gamma, beta, *d,
                    eps, T, H);
    else
        LAUNCH_ROWS(residual_kernel, T, out, out_bits, sum != nullptr ? sum : out, mean, rstd, inp, residual, gamma,
                    beta, *d, eps, T, H);
    return RP_OK;
}

/* -- backward ---------------------------------------------------------------------------------------- */

/* With n = (x - mean) rstd and g = dout gamma: dinp = rstd (g - mean(g) - n mean(g n)); partials(2,row_blocks,H): sums
 * of dout n, and of dout; blocks as those of sums.cu. `dropped_to` and `dropped_bits` are dinp with dropout; both may
 * be NULL. */

/* -- rows of up to WIDEST columns: one pass, a warp has a row in registers ----------------------------- */

static constexpr int ROW_WARPS = 4; /* of a block: three such share a multiprocessor's registers */

/* backward_kernel and partial_kernel at once, for block x of rows. */
template <int GROUPS>
static __global__ void __launch_bounds__(ROW_WARPS *WARP, 3)
    whole_row_backward(float *dinp, float *dropped_to, uint16_t *dropped_bits, float *partials, const float *dout,
                       const float *inp, const float *mean, const float *rstd, const float *gamma, rp_dropout d,
                       int64_t T, int64_t H, int64_t rows) {
    __shared__ float line[ROW_WARPS][GROUP];
    float dgamma[GROUPS][8] = {}, dbeta[GROUPS][8] = {};
    int64_t begin = blockIdx.x * rows, end = begin + rows < T ? begin + rows : T;
    for (int64_t t = begin + threadIdx.x / WARP; t < end; t += ROW_WARPS) {
        float n[GROUPS][8], g[GROUPS][8], m = mean[t], r = rstd[t], sum_g = 0.0f, sum_gn = 0.0f;
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            int64_t column = i * GROUP + lane_of() * 8;
            load_eight(n[i], inp + t * H + column, H - column);
            load_eight(g[i], dout + t * H + column, H - column);
        }
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            int64_t column = i * GROUP + lane_of() * 8;
            float scale[8];
            load_eight(scale, gamma + column, H - column);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                n[i][j] = (n[i][j] - m) * r;
                dgamma[i][j] += g[i][j] * n[i][j];
                dbeta[i][j] += g[i][j];
                g[i][j] *= scale[j];
                sum_g += g[i][j];
                sum_gn += g[i][j] * n[i][j];
            }
        }
        float mean_g = warp_sum(sum_g) / (float)H, mean_gn = warp_sum(sum_gn) / (float)H;
        uint32_t sample = sample_of(d, t), row = place_of(d, t);
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            int64_t column = i * GROUP + lane_of() * 8;
            float keep[8];
#pragma unroll
            for (int j = 0; j < 8; j++) g[i][j] = r * (g[i][j] - mean_g - n[i][j] * mean_gn);
            store_eight(dinp + t * H + column, g[i], H - column);
            if (dropped_to == nullptr && dropped_bits == nullptr) continue;
            keep_eight(keep, d, sample, row, (uint32_t)(column / 8));
#pragma unroll
            for (int j = 0; j < 8; j++) g[i][j] = dropped(g[i][j], keep[j]);
            if (dropped_to != nullptr) store_eight(dropped_to + t * H + column, g[i], H - column);
            if (dropped_bits != nullptr) store_eight(dropped_bits + t * H + column, g[i], H - column);
        }
    }
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        float *out = partials + blockIdx.x * H + i * GROUP;
        add_warps<ROW_WARPS>(out, dgamma[i], line, H - i * GROUP);
        add_warps<ROW_WARPS>(out + gridDim.x * H, dbeta[i], line, H - i * GROUP);
    }
}

/* -- wider rows --------------------------------------------------------------------------------------- */

static __global__ void backward_kernel(float *dinp, float *dropped_to, uint16_t *dropped_bits, const float *dout,
                                       const float *inp, const float *mean, const float *rstd, const float *gamma,
                                       rp_dropout d, int64_t T, int64_t H) {
    int64_t t = warp_row();
    if (t >= T) return;
    const float *x = inp + t * H, *dy = dout + t * H;
    float m = mean[t], r = rstd[t], sum_g = 0.0f, sum_gn = 0.0f;
    for (int64_t h = lane_of(); h < H; h += WARP) {
        float g = dy[h] * gamma[h];
        sum_g += g;
        sum_gn += g * ((x[h] - m) * r);
    }
    float mean_g = warp_sum(sum_g) / (float)H, mean_gn = warp_sum(sum_gn) / (float)H;
    uint32_t sample = sample_of(d, t), row = place_of(d, t);
    for (int64_t first = lane_of() * 8; first < H; first += WARP * 8) {
        float keep[8], g[8], here[8], scale[8];
        load_eight(g, dy + first, H - first);
        load_eight(here, x + first, H - first);
        load_eight(scale, gamma + first, H - first);
        keep_eight(keep, d, sample, row, (uint32_t)(first / 8));
#pragma unroll
        for (int j = 0; j < 8; j++) g[j] = r * (g[j] * scale[j] - mean_g - (here[j] - m) * r * mean_gn);
        store_eight(dinp + t * H + first, g, H - first);
        if (dropped_to == nullptr && dropped_bits == nullptr) continue;
#pragma unroll
        for (int j = 0; j < 8; j++) g[j] = dropped(g[j], keep[j]);
        if (dropped_to != nullptr) store_eight(dropped_to + t * H + first, g, H - first);
        if (dropped_bits != nullptr) store_eight(dropped_bits + t * H + first, g, H - first);
    }
}

static constexpr int LINES = WARPS;

static __global__ void partial_kernel(float *partials, const float *dout, const float *inp, const float *mean,
                                      const float *rstd, int64_t T, int64_t H, int64_t rows) {
    __shared__ float line[2][LINES][WARP];
    int64_t column = (int64_t)blockIdx.x * WARP + threadIdx.x % WARP, first = blockIdx.y * rows;
    int64_t last = first + rows < T ? first + rows : T;
    float gamma = 0.0f, beta = 0.0f;
    if (column < H)
        for (int64_t t = first + threadIdx.x / WARP; t < last; t += LINES) {
            float dy = dout[t * H + column];
            gamma += dy * ((inp[t * H + column] - mean[t]) * rstd[t]);
            beta += dy;
        }
    line[0][threadIdx.x / WARP][threadIdx.x % WARP] = gamma;
    line[1][threadIdx.x / WARP][threadIdx.x % WARP] = beta;
    __syncthreads();
    if (threadIdx.x >= WARP || column >= H) return;
    for (int i = 1; i < LINES; i++) {
        gamma += line[0][i][threadIdx.x];
        beta += line[1][i][threadIdx.x];
    }
    partials[blockIdx.y * H + column] = gamma;
    partials[(gridDim.y + blockIdx.y) * H + column] = beta;
}

static constexpr decltype(&whole_row_backward<1>) whole_backward[GROUPS_MOST] = {
    whole_row_backward<1>, whole_row_backward<2>, whole_row_backward<3>, whole_row_backward<4>};

static rp_status backward(rp_dev *dev, float *dropped_to, uint16_t *dropped_bits, float *dinp, float *dgamma,
                          float *dbeta, const float *dout, const float *inp, const float *mean, const float *rstd,
                          const float *gamma, const rp_dropout *d, int64_t T, int64_t H) {
    rp_arena arena = rp_cuda_scratch_arena(dev);
    int64_t blocks = rp_cuda_row_blocks(T);
    if (T == 0) return RP_OK;
    float *partials = rp_cuda_take_partials(&arena, 2, T, H);
    RP_TRY(rp_cuda_fits(&arena, "the gradient of a layer normalisation"));
    int64_t rows = rp_cuda_ceil(T, blocks);
    dim3 grid(rp_cuda_blocks(H, WARP), (unsigned)blocks);
    if (H <= WIDEST) {
        RP_CUDA_LAUNCH(whole_backward[(H - 1) / GROUP], (unsigned)blocks, ROW_WARPS * WARP, 0, dinp, dropped_to,
                       dropped_bits, partials, dout, inp, mean, rstd, gamma, *d, T, H, rows);
    } else {
        RP_CUDA_LAUNCH(partial_kernel, grid, THREADS, 0, partials, dout, inp, mean, rstd, T, H, rows);
        LAUNCH_ROWS(backward_kernel, T, dinp, dropped_to, dropped_bits, dout, inp, mean, rstd, gamma, *d, T, H);
    }
    RP_TRY(rp_cuda_finish_sums(dgamma, partials, T, H));
    return rp_cuda_finish_sums(dbeta, partials + blocks * H, T, H);
}

rp_status rp_cuda_layernorm_backward(rp_dev *dev, float *dinp, float *dgamma, float *dbeta, const float *dout,
                                     const float *inp, const float *mean, const float *rstd, const float *gamma,
                                     int64_t T, int64_t H) {
    rp_dropout none = rp_dropout();
    return backward(dev, nullptr, nullptr, dinp, dgamma, dbeta, dout, inp, mean, rstd, gamma, &none, T, H);
}

rp_status rp_cuda_residual_layernorm_backward(rp_dev *dev, float *dinp, uint16_t *dinp_bits, float *dresidual,
                                              float *dgamma, float *dbeta, const float *dout, const float *sum,
                                              const float *mean, const float *rstd, const float *gamma,
                                              const rp_dropout *d, int64_t T, int64_t H) {
    return backward(dev, dinp, dinp_bits, dresidual, dgamma, dbeta, dout, sum, mean, rstd, gamma, d, T, H);
}
