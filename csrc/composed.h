/* The meaning of each coarse operation: its composition of basic ones. What a back end without one of its own gets, and
 * what one that has it may hand a call on to. Level 1. */
#ifndef RP_COMPOSED_H
#define RP_COMPOSED_H

#include "ops.h"

#define RP_COMPOSED_DECLARE(name, arguments) rp_status rp_composed_##name arguments;
RP_OPS_COARSE(RP_COMPOSED_DECLARE)

/* Where self-attention's queries, keys and values stand in their buffer, and their gradients in theirs. */
typedef struct rp_qkv_places {
    int64_t q, k, v, q_stride, kv_stride;
} rp_qkv_places;

rp_qkv_places rp_composed_places(int64_t T, int64_t R, int64_t H);

#endif
