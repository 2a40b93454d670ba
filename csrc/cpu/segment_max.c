#include "cpu/level.h"

rp_status RP_CPU(segment_max_forward)(rp_dev *dev, float *out, int32_t *row, const float *inp,
                                      const int32_t *cu_segments, int64_t G, int64_t H) {
#pragma omp parallel for num_threads(team(dev, G * H * 8)) schedule(static)
    for (int64_t g = 0; g < G; g++) {
        int32_t first = cu_segments[g], end = cu_segments[g + 1];
        float *best = out + g * H;
        int32_t *at = row + g * H;
        for (int64_t h = 0; h < H; h++) {
            best[h] = first < end ? inp[first * H + h] : 0.0f;
            at[h] = first < end ? first : -1;
        }
        for (int32_t t = first + 1; t < end; t++) {
            const float *x = inp + t * H;
#pragma omp simd
            for (int64_t h = 0; h < H; h++) {
                int better = (x[h] > best[h]) | ((x[h] != x[h]) & (best[h] == best[h]));
                best[h] = better ? x[h] : best[h];
                at[h] = better ? t : at[h];
            }
        }
    }
    return RP_OK;
}

rp_status RP_CPU(segment_max_backward)(rp_dev *dev, float *dinp, const float *dout, const int32_t *row,
                                       const int32_t *cu_segments, int64_t G, int64_t H) {
#pragma omp parallel for num_threads(team(dev, G * H * 8)) schedule(static)
    for (int64_t g = 0; g < G; g++) {
        int64_t first = cu_segments[g], end = cu_segments[g + 1];
        memset(dinp + first * H, 0, (size_t)((end - first) * H) * sizeof *dinp);
        if (first == end) continue;
        for (int64_t h = 0; h < H; h++) dinp[row[g * H + h] * H + h] = dout[g * H + h];
    }
    return RP_OK;
}
