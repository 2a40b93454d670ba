#include "host.h"

#include <stdint.h>
#include <string.h>

#include "arena.h"
#include "cpu/cpu.h"

static rp_status check_bytes(int64_t bytes, const char *verb) {
    if (bytes < 0 || (uint64_t)bytes > SIZE_MAX)
        return rp_fail(RP_STATUS_VALUE, "cannot %s %lld bytes: expected 0 to %zu", verb, (long long)bytes,
                       (size_t)SIZE_MAX);
    return RP_OK;
}

rp_status rp_host_open(rp_dev *dev) {
    (void)dev;
    return RP_OK;
}

rp_status rp_host_close(rp_dev *dev) {
    (void)dev;
    return RP_OK;
}

rp_status rp_host_scratch(rp_dev *dev, int64_t *bytes, const rp_extent *most) {
    /* Reductions: RP_CPU_BLOCKS partial sums of two rows. Attention: per thread, scores, their gradient and mask, and
     * four copies of a head's rows. Products: packed operands. */
    int64_t widest = most->widest, rows = RP_CPU_BLOCKS * 2 * (widest + 64);
    int64_t padded = most->max_len + 64, depth = most->head_size + 64;
    int64_t attention = dev->num_threads * (3 * padded * padded + 4 * padded * depth);
    int64_t wide = widest < RP_CPU_PANEL_WIDTH ? widest + 64 : RP_CPU_PANEL_WIDTH;
    int64_t product = (RP_CPU_PANEL_DEPTH + 1) * wide + dev->num_threads * RP_CPU_ROWS_WORDS;
    int64_t words = rows > attention ? rows : attention;
    *bytes = (int64_t)sizeof(float) * (words > product ? words : product) + RP_ALIGN;
    return RP_OK;
}

rp_status rp_host_alloc(rp_dev *dev, void **out, int64_t bytes) {
    (void)dev;
    RP_TRY(check_bytes(bytes, "allocate"));
    void *memory = rp_aligned_alloc((size_t)bytes);
    if (memory == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for %lld bytes", (long long)bytes);
    *out = memory;
    return RP_OK;
}

rp_status rp_host_release(rp_dev *dev, void *memory) {
    (void)dev;
    rp_aligned_free(memory);
    return RP_OK;
}

rp_status rp_host_reserve(rp_dev *dev, int64_t bytes) {
    RP_TRY(check_bytes(bytes, "reserve"));
    if ((size_t)bytes <= dev->scratch_bytes) return RP_OK;
    void *scratch;
    RP_TRY(rp_host_alloc(dev, &scratch, bytes));
    rp_aligned_free(dev->scratch);
    dev->scratch = scratch;
    dev->scratch_bytes = (size_t)bytes;
    return RP_OK;
}

/* memcpy and memset must not see NULL even for 0 bytes, hence the guards below. */

static rp_status copy(void *out, const void *inp, int64_t bytes, const char *verb) {
    RP_TRY(check_bytes(bytes, verb));
    if (bytes > 0) memcpy(out, inp, (size_t)bytes);
    return RP_OK;
}

rp_status rp_host_upload(rp_dev *dev, void *out, const void *host, int64_t bytes) {
    (void)dev;
    return copy(out, host, bytes, "upload");
}

rp_status rp_host_download(rp_dev *dev, void *host, const void *inp, int64_t bytes) {
    (void)dev;
    return copy(host, inp, bytes, "download");
}

rp_status rp_host_zero(rp_dev *dev, void *out, int64_t bytes) {
    (void)dev;
    RP_TRY(check_bytes(bytes, "zero"));
    if (bytes > 0) memset(out, 0, (size_t)bytes);
    return RP_OK;
}
