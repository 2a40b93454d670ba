/* Sums into rows that several tokens share: the tokens are put in the order of their row, each row's in their own
 * order, and then each row has one writer. A radix sort whose threads each count and move a run of neighbours, one
 * after another, is stable and needs no atomics. */
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

/* counts become the places where they begin: sums of those before. One block of WORKERS threads. */
static __global__ void scan_kernel(int32_t *counts) {
    __shared__ int32_t before[WORKERS];
    int32_t *mine = counts + (int64_t)threadIdx.x * DIGITS, sum = 0;
    for (int i = 0; i < DIGITS; i++) sum += mine[i];
    before[threadIdx.x] = sum;
    __syncthreads();
    for (int distance = 1; distance < WORKERS; distance *= 2) {
        int32_t left = (int)threadIdx.x >= distance ? before[threadIdx.x - distance] : 0;
        __syncthreads();
        before[threadIdx.x] += left;
        __syncthreads();
    }
    int32_t place = before[threadIdx.x] - sum;
    for (int i = 0; i < DIGITS; i++) {
        int32_t count = mine[i];
        mine[i] = place;
        place += count;
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

rp_status rp_cuda_sort(rp_cuda_order *o, const int32_t *index, int64_t T, int bits) {
    if (T == 0) return RP_OK;
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

/* A block for each sorted place and THREADS columns: the one at a row's first place adds all of the row's tokens. */
static __global__ void add_kernel(float *dtable, const float *x, const int32_t *index, const int32_t *token,
                                  int64_t stride, int64_t T, int64_t H) {
    int64_t at = blockIdx.x, h = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    int32_t row = index[at];
    if (h >= H || (at > 0 && index[at - 1] == row)) return;
    float sum = dtable[(int64_t)row * H + h];
    for (; at < T && index[at] == row; at++) sum += x[(int64_t)token[at] * stride + h];
    dtable[(int64_t)row * H + h] = sum;
}

rp_status rp_cuda_add_in_order(const rp_cuda_order *o, float *dtable, const float *x, int64_t stride, int64_t T,
                               int64_t H) {
    if (T == 0) return RP_OK;
    dim3 grid((unsigned)T, rp_cuda_blocks(H, THREADS));
    RP_CUDA_LAUNCH(add_kernel, grid, THREADS, 0, dtable, x, o->index, o->token, stride, T, H);
    return RP_OK;
}
