/* GELU on a row, shared by gelu.c and linear.c's epilogue. */
#ifndef RP_CPU_GELU_ROW_H
#define RP_CPU_GELU_ROW_H

#include "cpu/level.h"

/* Phi(-z), z >= 0, the normal distribution's tail, and e^(-z^2/2). erfc by Abramowitz and Stegun 7.1.26 (|error| <=
 * 1.5e-7) on z / sqrt 2. */
static inline float normal_tail(float z, float *bell) {
    float t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * z);
    float p = 0.5f * 1.061405429f;
    p = p * t - 0.5f * 1.453152027f;
    p = p * t + 0.5f * 1.421413741f;
    p = p * t - 0.5f * 0.284496736f;
    p = p * t + 0.5f * 0.254829592f;
    *bell = exp2_approx(-0.5f * 1.44269504f * z * z);
    return p * t * *bell;
}

/* x Phi(x) = max(x, 0) - |x| Phi(-|x|), so that small values stay exact. */
static inline void gelu_row(float *out, const float *inp, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float x = inp[i], z = x < 0 ? -x : x, bell, above = x > 0 ? x : 0;
        out[i] = above - z * normal_tail(z, &bell);
    }
}

#endif
