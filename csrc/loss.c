#include "loss.h"

rp_status rp_loss_means(rp_dev *dev, double *loss, double *accuracy, const float *loss_of, const int32_t *correct,
                        float *host_loss, int32_t *host_correct, int64_t rows) {
    double sum = 0, right = 0;
    RP_TRY(dev->ops->download(dev, host_loss, loss_of, rows * (int64_t)sizeof(float)));
    RP_TRY(dev->ops->download(dev, host_correct, correct, rows * (int64_t)sizeof(int32_t)));
    for (int64_t i = 0; i < rows; i++) {
        sum += host_loss[i];
        right += host_correct[i];
    }
    *loss = sum / (double)rows;
    *accuracy = right / (double)rows;
    return RP_OK;
}

/* As the gradient of the rows' products with themselves, of which either half serves. */
rp_status rp_loss_scale_rows(rp_dev *dev, float *out, float *spare, const float *factor, const float *inp, int64_t R,
                             int64_t H) {
    return dev->ops->rows_dot_backward(dev, out, spare, factor, 1, inp, inp, H, R, H);
}
