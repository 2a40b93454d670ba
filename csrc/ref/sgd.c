/* Stochastic gradient descent with momentum. */
#include "ref/ref.h"

/* g = grad_scale grad + weight_decay p;  m = momentum m + g;  p = p - lr m */
rp_status rp_ref_sgd_update(rp_dev *dev, float *param, float *m, const float *grad, const rp_sgd_step *h, int64_t N) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) {
        double g = (double)h->grad_scale * grad[n] + (double)h->weight_decay * param[n];
        if (m != NULL) {
            g += (double)h->momentum * m[n];
            m[n] = (float)g;
        }
        param[n] = (float)(param[n] - h->lr * g);
    }
    return RP_OK;
}
