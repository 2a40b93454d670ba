/* The kernels of matrix products: sums in registers over two packed strips. For gemm.c alone. */
#ifndef RP_CPU_KERNEL_H
#define RP_CPU_KERNEL_H

#include "cpu/pack.h"

/* c(strip_rows,NR) = or += the product of two strips over k words. */
typedef void kernel(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add);

/* Asks for the lines of c that a kernel will write, before its sums. */
static inline __attribute__((always_inline)) void prefetch_sums(const float *c, int64_t ldc, const int rows) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + NR - 1, 1);
    }
}

/* Asks the second cache for word l of the next strip of b, which lies behind this one: a panel may be larger than that
 * cache, and what is behind it is slow. Tiles take more lines in that time than can be asked for. */
static inline __attribute__((always_inline)) void prefetch_next(const void *b, int64_t k, int64_t l) {
    for (int i = 0; i < NR; i += 16) __builtin_prefetch((const uint32_t *)b + (k + l) * NR + i, 0, 2);
}

/* -- float32 --------------------------------------------------------------------------------------------- */

/* Word l of row i of a stands at a[i * ai + l * al]. */
static inline __attribute__((always_inline)) void multiply(float *c, int64_t ldc, const float *a, const float *b,
                                                           int64_t k, bool add, const int64_t ai, const int64_t al) {
    vf sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = (vf){0};
    prefetch_sums(c, ldc, MR);
    for (int64_t l = 0; l < k; l++) {
        prefetch_next(b, k, l);
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
BFLOAT16 static inline
    __attribute__((always_inline)) void multiply_pairs(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b,
                                                       int64_t k, bool add, const int64_t ai, const int64_t al) {
    __m512 sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    prefetch_sums(c, ldc, MR);
    for (int64_t l = 0; l < k; l++) {
        prefetch_next(b, k, l);
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

/* A row of NR sums times its steps, and the columns'. */
static inline __attribute__((always_inline)) void scale_quads(float *c, __m512i left, __m512i right,
                                                              const uint32_t *behind, const float *steps, bool add) {
    __m512 step = _mm512_set1_ps(float_of(behind[STEP]));
    __m512i offset = _mm512_set1_epi32((int)behind[OFFSET]);
    __m512 low =
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(left, offset)), _mm512_mul_ps(step, _mm512_loadu_ps(steps)));
    __m512 high = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(right, offset)),
                                _mm512_mul_ps(step, _mm512_loadu_ps(steps + VL)));
    _mm512_storeu_ps(c, add ? _mm512_add_ps(_mm512_loadu_ps(c), low) : low);
    _mm512_storeu_ps(c + VL, add ? _mm512_add_ps(_mm512_loadu_ps(c + VL), high) : high);
}

static void multiply_quads(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    __m512i sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    prefetch_sums(c, ldc, MR);
    for (int64_t l = 0; l < k; l++) {
        prefetch_next(b, k, l);
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
    for (int i = 0; i < MR; i++)
        scale_quads(c + i * ldc, sum[i][0], sum[i][1], a + (i + 1) * LINE - BEHIND, steps, add);
}
#else /* packing_of says neither PAIRS nor QUADS */
#define multiply_pair_lines multiply_lines
#define multiply_pair_columns multiply_columns
#define multiply_quads multiply_lines
#endif

/* -- tiles ----------------------------------------------------------------------------------------------- */

#if defined(__AMX_TILE__)
/* A thread's tiles: 16 rows of 64 bytes each, sums in 0 to 3, two high and two wide, of a in 4 and 5, of b in 6 and 7.
 */
static void tiles_open(void) {
    struct {
        uint8_t palette, start, zeros[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } form = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        form.bytes[i] = 4 * TILE;
        form.rows[i] = TILE;
    }
    __asm__ volatile("" : : "r"(&form) : "memory"); /* gcc 12 tells its optimiser of the first eight bytes alone */
    _tile_loadconfig(&form);
}
static void tiles_close(void) { _tile_release(); }

/* The operands of words l .. l + 16. */
#define LOAD_OPERANDS(a, b, l, k)                                                                                      \
    _tile_loadd(4, (a) + (l), ((k) + BEHIND) * 4);                                                                     \
    _tile_loadd(6, (b) + (l) * NR, NR * 4);                                                                            \
    _tile_loadd(7, (b) + (l) * NR + TILE, NR * 4);                                                                     \
    _tile_loadd(5, (a) + TILE * ((k) + BEHIND) + (l), ((k) + BEHIND) * 4)

#define EACH_SUM(what, c, ldc)                                                                                         \
    what(0, c, (ldc) * 4);                                                                                             \
    what(1, (c) + TILE, (ldc) * 4);                                                                                    \
    what(2, (c) + TILE * (ldc), (ldc) * 4);                                                                            \
    what(3, (c) + TILE * (ldc) + TILE, (ldc) * 4)

static void clear_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static void multiply_pair_tiles(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    if (add) {
        EACH_SUM(_tile_loadd, c, ldc);
    } else {
        prefetch_sums(c, ldc, 2 * TILE);
        clear_sums();
    }
    for (int64_t l = 0; l < k; l += TILE) {
        LOAD_OPERANDS(a, b, l, k);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    EACH_SUM(_tile_stored, c, ldc);
}

static void multiply_quad_tiles(float *c, int64_t ldc, const uint32_t *a, const uint32_t *b, int64_t k, bool add) {
    int32_t sums[2 * TILE][NR] __attribute__((aligned(64)));
    prefetch_sums(c, ldc, 2 * TILE);
    clear_sums();
    for (int64_t l = 0; l < k; l += TILE) {
        LOAD_OPERANDS(a, b, l, k);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    EACH_SUM(_tile_stored, *sums, NR);
    for (int i = 0; i < 2 * TILE; i++)
        scale_quads(c + i * ldc, _mm512_load_si512(sums[i]), _mm512_load_si512(sums[i] + VL), a + i * (k + BEHIND) + k,
                    (const float *)b + k * NR, add);
}
#else
#define tiles_open() ((void)0)
#define tiles_close() ((void)0)
#define multiply_pair_tiles multiply_pair_lines
#define multiply_quad_tiles multiply_quads
#endif

#endif
