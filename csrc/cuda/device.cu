/* The GPU, and the back end's table. */
#include <stdio.h>
#include <string.h>

#include "cuda/attention.cuh"
#include "cuda/cublaslt.h"

/* -- the GPU ----------------------------------------------------------------------------------------- */

static rp_status look_at_driver(rp_cuda_facts *f) {
    int count = 0;
    RP_TRY(rp_cuda_check(cudaRuntimeGetVersion(&f->runtime), "asking for the runtime's version"));
    cudaDriverGetVersion(&f->driver); /* 0: there is none */
    cudaError_t error = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (f->driver == 0)
        return rp_fail(RP_STATUS_CUDA, "this machine has no NVIDIA driver (%s)", cudaGetErrorString(error));
    if (error == cudaErrorInsufficientDriver)
        return rp_fail(RP_STATUS_CUDA,
                       "the NVIDIA driver is made for CUDA %d.%d, this build needs %d.%d; renew the driver",
                       f->driver / 1000, f->driver % 1000 / 10, f->runtime / 1000, f->runtime % 1000 / 10);
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
        return rp_fail(RP_STATUS_CUDA, "the NVIDIA driver shows this process no GPU; look at CUDA_VISIBLE_DEVICES");
    return rp_cuda_check(error, "counting the GPUs");
}

static rp_status look_at_device(rp_cuda_facts *f) {
    cudaDeviceProp properties;
    RP_TRY(rp_cuda_check(cudaGetDeviceProperties(&properties, 0), "asking for the GPU's properties"));
    snprintf(f->name, sizeof f->name, "%s", properties.name);
    f->major = properties.major;
    f->minor = properties.minor;
    if (f->major < 8)
        return rp_fail(RP_STATUS_CUDA, "the GPU %s has compute capability %d.%d, this build needs 8.0 or more", f->name,
                       f->major, f->minor);
    return rp_cuda_check(cudaMemGetInfo(&f->free, &f->total), "asking for the GPU's memory");
}

rp_status rp_cuda_look(rp_cuda_facts *facts) {
    const char *path;
    *facts = rp_cuda_facts();
    RP_TRY(look_at_driver(facts));
    RP_TRY(look_at_device(facts));
    RP_TRY(rp_lt_find(&path, &facts->cublaslt_version));
    snprintf(facts->cublaslt, sizeof facts->cublaslt, "%s", path);
    return RP_OK;
}

/* -- scratch ----------------------------------------------------------------------------------------- */

int64_t rp_cuda_linear_scratch(const rp_dev *dev, const rp_extent *most);

rp_status rp_cuda_scratch(rp_dev *dev, int64_t *bytes, const rp_extent *most) {
    rp_arena sums = rp_arena(), order = rp_arena();
    rp_cuda_order places;
    int64_t product = rp_cuda_linear_scratch(dev, most);
    rp_cuda_take_partials(&sums, 2, most->rows, most->widest);
    rp_arena_take(&sums, 2048, sizeof(double)); /* of sum_squares */
    rp_cuda_take_order(&places, &order, most->rows);
    rp_cuda_take_parts(&order, most->rows, most->widest);
    rp_cuda_take_partials(&order, 1, most->rows, most->widest);
    *bytes = (int64_t)(sums.used > order.used ? sums.used : order.used);
    if (product > *bytes) *bytes = product;
    return RP_OK;
}

/* -- the table --------------------------------------------------------------------------------------- */

#ifndef RP_CUDA_NAME
#define RP_CUDA_NAME "cuda"
#endif

static const rp_ops table = {
    .name = RP_CUDA_NAME,
    .chunk = 4096, /* each reads and writes the vocabulary's weights and their gradient */
    .bits = RP_CUDA_WIDEST_BFLOAT16,
    .bucket = 64,
#define OWN(slot) .slot = rp_cuda_##slot
    OWN(open),
    OWN(close),
    OWN(scratch),
    OWN(alloc),
    OWN(release),
    OWN(reserve),
    OWN(upload),
    OWN(download),
    OWN(zero),
    OWN(keep_weights),
    OWN(linear_forward),
    OWN(linear_backward),
    OWN(embed_forward),
    OWN(embed_backward),
    OWN(dropout_forward),
    OWN(add_forward),
    OWN(layernorm_forward),
    OWN(layernorm_backward),
    OWN(gelu_forward),
    OWN(gelu_backward),
    OWN(narrow),
    OWN(widen),
    OWN(attention_forward),
    OWN(attention_backward),
    OWN(rows_gather),
    OWN(rows_scatter_add),
    OWN(mean_forward),
    OWN(mean_backward),
    OWN(normalize_forward),
    OWN(normalize_backward),
    OWN(rows_dot_forward),
    OWN(rows_dot_backward),
    OWN(activation_forward),
    OWN(activation_backward),
    OWN(window_forward),
    OWN(window_backward),
    OWN(segment_max_forward),
    OWN(segment_max_backward),
    OWN(softmax_xent),
    OWN(sum_squares),
    OWN(adamw_update),
    OWN(sgd_update),
    OWN(list_begin),
    OWN(list_end),
    .linear_gelu_forward = nullptr,
    OWN(residual_layernorm_forward),
    OWN(residual_layernorm_backward),
    OWN(feed_forward_forward),
    OWN(feed_forward_backward),
    OWN(self_attention_forward),
    OWN(self_attention_backward),
#undef OWN
};

const rp_backend *rp_cuda_backend(void) {
    static const char *const contract[] = {RP_OPS_CONTRACT nullptr};
    static const int64_t sizes[] = {RP_OPS_SIZES, 0};
    static const rp_backend backend = {contract, sizes, &table, rp_fail_relay};
    return &backend;
}
