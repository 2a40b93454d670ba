#include "composed.h"

rp_status rp_composed_list_begin(rp_dev *dev) {
    (void)dev;
    return RP_OK;
}

rp_status rp_composed_list_end(rp_dev *dev, int64_t status) {
    (void)dev;
    return (rp_status)status;
}

/* Basic operations take numbers alone. */
static rp_status refuse_bits(const uint16_t *bits) {
    return bits == NULL ? RP_OK : rp_fail(RP_STATUS_VALUE, "this operation takes no bits here: expected NULL");
}

rp_status rp_composed_linear_gelu_forward(rp_dev *dev, float *act, float *pre, const float *inp, const float *weight,
                                          const float *bias, int64_t T, int64_t I, int64_t O) {
    RP_TRY(dev->ops->linear_forward(dev, pre, inp, weight, bias, T, I, O));
    return dev->ops->gelu_forward(dev, act, pre, T * O);
}

rp_status rp_composed_residual_layernorm_forward(rp_dev *dev, float *out, uint16_t *out_bits, float *sum, float *mean,
                                                 float *rstd, const float *inp, const float *residual,
                                                 const float *gamma, const float *beta, const rp_dropout *d, float eps,
                                                 int64_t T, int64_t H) {
    if (sum == NULL) sum = out;
    RP_TRY(dev->ops->dropout_forward(dev, sum, inp, d, T, H));
    RP_TRY(dev->ops->add_forward(dev, sum, sum, residual, T * H));
    return dev->ops->layernorm_forward(dev, out, out_bits, mean, rstd, sum, gamma, beta, eps, T, H);
}

rp_status rp_composed_residual_layernorm_backward(rp_dev *dev, float *dinp, uint16_t *dinp_bits, float *dresidual,
                                                  float *dgamma, float *dbeta, const float *dout, const float *sum,
                                                  const float *mean, const float *rstd, const float *gamma,
                                                  const rp_dropout *d, int64_t T, int64_t H) {
    RP_TRY(refuse_bits(dinp_bits));
    RP_TRY(dev->ops->layernorm_backward(dev, dresidual, dgamma, dbeta, dout, sum, mean, rstd, gamma, T, H));
    return dev->ops->dropout_forward(dev, dinp, dresidual, d, T, H);
}

/* -- what is kept for the backward pass ------------------------------------------------------------------ */

/* Keeps n numbers, which are rounded then, where `kept` is not NULL. */
static rp_status keep_in(rp_dev *dev, uint16_t *kept, float *values, int64_t n) {
    return kept == NULL ? RP_OK : dev->ops->narrow(dev, kept, values, n);
}

/* Makes them again. */
static rp_status recall(rp_dev *dev, float *values, const uint16_t *kept, int64_t n) {
    return kept == NULL ? RP_OK : dev->ops->widen(dev, values, kept, n);
}

/* -- feed-forward ---------------------------------------------------------------------------------------- */

rp_status rp_composed_feed_forward_forward(rp_dev *dev, float *out, float *pre, uint16_t *kept, float *act,
                                           const float *inp, const uint16_t *inp_bits, const float *up_weight,
                                           const float *up_bias, const float *down_weight, const float *down_bias,
                                           int64_t T, int64_t H, int64_t F, int64_t keep) {
    RP_TRY(refuse_bits(inp_bits));
    if (!keep) pre = act;
    RP_TRY(dev->ops->linear_gelu_forward(dev, act, pre, inp, up_weight, up_bias, T, H, F));
    if (keep) RP_TRY(keep_in(dev, kept, pre, T * F));
    return dev->ops->linear_forward(dev, out, act, down_weight, down_bias, T, F, H);
}

rp_status rp_composed_feed_forward_backward(rp_dev *dev, float *dinp, float *dup_weight, float *dup_bias,
                                            float *ddown_weight, float *ddown_bias, float *dact, float *act,
                                            const float *dout, const uint16_t *dout_bits, const float *inp,
                                            const uint16_t *inp_bits, const float *pre, const uint16_t *kept,
                                            const float *up_weight, const float *down_weight, int64_t T, int64_t H,
                                            int64_t F) {
    const rp_ops *ops = dev->ops;
    RP_TRY(refuse_bits(inp_bits));
    RP_TRY(refuse_bits(dout_bits));
    if (kept != NULL) pre = act; /* in turns: pre, what GELU makes of it, and pre again */
    RP_TRY(recall(dev, act, kept, T * F));
    RP_TRY(ops->gelu_forward(dev, act, pre, T * F));
    RP_TRY(ops->linear_backward(dev, dact, ddown_weight, ddown_bias, dout, act, down_weight, T, F, H, 0));
    RP_TRY(recall(dev, act, kept, T * F));
    RP_TRY(ops->gelu_backward(dev, dact, dact, pre, T * F));
    return ops->linear_backward(dev, dinp, dup_weight, dup_bias, dact, inp, up_weight, T, H, F, 1);
}

