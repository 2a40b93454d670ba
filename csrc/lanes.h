/* Sums in double in an order of their own: eight running sums, which the compiler may hold in vectors without changing
 * a result. Level 0. */
#ifndef RP_LANES_H
#define RP_LANES_H

#include <stdint.h>

#define RP_LANES 8

static inline double rp_lanes_sum(const double lane[RP_LANES]) {
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

static inline double rp_lanes_dot(const double *a, const double *b, int64_t n) {
    double lane[RP_LANES] = {0};
    int64_t i = 0;
    for (; i + RP_LANES <= n; i += RP_LANES)
        for (int j = 0; j < RP_LANES; j++) lane[j] += a[i + j] * b[i + j];
    for (; i < n; i++) lane[0] += a[i] * b[i];
    return rp_lanes_sum(lane);
}

#endif
