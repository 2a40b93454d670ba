/* What the two forms of attention share: attention.cu has the one with products in float32, attention_bfloat16.cu the
 * one with products of operands rounded to bfloat16. */
#ifndef RP_CUDA_ATTENTION_H
#define RP_CUDA_ATTENTION_H

#include "cuda/kernel.cuh"

/* The arguments that the two operations share; `number` float, or uint16_t: bits of rounded numbers. */
template <typename number> struct rp_cuda_attention {
    const number *q, *k, *v;
    const int32_t *cu_seqlens, *cu_queries, *query_pos;
    rp_dropout d;
    int64_t R, A, D, q_stride, kv_stride;
};

template <typename number> struct rp_cuda_attention_gradients {
    number *dq, *dk, *dv;
    const number *dout, *out;
    const float *lse;
};

/* Heads are at most this wide; S is not 0. */
enum { RP_CUDA_WIDEST_BFLOAT16 = 128 };
template <typename number>
rp_status rp_cuda_attention_forward_bfloat16(number *out, float *lse, const rp_cuda_attention<number> *c, int64_t S);
template <typename number>
rp_status rp_cuda_attention_backward_bfloat16(const rp_cuda_attention_gradients<number> *g,
                                              const rp_cuda_attention<number> *c, int64_t S);

#endif
