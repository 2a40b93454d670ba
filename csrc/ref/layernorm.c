/* Layer normalisation (Ba et al. 2016) over the last axis. */
#include <math.h>

#include "ref/ref.h"

/* With m = mean(x), v = mean((x - m)^2), rstd = 1 / sqrt(v + eps):  out = (x - m) rstd gamma + beta */
rp_status rp_ref_layernorm_forward(rp_dev *dev, float *out, uint16_t *out_bits, float *mean, float *rstd,
                                   const float *inp, const float *gamma, const float *beta, float eps, int64_t T,
                                   int64_t H) {
    (void)dev;
    (void)out_bits; /* NULL: rp_ops.bits is 0 */
    for (int64_t t = 0; t < T; t++) {
        const float *x = inp + t * H;
        double m = 0.0, v = 0.0;
        for (int64_t h = 0; h < H; h++) m += x[h];
        m /= (double)H;
        for (int64_t h = 0; h < H; h++) v += (x[h] - m) * (x[h] - m);
        v /= (double)H;
        double r = 1.0 / sqrt(v + (double)eps);
        for (int64_t h = 0; h < H; h++) out[t * H + h] = (float)((x[h] - m) * r * gamma[h] + beta[h]);
        mean[t] = (float)m;
        rstd[t] = (float)r;
    }
    return RP_OK;
}

/* The normalised input of token t, from the saved statistics. */
static double normalized(const float *inp, const float *mean, const float *rstd, int64_t t, int64_t h, int64_t H) {
    return ((double)inp[t * H + h] - mean[t]) * rstd[t];
}

/* With n = normalised input and g = dout gamma:  dinp = rstd (g - mean(g) - n mean(g n)) */
static void backward_inp(float *dinp, const float *dout, const float *inp, const float *mean, const float *rstd,
                         const float *gamma, int64_t T, int64_t H) {
    for (int64_t t = 0; t < T; t++) {
        double mean_g = 0.0, mean_gn = 0.0;
        for (int64_t h = 0; h < H; h++) {
            double g = (double)dout[t * H + h] * gamma[h];
            mean_g += g / (double)H;
            mean_gn += g * normalized(inp, mean, rstd, t, h, H) / (double)H;
        }
        for (int64_t h = 0; h < H; h++) {
            double g = (double)dout[t * H + h] * gamma[h], n = normalized(inp, mean, rstd, t, h, H);
            dinp[t * H + h] = (float)(rstd[t] * (g - mean_g - n * mean_gn));
        }
    }
}

/* dgamma[h] += sum_t dout[t,h] n[t,h];  dbeta[h] += sum_t dout[t,h] */
static void backward_parameters(float *dgamma, float *dbeta, const float *dout, const float *inp, const float *mean,
                                const float *rstd, int64_t T, int64_t H) {
    for (int64_t h = 0; h < H; h++) {
        double gamma_sum = dgamma[h], beta_sum = dbeta[h];
        for (int64_t t = 0; t < T; t++) {
            gamma_sum += dout[t * H + h] * normalized(inp, mean, rstd, t, h, H);
            beta_sum += dout[t * H + h];
        }
        dgamma[h] = (float)gamma_sum;
        dbeta[h] = (float)beta_sum;
    }
}

rp_status rp_ref_layernorm_backward(rp_dev *dev, float *dinp, float *dgamma, float *dbeta, const float *dout,
                                    const float *inp, const float *mean, const float *rstd, const float *gamma,
                                    int64_t T, int64_t H) {
    (void)dev;
    backward_inp(dinp, dout, inp, mean, rstd, gamma, T, H);
    backward_parameters(dgamma, dbeta, dout, inp, mean, rstd, T, H);
    return RP_OK;
}
