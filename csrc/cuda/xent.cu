/* Softmax cross-entropy with exclusions, several positives (Khosla et al. 2020, equation 2) and smoothing, forward and
 * backward in one kernel: a block has a row, which it reads for the largest candidate, for the sums and for the
 * gradient. See ref/xent.c for the formulas. */
#include "cuda/kernel.cuh"

enum role { EXCLUDED, NEGATIVE, POSITIVE };

static __device__ __forceinline__ role role_of(const rp_xent &x, int64_t r, int64_t c) {
    if (c == x.target[r]) return POSITIVE;
    if (x.skip != nullptr && c == x.skip[r]) return EXCLUDED;
    if (x.row_group == nullptr || x.row_group[r] < 0 || x.row_group[r] != x.col_group[c]) return NEGATIVE;
    return x.supervised ? POSITIVE : EXCLUDED;
}

/* A candidate's logit and column; of two, the larger, or of equals the first. Column C stands for none. */
typedef struct place {
    float z;
    int64_t column;
} place;

static __device__ __forceinline__ place larger(place a, place b) {
    bool second = b.z > a.z || (b.z == a.z && b.column < a.column);
    return second ? b : a;
}

static __device__ place block_largest(place mine, float *shared_z, int64_t *shared_column) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        place other;
        other.z = __shfl_xor_sync(ALL_LANES, mine.z, offset);
        other.column = __shfl_xor_sync(ALL_LANES, mine.column, offset);
        mine = larger(mine, other);
    }
    if (lane_of() == 0) {
        shared_z[threadIdx.x / WARP] = mine.z;
        shared_column[threadIdx.x / WARP] = mine.column;
    }
    __syncthreads();
    for (int i = 0; i < WARPS; i++) {
        place other = {shared_z[i], shared_column[i]};
        mine = i == 0 ? other : larger(mine, other);
    }
    return mine;
}

/* What a pass over a row's candidates finds. */
typedef struct summary {
    double exponentials;      /* sum of exp(z - largest) */
    double positive_sum, sum; /* of z over the positives, and over all candidates */
    int positives, candidates;
} summary;

static __device__ void block_summary(summary *s, double *shared) {
    s->exponentials = block_sum(s->exponentials, shared);
    s->positive_sum = block_sum(s->positive_sum, shared);
    s->sum = block_sum(s->sum, shared);
    s->positives = (int)block_sum((double)s->positives, shared);
    s->candidates = (int)block_sum((double)s->candidates, shared);
}

static __device__ void skip_row(float *z, float *loss, int32_t *correct, int64_t C) {
    for (int64_t c = threadIdx.x; c < C; c += THREADS) z[c] = 0.0f;
    if (threadIdx.x != 0) return;
    *loss = 0.0f;
    *correct = 0;
}

static __device__ void write_gradient(float *z, const rp_xent &x, const summary &s, float largest, int64_t r,
                                      int64_t C) {
    float total = (float)s.exponentials, share = x.smoothing / (float)s.candidates;
    float positive = (1.0f - x.smoothing) / (float)s.positives;
    for (int64_t c = threadIdx.x; c < C; c += THREADS) {
        role kind = role_of(x, r, c);
        float p = expf(x.scale * z[c] - largest) / total, q = share + (kind == POSITIVE ? positive : 0.0f);
        z[c] = kind == EXCLUDED ? 0.0f : x.weight * x.scale * (p - q);
    }
}

static __global__ void xent_kernel(float *logits, float *loss, int32_t *correct, rp_xent x, int64_t C) {
    __shared__ double shared[WARPS];
    __shared__ float shared_z[WARPS];
    __shared__ int64_t shared_column[WARPS];
    int64_t r = blockIdx.x;
    float *z = logits + r * C;
    if (x.target[r] < 0) return skip_row(z, loss + r, correct + r, C);
    place largest = {-INFINITY, C};
    for (int64_t c = threadIdx.x; c < C; c += THREADS) {
        place here = {x.scale * z[c], c};
        if (role_of(x, r, c) != EXCLUDED) largest = larger(largest, here);
    }
    largest = block_largest(largest, shared_z, shared_column);
    summary s = summary();
    for (int64_t c = threadIdx.x; c < C; c += THREADS) {
        role kind = role_of(x, r, c);
        float here = x.scale * z[c];
        if (kind == EXCLUDED) continue;
        s.exponentials += expf(here - largest.z);
        s.sum += here;
        s.candidates++;
        s.positive_sum += kind == POSITIVE ? here : 0.0f;
        s.positives += kind == POSITIVE;
    }
    block_summary(&s, shared);
    write_gradient(z, x, s, largest.z, r, C);
    if (threadIdx.x != 0) return;
    double wanted = (1.0 - x.smoothing) * s.positive_sum / s.positives + x.smoothing * s.sum / s.candidates;
    loss[r] = (float)(largest.z + log(s.exponentials) - wanted);
    correct[r] = largest.column < C && role_of(x, r, largest.column) == POSITIVE;
}

rp_status rp_cuda_softmax_xent(rp_dev *dev, float *logits, float *loss, int32_t *correct, const rp_xent *x, int64_t R,
                               int64_t C) {
    (void)dev;
    if (R > 0) RP_CUDA_LAUNCH(xent_kernel, (unsigned)R, THREADS, 0, logits, loss, correct, *x, C);
    return RP_OK;
}
