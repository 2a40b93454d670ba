/* What relpt uses of cuBLASLt, as plain loops: built as libcublasLt.so.13 beside the emulated back end. It refuses what
 * the library's documentation does not allow, and pointers that are less aligned than was said when choosing. */
#include "cuda/cublaslt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct desc {
    int compute;
    int32_t op[2];
    uint32_t epilogue;
    const void *bias;
};
struct layout {
    int type;
    uint64_t rows, columns;
    int64_t ld;
};
struct preference {
    uint64_t workspace;
    uint32_t alignment[4];
    uint32_t reductions;
};

enum { INVALID = 7 };

static void (*enter)(), (*leave)();
static void (*submit)(void *stream, std::function<void()> work);

extern "C" {

/* The emulator's functions that open and close device memory, and that run work or note it. */
void emulated_connect(void (*open)(), void (*close)(), void (*run)(void *, std::function<void()>)) {
    enter = open;
    leave = close;
    submit = run;
}

size_t cublasLtGetVersion() { return 130100; }
int cublasLtCreate(lt_handle *out) { return *out = malloc(1), LT_SUCCESS; }
int cublasLtDestroy(lt_handle handle) { return free(handle), LT_SUCCESS; }

int cublasLtMatmulDescCreate(lt_matmul_desc *out, int compute, int scale) {
    if ((compute != 68 && compute != 77) || scale != 0) return INVALID;
    *out = new desc{compute, {0, 0}, 1, nullptr};
    return LT_SUCCESS;
}
int cublasLtMatmulDescDestroy(lt_matmul_desc d) { return delete (desc *)d, LT_SUCCESS; }

int cublasLtMatmulDescSetAttribute(lt_matmul_desc made, int attribute, const void *value, size_t bytes) {
    desc *d = (desc *)made;
    if (attribute == 3 || attribute == 4) {
        if (bytes != sizeof(int32_t)) return INVALID;
        memcpy(&d->op[attribute - 3], value, bytes);
    } else if (attribute == 7) {
        if (bytes != sizeof(uint32_t)) return INVALID;
        memcpy(&d->epilogue, value, bytes);
    } else if (attribute == 8) {
        if (bytes != sizeof(void *)) return INVALID;
        memcpy(&d->bias, value, bytes);
    } else {
        return INVALID;
    }
    return LT_SUCCESS;
}

int cublasLtMatrixLayoutCreate(lt_layout *out, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    if (rows == 0 || columns == 0 || ld < (int64_t)rows || (type != 0 && type != 14)) return INVALID;
    *out = new layout{type, rows, columns, ld};
    return LT_SUCCESS;
}
int cublasLtMatrixLayoutDestroy(lt_layout l) { return delete (layout *)l, LT_SUCCESS; }

int cublasLtMatmulPreferenceCreate(lt_preference *out) {
    *out = new preference{0, {256, 256, 256, 256}, 7};
    return LT_SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(lt_preference p) { return delete (preference *)p, LT_SUCCESS; }

int cublasLtMatmulPreferenceSetAttribute(lt_preference made, int attribute, const void *value, size_t bytes) {
    preference *p = (preference *)made;
    if (attribute == 1 && bytes == sizeof p->workspace) return memcpy(&p->workspace, value, bytes), LT_SUCCESS;
    if (attribute == 3 && bytes == 4) return memcpy(&p->reductions, value, 4), LT_SUCCESS;
    if (attribute >= 5 && attribute <= 8 && bytes == 4)
        return memcpy(&p->alignment[attribute - 5], value, 4), LT_SUCCESS;
    return INVALID;
}

static bool fits(const desc *d, const layout *a, const layout *b, const layout *c) {
    uint64_t m = d->op[0] ? a->columns : a->rows, k = d->op[0] ? a->rows : a->columns;
    uint64_t n = d->op[1] ? b->rows : b->columns, also = d->op[1] ? b->columns : b->rows;
    return k == also && m == c->rows && n == c->columns && a->type == b->type && (c->type == 0 || a->type == 14);
}

int cublasLtMatmulAlgoGetHeuristic(lt_handle, lt_matmul_desc d, lt_layout a, lt_layout b, lt_layout c, lt_layout,
                                   lt_preference p, int wanted, lt_heuristic_result *results, int *found) {
    *found = 0;
    if (wanted < 1 || !fits((desc *)d, (layout *)a, (layout *)b, (layout *)c)) return INVALID;
    memset(results, 0, sizeof *results);
    for (int i = 0; i < 4; i++) results->algo.data[i] = ((preference *)p)->alignment[i];
    results->algo.data[4] = ((preference *)p)->workspace;
    if (((layout *)c)->type == 14 && ((preference *)p)->reductions != 2) return INVALID; /* sums rounded in between */
    *found = 1;
    return LT_SUCCESS;
}

static double number(const void *data, int type, int64_t at) {
    if (type == 0) return ((const float *)data)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)data)[at] << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void put(void *data, int type, int64_t at, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (type == 0)
        ((float *)data)[at] = x;
    else if (x != x)
        ((uint16_t *)data)[at] = 0x7FC0;
    else
        ((uint16_t *)data)[at] = (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/* To 11 bits of mantissa, ties to even. */
static double tf32(double value) {
    float x = (float)value;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7F800000u) != 0x7F800000u) bits = (bits + 0xFFFu + (bits >> 13 & 1u)) & ~0x1FFFu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double element(const void *data, const layout *l, const desc &d, int which, uint64_t row, uint64_t column) {
    uint64_t r = d.op[which] ? column : row, c = d.op[which] ? row : column;
    double x = number(data, l->type, (int64_t)(c * (uint64_t)l->ld + r));
    return d.compute == 77 ? tf32(x) : x;
}

static void multiply(void *out, const void *a, const void *b, const desc &d, const layout &la, const layout &lb,
                     const layout &lc, float alpha, float beta) {
    enter();
    uint64_t k = d.op[0] ? la.rows : la.columns;
    for (uint64_t column = 0; column < lc.columns; column++)
        for (uint64_t row = 0; row < lc.rows; row++) {
            double sum = 0;
            int64_t at = (int64_t)(column * (uint64_t)lc.ld + row);
            for (uint64_t i = 0; i < k; i++) sum += element(a, &la, d, 0, row, i) * element(b, &lb, d, 1, i, column);
            sum *= alpha;
            if (beta != 0) sum += (double)beta * number(out, lc.type, at);
            if (d.epilogue == 4) sum += number(d.bias, lc.type, (int64_t)row);
            put(out, lc.type, at, (float)sum);
        }
    leave();
}

int cublasLtMatmul(lt_handle, lt_matmul_desc made, const void *alpha, const void *a, lt_layout a_layout, const void *b,
                   lt_layout b_layout, const void *beta, const void *c, lt_layout c_layout, void *out, lt_layout,
                   const lt_algo *algo, void *workspace, size_t bytes, cudaStream_t stream) {
    const desc *d = (desc *)made;
    const layout *la = (layout *)a_layout, *lb = (layout *)b_layout, *lc = (layout *)c_layout;
    const void *pointers[] = {a, b, c, out, workspace};
    const uint64_t wanted[] = {algo->data[0], algo->data[1], algo->data[2], algo->data[3], 256};
    if (!fits(d, la, lb, lc) || bytes < algo->data[4] ||
        (d->epilogue == 4 && (d->bias == nullptr || (uintptr_t)d->bias % 16)))
        return INVALID;
    for (int i = 0; i < 5; i++)
        if ((uintptr_t)pointers[i] % wanted[i] != 0) return INVALID;
    submit(stream, [=, d = *d, la = *la, lb = *lb, lc = *lc, alpha = *(const float *)alpha,
                    beta = *(const float *)beta] { multiply(out, a, b, d, la, lb, lc, alpha, beta); });
    return LT_SUCCESS;
}
}
