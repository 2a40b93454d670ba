#include "cuda/cublaslt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "cuda/cuda.h"
}

#define LIBRARY "libcublasLt.so.13"

/* -- finding the library ----------------------------------------------------------------------------- */

#define LT_POINTER(name, symbol, arguments) int(*name) arguments;
static struct {
    LT_FUNCTIONS(LT_POINTER) size_t (*version)();
    char path[512], tried[1024], problem[1536];
    bool found;
} library;

static char places[4096];
static pthread_once_t library_once = PTHREAD_ONCE_INIT;

void rp_cuda_search(const char *paths) { snprintf(places, sizeof places, "%s", paths); }

static bool load(const char *path, int flags) {
    size_t length = strlen(library.tried);
    snprintf(library.tried + length, sizeof library.tried - length, "%s%s%s", length > 0 ? ", " : "", path,
             flags & RTLD_NOLOAD ? " (already loaded)" : "");
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | flags);
    if (handle == nullptr) return false;
    const char *missing = nullptr;
#define LT_SYMBOL(name, symbol, arguments)                                                                             \
    *(void **)&library.name = dlsym(handle, #symbol);                                                                  \
    if (library.name == nullptr && missing == nullptr) missing = #symbol;
    LT_FUNCTIONS(LT_SYMBOL)
    *(void **)&library.version = dlsym(handle, "cublasLtGetVersion");
    if (missing != nullptr || library.version == nullptr) {
        snprintf(library.problem, sizeof library.problem, "%s lacks the function %s", path,
                 missing == nullptr ? "cublasLtGetVersion" : missing);
        return false;
    }
    snprintf(library.path, sizeof library.path, "%s", path);
    Dl_info where;
    if (dladdr(*(void **)&library.version, &where) != 0 && where.dli_fname != nullptr)
        snprintf(library.path, sizeof library.path, "%s", where.dli_fname);
    return true;
}

/* Each of the files in "a:b:…". */
static bool load_listed(const char *list) {
    char path[1024];
    while (*list != '\0') {
        size_t length = strcspn(list, ":");
        snprintf(path, sizeof path, "%.*s", (int)length, list);
        if (length > 0 && load(path, 0)) return true;
        list += length + (list[length] == ':');
    }
    return false;
}

static bool load_below(const char *variable) {
    char path[1024];
    const char *root = getenv(variable);
    if (root == nullptr || root[0] == '\0') return false;
    snprintf(path, sizeof path, "%s/lib64/" LIBRARY, root);
    return load(path, 0);
}

static void find_library() {
    library.found = load(LIBRARY, RTLD_NOLOAD) || load_listed(places) || load(LIBRARY, 0) || load_below("CUDA_PATH") ||
                    load_below("CUDA_HOME") || load("/usr/local/cuda/lib64/" LIBRARY, 0);
}

rp_status rp_lt_find(const char **path, size_t *version) {
    pthread_once(&library_once, find_library);
    if (!library.found && library.problem[0] != '\0') return rp_fail(RP_STATUS_CUDA, "cuBLASLt: %s", library.problem);
    if (!library.found)
        return rp_fail(RP_STATUS_CUDA,
                       "cuBLASLt (" LIBRARY ") was not found; pip install \"relpt[cuda]\" brings it. Tried: %s",
                       library.tried);
    *path = library.path;
    *version = library.version();
    return RP_OK;
}

/* -- plans ------------------------------------------------------------------------------------------- */

/* What the choice of an algorithm depends on. Compared as bytes: no gaps. */
typedef struct key {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t transposed, bfloat16, bfloat16_c, tf32, accumulate, bias, align_a, align_b, align_c, align_bias;
} key;

typedef struct plan {
    key of;
    bool made;
    lt_matmul_desc desc;
    lt_layout a, b, c;
    lt_algo algo;
} plan;

/* A step of one batch asks for some 30 shapes, and other batches have other numbers of tokens. */
enum { PLANS = 512 };

struct rp_lt {
    lt_handle handle;
    lt_preference preference;
    int made, last; /* plans made so far, the one last used */
    plan plans[PLANS];
};

