/* Time on the GPU, for measurements: between two marks in the stream, and of everything that it did.
 *
 * A profile records an event behind each launch, product, clearing and transfer. What lies between two events is the
 * time of the second one's work, and of its way to the GPU where the host was late with it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cublaslt.h"
#include "cuda/device.cuh"

extern "C" {
#include "cuda/cuda.h"
}

/* -- marks ------------------------------------------------------------------------------------------- */

rp_status rp_cuda_mark(void **out) {
    cudaEvent_t event = nullptr;
    if (rp_cuda_stream() == nullptr) return rp_fail(RP_STATUS_STATE, "nothing has been computed on the GPU yet");
    RP_TRY(rp_cuda_check(cudaEventCreateWithFlags(&event, cudaEventDefault), "making an event"));
    rp_status status = rp_cuda_check(cudaEventRecord(event, rp_cuda_stream()), "recording an event");
    if (status == RP_OK)
        *out = event;
    else
        cudaEventDestroy(event);
    return status;
}

void rp_cuda_unmark(void *mark) {
    if (mark != nullptr) cudaEventDestroy((cudaEvent_t)mark);
}

rp_status rp_cuda_seconds(double *out, void *begin, void *end) {
    float milliseconds;
    RP_TRY(rp_cuda_check(cudaEventSynchronize((cudaEvent_t)end), "computing"));
    RP_TRY(rp_cuda_check(cudaEventElapsedTime(&milliseconds, (cudaEvent_t)begin, (cudaEvent_t)end), "reading a time"));
    *out = milliseconds / 1e3;
    return RP_OK;
}

/* -- the profile ------------------------------------------------------------------------------------- */

struct note {
    rp_cuda_work work;
    void *mark;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static bool profiled;
static void *first;
static note *notes;
static int64_t used, room;

bool rp_cuda_profiled() { return __atomic_load_n(&profiled, __ATOMIC_RELAXED); }

static rp_status append(const char *name, double operations) {
    if (used == room) {
        int64_t wanted = 2 * room + 1024;
        note *larger = (note *)realloc(notes, (size_t)wanted * sizeof *notes);
        if (larger == nullptr)
            return rp_fail(RP_STATUS_MEMORY, "no memory for a profile of %lld rows", (long long)used);
        notes = larger;
        room = wanted;
    }
    note *x = &notes[used];
    *x = note();
    snprintf(x->work.name, sizeof x->work.name, "%s", name);
    x->work.operations = operations;
    RP_TRY(rp_cuda_mark(&x->mark));
    used++;
    return RP_OK;
}

static rp_status add(const char *name, double operations) {
    pthread_mutex_lock(&lock);
    rp_status status = profiled ? append(name, operations) : RP_OK;
    pthread_mutex_unlock(&lock);
    return status;
}

rp_status rp_cuda_did(cudaStream_t stream, const char *name) {
    if (!rp_cuda_profiled() || stream != rp_cuda_stream()) return RP_OK;
    const char *slash = strrchr(name, '/'); /* a launch is named after its file */
    return add(slash != nullptr ? slash + 1 : name, 0);
}

rp_status rp_cuda_did_product(cudaStream_t stream, const rp_lt_product *x) {
    char name[sizeof(rp_cuda_work::name)];
    if (!rp_cuda_profiled() || stream != rp_cuda_stream()) return RP_OK;
    /* In rows, as the rest of relpt has its matrices: the library's n is first there. */
    snprintf(name, sizeof name, "product %s%s%s (%lld,%lld) (%lld,%lld)%s%s", rp_lt_kind(x->bfloat16, x->tf32),
             x->transpose_b ? " T" : " N", x->transpose_a ? "T" : "N", (long long)x->n, (long long)x->k,
             (long long)x->k, (long long)x->m, x->bias != nullptr ? " + bias" : "", x->beta != 0 ? " +=" : "");
    return add(name, 2.0 * (double)x->m * (double)x->n * (double)x->k);
}

/* With the lock: ends the profile. */
static void clear() {
    for (int64_t i = 0; i < used; i++) rp_cuda_unmark(notes[i].mark);
    rp_cuda_unmark(first);
    free(notes);
    __atomic_store_n(&profiled, false, __ATOMIC_RELAXED);
    first = nullptr;
    notes = nullptr;
    used = room = 0;
}

rp_status rp_cuda_profile_begin(void) {
    pthread_mutex_lock(&lock);
    clear();
    rp_status status = rp_cuda_mark(&first);
    __atomic_store_n(&profiled, status == RP_OK, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&lock);
    return status;
}

static rp_status read(rp_cuda_work **out, int64_t *count) {
    if (!profiled) return rp_fail(RP_STATUS_STATE, "no profile was begun");
    rp_cuda_work *found = (rp_cuda_work *)calloc((size_t)used + 1, sizeof *found);
    if (found == nullptr) return rp_fail(RP_STATUS_MEMORY, "no memory for a profile of %lld rows", (long long)used);
    rp_status status = RP_OK;
    for (int64_t i = 0; i < used && status == RP_OK; i++) {
        found[i] = notes[i].work;
        status = rp_cuda_seconds(&found[i].seconds, i > 0 ? notes[i - 1].mark : first, notes[i].mark);
    }
    if (status == RP_OK) {
        *out = found;
        *count = used;
    } else {
        free(found);
    }
    return status;
}

rp_status rp_cuda_profile_end(rp_cuda_work **out, int64_t *count) {
    pthread_mutex_lock(&lock);
    rp_status status = read(out, count);
    clear();
    pthread_mutex_unlock(&lock);
    return status;
}
