/* Functions of one number, the derivative from their value. */
#include <math.h>

#include "ref/ref.h"

rp_status rp_ref_activation_forward(rp_dev *dev, float *out, const float *inp, int64_t N, int64_t kind) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) out[n] = kind == RP_TANH ? (float)tanh(inp[n]) : inp[n] < 0 ? 0.0f : inp[n];
    return RP_OK;
}

rp_status rp_ref_activation_backward(rp_dev *dev, float *dinp, const float *dout, const float *out, int64_t N,
                                     int64_t kind) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) {
        double slope = kind == RP_TANH ? 1.0 - (double)out[n] * out[n] : out[n] > 0;
        dinp[n] = (float)(dout[n] * slope);
    }
    return RP_OK;
}
