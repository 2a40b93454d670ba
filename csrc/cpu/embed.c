#include "cpu/level.h"

rp_status RP_CPU(embed_forward)(rp_dev *dev, float *out, const int32_t *ids, const int32_t *pos, const float *word,
                                const float *position, const float *type, int64_t T, int64_t H) {
#pragma omp parallel for num_threads(team(dev, T *H)) schedule(static)
    for (int64_t t = 0; t < T; t++) {
        const float *w = word + ids[t] * H, *p = position + pos[t] * H;
#pragma omp simd
        for (int64_t h = 0; h < H; h++) out[t * H + h] = w[h] + p[h] + type[h];
    }
    return RP_OK;
}

enum { COLUMNS = 32 };

/* Each thread takes columns of its own and goes through the tokens in order: no two threads write to one element. */
rp_status RP_CPU(embed_backward)(rp_dev *dev, float *dword, float *dposition, float *dtype, const float *dout,
                                 const int32_t *ids, const int32_t *pos, int64_t T, int64_t H) {
#pragma omp parallel num_threads(team(dev, T *H))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t first = 0; first < H; first += COLUMNS) {
            int64_t n = at_most(H - first, COLUMNS);
            for (int64_t t = 0; t < T; t++) {
                const float *g = dout + t * H + first;
                float *w = dword + ids[t] * H + first, *p = dposition + pos[t] * H + first;
#pragma omp simd
                for (int64_t h = 0; h < n; h++) {
                    w[h] += g[h];
                    p[h] += g[h];
                    dtype[first + h] += g[h];
                }
            }
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}