/* -- self-attention -------------------------------------------------------------------------------------- */

rp_qkv_places rp_composed_places(int64_t T, int64_t R, int64_t H) {
    if (R < T) return (rp_qkv_places){T * 2 * H, 0, H, H, 2 * H};
    return (rp_qkv_places){0, H, 2 * H, 3 * H, 3 * H};
}

static rp_status projections_forward(rp_dev *dev, float *qkv, const float *inp, const float *asking,
                                     const float *weight, const float *bias, int64_t T, int64_t R, int64_t H) {
    const rp_ops *ops = dev->ops;
    if (R == T) return ops->linear_forward(dev, qkv, inp, weight, bias, T, H, 3 * H);
    RP_TRY(ops->linear_forward(dev, qkv, inp, weight + H * H, bias + H, T, H, 2 * H));
    return ops->linear_forward(dev, qkv + rp_composed_places(T, R, H).q, asking, weight, bias, R, H, H);
}

rp_status rp_composed_self_attention_forward(rp_dev *dev, float *out, float *lse, float *qkv, uint16_t *kept,
                                             float *attended, const float *inp, const uint16_t *inp_bits,
                                             const float *asking, const float *qkv_weight, const float *qkv_bias,
                                             const float *out_weight, const float *out_bias, const int32_t *cu_seqlens,
                                             const int32_t *cu_queries, const int32_t *query_pos, const rp_dropout *d,
                                             int64_t S, int64_t T, int64_t R, int64_t A, int64_t D, int64_t keep) {
    const rp_ops *ops = dev->ops;
    int64_t H = A * D;
    rp_qkv_places at = rp_composed_places(T, R, H);
    RP_TRY(refuse_bits(inp_bits));
    RP_TRY(projections_forward(dev, qkv, inp, asking, qkv_weight, qkv_bias, T, R, H));
    if (keep) RP_TRY(keep_in(dev, kept, qkv, (2 * T + R) * H));
    RP_TRY(ops->attention_forward(dev, attended, lse, qkv + at.q, qkv + at.k, qkv + at.v, cu_seqlens, cu_queries,
                                  query_pos, d, S, R, A, D, at.q_stride, at.kv_stride));
    return ops->linear_forward(dev, out, attended, out_weight, out_bias, R, H, H);
}

static rp_status projections_backward(rp_dev *dev, float *dinp, float *dasking, float *dweight, float *dbias,
                                      const float *dqkv, const float *inp, const float *asking, const float *weight,
                                      int64_t T, int64_t R, int64_t H) {
    const rp_ops *ops = dev->ops;
    if (R == T) return ops->linear_backward(dev, dasking, dweight, dbias, dqkv, inp, weight, T, H, 3 * H, 1);
    RP_TRY(ops->linear_backward(dev, dinp, dweight + H * H, dbias + H, dqkv, inp, weight + H * H, T, H, 2 * H, 0));
    return ops->linear_backward(dev, dasking, dweight, dbias, dqkv + rp_composed_places(T, R, H).q, asking, weight, R,
                                H, H, 1);
}

rp_status rp_composed_self_attention_backward(
    rp_dev *dev, float *dinp, float *dasking, float *dqkv_weight, float *dqkv_bias, float *dout_weight,
    float *dout_bias, float *dqkv, float *dattended, float *attended, float *qkv, const uint16_t *kept, float *lse,
    const float *dout, const uint16_t *dout_bits, const float *inp, const uint16_t *inp_bits, const float *asking,
    const float *qkv_weight, const float *out_weight, const int32_t *cu_seqlens, const int32_t *cu_queries,
    const int32_t *query_pos, const rp_dropout *d, int64_t S, int64_t T, int64_t R, int64_t A, int64_t D) {
    const rp_ops *ops = dev->ops;
    int64_t H = A * D;
    rp_qkv_places at = rp_composed_places(T, R, H);
    const float *q = qkv + at.q, *k = qkv + at.k, *v = qkv + at.v;
    RP_TRY(refuse_bits(inp_bits));
    RP_TRY(refuse_bits(dout_bits));
    RP_TRY(recall(dev, qkv, kept, (2 * T + R) * H));
    RP_TRY(ops->attention_forward(dev, attended, lse, q, k, v, cu_seqlens, cu_queries, query_pos, d, S, R, A, D,
                                  at.q_stride, at.kv_stride));
    RP_TRY(ops->linear_backward(dev, dattended, dout_weight, dout_bias, dout, attended, out_weight, R, H, H, 0));
    RP_TRY(ops->attention_backward(dev, dqkv + at.q, dqkv + at.k, dqkv + at.v, dattended, attended, lse, q, k, v,
                                   cu_seqlens, cu_queries, query_pos, d, S, R, A, D, at.q_stride, at.kv_stride));
    return projections_backward(dev, dinp, dasking, dqkv_weight, dqkv_bias, dqkv, inp, asking, qkv_weight, T, R, H);
}
