/* The largest of each column over runs of rows: max pooling over a sentence, or over its pieces. */
#include <math.h>

#include "ref/ref.h"

rp_status rp_ref_segment_max_forward(rp_dev *dev, float *out, int32_t *row, const float *inp,
                                     const int32_t *cu_segments, int64_t G, int64_t H) {
    (void)dev;
    for (int64_t g = 0; g < G; g++)
        for (int64_t h = 0; h < H; h++) {
            float best = 0.0f;
            int32_t at = -1;
            for (int32_t t = cu_segments[g]; t < cu_segments[g + 1]; t++) {
                float x = inp[t * H + h];
                if (at >= 0 && !(x > best) && !isnan(x)) continue;
                best = x;
                at = t;
                if (isnan(x)) break;
            }
            out[g * H + h] = best;
            row[g * H + h] = at;
        }
    return RP_OK;
}

rp_status rp_ref_segment_max_backward(rp_dev *dev, float *dinp, const float *dout, const int32_t *row,
                                      const int32_t *cu_segments, int64_t G, int64_t H) {
    (void)dev;
    for (int64_t g = 0; g < G; g++)
        for (int32_t t = cu_segments[g]; t < cu_segments[g + 1]; t++)
            for (int64_t h = 0; h < H; h++) dinp[t * H + h] = row[g * H + h] == t ? dout[g * H + h] : 0.0f;
    return RP_OK;
}
