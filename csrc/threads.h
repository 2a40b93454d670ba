/* Thread counts, floating-point mode and fork safety. Level 0. */
#ifndef RP_THREADS_H
#define RP_THREADS_H

#include <stdint.h>

#include "status.h"

/* Default number of threads: the smallest of the CPUs this process may run on, its cgroup's CPU quota (rounded up)
 * and OMP_NUM_THREADS; at least 1. */
int64_t rp_threads_default(void);

/* Sets the calling thread to flush denormals to zero and returns the former mode for rp_threads_restore. */
uint32_t rp_threads_flush_denormals(void);
void rp_threads_restore(uint32_t mode);

/* Of the OpenMP runtime, whose header is not on every compiler's path. */
int omp_get_thread_num(void);
int omp_get_num_threads(void);

/* RP_STATUS_STATE when this process is a forked child of `owner` (OpenMP's team does not survive a fork). */
rp_status rp_threads_check_pid(int64_t owner);

/* Before a process computes on so many threads: RP_STATUS_STATE when it is to be more than one, and it was forked from
 * a process that had done so. There the work would wait for threads that are not there. */
rp_status rp_threads_begin(int64_t num_threads);
int64_t rp_threads_pid(void);

#endif
