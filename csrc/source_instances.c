#include "rng.h"
#include "source.h"

enum { ROUNDS = 6 };

/* A Feistel network (Luby and Rackoff 1988) with Philox as its round function permutes 0 .. 4^bits - 1; walking on
 * while the result is not below n makes it one of 0 .. n - 1 (Black and Rogaway 2002). */
uint64_t rp_permuted(uint64_t key, uint32_t epoch, uint64_t index, uint64_t n) {
    int bits = 1;
    while (bits < 31 && (uint64_t)1 << (2 * bits) < n) bits++;
    uint32_t mask = ((uint32_t)1 << bits) - 1;
    do {
        uint32_t left = (uint32_t)(index >> bits) & mask, right = (uint32_t)index & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            uint32_t word[4], old = right;
            rp_philox(word, key, right, round, epoch, 0);
            right = left ^ (word[0] & mask);
            left = old;
        }
        index = (uint64_t)left << bits | right;
    } while (index >= n);
    return index;
}

int64_t rp_instances_draw(uint64_t key, const rp_corpus *corpus, const rp_source_options *o, uint32_t step,
                          rp_draw *out) {
    uint64_t n = (uint64_t)corpus->a.n, count = (uint64_t)o->count, first = step * count;
    if (o->whole_epochs) {
        uint64_t steps = (n + count - 1) / count, place = step % steps * count; /* of an epoch; in it */
        first = step / steps * n + place;
        if (count > n - place) count = n - place;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = first + i;
        out[i] = (rp_draw){(int64_t)rp_permuted(key, (uint32_t)(number / n), number % n, n), -1};
    }
    return (int64_t)count;
}
