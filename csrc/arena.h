/* One block of memory, measured and then bound by the same function. Level 0.
 *
 * A planning function takes its buffers from an arena in order. Run on an arena without a base it only counts
 * (every take returns NULL); run again on one with memory behind it, it hands out the pointers. So the list of
 * buffers is written once. */
#ifndef RP_ARENA_H
#define RP_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#define RP_ALIGN 256 /* bytes: covers a cache line, an AVX-512 vector and CUDA's coalescing */

typedef struct rp_arena {
    char *base; /* NULL while measuring */
    size_t used, capacity;
} rp_arena;

/* The next `count` items of `size` bytes, RP_ALIGN-aligned; NULL while measuring or when the sum overflows. */
void *rp_arena_take(rp_arena *arena, size_t count, size_t size);

/* RP_STATUS_MEMORY when the takes so far do not fit, or their sizes overflowed. */
rp_status rp_arena_check(const rp_arena *arena);

/* *out = a * b, or RP_STATUS_VALUE naming `what` when the product does not fit. */
rp_status rp_checked_mul(size_t *out, size_t a, size_t b, const char *what);

/* Aligned heap memory, zeroed; NULL when there is none. Of a large block, a page takes memory when it is first written.
 * Freed by rp_aligned_free (which takes NULL). */
void *rp_aligned_alloc(size_t bytes);
void rp_aligned_free(void *memory);

#endif
