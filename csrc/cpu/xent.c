#include "cpu/level.h"

#include <math.h>
#include <stdbool.h>

enum { ABSENT, NEGATIVE, POSITIVE };

/* What column c is to row r. */
static inline int role(const rp_xent *x, int64_t r, int64_t c, int32_t target, int32_t skip) {
    if (c == target) return POSITIVE;
    if (c == skip) return ABSENT;
    if (x->row_group != NULL && x->row_group[r] >= 0 && x->row_group[r] == x->col_group[c])
        return x->supervised ? POSITIVE : ABSENT;
    return NEGATIVE;
}

/* Rows with exclusions: few and short (the contrastive loss). */
static void row_with_roles(float *z, float *loss, int32_t *correct, const rp_xent *x, int64_t r, int64_t C) {
    int32_t target = x->target[r], skip = x->skip == NULL ? -1 : x->skip[r];
    float top = -INFINITY, sum = 0, positives = 0, positive_sum = 0, candidates = 0, above = 0;
    int64_t best = -1;
    for (int64_t c = 0; c < C; c++) {
        int kind = role(x, r, c, target, skip);
        if (kind == ABSENT) continue;
        candidates += 1;
        if (best < 0 || z[c] > top) top = z[c], best = c;
        if (kind == POSITIVE) positives += 1, positive_sum += x->scale * z[c];
    }
    for (int64_t c = 0; c < C; c++) {
        if (role(x, r, c, target, skip) == ABSENT) continue;
        sum += exp_approx(x->scale * (z[c] - top));
        above += z[c] - top;
    }
    float log_sum = x->scale * top + logf(sum), factor = x->weight * x->scale;
    float share = 1.0f / positives, spread = 0;
    *loss = log_sum - positive_sum / positives;
    if (x->smoothing > 0) { /* log_sum - (the positives' mean, and all candidates', in these shares) */
        *loss = (1.0f - x->smoothing) * *loss + x->smoothing * (logf(sum) - x->scale * above / candidates);
        share *= 1.0f - x->smoothing;
        spread = x->smoothing / candidates;
    }
    *correct = role(x, r, best, target, skip) == POSITIVE;
    bool alone = candidates == 1; /* then p is 1, and no rounding is to give the row a gradient */
    for (int64_t c = 0; c < C; c++) {
        int kind = role(x, r, c, target, skip);
        float p = kind == ABSENT ? 0.0f : alone ? 1.0f : exp_approx(x->scale * z[c] - log_sum);
        z[c] = kind == ABSENT ? 0.0f : factor * ((kind == POSITIVE ? p - share : p) - spread);
    }
}

/* Rows over all columns: many and long (the masked-word loss, classes). */
static void plain_row(float *z, float *loss, int32_t *correct, const rp_xent *x, int64_t r, int64_t C) {
    int32_t target = x->target[r];
    float top = -INFINITY, sum = 0, above = 0, scale = x->scale, smoothing = x->smoothing;
#pragma omp simd reduction(max : top)
    for (int64_t c = 0; c < C; c++) top = z[c] > top ? z[c] : top;
    float right = z[target];
    bool first = right >= top; /* the first of equals wins */
    for (int64_t c = 0; first && c < target; c++) first = z[c] < right;
    if (smoothing > 0) {
#pragma omp simd reduction(+ : above)
        for (int64_t c = 0; c < C; c++) above += z[c] - top;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < C; c++) {
        z[c] = exp_approx((z[c] - top) * scale);
        sum += z[c];
    }
    *loss = logf(sum) - (right - top) * scale;
    if (smoothing > 0) *loss = (1.0f - smoothing) * *loss + smoothing * (logf(sum) - above / (float)C * scale);
    *correct = first;
    float factor = x->weight * scale / sum, spread = x->weight * scale * smoothing / (float)C;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) z[c] *= factor;
    if (smoothing > 0) {
#pragma omp simd
        for (int64_t c = 0; c < C; c++) z[c] -= spread;
    }
    z[target] -= x->weight * scale * (1.0f - smoothing);
}

rp_status RP_CPU(softmax_xent)(rp_dev *dev, float *logits, float *loss, int32_t *correct, const rp_xent *x, int64_t R,
                               int64_t C) {
    if (!(x->scale > 0))
        return rp_fail(RP_STATUS_VALUE, "softmax_xent: scale is %g, expected above 0", (double)x->scale);
#pragma omp parallel num_threads(team(dev, R *C))
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t r = 0; r < R; r++) {
            float *z = logits + r * C;
            if (x->target[r] < 0) {
                memset(z, 0, (size_t)C * sizeof *z);
                loss[r] = 0;
                correct[r] = 0;
            } else if (x->skip == NULL && x->row_group == NULL)
                plain_row(z, loss + r, correct + r, x, r, C);
            else
                row_with_roles(z, loss + r, correct + r, x, r, C);
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}
