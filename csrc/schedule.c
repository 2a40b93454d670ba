#include "schedule.h"

#include <math.h>

double rp_schedule_factor(rp_schedule_kind kind, int64_t step, int64_t warmup, int64_t max_steps) {
    if (step < warmup) return (double)(step + 1) / (double)warmup;
    if (step >= max_steps) step = max_steps - 1;
    if (kind == RP_SCHEDULE_CONSTANT || max_steps <= warmup) return 1.0;
    double done = (double)(step - warmup) / (double)(max_steps - warmup);
    return kind == RP_SCHEDULE_LINEAR ? 1.0 - done : 0.5 * (1.0 + cos(3.141592653589793 * done));
}
