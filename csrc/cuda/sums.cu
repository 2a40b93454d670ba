/* Sums over the rows of a matrix: partial sums of blocks of rows, then the blocks in their order. */
#include "cuda/kernel.cuh"

static constexpr int ROWS_AT_LEAST = 64, LINES = WARPS; /* a block's lines each sum every eighth of its rows */

int64_t rp_cuda_row_blocks(int64_t T) {
    int64_t blocks = rp_cuda_ceil(T, ROWS_AT_LEAST);
    return blocks < RP_CUDA_ROW_BLOCKS ? blocks : (int64_t)RP_CUDA_ROW_BLOCKS;
}

float *rp_cuda_take_partials(rp_arena *arena, int64_t sums, int64_t T, int64_t H) {
    return (float *)rp_arena_take(arena, (size_t)(sums * rp_cuda_row_blocks(T)), (size_t)H * sizeof(float));
}

/* Block (x, y): columns 32 x .., block y of rows. partials(y,H) */
static __global__ void partial_kernel(float *partials, const float *x, int64_t T, int64_t H, int64_t rows) {
    __shared__ float line[LINES][WARP];
    int64_t column = (int64_t)blockIdx.x * WARP + threadIdx.x % WARP, first = blockIdx.y * rows;
    int64_t last = first + rows < T ? first + rows : T;
    float sum = 0.0f;
    if (column < H)
        for (int64_t t = first + threadIdx.x / WARP; t < last; t += LINES) sum += x[t * H + column];
    line[threadIdx.x / WARP][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (threadIdx.x >= WARP || column >= H) return;
    for (int i = 1; i < LINES; i++) sum += line[i][threadIdx.x];
    partials[blockIdx.y * H + column] = sum;
}

/* Block x: columns 32 x ..; its lines each sum every eighth of the blocks. */
static __global__ void finish_kernel(float *out, const float *partials, int64_t blocks, int64_t H) {
    __shared__ double line[LINES][WARP];
    int64_t column = (int64_t)blockIdx.x * WARP + threadIdx.x % WARP;
    double sum = 0.0;
    if (column < H)
        for (int64_t b = threadIdx.x / WARP; b < blocks; b += LINES) sum += partials[b * H + column];
    line[threadIdx.x / WARP][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (threadIdx.x >= WARP || column >= H) return;
    for (int i = 1; i < LINES; i++) sum += line[i][threadIdx.x];
    out[column] = (float)(out[column] + sum);
}

rp_status rp_cuda_finish_sums(float *out, const float *partials, int64_t T, int64_t H) {
    RP_CUDA_LAUNCH(finish_kernel, rp_cuda_blocks(H, WARP), THREADS, 0, out, partials, rp_cuda_row_blocks(T), H);
    return RP_OK;
}

rp_status rp_cuda_column_sums(float *partials, float *out, const float *x, int64_t T, int64_t H) {
    if (T * H == 0) return RP_OK;
    int64_t blocks = rp_cuda_row_blocks(T);
    dim3 grid(rp_cuda_blocks(H, WARP), (unsigned)blocks);
    RP_CUDA_LAUNCH(partial_kernel, grid, THREADS, 0, partials, x, T, H, rp_cuda_ceil(T, blocks));
    return rp_cuda_finish_sums(out, partials, T, H);
}
