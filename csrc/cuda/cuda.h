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

/* Files to try for cuBLASLt before the system's, "a:b:…"; at most 4,095 characters are kept. Before the first use. */
void rp_cuda_search(const char *paths);

#endif
