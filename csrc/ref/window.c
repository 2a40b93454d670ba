/* Windows of neighbouring rows inside sequences: what turns a convolution into a linear map. */
#include "ref/ref.h"

/* Row t of sequence s stands at place w of the window of row t - w + (W - 1) / 2, where that is of the sequence. */
rp_status rp_ref_window_forward(rp_dev *dev, float *out, const float *inp, const int32_t *cu_seqlens, int64_t S,
                                int64_t W, int64_t H) {
    (void)dev;
    for (int64_t s = 0; s < S; s++)
        for (int64_t t = cu_seqlens[s]; t < cu_seqlens[s + 1]; t++)
            for (int64_t w = 0; w < W; w++)
                for (int64_t h = 0; h < H; h++) {
                    int64_t from = t + w - (W - 1) / 2;
                    int inside = from >= cu_seqlens[s] && from < cu_seqlens[s + 1];
                    out[(t * W + w) * H + h] = inside ? inp[from * H + h] : 0.0f;
                }
    return RP_OK;
}

rp_status rp_ref_window_backward(rp_dev *dev, float *dinp, const float *dout, const int32_t *cu_seqlens, int64_t S,
                                 int64_t W, int64_t H) {
    (void)dev;
    for (int64_t s = 0; s < S; s++)
        for (int64_t t = cu_seqlens[s]; t < cu_seqlens[s + 1]; t++)
            for (int64_t h = 0; h < H; h++) {
                double sum = 0.0;
                for (int64_t w = 0; w < W; w++) {
                    int64_t of = t - w + (W - 1) / 2;
                    if (of >= cu_seqlens[s] && of < cu_seqlens[s + 1]) sum += dout[(of * W + w) * H + h];
                }
                dinp[t * H + h] = (float)sum;
            }
    return RP_OK;
}
