/* Rounding to bfloat16 by integers, shared by gemm.c and narrow.c. */
#ifndef RP_CPU_BFLOAT16_H
#define RP_CPU_BFLOAT16_H

#include <stdint.h>
#include <string.h>

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Rounded, ties to even, in the upper half; the lower one is garbage. NaN stays NaN. */
static inline uint32_t round_upper(uint32_t bits) {
    uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1);
    return (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded;
}

#endif
