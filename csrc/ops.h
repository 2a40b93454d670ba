/* THE table of operations: everything the models, losses and the optimiser ask of a device. Level 1.
 *
 * The table exists once per back end: `ref` (plain scalar C with double accumulators, the executable specification),
 * `cpu` (OpenMP + SIMD, one instance per instruction-set level) and `cuda`. Code above this line is written once and
 * never tests the device.
 *
 * Glossary, used in every shape comment:
 *   T tokens in the batch     S sequences      H hidden size     A attention heads    D = H/A head size
 *   F feed-forward size       V vocabulary     L layers          R rows picked        C columns (classes)
 *   I, O inputs and outputs of a linear map    N plain elements
 *   W rows of a window        G segments, runs of neighbouring rows
 * Batches are packed: the tokens of all sequences stand one after another, sequence s at rows
 * cu_seqlens[s] .. cu_seqlens[s+1] (int32[S+1]); there is no padding.
 *
 * Conventions
 *   - Arguments: device, outputs, saved statistics, inputs, sizes, flags. Sizes are int64_t.
 *   - Matrices are row-major and dense unless a stride is given. Pointers are device pointers, except where "host" is
 * said.
 *   - Gradients are called d<name>. Parameter gradients ACCUMULATE (+=); activation gradients OVERWRITE (=).
 *     Exceptions: rows_scatter_add and mean_backward add into dinp; linear_backward adds into dinp when `accumulate`.
 *   - <name>_bits are <name>'s bits as `narrow` has them. They are NULL but where the back end takes them
 * (rp_ops.bits), dev->products is RP_BFLOAT16 and layers keep bits. Then an output is written in each form that is not
 * NULL, and an input is read as its bits, and <name> may be NULL.
 *   - Outputs do not overlap inputs unless the contract says "may alias". Pointers are aligned to their element.
 *   - Sizes may be 0, except H and D. A sequence has at least one token, at most 65536.
 *   - Every result is independent of the number of threads, byte for byte.
 *   - Scratch memory comes from the device (rp_dev.scratch), reserved before the first step; nothing is allocated here.
 *   - An operation fails only before it writes: sizes out of range (VALUE) or too little scratch (STATE). Those of
 * whole layers may have written by then.
 */
#ifndef RP_OPS_H
#define RP_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct rp_ops rp_ops;
typedef struct rp_kept rp_kept;

/* In what matrix products are computed; everything else is float32 always.
 * bfloat16: operands rounded to 8 bits of mantissa, ties to even, products summed in float32.
 * int8, forward only: every row of inp and of weight rounded to 255 values around 0, -127 … 127 times its largest
 * magnitude / 127, ties to even; products summed exactly.
 * tf32: operands rounded to 11 bits of mantissa where the back end has such products (rp_ops_has), else as float32.
 * two bfloat16: where the back end gains by it, operands as sums of two numbers of bfloat16, together 16 bits of
 * mantissa, of whose four products that of the lesser ones is left out; else as float32. */
typedef enum rp_dtype { RP_FLOAT32, RP_BFLOAT16, RP_INT8, RP_TF32, RP_TWO_BFLOAT16 } rp_dtype;

/* The sizes that an operation is called with at most, for its scratch. */
typedef struct rp_extent {
    int64_t rows;      /* of a matrix product's operands: T */
    int64_t widest;    /* columns, of H, 3H, F, I and O */
    int64_t weight;    /* numbers of a weight, O x I; 0: there is no matrix product */
    int64_t max_len;   /* tokens of a sequence */
    int64_t head_size; /* D */
} rp_extent;

/* An opened device. `scratch` is shared by all operations, so one device serves one call at a time. */
typedef struct rp_dev {
    const rp_ops *ops;
    int64_t num_threads; /* of the host's; other back ends do not read it */
    void *scratch;
    size_t scratch_bytes;
    rp_kept *kept;       /* what keep_weights keeps; of the back end */
    int (*poll)(void *); /* asked between operations of long calls; not 0: stop (RP_STATUS_INTERRUPT). May be NULL */
    void *poll_context;
    rp_dtype products; /* of linear_forward, linear_gelu_forward and linear_backward, which refuses int8 (VALUE);
                          RP_BFLOAT16: of attention too, where the back end has it */
    void *state;       /* the back end's own */
} rp_dev;

