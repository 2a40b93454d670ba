/* Matrix products: in float32 OpenBLAS, single-threaded, called by our own team on tiles whose cut depends on the shape
 * alone; in bfloat16 gemm.c. */
#include "cpu/gelu_row.h"
#include "cpu/gemm.h"

/* OpenBLAS as the package carries it (its symbols are prefixed). */
void scipy_cblas_sgemm(int order, int transa, int transb, int m, int n, int k, float alpha, const float *a, int lda,
                       const float *b, int ldb, float beta, float *c, int ldc);
void scipy_openblas_set_num_threads(int threads);
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

/* Tiles of a matrix (rows, columns). */
typedef struct tiling {
    int64_t rows, columns; /* of a tile */
    int64_t down, across;  /* tiles */
} tiling;

static int64_t tile_size(int64_t n, int64_t parts, int64_t least) {
    return at_most(at_least(round_up((n + parts - 1) / parts, 32), least), at_least(n, 1));
}

/* About 16 tiles along the longer side; `least` keeps a tile's packing cheap beside its products. */
static tiling cut(int64_t rows, int64_t columns, int64_t least) {
    tiling g = {rows, columns, 1, 1};
    if (rows >= columns)
        g.rows = tile_size(rows, 16, least);
    else
        g.columns = tile_size(columns, 16, least);
    g.down = (rows + g.rows - 1) / g.rows;
    g.across = (columns + g.columns - 1) / g.columns;
    return g;
}

static rp_status fits_blas(int64_t T, int64_t I, int64_t O) {
    if (T > INT32_MAX || I > INT32_MAX || O > INT32_MAX)
        return rp_fail(RP_STATUS_VALUE, "linear: %lld x %lld x %lld: a side is over 2^31 - 1", (long long)T,
                       (long long)I, (long long)O);
    return RP_OK;
}

/* What follows the product while a tile is still in cache. */
static void epilogue(float *out, float *act, const float *bias, int64_t rows, int64_t columns, int64_t stride) {
    for (int64_t r = 0; r < rows; r++) {
        float *line = out + r * stride;
        if (bias != NULL) {
#pragma omp simd
            for (int64_t c = 0; c < columns; c++) line[c] += bias[c];
        }
        if (act != NULL) gelu_row(act + r * stride, line, columns);
    }
}

static rp_status product(rp_dev *dev, float *act, float *out, const float *inp, const float *weight, const float *bias,
                         int64_t T, int64_t I, int64_t O) {
    RP_TRY(fits_blas(T, I, O));
    if (T == 0 || O == 0) return RP_OK;
    if (dev->products == RP_BFLOAT16) {
        rp_gemm g = {
            .m = T, .n = O, .k = I, .a = inp, .ai = I, .al = 1, .b = weight, .bl = 1, .bj = I, .c = out, .ldc = O};
        g.bias = bias;
        g.act = act;
        g.bfloat16 = true;
        return RP_CPU(gemm)(dev, &g);
    }
    scipy_openblas_set_num_threads(1);
    tiling g = cut(T, O, 64);
#pragma omp parallel num_threads(team(dev, T *O))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static, 1)
        for (int64_t tile = 0; tile < g.down * g.across; tile++) {
            int64_t r = tile / g.across * g.rows, c = tile % g.across * g.columns;
            int64_t rows = at_most(T - r, g.rows), columns = at_most(O - c, g.columns);
            scipy_cblas_sgemm(ROW_MAJOR, NO_TRANS, TRANS, (int)rows, (int)columns, (int)I, 1.0f, inp + r * I, (int)I,
                              weight + c * I, (int)I, 0.0f, out + r * O + c, (int)O);
            epilogue(out + r * O + c, act == NULL ? NULL : act + r * O + c, bias == NULL ? NULL : bias + c, rows,
                     columns, O);
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}

rp_status RP_CPU(linear_forward)(rp_dev *dev, float *out, const float *inp, const float *weight, const float *bias,
                                 int64_t T, int64_t I, int64_t O) {
    return product(dev, NULL, out, inp, weight, bias, T, I, O);
}

rp_status RP_CPU(linear_gelu_forward)(rp_dev *dev, float *act, float *pre, const float *inp, const float *weight,
                                      const float *bias, int64_t T, int64_t I, int64_t O) {
    return product(dev, act, pre, inp, weight, bias, T, I, O);
}

static void input_gradient(rp_dev *dev, float *dinp, const float *dout, const float *weight, int64_t T, int64_t I,
                           int64_t O, float beta) {
    tiling g = cut(T, I, O > 4 * I ? 128 : 64); /* a tall product packs the weights anew for every tile */
#pragma omp parallel num_threads(team(dev, T *I))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static, 1)
        for (int64_t tile = 0; tile < g.down * g.across; tile++) {
            int64_t r = tile / g.across * g.rows, c = tile % g.across * g.columns;
            scipy_cblas_sgemm(ROW_MAJOR, NO_TRANS, NO_TRANS, (int)at_most(T - r, g.rows),
                              (int)at_most(I - c, g.columns), (int)O, 1.0f, dout + r * O, (int)O, weight + c, (int)I,
                              beta, dinp + r * I + c, (int)I);
        }
        rp_threads_restore(mode);
    }
}

