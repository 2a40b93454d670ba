/* GELU on a row, shared by gelu.c and linear.c's epilogue. */
#ifndef RP_CPU_GELU_ROW_H
#define RP_CPU_GELU_ROW_H

#include "cpu/level.h"

/* Phi(x), the normal distribution's, and e^(-x^2/2). erf by Abramowitz and Stegun 7.1.26 (|error| <= 1.5e-7) on
 * x / sqrt 2, taken from the tail's side so that small values of Phi stay small. */
static inline float normal_cdf(float x, float *bell) {
    float z = x < 0 ? -x : x;
    float e = exp_approx(-0.5f * x * x);
    float t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float tail = 0.5f * p * t * e; /* Phi(-|x|) */
    *bell = e;
    return x < 0 ? tail : 1.0f - tail;
}

static inline void gelu_row(float *out, const float *inp, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float bell;
        out[i] = inp[i] * normal_cdf(inp[i], &bell);
    }
}

#endif
