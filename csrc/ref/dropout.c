/* Dropout and the sum of two arrays: the element-wise pieces of a residual connection. */
#include "ref/ref.h"
#include "rng.h"

double rp_ref_keep(const rp_dropout *d, uint32_t sample, uint32_t row, int64_t column) {
    if (d->threshold == 0) return 1.0;
    uint32_t word[4];
    rp_philox(word, d->key, (uint32_t)(column / 8), row, sample, (uint32_t)*d->step);
    int piece = (int)(column % 8); /* eight 16-bit pieces in four words, low half first */
    uint32_t draw = (word[piece / 2] >> (16 * (piece % 2))) & 0xFFFFu;
    return draw < d->threshold ? 0.0 : 65536.0 / (65536.0 - d->threshold);
}

rp_status rp_ref_dropout_forward(rp_dev *dev, float *out, const float *inp, const rp_dropout *d, int64_t T, int64_t H) {
    (void)dev;
    for (int64_t t = 0; t < T; t++) {
        uint32_t sample = 0, row = 0; /* not read, as are d's arrays, without dropout */
        if (d->threshold != 0) {
            sample = (uint32_t)d->sample[d->sequence[t]];
            row = (uint32_t)d->pos[t];
        }
        for (int64_t h = 0; h < H; h++) {
            double keep = rp_ref_keep(d, sample, row, h);
            out[t * H + h] = keep == 0.0 ? 0.0f : (float)(inp[t * H + h] * keep); /* a dropped NaN is gone */
        }
    }
    return RP_OK;
}

rp_status rp_ref_add_forward(rp_dev *dev, float *out, const float *a, const float *b, int64_t N) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) out[n] = a[n] + b[n];
    return RP_OK;
}
