/* The table of operations in plain scalar C with double accumulators: the executable specification. Level 1.
 *
 * It is written to be read and to be right, not to be fast: one thread, no blocking. Inputs and results are float32,
 * everything between is double, so that a result differs from the exact one by little more than its rounding.
 * The back ends for use are held against it, operation by operation. */
#ifndef RP_REF_H
#define RP_REF_H

#include "ops.h"

/* The coarse slots are NULL; rp_ops_complete fills them. */
const rp_ops *rp_ref_table(void);

/* rp_ref_<slot> for every basic slot; those of device memory are host.h's instead. */
#define RP_REF_DECLARE(name, arguments) rp_status rp_ref_##name arguments;
RP_OPS_BASIC(RP_REF_DECLARE)

/* What the mask of `d` multiplies an element by: 0 when dropped, 1 / (1 - p) when kept, 1 without dropout. */
double rp_ref_keep(const rp_dropout *d, uint32_t sample, uint32_t row, int64_t column);

/* x as one of bfloat16's values, ties to even: 8 bits of mantissa with the leading one, as small as 2^-133. */
float rp_ref_rounded(float x);

#endif
