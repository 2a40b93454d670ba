/* Runs the CUDA back end's kernels on the CPU, for machines without a GPU: csrc/cuda/ is compiled by a C++ compiler
 * that finds this file in place of CUDA's.
 *
 * A block's threads are fibers. Those of a warp take turns at shuffles and barriers, warps at the block's barriers
 * alone, in ascending or (RELPT_EMULATE=reverse) descending order, so that a missing barrier gives other numbers in one
 * of the two. A shuffle or warp barrier that a lane of a full warp does not reach, or a barrier that some wait at for
 * ever, ends the process with a line. Device memory can be read and written inside kernels and copies alone: the host
 * faults on it. Shared memory is filled with NaN before each block. What it does not show: the GPU's own rounding, its
 * memory model between warps, its speed. */
#ifndef EMULATED_CUDA_RUNTIME_H
#define EMULATED_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

/* -- kernels --------------------------------------------------------------------------------------------------------
 */

typedef enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100
} cudaError_t;
typedef void *cudaStream_t, *cudaEvent_t, *cudaGraph_t, *cudaGraphExec_t;

struct emulated_place {
    uint3 thread, block;
    dim3 threads, blocks;
};
extern "C" emulated_place *emulated_here;
#define threadIdx (emulated_here->thread)
#define blockIdx (emulated_here->block)
#define blockDim (emulated_here->threads)
#define gridDim (emulated_here->blocks)

extern "C" {
void emulated_block_barrier(void);
void emulated_warp_barrier(void);
const uint64_t *emulated_exchange(uint64_t mine); /* what each lane of the warp gave, until the next but one */
void emulated_give_up(const char *why);           /* ends the process */
void *emulated_shared(void);
void emulated_launch(dim3 blocks, dim3 threads, size_t shared, void (*run)(void *), void *context);
void emulated_enter(void); /* device memory opens; and closes */
void emulated_leave(void);
}

static inline void __syncthreads() { emulated_block_barrier(); }
static inline void __syncwarp() { emulated_warp_barrier(); }

template <typename number> static inline number __shfl_sync(unsigned, number x, int lane) {
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = emulated_exchange(bits)[(unsigned)lane % 32];
    memcpy(&x, &bits, sizeof x);
    return x;
}
template <typename number> static inline number __shfl_xor_sync(unsigned mask, number x, int other) {
    return __shfl_sync(mask, x, (int)(emulated_here->thread.x % 32) ^ other);
}

/* Runs it; or, where the stream is one that graphs are put together on, notes it in the graph. */
extern "C" void emulated_submit(void *stream, std::function<void()> work);

template <typename call> static inline void emulated_call(void *context) { (*(call *)context)(); }

/* A kernel with its arguments, which are copied. */
template <typename... parameters> struct emulated_kernel {
    void (*kernel)(parameters...);
    std::tuple<parameters...> arguments;
    dim3 blocks, threads;
    size_t shared;
    void operator()() const {
        auto run = [this] { std::apply(kernel, arguments); };
        emulated_launch(blocks, threads, shared, emulated_call<decltype(run)>, &run);
    }
};

template <typename... parameters> struct emulated_invoke {
    template <size_t... i>
    static emulated_kernel<parameters...> made(const void *kernel, dim3 blocks, dim3 threads, void **arguments,
                                               size_t shared, std::index_sequence<i...>) {
        return {(void (*)(parameters...))kernel, {*(parameters *)arguments[i]...}, blocks, threads, shared};
    }
    static cudaError_t launch(const void *kernel, dim3 blocks, dim3 threads, void **arguments, size_t shared,
                              cudaStream_t stream) {
        emulated_submit(stream, made(kernel, blocks, threads, arguments, shared,
                                     std::make_index_sequence<sizeof...(parameters)>()));
        return cudaSuccess;
    }
};
#define RP_CUDA_INVOKE(...) emulated_invoke<__VA_ARGS__>::launch
#define RP_CUDA_SHARED(type, name) type *name = (type *)emulated_shared()

static inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __uint_as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float __fdividef(float x, float y) { return x / y; }
#define __expf expf

#include "mma.h"

/* -- the runtime ----------------------------------------------------------------------------------------------------
 */

typedef struct cudaDeviceProp {
    char name[256];
    int major, minor;
} cudaDeviceProp;
enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum { cudaStreamNonBlocking = 1, cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaEventDefault = 0, cudaEventDisableTiming = 2, cudaStreamCaptureModeThreadLocal = 1 };

extern "C" {
cudaError_t cudaMalloc(void **out, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaMallocHost(void **out, size_t bytes);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemsetAsync(void *out, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void *out, const void *inp, size_t bytes, int kind, cudaStream_t stream);
extern int emulated_most_shared; /* bytes that a block may ask for */
enum { cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
cudaError_t cudaDeviceGetAttribute(int *out, int attribute, int device);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end);
}

static inline cudaError_t cudaGetLastError() { return cudaSuccess; }
static inline const char *cudaGetErrorString(cudaError_t) { return "an error"; }
static inline const char *cudaGetErrorName(cudaError_t) { return "cudaError"; }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
static inline cudaError_t cudaFuncSetAttribute(const void *, int, int) { return cudaSuccess; }
static inline cudaError_t cudaRuntimeGetVersion(int *out) { return *out = 13000, cudaSuccess; }
static inline cudaError_t cudaDriverGetVersion(int *out) { return *out = 13000, cudaSuccess; }
static inline cudaError_t cudaGetDeviceCount(int *out) { return *out = 1, cudaSuccess; }

#endif