/* Dropout of one place in the network (inverted: kept values are scaled).
 * Decision for row r, column c: let (x0..x3) = rp_philox(key, c / 8, row, sample, *step); the 16-bit piece number c % 8
 * of these words, low half of x0 first, is compared with threshold = round(65536 p); the element is dropped when
 * piece < threshold, else multiplied by 65536 / (65536 - threshold).
 * `row` is the token's place in its sequence (plus head * 65536 for attention), `sample` the sequence's number in the
 * step: the mask of a sentence depends neither on its neighbours nor on the micro-batch it stands in. */
typedef struct rp_dropout {
    uint64_t key;            /* rp_rng_key(seed, RP_PURPOSE_DROPOUT, site) */
    const int32_t *step;     /* (1) its bits, of an unsigned number */
    const int32_t *sample;   /* (S) */
    const int32_t *sequence; /* (T) sequence of each token */
    const int32_t *pos;      /* (T) place of each token in its sequence */
    uint32_t threshold;      /* 0: no dropout, and the arrays are not read */
    uint32_t none;           /* 0, so that equal ones are equal byte for byte */
} rp_dropout;

/* Softmax cross-entropy over C candidates with exclusions, for every loss that chooses one of several. */
typedef struct rp_xent {
    const int32_t *target;    /* (R) column of the right candidate; -1: the row is not counted */
    const int32_t *skip;      /* (R) a column that is no candidate (the anchor itself), -1 none; or NULL */
    const int32_t *row_group; /* (R), with col_group (C): candidates of the row's own group (0 or more; a */
    const int32_t *col_group; /*      negative one matches none), target apart, are excluded, or are further
                                 positives when `supervised`; or both NULL */
    int32_t supervised;       /* loss = mean over positives of -log p (Khosla et al. 2020, equation 2) */
    float scale;              /* logits are multiplied by this, above 0 (1 / temperature) */
    float weight;             /* gradients are multiplied by this (1 / rows counted x loss weight) */
    float smoothing;          /* this share of the wanted distribution is spread evenly over the candidates, the rest
                                 over the positives (Szegedy et al. 2016, section 7); 0 <= smoothing < 1 */
} rp_xent;

/* AdamW (Loshchilov and Hutter 2019), decoupled decay, bias-corrected:
 *   g = grad_scale * grad;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *   p = p - lr * weight_decay * p - lr * (m / correction1) / (sqrt(v / correction2) + eps)     correction_i = 1 - b_i^t
 */
typedef struct rp_adamw_step {
    float lr, beta1, beta2, eps, weight_decay, correction1, correction2, grad_scale;
} rp_adamw_step;

/* SGD with momentum, the velocity without the learning rate (Sutskever et al. 2013, as PyTorch has it):
 *   g = grad_scale * grad + weight_decay * p;  m = momentum m + g;  p = p - lr * m */
typedef struct rp_sgd_step {
    float lr, momentum, weight_decay, grad_scale;
} rp_sgd_step;

/* Functions of one number whose derivative follows from their value: tanh, and max(x, 0). Both are 0 at 0. */
typedef enum rp_activation { RP_TANH, RP_RELU, RP_ACTIVATIONS } rp_activation;