static rp_status lt_check(int status, const char *what) {
    if (status == LT_SUCCESS) return RP_OK;
    return rp_fail(RP_STATUS_CUDA, "cuBLASLt, %s: status %d%s", what, status,
                   status == LT_NOT_SUPPORTED ? " (not supported)" : "");
}

static void plan_free(plan *p) {
    if (p->desc != nullptr) library.desc_destroy(p->desc);
    if (p->a != nullptr) library.layout_destroy(p->a);
    if (p->b != nullptr) library.layout_destroy(p->b);
    if (p->c != nullptr) library.layout_destroy(p->c);
    *p = plan();
}

rp_status rp_lt_open(rp_lt **out) {
    const char *path;
    size_t version, workspace = RP_LT_WORKSPACE;
    RP_TRY(rp_lt_find(&path, &version));
    rp_lt *lt = (rp_lt *)calloc(1, sizeof *lt);
    if (lt == nullptr) return rp_fail(RP_STATUS_MEMORY, "no memory for plans of matrix products");
    rp_status status = lt_check(library.create(&lt->handle), "opening a handle");
    if (status == RP_OK) status = lt_check(library.preference_create(&lt->preference), "making a preference");
    if (status == RP_OK)
        status =
            lt_check(library.preference_set(lt->preference, LT_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace),
                     "setting the workspace");
    if (status == RP_OK)
        *out = lt;
    else
        rp_lt_close(lt);
    return status;
}

void rp_lt_close(rp_lt *lt) {
    if (lt == nullptr) return;
    for (int i = 0; i < PLANS; i++) plan_free(&lt->plans[i]);
    if (lt->preference != nullptr) library.preference_destroy(lt->preference);
    if (lt->handle != nullptr) library.destroy(lt->handle);
    free(lt);
}

/* The largest power of two up to 256 that divides an address. */
static int32_t alignment(const void *pointer) {
    uintptr_t address = (uintptr_t)pointer | 256;
    return (int32_t)(address & (~address + 1));
}

const char *rp_lt_kind(int32_t bfloat16, int32_t tf32) { return bfloat16 ? "bfloat16" : tf32 ? "tf32" : "float32"; }

static key key_of(const rp_lt_product *p) {
    key of = key();
    of.m = p->m, of.n = p->n, of.k = p->k, of.lda = p->lda, of.ldb = p->ldb, of.ldc = p->ldc;
    of.transposed = (p->transpose_a != 0) | (p->transpose_b != 0) << 1;
    of.bfloat16 = p->bfloat16, of.bfloat16_c = p->bfloat16_c, of.tf32 = p->tf32;
    of.accumulate = p->beta != 0, of.bias = p->bias != nullptr;
    of.align_bias = p->bias != nullptr ? alignment(p->bias) : 0;
    of.align_a = alignment(p->a), of.align_b = alignment(p->b), of.align_c = alignment(p->c);
    return of;
}

static rp_status set(plan *p, int attribute, const void *value, size_t bytes) {
    return lt_check(library.desc_set(p->desc, attribute, value, bytes), "describing a product");
}

