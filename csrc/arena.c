#define _GNU_SOURCE
#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

void *rp_arena_take(rp_arena *arena, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - arena->used - RP_ALIGN) {
        arena->used = SIZE_MAX - RP_ALIGN; /* poison: rp_arena_check reports it */
        return NULL;
    }
    size_t start = arena->used;
    arena->used += (bytes + RP_ALIGN - 1) / RP_ALIGN * RP_ALIGN;
    if (arena->base == NULL || arena->used > arena->capacity) return NULL;
    return arena->base + start;
}

rp_status rp_arena_check(const rp_arena *arena) {
    if (arena->used >= SIZE_MAX - RP_ALIGN)
        return rp_fail(RP_STATUS_MEMORY, "the sizes asked for overflow the address space");
    if (arena->base != NULL && arena->used > arena->capacity)
        return rp_fail(RP_STATUS_MEMORY, "workspace of %zu bytes is needed, %zu are there", arena->used,
                       arena->capacity);
    return RP_OK;
}

rp_status rp_checked_mul(size_t *out, size_t a, size_t b, const char *what) {
    if (__builtin_mul_overflow(a, b, out))
        return rp_fail(RP_STATUS_VALUE, "%s: %zu x %zu does not fit the address space", what, a, b);
    return RP_OK;
}

/* Asks for huge pages: with small ones a step loses a tenth of its time to the addresses of its operands. */
static void ask_for_huge_pages(char *memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
    madvise(memory, bytes, MADV_HUGEPAGE); /* a wish, which a kernel without them refuses */
#else
    (void)memory, (void)bytes;
#endif
}

void *rp_aligned_alloc(size_t bytes) {
    size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : RP_ALIGN;
    size_t before = sizeof(char *) + align; /* room for what free needs, and to align */
    if (bytes > SIZE_MAX - before) return NULL;
    char *block = calloc(1, bytes + before);
    if (block == NULL) return NULL;
    char *aligned = block + before - ((uintptr_t)block + before) % align;
    memcpy(aligned - sizeof block, &block, sizeof block);
    if (align == HUGE_PAGE) ask_for_huge_pages(aligned, bytes);
    return aligned;
}

void rp_aligned_free(void *memory) {
    char *block;
    if (memory == NULL) return;
    memcpy(&block, (char *)memory - sizeof block, sizeof block);
    free(block);
}
