/* A layer's attention with its projections on bits: queries, keys and values, what the attention gives, and the
 * gradients of these are read and written in 16 bits alone. Of sequences longer than a tile, the gradients' partial
 * sums are rounded as well. */
extern "C" {
#include "composed.h"
}
#include "cuda/attention.cuh"
#include "cuda/bits.cuh"

static bool on_bits(const rp_dev *dev, bool kept, int64_t D) {
    return kept && dev->products == RP_BFLOAT16 && D <= RP_CUDA_WIDEST_BFLOAT16;
}

static rp_status projections_forward(rp_dev *dev, uint16_t *qkv, rp_cuda_matrix x, const float *asking,
                                     const float *weight, const float *bias, int64_t T, int64_t R, int64_t H) {
    rp_cuda_matrix some = rp_cuda_numbers(asking), out = rp_cuda_bits(qkv);
    if (R == T) return rp_cuda_multiply_forward(dev, out, x, weight, bias, T, H, 3 * H);
    RP_TRY(rp_cuda_multiply_forward(dev, out, x, weight + H * H, bias + H, T, H, 2 * H));
    return rp_cuda_multiply_forward(dev, rp_cuda_bits(qkv + rp_composed_places(T, R, H).q), some, weight, bias, R, H,
                                    H);
}

rp_status rp_cuda_self_attention_forward(rp_dev *dev, float *out, float *lse, float *qkv, uint16_t *kept,
                                         float *attended, const float *inp, const uint16_t *inp_bits,
                                         const float *asking, const float *qkv_weight, const float *qkv_bias,
                                         const float *out_weight, const float *out_bias, const int32_t *cu_seqlens,
                                         const int32_t *cu_queries, const int32_t *query_pos, const rp_dropout *d,
                                         int64_t S, int64_t T, int64_t R, int64_t A, int64_t D, int64_t keep) {
    if (!on_bits(dev, !keep || kept != nullptr, D))
        return rp_composed_self_attention_forward(dev, out, lse, qkv, kept, attended, inp, inp_bits, asking, qkv_weight,
                                                  qkv_bias, out_weight, out_bias, cu_seqlens, cu_queries, query_pos, d,
                                                  S, T, R, A, D, keep);
    int64_t H = A * D;
    rp_qkv_places at = rp_composed_places(T, R, H);
    uint16_t *bits = keep ? kept : rp_cuda_bits_in(qkv);
    rp_cuda_attention<uint16_t> c = {bits + at.q, bits + at.k, bits + at.v, cu_seqlens, cu_queries,  query_pos,
                                     *d,          R,           A,           D,          at.q_stride, at.kv_stride};
    if (S == 0) return RP_OK;
    RP_TRY(projections_forward(dev, bits, rp_cuda_either(inp, inp_bits), asking, qkv_weight, qkv_bias, T, R, H));
    RP_TRY(rp_cuda_attention_forward_bfloat16(rp_cuda_bits_in(attended), lse, &c, S));
    return rp_cuda_multiply_forward(dev, rp_cuda_numbers(out), rp_cuda_bits(rp_cuda_bits_in(attended)), out_weight,
                                    out_bias, R, H, H);
}

static rp_status projections_backward(rp_dev *dev, float *dinp, float *dasking, float *dweight, float *dbias,
                                      const uint16_t *dqkv, rp_cuda_matrix x, const float *asking, const float *weight,
                                      int64_t T, int64_t R, int64_t H) {
    rp_cuda_matrix dx = rp_cuda_numbers(dinp), d = rp_cuda_bits(dqkv);
    rp_cuda_matrix some = rp_cuda_numbers(asking), dsome = rp_cuda_numbers(dasking);
    if (R == T) return rp_cuda_multiply_backward(dev, dsome, dweight, dbias, d, x, weight, T, H, 3 * H, true);
    RP_TRY(rp_cuda_multiply_backward(dev, dx, dweight + H * H, dbias + H, d, x, weight + H * H, T, H, 2 * H, false));
    d = rp_cuda_bits(dqkv + rp_composed_places(T, R, H).q);
    return rp_cuda_multiply_backward(dev, dsome, dweight, dbias, d, some, weight, R, H, H, true);
}

rp_status rp_cuda_self_attention_backward(rp_dev *dev, float *dinp, float *dasking, float *dqkv_weight,
                                          float *dqkv_bias, float *dout_weight, float *dout_bias, float *dqkv,
                                          float *dattended, float *attended, float *qkv, const uint16_t *kept,
                                          float *lse, const float *dout, const uint16_t *dout_bits, const float *inp,
                                          const uint16_t *inp_bits, const float *asking, const float *qkv_weight,
                                          const float *out_weight, const int32_t *cu_seqlens, const int32_t *cu_queries,
                                          const int32_t *query_pos, const rp_dropout *d, int64_t S, int64_t T,
                                          int64_t R, int64_t A, int64_t D) {
    if (!on_bits(dev, kept != nullptr, D))
        return rp_composed_self_attention_backward(dev, dinp, dasking, dqkv_weight, dqkv_bias, dout_weight, dout_bias,
                                                   dqkv, dattended, attended, qkv, kept, lse, dout, dout_bits, inp,
                                                   inp_bits, asking, qkv_weight, out_weight, cu_seqlens, cu_queries,
                                                   query_pos, d, S, T, R, A, D);
    int64_t H = A * D;
    rp_qkv_places at = rp_composed_places(T, R, H);
    uint16_t *made = rp_cuda_bits_in(attended), *dmade = rp_cuda_bits_in(dattended), *gradient = rp_cuda_bits_in(dqkv);
    rp_cuda_attention<uint16_t> c = {kept + at.q, kept + at.k, kept + at.v, cu_seqlens, cu_queries,  query_pos,
                                     *d,          R,           A,           D,          at.q_stride, at.kv_stride};
    rp_cuda_attention_gradients<uint16_t> g = {gradient + at.q, gradient + at.k, gradient + at.v, dmade, made, lse};
    if (S == 0) return RP_OK;
    RP_TRY(rp_cuda_attention_forward_bfloat16(made, lse, &c, S));
    RP_TRY(rp_cuda_multiply_backward(dev, rp_cuda_bits(dmade), dout_weight, dout_bias, rp_cuda_either(dout, dout_bits),
                                     rp_cuda_bits(made), out_weight, R, H, H, false));
    RP_TRY(rp_cuda_attention_backward_bfloat16(&g, &c, S));
    return projections_backward(dev, dinp, dasking, dqkv_weight, dqkv_bias, gradient, rp_cuda_either(inp, inp_bits),
                                asking, qkv_weight, T, R, H);
}
