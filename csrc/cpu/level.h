/* What every file of the CPU back end shares: names per level, vectors, vector mathematics, dropout masks.
 * Each file is compiled once per level with RP_LEVEL set to its name. */
#ifndef RP_CPU_LEVEL_H
#define RP_CPU_LEVEL_H

#include <stdint.h>
#include <string.h>

#include "cpu/cpu.h"
#include "rng.h"
#include "threads.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define RP_CPU_PASTE_(level, name) rp_cpu_##level##_##name
#define RP_CPU_PASTE(level, name) RP_CPU_PASTE_(level, name)
#define RP_CPU_TEXT_(level) #level
#define RP_CPU_TEXT(level) RP_CPU_TEXT_(level)
#define RP_CPU(name) RP_CPU_PASTE(RP_LEVEL, name) /* rp_cpu_avx2_linear_forward, … */

#define RP_CPU_DECLARE(name, arguments) rp_status RP_CPU(name) arguments;
RP_OPS_BASIC(RP_CPU_DECLARE)
RP_OPS_COARSE(RP_CPU_DECLARE)
#undef RP_CPU_DECLARE

#if defined(__AVX512F__)
enum { VL = 16 };
#elif defined(__AVX2__)
enum { VL = 8 };
#else
enum { VL = 4 };
#endif
typedef float vf __attribute__((vector_size(VL * sizeof(float))));

static inline vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

typedef int32_t vi __attribute__((vector_size(VL * sizeof(int32_t))));

/* a where it is above b, else b: then NaN of b stays. */
static inline vf vf_max(vf a, vf b) {
    vi above = a > b;
    return (vf)(((vi)a & above) | ((vi)b & ~above));
}

/* The lanes' sum, as a tree: a chain of additions takes longer than the sums of a short row; and their largest. */
#if defined(__AVX512F__)
static inline float vf_sum(vf v) { return _mm512_reduce_add_ps((__m512)v); }
static inline float vf_top(vf v) { return _mm512_reduce_max_ps((__m512)v); }
#else
static inline float vf_sum(vf v) {
    float lane[VL];
    memcpy(lane, &v, sizeof v);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

static inline float vf_top(vf v) {
    float lane[VL];
    memcpy(lane, &v, sizeof v);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}
#endif

static inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
static inline int64_t at_least(int64_t n, int64_t least) { return n > least ? n : least; }
static inline int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

/* Threads for `work` elementary operations: one below the cost of waking a team. */
static inline int team(const rp_dev *dev, int64_t work) { return work < 32768 ? 1 : (int)dev->num_threads; }

#define RP_ROUNDING 12582912.0f /* 1.5 * 2^23: added to a float of magnitude < 2^22, rounds it to an integer … */

/* … n, which stands in the low bits of the sum: 2^n, n from -126 to 127. */
static inline float power_of_two(float shifted) {
    uint32_t bits;
    float power;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* e^x, x <= 0 or just above, by a polynomial on [-ln2/2, ln2/2] (Cephes' coefficients); within 2 ulp, 0 below -87.3. */
static inline float exp_approx(float x) {
    float clamped = x < -87.3f ? -87.3f : x;
    float shifted = clamped * 1.44269504f + RP_ROUNDING;
    float n = shifted - RP_ROUNDING;
    float r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return x < -87.3f ? 0.0f : p * power_of_two(shifted);
}

/* 2^y, y <= 0, by the series of e^(r ln2) on [-1/2, 1/2]; within 2 ulp, 2^-126 below that. */
static inline float exp2_approx(float y) {
    float clamped = y < -126.0f ? -126.0f : y;
    float shifted = clamped + RP_ROUNDING, r = clamped - (shifted - RP_ROUNDING);
    float p = 1.5403530e-4f;
    p = p * r + 1.3333558e-3f;
    p = p * r + 9.6181291e-3f;
    p = p * r + 5.5504109e-2f;
    p = p * r + 2.4022651e-1f;
    p = p * r + 6.9314718e-1f;
    p = p * r + 1.0f;
    return p * power_of_two(shifted);
}

/* The same of vectors, 0 below 2^-126. */
static inline vf vf_exp2(vf y) {
    vf clamped = vf_max((vf){0} - 127.0f, y), shifted = clamped + RP_ROUNDING;
    vf r = clamped - (shifted - RP_ROUNDING), p = r * 1.5403530e-4f + 1.3333558e-3f;
    p = p * r + 9.6181291e-3f;
    p = p * r + 5.5504109e-2f;
    p = p * r + 2.4022651e-1f;
    p = p * r + 6.9314718e-1f;
    p = p * r + 1.0f;
    return p * (vf)(((vi)shifted + 127) << 23);
}

/* Masks of `rows` x `blocks` * 8 elements: 0 where dropped, the scale where kept, for rows row0, row0 + 1, … and
 * columns 8 * block0, … of a sample (see rp_dropout in ops.h). mask(rows, blocks * 8); up to RP_MASK_SLACK further
 * elements are written behind it. */
void RP_CPU(dropout_mask)(float *mask, const rp_dropout *d, uint32_t sample, uint32_t row0, int64_t rows,
                          uint32_t block0, uint32_t blocks);
enum { RP_MASK_SLACK = 128 };

static inline float dropout_scale(const rp_dropout *d) { return 65536.0f / (float)(65536u - d->threshold); }

/* out(H) = inp with the mask of token t; a plain copy without dropout. */
void RP_CPU(dropout_row)(float *out, const float *inp, const rp_dropout *d, int64_t t, int64_t H);

#endif
