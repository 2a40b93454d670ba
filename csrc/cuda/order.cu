/* Sums into rows that several tokens share: the tokens are put in the order of their row, each row's in their own
 * order, and then each row has one writer. Of few tokens each looks for its place among all; of many, a radix sort
 * whose threads each count and move a run of neighbours, one after another, is stable and needs no atomics. */
#include "cuda/kernel.cuh"

static constexpr int BITS = 6, DIGITS = 1 << BITS, WORKERS = 1024, COUNTS = DIGITS * WORKERS;

void rp_cuda_take_order(rp_cuda_order *o, rp_arena *arena, int64_t T) {
    size_t tokens = (size_t)T;
    o->index = (int32_t *)rp_arena_take(arena, tokens, sizeof(int32_t));
    o->token = (int32_t *)rp_arena_take(arena, tokens, sizeof(int32_t));
    o->other_index = (int32_t *)rp_arena_take(arena, tokens, sizeof(int32_t));
    o->other_token = (int32_t *)rp_arena_take(arena, tokens, sizeof(int32_t));
    o->counts = (int32_t *)rp_arena_take(arena, COUNTS, sizeof(int32_t));
}

static __global__ void begin_kernel(int32_t *index, int32_t *token, const int32_t *from, int64_t T) {
    FOR_EACH(t, T) {
        index[t] = from[t];
        token[t] = (int32_t)t;
    }
}

static __device__ __forceinline__ int digit_of(int32_t index, int shift) {
    return (int)((uint32_t)index >> shift & (DIGITS - 1));
}

/* counts(DIGITS,WORKERS): how many of a worker's run have the digit. */
static __global__ void count_kernel(int32_t *counts, const int32_t *index, int64_t T, int64_t run, int shift) {
    int64_t worker = (int64_t)blockIdx.x * THREADS + threadIdx.x, first = worker * run;
    int64_t last = first + run < T ? first + run : T;
    int32_t count[DIGITS];
    for (int d = 0; d < DIGITS; d++) count[d] = 0;
    for (int64_t t = first; t < last; t++) count[digit_of(index[t], shift)]++;
    for (int d = 0; d < DIGITS; d++) counts[d * WORKERS + worker] = count[d];
}

/* counts become the places where they begin: sums of those before. One block of WORKERS threads; a warp has a run of
 * neighbours, and its lanes one after another of these. */
static __global__ void scan_kernel(int32_t *counts) {
    constexpr int RUNS = WORKERS / WARP, LENGTH = COUNTS / RUNS;
    __shared__ int32_t sums[RUNS];
    int lane = lane_of(), run = (int)threadIdx.x / WARP;
    int32_t *mine = counts + run * LENGTH, sum = 0, before = 0;
#pragma unroll 8
    for (int i = lane; i < LENGTH; i += WARP) sum += mine[i];
    sum = warp_sum(sum);
    if (lane == 0) sums[run] = sum;
    __syncthreads();
    for (int i = 0; i < run; i++) before += sums[i];
#pragma unroll 8
    for (int i = lane; i < LENGTH; i += WARP) {
        int32_t count = mine[i], upto = count;
#pragma unroll
        for (int distance = 1; distance < WARP; distance *= 2) {
            int32_t left = __shfl_sync(ALL_LANES, upto, lane < distance ? lane : lane - distance);
            if (lane >= distance) upto += left;
        }
        mine[i] = before + upto - count;
        before += __shfl_sync(ALL_LANES, upto, WARP - 1);
    }
}

static __global__ void move_kernel(int32_t *to_index, int32_t *to_token, const int32_t *index, const int32_t *token,
                                   const int32_t *counts, int64_t T, int64_t run, int shift) {
    int64_t worker = (int64_t)blockIdx.x * THREADS + threadIdx.x, first = worker * run;
    int64_t last = first + run < T ? first + run : T;
    int32_t place[DIGITS];
    for (int d = 0; d < DIGITS; d++) place[d] = counts[d * WORKERS + worker];
    for (int64_t t = first; t < last; t++) {
        int32_t at = place[digit_of(index[t], shift)]++;
        to_index[at] = index[t];
        to_token[at] = token[t];
    }
}

template <typename type> static void swap(type *a, type *b) {
    type kept = *a;
    *a = *b;
    *b = kept;
}

/* Up to so many tokens one launch that compares each with all is faster than three for each digit. */
#ifndef RP_CUDA_RANKED
#define RP_CUDA_RANKED 4096
#endif

static __global__ void rank_kernel(int32_t *to_index, int32_t *to_token, const int32_t *index, int64_t T) {
    __shared__ int32_t others[THREADS];
    int own = (int)(blockIdx.x * THREADS + threadIdx.x), place = 0;
    int32_t mine = own < T ? index[own] : 0;
    for (int first = 0; first < T; first += THREADS) {
        int left = (int)T - first < THREADS ? (int)T - first : THREADS;
        __syncthreads(); /* the others before are read */
        if ((int)threadIdx.x < left) others[threadIdx.x] = index[first + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < left; i++) place += others[i] < mine || (others[i] == mine && first + i < own);
    }
    if (own >= T) return;
    to_index[place] = mine;
    to_token[place] = own;
}

