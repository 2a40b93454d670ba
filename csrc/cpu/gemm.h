/* Matrix products of our own: packed operands, one kernel in registers. Used by linear.c. */
#ifndef RP_CPU_GEMM_H
#define RP_CPU_GEMM_H

#include <stdbool.h>

#include "cpu/level.h"

/* c(m,n) = or += sum over l of a(i,l) b(l,j). a(i,l) stands at a[i * ai + l * al], b(l,j) at b[l * bl + j * bj]; one
 * stride of each is 1. In the device's precision of products. */
typedef struct rp_gemm {
    int64_t m, n, k;
    const float *a, *b;
    int64_t ai, al, bl, bj;
    float *c;
    int64_t ldc;
    bool accumulate;
    const float *bias; /* (n) added to every row, or NULL */
    float *act;        /* (m,n) at ldc: gelu(c), or NULL */
} rp_gemm;

/* STATE: the device has too little scratch, before anything is written. A result does not depend on the number of
 * threads, and a row of it neither on m nor on the other rows. */
rp_status RP_CPU(gemm)(rp_dev *dev, const rp_gemm *g);

/* Whether products of this kind go by instructions of their own: the machine has them, and in a trial of a
 * millisecond, made once, they were not slower than float32's. */
bool RP_CPU(gemm_has)(rp_dtype products);

#endif
