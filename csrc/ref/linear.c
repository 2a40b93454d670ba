/* Linear map: out = inp weight^T + bias, and its three gradients. */
#include <math.h>
#include <stdbool.h>

#include "ref/ref.h"

/* An operand of a product: x itself, or rounded to bfloat16. */
static double operand(const rp_dev *dev, float x) { return dev->products == RP_BFLOAT16 ? rp_ref_rounded(x) : x; }

/* x as one of the 255 values of int8 whose largest is top. */
static double on_grid(float x, float top) {
    float inverse = top > 1e-30f ? 127 / top : 0;
    return (double)(top / 127) * rintf(x * inverse);
}

static float largest(const float *row, int64_t n) {
    float top = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(row[i])) return NAN;
        top = fmaxf(top, fabsf(row[i]));
    }
    return top;
}

static double dot(const rp_dev *dev, const float *a, const float *b, int64_t n) {
    bool rounded = dev->products == RP_INT8;
    float a_top = rounded ? largest(a, n) : 0, b_top = rounded ? largest(b, n) : 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += rounded ? on_grid(a[i], a_top) * on_grid(b[i], b_top) : operand(dev, a[i]) * operand(dev, b[i]);
    return sum;
}

/* out[t,o] = sum_i inp[t,i] weight[o,i] + bias[o] */
rp_status rp_ref_linear_forward(rp_dev *dev, float *out, const float *inp, const float *weight, const float *bias,
                                int64_t T, int64_t I, int64_t O) {
    for (int64_t t = 0; t < T; t++) {
        for (int64_t o = 0; o < O; o++) {
            out[t * O + o] = (float)((bias != NULL ? bias[o] : 0.0) + dot(dev, inp + t * I, weight + o * I, I));
        }
    }
    return RP_OK;
}

/* dinp[t,i] (+)= sum_o dout[t,o] weight[o,i] */
static void backward_inp(const rp_dev *dev, float *dinp, const float *dout, const float *weight, int64_t T, int64_t I,
                         int64_t O, int64_t accumulate) {
    for (int64_t t = 0; t < T; t++) {
        for (int64_t i = 0; i < I; i++) {
            double sum = accumulate ? dinp[t * I + i] : 0.0;
            for (int64_t o = 0; o < O; o++) sum += operand(dev, dout[t * O + o]) * operand(dev, weight[o * I + i]);
            dinp[t * I + i] = (float)sum;
        }
    }
}

/* dweight[o,i] += sum_t dout[t,o] inp[t,i] */
static void backward_weight(const rp_dev *dev, float *dweight, const float *dout, const float *inp, int64_t T,
                            int64_t I, int64_t O) {
    for (int64_t o = 0; o < O; o++) {
        for (int64_t i = 0; i < I; i++) {
            double sum = dweight[o * I + i];
            for (int64_t t = 0; t < T; t++) sum += operand(dev, dout[t * O + o]) * operand(dev, inp[t * I + i]);
            dweight[o * I + i] = (float)sum;
        }
    }
}

/* dbias[o] += sum_t dout[t,o] */
static void backward_bias(float *dbias, const float *dout, int64_t T, int64_t O) {
    for (int64_t o = 0; o < O; o++) {
        double sum = dbias[o];
        for (int64_t t = 0; t < T; t++) sum += dout[t * O + o];
        dbias[o] = (float)sum;
    }
}

rp_status rp_ref_linear_backward(rp_dev *dev, float *dinp, float *dweight, float *dbias, const float *dout,
                                 const float *inp, const float *weight, int64_t T, int64_t I, int64_t O,
                                 int64_t accumulate) {
    RP_TRY(rp_dev_check_gradients(dev));
    if (dinp != NULL) backward_inp(dev, dinp, dout, weight, T, I, O, accumulate);
    if (dweight != NULL) backward_weight(dev, dweight, dout, inp, T, I, O);
    if (dbias != NULL) backward_bias(dbias, dout, T, O);
    return RP_OK;
}
