/* Linear maps: the three products by gemm.c, the bias's gradient by fixed blocks of rows. */
#include "cpu/gemm.h"

static rp_status product(rp_dev *dev, float *act, float *out, const float *inp, const float *weight, const float *bias,
                         int64_t T, int64_t I, int64_t O) {
    rp_gemm g = {.m = T, .n = O, .k = I, .a = inp, .ai = I, .al = 1, .b = weight, .bl = 1, .bj = I, .c = out, .ldc = O};
    g.bias = bias;
    g.act = act;
    return RP_CPU(gemm)(dev, &g);
}

rp_status RP_CPU(linear_forward)(rp_dev *dev, float *out, const float *inp, const float *weight, const float *bias,
                                 int64_t T, int64_t I, int64_t O) {
    return product(dev, NULL, out, inp, weight, bias, T, I, O);
}

rp_status RP_CPU(linear_gelu_forward)(rp_dev *dev, float *act, float *pre, const float *inp, const float *weight,
                                      const float *bias, int64_t T, int64_t I, int64_t O) {
    return product(dev, act, pre, inp, weight, bias, T, I, O);
}

static rp_status input_gradient(rp_dev *dev, float *dinp, const float *dout, const float *weight, int64_t T, int64_t I,
                                int64_t O, bool accumulate) {
    rp_gemm g = {
        .m = T, .n = I, .k = O, .a = dout, .ai = O, .al = 1, .b = weight, .bl = I, .bj = 1, .c = dinp, .ldc = I};
    g.accumulate = accumulate;
    return RP_CPU(gemm)(dev, &g);
}

static rp_status weight_gradient(rp_dev *dev, float *dweight, const float *dout, const float *inp, int64_t T, int64_t I,
                                 int64_t O) {
    rp_gemm g = {
        .m = O, .n = I, .k = T, .a = dout, .ai = 1, .al = O, .b = inp, .bl = I, .bj = 1, .c = dweight, .ldc = I};
    g.accumulate = true;
    return RP_CPU(gemm)(dev, &g);
}

/* dbias += column sums of dout: sums of fixed row blocks, then the blocks in order. */
static rp_status bias_gradient(rp_dev *dev, float *dbias, const float *dout, int64_t T, int64_t O) {
    float *partial = dev->scratch; /* (RP_CPU_BLOCKS, O) */
    if (dev->scratch_bytes < sizeof(float) * RP_CPU_BLOCKS * (size_t)O)
        return rp_fail(RP_STATUS_STATE, "linear_backward: %zu bytes of scratch, %zu needed", dev->scratch_bytes,
                       sizeof(float) * RP_CPU_BLOCKS * (size_t)O);
#pragma omp parallel num_threads(team(dev, T *O))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t block = 0; block < RP_CPU_BLOCKS; block++) {
            float *sum = partial + block * O;
            memset(sum, 0, (size_t)O * sizeof *sum);
            for (int64_t t = T * block / RP_CPU_BLOCKS; t < T * (block + 1) / RP_CPU_BLOCKS; t++) {
#pragma omp simd
                for (int64_t o = 0; o < O; o++) sum[o] += dout[t * O + o];
            }
        }
#pragma omp for simd schedule(static)
        for (int64_t o = 0; o < O; o++) {
            float sum = 0;
            for (int64_t block = 0; block < RP_CPU_BLOCKS; block++) sum += partial[block * O + o];
            dbias[o] += sum;
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}

rp_status RP_CPU(linear_backward)(rp_dev *dev, float *dinp, float *dweight, float *dbias, const float *dout,
                                  const float *inp, const float *weight, int64_t T, int64_t I, int64_t O,
                                  int64_t accumulate) {
    RP_TRY(rp_dev_check_gradients(dev));
    if (dbias != NULL && O > 0) RP_TRY(bias_gradient(dev, dbias, dout, T, O));
    if (dinp != NULL) RP_TRY(input_gradient(dev, dinp, dout, weight, T, I, O, accumulate != 0));
    return dweight == NULL ? RP_OK : weight_gradient(dev, dweight, dout, inp, T, I, O);
}
