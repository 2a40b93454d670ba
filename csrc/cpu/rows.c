#include "cpu/level.h"

#include <math.h>

rp_status RP_CPU(rows_gather)(rp_dev *dev, float *out, int64_t stride, const float *inp, const int32_t *rows, int64_t R,
                              int64_t H) {
#pragma omp parallel for num_threads(team(dev, R *H)) schedule(static)
    for (int64_t r = 0; r < R; r++) memcpy(out + r * stride, inp + rows[r] * H, (size_t)H * sizeof *out);
    return RP_OK;
}

enum { COLUMNS = 32 };

/* Columns are shared out, rows go in order, as in embed_backward: rows may repeat. */
rp_status RP_CPU(rows_scatter_add)(rp_dev *dev, float *dinp, const float *dout, int64_t stride, const int32_t *rows,
                                   int64_t R, int64_t H) {
#pragma omp parallel for num_threads(team(dev, R *H)) schedule(static)
    for (int64_t first = 0; first < H; first += COLUMNS) {
        int64_t n = at_most(H - first, COLUMNS);
        for (int64_t r = 0; r < R; r++) {
            float *to = dinp + rows[r] * H + first;
            const float *from = dout + r * stride + first;
#pragma omp simd
            for (int64_t h = 0; h < n; h++) to[h] += from[h];
        }
    }
    return RP_OK;
}

rp_status RP_CPU(mean_forward)(rp_dev *dev, float *out, int64_t stride, const float *inp, const int32_t *first,
                               const int32_t *end, int64_t S, int64_t H) {
#pragma omp parallel for num_threads(team(dev, S * H * 16)) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        float *to = out + s * stride, share = 1.0f / (float)(end[s] - first[s]);
        memset(to, 0, (size_t)H * sizeof *to);
        for (int64_t t = first[s]; t < end[s]; t++) {
#pragma omp simd
            for (int64_t h = 0; h < H; h++) to[h] += inp[t * H + h];
        }
#pragma omp simd
        for (int64_t h = 0; h < H; h++) to[h] *= share;
    }
    return RP_OK;
}

rp_status RP_CPU(mean_backward)(rp_dev *dev, float *dinp, const float *dout, int64_t stride, const int32_t *first,
                                const int32_t *end, int64_t S, int64_t H) {
#pragma omp parallel for num_threads(team(dev, S * H * 16)) schedule(static)
    for (int64_t s = 0; s < S; s++) {
        float share = 1.0f / (float)(end[s] - first[s]);
        for (int64_t t = first[s]; t < end[s]; t++) {
#pragma omp simd
            for (int64_t h = 0; h < H; h++) dinp[t * H + h] += dout[s * stride + h] * share;
        }
    }
    return RP_OK;
}

rp_status RP_CPU(normalize_forward)(rp_dev *dev, float *out, float *norm, const float *inp, int64_t R, int64_t H) {
#pragma omp parallel for num_threads(team(dev, R *H)) schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const float *x = inp + r * H;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t h = 0; h < H; h++) squares += x[h] * x[h];
        float length = sqrtf(squares);
        norm[r] = length > 1e-12f ? length : 1e-12f;
        float inverse = 1.0f / norm[r];
#pragma omp simd
        for (int64_t h = 0; h < H; h++) out[r * H + h] = x[h] * inverse;
    }
    return RP_OK;
}

rp_status RP_CPU(normalize_backward)(rp_dev *dev, float *dinp, const float *dout, const float *out, const float *norm,
                                     int64_t R, int64_t H) {
#pragma omp parallel for num_threads(team(dev, R *H)) schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const float *g = dout + r * H, *z = out + r * H;
        float dot = 0, inverse = 1.0f / norm[r];
#pragma omp simd reduction(+ : dot)
        for (int64_t h = 0; h < H; h++) dot += g[h] * z[h];
#pragma omp simd
        for (int64_t h = 0; h < H; h++) dinp[r * H + h] = (g[h] - z[h] * dot) * inverse;
    }
    return RP_OK;
}

/* VL sums side by side, then the tail: the same for any number of threads. */
static float dot(const float *a, const float *b, int64_t H) {
    vf sums = {0};
    int64_t h = 0;
    for (; h + VL <= H; h += VL) sums += vf_load(a + h) * vf_load(b + h);
    float sum = vf_sum(sums);
    for (; h < H; h++) sum += a[h] * b[h];
    return sum;
}

rp_status RP_CPU(rows_dot_forward)(rp_dev *dev, float *out, int64_t stride, const float *a, const float *b,
                                   int64_t inp_stride, int64_t R, int64_t H) {
#pragma omp parallel for num_threads(team(dev, R *H)) schedule(static)
    for (int64_t r = 0; r < R; r++) out[r * stride] = dot(a + r * inp_stride, b + r * inp_stride, H);
    return RP_OK;
}

rp_status RP_CPU(rows_dot_backward)(rp_dev *dev, float *da, float *db, const float *dout, int64_t stride,
                                    const float *a, const float *b, int64_t inp_stride, int64_t R, int64_t H) {
#pragma omp parallel for num_threads(team(dev, R *H)) schedule(static)
    for (int64_t r = 0; r < R; r++) {
        float g = dout[r * stride];
        int64_t row = r * inp_stride;
#pragma omp simd
        for (int64_t h = 0; h < H; h++) {
            da[row + h] = g * b[row + h];
            db[row + h] = g * a[row + h];
        }
    }
    return RP_OK;
}