static rp_status describe(plan *p, const rp_lt_product *x) {
    int type = x->bfloat16 ? LT_BFLOAT16 : LT_FLOAT32;
    int32_t op_a = x->transpose_a ? LT_OP_T : LT_OP_N, op_b = x->transpose_b ? LT_OP_T : LT_OP_N;
    uint32_t epilogue = x->bias != nullptr ? LT_EPILOGUE_BIAS : LT_EPILOGUE_DEFAULT;
    uint64_t m = (uint64_t)x->m, n = (uint64_t)x->n, k = (uint64_t)x->k;
    int compute = x->tf32 ? LT_COMPUTE_TF32 : LT_COMPUTE_FLOAT32;
    RP_TRY(lt_check(library.desc_create(&p->desc, compute, LT_FLOAT32), "describing a product"));
    RP_TRY(set(p, LT_DESC_TRANSA, &op_a, sizeof op_a));
    RP_TRY(set(p, LT_DESC_TRANSB, &op_b, sizeof op_b));
    RP_TRY(set(p, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (x->bias != nullptr) RP_TRY(set(p, LT_DESC_BIAS_POINTER, &x->bias, sizeof x->bias));
    RP_TRY(lt_check(library.layout_create(&p->a, type, x->transpose_a ? k : m, x->transpose_a ? m : k, x->lda),
                    "describing a matrix"));
    RP_TRY(lt_check(library.layout_create(&p->b, type, x->transpose_b ? n : k, x->transpose_b ? k : n, x->ldb),
                    "describing a matrix"));
    return lt_check(library.layout_create(&p->c, x->bfloat16_c ? LT_BFLOAT16 : LT_FLOAT32, m, n, x->ldc),
                    "describing a matrix");
}

/* The library's first choice among its algorithms. */
static rp_status choose(rp_lt *lt, plan *p) {
    lt_heuristic_result result;
    int found = 0;
    const uint32_t a = (uint32_t)p->of.align_a, b = (uint32_t)p->of.align_b, c = (uint32_t)p->of.align_c;
    const uint32_t *values[] = {&a, &b, &c, &c};
    /* Parts of a sum are not to be rounded to a result's 16 bits before they are added up. */
    const uint32_t reductions = p->of.bfloat16_c ? LT_REDUCTION_COMPUTE_TYPE : LT_REDUCTION_ANY;
    RP_TRY(
        lt_check(library.preference_set(lt->preference, LT_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions),
                 "setting how parts are added up"));
    for (int i = 0; i < 4; i++)
        RP_TRY(lt_check(library.preference_set(lt->preference, LT_PREF_MIN_ALIGNMENT_A_BYTES + i, values[i], sizeof a),
                        "setting the alignment"));
    int status = library.heuristic(lt->handle, p->desc, p->a, p->b, p->c, p->c, lt->preference, 1, &result, &found);
    if (status == LT_SUCCESS && found > 0 && result.state == LT_SUCCESS) {
        p->algo = result.algo;
        return RP_OK;
    }
    return rp_fail(RP_STATUS_CUDA,
                   "cuBLASLt has no algorithm for a %s product of (%lld,%lld) and (%lld,%lld): status %d, %d found",
                   rp_lt_kind(p->of.bfloat16, p->of.tf32), (long long)p->of.m, (long long)p->of.k, (long long)p->of.k,
                   (long long)p->of.n, status, found);
}

static rp_status make_plan(rp_lt *lt, plan **out, const key *of, const rp_lt_product *x) {
    plan *p = &lt->plans[lt->made % PLANS]; /* the oldest gives way */
    plan_free(p);
    p->of = *of;
    rp_status status = describe(p, x);
    if (status == RP_OK) status = choose(lt, p);
    if (status != RP_OK) {
        plan_free(p);
        return status;
    }
    p->made = true;
    lt->last = lt->made++ % PLANS;
    *out = p;
    return RP_OK;
}

static rp_status find_plan(rp_lt *lt, plan **out, const rp_lt_product *x) {
    key of = key_of(x);
    for (int i = 0; i < PLANS; i++) { /* a layer's products come one after another in every layer */
        int at = (lt->last + i) % PLANS;
        plan *p = &lt->plans[at];
        if (p->made && memcmp(&p->of, &of, sizeof of) == 0) {
            lt->last = at;
            *out = p;
            return RP_OK;
        }
    }
    return make_plan(lt, out, &of, x);
}

rp_status rp_lt_multiply(rp_lt *lt, const rp_lt_product *x, void *workspace, cudaStream_t stream) {
    plan *p;
    const float alpha = 1.0f;
    RP_TRY(find_plan(lt, &p, x));
    if (x->bias != nullptr) RP_TRY(set(p, LT_DESC_BIAS_POINTER, &x->bias, sizeof x->bias));
    return lt_check(library.matmul(lt->handle, p->desc, &alpha, x->a, p->a, x->b, p->b, &x->beta, x->c, p->c, x->c,
                                   p->c, &p->algo, workspace, RP_LT_WORKSPACE, stream),
                    "multiplying");
}
