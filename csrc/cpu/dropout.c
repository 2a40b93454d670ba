#include "cpu/level.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* Philox on LANES counters at once, SIDE in a vector: each stands in the lower half of a lane of 64 bits, where the
 * product of two words has its place. What the upper halves hold is of no account. */
typedef uint64_t vq __attribute__((vector_size(VL * sizeof(float))));
enum { LANES = 16, SIDE = VL / 2, VECTORS = LANES / SIDE };
#define LOWER 0xffffffffu

static inline vq vq_of(uint32_t x) { return (vq){0} + x; }

/* The products of the lower halves. */
static inline vq product(vq a, uint32_t b) {
#if defined(__AVX512F__)
    return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)vq_of(b));
#elif defined(__AVX2__)
    return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)vq_of(b));
#else
    return (a & LOWER) * b;
#endif
}

/* rp_philox; word i of a counter takes the place of x[i]. */
static inline void philox_lanes(vq x[4][VECTORS], uint64_t key) {
    vq k0 = vq_of((uint32_t)key), k1 = vq_of((uint32_t)(key >> 32));
#pragma GCC unroll 1 /* or the keys are computed one by one and broadcast each */
    for (int round = 0; round < 10; round++) {
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            vq p0 = product(x[0][v], 0xD2511F53u), p1 = product(x[2][v], 0xCD9E8D57u);
            x[0][v] = p1 >> 32 ^ x[1][v] ^ k0;
            x[2][v] = p0 >> 32 ^ x[3][v] ^ k1;
            x[1][v] = p1;
            x[3][v] = p0;
        }
        k0 += vq_of(0x9E3779B9u);
        k1 += vq_of(0xBB67AE85u);
    }
}

/* The counters of the draws, a row's blocks after each other, then the next row's. */
typedef struct counters {
    vq block[VECTORS], row[VECTORS];
} counters;

/* Lane l of a vector holds counter place(l): then halves of two words fall into order by what interleaves them. */
static inline int place(int l) { return l % 2 * (SIDE / 2) + l / 2; }

static void first_counters(counters *c, uint32_t row, uint32_t blocks) {
    uint64_t at[LANES][2];
    uint32_t block = 0;
    for (int l = 0; l < LANES; l++) {
        at[l][0] = block;
        at[l][1] = row;
        if (++block == blocks) block = 0, row++;
    }
    for (int v = 0; v < VECTORS; v++) {
        for (int l = 0; l < SIDE; l++) {
            c->block[v][l] = at[v * SIDE + place(l)][0];
            c->row[v][l] = at[v * SIDE + place(l)][1];
        }
    }
}

static inline void next_counters(counters *c, uint32_t blocks) {
    for (int v = 0; v < VECTORS; v++) {
        vq block = c->block[v] + LANES % blocks, over = (vq)(block >= blocks);
        c->block[v] = block - (over & blocks);
        c->row[v] += LANES / blocks + (over & 1);
    }
}

#if defined(__AVX512F__)
#define EVEN(a, b) (vq) _mm512_unpacklo_epi64((__m512i)(a), (__m512i)(b))
#define ODD(a, b) (vq) _mm512_unpackhi_epi64((__m512i)(a), (__m512i)(b))
#elif defined(__AVX2__)
#define EVEN(a, b) (vq) _mm256_unpacklo_epi64((__m256i)(a), (__m256i)(b))
#define ODD(a, b) (vq) _mm256_unpackhi_epi64((__m256i)(a), (__m256i)(b))
#else
#define EVEN(a, b) ((vq){(a)[0], (b)[0]})
#define ODD(a, b) ((vq){(a)[1], (b)[1]})
#endif

void RP_CPU(dropout_mask)(float *mask, const rp_dropout *d, uint32_t sample, uint32_t row0, int64_t rows,
                          uint32_t block0, uint32_t blocks) {
    float scale = dropout_scale(d);
    uint32_t threshold = d->threshold;
    counters c;
    first_counters(&c, row0, blocks);
    for (int64_t done = 0; done < rows * blocks; done += LANES) {
        vq x[4][VECTORS];
        uint16_t piece[LANES * 8];
        for (int v = 0; v < VECTORS; v++) {
            x[0][v] = c.block[v] + block0;
            x[1][v] = c.row[v];
            x[2][v] = vq_of(sample);
            x[3][v] = vq_of((uint32_t)*d->step);
        }
        philox_lanes(x, d->key);
        for (int v = 0; v < VECTORS; v++) {
            vq first = (x[0][v] & LOWER) | x[1][v] << 32, second = (x[2][v] & LOWER) | x[3][v] << 32;
            vq even = EVEN(first, second), odd = ODD(first, second);
            memcpy(piece + v * SIDE * 8, &even, sizeof even);
            memcpy(piece + v * SIDE * 8 + SIDE * 4, &odd, sizeof odd);
        }
        float *out = mask + done * 8;
#pragma omp simd
        for (int i = 0; i < LANES * 8; i++) out[i] = piece[i] < threshold ? 0.0f : scale;
        next_counters(&c, blocks);
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
