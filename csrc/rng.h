/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
 * Level 0; in a header so that every back end draws the same numbers inline.
 *
 * Every draw of relpt is a function of (seed, purpose, site) through the key and of (step, sample, row, block)
 * through the counter. No generator state is carried from one draw to another, so results depend neither on the
 * number of threads nor on the order of work, and a dropout mask is recomputed instead of stored. */
#ifndef RP_RNG_H
#define RP_RNG_H

#include <stdint.h>

#ifdef __CUDACC__
#define RP_DEVICE __host__ __device__
#else
#define RP_DEVICE
#endif

typedef enum rp_purpose {
    RP_PURPOSE_INIT = 1,
    RP_PURPOSE_PAIR,
    RP_PURPOSE_INPUT,
    RP_PURPOSE_MLM,
    RP_PURPOSE_DROPOUT,
    RP_PURPOSE_EPISODE,
    RP_PURPOSE_GRAPH,
} rp_purpose;

/* The key of one use: SplitMix64's mixing of the seed with the purpose and the site inside it (a layer's dropout,
 * a parameter's number). */
static inline uint64_t rp_rng_key(uint64_t seed, uint32_t purpose, uint32_t site) {
    uint64_t z = seed + 0x9E3779B97F4A7C15u * (((uint64_t)purpose << 32 | site) + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

RP_DEVICE static inline void rp_philox(uint32_t out[4], uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                                       uint32_t c3) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* A sequence of draws that belong to one (key, step, sample): counter (block, row, sample, step). */
typedef struct rp_rng {
    uint64_t key;
    uint32_t row, sample, step, block;
    uint32_t word[4];
    int left;
} rp_rng;

static inline rp_rng rp_rng_stream(uint64_t key, uint32_t step, uint32_t sample, uint32_t row) {
    rp_rng rng = {.key = key, .row = row, .sample = sample, .step = step};
    return rng;
}

static inline uint32_t rp_rng_u32(rp_rng *rng) {
    if (rng->left == 0) {
        rp_philox(rng->word, rng->key, rng->block++, rng->row, rng->sample, rng->step);
        rng->left = 4;
    }
    return rng->word[--rng->left];
}

/* Uniform in [0, bound), without bias (Lemire 2019); bound >= 1. */
static inline uint32_t rp_rng_below(rp_rng *rng, uint32_t bound) {
    uint64_t m = (uint64_t)rp_rng_u32(rng) * bound;
    if ((uint32_t)m < bound) {
        uint32_t threshold = (0u - bound) % bound;
        while ((uint32_t)m < threshold) m = (uint64_t)rp_rng_u32(rng) * bound;
    }
    return (uint32_t)(m >> 32);
}

/* Uniform in [0, 1), 53 bits. */
static inline double rp_rng_unit(rp_rng *rng) {
    uint64_t high = rp_rng_u32(rng);
    uint64_t bits = (high << 32 | rp_rng_u32(rng)) >> 11;
    return (double)bits * 0x1p-53;
}

#endif
