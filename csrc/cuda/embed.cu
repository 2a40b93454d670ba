/* Embedding: the sum of a word's, a position's and the one token type's vector. */
#include "cuda/kernel.cuh"

static __global__ void forward_kernel(float *out, const int32_t *ids, const int32_t *pos, const float *word,
                                      const float *position, const float *type, int64_t T, int64_t H) {
    int64_t t = warp_row();
    if (t >= T) return;
    const float *w = word + (int64_t)ids[t] * H, *p = position + (int64_t)pos[t] * H;
    for (int64_t h = lane_of(); h < H; h += WARP) out[t * H + h] = w[h] + p[h] + type[h];
}

rp_status rp_cuda_embed_forward(rp_dev *dev, float *out, const int32_t *ids, const int32_t *pos, const float *word,
                                const float *position, const float *type, int64_t T, int64_t H) {
    (void)dev;
    if (T == 0) return RP_OK;
    LAUNCH_ROWS(forward_kernel, T, out, ids, pos, word, position, type, T, H);
    return RP_OK;
}

enum { ID_BITS = 27, POSITION_BITS = 16 }; /* params.c: a vocabulary of 2^26 words, 65535 positions at most */

rp_status rp_cuda_embed_backward(rp_dev *dev, float *dword, float *dposition, float *dtype, const float *dout,
                                 const int32_t *ids, const int32_t *pos, int64_t T, int64_t H) {
    rp_arena arena = rp_cuda_scratch_arena(dev);
    rp_cuda_order order;
    if (T == 0) return RP_OK;
    rp_cuda_take_order(&order, &arena, T);
    float *parts = rp_cuda_take_parts(&arena, T, H), *partials = rp_cuda_take_partials(&arena, 1, T, H);
    RP_TRY(rp_cuda_fits(&arena, "the gradient of an embedding"));
    RP_TRY(rp_cuda_sort(&order, ids, T, ID_BITS));
    RP_TRY(rp_cuda_add_in_order(&order, dword, parts, dout, H, T, H));
    RP_TRY(rp_cuda_sort(&order, pos, T, POSITION_BITS));
    RP_TRY(rp_cuda_add_in_order(&order, dposition, parts, dout, H, T, H));
    return rp_cuda_column_sums(partials, dtype, dout, T, H);
}
