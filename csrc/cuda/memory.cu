/* Device memory, transfers and what is opened with a device. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cublaslt.h"
#include "cuda/device.cuh"

/* -- errors and the stream --------------------------------------------------------------------------- */

rp_status rp_cuda_check(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return RP_OK;
    cudaGetLastError(); /* so that the next check does not find this one */
    rp_status code = error == cudaErrorMemoryAllocation ? RP_STATUS_MEMORY : RP_STATUS_CUDA;
    return rp_fail(code, "CUDA, %s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

static pthread_mutex_t stream_lock = PTHREAD_MUTEX_INITIALIZER;
static cudaStream_t stream;

cudaStream_t rp_cuda_stream() { return stream; }

static rp_status open_stream() {
    pthread_mutex_lock(&stream_lock);
    cudaError_t error = stream == nullptr ? cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) : cudaSuccess;
    pthread_mutex_unlock(&stream_lock);
    return rp_cuda_check(error, "opening a stream");
}

/* -- devices ----------------------------------------------------------------------------------------- */

/* Uploads go through pinned memory, one half of it after the other: a half is written again when its copies are done.
 * So the host goes on while the GPU still computes, and the caller's memory is free at once. */
static constexpr size_t HALF = 4 << 20;

struct state {
    char *pinned;
    size_t used[2]; /* bytes of each half that copies were started from */
    int half;
    cudaEvent_t copied[2];
    rp_lt *lt;
    rp_cuda_lists *lists;
};

rp_lt *rp_cuda_lt(const rp_dev *dev) { return ((state *)dev->state)->lt; }
rp_cuda_lists *rp_cuda_lists_of(const rp_dev *dev) { return ((state *)dev->state)->lists; }

static rp_status open_state(state *s) {
    RP_TRY(open_stream());
    RP_TRY(rp_cuda_check(cudaMallocHost((void **)&s->pinned, 2 * HALF), "allocating pinned memory"));
    for (int i = 0; i < 2; i++)
        RP_TRY(rp_cuda_check(cudaEventCreateWithFlags(&s->copied[i], cudaEventDisableTiming), "making an event"));
    RP_TRY(rp_cuda_lists_open(&s->lists));
    return rp_lt_open(&s->lt);
}

rp_status rp_cuda_open(rp_dev *dev) {
    rp_cuda_facts facts;
    RP_TRY(rp_cuda_look(&facts));
    dev->state = calloc(1, sizeof(state));
    if (dev->state == nullptr) return rp_fail(RP_STATUS_MEMORY, "no memory for a device's state");
    rp_status status = open_state((state *)dev->state);
    if (status != RP_OK) rp_cuda_close(dev);
    return status;
}

rp_status rp_cuda_close(rp_dev *dev) {
    state *s = (state *)dev->state;
    if (s == nullptr) return RP_OK;
    cudaStreamSynchronize(stream); /* a device may be closed behind a failure, which is told already */
    rp_cuda_lists_close(s->lists);
    rp_lt_close(s->lt);
    for (int i = 0; i < 2; i++)
        if (s->copied[i] != nullptr) cudaEventDestroy(s->copied[i]);
    if (s->pinned != nullptr) cudaFreeHost(s->pinned);
    free(s);
    dev->state = nullptr;
    return RP_OK;
}

/* -- memory ------------------------------------------------------------------------------------------ */

static rp_status check_bytes(int64_t bytes, const char *verb) {
    if (bytes >= 0) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "cannot %s %lld bytes: expected 0 or more", verb, (long long)bytes);
}

rp_status rp_cuda_alloc(rp_dev *dev, void **out, int64_t bytes) {
    (void)dev;
    RP_TRY(check_bytes(bytes, "allocate"));
    RP_TRY(rp_cuda_outside_list("memory is asked for"));
    void *memory = nullptr;
    if (cudaMalloc(&memory, bytes > 0 ? (size_t)bytes : 1) != cudaSuccess) {
        size_t free = 0, total = 0;
        cudaGetLastError();
        cudaMemGetInfo(&free, &total);
        return rp_fail(RP_STATUS_MEMORY,
                       "the GPU has no memory for %lld bytes: %zu of its %zu are free; take a smaller micro-batch or "
                       "shorter sentences, or free what else is on it",
                       (long long)bytes, free, total);
    }
    rp_status status = rp_cuda_check(cudaMemsetAsync(memory, 0, (size_t)bytes, stream), "clearing memory");
    if (status == RP_OK) status = rp_cuda_did(stream, "clearing");
    if (status == RP_OK)
        *out = memory;
    else
        cudaFree(memory);
    return status;
}