/* X(name, arguments). Basic operations: every back end has them. */
#define RP_OPS_BASIC(X)                                                                                                \
    /* Makes and frees dev->state; every other operation is called between the two. */                                 \
    X(open, (rp_dev * dev))                                                                                            \
    X(close, (rp_dev * dev))                                                                                           \
    /* *bytes (host) = the scratch that operations need at most, in dev->products, for sizes of at most these. */      \
    X(scratch, (rp_dev * dev, int64_t *bytes, const rp_extent *most))                                                  \
    /* Device memory: allocated zeroed, RP_ALIGN-aligned. `reserve` grows dev->scratch to at least `bytes`. */         \
    X(alloc, (rp_dev * dev, void **out, int64_t bytes))                                                                \
    X(release, (rp_dev * dev, void *memory))                                                                           \
    X(reserve, (rp_dev * dev, int64_t bytes))                                                                          \
    /* `host` may change, and be freed, once upload has returned; download returns when the bytes are there. */        \
    X(upload, (rp_dev * dev, void *out, const void *host, int64_t bytes))                                              \
    X(download, (rp_dev * dev, void *host, const void *inp, int64_t bytes))                                            \
    X(zero, (rp_dev * dev, void *out, int64_t bytes))                                                                  \
    /* Says that values(count) stay as they are as long as `version` is the same: what products make of them may be    \
     * kept in memory of the device, from one call to the next. A call with another version says that they have        \
     * changed; values NULL frees that memory. Changes no result. */                                                   \
    X(keep_weights, (rp_dev * dev, const float *values, int64_t count, int64_t version))                               \
                                                                                                                       \
    /* out(T,O) = inp(T,I) weight(O,I)^T + bias(O); bias may be NULL. */                                               \
    X(linear_forward, (rp_dev * dev, float *out, const float *inp, const float *weight, const float *bias, int64_t T,  \
                       int64_t I, int64_t O))                                                                          \
    /* dinp(T,I) = dout(T,O) weight (added when accumulate); dweight(O,I) += dout^T inp; dbias(O) += column sums.      \
     * Each of dinp, dweight, dbias may be NULL and is then left out. */                                               \
    X(linear_backward, (rp_dev * dev, float *dinp, float *dweight, float *dbias, const float *dout, const float *inp,  \
                        const float *weight, int64_t T, int64_t I, int64_t O, int64_t accumulate))                     \
                                                                                                                       \
    /* out(T,H) = word[ids] + position[pos] + type; ids, pos int32(T); word(V,H), position(P,H), type(H). */           \
    X(embed_forward, (rp_dev * dev, float *out, const int32_t *ids, const int32_t *pos, const float *word,             \
                      const float *position, const float *type, int64_t T, int64_t H))                                 \
    X(embed_backward, (rp_dev * dev, float *dword, float *dposition, float *dtype, const float *dout,                  \
                       const int32_t *ids, const int32_t *pos, int64_t T, int64_t H))                                  \
                                                                                                                       \
    /* out(T,H) = inp with dropout; its own backward (applied to dout with the same d). out may alias inp. */          \
    X(dropout_forward, (rp_dev * dev, float *out, const float *inp, const rp_dropout *d, int64_t T, int64_t H))        \
    /* out(N) = a + b; out may alias either. */                                                                        \
    X(add_forward, (rp_dev * dev, float *out, const float *a, const float *b, int64_t N))                              \
                                                                                                                       \
    /* out(T,H) = (inp - mean) * rstd * gamma(H) + beta(H); mean(T), rstd(T) = 1/sqrt(var + eps), var biased. out may  \
     * alias inp. */                                                                                                   \
    X(layernorm_forward, (rp_dev * dev, float *out, uint16_t *out_bits, float *mean, float *rstd, const float *inp,    \
                          const float *gamma, const float *beta, float eps, int64_t T, int64_t H))                     \
    X(layernorm_backward,                                                                                              \
      (rp_dev * dev, float *dinp, float *dgamma, float *dbeta, const float *dout, const float *inp, const float *mean, \
       const float *rstd, const float *gamma, int64_t T, int64_t H))                                                   \
                                                                                                                       \
    /* out(N) = x (1 + erf(x / sqrt 2)) / 2: the erf form that BERT uses, not the tanh one. out may alias inp. */      \
    X(gelu_forward, (rp_dev * dev, float *out, const float *inp, int64_t N))                                           \
    /* dinp(N) = dout * gelu'(inp); dinp may alias dout. */                                                            \
    X(gelu_backward, (rp_dev * dev, float *dinp, const float *dout, const float *inp, int64_t N))                      \
                                                                                                                       \
    /* kept(N) = bits of inp rounded to bfloat16 as an operand of its products is; inp becomes the rounded values. */  \
    X(narrow, (rp_dev * dev, uint16_t *kept, float *inp, int64_t N))                                                   \
    /* out(N) = the values of such bits. */                                                                            \
    X(widen, (rp_dev * dev, float *out, const uint16_t *kept, int64_t N))                                              \
                                                                                                                       \
    /* Attention inside each sequence: the R queries ask the keys of the tokens of their sequence.                     \
     * k and v hold a row (A,D) for each token, kv_stride apart; q one for each query, q_stride apart. The queries     \
     * of sequence s are rows cu_queries[s] .. cu_queries[s+1], query_pos(R) their places in it, ascending: all        \
     * tokens or some, none twice.                                                                                     \
     * P = dropout(softmax(q k^T / sqrt D)); out(R,H) = P v; lse(A,R) = log-sum-exp of the scaled scores of a row.     \
     * Dropout: row = head * 65536 + place of the query, column = place of the key.                                    \
     * Where dev->products is RP_BFLOAT16, the operands of these products may be rounded so. */                        \
    X(attention_forward,                                                                                               \
      (rp_dev * dev, float *out, float *lse, const float *q, const float *k, const float *v,                           \
       const int32_t *cu_seqlens, const int32_t *cu_queries, const int32_t *query_pos, const rp_dropout *d, int64_t S, \
       int64_t R, int64_t A, int64_t D, int64_t q_stride, int64_t kv_stride))                                          \
    /* dq, dk and dv stand as q, k and v do. */                                                                        \
    X(attention_backward,                                                                                              \
      (rp_dev * dev, float *dq, float *dk, float *dv, const float *dout, const float *out, const float *lse,           \
       const float *q, const float *k, const float *v, const int32_t *cu_seqlens, const int32_t *cu_queries,           \
       const int32_t *query_pos, const rp_dropout *d, int64_t S, int64_t R, int64_t A, int64_t D, int64_t q_stride,    \
       int64_t kv_stride))                                                                                             \
                                                                                                                       \
    /* out[r * stride .. + H] = inp[rows[r]], r < R: picks rows into a column block of a wider matrix. rows int32(R).  \
     */                                                                                                                \
    X(rows_gather,                                                                                                     \
      (rp_dev * dev, float *out, int64_t stride, const float *inp, const int32_t *rows, int64_t R, int64_t H))         \
    /* dinp[rows[r]] += dout[r * stride .. + H], in the order of r (rows may repeat). */                               \
    X(rows_scatter_add,                                                                                                \
      (rp_dev * dev, float *dinp, const float *dout, int64_t stride, const int32_t *rows, int64_t R, int64_t H))       \
    /* out[s * stride .. + H] = mean of rows first[s] .. end[s] of inp(T,H); first, end int32(S), one row at least. Of \
     * whole sequences: cu_seqlens and cu_seqlens + 1. */                                                              \
    X(mean_forward, (rp_dev * dev, float *out, int64_t stride, const float *inp, const int32_t *first,                 \
                     const int32_t *end, int64_t S, int64_t H))                                                        \
    /* dinp(T,H) += dout[s * stride .. + H] / rows, in these rows, of which no two s have one in common. */            \
    X(mean_backward, (rp_dev * dev, float *dinp, const float *dout, int64_t stride, const int32_t *first,              \
                      const int32_t *end, int64_t S, int64_t H))                                                       \
    /* out(R,H) = inp / norm, norm(R) = max(|inp|_2, 1e-12) per row. */                                                \
    X(normalize_forward, (rp_dev * dev, float *out, float *norm, const float *inp, int64_t R, int64_t H))              \
    /* dinp = (dout - out <out, dout>) / norm. dinp may alias dout. */                                                 \
    X(normalize_backward,                                                                                              \
      (rp_dev * dev, float *dinp, const float *dout, const float *out, const float *norm, int64_t R, int64_t H))       \
                                                                                                                       \
    /* out[r * stride] = <a_r, b_r>, rows a_r = a + r * inp_stride and b_r = b + r * inp_stride of H. */               \
    X(rows_dot_forward, (rp_dev * dev, float *out, int64_t stride, const float *a, const float *b, int64_t inp_stride, \
                         int64_t R, int64_t H))                                                                        \
    /* da_r = dout[r * stride] b_r and db_r = dout[r * stride] a_r, which stand as a and b do. */                      \
    X(rows_dot_backward, (rp_dev * dev, float *da, float *db, const float *dout, int64_t stride, const float *a,       \
                          const float *b, int64_t inp_stride, int64_t R, int64_t H))                                   \
                                                                                                                       \
    /* out(N) = f(inp), f = `kind`, an rp_activation. out may alias inp. */                                            \
    X(activation_forward, (rp_dev * dev, float *out, const float *inp, int64_t N, int64_t kind))                       \
    /* dinp(N) = dout * f'(inp), from out = f(inp): 1 - out^2 of tanh; 1 where out > 0, else 0, of max(x, 0). dinp may \
     * alias dout. */                                                                                                  \
    X(activation_backward, (rp_dev * dev, float *dinp, const float *dout, const float *out, int64_t N, int64_t kind))  \
                                                                                                                       \
    /* out(T,W,H): row t's window, rows t - (W - 1) / 2 .. t + W / 2 of inp(T,H); those beyond the ends of t's         \
     * sequence are 0. A convolution is linear_forward of it. */                                                       \
    X(window_forward,                                                                                                  \
      (rp_dev * dev, float *out, const float *inp, const int32_t *cu_seqlens, int64_t S, int64_t W, int64_t H))        \
    /* dinp(T,H): of each row, the sum over its places in windows of dout(T,W,H), from the window's first place on. */ \
    X(window_backward,                                                                                                 \
      (rp_dev * dev, float *dinp, const float *dout, const int32_t *cu_seqlens, int64_t S, int64_t W, int64_t H))      \
                                                                                                                       \
    /* out(G,H) = the largest of each column over the rows cu_segments[g] .. cu_segments[g+1] of inp(T,H), and         \
     * row(G,H) where it stands: the first of equals; a NaN is larger than all. A segment without rows: 0 and row -1.  \
     * Segments begin at row 0, end at T, and follow on each other. */                                                 \
    X(segment_max_forward,                                                                                             \
      (rp_dev * dev, float *out, int32_t *row, const float *inp, const int32_t *cu_segments, int64_t G, int64_t H))    \
    /* dinp(T,H) = dout(G,H) where the maxima stand, 0 elsewhere. */                                                   \
    X(segment_max_backward, (rp_dev * dev, float *dinp, const float *dout, const int32_t *row,                         \
                             const int32_t *cu_segments, int64_t G, int64_t H))                                        \
                                                                                                                       \
    /* Row r: z = x->scale * logits over its candidates; loss(R) = -log softmax(z)[target] (rp_xent for exclusions,    \
     * several positives and smoothing); correct(R) = 1 when the largest candidate is a positive (the first of equals  \
     * wins), else 0. logits(R,C) become d loss / d logits * x->weight, 0 where excluded. Rows not counted: loss,      \
     * correct and gradient 0. Negatives without any positive cannot occur: the target is always one. */               \
    X(softmax_xent,                                                                                                    \
      (rp_dev * dev, float *logits, float *loss, int32_t *correct, const rp_xent *x, int64_t R, int64_t C))            \
                                                                                                                       \
    /* *out (host) = sum of squares of inp(N), in double. */                                                           \
    X(sum_squares, (rp_dev * dev, double *out, const float *inp, int64_t N))                                           \
    X(adamw_update,                                                                                                    \
      (rp_dev * dev, float *param, float *m, float *v, const float *grad, const rp_adamw_step *h, int64_t N))          \
    /* m may be NULL where momentum is 0. */                                                                           \
    X(sgd_update, (rp_dev * dev, float *param, float *m, const float *grad, const rp_sgd_step *h, int64_t N))

