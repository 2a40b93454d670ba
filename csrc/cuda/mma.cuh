/* Products of small matrices of bfloat16 on the tensor cores, of every GPU from compute capability 8.0 on. What a warp
 * has of a matrix is spread over its lanes; lane = 4 g + t. Registers of 32 bits hold two neighbours, the lower half
 * the first. (PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix".)
 *
 *   A (16,16)   a[0]: row g, columns 2t and 2t + 1; a[1]: row g + 8; a[2], a[3]: the same 8 columns on
 *   B (16,8)    b[0]: column g, rows 2t and 2t + 1; b[1]: 8 rows on
 *   C (16,8)    c[0], c[1]: row g, columns 2t and 2t + 1; c[2], c[3]: row g + 8
 *
 * So C is laid out as half an A is: sums that are rounded are at once operands of the next product. */
#ifndef RP_CUDA_MMA_H
#define RP_CUDA_MMA_H

#include "cuda/kernel.cuh"

#ifndef RP_CUDA_MMA /* who has no tensor cores defines it, and the functions */
#define RP_CUDA_MMA

/* c(16,8) += a(16,16) b(16,8), in float32. */
static __device__ __forceinline__ void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four matrices (8,8) of 16-bit numbers from shared memory: `row`, 16-byte aligned, is row lane % 8 of number lane / 8.
 * out[i]: of number i, row g, columns 2t and 2t + 1; in the second form column g, rows 2t and 2t + 1. */
static __device__ __forceinline__ void load_matrices(uint32_t out[4], const uint16_t *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

static __device__ __forceinline__ void load_matrices_transposed(uint32_t out[4], const uint16_t *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}
#endif

/* -- blocks of 16 rows and columns ------------------------------------------------------------------- */

/* The quarters of a block in shared memory, whose rows are `pitch` apart, are taken one below the other first, or one
 * beside the other first: the lane's row of its quarter. */
static __device__ __forceinline__ const uint16_t *quarters_down(const uint16_t *block, int pitch) {
    return block + lane_of() % 16 * pitch + lane_of() / 16 * 8;
}
static __device__ __forceinline__ const uint16_t *quarters_across(const uint16_t *block, int pitch) {
    return block + (lane_of() / 16 * 8 + lane_of() % 8) * pitch + lane_of() / 8 % 2 * 8;
}

/* a = block(16,16), or its transpose. */
static __device__ __forceinline__ void load_a(uint32_t a[4], const uint16_t *block, int pitch) {
    load_matrices(a, quarters_down(block, pitch));
}
static __device__ __forceinline__ void load_a_transposed(uint32_t a[4], const uint16_t *block, int pitch) {
    load_matrices_transposed(a, quarters_across(block, pitch));
}

/* b and b + 2 = the left and the right half of block(16,16), or of its transpose. */
static __device__ __forceinline__ void load_b(uint32_t b[4], const uint16_t *block, int pitch) {
    load_matrices_transposed(b, quarters_down(block, pitch));
}
static __device__ __forceinline__ void load_b_transposed(uint32_t b[4], const uint16_t *block, int pitch) {
    load_matrices(b, quarters_across(block, pitch));
}

/* c(16,16) += a b, halves as load_b has them. */
static __device__ __forceinline__ void multiply_block(float c[2][4], const uint32_t a[4], const uint32_t b[4]) {
    mma_bf16(c[0], a, b);
    mma_bf16(c[1], a, b + 2);
}

/* a = c(16,16) rounded. */
static __device__ __forceinline__ void round_block(uint32_t a[4], const float c[2][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = bfloat16_pair(c[i / 2][i % 2 * 2], c[i / 2][i % 2 * 2 + 1]);
}

/* Over the four lanes that have a row of C between them. */
static __device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
static __device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

#endif
