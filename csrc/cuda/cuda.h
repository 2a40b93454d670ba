/* The CUDA back end's C interface: what relpt._cuda hands to the core. Level 1. */
#ifndef RP_CUDA_H
#define RP_CUDA_H

#include <stddef.h>

#include "ops.h"

/* For rp_ops_register. */
const rp_backend *rp_cuda_backend(void);

/* The GPU that "cuda" means, the first that this process sees. */
typedef struct rp_cuda_facts {
    char name[256];
    int major, minor;    /* compute capability */
    int driver, runtime; /* CUDA versions: 1000 major + 10 minor */
    size_t free, total;  /* bytes of its memory */
    char cublaslt[512];  /* where the library was found */
    size_t cublaslt_version;
} rp_cuda_facts;

/* CUDA: no driver, no GPU, one older than this build's code, or no cuBLASLt; says which, and what was tried. */
rp_status rp_cuda_look(rp_cuda_facts *facts);

/* How many lists of operations (rp_ops.list_begin) this process has carried out one by one and as graphs, and how many
 * could not be made graphs of. */
typedef struct rp_cuda_list_counts {
    int64_t direct, graphs, refused;
} rp_cuda_list_counts;
rp_cuda_list_counts rp_cuda_count_lists(void);

/* A place in the stream of this process, behind all that was issued so far. STATE: no device was opened yet. */
rp_status rp_cuda_mark(void **out);
void rp_cuda_unmark(void *mark); /* takes NULL */

/* Between two marks, on the GPU's clock; waits until the work before `end` is done. */
rp_status rp_cuda_seconds(double *out, void *begin, void *end);

/* A launch, product, clearing or transfer. */
typedef struct rp_cuda_work {
    char name[104];
    double seconds, operations; /* operations: of a product's floating-point numbers, else 0 */
} rp_cuda_work;

/* What the process has its GPU do from here on is noted; no graph is launched. One that was begun before is dropped. */
rp_status rp_cuda_profile_begin(void);

/* Waits for it, and ends the profile: (*out)[*count], in the order of issue, for free(). STATE: none was begun. */
rp_status rp_cuda_profile_end(rp_cuda_work **out, int64_t *count);

/* Files to try for cuBLASLt before the system's, "a:b:…"; at most 4,095 characters are kept. Before the first use. */
void rp_cuda_search(const char *paths);

#endif