/* Coarse operations: optional in a back end; rp_ops_complete fills a missing one with the composition of basic ones. */
#define RP_OPS_COARSE(X)                                                                                               \
    /* The operations between list_begin and list_end, if these are of one thread, may be carried out at list_end, all \
     * at once. They read and write what those one after another would; none is a transfer, or asks for a number or    \
     * for memory (STATE): alloc, release, reserve, upload, download, keep_weights, sum_squares. `status` is how the   \
     * caller fared, and what list_end returns unless it fails itself: but for RP_OK, some may be left undone. */      \
    X(list_begin, (rp_dev * dev))                                                                                      \
    X(list_end, (rp_dev * dev, int64_t status))                                                                        \
    /* pre(T,O) = linear_forward; act(T,O) = gelu_forward(pre). act may alias pre. */                                  \
    X(linear_gelu_forward, (rp_dev * dev, float *act, float *pre, const float *inp, const float *weight,               \
                            const float *bias, int64_t T, int64_t I, int64_t O))                                       \
    /* sum(T,H) = dropout(inp) + residual; out = layernorm(sum). sum may alias inp; NULL: it is not kept, and          \
     * out is there. */                                                                                                \
    X(residual_layernorm_forward, (rp_dev * dev, float *out, uint16_t *out_bits, float *sum, float *mean, float *rstd, \
                                   const float *inp, const float *residual, const float *gamma, const float *beta,     \
                                   const rp_dropout *d, float eps, int64_t T, int64_t H))                              \
    /* dresidual(T,H) = layernorm_backward(dout); dinp(T,H) = dropout(dresidual). */                                   \
    X(residual_layernorm_backward, (rp_dev * dev, float *dinp, uint16_t *dinp_bits, float *dresidual, float *dgamma,   \
                                    float *dbeta, const float *dout, const float *sum, const float *mean,              \
                                    const float *rstd, const float *gamma, const rp_dropout *d, int64_t T, int64_t H)) \
                                                                                                                       \
    /* A layer's feed-forward: pre(T,F) = linear_forward of inp(T,H); act(T,F) = gelu_forward(pre); out(T,H) =         \
     * linear_forward(act). What the backward pass reads is pre; or, where kept is not NULL, kept(T,F), pre's bits as  \
     * narrow has them. Where keep is 0 nothing is kept, and both may be NULL. act is room, of which nobody reads what \
     * it holds afterwards, and so is pre beside kept. In products of bfloat16 act may be made of rounded values where \
     * pre itself is not kept. */                                                                                      \
    X(feed_forward_forward,                                                                                            \
      (rp_dev * dev, float *out, float *pre, uint16_t *kept, float *act, const float *inp, const uint16_t *inp_bits,   \
       const float *up_weight, const float *up_bias, const float *down_weight, const float *down_bias, int64_t T,      \
       int64_t H, int64_t F, int64_t keep))                                                                            \
    /* From dout(T,H): dinp(T,H) += and the parameters' gradients. dact(T,F) and act(T,F) are room. */                 \
    X(feed_forward_backward,                                                                                           \
      (rp_dev * dev, float *dinp, float *dup_weight, float *dup_bias, float *ddown_weight, float *ddown_bias,          \
       float *dact, float *act, const float *dout, const uint16_t *dout_bits, const float *inp,                        \
       const uint16_t *inp_bits, const float *pre, const uint16_t *kept, const float *up_weight,                       \
       const float *down_weight, int64_t T, int64_t H, int64_t F))                                                     \
                                                                                                                       \
    /* A layer's attention with its projections; H = A D. Where R < T, asking(R,H) are the rows of inp(T,H) that ask   \
     * (attention_forward's queries), and qkv holds keys and values (T,2H), then queries (R,H); where R = T all do,    \
     * asking is inp, and qkv is (T,3H), a token's query, key and value side by side. qkv_weight(3H,H) is that of      \
     * queries, keys, values. attended(R,H) = attention_forward; out(R,H) = linear_forward(attended). attended is      \
     * room; kept and keep are to qkv what they are to pre in feed_forward_forward, but qkv is never NULL. */          \
    X(self_attention_forward,                                                                                          \
      (rp_dev * dev, float *out, float *lse, float *qkv, uint16_t *kept, float *attended, const float *inp,            \
       const uint16_t *inp_bits, const float *asking, const float *qkv_weight, const float *qkv_bias,                  \
       const float *out_weight, const float *out_bias, const int32_t *cu_seqlens, const int32_t *cu_queries,           \
       const int32_t *query_pos, const rp_dropout *d, int64_t S, int64_t T, int64_t R, int64_t A, int64_t D,           \
       int64_t keep))                                                                                                  \
    /* From dout(R,H): the parameters' gradients and dasking(R,H) +=; where R < T that is of queries alone, and        \
     * dinp(T,H) = that of keys and values, else of all three, and dinp is not read. dqkv, as large as qkv,            \
     * dattended(R,H) and attended(R,H) are room, and so is qkv where kept is not NULL; lse is made again. */          \
    X(self_attention_backward,                                                                                         \
      (rp_dev * dev, float *dinp, float *dasking, float *dqkv_weight, float *dqkv_bias, float *dout_weight,            \
       float *dout_bias, float *dqkv, float *dattended, float *attended, float *qkv, const uint16_t *kept, float *lse, \
       const float *dout, const uint16_t *dout_bits, const float *inp, const uint16_t *inp_bits, const float *asking,  \
       const float *qkv_weight, const float *out_weight, const int32_t *cu_seqlens, const int32_t *cu_queries,         \
       const int32_t *query_pos, const rp_dropout *d, int64_t S, int64_t T, int64_t R, int64_t A, int64_t D))

