/* Operations on whole rows: picking, averaging over neighbours, scaling to unit length. */
#include <math.h>

#include "ref/ref.h"

rp_status rp_ref_rows_gather(rp_dev *dev, float *out, int64_t stride, const float *inp, const int32_t *rows, int64_t R,
                             int64_t H) {
    (void)dev;
    for (int64_t r = 0; r < R; r++)
        for (int64_t h = 0; h < H; h++) out[r * stride + h] = inp[rows[r] * H + h];
    return RP_OK;
}

/* The one sum that is specified in float32, in the order of r. */
rp_status rp_ref_rows_scatter_add(rp_dev *dev, float *dinp, const float *dout, int64_t stride, const int32_t *rows,
                                  int64_t R, int64_t H) {
    (void)dev;
    for (int64_t r = 0; r < R; r++)
        for (int64_t h = 0; h < H; h++) dinp[rows[r] * H + h] += dout[r * stride + h];
    return RP_OK;
}

/* out[s] = sum of rows first[s] .. end[s] / their number; no rows give 0. */
rp_status rp_ref_mean_forward(rp_dev *dev, float *out, int64_t stride, const float *inp, const int32_t *first,
                              const int32_t *end, int64_t S, int64_t H) {
    (void)dev;
    for (int64_t s = 0; s < S; s++) {
        int64_t rows = end[s] - first[s];
        for (int64_t h = 0; h < H; h++) {
            double sum = 0.0;
            for (int64_t t = first[s]; t < end[s]; t++) sum += inp[t * H + h];
            out[s * stride + h] = rows > 0 ? (float)(sum / (double)rows) : 0.0f;
        }
    }
    return RP_OK;
}

rp_status rp_ref_mean_backward(rp_dev *dev, float *dinp, const float *dout, int64_t stride, const int32_t *first,
                               const int32_t *end, int64_t S, int64_t H) {
    (void)dev;
    for (int64_t s = 0; s < S; s++) {
        double rows = end[s] - first[s];
        for (int64_t t = first[s]; t < end[s]; t++)
            for (int64_t h = 0; h < H; h++) dinp[t * H + h] = (float)(dinp[t * H + h] + dout[s * stride + h] / rows);
    }
    return RP_OK;
}

rp_status rp_ref_rows_dot_forward(rp_dev *dev, float *out, int64_t stride, const float *a, const float *b,
                                  int64_t inp_stride, int64_t R, int64_t H) {
    (void)dev;
    for (int64_t r = 0; r < R; r++) {
        double sum = 0.0;
        for (int64_t h = 0; h < H; h++) sum += (double)a[r * inp_stride + h] * b[r * inp_stride + h];
        out[r * stride] = (float)sum;
    }
    return RP_OK;
}

rp_status rp_ref_rows_dot_backward(rp_dev *dev, float *da, float *db, const float *dout, int64_t stride, const float *a,
                                   const float *b, int64_t inp_stride, int64_t R, int64_t H) {
    (void)dev;
    for (int64_t r = 0; r < R; r++)
        for (int64_t h = 0; h < H; h++) {
            da[r * inp_stride + h] = dout[r * stride] * b[r * inp_stride + h];
            db[r * inp_stride + h] = dout[r * stride] * a[r * inp_stride + h];
        }
    return RP_OK;
}

/* out = inp / norm, norm = max(|inp|_2, 1e-12) */
rp_status rp_ref_normalize_forward(rp_dev *dev, float *out, float *norm, const float *inp, int64_t R, int64_t H) {
    (void)dev;
    for (int64_t r = 0; r < R; r++) {
        double squares = 0.0;
        for (int64_t h = 0; h < H; h++) squares += (double)inp[r * H + h] * inp[r * H + h];
        double length = sqrt(squares);
        if (length < 1e-12) length = 1e-12; /* so written, NaN stays NaN */
        for (int64_t h = 0; h < H; h++) out[r * H + h] = (float)(inp[r * H + h] / length);
        norm[r] = (float)length;
    }
    return RP_OK;
}

/* dinp = (dout - out <out, dout>) / norm */
rp_status rp_ref_normalize_backward(rp_dev *dev, float *dinp, const float *dout, const float *out, const float *norm,
                                    int64_t R, int64_t H) {
    (void)dev;
    for (int64_t r = 0; r < R; r++) {
        const float *o = out + r * H, *g = dout + r * H;
        double along = 0.0;
        for (int64_t h = 0; h < H; h++) along += (double)o[h] * g[h];
        for (int64_t h = 0; h < H; h++) dinp[r * H + h] = (float)((g[h] - o[h] * along) / norm[r]);
    }
    return RP_OK;
}
