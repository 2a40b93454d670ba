/* Self-attention inside packed sequences. One task is one head of one sequence: its whole block of scores stays in
 * cache, and no two tasks write to the same element, so nothing needs an order. */
#include "cpu/level.h"

#include <math.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

enum { LINE = 16 }; /* floats of a line of cache */

/* -- products of small matrices -------------------------------------------------------------------------- */

/* c(rows, vectors * VL) = a(rows, k) b(k, vectors * VL); a's element (i, l) stands at a[i * ai + l * al]. */
static inline __attribute__((always_inline)) void tile(float *c, int64_t ldc, const float *a, int64_t ai, int64_t al,
                                                       const float *b, int64_t ldb, int64_t k, const int rows,
                                                       const int vectors) {
    vf sum[8][4] = {{{0}}};
    for (int64_t l = 0; l < k; l++) {
        vf right[4];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) right[j] = vf_load(b + l * ldb + j * VL);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            float left = a[i * ai + l * al];
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) vf_store(c + i * ldc + j * VL, sum[i][j]);
}

static inline __attribute__((always_inline)) void stripe(float *c, int64_t ldc, const float *a, int64_t ai, int64_t al,
                                                         const float *b, int64_t ldb, int64_t m, int64_t k,
                                                         const int vectors) {
    const int rows = VL == 16 && vectors <= 2 ? 8 : 4;
    for (; m >= rows; m -= rows, c += rows * ldc, a += rows * ai) tile(c, ldc, a, ai, al, b, ldb, k, rows, vectors);
    if (m & 4) tile(c, ldc, a, ai, al, b, ldb, k, 4, vectors);
    if (m & 2) tile(c + (m & 4) * ldc, ldc, a + (m & 4) * ai, ai, al, b, ldb, k, 2, vectors);
    if (m & 1) tile(c + (m & 6) * ldc, ldc, a + (m & 6) * ai, ai, al, b, ldb, k, 1, vectors);
}

/* Registers hold 16 sums with AVX-512's 32, 8 otherwise. */
enum { WIDE = VL == 16 ? 4 : 2 };

/* c(m,n) = a(m,k) b(k,n); n is a multiple of VL. */
static void multiply(float *c, int64_t ldc, const float *a, int64_t ai, int64_t al, const float *b, int64_t ldb,
                     int64_t m, int64_t n, int64_t k) {
    for (; n >= WIDE * VL; n -= WIDE * VL, c += WIDE * VL, b += WIDE * VL)
        stripe(c, ldc, a, ai, al, b, ldb, m, k, WIDE);
    if (n == 3 * VL) stripe(c, ldc, a, ai, al, b, ldb, m, k, 3);
    if (n == 2 * VL) stripe(c, ldc, a, ai, al, b, ldb, m, k, 2);
    if (n == VL) stripe(c, ldc, a, ai, al, b, ldb, m, k, 1);
}

static inline void prefetch_row(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LINE) __builtin_prefetch(x + i);
}

/* out(n, Dp) = inp(n, D) at row stride `stride`, zeros behind D. The next head's columns are asked for ahead: they
 * stand beside these, a row of all heads apart. */
static void copy_padded(float *out, const float *inp, int64_t stride, int64_t n, int64_t D, int64_t Dp) {
    for (int64_t i = 0; i < n; i++, inp += stride, out += Dp) {
        int64_t d = 0;
        prefetch_row(inp + D, D);
        for (; d + VL <= D; d += VL) vf_store(out + d, vf_load(inp + d));
        for (; d < D; d++) out[d] = inp[d];
        for (; d < Dp; d++) out[d] = 0;
    }
}

