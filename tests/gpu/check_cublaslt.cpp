/* Compiles only when csrc/cuda/cublaslt.h says the same as the library's own header. */
#include <cublasLt.h>

#include "cuda/cublaslt.h"

static_assert(sizeof(lt_algo) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(lt_heuristic_result) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(lt_heuristic_result, workspace_bytes) ==
              offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(lt_heuristic_result, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(LT_FLOAT32 == CUDA_R_32F && LT_BFLOAT16 == CUDA_R_16BF);
static_assert(LT_COMPUTE_FLOAT32 == CUBLAS_COMPUTE_32F && LT_COMPUTE_TF32 == CUBLAS_COMPUTE_32F_FAST_TF32);
static_assert(LT_SUCCESS == CUBLAS_STATUS_SUCCESS && LT_NOT_SUPPORTED == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(LT_OP_N == CUBLAS_OP_N && LT_OP_T == CUBLAS_OP_T);
static_assert(LT_EPILOGUE_DEFAULT == CUBLASLT_EPILOGUE_DEFAULT && LT_EPILOGUE_BIAS == CUBLASLT_EPILOGUE_BIAS);
static_assert(LT_DESC_TRANSA == CUBLASLT_MATMUL_DESC_TRANSA && LT_DESC_TRANSB == CUBLASLT_MATMUL_DESC_TRANSB);
static_assert(LT_DESC_EPILOGUE == CUBLASLT_MATMUL_DESC_EPILOGUE);
static_assert(LT_DESC_BIAS_POINTER == CUBLASLT_MATMUL_DESC_BIAS_POINTER);
static_assert(LT_PREF_MAX_WORKSPACE_BYTES == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(LT_PREF_MIN_ALIGNMENT_A_BYTES == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
static_assert(LT_PREF_MIN_ALIGNMENT_B_BYTES == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
static_assert(LT_PREF_MIN_ALIGNMENT_C_BYTES == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
static_assert(LT_PREF_MIN_ALIGNMENT_D_BYTES == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);

/* The same number of arguments, of the same sizes and kinds: enums are ints, handles pointers. */
template <typename mine, typename theirs> constexpr bool same = sizeof(mine) == sizeof(theirs);
template <typename> struct signature;
template <typename result, typename... arguments> struct signature<result (*)(arguments...)> {
    template <typename other> struct against;
    template <typename other_result, typename... others> struct against<other_result (*)(others...)> {
        static constexpr bool value =
            sizeof...(arguments) == sizeof...(others) && same<result, other_result> && (same<arguments, others> && ...);
    };
};
#define CHECK(name, symbol, arguments)                                                                                 \
    typedef int(*name##_type) arguments;                                                                               \
    static_assert(signature<name##_type>::against<decltype(&symbol)>::value, #symbol);
LT_FUNCTIONS(CHECK)