#define RP_OPS_SLOT(name, arguments) rp_status(*name) arguments;
struct rp_ops {
    const char *name; /* "ref", "cpu/avx512", … */
    int concurrent;   /* 1: devices of several threads compute beside each other, each on its own thread */
    int64_t chunk;    /* rows of scores of a whole vocabulary that are best made at a time */
    int64_t bits;     /* layers of encoders take and give operands as bits (<name>_bits) for heads of up to this size */
    int bucket;       /* not 0: it gains where the same work comes again (list_begin), and the tokens of a small batch
                         are filled up to a multiple of this */
    RP_OPS_BASIC(RP_OPS_SLOT) RP_OPS_COARSE(RP_OPS_SLOT)
};

/* The back ends, complete tables. NULL when this machine or build has no such back end (rp_message says why).
 * Names: "ref", "cpu" (the best level, or the one in the environment variable RELPT_CPU), "cpu/baseline", "cpu/avx2",
 * "cpu/avx512", "cpu/amx"; and "cuda" once it is registered. */
const rp_ops *rp_ops_find(const char *name);

/* A back end that is a library of its own. It is compiled with a copy of this header, of status.c and of composed.c. */
typedef struct rp_backend {
    const char *const *contract; /* RP_OPS_CONTRACT as it was compiled, and NULL */
    const int64_t *sizes;        /* RP_OPS_SIZES, and 0 */
    const rp_ops *table;
    void (*relay)(rp_relay *to); /* its rp_fail_relay */
} rp_backend;

