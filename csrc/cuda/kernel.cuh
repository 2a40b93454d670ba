/* What the kernels share. */
#ifndef RP_CUDA_KERNEL_H
#define RP_CUDA_KERNEL_H

#include "cuda/device.cuh"

extern "C" {
#include "rng.h"
}

static constexpr int WARP = 32, THREADS = 256, WARPS = THREADS / WARP, EACH = 4;
#define ALL_LANES 0xFFFFFFFFu

/* A block's dynamic shared memory. */
#ifndef RP_CUDA_SHARED
#define RP_CUDA_SHARED(type, name)                                                                                     \
    extern __shared__ float4 dynamic_shared[];                                                                         \
    type *name = (type *)dynamic_shared
#endif

/* Elements of a plain loop over N: THREADS * EACH a block, neighbouring threads on neighbouring elements. */
#define FOR_EACH(n, N)                                                                                                 \
    _Pragma("unroll") for (int64_t n = (int64_t)blockIdx.x * (THREADS * EACH) + threadIdx.x,                           \
                           end_##n = n + THREADS * EACH;                                                               \
                           n < end_##n; n += THREADS) if (n < (N))
#define LAUNCH_EACH(kernel, N, ...) RP_CUDA_LAUNCH(kernel, rp_cuda_blocks(N, THREADS *EACH), THREADS, 0, __VA_ARGS__)

/* A warp a row: the row of this thread's warp, and the launch. */
static __device__ __forceinline__ int64_t warp_row() { return (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; }
static __device__ __forceinline__ int lane_of() { return (int)(threadIdx.x % WARP); }
#define LAUNCH_ROWS(kernel, R, ...) RP_CUDA_LAUNCH(kernel, rp_cuda_blocks(R, WARPS), THREADS, 0, __VA_ARGS__)

/* The sum over a warp, in every lane, always in the same order. */
template <typename number> static __device__ __forceinline__ number warp_sum(number x) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

static __device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    return x;
}

/* The sum over a block of THREADS, in every thread. `shared`: (WARPS). */
template <typename number> static __device__ __forceinline__ number block_sum(number x, number *shared) {
    x = warp_sum(x);
    __syncthreads(); /* the values of the call before are read */
    if (lane_of() == 0) shared[threadIdx.x / WARP] = x;
    __syncthreads();
    number sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += shared[i];
    return sum;
}

/* The scale of what dropout keeps. */
static __device__ __forceinline__ float kept_scale(uint32_t threshold) {
    return 65536.0f / (65536.0f - (float)threshold);
}

/* What the mask multiplies columns 8 group .. 8 group + 7 of a row by. */
static __device__ __forceinline__ void keep_eight(float keep[8], const rp_dropout &d, uint32_t sample, uint32_t row,
                                                  uint32_t group) {
    if (d.threshold == 0) {
#pragma unroll
        for (int i = 0; i < 8; i++) keep[i] = 1.0f;
        return;
    }
    uint32_t word[4];
    rp_philox(word, d.key, group, row, sample, (uint32_t)*d.step);
    float scale = kept_scale(d.threshold);
#pragma unroll
    for (int i = 0; i < 8; i++) keep[i] = ((word[i / 2] >> (16 * (i % 2))) & 0xFFFFu) < d.threshold ? 0.0f : scale;
}

/* x = eight neighbours, of which the first `left` are there; the others are 0. And back. */
static __device__ __forceinline__ void load_eight(float x[8], const float *from, int64_t left) {
    if (left >= 8 && (uintptr_t)from % 16 == 0) {
        float4 first = ((const float4 *)from)[0], second = ((const float4 *)from)[1];
        x[0] = first.x, x[1] = first.y, x[2] = first.z, x[3] = first.w;
        x[4] = second.x, x[5] = second.y, x[6] = second.z, x[7] = second.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = i < left ? from[i] : 0.0f;
}

static __device__ __forceinline__ void store_eight(float *to, const float x[8], int64_t left) {
    if (left >= 8 && (uintptr_t)to % 16 == 0) {
        ((float4 *)to)[0] = float4{x[0], x[1], x[2], x[3]};
        ((float4 *)to)[1] = float4{x[4], x[5], x[6], x[7]};
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < left) to[i] = x[i];
}

/* Bits of x rounded to bfloat16, ties to even. */
static __device__ __forceinline__ uint16_t bfloat16_of(float x) {
    uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40u); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/* Bits of both rounded, those of `low` in the lower half. */
static __device__ __forceinline__ uint32_t bfloat16_pair(float low, float high) {
#ifdef __CUDA_ARCH__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return bfloat16_of(low) | (uint32_t)bfloat16_of(high) << 16;
#endif
}

static __device__ __forceinline__ uint4 round_eight(const float x[8]) {
    return uint4{bfloat16_pair(x[0], x[1]), bfloat16_pair(x[2], x[3]), bfloat16_pair(x[4], x[5]),
                 bfloat16_pair(x[6], x[7])};
}

static __device__ __forceinline__ float number_of(uint32_t bits) { return __uint_as_float(bits << 16); }

/* The same of bits. */
static __device__ __forceinline__ void load_eight(float x[8], const uint16_t *from, int64_t left) {
    if (left >= 8 && (uintptr_t)from % 16 == 0) {
        uint4 pairs = *(const uint4 *)from;
        const unsigned pair[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = i % 2 ? __uint_as_float(pair[i / 2] & 0xFFFF0000u) : number_of(pair[i / 2]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = i < left ? number_of(from[i]) : 0.0f;
}

static __device__ __forceinline__ void store_eight(uint16_t *to, const float x[8], int64_t left) {
    if (left >= 8 && (uintptr_t)to % 16 == 0) {
        *(uint4 *)to = round_eight(x);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < left) to[i] = bfloat16_of(x[i]);
}

/* out(n), 8 WARP columns at most, = the sums over the block's COUNT warps, in their order, of what their lanes have of
 * eight columns each. */
template <int COUNT>
static __device__ __forceinline__ void add_warps(float *out, const float sums[8], float line[COUNT][WARP * 8],
                                                 int64_t n) {
    __syncthreads(); /* the lines before are read */
#pragma unroll
    for (int j = 0; j < 8; j++) line[threadIdx.x / WARP][lane_of() * 8 + j] = sums[j];
    __syncthreads();
    for (int own = (int)threadIdx.x; own < WARP * 8 && own < n; own += COUNT * WARP) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < COUNT; i++) sum += line[i][own];
        out[own] = sum;
    }
}

/* Bits of eight neighbours of either kind, 0 behind the first `left`. */
template <typename number> static __device__ __forceinline__ uint4 bits_of_eight(const number *from, int64_t left) {
    if (sizeof(number) == sizeof(uint16_t) && left >= 8 && (uintptr_t)from % 16 == 0) return *(const uint4 *)from;
    float x[8];
    load_eight(x, from, left);
    return round_eight(x);
}

/* x times what keep_eight gave: a dropped NaN is gone. */
static __device__ __forceinline__ float dropped(float x, float keep) { return keep == 0.0f ? 0.0f : x * keep; }

#endif
