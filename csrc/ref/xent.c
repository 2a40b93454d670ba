/* Softmax cross-entropy with exclusions, several positives (Khosla et al. 2020, equation 2) and smoothing.
 *
 * Row r over its n candidates c, with z_c = scale logits_c, p = softmax(z) over them and positives P (always the
 * target): q_c = (1 - smoothing) [c in P] / |P| + smoothing / n
 *   loss = -sum_c q_c log p_c          d loss / d logits_c = scale (p_c - q_c) */
#include <math.h>

#include "ref/ref.h"

typedef enum role { EXCLUDED, NEGATIVE, POSITIVE } role;

static role role_of(const rp_xent *x, int64_t r, int64_t c) {
    if (c == x->target[r]) return POSITIVE;
    if (x->skip != NULL && c == x->skip[r]) return EXCLUDED;
    if (x->row_group == NULL || x->row_group[r] < 0 || x->row_group[r] != x->col_group[c]) return NEGATIVE;
    return x->supervised ? POSITIVE : EXCLUDED;
}

/* What a pass over a row's candidates finds. */
typedef struct summary {
    double lse;          /* log sum exp z over the candidates */
    double positive_sum; /* sum of z over the positives, */
    double sum;          /* and over all candidates */
    int64_t positives;   /* |P| */
    int64_t candidates;
    int64_t largest; /* column of the largest candidate, the first of equals */
} summary;

static summary summarize(const float *logits, const rp_xent *x, int64_t r, int64_t C) {
    summary row = {.largest = -1};
    double largest = -INFINITY, sum = 0.0;
    for (int64_t c = 0; c < C; c++) {
        role kind = role_of(x, r, c);
        double z = (double)x->scale * logits[c]; /* exact: two factors of 24 bits */
        if (kind == EXCLUDED) continue;
        row.sum += z;
        row.candidates++;
        if (kind == POSITIVE) {
            row.positive_sum += z;
            row.positives++;
        }
        if (row.largest < 0 || z > largest) {
            largest = z;
            row.largest = c;
        }
    }
    for (int64_t c = 0; c < C; c++)
        if (role_of(x, r, c) != EXCLUDED) sum += exp((double)x->scale * logits[c] - largest);
    row.lse = largest + log(sum);
    return row;
}

static void write_gradient(float *logits, const rp_xent *x, const summary *row, int64_t r, int64_t C) {
    for (int64_t c = 0; c < C; c++) {
        role kind = role_of(x, r, c);
        double p = exp((double)x->scale * logits[c] - row->lse);
        double q = x->smoothing / (double)row->candidates;
        if (kind == POSITIVE) q += (1.0 - x->smoothing) / (double)row->positives;
        double dz = p - q;
        logits[c] = kind == EXCLUDED ? 0.0f : (float)((double)x->weight * x->scale * dz);
    }
}

rp_status rp_ref_softmax_xent(rp_dev *dev, float *logits, float *loss, int32_t *correct, const rp_xent *x, int64_t R,
                              int64_t C) {
    (void)dev;
    for (int64_t r = 0; r < R; r++) {
        float *z = logits + r * C;
        if (x->target[r] < 0) {
            for (int64_t c = 0; c < C; c++) z[c] = 0.0f;
            loss[r] = 0.0f;
            correct[r] = 0;
            continue;
        }
        summary row = summarize(z, x, r, C);
        double wanted = (1.0 - x->smoothing) * row.positive_sum / (double)row.positives +
                        x->smoothing * row.sum / (double)row.candidates;
        loss[r] = (float)(row.lse - wanted);
        correct[r] = role_of(x, r, row.largest) == POSITIVE;
        write_gradient(z, x, &row, r, C);
    }
    return RP_OK;
}