#define RP_OPS_LINE(name, arguments) #name " " #arguments,
#define RP_OPS_CONTRACT RP_OPS_BASIC(RP_OPS_LINE) RP_OPS_COARSE(RP_OPS_LINE)
#define RP_OPS_SIZES                                                                                                   \
    sizeof(rp_ops), sizeof(rp_dev), sizeof(rp_extent), sizeof(rp_dropout), sizeof(rp_xent), sizeof(rp_adamw_step),     \
        sizeof(rp_sgd_step)

/* Adds it under its table's name ("cuda"); once more does nothing. Its failures' texts are rp_message's from here on.
 * STATE: it was compiled against another table, or lacks a basic operation; names the first. */
rp_status rp_ops_register(const rp_backend *backend);

/* Whether the back end has instructions for products of this kind; others round and multiply float32, which is slower.
 */
int rp_ops_has(const rp_ops *ops, rp_dtype products);

/* VALUE when products have no gradients: linear_backward's refusal. */
rp_status rp_dev_check_gradients(const rp_dev *dev);

/* A slot by its name, for tests; NULL when there is none. */
void (*rp_ops_slot(const rp_ops *ops, const char *slot))(void);

/* Fills missing coarse slots; RP_STATUS_STATE names a missing basic one. */
rp_status rp_ops_complete(rp_ops *ops);

/* Opens and closes a device. num_threads >= 1. */
rp_status rp_dev_open(rp_dev **out, const char *backend, int64_t num_threads);
void rp_dev_close(rp_dev *dev);

/* RP_STATUS_INTERRUPT when the device's poll asks to stop. */
rp_status rp_dev_poll(rp_dev *dev);

/* Reserves the scratch that operations need for these sizes. */
rp_status rp_dev_reserve(rp_dev *dev, const rp_extent *most);

/* round(65536 p) for rp_dropout.threshold, p < 1; at most 65535. */
uint32_t rp_dropout_threshold(double p);

#endif
