/* The learning rate over the steps. Level 2. */
#ifndef RP_SCHEDULE_H
#define RP_SCHEDULE_H

#include <stdint.h>

typedef enum rp_schedule_kind { RP_SCHEDULE_CONSTANT, RP_SCHEDULE_LINEAR, RP_SCHEDULE_COSINE } rp_schedule_kind;

/* Factor of the learning rate at step 0 .. max_steps-1: rises linearly, (step + 1) / warmup, over the first `warmup`
 * steps, then stays, falls linearly from 1 towards 0 at max_steps, or along half a cosine. Steps from max_steps on: as
 * the last. */
double rp_schedule_factor(rp_schedule_kind kind, int64_t step, int64_t warmup, int64_t max_steps);

#endif
