/* Activations in 16 bits: bfloat16, the upper half of a float32. */
#include <math.h>
#include <string.h>

#include "ref/ref.h"

float rp_ref_rounded(float x) {
    if (!isfinite(x) || x == 0) return x;
    int exponent;
    (void)frexp(x, &exponent);
    if (exponent < -125) exponent = -125;
    return (float)ldexp(nearbyint(ldexp(x, 8 - exponent)), exponent - 8);
}

/* kept = the upper halves of inp = rounded inp */
rp_status rp_ref_narrow(rp_dev *dev, uint16_t *kept, float *inp, int64_t N) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) {
        uint32_t bits;
        inp[n] = rp_ref_rounded(inp[n]);
        memcpy(&bits, &inp[n], sizeof bits);
        kept[n] = (uint16_t)(bits >> 16 | (isnan(inp[n]) ? 0x40u : 0)); /* NaN may say so in the lower half alone */
    }
    return RP_OK;
}

/* out = kept, with zeros below */
rp_status rp_ref_widen(rp_dev *dev, float *out, const uint16_t *kept, int64_t N) {
    (void)dev;
    for (int64_t n = 0; n < N; n++) {
        uint32_t bits = (uint32_t)kept[n] << 16;
        memcpy(&out[n], &bits, sizeof bits);
    }
    return RP_OK;
}
