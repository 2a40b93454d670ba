/* Self-attention inside each sequence (Vaswani et al. 2017), with dropout on the probabilities.
 *
 * One head of one sequence at a time. With n its length, D the head size, k_ij what the dropout mask multiplies by:
 *   s_ij = <q_i, k_j> / sqrt D      P_ij = exp(s_ij - lse_i)      out_i = sum_j k_ij P_ij v_j
 * The backward pass recomputes P from lse, and the mask from its counters. */
#include <math.h>

#include "ref/ref.h"

typedef struct head {
    const float *q, *k, *v; /* (m,D), (n,D), (n,D) */
    int64_t m, n, D, q_stride, kv_stride, number;
    uint32_t sample;
    const int32_t *pos; /* (m) the queries' places */
    const rp_dropout *d;
} head;

/* The arguments that the two operations share. */
typedef struct call {
    const float *q, *k, *v;
    const int32_t *cu_seqlens, *cu_queries, *query_pos;
    const rp_dropout *d;
    int64_t D, q_stride, kv_stride;
} call;

/* Head a of sequence s. */
static head head_of(const call *c, int64_t s, int64_t a) {
    int64_t row = c->cu_queries[s], token = c->cu_seqlens[s], column = a * c->D;
    return (head){.q = c->q + row * c->q_stride + column,
                  .k = c->k + token * c->kv_stride + column,
                  .v = c->v + token * c->kv_stride + column,
                  .m = c->cu_queries[s + 1] - row,
                  .n = c->cu_seqlens[s + 1] - token,
                  .D = c->D,
                  .q_stride = c->q_stride,
                  .kv_stride = c->kv_stride,
                  .number = a,
                  .sample = c->d->threshold != 0 ? (uint32_t)c->d->sample[s] : 0,
                  .pos = c->query_pos + row,
                  .d = c->d};
}

static double dot(const float *a, const float *b, int64_t D) {
    double sum = 0.0;
    for (int64_t i = 0; i < D; i++) sum += (double)a[i] * b[i];
    return sum;
}

static double score(const head *x, int64_t i, int64_t j) {
    return dot(x->q + i * x->q_stride, x->k + j * x->kv_stride, x->D) / sqrt((double)x->D);
}

static double keep(const head *x, int64_t i, int64_t j) {
    return rp_ref_keep(x->d, x->sample, (uint32_t)(x->number * 65536 + x->pos[i]), j);
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

static void forward_head(float *out, float *lse, const head *x, int64_t H, double *p) {
    for (int64_t i = 0; i < x->m; i++) {
        lse[i] = (float)softmax_row(p, x, i);
        for (int64_t j = 0; j < x->n; j++) p[j] *= keep(x, i, j);
        for (int64_t c = 0; c < x->D; c++) {
            double sum = 0.0;
            for (int64_t j = 0; j < x->n; j++) sum += p[j] * x->v[j * x->kv_stride + c];
            out[i * H + c] = (float)sum;
        }
    }
}

rp_status rp_ref_attention_forward(rp_dev *dev, float *out, float *lse, const float *q, const float *k, const float *v,
                                   const int32_t *cu_seqlens, const int32_t *cu_queries, const int32_t *query_pos,
                                   const rp_dropout *d, int64_t S, int64_t R, int64_t A, int64_t D, int64_t q_stride,
                                   int64_t kv_stride) {
    call c = {q, k, v, cu_seqlens, cu_queries, query_pos, d, D, q_stride, kv_stride};
    RP_TRY(check_scratch(dev, cu_seqlens, S, 1, 0, D));
    for (int64_t s = 0; s < S; s++) {
        for (int64_t a = 0; a < A; a++) {
            head x = head_of(&c, s, a);
            forward_head(out + cu_queries[s] * A * D + a * D, lse + a * R + cu_queries[s], &x, A * D, dev->scratch);
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
        ds[j] = p * (k * dot(dout, x->v + j * x->kv_stride, x->D) - delta);
    }
}

/* dq_i = sum_j ds_ij k_j / sqrt D;  dk_j = sum_i ds_ij q_i / sqrt D;  dv_j = sum_i k_ij P_ij dout_i.
 * dk and dv are summed in scratch: kp(n), ds(n), dk(n,D), dv(n,D). */
static void backward_head(float *dq, float *dk, float *dv, const float *dout, const float *out, const float *lse,
                          const head *x, int64_t H, double *scratch) {
    int64_t n = x->n, D = x->D;
    double *kp = scratch, *ds = kp + n, *dks = ds + n, *dvs = dks + n * D, root = sqrt((double)D);
    for (int64_t c = 0; c < 2 * n * D; c++) dks[c] = 0.0; /* and dvs, which follows */
    for (int64_t i = 0; i < x->m; i++) {
        backward_row(kp, ds, x, i, dout + i * H, out + i * H, lse[i]);
        for (int64_t c = 0; c < D; c++) {
            double sum = 0.0;
            for (int64_t j = 0; j < n; j++) {
                sum += ds[j] * x->k[j * x->kv_stride + c] / root;
                dks[j * D + c] += ds[j] * x->q[i * x->q_stride + c] / root;
                dvs[j * D + c] += kp[j] * dout[i * H + c];
            }
            dq[i * x->q_stride + c] = (float)sum;
        }
    }
    for (int64_t j = 0; j < n; j++) {
        for (int64_t c = 0; c < D; c++) {
            dk[j * x->kv_stride + c] = (float)dks[j * D + c];
            dv[j * x->kv_stride + c] = (float)dvs[j * D + c];
        }
    }
}

rp_status rp_ref_attention_backward(rp_dev *dev, float *dq, float *dk, float *dv, const float *dout, const float *out,
                                    const float *lse, const float *q, const float *k, const float *v,
                                    const int32_t *cu_seqlens, const int32_t *cu_queries, const int32_t *query_pos,
                                    const rp_dropout *d, int64_t S, int64_t R, int64_t A, int64_t D, int64_t q_stride,
                                    int64_t kv_stride) {
    call c = {q, k, v, cu_seqlens, cu_queries, query_pos, d, D, q_stride, kv_stride};
    RP_TRY(check_scratch(dev, cu_seqlens, S, 2, 2, D));
    for (int64_t s = 0; s < S; s++) {
        for (int64_t a = 0; a < A; a++) {
            head x = head_of(&c, s, a);
            int64_t row = cu_queries[s], token = cu_seqlens[s] * kv_stride + a * D, at = row * A * D + a * D;
            backward_head(dq + row * q_stride + a * D, dk + token, dv + token, dout + at, out + at, lse + a * R + row,
                          &x, A * D, dev->scratch);
        }
    }
    return RP_OK;
}
