/* A layer's feed-forward on bits: what stands between its two products is read and written in 16 bits alone. */
extern "C" {
#include "composed.h"
}
#include "cuda/bits.cuh"

rp_status rp_cuda_feed_forward_forward(rp_dev *dev, float *out, float *pre, uint16_t *kept, float *act,
                                       const float *inp, const uint16_t *inp_bits, const float *up_weight,
                                       const float *up_bias, const float *down_weight, const float *down_bias,
                                       int64_t T, int64_t H, int64_t F, int64_t keep) {
    if ((keep && kept == nullptr) || dev->products != RP_BFLOAT16)
        return rp_composed_feed_forward_forward(dev, out, pre, kept, act, inp, inp_bits, up_weight, up_bias,
                                                down_weight, down_bias, T, H, F, keep);
    uint16_t *between = rp_cuda_bits_in(act), *before = keep ? kept : between;
    RP_TRY(rp_cuda_multiply_forward(dev, rp_cuda_bits(before), rp_cuda_either(inp, inp_bits), up_weight, up_bias, T, H,
                                    F));
    RP_TRY(rp_cuda_gelu_forward_bits(between, before, T * F));
    return rp_cuda_multiply_forward(dev, rp_cuda_numbers(out), rp_cuda_bits(between), down_weight, down_bias, T, F, H);
}

rp_status rp_cuda_feed_forward_backward(rp_dev *dev, float *dinp, float *dup_weight, float *dup_bias,
                                        float *ddown_weight, float *ddown_bias, float *dact, float *act,
                                        const float *dout, const uint16_t *dout_bits, const float *inp,
                                        const uint16_t *inp_bits, const float *pre, const uint16_t *kept,
                                        const float *up_weight, const float *down_weight, int64_t T, int64_t H,
                                        int64_t F) {
    if (kept == nullptr || dev->products != RP_BFLOAT16)
        return rp_composed_feed_forward_backward(dev, dinp, dup_weight, dup_bias, ddown_weight, ddown_bias, dact, act,
                                                 dout, dout_bits, inp, inp_bits, pre, kept, up_weight, down_weight, T,
                                                 H, F);
    uint16_t *between = rp_cuda_bits_in(act), *dbetween = rp_cuda_bits_in(dact);
    uint16_t *beside = F >= H ? dbetween + T * F : nullptr; /* the other half of that room */
    rp_cuda_matrix dy, none = rp_cuda_numbers(nullptr), inner = rp_cuda_bits(between), dinner = rp_cuda_bits(dbetween);
    RP_TRY(rp_cuda_round_gradient(dev, &dy, ddown_bias, beside, rp_cuda_either(dout, dout_bits), T, H));
    RP_TRY(rp_cuda_multiply_backward(dev, dinner, nullptr, nullptr, dy, inner, down_weight, T, F, H, false));
    RP_TRY(rp_cuda_gelu_backward_bits(dev, between, dbetween, dup_bias, dbetween, kept, T, F));
    RP_TRY(rp_cuda_multiply_backward(dev, none, ddown_weight, nullptr, dy, inner, down_weight, T, F, H, false));
    return rp_cuda_multiply_backward(dev, rp_cuda_numbers(dinp), dup_weight, nullptr, dinner,
                                     rp_cuda_either(inp, inp_bits), up_weight, T, H, F, true);
}
