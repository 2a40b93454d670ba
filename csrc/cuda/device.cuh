/* What the host sides of the CUDA back end's files share: the device's own state, launches, scratch. */
#ifndef RP_CUDA_DEVICE_H
#define RP_CUDA_DEVICE_H

#include <cuda_runtime.h>
#include <type_traits>

extern "C" {
#include "arena.h"
#include "cuda/cuda.h"
#include "ops.h"
#include "status.h"
}

typedef struct rp_lt rp_lt;
typedef struct rp_lt_product rp_lt_product;

#define RP_CUDA_DECLARE(name, arguments) extern "C" rp_status rp_cuda_##name arguments;
RP_OPS_BASIC(RP_CUDA_DECLARE)
RP_OPS_COARSE(RP_CUDA_DECLARE)

/* The one stream of the process: whatever any handle does comes after what was done before it. */
cudaStream_t rp_cuda_stream();

/* MEMORY or CUDA, with CUDA's own words, unless `error` is none. */
rp_status rp_cuda_check(cudaError_t error, const char *what);

/* -- list.cu: what is carried out at once, or noted until list_end ------------------------------------ */

/* How a kernel is launched, whatever its arguments: by their addresses. */
typedef cudaError_t (*rp_cuda_invoke)(const void *kernel, dim3 blocks, dim3 threads, void **arguments, size_t shared,
                                      cudaStream_t stream);
#ifndef RP_CUDA_INVOKE
#define RP_CUDA_INVOKE(...) cudaLaunchKernel
#endif

typedef struct rp_cuda_launch {
    rp_cuda_invoke invoke;
    const char *name;
    const void *kernel;
    dim3 blocks, threads;
    size_t shared; /* bytes of dynamic shared memory */
    int64_t count; /* of arguments */
} rp_cuda_launch;

rp_status rp_cuda_issue_launch(const rp_cuda_launch *launch, void **arguments, const int64_t *bytes);
rp_status rp_cuda_issue_zero(void *out, size_t bytes);
rp_status rp_cuda_issue_product(rp_lt *lt, const rp_lt_product *product, void *workspace);

/* STATE where a list is being noted; `what` cannot stand in one. */
rp_status rp_cuda_outside_list(const char *what);

/* The lists of a device; close takes NULL. What open made is to be closed, also where it failed. */
typedef struct rp_cuda_lists rp_cuda_lists;
rp_status rp_cuda_lists_open(rp_cuda_lists **out);
void rp_cuda_lists_close(rp_cuda_lists *lists);
rp_cuda_lists *rp_cuda_lists_of(const rp_dev *dev);

/* -- profile.cu: a word on each thing issued, where a profile was begun ------------------------------- */

bool rp_cuda_profiled();
rp_status rp_cuda_did(cudaStream_t stream, const char *name);
rp_status rp_cuda_did_product(cudaStream_t stream, const rp_lt_product *product);

/* -- launches ----------------------------------------------------------------------------------------- */

template <typename... parameters>
static inline rp_status rp_cuda_launch_kernel(const char *name, void (*kernel)(parameters...), dim3 blocks,
                                              dim3 threads, size_t shared, std::type_identity_t<parameters>... given) {
    void *arguments[] = {(void *)&given...};
    const int64_t bytes[] = {(int64_t)sizeof given...};
    rp_cuda_launch launch =
        rp_cuda_launch{RP_CUDA_INVOKE(parameters...), name, (const void *)kernel, blocks, threads, shared,
                       (int64_t)sizeof...(parameters)};
    return rp_cuda_issue_launch(&launch, arguments, bytes);
}

/* kernel<<<blocks, threads, shared>>>(arguments); in errors and profiles it is named as it is written here. */
#define RP_CUDA_LAUNCH(kernel, blocks, threads, shared, ...)                                                           \
    RP_TRY(rp_cuda_launch_kernel("launching " __FILE__ ":" #kernel, kernel, blocks, threads, shared, __VA_ARGS__))

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
/* Scratch of add_in_order. */
float *rp_cuda_take_parts(rp_arena *arena, int64_t T, int64_t H);
/* dtable[index[t]] += x[t * stride .. + H] */
rp_status rp_cuda_add_in_order(const rp_cuda_order *order, float *dtable, float *parts, const float *x, int64_t stride,
                               int64_t T, int64_t H);

#endif
