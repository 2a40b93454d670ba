/* Activations in 16 bits. */
#include "cpu/bfloat16.h"
#include "cpu/level.h"

rp_status RP_CPU(narrow)(rp_dev *dev, uint16_t *kept, float *inp, int64_t N) {
#pragma omp parallel for simd num_threads(team(dev, N)) schedule(static)
    for (int64_t n = 0; n < N; n++) {
        uint32_t upper = round_upper(bits_of(inp[n])) >> 16;
        kept[n] = (uint16_t)upper;
        inp[n] = float_of(upper << 16);
    }
    return RP_OK;
}

rp_status RP_CPU(widen)(rp_dev *dev, float *out, const uint16_t *kept, int64_t N) {
#pragma omp parallel for simd num_threads(team(dev, N)) schedule(static)
    for (int64_t n = 0; n < N; n++) out[n] = float_of((uint32_t)kept[n] << 16);
    return RP_OK;
}