rp_status rp_cuda_sort(rp_cuda_order *o, const int32_t *index, int64_t T, int bits) {
    if (T == 0) return RP_OK;
    if (T <= RP_CUDA_RANKED) {
        RP_CUDA_LAUNCH(rank_kernel, rp_cuda_blocks(T, THREADS), THREADS, 0, o->index, o->token, index, T);
        return RP_OK;
    }
    int64_t run = rp_cuda_ceil(T, WORKERS);
    LAUNCH_EACH(begin_kernel, T, o->index, o->token, index, T);
    for (int shift = 0; shift < bits; shift += BITS) {
        RP_CUDA_LAUNCH(count_kernel, WORKERS / THREADS, THREADS, 0, o->counts, o->index, T, run, shift);
        RP_CUDA_LAUNCH(scan_kernel, 1, WORKERS, 0, o->counts);
        RP_CUDA_LAUNCH(move_kernel, WORKERS / THREADS, THREADS, 0, o->other_index, o->other_token, o->index, o->token,
                       o->counts, T, run, shift);
        swap(&o->index, &o->other_index);
        swap(&o->token, &o->other_token);
    }
    return RP_OK;
}

/* -- sums ------------------------------------------------------------------------------------------------ */

/* Sorted places are cut into runs. What a row has within one run is added up by a block; of a row that goes on in
 * further runs, each run's part is kept, and the block of the run that it begins in adds them up. So no block has more
 * than a run to go through, however many tokens share a row, and sums are always made in the same order. */
static constexpr int RUN = 32;
static constexpr int64_t COLUMNS = 1024; /* at a time: parts of so many are kept */

float *rp_cuda_take_parts(rp_arena *arena, int64_t T, int64_t H) {
    int64_t columns = H < COLUMNS ? H : COLUMNS;
    return (float *)rp_arena_take(arena, (size_t)(2 * rp_cuda_ceil(T, RUN)), (size_t)columns * sizeof(float));
}

struct rows {
    const int32_t *index, *token; /* sorted */
    int64_t T, columns, stride, H;
};

/* parts(runs,2,columns): of each run the part of a row that began before it, and that of one that goes on behind it. */
static __global__ void run_kernel(float *dtable, float *parts, const float *x, rows r) {
    int64_t h = (int64_t)blockIdx.y * THREADS + threadIdx.x, first = (int64_t)blockIdx.x * RUN;
    int64_t last = first + RUN < r.T ? first + RUN : r.T;
    if (h >= r.columns) return;
    float *kept = parts + (int64_t)blockIdx.x * 2 * r.columns + h;
    bool began = first > 0 && r.index[first - 1] == r.index[first];
    float sum = 0.0f;
#pragma unroll 8
    for (int64_t at = first; at < last; at++) {
        int32_t row = r.index[at];
        float *own = dtable + (int64_t)row * r.H + h;
        bool begins = at == first || r.index[at - 1] != row, goes_on = at + 1 < r.T && r.index[at + 1] == row;
        float value = x[(int64_t)r.token[at] * r.stride + h];
        sum = begins ? value : sum + value;
        if (goes_on && at + 1 < last) continue;
        if (began)
            kept[0] = sum;
        else if (goes_on)
            kept[r.columns] = sum;
        else
            *own += sum;
        began = false;
    }
}

/* A block for each run: adds up the row that begins in it and goes on behind it, if there is one. */
static __global__ void join_kernel(float *dtable, const float *parts, rows r) {
    int64_t h = (int64_t)blockIdx.y * THREADS + threadIdx.x, run = blockIdx.x, first = run * RUN, end = first + RUN;
    if (h >= r.columns || end >= r.T) return;
    int32_t row = r.index[end];
    bool before = first > 0 && r.index[first - 1] == row;
    if (r.index[end - 1] != row || before) return;
    float sum = parts[(2 * run + 1) * r.columns + h];
    for (bool goes_on = true; goes_on;) {
        sum += parts[2 * ++run * r.columns + h];
        end += RUN;
        goes_on = end < r.T && r.index[end] == row;
    }
    dtable[(int64_t)row * r.H + h] += sum;
}

rp_status rp_cuda_add_in_order(const rp_cuda_order *o, float *dtable, float *parts, const float *x, int64_t stride,
                               int64_t T, int64_t H) {
    if (T == 0) return RP_OK;
    for (int64_t first = 0; first < H; first += COLUMNS) {
        rows r = {o->index, o->token, T, H - first < COLUMNS ? H - first : COLUMNS, stride, H};
        dim3 grid(rp_cuda_blocks(T, RUN), rp_cuda_blocks(r.columns, THREADS));
        RP_CUDA_LAUNCH(run_kernel, grid, THREADS, 0, dtable + first, parts, x + first, r);
        if (T > RUN) RP_CUDA_LAUNCH(join_kernel, grid, THREADS, 0, dtable + first, parts, r);
    }
    return RP_OK;
}
