/* The CPU back end: one table per instruction-set level, all compiled from the same files. Level 1. */
#ifndef RP_CPU_H
#define RP_CPU_H

#include <stdbool.h>

#include "ops.h"

enum { RP_CPU_BASELINE, RP_CPU_AVX2, RP_CPU_AVX512, RP_CPU_AMX, RP_CPU_LEVELS };

/* Reductions over rows are cut into this many blocks, whatever the number of threads, and summed in block order. */
#define RP_CPU_BLOCKS 32

/* The packed operands of a matrix product (cpu/gemm.c): depth and width of a panel, words of a thread's rows. */
#define RP_CPU_PANEL_DEPTH 1024
#define RP_CPU_PANEL_WIDTH 2048
#define RP_CPU_ROWS_WORDS (112 * (RP_CPU_PANEL_DEPTH + 16))

/* The level of "cpu" (RELPT_CPU or the best that this machine has), "cpu/baseline", "cpu/avx2", "cpu/avx512",
 * "cpu/amx". STATE: not built, not on this machine, or no such name. */
rp_status rp_cpu_level(int *level, const char *name);

/* Whether this machine has instructions for products of this kind. */
bool rp_cpu_has_instructions(rp_dtype products);

/* Whether RELPT_CPU names a level: then instructions are used where they are, without a trial of their speed. */
bool rp_cpu_is_forced(void);

/* Whether a level uses instructions for products of this kind on this machine; else it rounds and multiplies float32.
 */
bool rp_cpu_has(int level, rp_dtype products);

/* The level's table with its coarse slots as the level provides them. */
const rp_ops *rp_cpu_table(int level);

const rp_ops *rp_cpu_baseline_table(void);
const rp_ops *rp_cpu_avx2_table(void);
const rp_ops *rp_cpu_avx512_table(void);
const rp_ops *rp_cpu_amx_table(void);

bool rp_cpu_avx512_gemm_has(rp_dtype products); /* rp_cpu_has of the level */
bool rp_cpu_amx_gemm_has(rp_dtype products);

#endif
