/* Embedding: the sum of a word's, a position's and the one token type's vector. */
#include "ref/ref.h"

rp_status rp_ref_embed_forward(rp_dev *dev, float *out, const int32_t *ids, const int32_t *pos, const float *word,
                               const float *position, const float *type, int64_t T, int64_t H) {
    (void)dev;
    for (int64_t t = 0; t < T; t++) {
        const float *w = word + ids[t] * H, *p = position + pos[t] * H;
        for (int64_t h = 0; h < H; h++) out[t * H + h] = (float)((double)w[h] + p[h] + type[h]);
    }
    return RP_OK;
}

static int seen_before(const int32_t *index, int64_t t) {
    for (int64_t earlier = 0; earlier < t; earlier++)
        if (index[earlier] == index[t]) return 1;
    return 0;
}

/* dtable[index[t]] += dout[t]. The rows of one index are summed in double when its first token comes by. */
static void add_by_index(float *dtable, const float *dout, const int32_t *index, int64_t T, int64_t H) {
    for (int64_t first = 0; first < T; first++) {
        if (seen_before(index, first)) continue;
        float *row = dtable + index[first] * H;
        for (int64_t h = 0; h < H; h++) {
            double sum = row[h];
            for (int64_t t = first; t < T; t++)
                if (index[t] == index[first]) sum += dout[t * H + h];
            row[h] = (float)sum;
        }
    }
}

rp_status rp_ref_embed_backward(rp_dev *dev, float *dword, float *dposition, float *dtype, const float *dout,
                                const int32_t *ids, const int32_t *pos, int64_t T, int64_t H) {
    (void)dev;
    add_by_index(dword, dout, ids, T, H);
    add_by_index(dposition, dout, pos, T, H);
    for (int64_t h = 0; h < H; h++) {
        double sum = dtype[h];
        for (int64_t t = 0; t < T; t++) sum += dout[t * H + h];
        dtype[h] = (float)sum;
    }
    return RP_OK;
}
