/* AdamW (Loshchilov and Hutter 2019), and the sum of squares that gradient clipping needs. */
#include <math.h>

#include "ref/ref.h"

rp_status rp_ref_sum_squares(rp_dev *dev, double *out, const float *inp, int64_t N) {
    (void)dev;
    double sum = 0.0;
    for (int64_t n = 0; n < N; n++) sum += (double)inp[n] * inp[n];
    *out = sum;
    return RP_OK;
}

/* g = grad_scale grad;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 * p = p - lr weight_decay p - lr (m / correction1) / (sqrt(v / correction2) + eps) */
rp_status rp_ref_adamw_update(rp_dev *dev, float *param, float *m, float *v, const float *grad, const rp_adamw_step *h,
                              int64_t N) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) {
        double g = (double)h->grad_scale * grad[n], p = param[n];
        double first = h->beta1 * (double)m[n] + (1.0 - h->beta1) * g;
        double second = h->beta2 * (double)v[n] + (1.0 - h->beta2) * g * g;
        double step = (first / h->correction1) / (sqrt(second / h->correction2) + h->eps);
        param[n] = (float)(p - (double)h->lr * h->weight_decay * p - h->lr * step);
        m[n] = (float)first;
        v[n] = (float)second;
    }
    return RP_OK;
}
