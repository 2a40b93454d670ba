#include "cpu/level.h"

/* The window of row t: a run of rows inside the sequence, with zeros before and behind. */
static void gather(float *out, const float *inp, int64_t t, int64_t first, int64_t end, int64_t W, int64_t H) {
    int64_t begin = t - (W - 1) / 2, from = at_least(begin, first), to = at_most(begin + W, end);
    memset(out, 0, (size_t)((from - begin) * H) * sizeof *out);
    memcpy(out + (from - begin) * H, inp + from * H, (size_t)((to - from) * H) * sizeof *out);
    memset(out + (to - begin) * H, 0, (size_t)((begin + W - to) * H) * sizeof *out);
}

rp_status RP_CPU(window_forward)(rp_dev *dev, float *out, const float *inp, const int32_t *cu_seqlens, int64_t S,
                                 int64_t W, int64_t H) {
#pragma omp parallel for num_threads(team(dev, S * W * H * 16)) schedule(static)
    for (int64_t s = 0; s < S; s++)
        for (int64_t t = cu_seqlens[s]; t < cu_seqlens[s + 1]; t++)
            gather(out + t * W * H, inp, t, cu_seqlens[s], cu_seqlens[s + 1], W, H);
    return RP_OK;
}

rp_status RP_CPU(window_backward)(rp_dev *dev, float *dinp, const float *dout, const int32_t *cu_seqlens, int64_t S,
                                  int64_t W, int64_t H) {
#pragma omp parallel for num_threads(team(dev, S * W * H * 16)) schedule(static)
    for (int64_t s = 0; s < S; s++)
        for (int64_t t = cu_seqlens[s]; t < cu_seqlens[s + 1]; t++) {
            float *to = dinp + t * H;
            memset(to, 0, (size_t)H * sizeof *to);
            for (int64_t w = 0; w < W; w++) {
                int64_t of = t - w + (W - 1) / 2;
                if (of < cu_seqlens[s] || of >= cu_seqlens[s + 1]) continue;
                const float *from = dout + (of * W + w) * H;
#pragma omp simd
                for (int64_t h = 0; h < H; h++) to[h] += from[h];
            }
        }
    return RP_OK;
}
