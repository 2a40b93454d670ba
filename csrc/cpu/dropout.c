#include "cpu/level.h"

enum { LANES = 16 };

/* rp_philox on LANES counters at once. */
static void philox_lanes(uint32_t x[4][LANES], uint64_t key) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
#pragma omp simd
        for (int l = 0; l < LANES; l++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * x[0][l], p1 = (uint64_t)0xCD9E8D57u * x[2][l];
            uint32_t n0 = (uint32_t)(p1 >> 32) ^ x[1][l] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ x[3][l] ^ k1;
            x[1][l] = (uint32_t)p1;
            x[3][l] = (uint32_t)p0;
            x[0][l] = n0;
            x[2][l] = n2;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

void RP_CPU(dropout_mask)(float *mask, const rp_dropout *d, uint32_t sample, uint32_t row0, int64_t rows,
                          uint32_t block0, uint32_t blocks) {
    float scale = dropout_scale(d);
    uint32_t threshold = d->threshold, block = 0, row = row0;
    for (int64_t done = 0; done < rows * blocks; done += LANES) {
        uint32_t x[4][LANES], words[LANES][4];
        for (int l = 0; l < LANES; l++) {
            x[0][l] = block0 + block;
            x[1][l] = row;
            x[2][l] = sample;
            x[3][l] = d->step;
            if (++block == blocks) block = 0, row++;
        }
        philox_lanes(x, d->key);
        for (int l = 0; l < LANES; l++)
            for (int i = 0; i < 4; i++) words[l][i] = x[i][l];
        float *out = mask + done * 8;
        const uint32_t *word = &words[0][0];
#pragma omp simd
        for (int i = 0; i < LANES * 4; i++) {
            out[2 * i] = (word[i] & 0xFFFFu) < threshold ? 0.0f : scale;
            out[2 * i + 1] = (word[i] >> 16) < threshold ? 0.0f : scale;
        }
    }
}

enum { CHUNK = 128 }; /* columns whose mask is made at a time */

void RP_CPU(dropout_row)(float *out, const float *inp, const rp_dropout *d, int64_t t, int64_t H) {
    if (d->threshold == 0) {
        memmove(out, inp, (size_t)H * sizeof *out);
        return;
    }
    float mask[CHUNK + RP_MASK_SLACK];
    uint32_t sample = (uint32_t)d->sample[d->sequence[t]], row = (uint32_t)d->pos[t];
    for (int64_t first = 0; first < H; first += CHUNK) {
        int64_t n = at_most(H - first, CHUNK);
        RP_CPU(dropout_mask)(mask, d, sample, row, 1, (uint32_t)(first / 8), (uint32_t)((n + 7) / 8));
#pragma omp simd
        for (int64_t c = 0; c < n; c++) out[first + c] = inp[first + c] * mask[c];
    }
}

rp_status RP_CPU(dropout_forward)(rp_dev *dev, float *out, const float *inp, const rp_dropout *d, int64_t T,
                                  int64_t H) {
#pragma omp parallel num_threads(team(dev, T *H))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t t = 0; t < T; t++) RP_CPU(dropout_row)(out + t * H, inp + t * H, d, t, H);
        rp_threads_restore(mode);
    }
    return RP_OK;
}

rp_status RP_CPU(add_forward)(rp_dev *dev, float *out, const float *a, const float *b, int64_t N) {
#pragma omp parallel for simd num_threads(team(dev, N)) schedule(static)
    for (int64_t i = 0; i < N; i++) out[i] = a[i] + b[i];
    return RP_OK;
}
