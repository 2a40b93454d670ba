/* Activations in 16 bits. */
#include "cuda/kernel.cuh"

static __global__ void narrow_kernel(uint16_t *kept, float *inp, int64_t N) {
    FOR_EACH(n, N) {
        uint16_t bits = bfloat16_of(inp[n]);
        kept[n] = bits;
        inp[n] = __uint_as_float((uint32_t)bits << 16);
    }
}

static __global__ void widen_kernel(float *out, const uint16_t *kept, int64_t N) {
    FOR_EACH(n, N) out[n] = __uint_as_float((uint32_t)kept[n] << 16);
}

rp_status rp_cuda_narrow(rp_dev *dev, uint16_t *kept, float *inp, int64_t N) {
    (void)dev;
    if (N > 0) LAUNCH_EACH(narrow_kernel, N, kept, inp, N);
    return RP_OK;
}

rp_status rp_cuda_widen(rp_dev *dev, float *out, const uint16_t *kept, int64_t N) {
    (void)dev;
    if (N > 0) LAUNCH_EACH(widen_kernel, N, out, kept, N);
    return RP_OK;
}
