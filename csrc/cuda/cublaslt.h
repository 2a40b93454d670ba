/* cuBLASLt, found when it is first needed: no build of relpt needs it, and importing relpt loads nothing.
 *
 * What is used of its interface, which has been the same since CUDA 11, is declared here: the package with its headers
 * is several hundred megabytes. tests/gpu/check_cublaslt.cpp holds these declarations against the real ones. */
#ifndef RP_CUDA_CUBLASLT_H
#define RP_CUDA_CUBLASLT_H

#include <cuda_runtime.h>

extern "C" {
#include "status.h"
}
#include <stddef.h>
#include <stdint.h>

/* -- the library's own ------------------------------------------------------------------------------- */

typedef void *lt_handle, *lt_matmul_desc, *lt_layout, *lt_preference;

typedef struct lt_algo {
    uint64_t data[8];
} lt_algo;

typedef struct lt_heuristic_result {
    lt_algo algo;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
} lt_heuristic_result;

enum { LT_FLOAT32 = 0, LT_BFLOAT16 = 14 };                    /* cudaDataType */
enum { LT_COMPUTE_FLOAT32 = 68, LT_COMPUTE_TF32 = 77 };       /* cublasComputeType_t; the first: no TF32 */
enum { LT_SUCCESS = 0, LT_NOT_SUPPORTED = 15 };               /* cublasStatus_t */
enum { LT_OP_N = 0, LT_OP_T = 1 };                            /* cublasOperation_t */
enum { LT_REDUCTION_COMPUTE_TYPE = 2, LT_REDUCTION_ANY = 7 }; /* cublasLtReductionScheme_t */
enum { LT_EPILOGUE_DEFAULT = 1, LT_EPILOGUE_BIAS = 4 };
enum { LT_DESC_TRANSA = 3, LT_DESC_TRANSB = 4, LT_DESC_EPILOGUE = 7, LT_DESC_BIAS_POINTER = 8 };
enum {
    LT_PREF_MAX_WORKSPACE_BYTES = 1,
    LT_PREF_REDUCTION_SCHEME_MASK = 3,
    LT_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    LT_PREF_MIN_ALIGNMENT_B_BYTES = 6,
    LT_PREF_MIN_ALIGNMENT_C_BYTES = 7,
    LT_PREF_MIN_ALIGNMENT_D_BYTES = 8
};

/* X(our name, the library's, arguments): every function returns a status, except the version. */
#define LT_FUNCTIONS(X)                                                                                                \
    X(create, cublasLtCreate, (lt_handle *))                                                                           \
    X(destroy, cublasLtDestroy, (lt_handle))                                                                           \
    X(desc_create, cublasLtMatmulDescCreate, (lt_matmul_desc *, int compute, int scale))                               \
    X(desc_destroy, cublasLtMatmulDescDestroy, (lt_matmul_desc))                                                       \
    X(desc_set, cublasLtMatmulDescSetAttribute, (lt_matmul_desc, int attribute, const void *, size_t))                 \
    X(layout_create, cublasLtMatrixLayoutCreate, (lt_layout *, int type, uint64_t rows, uint64_t columns, int64_t ld)) \
    X(layout_destroy, cublasLtMatrixLayoutDestroy, (lt_layout))                                                        \
    X(preference_create, cublasLtMatmulPreferenceCreate, (lt_preference *))                                            \
    X(preference_destroy, cublasLtMatmulPreferenceDestroy, (lt_preference))                                            \
    X(preference_set, cublasLtMatmulPreferenceSetAttribute, (lt_preference, int attribute, const void *, size_t))      \
    X(heuristic, cublasLtMatmulAlgoGetHeuristic,                                                                       \
      (lt_handle, lt_matmul_desc, lt_layout a, lt_layout b, lt_layout c, lt_layout d, lt_preference, int wanted,       \
       lt_heuristic_result *, int *found))                                                                             \
    X(matmul, cublasLtMatmul,                                                                                          \
      (lt_handle, lt_matmul_desc, const void *alpha, const void *a, lt_layout, const void *b, lt_layout,               \
       const void *beta, const void *c, lt_layout, void *d, lt_layout, const lt_algo *, void *workspace, size_t,       \
       cudaStream_t))

/* -- ours -------------------------------------------------------------------------------------------- */

typedef struct rp_lt rp_lt; /* a handle and the plans made with it */

/* Column-major, as the library has it: C(m,n) = op(A) op(B) + beta C + bias(m), op(A) (m,k) and op(B) (k,n). A and B
 * float32 or bfloat16, C and the bias float32 or, of bfloat16, bfloat16. */
typedef struct rp_lt_product {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t transpose_a, transpose_b;
    int32_t bfloat16, bfloat16_c;
    float beta;
    int32_t tf32;     /* of float32: operands may be rounded to 11 bits of mantissa */
    const void *bias; /* or NULL; 16-byte aligned */
    const void *a, *b;
    void *c;
} rp_lt_product;

/* The name of what a product's operands are. */
const char *rp_lt_kind(int32_t bfloat16, int32_t tf32);

/* Bytes of workspace that a product may use, RP_ALIGN-aligned. */
#ifndef RP_LT_WORKSPACE
#define RP_LT_WORKSPACE (32 << 20)
#endif

/* Where the library was found, and its version; CUDA with every path that was tried. */
rp_status rp_lt_find(const char **path, size_t *version);

rp_status rp_lt_open(rp_lt **out);
void rp_lt_close(rp_lt *lt); /* takes NULL */
rp_status rp_lt_multiply(rp_lt *lt, const rp_lt_product *product, void *workspace, cudaStream_t stream);

#endif
