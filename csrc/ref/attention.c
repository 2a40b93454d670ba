/* Self-attention inside each sequence (Vaswani et al. 2017), with dropout on the probabilities.
 *
 * One head of one sequence at a time. With n its length, D the head size, k_ij what the dropout mask multiplies by:
 *   s_ij = <q_i, k_j> / sqrt D      P_ij = exp(s_ij - lse_i)      out_i = sum_j k_ij P_ij v_j
 * The backward pass recomputes P from lse, and the mask from its counters. */
#include <math.h>

#include "ref/ref.h"

typedef struct head {
    const float *q, *k, *v;      /* (n,D) each, rows `stride` apart */
    int64_t n, D, stride, start; /* start: the sequence's first token */
    int64_t number;              /* which head */
    uint32_t sample;
    const rp_dropout *d;
} head;

static head head_of(const float *qkv, const int32_t *cu_seqlens, const rp_dropout *d, int64_t s, int64_t a, int64_t A,
                    int64_t D) {
    int64_t H = A * D, start = cu_seqlens[s];
    const float *q = qkv + start * 3 * H + a * D;
    return (head){.q = q,
                  .k = q + H,
                  .v = q + 2 * H,
                  .n = cu_seqlens[s + 1] - start,
                  .D = D,
                  .stride = 3 * H,
                  .start = start,
                  .number = a,
                  .sample = d->threshold != 0 ? (uint32_t)d->sample[s] : 0,
                  .d = d};
}

static double dot(const float *a, const float *b, int64_t D) {
    double sum = 0.0;
    for (int64_t i = 0; i < D; i++) sum += (double)a[i] * b[i];
    return sum;
}

static double score(const head *x, int64_t i, int64_t j) {
    return dot(x->q + i * x->stride, x->k + j * x->stride, x->D) / sqrt((double)x->D);
}

static double keep(const head *x, int64_t i, int64_t j) {
    return rp_ref_keep(x->d, x->sample, (uint32_t)(x->number * 65536 + i), j);
}

static rp_status check_scratch(const rp_dev *dev, const int32_t *cu_seqlens, int64_t S, int64_t rows, int64_t depths,
                               int64_t D) {
    int64_t longest = 0; /* `rows` vectors of n and `depths` matrices (n,D), in double */
    for (int64_t s = 0; s < S; s++) {
        int64_t n = cu_seqlens[s + 1] - cu_seqlens[s];
        if (n > longest) longest = n;
    }
    size_t need = sizeof(double) * (size_t)(rows * longest + depths * longest * D);
    if (dev->scratch_bytes < need)
        return rp_fail(RP_STATUS_STATE, "attention over %lld tokens needs %zu bytes of scratch, %zu are reserved",
                       (long long)longest, need, dev->scratch_bytes);
    return RP_OK;
}

/* p(n) = softmax of row i; returns its log-sum-exp. */
static double softmax_row(double *p, const head *x, int64_t i) {
    double largest = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < x->n; j++) {
        p[j] = score(x, i, j);
        if (p[j] > largest) largest = p[j];
    }
    for (int64_t j = 0; j < x->n; j++) sum += exp(p[j] - largest);
    double lse = largest + log(sum);
    for (int64_t j = 0; j < x->n; j++) p[j] = exp(p[j] - lse);
    return lse;
}

/* out, lse: those of the head's first token; out's rows are H = stride / 3 apart. */
static void forward_head(float *out, float *lse, const head *x, double *p) {
    for (int64_t i = 0; i < x->n; i++) {
        lse[i] = (float)softmax_row(p, x, i);
        for (int64_t j = 0; j < x->n; j++) p[j] *= keep(x, i, j);
        for (int64_t c = 0; c < x->D; c++) {
            double sum = 0.0;
            for (int64_t j = 0; j < x->n; j++) sum += p[j] * x->v[j * x->stride + c];
            out[i * (x->stride / 3) + c] = (float)sum;
        }
    }
}

rp_status rp_ref_attention_forward(rp_dev *dev, float *out, float *lse, const float *qkv, const int32_t *cu_seqlens,
                                   const rp_dropout *d, int64_t S, int64_t T, int64_t A, int64_t D) {
    RP_TRY(check_scratch(dev, cu_seqlens, S, 1, 0, D));
    for (int64_t s = 0; s < S; s++) {
        for (int64_t a = 0; a < A; a++) {
            head x = head_of(qkv, cu_seqlens, d, s, a, A, D);
            forward_head(out + x.start * A * D + a * D, lse + a * T + x.start, &x, dev->scratch);
        }
    }
    return RP_OK;
}

/* Row i: kp(n) = k_ij P_ij, and ds(n) = d loss / d s_ij = P_ij (k_ij <dout_i, v_j> - <dout_i, out_i>). */
static void backward_row(double *kp, double *ds, const head *x, int64_t i, const float *dout, const float *out,
                         double lse) {
    double delta = dot(dout, out, x->D);
    for (int64_t j = 0; j < x->n; j++) {
        double p = exp(score(x, i, j) - lse), k = keep(x, i, j);
        kp[j] = k * p;
        ds[j] = p * (k * dot(dout, x->v + j * x->stride, x->D) - delta);
    }
}

/* dq_i = sum_j ds_ij k_j / sqrt D;  dk_j = sum_i ds_ij q_i / sqrt D;  dv_j = sum_i k_ij P_ij dout_i.
 * dqkv points at the head's dq of the first token; dk and dv are summed in scratch: kp(n), ds(n), dk(n,D), dv(n,D). */
static void backward_head(float *dqkv, const float *dout, const float *out, const float *lse, const head *x,
                          double *scratch) {
    int64_t n = x->n, D = x->D, H = x->stride / 3;
    double *kp = scratch, *ds = kp + n, *dk = ds + n, *dv = dk + n * D, root = sqrt((double)D);
    for (int64_t c = 0; c < 2 * n * D; c++) dk[c] = 0.0; /* and dv, which follows */
    for (int64_t i = 0; i < n; i++) {
        backward_row(kp, ds, x, i, dout + i * H, out + i * H, lse[i]);
        for (int64_t c = 0; c < D; c++) {
            double dq = 0.0;
            for (int64_t j = 0; j < n; j++) {
                dq += ds[j] * x->k[j * x->stride + c] / root;
                dk[j * D + c] += ds[j] * x->q[i * x->stride + c] / root;
                dv[j * D + c] += kp[j] * dout[i * H + c];
            }
            dqkv[i * x->stride + c] = (float)dq;
        }
    }
    for (int64_t j = 0; j < n; j++) {
        for (int64_t c = 0; c < D; c++) {
            dqkv[j * x->stride + H + c] = (float)dk[j * D + c];
            dqkv[j * x->stride + 2 * H + c] = (float)dv[j * D + c];
        }
    }
}

rp_status rp_ref_attention_backward(rp_dev *dev, float *dqkv, const float *dout, const float *out, const float *lse,
                                    const float *qkv, const int32_t *cu_seqlens, const rp_dropout *d, int64_t S,
                                    int64_t T, int64_t A, int64_t D) {
    RP_TRY(check_scratch(dev, cu_seqlens, S, 2, 2, D));
    for (int64_t s = 0; s < S; s++) {
        for (int64_t a = 0; a < A; a++) {
            head x = head_of(qkv, cu_seqlens, d, s, a, A, D);
            int64_t first = x.start * A * D + a * D; /* in dout and out */
            backward_head(dqkv + x.start * 3 * A * D + a * D, dout + first, out + first, lse + a * T + x.start, &x,
                          dev->scratch);
        }
    }
    return RP_OK;
}
