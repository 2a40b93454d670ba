/* What the host sides of the CUDA back end's files share: the device's own state, launches, scratch. */
#ifndef RP_CUDA_DEVICE_H
#define RP_CUDA_DEVICE_H

#include <cuda_runtime.h>

extern "C" {
#include "arena.h"
#include "cuda/cuda.h"
#include "ops.h"
#include "status.h"
}

#define RP_CUDA_DECLARE(name, arguments) extern "C" rp_status rp_cuda_##name arguments;
RP_OPS_BASIC(RP_CUDA_DECLARE)
RP_OPS_COARSE(RP_CUDA_DECLARE)

/* The one stream of the process: whatever any handle does comes after what was done before it. */
cudaStream_t rp_cuda_stream();

/* MEMORY or CUDA, with CUDA's own words, unless `error` is none. */
rp_status rp_cuda_check(cudaError_t error, const char *what);

/* kernel<<<blocks, threads, shared>>>(arguments); shared: bytes of dynamic shared memory. */
#ifndef RP_CUDA_LAUNCH
#define RP_CUDA_LAUNCH(kernel, blocks, threads, shared, ...)                                                           \
    do {                                                                                                               \
        kernel<<<blocks, threads, shared, rp_cuda_stream()>>>(__VA_ARGS__);                                            \
        RP_TRY(rp_cuda_check(cudaGetLastError(), "launching " #kernel));                                               \
    } while (0)
#endif

static inline int64_t rp_cuda_ceil(int64_t n, int64_t by) { return (n + by - 1) / by; }

/* A grid's first size for n items, `each` a block. */
static inline unsigned rp_cuda_blocks(int64_t n, int64_t each) { return (unsigned)rp_cuda_ceil(n, each); }

/* dev->scratch as an arena; after the takes, rp_cuda_fits: STATE where it was too little. */
static inline rp_arena rp_cuda_scratch_arena(const rp_dev *dev) {
    rp_arena arena = {(char *)dev->scratch, 0, dev->scratch == nullptr ? 0 : dev->scratch_bytes};
    return arena;
}
rp_status rp_cuda_fits(const rp_arena *arena, const char *what);

/* -- sums.cu: reductions in a fixed order ------------------------------------------------------------ */

/* Partial sums of columns: rows are cut into this many blocks at most. */
enum { RP_CUDA_ROW_BLOCKS = 256 };
int64_t rp_cuda_row_blocks(int64_t T);

/* Scratch of `sums` columns' partial sums, (row_blocks, H) each. */
float *rp_cuda_take_partials(rp_arena *arena, int64_t sums, int64_t T, int64_t H);

/* out(H) += column sums of x(T,H). */
rp_status rp_cuda_column_sums(float *partials, float *out, const float *x, int64_t T, int64_t H);

/* out(H) += sums over the row blocks of partials(row_blocks(T),H). */
rp_status rp_cuda_finish_sums(float *out, const float *partials, int64_t T, int64_t H);

/* -- order.cu: rows that share an index -------------------------------------------------------------- */

/* A stable order of tokens by their index, without atomics. */
typedef struct rp_cuda_order {
    int32_t *index, *token;             /* (T) sorted; token: where each stood */
    int32_t *other_index, *other_token; /* (T) */
    int32_t *counts;
} rp_cuda_order;

void rp_cuda_take_order(rp_cuda_order *order, rp_arena *arena, int64_t T);
/* Sorts index(T), whose numbers are below 2^bits. */
rp_status rp_cuda_sort(rp_cuda_order *order, const int32_t *index, int64_t T, int bits);
/* dtable[index[t]] += x[t * stride .. + H], each row's in the order of t, one after another. */
rp_status rp_cuda_add_in_order(const rp_cuda_order *order, float *dtable, const float *x, int64_t stride, int64_t T,
                               int64_t H);

#endif
