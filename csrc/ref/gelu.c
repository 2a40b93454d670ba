/* Gaussian error linear unit (Hendrycks and Gimpel 2016), the erf form. */
#include <math.h>

#include "ref/ref.h"

#define SQRT_HALF 0.70710678118654752440
#define INV_SQRT_2PI 0.39894228040143267794

/* The normal distribution's cumulative function; erfc keeps the digits of its lower tail. */
static double normal_cdf(double x) { return 0.5 * erfc(-x * SQRT_HALF); }

/* out = x cdf(x) */
rp_status rp_ref_gelu_forward(rp_dev *dev, float *out, const float *inp, int64_t N) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) out[n] = (float)(inp[n] * normal_cdf(inp[n]));
    return RP_OK;
}

/* dinp = dout (cdf(x) + x pdf(x)) */
rp_status rp_ref_gelu_backward(rp_dev *dev, float *dinp, const float *dout, const float *inp, int64_t N) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) {
        double x = inp[n], pdf = INV_SQRT_2PI * exp(-0.5 * x * x);
        dinp[n] = (float)(dout[n] * (normal_cdf(x) + x * pdf));
    }
    return RP_OK;
}
