/* The kernels of matrix products: sums in registers over two packed strips. For gemm.c alone. */
#ifndef RP_CPU_KERNEL_H
#define RP_CPU_KERNEL_H

#include "cpu/pack.h"

/* c(MR,NR) = or += the product of two strips over k words; word l of row i of a at a[i * ai + l * al]. */
typedef void kernel(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add);

/* Asks for the lines of c that a kernel will write, before its sums. */
static inline __attribute__((always_inline)) void prefetch_sums(const float *c, int64_t ldc) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + NR - 1, 1);
    }
}

/* -- float32 --------------------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void multiply(float *c, int64_t ldc, const float *a, const float *b,
                                                           int64_t k, bool add, const int64_t ai, const int64_t al) {
    vf sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = (vf){0};
    prefetch_sums(c, ldc);
    for (int64_t l = 0; l < k; l++) {
        vf left = vf_load(b + l * NR), right = vf_load(b + l * NR + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            float x = a[l * al + i * ai];
            sum[i][0] += x * left;
            sum[i][1] += x * right;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        float *row = c + i * ldc;
        vf_store(row, add ? vf_load(row) + sum[i][0] : sum[i][0]);
        vf_store(row + VL, add ? vf_load(row + VL) + sum[i][1] : sum[i][1]);
    }
}

static void multiply_lines(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    multiply(c, ldc, (const float *)a, (const float *)b, k, add, LINE, 1);
}

static void multiply_columns(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    multiply(c, ldc, (const float *)a, (const float *)b, k, add, 1, MR);
}

/* -- pairs and quads, by AVX-512's instructions ---------------------------------------------------------- */

#if defined(__AVX512F__)
BFLOAT16 static inline __attribute__((always_inline)) void multiply_pairs(float *c, int64_t ldc, const uint32_t *a,
                                                                          const uint32_t *b, int64_t k, bool add,
                                                                          const int64_t ai, const int64_t al) {
    __m512 sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    prefetch_sums(c, ldc);
    for (int64_t l = 0; l < k; l++) {
        __m512bh left = (__m512bh)_mm512_loadu_si512(b + l * NR);
        __m512bh right = (__m512bh)_mm512_loadu_si512(b + l * NR + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[l * al + i * ai]);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], left, x);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], right, x);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        float *row = c + i * ldc;
        _mm512_storeu_ps(row, add ? _mm512_add_ps(_mm512_loadu_ps(row), sum[i][0]) : sum[i][0]);
        _mm512_storeu_ps(row + VL, add ? _mm512_add_ps(_mm512_loadu_ps(row + VL), sum[i][1]) : sum[i][1]);
    }
}

BFLOAT16 static void multiply_pair_lines(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k,
                                         bool add) {
    multiply_pairs(c, ldc, a, b, k, add, LINE, 1);
}

BFLOAT16 static void multiply_pair_columns(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k,
                                           bool add) {
    multiply_pairs(c, ldc, a, b, k, add, 1, MR);
}

/* _mm512_dpbusd_epi32, with which gcc 12 copies every sum to memory and back. */
static inline __attribute__((always_inline)) void add_products(__m512i *sum, __m512i b, __m512i a) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(b), "v"(a));
}

static inline void store_quads(float *c, __m512i sum, __m512 step, bool add) {
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), step);
    _mm512_storeu_ps(c, add ? _mm512_add_ps(_mm512_loadu_ps(c), value) : value);
}

static void multiply_quads(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    __m512i sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    prefetch_sums(c, ldc);
    for (int64_t l = 0; l < k; l++) {
        __m512i left = _mm512_loadu_si512(b + l * NR), right = _mm512_loadu_si512(b + l * NR + VL);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            __m512i x = _mm512_set1_epi32((int)a[l + i * LINE]);
            add_products(&sum[i][0], left, x);
            add_products(&sum[i][1], right, x);
        }
    }
    const float *steps = (const float *)b + k * NR;
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        const uint32_t *line = a + i * LINE + KC;
        __m512 step = _mm512_set1_ps(float_of(line[STEP]));
        __m512i offset = _mm512_set1_epi32((int)line[OFFSET]);
        store_quads(c + i * ldc, _mm512_sub_epi32(sum[i][0], offset), _mm512_mul_ps(step, _mm512_loadu_ps(steps)), add);
        store_quads(c + i * ldc + VL, _mm512_sub_epi32(sum[i][1], offset),
                    _mm512_mul_ps(step, _mm512_loadu_ps(steps + VL)), add);
    }
}
#else /* packing_of says neither PAIRS nor QUADS */
#define multiply_pair_lines multiply_lines
#define multiply_pair_columns multiply_columns
#define multiply_quads multiply_lines
#endif

#endif
