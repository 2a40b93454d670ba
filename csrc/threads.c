#define _GNU_SOURCE
#include "threads.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

static int64_t affinity_cpus(void) {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? online : 1;
}

/* cgroup v2's cpu.max ("quota period" or "max period") or v1's two files; 0 when there is no quota. */
static int64_t cgroup_cpus(void) {
    double quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (file != NULL) {
        if (fscanf(file, "%lf %lf", &quota, &period) != 2) quota = 0;
        fclose(file);
    } else if ((file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r")) != NULL) {
        if (fscanf(file, "%lf", &quota) != 1) quota = 0;
        fclose(file);
        file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r");
        if (file == NULL || fscanf(file, "%lf", &period) != 1) period = 0;
        if (file != NULL) fclose(file);
    }
    if (quota <= 0 || period <= 0) return 0;
    int64_t cpus = (int64_t)((quota + period - 1) / period);
    return cpus < 1 ? 1 : cpus;
}

int64_t rp_threads_default(void) {
    int64_t threads = affinity_cpus(), quota = cgroup_cpus();
    if (quota > 0 && quota < threads) threads = quota;
    const char *text = getenv("OMP_NUM_THREADS");
    if (text != NULL) {
        long asked = strtol(text, NULL, 10);
        if (asked >= 1 && asked < threads) threads = asked;
    }
    return threads < 1 ? 1 : threads;
}

uint32_t rp_threads_flush_denormals(void) {
#if defined(__SSE2__)
    uint32_t mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040u); /* FTZ and DAZ */
    return mode;
#else
    return 0;
#endif
}

void rp_threads_restore(uint32_t mode) {
#if defined(__SSE2__)
    _mm_setcsr(mode);
#else
    (void)mode;
#endif
}

int64_t rp_threads_pid(void) { return (int64_t)getpid(); }

rp_status rp_threads_check_pid(int64_t owner) {
    if (owner == rp_threads_pid()) return RP_OK;
    return rp_fail(RP_STATUS_STATE,
                   "this handle was made in process %lld and is used in its forked child %lld; OpenMP does "
                   "not survive a fork: start workers with the \"spawn\" method, or make the handle in the child, with "
                   "num_threads=1",
                   (long long)owner, (long long)rp_threads_pid());
}

static int64_t team_pid; /* of the process that had several threads first; 0: none had */

rp_status rp_threads_begin(int64_t num_threads) {
    int64_t mine = rp_threads_pid(), first = 0;
    if (num_threads <= 1) return RP_OK;
    if (__atomic_compare_exchange_n(&team_pid, &first, mine, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return RP_OK;
    if (first == mine) return RP_OK;
    return rp_fail(RP_STATUS_STATE,
                   "process %lld computed on several threads before this forked child of it, %lld, and OpenMP does not "
                   "survive a fork: start workers with the \"spawn\" method, or take num_threads=1 here",
                   (long long)first, (long long)mine);
}