#if defined(__AVX512F__)
/* out(16, 16) = inp(rows, columns)^T, zeros behind. Blocks of 8, 4, 2 and 1 lanes change places in turn. */
static void transpose_block(float *out, int64_t ldo, const float *inp, int64_t ldi, int64_t rows, int64_t columns) {
    static const int32_t low[4][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
                                       {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
                                       {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
                                       {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30}};
    __mmask16 valid = (__mmask16)((1u << columns) - 1);
    __m512 x[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) x[i] = i < rows ? _mm512_maskz_loadu_ps(valid, inp + i * ldi) : _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int stage = 0; stage < 4; stage++) {
        const int step = 8 >> stage;
        __m512i first = _mm512_loadu_si512(low[stage]), second = _mm512_add_epi32(first, _mm512_set1_epi32(step));
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i & step) continue;
            __m512 a = x[i], b = x[i + step];
            x[i] = _mm512_permutex2var_ps(a, first, b);
            x[i + step] = _mm512_permutex2var_ps(a, second, b);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        if (i < columns) _mm512_storeu_ps(out + i * ldo, x[i]);
}

/* out(D, np) = inp(n, D)^T, zeros behind n. */
static void transpose_padded(float *out, const float *inp, int64_t stride, int64_t n, int64_t D, int64_t np) {
    for (int64_t i = 0; i < n; i += VL) {
        for (int64_t d = 0; d < D; d += VL)
            transpose_block(out + d * np + i, np, inp + i * stride + d, stride, at_most(n - i, VL), at_most(D - d, VL));
        for (int64_t j = i; j < at_most(n, i + VL); j++) prefetch_row(inp + j * stride + D, D);
    }
}
#else
static void transpose_padded(float *out, const float *inp, int64_t stride, int64_t n, int64_t D, int64_t np) {
    for (int64_t d = 0; d < D; d++) {
        for (int64_t i = 0; i < n; i++) out[d * np + i] = inp[i * stride + d];
        for (int64_t i = n; i < np; i++) out[d * np + i] = 0;
    }
}
#endif

/* -- one head of one sequence ---------------------------------------------------------------------------- */

typedef struct head {
    int64_t m, n, np; /* queries, at most as many as tokens; tokens; tokens rounded up to whole vectors */
    int64_t D, Dp;    /* head size, likewise */
    int64_t q_stride, kv_stride;
    const float *q, *k, *v;
    float scale;
    float *scores;     /* (m, np) probabilities */
    float *dscores;    /* (m, np) */
    float *mask;       /* (m, blocks * 8) */
    float *transposed; /* (D, np) */
    float *right;      /* (n, Dp) of keys, values or queries */
    float *grad;       /* (m, Dp) of dout */
    float *result;     /* (n, Dp), where D is not whole vectors */
    int64_t blocks;    /* groups of 8 columns of the mask; 0 without dropout */
} head;

/* The arguments that the two operations share. */
typedef struct call {
    const float *q, *k, *v;
    const int32_t *cu_seqlens, *cu_queries, *query_pos;
    const rp_dropout *d;
    int64_t D, q_stride, kv_stride;
} call;

/* Floats of scratch that one task takes. */
static int64_t task_floats(int64_t max_len, int64_t D) {
    int64_t np = round_up(max_len, VL), Dp = round_up(D, VL);
    return 2 * max_len * np + max_len * round_up(max_len, 8) + RP_MASK_SLACK + D * np + 3 * max_len * Dp;
}

static void head_mask(head *h, const call *c, int64_t s, int64_t a) {
    const int32_t *pos = c->query_pos + c->cu_queries[s];
    if (c->d->threshold == 0) return;
    h->blocks = (h->n + 7) / 8;
    for (int64_t i = 0, end; i < h->m; i = end) { /* runs of neighbours at once */
        for (end = i + 1; end < h->m && pos[end] == pos[end - 1] + 1;) end++;
        RP_CPU(dropout_mask)(h->mask + i * h->blocks * 8, c->d, (uint32_t)c->d->sample[s],
                             (uint32_t)(a << 16) + (uint32_t)pos[i], end - i, 0, (uint32_t)h->blocks);
    }
}

/* Head a of sequence s. */
static void head_open(head *h, float *scratch, const call *c, int64_t s, int64_t a) {
    int64_t first = c->cu_seqlens[s], n = c->cu_seqlens[s + 1] - first, D = c->D;
    *h = (head){.m = c->cu_queries[s + 1] - c->cu_queries[s],
                .n = n,
                .np = round_up(n, VL),
                .D = D,
                .Dp = round_up(D, VL),
                .q_stride = c->q_stride,
                .kv_stride = c->kv_stride,
                .q = c->q + c->cu_queries[s] * c->q_stride + a * D,
                .k = c->k + first * c->kv_stride + a * D,
                .v = c->v + first * c->kv_stride + a * D,
                .scale = 1.0f / sqrtf((float)D)};
    h->scores = scratch;
    h->dscores = h->scores + n * h->np;
    h->mask = h->dscores + n * h->np;
    h->transposed = h->mask + n * round_up(n, 8) + RP_MASK_SLACK;
    h->right = h->transposed + D * h->np;
    h->grad = h->right + n * h->Dp;
    h->result = h->grad + n * h->Dp;
    head_mask(h, c, s, a);
}

/* Applies the mask of queries first … to x(m, np). */
static void masked(const head *h, float *x, int64_t first, int64_t m) {
    if (h->blocks == 0) return;
    for (int64_t i = 0; i < m; i++) {
        const float *keep = h->mask + (first + i) * h->blocks * 8;
#pragma omp simd
        for (int64_t j = 0; j < h->n; j++) x[i * h->np + j] *= keep[j];
    }
}

/* row(vectors * VL) = softmax(scale row), where `behind` is added to the last vector: -inf in lanes that do not count.
 * Gives the log-sum-exp. Powers of 2, whose factor goes into the scale. */
static float softmax_row(float *row, vf behind, float scale, int64_t vectors) {
    const float factor = 1.44269504f * scale;
    vf top = vf_load(row + (vectors - 1) * VL) + behind, sum = {0};
    vf_store(row + (vectors - 1) * VL, top);
#pragma GCC unroll 4
    for (int64_t j = 0; j < vectors - 1; j++) top = vf_max(top, vf_load(row + j * VL));
    float highest = factor * vf_top(top);
#pragma GCC unroll 4
    for (int64_t j = 0; j < vectors; j++) {
        vf p = vf_exp2(vf_load(row + j * VL) * factor - highest);
        vf_store(row + j * VL, p);
        sum += p;
    }
    float total = vf_sum(sum), inverse = 1.0f / total;
#pragma GCC unroll 4
    for (int64_t j = 0; j < vectors; j++) vf_store(row + j * VL, vf_load(row + j * VL) * inverse);
    return 0.693147181f * highest + logf(total);
}

/* scores(m, np) = softmax(scale q k^T) of queries first …, zeros behind n; lse(m). */
static void probabilities(const head *h, float *lse, int64_t first, int64_t m) {
    multiply(h->scores, h->np, h->q + first * h->q_stride, h->q_stride, 1, h->transposed, h->np, m, h->np, h->D);
    float behind[VL];
    for (int j = 0; j < VL; j++) behind[j] = h->np - VL + j < h->n ? 0 : -INFINITY;
    for (int64_t i = 0; i < m; i++) {
        float own = softmax_row(h->scores + i * h->np, vf_load(behind), h->scale, h->np / VL);
        if (lse != NULL) lse[first + i] = own;
    }
}

/* to(m, D) at row stride `stride` = a(m, k) b(k, Dp). */
static void product(const head *h, float *to, int64_t stride, const float *a, int64_t ai, int64_t al, const float *b,
                    int64_t m, int64_t k) {
    if (h->D == h->Dp) {
        multiply(to, stride, a, ai, al, b, h->Dp, m, h->Dp, k);
        return;
    }
    multiply(h->result, h->Dp, a, ai, al, b, h->Dp, m, h->Dp, k);
    for (int64_t i = 0; i < m; i++) memcpy(to + i * stride, h->result + i * h->Dp, (size_t)h->D * sizeof *to);
}

/* A few queries at a time: keys and values stay in the nearest cache. */
static void head_forward(head *h, float *out, float *lse, int64_t H) {
    enum { QUERIES = 8 };
    transpose_padded(h->transposed, h->k, h->kv_stride, h->n, h->D, h->np);
    copy_padded(h->right, h->v, h->kv_stride, h->n, h->D, h->Dp);
    for (int64_t first = 0; first < h->m; first += QUERIES) {
        int64_t m = at_most(h->m - first, QUERIES);
        probabilities(h, lse, first, m);
        masked(h, h->scores, first, m);
        product(h, out + first * H, H, h->scores, h->np, 1, h->right, m, h->n);
    }
}

/* With P the probabilities, M the mask, G = M (dout v^T), delta_i = sum_j P_ij G_ij, which is <dout_i, out_i>:
 *   dv = (P M)^T dout;  dS = P (G - delta) scale;  dq = dS k;  dk = dS^T q.
 * delta by P and G: then the rows of dS add up to 0 however out was rounded. */
static void head_backward(head *h, float *dq, float *dk, float *dv, const float *dout, int64_t H) {
    float *right = h->right, *grad = h->grad;
    transpose_padded(h->transposed, h->k, h->kv_stride, h->n, h->D, h->np);
    probabilities(h, NULL, 0, h->m);
    copy_padded(grad, dout, H, h->m, h->D, h->Dp);
    transpose_padded(h->transposed, h->v, h->kv_stride, h->n, h->D, h->np);
    multiply(h->dscores, h->np, grad, h->Dp, 1, h->transposed, h->np, h->m, h->np, h->D);
    masked(h, h->dscores, 0, h->m);
    for (int64_t i = 0; i < h->m; i++) {
        float *ds = h->dscores + i * h->np, delta = 0;
        const float *p = h->scores + i * h->np;
#pragma omp simd reduction(+ : delta)
        for (int64_t j = 0; j < h->np; j++) delta += p[j] * ds[j];
#pragma omp simd
        for (int64_t j = 0; j < h->np; j++) ds[j] = p[j] * (ds[j] - delta) * h->scale;
    }
    copy_padded(right, h->k, h->kv_stride, h->n, h->D, h->Dp);
    product(h, dq, h->q_stride, h->dscores, h->np, 1, right, h->m, h->n);
    copy_padded(right, h->q, h->q_stride, h->m, h->D, h->Dp);
    product(h, dk, h->kv_stride, h->dscores, 1, h->np, right, h->n, h->m);
    masked(h, h->scores, 0, h->m);
    product(h, dv, h->kv_stride, h->scores, 1, h->np, grad, h->n, h->m);
}

/* -- the operations -------------------------------------------------------------------------------------- */

static rp_status task_scratch(const rp_dev *dev, int64_t *floats, const int32_t *cu_seqlens, int64_t S, int64_t D) {
    int64_t longest = 0;
    for (int64_t s = 0; s < S; s++) longest = at_least(cu_seqlens[s + 1] - cu_seqlens[s], longest);
    *floats = round_up(task_floats(longest, D), 64);
    size_t needed = (size_t)(*floats * dev->num_threads) * sizeof(float);
    if (dev->scratch_bytes < needed)
        return rp_fail(RP_STATUS_STATE, "attention: %zu bytes of scratch, %zu needed for sequences of %lld tokens",
                       dev->scratch_bytes, needed, (long long)longest);
    return RP_OK;
}

rp_status RP_CPU(attention_forward)(rp_dev *dev, float *out, float *lse, const float *q, const float *k, const float *v,
                                    const int32_t *cu_seqlens, const int32_t *cu_queries, const int32_t *query_pos,
                                    const rp_dropout *d, int64_t S, int64_t R, int64_t A, int64_t D, int64_t q_stride,
                                    int64_t kv_stride) {
    int64_t floats, H = A * D;
    call c = {q, k, v, cu_seqlens, cu_queries, query_pos, d, D, q_stride, kv_stride};
    RP_TRY(task_scratch(dev, &floats, cu_seqlens, S, D));
#pragma omp parallel num_threads(team(dev, R *H))
    {
        uint32_t mode = rp_threads_flush_denormals();
        float *scratch = (float *)dev->scratch + omp_get_thread_num() * floats;
#pragma omp for schedule(static, 4)
        for (int64_t task = 0; task < S * A; task++) {
            int64_t s = task / A, a = task % A, row = cu_queries[s];
            head h;
            head_open(&h, scratch, &c, s, a);
            head_forward(&h, out + row * H + a * D, lse + a * R + row, H);
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}

/* The scores are made anew with their own sums: out and lse serve back ends that go through the keys in blocks. */
rp_status RP_CPU(attention_backward)(rp_dev *dev, float *dq, float *dk, float *dv, const float *dout, const float *out,
                                     const float *lse, const float *q, const float *k, const float *v,
                                     const int32_t *cu_seqlens, const int32_t *cu_queries, const int32_t *query_pos,
                                     const rp_dropout *d, int64_t S, int64_t R, int64_t A, int64_t D, int64_t q_stride,
                                     int64_t kv_stride) {
    int64_t floats, H = A * D;
    call c = {q, k, v, cu_seqlens, cu_queries, query_pos, d, D, q_stride, kv_stride};
    (void)out, (void)lse;
    RP_TRY(task_scratch(dev, &floats, cu_seqlens, S, D));
#pragma omp parallel num_threads(team(dev, R *H))
    {
        uint32_t mode = rp_threads_flush_denormals();
        float *scratch = (float *)dev->scratch + omp_get_thread_num() * floats;
#pragma omp for schedule(static, 4)
        for (int64_t task = 0; task < S * A; task++) {
            int64_t s = task / A, a = task % A, row = cu_queries[s], token = cu_seqlens[s] * kv_stride + a * D;
            head h;
            head_open(&h, scratch, &c, s, a);
            head_backward(&h, dq + row * q_stride + a * D, dk + token, dv + token, dout + row * H + a * D, H);
        }
        rp_threads_restore(mode);
    }
    return RP_OK;
}