static void weight_gradient(rp_dev *dev, float *dweight, const float *dout, const float *inp, int64_t T, int64_t I,
                            int64_t O) {
    tiling g = cut(O, I, 192);
#pragma omp parallel num_threads(team(dev, O *I))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static, 1)
        for (int64_t tile = 0; tile < g.down * g.across; tile++) {
            int64_t r = tile / g.across * g.rows, c = tile % g.across * g.columns;
            scipy_cblas_sgemm(ROW_MAJOR, TRANS, NO_TRANS, (int)at_most(O - r, g.rows), (int)at_most(I - c, g.columns),
                              (int)T, 1.0f, dout + r, (int)O, inp + c, (int)I, 1.0f, dweight + r * I + c, (int)I);
        }
        rp_threads_restore(mode);
    }
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

static rp_status gradients_bfloat16(rp_dev *dev, float *dinp, float *dweight, const float *dout, const float *inp,
                                    const float *weight, int64_t T, int64_t I, int64_t O, int64_t accumulate) {
    rp_gemm to_input = {
        .m = T, .n = I, .k = O, .a = dout, .ai = O, .al = 1, .b = weight, .bl = I, .bj = 1, .c = dinp, .ldc = I};
    to_input.accumulate = accumulate != 0;
    to_input.bfloat16 = true;
    rp_gemm to_weight = {
        .m = O, .n = I, .k = T, .a = dout, .ai = 1, .al = O, .b = inp, .bl = I, .bj = 1, .c = dweight, .ldc = I};
    to_weight.accumulate = to_weight.bfloat16 = true;
    if (dinp != NULL && T > 0 && I > 0) RP_TRY(RP_CPU(gemm)(dev, &to_input));
    if (dweight != NULL && T > 0 && I > 0 && O > 0) RP_TRY(RP_CPU(gemm)(dev, &to_weight));
    return RP_OK;
}

rp_status RP_CPU(linear_backward)(rp_dev *dev, float *dinp, float *dweight, float *dbias, const float *dout,
                                  const float *inp, const float *weight, int64_t T, int64_t I, int64_t O,
                                  int64_t accumulate) {
    RP_TRY(fits_blas(T, I, O));
    if (dbias != NULL && O > 0) RP_TRY(bias_gradient(dev, dbias, dout, T, O));
    if (dev->products == RP_BFLOAT16)
        return gradients_bfloat16(dev, dinp, dweight, dout, inp, weight, T, I, O, accumulate);
    scipy_openblas_set_num_threads(1);
    if (dinp != NULL && T > 0 && I > 0) input_gradient(dev, dinp, dout, weight, T, I, O, accumulate ? 1.0f : 0.0f);
    if (dweight != NULL && T > 0 && I > 0 && O > 0) weight_gradient(dev, dweight, dout, inp, T, I, O);
    return RP_OK;
}