rp_status rp_cuda_release(rp_dev *dev, void *memory) {
    (void)dev;
    if (memory == nullptr) return RP_OK;
    RP_TRY(rp_cuda_outside_list("memory is freed"));
    return rp_cuda_check(cudaFree(memory), "freeing memory"); /* waits for the work that uses it */
}

rp_status rp_cuda_reserve(rp_dev *dev, int64_t bytes) {
    void *scratch = nullptr;
    RP_TRY(check_bytes(bytes, "reserve"));
    if ((size_t)bytes <= dev->scratch_bytes) return RP_OK;
    RP_TRY(rp_cuda_alloc(dev, &scratch, bytes));
    if (dev->scratch != nullptr) cudaFree(dev->scratch);
    dev->scratch = scratch;
    dev->scratch_bytes = (size_t)bytes;
    return RP_OK;
}

rp_status rp_cuda_fits(const rp_arena *arena, const char *what) {
    if (arena->base != nullptr && arena->used <= arena->capacity) return RP_OK;
    return rp_fail(RP_STATUS_STATE, "%s needs %zu bytes of scratch, %zu are reserved", what, arena->used,
                   arena->capacity);
}

/* *out: `bytes`, at most HALF, of pinned memory that no copy under way reads. */
static rp_status pinned_room(state *s, void **out, size_t bytes) {
    if (s->used[s->half] + bytes > HALF) {
        RP_TRY(rp_cuda_check(cudaEventRecord(s->copied[s->half], stream), "recording an event"));
        s->half ^= 1;
        RP_TRY(rp_cuda_check(cudaEventSynchronize(s->copied[s->half]), "waiting for earlier work"));
        s->used[s->half] = 0;
    }
    *out = s->pinned + s->half * HALF + s->used[s->half];
    s->used[s->half] += (bytes + RP_ALIGN - 1) / RP_ALIGN * RP_ALIGN;
    return RP_OK;
}

rp_status rp_cuda_upload(rp_dev *dev, void *out, const void *host, int64_t bytes) {
    RP_TRY(check_bytes(bytes, "upload"));
    RP_TRY(rp_cuda_outside_list("an upload"));
    for (int64_t done = 0, part; done < bytes; done += part) {
        void *room;
        part = bytes - done < (int64_t)HALF ? bytes - done : (int64_t)HALF;
        RP_TRY(pinned_room((state *)dev->state, &room, (size_t)part));
        memcpy(room, (const char *)host + done, (size_t)part);
        RP_TRY(rp_cuda_check(cudaMemcpyAsync((char *)out + done, room, (size_t)part, cudaMemcpyHostToDevice, stream),
                             "uploading"));
        RP_TRY(rp_cuda_did(stream, "upload"));
    }
    return RP_OK;
}

rp_status rp_cuda_download(rp_dev *dev, void *host, const void *inp, int64_t bytes) {
    (void)dev;
    RP_TRY(check_bytes(bytes, "download"));
    RP_TRY(rp_cuda_outside_list("a download"));
    if (bytes == 0) return RP_OK;
    RP_TRY(rp_cuda_check(cudaMemcpyAsync(host, inp, (size_t)bytes, cudaMemcpyDeviceToHost, stream), "downloading"));
    RP_TRY(rp_cuda_did(stream, "download"));
    return rp_cuda_check(cudaStreamSynchronize(stream), "computing");
}

rp_status rp_cuda_zero(rp_dev *dev, void *out, int64_t bytes) {
    (void)dev;
    RP_TRY(check_bytes(bytes, "zero"));
    if (bytes == 0) return RP_OK;
    return rp_cuda_issue_zero(out, (size_t)bytes);
}
