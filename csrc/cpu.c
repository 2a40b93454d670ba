/* Which of the CPU levels runs: compiled for the baseline, so that it can be asked on any machine. */
#define _GNU_SOURCE
#include "cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const char *const level_names[RP_CPU_LEVELS] = {"baseline", "avx2", "avx512", "amx"};

static bool level_built(int level) {
    switch (level) {
#ifdef RP_HAVE_AVX2
    case RP_CPU_AVX2:
#endif
#ifdef RP_HAVE_AVX512
    case RP_CPU_AVX512:
#endif
#ifdef RP_HAVE_AMX
    case RP_CPU_AMX:
#endif
    case RP_CPU_BASELINE:
        return true;
    default:
        return false;
    }
}

/* Tiles of bfloat16 and int8: the CPU has them, and Linux lets this process use their registers, which are asked for
 * (Documentation/arch/x86/xstate.rst). */
static bool tiles_run(void) {
#if defined(__x86_64__) && defined(__linux__)
    enum { LEAF = 7, AMX = 1 << 22 | 1 << 24 | 1 << 25, ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(LEAF, 0, &a, &b, &c, &d) || (d & AMX) != AMX) return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
#else
    return false;
#endif
}

static bool level_runs(int level) {
#if defined(__x86_64__)
    if (level == RP_CPU_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (level == RP_CPU_AVX512)
        return level_runs(RP_CPU_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (level == RP_CPU_AMX)
        return level_runs(RP_CPU_AVX512) && __builtin_cpu_supports("avx512bf16") &&
               __builtin_cpu_supports("avx512vnni") && tiles_run();
#endif
    return level == RP_CPU_BASELINE;
}

bool rp_cpu_has_instructions(rp_dtype products) {
#if defined(__x86_64__)
    if (products == RP_BFLOAT16) return __builtin_cpu_supports("avx512bf16");
    if (products == RP_INT8) return __builtin_cpu_supports("avx512vnni");
#endif
    return products == RP_FLOAT32;
}

bool rp_cpu_has(int level, rp_dtype products) {
#ifdef RP_HAVE_AVX512
    if (level == RP_CPU_AVX512) return rp_cpu_avx512_gemm_has(products);
#endif
#ifdef RP_HAVE_AMX
    if (level == RP_CPU_AMX) return rp_cpu_amx_gemm_has(products);
#endif
    (void)level;
    return products == RP_FLOAT32;
}

bool rp_cpu_is_forced(void) {
    const char *forced = getenv("RELPT_CPU");
    return forced != NULL && forced[0] != '\0';
}

static rp_status named_level(int *out, const char *name) {
    for (int level = 0; level < RP_CPU_LEVELS; level++) {
        if (strcmp(name, level_names[level]) != 0) continue;
        if (!level_built(level)) return rp_fail(RP_STATUS_STATE, "CPU level %s is not part of this build", name);
        if (!level_runs(level))
            return rp_fail(RP_STATUS_STATE, "CPU level %s: this machine lacks the instructions", name);
        *out = level;
        return RP_OK;
    }
    return rp_fail(RP_STATUS_STATE,
                   "no back end or CPU level is called \"%s\"; there are ref, cpu, baseline, avx2, avx512, amx", name);
}

rp_status rp_cpu_level(int *out, const char *name) {
    if (strncmp(name, "cpu/", 4) == 0) return named_level(out, name + 4);
    if (strcmp(name, "cpu") != 0) return named_level(out, name); /* fails, with the list of names */
    if (rp_cpu_is_forced()) return named_level(out, getenv("RELPT_CPU"));
    for (int level = RP_CPU_LEVELS - 1; level >= 0; level--)
        if (level_built(level) && level_runs(level)) {
            *out = level;
            return RP_OK;
        }
    return rp_fail(RP_STATUS_STATE, "no CPU level runs on this machine");
}

const rp_ops *rp_cpu_table(int level) {
    switch (level) {
#ifdef RP_HAVE_AVX2
    case RP_CPU_AVX2:
        return rp_cpu_avx2_table();
#endif
#ifdef RP_HAVE_AVX512
    case RP_CPU_AVX512:
        return rp_cpu_avx512_table();
#endif
#ifdef RP_HAVE_AMX
    case RP_CPU_AMX:
        return rp_cpu_amx_table();
#endif
    default:
        return rp_cpu_baseline_table();
    }
}
